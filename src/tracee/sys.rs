//! The system calls of the supervisor that have no safe wrapper: the only `unsafe` of the crate.
//!
//! Signals are plain numbers here because nix's `Signal` has no real-time signals, and a tracee's
//! must be passed on like any other.

#![expect(
    unsafe_code,
    reason = "ptrace requests, fork and ioctls that nix does not wrap safely"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
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

/// An event for [`perf_open`] on one CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct PerfEvent {
    /// Of this task and of all that it makes from now on; `None`: of every task.
    pub task: Option<Tid>,
    /// The tracepoint's number; `None`: no samples, but records of tasks, their names and mappings.
    pub tracepoint: Option<u64>,
    /// A reader is woken by each sample rather than by the ring being so full.
    pub wakes: bool,
    /// How many bytes wake a reader otherwise.
    pub watermark: u32,
    /// A sample holds the program's registers, those of [`STACK_REGISTERS`], and a copy of this many
    /// bytes of its stack; 0: neither.
    pub stack: u32,
}

/// Registers of `enum perf_event_x86_regs` (arch/x86/include/uapi/asm/perf_regs.h) in that order: rbx,
/// rbp, rsp, rip, r12 to r15.
pub(super) const STACK_REGISTERS: u64 = 1 << 1 | 1 << 6 | 1 << 7 | 1 << 8 | 0xf << 20;

/// `struct perf_event_attr` of include/uapi/linux/perf_event.h, as of PERF_ATTR_SIZE_VER5.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

/// perf_event_open(2). Every sample and record of every event holds process, task and time
/// (CLOCK_MONOTONIC), in that order, and a sample the tracepoint's own bytes.
pub(super) fn perf_open(event: &PerfEvent, cpu: usize) -> io::Result<OwnedFd> {
    const SOFTWARE: u32 = 1;
    const DUMMY: u64 = 9;
    const TRACEPOINT: u32 = 2;
    const TID_TIME_RAW: u64 = 0x2 | 0x4 | 0x400;
    const REGS_USER_STACK_USER: u64 = 1 << 12 | 1 << 13;
    const MMAP_COMM_TASK_DATA_MMAP2: u64 = 1 << 8 | 1 << 9 | 1 << 13 | 1 << 17 | 1 << 23;
    const INHERIT: u64 = 1 << 1;
    const WATERMARK: u64 = 1 << 14;
    const SAMPLE_ID_ALL_AND_CLOCKID: u64 = 1 << 18 | 1 << 25;
    const FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const { assert!(mem::size_of::<PerfEventAttr>() == 112) };
    let mut attr = PerfEventAttr {
        kind: TRACEPOINT,
        size: mem::size_of::<PerfEventAttr>() as u32,
        sample_period: 1,
        sample_type: TID_TIME_RAW,
        flags: SAMPLE_ID_ALL_AND_CLOCKID,
        wakeup: 1,
        clockid: libc::CLOCK_MONOTONIC,
        ..PerfEventAttr::default()
    };
    match event.tracepoint {
        Some(id) => attr.config = id,
        None => {
            (attr.kind, attr.config) = (SOFTWARE, DUMMY);
            attr.flags |= MMAP_COMM_TASK_DATA_MMAP2;
        }
    }
    if event.task.is_some() {
        attr.flags |= INHERIT;
    }
    if 0 < event.stack {
        attr.sample_type |= REGS_USER_STACK_USER;
        attr.sample_regs_user = STACK_REGISTERS;
        attr.sample_stack_user = event.stack;
    }
    if !event.wakes {
        attr.flags |= WATERMARK;
        attr.wakeup = event.watermark;
    }
    // SAFETY: the kernel reads `size` bytes of `attr`, which is that large and outlives the call.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            event.task.map_or(-1, |task| task.0),
            cpu as libc::c_int,
            -1,
            FLAG_FD_CLOEXEC,
        )
    })?;
    Ok(own_fd(fd as RawFd))
}

/// Makes what `event` tells go to the ring of `leader`.
pub(super) fn perf_redirect(event: BorrowedFd<'_>, leader: BorrowedFd<'_>) -> io::Result<()> {
    const SET_OUTPUT: libc::c_ulong = 0x2405; // PERF_EVENT_IOC_SET_OUTPUT
    // SAFETY: the request takes a descriptor and touches no memory of ours.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), SET_OUTPUT, leader.as_raw_fd()) };
    check(result.into()).map(drop)
}

