//! The mappings of one process: what is mapped where, and the sums over it.
//!
//! A sorted map of VMAs and running totals. Two private operations, taking spans out (`cut`) and
//! putting a mapping into free space (`attach`), keep the totals and the count of runs right;
//! every [`Change`](super::Change) is made of them, see `change.rs`.

use std::collections::BTreeMap;

use crate::units::{Addr, AddrRange};

use super::{Snapshot, Totals, Vma};

/// The exact model of one address space.
///
/// Neighbours that differ in nothing are one VMA here, although the calls may have made them apart:
/// a heap that grows by brk(2), or an arena by mprotect(2), would else gain a VMA with every step.
#[derive(Clone, Debug, Default)]
pub struct AddressSpace {
    /// By start.
    vmas: BTreeMap<Addr, Vma>,
    totals: Totals,
    /// Holds every mapping that page faults extend downwards, and maybe more.
    stacks: Option<AddrRange>,
    /// What `cut` took out; kept for its allocation.
    pub(super) pieces: Vec<Vma>,
}

impl AddressSpace {
    /// The space that the kernel shows. Flags come from smaps where it was read; without it a
    /// mapping is taken as not NORESERVE and its charge is guessed from its rights.
    pub fn from_snapshot(snapshot: &Snapshot) -> AddressSpace {
        let mut builder = Builder::default();
        for (index, entry) in snapshot.entries.iter().enumerate() {
            builder.push(Vma::from_entry(entry, snapshot.smaps.get(index)));
        }
        builder.finish()
    }

    /// The child's space after fork(2): the kernel's view of the child, with the flags that maps
    /// does not show inherited from the same addresses of the parent.
    pub fn forked(parent: &AddressSpace, child: &Snapshot) -> AddressSpace {
        if !child.smaps.is_empty() {
            return AddressSpace::from_snapshot(child);
        }
        let mut builder = Builder::default();
        for entry in &child.entries {
            let vma = Vma::from_entry(entry, None);
            let mut at = vma.range.start();
            for origin in parent.overlapping(vma.range) {
                let Some(shown) = vma.clipped(origin.range) else {
                    continue;
                };
                let inherited = match origin.clipped(vma.range) {
                    Some(mut inherited) if inherited.same_backing(&shown) => {
                        inherited.protect(shown.prot);
                        inherited.flags.dontfork = false;
                        inherited
                    }
                    _ => shown,
                };
                // What the model of the parent lacks below a stack is growth by faults.
                if let Some(range) = AddrRange::new(at, inherited.range.start()) {
                    let mut grown = if inherited.flags.growsdown {
                        inherited.clone()
                    } else {
                        vma.clone()
                    };
                    grown.narrow(range);
                    builder.push(grown);
                }
                at = inherited.range.end();
                builder.push(inherited);
            }
            if let Some(range) = AddrRange::new(at, vma.range.end()) {
                builder.extend(vma.clipped(range));
            }
        }
        builder.finish()
    }

    /// The child's space after fork(2) as the kernel makes it, where it could not be looked at:
    /// everything but what MADV_DONTFORK leaves out.
    pub fn copied(&self) -> AddressSpace {
        let mut builder = Builder::default();
        for vma in self.vmas().filter(|vma| !vma.flags.dontfork) {
            builder.push(vma.clone());
        }
        builder.finish()
    }

    /// The sums, kept up to date.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The sums, counted anew from the VMAs; equals [`AddressSpace::totals`].
    pub fn recount(&self) -> Totals {
        let mut totals = Totals::default();
        let mut last: Option<&Vma> = None;
        for vma in self.vmas() {
            totals.add(vma);
            totals.mappings += u64::from(!last.is_some_and(|last| last.joins(vma)));
            last = Some(vma);
        }
        totals
    }

    /// All mappings in order of address.
    pub fn vmas(&self) -> impl Iterator<Item = &Vma> {
        self.vmas.values()
    }

