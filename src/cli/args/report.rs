//! The command line of `memtrace report`: which traces, which question, which events.

use std::path::PathBuf;

use clap::Parser;

use crate::report::reading::{By, Direction, Filter, Moment, Weight};
use crate::term::ColorChoice;
use crate::units::{AddrRange, SpaceId, Tid, Timestamp};

use super::help;
use super::line::{color, format};
use super::reading_values::{addresses, by, direction, moment, rights, size, time, weight};
use super::{Format, UsageError, values};

/// Recorded traces, and what is asked about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The traces; never empty.
    pub traces: Vec<PathBuf>,
    /// What is asked.
    pub question: Question,
    /// Which events it is about.
    pub filter: Filter,
    /// As JSON.
    pub json: bool,
    /// Most frames of a stack that are shown; `None` for as many as the format likes.
    pub stack_depth: Option<usize>,
    /// Most rows of a table; `None` for all.
    pub top: Option<usize>,
    /// When to use colours.
    pub color: ColorChoice,
}

/// What `memtrace report` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The summary.
    Summary,
    /// The mappings at a moment.
    At(Moment),
    /// The life of an address or a range.
    Around(AddrRange),
    /// A table.
    By(By),
    /// The lives of reservations.
    Reservations,
    /// A table of owners.
    Owners,
    /// A table of stacks.
    Stacks,
    /// A call tree, weighed by a figure, or by reserved and committed together.
    Tree(Direction, Option<Weight>),
    /// The figures over time.
    Timeline,
    /// The events themselves.
    Events(Format),
}

impl Question {
    /// Whether only a trace with stacks has an answer.
    pub fn needs_stacks(self) -> bool {
        matches!(
            self,
            Question::Owners | Question::Stacks | Question::Tree(..)
        )
    }

    /// Whether the answer has rows, of which `--top` are shown.
    fn has_rows(self) -> bool {
        matches!(self, Question::By(_) | Question::Reservations) || self.needs_stacks()
    }
}

/// What the rows of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    By(By),
    Reservations,
    Owners,
    Stacks,
}

impl From<Rows> for Question {
    fn from(rows: Rows) -> Question {
        match rows {
            Rows::By(by) => Question::By(by),
            Rows::Reservations => Question::Reservations,
            Rows::Owners => Question::Owners,
            Rows::Stacks => Question::Stacks,
        }
    }
}

/// `memtrace report`.
#[derive(Parser)]
#[command(
    name = "memtrace report",
    max_term_width = 100,
    override_usage = "memtrace report [OPTIONS] TRACE...",
    before_help = help::REPORT_EXAMPLES,
    after_help = help::REPORT_NOTES,
    help_template = help::TEMPLATE,
)]
pub(super) struct ReportLine {
    /// The mappings at TIME: 10ms, 1.5s, 50%, begin, end, or peak (of mapped;
    /// also peak:reserved, peak:committed, peak:resident)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Moment>,

    /// The life of ADDR (its page), of START-END or of START+SIZE
    #[arg(long, value_name = "ADDR", value_parser = addresses)]
    around: Option<AddrRange>,

    /// A table of sums, the largest first: call, mapping, file, thread, space,
    /// kind (what memory is), reservation; with the stacks of -k also owner, stack
    #[arg(long, value_name = "ROWS", value_parser = by)]
    by: Option<Rows>,

    /// The call tree of the stacks of -k with what is left of what they reserved
    /// and committed: down from the outermost function, or up from the innermost
    #[arg(long, value_name = "down|up", value_parser = direction,
          num_args = 0..=1, require_equals = true, default_missing_value = "down")]
    tree: Option<Direction>,

    /// The figure of --tree (default: reserved and committed)
    #[arg(long, value_name = "reserved|committed|mapped|touched", value_parser = weight)]
    weight: Option<Weight>,

    /// Mapped, reserved, committed and resident over time
    #[arg(long)]
    timeline: bool,

    /// The events, as the live timeline shows them
    #[arg(long, value_name = "pretty|strace|jsonl", value_parser = format)]
    format: Option<Format>,

    /// Most frames of a stack that --format pretty and strace show (default 16, all)
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u32).range(1..=1024))]
    stack_depth: Option<u32>,

    /// Only what happened at TIME or later
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,

    /// Only what happened at TIME or before
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,

    /// Only these calls: names, %memory, !name
    #[arg(short = 'e', long, value_name = "SET")]
    trace: Vec<String>,

    /// Only calls on SIZE or more (64KiB, 1MiB); with --at: mappings
    #[arg(long, value_name = "SIZE", value_parser = size)]
    min_size: Option<u64>,

    /// Only calls that give these rights: ---, r--, rw-, r-x, ?w? (? is
    /// either); with --at: mappings that have them
    #[arg(long, value_name = "RWX", allow_hyphen_values = true)]
    prot: Option<String>,

    /// Only these threads
    #[arg(long, value_name = "TID[,TID...]")]
    tid: Vec<String>,

    /// Only these processes
    #[arg(short = 'p', long, value_name = "PID[,PID...]")]
    pid: Vec<String>,

    /// Only these address spaces, by their numbers from 1 on
    #[arg(long, value_name = "N[,N...]")]
    space: Vec<String>,

    /// Rows of a table or a tree (default 40, 0 for all)
    #[arg(short = 'n', long, value_name = "ROWS")]
    top: Option<usize>,

    /// One JSON object on stdout, all amounts in bytes
    #[arg(long)]
    json: bool,

    /// Colours; by default as NO_COLOR and the terminal say
    #[arg(long, value_name = "auto|always|never", value_parser = color)]
    color: Option<ColorChoice>,

    #[arg(value_name = "TRACE", hide = true)]
    traces: Vec<PathBuf>,
}

