//! Wiring: arguments, pipeline, exit status.

pub mod args;
mod budget;
mod check;
mod diff;
mod explain;
mod export;
mod names;
mod open;
mod progress;
mod report;
mod run;
mod runs;

use std::ffi::OsString;
use std::io::{self, Write};

use crate::term::{ColorChoice, Style};
use crate::tracee::offers;

use args::Command;

/// Why a command failed, and the exit status that says so.
#[derive(Debug)]
struct Failure {
    status: i32,
    error: anyhow::Error,
}

impl Failure {
    fn new(status: i32, error: anyhow::Error) -> Failure {
        Failure { status, error }
    }
}

/// Does what the command line asks for; the exit status. `args` begins with memtrace's own name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let args: Vec<OsString> = args.into_iter().collect();
    let done = match args::parse(args.iter().cloned()) {
        Ok(Command::Trace(trace)) if 1 < trace.runs && trace.this_run.is_none() => {
            runs::runs(&trace, &args)
        }
        Ok(Command::Trace(trace)) => run::trace(&trace),
        Ok(Command::Report(arguments)) => report::report(&arguments),
        Ok(Command::Check(arguments)) => check::check(&arguments),
        Ok(Command::Export(arguments)) => export::export(&arguments),
        Ok(Command::Diff(arguments)) => diff::diff(&arguments),
        Ok(Command::Explain(arguments)) => explain::explain(&arguments),
        Ok(Command::Help(text)) => print(&text),
        Ok(Command::Version) => print(&version()),
        Err(usage) => Err(Failure::new(
            usage.status.into(),
            anyhow::anyhow!(usage.message),
        )),
    };
    match done {
        Ok(status) => status,
        Err(Failure { status, error }) => {
            let _ = writeln!(
                io::stderr().lock(),
                "memtrace: {}",
                one_line(&format!("{error:#}"))
            );
            status
        }
    }
}

/// An error on one line, in words: without control characters, and without `(os error 2)`.
fn one_line(text: &str) -> String {
    let mut line = crate::term::escaped(text.replace('\n', " ").as_bytes(), true);
    while let Some(at) = line.find(" (os error ") {
        let end = line[at..].find(')').map_or(line.len(), |end| at + end + 1);
        line.replace_range(at..end, "");
    }
    line
}

fn print(text: &str) -> Result<i32, Failure> {
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Ok(0)
}

/// The version, and what this kernel offers to it.
fn version() -> String {
    let host = crate::tracee::host();
    let mut text = format!(
        "memtrace {}\nkernel {} {}\n",
        env!("CARGO_PKG_VERSION"),
        host.kernel,
        host.arch
    );
    for offer in offers() {
        let available = if offer.available { "yes" } else { "no" };
        text.push_str(&format!(
            "  {:<14} {available:<4} {}\n",
            offer.name, offer.meaning
        ));
    }
    text
}

/// How to write to a stream of ours, which may be a terminal.
fn style_for(choice: ColorChoice, stream: impl std::os::fd::AsFd) -> Style {
    Style::choose(choice, crate::tracee::terminal_width(stream), |name| {
        std::env::var_os(name)
    })
}
