//! What `memtrace report --by kind` recognises in real runtimes, held against the books they keep themselves.

#![allow(dead_code, reason = "the support modules serve other tests too")]

mod support;
mod support_real;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{MEMTRACE, Running, bytes, run, tracee};
use support_real::programs::{
    Found, compiled, find, fixture, go_program, go_server, java_classes, python,
};
use support_real::{line_of, need, number_after, skip};

// ── what memtrace says ──────────────────────────────────────────────────────────────────────────────────

const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Left {
    reserved: u64,
    committed: u64,
    mappings: u64,
}

impl Left {
    fn mapped(self) -> u64 {
        self.reserved + self.committed
    }
}

/// The table by kind of a trace.
struct Kinds {
    /// What the program wrote to stdout.
    printed: String,
    table: Value,
    rows: BTreeMap<(String, String), Left>,
    unknown: Left,
}

impl Kinds {
    /// Of a program, run under memtrace.
    #[track_caller]
    fn of<S: AsRef<OsStr>>(argv: &[S]) -> Kinds {
        Kinds::traced(&["--"], argv)
    }

    #[track_caller]
    fn traced<S: AsRef<OsStr>>(options: &[&str], argv: &[S]) -> Kinds {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let trace = folder.path().join("trace");
        let mut command = Command::new(MEMTRACE);
        command.arg("-qq").arg("-o").arg(&trace).args(options);
        command.args(argv).env("LC_ALL", "C");
        let ended = run(&mut command);
        assert_eq!(ended.status(), 0, "{ended:?}");
        Kinds {
            printed: ended.stdout,
            ..Kinds::read(&trace)
        }
    }

    /// Of a trace; its rows must add up to the summary, row by row as other tables do.
    #[track_caller]
    fn read(trace: &Path) -> Kinds {
        let report = |options: &[&str]| -> Value {
            let mut command = Command::new(MEMTRACE);
            let ended = run(command.arg("report").args(options).arg("--json").arg(trace));
            assert_eq!(ended.status(), 0, "{ended:?}");
            serde_json::from_str(&ended.stdout).expect("JSON")
        };
        let table = report(&["--by", "kind"]);
        let summary = report(&[]);
        for (figure, at) in [
            ("reserved", "/end/reserved"),
            ("committed", "/end/committed"),
        ] {
            let spaces = summary["spaces"].as_array().expect("spaces").iter();
            let whole: u64 = spaces.map(|space| bytes(&space[figure]["end"])).sum();
            let rows = table["rows"].as_array().expect("rows").iter();
            let sum: u64 = rows
                .map(|row| bytes(row.pointer(at).expect("a figure")))
                .sum();
            assert_eq!(
                sum, whole,
                "{figure} of the rows and of the summary: {table:#}"
            );
            assert_eq!(bytes(table["total"].pointer(at).expect("a figure")), whole);
        }
        let mut rows = BTreeMap::new();
        let mut unknown = Left::default();
        for row in table["rows"].as_array().expect("rows") {
            let left = Left {
                reserved: bytes(&row["end"]["reserved"]),
                committed: bytes(&row["end"]["committed"]),
                mappings: row["mappings"].as_u64().unwrap_or(0),
            };
            match (row["owner"].as_str(), row["what"].as_str()) {
                (Some(owner), Some(what)) => {
                    assert!(
                        row["evidence"]
                            .as_str()
                            .is_some_and(|text| !text.is_empty()),
                        "{row:#}"
                    );
                    rows.insert((owner.to_owned(), what.to_owned()), left);
                }
                _ if row.get("other").is_none() => unknown = left,
                _ => {}
            }
        }
        Kinds {
            printed: String::new(),
            table,
            rows,
            unknown,
        }
    }

    #[track_caller]
    fn row(&self, owner: &str, what: &str) -> Left {
        let key = (owner.to_owned(), what.to_owned());
        *self
            .rows
            .get(&key)
            .unwrap_or_else(|| panic!("no {owner} {what} in {:#}", self.table))
    }

