//! `memtrace check`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use super::line::read;
use super::{Command, READING, Stop, UsageError, help};

/// Traces to hold against budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The traces; never empty.
    pub traces: Vec<PathBuf>,
    /// The budget file.
    pub budget: Option<PathBuf>,
    /// `FIGURE=AMOUNT`, as given.
    pub max: Vec<String>,
    /// The trace that growth counts from.
    pub baseline: Option<PathBuf>,
    /// `FIGURE=GROWTH`, as given.
    pub max_growth: Vec<String>,
    /// A trace that stops before its end will do.
    pub allow_incomplete: bool,
    /// How the result is printed.
    pub format: CheckFormat,
}

/// How the result of a check is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckFormat {
    /// A line for each broken budget.
    #[default]
    Text,
    /// JUnit XML.
    Junit,
    /// GitHub workflow commands.
    Github,
    /// A table.
    Markdown,
}

const EXAMPLES: &str = "\
Whether recorded traces keep to their budgets: exit status 0 if so, 1 if not, 2 trouble

  memtrace check --max reserved=2GiB --max mappings=500 run.mtr
  memtrace check --baseline base.mtr --max-growth committed=10% run.mtr
  memtrace check --budget memtrace.toml --format github *.mtr

Figures: mapped, reserved, committed, anon, file, shmem, charged, resident, mappings, at
  their peak; with .end (committed.end) at the end. calls, drift and lost are sums. Drift and
  lost observations fail a check unless a limit allows them, as does a damaged trace unless
  --allow-incomplete is given.
Amounts: K, M, G (KiB, MiB, GiB) are powers of 1024; kB, MB, GB of 1000
";

#[derive(Parser)]
#[command(
    name = "memtrace check",
    max_term_width = 100,
    override_usage = "memtrace check [--budget FILE] [--max FIGURE=AMOUNT]... TRACE...",
    before_help = EXAMPLES,
    help_template = help::TEMPLATE,
)]
struct CheckLine {
    /// Budgets in a TOML file, also for single programs
    #[arg(long, value_name = "FILE")]
    budget: Option<PathBuf>,

    /// The most a figure of all processes together may be; repeat it for more
    #[arg(long, value_name = "FIGURE=AMOUNT")]
    max: Vec<String>,

    /// The trace that growth counts from
    #[arg(long, value_name = "TRACE")]
    baseline: Option<PathBuf>,

    /// The most a figure may be above the baseline: committed=10%, mappings=20
    #[arg(long, value_name = "FIGURE=GROWTH")]
    max_growth: Vec<String>,

    /// Check traces, too, that stop before their end
    #[arg(long)]
    allow_incomplete: bool,

    /// How the result is printed
    #[arg(long, value_name = "text|junit|github|markdown", value_parser = format)]
    format: Option<CheckFormat>,

    #[arg(value_name = "TRACE", hide = true)]
    traces: Vec<PathBuf>,
}

fn format(text: &str) -> Result<CheckFormat, String> {
    match text {
        "text" => Ok(CheckFormat::Text),
        "junit" => Ok(CheckFormat::Junit),
        "github" => Ok(CheckFormat::Github),
        "markdown" => Ok(CheckFormat::Markdown),
        _ => Err("say text, junit, github or markdown".to_owned()),
    }
}

/// What `memtrace check` is asked to do.
pub(super) fn check(args: &[OsString]) -> Result<Command, Stop> {
    let line: CheckLine = read(args, READING)?;
    let refused = |text: &str| Err(Stop::Usage(UsageError::reading(text)));
    if line.traces.is_empty() {
        return refused("which trace? memtrace check --max committed=200MiB TRACE");
    }
    if line.budget.is_none() && line.max.is_empty() && line.max_growth.is_empty() {
        return refused("check against what? say --budget FILE, --max or --max-growth");
    }
    Ok(Command::Check(Check {
        traces: line.traces,
        budget: line.budget,
        max: line.max,
        baseline: line.baseline,
        max_growth: line.max_growth,
        allow_incomplete: line.allow_incomplete,
        format: line.format.unwrap_or_default(),
    }))
}
