//! Budgets: what a program may take, and whether it stayed within.
//!
//! A budget is a figure, over the whole tree or over each process of one program, and a limit:
//! an amount, or a growth over the same figure of a baseline. A figure is taken at its peak unless
//! its name ends in `.end`; `calls`, `drift` and `lost` have neither.
//!
//! What cannot be trusted is no proof: a trace that is damaged breaks every budget, and so do drift
//! and lost observations, unless they are allowed in so many words ([`Budgets::allow_incomplete`],
//! limits for `drift` and `lost`).

mod amount;
mod figure;
mod largest;
mod measured;
mod parts;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::trace_file::Damage;
use crate::units::Tid;

use super::facts::SpaceReport;

pub use amount::{Growth, amount};
pub use figure::{Figure, Measure, When};
pub use largest::{Contributor, Largest};
pub use measured::Measured;
pub use parts::PartsPeaks;

/// The most that a figure may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// This much.
    Max(u64),
    /// This much more than in the baseline.
    Growth(Growth),
}

/// One budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The program whose processes it holds for, each by itself: the name of the executable
    /// without its folder. `None`: for the whole tree.
    pub program: Option<String>,
    /// What is limited.
    pub figure: Figure,
    /// To what.
    pub limit: Limit,
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(program) = &self.program {
            write!(f, "{program}: ")?;
        }
        write!(f, "{}", self.figure)?;
        match self.limit {
            Limit::Max(_) => Ok(()),
            Limit::Growth(_) => f.write_str(" growth"),
        }
    }
}

/// All that a trace must keep to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// In the order in which they are told.
    pub list: Vec<Budget>,
    /// A trace that stops before its end will do.
    pub allow_incomplete: bool,
}

impl Budgets {
    /// Adds a budget; one with the same program, figure and kind of limit gives way to it.
    pub fn add(&mut self, budget: Budget) {
        let kind = std::mem::discriminant(&budget.limit);
        let same = |old: &&mut Budget| {
            old.program == budget.program
                && old.figure == budget.figure
                && std::mem::discriminant(&old.limit) == kind
        };
        match self.list.iter_mut().find(same) {
            Some(old) => *old = budget,
            None => self.list.push(budget),
        }
    }

    /// Adds what holds unless something else was said: no drift, nothing lost.
    pub fn with_defaults(mut self) -> Budgets {
        for measure in [Measure::Drift, Measure::Lost] {
            let said =
                |budget: &Budget| budget.program.is_none() && budget.figure.measure == measure;
            if !self.list.iter().any(said) {
                self.list.push(Budget {
                    program: None,
                    figure: Figure {
                        measure,
                        when: When::Peak,
                    },
                    limit: Limit::Max(0),
                });
            }
        }
        self
    }
}

/// What came of one budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The budget.
    pub budget: Budget,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of one budget.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing is over it.
    Within,
    /// The trace has no process of the program.
    NoProgram,
    /// It was never measured.
    NotMeasured,
    /// Over it.
    Over(Over),
}

/// By how much a budget is broken, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    /// The process, if the budget is of a program: the one that is the most over.
    pub pid: Option<Tid>,
    /// Other processes that are over it, too.
    pub others: usize,
    /// The figure.
    pub actual: u64,
    /// The highest it may be.
    pub limit: u64,
    /// The same figure of the baseline, if the limit comes from there.
    pub base: Option<u64>,
    /// What it is made of, the largest first.
    pub largest: Vec<Largest>,
    /// What the first of `largest` is made of, if that is a process.
    pub of_the_first: Vec<Largest>,
}

/// Why a check cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A limit is relative, and there is nothing to compare with.
    #[error("{0}: over what? name a baseline")]
    NoBaseline(String),
    /// The baseline lacks the program, or never measured it.
    #[error("{0}: the baseline has no such figure")]
    NotInBaseline(String),
    /// The program is not split from the rest in this figure.
    #[error("{0}: it is a figure of the whole trace, not of one program")]
    NotOfAProgram(String),
}

/// Whether `trace` keeps to `budgets`: one verdict for each, in their order.
pub fn check(
    trace: &Measured,
    budgets: &Budgets,
    baseline: Option<&Measured>,
) -> Result<Vec<Verdict>, CheckError> {
    let verdict = |budget: &Budget| {
        Ok(Verdict {
            budget: budget.clone(),
            outcome: outcome(trace, budget, baseline)?,
        })
    };
    budgets.list.iter().map(verdict).collect()
}

/// The damage that forbids to trust a trace.
pub fn untrusted<'a>(trace: &'a Measured, budgets: &Budgets) -> Option<&'a Damage> {
    let damage = trace.report.damage.as_ref();
    damage.filter(|_| !budgets.allow_incomplete)
}

fn outcome(
    trace: &Measured,
    budget: &Budget,
    baseline: Option<&Measured>,
) -> Result<Outcome, CheckError> {
    let figure = budget.figure;
    if budget.program.is_some() && figure.measure == Measure::Lost {
        return Err(CheckError::NotOfAProgram(budget.to_string()));
    }
    let (limit, base) = match budget.limit {
        Limit::Max(limit) => (limit, None),
        Limit::Growth(growth) => {
            let baseline = baseline.ok_or_else(|| CheckError::NoBaseline(budget.to_string()))?;
            let base = highest(baseline, budget)
                .ok_or_else(|| CheckError::NotInBaseline(budget.to_string()))?;
            (growth.limit(base), Some(base))
        }
    };
    let Some(program) = &budget.program else {
        let Some(actual) = trace.of_the_tree(figure) else {
            return Ok(Outcome::NotMeasured);
        };
        if actual <= limit {
            return Ok(Outcome::Within);
        }
        let (largest, of_the_first) = largest::of_the_tree(trace, figure);
        return Ok(Outcome::Over(Over {
            pid: None,
            others: 0,
            actual,
            limit,
            base,
            largest,
            of_the_first,
        }));
    };
    let mut seen = false;
    let mut over: Vec<(u64, &SpaceReport)> = Vec::new();
    for space in trace.spaces_of(program) {
        seen = true;
        match trace.of_a_space(space, figure) {
            None => return Ok(Outcome::NotMeasured),
            Some(actual) if limit < actual => over.push((actual, space)),
            Some(_) => {}
        }
    }
    // The first of equal ones.
    let worst = over.iter().rev().max_by_key(|(actual, _)| *actual);
    Ok(match worst {
        Some((actual, space)) => Outcome::Over(Over {
            pid: Some(space.pid),
            others: over.len().saturating_sub(1),
            actual: *actual,
            limit,
            base,
            largest: largest::of_a_space(space, figure),
            of_the_first: Vec::new(),
        }),
        None if seen => Outcome::Within,
        None => Outcome::NoProgram,
    })
}

/// The figure that a growth counts from: of a program that of its largest process.
fn highest(trace: &Measured, budget: &Budget) -> Option<u64> {
    match &budget.program {
        None => trace.of_the_tree(budget.figure),
        Some(program) => {
            let spaces = trace.spaces_of(program);
            let values = spaces.filter_map(|space| trace.of_a_space(space, budget.figure));
            values.max()
        }
    }
}

/// The name of an executable without its folder, and without the mark that it was deleted.
pub fn program_name(exe: &str) -> &str {
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
    exe.rsplit('/').next().unwrap_or(exe)
}
