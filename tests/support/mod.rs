//! Runs memtrace and the tracee programs the way users do, and holds what it reports against the kernel.
//!
//! Nothing here measures time. What a test waits for has a far limit, so that a hang ends as a failure; only
//! processes that the test started are ever killed.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "process groups, terminals and signals need libc"
)]

use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};
use std::{env, thread};

/// Long enough for any machine that is not hung: for a program to end, and for one thing to happen.
const LIMIT: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(60);

/// What a program that cannot run here exits with.
const SKIP: i32 = 77;

pub const MEMTRACE: &str = env!("CARGO_BIN_EXE_memtrace");

/// Says, past the capture of test output, that a test did not run.
pub fn skipped(why: impl std::fmt::Display) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(io::stderr().lock(), "SKIPPED: {name}: {why}");
}

/// The tracee program `name`, built if need be.
pub fn tracee(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let test = env::current_exe().expect("a test knows where it is");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/deps/TEST");
    let path = profile.join("examples").join(name);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let changed = |file: &Path| fs::metadata(file).and_then(|data| data.modified());
    let sources = [
        root.join(format!("fixtures/tracees/{name}.rs")),
        root.join("fixtures/tracees/common/mod.rs"),
    ];
    let stale = match changed(&path) {
        Ok(built) => sources
            .iter()
            .any(|source| changed(source).is_ok_and(|changed| changed > built)),
        Err(_) => true,
    };
    if stale {
        BUILT.call_once(|| {
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo
                .args(["build", "--quiet", "--examples"])
                .current_dir(root);
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            let status = cargo.status().expect("cargo runs");
            assert!(status.success(), "the tracees do not build: {status}");
        });
    }
    assert!(path.exists(), "{} was not built", path.display());
    path
}

/// The names that `NAME list` prints.
pub fn cases(name: &str) -> Vec<String> {
    let list = run(Command::new(tracee(name)).arg("list"));
    assert_eq!(list.status(), 0, "{name} list: {}", list.stderr);
    list.stdout.lines().map(str::to_owned).collect()
}

// ── processes ───────────────────────────────────────────────────────────────────────────────────────────

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// As a shell tells it: the code, or 128 and the signal.
    pub fn status(&self) -> i32 {
        shell_status(self.status)
    }

    /// The single line on stderr.
    #[track_caller]
    pub fn one_line(&self) -> &str {
        let mut lines = self.stderr.lines();
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("nothing on stderr: {self:?}"));
        assert_eq!(lines.next(), None, "more than one line on stderr: {self:?}");
        line
    }
}

pub fn shell_status(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .expect("ended")
}

/// A process of ours and its group; both are gone when this is.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    _folder: tempfile::TempDir,
}

/// What a shell's `&` and nohup make this process ignore, programs started from here would ignore too.
fn hear_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGHUP,
            libc::SIGTERM,
            libc::SIGTSTP,
        ] {
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    });
}

impl Running {
    /// Starts `command` in a process group of its own, its output in files: a reader would wait for whoever
    /// outlives it.
    pub fn start(command: &mut Command) -> Running {
        Running::start_in(command, true)
    }

