//! What came of a budget, in one line.

use std::fmt::Write;

use crate::report::Place;
use crate::report::check::{
    Budget, Contributor, Growth, Largest, Limit, Measure, Outcome, Over, Verdict, When,
    program_name,
};
use crate::units::Bytes;

use super::{Count, Size, escaped};

/// Why a verdict is no pass; `None` for one that is. Without a line feed, and safe on a terminal.
pub fn why_broken(verdict: &Verdict) -> Option<String> {
    let Verdict { budget, outcome } = verdict;
    let name = figure_name(budget);
    match outcome {
        Outcome::Within => None,
        Outcome::NoProgram => Some(format!(
            "{}: no process of this program",
            program(budget, None)
        )),
        Outcome::NotMeasured => Some(format!("{}{name} was never measured", prefix(budget, None))),
        Outcome::Over(over) => Some(why_over(budget, over, &name)),
    }
}

fn why_over(budget: &Budget, over: &Over, name: &str) -> String {
    let Over {
        pid: _,
        others,
        actual,
        limit,
        base,
        largest,
        of_the_first,
    } = over;
    let shown = |amount: u64| amount_of(budget.figure.measure, amount);
    let mut text = prefix(budget, Some(over));
    let _ = write!(
        text,
        "{name} is {}, over the limit of {}",
        shown(*actual),
        shown(*limit)
    );
    if let (Some(base), Limit::Growth(growth)) = (base, budget.limit) {
        let _ = match growth {
            Growth::Share(_) => write!(text, " (baseline {} + {})", shown(*base), percent(growth)),
            Growth::Amount(more) => {
                write!(text, " (baseline {} + {})", shown(*base), shown(more))
            }
        };
    }
    let _ = write!(text, " by {}", shown(actual.saturating_sub(*limit)));
    match others {
        0 => {}
        1 => text.push_str(", and so is 1 other process of it"),
        others => {
            let _ = write!(text, ", and so are {others} other processes of it");
        }
    }
    let list = |all: &[Largest]| {
        let all = all.iter();
        let texts: Vec<String> = all
            .map(|one| contributor(one, budget.figure.measure))
            .collect();
        texts.join(", ")
    };
    if !largest.is_empty() {
        let _ = write!(text, "; largest: {}", list(largest));
    }
    if !of_the_first.is_empty() {
        let _ = write!(text, "; of the first: {}", list(of_the_first));
    }
    text
}

fn prefix(budget: &Budget, over: Option<&Over>) -> String {
    match budget.program {
        Some(_) => format!("{}: ", program(budget, over)),
        None => String::new(),
    }
}

fn program(budget: &Budget, over: Option<&Over>) -> String {
    let name = budget.program.as_deref().unwrap_or_default();
    let mut text = escaped(name.as_bytes(), true);
    if let Some(pid) = over.and_then(|over| over.pid) {
        let _ = write!(text, " (pid {})", pid.0);
    }
    text
}

fn figure_name(budget: &Budget) -> String {
    let measure = budget.figure.measure;
    let when = match (measure, budget.figure.when) {
        (Measure::Drift, _) => return "drift (model against kernel)".to_owned(),
        (Measure::Lost, _) => return "number of lost observations".to_owned(),
        (Measure::Calls, _) => return "number of memory calls".to_owned(),
        (_, When::Peak) => "at its peak",
        (_, When::End) => "at the end",
    };
    let name = match measure {
        Measure::Anon => "committed anonymous memory",
        Measure::File => "committed file memory",
        Measure::Shmem => "committed shared memory",
        Measure::Mappings => "number of mappings",
        measure => measure.name(),
    };
    format!("{name} {when}")
}

fn amount_of(measure: Measure, amount: u64) -> String {
    match measure.is_bytes() {
        true => Size(Bytes(amount)).to_string(),
        false => Count(amount).to_string(),
    }
}

/// `10 %`, `0.5 %`.
fn percent(growth: Growth) -> String {
    let Growth::Share(millionths) = growth else {
        return String::new();
    };
    let (whole, rest) = (millionths / 10_000, millionths % 10_000);
    match rest {
        0 => format!("{whole} %"),
        rest => format!("{whole}.{} %", format!("{rest:04}").trim_end_matches('0')),
    }
}

fn contributor(largest: &Largest, measure: Measure) -> String {
    let amount = amount_of(measure, largest.amount);
    match &largest.what {
        Contributor::Process { exe, pid, up_to } => {
            let name = escaped(program_name(exe).as_bytes(), true);
            let up_to = if *up_to { "up to " } else { "" };
            format!("{name} (pid {}) {up_to}{amount}", pid.0)
        }
        Contributor::Place(place) => format!("{} {amount}", place_name(place)),
        Contributor::Reservation { by, time } => {
            let seconds = time.0 as f64 / 1e9;
            match by.call() {
                Some(call) => format!("{amount} by {call} at {seconds:.3} s"),
                None => format!("{amount} from the begin"),
            }
        }
        Contributor::Resident(name) => format!("{name} {amount}"),
        Contributor::Calls(name) => format!("{name} {amount}"),
    }
}

fn place_name(place: &Place) -> String {
    let file = |name: &str| escaped(program_name(name).as_bytes(), true);
    match place {
        Place::Heap => "heap".to_owned(),
        Place::Stack => "stack".to_owned(),
        Place::ThreadStack => "thread stacks".to_owned(),
        Place::Anon => "anonymous".to_owned(),
        Place::Shared(name) | Place::File(name) | Place::Special(name) => file(name),
        Place::Others => "smaller ones".to_owned(),
    }
}
