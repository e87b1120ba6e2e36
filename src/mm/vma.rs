//! One mapping, as the calls made it.
//!
//! What a mapping is, in which part of committed it counts, and whether the kernel charges it: read
//! off the notation of maps, so that anyone can recount it from the text.

use std::sync::Arc;

use crate::abi::Prot;
use crate::units::AddrRange;

use super::{Charge, MapsEntry, SmapsInfo};

/// A file as `/proc/PID/maps` names it: device and inode. Names change by rename, this does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Device, major part.
    pub major: u32,
    /// Device, minor part.
    pub minor: u32,
    /// Inode number on it.
    pub inode: u64,
}

/// What a mapping shows when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Private anonymous memory: the heap, stacks, MAP_PRIVATE|MAP_ANONYMOUS.
    Anon,
    /// Something with a device and an inode: files, and also shared anonymous memory, memfds,
    /// SysV segments and AIO rings, which the kernel keeps in files of its own.
    File {
        /// Which file.
        id: FileId,
        /// Offset in the file of the mapping's first byte.
        offset: u64,
        /// The name as maps prints it, still escaped (`\012`), ` (deleted)` included.
        name: Arc<str>,
    },
    /// `[vdso]`, `[vvar]` and their like: named by the kernel, no file.
    Special {
        /// The name with its brackets.
        name: Arc<str>,
    },
}

/// The part of committed that an accessible mapping belongs to (contract: *parts of committed*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// Private anonymous.
    Anon,
    /// File-backed, private or shared.
    File,
    /// Shared anonymous, memfd, SysV.
    Shmem,
    /// vdso, vvar and their like; rings the kernel made.
    Special,
}

/// What the kernel keeps about a mapping beside rights and backing, as far as a sum needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VmaFlags {
    /// VM_NORESERVE, `nr` in smaps.
    pub noreserve: bool,
    /// VM_GROWSDOWN, `gd` in smaps: page faults extend it downwards.
    pub growsdown: bool,
    /// VM_DONTCOPY, `dc` in smaps: fork leaves it out.
    pub dontfork: bool,
    /// VM_SEALED, `sl` in smaps.
    pub sealed: bool,
    /// VM_HUGETLB, `ht` in smaps: never charged, pages from a pool of its own.
    pub hugetlb: bool,
}

/// A mapping. Neighbours that differ in nothing at all are kept as one, whichever calls made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vma {
    /// Where.
    pub range: AddrRange,
    /// READ, WRITE and EXEC only.
    pub prot: Prot,
    /// `s` in maps (VM_MAYSHARE).
    pub shared: bool,
    /// What is behind it.
    pub backing: Backing,
    /// Further state.
    pub flags: VmaFlags,
    /// Whether the kernel counts it against the commit limit.
    pub charge: Charge,
}

/// Size of a huge page on x86-64 unless another one was asked for; the alignment of what may lie
/// on hugetlbfs.
pub(super) const HUGE_PAGE: u64 = 2 << 20;

/// What decides whether two bytes are "the same mapping" (cases, 2.7): rights, sharing, backing.
/// Labels, path text and `(deleted)` are left out. Equal keys of touching spans make one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    prot: Prot,
    shared: bool,
    backing: BackingKey<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BackingKey<'a> {
    Anon,
    /// The file, and its offset less the address: equal for neighbours that continue each other.
    File(FileId, u64),
    Special(&'a str),
}

/// Whether `maps` shows private anonymous memory under this name (fs/proc/task_mmu.c,
/// `get_vma_name`). Only for lines without a file.
fn is_anon_label(name: &str) -> bool {
    matches!(name, "" | "[heap]" | "[stack]")
        || name.starts_with("[anon:")
        || name.starts_with("[stack:")
}

/// Whether a line of maps has a file behind it. Some files have inode 0 on device 0, so a path counts too.
fn has_file(id: FileId, name: &str) -> bool {
    id != FileId::default() || name.starts_with('/') || name.starts_with("anon_inode:")
}

impl MapsEntry {
    pub(super) fn key(&self) -> Key<'_> {
        let backing = if has_file(self.file, &self.name) {
            BackingKey::File(self.file, self.offset.wrapping_sub(self.range.start().0))
        } else if is_anon_label(&self.name) {
            BackingKey::Anon
        } else {
            BackingKey::Special(&self.name)
        };
        Key {
            prot: self.prot.rwx(),
            shared: self.shared,
            backing,
        }
    }
}

