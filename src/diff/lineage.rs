//! Which mapping each byte of an address space descends from.
//!
//! Follows the calls; where the sums do not agree with the model afterwards (a corrected model, a
//! call whose effect only the kernel knew) the layout is taken from the model, and what is known of
//! the bytes stays.

use std::collections::HashMap;

use crate::decode::Call;
use crate::mm::{Span, Totals, Verb, Vma};
use crate::timeline::{CallEvent, SpaceState};
use crate::units::{Addr, AddrRange, SpaceId, Tid};

use super::cells::First;
use super::known::Known;
use super::pieces::{Fate, Pieces};
use super::role::{Role, Shape};

/// Within so many calls of its thread a mapping that is cut was made to be cut.
const AT_ONCE: u64 = 2;

#[derive(Clone, Copy, Debug)]
struct Birth {
    cell: u32,
    /// Bytes left of it.
    live: u64,
    /// What made it.
    first: First,
    /// The number of that call among those of its thread.
    call: u64,
    /// Nothing has happened to it but that its ends were cut off.
    fresh: bool,
}

/// The bytes of one space.
#[derive(Debug)]
pub(super) struct Lineage {
    space: SpaceId,
    pieces: Pieces,
    births: Vec<Birth>,
    free: Vec<u32>,
    /// Calls of each thread so far.
    calls: HashMap<Tid, u64>,
    /// Reserved and committed bytes.
    sums: [u64; 2],
    /// Spans on the move, with what was there.
    lifted: Vec<(AddrRange, Vec<(AddrRange, Fate)>)>,
}

impl Lineage {
    /// A space that began as the model shows it; a copy inherits from `parent`.
    pub fn new(
        space: SpaceId,
        parent: Option<&Lineage>,
        state: Option<&SpaceState>,
        first: First,
        known: &mut Known,
    ) -> Lineage {
        let mut lineage = Lineage {
            space,
            pieces: Pieces::default(),
            births: Vec::new(),
            free: Vec::new(),
            calls: HashMap::new(),
            sums: [0; 2],
            lifted: Vec::new(),
        };
        let mut origins: HashMap<u32, u32> = HashMap::new();
        for (range, fate) in parent.map_or_else(Vec::new, |parent| parent.pieces.clone().take()) {
            let cell = parent.and_then(|parent| parent.births.get(fate.birth as usize));
            let shape = cell.and_then(|birth| known.cells.shape(birth.cell));
            let Some(shape) = shape else { continue };
            let birth = *origins
                .entry(fate.birth)
                .or_insert_with(|| lineage.bear(shape, first, known));
            lineage.put(range, Fate { birth, ..fate }, known);
        }
        if let Some(state) = state {
            lineage.rebuild(state, first, known, parent.is_none());
        }
        lineage
    }

    /// The shape of what is mapped at `addr`.
    pub fn shape_at(&self, addr: Addr, known: &Known) -> Option<Shape> {
        let birth = self.births.get(self.pieces.at(addr)?.birth as usize)?;
        let shape = known.cells.shape(birth.cell)?;
        known.shapes.get(shape).cloned()
    }

    /// Follows one call.
    pub fn call(
        &mut self,
        call: &CallEvent,
        by: First,
        state: Option<&SpaceState>,
        known: &mut Known,
    ) {
        *self.calls.entry(by.by.tid).or_default() += 1;
        let kept = match (&call.call, mapped_range(call)) {
            (Call::Mmap(mmap), Some(range)) => match Shape::of_mmap(mmap) {
                Some(shape) => {
                    let reserved = mmap.prot.rwx().is_empty();
                    self.map_anonymous(range, &shape, reserved, by, known);
                    true
                }
                None => self.map_file(range, state, by, known),
            },
            _ => false,
        };
        if !kept {
            self.follow(call, state, by, known);
        }
        self.check(&call.now, state, by, known);
    }

    /// Brings the bytes in line with the model if the sums differ.
    pub fn check(
        &mut self,
        now: &Totals,
        state: Option<&SpaceState>,
        by: First,
        known: &mut Known,
    ) {
        if self.sums != [now.reserved.0, now.committed.0]
            && let Some(state) = state
        {
            self.rebuild(state, by, known, false);
        }
    }

