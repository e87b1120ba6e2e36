//! `memtrace export --to jsonl`, and lines of JSON where a trace is asked for.

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::*;

/// What `memtrace WORDS FILE` prints, which must succeed.
#[track_caller]
fn printed(words: &[&str], file: &Path) -> String {
    let ended = run(memtrace::<&OsStr>(words, &[]).arg(file));
    assert_eq!(ended.status(), 0, "{words:?}: {ended:?}");
    ended.stdout
}

/// Exports a trace; reading the lines must tell what reading the trace tells, to the byte.
#[track_caller]
fn comes_back(trace: &Path, folder: &Path) -> PathBuf {
    let lines = folder.join("lines.jsonl");
    let exported = printed(&["export", "--to", "jsonl"], trace);
    fs::write(&lines, &exported).expect("a file");
    let name = trace.display();
    for words in [&["report"][..], &["report", "--json"]] {
        let (of_trace, of_lines) = (printed(words, trace), printed(words, &lines));
        assert_eq!(of_lines, of_trace, "{words:?} of {name}");
    }
    let again = printed(&["export", "--to", "jsonl"], &lines);
    assert!(again == exported, "{name} changes when exported again");
    let report: serde_json::Value =
        serde_json::from_str(&printed(&["report", "--json"], trace)).expect("JSON");
    let last = exported.lines().last().expect("there are lines");
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(last["report"], report, "the last line of {name}");
    lines
}

/// Records a program both ways at once: the live lines must be those of the export.
#[track_caller]
fn live_and_recorded(name: &str, args: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (trace, log) = (folder.path().join("a.mtr"), folder.path().join("a.jsonl"));
    let mut program = vec![tracee(name).into_os_string()];
    program.extend(args.iter().map(OsString::from));
    let options = ["-o", trace.to_str().expect("UTF-8"), "--format", "jsonl"];
    let mut command = memtrace::<&OsStr>(&options, &[]);
    run(command.arg("--log").arg(&log).arg("--").args(&program));
    let lines = comes_back(&trace, folder.path());
    let (live, exported) = (fs::read(log).expect("the log"), fs::read(lines));
    assert!(
        live == exported.expect("lines"),
        "{name}: live lines differ"
    );
}

#[test]
fn traces_of_programs_come_back_from_lines_to_the_byte() {
    for (name, args) in [
        ("vma", &[][..]),
        ("clones", &[]),
        ("execs", &[]),
        ("forkstorm", &["40"]),
        ("signals", &[]),
        ("uffd", &[]),
    ] {
        live_and_recorded(name, args);
    }
}

#[test]
fn the_recorded_traces_of_runtimes_come_back_from_lines_to_the_byte() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    for entry in fs::read_dir(traces).expect("the folder of traces") {
        let path = entry.expect("a directory entry").path();
        if path.extension().is_some_and(|ending| ending == "mtr") {
            comes_back(&path, folder.path());
        }
    }
}

#[test]
fn unfinished_calls_of_the_strace_format_come_back_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (trace, log) = (folder.path().join("a.mtr"), folder.path().join("log"));
    let options = ["-o", trace.to_str().expect("UTF-8"), "--format", "strace"];
    let mut command = memtrace::<&OsStr>(&options, &[]);
    run(command
        .arg("--log")
        .arg(&log)
        .arg("--")
        .arg(tracee("signals")));
    comes_back(&trace, folder.path());
}

#[test]
fn a_damaged_trace_is_exported_up_to_the_damage_and_the_lines_say_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces/format-1.1.mtr");
    let mut bytes = fs::read(whole).expect("the trace");
    bytes.truncate(bytes.len() - 1);
    let trace = folder.path().join("cut.mtr");
    fs::write(&trace, bytes).expect("a file");
    let ended = run(memtrace::<&OsStr>(&["export", "--to", "jsonl"], &[]).arg(&trace));
    assert_eq!(ended.status(), 0, "{ended:?}");
    assert!(ended.one_line().contains("incomplete"), "{ended:?}");
    let lines = comes_back_damaged(&trace, folder.path(), &ended.stdout);
    assert!(lines.contains("the trace is incomplete"), "{lines}");
}

