//! The command line: what the user asked for, or one line that says why it cannot be.
//!
//! Pure: nothing is opened and no process is looked at.

mod check;
mod diff;
mod explain;
mod export;
mod help;
mod line;
mod reading_values;
mod report;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::abi::CallSet;
use crate::term::ColorChoice;

pub use check::{Check, CheckFormat};
pub use diff::{Diff, DiffFormat};
pub use explain::{Explain, Explained, after_trace};
pub use export::{Export, ExportFormat};
use line::{AttachLine, Options, TraceLine, read};
pub use report::{Question, Report};
pub use values::Verify;

/// What memtrace is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Launch or attach, and trace.
    Trace(Trace),
    /// Tell about recorded traces.
    Report(Report),
    /// Hold recorded traces against budgets.
    Check(Check),
    /// Write a recorded trace in another format.
    Export(Export),
    /// Compare recorded traces.
    Diff(Diff),
    /// Say where the size of a process comes from, and whether it matters.
    Explain(Explain),
    /// Print this text on stdout.
    Help(String),
    /// Print the version and what this kernel offers, on stdout.
    Version,
}

/// A trace to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Whom to trace.
    pub target: Target,
    /// File to record to.
    pub output: Option<PathBuf>,
    /// How often the program is run, a trace each.
    pub runs: u32,
    /// Which of these runs this is, from 1; `None` for the process that starts them.
    pub this_run: Option<u32>,
    /// How the live timeline looks.
    pub format: Format,
    /// File for the live timeline instead of stderr.
    pub log: Option<PathBuf>,
    /// How much is printed.
    pub quiet: Quiet,
    /// Say how it is done.
    pub verbose: bool,
    /// Which calls are shown: those of every `-e`. Such a call stops even where it would not by
    /// default.
    pub shown: CallSet,
    /// Who observes.
    pub backend: Backend,
    /// Trace children too.
    pub follow: bool,
    /// Stop tracing after this time.
    pub duration: Option<Duration>,
    /// Record page faults.
    pub touch: bool,
    /// Record what is resident whenever it changes.
    pub resident: bool,
    /// Record who called.
    pub stacks: bool,
    /// Most frames of a stack that are shown; `None` for as many as the format likes.
    pub stack_depth: Option<usize>,
    /// Keep the names of frames in the trace.
    pub embed_symbols: bool,
    /// When to compare the model with the kernel.
    pub verify: Verify,
    /// When to use colours.
    pub color: ColorChoice,
}

/// Whom to trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A program and its arguments; never empty.
    Launch(Vec<OsString>),
    /// Running processes; never empty, each once.
    Attach(Vec<i32>),
}

/// Who observes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// ptrace for a program that is launched. For one that runs, the kernel if it may be asked and
    /// can tell what is wanted, ptrace otherwise.
    #[default]
    Auto,
    /// memtrace, by stopping the tracees.
    Ptrace,
    /// The kernel, by its tracepoints.
    Kernel,
}

/// How the live timeline looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    #[default]
    Pretty,
    /// As `strace -f -y` prints.
    Strace,
    /// One JSON object a line.
    Jsonl,
}

/// How much is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quiet {
    /// The live timeline and the summary.
    #[default]
    No,
    /// Only the summary: `-q`.
    Summary,
    /// Nothing: `-qq`.
    All,
}

/// Why the command line makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// The exit status that says so.
    pub status: u8,
    /// One line, without `memtrace: ` before it.
    pub message: String,
}

/// Status of a usage error when tracing.
const TRACING: u8 = 125;
/// Status of a usage error of the commands that read traces.
const READING: u8 = 2;

impl UsageError {
    fn tracing(message: impl Into<String>) -> UsageError {
        let message = message.into();
        UsageError {
            status: TRACING,
            message,
        }
    }

    fn reading(message: impl Into<String>) -> UsageError {
        let message = message.into();
        UsageError {
            status: READING,
            message,
        }
    }
}

/// What the command line asks for. `args` begins with memtrace's own name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let args: Vec<OsString> = args.into_iter().skip(1).collect();
    match dispatch(&args) {
        Ok(command) => Ok(command),
        Err(Stop::Help(text)) => Ok(Command::Help(text)),
        Err(Stop::Usage(error)) => Err(error),
    }
}

/// Why reading the arguments ended early.
enum Stop {
    /// Help was asked for.
    Help(String),
    /// They make no sense.
    Usage(UsageError),
}

impl From<UsageError> for Stop {
    fn from(error: UsageError) -> Stop {
        Stop::Usage(error)
    }
}

fn dispatch(args: &[OsString]) -> Result<Command, Stop> {
    let line: TraceLine = read(args, TRACING)?;
    if line.version {
        return Ok(Command::Version);
    }
    // All that follows the first word that is no option is the program's, so the program is a
    // suffix of the arguments, and a `--` before it says that it is no command of memtrace's.
    let (before, rest) = args.split_at(args.len() - line.program.len());
    let command = match rest {
        [word, ..] if before.last().is_none_or(|last| last != "--") => word.to_str(),
        _ => None,
    };
    let without_command = || -> Vec<OsString> {
        let rest = rest.iter().skip(1);
        before.iter().chain(rest).cloned().collect()
    };
    let command = match command {
        Some("run") => trace(read(&without_command(), TRACING)?, true),
        Some("attach") => attach(read(&without_command(), TRACING)?),
        Some("report") => report::report(read(&without_command(), READING)?).map(Command::Report),
        Some("check") => return check::check(&without_command()),
        Some("export") => return export::export(&without_command()),
        Some("diff") => {
            let line = read(&without_command(), READING)?;
            diff::diff(line).map(Command::Diff)
        }
        Some("explain") => return explain::explain(&without_command()),
        _ => trace(line, false),
    };
    command.map_err(Stop::Usage)
}