    /// The mapping that holds `addr`.
    pub fn at(&self, addr: Addr) -> Option<&Vma> {
        let (_, vma) = self.vmas.range(..=addr).next_back()?;
        vma.range.contains(addr).then_some(vma)
    }

    /// The mappings that share bytes with `range`, whole, in order of address.
    pub fn overlapping(&self, range: AddrRange) -> impl Iterator<Item = &Vma> {
        let first = self.vmas.range(..=range.start()).next_back();
        let first = first.filter(|(_, vma)| range.start() < vma.range.end());
        // The first one is found apart because it may begin before the range.
        let from = first.map_or(range.start(), |(start, _)| *start);
        self.vmas.range(from..range.end()).map(|(_, vma)| vma)
    }

    /// Whether no byte of `range` is mapped.
    pub fn is_free(&self, range: AddrRange) -> bool {
        let last = self.vmas.range(..range.end()).next_back();
        last.is_none_or(|(_, vma)| vma.range.end() <= range.start())
    }

    /// Whether a mapping that page faults extend downwards may lie in `range`; quick.
    pub(super) fn may_hold_stack(&self, range: AddrRange) -> bool {
        self.stacks.is_some_and(|stacks| stacks.overlaps(range))
    }

    /// Whether nothing is mapped between the last page of `range` and a mapping above that page
    /// faults extend downwards: `range` may be part of it by now.
    pub(super) fn is_under_stack(&self, range: AddrRange) -> bool {
        let last = Addr(range.end().0.saturating_sub(1));
        let Some(stacks) = self.stacks else {
            return false;
        };
        if self.at(last).is_some() || stacks.end() <= range.end() {
            return false;
        }
        let above = self.vmas.range(range.end()..).next();
        above.is_some_and(|(_, vma)| vma.flags.growsdown)
    }

    /// Takes the charge and the flags of every mapping from smaps (the layout must be equal).
    pub fn learn_flags(&mut self, snapshot: &Snapshot) {
        let mut lines = snapshot.entries.iter().zip(&snapshot.smaps).peekable();
        let mut builder = Builder::default();
        for vma in self.vmas() {
            let mut at = vma.range.start();
            while let Some((entry, smaps)) = lines.peek() {
                if vma.range.end() <= entry.range.start() {
                    break;
                }
                if let Some(mut piece) = vma.clipped(entry.range) {
                    if let Some(unseen) = AddrRange::new(at, piece.range.start()) {
                        builder.extend(vma.clipped(unseen));
                    }
                    at = piece.range.end();
                    if piece.same_backing(&Vma::from_entry(entry, None)) {
                        piece.learn(smaps);
                    }
                    builder.push(piece);
                }
                if vma.range.end() < entry.range.end() {
                    break; // the next VMA shares the line
                }
                lines.next();
            }
            if let Some(unseen) = AddrRange::new(at, vma.range.end()) {
                builder.extend(vma.clipped(unseen));
            }
        }
        let pieces = std::mem::take(&mut self.pieces);
        *self = builder.finish();
        self.pieces = pieces;
    }

    /// Takes everything in `range` out; the pieces lie in `self.pieces` in order of address.
    pub(super) fn cut(&mut self, range: AddrRange) {
        self.pieces.clear();
        while let Some(piece) = self.cut_last(range) {
            self.totals.sub(&piece);
            self.pieces.push(piece);
        }
        if 1 < self.pieces.len() {
            self.pieces.reverse();
        }
    }

