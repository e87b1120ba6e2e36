//! Which tasks there are, as /proc shows them: asked after records of births, execs and ends may have
//! been lost.
//!
//! Like a look at a map, a census counts once the records have come as far as its end. Whom a record
//! tells of until then is known by that: born or ended meanwhile, he may be in the census or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::timeline::{Began, Observed, SpaceBegan, TaskEnd, TaskOrigin};
use crate::units::{Addr, SpaceId, Tid};

use super::super::{procfs, sys};
use super::begin::{Seen, see};
use super::observer::KernelObserver;
use super::rings::now;
use super::state::{First, Space, Task};

/// Between two censuses while records are being lost again and again, in nanoseconds.
const PAUSE: u64 = 50_000_000;
/// A record of an end comes no later than this, once records have come as far.
const LATE: u64 = 1_000_000_000;

/// What /proc showed.
#[derive(Debug)]
pub(super) struct Census {
    ended: u64,
    /// Tasks of whose birth, end or execve(2) a record has told since it began.
    told: BTreeSet<Tid>,
    known: Vec<Process>,
    found: Vec<Found>,
}

/// A process that is watched.
#[derive(Debug)]
struct Process {
    pid: Tid,
    tasks: Vec<(Tid, Arc<str>)>,
    /// Where its heap begins, which every execve(2) chooses anew.
    brk_start: Option<Addr>,
}

/// A child of such a process that no record has told of.
#[derive(Debug)]
struct Found {
    pid: Tid,
    parent: Tid,
    /// It shares the space of its parent.
    shares: bool,
    seen: Seen,
}

/// Those that have not ended: a zombie is only its exit status.
fn living(pid: Tid) -> Vec<(Tid, Arc<str>)> {
    let tasks = procfs::tasks(pid).unwrap_or_default().into_iter();
    let lives = |tid: &Tid| !matches!(procfs::state(*tid), None | Some(b'Z' | b'X'));
    tasks
        .filter(lives)
        .map(|tid| (tid, procfs::comm(tid)))
        .collect()
}

impl KernelObserver {
    /// Asks which tasks there are, if records were lost since that was asked last.
    pub(super) fn take_census(&mut self) {
        if !self.lost || self.census.is_some() || now() < self.next_census {
            return;
        }
        self.lost = false;
        let census = self.census_now();
        self.next_census = census.ended + PAUSE;
        self.census = Some(census);
    }

    /// `gone` is a task that has ended, as /proc shows it. A record tells of its end; if that does not
    /// come, more may be missing.
    pub(super) fn misses_end(&mut self, gone: Option<Tid>) {
        let Some(tid) = gone else {
            self.gone = None;
            return;
        };
        let since = match self.gone {
            Some((known, since)) if known == tid => since,
            _ => now(),
        };
        self.gone = Some((tid, since));
        if since + LATE < self.rings.horizon && !self.rings.has_ready() {
            let text = format!("task {tid} has ended and no record told of it: some were lost");
            self.push(self.rings.horizon, Observed::Note { space: None, text });
            self.records_lost(self.rings.horizon, 0);
            self.gone = None;
        }
    }

    /// Which tasks there are, now that no record tells it.
    pub(super) fn count_tasks(&mut self) {
        (self.lost, self.census) = (false, None);
        let census = self.census_now();
        self.apply(census);
    }

    fn census_now(&mut self) -> Census {
        let pids: BTreeSet<Tid> = self.tasks.values().map(|task| task.pid).collect();
        let found = match self.options.follow {
            true => self.children_of(&pids),
            false => Vec::new(),
        };
        let known = pids.into_iter().map(|pid| Process {
            pid,
            tasks: living(pid),
            brk_start: procfs::brk_start(pid),
        });
        Census {
            known: known.collect(),
            found,
            told: BTreeSet::new(),
            ended: now(),
        }
    }

    /// Children that these have already and that are not watched.
    pub(super) fn pass_over_children(&mut self, pids: &[Tid]) {
        let family = self.family(&pids.iter().copied().collect());
        self.strangers = family
            .into_keys()
            .filter(|pid| !pids.contains(pid))
            .collect();
    }

