//! `memtrace export`: a recorded trace in another format.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::export::jsonl::JsonLines;
use crate::report::{Report, replay_into};
use crate::timeline::Sink;
use crate::trace_file::Source;

use super::args::{Export, ExportFormat};
use super::open::open;
use super::{Failure, one_line};

/// Reads a trace to its end, or up to its damage, and writes it as asked.
pub fn export(args: &Export) -> Result<i32, Failure> {
    let mut source = open(&args.trace)?;
    let (written, name) = match &args.output {
        None => {
            let out = io::stdout().lock();
            (write(&mut *source, args.to, out), "stdout".to_owned())
        }
        Some(path) => {
            refuse_the_same_file(&args.trace, path)?;
            let out = create(path)
                .with_context(|| format!("cannot write to {}", path.display()))
                .map_err(|error| Failure::new(2, error))?;
            let written = write(&mut *source, args.to, out);
            (written, path.display().to_string())
        }
    };
    let report = match written {
        Ok(report) => report,
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
    if let Some(damage) = &report.damage {
        let text = format!("{}: {damage}", args.trace.display());
        let _ = writeln!(io::stderr().lock(), "memtrace: {}", one_line(&text));
    }
    Ok(0)
}

/// Which side failed.
enum Trouble {
    Read(io::Error),
    Write(io::Error),
}

fn write(source: &mut dyn Source, to: ExportFormat, out: impl Write) -> Result<Report, Trouble> {
    match to {
        ExportFormat::Jsonl => {
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
            Ok(report)
        }
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

    fn event(
        &mut self,
        event: &crate::timeline::Event,
        timeline: &crate::timeline::Timeline,
    ) -> io::Result<()> {
        let done = self.sink.event(event, timeline);
        self.note(done)
    }

    fn finish(&mut self, timeline: &crate::timeline::Timeline) -> io::Result<()> {
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