/// Lets `event` tell only of what passes `filter` (Documentation/trace/events.rst, 5).
pub(super) fn perf_filter(event: BorrowedFd<'_>, filter: &CStr) -> io::Result<()> {
    const SET_FILTER: libc::c_ulong = 0x4008_2406; // PERF_EVENT_IOC_SET_FILTER
    // SAFETY: the kernel reads the string, which outlives the call.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), SET_FILTER, filter.as_ptr()) };
    check(result.into()).map(drop)
}

/// Lets `event` tell of one in `period` only.
pub(super) fn perf_period(event: BorrowedFd<'_>, period: u64) -> io::Result<()> {
    const PERIOD: libc::c_ulong = 0x4008_2404; // PERF_EVENT_IOC_PERIOD
    // SAFETY: the kernel reads eight bytes of `period`, which outlives the call.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), PERIOD, &raw const period) };
    check(result.into()).map(drop)
}

/// Makes `event` tell nothing more.
pub(super) fn perf_disable(event: BorrowedFd<'_>) -> io::Result<()> {
    const DISABLE: libc::c_ulong = 0x2401; // PERF_EVENT_IOC_DISABLE
    // SAFETY: the request takes a flag and touches no memory of ours.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), DISABLE, 0) };
    check(result.into()).map(drop)
}

/// Leaves the descriptors in `events` to a child, which drops them once this process has ended: from the
/// last one on, so that somebody who opens the same tracepoints meanwhile, from the first on, meets it
/// half way and finds the rest still open. The child holds nothing else: no file, no folder.
///
/// To drop the last descriptor of a tracepoint, the kernel waits until no CPU can be in it any more
/// (kernel/trace/trace_event_perf.c, `perf_trace_event_unreg`): some 20 ms for each, one after the
/// other, and nobody needs to wait with it.
pub(super) fn close_after_exit(events: std::ops::RangeInclusive<RawFd>) {
    let mut ends = [0; 2];
    // SAFETY: `ends` outlives the call, which stores two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return;
    }
    let [read, write] = ends;
    let (first, last) = events.into_inner();
    // SAFETY: the child makes system calls only, whatever threads there were, and ends by _exit. The
    // parent keeps its end of the pipe until it ends, which the child is told by the end of file.
    unsafe {
        if libc::fork() != 0 {
            return;
        }
        libc::close(write);
        libc::dup2(read, 0);
        libc::close(1);
        libc::close(2);
        libc::syscall(libc::SYS_close_range, 3, first - 1, 0);
        libc::syscall(libc::SYS_close_range, last + 1, u32::MAX, 0);
        libc::chdir(c"/".as_ptr());
        let mut byte = 0u8;
        while libc::read(0, (&raw mut byte).cast(), 1) == -1
            && *libc::__errno_location() == libc::EINTR
        {}
        for fd in (first..=last).rev() {
            libc::close(fd);
        }
        libc::_exit(0);
    }
}

/// The memory through which the kernel hands on what the events of one CPU tell.
#[derive(Debug)]
pub(super) struct PerfRing {
    page: NonNull<u8>,
    size: usize,
}

// Offsets in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;
const CONTROL_PAGE: usize = 4096;

impl PerfRing {
    /// Maps the ring of an event; `size` is a power of two of pages.
    pub(super) fn map(event: BorrowedFd<'_>, size: usize) -> io::Result<PerfRing> {
        // SAFETY: a new mapping where the kernel likes; nothing else of ours is touched.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                CONTROL_PAGE + size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(PerfRing { page, size })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the control page is mapped as long as `self`, `offset` is one of two aligned
        // words in it, and both sides access them atomically.
        unsafe { &*self.page.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// Appends everything that was written since the last call, and makes room for more.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        let head = self.word(DATA_HEAD).load(Ordering::Acquire);
        let tail = self.word(DATA_TAIL).load(Ordering::Relaxed);
        let count = (head.wrapping_sub(tail) as usize).min(self.size);
        let first = tail as usize & (self.size - 1);
        let until_end = count.min(self.size - first);
        for (from, count) in [(first, until_end), (0, count - until_end)] {
            // SAFETY: `from + count` is at most `size`, the bytes after the control page are mapped
            // as long as `self`, and the kernel writes none of them before the tail moves.
            out.extend_from_slice(unsafe {
                std::slice::from_raw_parts(self.page.as_ptr().add(CONTROL_PAGE + from), count)
            });
        }
        self.word(DATA_TAIL).store(head, Ordering::Release);
    }
}

impl Drop for PerfRing {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no borrow of it outlives `self`.
        unsafe { libc::munmap(self.page.as_ptr().cast(), CONTROL_PAGE + self.size) };
    }
}
