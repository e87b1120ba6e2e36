//! `--backend kernel`: the same told as by ptrace, of programs that nothing stops.

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "one test asks whether a process can be traced"
)]

mod support;

use serde_json::Value;
use std::fs;
use std::path::Path;
use support::*;

const KERNEL: &[&str] = &["--backend", "kernel"];

/// Whether the kernel can be asked here; says so if not.
fn is_offered() -> bool {
    let tried = run(&mut memtrace(
        &["-qq", "--backend", "kernel"],
        &["/bin/true"],
    ));
    if tried.stderr.contains("cannot observe here") {
        skipped(tried.stderr.trim());
        return false;
    }
    assert_eq!(tried.status(), 0, "{}", tried.stderr);
    true
}

/// Attaches by the kernel's means, and waits until the process is watched.
fn watching(pid: i32, log: &Path) -> Attached {
    let log_name = log.to_str().expect("UTF-8");
    let options = [KERNEL, &["--format", "jsonl", "--log", log_name]].concat();
    let attached = Attached::begin(&[pid], &options);
    until("memtrace is watching", || {
        fs::read_to_string(log).is_ok_and(|log| log.contains("\"attach\""))
    });
    attached
}

/// As exact as can be told where nothing stands still at its end: no last look at what ended.
#[track_caller]
fn assert_exact_but_for_ends(report: &Report) {
    let mut problems = report.problems();
    let end = [UNSEEN, UNCHECKED, "resident is"];
    problems.retain(|problem| !end.iter().any(|end| problem.contains(end)));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Watches for a while, stops by `signal`, and wants everything as before.
#[track_caller]
fn comes_and_goes(threads: usize, mode: &str, signal: i32) {
    if !is_offered() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let target = Target::start(threads, mode);
    let attached = watching(target.pid(), &folder.path().join("log"));
    target.advances();
    assert_eq!(tracer_of(target.pid()), Some(0), "it is nobody's tracee");
    let Traced { ended, report } = attached.stop(signal);
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
    assert_eq!(report.0["backend"], "kernel");
    let space = &report.spaces()[0];
    assert_eq!(
        (&space["began"], &space["ended"]),
        (&"attach".into(), &"detach".into())
    );
    target.is_untouched();
    target.ends_well();
}

#[test]
fn a_running_process_is_watched_and_left() {
    comes_and_goes(1, "work", libc::SIGINT);
}

#[test]
#[ignore = "ending takes too long while several threads make calls without a pause"]
fn all_threads_are_watched_and_left() {
    comes_and_goes(2, "work", libc::SIGTERM);
}

#[test]
#[ignore = "ending takes too long while several threads make calls without a pause"]
fn threads_being_created_meanwhile_are_watched() {
    comes_and_goes(1, "churn", libc::SIGINT);
}

/// What both backends must tell of a call: not where the kernel put things.
fn calls(options: &[&str], program: &[&str]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let log_name = log.to_str().expect("UTF-8");
    let options = [options, &["-q", "--format", "jsonl", "--log", log_name]].concat();
    let ended = run(&mut memtrace(&options, program));
    assert_eq!(ended.status(), 0, "{}", ended.stderr);
    let log = fs::read_to_string(&log).expect("a log");
    let mut spaces: Vec<Vec<String>> = Vec::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).expect("a line of JSON");
        if event["type"] == "call" {
            let index = event["space"].as_u64().expect("a space") as usize;
            spaces.resize(spaces.len().max(index + 1), Vec::new());
            let [name, error, delta, now] =
                ["name", "error", "delta", "now"].map(|key| &event[key]);
            let args = ["length", "prot", "flags", "fd_path", "advice"];
            let args = args.map(|key| event["args"][key].to_string()).join(" ");
            spaces[index].push(format!("{name} {args} {error} {delta} {now}"));
        }
    }
    spaces
}

