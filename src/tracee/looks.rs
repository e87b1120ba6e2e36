//! Looking at a whole space: comparisons with the kernel's map, and what is resident.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use crate::abi::{CallKind, call_info};
use crate::decode::RawCall;
use crate::mm::Snapshot;
use crate::timeline::{CheckCause, Observed};
use crate::units::{AddrRange, SpaceId, Tid};

use super::state::Space;
use super::supervisor::{Supervisor, Verify};
use super::{memory, procfs};

/// A space's resident size is measured at most this often while it makes calls.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// Checks for doubt alone take a tenth of the time at most.
const DOUBT_SHARE: u32 = 10;

impl Supervisor {
    /// At the exit stop of a layout-changing call: compare, when it is time and nothing of the
    /// space is in flight. No other such call can start before the slot is released.
    pub(super) fn after_layout_call(
        &mut self,
        tid: Tid,
        id: SpaceId,
        call: &RawCall,
        overlapped: bool,
    ) {
        let Some(space) = self.tables.spaces.get_mut(&id) else {
            return;
        };
        space.in_flight.retain(|running| running.tid != tid);
        self.report_held_back(id);
        let Some(space) = self.tables.spaces.get_mut(&id) else {
            return;
        };
        space.since_check += 1;
        space.looked = false;
        space.last_sight = None;
        space.untouched = false;
        space.doubt |= overlapped;
        if !space.in_flight.is_empty() || !space.held_back.is_empty() {
            return;
        }
        let due = match self.options.verify {
            Verify::Exit => false,
            Verify::Every(calls) => calls <= space.since_check,
        };
        let now = Instant::now();
        let doubt = space.doubt && (due || space.next_check.is_none_or(|at| at <= now));
        if !due && !doubt {
            return;
        }
        let flags = may_cut_growth(space, call);
        let contradicted = space.contradicted;
        if due {
            space.since_check = 0;
        }
        if doubt {
            space.doubt = false;
            self.checkpoint(tid, id, CheckCause::Doubt, flags || contradicted);
            if let Some(space) = self.tables.spaces.get_mut(&id) {
                space.contradicted = false;
                space.next_check = Some(Instant::now() + now.elapsed() * DOUBT_SHARE);
            }
        }
        if due {
            self.checkpoint(tid, id, CheckCause::Asked, flags);
        }
    }

    /// Before a call that may cut through a mapping that grows by page faults: takes over how far
    /// it has grown, which no call has told.
    pub(super) fn look_at_growth(&mut self, tid: Tid, id: SpaceId) {
        let Some(call) = self
            .tables
            .tasks
            .get(&tid)
            .and_then(|task| task.call.as_ref())
        else {
            return;
        };
        let Some(space) = self.tables.spaces.get_mut(&id) else {
            return;
        };
        if may_cut_growth(space, &call.call) {
            let cause = match std::mem::take(&mut space.doubt) {
                true => CheckCause::Doubt,
                false => CheckCause::Asked,
            };
            self.checkpoint(tid, id, cause, true);
        }
    }

    /// Compares the space with the kernel's map. With `flags`, also with what maps does not show: it
    /// takes longer, some 5 ms for each resident GiB.
    fn checkpoint(&mut self, tid: Tid, id: SpaceId, cause: CheckCause, flags: bool) {
        if !self.tables.spaces.get(&id).is_some_and(|space| space.known) {
            return;
        }
        // Flags are needed to correct a model (NORESERVE, the charge), and where a call may have
        // altered what page faults of other threads have mapped since the last look: by then only
        // VM_GROWSDOWN tells that they did.
        let snapshot = flags.then(|| whole(tid, procfs::smaps)).flatten();
        if let Some(snapshot) = snapshot.or_else(|| whole(tid, procfs::maps)) {
            self.push(Observed::Checkpoint {
                space: id,
                cause,
                snapshot,
            });
        }
    }

    /// The last look at a space: what is resident, what is charged, and whether the model holds.
    pub(super) fn final_look(&mut self, tid: Tid, id: SpaceId, cause: CheckCause) {
        if let Some(resident) = procfs::Status::read(tid).ok().and_then(|s| s.resident()) {
            self.push(Observed::Resident {
                space: id,
                resident,
            });
        }
        let Some(space) = self.tables.spaces.get_mut(&id) else {
            return;
        };
        if !space.known {
            return;
        }
        let doubt = space.doubt;
        // maps takes a tenth of the time of smaps: with SIGKILL on its way it may be all there is.
        let hurry = cause == CheckCause::Exit && (1 < space.tasks || ends_by_signal(tid));
        let first = hurry.then(|| whole(tid, procfs::maps)).flatten();
        let smaps = (!space.untouched)
            .then(|| whole(tid, procfs::smaps))
            .flatten();
        let Some(snapshot) = smaps.or(first).or_else(|| whole(tid, procfs::maps)) else {
            return;
        };
        (space.doubt, space.looked) = (false, true);
        if doubt {
            let snapshot = snapshot.clone();
            self.push(Observed::Checkpoint {
                space: id,
                cause: CheckCause::Doubt,
                snapshot,
            });
        }
        self.push(Observed::Checkpoint {
            space: id,
            cause,
            snapshot,
        });
    }