    /// What remains of mappings here keeps its descent: committing a part of a reservation by
    /// MAP_FIXED, or zeroing the end of a file's data, is no new mapping.
    fn map_anonymous(
        &mut self,
        range: AddrRange,
        shape: &Shape,
        reserved: bool,
        by: First,
        known: &mut Known,
    ) {
        let mut at = range.start();
        let mut new = None;
        for (old, fate) in self.lift(range, known) {
            self.fill(at, old.start(), shape, reserved, (&mut new, by), known);
            self.touch(fate.birth);
            self.put(old, Fate { reserved, ..fate }, known);
            at = old.end();
        }
        self.fill(at, range.end(), shape, reserved, (&mut new, by), known);
    }

    /// Puts the bytes of a new mapping between two addresses.
    fn fill(
        &mut self,
        start: Addr,
        end: Addr,
        shape: &Shape,
        reserved: bool,
        (new, by): (&mut Option<u32>, First),
        known: &mut Known,
    ) {
        let Some(range) = AddrRange::new(start, end) else {
            return;
        };
        let birth = match *new {
            Some(birth) => birth,
            None => {
                let number = known.shapes.number(shape.clone(), "");
                *new.insert(self.bear(number, by, known))
            }
        };
        self.put(range, Fate { reserved, birth }, known);
    }

    /// Whether the model shows what a file's mapping is.
    fn map_file(
        &mut self,
        range: AddrRange,
        state: Option<&SpaceState>,
        by: First,
        known: &mut Known,
    ) -> bool {
        let Some(state) = state else { return false };
        let Some(vma) = state.model.at(range.start()) else {
            return false;
        };
        let shape = known.shapes.number(Shape::of_vma(vma, state), name_of(vma));
        let gone = self.lift(range, known);
        let birth = self.bear(shape, by, known);
        let reserved = vma.is_reserved();
        self.put(range, Fate { reserved, birth }, known);
        self.bury(&gone, known);
        true
    }

    /// Follows what happened to which bytes.
    fn follow(
        &mut self,
        call: &CallEvent,
        state: Option<&SpaceState>,
        by: First,
        known: &mut Known,
    ) {
        for Span { range, verb } in &call.spans {
            match verb {
                Verb::Reserve | Verb::Map | Verb::Grown => {
                    let reserved = *verb == Verb::Reserve;
                    let birth = self.heir(&call.call, *range, *verb, known);
                    let birth = birth.unwrap_or_else(|| {
                        let shape = shape_of(&call.call, *range, state, known);
                        self.bear(shape, by, known)
                    });
                    self.put(*range, Fate { reserved, birth }, known);
                }
                Verb::Commit | Verb::Decommit => {
                    let reserved = *verb == Verb::Decommit;
                    for (range, fate) in self.lift(*range, known) {
                        self.touch(fate.birth);
                        self.put(range, Fate { reserved, ..fate }, known);
                    }
                }
                Verb::ReleaseReserved | Verb::ReleaseCommitted => {
                    let gone = self.lift(*range, known);
                    self.bury(&gone, known);
                    if let Call::Munmap { .. } = call.call {
                        gone.iter()
                            .for_each(|(_, fate)| self.trim(*fate, by, known));
                    }
                }
                Verb::MovedFrom => {
                    let pieces = self.lift(*range, known);
                    self.lifted.push((*range, pieces));
                }
                Verb::MovedTo => self.put_down(*range, known),
                Verb::Discard => {}
            }
        }
        for (_, gone) in std::mem::take(&mut self.lifted) {
            self.bury(&gone, known);
        }
    }

    /// What bytes belong to that made a mapping larger, or were left behind by one that moved.
    fn heir(&self, call: &Call, range: AddrRange, verb: Verb, known: &Known) -> Option<u32> {
        let below = range.start().0.checked_sub(1).map(Addr);
        let fate = match (call, verb) {
            (_, Verb::Grown) => self.pieces.at(range.end()),
            // Below the first page of the heap lies the program.
            (Call::Brk { .. }, _) => below
                .filter(|below| self.shape_at(*below, known) == Some(Shape::whole(Role::Heap)))
                .and_then(|below| self.pieces.at(below)),
            (Call::Mremap(mremap), _) => below
                .and_then(|below| self.pieces.at(below))
                .or_else(|| self.pieces.at(mremap.old_addr.page_floor())),
            _ => None,
        };
        fate.map(|fate| fate.birth)
    }

