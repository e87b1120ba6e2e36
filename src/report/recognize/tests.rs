//! Rules on evidence that is made up.

use std::sync::Arc;

use crate::abi::{MapFlags, Prot};
use crate::report::Place;
use crate::units::{Addr, AddrRange};

use super::{Basis, Clues, Recognized, Request, Surroundings, recognize};

const MIB: u64 = 1 << 20;

fn range(start: u64, len: u64) -> AddrRange {
    AddrRange::covering(Addr(start), len).expect("a range")
}

fn around(files: &[&str]) -> Surroundings {
    let mut around = Surroundings::of_program(&"/srv/program".into());
    files.iter().for_each(|file| around.file(&(*file).into()));
    around
}

/// What `mmap(NULL, len, prot, MAP_PRIVATE|MAP_ANONYMOUS|more)` made.
fn mapped(len: u64, prot: Prot, more: MapFlags) -> Clues {
    let mut clues = Clues::new(range(0x7f00_0000_0000, len), Place::Anon);
    clues.request = Some(Request {
        len,
        prot,
        flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | more,
        addr: Addr(0),
    });
    clues
}

fn called(functions: &[&str]) -> Clues {
    let mut clues = mapped(MIB, Prot::READ | Prot::WRITE, MapFlags::empty());
    let functions: Vec<Arc<str>> = functions
        .iter()
        .map(|function| (*function).into())
        .collect();
    clues.callers = functions.into();
    clues
}

fn shown(known: Option<Recognized>) -> String {
    known.map_or("unknown".to_owned(), |known| {
        let kind = known.kind;
        format!("{} {} ({})", kind.owner, kind.what, known.basis.word())
    })
}

#[test]
fn of_a_stack_the_innermost_function_that_is_known_decides() {
    let none = around(&[]);
    let arena = [
        "runtime.sysReserveOS",
        "runtime.sysReserve",
        "runtime.(*mheap).sysAlloc",
        "runtime.mallocinit",
        "runtime.schedinit",
    ];
    assert_eq!(
        shown(recognize(&called(&arena), &none)),
        "Go heap arenas (caller)"
    );
    let index = [
        "runtime.sysAlloc",
        "runtime.(*mheap).sysAlloc",
        "runtime.mallocinit",
    ];
    assert_eq!(
        shown(recognize(&called(&index), &none)),
        "Go heap metadata (caller)"
    );
    let summary = [
        "runtime.sysReserve",
        "runtime.(*pageAlloc).init",
        "runtime.mallocinit",
    ];
    assert_eq!(
        shown(recognize(&called(&summary), &none)),
        "Go page summaries (caller)"
    );
}

#[test]
fn what_malloc_mapped_is_not_its_callers() {
    let glibc = around(&["/usr/lib/x86_64-linux-gnu/libc.so.6"]);
    let stack = ["mmap", "allocate_stack", "__pthread_create_2_1"];
    assert_eq!(
        shown(recognize(&called(&stack), &glibc)),
        "glibc thread stacks (caller)"
    );
    let table = ["mmap", "calloc", "allocate_stack", "__pthread_create_2_1"];
    assert_eq!(shown(recognize(&called(&table), &glibc)), "unknown");
    let large = ["mmap", "sysmalloc_mmap", "sysmalloc", "malloc", "main"];
    assert_eq!(
        shown(recognize(&called(&large), &glibc)),
        "glibc large mallocs (caller)"
    );
}

#[test]
fn a_function_that_anyone_could_have_counts_only_beside_its_runtime() {
    let clues = called(&["new_arena", "main"]);
    assert_eq!(shown(recognize(&clues, &around(&[]))), "unknown");
    let python = around(&["/usr/bin/python3.11"]);
    assert_eq!(
        shown(recognize(&clues, &python)),
        "CPython object arenas (caller)"
    );
}

#[test]
fn a_caller_is_better_evidence_than_a_name_and_a_name_than_a_shape() {
    let python = around(&["/usr/bin/python3.11"]);
    let mut clues = mapped(MIB, Prot::READ | Prot::WRITE, MapFlags::empty());
    assert_eq!(
        shown(recognize(&clues, &python)),
        "CPython object arenas (shape)"
    );
    clues.name = Some(" Go: heap".into());
    assert_eq!(shown(recognize(&clues, &python)), "Go heap arenas (name)");
    clues.callers = ["_mi_os_alloc".into()].into();
    assert_eq!(
        shown(recognize(&clues, &python)),
        "mimalloc segments and arenas (caller)"
    );
}

