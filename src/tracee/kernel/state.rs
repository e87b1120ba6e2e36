//! What the observer remembers of tasks and spaces.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::decode::RawCall;
use crate::mm::{Evidence, MapsEntry, Snapshot};
use crate::timeline::{Figures, Observation, RawStack, Resident, Stack, TaskEnd};
use crate::units::{Addr, AddrRange, SpaceId, Tid};

use super::order::Footprint;
use super::record::Fault;
use super::resident::Counted;

/// A memory call that has begun.
#[derive(Debug)]
pub(super) struct InCall {
    pub call: RawCall,
    pub layout: bool,
    pub entered: u64,
    /// Who called.
    pub stack: Stack,
    /// Mappings that the kernel recorded meanwhile.
    pub shown: Vec<MapsEntry>,
}

/// An execve(2) that has begun.
#[derive(Debug, Default)]
pub(super) struct Exec {
    /// The name it gave the task, once it cannot fail any more, and when that was.
    pub committed: Option<(Arc<str>, u64)>,
    pub former: Tid,
    /// Mappings that the loader made.
    pub shown: Vec<MapsEntry>,
}

/// A child whose clone flags have not been seen yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    pub pid: Tid,
    pub tid: Tid,
    pub time: u64,
}

/// A task.
#[derive(Debug)]
pub(super) struct Task {
    pub pid: Tid,
    /// Zero for a program that has not begun yet.
    pub space: SpaceId,
    pub comm: Arc<str>,
    pub call: Option<InCall>,
    /// The stack of a call whose own record comes next.
    pub caller: Option<(u32, Box<RawStack>)>,
    /// The stack of a page fault whose own record comes next.
    pub toucher: Option<(Fault, Box<RawStack>)>,
    /// When its fork or clone began.
    pub cloning: Option<u64>,
    pub exec: Option<Exec>,
    pub birth: Option<Birth>,
    /// It has called exit(2).
    pub exits: Option<TaskEnd>,
    /// The last signal that it was given.
    pub signal: Option<i32>,
}

impl Task {
    /// The record of a call's stack comes before that of the call itself, or after it.
    pub(super) fn calls_from(&mut self, nr: u32, stack: Box<RawStack>) {
        match &mut self.call {
            Some(call) if call.call.nr == nr && call.stack == Stack::Absent => {
                call.stack = Stack::Raw(stack);
            }
            _ => self.caller = Some((nr, stack)),
        }
    }

    pub(super) fn new(pid: Tid, space: SpaceId, comm: Arc<str>) -> Task {
        Task {
            pid,
            space,
            comm,
            call: None,
            caller: None,
            toucher: None,
            cloning: None,
            exec: None,
            birth: None,
            exits: None,
            signal: None,
        }
    }
}

/// A finished call whose report waits for those of others.
#[derive(Debug)]
pub(super) struct Held {
    pub observation: Observation,
    pub after: Vec<Tid>,
    pub since: u64,
}

/// A call that finished while others were in flight.
#[derive(Debug)]
pub(super) struct Finished {
    pub returned: u64,
    pub footprint: Footprint,
}

/// A space whose first map is not known yet.
#[derive(Debug)]
pub(super) struct Beginning {
    pub pid: Tid,
    pub time: u64,
    pub shown: Vec<MapsEntry>,
    pub touched: Vec<AddrRange>,
    /// The last break that a call of the program told.
    pub brk: Option<Addr>,
}

/// An address space.
#[derive(Debug, Default)]
pub(super) struct Space {
    pub tasks: usize,
    /// Its maps can be read.
    pub known: bool,
    pub exe: Arc<str>,
    /// Where its heap begins.
    pub brk_start: Option<Addr>,
    pub read_implies_exec: bool,
    /// Tasks in layout-changing calls.
    pub in_flight: Vec<Tid>,
    /// Finished since something has been in flight all the time.
    pub finished: Vec<Finished>,
    pub held: VecDeque<Held>,
    pub beginning: Option<Beginning>,
    /// The model is to be compared with the kernel's map.
    pub doubt: bool,
    /// The timeline met a contradiction, or records were lost.
    pub contradicted: bool,
    /// `--verify=N`: it is time.
    pub due: bool,
    pub since_check: u64,
    /// When the last layout-changing call returned.
    pub changed: u64,
    /// A look has been made and is not settled.
    pub looking: bool,
    /// No look before this, and how often looks in a row have come to nothing.
    pub next_look: u64,
    pub torn: u32,
    /// No look for the reason of a refusal before this.
    pub next_reason: u64,
    /// `--resident`, once something was counted.
    pub counted: Option<Counted>,
    /// It has been looked at a last time.
    pub looked: bool,
}

/// What was read of a running process.
#[derive(Debug)]
pub(super) struct Look {
    pub space: SpaceId,
    pub began: u64,
    pub ended: u64,
    pub seen: Seen,
    /// Records have come as far as its begin.
    pub reached: bool,
    /// Something happened meanwhile: it shows no single moment.
    pub torn: bool,
    /// Every task stood still meanwhile: lost records make no difference.
    pub still: bool,
}

/// What a look is for.
#[derive(Debug)]
pub(super) enum Seen {
    /// The map of a space that has just begun.
    First(First),
    /// A map to compare with the model.
    Map(Snapshot),
    /// What is resident.
    Resident(Resident),
    /// What is there when watching ends.
    Last(Option<Resident>, Snapshot),
    /// What bounds the task whose call was refused at that time, and what that left, if its records
    /// do not tell.
    Refused(Box<Figures>, Vec<Evidence>, u64),
}

/// The first look at a program.
#[derive(Clone, Debug)]
pub(super) struct First {
    pub snapshot: Snapshot,
    pub exe: Arc<str>,
    pub brk_start: Option<Addr>,
    pub read_implies_exec: bool,
}

/// What is to be told, in order; what follows a begin that is not known yet waits for it.
#[derive(Debug)]
pub(super) enum Item {
    Ready(Observation),
    Begins(SpaceId),
    /// A refused call of a space, for whose reason a look has been made.
    Refused(SpaceId, u64, Observation),
}
