//! mimalloc: src/os.c, src/prim/unix/prim.c, src/arena.c.

use crate::abi::{MapFlags, Prot};

use super::{Clues, Runtime, Shape, Surroundings};

pub(super) const OWNER: &str = "mimalloc";

const SEGMENTS: &str = "segments and arenas";
/// MI_SEGMENT_SIZE of version 2; arenas of all versions are multiples of it.
const SEGMENT: u64 = 32 << 20;

pub(super) const MIMALLOC: Runtime = Runtime {
    owner: OWNER,
    libraries: &["libmimalloc*.so*"],
    version: None,
    functions: &[
        ("mi_thread_data_zalloc", "thread data"),
        ("_mi_thread_heap_init", "thread data"),
        ("_mi_os_*", SEGMENTS),
        ("mi_os_*", SEGMENTS),
        ("_mi_prim_alloc", SEGMENTS),
    ],
    names: &[("mimalloc*", SEGMENTS), ("mi-*", SEGMENTS)],
    files: &[],
    shapes: &[
        Shape {
            what: SEGMENTS,
            evidence: "multiples of 32 MiB at their alignment, NORESERVE, as mimalloc maps them",
            alone: false,
            fits: is_segment,
        },
        Shape {
            what: "thread data",
            evidence: "a few pages, NORESERVE and usable at once",
            alone: false,
            fits: is_thread_data,
        },
    ],
};

fn is_segment(clues: &Clues, _: &Surroundings) -> bool {
    clues.anonymous().is_some_and(|asked| {
        asked.flags.contains(MapFlags::NORESERVE)
            && SEGMENT <= clues.range.len()
            && clues.range.len().is_multiple_of(SEGMENT)
            && clues.range.start().0.is_multiple_of(SEGMENT)
    })
}

fn is_thread_data(clues: &Clues, _: &Surroundings) -> bool {
    clues.anonymous().is_some_and(|asked| {
        asked.flags.contains(MapFlags::NORESERVE)
            && asked.prot.rwx() == Prot::READ | Prot::WRITE
            && asked.len <= 64 << 10
    })
}
