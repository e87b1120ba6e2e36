//! tcmalloc: gperftools src/system-alloc.cc; Google's tcmalloc/internal/system_allocator.h.

use super::{Runtime, Shape};

pub(super) const OWNER: &str = "tcmalloc";

pub(super) const HEAP: &str = "heap";

pub(super) const TCMALLOC: Runtime = Runtime {
    owner: OWNER,
    libraries: &["libtcmalloc*.so*"],
    version: None,
    functions: &[
        ("TCMalloc_SystemAlloc*", HEAP),
        ("SbrkSysAllocator::*", HEAP),
        ("MmapSysAllocator::*", HEAP),
        ("tcmalloc::*MmapAligned*", HEAP),
        ("tcmalloc::*SystemAlloc*", HEAP),
        ("tcmalloc::MetaDataAlloc*", "metadata"),
    ],
    names: &[
        ("tcmalloc_region_METADATA*", "metadata"),
        ("tcmalloc*", HEAP),
    ],
    files: &[],
    // gperftools moves the break; where that is used up it maps multiples of 1 MiB.
    shapes: &[Shape {
        what: HEAP,
        evidence: "whole multiples of 1 MiB, as gperftools maps where the break is used up",
        alone: false,
        fits: |clues, _| {
            clues.plain_memory().is_some_and(|asked| {
                asked.addr.0 == 0 && 1 << 20 <= asked.len && asked.len.is_multiple_of(1 << 20)
            })
        },
    }],
};
