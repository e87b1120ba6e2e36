//! Which numbers this kernel gave to the tracepoints that are needed.
//!
//! tracefs tells them. Where it is not mounted, a thread mounts it in a mount namespace of its own,
//! reads, and ends: nobody else ever sees the mount, and it is gone with the thread.
//!
//! Each call has two tracepoints of its own (syscalls:sys_enter_mmap, …). raw_syscalls:sys_enter and
//! its filter `id == 9 || …` would do with two for all of them, but costs every other system call of
//! the machine ten times as much: here 0.75 µs, where a bit that says which calls have tracepoints
//! (kernel/trace/trace_syscalls.c, `perf_syscall_enter`) costs 0.1.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::abi::{CALLS, CallInfo, CallKind};

use super::super::error::TraceError;

/// What a tracepoint tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// A system call begins.
    Enter,
    /// A system call has returned.
    Exit,
    /// task:task_newtask, which follows the record of a fork.
    NewTask,
    /// signal:signal_deliver
    Signal,
    /// raw_syscalls:sys_enter
    Caller,
    /// exceptions:page_fault_user, exceptions:page_fault_kernel
    Fault,
    /// kmem:rss_stat
    Rss,
}

/// A tracepoint to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracepoint {
    pub id: u16,
    pub point: Point,
    /// What it tells is wanted at once.
    pub wakes: bool,
}

/// Calls beside those of memory of which only the begin is of interest.
const BEGINNINGS: &[&str] = &["clone", "clone3", "fork", "vfork", "exit", "exit_group"];
const EXECS: &[&str] = &["execve", "execveat"];

/// Where the layouts that `record.rs` reads are laid down, and what must stand there.
const LAYOUT: &[(&str, &str)] = &[
    ("syscalls/sys_enter_mmap", "__syscall_nr;\toffset:8;"),
    ("syscalls/sys_enter_mmap", "addr;\toffset:16;"),
    ("syscalls/sys_exit_mmap", "ret;\toffset:16;"),
    ("task/task_newtask", "clone_flags;\toffset:32;"),
    ("signal/signal_deliver", "sig;\toffset:8;"),
];
/// The same for raw_syscalls:sys_enter.
const CALLER_LAYOUT: (&str, &str) = ("raw_syscalls/sys_enter", "id;\toffset:8;");
/// The same for page faults: by a program, and by the kernel on its behalf.
const FAULTS: &[&str] = &["exceptions/page_fault_user", "exceptions/page_fault_kernel"];
const FAULT_LAYOUT: &[&str] = &["address;\toffset:8;", "error_code;\toffset:24;"];

const RSS_LAYOUT: &[(&str, &str)] = &[
    ("kmem/rss_stat", "mm_id;\toffset:8;"),
    ("kmem/rss_stat", "curr;\toffset:12;"),
    ("kmem/rss_stat", "member;\toffset:16;"),
    ("kmem/rss_stat", "size;\toffset:24;"),
];

/// What is asked for beside the memory calls that are watched by default.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// More calls.
    pub calls: Vec<CallKind>,
    /// What is resident, whenever the kernel counts it.
    pub resident: bool,
    /// Page faults.
    pub faults: bool,
    /// The stacks of memory calls.
    pub stacks: bool,
}

/// The tracepoints of all memory calls that are watched by default, of what is `wanted`, and of what makes
/// and ends tasks.
pub(super) fn tracepoints(wanted: &Wanted) -> Result<Vec<Tracepoint>, TraceError> {
    let mounted = mounted().map(|root| read(&root, wanted));
    let found = match mounted {
        Some(Ok(found)) => Ok(found),
        // Where it is mounted, what forbids to read it there says more than what forbids to mount it.
        Some(Err(error)) => read_privately(wanted).map_err(|_| error),
        None => read_privately(wanted),
    };
    found.map_err(|error| TraceError::Kernel {
        reason: format!(
            "its tracepoints cannot be read ({error}): run as root, or with CAP_PERFMON and \
             CAP_DAC_READ_SEARCH after `mount -t tracefs none /sys/kernel/tracing`"
        ),
    })
}

/// Where tracefs is mounted.
fn mounted() -> Option<PathBuf> {
    let usual = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let others = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let at = fields.next()?;
        (fields.next()? == "tracefs").then_some(at)
    });
    usual
        .into_iter()
        .chain(others)
        .map(PathBuf::from)
        .find(|root| root.join("events/syscalls").exists())
}

