//! What the tests of real programs need beside `support`: programs to run twice, where to get them, and the
//! kernel's own figures to hold a report against.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod programs;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Ended, Report, Running, bytes, memtrace, skipped, status_line, until};

// ── skipping ────────────────────────────────────────────────────────────────────────────────────────────

/// Whether a missing program is a failure, as it is in CI.
pub fn everything_is_required() -> bool {
    std::env::var_os("MEMTRACE_REQUIRE_ALL").is_some_and(|value| value == "1")
}

#[track_caller]
pub fn skip(why: &str) {
    assert!(
        !everything_is_required(),
        "cannot run, and MEMTRACE_REQUIRE_ALL=1: {why}"
    );
    skipped(why);
}

/// The value, or the test that needs it is skipped.
macro_rules! need {
    ($needed:expr) => {
        match $needed {
            Ok(it) => it,
            Err(why) => return $crate::support_real::skip(&why),
        }
    };
}
pub(crate) use need;

// ── a program, not yet run ──────────────────────────────────────────────────────────────────────────────

/// What to run, so that it can be run twice.
pub struct Program {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    options: Vec<String>,
    stderr_varies: bool,
}

impl Program {
    pub fn new<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(argv: I) -> Program {
        Program {
            argv: argv
                .into_iter()
                .map(|arg| arg.as_ref().to_owned())
                .collect(),
            env: Vec::new(),
            folder: None,
            options: Vec::new(),
            stderr_varies: false,
        }
    }

    pub fn env(mut self, name: &str, value: &str) -> Program {
        self.env.push((name.into(), value.into()));
        self
    }

    pub fn folder(mut self, folder: &Path) -> Program {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Adds an option of memtrace.
    pub fn traced_with(mut self, option: &str) -> Program {
        self.options.push(option.to_owned());
        self
    }

    /// The program's stderr holds process ids, times or the like, and is not compared.
    pub fn stderr_varies(mut self) -> Program {
        self.stderr_varies = true;
        self
    }

    fn start_by(&self, mut command: Command) -> Running {
        command
            .env("LC_ALL", "C")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        Running::start(&mut command)
    }

    pub fn start(&self) -> Running {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]);
        self.start_by(command)
    }

    /// Starts it under a memtrace that writes nothing but the trace, so that stderr is the program's alone.
    pub fn start_traced(&self) -> Launched {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("trace");
        let mut options = vec!["-qq", "-o", file.to_str().expect("UTF-8")];
        options.extend(self.options.iter().map(String::as_str));
        let running = self.start_by(memtrace(&options, &self.argv));
        Launched {
            running,
            file,
            _folder: folder,
        }
    }

    /// Runs it alone and under memtrace: status and output must be the same, and the report exact.
    #[track_caller]
    pub fn same_when_traced(&self) -> (Ended, Report) {
        let alone = self.start().end();
        let (traced, report) = self.start_traced().end();
        assert_eq!(
            traced.status(),
            alone.status(),
            "the exit status\ntraced: {traced:?}\nuntraced: {alone:?}"
        );
        assert!(
            traced.stdout == alone.stdout,
            "stdout differs\ntraced: {traced:?}\nuntraced: {alone:?}"
        );
        if !self.stderr_varies {
            assert!(
                traced.stderr == alone.stderr,
                "stderr differs\ntraced: {traced:?}\nuntraced: {alone:?}"
            );
        }
        exact(&report);
        (traced, report)
    }

    /// The same, and it must end with 0: a program that fails with and without memtrace shows little.
    #[track_caller]
    pub fn succeeds_when_traced(&self) -> (Ended, Report) {
        let (ended, report) = self.same_when_traced();
        assert_eq!(ended.status(), 0, "{ended:?}");
        (ended, report)
    }
}

/// A shell script, as `sh -c` runs it.
pub fn sh(script: &str) -> Program {
    Program::new(["sh", "-c", script])
}

/// memtrace with a program that it launched.
pub struct Launched {
    pub running: Running,
    file: PathBuf,
    _folder: TempDir,
}

impl Launched {
    #[track_caller]
    pub fn end(self) -> (Ended, Report) {
        let ended = self.running.end();
        let report = Report::read(&self.file, &ended);
        (ended, report)
    }
}

// ── reports ─────────────────────────────────────────────────────────────────────────────────────────────

/// Exact, and to the end of every space.
#[track_caller]
pub fn exact(report: &Report) {
    report.assert_exact();
    let cut = report.spaces().iter().find(|space| space["ended"] == "cut");
    assert!(
        cut.is_none(),
        "the trace stops before this space does: {cut:?}"
    );
}

/// The spaces that began by `how`.
pub fn began(report: &Report, how: &str) -> usize {
    report
        .spaces()
        .iter()
        .filter(|space| space["began"] == how)
        .count()
}

/// The last space of process `pid`: the program after its execs.
#[track_caller]
pub fn space_of(report: &Report, pid: i32) -> &Value {
    let found = report.spaces().iter().rfind(|space| space["pid"] == pid);
    found.unwrap_or_else(|| panic!("no space of {pid} in {:#}", report.0))
}

/// The last space of the process that memtrace launched.
#[track_caller]
pub fn space_of_program(report: &Report) -> &Value {
    let pid = report
        .spaces()
        .first()
        .and_then(|space| space["pid"].as_i64());
    space_of(
        report,
        pid.and_then(|pid| pid.try_into().ok())
            .expect("a first space"),
    )
}

