//! What the supervisor remembers of tasks and spaces: no more than it needs to restart them right.
//! The model of a space is the timeline's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::decode::{Fetched, RawCall};
use crate::mm::Snapshot;
use crate::timeline::{Observation, Stack};
use crate::units::{AddrRange, SpaceId, Tid, Timestamp};

use super::procfs::MapsFile;

/// A call whose entry was seen.
#[derive(Debug)]
pub(super) struct InCall {
    pub call: RawCall,
    pub kind: Kind,
    pub entered: Timestamp,
    pub fetched: Vec<Fetched>,
    pub stack: Stack,
    /// Another layout-changing call of the space ran at the same time.
    pub overlapped: bool,
}

/// What the supervisor does about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A memory call that can change the layout: it needs the slot.
    Layout,
    /// Another memory call.
    Memory,
    /// execve: it needs the slot, so that the space can be looked at before it goes.
    Exec,
    /// clone3 whose flags were patched in the tracee's memory: address and old flags.
    Clone3 { at: u64, flags: u64 },
    /// clone: nothing to do at its exit.
    Clone,
    /// Any other (only where every call stops).
    Other,
}

impl Kind {
    pub(super) fn needs_slot(self) -> bool {
        matches!(self, Kind::Layout | Kind::Exec)
    }

    pub(super) fn is_memory(self) -> bool {
        matches!(self, Kind::Layout | Kind::Memory)
    }
}

/// A task.
#[derive(Debug)]
pub(super) struct Task {
    pub pid: Tid,
    pub space: SpaceId,
    /// Between the entry stop and the exit stop of a call.
    pub call: Option<InCall>,
    /// Held at its entry stop until the slot is free.
    pub waiting: bool,
    /// Past its EVENT_EXIT: nothing more comes but its end.
    pub exiting: bool,
    /// In a group stop.
    pub listening: bool,
    /// Was told to stop by PTRACE_INTERRUPT, and has not yet.
    pub interrupted: bool,
    /// Held in a stop while attaching or detaching: the signal to deliver when it goes on.
    pub held: Option<i32>,
    /// This EINTR was ours, not the program's: run the call again (see `Supervisor::rewind`).
    pub may_rewind: bool,
}

impl Task {
    pub(super) fn new(pid: Tid, space: SpaceId) -> Task {
        Task {
            pid,
            space,
            call: None,
            waiting: false,
            exiting: false,
            listening: false,
            interrupted: false,
            held: None,
            may_rewind: false,
        }
    }
}

/// A layout-changing call that runs.
#[derive(Debug)]
pub(super) struct InFlight {
    pub tid: Tid,
    /// No other may run beside it.
    pub alone: bool,
    pub since: Instant,
    /// It has taken so long that others no longer wait for it.
    pub expired: bool,
    /// What it frees, if it is a munmap.
    pub frees: Option<AddrRange>,
    /// A report is held back until its own.
    pub blocks: bool,
    /// Another has run at the same time.
    pub beside: bool,
}

/// A finished call whose report waits.
#[derive(Debug)]
pub(super) struct HeldBack {
    pub observation: Observation,
    /// What it made.
    pub made: Option<AddrRange>,
}

/// An address space.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Its program file; empty if it cannot be read.
    pub exe: Arc<str>,
    /// Tasks in it that are not past their EVENT_EXIT.
    pub living: usize,
    /// All its tasks, those that have only their end to report included.
    pub tasks: usize,
    /// Layout-changing calls between entry and exit.
    pub in_flight: Vec<InFlight>,
    /// Who waits at its entry, and whether it needs the space for itself.
    pub queue: VecDeque<(Tid, bool)>,
    /// Finished calls whose report waits for that of another.
    pub held_back: VecDeque<HeldBack>,
    /// The model is to be compared, and corrected, at the next quiet exit stop.
    pub doubt: bool,
    /// The timeline met a contradiction: what maps does not show may be wrong too.
    pub contradicted: bool,
    /// No check for doubt alone before this: with many mappings one costs milliseconds.
    pub next_check: Option<Instant>,
    /// Mappings as the kernel counts them, as long as no call has changed them since.
    pub map_count: Option<u64>,
    /// Its maps, open.
    pub maps: Option<MapsFile>,
    /// The maps could be read when it began.
    pub known: bool,
    pub read_implies_exec: bool,
    /// It has MAP_GROWSDOWN mappings beside the stack.
    pub grows: bool,
    /// Where the main stack is, or may grow to.
    pub stack: Option<AddrRange>,
    /// Layout-changing calls since the last comparison.
    pub since_check: u64,
    /// A copy of another space in which no call has changed anything: smaps would tell nothing that
    /// is not known of the other, and takes ten times as long as maps.
    pub untouched: bool,
    /// It has been looked at because it ends, and nothing has changed it since.
    pub looked: bool,
    /// What was seen when its process began to end with calls still in flight. Should no task of it
    /// stop again (a restart meant for another stop can swallow the last one), this is its end.
    pub last_sight: Option<Snapshot>,
    /// When its resident size was last measured.
    pub sampled: Option<Instant>,
}

/// All tasks and spaces.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub tasks: HashMap<Tid, Task>,
    pub spaces: HashMap<SpaceId, Space>,
    last_space: u32,
}

impl Tables {
    /// A new space, without tasks.
    pub(super) fn new_space(&mut self) -> SpaceId {
        self.last_space += 1;
        let id = SpaceId(self.last_space);
        self.spaces.insert(id, Space::default());
        id
    }

    /// Puts a new task into a space.
    pub(super) fn add(&mut self, tid: Tid, task: Task) {
        if let Some(space) = self.spaces.get_mut(&task.space) {
            space.tasks += 1;
            space.living += usize::from(!task.exiting);
        }
        self.tasks.insert(tid, task);
    }

    /// Takes a task out of its space and the table.
    pub(super) fn remove(&mut self, tid: Tid) -> Option<Task> {
        let task = self.tasks.remove(&tid)?;
        if let Some(space) = self.spaces.get_mut(&task.space) {
            space.tasks -= 1;
            space.living -= usize::from(!task.exiting);
            space.queue.retain(|&(waiting, _)| waiting != tid);
            space.in_flight.retain(|running| running.tid != tid);
        }
        Some(task)
    }

    /// Notes that a task is past its EVENT_EXIT.
    pub(super) fn mark_exiting(&mut self, tid: Tid) {
        if let Some(task) = self.tasks.get_mut(&tid)
            && !task.exiting
        {
            task.exiting = true;
            if let Some(space) = self.spaces.get_mut(&task.space) {
                space.living -= 1;
            }
        }
    }

    /// The space of a task.
    pub(super) fn space_of(&mut self, tid: Tid) -> Option<(SpaceId, &mut Space)> {
        let id = self.tasks.get(&tid)?.space;
        self.spaces.get_mut(&id).map(|space| (id, space))
    }

    /// Whether every task of the space belongs to one process.
    pub(super) fn one_process(&self, id: SpaceId, pid: Tid) -> bool {
        self.spaces.get(&id).is_some_and(|space| space.tasks == 1)
            || self
                .tasks
                .values()
                .filter(|task| task.space == id)
                .all(|task| task.pid == pid)
    }
}
