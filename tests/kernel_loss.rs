//! `--backend kernel` when records are lost: memtrace is stopped for so long that they do not fit into
//! its rings.

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "leases and signals need libc"
)]

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use support::*;

const KERNEL: &[&str] = &["--backend", "kernel"];

/// One storm at a time, so that a stop loses what it is meant to.
fn alone() -> MutexGuard<'static, ()> {
    static STORM: Mutex<()> = Mutex::new(());
    STORM
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// `fixtures/tracees/bursts.rs`, and what it is asked for.
struct Bursts {
    words: File,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Bursts {
    fn new() -> Bursts {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("words");
        let words = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .expect("a file");
        Bursts {
            words,
            path,
            _folder: folder,
        }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    fn word(&self, n: u64) -> u64 {
        let mut word = [0; 8];
        match self.words.read_at(&mut word, 8 * n) {
            Ok(8) => u64::from_ne_bytes(word),
            _ => 0,
        }
    }

    fn set(&self, n: u64, value: u64) {
        let written = self.words.write_at(&value.to_ne_bytes(), 8 * n);
        assert_eq!(written.expect("a word"), 8);
    }

    #[track_caller]
    fn wait_ready(&self) -> i32 {
        until("it is ready", || self.word(0) != 0);
        self.word(0) as i32
    }

    fn quiet(&self) {
        self.set(2, 0);
    }

    /// Many calls, at least `steps` more pairs of them.
    #[track_caller]
    fn bursts(&self, steps: u64) {
        let before = self.word(1);
        self.set(2, 1);
        until("calls", || before + steps < self.word(1));
    }

    /// Threads and processes that stay are born, others end, and some run another program.
    #[track_caller]
    fn changes(&self) {
        self.set(3, 1);
        until("births and ends", || self.word(4) != 0);
    }

    /// All that are there make calls of which they tell.
    #[track_caller]
    fn tells(&self, count: u64) {
        self.set(2, 2);
        until("all have told", || self.word(5) == count);
    }

    fn end(&self) {
        self.set(2, 3);
    }
}

/// More than fits into the rings: a pair of calls is half a kilobyte of records.
const TOO_MANY: u64 = 30_000;
/// Who is there at the end: the main thread, one more from the begin, one born late, and three children.
const TELLERS: u64 = 6;

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.expect("a list of children");
    let number = |word: &str| word.parse().expect("a number");
    text.split_ascii_whitespace().map(number).collect()
}

/// memtrace with rings of a few MiB at most, where that can be had: less is lost sooner, and told sooner.
fn limited(options: &[&str], program: &[&str]) -> Command {
    let words = |command: &mut Command| {
        command.args(options);
        if !program.is_empty() {
            command.arg("--").args(program);
        }
    };
    let limits = [
        ["--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"].as_slice(),
        &["prlimit", "--memlock=3000000", MEMTRACE],
    ];
    let limited = || {
        let mut command = Command::new("setpriv");
        command.args(limits.concat());
        command
    };
    // Not with many CPUs, and not without the two programs; and copies of stacks fill any ring.
    let small = ["-qq", "--backend", "kernel", "/bin/true"];
    let tried = || limited().args(small).output();
    let is_small = !options.contains(&"-k") && tried().is_ok_and(|tried| tried.status.success());
    let mut command = match is_small {
        true => limited(),
        false => Command::new(MEMTRACE),
    };
    words(&mut command);
    command
}

/// memtrace at work, with a trace and a log.
struct Watcher {
    running: Running,
    log: PathBuf,
    trace: PathBuf,
    _folder: tempfile::TempDir,
}

impl Watcher {
    fn start(options: &[&str], program: &[&str]) -> Watcher {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, trace) = (folder.path().join("log"), folder.path().join("trace"));
        let [log_name, trace_name] = [&log, &trace].map(|path| path.to_str().expect("UTF-8"));
        let mine = [
            "-q", "--format", "jsonl", "--log", log_name, "-o", trace_name,
        ];
        let options = [KERNEL, &mine, options].concat();
        Watcher {
            running: Running::start(limited(&options, program).stdin(Stdio::null())),
            log,
            trace,
            _folder: folder,
        }
    }

