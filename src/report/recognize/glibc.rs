//! glibc: malloc/arena.c, malloc/malloc.c, nptl/allocatestack.c.

use crate::abi::MapFlags;
use crate::report::Place;

use super::{Clues, Runtime, Shape, Surroundings};

pub(super) const OWNER: &str = "glibc";

pub(super) const HEAP: &str = "main heap";
const ARENAS: &str = "malloc arenas";
const LARGE: &str = "large mallocs";
const STACKS: &str = "thread stacks";

/// HEAP_MAX_SIZE: 2 * DEFAULT_MMAP_THRESHOLD_MAX.
const ARENA: u64 = 64 << 20;
/// DEFAULT_MMAP_THRESHOLD and a header, in whole pages: the smallest of its large mallocs.
const LEAST_LARGE: u64 = (128 << 10) + 4096;

pub(super) const GLIBC: Runtime = Runtime {
    owner: OWNER,
    libraries: &["libc.so.6", "libc-2.*.so"],
    version: None,
    functions: &[
        ("new_heap", ARENAS),
        ("alloc_new_heap", ARENAS),
        ("grow_heap", ARENAS),
        ("arena_get2*", ARENAS),
        ("sysmalloc_mmap*", LARGE),
        ("mremap_chunk", LARGE),
        ("allocate_stack", STACKS),
        ("__pthread_create_2_1", STACKS),
        ("__nptl_*stack*", STACKS),
        ("pthread_create*", STACKS),
    ],
    // With the tunable glibc.mem.decorate_maps, since 2.39.
    names: &[
        ("glibc: malloc arena", ARENAS),
        ("glibc: malloc", LARGE),
        ("glibc: pthread stack*", STACKS),
        ("glibc: pthread user stack*", STACKS),
        ("glibc: loader malloc", "memory of ld.so"),
    ],
    files: &[
        ("/usr/lib/locale/*", "locales"),
        ("gconv-modules.cache", "locales"),
    ],
    shapes: &[
        Shape {
            what: ARENAS,
            evidence: "64 MiB at their alignment, NORESERVE, cut out of 128 MiB or at a hint",
            alone: true,
            fits: |clues, _| is_arena(clues),
        },
        Shape {
            what: STACKS,
            evidence: "MAP_STACK, as pthread_create maps",
            alone: false,
            fits: is_stack,
        },
        Shape {
            what: LARGE,
            evidence: "whole pages above malloc's threshold that are no round number",
            alone: false,
            fits: is_large,
        },
    ],
};

pub(super) fn is_arena(clues: &Clues) -> bool {
    clues.free_reservation().is_some_and(|asked| {
        let hinted = asked.len == ARENA && asked.addr.0.is_multiple_of(ARENA);
        let cut = asked.len == 2 * ARENA && asked.addr.0 == 0;
        let begun = clues.steps.protected.first;
        (hinted && asked.addr.0 != 0 || cut)
            && clues.range.len() == ARENA
            && clues.range.start().0.is_multiple_of(ARENA)
            && clues.steps.mapped.count == 0
            && begun.is_none_or(|first| first.start() == clues.range.start())
    })
}

fn is_stack(clues: &Clues, _: &Surroundings) -> bool {
    clues.place == Place::ThreadStack
        && clues.request.is_some_and(|asked| {
            let usual = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::STACK;
            asked.flags == usual
        })
}

/// `sysmalloc_mmap` passes whole pages: the size and a header, rounded up. Who maps memory of his
/// own asks for round numbers, so these are left unknown; a program that asks as malloc does is
/// taken for it.
fn is_large(clues: &Clues, around: &Surroundings) -> bool {
    !around.replaces_malloc()
        && clues.plain_memory().is_some_and(|asked| {
            asked.addr.0 == 0
                && LEAST_LARGE <= asked.len
                && asked.len.is_multiple_of(4096)
                && !asked.len.is_multiple_of(64 << 10)
        })
}
