//! What happened, told once: the same events for live output, reports and exports.

use std::sync::Arc;

use crate::decode::{Call, Fetched, RawCall};
use crate::mm::{Difference, Flow, Span, Totals};
use crate::units::{Addr, Bytes, SpaceId, StackId, Tid, Timestamp};

use super::{
    Began, CheckCause, Ended, Failure, FileSeen, HighWater, Observation, Resident, SignalSeen,
    TaskEnd, TaskOrigin, Timeline,
};

/// One event of a timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Number, from 1; only calls, execs, forks, exits and their like have one each.
    pub seq: u64,
    /// When it ended (a call: when it returned).
    pub time: Timestamp,
    /// The task, if one did it.
    pub tid: Tid,
    /// Its process.
    pub pid: Tid,
    /// Its space.
    pub space: SpaceId,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// A space came into sight; its totals are `now`.
    SpaceBegan {
        /// How.
        began: Began,
        /// The program.
        exe: Arc<str>,
        /// Its sums.
        now: Totals,
    },
    /// A task came into sight.
    TaskBegan {
        /// Who made it.
        parent: Option<Tid>,
        /// How.
        origin: TaskOrigin,
    },
    /// A call reached the kernel; only where the live format shows unfinished calls.
    CallEntered {
        /// The registers.
        raw: RawCall,
        /// What was fetched at its entry.
        fetched: Vec<Fetched>,
    },
    /// A call finished, or was cut short.
    Call(CallEvent),
    /// A successful execve.
    Exec {
        /// The task's tid before.
        former: Tid,
    },
    /// A task ended.
    TaskEnded(TaskEnd),
    /// A space ended.
    SpaceEnded {
        /// How.
        ended: Ended,
        /// Its sums at the last instant.
        last: Totals,
    },
    /// Physical memory was measured.
    Sample(Resident),
    /// A page was touched that was not there.
    Touched(TouchEvent),
    /// The kernel's own peaks of a space that is about to end.
    HighWater(HighWater),
    /// The model was compared with the kernel's map.
    Checked(Checked),
    /// A signal.
    Signal(SignalSeen),
    /// A remark for the user.
    Note(String),
    /// Observations that were lost.
    Lost(u64),
    /// What a mapped file of code says of itself.
    File(FileSeen),
}

/// A finished call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallEvent {
    /// When it reached the kernel.
    pub entered: Timestamp,
    /// The registers.
    pub raw: RawCall,
    /// What was fetched.
    pub fetched: Vec<Fetched>,
    /// The call, decoded.
    pub call: Call,
    /// The return value, negative errno for an error; `None` if it was cut short.
    pub result: Option<i64>,
    /// What it did, span by span, in order.
    pub spans: Vec<Span>,
    /// The same, summed.
    pub flow: Flow,
    /// The space's sums before.
    pub before: Totals,
    /// The space's sums after.
    pub now: Totals,
    /// Who called, if that was recorded: one of [`Timeline::stacks`].
    pub stack: Option<StackId>,
    /// Why it was refused, if it was by a limit or something like it.
    pub failure: Option<Box<Failure>>,
}

/// A page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TouchEvent {
    /// Where.
    pub addr: Addr,
    /// To write there.
    pub write: bool,
    /// So many page faults this one stands for.
    pub stands_for: u32,
    /// Who touched it, if that was recorded.
    pub stack: Option<StackId>,
}

/// The outcome of one comparison with the kernel's map.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Why it was made; `None` if nothing was compared, but the kernel told how far a stack has grown.
    pub cause: Option<CheckCause>,
    /// Bytes that differed (0 for a check made on doubt, whose differences were expected).
    pub drift: Bytes,
    /// Bytes taken over from the kernel to correct the model.
    pub resynced: Bytes,
    /// Bytes by which stacks had grown through page faults.
    pub grown: Bytes,
    /// Where model and kernel differed.
    pub differences: Vec<Difference>,
    /// Exact charge, when smaps was read.
    pub charged: Option<Bytes>,
    /// The space's sums before.
    pub before: Totals,
    /// The space's sums after.
    pub now: Totals,
}

/// Where events go. Each gets every event, in order, once.
pub trait Sink {
    /// Takes what was observed, before the events that are made of it: for what must be able to
    /// make them again.
    fn observation(&mut self, observation: &Observation) -> std::io::Result<()> {
        let _ = observation;
        Ok(())
    }

    /// Takes one event. `timeline` is the state right after it: spaces, tasks.
    fn event(&mut self, event: &Event, timeline: &Timeline) -> std::io::Result<()>;

    /// No event for a moment: show what is buffered.
    fn idle(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    /// No more events.
    fn finish(&mut self, timeline: &Timeline) -> std::io::Result<()> {
        let _ = timeline;
        Ok(())
    }
}
