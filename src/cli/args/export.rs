//! `memtrace export`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use super::line::read;
use super::{Command, READING, Stop, UsageError, help};

/// A recorded trace to write in another format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The trace.
    pub trace: PathBuf,
    /// The format.
    pub to: ExportFormat,
    /// File instead of stdout.
    pub output: Option<PathBuf>,
}

/// What a trace can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Lines of JSON, `memtrace.events/1`.
    Jsonl,
}

const EXAMPLES: &str = "\
A recorded trace in another format

  memtrace export --to jsonl run.mtr           one JSON object a line, on stdout
  memtrace export --to jsonl -o run.jsonl run.mtr
  memtrace report run.jsonl                    lines of JSON are a trace, too
";

#[derive(Parser)]
#[command(
    name = "memtrace export",
    max_term_width = 100,
    override_usage = "memtrace export --to FORMAT [-o FILE] TRACE",
    before_help = EXAMPLES,
    help_template = help::TEMPLATE,
)]
struct ExportLine {
    /// The format: jsonl
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    to: Option<ExportFormat>,

    /// Write to FILE instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[arg(value_name = "TRACE", hide = true)]
    trace: Option<PathBuf>,
}

fn format(text: &str) -> Result<ExportFormat, String> {
    match text {
        "jsonl" => Ok(ExportFormat::Jsonl),
        _ => Err("say jsonl".to_owned()),
    }
}

/// What `memtrace export` is asked to do.
pub(super) fn export(args: &[OsString]) -> Result<Command, Stop> {
    let line: ExportLine = read(args, READING)?;
    let refused = |text: &str| Stop::Usage(UsageError::reading(text));
    let to = line
        .to
        .ok_or_else(|| refused("export to what? memtrace export --to jsonl TRACE"))?;
    let trace = line
        .trace
        .ok_or_else(|| refused("which trace? memtrace export --to jsonl TRACE"))?;
    if line.output.as_ref() == Some(&trace) {
        return Err(refused("-o would write over the trace"));
    }
    Ok(Command::Export(Export {
        trace,
        to,
        output: line.output,
    }))
}
