//! jemalloc: src/pages.c, src/base.c, src/ehooks.c.

use crate::abi::{MapFlags, Prot};

use super::{Clues, Runtime, Shape, Surroundings};

pub(super) const OWNER: &str = "jemalloc";

const EXTENTS: &str = "extents";
/// HUGEPAGE: base blocks and fresh extents are multiples of it, or of a size class above.
const GRANULE: u64 = 4096;
const LEAST: u64 = 2 << 20;

pub(super) const JEMALLOC: Runtime = Runtime {
    owner: OWNER,
    libraries: &["libjemalloc*.so*"],
    version: None,
    functions: &[
        ("je_base_*", "metadata"),
        ("*jemalloc*base_block_alloc*", "metadata"),
        ("base_block_alloc*", "metadata"),
        ("je_extent_*", EXTENTS),
        ("je_ecache_*", EXTENTS),
        ("je_ehooks_*", EXTENTS),
        ("extent_grow_retained*", EXTENTS),
        ("je_pages_*", EXTENTS),
        ("_rjem_je_*", EXTENTS),
    ],
    names: &[("jemalloc_pg*", EXTENTS)],
    files: &[],
    shapes: &[Shape {
        what: EXTENTS,
        evidence: "2 MiB or more, NORESERVE and usable at once, as jemalloc maps extents",
        alone: false,
        fits: is_extent,
    }],
};

/// Where overcommit is heuristic or unlimited, os_overcommits adds MAP_NORESERVE.
fn is_extent(clues: &Clues, _: &Surroundings) -> bool {
    clues.anonymous().is_some_and(|asked| {
        let usual = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::NORESERVE;
        asked.prot.rwx() == Prot::READ | Prot::WRITE
            && asked.flags == usual
            && LEAST <= asked.len
            && asked.len.is_multiple_of(GRANULE)
    })
}
