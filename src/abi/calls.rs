//! Which system calls are memory calls, their numbers per ABI, and how the tracer treats them.

use super::Abi;

/// What a memory call is, whatever its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the system call of that name")]
pub enum CallKind {
    Mmap,
    Mmap2,
    OldMmap,
    Munmap,
    Mremap,
    Mprotect,
    PkeyMprotect,
    PkeyAlloc,
    PkeyFree,
    Madvise,
    ProcessMadvise,
    Brk,
    Mlock,
    Mlock2,
    Munlock,
    Mlockall,
    Munlockall,
    Msync,
    Mincore,
    Mbind,
    SetMempolicy,
    GetMempolicy,
    SetMempolicyHomeNode,
    MigratePages,
    MovePages,
    RemapFilePages,
    Shmget,
    Shmat,
    Shmdt,
    Shmctl,
    /// i386 ipc(2): only its shm sub-calls are memory calls
    Ipc,
    MemfdCreate,
    MemfdSecret,
    Userfaultfd,
    Mseal,
    MapShadowStack,
    ProcessMrelease,
    Cachestat,
    IoSetup,
    IoDestroy,
    /// Only PR_SET_VMA, PR_SET_THP_DISABLE, PR_SET_MM and PR_SET_MEMORY_MERGE
    Prctl,
    /// Only ARCH_MAP_VDSO_* and ARCH_SHSTK_*
    ArchPrctl,
    /// Seen for READ_IMPLIES_EXEC, shown only on request
    Personality,
}

/// How the tracer treats one memory call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallInfo {
    /// Its kind.
    pub kind: CallKind,
    /// The kernel's name of it.
    pub name: &'static str,
    /// Its number on x86-64.
    pub x86_64: Option<u32>,
    /// Its number on i386.
    pub i386: Option<u32>,
    /// Can change which bytes are mapped, with which rights and backing, or split a mapping: such
    /// calls of one space run one at a time (the slot), so that the model sees them in kernel order
    /// and the kernel's answers about a range are of one moment.
    pub layout: bool,
    /// Stops by default; the others only when `-e` names them.
    pub default: bool,
}

const fn call(
    kind: CallKind,
    name: &'static str,
    x86_64: i32,
    i386: i32,
    layout: bool,
    default: bool,
) -> CallInfo {
    const fn number(nr: i32) -> Option<u32> {
        if nr < 0 { None } else { Some(nr as u32) }
    }
    CallInfo {
        kind,
        name,
        x86_64: number(x86_64),
        i386: number(i386),
        layout,
        default,
    }
}

/// Every memory call. Numbers: `arch/x86/entry/syscalls/syscall_64.tbl` and `syscall_32.tbl`.
pub const CALLS: &[CallInfo] = &[
    call(CallKind::Mmap, "mmap", 9, -1, true, true),
    call(CallKind::OldMmap, "mmap", -1, 90, true, true),
    call(CallKind::Mmap2, "mmap2", -1, 192, true, true),
    call(CallKind::Munmap, "munmap", 11, 91, true, true),
    call(CallKind::Mprotect, "mprotect", 10, 125, true, true),
    call(
        CallKind::PkeyMprotect,
        "pkey_mprotect",
        329,
        380,
        true,
        true,
    ),
    call(CallKind::Mremap, "mremap", 25, 163, true, true),
    call(CallKind::Brk, "brk", 12, 45, true, true),
    call(CallKind::Madvise, "madvise", 28, 219, false, true),
    call(
        CallKind::ProcessMadvise,
        "process_madvise",
        440,
        440,
        false,
        true,
    ),
    call(CallKind::Shmat, "shmat", 30, 397, true, true),
    call(CallKind::Shmdt, "shmdt", 67, 398, true, true),
    call(CallKind::Shmget, "shmget", 29, 395, false, true),
    call(CallKind::Shmctl, "shmctl", 31, 396, false, true),
    call(CallKind::Ipc, "ipc", -1, 117, true, true),
    call(
        CallKind::RemapFilePages,
        "remap_file_pages",
        216,
        257,
        true,
        true,
    ),
    call(CallKind::IoSetup, "io_setup", 206, 245, true, true),
    call(CallKind::IoDestroy, "io_destroy", 207, 246, true, true),
    call(CallKind::Mseal, "mseal", 462, 462, true, true),
    call(
        CallKind::MapShadowStack,
        "map_shadow_stack",
        453,
        453,
        true,
        true,
    ),
    call(CallKind::MemfdCreate, "memfd_create", 319, 356, false, true),
    call(CallKind::MemfdSecret, "memfd_secret", 447, 447, false, true),
    call(CallKind::Userfaultfd, "userfaultfd", 323, 374, false, true),
    call(CallKind::Mlockall, "mlockall", 151, 152, true, true),
    call(CallKind::Munlockall, "munlockall", 152, 153, true, true),
    call(CallKind::Mlock, "mlock", 149, 150, true, true),
    call(CallKind::Mlock2, "mlock2", 325, 376, true, true),
    call(CallKind::Munlock, "munlock", 150, 151, true, true),
    call(CallKind::Prctl, "prctl", 157, 172, true, true),
    call(CallKind::ArchPrctl, "arch_prctl", 158, 384, true, true),
    call(CallKind::Personality, "personality", 135, 136, false, true),
    call(CallKind::PkeyAlloc, "pkey_alloc", 330, 381, false, true),
    call(CallKind::PkeyFree, "pkey_free", 331, 382, false, true),
    call(
        CallKind::ProcessMrelease,
        "process_mrelease",
        448,
        448,
        false,
        true,
    ),
    call(CallKind::Mbind, "mbind", 237, 274, true, true),
    call(
        CallKind::SetMempolicy,
        "set_mempolicy",
        238,
        276,
        false,
        true,
    ),
    call(
        CallKind::SetMempolicyHomeNode,
        "set_mempolicy_home_node",
        450,
        450,
        true,
        true,
    ),
    call(
        CallKind::MigratePages,
        "migrate_pages",
        256,
        294,
        false,
        true,
    ),
    call(CallKind::MovePages, "move_pages", 279, 317, false, false),
    call(
        CallKind::GetMempolicy,
        "get_mempolicy",
        239,
        275,
        false,
        false,
    ),
    call(CallKind::Msync, "msync", 26, 144, false, false),
    call(CallKind::Mincore, "mincore", 27, 218, false, false),
    call(CallKind::Cachestat, "cachestat", 451, 451, false, false),
];

