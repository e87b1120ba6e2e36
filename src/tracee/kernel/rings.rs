//! The rings, one for each CPU, and their records in order of time.
//!
//! The events are those of every task of the machine: an event that belongs to a task costs at every
//! switch to and from it and at every fork, a hundred of them more than what they tell; and one that
//! belongs to a CPU costs there nothing, follows every thread and child by itself, and misses none
//! that is made while others are being attached to. Records of other processes are dropped here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::units::Tid;

use super::super::error::TraceError;
use super::super::sys::{self, PerfEvent, PerfRing};
use super::rate::Rate;
use super::record::{self, Record, What};
use super::table::{Points, Tids};
use super::tracefs::{Point, Tracepoint, Wanted, callers_filter, tracepoints};

/// All rings together, and each of them, in bytes.
const ALL_RINGS: usize = 64 << 20;
const LARGEST_RING: usize = 16 << 20;
const SMALLEST_RING: usize = 256 << 10;
/// What was read and not yet worked on, at most: beyond that, calls are no longer told. Were even
/// that too slow, the rings would fill, and the kernel count what is lost.
const BACKLOG: usize = 128 << 20;
/// How much of a stack is copied.
pub(super) const STACK: u32 = 16 << 10;
/// A record can reach its ring this much later than its time says: the task was interrupted between
/// taking the time and writing, its virtual CPU perhaps for long.
pub(super) const SLACK: u64 = 2_000_000;

#[derive(Debug)]
struct Cpu {
    number: usize,
    ring: PerfRing,
    watermark: u32,
    leader: OwnedFd,
    /// They write into the same ring.
    events: Vec<OwnedFd>,
    /// Those of them that tell of page faults.
    faults: Vec<usize>,
    bytes: Vec<u8>,
    /// Bytes before this one have been handed on.
    at: usize,
    /// Bytes before this one have been scanned for what must be known at once.
    scanned: usize,
}

/// The events of a trace, open on every CPU.
#[derive(Debug)]
pub struct Rings {
    cpus: Vec<Cpu>,
    points: Points,
    /// The tracepoint that tells whose a call is, and its filter.
    caller: Option<(u64, CString)>,
    /// Time of the next record of each CPU that has one.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    /// Records up to this time are complete.
    pub(super) horizon: u64,
    /// How many page faults are recorded.
    pub(super) rate: Rate,
    /// Processes whose records are wanted.
    pub(super) watched: Tids,
}

/// CLOCK_MONOTONIC in nanoseconds, which is the clock of the records.
pub(super) fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| {
        now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
    })
}

/// CPUs that are online: `0-3,8`.
fn online() -> Vec<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let span = |part: &str| match part.split_once('-') {
        Some((first, last)) => Some(number(first)?..=number(last)?),
        None => number(part).map(|cpu| cpu..=cpu),
    };
    let cpus: Vec<usize> = text.trim().split(',').filter_map(span).flatten().collect();
    match cpus.is_empty() {
        true => vec![0],
        false => cpus,
    }
}

/// Whether the events can be opened here: one of each kind is.
pub(in super::super) fn available() -> Result<(), TraceError> {
    let tracepoint = tracepoints(&Wanted::default())?
        .first()
        .map(|point| point.id.into());
    for tracepoint in [None, tracepoint] {
        let event = PerfEvent {
            task: None,
            tracepoint,
            wakes: false,
            watermark: 1,
            stack: 0,
        };
        let cpu = online().first().copied().unwrap_or(0);
        sys::perf_open(&event, cpu).map_err(|error| refused(&error))?;
    }
    Ok(())
}