    fn has(&self, owner: &str) -> bool {
        self.rows.keys().any(|(of, _)| of == owner)
    }

    /// No more than so much is unknown.
    #[track_caller]
    fn unknown_within(&self, most: u64) {
        assert!(
            self.unknown.mapped() <= most,
            "much is unknown: {:#}",
            self.table
        );
    }
}

// ── Go ──────────────────────────────────────────────────────────────────────────────────────────────────

/// runtime.MemStats against the table.
#[track_caller]
fn go_agrees(version: &str, program: &Path) {
    let kinds = Kinds::of(&[program]);
    let book = |name: &str| {
        number_after(&kinds.printed, &format!("{name}="))
            .unwrap_or_else(|| panic!("{version} prints no {name}: {}", kinds.printed))
    };
    let heap = kinds.row("Go", "heap arenas");
    // HeapSys counts what was made usable, in spans of stacks too once StackInuse is added. HeapReleased is part
    // of it: pages that the kernel was told it may take back stay mapped and usable, so memtrace counts them as
    // committed; they are not resident.
    // Work buffers of the collector, 32 KiB each once it has run, lie in spans of the heap and are in GCSys
    // (runtime/mgcwork.go, `workbufAlloc`).
    let of_heap = book("HeapSys") + book("StackInuse");
    let work = heap.committed.checked_sub(of_heap);
    let work = work.filter(|work| work.is_multiple_of(32 << 10) && *work <= book("GCSys"));
    let work = work.unwrap_or_else(|| {
        panic!(
            "{version}: {} seen, {of_heap} of the books; {:#}",
            heap.committed, kinds.table
        )
    });
    assert!(book("HeapReleased") <= heap.committed);
    // What is reserved of arenas of 64 MiB beyond that is in no book.
    assert_eq!(heap.mapped() % (64 * MIB), 0);
    // All else of Sys is metadata and the used parts of the page summaries. Two differences:
    // the second level of the index of arenas, 32 MiB, is charged to no book (persistentalloc with sysStat nil
    // in (*mheap).sysAlloc), and runtime.sysAlloc counts the bytes that were asked for, the kernel whole pages.
    let metadata = kinds.row("Go", "heap metadata");
    let summaries = kinds.row("Go", "page summaries");
    let others = ["MSpanSys", "MCacheSys", "BuckHashSys", "GCSys", "OtherSys"];
    let others: u64 = others.iter().map(|name| book(name)).sum();
    let system_stacks = book("StackSys") - book("StackInuse");
    assert_eq!(book("Sys"), book("HeapSys") + book("StackSys") + others);
    let seen = metadata.committed + summaries.committed + work;
    let uncounted = seen.checked_sub(others + system_stacks + 32 * MIB);
    let most = metadata.mappings * 4095;
    assert!(
        uncounted.is_some_and(|rounding| rounding <= most),
        "{version}: {seen} seen, {others} of the books; {:#}",
        kinds.table
    );
    // Five levels and the index of the scavenger.
    assert_eq!(summaries.mappings, 6, "{:#}", kinds.table);
    assert!(512 * MIB < summaries.reserved);
    kinds.unknown_within(0);
}

#[test]
fn the_books_of_go_1_21_agree() {
    go_agrees(
        "1.21",
        &need!(go_program(
            "1.21.13",
            "gobooks",
            "",
            &[],
            &[("CGO_ENABLED", "0")]
        )),
    );
}

#[test]
fn the_books_of_go_1_25_agree() {
    go_agrees(
        "1.25",
        &need!(go_program(
            "1.25.5",
            "gobooks",
            "",
            &[],
            &[("CGO_ENABLED", "0")]
        )),
    );
}

