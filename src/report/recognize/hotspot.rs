//! HotSpot: share/memory/virtualspace.cpp, share/memory/metaspace, share/code/codeCache.cpp,
//! share/gc/{shared,g1,parallel,serial,shenandoah,z}, os/linux/os_linux.cpp.
//!
//! Reserved without access and NORESERVE, made usable by mmap(2) over it. A distribution's libjvm.so
//! has no symbols of these functions, so that the shapes carry it.

use crate::abi::MapFlags;
use crate::report::Place;

use super::{Clues, Runtime, Shape, Surroundings, glibc};

pub(super) const OWNER: &str = "HotSpot";

const HEAP: &str = "Java heap";
const METASPACE: &str = "metaspace";
const CLASSES: &str = "class space";
const CODE: &str = "code cache";
const COLLECTOR: &str = "collector tables";
const ARCHIVE: &str = "CDS archive";
const STACKS: &str = "thread stacks";
const POLLING: &str = "polling pages";

/// `Metaspace::commit_granule_bytes`.
const GRANULE: u64 = 64 << 10;
/// `MetaspaceContext`: a node of non-class metaspace (VirtualSpaceNodeDefaultSize).
const NODE: u64 = 64 << 20;
/// The smallest heap that is looked for: a region of G1 is 1 MiB at least.
const LEAST_HEAP: u64 = 8 << 20;
/// Below this references to it stay compressed without a base (OopEncodingHeapMax).
const COMPRESSED: u64 = 32 << 30;
/// The file that ZGC maps its heap from.
const HEAP_FILE: &str = "/memfd:java_heap";

pub(super) const HOTSPOT: Runtime = Runtime {
    owner: OWNER,
    libraries: &["libjvm.so"],
    version: None,
    functions: &[
        ("CodeHeap::*", CODE),
        ("CodeCache::*", CODE),
        ("ReservedCodeSpace::*", CODE),
        ("metaspace::VirtualSpaceNode::*", METASPACE),
        (
            "Metaspace::reserve_address_space_for_compressed_classes*",
            CLASSES,
        ),
        ("MetaspaceShared::*", ARCHIVE),
        ("FileMapInfo::*", ARCHIVE),
        ("CardTable::*", COLLECTOR),
        ("G1RegionToSpaceMapper::*", COLLECTOR),
        ("G1CollectedHeap::create_aux_memory_mapper*", COLLECTOR),
        ("G1CMMarkStack::*", COLLECTOR),
        ("MmapArrayAllocator<*", COLLECTOR),
        ("ParMarkBitMap::*", COLLECTOR),
        ("BlockOffsetSharedArray::*", COLLECTOR),
        ("Universe::reserve_heap*", HEAP),
        ("ReservedHeapSpace::*", HEAP),
        ("G1PageBasedVirtualSpace::*", HEAP),
        ("ZPhysicalMemory*", HEAP),
        ("ZVirtualMemory*", HEAP),
        ("SafepointMechanism::*", POLLING),
        ("os::create_thread*", STACKS),
        ("os::pd_create_stack_guard_pages*", STACKS),
        ("JavaThread::*stack_guard*", STACKS),
        ("StackOverflow::*", STACKS),
    ],
    names: &[],
    files: &[
        ("*.jsa", ARCHIVE),
        ("lib/modules", "class library"),
        ("hsperfdata_*/*", "performance data"),
        ("/memfd:java_heap*", HEAP),
    ],
    shapes: &[
        Shape {
            what: STACKS,
            evidence: "MAP_STACK, and its low end was replaced by the guard zone of a Java thread",
            alone: false,
            fits: is_stack,
        },
        Shape {
            what: POLLING,
            evidence: "two pages, NORESERVE, made usable at once",
            alone: false,
            fits: |clues, _| {
                clues
                    .free_reservation()
                    .is_some_and(|asked| asked.len == 8 << 10)
                    && is_usable_at_once(clues)
            },
        },
        Shape {
            what: CODE,
            evidence: "NORESERVE, made writable and executable by mmap over it",
            alone: false,
            fits: |clues, _| clues.free_reservation().is_some() && clues.steps.mapped.executable,
        },
        Shape {
            what: CODE,
            evidence: "the reservation right after code was made executable: the map of its segments",
            alone: false,
            fits: |clues, _| {
                let small = |asked: &super::Request| asked.len < LEAST_HEAP;
                clues.after_code && clues.free_reservation().is_some_and(small)
            },
        },
        Shape {
            what: METASPACE,
            evidence: "64 MiB, NORESERVE, made usable by mmap over it in steps of 64 KiB",
            alone: false,
            fits: |clues, _| {
                let node = |asked: &super::Request| asked.len == NODE;
                clues.free_reservation().is_some_and(node) && is_metaspace(clues)
            },
        },
        Shape {
            what: CLASSES,
            evidence: "NORESERVE, made usable by mmap over it in steps of 64 KiB",
            alone: false,
            fits: |clues, _| {
                let large = |asked: &super::Request| NODE < asked.len || asked.addr.0 != 0;
                clues.free_reservation().is_some_and(large) && is_metaspace(clues)
            },
        },
        Shape {
            what: HEAP,
            evidence: "NORESERVE, and the file java_heap was mapped over it",
            alone: false,
            fits: |clues, _| {
                let name = clues.steps.file.as_deref();
                name.is_some_and(|name| name.starts_with(HEAP_FILE))
            },
        },
        Shape {
            what: COLLECTOR,
            evidence: "8 GiB, its lowest 32 MiB made usable first, as the mark stacks of ZGC are",
            alone: false,
            fits: is_mark_stacks_of_zgc,
        },
        Shape {
            what: COLLECTOR,
            evidence: "NORESERVE, 1/512, 1/64 or 1/32 of the size of the Java heap",
            alone: false,
            fits: is_table,
        },
        Shape {
            what: HEAP,
            evidence: "NORESERVE, and a table of 1/512 of its size was reserved too",
            alone: false,
            fits: |clues, around| {
                let heap = |asked: &super::Request| is_heap(asked.len, around);
                clues.free_reservation().is_some_and(heap) && !glibc::is_arena(clues)
            },
        },
        Shape {
            what: HEAP,
            evidence: "NORESERVE, 8 MiB or more asked for below 32 GiB, where references stay compressed",
            alone: false,
            fits: |clues, _| {
                let low = |asked: &super::Request| is_low(asked) && LEAST_HEAP <= asked.len;
                clues.free_reservation().is_some_and(low)
            },
        },
        Shape {
            what: COLLECTOR,
            evidence: "16 KiB to 64 MiB, NORESERVE, made usable at once, as mark stacks are",
            alone: false,
            fits: |clues, _| {
                let usual = |asked: &super::Request| (16 << 10..=NODE).contains(&asked.len);
                clues.free_reservation().is_some_and(usual) && is_usable_at_once(clues)
            },
        },
    ],
};