    /// `pids` and all that descend from them, each with its parent.
    fn family(&self, pids: &BTreeSet<Tid>) -> BTreeMap<Tid, Tid> {
        let all = procfs::processes();
        let mut family: BTreeMap<Tid, Tid> = pids.iter().map(|&pid| (pid, pid)).collect();
        loop {
            let born = |(pid, parent): &&(Tid, Tid)| {
                family.contains_key(parent)
                    && !family.contains_key(pid)
                    && !self.strangers.contains(pid)
            };
            let new: Vec<(Tid, Tid)> = all.iter().filter(born).copied().collect();
            if new.is_empty() {
                return family;
            }
            family.extend(new);
        }
    }

    /// Processes that descend from `pids` and are none of them. Whose parent has ended, too, has no
    /// tie to them any more.
    fn children_of(&mut self, pids: &BTreeSet<Tid>) -> Vec<Found> {
        let family = self.family(pids);
        let children = family.into_iter().filter(|(pid, _)| !pids.contains(pid));
        let children = children.filter_map(|(pid, parent)| {
            let mut seen = see(pid)?;
            seen.tasks = living(pid);
            // From here on its records are wanted.
            self.rings.watched.insert(pid);
            (!seen.tasks.is_empty()).then(|| Found {
                pid,
                parent,
                shares: sys::same_space(parent, pid) == Some(true),
                seen,
            })
        });
        children.collect()
    }

    /// A record has told of a birth, an end or an execve(2).
    pub(super) fn told_of(&mut self, tid: Tid) {
        if let Some(census) = &mut self.census {
            census.told.insert(tid);
        }
    }

    /// Records have come as far as `time`: a census taken before it counts.
    pub(super) fn settle_census(&mut self, time: u64) {
        if let Some(census) = self.census.take_if(|census| census.ended < time) {
            self.apply(census);
        }
    }

    fn apply(&mut self, census: Census) {
        let time = census.ended.min(self.rings.horizon).max(self.start);
        let told = census.told;
        for mut process in census.known {
            process
                .tasks
                .retain(|(tid, _)| !told.contains(tid) || self.tasks.contains_key(tid));
            self.count_process(time, process, &told);
        }
        // A parent first: its child may share its space.
        let mut left = census.found;
        left.retain(|found| !told.contains(&found.pid));
        while !left.is_empty() {
            let is_known = |pid: Tid| self.tasks.values().any(|task| task.pid == pid);
            let (next, later): (Vec<Found>, Vec<Found>) =
                left.into_iter().partition(|found| is_known(found.parent));
            if next.is_empty() {
                break;
            }
            for found in next {
                self.add_found(time, found);
            }
            left = later;
        }
    }

    fn count_process(&mut self, time: u64, process: Process, told: &BTreeSet<Tid>) {
        let Process {
            pid,
            tasks,
            brk_start,
        } = process;
        if self
            .launching
            .as_ref()
            .is_some_and(|launching| launching.pid == pid)
        {
            self.begins_unseen(pid, time, tasks.is_empty());
        }
        let is_there = |tid: Tid| tasks.iter().any(|(other, _)| *other == tid);
        let of_process = |(_, task): &(&Tid, &Task)| task.pid == pid;
        let known = self.tasks.iter().filter(of_process).map(|(&tid, _)| tid);
        let known = known.filter(|tid| !is_there(*tid) && !told.contains(tid));
        let mut gone: Vec<Tid> = known.collect();
        gone.sort_unstable();
        // Whoever calls execve(2) becomes the leader, who may have ended before: it comes first.
        let (leader, others): (Vec<_>, Vec<_>) =
            tasks.into_iter().partition(|(tid, _)| *tid == pid);
        let lives = !leader.is_empty() || !others.is_empty();
        self.add_unseen(time, pid, leader);
        for tid in gone {
            let said = self.tasks.get(&tid).and_then(|task| task.exits);
            let said = self.endings.get(&pid).copied().or(said);
            self.task_ends(time, tid, Some(said.unwrap_or(TaskEnd::Gone)));
        }
        if lives && !told.contains(&pid) && self.has_another_program(pid, brk_start) {
            let comm = procfs::comm(pid);
            self.exec_commits(time, pid, pid, comm.as_bytes());
            self.exec_returns(pid, time, 0);
            self.is_in_doubt(pid);
        }
        self.add_unseen(time, pid, others);
    }

