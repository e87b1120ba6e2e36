//! The sums of a report, as a comparison shows them.

use crate::mm::Parts;
use crate::report::{Report, SpaceReport, TreeFigure};

use super::facts::{EndPeak, Sums};

/// The sums of one space.
pub(super) fn of_space(space: &SpaceReport) -> Sums {
    let bytes = |figure: &crate::report::Figure<crate::units::Bytes>| EndPeak {
        end: figure.end.0,
        peak: figure.peak.0,
    };
    Sums {
        mapped: bytes(&space.mapped),
        reserved: bytes(&space.reserved),
        committed: bytes(&space.committed),
        parts: space.parts,
        charged: EndPeak {
            end: space.charged.end.0,
            peak: space.charged.peak.peak.0,
        },
        resident: space
            .resident
            .map_or(EndPeak::default(), |resident| EndPeak {
                end: resident.end.0,
                peak: resident.peak.0,
            }),
        mappings: EndPeak {
            end: space.mappings.end,
            peak: space.mappings.peak,
        },
        events: 0,
    }
}

/// The sums of all spaces: ends are the sums of the ends, a peak is that of the sum. It is never
/// below that of a single space: the kernel's own mark of resident memory is known for each space
/// and not for their sum.
pub(super) fn of_report(report: &Report) -> Sums {
    let spaces: Vec<Sums> = report.spaces.iter().map(of_space).collect();
    let figure = |of: fn(&Sums) -> EndPeak, tree: &TreeFigure| {
        let single = spaces.iter().map(|sums| of(sums).peak).max();
        EndPeak {
            end: spaces
                .iter()
                .map(|sums| of(sums).end)
                .fold(0, u64::saturating_add),
            peak: tree.peak.max(single.unwrap_or(0)),
        }
    };
    let mut parts = Parts::default();
    for space in &report.spaces {
        parts.anon += space.parts.anon;
        parts.file += space.parts.file;
        parts.shmem += space.parts.shmem;
        parts.special += space.parts.special;
    }
    let tree = &report.tree;
    Sums {
        mapped: figure(|sums| sums.mapped, &tree.mapped),
        reserved: figure(|sums| sums.reserved, &tree.reserved),
        committed: figure(|sums| sums.committed, &tree.committed),
        parts,
        charged: figure(|sums| sums.charged, &tree.charged),
        resident: figure(|sums| sums.resident, &tree.resident),
        mappings: figure(|sums| sums.mappings, &tree.mappings),
        events: report.events,
    }
}
