//! Names of numbers and bits, in the order in which strace prints them.
//!
//! Sources: `include/uapi/asm-generic/mman-common.h`, `mman.h`, x86's `asm/mman.h` and `asm/prctl.h`,
//! `linux/mempolicy.h`, `linux/memfd.h`, `linux/userfaultfd.h`, `linux/prctl.h`, `linux/shm.h`,
//! `linux/ipc.h`, `linux/personality.h`, through Linux 6.18. The order is what strace was seen to print.

use std::fmt;

/// Numbers or bits and what they are called.
pub type Names = [(u64, &'static str)];

/// The name of one number.
pub fn name_of(names: &'static Names, value: u64) -> Option<&'static str> {
    let entry = names.iter().find(|entry| entry.0 == value)?;
    Some(entry.1)
}

/// A set of bits by name; what has no name stays as a number, so nothing is lost.
///
/// As strace prints it: `A|B|0x40`, `0` for none, and `0x40 /* A_??? */` when nothing has a name.
#[derive(Clone, Copy, Debug)]
pub struct Bits {
    /// The names. A name of 0 stands for the empty set.
    pub names: &'static Names,
    /// The bits.
    pub value: u64,
    /// What to say when no bit has a name: `PROT_???`. Empty: nothing.
    pub unknown: &'static str,
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value == 0 {
            return f.write_str(name_of(self.names, 0).unwrap_or("0"));
        }
        let mut rest = self.value;
        let mut separator = "";
        for &(bits, name) in self.names {
            if bits != 0 && rest & bits == bits {
                write!(f, "{separator}{name}")?;
                rest &= !bits;
                separator = "|";
            }
        }
        match (rest, separator) {
            (0, _) => Ok(()),
            (rest, "") if !self.unknown.is_empty() => {
                write!(f, "{rest:#x} /* {} */", self.unknown)
            }
            (rest, "") => write!(f, "{rest:#x}"),
            (rest, _) => write!(f, "|{rest:#x}"),
        }
    }
}

/// One number by name, or `0x5 /* MADV_??? */`.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// The names.
    pub names: &'static Names,
    /// The number.
    pub value: u64,
    /// What to say when it has no name: `MADV_???`.
    pub unknown: &'static str,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (name_of(self.names, self.value), self.value) {
            (Some(name), _) => f.write_str(name),
            (None, 0) => write!(f, "0 /* {} */", self.unknown),
            (None, value) => write!(f, "{value:#x} /* {} */", self.unknown),
        }
    }
}

/// The name of a madvise(2) advice.
pub fn advice_name(advice: i32) -> Option<&'static str> {
    name_of(MADV, u64::from(advice as u32))
}

/// PROT_*
pub const PROT: &Names = &[
    (0, "PROT_NONE"),
    (0x1, "PROT_READ"),
    (0x2, "PROT_WRITE"),
    (0x4, "PROT_EXEC"),
    (0x8, "PROT_SEM"),
    (0x0100_0000, "PROT_GROWSDOWN"),
    (0x0200_0000, "PROT_GROWSUP"),
];

/// The sharing type in the low four bits of mmap(2)'s flags.
pub const MAP_TYPE: &Names = &[
    (0, "MAP_FILE"),
    (1, "MAP_SHARED"),
    (2, "MAP_PRIVATE"),
    (3, "MAP_SHARED_VALIDATE"),
    (8, "MAP_DROPPABLE"),
];

/// MAP_* above the type and below the huge page size.
pub const MAP: &Names = &[
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    (0x40, "MAP_32BIT"),
    (0x80, "MAP_ABOVE4G"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x1_0000, "MAP_NONBLOCK"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x1000, "MAP_EXECUTABLE"),
    (0x2000, "MAP_LOCKED"),
    (0x2_0000, "MAP_STACK"),
    (0x4_0000, "MAP_HUGETLB"),
    (0x8_0000, "MAP_SYNC"),
    (0x10_0000, "MAP_FIXED_NOREPLACE"),
];

/// Where the base-2 logarithm of a huge page's size stands in the flags of mmap(2), shmget(2) and
/// memfd_create(2): MAP_HUGE_2MB is `21 << 26`. MAP_UNINITIALIZED shares its lowest bit.
pub const HUGE_SHIFT: u32 = 26;

/// MREMAP_*
pub const MREMAP: &Names = &[
    (1, "MREMAP_MAYMOVE"),
    (2, "MREMAP_FIXED"),
    (4, "MREMAP_DONTUNMAP"),
];

