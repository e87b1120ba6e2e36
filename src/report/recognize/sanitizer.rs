//! The sanitizers of GCC and LLVM: compiler-rt/lib/{asan,tsan,msan}, sanitizer_common.
//!
//! Their shadow lies where the compiler put it into the code, so it is mapped with MAP_FIXED; that
//! is what its shape is told by, together with its size. Clang links them into the program, so that
//! no library shows them: then it is where and how large a shadow is that no other sanitizer has so.

use std::ops::Range;

use crate::abi::{MapFlags, Prot};
use crate::mm::Snapshot;
use crate::units::AddrRange;

use super::{Clues, Request, Runtime, Shape};

const SHADOW: &str = "shadow";
const GAP: &str = "protected gaps";
const ALLOCATOR: &str = "allocator";
const TRACES: &str = "thread traces";

/// From this size on memory at a fixed address is a shadow.
const LEAST_SHADOW: u64 = 64 << 20;

/// Functions of one sanitizer, and those that all of them have in common.
macro_rules! functions {
    ($($own:expr),* $(,)?) => {
        &[
            $($own,)*
            ("__sanitizer::ReserveShadowMemoryRange*", SHADOW),
            ("__sanitizer::ProtectGap*", GAP),
            ("__sanitizer::SizeClassAllocator*", ALLOCATOR),
            ("__sanitizer::LargeMmapAllocator*", ALLOCATOR),
        ]
    };
}

/// With the option decorate_proc_maps.
const NAMES: &[(&str, &str)] = &[
    ("low shadow", SHADOW),
    ("high shadow", SHADOW),
    ("shadow", SHADOW),
    ("meta shadow", SHADOW),
    ("shadow gap", GAP),
];

/// Where a sanitizer's memory lies on x86-64: asan_mapping.h, tsan_platform.h, msan.h.
pub(super) struct Layout {
    pub(super) owner: &'static str,
    /// Shadows that only it has exactly so.
    own: &'static [(u64, u64)],
    /// The room of its allocator.
    space: Range<u64>,
    /// Where the program itself can have no memory.
    zones: &'static [(u64, u64)],
}

pub(super) static LAYOUTS: [Layout; 3] = [
    Layout {
        owner: "AddressSanitizer",
        own: &[(0x0200_8fff_7000, 0x1000_7fff_8000)],
        space: 0x6000_0000_0000..0x6600_0000_0000,
        zones: &[(0x7fff_7000, 0x1000_7fff_8000)],
    },
    Layout {
        owner: "ThreadSanitizer",
        own: &[(0x3000_0000_0000, 0x3400_0000_0000)],
        space: 0x7b00_0000_0000..0x7c00_0000_2000,
        zones: &[
            (0x0080_0000_0000, 0x5500_0000_0000),
            (0x5680_0000_0000, 0x7b00_0000_0000),
            (0x7c00_0000_2000, 0x7e80_0000_0000),
        ],
    },
    Layout {
        owner: "MemorySanitizer",
        own: &[
            (0x2000_0000_0000, 0x3000_0000_0000),
            (0x5000_0000_0000, 0x5100_0000_0000),
        ],
        space: 0x7000_0000_0000..0x7500_0000_0000,
        zones: &[
            (0x0100_0000_0000, 0x5100_0000_0000),
            (0x6000_0000_0000, 0x7000_0000_0000),
        ],
    },
];

/// Where ThreadSanitizer kept what threads did, before version 15.
const TRACES_AT: Range<u64> = 0x6000_0000_0000..0x6200_0000_0000;

impl Layout {
    /// Whether one of its own shadows is there, whole and writable.
    pub(super) fn is_of(&self, snapshot: &Snapshot) -> bool {
        self.own.iter().any(|&(start, end)| {
            let mut at = start;
            let from = snapshot.entries.iter();
            for entry in from.skip_while(|entry| entry.range.start().0 < start) {
                let data = entry.prot.rwx() == Prot::READ | Prot::WRITE && entry.name.is_empty();
                if !data || entry.range.start().0 != at || end <= at {
                    break;
                }
                at = entry.range.end().0;
            }
            at == end
        })
    }

    /// Whether no part of it can be the program's. The kernel merges what lies beside each other, so
    /// that a line of maps may be of a gap and of the allocator's room.
    fn is_its_own(&self, range: AddrRange) -> bool {
        let space = (self.space.start, self.space.end);
        let mut at = range.start().0;
        while at < range.end().0 {
            let mut parts = self.zones.iter().chain([&space]);
            match parts.find(|(start, end)| (*start..*end).contains(&at)) {
                Some((_, end)) => at = *end,
                None => return false,
            }
        }
        true
    }

    /// What memory without access there is.
    pub(super) fn without_access(&self, range: AddrRange) -> Option<&'static str> {
        if self.space.contains(&range.start().0) {
            return Some(ALLOCATOR);
        }
        self.is_its_own(range).then_some(GAP)
    }

    /// What memory there is that is read and written.
    pub(super) fn usable(&self, range: AddrRange) -> Option<&'static str> {
        if self.space.contains(&range.start().0) {
            return Some(ALLOCATOR);
        }
        let traces = self.owner == TSAN.owner && TRACES_AT.contains(&range.start().0);
        self.is_its_own(range)
            .then_some(if traces { TRACES } else { SHADOW })
    }
}

