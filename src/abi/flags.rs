//! Bits of the memory calls, from `include/uapi/asm-generic/mman*.h` and x86's `mman.h`.

use bitflags::bitflags;

bitflags! {
    /// PROT_* of mmap(2) and mprotect(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        /// PROT_READ
        const READ = 0x1;
        /// PROT_WRITE
        const WRITE = 0x2;
        /// PROT_EXEC
        const EXEC = 0x4;
        /// PROT_SEM
        const SEM = 0x8;
        /// PROT_GROWSDOWN
        const GROWSDOWN = 0x0100_0000;
        /// PROT_GROWSUP
        const GROWSUP = 0x0200_0000;
        const _ = !0;
    }
}

impl Prot {
    /// No access at all; what makes a mapping count as reserved.
    pub const NONE: Prot = Prot::empty();

    /// The three bits that a mapping keeps.
    pub fn rwx(self) -> Prot {
        self & (Prot::READ | Prot::WRITE | Prot::EXEC)
    }
}

bitflags! {
    /// MAP_* of mmap(2). The sharing type is the low four bits, see [`MapFlags::sharing`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MapFlags: u32 {
        /// MAP_SHARED
        const SHARED = 0x01;
        /// MAP_PRIVATE
        const PRIVATE = 0x02;
        /// MAP_DROPPABLE (6.11); a type of its own, not a bit
        const DROPPABLE = 0x08;
        /// MAP_FIXED
        const FIXED = 0x10;
        /// MAP_ANONYMOUS
        const ANONYMOUS = 0x20;
        /// MAP_32BIT (x86)
        const BIT32 = 0x40;
        /// MAP_ABOVE4G (x86)
        const ABOVE4G = 0x80;
        /// MAP_GROWSDOWN
        const GROWSDOWN = 0x0100;
        /// MAP_DENYWRITE
        const DENYWRITE = 0x0800;
        /// MAP_EXECUTABLE
        const EXECUTABLE = 0x1000;
        /// MAP_LOCKED
        const LOCKED = 0x2000;
        /// MAP_NORESERVE
        const NORESERVE = 0x4000;
        /// MAP_POPULATE
        const POPULATE = 0x8000;
        /// MAP_NONBLOCK
        const NONBLOCK = 0x1_0000;
        /// MAP_STACK
        const STACK = 0x2_0000;
        /// MAP_HUGETLB
        const HUGETLB = 0x4_0000;
        /// MAP_SYNC
        const SYNC = 0x8_0000;
        /// MAP_FIXED_NOREPLACE
        const FIXED_NOREPLACE = 0x10_0000;
        /// MAP_UNINITIALIZED
        const UNINITIALIZED = 0x400_0000;
        const _ = !0;
    }
}

impl MapFlags {
    /// The type bits: 1 shared, 2 private, 3 shared_validate, 8 droppable.
    pub fn sharing(self) -> u32 {
        self.bits() & 0xf
    }

    /// Whether a mapping made with these flags shows `s` in maps.
    pub fn is_shared(self) -> bool {
        matches!(self.sharing(), 1 | 3)
    }
}

bitflags! {
    /// MREMAP_* of mremap(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MremapFlags: u32 {
        /// MREMAP_MAYMOVE
        const MAYMOVE = 1;
        /// MREMAP_FIXED
        const FIXED = 2;
        /// MREMAP_DONTUNMAP
        const DONTUNMAP = 4;
        const _ = !0;
    }
}
