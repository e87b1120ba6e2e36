//! Memory calls that were refused: what limited the caller at that moment, and which limit it was.
//!
//! The edge reads [`Figures`] at the exit stop of a call that [`is_refused`] tells; a trace keeps
//! them. What follows from them is computed here by the kernel's own rules, in the kernel's own
//! order (`reason.rs`), and says no more than they prove: where they do not tell one cause, all that
//! are possible are candidates, and called so.

use crate::abi::CallKind;
use crate::decode::{Fetched, RawCall, decode, effective_kind};
use crate::mm::AddressSpace;
use crate::units::{Addr, Bytes};

use super::Bound;

mod reason;
#[cfg(test)]
mod tests;

/// EPERM.
pub(super) const EPERM: i32 = 1;
/// EAGAIN.
pub(super) const EAGAIN: i32 = 11;
/// ENOMEM.
pub(super) const ENOMEM: i32 = 12;

/// What bounded a task when a call of it was refused, and how much of it was used. Read at the exit
/// stop, or (where nothing stops) soon after, so the refused call is not part of it. `None`: it could not be read, or does not matter to
/// the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// RLIMIT_AS.
    pub limit_as: Option<Bound>,
    /// RLIMIT_DATA.
    pub limit_data: Option<Bound>,
    /// RLIMIT_DATA, the hard limit: it is what counts where the soft one is 0 (mm/mmap.c,
    /// `may_expand_vm`).
    pub limit_data_hard: Option<Bound>,
    /// RLIMIT_MEMLOCK.
    pub limit_memlock: Option<Bound>,
    /// VmSize of `/proc/TID/status`.
    pub mapped: Option<Bytes>,
    /// VmData: private writable mappings that are no stack.
    pub data: Option<Bytes>,
    /// VmLck.
    pub locked: Option<Bytes>,
    /// Bytes of the range of an mlock(2) that are locked (`lo` in smaps).
    pub locked_in_range: Option<Bytes>,
    /// Mappings, as the kernel counts them: lines of maps without `[vsyscall]`.
    pub map_count: Option<u64>,
    /// vm.max_map_count.
    pub max_map_count: Option<u64>,
    /// vm.overcommit_memory.
    pub overcommit: Option<u64>,
    /// MemTotal.
    pub memory: Option<Bytes>,
    /// SwapTotal.
    pub swap: Option<Bytes>,
    /// CommitLimit.
    pub commit_limit: Option<Bytes>,
    /// Committed_AS.
    pub committed: Option<Bytes>,
    /// vm.admin_reserve_kbytes, in bytes.
    pub admin_reserve: Option<Bytes>,
    /// vm.user_reserve_kbytes, in bytes.
    pub user_reserve: Option<Bytes>,
    /// Effective capabilities, as far as they count for limits of the machine: none of a task in a
    /// user namespace of its own.
    pub capabilities: Option<u64>,
    /// Bytes of initialized and zeroed data of the program, which brk(2) counts against RLIMIT_DATA
    /// (`end_data - start_data`).
    pub static_data: Option<Bytes>,
    /// vm.mmap_min_addr.
    pub min_addr: Option<u64>,
    /// Size of the segment of a shmat(2).
    pub segment: Option<Bytes>,
    /// Size of a huge page where none was asked for by size.
    pub huge_page: Option<Bytes>,
    /// Huge pages of that size that are free and not promised.
    pub huge_free: Option<u64>,
    /// 1: another layout-changing call of the space ran beside this one, or nothing stopped the task
    /// and they were read after the call, so that the figures may be those after it.
    pub beside: Option<u64>,
}

impl Figures {
    /// How many figures there are.
    pub const COUNT: usize = 24;

