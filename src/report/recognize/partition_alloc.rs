//! Chromium's PartitionAlloc: base/allocator/partition_allocator/src, `partition_address_space.cc`,
//! `page_allocator_internals_posix.h`; and what else Chromium names by its page allocator.

use super::{Clues, MEMORY, Runtime, Shape};

pub(super) const OWNER: &str = "PartitionAlloc";

pub(super) const POOLS: &str = "pools";
pub(super) const METADATA: &str = "metadata";

/// The sizes of pools: of one, of two beside each other.
pub(super) const POOL_SIZES: [u64; 3] = [32 << 30, 16 << 30, 8 << 30];

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
        ("base::internal::PartitionAddressSpace::*", POOLS),
        ("partition_alloc::internal::PartitionAddressSpace::*", POOLS),
    ],
    // `PageTag::kPartitionAlloc`: the pools, the metadata outside of them, and addresses that are
    // only to stay free.
    names: &[("partition_alloc*", MEMORY)],
    files: &[],
    shapes: &[
        Shape {
            what: POOLS,
            evidence: "8, 16 or 32 GiB without access at their alignment, as pools are reserved",
            alone: false,
            fits: |clues, _| is_of_pool(clues, true),
        },
        Shape {
            what: METADATA,
            evidence: "of the size of a pool, but not at its alignment: its metadata, since version 145",
            alone: false,
            fits: |clues, _| {
                let named = |name: &str| name.contains("partition_alloc");
                clues.name.as_deref().is_some_and(named) && is_of_pool(clues, false)
            },
        },
    ],
};

/// The other tags of the page allocator, and the thread-local data of the hooks on malloc
/// (base/allocator/dispatcher).
pub(super) const CHROMIUM: Runtime = Runtime {
    owner: "Chromium",
    libraries: PARTITION_ALLOC.libraries,
    version: None,
    functions: &[],
    names: &[
        ("blink_gc", "Blink's heap"),
        ("chromium", MEMORY),
        ("tls-mmap-allocator", "thread data of malloc hooks"),
    ],
    files: &[],
    shapes: &[],
};

/// Whether it was reserved in the size of pools, and at their alignment or not.
fn is_of_pool(clues: &Clues, aligned: bool) -> bool {
    let (start, len) = (clues.range.start().0, clues.range.len());
    clues.reservation().is_some()
        && POOL_SIZES.contains(&len)
        && start.is_multiple_of(len) == aligned
}
