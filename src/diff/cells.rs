//! Bytes by address space and shape: now, when the sum of all spaces was at its peak, and at the end.

use std::collections::HashMap;

use crate::report::Maker;
use crate::units::{SpaceId, StackId, Timestamp};

/// Which of the two states bytes are in: an index of the arrays here.
pub(super) fn state_of(reserved: bool) -> usize {
    usize::from(!reserved)
}

/// The event that made a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// When.
    pub time: Timestamp,
    /// Which event; [`Made::Began`](crate::report::Made::Began) for what a space began with.
    pub by: Maker,
    /// Who called, if that was recorded: a stack of its trace.
    pub stack: Option<StackId>,
}

/// The mappings of one shape in one space. Arrays hold reserved bytes, then committed ones.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub space: SpaceId,
    pub shape: u32,
    /// Bytes now; those of an ended space are in `end`.
    pub now: [u64; 2],
    /// Bytes when the reserved (committed) bytes of all spaces were at their peak.
    pub peak: [u64; 2],
    /// Bytes at the last instant of the space.
    pub end: [u64; 2],
    /// Mappings now.
    pub alive: u64,
    /// Mappings at the last instant of the space.
    pub alive_at_end: u64,
    /// The most mappings at once.
    pub most_alive: u64,
    /// The first mapping.
    pub first: First,
    changed: [bool; 2],
}

/// All cells of a trace.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub list: Vec<Cell>,
    index: HashMap<(SpaceId, u32), u32>,
    of: HashMap<SpaceId, Vec<u32>>,
    now: [u64; 2],
    peak: [u64; 2],
    /// Cells that changed since the peak: only these differ from what they were then.
    changed: [Vec<u32>; 2],
}

impl Cells {
    /// The cell of a shape in a space.
    pub fn number(&mut self, space: SpaceId, shape: u32, first: First) -> u32 {
        let next = self.list.len() as u32;
        let number = *self.index.entry((space, shape)).or_insert(next);
        if number == next {
            self.of.entry(space).or_default().push(number);
            self.list.push(Cell {
                space,
                shape,
                now: [0; 2],
                peak: [0; 2],
                end: [0; 2],
                alive: 0,
                alive_at_end: 0,
                most_alive: 0,
                first,
                changed: [false; 2],
            });
        }
        number
    }

    /// The cells of a space.
    pub fn of(&mut self, space: SpaceId) -> Vec<u32> {
        self.of.remove(&space).unwrap_or_default()
    }

    /// The shape of a cell.
    pub fn shape(&self, cell: u32) -> Option<u32> {
        self.list.get(cell as usize).map(|cell| cell.shape)
    }

    /// Bytes came to a cell.
    pub fn add(&mut self, cell: u32, reserved: bool, len: u64) {
        self.change(cell, state_of(reserved), |sum| sum.saturating_add(len));
    }

    /// Bytes left a cell.
    pub fn sub(&mut self, cell: u32, reserved: bool, len: u64) {
        self.change(cell, state_of(reserved), |sum| sum.saturating_sub(len));
    }

    fn change(&mut self, number: u32, state: usize, step: impl Fn(u64) -> u64) {
        if let Some(cell) = self.list.get_mut(number as usize) {
            cell.now[state] = step(cell.now[state]);
            self.now[state] = step(self.now[state]);
            if !cell.changed[state] {
                cell.changed[state] = true;
                self.changed[state].push(number);
            }
        }
    }

    /// A mapping began or is gone.
    pub fn count(&mut self, cell: u32, begins: bool) {
        if let Some(cell) = self.list.get_mut(cell as usize) {
            cell.alive = match begins {
                true => cell.alive.saturating_add(1),
                false => cell.alive.saturating_sub(1),
            };
            cell.most_alive = cell.most_alive.max(cell.alive);
        }
    }

    /// What was one shape turned out to be another: if nothing else is of the old one, what it had
    /// at the peaks was the new one's, too.
    pub fn rename(&mut self, old: u32, new: u32) {
        let Some(cell) = self
            .list
            .get_mut(old as usize)
            .filter(|cell| cell.alive == 0)
        else {
            return;
        };
        let peak = std::mem::take(&mut cell.peak);
        if let Some(cell) = self.list.get_mut(new as usize) {
            for (sum, bytes) in cell.peak.iter_mut().zip(peak) {
                *sum = sum.saturating_add(bytes);
            }
        }
    }

    /// An event is over: if it made a peak, this is what it is made of.
    pub fn settle(&mut self) {
        for state in 0..2 {
            if self.now[state] <= self.peak[state] {
                continue;
            }
            self.peak[state] = self.now[state];
            for number in self.changed[state].drain(..) {
                if let Some(cell) = self.list.get_mut(number as usize) {
                    cell.peak[state] = cell.now[state];
                    cell.changed[state] = false;
                }
            }
        }
    }

    /// A space is gone: what it had is its end.
    pub fn end(&mut self, cells: impl Iterator<Item = u32>) {
        for number in cells {
            let Some(cell) = self.list.get_mut(number as usize) else {
                continue;
            };
            cell.end = cell.now;
            cell.alive_at_end = cell.alive;
            let last = cell.now;
            for (state, last) in last.into_iter().enumerate() {
                self.change(number, state, |sum| sum.saturating_sub(last));
            }
        }
    }
}
