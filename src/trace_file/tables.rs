//! What writer and reader of a block both remember, so that most fields can be left out.
//!
//! Both sides make the same steps in the same order; each table is bounded, and all are emptied
//! between blocks.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use crate::abi::{Abi, Prot};
use crate::decode::RawCall;
use crate::mm::{FileId, MapsEntry};
use crate::units::{SpaceId, Tid};

use super::format::{KEPT_SNAPSHOTS, MAX_TABLE};

/// Who calls what: nearly every call repeats an earlier combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    pub tid: Tid,
    pub space: SpaceId,
    pub abi: Abi,
    pub nr: u32,
}

/// The previous call of one [`Caller`].
struct Previous {
    caller: Caller,
    args: [u64; 6],
    result: u64,
    task: usize,
}

/// The previous call of one task, whatever it was.
#[derive(Clone, Copy, Default)]
struct TaskGuess {
    addr: u64,
    len: u64,
}

/// Guesses for the fields of one call.
pub(super) struct Guesses {
    pub args: [u64; 6],
    pub result: u64,
    addr: u64,
    len: u64,
}

impl Guesses {
    /// The two guesses for argument `index`.
    pub(super) fn arg(&self, index: usize) -> [u64; 2] {
        let second = match index {
            0 => self.addr,
            1 => self.len,
            _ => 0,
        };
        [self.args[index], second]
    }

    /// The two guesses for the result.
    pub(super) fn result(&self) -> [u64; 2] {
        [self.result, self.addr]
    }
}

/// The table of callers, and the guesses that follow from their calls.
#[derive(Default)]
pub(super) struct Callers {
    known: Vec<Previous>,
    index: HashMap<Caller, usize>,
    tasks: Vec<TaskGuess>,
    task_index: HashMap<Tid, usize>,
    latest: usize,
}

impl Callers {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn is_full(&self) -> bool {
        MAX_TABLE <= self.known.len()
    }

    /// The index of `caller`, if it is known.
    pub(super) fn find(&mut self, caller: &Caller) -> Option<usize> {
        // A task that does the same again is the common case, and needs no hashing.
        if self
            .known
            .get(self.latest)
            .is_some_and(|latest| latest.caller == *caller)
        {
            return Some(self.latest);
        }
        self.latest = *self.index.get(caller)?;
        Some(self.latest)
    }

    /// Adds `caller`; its index is the length before.
    pub(super) fn define(&mut self, caller: Caller) {
        let tasks = &mut self.tasks;
        let task = *self.task_index.entry(caller.tid).or_insert_with(|| {
            tasks.push(TaskGuess::default());
            tasks.len() - 1
        });
        self.index.insert(caller, self.known.len());
        self.known.push(Previous {
            caller,
            args: [0; 6],
            result: 0,
            task,
        });
    }

    /// The caller at `index` and the guesses for its next call.
    pub(super) fn guesses(&self, index: usize) -> Option<(Caller, Guesses)> {
        let Previous {
            caller,
            args,
            result,
            task,
        } = self.known.get(index)?;
        let TaskGuess { addr, len } = self.tasks.get(*task).copied().unwrap_or_default();
        Some((
            *caller,
            Guesses {
                args: *args,
                result: *result,
                addr,
                len,
            },
        ))
    }

    /// Remembers a call.
    pub(super) fn learn(&mut self, index: usize, args: [u64; 6], result: Option<i64>) {
        let Some(previous) = self.known.get_mut(index) else {
            return;
        };
        previous.args = args;
        if let Some(result) = result {
            previous.result = result.cast_unsigned();
        }
        if let Some(task) = self.tasks.get_mut(previous.task) {
            let address = result.filter(|result| !(-4095..4096).contains(result));
            task.addr = address.map_or(args[0], i64::cast_unsigned);
            task.len = args[1];
        }
    }
}

impl Caller {
    pub(super) fn of(tid: Tid, space: SpaceId, call: &RawCall) -> Caller {
        Caller {
            tid,
            space,
            abi: call.abi,
            nr: call.nr,
        }
    }

    pub(super) fn call(&self, args: [u64; 6]) -> RawCall {
        RawCall {
            abi: self.abi,
            nr: self.nr,
            args,
        }
    }
}

/// A line of maps without its address: what fork, exec and two runs of a program have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub len: u64,
    pub prot: Prot,
    pub shared: bool,
    pub offset: u64,
    pub file: FileId,
    pub name: Arc<str>,
}

impl Shape {
    pub(super) fn of(entry: &MapsEntry) -> Shape {
        let MapsEntry {
            range,
            prot,
            shared,
            offset,
            file,
            name,
        } = entry;
        Shape {
            len: range.len(),
            prot: *prot,
            shared: *shared,
            offset: *offset,
            file: *file,
            name: Arc::clone(name),
        }
    }
}

/// A writer's table of values: which index a value has.
pub(super) struct Numbered<T> {
    index: HashMap<T, usize>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Numbered {
            index: HashMap::new(),
        }
    }
}

impl<T: Hash + Eq> Numbered<T> {
    pub(super) fn find<Q>(&self, value: &Q) -> Option<usize>
    where
        T: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.index.get(value).copied()
    }

    /// Adds a value that is not in the table, unless it is full.
    pub(super) fn add(&mut self, value: T) {
        if self.index.len() < MAX_TABLE {
            let next = self.index.len();
            self.index.insert(value, next);
        }
    }
}

/// The last snapshots of a block, newest first: a fork's is nearly its sibling's.
#[derive(Default)]
pub(super) struct Bases {
    kept: VecDeque<Vec<MapsEntry>>,
}

impl Bases {
    /// The snapshot `back` steps ago, from 0.
    pub(super) fn get(&self, back: usize) -> Option<&[MapsEntry]> {
        self.kept.get(back).map(Vec::as_slice)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[MapsEntry]> {
        self.kept.iter().map(Vec::as_slice)
    }

    pub(super) fn keep(&mut self, entries: &[MapsEntry]) {
        if !entries.is_empty() && entries.len() <= MAX_TABLE {
            self.kept.truncate(KEPT_SNAPSHOTS - 1);
            self.kept.push_front(entries.to_vec());
        }
    }
}
