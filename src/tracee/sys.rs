//! The system calls of the supervisor that have no safe wrapper: the only `unsafe` of the crate.
//!
//! Signals are plain numbers here because nix's `Signal` has no real-time signals, and a tracee's
//! must be passed on like any other.

#![expect(
    unsafe_code,
    reason = "ptrace requests, fork and ioctls that nix does not wrap safely"
)]

pub(super) mod perf;

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::decode::RawCall;
use crate::units::{Addr, Tid};

/// `PTRACE_EVENT_STOP` in the upper half of a wait status: a stop under SEIZE.
pub(super) const EVENT_STOP: i32 = libc::PTRACE_EVENT_STOP;

/// What `PTRACE_GET_SYSCALL_INFO` says of a stop.
#[derive(Clone, Copy, Debug)]
pub(super) enum SyscallInfo {
    /// Not a syscall stop.
    None,
    /// At the entry.
    Entry { arch: u32, nr: u64, args: [u64; 6] },
    /// At the exit.
    Exit { result: i64 },
    /// At a seccomp stop; `data` is the filter's SECCOMP_RET_DATA.
    Seccomp {
        arch: u32,
        nr: u64,
        args: [u64; 6],
        data: u32,
    },
}

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// To the next stop that is not a syscall's.
    Cont,
    /// To the next entry or exit of a system call.
    Syscall,
    /// Stay stopped, but let job control be seen.
    Listen,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Resumes `tid`, delivering `signal` unless it is 0.
pub(super) fn restart(tid: Tid, how: Restart, signal: i32) -> io::Result<()> {
    let request = match how {
        Restart::Cont => libc::PTRACE_CONT,
        Restart::Syscall => libc::PTRACE_SYSCALL,
        Restart::Listen => libc::PTRACE_LISTEN,
    };
    // SAFETY: none of the three requests reads or writes memory of ours; a stale tid gives ESRCH.
    let result = unsafe { libc::ptrace(request, tid.0, 0usize, signal as libc::c_long) };
    check(result).map(drop)
}

/// Lets `tid` go, delivering `signal` unless it is 0.
pub(super) fn detach(tid: Tid, signal: i32) -> io::Result<()> {
    // SAFETY: PTRACE_DETACH touches no memory of ours; a stale tid gives ESRCH.
    let result =
        unsafe { libc::ptrace(libc::PTRACE_DETACH, tid.0, 0usize, signal as libc::c_long) };
    check(result).map(drop)
}

/// Asks what kind of syscall stop `tid` is in.
pub(super) fn syscall_info(tid: Tid) -> io::Result<SyscallInfo> {
    // SAFETY: an all-zero ptrace_syscall_info is a valid value of it.
    let mut info: libc::ptrace_syscall_info = unsafe { mem::zeroed() };
    let size = mem::size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes at most `size` bytes to `info`, which is that large and outlives
    // the call.
    check(unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid.0, size, &raw mut info) })?;
    Ok(match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: for this `op` the kernel filled the `entry` member.
            let entry = unsafe { info.u.entry };
            SyscallInfo::Entry {
                arch: info.arch,
                nr: entry.nr,
                args: entry.args,
            }
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => {
            // SAFETY: for this `op` the kernel filled the `exit` member.
            let exit = unsafe { info.u.exit };
            SyscallInfo::Exit { result: exit.sval }
        }
        libc::PTRACE_SYSCALL_INFO_SECCOMP => {
            // SAFETY: for this `op` the kernel filled the `seccomp` member.
            let seccomp = unsafe { info.u.seccomp };
            SyscallInfo::Seccomp {
                arch: info.arch,
                nr: seccomp.nr,
                args: seccomp.args,
                data: seccomp.ret_data,
            }
        }
        _ => SyscallInfo::None,
    })
}

/// The leading words of a siginfo_t.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SigInfo {
    /// si_errno
    pub errno: i32,
    /// si_code
    pub code: i32,
    /// Bytes 16 to 47.
    pub fields: [u64; 4],
}

