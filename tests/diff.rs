//! `memtrace diff` over the real traces in `fixtures/traces/`, and over programs run just now.

mod support;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Ended, run};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/traces")
        .join(format!("{name}.mtr"))
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    let entries = std::fs::read_dir(folder).expect("the folder of traces");
    let paths = entries.map(|entry| entry.expect("a directory entry").path());
    let mut traces: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "mtr"))
        .collect();
    traces.sort();
    traces
}

fn command<S: AsRef<OsStr>>(args: &[S]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memtrace"));
    run(command.args(args).env("LC_ALL", "C.UTF-8"))
}

fn text(args: &[&OsStr]) -> (i32, String) {
    let mut words = vec![OsStr::new("diff")];
    words.extend(args);
    let ended = command(&words);
    assert!(ended.stderr.is_empty(), "{ended:?}");
    (ended.status(), ended.stdout)
}

fn json(before: &Path, after: &Path) -> (i32, Value) {
    let (status, text) = text(&["--json".as_ref(), before.as_ref(), after.as_ref()]);
    (status, serde_json::from_str(&text).expect("JSON"))
}

fn report(trace: &Path) -> Value {
    let ended = command(&["report".as_ref(), "--json".as_ref(), trace.as_os_str()]);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

fn number(value: &Value) -> i128 {
    match (value.as_u64(), value.as_i64()) {
        (Some(number), _) => number.into(),
        (None, Some(number)) => number.into(),
        (None, None) => panic!("{value} is no number"),
    }
}

const FIGURES: [&str; 6] = [
    "mapped",
    "reserved",
    "committed",
    "charged",
    "resident",
    "mappings",
];

/// The sums of a side are those of the report; delta is their difference; the changes of a figure
/// add up to its delta, all changes to that of mapped.
#[track_caller]
fn adds_up(before: &Path, after: &Path) -> Value {
    let (status, diff) = json(before, after);
    let pair = format!("{} and {}", before.display(), after.display());
    assert_eq!(status, i32::from(diff["same"] == false), "{pair}");
    for (side, trace) in [("before", before), ("after", after)] {
        let report = report(trace);
        let spaces = report["spaces"].as_array().expect("spaces");
        for figure in FIGURES {
            let ends = spaces.iter().map(|space| &space[figure]["end"]);
            let end: i128 = ends.filter(|end| !end.is_null()).map(number).sum();
            let shown = &diff[side][figure];
            assert_eq!(number(&shown["end"]), end, "{figure} {side} of {pair}");
            if let [only] = spaces.as_slice() {
                assert_eq!(shown["peak"], only[figure]["peak"], "{figure} of {pair}");
            }
        }
        assert_eq!(diff[side]["events"], report["events"]);
    }
    for figure in FIGURES {
        for moment in ["end", "peak"] {
            let of = |side: &str| number(&diff[side][figure][moment]);
            assert_eq!(
                of("delta"),
                of("after") - of("before"),
                "{figure} of {pair}"
            );
        }
    }
    let sum = |list: &str, figure: Option<&str>| -> i128 {
        let changes = diff[list].as_array().expect("changes");
        let of_figure = changes
            .iter()
            .filter(|change| figure.is_none_or(|figure| change["figure"] == figure));
        of_figure.map(|change| number(&change["delta"])).sum()
    };
    for figure in ["reserved", "committed"] {
        let delta = &diff["delta"][figure];
        assert_eq!(
            sum("changes", Some(figure)),
            number(&delta["end"]),
            "{figure} of {pair}"
        );
        assert_eq!(
            sum("peak_changes", Some(figure)),
            number(&delta["peak"]),
            "peak of {figure} of {pair}"
        );
    }
    assert_eq!(
        sum("changes", None),
        number(&diff["delta"]["mapped"]["end"]),
        "{pair}"
    );
    for change in diff["changes"].as_array().expect("changes") {
        let of = |key: &str| number(&change[key]);
        assert_eq!(of("delta"), of("after") - of("before"), "{change}");
    }
    diff
}

#[test]
fn changes_add_up_for_every_pair_of_real_traces() {
    let traces = fixtures();
    assert!(9 <= traces.len(), "{traces:?}");
    for before in &traces {
        for after in &traces {
            let diff = adds_up(before, after);
            if before == after {
                assert_eq!(diff["same"], true, "{}", before.display());
                assert_eq!(diff["changes"], serde_json::json!([]));
            }
        }
    }
}

/// CI makes the traces anew (`fixtures/traces/make.sh`) and says where they are.
#[test]
fn traces_made_just_now_are_told_apart_as_the_kept_ones_are() {
    let Some(folder) = std::env::var_os("MEMTRACE_LIVE_TRACES").map(PathBuf::from) else {
        return support::skipped("MEMTRACE_LIVE_TRACES names no folder of them");
    };
    let live = |name: &str| folder.join(format!("{name}.mtr"));
    for (_, before, after) in GOLDEN {
        let diff = adds_up(&live(before), &live(after));
        assert_eq!(diff["same"], false, "{before} and {after}");
        // Other kernels and other files, and yet the sums must hold.
        for name in [before, after] {
            adds_up(&fixture(name), &live(name));
        }
        let report = report(&live(after));
        for space in report["spaces"].as_array().expect("spaces") {
            assert_eq!(space["verify"]["drift"], 0, "{after}: {space}");
        }
    }
}

/// What each golden pair is called.
const GOLDEN: [(&str, &str, &str); 3] = [
    ("go", "go-1.21.13", "go-1.25.5"),
    ("node", "node-20.18.0", "node-24.12.0"),
    ("java", "java-17.0.9.2", "java-21.0.8.2"),
];

#[test]
fn two_versions_of_a_runtime_are_told_apart_in_words() {
    for (name, before, after) in GOLDEN {
        let (status, text) = text(&[fixture(before).as_ref(), fixture(after).as_ref()]);
        assert_eq!(status, 1);
        insta::assert_snapshot!(format!("{name}_text"), text);
    }
}

#[test]
fn two_versions_of_a_runtime_are_told_apart_in_markdown() {
    for (name, before, after) in GOLDEN {
        let (before, after) = (fixture(before), fixture(after));
        let args = [
            "--format=markdown".as_ref(),
            before.as_ref(),
            after.as_ref(),
        ];
        insta::assert_snapshot!(format!("{name}_markdown"), text(&args).1);
    }
}

#[test]
fn two_versions_of_a_runtime_are_told_apart_in_json() {
    for (name, before, after) in GOLDEN {
        let (_, diff) = json(&fixture(before), &fixture(after));
        let text = serde_json::to_string_pretty(&diff).expect("JSON");
        insta::assert_snapshot!(format!("{name}_json"), text);
    }
}

/// Runs of a program, traced just now.
fn runs(folder: &Path, count: u32, program: &[&str]) -> Vec<PathBuf> {
    let pattern = folder.join("run%n.mtr");
    let count_text = count.to_string();
    let mut args = vec!["run", "-qq", "--runs", &count_text, "-o"];
    args.push(pattern.to_str().expect("UTF-8"));
    args.push("--");
    args.extend(program);
    let ended = command(&args);
    assert_eq!(ended.status(), 0, "{ended:?}");
    let traces: Vec<PathBuf> = (1..=count)
        .map(|run| folder.join(format!("run{run}.mtr")))
        .collect();
    assert!(traces.iter().all(|trace| trace.is_file()), "{traces:?}");
    traces
}

/// Runs a program twice: nothing changed, wherever the kernel put it.
#[track_caller]
fn two_runs_are_the_same(program: &[&str]) {
    if support::installed(program[0]).is_none() && !Path::new(program[0]).is_file() {
        return support::skipped(format_args!("no {}", program[0]));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let traces = runs(folder.path(), 2, program);
    let diff = adds_up(&traces[0], &traces[1]);
    assert_eq!(diff["same"], true, "{program:?}: {diff:#}");
}

#[test]
fn two_runs_of_ls_are_the_same() {
    two_runs_are_the_same(&["ls", "/"]);
}

#[test]
fn two_runs_of_python_are_the_same() {
    two_runs_are_the_same(&["python3", "-c", "import json"]);
}

#[test]
fn two_runs_of_node_are_the_same() {
    two_runs_are_the_same(&["node", "-e", "0"]);
}

#[test]
fn two_runs_of_many_threads_are_the_same() {
    let threads = support::tracee("threads");
    two_runs_are_the_same(&[threads.to_str().expect("UTF-8")]);
}

#[test]
fn two_runs_of_a_shell_with_children_are_the_same() {
    two_runs_are_the_same(&[
        "sh",
        "-c",
        "ls / >/dev/null; (true; ls -l / >/dev/null); echo",
    ]);
}

#[test]
fn another_program_is_a_change_however_often_it_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    std::fs::create_dir(&before).expect("a folder");
    std::fs::create_dir(&after).expect("a folder");
    let old = runs(&before, 3, &["ls", "/"]);
    let new = runs(&after, 3, &["sh", "-c", ":"]);
    let compare = |old: &[PathBuf], new: &[PathBuf]| {
        let mut args: Vec<&OsStr> = vec!["--before".as_ref()];
        args.extend(old.iter().map(AsRef::<OsStr>::as_ref));
        args.push("--after".as_ref());
        args.extend(new.iter().map(AsRef::<OsStr>::as_ref));
        text(&args)
    };
    let (status, text) = compare(&old, &new);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("3 runs and 3 runs"), "{text}");
    let (status, text) = compare(&old[..2], &old[2..]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("no change"), "{text}");
}

