//! How tasks and spaces begin and end: fork, clone, execve, exit.

use std::sync::Arc;

use crate::mm::Snapshot;
use crate::timeline::{
    Began, Ended, HighWater, Observed, SpaceBegan, TaskBegan, TaskEnd, TaskOrigin,
};
use crate::units::{SpaceId, Tid};

use super::super::error::TraceError;
use super::super::launch;
use super::super::procfs;
use super::super::sys::{self, Waited};
use super::observer::KernelObserver;
use super::picture::overlay;
use super::state::{Beginning, Birth, Exec, Item, Space, Task};

const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;

impl KernelObserver {
    /// A new space, without tasks.
    pub(super) fn new_space(&mut self, space: Space) -> SpaceId {
        self.last_space += 1;
        let id = SpaceId(self.last_space);
        self.spaces.insert(id, space);
        id
    }

    pub(super) fn add_task(
        &mut self,
        time: u64,
        tid: Tid,
        task: Task,
        parent: Option<Tid>,
        origin: TaskOrigin,
    ) {
        if let Some(space) = self.spaces.get_mut(&task.space) {
            space.tasks += 1;
        }
        self.told_of(tid);
        self.rings.watched.insert(task.pid);
        let began = TaskBegan {
            tid,
            pid: task.pid,
            space: task.space,
            parent,
            origin,
            comm: Arc::clone(&task.comm),
        };
        self.tasks.insert(tid, task);
        self.push(time, Observed::TaskBegan(began));
    }

    /// The first half of a birth: who.
    pub(super) fn forked(&mut self, time: u64, pid: Tid, tid: Tid, parent: Tid) {
        if !self.tasks.contains_key(&tid)
            && let Some(parent) = self.tasks.get_mut(&parent)
        {
            parent.birth = Some(Birth { pid, tid, time });
        }
    }

    /// The second half: what it shares. `None` if that was lost.
    pub(super) fn born(&mut self, parent: Tid, flags: Option<u64>) {
        let Some(maker) = self.tasks.get_mut(&parent) else {
            return;
        };
        let cloning = maker.cloning.take();
        let Some(Birth { pid, tid, time }) = maker.birth.take() else {
            return;
        };
        let (ppid, space, comm) = (maker.pid, maker.space, Arc::clone(&maker.comm));
        if pid == ppid {
            let task = Task::new(pid, space, comm);
            return self.add_task(time, tid, task, Some(parent), TaskOrigin::Thread);
        }
        if !self.options.follow {
            self.rings.watched.remove(&pid);
            return;
        }
        let shares = match flags {
            Some(flags) => flags & CLONE_VM != 0,
            None => sys::same_space(parent, tid).unwrap_or(false),
        };
        if shares {
            let vfork = flags.is_some_and(|flags| flags & CLONE_VFORK != 0);
            let origin = match vfork {
                true => TaskOrigin::Vfork,
                false => TaskOrigin::SharedSpace,
            };
            let task = Task::new(pid, space, comm);
            return self.add_task(time, tid, task, Some(parent), origin);
        }
        let Some(of) = self.spaces.get(&space) else {
            return;
        };
        // The copy was made between the begin of the call and now.
        let beside = of.in_flight.iter().any(|other| *other != parent);
        let since = cloning.unwrap_or(0);
        let copy = Space {
            known: of.known,
            exe: Arc::clone(&of.exe),
            brk_start: of.brk_start,
            read_implies_exec: of.read_implies_exec,
            doubt: of.doubt || beside || since <= of.changed || !of.held.is_empty(),
            contradicted: of.contradicted,
            ..Space::default()
        };
        self.release_all(space);
        let began = SpaceBegan {
            space: SpaceId(0),
            pid: tid,
            began: Began::Fork {
                parent: Some(space),
            },
            exe: Arc::clone(&copy.exe),
            // A copy of the parent's, as the timeline has it.
            snapshot: Snapshot::default(),
            known: copy.known,
            brk_start: None,
            read_implies_exec: copy.read_implies_exec,
        };
        let id = self.new_space(copy);
        self.push(
            time,
            Observed::SpaceBegan(SpaceBegan { space: id, ..began }),
        );
        let task = Task::new(pid, id, comm);
        self.add_task(time, tid, task, Some(parent), TaskOrigin::Fork);
    }