/// Asks what signal `tid` is stopped for.
pub(super) fn signal_info(tid: Tid) -> io::Result<SigInfo> {
    let mut words = [0u64; mem::size_of::<libc::siginfo_t>() / 8];
    // SAFETY: the kernel writes one siginfo_t, which is exactly as large as `words`.
    check(unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, tid.0, 0usize, words.as_mut_ptr()) })?;
    Ok(SigInfo {
        errno: (words[0] >> 32) as u32 as i32,
        code: words[1] as u32 as i32,
        fields: [words[2], words[3], words[4], words[5]],
    })
}

/// One answer of wait4(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// Something changed.
    Status { tid: Tid, status: i32 },
    /// Nothing has changed yet (only with `block` off).
    Nothing,
    /// A signal to the supervisor arrived first.
    Interrupted,
    /// There is nobody to wait for.
    NoChild,
}

/// Waits for a change of `tid` (-1: of any tracee or child).
pub(super) fn wait(tid: Tid, block: bool) -> io::Result<Waited> {
    let mut status = 0;
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    // SAFETY: `status` outlives the call, and no rusage is asked for.
    let result = unsafe { libc::wait4(tid.0, &raw mut status, flags, std::ptr::null_mut()) };
    match result {
        0 => Ok(Waited::Nothing),
        -1 => {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => Ok(Waited::Interrupted),
                Some(libc::ECHILD) => Ok(Waited::NoChild),
                _ => Err(error),
            }
        }
        tid => Ok(Waited::Status {
            tid: Tid(tid),
            status,
        }),
    }
}

/// kcmp(2) KCMP_VM: whether two tasks share one address space. `None` if it cannot be told.
pub(super) fn same_space(a: Tid, b: Tid) -> Option<bool> {
    const KCMP_VM: libc::c_long = 1;
    // SAFETY: kcmp touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_kcmp, a.0, b.0, KCMP_VM, 0, 0) } {
        -1 => None,
        order => Some(order == 0),
    }
}

/// `struct procmap_query` of include/uapi/linux/fs.h (Linux 6.11).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    pub vma_start: u64,
    pub vma_end: u64,
    pub vma_flags: u64,
    vma_page_size: u64,
    pub vma_offset: u64,
    pub inode: u64,
    pub dev_major: u32,
    pub dev_minor: u32,
    pub vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

/// PROCMAP_QUERY on an open `/proc/PID/maps`: the mapping that holds `addr`, or the next one above
/// it. The name's bytes, if there is one, are in `name[..vma_name_size - 1]`.
/// `Ok(None)`: there is none; an error where the kernel does not know the request (ENOTTY) or the
/// space is gone (ESRCH).
pub(super) fn query_mapping(
    maps: BorrowedFd<'_>,
    addr: Addr,
    name: &mut [u8],
) -> io::Result<Option<ProcmapQuery>> {
    const COVERING_OR_NEXT_VMA: u64 = 0x10;
    // _IOWR(PROCFS_IOCTL_MAGIC 'f', 17, struct procmap_query)
    const PROCMAP_QUERY: libc::c_ulong = 0xc068_6611;
    const { assert!(mem::size_of::<ProcmapQuery>() == 0x68) };
    let mut query = ProcmapQuery {
        size: mem::size_of::<ProcmapQuery>() as u64,
        query_flags: COVERING_OR_NEXT_VMA,
        query_addr: addr.0,
        vma_name_size: name.len() as u32,
        vma_name_addr: name.as_mut_ptr() as u64,
        ..ProcmapQuery::default()
    };
    // SAFETY: the kernel writes to `query`, and at most `vma_name_size` bytes to `name`; both
    // outlive the call.
    let result = unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, &raw mut query) };
    if result == 0 {
        return Ok(Some(query));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(None),
        _ => Err(error),
    }
}

/// What the standard library changes before `main` and a launched program must get back.
static ORIGINAL_SIGPIPE: AtomicU8 = AtomicU8::new(0);
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