#[test]
fn a_single_thread_is_told_of_as_by_ptrace() {
    if !is_offered() {
        return;
    }
    let pairs = tracee("pairs");
    let programs: [&[&str]; 3] = [
        &["/bin/true"],
        &["/bin/sh", "-c", "ls / >/dev/null; ls /proc >/dev/null"],
        &[pairs.to_str().expect("UTF-8"), "500"],
    ];
    for program in programs {
        let by_ptrace = calls(&["--backend", "ptrace"], program);
        let by_kernel = calls(KERNEL, program);
        assert_eq!(by_kernel.len(), by_ptrace.len(), "{program:?}");
        for (space, (kernel, ptrace)) in by_kernel.iter().zip(&by_ptrace).enumerate() {
            assert_eq!(kernel, ptrace, "{program:?}, space {space}");
        }
    }
}

#[test]
fn storms_of_threads_and_forks_leave_no_drift() {
    if !is_offered() {
        return;
    }
    let lines: [&[&str]; 4] = [
        &["threads", "4", "2000", "storm"],
        &["threads", "4", "300", "arenas"],
        &["threads", "3", "100", "forks"],
        &["forkstorm", "150"],
    ];
    for line in lines {
        let program = tracee(line[0]);
        let mut words = vec![program.to_str().expect("UTF-8")];
        words.extend(&line[1..]);
        let Traced { ended, report } = traced(&[&["-q"], KERNEL].concat(), &words);
        assert_eq!(ended.status(), 0, "{line:?}: {}", ended.stderr);
        assert_exact_but_for_ends(&report);
    }
}

#[test]
fn a_launched_program_is_let_go_and_runs_on() {
    if !is_offered() {
        return;
    }
    let options = [KERNEL, &["--duration", "2s"]].concat();
    let Traced { ended, report } = traced(&options, &["/bin/sh", "-c", "echo $$; exec sleep 60"]);
    assert_eq!(ended.status(), 0, "{}", ended.stderr);
    assert_exact_but_for_ends(&report);
    let last = report.spaces().last().expect("a space");
    assert_eq!(last["ended"], "detach");
    assert_eq!(
        last["verify"]["checks"].as_u64().map(|checks| 0 < checks),
        Some(true)
    );
    let pid: i32 = ended.stdout.trim().parse().expect("a process id");
    assert!(is_alive(pid), "it runs on");
    assert_eq!(tracer_of(pid), Some(0));
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

#[test]
fn exit_statuses_are_the_programs_own() {
    if !is_offered() {
        return;
    }
    let status =
        |program: &[&str]| run(&mut memtrace(&[&["-qq"], KERNEL].concat(), program)).status();
    assert_eq!(status(&["/bin/sh", "-c", "exit 7"]), 7);
    assert_eq!(status(&["/bin/sh", "-c", "kill -9 $$"]), 128 + 9);
    assert_eq!(status(&["/nonexistent/program"]), 127);
    assert_eq!(status(&["/etc/passwd"]), 126);
}

#[test]
fn a_process_that_is_traced_already_can_be_watched() {
    if !is_offered() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let target = Target::start(1, "sleep");
    let tracer = Attached::to(&[target.pid()], &["--backend", "ptrace"]);
    let watcher = watching(target.pid(), &folder.path().join("log"));
    target.advances();
    let Traced { ended, report } = watcher.stop(libc::SIGINT);
    assert_eq!(ended.status(), 0, "{}", ended.stderr);
    assert_exact_but_for_ends(&report);
    tracer.stop(libc::SIGINT);
}

#[test]
fn a_killed_memtrace_leaves_nothing_behind() {
    if !is_offered() {
        return;
    }
    let mounts = || fs::read_to_string("/proc/self/mounts").expect("mounts");
    let before = mounts();
    let folder = tempfile::tempdir().expect("a folder");
    let target = Target::start(4, "churn");
    let attached = watching(target.pid(), &folder.path().join("log"));
    assert_eq!(
        mounts(),
        before,
        "tracefs is mounted where nobody else sees it"
    );
    attached.kill();
    target.advances();
    assert_eq!(tracer_of(target.pid()), Some(0));
    assert_eq!(mounts(), before);
    target.ends_well();
}
