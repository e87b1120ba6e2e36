//! Who reserved and who committed, of recorded traces: the sums are those of the report, whatever
//! they are split by, and other programs can read what is exported.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Ended, MEMTRACE, Terminal, run, tracee};

const WEIGHTS: [&str; 3] = ["reserved", "committed", "mapped"];

fn memtrace(words: &[&str], trace: &Path) -> Ended {
    run(Command::new(MEMTRACE)
        .args(words)
        .arg(trace)
        .env("LC_ALL", "C.UTF-8"))
}

#[track_caller]
fn json(words: &[&str], trace: &Path) -> Value {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let ended = memtrace(&words, trace);
    assert_eq!((ended.status(), &*ended.stderr), (0, ""), "{words:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    let entries = fs::read_dir(folder).expect("the folder of traces");
    let paths = entries.map(|entry| entry.expect("a directory entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "mtr"))
        .collect()
}

/// A trace of a tracee with `options`, in a folder of its own.
fn recorded(options: &[&str], name: &str, args: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = folder.path().join("trace");
    let mut command = Command::new(MEMTRACE);
    command.args(["-q", "-o"]).arg(&trace).args(options);
    let ended = run(command.arg("--").arg(tracee(name)).args(args));
    assert_eq!(ended.status(), 0, "{}", ended.stderr);
    (folder, trace)
}

fn number(value: &Value, path: &str) -> u64 {
    let found = value.pointer(path).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number {path} in {value}"))
}

/// What the report says that a figure ends with, over all spaces.
fn end(report: &Value, weight: &str) -> u64 {
    let spaces = report["spaces"].as_array().expect("spaces");
    let ends = spaces
        .iter()
        .map(|space| number(space, &format!("/{weight}/end")));
    ends.sum()
}

#[track_caller]
fn check_folded(trace: &Path, report: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for weight in WEIGHTS {
        let ended = memtrace(&["export", "--to", "folded", "--weight", weight], trace);
        assert_eq!(ended.status(), 0, "{}", ended.stderr);
        let amounts = ended.stdout.lines().map(|line| {
            let (stack, bytes) = line.rsplit_once(' ').expect("bytes at the end");
            assert!(2 <= stack.split(';').count(), "{line}");
            bytes.parse::<u64>().expect("a number")
        });
        let sum: u64 = amounts.sum();
        assert_eq!(sum, end(report, weight), "{weight} of {}", trace.display());
        lines.extend(ended.stdout.lines().map(str::to_owned));
    }
    lines
}

#[test]
fn folded_stacks_add_up_to_the_report_of_every_trace() {
    for trace in fixtures() {
        let report = json(&["report"], &trace);
        let lines = check_folded(&trace, &report);
        assert!(lines.iter().any(|line| line.contains(";(began: exec) ")));
        let ended = memtrace(&["export", "--to", "folded"], &trace);
        let stacks = lines
            .iter()
            .any(|line| !line.contains("(no stack)") && !line.contains("(began"));
        match stacks {
            true => assert_eq!(ended.stderr, "", "{}", trace.display()),
            false => assert!(ended.one_line().contains("no stacks"), "{}", ended.stderr),
        }
    }
}

#[test]
fn the_lives_of_reservations_add_up_to_the_report_of_every_trace() {
    for trace in fixtures() {
        let report = json(&["report"], &trace);
        let lives = json(&["report", "--by", "reservation"], &trace);
        let sums = lives["reservations"].as_array().expect("a list").iter();
        let sums: u64 = sums.map(|life| number(life, "/reserved")).sum();
        let others =
            number(&lives, "/smaller/reserved") + number(&lives, "/untouched_copies/reserved");
        assert_eq!(sums + others, number(&lives, "/total/reserved"));
        let spaces = report["spaces"].as_array().expect("spaces").iter();
        let flow: u64 = spaces.map(|space| number(space, "/flow/reserve")).sum();
        assert!(
            flow <= number(&lives, "/total/reserved"),
            "{}",
            trace.display()
        );
    }
}

#[test]
fn reservations_of_the_real_traces_stay_as_they_were_checked_once() {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    for name in ["go-1.25.5", "java-21.0.8.2"] {
        let trace = traces.join(format!("{name}.mtr"));
        let words = ["report", "--color=never", "--by", "reservation", "-n", "12"];
        let ended = memtrace(&words, &trace);
        assert_eq!((ended.status(), &*ended.stderr), (0, ""), "{name}");
        insta::assert_snapshot!(
            format!("{}_reservations", name.replace('.', "_")),
            ended.stdout
        );
    }
}

#[test]
fn tables_and_trees_of_a_trace_with_stacks_add_up_to_its_report() {
    for (name, args) in [
        ("vma", &["growsdown"][..]),
        ("threads", &["all"]),
        ("forkstorm", &["20", "3"]),
    ] {
        let (_folder, trace) = recorded(&["-k"], name, args);
        let report = json(&["report"], &trace);
        check_folded(&trace, &report);
        let spaces = report["spaces"].as_array().expect("spaces");
        let calls = spaces.iter().flat_map(|space| {
            let calls = space["calls"].as_object().expect("calls").values();
            calls.map(|call| number(call, "/count"))
        });
        let calls: u64 = calls.sum();
        for by in ["stack", "owner"] {
            let table = json(&["report", "--by", by], &trace);
            let rows = table["rows"].as_array().expect("rows");
            let sum = |path: &str| rows.iter().map(|row| number(row, path)).sum::<u64>();
            assert_eq!(sum("/calls"), calls, "{name} by {by}");
            for weight in WEIGHTS {
                assert_eq!(
                    sum(&format!("/end/{weight}")),
                    end(&report, weight),
                    "{name} by {by}"
                );
            }
            for verb in ["reserve", "map", "commit", "decommit", "release", "discard"] {
                let flow = spaces
                    .iter()
                    .map(|space| number(space, &format!("/flow/{verb}")));
                assert_eq!(
                    sum(&format!("/flow/{verb}")),
                    flow.sum::<u64>(),
                    "{name} by {by}"
                );
            }
        }
        for tree in ["--tree", "--tree=up"] {
            let tree = json(&["report", tree], &trace);
            let nodes = tree["nodes"].as_array().expect("nodes");
            for weight in WEIGHTS {
                assert_eq!(
                    number(&nodes[0], &format!("/{weight}")),
                    end(&report, weight)
                );
                for (id, node) in nodes.iter().enumerate() {
                    let below = nodes.iter().filter(|below| below["parent"] == id);
                    let below: u64 = below
                        .map(|below| number(below, &format!("/{weight}")))
                        .sum();
                    let own = number(node, &format!("/own/{weight}"));
                    assert_eq!(own + below, number(node, &format!("/{weight}")));
                }
            }
        }
    }
}

#[test]
fn a_trace_without_stacks_has_no_owners_and_says_how_to_get_them() {
    let (_folder, trace) = recorded(&[], "vma", &["holes"]);
    for words in [
        &["report", "--by", "owner"][..],
        &["report", "--by", "stack"],
        &["report", "--tree"],
    ] {
        let ended = memtrace(words, &trace);
        assert_eq!((ended.status(), &*ended.stdout), (2, ""), "{words:?}");
        let line = ended.one_line();
        assert!(
            line.contains("holds no stacks: record them with -k"),
            "{line}"
        );
    }
    let ended = memtrace(&["report", "--by", "reservation"], &trace);
    assert_eq!((ended.status(), &*ended.stderr), (0, ""));
}

#[test]
fn a_binary_format_goes_to_a_file_or_a_pipe_and_to_no_terminal() {
    let (folder, trace) = recorded(&["-k"], "vma", &["holes"]);
    let file = folder.path().join("profile.pb.gz");
    let to = file.to_str().expect("UTF-8");
    let ended = memtrace(&["export", "--to", "pprof", "-o", to], &trace);
    assert_eq!((ended.status(), &*ended.stderr), (0, ""));
    let bytes = fs::read(&file).expect("a profile");
    assert_eq!(bytes[..2], [0x1f, 0x8b], "gzip");
    let mut command = Command::new(MEMTRACE);
    let terminal = Terminal::start(command.args(["export", "--to", "pprof"]).arg(&trace));
    let (status, shown) = terminal.end();
    assert_eq!(status, 2);
    assert!(shown.contains("write it with -o FILE"), "{shown}");
}