#[test]
fn a_go_server_that_was_attached_to_shows_its_arenas() {
    let server = need!(go_server("1.25.5"));
    let mut running = Running::start(&mut Command::new(server));
    line_of(&mut running, |line| line.contains("serves").then_some(()));
    let pid = running.pid().to_string();
    let kinds = Kinds::traced(&["--duration", "200ms", "-p", &pid], &[] as &[OsString]);
    running.signal(15);
    running.end();
    let heap = kinds.row("Go", "heap arenas");
    assert_eq!(heap.mapped() % (64 * MIB), 0, "{:#}", kinds.table);
    assert!(MIB <= heap.committed);
    assert!(512 * MIB <= kinds.row("Go", "page summaries").reserved);
}

// ── HotSpot ─────────────────────────────────────────────────────────────────────────────────────────────

/// Reserved and committed of one category of NMT's summary, of the memory it maps; of threads, of the stacks.
fn nmt(text: &str, category: &str) -> Option<(u64, u64)> {
    let from = text.find(&format!("{category} (reserved="))?;
    let section = &text[from..];
    let section = &section[..section[1..]
        .find("\n-")
        .map_or(section.len(), |end| end + 1)];
    let line = section
        .lines()
        .find(|line| line.contains("(mmap: reserved=") || line.contains("(stack: reserved="))?;
    let amount = |label: &str| {
        let number = number_after(line, label)?;
        let kib = line[line.find(label)? + label.len()..]
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .starts_with("KB");
        Some(if kib { number << 10 } else { number })
    };
    Some((amount("reserved=")?, amount("committed=")?))
}

/// Collectors of garbage, by the option that chooses them.
const COLLECTORS: [&str; 5] = ["G1GC", "SerialGC", "ParallelGC", "ShenandoahGC", "ZGC"];

#[test]
fn the_books_of_the_jvm_agree_whatever_collects_its_garbage() {
    let java = need!(find("java"));
    let classes = need!(java_classes("Books.java"));
    for collector in COLLECTORS {
        let chosen = format!("-XX:+Use{collector}");
        // Not every build has all of them.
        let tried = run(Command::new(&java).arg(&chosen).arg("-version"));
        if tried.status() != 0 {
            support::skipped(format!("this java has no {collector}"));
            continue;
        }
        let argv = [
            java.as_os_str(),
            "-XX:NativeMemoryTracking=summary".as_ref(),
            "-XX:+UnlockDiagnosticVMOptions".as_ref(),
            "-XX:+PrintNMTStatistics".as_ref(),
            "-XX:-UsePerfData".as_ref(),
            chosen.as_ref(),
            "-Xmx256m".as_ref(),
            "-cp".as_ref(),
            classes.as_os_str(),
            "Books".as_ref(),
        ];
        jvm_agrees(collector, &Kinds::of(&argv));
    }
}