impl Rings {
    /// Opens the events of memory calls and of what else is `wanted`, and of births and ends of tasks.
    pub fn open(wanted: &Wanted) -> Result<Rings, TraceError> {
        // Two descriptors a call and CPU; those who may use these events may raise the limit, too.
        if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
        }
        let tracepoints = tracepoints(wanted)?;
        let callers = |point: &Tracepoint| point.point == Point::Caller;
        let caller = tracepoints
            .iter()
            .find(|point| callers(point))
            .map(|point| {
                let filter = callers_filter(wanted);
                (point.id.into(), filter)
            });
        let points = Points::new(&tracepoints);
        // That is opened for the watched tasks alone, since it copies their stacks.
        let tracepoints: Vec<Tracepoint> = tracepoints
            .into_iter()
            .filter(|point| !callers(point))
            .collect();
        let faults = tracepoints.iter().enumerate();
        let faults = faults.filter(|(_, tracepoint)| tracepoint.point == Point::Fault);
        let faults: Vec<usize> = faults.map(|(index, _)| index).collect();
        let online = online();
        let share = (ALL_RINGS / online.len()).clamp(SMALLEST_RING, LARGEST_RING);
        let mut size = 1 << share.ilog2();
        let mut cpus = Vec::with_capacity(online.len());
        for cpu in online {
            let watermark = (size / 8) as u32;
            let records = PerfEvent {
                task: None,
                tracepoint: None,
                wakes: false,
                watermark,
                stack: 0,
            };
            let leader = sys::perf_open(&records, cpu).map_err(|error| refused(&error))?;
            let ring = loop {
                match PerfRing::map(leader.as_fd(), size) {
                    Ok(ring) => break ring,
                    Err(_) if SMALLEST_RING < size => size /= 2,
                    Err(error) => return Err(no_memory(&error)),
                }
            };
            let mut events = Vec::with_capacity(tracepoints.len());
            for tracepoint in &tracepoints {
                let event = PerfEvent {
                    task: None,
                    tracepoint: Some(tracepoint.id.into()),
                    wakes: tracepoint.wakes,
                    watermark,
                    stack: 0,
                };
                let event = sys::perf_open(&event, cpu).map_err(|error| refused(&error))?;
                sys::perf_redirect(event.as_fd(), leader.as_fd()).map_err(|e| refused(&e))?;
                events.push(event);
            }
            cpus.push(Cpu {
                number: cpu,
                ring,
                watermark,
                leader,
                events,
                faults: faults.clone(),
                bytes: Vec::new(),
                at: 0,
                scanned: 0,
            });
        }
        Ok(Rings {
            cpus,
            points,
            caller,
            heads: BinaryHeap::new(),
            horizon: 0,
            rate: Rate::new(now()),
            watched: Tids::default(),
        })
    }

    /// Lets the stacks of `task` be recorded, and of all that it makes from now on, where they are
    /// wanted.
    pub(super) fn record_stacks(&mut self, task: Tid) -> Result<(), TraceError> {
        let Some((tracepoint, filter)) = &self.caller else {
            return Ok(());
        };
        for cpu in &mut self.cpus {
            let event = PerfEvent {
                task: Some(task),
                tracepoint: Some(*tracepoint),
                wakes: false,
                watermark: cpu.watermark,
                stack: STACK,
            };
            let event = sys::perf_open(&event, cpu.number).map_err(|error| refused(&error))?;
            sys::perf_filter(event.as_fd(), filter).map_err(|error| refused(&error))?;
            sys::perf_redirect(event.as_fd(), cpu.leader.as_fd()).map_err(|e| refused(&e))?;
            cpu.events.push(event);
        }
        Ok(())
    }

    /// Waits until there is much to read, something to be known at once, a signal, or for so long.
    pub(super) fn wait(&self, milliseconds: u16) {
        let mut fds: Vec<PollFd<'_>> = self
            .cpus
            .iter()
            .map(|cpu| PollFd::new(cpu.leader.as_fd(), PollFlags::POLLIN))
            .collect();
        let _ = poll(&mut fds, PollTimeout::from(milliseconds));
    }

    /// Whether records wait for their time to be complete.
    pub(super) fn is_behind(&self) -> bool {
        !self.heads.is_empty()
    }

    /// Bytes that were read and not yet worked on.
    fn backlog(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.bytes.len() - cpu.at).sum()
    }

    /// Whether more has come in than can be kept.
    pub(super) fn is_full(&self) -> bool {
        BACKLOG / 2 < self.backlog()
    }

    /// The time of the next record.
    pub(super) fn next_time(&self) -> Option<u64> {
        self.heads.peek().map(|&Reverse((time, _))| time)
    }

    /// Whether there is a record to hand on.
    pub(super) fn has_ready(&self) -> bool {
        self.next_time().is_some_and(|time| time <= self.horizon)
    }

    /// Reads everything that is in the rings. Processes of which an execve has returned, so that
    /// their new map can be looked at.
    pub(super) fn drain(&mut self) -> Vec<Tid> {
        let began = now();
        if BACKLOG < self.backlog() {
            return Vec::new();
        }
        self.horizon = began.saturating_sub(SLACK);
        let mut execs = Vec::new();
        for (index, cpu) in self.cpus.iter_mut().enumerate() {
            if cpu.at == cpu.bytes.len() || (1 << 20) < cpu.at {
                cpu.bytes.drain(..cpu.at);
                cpu.scanned -= cpu.at;
                cpu.at = 0;
            }
            let was_empty = cpu.at == cpu.bytes.len();
            cpu.ring.take(&mut cpu.bytes);
            if was_empty && let Some(time) = cpu.head() {
                self.heads.push(Reverse((time, index)));
            }
            let faults = cpu.scan(&self.points, &mut self.watched, &mut execs);
            self.rate.count(faults);
        }
        if let Some(period) = self.rate.change(began) {
            for cpu in &self.cpus {
                for event in cpu.faults.iter().filter_map(|&index| cpu.events.get(index)) {
                    let _ = sys::perf_period(event.as_fd(), period.into());
                }
            }
        }
        execs.dedup();
        execs
    }

    /// Ends all recording and drops what has not been worked on: how many records of watched processes
    /// that were.
    pub(super) fn throw_away(&mut self) -> u64 {
        for cpu in &self.cpus {
            for event in cpu.events.iter().chain([&cpu.leader]) {
                let _ = sys::perf_disable(event.as_fd());
            }
        }
        self.heads.clear();
        let mut count = 0;
        for cpu in &mut self.cpus {
            cpu.ring.take(&mut cpu.bytes);
            while let Some(rest) = cpu.bytes.get(cpu.at..)
                && let Some(length) = record::length(rest)
            {
                let pid = rest.get(..length).and_then(record::pid);
                count += u64::from(pid.is_some_and(|pid| self.watched.contains(&pid)));
                cpu.at += length;
            }
            cpu.bytes.clear();
            (cpu.at, cpu.scanned) = (0, 0);
        }
        count
    }

    /// The next record in order of time, if those of its time are complete.
    pub(super) fn next(&mut self) -> Option<Record> {
        loop {
            let &Reverse((time, index)) = self.heads.peek()?;
            if self.horizon < time {
                return None;
            }
            self.heads.pop();
            let cpu = self.cpus.get_mut(index)?;
            let rest = cpu.bytes.get(cpu.at..).unwrap_or_default();
            let length = record::length(rest).unwrap_or(rest.len());
            let bytes = rest.get(..length).unwrap_or_default();
            let parsed = record::parse(bytes, &self.points, &self.watched);
            cpu.at += length;
            if let Some(time) = cpu.head() {
                self.heads.push(Reverse((time, index)));
            }
            if let Some(parsed) = parsed
                && parsed.what != What::Other
            {
                return Some(parsed);
            }
        }
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        let (mut first, mut last) = (RawFd::MAX, 0);
        for cpu in &self.cpus {
            for event in cpu.events.iter().chain([&cpu.leader]) {
                first = first.min(event.as_raw_fd());
                last = last.max(event.as_raw_fd());
            }
        }
        sys::close_after_exit(first..=last);
        self.cpus.drain(..).for_each(std::mem::forget);
    }
}

