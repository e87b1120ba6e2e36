//! `--format strace` against strace itself, line by line.
//!
//! The program makes every memory call with ordinary and with wrong arguments; a tracer of a few
//! lines observes it, our renderer prints it, and so does strace 6.1. Without strace, what was
//! recorded of such runs is compared. `MEMTRACE_RECORD=1` records anew.
#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use memtrace::abi::{Abi, CallSet, call_info};
use memtrace::decode::{
    Call, Fetched, FetchedData, Phase, RESULT, RawCall, Want, decode, is_memory_call, wants,
};
use memtrace::mm::{Flow, Totals};
use memtrace::term::strace::{Options, StraceFormat};
use memtrace::timeline::{
    CallEvent, Event, EventKind, SignalSeen, Sink as _, TaskEnd, TaskOrigin, Timeline,
};
use memtrace::units::{SpaceId, Tid, Timestamp};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How the three programs are built from one source.
const VARIANTS: [(&str, &[&str]); 3] = [
    ("x86_64", &[]),
    ("i386", &["-m32"]),
    ("int80", &["-DINT80"]),
];

/// Those of which a run is kept.
const RECORDED: [&str; 2] = ["x86_64", "i386"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// What a run was seen to do.
#[derive(Default)]
struct Run {
    pid: i32,
    calls: Vec<Seen>,
    signal: i32,
}

struct Seen {
    raw: RawCall,
    fetched: Vec<Fetched>,
    result: i64,
}

#[test]
fn calls_are_printed_as_strace_prints_them() {
    let version = Command::new("strace").arg("-V").output();
    if !version.is_ok_and(|said| said.stdout.starts_with(b"strace -- version 6.1\n")) {
        eprintln!("skipped: no strace 6.1 here");
        return;
    }
    for (variant, flags) in VARIANTS {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("calls");
        if !compile(flags, &program) {
            eprintln!("skipped {variant}: the C compiler does not build it");
            continue;
        }
        let Some(wrapper) = wrapper() else {
            eprintln!("skipped: addresses cannot be made the same here");
            return;
        };
        let run = observe(&wrapper, &program, dir.path());
        let (pid, text) = strace(&wrapper, &program, dir.path());
        let theirs: Vec<String> = text
            .lines()
            .filter(|line| !line.contains(" syscall_0x"))
            .map(|line| normal(line, pid, dir.path()))
            .collect();
        let ours = render(&run);
        let ours: Vec<String> = ours
            .lines()
            .filter(|line| !is_newer(line))
            .map(|line| as_6_1(&normal(line, run.pid, dir.path())))
            .collect();
        assert!(300 < ours.len(), "{variant}: {} lines", ours.len());
        assert_same(variant, &ours, &theirs);
        if std::env::var_os("MEMTRACE_RECORD").is_some() && RECORDED.contains(&variant) {
            let path = fixtures().join("strace").join(format!("{variant}.txt"));
            fs::write(path, record(&run, dir.path())).expect("writes the fixture");
        }
    }
}

/// The recorded lines are what was printed when the test above passed.
#[test]
fn recorded_calls_are_printed_as_they_were() {
    for variant in RECORDED {
        let path = fixtures().join("strace").join(format!("{variant}.txt"));
        let text = fs::read_to_string(&path).expect("the fixture");
        let (run, expected) = replay(&text);
        let printed = render(&run);
        let printed: Vec<String> = printed.lines().map(str::to_owned).collect();
        assert_same(variant, &printed, &expected);
    }
}

/// The whole program, against strace, on programs of one thread.
#[test]
fn memtrace_prints_what_strace_prints() {
    for (variant, flags) in VARIANTS {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("calls");
        if !compile(flags, &program) {
            continue;
        }
        let Some(wrapper) = wrapper() else {
            return;
        };
        let log = dir.path().join("memtrace.log");
        let status = wrapped(&wrapper, dir.path())
            .arg(env!("CARGO_BIN_EXE_memtrace"))
            .args(["--format", "strace", "-e", "all", "--log"])
            .arg(&log)
            .arg("--")
            .arg(&program)
            .stderr(Stdio::null())
            .status()
            .expect("memtrace runs");
        assert!(status.code() == Some(128 + 10) || status.signal() == Some(10));
        let ours = fs::read_to_string(&log).expect("the log");
        let ours_pid = leading_pid(&ours);
        let (pid, theirs) = strace(&wrapper, &program, dir.path());
        let theirs: Vec<String> = theirs
            .lines()
            .filter(|line| !line.contains(" syscall_0x"))
            .map(|line| normal(line, pid, dir.path()))
            .collect();
        let ours: Vec<String> = ours
            .lines()
            .filter(|line| !is_newer(line))
            .map(|line| as_6_1(&normal(line, ours_pid, dir.path())))
            .collect();
        assert_same(variant, &ours, &theirs);
    }
}

/// The same for threads, children, signals, and every way to end. What each task did must be the
/// same; in which order tasks are heard of is up to the scheduler.
#[test]
fn memtrace_tells_of_tasks_what_strace_tells() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("tasks");
    let built = Command::new("cc")
        .args(["-O1", "-w", "-pthread", "-o"])
        .arg(&program)
        .arg(fixtures().join("programs/tasks.c"))
        .status();
    assert!(built.is_ok_and(|status| status.success()));
    let Some(wrapper) = wrapper() else {
        return;
    };
    let run = |command: &[&str]| {
        let log = dir.path().join("log");
        let status = wrapped(&wrapper, dir.path())
            .args(command)
            .arg(&log)
            .arg("--")
            .arg(&program)
            .stderr(Stdio::null())
            .status()
            .expect("it runs");
        assert_eq!(status.code(), Some(7));
        by_task(&fs::read_to_string(&log).expect("the log"))
    };
    let strace = ["strace", "-f", "-y", "-e", "trace=%memory", "-o"];
    let theirs = run(&strace);
    if run(&strace) != theirs {
        eprintln!("skipped: strace does not agree with itself on a machine this busy");
        return;
    }
    let memtrace = env!("CARGO_BIN_EXE_memtrace");
    let ours = run(&[memtrace, "--format", "strace", "-e", "%memory", "--log"]);
    for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_same(&format!("task {i}"), ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len(), "tasks");
}

