//! The sanitizers of GCC and LLVM: compiler-rt/lib/{asan,tsan,msan}, sanitizer_common.
//!
//! Their shadow lies where the compiler put it into the code, so it is mapped with MAP_FIXED; that
//! is what its shape is told by, together with its size.

use crate::abi::{MapFlags, Prot};

use super::{Clues, Request, Runtime, Shape, Surroundings};

const SHADOW: &str = "shadow";
const GAP: &str = "protected gaps";
const ALLOCATOR: &str = "allocator";

/// From this size on memory at a fixed address is a shadow.
const LEAST_SHADOW: u64 = 64 << 20;

const FUNCTIONS: &[(&str, &str)] = &[
    ("__asan::InitializeShadowMemory*", SHADOW),
    ("__tsan::InitializeShadowMemory*", SHADOW),
    ("__msan::InitShadow*", SHADOW),
    ("__asan::*Allocate*", ALLOCATOR),
    ("__sanitizer::ReserveShadowMemoryRange*", SHADOW),
    ("__sanitizer::ProtectGap*", GAP),
    ("__sanitizer::SizeClassAllocator*", ALLOCATOR),
    ("__sanitizer::LargeMmapAllocator*", ALLOCATOR),
];
/// With the option decorate_proc_maps.
const NAMES: &[(&str, &str)] = &[
    ("low shadow", SHADOW),
    ("high shadow", SHADOW),
    ("shadow", SHADOW),
    ("meta shadow", SHADOW),
    ("shadow gap", GAP),
];

const SHAPES: &[Shape] = &[
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
        fits: |clues, _| {
            fixed(clues).is_some_and(|asked| {
                let space = asked.len.saturating_sub(8 << 10);
                asked.prot.rwx().is_empty()
                    && (1 << 40..=16 << 40).contains(&space)
                    && space.is_power_of_two()
            }) || is_region(clues)
        },
    },
    Shape {
        what: ALLOCATOR,
        evidence: "a small mapping at a fixed address inside the allocator's space",
        alone: false,
        fits: is_inside,
    },
    Shape {
        what: GAP,
        evidence: "64 MiB or more without access at a fixed address",
        alone: false,
        fits: |clues, _| {
            fixed(clues)
                .is_some_and(|asked| asked.prot.rwx().is_empty() && LEAST_SHADOW <= asked.len)
        },
    },
    Shape {
        what: ALLOCATOR,
        evidence: "2 MiB of which 1 MiB was cut off for its alignment",
        alone: false,
        fits: |clues, _| {
            let whole = |asked: &Request| asked.len == 2 << 20;
            clues.plain_memory().is_some_and(whole) && clues.aligned_by_trimming(1 << 20, 1 << 20)
        },
    },
    Shape {
        what: SHADOW,
        evidence: "NORESERVE, mapped over a shadow to empty it",
        alone: false,
        fits: |clues, _| clues.over.is_some() && fixed(clues).is_some(),
    },
];

const fn sanitizer(owner: &'static str, libraries: &'static [&'static str]) -> Runtime {
    Runtime {
        owner,
        libraries,
        version: None,
        functions: FUNCTIONS,
        names: NAMES,
        files: &[("tsan.rodata.*", SHADOW)],
        shapes: SHAPES,
    }
}

pub(super) const ASAN: Runtime =
    sanitizer("AddressSanitizer", &["libasan.so*", "libclang_rt.asan*"]);
pub(super) const TSAN: Runtime =
    sanitizer("ThreadSanitizer", &["libtsan.so*", "libclang_rt.tsan*"]);
/// MemorySanitizer is only ever linked into the program, so that nothing but its functions shows it.
pub(super) const MSAN: Runtime = sanitizer("MemorySanitizer", &["libclang_rt.msan*"]);

/// Bytes asked for with MAP_FIXED and MAP_NORESERVE.
fn fixed(clues: &Clues) -> Option<&Request> {
    let request = clues.request.as_ref()?;
    let wanted = MapFlags::ANONYMOUS | MapFlags::FIXED | MapFlags::NORESERVE;
    (request.flags.contains(wanted) && !request.flags.is_shared()).then_some(request)
}

/// kMaxRegions or the stack depot: 8 MiB without access, later used by mmap(2) over it.
fn is_region(clues: &Clues) -> bool {
    clues
        .free_reservation()
        .is_some_and(|asked| asked.addr.0 == 0 && asked.len == 8 << 20)
}

/// 64 KiB and more of the primary allocator's regions, and its free arrays, are mapped over or just
/// behind the space that was reserved.
fn is_inside(clues: &Clues, _: &Surroundings) -> bool {
    let lower_half = 0x6000_0000_0000..0x6600_0000_0000;
    let upper_half = 0x7b00_0000_0000..0x7d00_0000_0000;
    let start = clues.range.start().0;
    clues.request.is_some_and(|asked| {
        asked.flags.contains(MapFlags::ANONYMOUS | MapFlags::FIXED)
            && asked.prot.rwx() == Prot::READ | Prot::WRITE
            && asked.len < LEAST_SHADOW
            && (lower_half.contains(&start) || upper_half.contains(&start))
    })
}
