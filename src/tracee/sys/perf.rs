//! What perf_event_open(2) needs: events, and the rings through which the kernel hands on what they tell.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::units::Tid;

use super::{check, own_fd};

/// What an event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Tells {
    /// Nothing: it only holds a ring, which wakes a reader whenever so many more bytes are in it.
    Nothing {
        /// That many.
        watermark: u32,
    },
    /// Tasks, their names and mappings, by records of those.
    Tasks,
    /// The tracepoint of this number, by samples.
    Tracepoint(u64),
}

/// An event for [`open`] on one CPU.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Event {
    /// Of this task and of all that it makes from now on; `None`: of every task.
    pub task: Option<Tid>,
    pub tells: Tells,
    /// A reader is woken by each sample.
    pub wakes: bool,
    /// A sample holds the program's registers, those of [`STACK_REGISTERS`], and a copy of this many
    /// bytes of its stack; 0: neither.
    pub stack: u32,
    /// Each task tells of one in so many.
    pub period: u32,
}

/// Registers of `enum perf_event_x86_regs` (arch/x86/include/uapi/asm/perf_regs.h) in that order: rbx,
/// rbp, rsp, rip, r12 to r15.
pub(in super::super) const STACK_REGISTERS: u64 = 1 << 1 | 1 << 6 | 1 << 7 | 1 << 8 | 0xf << 20;

