//! `-k` on real programs: who made each memory call, all the way to the function that nothing called.

mod support;
mod support_real;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use memtrace::symbol::go::{PclnTab, locate};
use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{FileKind, LittleEndian, Object, ObjectSymbol};
use serde_json::Value;
use support::{memtrace, run, tracee};
use support_real::need;
use support_real::programs::{compiled, find, go_program, java_classes, python};

/// A call and what its stack leads through.
#[derive(Debug)]
struct Call {
    name: String,
    length: Option<u64>,
    prot: String,
    end: String,
    functions: Vec<String>,
}

impl Call {
    fn goes_through(&self, function: &str) -> bool {
        self.functions.iter().any(|it| it == function)
    }
}

/// The functions of a file, by offset in it.
#[derive(Default)]
struct Names {
    by_offset: Vec<(u64, String)>,
}

impl Names {
    fn of(path: &str) -> Names {
        let Ok(bytes) = fs::read(path) else {
            return Names::default();
        };
        match FileKind::parse(&bytes[..]) {
            Ok(FileKind::Elf64) => Names::of_elf::<FileHeader64<LittleEndian>>(&bytes),
            Ok(FileKind::Elf32) => Names::of_elf::<FileHeader32<LittleEndian>>(&bytes),
            _ => Names::default(),
        }
    }

    fn of_elf<Header: FileHeader<Endian = LittleEndian>>(bytes: &[u8]) -> Names {
        let file = ElfFile::<Header>::parse(bytes).expect("an ELF file");
        let mut by_address: Vec<(u64, String)> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.is_definition() && 0 < symbol.size())
            .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?.to_owned())))
            .collect();
        if let Some(found) = locate(bytes) {
            let range = found.table.start as usize..found.table.end as usize;
            let table = PclnTab::new(&bytes[range], found.text, &[]).expect("a table");
            let functions = table.functions();
            by_address = functions
                .map(|it| (it.entry(), it.name().to_owned()))
                .collect();
        }
        let header = file.elf_header();
        let segments = header
            .program_headers(LittleEndian, bytes)
            .expect("segments");
        let offset = |address: u64| {
            segments.iter().find_map(|segment| {
                let from = address.checked_sub(segment.p_vaddr(LittleEndian).into())?;
                let (start, size) = segment.file_range(LittleEndian);
                (from < size).then_some(start + from)
            })
        };
        let mut by_offset: Vec<_> = by_address
            .into_iter()
            .filter_map(|(address, name)| Some((offset(address)?, name)))
            .collect();
        by_offset.sort();
        Names { by_offset }
    }

    fn at(&self, offset: u64) -> String {
        let behind = self.by_offset.partition_point(|(start, _)| *start < offset);
        let found = self.by_offset[..behind].last();
        found.map_or(String::new(), |(_, name)| name.clone())
    }
}

/// The memory calls of a program, as `-k` records them.
#[track_caller]
fn calls<S: AsRef<OsStr>>(program: &[S]) -> Vec<Call> {
    calls_named(program, None)
}