extern "C" fn remember_start() {
    for fd in 0..3 {
        // SAFETY: F_GETFD touches no memory.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED_AT_START.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
    ORIGINAL_SIGPIPE.store(u8::from(is_ignored(libc::SIGPIPE)), Ordering::Relaxed);
}

// Runs before the standard library ignores SIGPIPE and opens /dev/null for closed descriptors.
// SAFETY: the linker calls entries of .init_array as C functions before main; this one only makes
// two system calls and stores to atomics.
#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER_START: extern "C" fn() = remember_start;

/// What the child of [`fork_exec`] reports before it execs or fails to.
pub(super) mod report {
    /// no_new_privs had to be set.
    pub const NO_NEW_PRIVS: u8 = b'n';
    /// The filter could not be installed; an errno follows. The child goes on without.
    pub const NO_FILTER: u8 = b'f';
    /// execve failed; an errno follows.
    pub const EXEC_FAILED: u8 = b'e';
}

/// Everything a forked child needs, prepared before the fork.
pub(super) struct ExecPlan<'a> {
    pub path: &'a CString,
    pub argv: &'a [CString],
    pub envp: &'a [CString],
    /// Empty: no filter is installed.
    pub filter: &'a [libc::sock_filter],
    /// One byte from the parent lets the child go on.
    pub go: RawFd,
    /// The child writes [`report`]s here.
    pub report: RawFd,
    /// Ends of the pipes that belong to the parent.
    pub parents: [RawFd; 2],
}

/// Forks a child that waits for its byte, installs the filter and execs. The caller must have one
/// thread only.
pub(super) fn fork_exec(plan: &ExecPlan<'_>) -> io::Result<Tid> {
    // Named here so that the linker keeps the object it stands in.
    std::hint::black_box(&REMEMBER_START);
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let argv = pointers(plan.argv);
    let envp = pointers(plan.envp);
    let program = libc::sock_fprog {
        len: plan.filter.len() as u16,
        filter: plan.filter.as_ptr().cast_mut(),
    };
    // SAFETY: the process has one thread, and the child calls only async-signal-safe functions.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: only system calls on memory prepared before the fork, then exec or _exit.
            unsafe { child(plan, &program, &argv, &envp) }
        }
        pid => Ok(Tid(pid)),
    }
}

/// # Safety
/// To be called in a forked child only; `argv` and `envp` end in a null pointer.
unsafe fn child(
    plan: &ExecPlan<'_>,
    program: &libc::sock_fprog,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
) -> ! {
    // SAFETY: see above; every pointer outlives its call.
    unsafe {
        let tell = |what: u8, errno: i32| {
            let [a, b, c, d] = errno.to_ne_bytes();
            let message = [what, a, b, c, d];
            libc::write(plan.report, message.as_ptr().cast(), message.len());
        };
        for fd in plan.parents {
            libc::close(fd);
        }
        let mut byte = 0u8;
        if libc::read(plan.go, (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(125);
        }
        if ORIGINAL_SIGPIPE.load(Ordering::Relaxed) == 0 {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
        let closed = CLOSED_AT_START.load(Ordering::Relaxed);
        for fd in 0..3 {
            if closed & (1 << fd) != 0 {
                libc::close(fd);
            }
        }
        if program.len != 0 {
            let install = || {
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    0,
                    std::ptr::from_ref(program),
                )
            };
            let mut result = install();
            if result != 0 && *libc::__errno_location() == libc::EACCES {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                tell(report::NO_NEW_PRIVS, 0);
                result = install();
            }
            if result != 0 {
                tell(report::NO_FILTER, *libc::__errno_location());
            }
        }
        libc::execve(plan.path.as_ptr(), argv.as_ptr(), envp.as_ptr());
        tell(report::EXEC_FAILED, *libc::__errno_location());
        libc::_exit(127)
    }
}

/// Patches the general registers of a stopped 64-bit tracee.
pub(super) fn set_regs(tid: Tid, regs: &libc::user_regs_struct) -> io::Result<()> {
    // SAFETY: the kernel reads one user_regs_struct, which `regs` is.
    check(unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGS,
            tid.0,
            0usize,
            std::ptr::from_ref(regs),
        )
    })
    .map(drop)
}