/// MADV_*
pub const MADV: &Names = &[
    (0, "MADV_NORMAL"),
    (1, "MADV_RANDOM"),
    (2, "MADV_SEQUENTIAL"),
    (3, "MADV_WILLNEED"),
    (4, "MADV_DONTNEED"),
    (8, "MADV_FREE"),
    (9, "MADV_REMOVE"),
    (10, "MADV_DONTFORK"),
    (11, "MADV_DOFORK"),
    (12, "MADV_MERGEABLE"),
    (13, "MADV_UNMERGEABLE"),
    (14, "MADV_HUGEPAGE"),
    (15, "MADV_NOHUGEPAGE"),
    (16, "MADV_DONTDUMP"),
    (17, "MADV_DODUMP"),
    (18, "MADV_WIPEONFORK"),
    (19, "MADV_KEEPONFORK"),
    (20, "MADV_COLD"),
    (21, "MADV_PAGEOUT"),
    (22, "MADV_POPULATE_READ"),
    (23, "MADV_POPULATE_WRITE"),
    (24, "MADV_DONTNEED_LOCKED"),
    (25, "MADV_COLLAPSE"),
    (100, "MADV_HWPOISON"),
    (101, "MADV_SOFT_OFFLINE"),
    (102, "MADV_GUARD_INSTALL"),
    (103, "MADV_GUARD_REMOVE"),
];

/// Flags of mlock2(2).
pub const MLOCK: &Names = &[(1, "MLOCK_ONFAULT")];

/// Flags of mlockall(2).
pub const MCL: &Names = &[(1, "MCL_CURRENT"), (2, "MCL_FUTURE"), (4, "MCL_ONFAULT")];

/// Flags of msync(2).
pub const MS: &Names = &[(4, "MS_SYNC"), (1, "MS_ASYNC"), (2, "MS_INVALIDATE")];

/// Access rights of pkey_alloc(2).
pub const PKEY: &Names = &[
    (1, "PKEY_DISABLE_ACCESS"),
    (2, "PKEY_DISABLE_WRITE"),
    (4, "PKEY_DISABLE_EXECUTE"),
];

/// Flags of shmat(2).
pub const SHMAT: &Names = &[
    (0o10000, "SHM_RDONLY"),
    (0o20000, "SHM_RND"),
    (0o40000, "SHM_REMAP"),
    (0o100000, "SHM_EXEC"),
];

/// Flags of shmget(2), without the mode and the huge page size.
pub const SHMGET: &Names = &[
    (0o1000, "IPC_CREAT"),
    (0o2000, "IPC_EXCL"),
    (0o4000, "SHM_HUGETLB"),
    (0o10000, "SHM_NORESERVE"),
];

/// Commands of shmctl(2).
pub const SHMCTL: &Names = &[
    (0, "IPC_RMID"),
    (1, "IPC_SET"),
    (2, "IPC_STAT"),
    (3, "IPC_INFO"),
    (11, "SHM_LOCK"),
    (12, "SHM_UNLOCK"),
    (13, "SHM_STAT"),
    (14, "SHM_INFO"),
    (15, "SHM_STAT_ANY"),
];

/// NUMA policies.
pub const MPOL: &Names = &[
    (0, "MPOL_DEFAULT"),
    (1, "MPOL_PREFERRED"),
    (2, "MPOL_BIND"),
    (3, "MPOL_INTERLEAVE"),
    (4, "MPOL_LOCAL"),
    (5, "MPOL_PREFERRED_MANY"),
    (6, "MPOL_WEIGHTED_INTERLEAVE"),
];

/// Flags beside a NUMA policy.
pub const MPOL_MODE_FLAGS: &Names = &[
    (0x8000, "MPOL_F_STATIC_NODES"),
    (0x4000, "MPOL_F_RELATIVE_NODES"),
    (0x2000, "MPOL_F_NUMA_BALANCING"),
];

/// Flags of mbind(2).
pub const MBIND: &Names = &[
    (1, "MPOL_MF_STRICT"),
    (2, "MPOL_MF_MOVE"),
    (4, "MPOL_MF_MOVE_ALL"),
];

/// Flags of move_pages(2).
pub const MOVE_PAGES: &Names = &[(2, "MPOL_MF_MOVE"), (4, "MPOL_MF_MOVE_ALL")];

/// Flags of get_mempolicy(2).
pub const GET_MEMPOLICY: &Names = &[
    (1, "MPOL_F_NODE"),
    (2, "MPOL_F_ADDR"),
    (4, "MPOL_F_MEMS_ALLOWED"),
];

/// Flags of memfd_create(2), without the huge page size.
pub const MFD: &Names = &[
    (1, "MFD_CLOEXEC"),
    (2, "MFD_ALLOW_SEALING"),
    (4, "MFD_HUGETLB"),
    (8, "MFD_NOEXEC_SEAL"),
    (0x10, "MFD_EXEC"),
];

/// Flags of memfd_secret(2).
pub const SECRETMEM: &Names = &[(0o2000000, "O_CLOEXEC")];