/// Rows of a table that are shown where nothing else is asked for.
const ROWS: usize = 40;

/// What `line` asks for, or why it makes no sense.
pub(super) fn report(line: ReportLine) -> Result<Report, UsageError> {
    let filter = filter(&line).map_err(UsageError::reading)?;
    let question = question(&line, &filter).map_err(UsageError::reading)?;
    if line.traces.is_empty() {
        return Err(UsageError::reading("which trace? memtrace report TRACE"));
    }
    Ok(Report {
        traces: line.traces,
        question,
        filter,
        json: line.json,
        stack_depth: line.stack_depth.map(|frames| frames as usize),
        top: match line.top {
            Some(0) => None,
            Some(rows) => Some(rows),
            None => Some(ROWS),
        },
        color: line.color.unwrap_or_default(),
    })
}

fn filter(line: &ReportLine) -> Result<Filter, String> {
    let calls = match line.trace.is_empty() {
        true => None,
        false => Some(values::calls(&line.trace)?),
    };
    let rights = line.prot.as_deref().map(rights).transpose();
    let rights = rights.map_err(|problem| format!("--prot: {problem}"))?;
    let tids = values::pids(&line.tid).map_err(|problem| format!("--tid: {problem}"))?;
    let pids = values::pids(&line.pid).map_err(|problem| format!("--pid: {problem}"))?;
    let spaces = values::pids(&line.space);
    let spaces =
        spaces.map_err(|_| "--space: the number of an address space, from 1 on".to_owned())?;
    if let (Some(since), Some(until)) = (line.since, line.until)
        && until < since
    {
        return Err("--since is later than --until: nothing is between".to_owned());
    }
    Ok(Filter {
        calls,
        min_size: line.min_size,
        rights,
        tids: tids.into_iter().map(Tid).collect(),
        pids: pids.into_iter().map(Tid).collect(),
        spaces: spaces
            .into_iter()
            .map(|id| SpaceId(id.unsigned_abs()))
            .collect(),
        since: line.since,
        until: line.until,
    })
}

fn question(line: &ReportLine, filter: &Filter) -> Result<Question, String> {
    let asked = [
        line.at.map(|moment| ("--at", Question::At(moment))),
        line.around
            .map(|range| ("--around", Question::Around(range))),
        line.by.map(|rows| ("--by", rows.into())),
        line.tree
            .map(|direction| ("--tree", Question::Tree(direction, line.weight))),
        line.timeline.then_some(("--timeline", Question::Timeline)),
        line.format
            .map(|format| ("--format", Question::Events(format))),
    ];
    if line.weight.is_some() && line.tree.is_none() {
        return Err("--weight is the figure of a --tree".to_owned());
    }
    if let (Some(_), Some(word @ ("up" | "down"))) = (
        line.tree,
        line.traces.first().and_then(|trace| trace.to_str()),
    ) {
        return Err(format!("{word} is no trace: say --tree={word}"));
    }
    let mut asked = asked.into_iter().flatten();
    let question = match (asked.next(), asked.next()) {
        (Some((first, _)), Some((second, _))) => {
            return Err(format!(
                "{first} and {second} are two questions: ask one at a time"
            ));
        }
        (Some((_, question)), None) => question,
        // Whoever chooses events wants to see them.
        (None, _) if !filter.is_empty() && !line.json => Question::Events(Format::Pretty),
        (None, _) if !filter.is_empty() => {
            return Err(
                "the summary is of a whole trace: of chosen events show --by TABLE, or --format jsonl"
                    .to_owned(),
            );
        }
        (None, _) => Question::Summary,
    };
    let text = matches!(question, Question::Events(Format::Pretty | Format::Strace));
    if line.stack_depth.is_some() && !text {
        return Err(
            "--stack-depth is about the stacks that --format pretty and strace show".to_owned(),
        );
    }
    match question {
        Question::Events(_) if line.json => {
            Err("--format and --json: say --format jsonl for events as JSON".to_owned())
        }
        Question::Events(_) if line.traces.len() > 1 => {
            Err("events are shown of one trace at a time".to_owned())
        }
        Question::Timeline if filter.is_about_calls() || !filter.tids.is_empty() => Err(
            "--timeline draws whole address spaces: of -e, --min-size, --prot and --tid it knows nothing"
                .to_owned(),
        ),
        _ if question.has_rows() => Ok(question),
        _ if line.top.is_some() => {
            Err("--top is about the rows of a --by table or a --tree".to_owned())
        }
        _ => Ok(question),
    }
}
