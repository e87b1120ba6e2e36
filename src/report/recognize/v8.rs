//! V8, in Node.js and Chromium: src/base/platform/platform-posix.cc, src/heap/memory-allocator.cc,
//! src/objects/backing-store.cc, src/init/isolate-group.cc.
//!
//! `OS::Allocate` asks for its alignment less a page more than it needs and unmaps the rest: what is
//! cut off tells the alignment.

use super::{Clues, MEMORY, Runtime, Shape, Surroundings};

pub(super) const OWNER: &str = "V8";

const PAGES: &str = "heap pages";
const CODE: &str = "code range";
const CAGE: &str = "pointer cage";
pub(super) const SANDBOX: &str = "sandbox";
const CPP_HEAP: &str = "C++ heap";
const WASM: &str = "wasm memory";
const TABLES: &str = "tables and array buffers";

/// kPageSizeBits of 64-bit machines.
const PAGE: u64 = 256 << 10;
/// `BackingStore::AllocateWasmMemory`: 32-bit indices and offsets beyond need that much room.
const LEAST_WASM: u64 = 8 << 30;
const KIB_64: u64 = 64 << 10;

pub(super) const V8: Runtime = Runtime {
    owner: OWNER,
    libraries: &[
        "node",
        "nodejs",
        "libnode.so*",
        "libv8*.so*",
        "chrome",
        "chromium",
        "deno",
        "electron",
    ],
    version: None,
    functions: &[
        ("v8::internal::CodeRange::*", CODE),
        // TryAllocateAndPartiallyCommitMemory, which resizable array buffers use too, tells nothing.
        ("v8::internal::BackingStore::AllocateWasmMemory*", WASM),
        ("v8::internal::WasmMemoryObject::*", WASM),
        ("v8::internal::BackingStore::Allocate(*", TABLES),
        ("v8::internal::MemoryAllocator::*", PAGES),
        ("v8::internal::MemoryChunk::*", PAGES),
        ("v8::internal::SemiSpace::*", PAGES),
        ("v8::internal::IsolateGroup::*", CAGE),
        ("v8::internal::IsolateAllocator::*", CAGE),
        ("v8::internal::Sandbox::*", CAGE),
        ("v8::internal::*Table*::*", TABLES),
        ("v8::internal::VirtualMemoryCage::*", CAGE),
    ],
    // "v8" is what Chromium's page allocator calls all that V8 asks it for.
    names: &[
        ("v8-sandbox", SANDBOX),
        ("v8-pointer-table", TABLES),
        ("v8", MEMORY),
        ("v8:*", MEMORY),
    ],
    files: &[],
    shapes: &[
        Shape {
            what: CODE,
            evidence: "64 MiB or more, reserved and made executable by mprotect",
            alone: false,
            fits: |clues, _| {
                clues
                    .reservation()
                    .is_some_and(|asked| 64 << 20 <= asked.len)
                    && clues.steps.protected.executable
            },
        },
        Shape {
            what: CPP_HEAP,
            evidence: "the upper half of what was reserved, so that a bit of each address in it is set",
            alone: false,
            fits: is_cpp_heap,
        },
        Shape {
            what: PAGES,
            evidence: "cut to the alignment of 256 KiB that V8's pages have",
            alone: false,
            fits: |clues, _| is_cut_to(clues, PAGE),
        },
        Shape {
            what: CAGE,
            evidence: "4 GiB or more at its alignment, NORESERVE",
            alone: false,
            fits: |clues, _| {
                clues.free_reservation().is_some()
                    && [4u64 << 30, 1 << 40].contains(&clues.range.len())
                    && clues.range.start().0.is_multiple_of(4 << 30)
            },
        },
        Shape {
            what: WASM,
            evidence: "8 GiB or more, NORESERVE, cut to an alignment of 64 KiB",
            alone: false,
            fits: |clues, _| LEAST_WASM <= clues.range.len() && is_cut_to(clues, KIB_64),
        },
        Shape {
            what: TABLES,
            evidence: "cut to an alignment of 64 KiB or more, as V8 allocates",
            alone: false,
            fits: is_table,
        },
    ],
};

/// `cppgc::internal::CagedHeap`: with compressed pointers twice the size is reserved, and the lower
/// half of it is given back.
fn is_cpp_heap(clues: &Clues, _: &Surroundings) -> bool {
    let size = clues.range.len();
    clues
        .reservation()
        .is_some_and(|asked| 4 << 30 <= size && asked.len.checked_sub(size) == Some(size))
        && clues.aligned_by_trimming(size, size)
}

fn is_cut_to(clues: &Clues, align: u64) -> bool {
    clues.anonymous().is_some() && clues.aligned_by_trimming(align, align - 4096)
}

fn is_table(clues: &Clues, _: &Surroundings) -> bool {
    (16..=30).any(|bits| is_cut_to(clues, 1 << bits))
}