fn trace(line: TraceLine, run: bool) -> Result<Command, UsageError> {
    if line.json {
        return Err(UsageError::tracing(
            "--json belongs to memtrace report; live output is --format jsonl",
        ));
    }
    let pids = values::pids(&line.pids).map_err(UsageError::tracing)?;
    let target = match (line.program.is_empty(), pids.is_empty()) {
        (false, true) => Target::Launch(line.program),
        (true, false) if !run => Target::Attach(pids),
        (true, true) => {
            return Err(UsageError::tracing(
                "nothing to trace: name a PROGRAM, or a process with -p PID (see memtrace --help)",
            ));
        }
        _ => {
            return Err(UsageError::tracing(
                "either launch a PROGRAM or attach with -p PID, not both",
            ));
        }
    };
    with_options(line.options, target)
}

fn attach(line: AttachLine) -> Result<Command, UsageError> {
    let pids = values::pids(&line.pids).map_err(UsageError::tracing)?;
    if pids.is_empty() {
        return Err(UsageError::tracing(
            "attach to what? memtrace attach PID... (or -p PID)",
        ));
    }
    with_options(line.options, Target::Attach(pids))
}

fn with_options(line: Options, target: Target) -> Result<Command, UsageError> {
    let quiet = match line.quiet {
        0 => Quiet::No,
        1 => Quiet::Summary,
        _ => Quiet::All,
    };
    if let Some(problem) = contradiction(&line, quiet) {
        return Err(UsageError::tracing(problem));
    }
    let runs = line.runs.unwrap_or(1);
    if let Some(problem) = runs_without_names(&line, &target) {
        return Err(UsageError::tracing(problem));
    }
    let number = line.this_run.or((line.runs == Some(1)).then_some(1));
    let numbered = |path: Option<PathBuf>| match number {
        Some(run) => path.map(|path| values::numbered(&path, run)),
        None => path,
    };
    let shown = values::calls(&line.trace).map_err(UsageError::tracing)?;
    Ok(Command::Trace(Trace {
        target,
        output: numbered(line.output),
        runs,
        this_run: line.this_run,
        format: line.format.unwrap_or_default(),
        log: numbered(line.log),
        quiet,
        verbose: line.verbose > 0,
        shown,
        backend: match line.backend {
            None | Some(Backend::Auto) if line.touch || line.resident => Backend::Kernel,
            backend => backend.unwrap_or_default(),
        },
        follow: !line.no_follow,
        duration: line.duration,
        touch: line.touch,
        resident: line.resident,
        stacks: line.stacks,
        stack_depth: line.stack_depth.map(|frames| frames as usize),
        embed_symbols: line.embed_symbols,
        verify: line.verify.unwrap_or_default(),
        color: line.color.unwrap_or_default(),
    }))
}

fn contradiction(line: &Options, quiet: Quiet) -> Option<&'static str> {
    if !line.stacks && line.embed_symbols {
        return Some("--embed-symbols names the frames of stacks: it needs -k");
    }
    if line.embed_symbols && line.output.is_none() {
        return Some("--embed-symbols keeps names in a trace: it needs -o FILE");
    }
    if !line.stacks && line.stack_depth.is_some() {
        return Some("--stack-depth is about the stacks of -k");
    }
    if line.touch && line.backend == Some(Backend::Ptrace) {
        return Some("--touch asks the kernel for page faults: it needs --backend kernel");
    }
    if line.resident && line.backend == Some(Backend::Ptrace) {
        return Some("--resident is told by the kernel: it needs --backend kernel");
    }
    if quiet != Quiet::No && line.format.is_some() && line.log.is_none() {
        return Some("-q switches the live timeline off, so it has no --format");
    }
    if quiet == Quiet::All && line.verbose > 0 {
        return Some("-qq prints nothing and -v prints more: choose one");
    }
    if line.log.is_some() && line.log == line.output {
        return Some("--log and --output would write to the same file");
    }
    None
}

/// Why a program cannot be run several times: a trace of each run needs a name of its own.
fn runs_without_names(line: &Options, target: &Target) -> Option<&'static str> {
    let runs = line.runs?;
    if matches!(target, Target::Attach(_)) {
        return Some("--runs launches a program several times: it needs a PROGRAM, not -p");
    }
    if runs == 1 {
        return None;
    }
    match (&line.output, &line.log) {
        (Some(output), _) if !values::has_number(output) => {
            Some("each run needs a file of its own: put %n into the name, as in -o 'run%n.mtr'")
        }
        (_, Some(log)) if !values::has_number(log) => {
            Some("each run needs a file of its own: put %n into the name, as in --log 'run%n.txt'")
        }
        (None, _) => Some("--runs makes traces: name them, as in -o 'run%n.mtr'"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
