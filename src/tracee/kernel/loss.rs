//! What was lost: counted, told, and put right by a look at what is there.

use std::collections::BTreeSet;

use crate::timeline::{Observed, TaskEnd, TaskOrigin};
use crate::units::{SpaceId, Tid};

use super::super::procfs;
use super::observer::KernelObserver;
use super::rings::now;
use super::state::Task;

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
        self.lost = true;
        for task in self.tasks.values_mut() {
            (task.call, task.cloning, task.birth) = (None, None, None);
        }
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

    /// The launched program, if it has begun: the records of that may be among the lost ones.
    fn begins_unseen(&mut self, pid: Tid, time: u64) {
        let exe = procfs::exe(pid);
        let ours = procfs::exe(Tid(std::process::id() as i32));
        if !exe.is_empty() && exe != ours {
            let comm = procfs::comm(pid);
            self.exec_commits(time, pid, pid, comm.as_bytes());
            self.exec_returns(pid, time, 0);
        } else if matches!(procfs::state(pid), None | Some(b'Z')) {
            let text = "the records of the program's begin and end were lost".to_owned();
            self.push(time, Observed::Note { space: None, text });
            self.launching = None;
            self.task_ends(time, pid, None);
        }
    }

    /// Which tasks there are, after records of births and ends may have been lost.
    pub(super) fn count_tasks(&mut self) {
        let time = self.rings.horizon;
        let pids: BTreeSet<Tid> = self.tasks.values().map(|task| task.pid).collect();
        for pid in pids {
            if self
                .launching
                .as_ref()
                .is_some_and(|launching| launching.pid == pid)
            {
                self.begins_unseen(pid, time);
                continue;
            }
            let there = procfs::tasks(pid).unwrap_or_default();
            let mut known: Vec<(Tid, SpaceId)> = Vec::new();
            for (&tid, task) in self.tasks.iter().filter(|(_, task)| task.pid == pid) {
                known.push((tid, task.space));
            }
            let Some(&(_, space)) = known.first() else {
                continue;
            };
            for &tid in there
                .iter()
                .filter(|tid| !known.iter().any(|(k, _)| k == *tid))
            {
                let task = Task::new(pid, space, procfs::comm(tid));
                self.add_task(time, tid, task, None, TaskOrigin::Thread);
            }
            for (tid, _) in known.iter().filter(|(tid, _)| !there.contains(tid)) {
                self.task_ends(time, *tid, Some(TaskEnd::Gone));
            }
        }
    }
}