/// The lines of each task, tasks in order of appearance and numbered so, with lines that were
/// interrupted put together again.
fn by_task(text: &str) -> Vec<Vec<String>> {
    let mut pids: Vec<&str> = Vec::new();
    let mut tasks: Vec<Vec<String>> = Vec::new();
    for line in text.lines() {
        let (pid, line) = line.split_once(' ').expect("a pid in front");
        let line = line.trim_start();
        let index = pids.iter().position(|&known| known == pid);
        let task = index.unwrap_or_else(|| {
            pids.push(pid);
            tasks.push(Vec::new());
            pids.len() - 1
        });
        let resumed = line
            .strip_prefix("<... ")
            .and_then(|line| line.split_once(" resumed>"));
        match (resumed, tasks[task].last_mut()) {
            (Some((_, rest)), Some(begun)) => {
                *begun = begun.replace(" <unfinished ...>", "") + rest;
            }
            _ => tasks[task].push(line.to_owned()),
        }
    }
    for line in tasks.iter_mut().flatten() {
        for (i, pid) in pids.iter().enumerate() {
            *line = replace_word(line, pid, &format!("TASK{i}"));
        }
        for key in ["si_utime=", "si_stime="] {
            *line = replace_numbers(line, key);
        }
        if let Some((call, result)) = line.rsplit_once(" = ") {
            *line = format!("{} = {result}", call.trim_end());
        }
    }
    tasks
}

/// `setarch -R` for equal addresses and `unshare -i` for equal SysV numbers, if both can be had.
fn wrapper() -> Option<Vec<&'static str>> {
    let candidates: [&[&str]; 2] = [
        &["unshare", "-i", "setarch", "-R"],
        &["unshare", "-ri", "setarch", "-R"],
    ];
    candidates
        .into_iter()
        .find(|wrapper| {
            Command::new(wrapper[0])
                .args(&wrapper[1..])
                .arg("true")
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
        .map(<[&str]>::to_vec)
}

fn wrapped(wrapper: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).current_dir(dir);
    command
}