impl Vma {
    /// The mapping that a line of maps shows. Without smaps its flags are unknown: it is taken as
    /// not NORESERVE, as growing downwards if it is named `[stack]`, and its charge as the rule of
    /// mm/vma.c, `accountable_mapping`, gives it.
    pub fn from_entry(entry: &MapsEntry, smaps: Option<&SmapsInfo>) -> Vma {
        let backing = match entry.key().backing {
            BackingKey::Anon => Backing::Anon,
            BackingKey::File(id, _) => Backing::File {
                id,
                offset: entry.offset,
                name: entry.name.clone(),
            },
            BackingKey::Special(_) => Backing::Special {
                name: entry.name.clone(),
            },
        };
        let mut vma = Vma {
            range: entry.range,
            prot: entry.prot.rwx(),
            shared: entry.shared,
            backing,
            flags: VmaFlags::default(),
            charge: Charge::No,
        };
        match smaps {
            Some(smaps) => vma.learn(smaps),
            None => {
                vma.flags.growsdown = &*entry.name == "[stack]";
                vma.flags.hugetlb = entry.name.starts_with("/anon_hugepage");
                vma.charge = vma.fresh_charge();
            }
        }
        vma
    }

    /// The line of maps for this mapping; anonymous memory has lost its label.
    pub fn to_entry(&self) -> MapsEntry {
        let (file, offset, name) = match &self.backing {
            Backing::Anon => (FileId::default(), 0, Arc::from("")),
            Backing::File { id, offset, name } => (*id, *offset, name.clone()),
            Backing::Special { name } => (FileId::default(), 0, name.clone()),
        };
        MapsEntry {
            range: self.range,
            prot: self.prot,
            shared: self.shared,
            offset,
            file,
            name,
        }
    }

    /// Whether nothing may touch it: no read, write or execute permission.
    pub fn is_reserved(&self) -> bool {
        self.prot.rwx().is_empty()
    }

    /// The part of committed it belongs to once accessible, told by the names that the kernel gives
    /// (mm/shmem.c, ipc/shm.c, fs/hugetlbfs/inode.c, fs/aio.c, fs/anon_inodes.c).
    pub fn category(&self) -> Category {
        let name = match &self.backing {
            Backing::Anon => return Category::Anon,
            Backing::Special { .. } => return Category::Special,
            Backing::File { name, .. } => &**name,
        };
        match name.as_bytes() {
            [b'/', b'a', ..] if name.starts_with("/anon_hugepage") => match self.shared {
                true => Category::Shmem,
                false => Category::Anon,
            },
            [b'/', b'd', ..] if self.shared && name == "/dev/zero (deleted)" => Category::Shmem,
            [b'/', b'm', ..] if name.starts_with("/memfd:") => Category::Shmem,
            [b'/', b'S', ..] if name.starts_with("/SYSV") => Category::Shmem,
            [b'/', b'[', ..] if name.starts_with("/[aio]") => Category::Special,
            [b'/', ..] | [] => Category::File,
            [b'[', ..] if name.starts_with("[anon_shmem:") => Category::Shmem,
            [b'[', ..] => Category::Special,
            _ if name.starts_with("anon_inode:") => Category::Special,
            _ => Category::File,
        }
    }

    /// The part of it in `range`, its file offset moved along; `None` if they share nothing.
    pub fn clipped(&self, range: AddrRange) -> Option<Vma> {
        let range = self.range.intersect(range)?;
        let mut clipped = self.clone();
        clipped.narrow(range);
        Some(clipped)
    }

    /// The same mapping over another range: as if it had been made larger on either side or cut.
    pub(super) fn narrow(&mut self, range: AddrRange) {
        if let Backing::File { offset, .. } = &mut self.backing {
            let moved = range.start().0.wrapping_sub(self.range.start().0);
            *offset = offset.wrapping_add(moved);
        }
        self.range = range;
    }

    /// The same contents at another address.
    pub(super) fn moved_to(mut self, range: AddrRange) -> Vma {
        self.range = range;
        self
    }

