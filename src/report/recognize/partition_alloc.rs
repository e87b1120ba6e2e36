//! Chromium's PartitionAlloc: base/allocator/partition_allocator/src, `partition_address_space.cc`,
//! `page_allocator_internals_posix.h`.
//!
//! Written from its source; not tried on a real trace.

use super::{Runtime, Shape};

pub(super) const OWNER: &str = "PartitionAlloc";

const POOLS: &str = "pools";

pub(super) const PARTITION_ALLOC: Runtime = Runtime {
    owner: OWNER,
    libraries: &[
        "chrome",
        "chromium",
        "chrome_crashpad_handler",
        "electron",
        "libcef.so",
    ],
    version: None,
    functions: &[
        ("partition_alloc::*", POOLS),
        ("base::internal::PartitionAddressSpace::*", POOLS),
    ],
    names: &[("partition_alloc*", POOLS)],
    files: &[],
    shapes: &[Shape {
        what: POOLS,
        evidence: "8, 16 or 32 GiB without access at their alignment, as pools are reserved",
        alone: false,
        fits: |clues, _| {
            let sizes = [8u64 << 30, 16 << 30, 32 << 30];
            let (start, len) = (clues.range.start().0, clues.range.len());
            clues.reservation().is_some() && sizes.contains(&len) && start.is_multiple_of(len)
        },
    }],
};