/// The same, where `names` has the names that were stripped from the program.
#[track_caller]
fn calls_named<S: AsRef<OsStr>>(program: &[S], names_in: Option<&Path>) -> Vec<Call> {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let file = trace.to_str().expect("a name");
    let ended = run(&mut memtrace(&["-q", "-k", "-o", file], program));
    assert_eq!(ended.status(), 0, "{ended:?}");
    let words = ["export", "--to", "jsonl", file];
    let lines = run(&mut memtrace::<&OsStr>(&words, &[])).stdout;

    let (mut modules, mut stacks, mut calls) = (Vec::new(), HashMap::new(), Vec::new());
    let mut names: HashMap<String, Names> = HashMap::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let raw = &line["raw"];
        match (line["type"].as_str(), line["what"].as_str()) {
            (_, Some("module")) => modules.push(raw["path"].as_str().expect("a path").to_owned()),
            (_, Some("stack")) => {
                let frames = raw["frames"].as_array().expect("frames");
                let functions = frames.iter().map(|frame| {
                    let Some(module) = frame["module"].as_u64() else {
                        return "(no module)".to_owned();
                    };
                    let path = &modules[module as usize];
                    if path == "[vdso]" {
                        return path.clone();
                    }
                    let names = names.entry(path.clone()).or_insert_with(|| {
                        let stripped = Path::new(path) == Path::new(program[0].as_ref());
                        let named = names_in.filter(|_| stripped).and_then(Path::to_str);
                        Names::of(named.unwrap_or(path))
                    });
                    let offset = frame["offset"].as_str().expect("an offset");
                    names.at(u64::from_str_radix(&offset[2..], 16).expect("a number"))
                });
                let functions: Vec<String> = functions.collect();
                let end = raw["end"].as_str().expect("an end").to_owned();
                stacks.insert(raw["id"].as_u64(), (end, functions));
            }
            // The program ended while a thread was in it.
            (Some("call"), _) if line["cut"] == true => {}
            (Some("call"), _) => {
                let text = |key: &str| line["args"][key].as_str().unwrap_or("").to_owned();
                let (end, functions) = stacks[&line["stack"].as_u64()].clone();
                calls.push(Call {
                    name: line["name"].as_str().expect("a name").to_owned(),
                    length: line["args"]["length"].as_u64(),
                    prot: text("prot"),
                    end,
                    functions,
                });
            }
            _ => {}
        }
    }
    assert!(!calls.is_empty(), "{lines}");
    calls
}

/// Every stack must lead to a function that nothing called.
#[track_caller]
fn all_reach_the_root(calls: &[Call]) {
    let lost: Vec<&Call> = calls.iter().filter(|call| call.end != "root").collect();
    assert!(
        lost.is_empty(),
        "{} of {} calls: {lost:#?}",
        lost.len(),
        calls.len()
    );
}

// ── C and its kin ───────────────────────────────────────────────────────────────────────────────────────

/// `callers.c`, compiled in some way: all its calls, and who made those it is about.
#[track_caller]
fn callers_are_told(program: &Path) {
    let calls = calls(&[program]);
    all_reach_the_root(&calls);
    let ours: Vec<&Call> = calls
        .iter()
        .filter(|it| it.length == Some(77 << 12))
        .collect();
    assert_eq!(ours.len(), 21, "{calls:#?}");
    for (number, call) in ours.iter().enumerate() {
        let outer = if number < 20 { "main" } else { "thread" };
        for (name, wanted) in call.functions[1..4]
            .iter()
            .zip(["innermost", "between", outer])
        {
            // C++ puts the length before and the parameters behind.
            assert!(name.contains(wanted), "{wanted}: {call:#?}");
        }
    }
}

const WITHOUT_FRAME_POINTERS: [&str; 3] = ["-O2", "-fomit-frame-pointer", "-pthread"];

#[test]
fn callers_in_optimized_c_without_frame_pointers() {
    let flags = WITHOUT_FRAME_POINTERS;
    callers_are_told(&need!(compiled("gcc", "callers.c", "callers-c", &flags)));
}

#[test]
fn callers_in_cpp() {
    let flags = [&WITHOUT_FRAME_POINTERS[..], &["-x", "c++"]].concat();
    callers_are_told(&need!(compiled("g++", "callers.c", "callers-cpp", &flags)));
}

#[test]
fn callers_in_a_static_program() {
    let flags = [&WITHOUT_FRAME_POINTERS[..], &["-static"]].concat();
    callers_are_told(&need!(compiled(
        "gcc",
        "callers.c",
        "callers-static",
        &flags
    )));
}

#[test]
fn callers_where_only_debug_frames_tell() {
    let hidden = [
        "-fno-asynchronous-unwind-tables",
        "-fno-unwind-tables",
        "-g",
    ];
    let flags = [&WITHOUT_FRAME_POINTERS[..], &hidden].concat();
    callers_are_told(&need!(compiled(
        "gcc",
        "callers.c",
        "callers-debug",
        &flags
    )));
}