    /// Every figure as a number, by name. No limit is the highest number, as setrlimit(2) has it.
    pub fn numbers(&self) -> [(&'static str, Option<u64>); Figures::COUNT] {
        let Figures {
            limit_as,
            limit_data,
            limit_data_hard,
            limit_memlock,
            mapped,
            data,
            locked,
            locked_in_range,
            map_count,
            max_map_count,
            overcommit,
            memory,
            swap,
            commit_limit,
            committed,
            admin_reserve,
            user_reserve,
            capabilities,
            static_data,
            min_addr,
            segment,
            huge_page,
            huge_free,
            beside,
        } = *self;
        let bound = |bound: Option<Bound>| bound.map(|bound| bound.bytes().map_or(!0, |b| b.0));
        let bytes = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.0);
        [
            ("rlimit_as", bound(limit_as)),
            ("rlimit_data", bound(limit_data)),
            ("rlimit_data_hard", bound(limit_data_hard)),
            ("rlimit_memlock", bound(limit_memlock)),
            ("mapped", bytes(mapped)),
            ("data", bytes(data)),
            ("locked", bytes(locked)),
            ("locked_in_range", bytes(locked_in_range)),
            ("map_count", map_count),
            ("max_map_count", max_map_count),
            ("overcommit", overcommit),
            ("memory", bytes(memory)),
            ("swap", bytes(swap)),
            ("commit_limit", bytes(commit_limit)),
            ("committed_as", bytes(committed)),
            ("admin_reserve", bytes(admin_reserve)),
            ("user_reserve", bytes(user_reserve)),
            ("capabilities", capabilities),
            ("static_data", bytes(static_data)),
            ("mmap_min_addr", min_addr),
            ("segment", bytes(segment)),
            ("huge_page", bytes(huge_page)),
            ("huge_pages_free", huge_free),
            ("beside", beside),
        ]
    }

    /// The figures of these numbers, in the order of [`Figures::numbers`].
    pub fn of_numbers(numbers: [Option<u64>; Figures::COUNT]) -> Figures {
        let [
            limit_as,
            limit_data,
            limit_data_hard,
            limit_memlock,
            mapped,
            data,
            locked,
            locked_in_range,
            map_count,
            max_map_count,
            overcommit,
            memory,
            swap,
            commit_limit,
            committed,
            admin_reserve,
            user_reserve,
            capabilities,
            static_data,
            min_addr,
            segment,
            huge_page,
            huge_free,
            beside,
        ] = numbers;
        let bound = |number: Option<u64>| {
            number.map(|number| match number {
                u64::MAX => Bound::Unlimited,
                bytes => Bound::Bytes(Bytes(bytes)),
            })
        };
        let bytes = |number: Option<u64>| number.map(Bytes);
        Figures {
            limit_as: bound(limit_as),
            limit_data: bound(limit_data),
            limit_data_hard: bound(limit_data_hard),
            limit_memlock: bound(limit_memlock),
            mapped: bytes(mapped),
            data: bytes(data),
            locked: bytes(locked),
            locked_in_range: bytes(locked_in_range),
            map_count,
            max_map_count,
            overcommit,
            memory: bytes(memory),
            swap: bytes(swap),
            commit_limit: bytes(commit_limit),
            committed: bytes(committed),
            admin_reserve: bytes(admin_reserve),
            user_reserve: bytes(user_reserve),
            capabilities,
            static_data: bytes(static_data),
            min_addr,
            segment: bytes(segment),
            huge_page: bytes(huge_page),
            huge_free,
            beside,
        }
    }
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One cause if `proven`, else all candidates; never empty.
    pub causes: Vec<Cause>,
    /// The figures leave no other cause.
    pub proven: bool,
    /// The figures it follows from.
    pub figures: Figures,
}

/// What refuses a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cause {
    /// What.
    pub what: Limiter,
    /// By how much; `None` where it is no matter of amounts, or they are not known.
    pub amounts: Option<Amounts>,
}

/// What was asked for against what there is: bytes, mappings of [`Limiter::MapCount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amounts {
    /// The most that is allowed.
    pub limit: u64,
    /// Of it in use.
    pub used: u64,
    /// What the call would have added.
    pub asked: u64,
}

impl Amounts {
    /// How far the call went beyond the limit; 0 if it did not.
    pub fn over(&self) -> u64 {
        let wanted = self.used.saturating_add(self.asked);
        wanted.saturating_sub(self.limit)
    }
}

