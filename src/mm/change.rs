//! The only way to alter an address space, and what each alteration did to which bytes.

use std::mem;

use crate::abi::Prot;
use crate::units::{Addr, AddrRange, Bytes};

use super::space::AddressSpace;
use super::vma::HUGE_PAGE;
use super::{Flow, Vma, VmaFlags};

/// What happened to a span (contract: *flow*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// unmapped → reserved
    Reserve,
    /// unmapped → committed
    Map,
    /// reserved → committed
    Commit,
    /// committed → reserved
    Decommit,
    /// reserved → unmapped
    ReleaseReserved,
    /// committed → unmapped
    ReleaseCommitted,
    /// stays mapped, contents dropped
    Discard,
    /// a whole mapping went elsewhere by mremap; no bytes won or lost
    MovedFrom,
    /// where it went
    MovedTo,
    /// a stack grew by page faults; taken over from the kernel, in no flow
    Grown,
}

/// One span of an event's effect. Spans of one event are in the order they happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where.
    pub range: AddrRange,
    /// What.
    pub verb: Verb,
}

/// The only way to alter an [`AddressSpace`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Unmaps what is at `vma.range` and puts `vma` there.
    Insert(Vma),
    /// Unmaps whatever is in the range; holes are fine.
    Remove(AddrRange),
    /// Sets the rights of whatever is mapped in the range.
    Protect {
        /// Where.
        range: AddrRange,
        /// READ, WRITE, EXEC.
        prot: Prot,
    },
    /// Moves every mapping in `from` by the same distance so that `from.start` lands on `to`,
    /// replacing only what is under the moved pieces (6.17's multi-VMA rule).
    Move {
        /// Where the mappings are.
        from: AddrRange,
        /// Where the first byte goes.
        to: Addr,
        /// MREMAP_DONTUNMAP: an empty husk of the same kind stays behind.
        keep_source: bool,
    },
    /// Drops contents (MADV_DONTNEED and its kin): counts mapped bytes as discarded.
    Discard(AddrRange),
    /// Sets or clears "not copied by fork" on whatever is mapped in the range.
    DontFork {
        /// Where.
        range: AddrRange,
        /// Set or clear.
        on: bool,
    },
    /// Seals whatever is mapped in the range.
    Seal(AddrRange),
    /// A stack grew into this free range by page faults: the mapping that begins at its end is
    /// extended downwards. Counts in no flow.
    Grow(AddrRange),
    /// The kernel's answer about a range: replaces the model's view of it. Bytes that change state
    /// count in the flow like any other change.
    Replace {
        /// The range that was asked about.
        range: AddrRange,
        /// What is mapped there now, clipped to `range`.
        vmas: Vec<Vma>,
    },
}

impl AddressSpace {
    /// Alters the space. What happened to which bytes is appended to `spans`, and summed in the
    /// returned flow.
    pub fn apply(&mut self, change: Change, spans: &mut Vec<Span>) -> Flow {
        let mut record = Record::new(spans);
        match change {
            Change::Insert(vma) => self.insert(vma, &mut record),
            Change::Remove(range) => self.remove(range, &mut record),
            Change::Protect { range, prot } => self.protect(range, prot.rwx(), &mut record),
            Change::Move {
                from,
                to,
                keep_source,
            } => self.relocate(from, to, keep_source, &mut record),
            Change::Discard(range) => self.discard(range, &mut record),
            Change::DontFork { range, on } => self.flag(range, |flags| flags.dontfork = on),
            Change::Seal(range) => self.flag(range, |flags| flags.sealed = true),
            Change::Grow(range) => self.grow(range, &mut record),
            Change::Replace { range, vmas } => self.replace(range, vmas, &mut record),
        }
        record.flow
    }

    fn insert(&mut self, vma: Vma, record: &mut Record) {
        self.cut(vma.range);
        let reserved = vma.is_reserved();
        for old in &self.pieces {
            if old.is_reserved() == reserved {
                record.span(old.range, released(old));
            }
        }
        let mut at = vma.range.start();
        for old in &self.pieces {
            if old.is_reserved() != reserved {
                record.between(at, old.range.start(), mapped(&vma));
                record.span(old.range, switched(&vma));
                at = old.range.end();
            }
        }
        record.between(at, vma.range.end(), mapped(&vma));
        self.attach(vma);
    }

