//! How tasks and spaces begin and end: clone in all its forms, execve, exit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mm::Snapshot;
use crate::timeline::{
    Began, CheckCause, Ended, Observed, SpaceBegan, TaskBegan, TaskEnd, TaskOrigin,
};
use crate::units::{Addr, AddrRange, SpaceId, Tid};

use super::error::TraceError;
use super::state::{Kind, Task};
use super::supervisor::Supervisor;
use super::{memory, procfs, sys};

/// What a parent's event says of its child.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    parent: Tid,
    pid: Tid,
    space: SpaceId,
    event: i32,
}

/// A new task whose own first stop came before its parent's event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parked {
    since: Instant,
    stop: i32,
}

/// A parked task is adopted without its parent's event after this long.
const ADOPT_AFTER: Duration = Duration::from_millis(200);

impl Supervisor {
    /// PTRACE_EVENT_FORK, _VFORK or _CLONE of `tid`. The kind of event does not tell what the
    /// child shares (cases, finding 5), so the kernel is asked.
    pub(super) fn birth_event(&mut self, tid: Tid, event: i32) {
        let child = nix::sys::ptrace::getevent(nix::unistd::Pid::from_raw(tid.0));
        let parent = self
            .tables
            .tasks
            .get(&tid)
            .map(|task| (task.pid, task.space));
        if let (Ok(child), Some((pid, space))) = (child, parent) {
            let child = Tid(child as i32);
            let birth = Birth {
                parent: tid,
                pid,
                space,
                event,
            };
            match self.parked.remove(&child) {
                Some(parked) => self.born(child, birth, parked.stop),
                None => {
                    self.announced.insert(child, birth);
                    // It stops about now, and two stops at once give one hint.
                    self.waiter.look_at(child);
                }
            }
        }
        self.resume(tid, 0);
    }

    /// The first stop of a task that is in no table: an EVENT_STOP with SIGTRAP, or with the signal
    /// of a group stop that began while the task was being made and that it has joined already
    /// (kernel/signal.c, `task_join_group_stop`).
    pub(super) fn first_stop(&mut self, tid: Tid, stop: i32) {
        match self.announced.remove(&tid) {
            Some(birth) => self.born(tid, birth, stop),
            None => {
                self.parked.insert(
                    tid,
                    Parked {
                        since: Instant::now(),
                        stop,
                    },
                );
                self.control.hurry(true);
            }
        }
    }

    /// Both halves of a birth have been seen; the child is stopped before its first instruction.
    fn born(&mut self, child: Tid, birth: Birth, stop: i32) {
        let Birth {
            parent,
            pid,
            space,
            event,
        } = birth;
        let vfork = event == libc::PTRACE_EVENT_VFORK;
        let shared = sys::same_space(parent, child);
        // Threads are cloned, and share the space; what forks hardly ever needs a second question.
        let may_be_thread = event == libc::PTRACE_EVENT_CLONE || shared != Some(false);
        if may_be_thread && procfs::is_thread_of(pid, child) {
            self.add_task(child, pid, space, Some(parent), TaskOrigin::Thread);
            return self.event_stop(child, stop);
        }
        if !self.options.follow {
            // Only where every call stops: there is no filter that would outlive us.
            let _ = sys::detach(child, 0);
            return;
        }
        let shared = shared.unwrap_or(vfork);
        if shared && self.tables.spaces.contains_key(&space) {
            let origin = if vfork {
                TaskOrigin::Vfork
            } else {
                TaskOrigin::SharedSpace
            };
            self.add_task(child, child, space, Some(parent), origin);
        } else {
            let id = self.begin_space(
                child,
                child,
                Began::Fork {
                    parent: Some(space),
                },
            );
            let inherited = self
                .tables
                .spaces
                .get(&space)
                .is_some_and(|parent| parent.read_implies_exec);
            if let Some(space) = self.tables.spaces.get_mut(&id) {
                space.read_implies_exec = inherited;
                space.untouched = true;
            }
            self.add_task(child, child, id, Some(parent), TaskOrigin::Fork);
        }
        self.event_stop(child, stop);
    }

