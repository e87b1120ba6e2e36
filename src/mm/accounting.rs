//! Sums over an address space, kept up to date by every change.

use std::ops::AddAssign;

use crate::units::Bytes;

use super::{Category, Verb, Vma};

/// Whether the kernel charges a mapping to the commit limit (VM_ACCOUNT, `ac` in smaps).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Charge {
    /// Not charged.
    #[default]
    No,
    /// Charged.
    Yes,
    /// Was writable and no longer is: charged unless it was never written to (cases, 2.9).
    Maybe,
}

/// Committed bytes by what is behind them; they sum to committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Private anonymous.
    pub anon: Bytes,
    /// File-backed.
    pub file: Bytes,
    /// Shared anonymous, memfd, SysV.
    pub shmem: Bytes,
    /// vdso, vvar and their like.
    pub special: Bytes,
}

impl Parts {
    /// The part that holds the bytes of `category`.
    fn part(&mut self, category: Category) -> &mut Bytes {
        match category {
            Category::Anon => &mut self.anon,
            Category::File => &mut self.file,
            Category::Shmem => &mut self.shmem,
            Category::Special => &mut self.special,
        }
    }
}

/// The sums of one address space at one instant. `mapped = reserved + committed`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All mappings.
    pub mapped: Bytes,
    /// Those without any access right.
    pub reserved: Bytes,
    /// The others.
    pub committed: Bytes,
    /// Committed, split by backing.
    pub parts: Parts,
    /// Committed bytes mapped with MAP_NORESERVE.
    pub noreserve: Bytes,
    /// Lowest possible charge: bytes with [`Charge::Yes`].
    pub charged_low: Bytes,
    /// Highest possible charge: bytes with [`Charge::Yes`] or [`Charge::Maybe`].
    pub charged_high: Bytes,
    /// Maximal runs of equal rights, sharing and backing.
    pub mappings: u64,
}

impl Totals {
    /// Counts a mapping in. `mappings` is the caller's: it depends on the neighbours.
    pub(super) fn add(&mut self, vma: &Vma) {
        self.tally(vma, |sum, bytes| *sum += bytes);
    }

    /// Counts a mapping out. `mappings` is the caller's.
    pub(super) fn sub(&mut self, vma: &Vma) {
        self.tally(vma, |sum, bytes| *sum -= bytes);
    }

    #[inline(always)]
    fn tally(&mut self, vma: &Vma, op: impl Fn(&mut Bytes, Bytes)) {
        let bytes = Bytes(vma.range.len());
        op(&mut self.mapped, bytes);
        if vma.is_reserved() {
            op(&mut self.reserved, bytes);
        } else {
            op(&mut self.committed, bytes);
            op(self.parts.part(vma.category()), bytes);
            if vma.flags.noreserve {
                op(&mut self.noreserve, bytes);
            }
        }
        match vma.charge {
            Charge::No => {}
            Charge::Yes => {
                op(&mut self.charged_low, bytes);
                op(&mut self.charged_high, bytes);
            }
            Charge::Maybe => op(&mut self.charged_high, bytes),
        }
    }
}

/// Bytes by what happened to them (contract: *flow*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// unmapped → reserved
    pub reserve: Bytes,
    /// unmapped → committed
    pub map: Bytes,
    /// reserved → committed
    pub commit: Bytes,
    /// committed → reserved
    pub decommit: Bytes,
    /// reserved or committed → unmapped
    pub release: Bytes,
    /// stays mapped, contents dropped
    pub discard: Bytes,
}

impl Flow {
    /// Counts `bytes` that `verb` happened to. Moves and growth by faults are no flow.
    pub fn count(&mut self, verb: Verb, bytes: Bytes) {
        match verb {
            Verb::Reserve => self.reserve += bytes,
            Verb::Map => self.map += bytes,
            Verb::Commit => self.commit += bytes,
            Verb::Decommit => self.decommit += bytes,
            Verb::ReleaseReserved | Verb::ReleaseCommitted => self.release += bytes,
            Verb::Discard => self.discard += bytes,
            Verb::MovedFrom | Verb::MovedTo | Verb::Grown => {}
        }
    }
}

impl AddAssign for Flow {
    fn add_assign(&mut self, other: Flow) {
        let Flow {
            reserve,
            map,
            commit,
            decommit,
            release,
            discard,
        } = other;
        self.reserve += reserve;
        self.map += map;
        self.commit += commit;
        self.decommit += decommit;
        self.release += release;
        self.discard += discard;
    }
}
