//! Go's runtime: runtime/malloc.go, runtime/mpagealloc_64bit.go, runtime/mem_linux.go.
//!
//! Reserved without access, made usable by mmap(2) over it, never by mprotect(2). Go 1.25 names its
//! mappings, see `set_vma_name_linux.go`; it stops once a kernel without such names has said EINVAL.

use super::{Clues, Runtime, Shape, Surroundings};

pub(super) const OWNER: &str = "Go";

const HEAP: &str = "heap arenas";
const SUMMARIES: &str = "page summaries";
const METADATA: &str = "heap metadata";
const OTHER: &str = "traces and profiles";

/// heapArenaBytes of Linux on 64-bit machines.
const ARENA: u64 = 64 << 20;

pub(super) const GO: Runtime = Runtime {
    owner: OWNER,
    libraries: &[],
    version: Some("go1."),
    functions: &[
        ("runtime.persistentalloc*", METADATA),
        ("runtime.recordspan", METADATA),
        ("runtime.newArenaMayUnlock", METADATA),
        ("runtime.(*spanSet).*", METADATA),
        ("runtime.newBucket", OTHER),
        ("runtime.stkbucket", OTHER),
        ("runtime.traceWriter.*", OTHER),
        ("runtime.(*traceRegionAlloc).*", OTHER),
        ("runtime.sysAlloc", METADATA),
        ("runtime.sysAllocOS", METADATA),
        ("runtime.(*pageAlloc).*", SUMMARIES),
        ("runtime.(*scavengeIndex).*", SUMMARIES),
        ("runtime.(*linearAlloc).*", HEAP),
        ("runtime.(*mheap).sysAlloc", HEAP),
        ("runtime.(*mheap).grow", HEAP),
        ("runtime.allocUserArenaChunk", HEAP),
        ("runtime.(*mheap).allocUserArenaChunk", HEAP),
    ],
    names: &[
        ("Go: heap", HEAP),
        ("Go: heap reservation", HEAP),
        ("Go: user arena chunk", HEAP),
        ("Go: page *", SUMMARIES),
        ("Go: scavenge index", SUMMARIES),
        ("Go: *stack*", "system stacks"),
        ("Go: profiler *", OTHER),
        ("Go: trace *", OTHER),
        ("Go: *", METADATA),
    ],
    files: &[],
    shapes: &[
        Shape {
            what: HEAP,
            evidence: "reserved in multiples of 64 MiB at their alignment, as Go's heap grows",
            alone: false,
            fits: |clues, _| {
                clues.plain_reservation().is_some_and(|asked| {
                    let whole = asked.len.is_multiple_of(ARENA);
                    whole && clues.range.start().0.is_multiple_of(ARENA) && asked.addr.0 != 0
                })
            },
        },
        Shape {
            what: SUMMARIES,
            evidence: "a reservation of the size of a level of Go's page summaries",
            alone: false,
            fits: |clues, _| {
                clues
                    .plain_reservation()
                    .is_some_and(|asked| asked.addr.0 == 0 && SUMMARY_SIZES.contains(&asked.len))
            },
        },
        Shape {
            what: METADATA,
            evidence: "memory of a size that Go's runtime takes for its own records",
            alone: false,
            fits: is_metadata,
        },
    ],
};

/// mpagealloc_64bit.go, `sysInit`: five levels for 48 bits of address, 8 bytes for each 2^34, 2^31, 2^28,
/// 2^25 and 2^22 of them; the index of the scavenger has the size of one of these (1.21: 8 MiB, later
/// 512 MiB).
const SUMMARY_SIZES: [u64; 5] = [128 << 10, 1 << 20, 8 << 20, 64 << 20, 512 << 20];

/// The sizes of `persistentChunkSize`, `gcBitsChunkBytes`, the second level of the arena index, and
/// any size that is no multiple of a page: runtime.sysAlloc passes what it was asked for, allocators
/// of C round it first.
fn is_metadata(clues: &Clues, around: &Surroundings) -> bool {
    clues.plain_memory().is_some_and(|asked| {
        let own = [64 << 10, 256 << 10, 1 << 20, 32 << 20];
        let odd = !asked.len.is_multiple_of(4096) && 64 << 10 <= asked.len;
        let alone = !around.has(super::glibc::OWNER) && !around.has(super::musl::OWNER);
        asked.addr.0 == 0 && (odd || own.contains(&asked.len) || alone)
    })
}
