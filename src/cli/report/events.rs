//! The events of a trace through the renderers of a live run: the same text, byte for byte.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use crate::abi::CallSet;
use crate::export::jsonl::{JsonLines, StackLines, line, put_owner, summary_line};
use crate::report::reading::{Filter, Stop, follow};
use crate::report::{json, replay_into};
use crate::timeline::{Event, Sink, Timeline};
use crate::trace_file::{Damage, Source};

use super::super::args::{Format, Report};
use super::super::names::TraceNames;
use super::super::open::open_silently;
use super::super::run::{Stacks, live};
use super::super::{Failure, style_for};
use super::{say, unreadable, written_in_part};

/// Prints the events of `trace` that are asked for.
pub(super) fn events(args: &Report, format: Format, trace: &Path) -> Result<i32, Failure> {
    let mut source = open_silently(trace)?;
    let only_calls = Filter {
        calls: args.filter.calls,
        ..Filter::default()
    };
    let names = TraceNames::of(trace);
    let told = match format {
        Format::Jsonl if args.filter == only_calls => {
            all_lines(&mut *source, only_calls.calls, names.clone())
        }
        Format::Jsonl => chosen_lines(&mut *source, &args.filter, names.clone()),
        Format::Pretty | Format::Strace => text(&mut *source, format, args, names.clone()),
    };
    names.take_notes().iter().for_each(|note| say(note));
    match told {
        Ok(damage) => {
            if let Some(damage) = damage {
                say(&damage.to_string());
            }
            Ok(0)
        }
        Err(error) if NotWritten::caused(&error) => written_in_part(error),
        Err(error) => Err(unreadable(trace)(error)),
    }
}

/// What was wrong with a trace that was told.
type Told = io::Result<Option<Damage>>;

fn text(source: &mut dyn Source, format: Format, args: &Report, names: TraceNames) -> Told {
    let filter = &args.filter;
    let style = style_for(args.color, io::stdout());
    let shown = filter.calls.unwrap_or_default();
    // As `--log FILE` has it: where nobody looks at a terminal, every line names its process.
    let to_file = !io::stdout().is_terminal();
    let out = io::BufWriter::with_capacity(1 << 16, Output);
    let stacks = Stacks {
        names: Box::new(names),
        depth: args.stack_depth,
    };
    let info = source.info();
    let renderer = live(format, out, style, shown, to_file, info, Some(stacks));
    let stop = filter.until.map_or(Stop::End, Stop::After);
    Ok(follow(source, stop, &mut Chosen { filter, renderer })?.damage)
}

/// The lines of a live run, which are a trace themselves, whichever calls they show.
fn all_lines(source: &mut dyn Source, shown: Option<CallSet>, names: TraceNames) -> Told {
    let lines = JsonLines::without_report(Output, source.info());
    let mut lines = lines.with_stacks(StackLines::new(Box::new(names)));
    if let Some(shown) = shown {
        lines = lines.showing(shown);
    }
    let report = replay_into(source, &mut [&mut lines])?;
    lines.end(&report, &source.notes())?;
    Ok(report.damage)
}

/// The header of the live format, some of its lines, and the report of the whole trace.
fn chosen_lines(source: &mut dyn Source, filter: &Filter, names: TraceNames) -> Told {
    JsonLines::without_report(Output, source.info()).idle()?;
    let mut chosen = ChosenLines {
        filter,
        text: String::new(),
        stacks: StackLines::new(Box::new(names)),
    };
    let report = replay_into(source, &mut [&mut chosen])?;
    chosen.last(&summary_line(&report))?;
    Ok(report.damage)
}

/// Hands on the events that a filter shows.
struct Chosen<'a> {
    filter: &'a Filter,
    renderer: Box<dyn Sink>,
}

impl Sink for Chosen<'_> {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        match self.filter.shows(event) {
            true => self.renderer.event(event, timeline),
            false => Ok(()),
        }
    }

    fn finish(&mut self, timeline: &Timeline) -> io::Result<()> {
        self.renderer.finish(timeline)
    }
}

/// Lines of JSON for the events that a filter shows.
struct ChosenLines<'a> {
    filter: &'a Filter,
    text: String,
    stacks: StackLines,
}

impl ChosenLines<'_> {
    fn push(&mut self, value: &serde_json::Value) {
        self.text.push_str(&json::text(value));
        self.text.push('\n');
    }

    fn last(&mut self, value: &serde_json::Value) -> io::Result<()> {
        self.push(value);
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        Output.write_all(self.text.as_bytes())?;
        self.text.clear();
        Output.flush()
    }
}

impl Sink for ChosenLines<'_> {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        if self.filter.shows(event) {
            if let Some(stack) = self.stacks.first(event, &timeline.stacks) {
                self.push(&stack);
            }
            let mut line = line(event, timeline);
            put_owner(&mut line, event, timeline, Some(&mut self.stacks));
            self.push(&line);
        }
        match 1 << 16 <= self.text.len() {
            true => self.write(),
            false => Ok(()),
        }
    }
}

/// Stdout, whose errors are told from those of reading a trace.
struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().lock().write(bytes).map_err(NotWritten::from)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush().map_err(NotWritten::from)
    }
}

/// Marks an error of writing.
#[derive(Debug)]
struct NotWritten(io::Error);

impl NotWritten {
    fn from(error: io::Error) -> io::Error {
        io::Error::new(error.kind(), NotWritten(error))
    }

    fn caused(error: &io::Error) -> bool {
        error
            .get_ref()
            .is_some_and(|inner| inner.is::<NotWritten>())
    }
}

impl fmt::Display for NotWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NotWritten {}
