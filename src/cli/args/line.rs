//! The command line as clap sees it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser};

use crate::term::{ColorChoice, escaped};

use super::{Backend, Format, Stop, UsageError, Verify, help, values};

/// The command line where no command is named: options, then a program or nothing.
#[derive(Parser)]
#[command(
    name = "memtrace",
    max_term_width = 100,
    disable_version_flag = true,
    override_usage = help::USAGE,
    before_help = help::EXAMPLES,
    after_help = help::after_options(),
    help_template = help::TEMPLATE,
)]
pub(super) struct TraceLine {
    /// Attach to these running processes
    #[arg(short = 'p', long = "pid", value_name = "PID[,PID...]")]
    pub(super) pids: Vec<String>,

    #[command(flatten)]
    pub(super) options: Options,

    /// Print the version and what this kernel offers
    #[arg(short = 'V', long)]
    pub(super) version: bool,

    #[arg(long, hide = true)]
    pub(super) json: bool,

    #[arg(value_name = "PROGRAM", hide = true, trailing_var_arg = true)]
    pub(super) program: Vec<OsString>,
}

/// `memtrace attach`.
#[derive(Parser)]
#[command(
    name = "memtrace",
    max_term_width = 100,
    override_usage = help::USAGE,
    before_help = help::EXAMPLES,
    after_help = help::after_options(),
    help_template = help::TEMPLATE,
)]
pub(super) struct AttachLine {
    #[command(flatten)]
    pub(super) options: Options,

    #[arg(value_name = "PID", hide = true)]
    pub(super) pids: Vec<String>,
}

/// The options of every way to trace.
#[derive(Args)]
pub(super) struct Options {
    /// Record the trace to FILE
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,

    /// Launch the program N times, a trace each: -o 'run%n.mtr' (%n is the number of the run)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) runs: Option<u32>,

    #[arg(long, hide = true)]
    pub(super) this_run: Option<u32>,

    /// How the live timeline looks
    #[arg(long, value_name = "pretty|strace|jsonl", value_parser = format)]
    pub(super) format: Option<Format>,

    /// The live timeline goes to FILE (default: stderr)
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,

    /// No live timeline, summary only; -qq prints nothing
    #[arg(short, long, action = ArgAction::Count)]
    pub(super) quiet: u8,

    /// Say how the tracing is done
    #[arg(short, long, action = ArgAction::Count)]
    pub(super) verbose: u8,

    /// Which calls are shown: names, %memory, !name; the sums see them all
    #[arg(short = 'e', long, value_name = "SET")]
    pub(super) trace: Vec<String>,

    /// Record who called: the stack of every memory call
    #[arg(short = 'k', long)]
    pub(super) stacks: bool,

    /// Most frames of a stack that are shown (default 16; a trace keeps them all)
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) stack_depth: Option<u32>,

    /// Keep the names of frames in the trace: it tells them on other machines, too
    #[arg(long)]
    pub(super) embed_symbols: bool,

    /// Who observes: memtrace, stopping the program at its calls (ptrace), or the
    /// kernel, stopping nothing (needs root, or CAP_PERFMON and tracefs readable); auto
    /// takes the kernel for -p where it can, ptrace otherwise
    #[arg(long, value_name = "auto|ptrace|kernel", value_parser = backend)]
    pub(super) backend: Option<Backend>,

    /// Record page faults too: what of each mapping and reservation was touched, when
    /// and by whom (implies --backend kernel)
    #[arg(long)]
    pub(super) touch: bool,

    /// Record what is resident whenever it changes, by kind (implies --backend kernel)
    #[arg(long)]
    pub(super) resident: bool,

    /// Do not follow children
    #[arg(long)]
    pub(super) no_follow: bool,

    /// Stop tracing after TIME (10s, 500ms), let the process run on
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(super) duration: Option<Duration>,

    /// Compare the sums with the kernel's map: when an address space ends
    /// (the default), after every event, or every N events
    #[arg(long, value_name = "exit|every|N", value_parser = values::verify,
          num_args = 0..=1, require_equals = true, default_missing_value = "exit")]
    pub(super) verify: Option<Verify>,

    /// Colours; by default as NO_COLOR and the terminal say
    #[arg(long, value_name = "auto|always|never", value_parser = color)]
    pub(super) color: Option<ColorChoice>,
}

pub(super) fn format(text: &str) -> Result<Format, String> {
    match text {
        "pretty" => Ok(Format::Pretty),
        "strace" => Ok(Format::Strace),
        "jsonl" => Ok(Format::Jsonl),
        _ => Err("say pretty, strace or jsonl".to_owned()),
    }
}

fn backend(text: &str) -> Result<Backend, String> {
    match text {
        "auto" => Ok(Backend::Auto),
        "ptrace" => Ok(Backend::Ptrace),
        "kernel" => Ok(Backend::Kernel),
        _ => Err("say auto, ptrace or kernel".to_owned()),
    }
}

pub(super) fn color(text: &str) -> Result<ColorChoice, String> {
    match text {
        "auto" => Ok(ColorChoice::Auto),
        "always" => Ok(ColorChoice::Always),
        "never" => Ok(ColorChoice::Never),
        _ => Err("say auto, always or never".to_owned()),
    }
}

/// Reads `args` as clap sees them; what it wants printed or refused ends the parsing.
pub(super) fn read<T: CommandFactory + FromArgMatches>(
    args: &[OsString],
    status: u8,
) -> Result<T, Stop> {
    let args = std::iter::once(OsStr::new("memtrace")).chain(args.iter().map(OsString::as_os_str));
    let mut command = T::command().styles(clap::builder::Styles::plain());
    let parsed = command
        .try_get_matches_from_mut(args)
        .and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Stop::Help(error.render().to_string())
        }
        _ => Stop::Usage(UsageError {
            status,
            message: one_line(&error),
        }),
    })
}

/// What clap says in several lines, in one.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().ansi().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let mut message = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        // How to pass an option on as a value is no help where it is a typing error.
        if line.is_empty() || line.starts_with("tip: to pass") {
            continue;
        }
        if !message.is_empty() {
            message.push_str(if line.starts_with("tip:") { "; " } else { " " });
        }
        message.push_str(line.strip_prefix("tip: ").unwrap_or(line));
    }
    escaped(message.as_bytes(), true)
}