/// A limit, or what else may refuse a memory call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limiter {
    /// RLIMIT_AS against VmSize.
    AddressSpace,
    /// RLIMIT_DATA against VmData; of brk(2) also against heap and static data.
    Data,
    /// RLIMIT_MEMLOCK.
    Locked,
    /// vm.overcommit_memory 0: more in one call than memory and swap.
    Overcommit,
    /// vm.overcommit_memory 2: the commit limit.
    CommitLimit,
    /// vm.max_map_count.
    MapCount,
    /// A mapping sealed by mseal(2).
    Sealed(Addr),
    /// Nothing is mapped at this address of the range.
    NotMapped(Addr),
    /// No free range is as long; the limit is the longest one.
    NoRoom,
    /// A mapping at this address is in the way of growth.
    InTheWay(Addr),
    /// The range does not end within the address space.
    BeyondTheEnd,
    /// vm.mmap_min_addr.
    MinAddr,
    /// Not enough free huge pages.
    HugePages,
    /// The pages could not be brought in: no access, past the end of a file, no memory.
    Pages,
    /// The file system forbids execution (`noexec`).
    NoExec,
    /// The file is sealed against writing (F_SEAL_WRITE).
    FileSeal,
    /// The caller lacks CAP_SYS_ADMIN.
    Privilege,
    /// A security module.
    SecurityModule,
    /// The driver or file system behind the file.
    Driver,
    /// The kernel had no memory for its own records.
    KernelMemory,
}

impl Limiter {
    /// Its name for programs.
    pub fn code(self) -> &'static str {
        match self {
            Limiter::AddressSpace => "rlimit_as",
            Limiter::Data => "rlimit_data",
            Limiter::Locked => "rlimit_memlock",
            Limiter::Overcommit => "overcommit",
            Limiter::CommitLimit => "commit_limit",
            Limiter::MapCount => "max_map_count",
            Limiter::Sealed(_) => "sealed",
            Limiter::NotMapped(_) => "not_mapped",
            Limiter::NoRoom => "no_room",
            Limiter::InTheWay(_) => "in_the_way",
            Limiter::BeyondTheEnd => "beyond_the_end",
            Limiter::MinAddr => "mmap_min_addr",
            Limiter::HugePages => "huge_pages",
            Limiter::Pages => "pages",
            Limiter::NoExec => "noexec",
            Limiter::FileSeal => "file_seal",
            Limiter::Privilege => "cap_sys_admin",
            Limiter::SecurityModule => "security_module",
            Limiter::Driver => "driver",
            Limiter::KernelMemory => "kernel_memory",
        }
    }

    /// The address that it is about.
    pub fn addr(self) -> Option<Addr> {
        match self {
            Limiter::Sealed(at) | Limiter::NotMapped(at) | Limiter::InTheWay(at) => Some(at),
            _ => None,
        }
    }
}

/// The error of a call that one of these limits may have refused: ENOMEM, EAGAIN or EPERM of a call
/// that changes mappings. brk(2) returns none: a break that did not move counts as ENOMEM.
pub fn is_refused(raw: &RawCall, result: i64) -> Option<i32> {
    use CallKind::*;
    let kind = effective_kind(raw)?;
    if kind == Brk {
        let asked = raw.args[0];
        return (asked != 0 && result.cast_unsigned() < asked).then_some(ENOMEM);
    }
    let explained = matches!(
        kind,
        Mmap | Mmap2
            | OldMmap
            | Munmap
            | Mremap
            | Mprotect
            | PkeyMprotect
            | Madvise
            | Shmat
            | Mseal
            | Mlock
            | Mlock2
            | Munlock
            | Mlockall
            | MapShadowStack
    );
    let errno = i32::try_from(result.checked_neg()?).ok()?;
    (explained && matches!(errno, EPERM | EAGAIN | ENOMEM)).then_some(errno)
}

/// A space, as far as a reason depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    /// The model right after the call; `None` if it is not known.
    pub model: Option<&'a AddressSpace>,
    /// Where the heap begins.
    pub brk_start: Option<Addr>,
    /// Readable mappings are executable.
    pub read_implies_exec: bool,
}

impl Failure {
    /// Why a call was refused; `None` if it was not, or if it asked for nothing (a break below the
    /// heap).
    pub(super) fn of(
        raw: &RawCall,
        fetched: &[Fetched],
        result: i64,
        figures: Figures,
        around: Surroundings<'_>,
    ) -> Option<Failure> {
        let errno = is_refused(raw, result)?;
        let call = decode(raw, fetched);
        let mut checks = reason::Checks::new(&figures, raw.abi, around);
        checks.call(raw, &call, errno, result)?;
        let (causes, proven) = checks.conclude(figures.beside == Some(1));
        Some(Failure {
            causes,
            proven,
            figures,
        })
    }
}