    fn add_unseen(&mut self, time: u64, pid: Tid, tasks: Vec<(Tid, Arc<str>)>) {
        let Some(space) = self.space_of(pid) else {
            return;
        };
        for (tid, comm) in tasks {
            if !self.tasks.contains_key(&tid) {
                let task = Task::new(pid, space, comm);
                self.add_task(time, tid, task, None, TaskOrigin::Thread);
            }
        }
    }

    fn space_of(&self, pid: Tid) -> Option<SpaceId> {
        let mut tasks = self.tasks.values();
        tasks.find(|task| task.pid == pid).map(|task| task.space)
    }

    /// Whether a process runs another program than is known, as its heap begins elsewhere.
    fn has_another_program(&self, pid: Tid, brk_start: Option<Addr>) -> bool {
        let mut tasks = self.tasks.values().filter(|task| task.pid == pid);
        let in_exec = |task: &Task| task.exec.as_ref().is_some_and(|e| e.committed.is_some());
        if tasks.any(in_exec) {
            return false;
        }
        let space = self.space_of(pid).and_then(|id| self.spaces.get(&id));
        let known = space.filter(|space| space.beginning.is_none());
        let known = known.and_then(|space| space.brk_start);
        known
            .zip(brk_start)
            .is_some_and(|(known, now)| known != now)
    }

    /// The map that a space begins with is not that of its begin: others have to put it right.
    pub(super) fn is_in_doubt(&mut self, pid: Tid) {
        let space = self.space_of(pid);
        if let Some(space) = space.and_then(|id| self.spaces.get_mut(&id)) {
            (space.doubt, space.contradicted) = (true, true);
        }
    }

    fn add_found(&mut self, time: u64, found: Found) {
        let Found {
            pid,
            parent,
            shares,
            seen,
        } = found;
        if self.tasks.values().any(|task| task.pid == pid) {
            return;
        }
        let Some(of) = self.space_of(parent) else {
            return;
        };
        let id = match shares {
            true => of,
            false => self.space_found(time, pid, of, seen.known, seen.first),
        };
        let origin = match shares {
            true => TaskOrigin::SharedSpace,
            false => TaskOrigin::Fork,
        };
        for (tid, comm) in seen.tasks {
            let task = Task::new(pid, id, comm);
            let (parent, origin) = match tid == pid {
                true => (Some(parent), origin),
                false => (None, TaskOrigin::Thread),
            };
            self.add_task(time, tid, task, parent, origin);
        }
    }

    /// The space of a process whose birth no record told of.
    fn space_found(
        &mut self,
        time: u64,
        pid: Tid,
        of: SpaceId,
        known: bool,
        first: First,
    ) -> SpaceId {
        let parent = self.spaces.get(&of);
        let is_copy = parent.is_some_and(|parent| {
            parent.brk_start.is_some() && parent.brk_start == first.brk_start
        });
        self.release_all(of);
        let began = match is_copy {
            true => Began::Fork { parent: Some(of) },
            // It has executed a program since.
            false => Began::Attach,
        };
        let id = self.new_space(Space {
            known,
            exe: Arc::clone(&first.exe),
            brk_start: first.brk_start,
            read_implies_exec: first.read_implies_exec,
            doubt: true,
            contradicted: true,
            ..Space::default()
        });
        self.push(
            time,
            Observed::SpaceBegan(SpaceBegan {
                space: id,
                pid,
                began,
                exe: first.exe,
                snapshot: first.snapshot,
                known,
                brk_start: first.brk_start,
                read_implies_exec: first.read_implies_exec,
            }),
        );
        id
    }
}