    /// The process of a space begins to end while calls of other tasks are in flight: what is there
    /// now is kept, in case none of them stops again.
    pub(super) fn first_sight_of_the_end(&mut self, tid: Tid, id: SpaceId) {
        let sight = whole(tid, procfs::maps);
        if let Some(space) = self.tables.spaces.get_mut(&id)
            && space.known
        {
            space.last_sight = sight;
        }
    }

    /// All tasks of a space have ended. Compares it with what was last seen of it, if nothing was
    /// seen later.
    pub(super) fn look_back(&mut self, id: SpaceId) {
        let Some(space) = self.tables.spaces.get_mut(&id) else {
            return;
        };
        let Some(snapshot) = space.last_sight.take().filter(|_| !space.looked) else {
            return;
        };
        for cause in [CheckCause::Doubt, CheckCause::Exit] {
            let snapshot = snapshot.clone();
            self.push(Observed::Checkpoint {
                space: id,
                cause,
                snapshot,
            });
        }
    }

    /// Measures what is resident, if the last time is `every` ago.
    pub(super) fn sample(&mut self, id: SpaceId, tid: Tid, now: Instant, every: Duration) {
        let Some(space) = self.tables.spaces.get_mut(&id) else {
            return;
        };
        if space
            .sampled
            .is_some_and(|last| now.duration_since(last) < every)
        {
            return;
        }
        space.sampled = Some(now);
        let resident = procfs::statm(tid);
        if let Some(resident) = resident {
            self.push(Observed::Resident {
                space: id,
                resident,
            });
        }
    }

    /// Measures what is resident in spaces that have not been measured for a while.
    pub(super) fn sample_all(&mut self) {
        if self.holding {
            return;
        }
        // Asking costs a few µs a space; a thousand of them are asked in turn.
        let now = Instant::now();
        let is_due = |last: Instant| Duration::from_millis(90) <= now.duration_since(last);
        let spaces = self.tables.spaces.iter();
        let due: HashSet<SpaceId> = spaces
            .filter(|(_, space)| space.sampled.is_none_or(is_due))
            .map(|(&id, _)| id)
            .collect();
        if due.is_empty() {
            return;
        }
        let mut seen = HashSet::new();
        let due: Vec<(SpaceId, Tid)> = self
            .tables
            .tasks
            .iter()
            .filter(|(_, task)| !task.exiting && due.contains(&task.space))
            .filter(|(_, task)| seen.len() < 64 && seen.insert(task.space))
            .map(|(&tid, task)| (task.space, tid))
            .collect();
        for (space, tid) in due {
            self.sample(space, tid, now, Duration::ZERO);
        }
    }
}

/// Reads a stopped task's maps. SIGKILL takes a task out of its stop, and its space away while it
/// is being read: what was read is the whole only if the task is still there.
fn whole(tid: Tid, read: fn(Tid) -> io::Result<Snapshot>) -> Option<Snapshot> {
    let snapshot = read(tid).ok()?;
    memory::regs(tid).is_ok().then_some(snapshot)
}

/// At PTRACE_EVENT_EXIT: whether a signal ends the task (the event's message is its wait status).
fn ends_by_signal(tid: Tid) -> bool {
    let status = nix::sys::ptrace::getevent(nix::unistd::Pid::from_raw(tid.0));
    status.is_ok_and(|status| status & 0x7f != 0)
}

/// Whether a call may alter a mapping that grows by page faults, or what such a one has grown into.
fn may_cut_growth(space: &Space, call: &RawCall) -> bool {
    let touches = |addr: u64, len: u64| {
        let reaches =
            |stack: AddrRange| addr < stack.end().0 && stack.start().0 < addr.saturating_add(len);
        space.stack.is_some_and(reaches)
    };
    let [addr, len, new_len, _, new_addr, _] = call.args;
    // The registers behind the last argument hold anything, addresses on the stack too.
    let touched = match call_info(call.abi, call.nr).map(|info| info.kind) {
        Some(CallKind::Mremap) => touches(addr, len) || touches(new_addr, new_len),
        Some(CallKind::Brk) | None => false,
        Some(_) => touches(addr, len),
    };
    space.grows || touched
}