#[test]
fn callers_in_rust() {
    let calls = calls(&[OsString::from(tracee("pairs")), "50".into()]);
    all_reach_the_root(&calls);
    let unmaps = calls.iter().filter(|call| call.name == "munmap");
    assert!(50 <= unmaps.count(), "{calls:#?}");
}

// ── C that nothing tells of ─────────────────────────────────────────────────────────────────────────────

const NOTHING_TOLD: [&str; 2] = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];

/// Who calls whom in `shapes.c`, innermost first.
const SHAPES: [&str; 11] = [
    "mapped",
    "plain",
    "variadic",
    "shrink_wrapped",
    "switched",
    "large",
    "variable",
    "aligned",
    "many_arguments",
    "outermost",
    "main",
];
/// The same, where a signal interrupted it.
const HANDLED: [&str; 3] = ["mapped", "plain", "handler"];

/// Whether a stack leads through these, one right after the other, some steps from its beginning. What a
/// compiler makes of a function has its name and more.
fn leads_through(call: &Call, wanted: &[&str]) -> bool {
    let is = |name: &String, wanted: &&str| name.split('.').next() == Some(wanted);
    let places = call.functions.windows(wanted.len());
    places
        .into_iter()
        .any(|at| at.iter().zip(wanted).all(|(name, wanted)| is(name, wanted)))
}

/// `shapes.c`, compiled without unwind information.
#[track_caller]
fn shapes_are_told(compiler: &str, level: &str, flags: &[&str]) {
    let flags = [&[level], &NOTHING_TOLD[..], flags].concat();
    let name = format!("shapes-{compiler}{}", flags.concat());
    let calls = calls(&[need!(compiled(compiler, "shapes.c", &name, &flags))]);
    all_reach_the_root(&calls);
    let ours = calls.iter().filter(|it| it.length == Some(77 << 12));
    let ours: Vec<&Call> = ours.collect();
    assert_eq!(ours.len(), 2, "{calls:#?}");
    assert!(leads_through(ours[0], &SHAPES), "{:#?}", ours[0]);
    assert!(leads_through(ours[1], &HANDLED), "{:#?}", ours[1]);
    assert!(
        ours[1].functions.iter().any(|it| it == "main"),
        "{:#?}",
        ours[1]
    );
}

macro_rules! shapes {
    ($($name:ident: $level:literal;)*) => {$(
        #[test]
        fn $name() {
            shapes_are_told("gcc", $level, &[]);
            shapes_are_told("gcc", $level, &["-fstack-clash-protection", "-fstack-protector-strong"]);
            shapes_are_told("musl-gcc", $level, &["-static"]);
        }
    )*};
}

shapes! {
    frames_of_every_shape_without_optimization: "-O0";
    frames_of_every_shape_slightly_optimized: "-O1";
    frames_of_every_shape_optimized: "-O2";
    frames_of_every_shape_optimized_more: "-O3";
    frames_of_every_shape_optimized_for_size: "-Os";
}

#[test]
fn callers_in_static_musl() {
    let flags = ["-O2", "-static", "-pthread"];
    callers_are_told(&need!(compiled(
        "musl-gcc",
        "callers.c",
        "callers-musl",
        &flags
    )));
}

#[test]
fn callers_in_static_musl_without_a_name() {
    let flags = ["-O2", "-static", "-pthread"];
    let named = need!(compiled(
        "musl-gcc",
        "callers.c",
        "callers-musl-named",
        &flags
    ));
    let flags = ["-O2", "-static", "-pthread", "-s"];
    let program = need!(compiled(
        "musl-gcc",
        "callers.c",
        "callers-musl-stripped",
        &flags
    ));
    let calls = calls_named(&[program], Some(&named));
    let ours = calls.iter().filter(|it| it.length == Some(77 << 12));
    let ours: Vec<&Call> = ours.collect();
    assert_eq!(ours.len(), 21, "{calls:#?}");
    for (number, call) in ours.iter().enumerate() {
        let outer = if number < 20 { "main" } else { "thread" };
        assert_eq!(
            call.functions[1..4],
            ["innermost", "between", outer],
            "{call:#?}"
        );
    }
    // Nobody knows that what called main has no caller: not said to be complete, and not made up.
    for call in &calls {
        let known = ["main", "thread"].iter().any(|it| call.goes_through(it));
        assert!(known || call.end == "root", "{call:#?}");
    }
}