const TABLE: usize = 512;

const fn index_of(abi: Abi) -> [u8; TABLE] {
    let mut table = [u8::MAX; TABLE];
    let mut i = 0;
    while i < CALLS.len() {
        let nr = match abi {
            Abi::X86_64 => CALLS[i].x86_64,
            Abi::I386 => CALLS[i].i386,
        };
        if let Some(nr) = nr {
            table[nr as usize] = i as u8;
        }
        i += 1;
    }
    table
}

static X86_64: [u8; TABLE] = index_of(Abi::X86_64);
static I386: [u8; TABLE] = index_of(Abi::I386);

/// The memory call with this number; `None` for all others.
pub fn call_info(abi: Abi, nr: u32) -> Option<&'static CallInfo> {
    let table = match abi {
        Abi::X86_64 => &X86_64,
        Abi::I386 => &I386,
    };
    let index = *table.get(nr as usize)?;
    CALLS.get(index as usize)
}

/// All calls that have this name (several numbers can share one).
pub fn call_by_name(name: &str) -> impl Iterator<Item = &'static CallInfo> {
    CALLS.iter().filter(move |call| call.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_the_kernels() {
        for call in CALLS {
            if let Some(nr) = call.x86_64 {
                let known = syscalls::x86_64::Sysno::new(nr as usize).map(|known| known.name());
                assert_eq!(known, Some(call.name), "x86-64 {nr}");
            }
            if let Some(nr) = call.i386 {
                let known = syscalls::x86::Sysno::new(nr as usize).map(|known| known.name());
                assert_eq!(known, Some(call.name), "i386 {nr}");
            }
        }
    }

    #[test]
    fn no_number_was_forgotten() {
        for call in CALLS {
            let known = call.name.parse::<syscalls::x86_64::Sysno>().ok();
            if call.kind != CallKind::OldMmap {
                assert_eq!(call.x86_64, known.map(|nr| nr as u32), "{}", call.name);
            }
            let known = call.name.parse::<syscalls::x86::Sysno>().ok();
            if call.kind != CallKind::Mmap {
                assert_eq!(call.i386, known.map(|nr| nr as u32), "{}", call.name);
            }
        }
    }

    #[test]
    fn a_number_leads_back_to_its_call() {
        for call in CALLS {
            for (abi, nr) in [(Abi::X86_64, call.x86_64), (Abi::I386, call.i386)] {
                if let Some(nr) = nr {
                    assert_eq!(call_info(abi, nr), Some(call));
                }
            }
        }
        assert_eq!(call_info(Abi::X86_64, 0), None);
        assert_eq!(call_info(Abi::X86_64, 0x4000_0009), None);
    }
}