    fn start_in(command: &mut Command, group: bool) -> Running {
        hear_signals();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (out, err) = (folder.path().join("stdout"), folder.path().join("stderr"));
        let file = |path: &Path| {
            File::options()
                .append(true)
                .create(true)
                .open(path)
                .expect("an output file")
        };
        command.stdout(file(&out)).stderr(file(&err));
        if group {
            command.process_group(0);
        }
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Running {
            child,
            out,
            err,
            _folder: folder,
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    pub fn signal(&self, signal: i32) {
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// To the whole group, as a terminal sends it.
    pub fn signal_group(&self, signal: i32) {
        unsafe { libc::kill(-self.pid(), signal) };
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    #[track_caller]
    pub fn end(mut self) -> Ended {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return Ended {
                    status,
                    stdout: self.stdout(),
                    stderr: self.stderr(),
                };
            }
            if begun.elapsed() > LIMIT {
                let tail = |text: String| {
                    text.lines()
                        .rev()
                        .take(20)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev()
                        .collect::<Vec<_>>()
                        .join("\n")
                };
                panic!(
                    "still running after {LIMIT:?}\nstdout: {}\nstderr: {}",
                    tail(self.stdout()),
                    tail(self.stderr())
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal_group(libc::SIGKILL);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[track_caller]
pub fn run(command: &mut Command) -> Ended {
    command.stdin(Stdio::null());
    Running::start(command).end()
}

/// Whether the kernel can be asked to observe here; says so if not.
pub fn kernel_is_offered() -> bool {
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

/// Waits until `happened`, far longer than it can take.
#[track_caller]
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "never happened: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A line of `/proc/PID/status`, `None` once the process is gone.
pub fn status_line(pid: i32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{key}:")))?;
    Some(line[key.len() + 1..].trim().to_owned())
}

/// Who traces `pid`: 0 for nobody.
pub fn tracer_of(pid: i32) -> Option<i32> {
    status_line(pid, "TracerPid")?.parse().ok()
}

/// `R`, `S`, `T`, `t`, `Z` …
pub fn state_of(pid: i32) -> Option<char> {
    status_line(pid, "State")?.chars().next()
}

pub fn is_alive(pid: i32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

pub fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

// ── memtrace ────────────────────────────────────────────────────────────────────────────────────────────

/// `memtrace OPTIONS -- PROGRAM`, or `-p` among the options and no program.
pub fn memtrace<S: AsRef<OsStr>>(options: &[&str], program: &[S]) -> Command {
    let mut command = Command::new(MEMTRACE);
    command.args(options);
    if !program.is_empty() {
        command.arg("--").args(program);
    }
    command
}

/// A copy of memtrace that everybody may run.
pub fn for_everybody(folder: &Path) -> PathBuf {
    let copy = folder.join("memtrace");
    fs::copy(MEMTRACE, &copy).expect("a copy of memtrace");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("an open folder");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("an open file");
    copy
}

/// A trace that was recorded, and how what was traced ended.
pub struct Traced {
    pub ended: Ended,
    pub report: Report,
}

/// Runs PROGRAM under `memtrace OPTIONS -q -o FILE` and reads the report from FILE.
#[track_caller]
pub fn traced<S: AsRef<OsStr>>(options: &[&str], program: &[S]) -> Traced {
    traced_with(options, program, |_| ())
}

#[track_caller]
pub fn traced_with<S: AsRef<OsStr>>(
    options: &[&str],
    program: &[S],
    prepare: impl FnOnce(&mut Command),
) -> Traced {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("trace");
    let mut all = vec!["-q", "-o", file.to_str().expect("UTF-8")];
    all.extend(options);
    let mut command = memtrace(&all, program);
    prepare(&mut command);
    let ended = run(&mut command);
    let report = Report::read(&file, &ended);
    Traced { ended, report }
}

/// A space that SIGKILL ended inside a stop: nobody could look at it any more.
pub const UNSEEN: &str = "ended unseen";
pub const UNCHECKED: &str = "never checked";
pub const INEXACT: &str = "its peak is not the kernel's";

/// What `memtrace report --json` says.
pub struct Report(pub Value);

impl Report {
    #[track_caller]
    pub fn read(file: &Path, context: &Ended) -> Report {
        let report = run(Command::new(MEMTRACE).args(["report", "--json"]).arg(file));
        assert_eq!(
            report.status(),
            0,
            "report: {}\nthe trace's own run: {context:?}",
            report.stderr
        );
        let json = serde_json::from_str(&report.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", report.stdout));
        Report(json)
    }

    pub fn spaces(&self) -> &[Value] {
        self.0["spaces"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The spaces of the program `exe` that began by exec.
    pub fn programs<'a>(&'a self, exe: &'a str) -> impl Iterator<Item = &'a Value> + 'a {
        let runs = move |space: &&Value| {
            space["exe"]
                .as_str()
                .is_some_and(|path| path.ends_with(exe))
                && space["began"] == "exec"
        };
        self.spaces().iter().filter(runs)
    }

    /// What must hold for every space of every trace.
    #[track_caller]
    pub fn assert_exact(&self) {
        let problems = self.problems();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut want = |holds: bool, what: String| {
            if !holds {
                problems.push(what);
            }
        };
        want(
            self.0["schema"] == "memtrace.report/1",
            format!("schema {}", self.0["schema"]),
        );
        want(
            self.0["lost"] == 0,
            format!("{} events lost", self.0["lost"]),
        );
        want(!self.spaces().is_empty(), "no space".to_owned());
        for space in self.spaces() {
            let bytes = |value: &Value| value.as_u64().unwrap_or(u64::MAX / 16);
            let id = format!(
                "space {} of {} ({} → {})",
                space["id"], space["pid"], space["began"], space["ended"]
            );
            let [mapped, reserved, committed] =
                ["mapped", "reserved", "committed"].map(|what| bytes(&space[what]["end"]));
            want(
                mapped == reserved + committed,
                format!("{id}: {mapped} mapped, {reserved} + {committed}"),
            );
            let parts = ["anon", "file", "shmem", "special"]
                .map(|part| bytes(&space["committed"]["parts"][part]));
            want(
                parts.iter().sum::<u64>() == committed,
                format!("{id}: parts {parts:?} of {committed}"),
            );
            let noreserve = bytes(&space["committed"]["noreserve"]);
            want(
                noreserve <= committed,
                format!("{id}: noreserve {noreserve} of {committed}"),
            );
            let unseen = space["ended"] == "exit" && space["resident"]["end"].is_null();
            want(!unseen, format!("{id}: {UNSEEN}"));
            for what in [
                "mapped",
                "reserved",
                "committed",
                "charged",
                "resident",
                "mappings",
            ] {
                let figure = &space[what];
                let told = figure["end"].is_u64() && figure["peak"].is_u64();
                want(told || unseen, format!("{id}: {what} is {figure}"));
                if !told {
                    continue;
                }
                let (end, peak) = (bytes(&figure["end"]), bytes(&figure["peak"]));
                want(
                    end <= peak,
                    format!("{id}: {what} is {end} at the end, {peak} at its peak"),
                );
            }
            let verify = &space["verify"];
            want(
                verify["drift"] == 0,
                format!("{id}: drift {}: {}", verify["drift"], verify["differences"]),
            );
            want(
                verify["resynced"] == 0,
                format!("{id}: resynced {}", verify["resynced"]),
            );
            if let Some(kernel) = verify["kernel_peak"].as_u64()
                && space["began"] != "attach"
            {
                let here = bytes(&space["mapped"]["peak"]);
                let what = format!("{id}: {INEXACT}: {here} instead of {kernel}");
                want(here == kernel, what);
            }
            // A second SIGKILL ends the stop in which the map is read.
            let killed = space["status"]["signal"] == libc::SIGKILL;
            if space["ended"] != "cut" && !unseen && !killed {
                want(bytes(&verify["checks"]) > 0, format!("{id}: {UNCHECKED}"));
            }
        }
        problems
    }

    /// A sum over all spaces, `path` as in `flow/map`.
    pub fn sum(&self, path: &str) -> u64 {
        let pointer = format!("/{path}");
        self.spaces()
            .iter()
            .map(|space| space.pointer(&pointer).map_or(0, bytes))
            .sum()
    }
}

/// Lets `command` have `file` as its descriptor `number`.
pub fn give(command: &mut Command, file: &File, number: i32) {
    let fd = std::os::fd::AsRawFd::as_raw_fd(file);
    let give = move || {
        let done = if fd == number {
            unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }
        } else {
            unsafe { libc::dup2(fd, number) }
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    unsafe { command.pre_exec(give) };
}

#[track_caller]
pub fn bytes(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number of bytes"))
}

/// Runs a tracee untraced and traced, and wants the same status and output, and an exact model all the way.
/// `None` if it cannot run here.
#[track_caller]
pub fn same_as_untraced(options: &[&str], name: &str, args: &[&str]) -> Option<Traced> {
    match compare(options, name, args) {
        Ok(traced) => traced,
        Err(problems) => panic!("{problems}"),
    }
}

pub fn compare(options: &[&str], name: &str, args: &[&str]) -> Result<Option<Traced>, String> {
    let path = tracee(name);
    let what = format!("{name} {}", args.join(" "));
    let untraced = run(Command::new(&path).args(args));
    if untraced.status() == SKIP {
        skipped(format!("{what}: {}", untraced.stdout.trim()));
        return Ok(None);
    }
    if untraced.status() != 0 && name != "exits" {
        return Err(format!("{what} fails untraced: {untraced:?}"));
    }
    let mut program: Vec<&OsStr> = vec![path.as_os_str()];
    program.extend(args.iter().map(OsStr::new));
    let traced = traced(options, &program);
    let mut problems = traced.report.problems();
    if name == "exits" || args.contains(&"against_exit") {
        // SIGKILL takes a task out of the stop it would be seen in for the last time (ptrace(2),
        // PTRACE_EVENT_EXIT): no tracer can help that, but it must stay rare.
        let all = problems.len();
        problems.retain(|problem| !problem.ends_with(UNSEEN) && !problem.ends_with(UNCHECKED));
        let (unseen, spaces) = (all - problems.len(), traced.report.spaces().len());
        if 8 <= spaces && spaces < 4 * unseen {
            problems.push(format!("{unseen} of {spaces} spaces ended unseen"));
        }
    }
    if traced.ended.status() != untraced.status() {
        problems.push(format!(
            "status {} instead of {}: {}",
            traced.ended.status(),
            untraced.status(),
            traced.ended.stderr
        ));
    }
    if traced.ended.stdout != untraced.stdout {
        problems.push(format!(
            "stdout changed from\n{}to\n{}",
            untraced.stdout, traced.ended.stdout
        ));
    }
    if problems.is_empty() {
        Ok(Some(traced))
    } else {
        Err(format!("{what}: {}", problems.join("\n  ")))
    }
}

/// [`same_as_untraced`] for every case of a tracee but `except`; all of them run, then the failures are told.
#[track_caller]
pub fn each_case_same_as_untraced(options: &[&str], name: &str, except: &[&str]) {
    let cases = cases(name)
        .into_iter()
        .filter(|case| !except.contains(&case.as_str()));
    let failures: Vec<String> = cases
        .filter_map(|case| compare(options, name, &[&case]).err())
        .collect();
    assert!(
        failures.is_empty(),
        "{} cases differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

// ── a process to attach to ──────────────────────────────────────────────────────────────────────────────

/// `target FILE THREADS MODE`, running.
pub struct Target {
    pub running: Running,
    words: File,
    _folder: tempfile::TempDir,
}

impl Target {
    pub fn start(threads: usize, mode: &str) -> Target {
        let mut target = Target::start_by(Command::new(tracee("target")), threads, mode);
        let pid = target.running.pid();
        target.wait_ready();
        assert_eq!(target.pid(), pid);
        target
    }

    /// The same, started by `command` (memtrace, say), which gets the arguments at its end.
    pub fn start_by(mut command: Command, threads: usize, mode: &str) -> Target {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("words");
        let words = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .expect("a file");
        command
            .arg(&path)
            .arg(threads.to_string())
            .arg(mode)
            .stdin(Stdio::null());
        Target {
            running: Running::start(&mut command),
            words,
            _folder: folder,
        }
    }

    #[track_caller]
    pub fn wait_ready(&mut self) {
        let (words, running) = (&self.words, &mut self.running);
        until("the target is ready", || {
            assert!(!running.has_ended(), "it ended: {}", running.stderr());
            word(words, 0) != 0
        });
    }

    /// The number of the working process itself.
    pub fn pid(&self) -> i32 {
        self.word(0) as i32
    }

    pub fn steps(&self) -> u64 {
        self.word(1)
    }

    pub fn wrong(&self) -> u64 {
        self.word(2)
    }

    pub fn signals(&self) -> u64 {
        self.word(3)
    }

    fn word(&self, n: u64) -> u64 {
        word(&self.words, n)
    }

    #[track_caller]
    pub fn advances(&self) {
        let before = self.steps();
        until("the target works on", || self.steps() > before + 5);
        assert_eq!(
            self.wrong(),
            0,
            "calls answered something else than untraced"
        );
    }

    #[track_caller]
    pub fn is_untouched(&self) {
        assert_eq!(tracer_of(self.pid()), Some(0), "it is still traced");
        self.advances();
    }

    /// Ends it in its own way: it exits with 0 if every call answered as it should.
    #[track_caller]
    pub fn ends_well(self) {
        self.running.signal(libc::SIGTERM);
        let ended = self.running.end();
        assert_eq!(ended.status(), 0, "{ended:?}");
    }
}

fn word(words: &File, n: u64) -> u64 {
    let mut bytes = [0; 8];
    match words.read_exact_at(&mut bytes, 8 * n) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}

/// memtrace attached to something, recording.
pub struct Attached {
    pub running: Running,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Attached {
    /// Attaches to `pids` and waits until every one of them is traced.
    #[track_caller]
    pub fn to(pids: &[i32], options: &[&str]) -> Attached {
        let mut attached = Attached::begin(pids, options);
        let memtrace = attached.running.pid();
        until("memtrace is attached", || {
            assert!(
                !attached.running.has_ended(),
                "memtrace ended: {}",
                attached.running.stderr()
            );
            pids.iter().all(|pid| tracer_of(*pid) == Some(memtrace))
        });
        attached
    }

    /// By ptrace, unless the options say otherwise.
    pub fn begin(pids: &[i32], options: &[&str]) -> Attached {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("trace");
        let list: Vec<String> = pids.iter().map(i32::to_string).collect();
        let list = list.join(",");
        let mut all = vec!["-q", "-o", file.to_str().expect("UTF-8"), "-p", &list];
        if !options.contains(&"--backend") {
            all.extend(["--backend", "ptrace"]);
        }
        all.extend(options);
        let running = Running::start(memtrace::<&str>(&all, &[]).stdin(Stdio::null()));
        Attached {
            running,
            file,
            _folder: folder,
        }
    }

    /// Ends it by `signal` as a user would, and reads what it recorded.
    #[track_caller]
    pub fn stop(self, signal: i32) -> Traced {
        self.running.signal(signal);
        self.end()
    }

    /// Kills it.
    pub fn kill(self) {
        self.running.signal(libc::SIGKILL);
        self.running.end();
    }

    #[track_caller]
    pub fn end(self) -> Traced {
        let ended = self.running.end();
        let report = Report::read(&self.file, &ended);
        Traced { ended, report }
    }
}

// ── a terminal ──────────────────────────────────────────────────────────────────────────────────────────

/// A program on a terminal of its own, as its session leader.
pub struct Terminal {
    child: Child,
    master: File,
    seen: Mutex<String>,
}

impl Terminal {
    pub fn start(command: &mut Command) -> Terminal {
        hear_signals();
        let (mut master, mut slave) = (-1, -1);
        let null = std::ptr::null_mut();
        let size = libc::winsize {
            ws_row: 40,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let made = unsafe { libc::openpty(&mut master, &mut slave, null, null.cast(), &size) };
        assert_eq!(made, 0, "openpty: {}", io::Error::last_os_error());
        let (master, slave) =
            unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        unsafe {
            libc::fcntl(
                std::os::fd::AsRawFd::as_raw_fd(&master),
                libc::F_SETFD,
                libc::FD_CLOEXEC,
            )
        };
        let copy = || slave.try_clone().expect("a copy of the terminal");
        command.stdin(copy()).stdout(copy()).stderr(copy());
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Terminal {
            child,
            master: File::from(master),
            seen: Mutex::default(),
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn send(&self, keys: &[u8]) {
        (&self.master)
            .write_all(keys)
            .expect("the terminal takes keys");
    }

    /// Reads until `text` has come since the last call; returns what came up to there.
    #[track_caller]
    pub fn expect(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            {
                let mut seen = self.seen.lock().expect("one reader");
                if let Some(at) = seen.find(text) {
                    let rest = seen.split_off(at + text.len());
                    return std::mem::replace(&mut *seen, rest);
                }
            }
            assert!(
                self.read() && begun.elapsed() < PATIENCE,
                "{text:?} never came, only {:?}",
                self.seen.lock().expect("one reader")
            );
        }
    }

    /// One read, or none if nothing comes for a moment; false at the end.
    fn read(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: std::os::fd::AsRawFd::as_raw_fd(&self.master),
            events: libc::POLLIN,
            revents: 0,
        };
        if unsafe { libc::poll(&mut poll, 1, 100) } <= 0 {
            return true;
        }
        let mut bytes = [0; 4096];
        match (&self.master).read(&mut bytes) {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.seen
                    .lock()
                    .expect("one reader")
                    .push_str(&String::from_utf8_lossy(&bytes[..n]));
                true
            }
        }
    }

    /// The status of the program, and all that came since the last `expect`.
    #[track_caller]
    pub fn end(mut self) -> (i32, String) {
        let begun = Instant::now();
        let status = loop {
            self.read();
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "still running: {:?}",
                self.seen.lock().expect("one reader")
            );
        };
        // What was still in the terminal.
        let mut poll = libc::pollfd {
            fd: std::os::fd::AsRawFd::as_raw_fd(&self.master),
            events: libc::POLLIN,
            revents: 0,
        };
        while unsafe { libc::poll(&mut poll, 1, 0) } > 0 && self.read() {}
        let seen = std::mem::take(&mut *self.seen.lock().expect("one reader"));
        (shell_status(status), seen)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A program by its name in PATH, or a visible skip.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        skipped(format!("{name} is not installed"));
    }
    found
}

pub fn words<'a>(line: &'a [&'a str]) -> Vec<OsString> {
    line.iter().map(OsString::from).collect()
}