/// NMT's summary against the table.
#[track_caller]
fn jvm_agrees(collector: &str, kinds: &Kinds) {
    let book = |category: &str| {
        nmt(&kinds.printed, category)
            .unwrap_or_else(|| panic!("NMT tells nothing of {category}: {}", kinds.printed))
    };
    let both = |left: Left| (left.mapped(), left.committed);
    let sum = |parts: &[(u64, u64)]| {
        let add = |(a, b): (u64, u64), (c, d): &(u64, u64)| (a + c, b + d);
        parts.iter().fold((0, 0), add)
    };
    let told = || format!("{collector}: {:#}\n{}", kinds.table, kinds.printed);
    // To the byte.
    for (what, category) in [("metaspace", "Metaspace"), ("code cache", "Code")] {
        assert_eq!(
            both(kinds.row("HotSpot", what)),
            book(category),
            "{}",
            told()
        );
    }
    assert_eq!(
        both(kinds.row("HotSpot", "polling pages")).0,
        book("Safepoint").0
    );
    // Of Shenandoah's set of regions that are collected, two tables of a byte for each region, one lies at a low
    // address of its own, as anything could: it stays unknown.
    let tables = both(kinds.row("HotSpot", "collector tables"));
    let books = book("GC");
    let apart = (books.0.checked_sub(tables.0), books.1.checked_sub(tables.1));
    let most = if collector == "ShenandoahGC" {
        16 << 10
    } else {
        0
    };
    let within = |apart: Option<u64>| apart.is_some_and(|apart| apart <= most);
    assert!(within(apart.0) && within(apart.1), "{}", told());
    // ZGC maps the same memory at up to three addresses, which NMT counts once: all that is mapped is file.
    let mut heap = both(kinds.row("HotSpot", "Java heap"));
    if collector == "ZGC" {
        let (_, committed) = book("Java Heap");
        assert!([committed, 3 * committed].contains(&heap.1), "{}", told());
        heap.1 = committed;
    }
    // The archive of classes is a file that is mapped into the heap and into the space of classes: memtrace tells it
    // apart by the file, NMT counts one part as Java heap and one as shared class space. Together they are equal.
    let archived = ["class space", "CDS archive"].map(|what| both(kinds.row("HotSpot", what)));
    let books = ["Java Heap", "Class", "Shared class space"].map(book);
    assert_eq!(
        sum(&[heap, archived[0], archived[1]]),
        sum(&books),
        "{}",
        told()
    );
    // NMT counts the stacks of threads that live and no guard page of glibc's. Those of ended threads are still mapped,
    // in glibc's cache: 1 MiB each. What is committed of stacks NMT asks of mincore(2): that is resident memory.
    let java_stacks = kinds.row("HotSpot", "thread stacks").mapped();
    let vm_stacks = kinds.row("glibc", "thread stacks");
    let guards = vm_stacks.mappings * 4096;
    let cached = java_stacks + vm_stacks.mapped() - guards - book("Thread").0;
    assert_eq!(cached % MIB, 0, "{}", told());
    assert!(cached / MIB < 16, "{}", told());
    kinds.unknown_within(MIB);
}

// ── V8, CPython ─────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn node_has_a_code_range_pages_and_wasm_memory() {
    let node = need!(find("node"));
    let kinds = Kinds::of(&[node, fixture("wasm.js")]);
    assert!(64 * MIB <= kinds.row("V8", "code range").mapped());
    assert!(MIB <= kinds.row("V8", "heap pages").committed);
    let wasm = kinds.row("V8", "wasm memory");
    assert!(8192 * MIB <= wasm.reserved, "{:#}", kinds.table);
    assert_eq!(wasm.committed, 10 * (64 << 10), "ten pages of WebAssembly");
    kinds.unknown_within(2 * MIB);
}

#[test]
fn python_has_arenas_of_objects() {
    let python = need!(python());
    let script = "kept = [object() for _ in range(400000)]; import os; os._exit(0)";
    let kinds = Kinds::of(&[python.as_os_str(), "-c".as_ref(), script.as_ref()]);
    // 16 bytes each, in arenas of 1 MiB (256 KiB before 3.10).
    let arenas = kinds.row("CPython", "object arenas");
    assert!(
        6 * MIB <= arenas.committed && arenas.committed.is_multiple_of(256 << 10),
        "{:#}",
        kinds.table
    );
    assert!(0 < kinds.row("glibc", "main heap").committed);
}

#[test]
fn memory_of_which_nothing_tells_is_unknown() {
    let python = need!(python());
    let script = "import mmap, os\n\
        kept = mmap.mmap(-1, 3 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
        os._exit(0)";
    let kinds = Kinds::of(&[python.as_os_str(), "-c".as_ref(), script.as_ref()]);
    assert!(3 * MIB <= kinds.unknown.committed, "{:#}", kinds.table);
}

#[test]
fn a_name_counts_even_where_the_kernel_refuses_it() {
    let python = need!(python());
    let script = "import ctypes, os\n\
        libc = ctypes.CDLL(None)\n\
        libc.mmap.restype = ctypes.c_void_p\n\
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]\n\
        at = libc.mmap(None, 3 << 20, 3, 0x22, -1, 0)\n\
        libc.prctl(0x53564d41, 0, ctypes.c_void_p(at), ctypes.c_size_t(3 << 20), b'mimalloc')\n\
        os._exit(0)";
    let kinds = Kinds::of(&[python.as_os_str(), "-c".as_ref(), script.as_ref()]);
    assert_eq!(
        kinds.row("mimalloc", "segments and arenas").committed,
        3 * MIB
    );
}

