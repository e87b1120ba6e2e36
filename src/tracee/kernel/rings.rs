//! The rings, one for each CPU, and their records in order of time.
//!
//! The events are those of every task of the machine: an event that belongs to a task costs at every
//! switch to and from it and at every fork, a hundred of them more than what they tell; and one that
//! belongs to a CPU costs there nothing, follows every thread and child by itself, and misses none
//! that is made while others are being attached to. Records of other processes are dropped here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::CString;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::units::Tid;

use super::super::error::TraceError;
use super::super::sys::perf::{self, Event, Tells};
use super::rate::{FAULTS_A_STACK, Rate, StackBudget};
use super::record::Record;
use super::stream::{Found, NoRing, Stream};
use super::table::{Points, Tids};
use super::tracefs::{Point, Tracepoint, Wanted, callers_filter, tracepoints};

/// All rings together at first, and each of them, in bytes.
const ALL_RINGS: usize = 64 << 20;
const LARGE_RING: usize = 16 << 20;
const SMALLEST_RING: usize = 256 << 10;
/// No record is larger: its size is a number of 16 bits.
const LARGEST_RECORD: usize = 64 << 10;
/// What they may grow to where a CPU tells so much that its ring is half full when it is read: all
/// together, and each.
const ALL_GROWN: usize = 256 << 20;
const LARGEST_RING: usize = 64 << 20;
const GROWS_BY: usize = 4;
/// What was read and not yet worked on: beyond half of that, calls are no longer told, and beyond all
/// of it no more is read while there is something to work on. Were even that too slow, the rings would
/// fill, and the kernel count what is lost.
const BACKLOG: usize = 128 << 20;
/// How much of a stack is copied.
pub(super) const STACK: u32 = 16 << 10;
/// A record can reach its ring this much later than its time says: the task was interrupted between
/// taking the time and writing, its virtual CPU perhaps for long.
pub(super) const SLACK: u64 = 2_000_000;
/// So often, in nanoseconds, it is asked which CPUs there are.
const CPUS_ASKED: u64 = 1_000_000_000;
/// A ring that was replaced is read for so long: who was about to write to it has by then.
const READ_ON: u64 = 1_000_000_000;

/// What is open on one CPU.
#[derive(Debug)]
struct Cpu {
    number: usize,
    /// Its ring, in [`Rings::streams`].
    stream: usize,
    /// Events of every task; all write into that ring.
    events: Vec<OwnedFd>,
    /// Those of watched tasks, which live on where the CPU goes and comes back.
    of_tasks: Vec<OwnedFd>,
    /// The same, of the stacks of page faults; and their ring.
    fault_stacks: Vec<OwnedFd>,
    stacks_stream: Option<usize>,
    /// For how long it had been there when that was last asked.
    enabled: u64,
    /// No larger ring is to be had.
    largest: bool,
}

impl Cpu {
    /// One whose events write to that stream.
    fn new(number: usize, stream: usize, events: Vec<OwnedFd>) -> Cpu {
        Cpu {
            number,
            stream,
            events,
            of_tasks: Vec::new(),
            fault_stacks: Vec::new(),
            stacks_stream: None,
            enabled: 0,
            largest: false,
        }
    }

    fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        let events = self.events.iter();
        events.chain(&self.of_tasks).chain(&self.fault_stacks)
    }
}

/// The events of a trace, open on every CPU.
#[derive(Debug)]
pub struct Rings {
    tracepoints: Vec<Tracepoint>,
    cpus: Vec<Cpu>,
    /// By number; those that were replaced and read to their end are gone.
    streams: Vec<Option<Stream>>,
    points: Points,
    /// What tells whose a call is, or whose a page fault; with its filter.
    stacks: Vec<(Tracepoint, Option<CString>)>,
    /// Time of the next record of each stream that has one.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    /// Records up to this time are complete.
    pub(super) horizon: u64,
    /// How many page faults are recorded.
    pub(super) rate: Rate,
    fault_stacks: StackBudget,
    /// Processes whose records are wanted.
    pub(super) watched: Tids,
    asked: u64,
    /// A ring was found full. The kernel counts what did not fit by a record in front of the next one,
    /// which may be long in coming.
    pub(super) overflowed: bool,
}

/// CLOCK_MONOTONIC in nanoseconds, which is the clock of the records.
pub(super) fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| {
        now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
    })
}

