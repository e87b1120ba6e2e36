//! `memtrace export`: a recorded trace in another format.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use crate::export::folded;
use crate::export::jsonl::JsonLines;
use crate::export::pprof::{self, About};
use crate::report::reading::{Filter, ProfileSink, Stop, Weight, follow};
use crate::report::replay_into;
use crate::timeline::{Event, EventKind, Namer, Sink, Timeline};
use crate::trace_file::{Damage, Source};

use super::args::{Export, ExportFormat};
use super::names::TraceNames;
use super::open::open;
use super::{Failure, one_line};

/// Reads a trace to its end, or up to its damage, and writes it as asked.
pub fn export(args: &Export) -> Result<i32, Failure> {
    if args.to.is_binary() && args.output.is_none() && io::stdout().is_terminal() {
        let refused = anyhow!("this format is no text for a terminal: write it with -o FILE");
        return Err(Failure::new(2, refused));
    }
    let mut names = TraceNames::of(&args.trace);
    let mut source = open(&args.trace)?;
    let (written, name) = match &args.output {
        None => {
            let out = io::stdout().lock();
            (
                write(&mut *source, args, &mut names, out),
                "stdout".to_owned(),
            )
        }
        Some(path) => {
            refuse_the_same_file(&args.trace, path)?;
            let out = create(path)
                .with_context(|| format!("cannot write to {}", path.display()))
                .map_err(|error| Failure::new(2, error))?;
            let written = write(&mut *source, args, &mut names, out);
            (written, path.display().to_string())
        }
    };
    let written = match written {
        Ok(written) => written,
        Err(Trouble::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
        Err(Trouble::Write(error)) => {
            let error = anyhow::Error::new(error).context(format!("cannot write to {name}"));
            return Err(Failure::new(2, error));
        }
        Err(Trouble::Read(error)) => {
            let what = format!("cannot read {}", args.trace.display());
            return Err(Failure::new(2, anyhow::Error::new(error).context(what)));
        }
    };
    let say = |text: &str| {
        let text = format!("{}: {text}", args.trace.display());
        let _ = writeln!(io::stderr().lock(), "memtrace: {}", one_line(&text));
    };
    let notes = written.notes.into_iter().chain(names.take_notes());
    notes.for_each(|note| say(&note));
    if !written.with_bytes && args.weight == Weight::Touched {
        say("no page faults (record them with --touch): nothing is written");
    } else if !written.with_stacks {
        say("no stacks (record them with -k): calls stand under their names");
    }
    if let Some(damage) = &written.damage {
        say(&damage.to_string());
    }
    Ok(0)
}

/// Which side failed.
enum Trouble {
    Read(io::Error),
    Write(io::Error),
}

/// What there is to say beside the result.
struct Written {
    damage: Option<Damage>,
    with_stacks: bool,
    with_bytes: bool,
    notes: Vec<String>,
}

fn write(
    source: &mut dyn Source,
    args: &Export,
    names: &mut dyn Namer,
    out: impl Write,
) -> Result<Written, Trouble> {
    match args.to {
        ExportFormat::Jsonl => lines(source, out),
        ExportFormat::Folded | ExportFormat::Pprof => stacks(source, args, names, out),
    }
}

fn lines(source: &mut dyn Source, out: impl Write) -> Result<Written, Trouble> {
    let mut lines = Noting {
        sink: JsonLines::without_report(out, source.info()),
        failed: None,
    };
    let report = replay_into(source, &mut [&mut lines]);
    if let Some(error) = lines.failed {
        return Err(Trouble::Write(error));
    }
    let report = report.map_err(Trouble::Read)?;
    let end = lines.sink.end(&report, &source.notes());
    end.map_err(Trouble::Write)?;
    Ok(Written {
        damage: report.damage,
        with_stacks: true,
        with_bytes: true,
        // They are in the last line.
        notes: Vec::new(),
    })
}

fn stacks(
    source: &mut dyn Source,
    args: &Export,
    names: &mut dyn Namer,
    out: impl Write,
) -> Result<Written, Trouble> {
    let mut sink = Profiled {
        profile: match args.weight {
            Weight::Touched => ProfileSink::touchers(Filter::default()),
            _ => ProfileSink::new(Filter::default()),
        },
        about: About {
            info: source.info().clone(),
            ..About::default()
        },
    };
    let told = follow(source, Stop::End, &mut sink).map_err(Trouble::Read)?;
    let profile = sink.profile.into_profile();
    let mut out = io::BufWriter::new(out);
    let written = match args.to {
        ExportFormat::Pprof => pprof::write(&mut out, &profile, names, &sink.about),
        _ => folded::write(&mut out, &profile, names, args.weight),
    };
    written.and_then(|()| out.flush()).map_err(Trouble::Write)?;
    Ok(Written {
        damage: told.damage,
        with_stacks: !profile.stacks.is_empty(),
        with_bytes: !profile.entries.is_empty(),
        notes: told.notes,
    })
}

/// A profile, and what there is to say about it.
struct Profiled {
    profile: ProfileSink,
    about: About,
}

impl Sink for Profiled {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        match &event.kind {
            EventKind::File(file) if !file.build_id.is_empty() => {
                let ids = self.about.build_ids.entry(Arc::clone(&file.path));
                ids.or_insert_with(|| Arc::clone(&file.build_id));
            }
            EventKind::SpaceBegan { exe, .. } if self.about.program.is_empty() => {
                self.about.program = Arc::clone(exe);
            }
            _ => {}
        }
        self.profile.event(event, timeline)
    }

    fn finish(&mut self, timeline: &Timeline) -> io::Result<()> {
        self.profile.finish(timeline)
    }
}

/// A sink that keeps why it failed, so that failing to write is told from failing to read.
struct Noting<S> {
    sink: S,
    failed: Option<io::Error>,
}

impl<S> Noting<S> {
    fn note(&mut self, done: io::Result<()>) -> io::Result<()> {
        done.map_err(|error| {
            let kind = error.kind();
            self.failed = Some(error);
            kind.into()
        })
    }
}

impl<S: Sink> Sink for Noting<S> {
    fn observation(&mut self, observation: &crate::timeline::Observation) -> io::Result<()> {
        let done = self.sink.observation(observation);
        self.note(done)
    }

    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        let done = self.sink.event(event, timeline);
        self.note(done)
    }

    fn finish(&mut self, timeline: &Timeline) -> io::Result<()> {
        let done = self.sink.finish(timeline);
        self.note(done)
    }
}

/// A file for its owner: it holds addresses and paths, as the trace does.
fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

/// Writing would empty what is still to be read.
fn refuse_the_same_file(trace: &Path, output: &Path) -> Result<(), Failure> {
    match (trace.canonicalize(), output.canonicalize()) {
        (Ok(trace), Ok(output)) if trace == output => Err(Failure::new(
            2,
            anyhow!("-o {} would write over the trace", output.display()),
        )),
        _ => Ok(()),
    }
}