    /// execve(2) begins.
    pub(super) fn exec_begins(&mut self, tid: Tid) {
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.exec = Some(Exec::default());
            let space = task.space;
            self.disturb(space);
        }
    }

    /// It cannot fail any more; its task has become the leader of its process.
    pub(super) fn exec_commits(&mut self, time: u64, pid: Tid, tid: Tid, comm: &[u8]) {
        let calls_exec = |task: &Task| task.pid == pid && task.exec.is_some();
        let former = match self.tasks.get(&tid) {
            Some(task) if task.exec.is_some() => Some(tid),
            _ => self
                .tasks
                .iter()
                .find(|(_, task)| calls_exec(task))
                .map(|(&tid, _)| tid),
        };
        let former = former.unwrap_or(tid);
        let Some(mut task) = self.tasks.remove(&former) else {
            return;
        };
        let comm: Arc<str> = procfs::text(comm).into();
        let exec = task.exec.get_or_insert_default();
        exec.committed = Some((comm, time));
        exec.former = former;
        if former != tid {
            // The old leader has ended; its record may come late.
            self.task_ends(time, tid, Some(TaskEnd::Gone));
        }
        self.tasks.insert(tid, task);
    }

    /// execve(2) has returned.
    pub(super) fn exec_returns(&mut self, tid: Tid, time: u64, result: i64) {
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        let Some(exec) = task.exec.take() else { return };
        let Some((comm, _)) = exec.committed.filter(|_| result == 0) else {
            return;
        };
        let (old, pid) = (task.space, task.pid);
        self.told_of(tid);
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        task.comm = Arc::clone(&comm);
        (task.call, task.cloning, task.birth, task.signal) = (None, None, None, None);
        let launched = self.launching.take_if(|launching| launching.pid == tid);
        if launched.is_none() {
            let former = exec.former;
            self.push(
                time,
                Observed::Exec {
                    tid,
                    former,
                    comm: Arc::clone(&comm),
                },
            );
            self.leave(old, time, Ended::Exec, None);
        }
        // Where the stack was before it was put in its place is shown, too, but not that it went.
        let mut shown = exec.shown;
        if let Some(stack) = shown.iter().position(|entry| &*entry.name == "[stack]") {
            shown.drain(..stack);
        }
        // The loader maps the program first.
        let mut names = shown.iter().map(|entry| &entry.name);
        let program = names.find(|name| name.starts_with('/')).cloned();
        let mut picture = Vec::new();
        for entry in shown {
            overlay(&mut picture, entry);
        }
        let id = self.new_space(Space {
            known: true,
            exe: program.unwrap_or_default(),
            tasks: usize::from(launched.is_none()),
            beginning: Some(Beginning {
                pid: tid,
                time,
                shown: picture,
                touched: Vec::new(),
                brk: None,
            }),
            ..Space::default()
        });
        self.queue.push_back(Item::Begins(id));
        if launched.is_some() {
            let task = Task::new(pid, id, comm);
            self.add_task(time, tid, task, None, TaskOrigin::Launch);
        } else if let Some(task) = self.tasks.get_mut(&tid) {
            task.space = id;
        }
        self.first_look(id, pid, time);
        if procfs::is_32_bit(tid) {
            self.refuse_32_bit(time, id, tid);
        }
    }

    /// A program whose calls no tracepoint of this kind shows.
    pub(super) fn refuse_32_bit(&mut self, time: u64, id: SpaceId, pid: Tid) {
        let text = format!(
            "process {pid} is a 32-bit program, whose calls the kernel's tracepoints do not show: \
             its figures are those of its begin; --backend ptrace sees them"
        );
        if let Some(space) = self.spaces.get_mut(&id) {
            space.doubt = true;
        }
        let space = Some(id);
        self.push(time, Observed::Note { space, text });
    }

    /// One task less in a space: its last one ends it.
    fn leave(&mut self, id: SpaceId, time: u64, ended: Ended, high_water: Option<HighWater>) {
        let Some(space) = self.spaces.get_mut(&id) else {
            return;
        };
        space.tasks = space.tasks.saturating_sub(1);
        if space.tasks != 0 {
            return;
        }
        let unsure = space.contradicted;
        self.tell_last_counted(id);
        self.begin_as_shown(id);
        self.release_all(id);
        if unsure {
            let text =
                "it ended before its map could be compared, after calls whose effect only the \
                        map tells: its last figures may be inexact"
                    .to_owned();
            let space = Some(id);
            self.push(time, Observed::Note { space, text });
        }
        self.spaces.remove(&id);
        self.looks.retain(|look| look.space != id);
        if let Some(high_water) = high_water {
            let space = id;
            self.push(time, Observed::HighWater { space, high_water });
        }
        self.push(time, Observed::SpaceEnded { space: id, ended });
    }

    /// A task has ended.
    pub(super) fn task_ends(&mut self, time: u64, tid: Tid, end: Option<TaskEnd>) {
        self.told_of(tid);
        let Some(task) = self.tasks.remove(&tid) else {
            return;
        };
        let high_water = self.books.as_mut().and_then(|books| books.of(tid));
        let id = task.space;
        if let Some(call) = task.call {
            self.push(
                time,
                Observed::CallCut {
                    tid,
                    space: id,
                    entered: self.clock.at(call.entered),
                    call: call.call,
                    fetched: Vec::new(),
                },
            );
            if let Some(space) = self.spaces.get_mut(&id) {
                space.in_flight.retain(|other| *other != tid);
                space.doubt |= call.layout;
            }
            self.release(id, Some(tid), time);
        }
        let group = self.endings.get(&task.pid).copied();
        let killed = task.signal.map(|signal| TaskEnd::Killed {
            signal,
            core: false,
        });
        let told = end.or(group).or(task.exits).or(killed);
        let mut end = told.unwrap_or(TaskEnd::Gone);
        if self.launched == Some(tid) {
            end = reap(tid).unwrap_or(end);
            self.launched_end = Some(end);
        }
        self.push(time, Observed::TaskEnded { tid, end });
        if !self.tasks.values().any(|other| other.pid == task.pid) {
            self.rings.watched.remove(&task.pid);
            self.endings.remove(&task.pid);
        }
        let high_water = high_water.filter(|_| task.exec.is_none());
        self.leave(id, time, Ended::Exit, high_water);
    }

    /// The child ended before it was the program.
    pub(super) fn launch_failed(&mut self) -> Option<TraceError> {
        let launching = self.launching.take()?;
        let _ = reap(launching.pid);
        Some(launch::failure(launching))
    }
}

/// How a child of ours has ended.
fn reap(pid: Tid) -> Option<TaskEnd> {
    loop {
        match sys::wait(pid, true) {
            Ok(Waited::Interrupted) => {}
            Ok(Waited::Status { status, .. }) if libc::WIFEXITED(status) => {
                return Some(TaskEnd::Exited(libc::WEXITSTATUS(status)));
            }
            Ok(Waited::Status { status, .. }) if libc::WIFSIGNALED(status) => {
                return Some(TaskEnd::Killed {
                    signal: libc::WTERMSIG(status),
                    core: libc::WCOREDUMP(status),
                });
            }
            _ => return None,
        }
    }
}