/// Blocks `signals` in this thread (and those it starts later).
pub(super) fn block_signals(signals: &[i32]) {
    let set = signal_set(signals);
    // SAFETY: `set` outlives the call, the old set is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Whether this process ignores `signal`.
pub(super) fn is_ignored(signal: i32) -> bool {
    // SAFETY: an all-zero sigaction is valid, and the kernel fills it.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigemptyset makes the zeroed set valid; sigaddset changes only it.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// A signal taken by [`take_signal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Its number.
    pub signal: i32,
    /// Sent by a process (kill, sigqueue, tgkill) rather than by the kernel or a terminal.
    pub by_process: bool,
    /// `si_pid`: the sender, or for SIGCHLD the task that changed.
    pub pid: Tid,
}

/// Takes one of `signals`, which must be blocked, or waits at most `timeout` for one.
pub(super) fn take_signal(signals: &[i32], timeout: Duration) -> Option<Taken> {
    let set = signal_set(signals);
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: an all-zero siginfo_t is valid; all pointers outlive the call.
    let (signal, info) = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let signal = libc::sigtimedwait(&raw const set, &raw mut info, &raw const timeout);
        (signal, info)
    };
    (signal > 0).then(|| Taken {
        signal,
        by_process: info.si_code <= 0,
        // SAFETY: the signals waited for here are sent by kill, a terminal or a child, for all of
        // which si_pid is filled (or zero).
        pid: Tid(unsafe { info.si_pid() }),
    })
}

/// The signal by which the control thread makes the supervisor's wait return early. Its handler
/// does nothing, and without SA_RESTART the wait ends with EINTR.
pub(super) fn install_poke() -> io::Result<i32> {
    extern "C" fn nothing(_: i32) {}
    let signal = libc::SIGRTMIN() + 3;
    // SAFETY: an all-zero sigaction is valid; the handler does nothing and so is signal-safe.
    let result = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    check(result.into()).map(|_| signal)
}

/// Sends `signal` to one thread of one process.
pub(super) fn tgkill(pid: Tid, tid: Tid, signal: i32) -> io::Result<()> {
    // SAFETY: tgkill touches no memory.
    check(unsafe { libc::syscall(libc::SYS_tgkill, pid.0, tid.0, signal) }).map(drop)
}

/// Sends `signal` to a process.
pub(super) fn kill(pid: Tid, signal: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory.
    check(unsafe { libc::kill(pid.0, signal) }.into()).map(drop)
}

/// The calling thread's tid.
pub(super) fn gettid() -> Tid {
    // SAFETY: gettid touches no memory and cannot fail.
    Tid(unsafe { libc::gettid() })
}

/// Makes the calling thread SCHED_IDLE, or normal again.
pub(super) fn set_idle_policy(idle: bool) -> io::Result<()> {
    let policy = if idle {
        libc::SCHED_IDLE
    } else {
        libc::SCHED_OTHER
    };
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` outlives the call; tid 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const param) }.into()).map(drop)
}

/// The registers of a memory call, cut to what its ABI passes.
pub(super) fn raw_call(arch: u32, nr: u64, mut args: [u64; 6]) -> Option<RawCall> {
    use crate::abi::Abi;
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    let abi = match arch {
        AUDIT_ARCH_X86_64 => Abi::X86_64,
        AUDIT_ARCH_I386 => {
            for arg in &mut args {
                *arg &= 0xffff_ffff;
            }
            Abi::I386
        }
        _ => return None,
    };
    Some(RawCall {
        abi,
        nr: nr as u32,
        args,
    })
}

/// Takes charge of a descriptor that a system call has just made.
pub(super) fn own_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller got `fd` from the kernel and gives it to nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The number of columns of the terminal that `stream` is; `None` if it is none.
pub fn terminal_width(stream: impl AsFd) -> Option<usize> {
    let fd = stream.as_fd().as_raw_fd();
    // SAFETY: isatty touches no memory.
    if unsafe { libc::isatty(fd) } != 1 {
        return None;
    }
    // SAFETY: an all-zero winsize is valid, the kernel fills it, and it outlives the call.
    let columns = unsafe {
        let mut size: libc::winsize = mem::zeroed();
        match libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) {
            0 => usize::from(size.ws_col),
            _ => 0,
        }
    };
    Some(if columns == 0 { 80 } else { columns })
}
