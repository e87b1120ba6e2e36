//! The figures of a trace.

use crate::mm::Parts;
use crate::report::facts::{Report, SpaceReport};

use super::{Figure, Measure, PartsPeaks, When, program_name};

/// A trace with all that budgets ask for.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Its report.
    pub report: Report,
    /// What the report does not have.
    pub parts: PartsPeaks,
}

impl Measured {
    /// The names of all programs, each once, in alphabetical order.
    pub fn programs(&self) -> Vec<&str> {
        let spaces = self.report.spaces.iter();
        let mut names: Vec<&str> = spaces.map(|space| program_name(&space.exe)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Measured {
    pub(super) fn spaces_of<'a>(
        &'a self,
        program: &'a str,
    ) -> impl Iterator<Item = &'a SpaceReport> {
        let spaces = self.report.spaces.iter();
        spaces.filter(move |space| program_name(&space.exe) == program)
    }

    /// A figure of the whole tree; `None` if it was never measured.
    pub fn of_the_tree(&self, figure: Figure) -> Option<u64> {
        let tree = &self.report.tree;
        let spaces = &self.report.spaces;
        let figure_of = match figure.measure {
            Measure::Mapped => &tree.mapped,
            Measure::Reserved => &tree.reserved,
            Measure::Committed => &tree.committed,
            Measure::Charged => &tree.charged,
            Measure::Mappings => &tree.mappings,
            Measure::Resident if spaces.iter().all(|space| space.resident.is_none()) => {
                return None;
            }
            Measure::Resident => &tree.resident,
            Measure::Anon | Measure::File | Measure::Shmem => {
                return Some(match figure.when {
                    When::Peak => part(&self.parts.tree(), figure.measure),
                    When::End => spaces
                        .iter()
                        .map(|space| part(&space.parts, figure.measure))
                        .fold(0, u64::saturating_add),
                });
            }
            Measure::Lost => return Some(self.report.lost),
            Measure::Calls | Measure::Drift => {
                let values = spaces.iter().map(|space| sum(space, figure.measure));
                return Some(values.fold(0, u64::saturating_add));
            }
        };
        Some(match figure.when {
            When::Peak => figure_of.peak,
            When::End => figure_of.end,
        })
    }

    /// A figure of one space; `None` if it was never measured.
    pub fn of_a_space(&self, space: &SpaceReport, figure: Figure) -> Option<u64> {
        let bytes = match figure.measure {
            Measure::Mapped => space.mapped,
            Measure::Reserved => space.reserved,
            Measure::Committed => space.committed,
            Measure::Charged => {
                return Some(match figure.when {
                    When::Peak => space.charged.peak.peak.0,
                    When::End => space.charged.end.0,
                });
            }
            Measure::Resident => {
                let resident = space.resident.as_ref()?;
                return match figure.when {
                    When::Peak => Some(resident.peak.0),
                    When::End => resident.last().map(|end| end.0),
                };
            }
            Measure::Mappings => {
                return Some(match figure.when {
                    When::Peak => space.mappings.peak,
                    When::End => space.mappings.end,
                });
            }
            Measure::Anon | Measure::File | Measure::Shmem => {
                return Some(match figure.when {
                    When::Peak => part(&self.parts.of(space.id), figure.measure),
                    When::End => part(&space.parts, figure.measure),
                });
            }
            Measure::Calls | Measure::Drift | Measure::Lost => {
                return Some(sum(space, figure.measure));
            }
        };
        Some(match figure.when {
            When::Peak => bytes.peak.0,
            When::End => bytes.end.0,
        })
    }
}

fn sum(space: &SpaceReport, measure: Measure) -> u64 {
    match measure {
        Measure::Calls => {
            let counts = space.calls.values().map(|call| call.count);
            counts.fold(0, u64::saturating_add)
        }
        Measure::Drift => space.verify.drift.0,
        _ => 0,
    }
}

pub(super) fn part(parts: &Parts, measure: Measure) -> u64 {
    match measure {
        Measure::Anon => parts.anon.0,
        Measure::File => parts.file.0,
        Measure::Shmem => parts.shmem.0,
        _ => 0,
    }
}
