//! musl: src/malloc/mallocng, src/thread/pthread_create.c, ldso/dynlink.c.

use crate::report::Place;

use super::{Clues, Runtime, Shape, Surroundings};

pub(super) const OWNER: &str = "musl";

pub(super) const HEAP: &str = "heap";
const STACKS: &str = "thread stacks";

/// DEFAULT_GUARD_SIZE and DEFAULT_STACK_SIZE.
const GUARD: u64 = 8 << 10;
const STACK: u64 = 128 << 10;

pub(super) const MUSL: Runtime = Runtime {
    owner: OWNER,
    libraries: &["ld-musl-*", "libc.musl-*", "*-linux-musl*/libc.so"],
    version: None,
    functions: &[
        ("__libc_malloc_impl", HEAP),
        ("__malloc_allzerop", HEAP),
        ("alloc_group", HEAP),
        ("alloc_slot", HEAP),
        ("__malloc_alloc_meta", HEAP),
        ("__pthread_create", STACKS),
    ],
    names: &[],
    files: &[],
    shapes: &[
        Shape {
            what: STACKS,
            evidence: "an 8 KiB guard below a stack of 128 KiB and TLS, without MAP_STACK",
            alone: true,
            fits: is_stack,
        },
        Shape {
            what: HEAP,
            evidence: "a guard page at the start of the break, as mallocng puts there",
            alone: false,
            fits: |clues, _| matches!(clues.over, Some((Place::Heap, _))),
        },
        Shape {
            what: HEAP,
            evidence: "memory of the size of a group of mallocng's slots, or of a large malloc",
            alone: false,
            fits: is_group,
        },
    ],
};

fn is_stack(clues: &Clues, _: &Surroundings) -> bool {
    clues.plain_reservation().is_some_and(|asked| {
        let usable = asked.len.saturating_sub(GUARD);
        let first = clues.steps.protected.first;
        asked.addr.0 == 0
            && (STACK..STACK + (64 << 10)).contains(&usable)
            && clues.steps.mapped.count == 0
            && first.is_some_and(|first| {
                first.len() == usable && first.start().0 == clues.range.start().0 + GUARD
            })
    })
}

/// mallocng maps groups of one page up to 64 KiB, and large requests by themselves with an odd size.
fn is_group(clues: &Clues, around: &Surroundings) -> bool {
    !around.replaces_malloc()
        && clues.plain_memory().is_some_and(|asked| {
            let group = asked.len.is_power_of_two() && (4096..=64 << 10).contains(&asked.len);
            let large = 128 << 10 <= asked.len && !asked.len.is_multiple_of(4096);
            asked.addr.0 == 0 && (group || large)
        })
}