    /// Puts the span that was lifted first down at `to`.
    fn put_down(&mut self, to: AddrRange, known: &mut Known) {
        if self.lifted.is_empty() {
            return;
        }
        let (from, pieces) = self.lifted.remove(0);
        let distance = to.start().0.wrapping_sub(from.start().0);
        let moved = |addr: Addr| Addr(addr.0.wrapping_add(distance));
        for (range, fate) in pieces {
            if let Some(range) = AddrRange::new(moved(range.start()), moved(range.end())) {
                self.put(range, fate, known);
            }
        }
    }

    /// Takes the layout from the model, and what is known of its bytes from here.
    /// Only a space that `begins` by exec has zeroed data right after its files that no call mapped.
    fn rebuild(&mut self, state: &SpaceState, by: First, known: &mut Known, begins: bool) {
        let mut old = Pieces::default();
        let all = self.pieces.take();
        for (range, fate) in &all {
            self.leave(*range, *fate, known);
            old.insert(*range, *fate);
        }
        let mut dropped = all;
        let mut file: Option<(Addr, u32)> = None;
        let heap = state.context.brk_start.zip(state.context.brk);
        for vma in state.model.vmas() {
            let is_heap = heap.is_some_and(|(start, brk)| {
                vma.range.start() < brk && start <= vma.range.end() && anonymous(vma)
            });
            let after = file.filter(|(end, _)| *end == vma.range.start());
            let after = after.filter(|_| begins && anonymous(vma) && !vma.is_reserved());
            let number = match after {
                _ if is_heap => known.shapes.number(Shape::whole(Role::Heap), ""),
                Some((_, shape)) => shape,
                None => {
                    let shape = Shape::of_vma(vma, state);
                    known.shapes.number(shape, name_of(vma))
                }
            };
            let shape = known.shapes.get(number).map(|shape| &shape.role);
            let follows = matches!(shape, Some(Role::Program | Role::File(_)));
            file = follows.then_some((vma.range.end(), number));
            self.adopt(vma, number, &mut old, by, known);
        }
        dropped.dedup_by_key(|(_, fate)| fate.birth);
        self.bury(&dropped, known);
    }

    fn adopt(&mut self, vma: &Vma, shape: u32, old: &mut Pieces, by: First, known: &mut Known) {
        let reserved = vma.is_reserved();
        let mut at = vma.range.start();
        let mut new = None;
        let shape = known.shapes.get(shape).cloned();
        let Some(shape) = shape else { return };
        for (range, fate) in old.lift(vma.range) {
            self.fill(at, range.start(), &shape, reserved, (&mut new, by), known);
            self.put(range, Fate { reserved, ..fate }, known);
            at = range.end();
        }
        self.fill(at, vma.range.end(), &shape, reserved, (&mut new, by), known);
    }

    fn touch(&mut self, birth: u32) {
        if let Some(birth) = self.births.get_mut(birth as usize) {
            birth.fresh = false;
        }
    }

    /// Who wants an aligned mapping asks for a larger one and cuts its ends off, more or less of
    /// them as it lands: what is left is what was wanted.
    fn trim(&mut self, fate: Fate, by: First, known: &mut Known) {
        let Some(birth) = self.births.get_mut(fate.birth as usize) else {
            return;
        };
        let calls = self.calls.get(&by.by.tid).copied().unwrap_or(0);
        let at_once =
            by.by.tid == birth.first.by.tid && calls.saturating_sub(birth.call) <= AT_ONCE;
        let old = known.cells.shape(birth.cell);
        let shape = old.and_then(|shape| known.shapes.get(shape));
        let Some(Role::Anon(anon)) = shape.map(|shape| &shape.role) else {
            return;
        };
        if birth.live == 0 || !birth.fresh || !(fate.reserved || at_once) {
            return;
        }
        let role = Role::Anon(*anon);
        let size = birth.live;
        let shape = known.shapes.number(Shape { role, size }, "");
        let cell = known.cells.number(self.space, shape, birth.first);
        known.cells.sub(birth.cell, fate.reserved, birth.live);
        known.cells.count(birth.cell, false);
        let was = birth.cell;
        birth.cell = cell;
        known.cells.add(cell, fate.reserved, birth.live);
        known.cells.count(cell, true);
        known.cells.rename(was, cell);
    }