    /// Takes the uppermost piece in `range` out of the map.
    fn cut_last(&mut self, range: AddrRange) -> Option<Vma> {
        // One descent finds the VMA, the one that begins right after the range, and the one before.
        let mut back = self.vmas.range(..=range.end()).rev().map(|(_, vma)| vma);
        let mut next = None;
        let mut vma = back.next()?;
        if vma.range.start() == range.end() {
            next = Some(vma);
            vma = back.next()?;
        }
        let cut = vma.range.intersect(range)?;
        let left = AddrRange::new(vma.range.start(), cut.start());
        let right = AddrRange::new(cut.end(), vma.range.end());
        let joined_left = left.is_some() || back.next().is_some_and(|pred| pred.joins(vma));
        let joined_right = right.is_some() || next.is_some_and(|next| vma.joins(next));
        // A run that goes on at both sides is now two; one that went on at neither is gone.
        self.totals.mappings += u64::from(joined_left) + u64::from(joined_right);
        self.totals.mappings = self.totals.mappings.saturating_sub(1);

        let start = vma.range.start();
        let (piece, right) = match left {
            Some(left) => {
                let vma = self.vmas.get_mut(&start)?;
                let mut piece = vma.clone();
                vma.range = left;
                let right = right.and_then(|right| piece.clipped(right));
                piece.narrow(cut);
                (piece, right)
            }
            None => {
                let mut piece = self.vmas.remove(&start)?;
                let right = right.and_then(|right| piece.clipped(right));
                piece.narrow(cut);
                (piece, right)
            }
        };
        if let Some(right) = right {
            self.vmas.insert(right.range.start(), right);
        }
        Some(piece)
    }

    /// Puts a mapping where nothing is.
    pub(super) fn attach(&mut self, mut vma: Vma) {
        let (start, end) = (vma.range.start(), vma.range.end());
        self.totals.add(&vma);
        if vma.flags.growsdown {
            self.stacks = hull(self.stacks, vma.range);
        }
        let mut back = self.vmas.range(..=end).rev().map(|(_, vma)| vma);
        let mut pred = back.next();
        let mut next = None;
        if pred.is_some_and(|pred| pred.range.start() == end) {
            next = pred;
            pred = back.next();
        }
        let pred = pred.filter(|pred| pred.joins(&vma));
        let next = next.filter(|next| vma.joins(next));
        self.totals.mappings += 1;
        self.totals.mappings -= u64::from(pred.is_some()) + u64::from(next.is_some());

        let pred = pred.filter(|pred| pred.merges(&vma));
        let into = pred.map(|pred| pred.range.start());
        let mut whole = vma.range;
        if let Some(next) = next.filter(|next| vma.merges(next)) {
            whole = AddrRange::new(start, next.range.end()).unwrap_or(whole);
            self.vmas.remove(&end);
        }
        match into.and_then(|into| self.vmas.get_mut(&into)) {
            Some(pred) => {
                let joined = AddrRange::new(pred.range.start(), whole.end());
                pred.range = joined.unwrap_or(pred.range);
            }
            None => {
                vma.range = whole;
                self.vmas.insert(start, vma);
            }
        }
    }
}

/// The span from the lower start to the higher end.
fn hull(known: Option<AddrRange>, range: AddrRange) -> Option<AddrRange> {
    let known = known.unwrap_or(range);
    AddrRange::new(
        known.start().min(range.start()),
        known.end().max(range.end()),
    )
}

/// Builds a space from mappings in order of address.
#[derive(Default)]
struct Builder {
    vmas: Vec<(Addr, Vma)>,
}

impl Builder {
    fn push(&mut self, vma: Vma) {
        let Some((_, last)) = self.vmas.last_mut() else {
            return self.vmas.push((vma.range.start(), vma));
        };
        if last.joins(&vma) && last.merges(&vma) {
            last.range = AddrRange::new(last.range.start(), vma.range.end()).unwrap_or(last.range);
        } else if last.range.end() <= vma.range.start() {
            self.vmas.push((vma.range.start(), vma));
        }
        // A text whose lines overlap or go back was torn; the first line counts.
    }

    fn extend(&mut self, vma: Option<Vma>) {
        if let Some(vma) = vma {
            self.push(vma);
        }
    }

    fn finish(self) -> AddressSpace {
        let mut space = AddressSpace {
            vmas: self.vmas.into_iter().collect(),
            ..AddressSpace::default()
        };
        space.totals = space.recount();
        let stacks = space.vmas().filter(|vma| vma.flags.growsdown);
        space.stacks = stacks.fold(None, |stacks, vma| hull(stacks, vma.range));
        space
    }
}