#[track_caller]
fn comes_back_damaged(trace: &Path, folder: &Path, exported: &str) -> String {
    let lines = folder.join("lines.jsonl");
    fs::write(&lines, exported).expect("a file");
    let report = printed(&["report"], &lines);
    assert_eq!(report, printed(&["report"], trace));
    report
}

#[test]
fn lines_that_somebody_left_out_are_missed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces/python3.mtr");
    let exported = printed(&["export", "--to", "jsonl"], &whole);
    let kept: String = exported
        .lines()
        .filter(|line| !line.contains("\"name\":\"munmap\""))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_ne!(kept, exported);
    let lines = folder.path().join("few.jsonl");
    fs::write(&lines, kept).expect("a file");
    let report = printed(&["report"], &lines);
    assert!(report.contains("lines are missing"), "{report}");
}

#[test]
fn lines_come_through_a_pipe() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces/python3.mtr");
    let lines = printed(&["export", "--to", "jsonl"], &whole).into_bytes();
    let trace = fs::read(&whole).expect("the trace");
    for input in [lines, trace] {
        let mut reader = Command::new(env!("CARGO_BIN_EXE_memtrace"))
            .args(["report", "/dev/stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("memtrace starts");
        let mut pipe = reader.stdin.take().expect("a pipe");
        pipe.write_all(&input).expect("it is read");
        drop(pipe);
        let output = reader.wait_with_output().expect("it ends");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(text, printed(&["report"], &whole));
    }
}

#[test]
fn an_export_never_writes_over_its_own_trace_and_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces/python3.mtr");
    let trace = folder.path().join("a.mtr");
    fs::copy(fixture, &trace).expect("a copy");
    let other_name = folder
        .path()
        .join("../")
        .join(folder.path())
        .join("./a.mtr");
    let export = |output: &Path| {
        let mut command = memtrace::<&OsStr>(&["export", "--to", "jsonl", "-o"], &[]);
        run(command.arg(output).arg(&trace))
    };
    let before = fs::read(&trace).expect("the trace");
    for output in [&trace, &other_name] {
        let ended = export(output);
        assert_eq!(ended.status(), 2, "{ended:?}");
        assert!(ended.one_line().contains("write over"), "{ended:?}");
        assert_eq!(fs::read(&trace).expect("the trace"), before);
    }
    let lines = folder.path().join("a.jsonl");
    assert_eq!(export(&lines).status(), 0);
    let mode = fs::metadata(lines).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[test]
fn what_cannot_be_exported_is_said_in_one_line() {
    let nowhere = "/nonexistent/folder/out.jsonl";
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces/python3.mtr");
    let fixture = fixture.to_str().expect("UTF-8");
    for (words, said) in [
        (&["export"][..], "export to what?"),
        (&["export", "--to", "jsonl"], "which trace?"),
        (&["export", "--to", "xml", fixture], "xml"),
        (&["export", "--to", "jsonl", "/nonexistent"], "/nonexistent"),
        (
            &["export", "--to", "jsonl", "-o", nowhere, fixture],
            nowhere,
        ),
    ] {
        let ended = run(&mut memtrace::<&OsStr>(words, &[]));
        assert_eq!(ended.status(), 2, "{words:?}: {ended:?}");
        assert!(ended.one_line().contains(said), "{words:?}: {ended:?}");
    }
}

#[test]
fn calls_that_are_not_shown_are_no_call_lines_and_yet_not_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (trace, log) = (folder.path().join("a.mtr"), folder.path().join("a.jsonl"));
    let mut command = memtrace::<&OsStr>(&["-e", "munmap", "--format", "jsonl"], &[]);
    command.arg("-o").arg(&trace).arg("--log").arg(&log);
    run(command.arg("--").arg(tracee("vma")).arg("mmap"));
    let lines = fs::read_to_string(&log).expect("the log");
    let calls: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &serde_json::Value| line["type"] == "call")
        .collect();
    assert!(!calls.is_empty(), "{lines}");
    assert!(calls.iter().all(|call| call["name"] == "munmap"), "{lines}");
    let report = |file| printed(&["report", "--json"], file);
    assert_eq!(report(&log), report(&trace));
}