fn read_privately(wanted: &Wanted) -> io::Result<Vec<Tracepoint>> {
    let wanted = wanted.clone();
    let work = move || -> io::Result<Vec<Tracepoint>> {
        // The namespace is this thread's alone (CLONE_NEWNS implies CLONE_FS, unshare(2)).
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none)?;
        let places = ["/sys/kernel/tracing", "/sys", "/mnt", "/tmp"];
        let place = places.into_iter().find(|place| Path::new(place).is_dir());
        let place = place.unwrap_or("/");
        mount(
            Some("tracefs"),
            place,
            Some("tracefs"),
            MsFlags::empty(),
            none,
        )?;
        read(Path::new(place), &wanted)
    };
    let thread = std::thread::Builder::new().name("tracefs".into());
    let ended = thread.spawn(work)?.join();
    ended.unwrap_or_else(|_| Err(io::Error::other("the thread that reads them failed")))
}

fn read(root: &Path, wanted: &Wanted) -> io::Result<Vec<Tracepoint>> {
    let events = root.join("events");
    let faults = FAULTS.iter().copied().filter(|_| wanted.faults);
    let of_fault = |fault| FAULT_LAYOUT.iter().map(move |text| (fault, *text));
    let caller = wanted.stacks.then_some(CALLER_LAYOUT);
    let rss = RSS_LAYOUT.iter().copied().filter(|_| wanted.resident);
    let layout = LAYOUT.iter().copied().chain(caller).chain(rss);
    for (event, text) in layout.chain(faults.clone().flat_map(of_fault)) {
        let format = fs::read_to_string(events.join(event).join("format"))?;
        if !format.contains(text) {
            let error = format!("{event} has another layout than expected");
            return Err(io::Error::other(error));
        }
    }
    let id = |name: &str| -> io::Result<u16> {
        let text = fs::read_to_string(events.join(name).join("id"))?;
        text.trim().parse().map_err(io::Error::other)
    };
    let mut found = Vec::new();
    let mut add = |name: &str, point, wakes| -> io::Result<()> {
        let id = id(name)?;
        found.push(Tracepoint { id, point, wakes });
        Ok(())
    };
    let calls: BTreeSet<&str> = calls(wanted).map(|call| call.name).collect();
    for name in calls {
        let (enter, exit) = enter_and_exit(name);
        // A call that this kernel was built without has no tracepoints, and changes nothing.
        if events.join(&enter).exists() {
            add(&enter, Point::Enter, false)?;
            add(&exit, Point::Exit, false)?;
        }
    }
    for name in BEGINNINGS {
        add(&enter_and_exit(name).0, Point::Enter, false)?;
    }
    for name in EXECS {
        let (enter, exit) = enter_and_exit(name);
        add(&enter, Point::Enter, false)?;
        add(&exit, Point::Exit, true)?;
    }
    add("task/task_newtask", Point::NewTask, true)?;
    add("signal/signal_deliver", Point::Signal, false)?;
    for fault in faults {
        add(fault, Point::Fault, false)?;
    }
    if wanted.stacks {
        add("raw_syscalls/sys_enter", Point::Caller, false)?;
    }
    if wanted.resident {
        add("kmem/rss_stat", Point::Rss, false)?;
    }
    Ok(found)
}

/// The calls that are watched.
fn calls(wanted: &Wanted) -> impl Iterator<Item = &'static CallInfo> {
    CALLS
        .iter()
        .filter(|call| call.x86_64.is_some())
        .filter(move |call| call.default || wanted.calls.contains(&call.kind))
}

/// What lets raw_syscalls:sys_enter tell of the watched calls alone.
pub(super) fn callers_filter(wanted: &Wanted) -> CString {
    let numbers: BTreeSet<u32> = calls(wanted).filter_map(|call| call.x86_64).collect();
    let numbers: Vec<String> = numbers.iter().map(|nr| format!("id=={nr}")).collect();
    CString::new(numbers.join("||")).unwrap_or_default()
}

fn enter_and_exit(name: &str) -> (String, String) {
    (
        format!("syscalls/sys_enter_{name}"),
        format!("syscalls/sys_exit_{name}"),
    )
}