/// Shapes of one sanitizer, given its layout; further shapes come before those that all have.
macro_rules! shapes {
    ($evidence:literal, $layout:expr $(, $more:expr)?) => {
        &[
            $($more,)?
            Shape {
                what: SHADOW,
                evidence: $evidence,
                alone: true,
                fits: |clues, _| {
                    fixed(clues).is_some_and(|asked| {
                        asked.prot.rwx() == Prot::READ | Prot::WRITE
                            && $layout.own.contains(&(asked.addr.0, asked.addr.0.wrapping_add(asked.len)))
                    })
                },
            },
            Shape {
                what: SHADOW,
                evidence: "64 MiB or more, NORESERVE and writable, at a fixed address",
                alone: false,
                fits: |clues, _| {
                    fixed(clues).is_some_and(|asked| {
                        asked.prot.rwx() == Prot::READ | Prot::WRITE && LEAST_SHADOW <= asked.len
                    })
                },
            },
            Shape {
                what: ALLOCATOR,
                evidence: "1 to 16 TiB and two pages, without access, at a fixed address",
                alone: false,
                fits: |clues, _| is_space(clues) || is_region(clues),
            },
            Shape {
                what: ALLOCATOR,
                evidence: "a small mapping at a fixed address inside the allocator's space",
                alone: false,
                fits: |clues, _| is_inside(clues, &$layout.space),
            },
            Shape {
                what: GAP,
                evidence: "64 MiB or more without access at a fixed address",
                alone: false,
                fits: |clues, _| {
                    fixed(clues).is_some_and(|asked| {
                        asked.prot.rwx().is_empty() && LEAST_SHADOW <= asked.len
                    })
                },
            },
            Shape {
                what: ALLOCATOR,
                evidence: "2 MiB of which 1 MiB was cut off for its alignment",
                alone: false,
                fits: |clues, _| {
                    let whole = |asked: &Request| asked.len == 2 << 20;
                    clues.plain_memory().is_some_and(whole)
                        && clues.aligned_by_trimming(1 << 20, 1 << 20)
                },
            },
            Shape {
                what: SHADOW,
                evidence: "NORESERVE, mapped over a shadow to empty it",
                alone: false,
                fits: |clues, _| clues.over.is_some() && fixed(clues).is_some(),
            },
        ]
    };
}

pub(super) const ASAN: Runtime = Runtime {
    owner: "AddressSanitizer",
    libraries: &["libasan.so*", "libclang_rt.asan*"],
    version: None,
    functions: functions![
        ("__asan::InitializeShadowMemory*", SHADOW),
        ("__asan::*Allocate*", ALLOCATOR),
    ],
    names: NAMES,
    files: &[],
    shapes: shapes!(
        "NORESERVE at the fixed address of its high shadow",
        LAYOUTS[0]
    ),
};

pub(super) const TSAN: Runtime = Runtime {
    owner: "ThreadSanitizer",
    libraries: &["libtsan.so*", "libclang_rt.tsan*"],
    version: None,
    functions: functions![("__tsan::InitializeShadowMemory*", SHADOW)],
    names: NAMES,
    files: &[("tsan.rodata.*", SHADOW)],
    shapes: shapes!(
        "NORESERVE at the fixed address of its second shadow",
        LAYOUTS[1],
        Shape {
            what: TRACES,
            evidence: "2 TiB at the fixed address where it kept what threads did, before version 15",
            alone: false,
            fits: |clues, _| {
                let at = |asked: &Request| asked.addr.0 == TRACES_AT.start;
                let all = TRACES_AT.end - TRACES_AT.start;
                fixed(clues).is_some_and(|asked| at(asked) && asked.len == all)
            },
        }
    ),
};

/// MemorySanitizer is only ever linked into the program, so that nothing but its functions and where
/// its shadow lies shows it.
pub(super) const MSAN: Runtime = Runtime {
    owner: "MemorySanitizer",
    libraries: &["libclang_rt.msan*"],
    version: None,
    // `InitShadow` calls for gaps too.
    functions: functions![
        ("__msan::MsanAllocatorInit*", ALLOCATOR),
        ("__sanitizer::MmapFixedNoReserve*", SHADOW),
        ("__sanitizer::MmapFixedSuperNoReserve*", SHADOW),
    ],
    names: NAMES,
    files: &[],
    shapes: shapes!("NORESERVE at the fixed address of its shadow", LAYOUTS[2]),
};

/// Bytes asked for with MAP_FIXED and MAP_NORESERVE.
fn fixed(clues: &Clues) -> Option<&Request> {
    let request = clues.request.as_ref()?;
    let wanted = MapFlags::ANONYMOUS | MapFlags::FIXED | MapFlags::NORESERVE;
    (request.flags.contains(wanted) && !request.flags.is_shared()).then_some(request)
}

/// The room of the primary allocator.
fn is_space(clues: &Clues) -> bool {
    fixed(clues).is_some_and(|asked| {
        let space = asked.len.saturating_sub(8 << 10);
        asked.prot.rwx().is_empty()
            && (1 << 40..=16 << 40).contains(&space)
            && space.is_power_of_two()
    })
}

/// kMaxRegions or the stack depot: 8 MiB without access, later used by mmap(2) over it.
fn is_region(clues: &Clues) -> bool {
    clues
        .free_reservation()
        .is_some_and(|asked| asked.addr.0 == 0 && asked.len == 8 << 20)
}

/// 64 KiB and more of the primary allocator's regions, and its free arrays, are mapped over or just
/// behind the space that was reserved.
fn is_inside(clues: &Clues, space: &Range<u64>) -> bool {
    clues.request.is_some_and(|asked| {
        asked.flags.contains(MapFlags::ANONYMOUS | MapFlags::FIXED)
            && asked.prot.rwx() == Prot::READ | Prot::WRITE
            && asked.len < LEAST_SHADOW
            && space.contains(&clues.range.start().0)
    })
}