/// In the handler, in the vdso and in what called that.
#[test]
fn callers_through_the_vdso() {
    let calls = calls(&[need!(compiled("gcc", "vdso.c", "vdso", &["-O2"]))]);
    all_reach_the_root(&calls);
    let ours = calls.iter().filter(|it| it.length == Some(77 << 12));
    let ours: Vec<&Call> = ours.collect();
    assert!(20 <= ours.len(), "{calls:#?}");
    let known = ["handler", "main"].map(|name| ours.iter().filter(|it| it.goes_through(name)));
    assert!(
        known
            .map(Iterator::count)
            .iter()
            .all(|count| *count == ours.len()),
        "{ours:#?}"
    );
    // It is there that the program spends most of its time.
    assert!(ours.iter().any(|it| it.goes_through("[vdso]")), "{ours:#?}");
}

/// 32-bit code is unwound by its instructions alone, which may not be enough. What is told is right.
#[test]
fn callers_in_32_bit_code() {
    for level in ["-O0", "-O2"] {
        let flags = ["-m32", level, "-pthread"];
        let name = format!("callers-32{level}");
        let calls = calls(&[need!(compiled("gcc", "callers.c", &name, &flags))]);
        let ours = calls.iter().filter(|it| it.length == Some(77 << 12));
        let ours: Vec<&Call> = ours.collect();
        assert_eq!(ours.len(), 21, "{calls:#?}");
        for (number, call) in ours.iter().enumerate() {
            let chain = ["innermost", "between", ["main", "thread"][number / 20]];
            let known = call.functions.iter().skip_while(|it| *it != "innermost");
            let known: Vec<&str> = known.map(String::as_str).collect();
            let shorter = call.end == "lost" && chain.starts_with(&known);
            assert!(shorter || leads_through(call, &chain), "{call:#?}");
        }
    }
}

// ── Go ──────────────────────────────────────────────────────────────────────────────────────────────────

/// Without C: where Go's own linker links C, it drops what C is unwound by.
const PURE: &str = "-tags=netgo,osusergo";

#[track_caller]
fn a_go_server_is_unwound(version: &str, kind: &str, flags: &[&str]) {
    let server = need!(go_program(version, "goserver", kind, flags, &[]));
    let calls = calls(&[server.as_os_str(), "-once".as_ref()]);
    all_reach_the_root(&calls);
    let arenas: Vec<&Call> = calls
        .iter()
        .filter(|call| call.length == Some(64 << 20) && call.prot == "PROT_NONE")
        .collect();
    assert!(!arenas.is_empty(), "{calls:#?}");
    for arena in arenas {
        let reserved = arena.goes_through("runtime.(*mheap).sysAlloc")
            || arena.goes_through("runtime.mallocinit");
        assert!(reserved, "{arena:#?}");
    }
    let first = calls
        .iter()
        .find(|call| call.goes_through("runtime.mallocinit"));
    let first = first.expect("mallocinit maps memory");
    let outer: Vec<&str> = first.functions.iter().rev().map(String::as_str).collect();
    assert!(outer[0].starts_with("runtime.rt0_go"), "{first:#?}");
    assert_eq!(outer[1..3], ["runtime.schedinit", "runtime.mallocinit"]);
}

macro_rules! go_servers {
    ($($name:ident: $version:literal $kind:literal $flags:expr;)*) => {$(
        #[test]
        fn $name() {
            a_go_server_is_unwound($version, $kind, $flags);
        }
    )*};
}

