//! `memtrace export`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use crate::report::reading::Weight;

use super::line::read;
use super::reading_values::weight;
use super::{Command, READING, Stop, UsageError, help};

/// A recorded trace to write in another format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The trace.
    pub trace: PathBuf,
    /// The format.
    pub to: ExportFormat,
    /// The figure of folded stacks.
    pub weight: Weight,
    /// File instead of stdout.
    pub output: Option<PathBuf>,
}

/// What a trace can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Lines of JSON, `memtrace.events/1`.
    Jsonl,
    /// Folded stacks, for flame graphs.
    Folded,
    /// A profile for `pprof`.
    Pprof,
}

impl ExportFormat {
    /// Whether it is no text.
    pub fn is_binary(self) -> bool {
        self == ExportFormat::Pprof
    }
}

const EXAMPLES: &str = "\
A recorded trace in another format

  memtrace export --to jsonl run.mtr           one JSON object a line, on stdout
  memtrace export --to jsonl -o run.jsonl run.mtr
  memtrace report run.jsonl                    lines of JSON are a trace, too

  memtrace -k -o run.mtr ./server              with stacks; then:
  memtrace export --to folded run.mtr          what is reserved at the end, by stack:
                                               for flamegraph.pl, inferno, speedscope
  memtrace export --to folded --weight committed run.mtr
  memtrace export --to pprof -o run.pb.gz run.mtr
                                               go tool pprof -sample_index=committed
";

const NOTES: &str = "
Folded stacks: the command name of the process (no pid, so that runs compare), then
frames from the root on; `;` in names is written `:`. Frames in parentheses stand for
what no call did, (began: exec), (began: fork), (grown by page faults), and for what is
not known, (no stack) mmap, (callers unknown). The bytes add up to the `end` of the
figure in the report: of reserved and mapped they belong to the call that took the
addresses, of committed to the call that committed them.
A pprof profile has the sample types reserved, committed, mapped and calls.

Exit status: 0; 2 bad usage, unreadable trace, or a binary format on a terminal
";

#[derive(Parser)]
#[command(
    name = "memtrace export",
    max_term_width = 100,
    override_usage = "memtrace export --to FORMAT [OPTIONS] TRACE",
    before_help = EXAMPLES,
    after_help = NOTES,
    help_template = help::TEMPLATE,
)]
struct ExportLine {
    /// The format: jsonl, folded, pprof
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    to: Option<ExportFormat>,

    /// The bytes of folded stacks (default: reserved)
    #[arg(long, value_name = "reserved|committed|mapped|touched", value_parser = weight)]
    weight: Option<Weight>,

    /// Write to FILE instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[arg(value_name = "TRACE", hide = true)]
    trace: Option<PathBuf>,
}

fn format(text: &str) -> Result<ExportFormat, String> {
    match text {
        "jsonl" => Ok(ExportFormat::Jsonl),
        "folded" => Ok(ExportFormat::Folded),
        "pprof" => Ok(ExportFormat::Pprof),
        _ => Err("say jsonl, folded or pprof".to_owned()),
    }
}

/// What `memtrace export` is asked to do.
pub(super) fn export(args: &[OsString]) -> Result<Command, Stop> {
    let line: ExportLine = read(args, READING)?;
    let refused = |text: &str| Stop::Usage(UsageError::reading(text));
    let to = line
        .to
        .ok_or_else(|| refused("export to what? memtrace export --to jsonl|folded|pprof TRACE"))?;
    let trace = line
        .trace
        .ok_or_else(|| refused("which trace? memtrace export --to jsonl TRACE"))?;
    if line.weight.is_some() && to == ExportFormat::Pprof {
        return Err(refused(
            "--weight is about --to folded: a pprof profile holds all figures (-sample_index)",
        ));
    }
    if line.weight.is_some() && to != ExportFormat::Folded {
        return Err(refused("--weight is about --to folded"));
    }
    if line.output.as_ref() == Some(&trace) {
        return Err(refused("-o would write over the trace"));
    }
    Ok(Command::Export(Export {
        trace,
        to,
        weight: line.weight.unwrap_or_default(),
        output: line.output,
    }))
}
