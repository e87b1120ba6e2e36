//! Launching a program under the filter.
//!
//! The child waits for a byte; the parent seizes it with every option set and sends the byte; the
//! child installs the filter and execs. So no stop is to be swallowed, no call runs under the
//! filter without a tracer, and the first thing seen is PTRACE_EVENT_EXEC (cases, 1.1).

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::sys::ptrace::{self, Options as PtraceOptions};
use nix::unistd::Pid;

use crate::abi::CallInfo;
use crate::timeline::{Began, Observed, TaskOrigin};
use crate::units::Tid;

use super::control::Control;
use super::error::TraceError;
use super::supervisor::{Options, Stops, Supervisor};
use super::{filter, sys};

/// A child that has not reached its program yet.
#[derive(Debug)]
pub(super) struct Launching {
    pub pid: Tid,
    program: String,
    /// The child writes here what went wrong, and its end closes with exec.
    report: std::fs::File,
}

/// What a child says through the pipe.
#[derive(Debug, Default)]
struct Report {
    no_new_privs: bool,
    no_filter: Option<io::Error>,
    exec_failed: Option<io::Error>,
}

/// A program to launch.
#[derive(Clone, Debug)]
pub struct Program {
    /// As given: a path, or a name to look up in PATH.
    pub name: OsString,
    /// Arguments after the name.
    pub args: Vec<OsString>,
}

/// The ptrace options that attach and launch have in common.
pub(super) fn ptrace_options() -> PtraceOptions {
    PtraceOptions::PTRACE_O_TRACESYSGOOD
        | PtraceOptions::PTRACE_O_TRACECLONE
        | PtraceOptions::PTRACE_O_TRACEFORK
        | PtraceOptions::PTRACE_O_TRACEVFORK
        | PtraceOptions::PTRACE_O_TRACEEXEC
        | PtraceOptions::PTRACE_O_TRACEEXIT
}

/// A child that waits for its byte.
#[derive(Debug)]
pub(super) struct Started {
    pub launching: Launching,
    go: Option<OwnedFd>,
}

impl Started {
    /// Lets it become its program.
    pub(super) fn go(&mut self) -> Result<(), TraceError> {
        let Some(go) = self.go.take() else {
            return Ok(());
        };
        let mut go = std::fs::File::from(go);
        go.write_all(b"g").map_err(|source| TraceError::Request {
            request: "write",
            tid: Some(self.launching.pid),
            source,
        })
    }
}