/// Times that `names` were called in a space.
pub fn calls(space: &Value, names: &[&str]) -> u64 {
    names
        .iter()
        .map(|name| space["calls"][name]["count"].as_u64().unwrap_or(0))
        .sum()
}

/// VmSize, VmPeak and VmHWM as the kernel tells them, in bytes.
#[derive(Clone, Copy)]
pub struct Kernel {
    size: u64,
    peak: u64,
    hwm: u64,
}

impl Kernel {
    #[track_caller]
    pub fn of(pid: i32) -> Kernel {
        let figure =
            |key| kib(&status_line(pid, key).unwrap_or_else(|| panic!("{pid} has no {key}")));
        Kernel {
            size: figure("VmSize"),
            peak: figure("VmPeak"),
            hwm: figure("VmHWM"),
        }
    }

    /// What a program printed of its own `/proc/self/status`.
    #[track_caller]
    pub fn told_by(ended: &Ended) -> Kernel {
        let line = |key| {
            ended
                .stderr
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        };
        let figure = |key| kib(line(key).unwrap_or_else(|| panic!("no {key} in {ended:?}")));
        Kernel {
            size: figure("VmSize"),
            peak: figure("VmPeak"),
            hwm: figure("VmHWM"),
        }
    }

    pub fn size(self) -> u64 {
        self.size
    }

    #[track_caller]
    pub fn size_is_end_of(self, space: &Value) {
        assert_eq!(
            bytes(&space["mapped"]["end"]),
            self.size,
            "mapped.end is not VmSize: {space:#}"
        );
    }

    #[track_caller]
    pub fn peak_is_that_of(self, space: &Value) {
        assert_eq!(
            bytes(&space["mapped"]["peak"]),
            self.peak,
            "mapped.peak is not VmPeak: {space:#}"
        );
    }

    /// The program still ran on after it was asked.
    #[track_caller]
    pub fn peak_is_within(self, space: &Value) {
        assert!(
            self.peak <= bytes(&space["mapped"]["peak"]),
            "VmPeak was {} already: {space:#}",
            self.peak
        );
    }

    /// As exactly as the kernel counts: each CPU keeps a batch of pages of each kind to itself.
    #[track_caller]
    pub fn hwm_is_that_of(self, space: &Value) {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        let slack = (2 << 20) + cpus * 3 * 64 * 4096;
        let peak = bytes(&space["resident"]["peak"]);
        assert!(
            peak.abs_diff(self.hwm) <= slack,
            "resident.peak is not VmHWM {}: {space:#}",
            self.hwm
        );
    }
}

#[track_caller]
fn kib(text: &str) -> u64 {
    let number = text.trim().strip_suffix("kB").unwrap_or(text).trim();
    number
        .parse::<u64>()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        * 1024
}

// ── other processes ─────────────────────────────────────────────────────────────────────────────────────

fn numbers_in(folder: String) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

pub fn tasks(pid: i32) -> Vec<i32> {
    numbers_in(format!("/proc/{pid}/task"))
}

pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Waits until memtrace holds every thread of `pid`.
#[track_caller]
pub fn until_attached(memtrace: &mut Running, pid: i32) {
    let tracer = memtrace.pid().to_string();
    until("memtrace holds every thread", || {
        assert!(
            !memtrace.has_ended(),
            "memtrace ended: {}",
            memtrace.stderr()
        );
        tasks(pid)
            .iter()
            .all(|tid| status_line(*tid, "TracerPid").is_none_or(|held_by| held_by == tracer))
    });
}

/// It lives, nobody traces it, and nothing of it is stopped.
#[track_caller]
pub fn runs_free(pid: i32) {
    for tid in tasks(pid) {
        // A thread may end while it is looked at.
        let (Some(tracer), Some(state)) =
            (status_line(tid, "TracerPid"), status_line(tid, "State"))
        else {
            continue;
        };
        assert_eq!(tracer, "0", "task {tid} of {pid} is still traced");
        assert!(
            !state.starts_with(['T', 't', 'Z', 'X']),
            "task {tid} of {pid} is {state}"
        );
    }
    assert!(!tasks(pid).is_empty(), "{pid} is gone");
}

/// The first complete line on stdout that `pick` accepts, as soon as it is there.
#[track_caller]
pub fn line_of<T>(running: &mut Running, pick: impl Fn(&str) -> Option<T>) -> T {
    let mut found = None;
    until("the program says that it is ready", || {
        let ended = running.has_ended();
        let text = running.stdout();
        found = text[..text.rfind('\n').unwrap_or(0)]
            .lines()
            .find_map(&pick);
        assert!(
            found.is_some() || !ended,
            "it ended\nstdout: {text}\nstderr: {}",
            running.stderr()
        );
        found.is_some()
    });
    found.expect("it was found")
}

/// The number that follows `label` somewhere in the text.
pub fn number_after(text: &str, label: &str) -> Option<u64> {
    let rest = text[text.find(label)? + label.len()..].trim_start_matches([' ', ':', '"']);
    rest[..rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len())]
        .parse()
        .ok()
}

/// Sends a signal to a process that is not our child but was started by one.
#[track_caller]
pub fn send(pid: i32, signal: i32) {
    let signal = nix::sys::signal::Signal::try_from(signal).expect("a signal");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
}
