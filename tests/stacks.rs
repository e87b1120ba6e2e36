//! `-k` on real programs: who made each memory call, all the way to the function that nothing called.

mod support;
mod support_real;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use memtrace::symbol::go::{PclnTab, locate};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol};
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
        let Ok(file) = ElfFile64::<LittleEndian>::parse(&bytes[..]) else {
            return Names::default();
        };
        let mut by_address: Vec<(u64, String)> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.is_definition() && 0 < symbol.size())
            .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?.to_owned())))
            .collect();
        if let Some(found) = locate(&bytes[..]) {
            let range = found.table.start as usize..found.table.end as usize;
            let table = PclnTab::new(&bytes[range], found.text, &[]).expect("a table");
            let functions = table.functions();
            by_address = functions
                .map(|it| (it.entry(), it.name().to_owned()))
                .collect();
        }
        let header = file.elf_header();
        let segments = header
            .program_headers(LittleEndian, &bytes[..])
            .expect("segments");
        let offset = |address: u64| {
            segments.iter().find_map(|segment| {
                let from = address.checked_sub(segment.p_vaddr(LittleEndian))?;
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
                    let names = names.entry(path.clone()).or_insert_with(|| Names::of(path));
                    let offset = frame["offset"].as_str().expect("an offset");
                    names.at(u64::from_str_radix(&offset[2..], 16).expect("a number"))
                });
                let functions: Vec<String> = functions.collect();
                let end = raw["end"].as_str().expect("an end").to_owned();
                stacks.insert(raw["id"].as_u64(), (end, functions));
            }
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
