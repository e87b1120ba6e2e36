//! CPython: Objects/obmalloc.c.

use super::{Runtime, Shape};

pub(super) const OWNER: &str = "CPython";

const ARENAS: &str = "object arenas";

pub(super) const CPYTHON: Runtime = Runtime {
    owner: OWNER,
    libraries: &["python3*", "python2.7", "python", "libpython*.so*"],
    version: None,
    functions: &[
        ("_PyObject_ArenaMmap*", ARENAS),
        ("_PyMem_ArenaAlloc*", ARENAS),
        ("new_arena", ARENAS),
        ("_PyObject_Arena*", ARENAS),
        ("push_chunk", "interpreter frames"),
        ("_PyThreadState_PushFrame", "interpreter frames"),
    ],
    names: &[("cpython:*", ARENAS)],
    files: &[],
    // ARENA_BITS is 20 since 3.10; arenas of 256 KiB before. Frames of 3.11 and later come in chunks
    // of 16 KiB from the same allocator.
    shapes: &[
        Shape {
            what: ARENAS,
            evidence: "exactly 1 MiB or 256 KiB of plain memory, the size of an arena of objects",
            alone: false,
            fits: |clues, _| {
                clues.plain_memory().is_some_and(|asked| {
                    asked.addr.0 == 0 && [1 << 20, 256 << 10].contains(&asked.len)
                })
            },
        },
        Shape {
            what: "interpreter frames",
            evidence: "exactly 16 KiB of plain memory, the size of a chunk of a thread's frames",
            alone: false,
            fits: |clues, _| {
                clues
                    .plain_memory()
                    .is_some_and(|asked| asked.addr.0 == 0 && asked.len == 16 << 10)
            },
        },
    ],
};