    #[track_caller]
    fn has_written(&mut self, text: &str) {
        until(text, || {
            assert!(!self.running.has_ended(), "{}", self.running.stderr());
            fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text))
        });
    }

    /// How it ended, its report, and its log.
    #[track_caller]
    fn end(self) -> (Ended, Report, Vec<Value>) {
        let ended = self.running.end();
        let report = Report::read(&self.trace, &ended);
        (ended, report, events(&self.log))
    }
}

fn stop(memtrace: &Running) {
    memtrace.signal(libc::SIGSTOP);
    until("memtrace stands still", || {
        state_of(memtrace.pid()) == Some('T')
    });
}

/// Waits until memtrace has caught up: what it writes tells of no call for a while.
fn until_calm(log: &Path) {
    let mut file = File::open(log).expect("a log");
    let (mut text, mut since) = (Vec::new(), Instant::now());
    until("memtrace has caught up", || {
        text.clear();
        file.read_to_end(&mut text).expect("a log");
        if String::from_utf8_lossy(&text).contains("\"type\":\"call\"") {
            since = Instant::now();
        }
        Duration::from_millis(1000) < since.elapsed()
    });
}

fn events(log: &Path) -> Vec<Value> {
    let log = fs::read_to_string(log).expect("a log");
    log.lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

/// The calls of each task that were told after the last loss, of so many bytes: how often, and whether each did
/// what it says.
#[track_caller]
fn assert_told_rightly(stdout: &str, events: &[Value]) {
    let lost = events.iter().rposition(|event| event["type"] == "lost");
    let after = &events[lost.expect("a loss")..];
    let lines: Vec<Vec<i64>> = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("told "))
        .map(|line| {
            let numbers = line.split(' ').map(|word| word.parse().expect("a number"));
            numbers.collect()
        })
        .collect();
    assert_eq!(lines.len() as u64, TELLERS, "{stdout}");
    for line in lines {
        let [pid, tid, pages, count] = line[..] else {
            panic!("{line:?}");
        };
        let length = pages * 4096;
        let of_task = |event: &&Value| {
            event["type"] == "call" && event["tid"] == tid && event["args"]["length"] == length
        };
        let mut calls: BTreeMap<(String, i64), i64> = BTreeMap::new();
        for call in after.iter().filter(of_task) {
            assert_eq!(call["pid"], pid, "{call}");
            assert_eq!(call["error"], Value::Null, "{call}");
            let delta = call["delta"]["mapped"].as_i64().expect("bytes");
            let name = call["name"].as_str().expect("a name").to_owned();
            *calls.entry((name, delta)).or_default() += 1;
        }
        let wanted = [("mmap", length), ("munmap", -length)];
        let wanted = wanted.map(|(name, delta)| ((name.to_owned(), delta), count));
        assert_eq!(calls, BTreeMap::from(wanted), "task {tid} of {pid}");
    }
}

/// Exact but for what is known: that records were lost, and that the kernel's maps were taken over.
#[track_caller]
fn assert_put_right(report: &Report) {
    let mut problems = report.problems();
    let known = [
        "events lost",
        "resynced",
        UNSEEN,
        UNCHECKED,
        INEXACT,
        "resident is",
    ];
    problems.retain(|problem| !known.iter().any(|known| problem.contains(known)));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(report.0["lost"].as_u64() > Some(0), "nothing was lost");
}

/// What goes on when memtrace goes on.
#[derive(Clone, Copy, PartialEq)]
enum Storm {
    GoesOn,
    HasEnded,
}