#[test]
fn a_shape_means_nothing_without_its_runtime() {
    let clues = mapped(64 * MIB, Prot::NONE, MapFlags::empty());
    let glibc = around(&["/usr/lib/x86_64-linux-gnu/libc.so.6"]);
    assert_eq!(shown(recognize(&clues, &glibc)), "unknown");
    let mut go = glibc;
    go.version(&"go1.27.0".into());
    assert_eq!(shown(recognize(&clues, &go)), "Go page summaries (shape)");
}

#[test]
fn the_place_of_a_go_heap_does_not_matter() {
    let mut go = around(&[]);
    go.version(&"go1.27.0".into());
    for start in [0xc0_0000_0000, 0x1234_5400_0000] {
        let mut clues = Clues::new(range(start, 64 * MIB), Place::Anon);
        clues.request = Some(Request {
            len: 64 * MIB,
            prot: Prot::NONE,
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS,
            addr: Addr(start),
        });
        assert_eq!(shown(recognize(&clues, &go)), "Go heap arenas (shape)");
        assert_eq!(shown(recognize(&clues, &around(&[]))), "unknown");
    }
}

#[test]
fn a_large_malloc_is_told_from_what_is_asked_for_in_round_numbers() {
    let rw = Prot::READ | Prot::WRITE;
    let glibc = around(&["/usr/lib/x86_64-linux-gnu/libc.so.6"]);
    let of = |len| shown(recognize(&mapped(len, rw, MapFlags::empty()), &glibc));
    assert_eq!(of(MIB + 4096), "glibc large mallocs (shape)");
    assert_eq!(of(MIB), "unknown");
    assert_eq!(of(64 << 10), "unknown");
    let jemalloc = around(&["/lib/libc.so.6", "/lib/libjemalloc.so.2"]);
    let clues = mapped(MIB + 4096, rw, MapFlags::empty());
    assert_eq!(shown(recognize(&clues, &jemalloc)), "unknown");
}

#[test]
fn a_name_that_tells_only_whose_it_is_is_made_precise_by_the_shape() {
    let chromium = around(&["/usr/lib/chromium/chromium"]);
    let of = |name: &str, start: u64, len: u64| {
        let mut clues = mapped(len, Prot::NONE, MapFlags::empty());
        clues.range = range(start, len);
        clues.name = Some(name.into());
        shown(recognize(&clues, &chromium))
    };
    let pool = 32 << 30;
    assert_eq!(
        of("partition_alloc", 0x23d0_0000_0000, pool),
        "PartitionAlloc pools (name)"
    );
    assert_eq!(
        of("partition_alloc", 0x23d0_0000_1000, pool),
        "PartitionAlloc metadata (name)"
    );
    assert_eq!(
        of("partition_alloc", 0x1_0000, pool + 4096),
        "PartitionAlloc memory (name)"
    );
    assert_eq!(of("v8", 0x3dc4_0000_0000, 1 << 30), "V8 memory (name)");
    // A name that says more is not overruled.
    assert_eq!(
        of("v8-pointer-table", 0x4000_0000_0000, 1 << 40),
        "V8 tables and array buffers (name)"
    );
    // Without the name anything of this size could be there.
    assert_eq!(of("other", 0x23d0_0000_1000, pool), "unknown");
}

#[test]
fn nothing_is_too_strange_to_be_looked_at() {
    let mut all = around(&[
        "/libjvm.so",
        "/libasan.so.8",
        "/libc.so.6",
        "/chrome",
        "/libjemalloc.so.2",
    ]);
    all.version(&"go1.25".into());
    for len in [1, 4096, u64::MAX >> 1] {
        all.reserved(&Request {
            len,
            prot: Prot::NONE,
            flags: MapFlags::NORESERVE,
            addr: Addr(len),
        });
        for flags in [0, MapFlags::FIXED.bits(), u32::MAX] {
            let mut clues = Clues::new(range(0xffff_ffff_f000 & !0xfff, 4096), Place::Others);
            clues.request = Some(Request {
                len,
                prot: Prot::from_bits_retain(u32::MAX),
                flags: MapFlags::from_bits_retain(flags),
                addr: Addr(u64::MAX),
            });
            clues.steps.trimmed = [u64::MAX; 2];
            clues.name = Some("[anon:".into());
            recognize(&clues, &all);
        }
    }
}

#[test]
fn the_basis_is_ordered_by_its_worth() {
    assert!(Basis::Caller < Basis::Name && Basis::Name < Basis::File && Basis::File < Basis::Shape);
}
