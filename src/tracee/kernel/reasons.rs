//! What refused a call: the limits of its task, and what they count, as they are when its return is
//! worked on.
//!
//! That is a few milliseconds after it at best, so it is a look like others: it counts if nothing has
//! altered the space from the return of the call until then (calls that were refused themselves have
//! not). A limit that was set meanwhile no record
//! tells, so no cause is proven by such figures. Who fails in a loop has its reason told now and then.

use crate::decode::{Fetched, RawCall};
use crate::mm::Evidence;
use crate::timeline::{Figures, Observation, Observed, is_refused};
use crate::units::{AddrRange, SpaceId, Tid};

use super::super::procfs::MapsFile;
use super::super::refused::refused_before;
use super::observer::KernelObserver;
use super::rings::now;
use super::state::{Item, Look, Seen};

/// Between two such looks at one space, in nanoseconds.
const PAUSE: u64 = 200_000_000;
/// All of them together take a tenth of the time at most.
const SHARE: u64 = 10;

impl KernelObserver {
    /// Looks for what refused `call`, which has returned at `time` and has nothing beside it, and at
    /// what it left of the ranges that are `untold`. Whether there is a look, for which its report is
    /// to wait.
    pub(super) fn look_for_reason(
        &mut self,
        id: SpaceId,
        tid: Tid,
        time: u64,
        call: (&RawCall, &[Fetched], i64),
        untold: &[AddrRange],
    ) -> bool {
        let (call, fetched, result) = call;
        if is_refused(call, result).is_none() {
            return false;
        }
        let began = now();
        let (Some(space), Some(task)) = (self.spaces.get_mut(&id), self.tasks.get(&tid)) else {
            return false;
        };
        let alone = space.in_flight.iter().all(|other| *other == tid);
        if !alone || began < space.next_reason || began < self.next_reason {
            return false;
        }
        space.next_reason = began + PAUSE;
        let figures = refused_before(task.pid, tid, call, fetched);
        let left = figures.is_some().then(|| ask(tid, untold)).flatten();
        let ended = now();
        self.next_reason = ended + SHARE * (ended - began);
        let (Some(figures), Some(left)) = (figures, left) else {
            return false;
        };
        self.looks.push(Look {
            space: id,
            began,
            ended,
            seen: Seen::Refused(figures, left, time),
            // From the return of the call on.
            reached: true,
            torn: false,
            still: false,
        });
        true
    }

    /// Whether the report of a call that was refused at that time waits for its reason.
    pub(super) fn looks_for_reason(&self, id: SpaceId, time: u64) -> bool {
        let is_for_it = |look: &Look| {
            look.space == id && matches!(look.seen, Seen::Refused(.., at) if at == time)
        };
        self.looks.iter().any(is_for_it)
    }

    /// Nothing has altered the space since the call was refused.
    pub(super) fn reason_found(
        &mut self,
        id: SpaceId,
        time: u64,
        figures: Box<Figures>,
        left: Vec<Evidence>,
    ) {
        let item = self.queue.iter_mut().find_map(|item| match item {
            Item::Refused(of, at, observation) if *of == id && *at == time => Some(observation),
            _ => None,
        });
        if let Some(Observation {
            what: Observed::Call(call),
            ..
        }) = item
        {
            call.refused = Some(figures);
            if !left.is_empty() {
                call.evidence = left;
            }
        }
    }
}

/// What is mapped in these ranges.
fn ask(tid: Tid, ranges: &[AddrRange]) -> Option<Vec<Evidence>> {
    if ranges.is_empty() {
        return Some(Vec::new());
    }
    let mut maps = MapsFile::open(tid).ok()?;
    let answers = ranges.iter().map(|range| maps.ask(*range).ok());
    answers.collect()
}
