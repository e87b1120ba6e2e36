//! Maps of real processes, cut short.

use crate::mm::{parse_maps, parse_smaps};
use crate::report::recognize::{Recognized, Surroundings, recognize_snapshot, sums_of_snapshot};

fn around(files: &[&str]) -> Surroundings {
    let mut around = Surroundings::of_program(&"/srv/program".into());
    files.iter().for_each(|file| around.file(&(*file).into()));
    around
}

fn shown(known: Option<Recognized>) -> String {
    known.map_or("unknown".to_owned(), |known| {
        let kind = known.kind;
        format!("{} {} ({})", kind.owner, kind.what, known.basis.word())
    })
}

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
fn a_living_process_of_a_sanitizer_is_told_by_where_its_shadow_lies() {
    let asan = "\
7fff7000-8fff7000 rw-p 00000000 00:00 0 \n\
8fff7000-2008fff7000 ---p 00000000 00:00 0 \n\
2008fff7000-10007fff8000 rw-p 00000000 00:00 0 \n\
600000000000-602000000000 ---p 00000000 00:00 0 \n\
602000000000-602000010000 rw-p 00000000 00:00 0 \n\
7f0000000000-7f0000010000 rw-p 00000000 00:00 0 \n";
    let of = |text: &str| kinds(text, &around(&[]));
    assert_eq!(
        of(asan),
        [
            "AddressSanitizer shadow (shape)",
            "AddressSanitizer protected gaps (shape)",
            "AddressSanitizer shadow (shape)",
            "AddressSanitizer allocator (shape)",
            "AddressSanitizer allocator (shape)",
            "unknown",
        ]
    );
    // The same without the high shadow could be anything.
    let other = asan.replace("2008fff7000-10007fff8000", "2008fff7000-10007fff7000");
    assert!(of(&other).iter().all(|told| told == "unknown"));
    // ThreadSanitizer and MemorySanitizer have one shadow in common; lines of gap and allocator are merged.
    let tsan = "\
10000000000-100000000000 rw-p 00000000 00:00 0 \n\
300000000000-340000000000 rw-p 00000000 00:00 0 \n\
568000000000-7b0800000000 ---p 00000000 00:00 0 \n";
    assert_eq!(
        of(tsan),
        [
            "ThreadSanitizer shadow (shape)",
            "ThreadSanitizer shadow (shape)",
            "ThreadSanitizer protected gaps (shape)",
        ]
    );
    let msan = "\
10000000000-100000000000 rw-p 00000000 00:00 0 \n\
200000000000-2f1f93911000 rw-p 00000000 00:00 0 \n\
2f1f93911000-300000000000 rw-p 00000000 00:00 0 \n\
600000000000-71e000000000 ---p 00000000 00:00 0 \n\
71e000000000-71e0000f0000 rw-p 00000000 00:00 0 \n";
    assert_eq!(
        of(msan),
        [
            "MemorySanitizer shadow (shape)",
            "MemorySanitizer shadow (shape)",
            "MemorySanitizer shadow (shape)",
            "MemorySanitizer protected gaps (shape)",
            "MemorySanitizer allocator (shape)",
        ]
    );
}