/// A zone of a stack that was mapped over its low end, or the stack.
fn is_stack(clues: &Clues, _: &Surroundings) -> bool {
    let zone = matches!(clues.over, Some((Place::ThreadStack, _)));
    let stack = clues.place == Place::ThreadStack && clues.steps.low_replaced;
    let asked = |wanted: MapFlags| {
        clues
            .request
            .is_some_and(|asked| asked.flags.contains(wanted))
    };
    (zone && asked(MapFlags::FIXED)) || (stack && asked(MapFlags::STACK))
}

fn is_usable_at_once(clues: &Clues) -> bool {
    clues.steps.mapped.count == 1 && clues.steps.mapped.first == Some(clues.range)
}

/// A heap is made usable in such steps too, but in larger ones.
fn is_metaspace(clues: &Clues) -> bool {
    let mapped = &clues.steps.mapped;
    let small = mapped.first.is_some_and(|first| first.len() < 1 << 20);
    mapped.granule() == GRANULE && small && !mapped.executable
}

/// `ZMarkStackSpaceLimit`, and by how much that space grows.
fn is_mark_stacks_of_zgc(clues: &Clues, around: &Surroundings) -> bool {
    let first = clues.steps.mapped.first;
    clues
        .free_reservation()
        .is_some_and(|asked| asked.addr.0 == 0 && asked.len == 8 << 30)
        && first
            .is_some_and(|first| first.start() == clues.range.start() && first.len() == 32 << 20)
        && around.is_laid_over_by(HEAP_FILE)
}

/// Asked for where references to it stay compressed.
pub(super) fn is_low(asked: &super::Request) -> bool {
    let end = asked.addr.0.checked_add(asked.len);
    asked.addr.0 != 0 && end.is_some_and(|end| end <= COMPRESSED)
}

/// A heap has a table of one byte for each card of 512 bytes, some of them one more page.
fn is_heap(bytes: u64, around: &Surroundings) -> bool {
    let cards = bytes / 512;
    LEAST_HEAP <= bytes
        && bytes.is_multiple_of(1 << 20)
        && around.reserved_within(cards, cards + (8 << 10))
}

/// A table of cards, or a bit or two for each word. Shenandoah has no cards: its heap is known by where
/// it lies.
fn is_table(clues: &Clues, around: &Surroundings) -> bool {
    let whole = |asked: &&super::Request| asked.addr.0 == 0 && asked.len == clues.range.len();
    clues.free_reservation().filter(whole).is_some_and(|asked| {
        let of = |heap: u64| {
            let cards = heap / 512;
            (cards..=cards + (8 << 10)).contains(&asked.len)
                || asked.len == heap / 64
                || asked.len == heap / 32
        };
        let mut heaps = around.sizes().filter(|heap| is_heap(*heap, around));
        let low = |heap: &u64| LEAST_HEAP <= *heap && around.is_reserved_low(*heap);
        heaps.any(of) || around.sizes().filter(low).any(of)
    })
}
