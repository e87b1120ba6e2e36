//! One ring, and the records that were read from it and not yet worked on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::units::Tid;

use super::super::sys::perf::{Event, Ring, Tells, enabled, open};
use super::record::{self, Record, What};
use super::table::{Points, Tids};

/// A ring fuller than one in this many parts wakes its reader.
const WAKES_AT: usize = 8;

/// A ring, and what was read from it.
#[derive(Debug)]
pub(super) struct Stream {
    /// Holds the ring; what other events tell is redirected to it.
    holder: OwnedFd,
    ring: Ring,
    bytes: Vec<u8>,
    /// Bytes before this one have been handed on.
    at: usize,
    /// Bytes before this one have been scanned for what must be known at once.
    scanned: usize,
    /// Nothing depends on what is lost of it.
    pub(super) sampled: bool,
    /// Since then its events write to another.
    pub(super) replaced: Option<u64>,
}

/// What [`Stream::scan`] found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Processes of which an execve has returned.
    pub execs: Vec<Tid>,
    /// Page faults.
    pub faults: u64,
    /// Stacks of such.
    pub fault_stacks: u64,
}

/// Why there is no ring.
#[derive(Debug)]
pub(super) enum NoRing {
    Refused(std::io::Error),
    NoMemory(std::io::Error),
}

impl Stream {
    /// A ring of `size` bytes, a power of two of pages, on a CPU.
    pub(super) fn open(cpu: usize, size: usize) -> Result<Stream, NoRing> {
        let holder = Event {
            task: None,
            tells: Tells::Nothing {
                watermark: (size / WAKES_AT) as u32,
            },
            wakes: false,
            stack: 0,
            period: 1,
        };
        let holder = open(&holder, cpu).map_err(NoRing::Refused)?;
        let ring = Ring::map(holder.as_fd(), size).map_err(NoRing::NoMemory)?;
        Ok(Stream {
            holder,
            ring,
            bytes: Vec::new(),
            at: 0,
            scanned: 0,
            sampled: false,
            replaced: None,
        })
    }

    /// The same, for events of which some may be lost.
    pub(super) fn open_sampled(cpu: usize, size: usize) -> Result<Stream, NoRing> {
        let stream = Stream::open(cpu, size)?;
        Ok(Stream {
            sampled: true,
            ..stream
        })
    }

    pub(super) fn holder(&self) -> BorrowedFd<'_> {
        self.holder.as_fd()
    }

    /// Size of the ring in bytes.
    pub(super) fn size(&self) -> usize {
        self.ring.size()
    }

    /// For how long its CPU has been there, in nanoseconds, since this was made.
    pub(super) fn enabled(&self) -> Option<u64> {
        enabled(self.holder.as_fd()).ok()
    }

    /// Bytes that were read and not yet worked on.
    pub(super) fn backlog(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Reads what is in the ring. How full it was, in bytes.
    pub(super) fn take(&mut self) -> usize {
        if self.at == self.bytes.len() || (1 << 20) < self.at {
            self.bytes.drain(..self.at);
            self.scanned -= self.at;
            self.at = 0;
        }
        self.ring.take(&mut self.bytes)
    }

    /// The time of the next record.
    pub(super) fn head(&self) -> Option<u64> {
        let rest = self.bytes.get(self.at..)?;
        let length = record::length(rest)?;
        record::time(rest.get(..length)?)
    }

    /// The next record, if it is of interest.
    pub(super) fn next(&mut self, points: &Points, watched: &Tids) -> Option<Record> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = record::length(rest).unwrap_or(rest.len());
        let bytes = rest.get(..length).unwrap_or_default();
        let parsed = record::parse(bytes, points, watched);
        self.at += length;
        parsed.filter(|record| match record.what {
            What::Lost(_) => !self.sampled,
            ref what => *what != What::Other,
        })
    }

    /// Drops all that was not worked on: how many records of watched processes that were.
    pub(super) fn throw_away(&mut self, watched: &Tids) -> u64 {
        self.ring.take(&mut self.bytes);
        let mut count = 0;
        while let Some(rest) = self.bytes.get(self.at..)
            && let Some(length) = record::length(rest)
        {
            let pid = rest.get(..length).and_then(record::pid);
            count += u64::from(pid.is_some_and(|pid| watched.contains(&pid)));
            self.at += length;
        }
        self.bytes.clear();
        (self.at, self.scanned) = (0, 0);
        count
    }

    /// Looks through what has just been read for new processes, which are watched from now on, for
    /// finished execs and for page faults.
    pub(super) fn scan(&mut self, points: &Points, watched: &mut Tids, found: &mut Found) {
        use record::{EXECVE, EXECVEAT};
        while let Some(rest) = self.bytes.get(self.scanned..)
            && let Some(length) = record::length(rest)
        {
            let bytes = rest.get(..length).unwrap_or_default();
            self.scanned += length;
            if points.any_fault {
                match record::is_fault(bytes, points) {
                    Some(false) => found.faults += 1,
                    Some(true) => found.fault_stacks += 1,
                    None => {}
                }
            }
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
                } => found.execs.push(parsed.pid),
                _ => {}
            }
        }
    }
}