// ── C libraries and allocators ──────────────────────────────────────────────────────────────────────────

#[test]
fn glibc_has_arenas_stacks_and_a_heap() {
    for flags in [&["-pthread"][..], &["-pthread", "-static"]] {
        let name = format!("allocate-glibc{}", flags.len());
        let program = need!(compiled("gcc", "allocate.c", &name, flags));
        let kinds = Kinds::of(&[program]);
        let arenas = kinds.row("glibc", "malloc arenas");
        assert_eq!(arenas.mapped() % (64 * MIB), 0, "{:#}", kinds.table);
        let stacks = kinds.row("glibc", "thread stacks");
        assert_eq!(
            (stacks.mappings, stacks.reserved),
            (3, 3 * 4096),
            "{:#}",
            kinds.table
        );
        assert!(500_000 <= kinds.row("glibc", "main heap").committed);
        assert_eq!(kinds.row("glibc", "large mallocs").committed, MIB + 4096);
        kinds.unknown_within(0);
    }
}

#[test]
fn musl_has_a_heap_and_stacks() {
    for flags in [&["-pthread"][..], &["-pthread", "-static"]] {
        let name = format!("allocate-musl{}", flags.len());
        let program = need!(compiled("musl-gcc", "allocate.c", &name, flags));
        let kinds = Kinds::of(&[program]);
        let stacks = kinds.row("musl", "thread stacks");
        assert_eq!(
            (stacks.mappings, stacks.reserved),
            (3, 3 * 8192),
            "{:#}",
            kinds.table
        );
        let heap = kinds.row("musl", "heap");
        assert!(2 * MIB <= heap.committed, "{:#}", kinds.table);
        assert!(!kinds.has("glibc"), "{:#}", kinds.table);
        // A group of the size of a malloc of someone else's stays unknown.
        kinds.unknown_within(256 << 10);
    }
}

/// A shared library of the system.
fn library(name: &str) -> Found<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let paths = folders.map(|folder| Path::new(folder).join(name));
    let found = paths.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| format!("no {name}"))
}

/// By shapes, and then by its callers.
#[track_caller]
fn preloaded(name: &str) -> Option<[Kinds; 2]> {
    let prepared = library(name).and_then(|library| {
        let program = compiled(
            "gcc",
            "allocate.c",
            &format!("allocate-{name}"),
            &["-pthread"],
        )?;
        Ok((library, program))
    });
    match prepared {
        Err(why) => {
            skip(&why);
            None
        }
        Ok((library, program)) => {
            let preload = format!("LD_PRELOAD={}", library.display());
            let argv = ["env".as_ref(), preload.as_ref(), program.as_os_str()];
            let traced = |options| {
                let kinds = Kinds::traced(options, &argv);
                // What pthread_create asks malloc for is no stack.
                let stacks = kinds.row("glibc", "thread stacks").mappings;
                assert_eq!(stacks, 3, "{:#}", kinds.table);
                kinds.unknown_within(MIB);
                kinds
            };
            Some([traced(&["--"]), traced(&["-k", "--"])])
        }
    }
}

#[test]
fn jemalloc_has_extents() {
    for kinds in preloaded("libjemalloc.so.2").into_iter().flatten() {
        let extents = kinds.row("jemalloc", "extents");
        assert!(4 * MIB <= extents.committed, "{:#}", kinds.table);
        let arenas = ("glibc".to_owned(), "malloc arenas".to_owned());
        assert!(!kinds.rows.contains_key(&arenas));
    }
}

#[test]
fn mimalloc_has_segments() {
    for kinds in preloaded("libmimalloc.so.2").into_iter().flatten() {
        let segments = kinds.row("mimalloc", "segments and arenas");
        assert_eq!(segments.mapped(), 4 * 32 * MIB, "{:#}", kinds.table);
    }
}