/// Flags of userfaultfd(2).
pub const UFFD: &Names = &[
    (1, "UFFD_USER_MODE_ONLY"),
    (0o4000, "O_NONBLOCK"),
    (0o2000000, "O_CLOEXEC"),
];

/// Flags of map_shadow_stack(2).
pub const SHADOW_STACK: &Names = &[(1, "SHADOW_STACK_SET_TOKEN")];

/// The options of prctl(2) that concern memory.
pub const PRCTL: &Names = &[
    (35, "PR_SET_MM"),
    (41, "PR_SET_THP_DISABLE"),
    (67, "PR_SET_MEMORY_MERGE"),
    (0x5356_4d41, "PR_SET_VMA"),
];

/// What of a mapping PR_SET_VMA sets.
pub const PR_SET_VMA: &Names = &[(0, "PR_SET_VMA_ANON_NAME")];

/// What of an address space PR_SET_MM sets.
pub const PR_SET_MM: &Names = &[
    (1, "PR_SET_MM_START_CODE"),
    (2, "PR_SET_MM_END_CODE"),
    (3, "PR_SET_MM_START_DATA"),
    (4, "PR_SET_MM_END_DATA"),
    (5, "PR_SET_MM_START_STACK"),
    (6, "PR_SET_MM_START_BRK"),
    (7, "PR_SET_MM_BRK"),
    (8, "PR_SET_MM_ARG_START"),
    (9, "PR_SET_MM_ARG_END"),
    (10, "PR_SET_MM_ENV_START"),
    (11, "PR_SET_MM_ENV_END"),
    (12, "PR_SET_MM_AUXV"),
    (13, "PR_SET_MM_EXE_FILE"),
    (14, "PR_SET_MM_MAP"),
    (15, "PR_SET_MM_MAP_SIZE"),
];

/// The options of arch_prctl(2) that concern memory.
pub const ARCH_PRCTL: &Names = &[
    (0x2001, "ARCH_MAP_VDSO_X32"),
    (0x2002, "ARCH_MAP_VDSO_32"),
    (0x2003, "ARCH_MAP_VDSO_64"),
    (0x5001, "ARCH_SHSTK_ENABLE"),
    (0x5002, "ARCH_SHSTK_DISABLE"),
    (0x5003, "ARCH_SHSTK_LOCK"),
    (0x5004, "ARCH_SHSTK_UNLOCK"),
    (0x5005, "ARCH_SHSTK_STATUS"),
];

/// Execution domains of personality(2) that are a low byte alone. The others (PER_SVR4, …) come with
/// flags of their own, and strace does not take their low byte for them.
pub const PERSONALITY: &Names = &[
    (0x00, "PER_LINUX"),
    (0x06, "PER_BSD"),
    (0x08, "PER_LINUX32"),
    (0x0c, "PER_RISCOS"),
    (0x0f, "PER_OSF4"),
    (0x10, "PER_HPUX"),
    (0xff, "PER_MASK"),
];

/// Flags of personality(2).
pub const PERSONALITY_FLAGS: &Names = &[
    (0x002_0000, "UNAME26"),
    (0x004_0000, "ADDR_NO_RANDOMIZE"),
    (0x008_0000, "FDPIC_FUNCPTRS"),
    (0x010_0000, "MMAP_PAGE_ZERO"),
    (0x020_0000, "ADDR_COMPAT_LAYOUT"),
    (0x040_0000, "READ_IMPLIES_EXEC"),
    (0x080_0000, "ADDR_LIMIT_32BIT"),
    (0x100_0000, "SHORT_INODE"),
    (0x200_0000, "WHOLE_SECONDS"),
    (0x400_0000, "STICKY_TIMEOUTS"),
    (0x800_0000, "ADDR_LIMIT_3GB"),
];

/// Architectures as audit names them, where a seccomp SIGSYS can come from here.
pub const AUDIT_ARCH: &Names = &[
    (0xc000_003e, "AUDIT_ARCH_X86_64"),
    (0x4000_0003, "AUDIT_ARCH_I386"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_bits_survive() {
        let prot = |value| {
            let bits = Bits {
                names: PROT,
                value,
                unknown: "PROT_???",
            };
            bits.to_string()
        };
        assert_eq!(prot(0), "PROT_NONE");
        assert_eq!(prot(3), "PROT_READ|PROT_WRITE");
        assert_eq!(prot(0x11), "PROT_READ|0x10");
        assert_eq!(prot(0x10), "0x10 /* PROT_??? */");
    }

    #[test]
    fn an_advice_has_a_name_through_the_newest() {
        assert_eq!(advice_name(0), Some("MADV_NORMAL"));
        assert_eq!(advice_name(103), Some("MADV_GUARD_REMOVE"));
        assert_eq!(advice_name(5), None);
        assert_eq!(advice_name(-1), None);
    }
}