    /// Tasks whose parent died before it could announce them. Whether any are still parked.
    pub(super) fn adopt_parked(&mut self) -> bool {
        let due: Vec<(Tid, i32)> = self
            .parked
            .iter()
            .filter(|(_, parked)| ADOPT_AFTER <= parked.since.elapsed())
            .map(|(&tid, parked)| (tid, parked.stop))
            .collect();
        for (tid, stop) in due {
            self.parked.remove(&tid);
            let Ok(status) = procfs::Status::read(tid) else {
                continue;
            };
            let process = status.number("Tgid").map_or(tid, |tgid| Tid(tgid as i32));
            let sibling = self
                .tables
                .tasks
                .iter()
                .find(|(_, task)| task.pid == process)
                .map(|(&sibling, task)| (sibling, task.space));
            match sibling {
                Some((_, space)) => {
                    self.add_task(tid, process, space, None, TaskOrigin::Thread);
                }
                None => {
                    let id = self.begin_space(tid, process, Began::Fork { parent: None });
                    self.add_task(tid, process, id, None, TaskOrigin::Fork);
                }
            }
            self.event_stop(tid, stop);
        }
        !self.parked.is_empty()
    }

    /// A new space of process `pid`, whose maps are read now: `tid`, which is in it, must be stopped.
    pub(super) fn begin_space(&mut self, tid: Tid, pid: Tid, began: Began) -> SpaceId {
        let id = self.tables.new_space();
        self.new_space = self.options.stacks;
        let maps = procfs::maps(tid);
        let known = maps.is_ok();
        let parent = match began {
            Began::Fork { parent } => parent.and_then(|parent| self.tables.spaces.get(&parent)),
            _ => None,
        };
        let fresh = parent.is_none();
        // Its flags are those of the parent, unless faults have mapped what the model has not seen.
        let grows = parent.is_some_and(|parent| parent.grows);
        let exe = parent.map_or_else(|| procfs::exe(tid), |parent| Arc::clone(&parent.exe));
        let snapshot = match began {
            // What NORESERVE and charge were before we came, only smaps tells.
            Began::Attach | Began::Fork { parent: None } if cheap_to_walk(tid) => {
                procfs::smaps(tid).or(maps)
            }
            Began::Fork { .. } if grows => procfs::smaps(tid).or(maps),
            _ => maps,
        };
        let read_implies_exec = fresh && procfs::read_implies_exec(tid);
        if let Some(space) = self.tables.spaces.get_mut(&id) {
            space.known = known;
            space.exe = Arc::clone(&exe);
            let stack = snapshot.as_ref().ok().and_then(stack_window);
            let others = snapshot.iter().flat_map(|s| s.entries.iter().zip(&s.smaps));
            space.grows = grows
                || others
                    .into_iter()
                    .any(|(e, s)| s.growsdown && &*e.name != "[stack]");
            space.stack = stack;
            space.read_implies_exec = read_implies_exec;
        }
        let brk_start = fresh.then(|| procfs::brk_start(tid)).flatten();
        self.push(Observed::SpaceBegan(SpaceBegan {
            space: id,
            pid,
            began,
            exe,
            snapshot: snapshot.unwrap_or_default(),
            known,
            brk_start,
            read_implies_exec,
        }));
        if !known {
            let text = format!(
                "process {pid}: its maps cannot be read; its model begins empty and cannot be verified"
            );
            self.push(Observed::Note {
                space: Some(id),
                text,
            });
        }
        id
    }

    pub(super) fn add_task(
        &mut self,
        tid: Tid,
        pid: Tid,
        space: SpaceId,
        parent: Option<Tid>,
        origin: TaskOrigin,
    ) {
        self.tables.add(tid, Task::new(pid, space));
        let comm = procfs::comm(tid);
        self.push(Observed::TaskBegan(TaskBegan {
            tid,
            pid,
            space,
            parent,
            origin,
            comm,
        }));
    }

    /// A successful execve of `tid`, which may have had another tid until now: then the former
    /// leader and the old tid report no end (ptrace(2), "execve(2) under ptrace").
    pub(super) fn exec_event(&mut self, tid: Tid) {
        let former = nix::sys::ptrace::getevent(nix::unistd::Pid::from_raw(tid.0));
        let former = former.map_or(tid, |former| Tid(former as i32));
        let comm = procfs::comm(tid);
        let Some(mut task) = self
            .tables
            .remove(former)
            .or_else(|| self.tables.remove(tid))
        else {
            return self.resume(tid, 0);
        };
        let siblings: Vec<Tid> = self
            .tables
            .tasks
            .iter()
            .filter(|(_, other)| other.pid == tid)
            .map(|(&sibling, _)| sibling)
            .collect();
        for sibling in siblings {
            self.tables.remove(sibling);
            self.push(Observed::TaskEnded {
                tid: sibling,
                end: TaskEnd::Gone,
            });
        }
        let old = task.space;
        self.push(Observed::Exec { tid, former, comm });
        if self
            .tables
            .spaces
            .get(&old)
            .is_some_and(|space| space.tasks == 0)
        {
            self.report_all_held_back(old);
            self.tables.spaces.remove(&old);
            self.push(Observed::SpaceEnded {
                space: old,
                ended: Ended::Exec,
            });
        } else {
            self.release_slot(old, former);
        }
        let id = self.begin_space(tid, tid, Began::Exec);
        task.space = id;
        task.exiting = false;
        // Its exit stop is still to come, and belongs to no slot.
        if let Some(call) = &mut task.call {
            call.kind = Kind::Clone;
        }
        self.tables.add(tid, task);
        self.resume(tid, 0);
    }