fn compile(flags: &[&str], program: &Path) -> bool {
    Command::new("cc")
        .args(flags)
        .args([
            "-nostdlib",
            "-static",
            "-ffreestanding",
            "-fno-stack-protector",
            "-fno-pie",
            "-no-pie",
            "-O1",
            "-w",
        ])
        .arg("-o")
        .arg(program)
        .arg(fixtures().join("programs/calls.c"))
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn strace(wrapper: &[&str], program: &Path, dir: &Path) -> (i32, String) {
    let names: Vec<&str> = memtrace::abi::CALLS.iter().map(|call| call.name).collect();
    let known: Vec<String> = names.iter().map(|name| format!("?{name}")).collect();
    let log = dir.join("strace.log");
    wrapped(wrapper, dir)
        .args(["strace", "-f", "-y", "-e"])
        .arg(format!("trace={}", known.join(",")))
        .arg("-o")
        .arg(&log)
        .arg(program)
        .stderr(Stdio::null())
        .status()
        .expect("strace runs");
    let text = fs::read_to_string(&log).expect("strace's output is ASCII");
    let text: String = text
        .lines()
        .filter(|line| is_memory_line(line))
        .fold(String::new(), |all, line| all + line + "\n");
    (leading_pid(&text), text)
}

/// prctl(2) and ipc(2) do other things too, which are no memory calls.
fn is_memory_line(line: &str) -> bool {
    !line.contains(" ipc(") && !line.contains("prctl(PR_GET_")
}

fn leading_pid(text: &str) -> i32 {
    let first = text.split_whitespace().next().expect("a line");
    first.parse().expect("a pid in front")
}

/// A line without what differs from run to run.
fn normal(line: &str, pid: i32, dir: &Path) -> String {
    let line = line.replace(&dir.display().to_string(), "/DIR");
    let line = replace_numbers(&line, "pipe:[");
    // The older structure of ipc(SHMCTL) read as the newer one: half of a time as the mode.
    let line = match line.contains("cuid=384") {
        true => replace_numbers(&line, "mode="),
        false => line,
    };
    ["shm_atime=", "shm_dtime=", "shm_ctime="]
        .iter()
        .fold(replace_word(&line, &pid.to_string(), "PID"), |line, key| {
            replace_numbers(&line, key)
        })
}

/// `text` with a `0` for the digits after each `key`.
fn replace_numbers(text: &str, key: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(key) {
        let (before, after) = rest.split_at(at + key.len());
        out.push_str(before);
        out.push('0');
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out + rest
}

/// `text` with `new` for each `old` that is not part of a longer word.
fn replace_word(text: &str, old: &str, new: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(old) {
        let (before, after) = rest.split_at(at);
        let after = &after[old.len()..];
        let inside = before.ends_with(|c: char| c.is_ascii_alphanumeric())
            || after.starts_with(|c: char| c.is_ascii_alphanumeric());
        out.push_str(before);
        out.push_str(if inside { old } else { new });
        rest = after;
    }
    out + rest
}

/// Calls that strace 6.1 does not know.
fn is_newer(line: &str) -> bool {
    ["mseal(", "cachestat(", "map_shadow_stack("]
        .iter()
        .any(|name| line.contains(name))
}

/// What strace 6.1 prints for the names that came after it.
fn as_6_1(line: &str) -> String {
    let older = [
        ("MAP_ANONYMOUS|MAP_ABOVE4G", "MAP_ANONYMOUS|0x80"),
        ("MAP_32BIT|MAP_ABOVE4G|", "MAP_32BIT|"),
        ("MAP_DROPPABLE", "0x8 /* MAP_??? */"),
        (
            "MAP_FIXED_NOREPLACE|0x3e00600",
            "MAP_FIXED_NOREPLACE|0x3e00680",
        ),
        (
            "MAP_FIXED_NOREPLACE|0x200600",
            "MAP_FIXED_NOREPLACE|0x200680",
        ),
        ("MADV_GUARD_INSTALL", "0x66 /* MADV_??? */"),
        ("MADV_GUARD_REMOVE", "0x67 /* MADV_??? */"),
        ("MPOL_WEIGHTED_INTERLEAVE", "0x6 /* MPOL_??? */"),
        ("MFD_NOEXEC_SEAL|MFD_EXEC", "0x18 /* MFD_??? */"),
        ("PR_SET_MEMORY_MERGE", "0x43 /* PR_??? */"),
        ("ARCH_SHSTK_ENABLE", "0x5001 /* ARCH_??? */"),
        ("ARCH_SHSTK_DISABLE", "0x5002 /* ARCH_??? */"),
        ("ARCH_SHSTK_LOCK", "0x5003 /* ARCH_??? */"),
        ("ARCH_SHSTK_UNLOCK", "0x5004 /* ARCH_??? */"),
        ("ARCH_SHSTK_STATUS", "0x5005 /* ARCH_??? */"),
    ]
    .iter()
    .fold(line.to_owned(), |older, (new, old)| older.replace(new, old));
    match older.rsplit_once(" = ") {
        // The longer word needs no padding.
        Some((call, result)) if older != line => format!("{} = {result}", call.trim_end()),
        _ => older,
    }
}

#[track_caller]
fn assert_same(variant: &str, ours: &[String], theirs: &[String]) {
    let mut wrong = 0;
    for (i, (our, their)) in ours.iter().zip(theirs).enumerate() {
        if our != their {
            eprintln!("{variant} {i}\n  ours:   {our}\n  strace: {their}");
            wrong += 1;
        }
    }
    assert_eq!(
        wrong,
        0,
        "{variant}: {wrong} of {} lines differ",
        ours.len()
    );
    assert_eq!(ours.len(), theirs.len(), "{variant}: lines");
}

/// Runs the program under a tracer that stops at every call.
fn observe(wrapper: &[&str], program: &Path, dir: &Path) -> Run {
    #[expect(clippy::zombie_processes, reason = "its last stop is its end")]
    let child = wrapped(wrapper, dir)
        .args(["sh", "-c", "kill -STOP $$; exec \"$0\""])
        .arg(program)
        .spawn()
        .expect("the program starts");
    let pid = Pid::from_raw(child.id() as i32);
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("it stops itself");
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).expect("it can be traced");
    kill(pid, Signal::SIGCONT).expect("it goes on");
    let mut run = Run {
        pid: pid.as_raw(),
        ..Run::default()
    };
    let mut executed = false;
    let mut entered: Option<(RawCall, Vec<Fetched>)> = None;
    loop {
        let mut deliver = None;
        match waitpid(pid, None).expect("a stop") {
            WaitStatus::PtraceEvent(_, _, event) => {
                executed |= event == ptrace::Event::PTRACE_EVENT_EXEC as i32;
            }
            WaitStatus::PtraceSyscall(_) if executed => syscall_stop(pid, &mut entered, &mut run),
            WaitStatus::Stopped(_, signal) => deliver = Some(signal),
            WaitStatus::Signaled(_, signal, _) => {
                run.signal = signal as i32;
                return run;
            }
            WaitStatus::Exited(..) => return run,
            _ => {}
        }
        ptrace::syscall(pid, deliver).expect("it runs on");
    }
}

fn syscall_stop(pid: Pid, entered: &mut Option<(RawCall, Vec<Fetched>)>, run: &mut Run) {
    let info = ptrace::syscall_info(pid).expect("Linux 5.3");
    match entered.take() {
        None => {
            let raw = registers(pid, info.arch);
            if is_memory_call(&raw) {
                let fetched = fetch(pid, &raw, Phase::Entry);
                *entered = Some((raw, fetched));
            }
        }
        Some((raw, mut fetched)) => {
            let result = ptrace::getregs(pid).expect("registers").rax as i64;
            fetched.extend(fetch(pid, &raw, Phase::Exit { result }));
            run.calls.push(Seen {
                raw,
                fetched,
                result,
            });
        }
    }
}

fn registers(pid: Pid, arch: u32) -> RawCall {
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    let regs = ptrace::getregs(pid).expect("registers");
    let (abi, args) = match arch {
        AUDIT_ARCH_I386 => (
            Abi::I386,
            [regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp],
        ),
        _ => (
            Abi::X86_64,
            [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        ),
    };
    RawCall {
        abi,
        nr: regs.orig_rax as u32,
        args,
    }
}

fn fetch(pid: Pid, raw: &RawCall, phase: Phase) -> Vec<Fetched> {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let read = |addr: u64, len: u32| {
        let mut bytes = vec![0; len as usize];
        let mut got = 0;
        while got < bytes.len() {
            match memory.read_at(&mut bytes[got..], addr + got as u64) {
                Ok(more) if 0 < more => got += more,
                _ => break,
            }
        }
        bytes.truncate(got);
        bytes
    };
    let path = |number: i32| match fs::read_link(format!("/proc/{pid}/fd/{number}")) {
        Ok(path) => FetchedData::Path(path.as_os_str().as_bytes().to_vec()),
        Err(_) => FetchedData::Unreadable,
    };
    let mut wanted = Vec::new();
    wants(raw, phase, &mut wanted);
    wanted
        .into_iter()
        .map(|want| {
            let (arg, data) = match want {
                Want::FdPath { arg } => (arg, path(raw.args[arg as usize] as i32)),
                Want::FdPathIn { arg, addr } => match read(addr.0, 4).try_into() {
                    Ok(bytes) => (arg, path(i32::from_le_bytes(bytes))),
                    Err(_) => (arg, FetchedData::Unreadable),
                },
                Want::ResultPath => {
                    let Phase::Exit { result } = phase else {
                        panic!("no result yet");
                    };
                    (RESULT, path(result as i32))
                }
                Want::Memory { arg, addr, len } => match read(addr.0, len) {
                    bytes if bytes.is_empty() => (arg, FetchedData::Unreadable),
                    bytes => (arg, FetchedData::Memory(bytes)),
                },
                Want::CString { arg, addr, max } => {
                    let mut bytes = read(addr.0, max);
                    let end = bytes.iter().position(|&byte| byte == 0);
                    match end {
                        Some(end) => bytes.truncate(end),
                        None if bytes.is_empty() => {
                            return fetched(arg, phase, FetchedData::Unreadable);
                        }
                        None => {}
                    }
                    let truncated = end.is_none();
                    (arg, FetchedData::String { bytes, truncated })
                }
            };
            fetched(arg, phase, data)
        })
        .collect()
}

fn fetched(arg: u8, phase: Phase, data: FetchedData) -> Fetched {
    Fetched {
        arg,
        at_exit: phase != Phase::Entry,
        data,
    }
}

/// Our renderer's output for a run.
fn render(run: &Run) -> String {
    let options = Options {
        calls: CallSet::ALL,
        signals: true,
        to_file: true,
    };
    let timeline = Timeline::default();
    let mut format = StraceFormat::new(Vec::new(), options);
    let mut send = |kind| {
        let event = Event {
            seq: 1,
            time: Timestamp(0),
            tid: Tid(run.pid),
            pid: Tid(run.pid),
            space: SpaceId(1),
            kind,
        };
        format.event(&event, &timeline).expect("a Vec takes all");
    };
    send(EventKind::TaskBegan {
        parent: None,
        origin: TaskOrigin::Launch,
    });
    for (i, seen) in run.calls.iter().enumerate() {
        // With and without the entry told apart: the line must be the same.
        if i % 2 == 0 {
            let at_entry = seen.fetched.iter().filter(|one| !one.at_exit).cloned();
            send(EventKind::CallEntered {
                raw: seen.raw,
                fetched: at_entry.collect(),
            });
        }
        send(EventKind::Call(CallEvent {
            entered: Timestamp(0),
            raw: seen.raw,
            fetched: seen.fetched.clone(),
            call: decode(&seen.raw, &seen.fetched),
            result: Some(seen.result),
            spans: Vec::new(),
            flow: Flow::default(),
            before: Totals::default(),
            now: Totals::default(),
            stack: None,
            failure: None,
        }));
    }
    if run.signal != 0 {
        // The program sends it to itself.
        let sender = run.pid as u32;
        send(EventKind::Signal(SignalSeen {
            tid: Tid(run.pid),
            signal: run.signal,
            stopped: false,
            code: 0,
            errno: 0,
            fields: [u64::from(sender), 0, 0, 0],
        }));
        send(EventKind::TaskEnded(TaskEnd::Killed {
            signal: run.signal,
            core: false,
        }));
    }
    String::from_utf8(format.into_inner()).expect("ASCII")
}

/// A run as a fixture: each call, what was fetched for it, and the line printed.
fn record(run: &Run, dir: &Path) -> String {
    let mut text = format!("pid {}\nsignal {}\n", run.pid, run.signal);
    let lines = render(run);
    let dir = dir.as_os_str().as_bytes();
    for (seen, line) in run.calls.iter().zip(lines.lines()) {
        let RawCall { abi, nr, args } = seen.raw;
        let args = args.map(|arg| format!("{arg:x}")).join(" ");
        text += &format!("\ncall {abi:?} {nr} {args} = {}\n", seen.result);
        for one in &seen.fetched {
            let phase = if one.at_exit { "exit" } else { "entry" };
            let (what, bytes) = match &one.data {
                FetchedData::Path(path) => ("path", short(path, dir)),
                FetchedData::Memory(bytes) => ("memory", bytes.clone()),
                FetchedData::String { bytes, truncated } => {
                    (if *truncated { "part" } else { "string" }, bytes.clone())
                }
                FetchedData::Unreadable => ("unreadable", Vec::new()),
            };
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("{phase} {} {what} {hex}\n", one.arg);
        }
        let line = line.replace(&String::from_utf8_lossy(dir).into_owned(), "/DIR");
        text += &format!("line {line}\n");
    }
    for line in lines.lines().skip(run.calls.len()) {
        text += &format!("\nline {line}\n");
    }
    text
}

fn short(path: &[u8], dir: &[u8]) -> Vec<u8> {
    match path.strip_prefix(dir) {
        Some(rest) => [b"/DIR", rest].concat(),
        None => path.to_vec(),
    }
}

/// The opposite of [`record`].
fn replay(text: &str) -> (Run, Vec<String>) {
    let mut run = Run::default();
    let mut lines = Vec::new();
    for line in text.lines() {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split(' ').collect();
        match key {
            "pid" => run.pid = rest.parse().expect("a pid"),
            "signal" => run.signal = rest.parse().expect("a signal"),
            "call" => run.calls.push(Seen {
                raw: RawCall {
                    abi: match words[0] {
                        "I386" => Abi::I386,
                        _ => Abi::X86_64,
                    },
                    nr: words[1].parse().expect("a number"),
                    args: std::array::from_fn(|i| {
                        u64::from_str_radix(words[2 + i], 16).expect("an argument")
                    }),
                },
                fetched: Vec::new(),
                result: words[9].parse().expect("a result"),
            }),
            "entry" | "exit" => {
                let bytes: Vec<u8> = (0..words[2].len() / 2)
                    .map(|i| u8::from_str_radix(&words[2][2 * i..2 * i + 2], 16).expect("hex"))
                    .collect();
                let seen = run.calls.last_mut().expect("a call before");
                seen.fetched.push(Fetched {
                    arg: words[0].parse().expect("an index"),
                    at_exit: key == "exit",
                    data: match words[1] {
                        "path" => FetchedData::Path(bytes),
                        "memory" => FetchedData::Memory(bytes),
                        "unreadable" => FetchedData::Unreadable,
                        what => FetchedData::String {
                            bytes,
                            truncated: what == "part",
                        },
                    },
                });
            }
            "line" => lines.push(rest.to_owned()),
            _ => {}
        }
    }
    (run, lines)
}

/// What the file system says agrees with the table: every recorded call is a memory call.
#[test]
fn recorded_calls_are_decoded() {
    let path = fixtures().join("strace/x86_64.txt");
    let (run, _) = replay(&fs::read_to_string(path).expect("the fixture"));
    let mapped = run
        .calls
        .iter()
        .filter(|seen| matches!(decode(&seen.raw, &seen.fetched), Call::Mmap(_)))
        .count();
    assert!(50 < mapped);
    for seen in &run.calls {
        assert!(call_info(seen.raw.abi, seen.raw.nr).is_some());
    }
}
