//! Numbers with a meaning: addresses, spans of them, amounts, tasks, spaces and times.
//!
//! Every type here is a plain value; nothing reads a clock, a file or a process.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// Bytes in one page of a traced address space.
///
/// x86-64 and i386 have no other base page size; a kernel with another one is refused at start.
pub const PAGE: u64 = 4096;

/// An address in a tracee's address space.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub u64);

impl Addr {
    /// Whether a mapping could begin here.
    pub fn is_page_aligned(self) -> bool {
        self.0.is_multiple_of(PAGE)
    }

    /// The start of the page this address is on.
    pub fn page_floor(self) -> Addr {
        Addr(self.0 & !(PAGE - 1))
    }

    /// The first page boundary at or after this address; `None` past the end of the space.
    pub fn page_ceil(self) -> Option<Addr> {
        self.0.checked_next_multiple_of(PAGE).map(Addr)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A page-aligned, non-empty, half-open span of a tracee's address space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrRange {
    start: Addr,
    end: Addr,
}

impl AddrRange {
    /// The span from `start` to `end`; `None` unless both are page-aligned and `start < end`.
    pub fn new(start: Addr, end: Addr) -> Option<AddrRange> {
        (start < end && start.is_page_aligned() && end.is_page_aligned())
            .then_some(AddrRange { start, end })
    }

    /// The pages that `len` bytes at `start` cover, rounded as mmap(2) rounds.
    /// `None` if the kernel would refuse them: misaligned, empty or wrapping.
    pub fn covering(start: Addr, len: u64) -> Option<AddrRange> {
        let len = len.checked_next_multiple_of(PAGE).filter(|len| 0 < *len)?;
        let end = Addr(start.0.checked_add(len)?);
        AddrRange::new(start, end)
    }

    /// The first address of the span.
    pub fn start(self) -> Addr {
        self.start
    }

    /// The first address after the span.
    pub fn end(self) -> Addr {
        self.end
    }

    /// Bytes from start to end; never zero.
    #[allow(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether `addr` lies in the span.
    pub fn contains(self, addr: Addr) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Whether every byte of `other` lies in the span.
    pub fn covers(self, other: AddrRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The part both spans have in common.
    pub fn intersect(self, other: AddrRange) -> Option<AddrRange> {
        AddrRange::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether both spans share at least one byte.
    pub fn overlaps(self, other: AddrRange) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start.0, self.end.0)
    }
}

impl fmt::Debug for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An exact amount of memory or address space, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Add for Bytes {
    type Output = Bytes;
    fn add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }
}

impl Sub for Bytes {
    type Output = Bytes;
    fn sub(self, other: Bytes) -> Bytes {
        debug_assert!(other.0 <= self.0, "an amount went below zero");
        Bytes(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Bytes) {
        *self = *self + other;
    }
}

impl SubAssign for Bytes {
    fn sub_assign(&mut self, other: Bytes) {
        *self = *self - other;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(iter: I) -> Bytes {
        iter.fold(Bytes(0), Add::add)
    }
}

/// A kernel task, as numbered in the tracer's PID namespace. A process is named by its leader's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(pub i32);

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One address space (one `mm_struct`) of a trace, numbered from 1 in order of appearance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub u32);

/// A distinct call stack of a trace, numbered from 1 in order of appearance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub u32);

/// Nanoseconds since the trace began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Nanoseconds from `earlier` to `self`; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_covering_range_rounds_up_and_refuses_what_mmap_refuses() {
        let covering = |start, len| AddrRange::covering(Addr(start), len);
        assert_eq!(covering(0x1000, 1).map(AddrRange::len), Some(PAGE));
        assert_eq!(covering(0x1000, 0x2001).map(AddrRange::len), Some(0x3000));
        assert_eq!(covering(0x1001, 1), None);
        assert_eq!(covering(0x1000, 0), None);
        assert_eq!(covering(0x1000, u64::MAX), None);
        assert_eq!(covering(u64::MAX - 0xfff, 0x2000), None);
    }
}