/// Attaches, loses what cannot be kept, and wants all to be known again.
#[track_caller]
fn loses_and_recovers(options: &[&str], storm: Storm) {
    if !kernel_is_offered() {
        return;
    }
    let _alone = alone();
    let bursts = Bursts::new();
    let mut command = Command::new(tracee("bursts"));
    let program = Running::start(command.arg(bursts.path()).stdin(Stdio::null()));
    let pid = bursts.wait_ready();
    assert_eq!(pid, program.pid());
    // Of its two children one is attached to, and one is none of ours.
    let both = format!("{pid},{}", children(pid)[0]);
    let mut watcher = Watcher::start(&[options, &["-p", &both]].concat(), &[]);
    watcher.has_written("\"attach\"");
    bursts.bursts(100);
    stop(&watcher.running);
    bursts.bursts(TOO_MANY);
    bursts.changes();
    bursts.bursts(1000);
    if storm == Storm::HasEnded {
        bursts.quiet();
        thread::sleep(Duration::from_millis(100));
    }
    watcher.running.signal(libc::SIGCONT);
    if storm == Storm::GoesOn {
        bursts.bursts(1000);
        bursts.quiet();
    }
    watcher.has_written("\"type\":\"lost\"");
    until_calm(&watcher.log);
    bursts.tells(TELLERS);
    until_calm(&watcher.log);
    watcher.running.signal(libc::SIGINT);
    let (ended, report, events) = watcher.end();
    bursts.end();
    let told = program.end();
    assert_eq!(told.status(), 0, "{told:?}");
    assert_eq!(ended.status(), 0, "{ended:?}");
    assert_put_right(&report);
    assert!(ended.stderr.contains("were LOST"), "{}", ended.stderr);
    assert_told_rightly(&told.stdout, &events);
}

#[test]
fn what_a_storm_loses_is_put_right_while_it_goes_on() {
    loses_and_recovers(&[], Storm::GoesOn);
}

#[test]
fn what_a_storm_lost_is_put_right_when_it_has_ended() {
    loses_and_recovers(&[], Storm::HasEnded);
}

#[test]
fn so_is_what_else_was_asked_for() {
    let all = ["--resident", "--touch", "-k"];
    loses_and_recovers(&all, Storm::GoesOn);
}

/// Launches the program, stops memtrace in the storm, and lets the program do the `rest` meanwhile.
#[track_caller]
fn launched(
    options: &[&str],
    rest: impl FnOnce(&Bursts, &mut Watcher),
) -> (Ended, Report, Vec<Value>) {
    let bursts = Bursts::new();
    let program = tracee("bursts");
    let program = [program.to_str().expect("UTF-8"), bursts.path()];
    let mut watcher = Watcher::start(options, &program);
    bursts.wait_ready();
    bursts.bursts(100);
    stop(&watcher.running);
    bursts.bursts(TOO_MANY);
    bursts.changes();
    rest(&bursts, &mut watcher);
    watcher.end()
}

#[test]
fn a_launched_program_whose_records_are_lost_is_watched_to_its_end() {
    if !kernel_is_offered() {
        return;
    }
    let _alone = alone();
    let (ended, report, events) = launched(&[], |bursts, watcher| {
        bursts.quiet();
        watcher.running.signal(libc::SIGCONT);
        watcher.has_written("\"type\":\"lost\"");
        until_calm(&watcher.log);
        bursts.tells(TELLERS);
        bursts.end();
    });
    assert_eq!(ended.status(), 0, "{ended:?}");
    assert_put_right(&report);
    assert_told_rightly(&ended.stdout, &events);
}

#[test]
fn a_launched_program_whose_end_is_lost_has_ended() {
    if !kernel_is_offered() {
        return;
    }
    let _alone = alone();
    let options = [&[][..], &["--resident", "--touch", "-k"]];
    for options in options {
        let (ended, report, _) = launched(options, |bursts, watcher| {
            let pid = bursts.word(0) as i32;
            bursts.bursts(TOO_MANY);
            bursts.tells(TELLERS);
            bursts.end();
            until("it has ended", || !is_alive(pid));
            watcher.running.signal(libc::SIGCONT);
        });
        assert_eq!(ended.status(), 0, "{ended:?}");
        assert_put_right(&report);
        let first = &report.spaces()[0];
        assert_eq!(first["ended"], "exit", "{first}");
        assert_eq!(first["status"]["exited"], 0, "{first}");
    }
}

/// A program whose execve(2) waits: its file is under a lease that whoever opens it has to wait for.
struct Waiting {
    path: PathBuf,
    file: File,
    _folder: tempfile::TempDir,
}