#[test]
fn tcmalloc_has_the_break() {
    for kinds in preloaded("libtcmalloc_minimal.so.4").into_iter().flatten() {
        let heap = kinds.row("tcmalloc", "heap");
        assert!(8 * MIB <= heap.committed, "{:#}", kinds.table);
    }
}

// ── sanitizers, the kernel's rings ──────────────────────────────────────────────────────────────────────

/// A program built with a sanitizer; leak detection fails under any tracer, and says so. GCC's sanitizers are
/// libraries, Clang's are linked into the program.
#[track_caller]
fn sanitized(compiler: &str, kind: &str, options: &[&str]) -> Found<Kinds> {
    let flag = format!("-fsanitize={kind}");
    let name = format!("allocate-{kind}-{compiler}");
    let program = compiled(compiler, "allocate.c", &name, &["-pthread", &flag])?;
    let argv = ["env", "ASAN_OPTIONS=detect_leaks=0"].map(OsStr::new);
    Ok(Kinds::traced(
        &[options, &["--"]].concat(),
        &[argv[0], argv[1], program.as_os_str()],
    ))
}

/// The documented layout of x86-64 (compiler-rt's asan_mapping.h): a low and a high shadow, and a gap.
#[track_caller]
fn has_the_layout_of_asan(kinds: &Kinds) {
    let shadow = kinds.row("AddressSanitizer", "shadow");
    assert!(14 << 40 <= shadow.committed, "{:#}", kinds.table);
    let gap = kinds.row("AddressSanitizer", "protected gaps");
    assert_eq!((gap.reserved, gap.committed), (2 << 40, 0));
    assert!(4 << 40 <= kinds.row("AddressSanitizer", "allocator").mapped());
    assert!(!kinds.has("ThreadSanitizer") && !kinds.has("MemorySanitizer"));
    kinds.unknown_within(32 * MIB);
}

#[test]
fn address_sanitizer_has_a_shadow() {
    has_the_layout_of_asan(&need!(sanitized("gcc", "address", &[])));
}

#[test]
fn address_sanitizer_without_a_library_is_told_by_where_its_shadow_lies() {
    for options in [&[][..], &["-k"]] {
        has_the_layout_of_asan(&need!(sanitized("clang", "address", options)));
    }
}

#[test]
fn thread_sanitizer_has_two_shadows() {
    for (compiler, options) in [("gcc", &[][..]), ("clang", &[]), ("clang", &["-k"])] {
        let kinds = need!(sanitized(compiler, "thread", options));
        // 15 or 31 TiB of one, as the version has it, and 4 TiB of the other.
        let shadow = kinds.row("ThreadSanitizer", "shadow");
        assert!(19 << 40 <= shadow.committed, "{:#}", kinds.table);
        assert!(60 << 40 <= kinds.row("ThreadSanitizer", "protected gaps").reserved);
        assert!(!kinds.has("AddressSanitizer") && !kinds.has("MemorySanitizer"));
        kinds.unknown_within(64 * MIB);
    }
}

#[test]
fn memory_sanitizer_has_three_shadows_of_what_may_be_memory() {
    for options in [&[][..], &["-k"]] {
        let kinds = need!(sanitized("clang", "memory", options));
        // kMemoryLayout of msan.h: 1, 15 and 16 TiB; the origins, which are not tracked, and what is invalid are gaps.
        let shadow = kinds.row("MemorySanitizer", "shadow");
        assert_eq!(shadow.committed >> 40, 32, "{:#}", kinds.table);
        let gaps = kinds.row("MemorySanitizer", "protected gaps");
        assert_eq!((gaps.reserved, gaps.committed), (64 << 40, 0));
        assert!(4 << 40 <= kinds.row("MemorySanitizer", "allocator").mapped());
        assert!(!kinds.has("AddressSanitizer") && !kinds.has("ThreadSanitizer"));
        kinds.unknown_within(64 * MIB);
    }
}