    /// PTRACE_EVENT_EXIT: the task's last stop, its space still there.
    pub(super) fn exit_event(&mut self, tid: Tid) {
        let Some(task) = self.tables.tasks.get(&tid) else {
            return;
        };
        let (id, pid) = (task.space, task.pid);
        self.cut(tid);
        self.tables.mark_exiting(tid);
        self.release_slot(id, tid);
        let Some(space) = self.tables.spaces.get(&id) else {
            return self.resume(tid, 0);
        };
        let quiet = space.in_flight.is_empty();
        if space.looked {
            return self.resume(tid, 0);
        }
        if space.living == 0 {
            self.final_look(tid, id, CheckCause::Exit);
        } else if ends_process(tid) && self.tables.one_process(id, pid) {
            // The others are being killed, and SIGKILL takes a task out of the stop it would have
            // made here (ptrace(2), PTRACE_EVENT_EXIT): this may be the last look there is.
            match quiet {
                true => self.final_look(tid, id, CheckCause::Exit),
                false => self.first_sight_of_the_end(tid, id),
            }
        }
        self.resume(tid, 0);
    }

    /// A task is about to end inside a call, whose exit stop will not come.
    fn cut(&mut self, tid: Tid) {
        let Some(task) = self.tables.tasks.get_mut(&tid) else {
            return;
        };
        let id = task.space;
        // A call that was waiting for the slot has not run and never will.
        let never_ran = std::mem::take(&mut task.waiting);
        if let Some(call) = task.call.take()
            && call.kind.is_memory()
            && !never_ran
        {
            self.push(Observed::CallCut {
                tid,
                space: id,
                entered: call.entered,
                call: call.call,
                fetched: call.fetched,
            });
            if let Some(space) = self.tables.spaces.get_mut(&id) {
                space.doubt |= call.kind == Kind::Layout && 1 < space.living;
                space.looked = false;
            }
        }
        if let Some(space) = self.tables.spaces.get_mut(&id) {
            space.queue.retain(|&(waiting, _)| waiting != tid);
        }
    }

    /// A task has been reaped.
    pub(super) fn ended(&mut self, tid: Tid, end: TaskEnd) -> Result<(), TraceError> {
        self.parked.remove(&tid);
        self.announced.remove(&tid);
        if self.launched == Some(tid) {
            self.launched_end = Some(end);
        }
        if self
            .launching
            .as_ref()
            .is_some_and(|launching| launching.pid == tid)
        {
            return self.launch_failed();
        }
        self.cut(tid);
        let Some(task) = self.tables.remove(tid) else {
            return Ok(());
        };
        self.push(Observed::TaskEnded { tid, end });
        let id = task.space;
        if self
            .tables
            .spaces
            .get(&id)
            .is_some_and(|space| space.tasks == 0)
        {
            self.report_all_held_back(id);
            self.look_back(id);
            self.tables.spaces.remove(&id);
            self.push(Observed::SpaceEnded {
                space: id,
                ended: Ended::Exit,
            });
        } else {
            self.release_slot(id, tid);
        }
        Ok(())
    }
}

/// At PTRACE_EVENT_EXIT: whether the whole process ends, not just this thread by exit(2).
fn ends_process(tid: Tid) -> bool {
    const USER32_CS: u64 = 0x23;
    let Ok(regs) = memory::regs(tid) else {
        return false;
    };
    let exit = if regs.cs == USER32_CS { 1 } else { 60 };
    regs.orig_rax != exit
}

/// Where the main stack is and may grow to: as far as a usual RLIMIT_STACK lets it.
fn stack_window(snapshot: &Snapshot) -> Option<AddrRange> {
    const ROOM: u64 = 64 << 20;
    let stack = snapshot
        .entries
        .iter()
        .find(|entry| &*entry.name == "[stack]")?;
    let lowest = stack.range.end().0.saturating_sub(ROOM);
    AddrRange::new(Addr(lowest).min(stack.range.start()), stack.range.end())
}

/// Whether smaps can be read while the target stands still: it costs some 5 ms for each resident
/// GiB.
pub(super) fn cheap_to_walk(tid: Tid) -> bool {
    const LIMIT: u64 = 4 << 30;
    procfs::statm(tid).is_some_and(|statm| statm.now.0 <= LIMIT)
}