    /// A new mapping, without bytes yet.
    fn bear(&mut self, shape: u32, first: First, known: &mut Known) -> u32 {
        let cell = known.cells.number(self.space, shape, first);
        known.cells.count(cell, true);
        let birth = Birth {
            cell,
            live: 0,
            first,
            call: self.calls.get(&first.by.tid).copied().unwrap_or(0),
            fresh: true,
        };
        if let Some(number) = self.free.pop()
            && let Some(slot) = self.births.get_mut(number as usize)
        {
            *slot = birth;
            return number;
        }
        self.births.push(birth);
        self.births.len() as u32 - 1
    }

    /// Mappings of which nothing may be left.
    fn bury(&mut self, gone: &[(AddrRange, Fate)], known: &mut Known) {
        for (_, fate) in gone {
            let Some(birth) = self.births.get_mut(fate.birth as usize) else {
                continue;
            };
            if birth.live == 0 && birth.cell != u32::MAX {
                known.cells.count(birth.cell, false);
                birth.cell = u32::MAX;
                self.free.push(fate.birth);
            }
        }
    }

    fn put(&mut self, range: AddrRange, fate: Fate, known: &mut Known) {
        self.pieces.insert(range, fate);
        if let Some(birth) = self.births.get_mut(fate.birth as usize) {
            birth.live = birth.live.saturating_add(range.len());
            known.cells.add(birth.cell, fate.reserved, range.len());
        }
        let sum = &mut self.sums[super::cells::state_of(fate.reserved)];
        *sum = sum.saturating_add(range.len());
    }

    fn lift(&mut self, range: AddrRange, known: &mut Known) -> Vec<(AddrRange, Fate)> {
        let lifted = self.pieces.lift(range);
        for (range, fate) in &lifted {
            self.leave(*range, *fate, known);
        }
        lifted
    }

    fn leave(&mut self, range: AddrRange, fate: Fate, known: &mut Known) {
        if let Some(birth) = self.births.get_mut(fate.birth as usize) {
            birth.live = birth.live.saturating_sub(range.len());
            known.cells.sub(birth.cell, fate.reserved, range.len());
        }
        let sum = &mut self.sums[super::cells::state_of(fate.reserved)];
        *sum = sum.saturating_sub(range.len());
    }
}

/// Where a successful mmap(2) mapped.
fn mapped_range(call: &CallEvent) -> Option<AddrRange> {
    let Call::Mmap(mmap) = &call.call else {
        return None;
    };
    let result = call.result?;
    if crate::report::is_error(&call.raw, result) || call.spans.is_empty() {
        return None;
    }
    AddrRange::covering(Addr(result as u64), mmap.len)
}

/// The shape of bytes that a call other than a plain mmap(2) mapped.
fn shape_of(call: &Call, range: AddrRange, state: Option<&SpaceState>, known: &mut Known) -> u32 {
    if let Call::Brk { .. } = call {
        return known.shapes.number(Shape::whole(Role::Heap), "");
    }
    let vma = state.and_then(|state| Some((state.model.overlapping(range).next()?, state)));
    match vma {
        Some((vma, state)) => {
            let shape = Shape::of_vma(vma, state);
            known.shapes.number(shape, name_of(vma))
        }
        None => known
            .shapes
            .number(Shape::whole(Role::Special("".into())), ""),
    }
}

fn anonymous(vma: &Vma) -> bool {
    vma.backing == crate::mm::Backing::Anon && !vma.flags.growsdown
}

fn name_of(vma: &Vma) -> &str {
    match &vma.backing {
        crate::mm::Backing::Anon => "",
        crate::mm::Backing::File { name, .. } | crate::mm::Backing::Special { name } => name,
    }
}