#[test]
fn rings_of_the_kernel_are_told_by_their_names() {
    let kinds = Kinds::of(&[tracee("rings")]);
    let rings = ["io_uring rings", "AIO rings"];
    let seen = rings.iter().filter(|ring| {
        kinds
            .rows
            .contains_key(&("kernel".to_owned(), (**ring).to_owned()))
    });
    assert!(0 < seen.count(), "{:#}", kinds.table);
}

// ── recorded traces ─────────────────────────────────────────────────────────────────────────────────────

#[track_caller]
fn recorded(name: &str) -> Kinds {
    let trace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/traces")
        .join(name);
    Kinds::read(&trace)
}

#[test]
fn recorded_go_is_recognised_whole() {
    for (name, used) in [("go-1.21.13.mtr", 108 * MIB), ("go-1.25.5.mtr", 100 * MIB)] {
        let kinds = recorded(name);
        let heap = kinds.row("Go", "heap arenas");
        assert_eq!((heap.mapped(), heap.committed), (128 * MIB, used), "{name}");
        assert_eq!(kinds.row("Go", "page summaries").mappings, 6, "{name}");
        // With cgo threads are glibc's.
        assert_eq!(
            kinds.row("glibc", "malloc arenas").mapped(),
            320 * MIB,
            "{name}"
        );
        assert_eq!(kinds.row("glibc", "thread stacks").mappings, 5, "{name}");
        kinds.unknown_within(0);
    }
}

#[test]
fn recorded_java_is_recognised_but_for_what_anything_could_have_mapped() {
    for name in ["java-17.0.9.2.mtr", "java-21.0.8.2.mtr"] {
        let kinds = recorded(name);
        assert_eq!(
            kinds.row("HotSpot", "Java heap").mapped(),
            6_320_816_128,
            "{name}"
        );
        assert_eq!(
            kinds.row("HotSpot", "class space").mapped(),
            1 << 30,
            "{name}"
        );
        assert_eq!(
            kinds.row("HotSpot", "metaspace").mapped(),
            64 * MIB,
            "{name}"
        );
        let code = kinds.row("HotSpot", "code cache").mapped();
        assert_eq!(code, 251_658_240 + 49_152 + 2 * 962_560, "{name}");
        kinds.unknown_within(512 << 10);
    }
}

#[test]
fn recorded_chromium_is_recognised_by_the_names_it_gives_and_its_shapes() {
    const GIB: u64 = 1 << 30;
    let kinds = recorded("chromium-156.mtr");
    let mapped = |owner, what| kinds.row(owner, what).mapped();
    // The two pools lie beside each other; a reservation below 4 GiB is only to stay free.
    assert_eq!(mapped("PartitionAlloc", "pools"), 32 * GIB);
    assert_eq!(mapped("PartitionAlloc", "metadata"), 16 * GIB);
    assert_eq!(mapped("PartitionAlloc", "memory"), 4 * GIB + (960 << 10));
    // kSandboxSize, and the regions that guard it.
    assert_eq!(mapped("V8", "sandbox"), 1376 * GIB);
    assert_eq!(mapped("V8", "C++ heap"), 16 * GIB);
    assert_eq!(kinds.row("V8", "code range").committed, 512 * MIB);
    // Four tables of pointers; the trusted space.
    assert_eq!(mapped("V8", "tables and array buffers"), 2 * GIB);
    assert_eq!(mapped("V8", "memory"), GIB);
    kinds.unknown_within(128 << 10);
}

#[test]
fn recorded_node_and_python_are_recognised() {
    for name in ["node-20.18.0.mtr", "node-24.12.0.mtr"] {
        let kinds = recorded(name);
        // All that V8 had is gone at the end.
        let pages = kinds.row("V8", "heap pages");
        assert!(10 < pages.mappings, "{name}: {:#}", kinds.table);
        assert_eq!(kinds.row("V8", "code range").mappings, 1, "{name}");
        kinds.unknown_within(2 * MIB);
    }
    let python = recorded("python3.mtr");
    assert_eq!(python.row("CPython", "object arenas").committed, 3 * MIB);
    python.unknown_within(0);
}
