//! What the kernel wrote into a ring, one record after the other
//! (include/uapi/linux/perf_event.h, `enum perf_event_type`). Pure: bytes in, values out.

use crate::abi::Prot;
use crate::mm::{FileId, MapsEntry};
use crate::timeline::{Copied, RawStack, Registers};
use crate::units::{Addr, AddrRange, Tid};

use super::super::sys::perf::STACK_REGISTERS;
use super::resident::RssStat;
use super::rings::STACK;
use super::table::{Points, Tids};
use super::tracefs::Point;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time: u64,
    /// Process of the task that was running.
    pub pid: Tid,
    /// The task that was running.
    pub tid: Tid,
    pub what: What,
}

/// A page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub addr: Addr,
    pub write: bool,
}

/// What a record tells.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// A system call begins.
    Enter { nr: u32, args: [u64; 6] },
    /// It has returned.
    Exit { nr: u32, result: i64 },
    /// The clone flags of the task that the last [`What::Fork`] told of.
    NewTask { flags: u64 },
    /// A signal is being delivered.
    Signal(i32),
    /// The running task has made another.
    Fork {
        pid: Tid,
        ppid: Tid,
        tid: Tid,
        ptid: Tid,
    },
    /// A task has ended, and left its address space.
    Ended { pid: Tid, tid: Tid },
    /// execve(2) has come so far that it cannot fail any more, and gave the task this name.
    Exec { pid: Tid, tid: Tid, comm: Vec<u8> },
    /// A mapping was made or altered: all of it, as it is now.
    Mapped(MapsEntry),
    /// Whose call the one is that begins just before or after this.
    Caller { nr: u32, stack: Box<RawStack> },
    /// A page fault.
    Fault(Fault),
    /// Whose the page fault is that is told of just after this, if it is.
    FaultStack { fault: Fault, stack: Box<RawStack> },
    /// The kernel has counted what is resident.
    Rss(RssStat),
    /// So many records did not fit into the ring.
    Lost(u64),
    /// Of no interest.
    Other,
}

pub(super) const HEADER: usize = 8;
/// Numbers of system calls.
pub(super) const CLONE: u32 = 56;
pub(super) const FORK: u32 = 57;
pub(super) const VFORK: u32 = 58;
pub(super) const EXECVE: u32 = 59;
pub(super) const EXIT: u32 = 60;
pub(super) const EXIT_GROUP: u32 = 231;
pub(super) const EXECVEAT: u32 = 322;
pub(super) const CLONE3: u32 = 435;

/// Where addresses of programs end, with five levels of page tables.
const USER_END: u64 = 1 << 56;
/// X86_PF_WRITE (arch/x86/include/asm/trap_pf.h)
const FAULT_WRITE: u64 = 1 << 1;
/// X86_PF_USER: the program itself faulted, not the kernel in one of its calls.
const FAULT_USER: u64 = 1 << 2;

const RECORD_MMAP2: u32 = 10;
const RECORD_LOST: u32 = 2;
const RECORD_COMM: u32 = 3;
const RECORD_EXIT: u32 = 4;
const RECORD_FORK: u32 = 7;
const RECORD_SAMPLE: u32 = 9;
/// PERF_RECORD_MISC_COMM_EXEC
const MISC_COMM_EXEC: u16 = 1 << 13;
/// Process, task and time behind every record that is no sample.
const TRAILER: usize = 16;
/// Where the tracepoint's own bytes begin in a sample, behind their size.
const RAW: usize = 28;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn tid_at(bytes: &[u8], at: usize) -> Option<Tid> {
    u32_at(bytes, at).map(|tid| Tid(tid as i32))
}

/// The length of the record that begins here; `None` if it is not all there.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let length = usize::from(u16_at(bytes, 6)?);
    (HEADER <= length && length <= bytes.len()).then_some(length)
}

