//! Runs one process to its end: what it printed, how long it took, how large it was at most.

#![expect(
    unsafe_code,
    reason = "no safe wrapper tells the resource usage of one child"
)]

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io, mem};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// No run takes that long; one that does is hung, and is ended.
const LIMIT: Duration = Duration::from_secs(300);

pub struct Ran {
    pub stdout: String,
    pub wall: Duration,
    /// The most bytes that were resident.
    pub peak: u64,
}

/// Runs it in a process group of its own. Anything but a success is an error.
pub fn run(command: &mut Command) -> Result<Ran, String> {
    let program = command.get_program().to_owned();
    let failed = |error: io::Error| format!("{}: {error}", program.display());
    let (mut stdout, mut stderr) = (
        tempfile::tempfile().map_err(failed)?,
        tempfile::tempfile().map_err(failed)?,
    );
    let own = |file: &File| file.try_clone().map(Stdio::from);
    command
        .stdout(own(&stdout).map_err(failed)?)
        .stderr(own(&stderr).map_err(failed)?);
    let begun = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed)?;

    let watchdog = Watchdog::over(&child);
    let pid = pid_of(&child);
    // It stays a zombie, so that its number is nobody else's before the watchdog is off.
    let waited = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    let wall = begun.elapsed();
    watchdog.off();
    waited.map_err(|error| error.to_string())?;

    let (status, peak) = reap(pid).map_err(|error| error.to_string())?;
    let text = |file: &mut File| {
        let mut bytes = Vec::new();
        let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (stdout, stderr) = (text(&mut stdout), text(&mut stderr));
    if !status.success() {
        let said = stderr.lines().chain(stdout.lines()).next().unwrap_or("");
        return Err(format!("{status}: {said}"));
    }
    Ok(Ran { stdout, wall, peak })
}

fn reap(pid: Pid) -> io::Result<(ExitStatus, u64)> {
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: both results outlive the call, which writes nothing else.
    let ret = unsafe { libc::wait4(pid.as_raw(), &raw mut status, 0, &raw mut usage) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((
        ExitStatus::from_raw(status),
        u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    ))
}

/// Ends a process group that outlasts the limit.
struct Watchdog {
    ended: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    fn over(child: &Child) -> Watchdog {
        let group = pid_of(child);
        let (ended, has_ended) = channel();
        let thread = thread::spawn(move || {
            if has_ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                let _ = killpg(group, Signal::SIGKILL);
            }
        });
        Watchdog { ended, thread }
    }

    fn off(self) {
        let _ = self.ended.send(());
        let _ = self.thread.join();
    }
}

/// A process that runs beside the measured ones, until this is dropped.
pub struct Beside(Child);

impl Beside {
    pub fn start(command: &mut Command) -> Result<Beside, String> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        command
            .spawn()
            .map(Beside)
            .map_err(|error| format!("{:?}: {error}", command.get_program()))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end, as Ctrl-C does, and waits for that.
    pub fn interrupt(mut self) -> Result<(), String> {
        kill(pid_of(&self.0), Signal::SIGINT).map_err(|error| error.to_string())?;
        until("it ends when interrupted", || {
            matches!(self.0.try_wait(), Ok(Some(_)))
        })
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = killpg(pid_of(&self.0), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id"))
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !holds() {
        if LIMIT < begun.elapsed() {
            return Err(format!("waited in vain: {what}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether every thread of `pid` is traced by `tracer`.
pub fn is_traced_by(pid: u32, tracer: u32) -> bool {
    let line = format!("TracerPid:\t{tracer}\n");
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.flatten().all(|task| {
        fs::read_to_string(task.path().join("status")).is_ok_and(|text| text.contains(&line))
    })
}
