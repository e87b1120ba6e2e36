//! The live bytes of an address space, each with what it descends from.

use std::collections::BTreeMap;

use crate::units::{Addr, AddrRange};

/// What is known of a run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// Nothing may touch them.
    pub reserved: bool,
    /// The mapping they descend from, a number of the [`Lineage`](super::lineage::Lineage).
    pub birth: u32,
}

/// Runs of bytes by address; neighbours of one fate are one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    /// The end and the fate of each run, by its start.
    runs: BTreeMap<Addr, (Addr, Fate)>,
}

impl Pieces {
    /// Puts bytes where none are.
    pub fn insert(&mut self, range: AddrRange, fate: Fate) {
        let (mut start, mut end) = (range.start(), range.end());
        if let Some((&before, &(until, known))) = self.runs.range(..start).next_back()
            && until == start
            && known == fate
        {
            start = before;
        }
        if let Some(&(until, known)) = self.runs.get(&end)
            && known == fate
        {
            self.runs.remove(&end);
            end = until;
        }
        self.runs.insert(start, (end, fate));
    }

    /// Takes all bytes in `range` out, in order of address.
    pub fn lift(&mut self, range: AddrRange) -> Vec<(AddrRange, Fate)> {
        let mut lifted = Vec::new();
        while let Some((start, end, fate)) = self.last_in(range) {
            self.runs.remove(&start);
            if range.end() < end {
                self.runs.insert(range.end(), (end, fate));
            }
            if start < range.start() {
                self.runs.insert(start, (range.start(), fate));
            }
            let inside = AddrRange::new(start.max(range.start()), end.min(range.end()));
            lifted.extend(inside.map(|inside| (inside, fate)));
        }
        lifted.reverse();
        lifted
    }

    /// The fate of the byte at `addr`.
    pub fn at(&self, addr: Addr) -> Option<Fate> {
        let (_, &(end, fate)) = self.runs.range(..=addr).next_back()?;
        (addr < end).then_some(fate)
    }

    /// All runs, taken out.
    pub fn take(&mut self) -> Vec<(AddrRange, Fate)> {
        let runs = std::mem::take(&mut self.runs).into_iter();
        runs.filter_map(|(start, (end, fate))| Some((AddrRange::new(start, end)?, fate)))
            .collect()
    }

    fn last_in(&self, range: AddrRange) -> Option<(Addr, Addr, Fate)> {
        let (&start, &(end, fate)) = self.runs.range(..range.end()).next_back()?;
        (range.start() < end).then_some((start, end, fate))
    }
}
