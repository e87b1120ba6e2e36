//! Stacks that page faults extend downwards, between one look at the kernel and the next.
//!
//! Growth takes only free space and is no change of the program's, so a comparison takes it over
//! ([`super::Comparison::grown`]). Rights and place tell it as long as the mapping above it is as it
//! was: where a call alters the bottom of such a mapping, the whole map is asked for, with the flags
//! that tell it then.

use crate::abi::MremapFlags;
use crate::decode::{Call, Placement};
use crate::units::{Addr, AddrRange};

use super::evidence::SHM_REMAP;
use super::{AddressSpace, Change, MapsEntry};

/// The growth of a stack that a line of the answer happens to show, also where it reaches out of
/// what was asked about.
pub(super) fn growth(space: &AddressSpace, line: &MapsEntry) -> Option<Change> {
    if !space.may_hold_stack(line.range) {
        return None;
    }
    let stack = space.at(Addr(line.range.end().0.saturating_sub(1)))?;
    grown_to(space, line.range).filter(|_| stack.key() == line.key())
}

/// The growth of the stack that is now at `range`; `None` if no stack is known there, or one that is
/// as large.
pub fn grown_to(space: &AddressSpace, range: AddrRange) -> Option<Change> {
    let stack = space.at(Addr(range.end().0.saturating_sub(1)))?;
    let grown = AddrRange::new(range.start(), stack.range.start())?;
    let told = stack.flags.growsdown && space.is_free(grown);
    told.then_some(Change::Grow(grown))
}

/// Whether the bottom of a stack changes, or what may be part of one that has grown unseen: what is
/// left of it below can then no longer be told from the mapping that it belonged to.
pub(super) fn hides_growth(space: &AddressSpace, call: &Call, changes: &[Change]) -> bool {
    let replaces = match call {
        Call::Mmap(call) => matches!(call.placement(), Placement::Replacing(_)),
        Call::Mremap(call) => call.flags.contains(MremapFlags::FIXED),
        Call::Shmat { flags, .. } => flags & SHM_REMAP != 0,
        Call::Munmap { .. } | Call::Mprotect { .. } => true,
        Call::Mseal { .. } | Call::Madvise { .. } => true,
        _ => false,
    };
    // These can fail after they changed a part, and the answer need not reach below it.
    let told_in_part = matches!(
        call,
        Call::Mmap(_) | Call::Mremap(_) | Call::Munmap { .. } | Call::Mprotect { .. }
    );
    changes.iter().any(|change| {
        let (range, target) = match change {
            Change::Insert(vma) => (vma.range, Some(vma.range)),
            Change::Remove(range) => (*range, Some(*range)),
            Change::Protect { range, .. } => (*range, None),
            Change::Move { from, to, .. } => (*from, AddrRange::covering(*to, from.len())),
            Change::DontFork { range, .. } | Change::Seal(range) => (*range, Some(*range)),
            Change::Replace { range, .. } if told_in_part => (*range, Some(*range)),
            Change::Replace { .. } | Change::Grow(_) | Change::Discard(_) => return false,
        };
        let bottom = |range: AddrRange| {
            let mut vmas = space.overlapping(range);
            vmas.any(|vma| vma.flags.growsdown && range.start() <= vma.range.start())
        };
        let touched = [Some(range), target.filter(|target| *target != range)];
        let mut touched = touched.into_iter().flatten();
        touched.any(|range| space.may_hold_stack(range) && bottom(range))
            || replaces && target.is_some_and(|target| space.is_under_stack(target))
    })
}
