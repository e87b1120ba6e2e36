//! What a successful mremap(2) did, read off its result.

use crate::abi::MremapFlags;
use crate::decode::Mremap;
use crate::units::{Addr, AddrRange};

use super::effect::{Effect, line_at};
use super::vma::HUGE_PAGE;
use super::{AddressSpace, Change, Evidence, Vma};

/// What a successful mremap(2) did (mm/mremap.c). The caller lets the kernel's answer correct it.
///
/// | result       | lengths         | change                                                    |
/// |--------------|-----------------|-----------------------------------------------------------|
/// | anywhere     | old 0           | a second view of shared memory                            |
/// | same address | smaller         | the tail is unmapped                                      |
/// | same address | equal           | none                                                      |
/// | same address | larger          | grown in place                                            |
/// | elsewhere    | smaller (FIXED) | the tail is unmapped, the rest moved                      |
/// | elsewhere    | equal           | moved, every VMA of the range; DONTUNMAP keeps the husk   |
/// | elsewhere    | larger          | moved and grown                                           |
pub(super) fn mremap(space: &AddressSpace, call: &Mremap, at: Addr, effect: &mut Effect) {
    let hugetlb = space.at(call.old_addr).is_some_and(|vma| vma.flags.hugetlb);
    let rounded = |len: u64| match hugetlb {
        true => len.checked_next_multiple_of(HUGE_PAGE).unwrap_or(len),
        false => len,
    };
    let Some(new) = AddrRange::covering(at, rounded(call.new_len)) else {
        effect.recheck = true;
        return;
    };
    let Some(old) = AddrRange::covering(call.old_addr, rounded(call.old_len)) else {
        // Length 0: the same bytes once more, in another place.
        if let Some(vma) = space.at(call.old_addr) {
            let view = continued(vma, call.old_addr, new);
            effect
                .changes
                .extend([Change::Remove(new), Change::Insert(view)]);
        }
        return;
    };
    // The part of both that stays or is moved.
    let kept = old.len().min(new.len());
    let moved = new.start() != old.start();
    let mut changes = Vec::new();
    if let Some(tail) = rest(old, kept) {
        changes.push(Change::Remove(tail));
    }
    let grown = rest(new, kept);
    if let Some(tail) = grown
        && call.flags.contains(MremapFlags::FIXED)
    {
        // What was there went before the move, whatever state it was in: not a change of state.
        changes.push(Change::Remove(tail));
    }
    if moved && let Some(from) = AddrRange::covering(old.start(), kept) {
        changes.push(Change::Move {
            from,
            to: new.start(),
            keep_source: call.flags.contains(MremapFlags::DONTUNMAP),
        });
    }
    let last = Addr(old.end().0.saturating_sub(1));
    if let Some(tail) = grown
        && let Some(vma) = space.at(last)
    {
        changes.push(Change::Insert(continued(vma, old.end(), tail)));
    }
    effect.changes.append(&mut changes);
}

/// What a failed mremap(2) with MREMAP_FIXED has moved all the same: with equal lengths the VMAs of
/// the range go one after the other, and those before the one that failed are gone (2.4). The answer
/// shows how far it came; this only tells moved pages from new ones. With DONTUNMAP nothing leaves
/// the source, and the target shows it.
pub(super) fn mremap_failed(
    space: &AddressSpace,
    call: &Mremap,
    evidence: &[Evidence],
    effect: &mut Effect,
) {
    let old = AddrRange::covering(call.old_addr, call.old_len);
    let new = AddrRange::covering(call.new_addr, call.new_len);
    let (Some(old), Some(new)) = (old, new) else {
        return;
    };
    let fixed = call.flags.contains(MremapFlags::FIXED);
    if !fixed || old.len() != new.len() || old.overlaps(new) || evidence.is_empty() {
        return;
    }
    let keep_source = call.flags.contains(MremapFlags::DONTUNMAP);
    // Nothing moves if nothing is mapped at the start (mm/mremap.c, `remap_move`).
    if space.at(old.start()).is_none() {
        return;
    }
    for piece in space.overlapping(old).filter_map(|vma| vma.clipped(old)) {
        let mut at = piece.range.start();
        while at < piece.range.end() {
            let to = Addr(at.0 - old.start().0 + new.start().0);
            let Some(line) = line_at(evidence, to) else {
                return;
            };
            // A sealed source or target is what stopped it (mm/mremap.c, `check_prep_vma`).
            let sealed = |range| space.overlapping(range).any(|vma| vma.flags.sealed);
            let left_behind = line_at(evidence, at).is_some();
            let end = Addr(line.range.end().0.saturating_sub(to.0).saturating_add(at.0));
            let end = end.min(piece.range.end());
            let from = AddrRange::new(at, end);
            let landed = from
                .and_then(|from| piece.clipped(from))
                .and_then(|part| Some(part.moved_to(AddrRange::covering(to, end.0 - at.0)?)));
            let (Some(from), Some(landed)) = (from, landed) else {
                return;
            };
            let shown = Vma::from_entry(line, None).clipped(landed.range);
            let matches =
                shown.is_some_and(|shown| shown.prot == landed.prot && landed.shows_as(&shown));
            if left_behind != keep_source || !matches || sealed(from) || sealed(landed.range) {
                return;
            }
            effect.changes.push(Change::Move {
                from,
                to,
                keep_source,
            });
            at = end;
        }
    }
}

/// What is left of `range` after its first `len` bytes.
fn rest(range: AddrRange, len: u64) -> Option<AddrRange> {
    AddrRange::new(Addr(range.start().0.checked_add(len)?), range.end())
}

/// A mapping at `place` that shows what `vma` shows, or would show if it went on, from `from` on.
fn continued(vma: &Vma, from: Addr, place: AddrRange) -> Vma {
    let mut shown = vma.clone();
    let end = from.0.checked_add(place.len()).map(Addr);
    if let Some(range) = end.and_then(|end| AddrRange::new(from.page_floor(), end)) {
        shown.narrow(range);
    }
    shown.moved_to(place)
}
