//! `memtrace check`: exit status and output, over the recorded traces of runtimes.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde_json::Value;
use support::*;

const NODE_20: &str = "node-20.18.0.mtr";
const NODE_24: &str = "node-24.12.0.mtr";

/// `memtrace check WORDS`, in the folder of traces.
fn check(words: &[&str]) -> Ended {
    let mut command = memtrace::<&OsStr>(&["check"], &[]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    run(command.args(words).current_dir(folder))
}

fn report(trace: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    let ended = run(memtrace::<&OsStr>(&["report", "--json"], &[]).arg(folder.join(trace)));
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[test]
fn a_limit_holds_at_exactly_what_the_report_says_and_not_a_byte_below() {
    let node = report(NODE_24);
    for figure in [
        "mapped",
        "reserved",
        "committed",
        "charged",
        "resident",
        "mappings",
    ] {
        for when in ["peak", "end"] {
            let value = node["tree"][figure][when].as_u64().expect("a number");
            let (full, short) = (format!("{figure}.{when}"), figure.to_owned());
            let names = match when {
                "peak" => vec![full, short],
                _ => vec![full],
            };
            for name in names {
                let within = check(&["--max", &format!("{name}={value}"), NODE_24]);
                assert_eq!(within.status(), 0, "{within:?}");
                assert!(within.stdout.contains("within budget"), "{within:?}");
                let over = check(&["--max", &format!("{name}={}", value - 1), NODE_24]);
                assert_eq!(over.status(), 1, "{over:?}");
                assert_eq!(over.stdout.lines().count(), 1, "{over:?}");
            }
        }
    }
    for (part, name) in [("anon", "anon.end"), ("file", "file.end")] {
        let spaces = node["spaces"].as_array().expect("a list");
        let parts = spaces.iter().map(|it| &it["committed"]["parts"][part]);
        let value: u64 = parts.filter_map(Value::as_u64).sum();
        assert_eq!(
            check(&["--max", &format!("{name}={value}"), NODE_24]).status(),
            0
        );
        let below = format!("{name}={}", value - 1);
        assert_eq!(check(&["--max", &below, NODE_24]).status(), 1);
    }
}

#[test]
fn a_newer_runtime_that_reserves_more_fails_and_the_line_says_how_much_and_why() {
    let ended = check(&[
        "--baseline",
        NODE_20,
        "--max-growth",
        "reserved=10%",
        "--max-growth",
        "committed=1GiB",
        NODE_24,
    ]);
    assert_eq!(ended.status(), 1, "{ended:?}");
    let expected = "node-24.12.0.mtr: reserved at its peak is 960.3 MiB, over the limit of \
        634.3 MiB (baseline 576.6 MiB + 10 %) by 326.0 MiB; largest: 512.0 MiB by mmap at 0.024 s, \
        256.1 MiB by mmap at 0.020 s, 128.1 MiB by mmap at 0.020 s\n";
    assert_eq!(ended.stdout, expected);
}

/// The budget file of the README, and its commands with the lines they print.
#[test]
fn the_readme_says_what_happens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("the README");
    let (_, section) = readme.split_once("## In CI").expect("the section");
    let between = |begin: &str| {
        let (_, rest) = section.split_once(begin).expect("a block");
        rest.split_once("```").expect("its end").0
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("memtrace.toml"), between("```toml\n")).expect("a file");
    std::os::unix::fs::symlink(root.join("fixtures"), folder.path().join("fixtures"))
        .expect("a link");
    let mut ran = 0;
    for block in section.split("```console\n").skip(1) {
        let (block, _) = block.split_once("```").expect("its end");
        for command in block.split("$ memtrace check ").skip(1) {
            let (words, printed) = command.split_once('\n').expect("output");
            let printed = printed.split("$ ").next().unwrap_or_default();
            let words: Vec<&str> = words.split(' ').collect();
            let mut command = memtrace::<&OsStr>(&["check"], &[]);
            let ended = run(command.args(&words).current_dir(&folder));
            assert_eq!(ended.stdout, printed, "{ended:?}");
            assert_eq!(ended.status() == 0, printed.contains("within"), "{ended:?}");
            ran += 1;
        }
    }
    assert_eq!(ran, 3);
}

#[test]
fn each_of_several_traces_is_checked() {
    let ended = check(&["--max", "reserved=700M", NODE_20, NODE_24, "python3.mtr"]);
    assert_eq!(ended.status(), 1, "{ended:?}");
    let begins: Vec<&str> = ended
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        begins,
        [
            format!("{NODE_20}:"),
            format!("{NODE_24}:"),
            "python3.mtr:".into()
        ]
    );
    assert!(
        ended.stdout.contains("node-20.18.0.mtr: within"),
        "{ended:?}"
    );
}

