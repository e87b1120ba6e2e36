//! `--backend kernel`: the same told as by ptrace, of programs that nothing stops.

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "one test asks whether a process can be traced"
)]

mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use support::*;

const KERNEL: &[&str] = &["--backend", "kernel"];

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

/// Not optimized, memtrace does not keep up with threads that call without a pause: at its end it counts
/// what it has no time to tell, and takes the kernel's map over.
const UNOPTIMIZED: &[&str] = match cfg!(debug_assertions) {
    true => &["events lost", "resynced"],
    false => &[],
};

#[track_caller]
fn assert_exact_but_for(report: &Report, known: &[&str]) {
    let mut problems = report.problems();
    problems.retain(|problem| !known.iter().any(|known| problem.contains(known)));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// As exact as can be told where nothing stands still at its end: no last look at what ended.
#[track_caller]
fn assert_exact_but_for_ends(report: &Report) {
    let ends = [&[UNSEEN, UNCHECKED, INEXACT, "resident is"], UNOPTIMIZED].concat();
    assert_exact_but_for(report, &ends);
}

/// Watches for a while, stops by `signal`, and wants everything as before.
#[track_caller]
fn comes_and_goes(threads: usize, mode: &str, signal: i32) {
    if !kernel_is_offered() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let target = Target::start(threads, mode);
    let attached = watching(target.pid(), &folder.path().join("log"));
    target.advances();
    assert_eq!(tracer_of(target.pid()), Some(0), "it is nobody's tracee");
    let Traced { ended, report } = attached.stop(signal);
    assert_eq!(ended.status(), 0, "{ended:?}");
    assert_exact_but_for(&report, UNOPTIMIZED);
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
fn all_threads_are_watched_and_left() {
    comes_and_goes(2, "work", libc::SIGTERM);
}

#[test]
fn threads_being_created_meanwhile_are_watched() {
    comes_and_goes(1, "churn", libc::SIGINT);
}

#[test]
fn stacks_are_recorded_although_threads_end_meanwhile() {
    if !kernel_is_offered() {
        return;
    }
    let target = Target::start(4, "churn");
    for _ in 0..5 {
        let options = [KERNEL, &["-k", "--touch", "--duration", "100ms"]].concat();
        let Traced { ended, report } = Attached::begin(&[target.pid()], &options).end();
        assert_eq!(ended.status(), 0, "{ended:?}");
        assert_eq!(report.0["backend"], "kernel");
    }
    target.is_untouched();
    target.ends_well();
}

#[test]
fn a_sleeping_process_sleeps_on() {
    if !kernel_is_offered() {
        return;
    }
    let target = Target::start(1, "sleep");
    for _ in 0..5 {
        let options = [KERNEL, &["--duration", "100ms"]].concat();
        let Traced { ended, report } = Attached::begin(&[target.pid()], &options).end();
        assert_eq!(ended.status(), 0, "{ended:?}");
        report.assert_exact();
    }
    // No call was cut short, also not by the moments in which the maps were read.
    target.is_untouched();
    target.ends_well();
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
    if !kernel_is_offered() {
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
    if !kernel_is_offered() {
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

/// Whether the kernel's books can be listened to: by who is asked for `kernel_is_offered`.
fn books_are_open() -> bool {
    let program = tracee("pairs");
    let Traced { report, .. } = traced(&[&["-q"], KERNEL].concat(), &[&program]);
    let open = !report.spaces()[0]["verify"]["kernel_peak"].is_null();
    if !open {
        skipped("taskstats: not in the first namespaces, or no CAP_NET_ADMIN");
    }
    open
}

#[test]
fn the_peaks_of_what_ended_are_those_of_the_kernels_own_books() {
    if !kernel_is_offered() || !books_are_open() {
        return;
    }
    // They fork, share spaces, let stacks grow and call execve.
    for name in [
        "forkstorm",
        "clones",
        "commit",
        "growstack",
        "execs",
        "filters",
    ] {
        let Traced { ended, report } = traced(&[&["-q"], KERNEL].concat(), &[&tracee(name)]);
        let mut checked = 0;
        for space in report
            .spaces()
            .iter()
            .filter(|space| space["ended"] == "exit")
        {
            let (here, kernel) = (&space["mapped"]["peak"], &space["verify"]["kernel_peak"]);
            // Of what threads do at the same time, records do not tell the order.
            match space["threads"]["total"] == 1 {
                true => assert_eq!(here, kernel, "{name}: {space}"),
                false => {
                    let off = bytes(here).abs_diff(bytes(kernel));
                    assert!(off <= 256 << 10, "{name}: {space}");
                }
            }
            let (resident, parts) = (&space["resident"]["peak"], &space["resident"]["peak_exact"]);
            assert!(
                0 < bytes(resident) && bytes(resident) <= bytes(here),
                "{name}: {space}"
            );
            assert_eq!(parts, true, "{name}: {space}");
            checked += 1;
        }
        assert!(0 < checked, "{name}: {ended:?}");
    }
}

#[test]
fn calls_that_no_tracepoint_shows_are_found_by_the_kernels_books() {
    if !kernel_is_offered() || !books_are_open() {
        return;
    }
    let program = tracee("int80");
    let untraced = run(Command::new(&program).arg("old_mmap"));
    if untraced.status() != 0 {
        return skipped("this kernel has no int $0x80");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let trace = trace.to_str().expect("UTF-8");
    let options = [KERNEL, &["-qq", "-o", trace]].concat();
    assert_eq!(run(&mut memtrace(&options, &[&program])).status(), 0);
    let text = run(&mut memtrace::<&str>(&["report", trace], &[])).stdout;
    assert!(
        text.contains("INEXACT: ") && text.contains("peaks differ from the kernel's"),
        "{text}"
    );
}

#[test]
fn a_launched_program_is_let_go_and_runs_on() {
    if !kernel_is_offered() {
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
    if !kernel_is_offered() {
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
    if !kernel_is_offered() {
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
    let note = report.0["notes"].to_string();
    let by = format!("traced by memtrace ({})", tracer.running.pid());
    assert!(note.contains(&by), "who traces it is not told: {note}");
    tracer.stop(libc::SIGINT);
}

#[test]
fn a_killed_memtrace_leaves_nothing_behind() {
    if !kernel_is_offered() {
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

/// A program that fills memory of one kind and drops it again, twice.
const FILLS: &str = "
import mmap, time
for round in range(2):
    private = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    shared = mmap.mmap(-1, 32 << 20)
    for m in (private, shared):
        for page in range(0, len(m), 4096): m[page] = 1
    private.close()
    shared.close()
    time.sleep(0.05)
";

#[test]
fn what_is_resident_is_told_as_the_kernel_counts_it() {
    if !kernel_is_offered() {
        return;
    }
    let Ok(python) = Command::new("python3").arg("-V").output() else {
        return skipped("no python3");
    };
    assert!(python.status.success());
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let options = [
        "-q",
        "--resident",
        "--format",
        "jsonl",
        "--log",
        log.to_str().expect("UTF-8"),
    ];
    let Traced { ended, report } = traced(&options, &["/usr/bin/env", "python3", "-c", FILLS]);
    assert_eq!(ended.status(), 0, "{}", ended.stderr);
    assert_eq!(report.0["backend"], "kernel");
    let log = fs::read_to_string(&log).expect("a log");
    let samples: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .filter(|event: &Value| event["type"] == "sample")
        .collect();
    let most = |kind: &str| {
        samples
            .iter()
            .filter_map(|sample| sample[kind].as_u64())
            .max()
    };
    let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes >> 20);
    let anon = mib(most("anon")).expect("samples");
    assert!((64..96).contains(&anon), "{anon} MiB of private pages");
    assert_eq!(mib(most("shmem")), Some(32));
    for sample in &samples {
        let kinds = ["anon", "file", "shmem"].map(|kind| sample[kind].as_u64());
        let sum: Option<u64> = kinds.into_iter().sum();
        assert_eq!(sample["resident"].as_u64(), sum, "{sample}");
    }
    // What it dropped between the rounds was seen, too.
    let low = |sample: &&Value| sample["shmem"] == 0;
    let first = samples
        .iter()
        .position(|sample| sample["shmem"] != 0)
        .expect("filled");
    assert!(
        samples[first..].iter().filter(low).count() >= 2,
        "{samples:?}"
    );
    let space = report.spaces().last().expect("a space");
    let peak = mib(space["resident"]["peak"].as_u64()).expect("a peak");
    assert!((96..144).contains(&peak), "{peak} MiB at the peak");
}

// ── which of the two ────────────────────────────────────────────────────────────────────────────────────

/// The life of the reservation of tracees/touch.rs, in a trace of this name; and how many bytes of it
/// are resident, as smaps has it.
fn life_of_touched(options: &[&str], name: &str) -> (Value, u64) {
    let options = [options, &["-qq", "--touch", "-o", name]].concat();
    let ended = run(&mut memtrace(&options, &[tracee("touch")]));
    assert_eq!(ended.status(), 0, "{}", ended.stderr);
    let (at, resident) = ended.stdout.trim().split_once(' ').expect("two numbers");
    let resident: u64 = resident.parse().expect("a number");
    assert_eq!(resident, 1301 * 4096, "what the program does");

    let report = ["report", "--by", "reservation", "--json", name];
    let reported = run(&mut memtrace::<&str>(&report, &[]));
    let lives: Value = serde_json::from_str(&reported.stdout).expect("JSON");
    let lives = lives["reservations"].as_array().expect("a list");
    let life = lives.iter().find(|life| life["start"] == at);
    let life = life.unwrap_or_else(|| panic!("{at} is none of {lives:#?}"));
    (life.clone(), resident)
}

#[test]
fn what_was_touched_of_a_reservation_is_what_is_resident_of_it() {
    if !kernel_is_offered() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let name = trace.to_str().expect("UTF-8");
    let (life, resident) = life_of_touched(&[], name);
    let touched = &life["touched"];
    if touched["recorded"] != touched["faults"] {
        return skipped("this machine takes too many page faults to record each");
    }
    assert_eq!(touched["bytes"], resident);
    assert_eq!(touched["faults"], 1301);
    let by = |index: usize| &life["touchers"][index]["touched"]["bytes"];
    assert_eq!(by(0), 1001 * 4096, "the first thread");
    assert_eq!(by(1), 300 * 4096, "the second");
    for by in ["mapping", "thread", "file"] {
        let report = ["report", "--by", by, "--json", name];
        let reported = run(&mut memtrace::<&str>(&report, &[]));
        let table: Value = serde_json::from_str(&reported.stdout).expect("JSON");
        let rows = table["rows"].as_array().expect("rows");
        let mut told = rows
            .iter()
            .filter_map(|row| row["touched"]["bytes"].as_u64());
        let found = match by {
            // It touches its own stack, too.
            "thread" => told.any(|bytes| (300 * 4096..400 * 4096).contains(&bytes)),
            _ => told.any(|bytes| resident <= bytes),
        };
        assert!(found, "{by}: {table:#}");
    }
}

#[test]
fn it_is_told_who_reserved_who_committed_and_who_touched() {
    if !kernel_is_offered() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let name = trace.to_str().expect("UTF-8");
    let (life, resident) = life_of_touched(&["-k"], name);
    let reserver = life["reserver"].to_string();
    assert!(reserver.contains("touch::main"), "{reserver}");
    let committer = life["committers"][0]["by"].to_string();
    assert!(committer.contains("touch::main"), "{committer}");
    if life["touched"]["recorded"] != life["touched"]["faults"] {
        return skipped("this machine takes too many page faults to record each");
    }
    let touchers = life["touchers"].as_array().expect("a list");
    let sum = |of: &dyn Fn(&str, u64) -> bool| -> u64 {
        let those = touchers.iter().filter(|toucher| {
            let stacks = toucher["stacks"].as_u64().expect("a number");
            of(&toucher["by"].to_string(), stacks)
        });
        those
            .map(|toucher| bytes(&toucher["touched"]["bytes"]))
            .sum()
    };
    assert_eq!(
        sum(&|_, _| true),
        resident,
        "each page has one: {touchers:#?}"
    );
    // Stacks are sampled; what comes after the last is told by thread.
    let known = sum(&|by, stacks| 0 < stacks && by.contains("::touch"));
    assert!(resident / 2 < known, "{known} of {resident}: {touchers:#?}");
    let of_main = sum(&|by, stacks| 0 < stacks && by.contains("touch::main\""));
    assert!(
        (500 * 4096..=1001 * 4096).contains(&of_main),
        "{touchers:#?}"
    );
}

/// Who owns how much, by `report --by owner`.
fn owners(options: &[&str], program: &[&str]) -> Vec<(String, u64)> {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let name = trace.to_str().expect("UTF-8");
    let options = [options, &["-qq", "-k", "-o", name]].concat();
    let ended = run(&mut memtrace(&options, program));
    assert_eq!(ended.status(), 0, "{}", ended.stderr);
    let report = ["report", "--by", "stack", "-n", "0", "--json", name];
    let reported = run(&mut memtrace::<&str>(&report, &[]));
    let table: Value = serde_json::from_str(&reported.stdout).expect("JSON");
    let rows = table["rows"].as_array().expect("rows");
    let mut owners: Vec<(String, u64)> = rows
        .iter()
        .map(|row| {
            let steps = row["stack"].as_array().expect("a stack");
            let names = steps.iter().map(|step| step["name"].to_string());
            (names.collect::<Vec<_>>().join(" "), bytes(&row["calls"]))
        })
        .collect();
    owners.sort();
    owners
}

#[test]
fn the_same_stacks_are_told_as_by_ptrace() {
    if !kernel_is_offered() {
        return;
    }
    let pairs = tracee("pairs");
    let program = [pairs.to_str().expect("UTF-8"), "100"];
    let by_ptrace = owners(&["--backend", "ptrace"], &program);
    let by_kernel = owners(KERNEL, &program);
    assert!(2 < by_ptrace.len(), "{by_ptrace:#?}");
    assert_eq!(by_kernel, by_ptrace);
}

/// What memtrace says when it attaches with these options and is ended.
#[track_caller]
fn said(target: &Target, options: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let pid = target.pid().to_string();
    let mut all = vec!["-p", &pid, "--duration", "300ms", "--log"];
    all.push(log.to_str().expect("UTF-8"));
    all.extend(options);
    let ended = run(&mut memtrace::<&str>(&all, &[]));
    assert_eq!(ended.status(), 0, "{}", ended.stderr);
    let is_about = |line: &&str| line.starts_with("memtrace: backend");
    let lines: Vec<&str> = ended.stderr.lines().filter(is_about).collect();
    assert!(lines.len() <= 1, "{lines:?}");
    lines.concat()
}

#[test]
fn a_running_process_is_watched_by_the_kernel_unless_only_a_tracer_can_tell() {
    if !kernel_is_offered() {
        return;
    }
    let target = Target::start(1, "work");
    assert!(said(&target, &[]).starts_with("memtrace: backend kernel: nothing is stopped"));
    assert_eq!(said(&target, &["-q"]), "", "-q is quiet");
    assert_eq!(said(&target, KERNEL), "", "who says it knows it");
    for options in [&["--verify=every"][..], &["--format", "strace"]] {
        let line = said(&target, options);
        let name = options[0].split('=').next().expect("an option");
        assert!(line.starts_with("memtrace: backend ptrace: "), "{line}");
        assert!(line.contains(name), "{options:?}: {line}");
    }
    target.is_untouched();
    target.ends_well();
}

/// memtrace as a user who may do nothing in particular, on a process of that user.
fn as_nobody(folder: &Path, options: &[&str], pid: i32) -> Ended {
    let pid = pid.to_string();
    let copy = for_everybody(folder);
    let mut command = Command::new(copy);
    command
        .args(options)
        .args(["--duration", "100ms", "-p", &pid]);
    run(command.current_dir("/").uid(65534).gid(65534))
}

#[test]
fn without_privileges_it_says_what_is_missing_or_is_a_tracer() {
    if !is_root() {
        return skipped("only root can be two users");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut sleep = Command::new("/bin/sleep");
    let target = Running::start(sleep.arg("100").uid(65534).gid(65534).current_dir("/"));
    let ended = as_nobody(folder.path(), &["-q", "--backend", "kernel"], target.pid());
    assert_eq!(ended.status(), 125, "{ended:?}");
    let line = ended.one_line();
    assert!(
        line.contains("cannot observe here") && line.contains("run as root"),
        "{line}"
    );
    let ended = as_nobody(folder.path(), &[], target.pid());
    assert_eq!(ended.status(), 0, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("memtrace: backend ptrace: every call is stopped, as the kernel"),
        "{}",
        ended.stderr
    );
}

// ── refusals ────────────────────────────────────────────────────────────────────────────────────────────

#[track_caller]
fn refused(options: &[&str], pid: i32) -> String {
    let pid = pid.to_string();
    let all = [&["-q", "-p", &pid], options].concat();
    let ended = run(&mut memtrace::<&str>(&all, &[]));
    assert_eq!(ended.status(), 125, "{ended:?}");
    ended.one_line().to_owned()
}

#[test]
fn what_has_no_address_space_is_refused_in_one_line() {
    if !kernel_is_offered() {
        return;
    }
    if status_line(2, "Name").as_deref() == Some("kthreadd") {
        let line = refused(KERNEL, 2);
        assert!(line.contains("kernel thread"), "{line}");
    }
    let mut zombie = Command::new("/bin/true").spawn().expect("true");
    let pid = zombie.id() as i32;
    until("it is a zombie", || state_of(pid) == Some('Z'));
    assert!(refused(KERNEL, pid).contains("zombie"));
    zombie.wait().expect("true ended");
    assert!(refused(KERNEL, pid).contains("no such process"));
}

#[test]
fn a_32_bit_program_is_refused_and_left_to_ptrace() {
    if !kernel_is_offered() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (source, program) = (folder.path().join("wait.c"), folder.path().join("wait"));
    // pause(2), for which nobody needs a library.
    let text = "void _start(void) { for (;;) __asm__ volatile(\"int $0x80\" :: \"a\"(29)); }";
    fs::write(&source, text).expect("a source");
    let mut compile = Command::new("gcc");
    compile.args(["-m32", "-nostdlib", "-static", "-fno-pie", "-no-pie", "-o"]);
    let compiled = compile.arg(&program).arg(&source).output();
    if !compiled.is_ok_and(|compiled| compiled.status.success()) {
        return skipped("gcc does not compile for 32 bits");
    }
    let mut target = Running::start(&mut Command::new(&program));
    if target.has_ended() {
        return skipped("this kernel does not run 32-bit programs");
    }
    let line = refused(KERNEL, target.pid());
    assert!(line.contains("32-bit") && line.contains("ptrace"), "{line}");
    let pid = target.pid().to_string();
    let ended = run(&mut memtrace::<&str>(
        &["--duration", "100ms", "-p", &pid],
        &[],
    ));
    assert_eq!(ended.status(), 0, "{ended:?}");
    let line = format!("backend ptrace: every call is stopped, as {pid} is a 32-bit program");
    assert!(ended.stderr.contains(&line), "{}", ended.stderr);
}

#[test]
fn rings_that_do_not_fit_into_the_limit_are_refused_in_one_line() {
    if !kernel_is_offered() {
        return;
    }
    if !is_root() {
        return skipped("only root can do without one privilege");
    }
    // What the same user has locked already counts: that of this one is beyond everybody's limit.
    let target = Target::start(1, "sleep");
    let folder = tempfile::tempdir().expect("a folder");
    let holder = watching(target.pid(), &folder.path().join("log"));
    let mut limited = Command::new("setpriv");
    limited.args(["--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"]);
    limited.args([
        "prlimit",
        "--memlock=0",
        MEMTRACE,
        "-qq",
        "--backend",
        "kernel",
        "/bin/true",
    ]);
    let Ok(tried) = limited.output() else {
        return skipped("no setpriv");
    };
    let line = String::from_utf8_lossy(&tried.stderr).into_owned();
    if tried.status.code() == Some(0) {
        return skipped("no limit holds here (kernel.perf_event_paranoid is -1?)");
    }
    assert!(
        line.lines().count() == 1 && line.contains("no memory for its rings"),
        "{line}"
    );
    holder.stop(libc::SIGINT);
    target.ends_well();
}
