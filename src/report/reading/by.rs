//! Sums of what was done and what is left of it: by call, mapping, file, thread, space or kind.
//!
//! Every table splits the same sums: its rows add up to the report's calls, flow and last values,
//! for one trace without a filter exactly.

use std::borrow::Cow;
use std::ops::AddAssign;
use std::sync::Arc;

use crate::mm::Flow;
use crate::report::recognize::{Kind, Recognized};
use crate::report::space::touched;
use crate::report::{Place, Touches, is_error};
use crate::timeline::CallEvent;
use crate::units::{Bytes, SpaceId, Tid, Timestamp};

use super::provenance::Origin;

mod sink;

pub use sink::TableSink;

/// What the rows of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// System calls by name.
    Call,
    /// What single calls mapped.
    Mapping,
    /// Files, the heap, stacks, other anonymous memory.
    File,
    /// Tasks.
    Thread,
    /// Address spaces.
    Space,
    /// Whose memory it is and what for, as far as anything tells.
    Kind,
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Calls of this name.
    Call(Cow<'static, str>),
    /// A task.
    Thread(Tid),
    /// A space.
    Space(SpaceId),
    /// A file or another kind of place.
    Place(Place),
    /// Memory that was recognised; `None` for what nothing tells of.
    Kind(Option<Kind>),
    /// What one event mapped, by the number of its [`Origin`].
    Mapping(u64),
    /// What spaces began with.
    Began,
    /// Bytes that no traced call accounts for: stacks that grew, what the kernel's map showed.
    Found,
    /// Calls that changed no byte.
    Nothing,
    /// Smaller rows, put together.
    Others,
}

/// The sums of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Calls that finished, or were cut short and had changed something. Where rows are bytes (by
    /// file, by mapping) a call counts where it changed the most.
    pub calls: u64,
    /// Those that returned an error.
    pub failed: u64,
    /// Bytes whose state calls changed or whose contents they dropped, each byte once per call.
    pub bytes: Bytes,
    /// Bytes by what happened to them.
    pub flow: Flow,
    /// Bytes that spaces began with.
    pub began: Bytes,
    /// Reserved when the space ended, or at the last event.
    pub reserved: Bytes,
    /// Committed when the space ended, or at the last event.
    pub committed: Bytes,
    /// Mapped then: both of them. Where rows are stacks or owners it is what they mapped, whoever
    /// committed it, as reserved is what they reserved; committed is what they committed.
    pub mapped: Bytes,
    /// What was touched, if page faults were recorded: of these bytes by anybody; where rows are
    /// threads, by them; where they are stacks or owners, of what they committed.
    pub touched: Touches,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        let Sums {
            calls,
            failed,
            bytes,
            flow,
            began,
            reserved,
            committed,
            mapped,
            touched,
        } = other;
        self.calls += calls;
        self.failed += failed;
        self.bytes += bytes;
        self.flow += flow;
        self.began += began;
        self.reserved += reserved;
        self.committed += committed;
        self.mapped += mapped;
        self.touched += touched;
    }
}

impl Sums {
    /// What one call did; nothing if it was cut short and changed nothing.
    pub(super) fn of_call(call: &CallEvent) -> Sums {
        let cut = call.result.is_none() && call.spans.is_empty();
        let failed = call
            .result
            .is_some_and(|result| is_error(&call.raw, result));
        Sums {
            calls: u64::from(!cut),
            failed: u64::from(failed && !cut),
            bytes: touched(&call.spans),
            flow: call.flow,
            ..Sums::default()
        }
    }

    /// Adds bytes that are there at the end.
    fn leave(&mut self, bytes: Bytes, reserved: bool) {
        let left = match reserved {
            true => &mut self.reserved,
            false => &mut self.committed,
        };
        *left += bytes;
        self.mapped += bytes;
    }

    /// Bytes that were mapped, by calls or from the start.
    pub fn made(&self) -> Bytes {
        self.began + self.flow.reserve + self.flow.map
    }
}

/// What one event mapped.
#[derive(Clone, Debug, PartialEq)]
pub struct MappingRow {
    /// What made it.
    pub origin: Arc<Origin>,
    /// What people call it.
    pub place: Place,
    /// The name that the program gave it with prctl(2).
    pub name: Option<Arc<str>>,
    /// When its last byte was unmapped.
    pub released: Option<Timestamp>,
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is about.
    pub key: Key,
    /// Command name of a task or a space; empty if unknown.
    pub comm: Arc<str>,
    /// The process of a task, a space or a mapping.
    pub pid: Option<Tid>,
    /// More about a mapping.
    pub mapping: Option<MappingRow>,
    /// The best evidence for what it is.
    pub recognized: Option<Recognized>,
    /// Rows that were put together in this one; of a kind, the mappings.
    pub rows: u64,
    /// The sums.
    pub sums: Sums,
    /// Bytes of it that are mapped at the moment.
    live: u64,
    /// Nothing will be added any more.
    done: bool,
}

impl Row {
    fn new(key: Key) -> Row {
        Row {
            rows: u64::from(!matches!(key, Key::Others | Key::Kind(_))),
            key,
            comm: "".into(),
            pid: None,
            mapping: None,
            recognized: None,
            sums: Sums::default(),
            live: 0,
            done: false,
        }
    }

    /// What the rows of a table are ordered by: bytes changed where calls are the rows, bytes
    /// mapped where bytes are.
    pub fn weight(&self, by: By) -> Bytes {
        match by {
            By::Call | By::Thread => self.sums.bytes.max(self.sums.began),
            By::Mapping | By::File | By::Space | By::Kind => {
                let left = self.sums.reserved + self.sums.committed;
                self.sums.made().max(left)
            }
        }
    }
}

/// A table, the largest row first.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What the rows are.
    pub by: By,
    /// The rows.
    pub rows: Vec<Row>,
    /// Their sum.
    pub total: Sums,
    /// Time of the last event.
    pub until: Timestamp,
}