impl Waiting {
    /// `None` where there are no leases.
    fn with(program: &[u8]) -> Option<Waiting> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("program");
        fs::write(&path, program).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
        let file = File::open(&path).expect("a program");
        let fd = file.as_raw_fd();
        // It would end the holder, but for a signal that nobody minds.
        const F_SETSIG: i32 = 10;
        unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) };
        let leased = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) };
        if leased != 0 {
            skipped("no leases");
            return None;
        }
        Some(Waiting {
            path,
            file,
            _folder: folder,
        })
    }

    fn goes_on(&self) {
        let fd = self.file.as_raw_fd();
        assert_eq!(
            unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) },
            0
        );
    }
}

/// Launches the program, and loses the records of its begin and all of what it does until `seen` has seen that;
/// others fill the rings.
#[track_caller]
fn begins_unseen(
    program: &Waiting,
    args: &[&str],
    seen: impl FnOnce(i32),
    rest: impl FnOnce(&mut Watcher),
) -> (Ended, Report, Vec<Value>) {
    let others = Bursts::new();
    let mut command = Command::new(tracee("bursts"));
    let other = Running::start(command.arg(others.path()).stdin(Stdio::null()));
    others.wait_ready();
    let path = program.path.to_str().expect("UTF-8");
    let mut watcher = Watcher::start(&[], &[&[path], args].concat());
    let memtrace = watcher.running.pid();
    let is_ours = |pid: &i32| status_line(*pid, "Name").as_deref() == Some("memtrace");
    let mut child = 0;
    until("the program is about to begin", || {
        let waits = children(memtrace).into_iter().find(|pid| {
            let call = fs::read_to_string(format!("/proc/{pid}/syscall"));
            is_ours(pid) && call.is_ok_and(|call| call.starts_with("59 "))
        });
        child = waits.unwrap_or(0);
        child != 0
    });
    stop(&watcher.running);
    others.bursts(TOO_MANY);
    program.goes_on();
    seen(child);
    watcher.running.signal(libc::SIGCONT);
    others.end();
    rest(&mut watcher);
    assert_eq!(other.end().status(), 0);
    watcher.end()
}

#[test]
fn a_program_whose_begin_is_lost_is_found() {
    if !kernel_is_offered() {
        return;
    }
    let _alone = alone();
    let bursts = Bursts::new();
    let program = fs::read(tracee("bursts")).expect("a program");
    let Some(program) = Waiting::with(&program) else {
        return;
    };
    let ready = |_| {
        bursts.wait_ready();
    };
    let (ended, report, events) = begins_unseen(&program, &[bursts.path()], ready, |watcher| {
        watcher.has_written("\"type\":\"lost\"");
        until_calm(&watcher.log);
        bursts.bursts(100);
        bursts.changes();
        bursts.quiet();
        until_calm(&watcher.log);
        bursts.tells(TELLERS);
        bursts.end();
    });
    assert_eq!(ended.status(), 0, "{ended:?}");
    assert_put_right(&report);
    assert_told_rightly(&ended.stdout, &events);
    let first = &report.spaces()[0];
    assert_eq!(
        (&first["began"], &first["ended"]),
        (&"exec".into(), &"exit".into())
    );
}

#[test]
fn a_program_of_which_all_is_lost_has_its_status() {
    if !kernel_is_offered() {
        return;
    }
    let _alone = alone();
    let programs: [(&[u8], i32); 3] = [
        (b"#!/bin/sh\nexit 7\n", 7),
        (b"#!/bin/sh\nkill -9 $$\n", 128 + 9),
        (b"#!/nonexistent/interpreter\n", 127),
    ];
    for (text, status) in programs {
        let Some(program) = Waiting::with(text) else {
            return;
        };
        let gone = |pid| until("it has ended", || !is_alive(pid));
        let path = program.path.clone();
        let (ended, report, _) = begins_unseen(&program, &[], gone, |_| ());
        assert_eq!(ended.status(), status, "{path:?}: {ended:?}");
        let notes = report.0["notes"].to_string();
        let told = notes.contains("the records of the program's begin and end were lost");
        // On a busy machine some record of the begin may find room after all.
        let seen = !report.spaces().is_empty();
        assert!(seen || told == (status != 127), "{notes}");
    }
}
