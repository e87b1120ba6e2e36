//! `memtrace explain`, as clap sees it and as it is meant.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use crate::term::ColorChoice;

use super::line::{color, read};
use super::{Command, READING, Stop, UsageError, help, values};

pub(super) const USAGE: &str = "\
memtrace explain [OPTIONS] -p PID              a living process, neither traced nor stopped
       memtrace explain [OPTIONS] TRACE               what a recorded trace tells
       memtrace explain [OPTIONS] [--] PROGRAM [ARGS] launch it, trace it, explain it at its end";

pub(super) const EXAMPLES: &str = "\
Where the size of a process comes from, which limits hold for it, and whether one of
them can be the reason for a restart

  memtrace explain -p 4711
  memtrace explain -p 4711 --json
  memtrace explain run.mtr
  memtrace explain -- ./server --port 8080
";

pub(super) const NOTES: &str = "
A single word that names a recorded trace is a TRACE; after -- it is always a PROGRAM.
Of a PROGRAM the explanation goes to stderr; with --json to stdout, after all that the
program wrote there.

Exit status: 0; 2 bad usage, no such process, unreadable trace; of a PROGRAM its own,
128+N if signal N ended it, 125 memtrace failed, 126 not executable, 127 not found
";

/// `memtrace explain`.
#[derive(Parser)]
#[command(
    name = "memtrace explain",
    max_term_width = 100,
    override_usage = USAGE,
    before_help = EXAMPLES,
    after_help = NOTES,
    help_template = help::TEMPLATE,
)]
struct ExplainLine {
    /// This running process
    #[arg(short = 'p', long = "pid", value_name = "PID")]
    pids: Vec<String>,

    /// One JSON object on stdout, all amounts in bytes
    #[arg(long)]
    json: bool,

    /// Record the trace of PROGRAM to FILE, too
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Colours; by default as NO_COLOR and the terminal say
    #[arg(long, value_name = "auto|always|never", value_parser = color)]
    color: Option<ColorChoice>,

    #[arg(value_name = "PROGRAM", hide = true, trailing_var_arg = true)]
    words: Vec<OsString>,
}

/// What may follow the name of a trace.
#[derive(Parser)]
#[command(
    name = "memtrace explain",
    max_term_width = 100,
    override_usage = USAGE,
    before_help = EXAMPLES,
    after_help = NOTES,
    help_template = help::TEMPLATE,
)]
struct AfterTrace {
    /// One JSON object on stdout, all amounts in bytes
    #[arg(long)]
    json: bool,

    /// Colours; by default as NO_COLOR and the terminal say
    #[arg(long, value_name = "auto|always|never", value_parser = color)]
    color: Option<ColorChoice>,
}

/// What to explain, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// What.
    pub what: Explained,
    /// As JSON.
    pub json: bool,
    /// When to use colours.
    pub color: ColorChoice,
}

/// What is explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explained {
    /// A living process.
    Process(i32),
    /// A program to launch.
    Program {
        /// It and its arguments; never empty.
        words: Vec<OsString>,
        /// File to record to.
        output: Option<PathBuf>,
    },
    /// A trace if the first word names one, with options behind it; else a program and its
    /// arguments. Only a look at the file tells.
    TraceOrProgram(Vec<OsString>),
}

/// What `args` ask for.
pub(super) fn explain(args: &[OsString]) -> Result<Command, Stop> {
    let line: ExplainLine = read(args, READING)?;
    let refused = |message: &str| Err(UsageError::reading(message).into());
    // The words are a suffix of the arguments.
    let before = args.len().saturating_sub(line.words.len());
    let dashes = args.get(..before).and_then(<[_]>::last);
    let dashes = dashes.is_some_and(|last| last == "--");
    let pids = values::pids(&line.pids).map_err(UsageError::reading)?;
    let what = match (pids.as_slice(), line.words.is_empty()) {
        ([], true) => {
            return refused(
                "explain what? memtrace explain -p PID, memtrace explain TRACE, or memtrace explain -- PROGRAM",
            );
        }
        ([_, _, ..], _) => {
            return refused("one process at a time: memtrace explain -p PID");
        }
        ([_], false) => {
            return refused("either -p PID, or a TRACE, or a PROGRAM: one at a time");
        }
        ([_], true) if line.output.is_some() => {
            return refused(
                "-o records the trace of a PROGRAM; a process with -p is not traced here (memtrace -o FILE -p PID)",
            );
        }
        ([pid], true) => Explained::Process(*pid),
        ([], false) if dashes || line.output.is_some() => Explained::Program {
            words: line.words,
            output: line.output,
        },
        ([], false) => Explained::TraceOrProgram(line.words),
    };
    Ok(Command::Explain(Explain {
        what,
        json: line.json,
        color: line.color.unwrap_or_default(),
    }))
}

/// What the options behind the name of a trace change in `explain`; help, or one line that says why
/// they make no sense.
pub fn after_trace(explain: &Explain, rest: &[OsString]) -> Result<Explain, UsageError> {
    let line: AfterTrace = match read(rest, READING) {
        Ok(line) => line,
        Err(Stop::Usage(error)) => return Err(error),
        Err(Stop::Help(_)) => {
            return Err(UsageError::reading(
                "help goes before the trace: memtrace explain --help",
            ));
        }
    };
    Ok(Explain {
        json: explain.json || line.json,
        color: line.color.unwrap_or(explain.color),
        ..explain.clone()
    })
}
