//! Rules on evidence that is made up, and on maps of real processes cut short.

use std::sync::Arc;

use crate::abi::{MapFlags, Prot};
use crate::mm::{parse_maps, parse_smaps};
use crate::report::Place;
use crate::units::{Addr, AddrRange};

use super::{Basis, Clues, Recognized, Request, Surroundings, recognize};
use super::{recognize_snapshot, sums_of_snapshot};

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

// ── of a living process ─────────────────────────────────────────────────────────────────────────────────

const GO: &str = "\
00400000-00694000 r-xp 00000000 fe:00 12 /srv/server\n\
c000000000-c000c00000 rw-p 00000000 00:00 0 \n\
c000c00000-c004000000 ---p 00000000 00:00 0 \n\
7f0000000000-7f0010980000 ---p 00000000 00:00 0 \n\
7f0010980000-7f0010981000 rw-p 00000000 00:00 0 \n\
7f0010981000-7f0030000000 ---p 00000000 00:00 0 \n\
7ffd968d6000-7ffd968f7000 rw-p 00000000 00:00 0                          [stack]\n";

fn kinds(text: &str, around: &Surroundings) -> Vec<String> {
    let snapshot = parse_maps(text.as_bytes()).expect("maps");
    recognize_snapshot(&snapshot, around)
        .into_iter()
        .map(shown)
        .collect()
}

#[test]
fn a_living_go_process_is_recognised_by_the_version_its_file_states() {
    let mut go = Surroundings::of_program(&"/srv/server".into());
    assert_eq!(kinds(GO, &go)[1..6], ["unknown"; 5].map(str::to_owned));
    go.version(&"go1.25.5".into());
    assert_eq!(
        kinds(GO, &go),
        [
            "program code and data (file)",
            "Go heap arenas (shape)",
            "Go heap arenas (shape)",
            "Go page summaries (shape)",
            "Go page summaries (shape)",
            "Go page summaries (shape)",
            "process main stack (file)",
        ]
    );
    let snapshot = parse_maps(GO.as_bytes()).expect("maps");
    let sums = sums_of_snapshot(&snapshot, &go);
    let mapped: u64 = sums.iter().map(|(_, sum)| sum.mapped.0).sum();
    let lines: u64 = snapshot.entries.iter().map(|entry| entry.range.len()).sum();
    assert_eq!(mapped, lines);
    let (kind, largest) = &sums[0];
    assert_eq!(kind.map(|kind| kind.what), Some("page summaries"));
    assert_eq!(largest.committed.0, 4096);
    assert_eq!(largest.resident, None);
}

#[test]
fn a_living_go_heap_need_not_be_used_from_its_start() {
    let mut go = Surroundings::of_program(&"/srv/server".into());
    go.version(&"go1.27.0".into());
    let text = "\
343914000000-343916000000 ---p 00000000 00:00 0 \n\
343916000000-343918c00000 rw-p 00000000 00:00 0 \n\
343918c00000-34391c000000 ---p 00000000 00:00 0 \n";
    assert_eq!(kinds(text, &go), ["Go heap arenas (shape)"; 3]);
    // The used pages of summaries are few and lie anywhere.
    let text = "\
7f0000000000-7f0002001000 ---p 00000000 00:00 0 \n\
7f0002001000-7f0002002000 rw-p 00000000 00:00 0 \n\
7f0002002000-7f0004000000 ---p 00000000 00:00 0 \n";
    let summaries = "Go page summaries (shape)";
    assert_eq!(kinds(text, &go), [summaries; 3]);
}

#[test]
fn a_living_node_shows_what_its_sizes_tell() {
    let text = "\
00400000-00401000 r-xp 00000000 fe:00 12 /usr/bin/node\n\
3a18cc040000-3a18cc04d000 r--p 00000000 00:00 0 \n\
3bac8c6c0000-3bac8c700000 rw-p 00000000 00:00 0 \n\
7f4966fc0000-7f49e6fc0000 ---p 00000000 00:00 0 \n\
7f49e6fc0000-7f49e7060000 rw-p 00000000 00:00 0 \n\
7f49e7060000-7f4be6fc0000 ---p 00000000 00:00 0 \n\
7f4be6fc0000-7f4be6fc2000 rw-p 00000000 00:00 0 \n\
7f4be6fc2000-7f4be6fc3000 ---p 00000000 00:00 0 \n\
7f4be6fc3000-7f4be6fff000 rwxp 00000000 00:00 0 \n\
7f4be6fff000-7f4c06fc0000 ---p 00000000 00:00 0 \n";
    let node = Surroundings::of_program(&"/usr/bin/node".into());
    let mut told = vec![
        "program code and data (file)",
        "unknown",
        "V8 heap pages (shape)",
    ];
    told.extend(["V8 wasm memory (shape)"; 3]);
    told.extend(["V8 code range (shape)"; 4]);
    assert_eq!(kinds(text, &node), told);
    // Without V8 it could be anybody's.
    let other = kinds(&text.replace("node", "other"), &around(&[]));
    assert!(other[1..].iter().all(|told| told == "unknown"), "{other:?}");
}

