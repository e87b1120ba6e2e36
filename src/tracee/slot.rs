//! The slot: who may change the layout of a space when, so that the model sees the calls in the
//! order in which the kernel ran them, and an exit stop with nothing else in flight is an exact
//! checkpoint.
//!
//! Exit stops of threads that share a space arrive in another order than the kernel ran the calls
//! (cases, finding 1). So a call that needs the space for itself waits in its entry stop until
//! nothing is in flight, and the others wait behind it. Only plain mmaps (private, anonymous,
//! placed by the kernel) and munmaps may run side by side: nothing but an mmap that returns what a
//! munmap in flight has just freed depends on their order, and that one is told by the addresses.
//! Its report is then held back until the munmap's has been made.
//!
//! A call that blocks (a userfaultfd handled by another thread, a populate of gigabytes) no longer
//! keeps others waiting after [`PATIENCE`]; the calls that overlapped are marked, and the space is
//! compared with the kernel as soon as none is in flight.

use std::time::{Duration, Instant};

use crate::abi::{CallKind, MapFlags, call_info};
use crate::decode::RawCall;
use crate::timeline::{CheckCause, Observation};
use crate::units::{Addr, AddrRange, SpaceId, Tid};

use super::procfs;
use super::state::{HeldBack, InFlight, Kind, Space};
use super::supervisor::{Supervisor, Verify};

/// How long one call may keep the others waiting.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long, if it does not sleep: on a busy machine it waits for a CPU, or its exit stop for us,
/// and it would lose its place in the order for nothing.
const PATIENCE_RUNNING: Duration = Duration::from_millis(200);

impl Space {
    fn can_start(&self, alone: bool) -> bool {
        self.in_flight
            .iter()
            .all(|running| running.expired || !(alone || running.alone))
    }
}

impl Supervisor {
    /// A task is at the entry of a call that needs the slot: starts it, or lets it wait.
    pub(super) fn take_slot(&mut self, tid: Tid) {
        let alone = self.needs_space_alone(tid);
        let Some((id, space)) = self.tables.space_of(tid) else {
            return;
        };
        if space.queue.is_empty() && space.can_start(alone) {
            return self.grant(id, tid, alone);
        }
        space.queue.push_back((tid, alone));
        if let Some(task) = self.tables.tasks.get_mut(&tid) {
            task.waiting = true;
        }
        self.control.hurry(true);
    }

    fn needs_space_alone(&self, tid: Tid) -> bool {
        let Some(task) = self.tables.tasks.get(&tid) else {
            return true;
        };
        let Some(space) = self.tables.spaces.get(&task.space) else {
            return true;
        };
        let Some(call) = &task.call else { return true };
        let checked_each = self.options.verify != Verify::Exit;
        let touches_stack = space
            .stack
            .is_some_and(|stack| freed(&call.call).is_some_and(|freed| freed.overlaps(stack)));
        checked_each || space.grows || touches_stack || !runs_beside_others(&call.call)
    }

    fn grant(&mut self, id: SpaceId, tid: Tid, alone: bool) {
        let Some(space) = self.tables.spaces.get_mut(&id) else {
            return;
        };
        let Some(task) = self.tables.tasks.get_mut(&tid) else {
            return;
        };
        task.waiting = false;
        let kind = task.call.as_ref().map(|call| call.kind);
        let frees = task.call.as_ref().and_then(|call| freed(&call.call));
        let overlaps = space.in_flight.iter().any(|running| alone || running.alone);
        let beside = !space.in_flight.is_empty();
        for running in &mut space.in_flight {
            running.beside = true;
        }
        space.in_flight.push(InFlight {
            tid,
            alone,
            since: Instant::now(),
            expired: false,
            frees,
            blocks: false,
            beside,
        });
        if overlaps {
            for running in &space.in_flight {
                let task = self.tables.tasks.get_mut(&running.tid);
                if let Some(call) = task.and_then(|task| task.call.as_mut()) {
                    call.overlapped = true;
                }
            }
        } else if kind == Some(Kind::Exec) {
            self.final_look(tid, id, CheckCause::Exec);
        } else if alone {
            self.look_at_growth(tid, id);
        }
        self.resume(tid, 0);
    }

    /// The call of `tid` is over, or its task is: others may start.
    pub(super) fn release_slot(&mut self, id: SpaceId, tid: Tid) {
        let Some(space) = self.tables.spaces.get_mut(&id) else {
            return;
        };
        space.in_flight.retain(|running| running.tid != tid);
        self.report_held_back(id);
        self.start_waiting(id);
    }

    fn start_waiting(&mut self, id: SpaceId) {
        while !self.holding
            && let Some(space) = self.tables.spaces.get_mut(&id)
            && let Some(&(next, alone)) = space.queue.front()
            && space.can_start(alone)
        {
            space.queue.pop_front();
            if self
                .tables
                .tasks
                .get(&next)
                .is_some_and(|task| task.waiting)
            {
                self.grant(id, next, alone);
            }
        }
    }

