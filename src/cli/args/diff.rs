//! `memtrace diff`, as clap sees it and as it is meant.

use std::path::PathBuf;

use clap::Parser;

use crate::term::ColorChoice;

use super::line::color;
use super::{UsageError, help};

pub(super) const USAGE: &str = "\
memtrace diff [OPTIONS] BEFORE AFTER
       memtrace diff [OPTIONS] --before TRACE... --after TRACE...";

pub(super) const EXAMPLES: &str = "\
What changed between two traces: exit status 0 nothing, 1 something, 2 trouble

  memtrace diff old.mtr new.mtr
  memtrace diff --before old[1-5].mtr --after new[1-5].mtr
  memtrace diff --format markdown old.mtr new.mtr     for a merge request

  memtrace run --runs 5 -o 'old%n.mtr' -- ./server    makes five traces
";

pub(super) const RULES: &str = "\
What counts. Addresses, process ids, times, resident memory and the order of
threads never do. With several traces on a side a difference counts if the sides
lie further apart than the runs of one side do (the stack: 128 KiB, the heap:
16 KiB further). Between two single traces these do not count:
  the stack, up to 128 KiB; the heap (brk), up to 264 KiB or 5 %
  in programs with threads, or with several processes of one kind at once:
    stacks of threads, two (in each process) or a quarter of them more or fewer;
    arenas of malloc, as many as there are threads; other private anonymous
    memory, up to 1 MiB (in each process) or 2 % of its kind, and no more in sum
  peaks, up to 1 MiB or 5 %, and wherever several processes lived at once
  calls of a name and those that fail, up to 8 or a quarter of the calls
Everything else counts from the first page on: files, shared memory, processes,
all mappings of programs with one thread. What does not count is listed in --json
too, with the reason, so that the changes add up to the difference.
";

/// `memtrace diff`.
#[derive(Parser)]
#[command(
    name = "memtrace diff",
    max_term_width = 100,
    override_usage = USAGE,
    before_help = EXAMPLES,
    after_help = RULES,
    help_template = help::TEMPLATE,
)]
pub(super) struct DiffLine {
    /// One JSON object on stdout, all amounts in bytes
    #[arg(long)]
    json: bool,

    /// How it looks
    #[arg(long, value_name = "text|markdown", value_parser = format)]
    format: Option<DiffFormat>,

    /// Traces of the earlier one
    #[arg(long, value_name = "TRACE", num_args = 1..)]
    before: Vec<PathBuf>,

    /// Traces of the later one
    #[arg(long, value_name = "TRACE", num_args = 1..)]
    after: Vec<PathBuf>,

    /// Colours; by default as NO_COLOR and the terminal say
    #[arg(long, value_name = "auto|always|never", value_parser = color)]
    color: Option<ColorChoice>,

    #[arg(value_name = "TRACE", hide = true)]
    traces: Vec<PathBuf>,
}

/// How a comparison is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiffFormat {
    /// For a terminal.
    #[default]
    Text,
    /// For a merge request.
    Markdown,
    /// The object `memtrace.diff/1`.
    Json,
}

/// Traces to compare; neither side is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The earlier ones.
    pub before: Vec<PathBuf>,
    /// The later ones.
    pub after: Vec<PathBuf>,
    /// How it is printed.
    pub format: DiffFormat,
    /// When to use colours.
    pub color: ColorChoice,
}

fn format(text: &str) -> Result<DiffFormat, String> {
    match text {
        "text" => Ok(DiffFormat::Text),
        "markdown" => Ok(DiffFormat::Markdown),
        "json" => Ok(DiffFormat::Json),
        _ => Err("say text, markdown or json".to_owned()),
    }
}

pub(super) fn diff(line: DiffLine) -> Result<Diff, UsageError> {
    let DiffLine {
        json,
        format,
        before,
        after,
        color,
        traces,
    } = line;
    let (before, after) = match (traces.as_slice(), before.is_empty(), after.is_empty()) {
        ([before, after], true, true) => (vec![before.clone()], vec![after.clone()]),
        ([], false, false) => (before, after),
        ([], false, true) => return Err(UsageError::reading("no --after: compare it with what?")),
        ([], true, false) => return Err(UsageError::reading("no --before: compare it with what?")),
        (_, true, true) => {
            return Err(UsageError::reading(
                "which two? memtrace diff BEFORE AFTER (several a side: --before TRACE... --after TRACE...)",
            ));
        }
        _ => {
            return Err(UsageError::reading(
                "either BEFORE AFTER, or --before TRACE... --after TRACE..., not both",
            ));
        }
    };
    let format = match (json, format) {
        (false, format) => format.unwrap_or_default(),
        (true, None | Some(DiffFormat::Json)) => DiffFormat::Json,
        (true, Some(_)) => {
            return Err(UsageError::reading(
                "--json has no other --format: choose one",
            ));
        }
    };
    Ok(Diff {
        before,
        after,
        format,
        color: color.unwrap_or_default(),
    })
}