/// Makes the child that will be `program`, under the filter `code` unless that is empty. Must be
/// called while memtrace has one thread.
pub(super) fn fork(program: &Program, code: &[libc::sock_filter]) -> Result<Started, TraceError> {
    let shown = program.name.to_string_lossy().into_owned();
    let path = find(&program.name).map_err(|source| not_started(&shown, source))?;
    let c_string = |bytes: &[u8]| {
        CString::new(bytes).map_err(|source| TraceError::Request {
            request: "execve",
            tid: None,
            source: source.into(),
        })
    };
    let path = c_string(path.as_os_str().as_bytes())?;
    let argv = std::iter::once(&program.name)
        .chain(&program.args)
        .map(|arg| c_string(arg.as_bytes()))
        .collect::<Result<Vec<_>, _>>()?;
    let envp = std::env::vars_os()
        .map(|(mut key, value)| {
            key.push("=");
            key.push(value);
            c_string(key.as_bytes())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let request = |request| {
        move |source: nix::Error| TraceError::Request {
            request,
            tid: None,
            source: source.into(),
        }
    };
    let (go_read, go_write) = pipe().map_err(request("pipe2"))?;
    let (report_read, report_write) = pipe().map_err(request("pipe2"))?;
    let plan = sys::ExecPlan {
        path: &path,
        argv: &argv,
        envp: &envp,
        filter: code,
        go: go_read.as_raw_fd(),
        report: report_write.as_raw_fd(),
        parents: [go_write.as_raw_fd(), report_read.as_raw_fd()],
    };
    let pid = sys::fork_exec(&plan).map_err(|source| TraceError::Request {
        request: "fork",
        tid: None,
        source,
    })?;
    Ok(Started {
        launching: Launching {
            pid,
            program: shown,
            report: std::fs::File::from(report_read),
        },
        go: Some(go_write),
    })
}

/// Why the child did not become its program.
pub(super) fn failure(launching: Launching) -> TraceError {
    let source = match read_report(launching.report).exec_failed {
        Some(error) => error,
        None => io::Error::other("it was killed before it began"),
    };
    not_started(&launching.program, source)
}

impl Supervisor {
    /// Launches `program`. Must be called while memtrace has one thread.
    pub fn launch(options: Options, program: &Program) -> Result<Supervisor, TraceError> {
        let code = match options.stops {
            Stops::Seccomp => {
                let wanted = |call: &CallInfo| call.default || options.extra.contains(&call.kind);
                filter::build(wanted)
            }
            Stops::Syscall => Vec::new(),
        };
        let mut started = fork(program, &code)?;
        let pid = started.launching.pid;

        let mut ptrace_options = ptrace_options() | PtraceOptions::PTRACE_O_EXITKILL;
        if options.stops == Stops::Seccomp {
            ptrace_options |= PtraceOptions::PTRACE_O_TRACESECCOMP;
        }
        if let Err(error) = ptrace::seize(Pid::from_raw(pid.0), ptrace_options) {
            let _ = sys::kill(pid, libc::SIGKILL);
            let _ = sys::wait(pid, true);
            return Err(TraceError::Attach {
                pid,
                reason: format!(
                    "{} (the place memtrace runs in forbids ptrace)",
                    error.desc()
                ),
            });
        }
        let control = Control::start().map_err(|source| TraceError::Request {
            request: "starting a thread",
            tid: None,
            source,
        })?;
        let epoch = Instant::now();
        let mut supervisor = Supervisor::new(options, control, epoch);
        supervisor.launched = Some(pid);
        started.go()?;
        supervisor.launching = Some(started.launching);
        Ok(supervisor)
    }

    /// A stop of the child before it is the program.
    pub(super) fn launching_stop(
        &mut self,
        tid: Tid,
        signal: i32,
        event: i32,
    ) -> Result<(), TraceError> {
        if event != libc::PTRACE_EVENT_EXEC {
            let deliver = if event == 0 && signal != libc::SIGTRAP | 0x80 {
                signal
            } else {
                0
            };
            let _ = sys::restart(tid, sys::Restart::Cont, deliver);
            return Ok(());
        }
        let Some(launching) = self.launching.take() else {
            return Ok(());
        };
        let report = read_report(launching.report);
        if let Some(why) = report.no_filter {
            self.stops = Stops::Syscall;
            let text = format!("seccomp is not available ({why}): every system call stops instead");
            self.push(Observed::Note { space: None, text });
        }
        if report.no_new_privs {
            let text = "without CAP_SYS_ADMIN the program runs with no_new_privs: set-user-ID \
                        programs it starts keep your rights"
                .to_owned();
            self.push(Observed::Note { space: None, text });
        }
        let space = self.begin_space(tid, tid, Began::Exec);
        self.add_task(tid, tid, space, None, TaskOrigin::Launch);
        self.resume(tid, 0);
        Ok(())
    }

    /// The child ended before it was the program.
    pub(super) fn launch_failed(&mut self) -> Result<(), TraceError> {
        let Some(launching) = self.launching.take() else {
            return Ok(());
        };
        Err(failure(launching))
    }
}

/// Why a child that has ended did not become its program, if it did not.
pub(super) fn exec_error(launching: Launching) -> Option<TraceError> {
    let error = read_report(launching.report).exec_failed?;
    Some(not_started(&launching.program, error))
}

fn not_started(program: &str, source: io::Error) -> TraceError {
    let program = program.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            TraceError::NotFound { program, source }
        }
        _ => TraceError::NotExecutable { program, source },
    }
}

fn read_report(mut pipe: std::fs::File) -> Report {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    let mut report = Report::default();
    for message in bytes.chunks_exact(5) {
        let errno = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
        match message[0] {
            sys::report::NO_NEW_PRIVS => report.no_new_privs = true,
            sys::report::NO_FILTER => {
                report.no_filter = Some(io::Error::from_raw_os_error(errno));
            }
            sys::report::EXEC_FAILED => {
                report.exec_failed = Some(io::Error::from_raw_os_error(errno));
            }
            _ => {}
        }
    }
    report
}

/// A pipe whose ends do not survive exec and are none of 0, 1 and 2 (which may have been closed,
/// and will be again in the child).
fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((above_stdio(read)?, above_stdio(write)?))
}

fn above_stdio(fd: OwnedFd) -> nix::Result<OwnedFd> {
    if 2 < fd.as_raw_fd() {
        return Ok(fd);
    }
    let moved = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))?;
    drop(fd);
    Ok(sys::own_fd(moved))
}

/// The file that execvp(3) would run: a name without a slash is looked up in PATH.
fn find(name: &OsStr) -> io::Result<PathBuf> {
    if name.is_empty() {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    if name.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut refused = None;
    for folder in std::env::split_paths(&path) {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &folder
        };
        let candidate = folder.join(name);
        match nix::unistd::access(&candidate, nix::unistd::AccessFlags::X_OK) {
            Ok(()) if candidate.is_file() => return Ok(candidate),
            Err(nix::Error::EACCES) if candidate.is_file() => {
                refused.get_or_insert(nix::Error::EACCES);
            }
            _ => {}
        }
    }
    Err(refused.unwrap_or(nix::Error::ENOENT).into())
}