    pub(super) fn key(&self) -> Key<'_> {
        let backing = match &self.backing {
            Backing::Anon => BackingKey::Anon,
            Backing::File { id, offset, .. } => {
                BackingKey::File(*id, offset.wrapping_sub(self.range.start().0))
            }
            Backing::Special { name } => BackingKey::Special(name),
        };
        Key {
            prot: self.prot,
            shared: self.shared,
            backing,
        }
    }

    /// Whether sharing and backing are those of `other`, so that one continues the other.
    pub(super) fn same_backing(&self, other: &Vma) -> bool {
        let (mine, theirs) = (self.key(), other.key());
        mine.shared == theirs.shared && mine.backing == theirs.backing
    }

    /// Whether `other`, at the same place, can be this mapping as the kernel shows it. Moved before it
    /// was ever written to, a private mapping of /dev/zero gets its address for an offset
    /// (mm/vma.c, `copy_vma`): seen on 6.18.
    pub(super) fn shows_as(&self, other: &Vma) -> bool {
        let renumbered = match (&self.backing, &other.backing) {
            (Backing::File { id, .. }, Backing::File { id: other_id, .. }) => {
                id == other_id && self.is_kernel_anonymous() && other.is_kernel_anonymous()
            }
            _ => false,
        };
        renumbered || self.same_backing(other)
    }

    /// Whether `next` begins where `self` ends and belongs to the same run of `mappings`.
    pub(super) fn joins(&self, next: &Vma) -> bool {
        self.range.end() == next.range.start() && self.key() == next.key()
    }

    /// Whether nothing at all tells `self` from `next`, given that they join.
    pub(super) fn merges(&self, next: &Vma) -> bool {
        let same_name = match (&self.backing, &next.backing) {
            (Backing::File { name, .. }, Backing::File { name: other, .. }) => {
                Arc::ptr_eq(name, other) || name == other
            }
            _ => true,
        };
        self.flags == next.flags && self.charge == next.charge && same_name
    }

    /// Takes flags and charge from smaps.
    pub(super) fn learn(&mut self, smaps: &SmapsInfo) {
        self.flags = VmaFlags {
            noreserve: smaps.noreserve,
            growsdown: smaps.growsdown,
            dontfork: smaps.dontfork,
            sealed: smaps.sealed,
            hugetlb: smaps.hugetlb,
        };
        self.charge = if smaps.charged {
            Charge::Yes
        } else {
            Charge::No
        };
    }

    /// The charge of a mapping just made (mm/vma.c, `accountable_mapping`): private, writable, not
    /// NORESERVE, not hugetlb. What may lie on hugetlbfs without the model knowing is `Maybe`.
    pub(super) fn fresh_charge(&self) -> Charge {
        let special = matches!(self.backing, Backing::Special { .. });
        if self.shared
            || special
            || self.flags.noreserve
            || self.flags.hugetlb
            || !self.prot.contains(Prot::WRITE)
        {
            return Charge::No;
        }
        match &self.backing {
            Backing::File { offset, .. }
                if (self.range.start().0 | self.range.end().0 | offset)
                    .is_multiple_of(HUGE_PAGE) =>
            {
                Charge::Maybe
            }
            _ => Charge::Yes,
        }
    }

    /// Sets the rights as mprotect(2) does, the charge with them (mm/mprotect.c, `mprotect_fixup`):
    /// becoming writable charges; becoming unwritable gives back only anonymous memory that was
    /// never written to, which no call shows.
    pub(super) fn protect(&mut self, prot: Prot) {
        if self.prot == prot {
            return;
        }
        self.prot = prot;
        if prot.contains(Prot::WRITE) {
            if self.charge != Charge::Yes {
                self.charge = self.fresh_charge();
            }
        } else if self.charge == Charge::Yes && self.is_kernel_anonymous() {
            self.charge = Charge::Maybe;
        }
    }

    /// `vma_is_anonymous` of include/linux/mm.h: also true of private mappings of /dev/zero
    /// (drivers/char/mem.c, `mmap_zero`).
    fn is_kernel_anonymous(&self) -> bool {
        match &self.backing {
            Backing::Anon => true,
            Backing::File { name, .. } => !self.shared && name.ends_with("/zero"),
            Backing::Special { .. } => false,
        }
    }
}
