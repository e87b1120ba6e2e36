//! What was lost: counted, told, and put right by a look at what is there.

use crate::timeline::Observed;
use crate::units::{SpaceId, Tid};

use super::super::{launch, procfs};
use super::observer::KernelObserver;
use super::rings::now;

impl KernelObserver {
    /// From here on calls are counted and not told, until what has come in is worked off. Tasks, and
    /// who is in which call, are known as before; the spaces are put right by the kernel's maps.
    pub(super) fn skip(&mut self) {
        self.skipped.get_or_insert(0);
    }

    pub(super) fn skip_no_more(&mut self) {
        if let Some(skipped) = self.skipped.take().filter(|skipped| 0 < *skipped) {
            self.push(self.rings.horizon, Observed::Lost(skipped));
        }
    }

    /// Stops recording, and takes what has been recorded for lost.
    pub(super) fn throw_away(&mut self) {
        self.skip_no_more();
        let lost = self.rings.throw_away();
        self.records_lost(now(), lost);
        self.deaf = true;
    }

    /// Nothing that is under way can be relied on; the kernel's maps put it right.
    pub(super) fn records_lost(&mut self, time: u64, count: u64) {
        if 0 < count {
            self.push(time, Observed::Lost(count));
        }
        // A census shows what was until then, if the records tell the rest.
        (self.lost, self.census) = (true, None);
        for task in self.tasks.values_mut() {
            (task.call, task.cloning, task.birth) = (None, None, None);
            // What it belongs to, and what has become of it, may be among the lost ones.
            (task.caller, task.signal) = (None, None);
            task.exec.take_if(|exec| exec.committed.is_none());
        }
        // The kernel may have given the numbers of spaces that ended meanwhile to others.
        self.counters.clear();
        self.making.clear();
        let ids: Vec<SpaceId> = self.spaces.keys().copied().collect();
        for id in ids {
            self.begin_as_shown(id);
            self.release_all(id);
            if let Some(space) = self.spaces.get_mut(&id) {
                (space.doubt, space.contradicted) = (true, true);
                space.in_flight.clear();
                space.finished.clear();
                space.counted = None;
            }
        }
        for look in &mut self.looks {
            look.torn |= !look.still;
        }
    }

    /// A ring was full: what came then may be lost, and a record that says so may be long in coming.
    pub(super) fn may_have_lost(&mut self) {
        (self.lost, self.census) = (true, None);
        for space in self.spaces.values_mut() {
            (space.doubt, space.contradicted) = (true, true);
        }
        for look in &mut self.looks {
            look.torn |= !look.still;
        }
    }

    /// The launched program, if it has begun: the records of that may be among the lost ones.
    pub(super) fn begins_unseen(&mut self, pid: Tid, time: u64, ended: bool) {
        let exe = procfs::exe(pid);
        let ours = Tid(std::process::id() as i32);
        // The child of a fork has our program, and its heap where ours is, until it executes its own.
        let is_other =
            exe != procfs::exe(ours) || procfs::brk_start(pid) != procfs::brk_start(ours);
        if !ended && !exe.is_empty() && is_other {
            let comm = procfs::comm(pid);
            self.exec_commits(time, pid, pid, comm.as_bytes());
            self.exec_returns(pid, time, 0);
            self.is_in_doubt(pid);
        } else if ended && let Some(launching) = self.launching.take() {
            if let Some(error) = launch::exec_error(launching) {
                self.fail(error);
            } else {
                let text = "the records of the program's begin and end were lost".to_owned();
                self.push(time, Observed::Note { space: None, text });
            }
        }
    }
}