impl Cpu {
    /// The time of the next record.
    fn head(&self) -> Option<u64> {
        let rest = self.bytes.get(self.at..)?;
        let length = record::length(rest)?;
        record::time(rest.get(..length)?)
    }

    /// Looks through what has just been read for new processes and finished execs. How many page faults
    /// there were.
    fn scan(&mut self, points: &Points, watched: &mut Tids, execs: &mut Vec<Tid>) -> u64 {
        use record::{EXECVE, EXECVEAT};
        let mut faults = 0;
        while let Some(rest) = self.bytes.get(self.scanned..)
            && let Some(length) = record::length(rest)
        {
            let bytes = rest.get(..length).unwrap_or_default();
            self.scanned += length;
            faults += u64::from(!self.faults.is_empty() && record::is_fault(bytes, points));
            let parsed = record::is_birth_or_exec(bytes)
                .then(|| record::parse(bytes, points, watched))
                .flatten();
            let Some(parsed) = parsed else { continue };
            match parsed.what {
                What::Fork { pid, .. } => {
                    watched.insert(pid);
                }
                What::Exit {
                    nr: EXECVE | EXECVEAT,
                    result: 0,
                } => execs.push(parsed.pid),
                _ => {}
            }
        }
        faults
    }
}

fn refused(error: &std::io::Error) -> TraceError {
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    let paranoid = paranoid.unwrap_or_default();
    let reason = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => format!(
            "perf_event_open is not permitted (kernel.perf_event_paranoid = {}): run as root or with \
             CAP_PERFMON and CAP_SYS_PTRACE",
            paranoid.trim()
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            "too few open files are allowed for its events: raise `ulimit -n`".to_owned()
        }
        _ => format!("perf_event_open failed: {error}"),
    };
    TraceError::Kernel { reason }
}

fn no_memory(error: &std::io::Error) -> TraceError {
    TraceError::Kernel {
        reason: format!(
            "no memory for its rings ({error}): raise kernel.perf_event_mlock_kb or `ulimit -l`, or \
             run with CAP_IPC_LOCK"
        ),
    }
}
