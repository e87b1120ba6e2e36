//! What a figure is made of, as far as a report tells.

use std::sync::Arc;

use crate::report::facts::{Detail, Maker, SpaceReport, TreeFigure};
use crate::report::places::{Place, PlaceBytes};
use crate::units::{Bytes, Tid, Timestamp};

use super::{Figure, Measure, Measured, When};

/// Contributors that are named.
const NAMED: usize = 3;

/// Something that a figure is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Largest {
    /// What.
    pub what: Contributor,
    /// How much of it: bytes, or a count for a figure that is one.
    pub amount: u64,
}

/// What a figure can be made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Contributor {
    /// A process.
    Process {
        /// The executable.
        exe: Arc<str>,
        /// The process.
        pid: Tid,
        /// `amount` is its own peak, which may have been at another instant.
        up_to: bool,
    },
    /// A place in an address space.
    Place(Place),
    /// A reservation.
    Reservation {
        /// Which event made it.
        by: Maker,
        /// When.
        time: Timestamp,
    },
    /// Resident memory of a kind: `anonymous`, `files`, `shared`.
    Resident(&'static str),
    /// Calls of a name.
    Calls(String),
}

/// What a figure of the whole tree is made of: its processes if there were several at that
/// instant, and what the largest of them is made of.
pub(super) fn of_the_tree(trace: &Measured, figure: Figure) -> (Vec<Largest>, Vec<Largest>) {
    let peak_time = peak_time(trace, figure.measure);
    let mut spaces: Vec<(u64, &SpaceReport)> = trace
        .report
        .spaces
        .iter()
        .filter(|space| match (figure.when, peak_time) {
            (When::Peak, Some(time)) => space.since <= time && time <= space.until,
            _ => true,
        })
        .filter_map(|space| Some((trace.of_a_space(space, figure)?, space)))
        .filter(|(amount, _)| *amount != 0)
        .collect();
    spaces.sort_by_key(|(amount, space)| (std::cmp::Reverse(*amount), space.id));
    let Some((_, first)) = spaces.first() else {
        return Default::default();
    };
    let inside = of_a_space(first, figure);
    if spaces.len() == 1 {
        return (inside, Vec::new());
    }
    let process = |(amount, space): &(u64, &SpaceReport)| Largest {
        what: Contributor::Process {
            exe: Arc::clone(&space.exe),
            pid: space.pid,
            up_to: figure.when == When::Peak && !figure.measure.is_sum(),
        },
        amount: *amount,
    };
    (spaces.iter().take(NAMED).map(process).collect(), inside)
}

fn peak_time(trace: &Measured, measure: Measure) -> Option<Timestamp> {
    let tree = &trace.report.tree;
    let time = |figure: &TreeFigure| Some(figure.peak_time);
    match measure {
        Measure::Mapped => time(&tree.mapped),
        Measure::Reserved => time(&tree.reserved),
        Measure::Committed => time(&tree.committed),
        Measure::Charged => time(&tree.charged),
        Measure::Resident => time(&tree.resident),
        Measure::Mappings => time(&tree.mappings),
        Measure::Anon | Measure::File | Measure::Shmem => Some(trace.parts.tree_time(measure)),
        Measure::Calls | Measure::Drift | Measure::Lost => None,
    }
}

/// What a figure of one space is made of.
pub(super) fn of_a_space(space: &SpaceReport, figure: Figure) -> Vec<Largest> {
    let mut largest = match (figure.measure, &space.detail) {
        (Measure::Calls, _) => calls(space),
        (Measure::Resident, _) => resident(space),
        (Measure::Reserved, Some(detail)) if figure.when == When::Peak => reservations(detail),
        (_, Some(detail)) => places(detail, figure),
        (_, None) => Vec::new(),
    };
    largest.retain(|one| one.amount != 0);
    largest.sort_by_key(|one| std::cmp::Reverse(one.amount));
    largest.truncate(NAMED);
    largest
}

fn calls(space: &SpaceReport) -> Vec<Largest> {
    let calls = space.calls.iter();
    calls
        .map(|(name, call)| Largest {
            what: Contributor::Calls(name.to_string()),
            amount: call.count,
        })
        .collect()
}

fn resident(space: &SpaceReport) -> Vec<Largest> {
    let parts = space.resident.and_then(|resident| resident.parts);
    let Some(parts) = parts else {
        return Vec::new();
    };
    let part = |name, amount: Bytes| Largest {
        what: Contributor::Resident(name),
        amount: amount.0,
    };
    vec![
        part("anonymous", parts.anon),
        part("files", parts.file),
        part("shared", parts.shmem),
    ]
}

fn reservations(detail: &Detail) -> Vec<Largest> {
    let largest = detail.reservations.largest.iter();
    largest
        .map(|reservation| Largest {
            what: Contributor::Reservation {
                by: reservation.by,
                time: reservation.time,
            },
            amount: reservation.bytes.0,
        })
        .collect()
}

/// Which list of places is nearest to a figure, and what of each place counts.
fn places(detail: &Detail, figure: Figure) -> Vec<Largest> {
    let list = match (figure.when, figure.measure) {
        (When::End, _) => &detail.end,
        (When::Peak, Measure::Mapped) => &detail.mapped_peak,
        (When::Peak, _) => &detail.committed_peak,
    };
    let amount = |bytes: &PlaceBytes| {
        let counts = match (figure.measure, &bytes.place) {
            (Measure::Mapped, _) => return bytes.reserved.0.saturating_add(bytes.committed.0),
            (Measure::Reserved, _) => return bytes.reserved.0,
            (Measure::Committed, _) => true,
            (Measure::Anon | Measure::Charged, place) => matches!(
                place,
                Place::Heap | Place::Stack | Place::ThreadStack | Place::Anon
            ),
            (Measure::File, place) => matches!(place, Place::File(_)),
            (Measure::Shmem, place) => matches!(place, Place::Shared(_)),
            _ => false,
        };
        if counts { bytes.committed.0 } else { 0 }
    };
    let places = list.iter().map(|bytes| Largest {
        what: Contributor::Place(bytes.place.clone()),
        amount: amount(bytes),
    });
    places.collect()
}