/// `struct perf_event_attr` of include/uapi/linux/perf_event.h, as of PERF_ATTR_SIZE_VER5.
#[repr(C)]
#[derive(Default)]
struct Attr {
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
pub(in super::super) fn open(event: &Event, cpu: usize) -> io::Result<OwnedFd> {
    const SOFTWARE: u32 = 1;
    const DUMMY: u64 = 9;
    const TRACEPOINT: u32 = 2;
    const TID_TIME_RAW: u64 = 0x2 | 0x4 | 0x400;
    const REGS_USER_STACK_USER: u64 = 1 << 12 | 1 << 13;
    const MMAP_COMM_TASK_DATA_MMAP2: u64 = 1 << 8 | 1 << 9 | 1 << 13 | 1 << 17 | 1 << 23;
    const TOTAL_TIME_ENABLED: u64 = 1;
    const INHERIT: u64 = 1 << 1;
    const WATERMARK: u64 = 1 << 14;
    const SAMPLE_ID_ALL_AND_CLOCKID: u64 = 1 << 18 | 1 << 25;
    const FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const { assert!(mem::size_of::<Attr>() == 112) };
    let mut attr = Attr {
        kind: SOFTWARE,
        size: mem::size_of::<Attr>() as u32,
        config: DUMMY,
        sample_period: event.period.into(),
        sample_type: TID_TIME_RAW,
        flags: SAMPLE_ID_ALL_AND_CLOCKID,
        wakeup: 1,
        clockid: libc::CLOCK_MONOTONIC,
        ..Attr::default()
    };
    match event.tells {
        Tells::Nothing { watermark } => {
            attr.wakeup = watermark;
            attr.read_format = TOTAL_TIME_ENABLED;
        }
        Tells::Tasks => attr.flags |= MMAP_COMM_TASK_DATA_MMAP2,
        Tells::Tracepoint(id) => (attr.kind, attr.config) = (TRACEPOINT, id),
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

/// For how long an event of [`Tells::Nothing`] has been there, in nanoseconds: time stands still for it
/// once its CPU has gone, also when that has come back.
pub(in super::super) fn enabled(event: BorrowedFd<'_>) -> io::Result<u64> {
    let mut words = [0; 16];
    nix::unistd::read(event, &mut words)?;
    let [.., a, b, c, d, e, f, g, h] = words;
    Ok(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
}

/// Makes what `event` tells go to the ring of `holder`, from now on.
pub(in super::super) fn redirect(event: BorrowedFd<'_>, holder: BorrowedFd<'_>) -> io::Result<()> {
    const SET_OUTPUT: libc::c_ulong = 0x2405; // PERF_EVENT_IOC_SET_OUTPUT
    // SAFETY: the request takes a descriptor and touches no memory of ours.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), SET_OUTPUT, holder.as_raw_fd()) };
    check(result.into()).map(drop)
}

/// Lets `event` tell only of what passes `filter` (Documentation/trace/events.rst, 5).
pub(in super::super) fn filter_by(event: BorrowedFd<'_>, filter: &CStr) -> io::Result<()> {
    const SET_FILTER: libc::c_ulong = 0x4008_2406; // PERF_EVENT_IOC_SET_FILTER
    // SAFETY: the kernel reads the string, which outlives the call.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), SET_FILTER, filter.as_ptr()) };
    check(result.into()).map(drop)
}

/// Lets `event` tell of one in `period` only.
pub(in super::super) fn set_period(event: BorrowedFd<'_>, period: u64) -> io::Result<()> {
    const PERIOD: libc::c_ulong = 0x4008_2404; // PERF_EVENT_IOC_PERIOD
    // SAFETY: the kernel reads eight bytes of `period`, which outlives the call.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), PERIOD, &raw const period) };
    check(result.into()).map(drop)
}

/// Makes `event` tell nothing more, or again; that of the tasks that its own has made, too.
pub(in super::super) fn enable(event: BorrowedFd<'_>, enabled: bool) -> io::Result<()> {
    // PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_DISABLE
    let request: libc::c_ulong = if enabled { 0x2400 } else { 0x2401 };
    // SAFETY: the request takes a flag and touches no memory of ours.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), request, 0) };
    check(result.into()).map(drop)
}

/// Leaves the descriptors in `events` to a child, which drops them once this process has ended: from the
/// last one on, so that somebody who opens the same tracepoints meanwhile, from the first on, meets it
/// half way and finds the rest still open. The child holds nothing else: no file, no folder.
///
/// To drop the last descriptor of a tracepoint, the kernel waits until no CPU can be in it any more
/// (kernel/trace/trace_event_perf.c, `perf_trace_event_unreg`): some 20 ms for each, one after the
/// other, and nobody needs to wait with it.
pub(in super::super) fn close_after_exit(mut events: Vec<OwnedFd>) {
    let mut ends = [0; 2];
    // SAFETY: `ends` outlives the call, which stores two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return;
    }
    let [read, write] = ends;
    events.sort_unstable_by_key(|event| event.as_raw_fd());
    // SAFETY: the child makes system calls only, whatever threads there were, and ends by _exit. The
    // parent keeps its end of the pipe until it ends, which the child is told by the end of file.
    unsafe {
        if libc::fork() != 0 {
            return events.into_iter().for_each(mem::forget);
        }
        libc::close(write);
        libc::dup2(read, 0);
        libc::close(1);
        libc::close(2);
        let mut rest = 3;
        for event in &events {
            let event = event.as_raw_fd();
            if rest < event {
                libc::syscall(libc::SYS_close_range, rest, event - 1, 0);
            }
            rest = event + 1;
        }
        libc::syscall(libc::SYS_close_range, rest, u32::MAX, 0);
        libc::chdir(c"/".as_ptr());
        let mut byte = 0u8;
        while libc::read(0, (&raw mut byte).cast(), 1) == -1
            && *libc::__errno_location() == libc::EINTR
        {}
        for event in events.iter().rev() {
            libc::close(event.as_raw_fd());
        }
        libc::_exit(0);
    }
}

/// The memory through which the kernel hands on what the events of one CPU tell.
#[derive(Debug)]
pub(in super::super) struct Ring {
    page: NonNull<u8>,
    size: usize,
}

// Offsets in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;
const CONTROL_PAGE: usize = 4096;

impl Ring {
    /// Maps the ring of an event; `size` is a power of two of pages.
    pub(in super::super) fn map(event: BorrowedFd<'_>, size: usize) -> io::Result<Ring> {
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
        Ok(Ring { page, size })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the control page is mapped as long as `self`, `offset` is one of two aligned
        // words in it, and both sides access them atomically.
        unsafe { &*self.page.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// Bytes that it can hold.
    pub(in super::super) fn size(&self) -> usize {
        self.size
    }

    /// Appends everything that was written since the last call, and makes room for more. How much
    /// it was.
    pub(in super::super) fn take(&mut self, out: &mut Vec<u8>) -> usize {
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
        count
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no borrow of it outlives `self`.
        unsafe { libc::munmap(self.page.as_ptr().cast(), CONTROL_PAGE + self.size) };
    }
}