    /// Makes calls that block keep nobody waiting. Whether anybody waits still.
    pub(super) fn free_overdue_slots(&mut self) -> bool {
        let waiting = self
            .tables
            .spaces
            .iter()
            .filter(|(_, space)| !space.queue.is_empty());
        let waiting: Vec<SpaceId> = waiting.map(|(&id, _)| id).collect();
        for &id in &waiting {
            let Some(space) = self.tables.spaces.get_mut(&id) else {
                continue;
            };
            for running in &mut space.in_flight {
                // It may have stopped long ago, and we have not come round to it.
                if is_overdue(running.tid, running.since.elapsed())
                    && !self.waiter.look_at(running.tid)
                {
                    running.expired = true;
                }
            }
            self.start_waiting(id);
        }
        self.tables
            .spaces
            .values()
            .any(|space| !space.queue.is_empty())
    }

    /// Reports a finished call. One that returned what a munmap still in flight is freeing is held
    /// back until that one has been reported, and all later ones of the space behind it.
    pub(super) fn report_call(
        &mut self,
        id: SpaceId,
        tid: Tid,
        observation: Observation,
        made: Option<AddrRange>,
    ) {
        let Some(space) = self.tables.spaces.get_mut(&id) else {
            return;
        };
        let mut conflict = false;
        let mut blocks = false;
        for running in &mut space.in_flight {
            if running.tid == tid {
                blocks = running.blocks;
            } else if let (Some(freed), Some(made)) = (running.frees, made)
                && freed.overlaps(made)
            {
                running.blocks = true;
                conflict = true;
            }
        }
        // The addresses prove the order only where the range was mapped before: look, to be sure.
        space.doubt |= conflict;
        if blocks || (!conflict && space.held_back.is_empty()) {
            self.out.push(observation);
        } else {
            space.held_back.push_back(HeldBack { observation, made });
        }
    }

    /// Reports what was held back, whatever it waits for: its space is about to end.
    pub(super) fn report_all_held_back(&mut self, id: SpaceId) {
        if let Some(space) = self.tables.spaces.get_mut(&id) {
            self.out
                .extend(space.held_back.drain(..).map(|held| held.observation));
        }
    }

    pub(super) fn report_held_back(&mut self, id: SpaceId) {
        let now = self.now();
        let Some(space) = self.tables.spaces.get_mut(&id) else {
            return;
        };
        while let Some(held) = space.held_back.front() {
            let blocked = held.made.is_some_and(|made| {
                let mut blockers = space.in_flight.iter().filter(|running| running.blocks);
                blockers.any(|running| running.frees.is_some_and(|freed| freed.overlaps(made)))
            });
            if blocked {
                return;
            }
            if let Some(mut held) = space.held_back.pop_front() {
                // Its place in the order counts, and time does not run backwards.
                held.observation.time = held.observation.time.max(now);
                self.out.push(held.observation);
            }
        }
    }
}

/// What a munmap is about to free.
fn freed(call: &RawCall) -> Option<AddrRange> {
    let info = call_info(call.abi, call.nr)?;
    let [addr, len, ..] = call.args;
    (info.kind == CallKind::Munmap)
        .then(|| AddrRange::covering(Addr(addr), len))
        .flatten()
}

/// What a plain mmap made.
pub(super) fn made(call: &RawCall, result: i64) -> Option<AddrRange> {
    let makes = 0 <= result && is_plain_mmap(call);
    makes
        .then(|| AddrRange::covering(Addr(result as u64), call.args[1]))
        .flatten()
}

fn runs_beside_others(call: &RawCall) -> bool {
    let kind = call_info(call.abi, call.nr).map(|info| info.kind);
    kind == Some(CallKind::Munmap) || is_plain_mmap(call)
}

/// A private anonymous mmap that the kernel places and that takes no time.
pub(super) fn is_plain_mmap(call: &RawCall) -> bool {
    let kind = call_info(call.abi, call.nr).map(|info| info.kind);
    let flags = MapFlags::from_bits_retain(call.args[3] as u32);
    let plain = MapFlags::PRIVATE | MapFlags::ANONYMOUS;
    let allowed = plain | MapFlags::NORESERVE | MapFlags::STACK | MapFlags::BIT32;
    matches!(kind, Some(CallKind::Mmap | CallKind::Mmap2))
        && flags.contains(plain)
        && allowed.contains(flags)
}

/// Whether a call that has held the slot for this long blocks.
fn is_overdue(tid: Tid, held: Duration) -> bool {
    let sleeps = || !matches!(procfs::state(tid), Some(b'R' | b't'));
    PATIENCE_RUNNING <= held || PATIENCE <= held && sleeps()
}