#[test]
fn what_cannot_be_compared_is_said_in_one_line() {
    let some = fixture("python3");
    let some = some.to_str().expect("UTF-8");
    for (args, message) in [
        (
            vec!["diff", some, "/nowhere.mtr"],
            "cannot read /nowhere.mtr",
        ),
        (vec!["diff", "/dev/null", some], "cannot read /dev/null"),
        (vec!["diff", some], "which two?"),
        (vec!["diff", some, some, some], "which two?"),
        (vec!["diff", "--before", some], "no --after"),
        (
            vec!["diff", "--json", "--format", "markdown", some, some],
            "choose one",
        ),
    ] {
        let ended = command(&args);
        assert_eq!(ended.status(), 2, "{args:?}");
        assert!(ended.one_line().contains(message), "{args:?}: {ended:?}");
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn several_runs_need_a_name_each_and_the_first_failure_is_the_status() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let name = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    for args in [
        vec!["run", "--runs", "2", "-o", "same.mtr", "true"],
        vec!["run", "--runs", "2", "true"],
        vec!["--runs", "2", "-o", "a%n", "-p", "1"],
        vec!["run", "--runs", "0", "-o", "a%n", "true"],
    ] {
        let ended = command(&args);
        assert_eq!(ended.status(), 125, "{args:?}");
        assert!(!ended.one_line().is_empty());
    }
    let script = format!(
        "test -e {0} && exit 5; test -e {1} && {{ touch {0}; exit 3; }}; touch {1}",
        name("b"),
        name("a")
    );
    let pattern = name("run%n.mtr");
    let ended = command(&[
        "run", "--runs", "3", "-qq", "-o", &pattern, "sh", "-c", &script,
    ]);
    assert_eq!(ended.status(), 3, "{ended:?}");
    assert!(folder.path().join("run3.mtr").is_file());
    assert!(ended.stderr.is_empty(), "-qq prints nothing: {ended:?}");
}

#[test]
fn two_runs_with_stacks_are_the_same_and_changes_name_who_made_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let record = |name: &str, case: &str| {
        let trace = folder.path().join(name);
        let program = support::tracee("limits");
        let ended = command(&[
            "-q".as_ref(),
            "-k".as_ref(),
            "-o".as_ref(),
            trace.as_os_str(),
            "--".as_ref(),
            program.as_os_str(),
            case.as_ref(),
        ]);
        assert_eq!(ended.status(), 0, "{ended:?}");
        trace
    };
    let [one, two] = ["one", "two"].map(|name| record(name, "hole"));
    let (status, diff) = json(&one, &two);
    assert_eq!((status, &diff["same"]), (0, &Value::Bool(true)), "{diff:#}");
    let other = record("other", "data-mmap");
    let diff = adds_up(&one, &other);
    let changes = diff["changes"].as_array().expect("changes");
    let new = changes.iter().find(|change| change["kind"] == "new");
    let new = new.expect("its mappings are new");
    assert!(new["owner"]["after"].is_string(), "{new:#}");
    let (_, text) = text(&[one.as_ref(), other.as_ref()]);
    let owner = new["owner"]["after"].as_str().unwrap_or_default();
    assert!(text.contains(&format!("of {owner}")), "{text}");
}