    fn remove(&mut self, range: AddrRange, record: &mut Record) {
        self.cut(range);
        for old in &self.pieces {
            record.span(old.range, released(old));
        }
    }

    fn protect(&mut self, range: AddrRange, prot: Prot, record: &mut Record) {
        if self.overlapping(range).all(|vma| vma.prot == prot) {
            return;
        }
        self.edit(range, |vma| {
            let was_reserved = vma.is_reserved();
            vma.protect(prot);
            if vma.is_reserved() != was_reserved {
                record.span(vma.range, switched(vma));
            }
        });
    }

    /// Sets a flag of whatever is mapped in the range.
    fn flag(&mut self, range: AddrRange, set: impl Fn(&mut VmaFlags)) {
        let is_set = |vma: &Vma| {
            let mut flags = vma.flags;
            set(&mut flags);
            flags == vma.flags
        };
        if !self.overlapping(range).all(is_set) {
            self.edit(range, |vma| set(&mut vma.flags));
        }
    }

    /// Takes out whatever is mapped in the range and puts it back altered.
    fn edit(&mut self, range: AddrRange, mut alter: impl FnMut(&mut Vma)) {
        self.cut(range);
        let mut pieces = mem::take(&mut self.pieces);
        for mut vma in pieces.drain(..) {
            alter(&mut vma);
            self.attach(vma);
        }
        self.pieces = pieces;
    }

    /// What was under the moved pieces is dropped and counts as released; the pieces count as
    /// moved; a husk that stays behind counts as mapped anew.
    fn relocate(&mut self, from: AddrRange, to: Addr, keep_source: bool, record: &mut Record) {
        if AddrRange::covering(to, from.len()).is_none() {
            return;
        }
        self.cut(from);
        let distance = to.0.wrapping_sub(from.start().0);
        let lands = |range: AddrRange| {
            AddrRange::covering(Addr(range.start().0.wrapping_add(distance)), range.len())
        };
        let pieces = mem::take(&mut self.pieces);
        let moved: Vec<(Vma, AddrRange)> = pieces
            .into_iter()
            .filter_map(|vma| Some((lands(vma.range)?, vma)))
            .map(|(range, vma)| (vma, range))
            .collect();
        for (_, range) in &moved {
            self.remove(*range, record);
        }
        for (vma, _) in &moved {
            record.span(vma.range, Verb::MovedFrom);
        }
        for (_, range) in &moved {
            record.span(*range, Verb::MovedTo);
        }
        for (vma, range) in moved {
            if keep_source && !vma.range.overlaps(range) {
                record.span(vma.range, mapped(&vma));
                self.attach(vma.clone());
            }
            self.attach(vma.moved_to(range));
        }
    }

    fn discard(&mut self, range: AddrRange, record: &mut Record) {
        for vma in self.overlapping(range) {
            let Some(mut dropped) = vma.range.intersect(range) else {
                continue;
            };
            if vma.flags.hugetlb {
                // Only whole huge pages go (mm/madvise.c, `madvise_dontneed_free_valid_vma`).
                let end = Addr(dropped.end().0 & !(HUGE_PAGE - 1));
                match AddrRange::new(dropped.start(), end) {
                    Some(whole) => dropped = whole,
                    None => continue,
                }
            }
            record.span(dropped, Verb::Discard);
        }
    }

    fn grow(&mut self, range: AddrRange, record: &mut Record) {
        let Some(stack) = self.at(range.end()) else {
            return;
        };
        let mut grown = stack.clone();
        grown.narrow(range);
        self.cut(range);
        record.span(range, Verb::Grown);
        self.attach(grown);
    }