#[test]
fn budgets_of_a_file_hold_for_the_tree_and_for_programs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("memtrace.toml");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    fs::copy(fixtures.join(NODE_20), folder.path().join("base.mtr")).expect("a copy");
    let text = "baseline = \"base.mtr\"\n[max]\nreserved = \"2GiB\"\ncommitted = { peak = \"1GiB\", end = 1 }\n\
        [max_growth]\nmapped = \"10%\"\n[program.node.max]\nmappings = 5\n\"resident.end\" = \"1GiB\"\n";
    fs::write(&file, text).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let ended = check(&["--budget", file, NODE_24]);
    assert_eq!(ended.status(), 1, "{ended:?}");
    let found: Vec<&str> = ended
        .stdout
        .lines()
        .map(|line| line.split(" is ").next().unwrap_or_default())
        .collect();
    let [first, second, third] = found[..] else {
        panic!("three lines, not {found:?}");
    };
    assert_eq!(first, "node-24.12.0.mtr: committed at the end");
    assert_eq!(second, "node-24.12.0.mtr: mapped at its peak");
    assert!(third.starts_with("node-24.12.0.mtr: node (pid "), "{third}");
    assert!(
        third.ends_with("): number of mappings at its peak"),
        "{third}"
    );
    // What the command line says goes before.
    let ended = check(&["--budget", file, "--max", "committed.end=1T", NODE_24]);
    assert!(!ended.stdout.contains("committed at the end"), "{ended:?}");
}

#[test]
fn a_damaged_trace_fails_unless_that_is_allowed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    let mut bytes = fs::read(fixtures.join("format-1.1.mtr")).expect("the trace");
    bytes.truncate(bytes.len() - 1);
    let cut = folder.path().join("cut.mtr");
    fs::write(&cut, bytes).expect("a file");
    let cut = cut.to_str().expect("UTF-8");
    let ended = check(&["--max", "mapped=1T", cut]);
    assert_eq!(ended.status(), 1, "{ended:?}");
    assert!(
        ended.stdout.contains("the trace is incomplete"),
        "{ended:?}"
    );
    let ended = check(&["--max", "mapped=1T", "--allow-incomplete", cut]);
    assert_eq!(ended.status(), 0, "{ended:?}");
    let ended = check(&["--baseline", cut, "--max-growth", "mapped=1T", NODE_20]);
    assert_eq!(ended.status(), 2, "{ended:?}");
}

#[test]
fn lines_of_json_are_checked_as_the_trace_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lines = folder.path().join("node.jsonl");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    let mut export = memtrace::<&OsStr>(&["export", "--to", "jsonl", "-o"], &[]);
    run(export.arg(&lines).arg(fixtures.join(NODE_24)));
    let lines = lines.to_str().expect("UTF-8");
    let words = |trace| {
        [
            "--max", "anon=1", "--max", "file=1", "--max", "calls=1", trace,
        ]
    };
    let (of_lines, of_trace) = (check(&words(lines)), check(&words(NODE_24)));
    assert_eq!(of_lines.status(), 1, "{of_lines:?}");
    assert_eq!(of_lines.stdout.replace(lines, NODE_24), of_trace.stdout);
}

#[test]
fn the_formats_for_ci_say_the_same() {
    let words = |format| {
        let limits = ["--max", "reserved=1M", "--max", "mapped=1T", "--format"];
        [&limits[..], &[format, NODE_20]].concat()
    };
    let why = "reserved at its peak is 576.6 MiB";
    for format in ["text", "junit", "github", "markdown"] {
        let ended = check(&words(format));
        assert_eq!(ended.status(), 1, "{ended:?}");
        assert!(ended.stdout.contains(why), "{ended:?}");
    }
    let github = check(&words("github")).stdout;
    assert!(github.starts_with("::error title=memtrace%3A reserved::node-20.18.0.mtr: "));
    assert_eq!(github.lines().count(), 1);
    let junit = check(&words("junit")).stdout;
    assert!(junit.contains("tests=\"4\" failures=\"1\""), "{junit}");
}

#[test]
fn trouble_is_two_and_one_line_that_names_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("memtrace.toml");
    let path = file.to_str().expect("UTF-8");
    for (text, said) in [
        ("[max]\n\nreserved = \"5x\"\n", "line 3: max.reserved: '5x'"),
        ("[max]\nreservd = 5\n", "line 2: max.reservd"),
        ("[maximum]\nreserved = 5\n", "unknown field `maximum`"),
        ("[program.a.min]\nreserved = 5\n", "unknown field `min`"),
        ("[max]\nmapped = \"1T\"\nbase", "line 3"),
        ("[program.python.max]\nmapped = 1\n", "only of node"),
        ("[max_growth]\nmapped = \"1%\"\n", "name a baseline"),
        ("", "no budget"),
    ] {
        fs::write(&file, text).expect("a file");
        let ended = check(&["--budget", path, NODE_20]);
        assert_eq!(ended.status(), 2, "{text}: {ended:?}");
        assert!(ended.one_line().contains(said), "{text}: {ended:?}");
        assert_eq!(ended.stdout, "", "{text}");
    }
    for (words, said) in [
        (&[][..], "which trace?"),
        (&[NODE_20], "check against what?"),
        (&["--max", "reserved", NODE_20], "--max 'reserved'"),
        (&["--max", "vsz=5", NODE_20], "'vsz' is none of mapped"),
        (&["--max", "drift.end=5", NODE_20], "drift is a sum"),
        (
            &["--max", "mapped=1", "/nonexistent.mtr"],
            "/nonexistent.mtr",
        ),
        (
            &["--budget", "/nonexistent.toml", NODE_20],
            "/nonexistent.toml",
        ),
        (&["--max", "mapped=1", "--format", "xml", NODE_20], "junit"),
    ] {
        let ended = check(words);
        assert_eq!(ended.status(), 2, "{words:?}: {ended:?}");
        assert!(ended.one_line().contains(said), "{words:?}: {ended:?}");
    }
}
