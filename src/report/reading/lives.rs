//! The lives of reservations: reserved by whom, committed by whom, what became of them.

use std::ops::AddAssign;
use std::sync::Arc;

use crate::mm::Flow;
use crate::report::{Place, Touches};
use crate::units::{Bytes, Tid, Timestamp};

use super::provenance::Origin;
use super::who::Label;

mod sink;

pub use sink::LivesSink;

/// What became of reservations, in sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LifeSums {
    /// How many.
    pub count: u64,
    /// Bytes reserved, when they were.
    pub reserved: Bytes,
    /// Bytes of them that were ever committed, each once.
    pub ever_committed: Bytes,
    /// Their bytes by what happened to them afterwards; what is committed and decommitted again and
    /// again counts each time.
    pub flow: Flow,
    /// Reserved when the space ended, or at the last event.
    pub reserved_now: Bytes,
    /// Committed then.
    pub committed_now: Bytes,
    /// How they were touched, if page faults were recorded.
    pub touched: Touches,
}

impl AddAssign for LifeSums {
    fn add_assign(&mut self, other: LifeSums) {
        let LifeSums {
            count,
            reserved,
            ever_committed,
            flow,
            reserved_now,
            committed_now,
            touched,
        } = other;
        self.count += count;
        self.reserved += reserved;
        self.ever_committed += ever_committed;
        self.flow += flow;
        self.reserved_now += reserved_now;
        self.committed_now += committed_now;
        self.touched += touched;
    }
}

/// What one source committed of a reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commits {
    /// Calls that did; none for what was committed when the reservation was copied by fork(2).
    pub calls: u64,
    /// Their bytes.
    pub bytes: Bytes,
    /// Those of them that are committed when the space ends, by no later call.
    pub left: Bytes,
    /// When the first did.
    pub first: Timestamp,
    /// When the last did.
    pub last: Timestamp,
    seq: u64,
}

/// What one source touched of a reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TouchedBy {
    /// Its page faults; the pages are those that it touched first. Where stacks were only sampled, those
    /// of a thread that had none taken count for the next that it had taken in the same reservation.
    pub touches: Touches,
    /// How many of the recorded ones had their stack taken.
    pub stacks: u64,
    /// When it took the first.
    pub first: Timestamp,
    /// When it took the last.
    pub last: Timestamp,
}

/// The life of one reservation: what one call reserved, or what was reserved when a space began.
#[derive(Clone, Debug, PartialEq)]
pub struct ReservationLife {
    /// What made it.
    pub origin: Arc<Origin>,
    /// Its process.
    pub pid: Tid,
    /// Command name of that.
    pub comm: Arc<str>,
    /// What it is; where a part of it became something else, what the last part is.
    pub place: Place,
    /// The name that the program gave it with prctl(2).
    pub name: Option<Arc<str>>,
    /// Who reserved it, innermost first.
    pub reserver: Vec<Label>,
    /// Who committed how much of it, the largest first.
    pub committers: Vec<(Vec<Label>, Commits)>,
    /// Who touched how much of it, the largest first.
    pub touchers: Vec<(Vec<Label>, TouchedBy)>,
    /// Its sums; it counts as one.
    pub sums: LifeSums,
    /// When its last byte was unmapped.
    pub released: Option<Timestamp>,
}

/// All reservations, the largest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Lives {
    /// Them.
    pub list: Vec<ReservationLife>,
    /// Smaller ones that are over, put together.
    pub smaller: LifeSums,
    /// Copies that fork(2) made and that no call touched, put together.
    pub copies: LifeSums,
    /// The sums of all.
    pub total: LifeSums,
    /// The trace holds stacks.
    pub with_stacks: bool,
    /// The trace holds page faults.
    pub with_touches: bool,
    /// Time of the last event.
    pub until: Timestamp,
}

#[cfg(test)]
mod tests;