    fn replace(&mut self, range: AddrRange, vmas: Vec<Vma>, record: &mut Record) {
        // A stack that begins right after the range shows whether new bytes below it are growth.
        let above = self.at(range.end()).cloned();
        self.cut(range);
        let mut pieces = mem::take(&mut self.pieces);
        let mut old = pieces.iter().peekable();
        let mut new = vmas.iter().peekable();
        let mut at = range.start();
        while at < range.end() {
            while old.next_if(|vma| vma.range.end() <= at).is_some() {}
            while new.next_if(|vma| vma.range.end() <= at).is_some() {}
            let ends = [old.peek(), new.peek()].into_iter().flatten().map(|vma| {
                let begun = vma.range.start() <= at;
                if begun {
                    vma.range.end()
                } else {
                    vma.range.start()
                }
            });
            let end = ends.min().unwrap_or(range.end()).min(range.end());
            let Some(step) = AddrRange::new(at, end) else {
                break;
            };
            at = end;
            let was = old.peek().and_then(|vma| vma.clipped(step));
            let is = new.peek().and_then(|vma| vma.clipped(step));
            let stack = old.peek().copied().or(above.as_ref());
            let stack = stack.filter(|vma| vma.range.start() == end);
            if let Some(vma) = settle(step, was, is, stack, record) {
                self.attach(vma);
            }
        }
        pieces.clear();
        self.pieces = pieces;
    }
}

/// What a span becomes that the model saw as `was` and the kernel shows as `is`; `above` is the
/// model's mapping that begins at its end.
fn settle(
    range: AddrRange,
    was: Option<Vma>,
    is: Option<Vma>,
    above: Option<&Vma>,
    record: &mut Record,
) -> Option<Vma> {
    match (was, is) {
        (None, None) => None,
        (Some(was), None) => {
            record.span(range, released(&was));
            None
        }
        (None, Some(is)) => {
            // Only mmap(2) and its like map anew, and those are told from their arguments.
            let stack = above.filter(|above| above.flags.growsdown && is.same_backing(above));
            let Some(stack) = stack else {
                record.span(range, mapped(&is));
                return Some(is);
            };
            let mut grown = stack.clone();
            grown.narrow(is.range);
            grown.protect(is.prot);
            record.span(range, Verb::Grown);
            Some(grown)
        }
        (Some(mut was), Some(is)) => {
            let replaced = !was.shows_as(&is);
            if was.is_reserved() != is.is_reserved() {
                record.span(range, switched(&is));
            } else if replaced {
                record.span(range, released(&was));
                record.span(range, mapped(&is));
            }
            if replaced {
                return Some(is);
            }
            was.protect(is.prot);
            was.backing = is.backing;
            Some(was)
        }
    }
}

/// The verb for bytes of `vma` that were not mapped before.
fn mapped(vma: &Vma) -> Verb {
    match vma.is_reserved() {
        true => Verb::Reserve,
        false => Verb::Map,
    }
}

/// The verb for bytes of `vma` that are no longer mapped.
fn released(vma: &Vma) -> Verb {
    match vma.is_reserved() {
        true => Verb::ReleaseReserved,
        false => Verb::ReleaseCommitted,
    }
}

/// The verb for bytes that were in the other state before they were those of `vma`.
fn switched(vma: &Vma) -> Verb {
    match vma.is_reserved() {
        true => Verb::Decommit,
        false => Verb::Commit,
    }
}

/// Notes spans as they happen, touching ones of one verb as one.
struct Record<'a> {
    spans: &'a mut Vec<Span>,
    /// Spans before this one are another change's.
    first: usize,
    flow: Flow,
}

impl Record<'_> {
    fn new(spans: &mut Vec<Span>) -> Record<'_> {
        Record {
            first: spans.len(),
            spans,
            flow: Flow::default(),
        }
    }

    fn span(&mut self, range: AddrRange, verb: Verb) {
        self.flow.count(verb, Bytes(range.len()));
        if let Some(last) = self.spans[self.first..].last_mut()
            && last.verb == verb
            && last.range.end() == range.start()
            && let Some(joined) = AddrRange::new(last.range.start(), range.end())
        {
            last.range = joined;
            return;
        }
        self.spans.push(Span { range, verb });
    }

    fn between(&mut self, start: Addr, end: Addr, verb: Verb) {
        if let Some(range) = AddrRange::new(start, end) {
            self.span(range, verb);
        }
    }
}