/// Whether it is a fork, or a sample that may be the return of an execve(2): quick.
pub(super) fn is_birth_or_exec(record: &[u8]) -> bool {
    match u32_at(record, 0) {
        Some(RECORD_FORK) => true,
        Some(RECORD_SAMPLE) => matches!(u32_at(record, RAW + 8), Some(EXECVE | EXECVEAT)),
        _ => false,
    }
}

/// Whether a sample of a page fault holds a stack, if it is one: quick.
pub(super) fn is_fault(record: &[u8], points: &Points) -> Option<bool> {
    let is_sample = u32_at(record, 0) == Some(RECORD_SAMPLE);
    let id = u16_at(record, RAW).filter(|_| is_sample)?;
    (points.get(id) == Some(Point::Fault)).then_some((STACK as usize) < record.len())
}

/// When it was made.
pub(super) fn time(record: &[u8]) -> Option<u64> {
    match u32_at(record, 0)? {
        RECORD_SAMPLE => u64_at(record, HEADER + 8),
        _ => u64_at(record, record.len().checked_sub(8)?),
    }
}

/// The process that made it.
pub(super) fn pid(record: &[u8]) -> Option<Tid> {
    match u32_at(record, 0)? {
        RECORD_SAMPLE => tid_at(record, HEADER),
        _ => tid_at(record, record.len().checked_sub(TRAILER)?),
    }
}

/// Reads one record, if it tells of a process that is `watched`.
pub(super) fn parse(record: &[u8], points: &Points, watched: &Tids) -> Option<Record> {
    let kind = u32_at(record, 0)?;
    if kind == RECORD_SAMPLE {
        let (pid, tid) = (tid_at(record, 8)?, tid_at(record, 12)?);
        // After the size of the raw data, aligned as the tracepoint sees it.
        let raw = record.get(28..)?;
        // Pages of a process that is watched may be reclaimed by whoever needs some.
        let counts = || {
            points
                .get(u16_at(raw, 0)?)
                .filter(|point| *point == Point::Rss)
        };
        if !watched.contains(&pid) && counts().is_none() {
            return None;
        }
        let time = u64_at(record, 16)?;
        let (raw, rest) = record
            .get(RAW..)?
            .split_at_checked(u32_at(record, RAW - 4)? as usize)?;
        let what = sample(raw, rest, points).unwrap_or(What::Other);
        return Some(Record {
            time,
            pid,
            tid,
            what,
        });
    }
    let end = record.len().checked_sub(TRAILER)?;
    let (pid, tid) = (tid_at(record, end)?, tid_at(record, end + 4)?);
    if kind != RECORD_LOST && !watched.contains(&pid) {
        return None;
    }
    let time = u64_at(record, end + 8)?;
    let body = record.get(HEADER..end)?;
    let what = match kind {
        RECORD_LOST => What::Lost(u64_at(body, 8)?),
        RECORD_FORK => What::Fork {
            pid: tid_at(body, 0)?,
            ppid: tid_at(body, 4)?,
            tid: tid_at(body, 8)?,
            ptid: tid_at(body, 12)?,
        },
        RECORD_EXIT => What::Ended {
            pid: tid_at(body, 0)?,
            tid: tid_at(body, 8)?,
        },
        RECORD_COMM if u16_at(record, 4)? & MISC_COMM_EXEC != 0 => What::Exec {
            pid: tid_at(body, 0)?,
            tid: tid_at(body, 4)?,
            comm: until_nul(body.get(8..)?).to_owned(),
        },
        RECORD_MMAP2 => match mapping(body) {
            Some(entry) => What::Mapped(entry),
            None => What::Other,
        },
        _ => What::Other,
    };
    Some(Record {
        time,
        pid,
        tid,
        what,
    })
}