go_servers! {
    callers_in_go_1_21: "1.21.13" "-pure" &[PURE];
    callers_in_stripped_go_1_21: "1.21.13" "-pure-stripped" &[PURE, "-ldflags=-s -w"];
    callers_in_go_1_21_that_can_be_anywhere: "1.21.13" "-pure-pie" &[PURE, "-buildmode=pie"];
    callers_in_go_1_25: "1.25.5" "-pure" &[PURE];
    callers_in_stripped_go_1_25: "1.25.5" "-pure-stripped" &[PURE, "-ldflags=-s -w"];
    callers_in_go_1_25_that_can_be_anywhere: "1.25.5" "-pure-pie" &[PURE, "-buildmode=pie"];
}

#[track_caller]
fn c_under_go_is_unwound(version: &str) {
    let program = need!(go_program(version, "gocalls", "", &[], &[]));
    let calls = calls(&[program]);
    all_reach_the_root(&calls);
    // From Go to C; from C back to Go and to C again; and from C that had been so called.
    let chains: [(u64, &[&str]); 3] = [
        (55, &["runtime.cgocall", "main.goCallsC"]),
        (
            99,
            &["runtime.cgocallbackg1", "runtime.cgocall", "main.goCallsC"],
        ),
        (77, &["runtime.cgocall", "main.goCallsC"]),
    ];
    for (pages, wanted) in chains {
        let ours = calls.iter().filter(|call| call.length == Some(pages << 12));
        let ours: Vec<&Call> = ours.collect();
        assert_eq!(ours.len(), 2, "{pages}: {calls:#?}");
        for (call, root) in ours.into_iter().zip(["main.main.func1", "main.main"]) {
            for function in wanted.iter().chain([&root]) {
                assert!(call.goes_through(function), "{function}: {call:#?}");
            }
        }
    }
}

/// Go's own linker drops what C is unwound by.
#[track_caller]
fn c_that_go_linked_is_unwound(version: &str, kind: &str, flags: &[&str]) {
    let server = need!(go_program(
        version,
        "goserver",
        kind,
        flags,
        &[("CGO_ENABLED", "1")]
    ));
    let calls = calls(&[server.as_os_str(), "-once".as_ref()]);
    all_reach_the_root(&calls);
    let thread = |call: &&Call| call.goes_through("_cgo_sys_thread_start");
    let threads: Vec<&Call> = calls.iter().filter(thread).collect();
    assert!(
        !threads.is_empty(),
        "no thread was started through C: {calls:#?}"
    );
    for call in threads {
        assert!(call.goes_through("runtime.newm"), "{call:#?}");
    }
}

#[test]
fn callers_in_c_that_go_1_21_linked() {
    let flags = ["-ldflags=-linkmode=internal"];
    c_that_go_linked_is_unwound("1.21.13", "-internal", &flags);
}

#[test]
fn callers_in_c_that_go_1_25_linked() {
    let flags = ["-ldflags=-linkmode=internal"];
    c_that_go_linked_is_unwound("1.25.5", "-internal", &flags);
}

#[test]
fn callers_in_c_that_go_1_25_linked_and_stripped() {
    let flags = ["-ldflags=-linkmode=internal -s -w"];
    c_that_go_linked_is_unwound("1.25.5", "-internal-stripped", &flags);
}

#[test]
fn callers_in_c_that_go_1_21_calls() {
    c_under_go_is_unwound("1.21.13");
}

#[test]
fn callers_in_c_that_go_1_25_calls() {
    c_under_go_is_unwound("1.25.5");
}

// ── runtimes ────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn callers_in_python() {
    let python = need!(python());
    let import = "import json, ssl, sqlite3";
    all_reach_the_root(&calls(&[
        python.as_os_str(),
        "-c".as_ref(),
        import.as_ref(),
    ]));
}

#[test]
fn callers_in_node() {
    let node = need!(find("node"));
    all_reach_the_root(&calls(&[node.as_os_str(), "-e".as_ref(), "0".as_ref()]));
}

#[test]
fn callers_in_java() {
    let (java, classes) = (need!(find("java")), need!(java_classes("Hello.java")));
    let words = [java.as_os_str(), "-cp".as_ref(), classes.as_ref()];
    all_reach_the_root(&calls(
        &[&words[..], &["Hello".as_ref(), "hello".as_ref()]].concat(),
    ));
}