/// CPUs that are online: `0-3,8`; without /sys, those that have a line in /proc/stat.
fn online() -> Vec<usize> {
    let Ok(text) = std::fs::read_to_string("/sys/devices/system/cpu/online") else {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let name = |line: &str| line.split(' ').next()?.strip_prefix("cpu")?.parse().ok();
        let cpus: Vec<usize> = stat.lines().filter_map(name).collect();
        return if cpus.is_empty() { vec![0] } else { cpus };
    };
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

/// The size of the ring of each of so many CPUs.
fn share(cpus: usize) -> usize {
    let share = (ALL_RINGS / cpus.max(1)).clamp(SMALLEST_RING, LARGE_RING);
    1 << share.ilog2()
}

/// An event of every task of a CPU, told by records and samples of which none holds a stack.
fn event(tells: Tells, wakes: bool) -> Event {
    Event {
        task: None,
        tells,
        wakes,
        stack: 0,
        period: 1,
    }
}

/// Whether the events can be opened here: one of each kind is.
pub(in super::super) fn available() -> Result<(), TraceError> {
    let tracepoint = tracepoints(&Wanted::default())?
        .first()
        .map(|point| Tells::Tracepoint(point.id.into()));
    for tells in [Some(Tells::Tasks), tracepoint].into_iter().flatten() {
        let cpu = online().first().copied().unwrap_or(0);
        perf::open(&event(tells, false), cpu).map_err(|error| refused(&error))?;
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
        let found = tracepoints(wanted)?;
        let points = Points::new(&found);
        // Stacks are copied for the watched tasks alone.
        let mut stacks = Vec::new();
        for tracepoint in found.iter().filter(|_| wanted.stacks) {
            match tracepoint.point {
                Point::Caller => stacks.push((*tracepoint, Some(callers_filter(wanted)))),
                Point::Fault => stacks.push((*tracepoint, None)),
                _ => {}
            }
        }
        let of_all = |tracepoint: &Tracepoint| tracepoint.point != Point::Caller;
        let mut rings = Rings {
            tracepoints: found.into_iter().filter(of_all).collect(),
            cpus: Vec::new(),
            streams: Vec::new(),
            points,
            stacks,
            heads: BinaryHeap::new(),
            horizon: 0,
            rate: Rate::new(now()),
            fault_stacks: StackBudget::default(),
            watched: Tids::default(),
            asked: now(),
            overflowed: false,
        };
        let mut size = share(online().len());
        for number in online() {
            let stream = loop {
                match Stream::open(number, size) {
                    Ok(stream) => break stream,
                    Err(NoRing::NoMemory(_)) if SMALLEST_RING < size => size /= 2,
                    Err(error) => return Err(error.into()),
                }
            };
            let events = rings.events(number, &stream)?;
            rings
                .cpus
                .push(Cpu::new(number, rings.streams.len(), events));
            rings.streams.push(Some(stream));
        }
        Ok(rings)
    }

    /// Opens the events of every task of a CPU.
    fn events(&self, cpu: usize, stream: &Stream) -> Result<Vec<OwnedFd>, TraceError> {
        let tracepoint = |tracepoint: &Tracepoint| {
            event(Tells::Tracepoint(tracepoint.id.into()), tracepoint.wakes)
        };
        let of_tasks = [event(Tells::Tasks, false)];
        let wanted = of_tasks
            .into_iter()
            .chain(self.tracepoints.iter().map(tracepoint));
        let open = |event: Event| {
            let event = perf::open(&event, cpu)?;
            perf::redirect(event.as_fd(), stream.holder())?;
            Ok(event)
        };
        let opened: std::io::Result<Vec<OwnedFd>> = wanted.map(open).collect();
        opened.map_err(|error| refused(&error))
    }

    /// Lets the stacks of `task` be recorded, and of all that it makes from now on, where they are
    /// wanted.
    pub(super) fn record_stacks(&mut self, task: Tid) -> Result<(), TraceError> {
        (0..self.cpus.len()).try_for_each(|cpu| self.record_stacks_on(cpu, task))
    }

    /// The same on one of [`Rings::cpus`].
    pub(super) fn record_stacks_on(&mut self, cpu: usize, task: Tid) -> Result<(), TraceError> {
        let size = share(self.cpus.len());
        let Some(cpu) = self.cpus.get_mut(cpu) else {
            return Ok(());
        };
        for (tracepoint, filter) in &self.stacks {
            let of_fault = tracepoint.point == Point::Fault;
            let event = Event {
                task: Some(task),
                tells: Tells::Tracepoint(tracepoint.id.into()),
                wakes: false,
                stack: STACK,
                period: if of_fault { FAULTS_A_STACK } else { 1 },
            };
            let stream = match (of_fault, cpu.stacks_stream) {
                (false, _) => cpu.stream,
                (true, Some(stream)) => stream,
                (true, None) => {
                    // What does not fit into it is not sampled.
                    let stream = Stream::open_sampled(cpu.number, size)?;
                    self.streams.push(Some(stream));
                    cpu.stacks_stream = Some(self.streams.len() - 1);
                    self.streams.len() - 1
                }
            };
            let Some(Some(stream)) = self.streams.get(stream) else {
                continue;
            };
            let opened = perf::open(&event, cpu.number).and_then(|event| {
                if let Some(filter) = filter {
                    perf::filter_by(event.as_fd(), filter)?;
                }
                perf::redirect(event.as_fd(), stream.holder())?;
                Ok(event)
            });
            let opened = match opened {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
                opened => opened.map_err(|error| refused(&error))?,
            };
            match of_fault {
                true => cpu.fault_stacks.push(opened),
                false => cpu.of_tasks.push(opened),
            }
        }
        Ok(())
    }

    /// Waits until there is much to read, something to be known at once, a signal, or for so long.
    pub(super) fn wait(&self, milliseconds: u16) {
        let mut fds: Vec<PollFd<'_>> = self
            .streams
            .iter()
            .flatten()
            .filter(|stream| stream.replaced.is_none())
            .map(|stream| PollFd::new(stream.holder(), PollFlags::POLLIN))
            .collect();
        let _ = poll(&mut fds, PollTimeout::from(milliseconds));
    }

    /// Whether records wait for their time to be complete.
    pub(super) fn is_behind(&self) -> bool {
        !self.heads.is_empty()
    }

    /// Bytes that were read and not yet worked on.
    fn backlog(&self) -> usize {
        self.streams.iter().flatten().map(Stream::backlog).sum()
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
        // If none of it can be worked on, more must be read to know that nothing is before it.
        if BACKLOG < self.backlog() && self.has_ready() {
            return Vec::new();
        }
        self.horizon = began.saturating_sub(SLACK);
        let mut found = Found::default();
        let mut fill = Vec::new();
        for (index, place) in self.streams.iter_mut().enumerate() {
            let Some(stream) = place else { continue };
            let was_empty = stream.backlog() == 0;
            let taken = stream.take();
            if was_empty && let Some(time) = stream.head() {
                self.heads.push(Reverse((time, index)));
            }
            stream.scan(&self.points, &mut self.watched, &mut found);
            match stream.replaced {
                None if stream.size() / 2 < taken => {
                    self.overflowed |= !stream.sampled && stream.size() < taken + LARGEST_RECORD;
                    fill.push(index);
                }
                Some(at) if at + READ_ON < began && stream.backlog() == 0 => *place = None,
                _ => {}
            }
        }
        for stream in fill {
            self.grow(stream, began);
        }
        self.rate.count(found.faults);
        if let Some(period) = self.rate.change(began) {
            let faults = self.tracepoints.iter().enumerate();
            let faults = faults.filter(|(_, tracepoint)| tracepoint.point == Point::Fault);
            for (index, _) in faults {
                // The first event is that of tasks.
                for event in self.cpus.iter().filter_map(|cpu| cpu.events.get(index + 1)) {
                    let _ = perf::set_period(event.as_fd(), period.into());
                }
            }
        }
        if let Some(enabled) = self.fault_stacks.count(found.fault_stacks, began) {
            for event in self.cpus.iter().flat_map(|cpu| &cpu.fault_stacks) {
                let _ = perf::enable(event.as_fd(), enabled);
            }
        }
        found.execs.dedup();
        found.execs
    }

    /// Gives the CPU that has this ring a larger one, if there may be one.
    fn grow(&mut self, stream: usize, time: u64) {
        let rings = self.streams.iter().flatten();
        let all: usize = rings.map(Stream::size).sum();
        let Some(cpu) = self.cpus.iter().position(|cpu| cpu.stream == stream) else {
            return;
        };
        let Some(old) = self.streams.get(stream).and_then(Option::as_ref) else {
            return;
        };
        let size = (old.size() * GROWS_BY).min(LARGEST_RING);
        let cpu = &mut self.cpus[cpu];
        if cpu.largest || size <= old.size() || ALL_GROWN < all + size {
            return;
        }
        match Stream::open(cpu.number, size) {
            Ok(new) => self.replace(stream, new, time),
            Err(_) => cpu.largest = true,
        }
    }

    /// Lets the events that write to one ring write to another.
    fn replace(&mut self, old: usize, new: Stream, time: u64) {
        let Some(cpu) = self.cpus.iter_mut().find(|cpu| cpu.stream == old) else {
            return;
        };
        for event in cpu.events.iter().chain(&cpu.of_tasks) {
            let _ = perf::redirect(event.as_fd(), new.holder());
        }
        (cpu.stream, cpu.enabled) = (self.streams.len(), 0);
        self.streams.push(Some(new));
        if let Some(Some(old)) = self.streams.get_mut(old) {
            old.replaced = Some(time);
        }
    }

    /// Looks from time to time whether CPUs have come, or have been away: what was to be told there
    /// is lost. Whether there are such, and the numbers in [`Rings::cpus`] of those that are new.
    pub(super) fn follow_cpus(&mut self) -> Result<(bool, Range<usize>), TraceError> {
        let (time, before) = (now(), self.cpus.len());
        if time < self.asked + CPUS_ASKED {
            return Ok((false, before..before));
        }
        self.asked = time;
        let mut any = false;
        let online = online();
        for &number in &online {
            match self.cpus.iter().position(|cpu| cpu.number == number) {
                None => {
                    let stream = Stream::open(number, SMALLEST_RING)?;
                    let events = self.events(number, &stream)?;
                    let place = self.streams.len();
                    self.cpus.push(Cpu::new(number, place, events));
                    self.streams.push(Some(stream));
                    any = true;
                }
                Some(index) => any |= self.was_away(index, time)?,
            }
        }
        Ok((any, before..self.cpus.len()))
    }

    /// Whether the CPU was away since this was last asked; its events are opened anew then.
    fn was_away(&mut self, index: usize, time: u64) -> Result<bool, TraceError> {
        let cpu = &mut self.cpus[index];
        let (number, old) = (cpu.number, cpu.stream);
        let Some(stream) = self.streams.get(old).and_then(Option::as_ref) else {
            return Ok(false);
        };
        let enabled = stream.enabled().unwrap_or(0);
        let stands = enabled <= cpu.enabled;
        cpu.enabled = enabled;
        if !stands {
            return Ok(false);
        }
        let new = Stream::open(number, stream.size())?;
        let events = self.events(number, &new)?;
        let cpu = &mut self.cpus[index];
        cpu.events = events;
        self.replace(old, new, time);
        Ok(true)
    }

    /// Ends all recording and drops what has not been worked on: how many records of watched processes
    /// that were.
    pub(super) fn throw_away(&mut self) -> u64 {
        for cpu in &self.cpus {
            for event in cpu.all() {
                let _ = perf::enable(event.as_fd(), false);
            }
        }
        self.heads.clear();
        let watched = &self.watched;
        let streams = self.streams.iter_mut().flatten();
        streams.map(|stream| stream.throw_away(watched)).sum()
    }

    /// The next record in order of time, if those of its time are complete.
    pub(super) fn next(&mut self) -> Option<Record> {
        loop {
            let &Reverse((time, index)) = self.heads.peek()?;
            if self.horizon < time {
                return None;
            }
            self.heads.pop();
            let stream = self.streams.get_mut(index)?.as_mut()?;
            let record = stream.next(&self.points, &self.watched);
            if let Some(time) = stream.head() {
                self.heads.push(Reverse((time, index)));
            }
            if record.is_some() {
                return record;
            }
        }
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        let mut events = Vec::new();
        for cpu in self.cpus.drain(..) {
            events.extend(cpu.events);
            events.extend(cpu.of_tasks);
            events.extend(cpu.fault_stacks);
        }
        perf::close_after_exit(events);
    }
}

impl From<NoRing> for TraceError {
    fn from(why: NoRing) -> TraceError {
        match why {
            NoRing::Refused(error) => refused(&error),
            NoRing::NoMemory(error) => no_memory(&error),
        }
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