/// What a sample tells: the tracepoint's own bytes, and behind them who it was, where that is wanted.
fn sample(raw: &[u8], who: &[u8], points: &Points) -> Option<What> {
    Some(match points.get(u16_at(raw, 0)?)? {
        Point::Enter => {
            // A call has as many words as it has arguments.
            let arg = |i: usize| u64_at(raw, 16 + 8 * i).unwrap_or(0);
            What::Enter {
                nr: u32_at(raw, 8)?,
                args: std::array::from_fn(arg),
            }
        }
        Point::Exit => What::Exit {
            nr: u32_at(raw, 8)?,
            result: u64_at(raw, 16)? as i64,
        },
        Point::NewTask => What::NewTask {
            flags: u64_at(raw, 32)?,
        },
        Point::Rss => What::Rss(RssStat {
            mm: u32_at(raw, 8)?,
            own: u32_at(raw, 12)? != 0,
            kind: u32_at(raw, 16)?,
            size: u64_at(raw, 24)?,
        }),
        Point::Signal => What::Signal(u32_at(raw, 8)? as i32),
        Point::Caller => What::Caller {
            nr: u32_at(raw, 8)?,
            stack: stack(who, false)?,
        },
        Point::Fault => {
            let (addr, code) = (u64_at(raw, 8)?, u64_at(raw, 24)?);
            let fault = Fault {
                addr: Addr(addr),
                write: code & FAULT_WRITE != 0,
            };
            match who {
                // What the kernel faults on for itself is nobody's memory.
                _ if USER_END <= addr => What::Other,
                [] => What::Fault(fault),
                who => What::FaultStack {
                    fault,
                    stack: stack(who, code & FAULT_USER != 0)?,
                },
            }
        }
    })
}

/// Registers and a copy of the stack: PERF_SAMPLE_REGS_USER and PERF_SAMPLE_STACK_USER; and whether
/// the program was interrupted there, or called the kernel.
fn stack(bytes: &[u8], interrupted: bool) -> Option<Box<RawStack>> {
    const ABI_NONE: u64 = 0;
    const ABI_32: u64 = 1;
    const REGISTERS: usize = STACK_REGISTERS.count_ones() as usize;
    let abi = u64_at(bytes, 0).filter(|abi| *abi != ABI_NONE)?;
    let register = |number: usize| u64_at(bytes, 8 + 8 * number);
    let at = 8 + 8 * REGISTERS;
    let size = u64_at(bytes, at)? as usize;
    let copy = bytes.get(at + 8..)?.get(..size)?;
    // A word behind the room for the stack says how much of it was filled.
    let filled = u64_at(bytes, at + 8 + size).unwrap_or(0);
    let copy = copy.get(..usize::try_from(filled).ok()?)?;
    let registers = Registers {
        bx: register(0)?,
        bp: register(1)?,
        sp: register(2)?,
        pc: register(3)?,
        r12_to_r15: [register(4)?, register(5)?, register(6)?, register(7)?],
    };
    Some(Box::new(RawStack {
        registers,
        compat: abi == ABI_32,
        interrupted,
        copies: vec![Copied {
            start: Addr(registers.sp),
            bytes: copy.to_vec(),
            cut: copy.len() == size,
        }],
        goroutine: None,
    }))
}

/// A mapping in the notation of maps.
fn mapping(body: &[u8]) -> Option<MapsEntry> {
    const MAP_SHARED: u32 = 1;
    let (start, len) = (u64_at(body, 8)?, u64_at(body, 16)?);
    let range = AddrRange::covering(Addr(start), len)?;
    let file = FileId {
        major: u32_at(body, 32)?,
        minor: u32_at(body, 36)?,
        inode: u64_at(body, 40)?,
    };
    let bits = u32_at(body, 56)?;
    let name = match until_nul(body.get(64..)?) {
        b"//anon" => b"",
        name => name,
    };
    let offset = match file == FileId::default() && !name.starts_with(b"/") {
        true => 0,
        false => u64_at(body, 24)?,
    };
    // maps writes the one character that would break its lines in octal.
    let name = super::super::procfs::text(name).replace('\n', "\\012");
    Some(MapsEntry {
        range,
        prot: Prot::from_bits_truncate(bits).rwx(),
        shared: u32_at(body, 60)? & MAP_SHARED != 0,
        offset,
        file,
        name: name.into(),
    })
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == 0);
    bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default()
}