#[test]
fn a_living_chromium_shows_pools_metadata_and_the_sandbox() {
    let text = "\
00010000-100100000 ---p 00000000 00:00 0 \n\
21b800000000-21b800004000 ---p 00000000 00:00 0 \n\
21b800004000-21b800108000 rw-p 00000000 00:00 0 \n\
21b800108000-21c000000000 ---p 00000000 00:00 0 \n\
2344f0260000-2344f0263000 ---p 00000000 00:00 0 \n\
2344f0263000-2344f0264000 rw-p 00000000 00:00 0 \n\
2344f0264000-2344f0463000 ---p 00000000 00:00 0 \n\
2344f0463000-2344f0464000 rw-p 00000000 00:00 0 \n\
2344f0464000-2344f0663000 ---p 00000000 00:00 0 \n\
2344f0663000-2344f0664000 rw-p 00000000 00:00 0 \n\
2344f0664000-2348f0260000 ---p 00000000 00:00 0 \n\
2e7400000000-2e7402000000 ---p 00000000 00:00 0 \n\
2e7402000000-2e7402800000 rw-p 00000000 00:00 0 \n\
2e7402800000-2e7800000000 ---p 00000000 00:00 0 \n\
3ec400000000-3ed400000000 ---p 00000000 00:00 0 \n\
3ed400000000-3ed400010000 r--p 00000000 00:00 0 \n\
3ed400010000-401c00000000 ---p 00000000 00:00 0 \n";
    let chromium = Surroundings::of_program(&"/usr/lib/chromium/chromium".into());
    let mut told = vec!["unknown"];
    told.extend(["PartitionAlloc pools (shape)"; 3]);
    told.extend(["PartitionAlloc metadata (shape)"; 7]);
    // 16 GiB at their alignment can be a pool or V8's heap for C++.
    told.extend(["unknown"; 3]);
    told.extend(["V8 sandbox (shape)"; 3]);
    assert_eq!(kinds(text, &chromium), told);
    let other = kinds(text, &around(&[]));
    assert!(other.iter().all(|told| told == "unknown"), "{other:?}");
}

#[test]
fn a_living_process_of_glibc_shows_arenas_stacks_and_names() {
    let text = "\
00400000-00401000 r-xp 00000000 fe:00 12 /srv/program\n\
01b0dc000-01b0fd000 rw-p 00000000 00:00 0                                [heap]\n\
7f0000000000-7f0000021000 rw-p 00000000 00:00 0 \n\
7f0000021000-7f0004000000 ---p 00000000 00:00 0 \n\
7f0005000000-7f0005001000 ---p 00000000 00:00 0 \n\
7f0005001000-7f0005801000 rw-p 00000000 00:00 0 \n\
7f0006000000-7f0006100000 rw-p 00000000 00:00 0                          [anon: glibc: malloc arena]\n\
7f0007000000-7f0007100000 rw-p 00000000 00:00 0 \n\
7f0008000000-7f0008001000 r-xp 00000000 fe:00 13                         /lib/libc.so.6\n\
7f0008001000-7f0008002000 rw-p 00001000 fe:00 13                         /lib/libc.so.6\n\
7f0008002000-7f0008003000 rw-p 00000000 00:00 0 \n\
7f0009000000-7f0009002000 rw-s 00000000 00:0f 17                         anon_inode:[io_uring]\n";
    let text = text.replace("01b0dc000-01b0fd000", "1b0dc000-1b0fd000");
    let program = Surroundings::of_program(&"/srv/program".into());
    assert_eq!(
        kinds(&text, &program),
        [
            "program code and data (file)",
            "glibc main heap (file)",
            "glibc malloc arenas (shape)",
            "glibc malloc arenas (shape)",
            "glibc thread stacks (shape)",
            "glibc thread stacks (shape)",
            "glibc malloc arenas (name)",
            "unknown",
            "ld.so libraries (file)",
            "ld.so libraries (file)",
            "ld.so bss of libraries (shape)",
            "kernel io_uring rings (file)",
        ]
    );
}

#[test]
fn smaps_tells_a_reservation_of_the_kernels_books_from_an_arena() {
    let line = |start: &str, rights: &str, flags: &str| {
        format!(
            "{start} {rights} 00000000 00:00 0 \nRss: 8 kB\nVmFlags: rd wr mr mw me {flags} sd \n"
        )
    };
    let arena = [
        line("7f0000000000-7f0000021000", "rw-p", "nr"),
        line("7f0000021000-7f0004000000", "---p", "nr"),
    ];
    let other = arena.join("").replace(" nr ", " ac ");
    let of = |text: &str| {
        let snapshot = parse_smaps(text.as_bytes()).expect("smaps");
        let glibc = around(&["/lib/libc.so.6"]);
        shown(recognize_snapshot(&snapshot, &glibc).remove(0))
    };
    assert_eq!(of(&arena.join("")), "glibc malloc arenas (shape)");
    assert_eq!(of(&other), "unknown");
}

#[test]
fn the_basis_is_ordered_by_its_worth() {
    assert!(Basis::Caller < Basis::Name && Basis::Name < Basis::File && Basis::File < Basis::Shape);
}
