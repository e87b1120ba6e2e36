//! What is known of one mapping.

use std::sync::Arc;

use crate::abi::{MapFlags, Prot};
use crate::report::Place;
use crate::units::{Addr, AddrRange};

/// What was asked for by the mmap(2) that made a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes, as passed.
    pub len: u64,
    /// Rights.
    pub prot: Prot,
    /// Flags.
    pub flags: MapFlags,
    /// The address argument: a hint, or where exactly.
    pub addr: Addr,
}

/// How reserved bytes of a mapping became usable, in one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Times.
    pub count: u64,
    /// The first time: where.
    pub first: Option<AddrRange>,
    /// All starts and lengths, or-ed: its lowest bit is what all are a multiple of.
    bits: u64,
    /// Code may be run there.
    pub executable: bool,
}

impl Step {
    /// Counts one more.
    pub fn take(&mut self, range: AddrRange, prot: Prot) {
        self.count = self.count.saturating_add(1);
        self.first.get_or_insert(range);
        self.bits |= range.start().0 | range.len();
        self.executable |= prot.contains(Prot::EXEC);
    }

    /// The largest power of two that all starts and lengths are multiples of; 0 if there was none.
    pub fn granule(&self) -> u64 {
        match self.bits {
            0 => 0,
            bits => 1 << bits.trailing_zeros(),
        }
    }
}

/// What followed after a mapping was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Made usable by mmap(2) over it.
    pub mapped: Step,
    /// Made usable by mprotect(2).
    pub protected: Step,
    /// The file, or what has a name like one, that was mapped over a part of it first.
    pub file: Option<Arc<str>>,
    /// What was cut off its ends by the first munmap(2) or two, while nothing else had happened.
    pub trimmed: [u64; 2],
    /// Its lowest bytes were replaced with other memory.
    pub low_replaced: bool,
}

/// What is known of one mapping: the bytes that one event made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clues {
    /// The functions that called, innermost first; empty if that was not recorded.
    pub callers: Arc<[Arc<str>]>,
    /// The name that the program gave it.
    pub name: Option<Arc<str>>,
    /// What people call it.
    pub place: Place,
    /// The mmap(2) that made it.
    pub request: Option<Request>,
    /// Where it was made; once its ends were trimmed, what was left then.
    pub range: AddrRange,
    /// It took the place of other bytes that were mapped: of which.
    pub over: Option<(Place, AddrRange)>,
    /// The dynamic loader had not yet finished when it was made.
    pub at_start: bool,
    /// The call of the same task before this one made bytes executable.
    pub after_code: bool,
    /// What followed.
    pub steps: Steps,
}

impl Clues {
    /// Of bytes at `range` of which nothing else is known.
    pub fn new(range: AddrRange, place: Place) -> Clues {
        Clues {
            callers: [].into(),
            name: None,
            place,
            request: None,
            range,
            over: None,
            at_start: false,
            after_code: false,
            steps: Steps::default(),
        }
    }

    /// The request, if it was for private anonymous memory at a place of the kernel's choice.
    pub(super) fn anonymous(&self) -> Option<&Request> {
        let request = self.request.as_ref()?;
        let private = request.flags.contains(MapFlags::ANONYMOUS) && !request.flags.is_shared();
        let placed = MapFlags::FIXED | MapFlags::FIXED_NOREPLACE;
        (private && !request.flags.intersects(placed)).then_some(request)
    }

    /// The same, if it was for bytes that nothing may touch.
    pub(super) fn reservation(&self) -> Option<&Request> {
        self.anonymous()
            .filter(|request| request.prot.rwx().is_empty())
    }

    /// A reservation with MAP_NORESERVE.
    pub(in crate::report) fn free_reservation(&self) -> Option<&Request> {
        self.reservation()
            .filter(|request| request.flags.contains(MapFlags::NORESERVE))
    }

    /// A reservation without MAP_NORESERVE and MAP_STACK.
    pub(super) fn plain_reservation(&self) -> Option<&Request> {
        let other = MapFlags::NORESERVE | MapFlags::STACK;
        self.reservation()
            .filter(|request| !request.flags.intersects(other))
    }

    /// The request, if it was for readable and writable memory with no flag beyond those two that
    /// every allocator uses.
    pub(super) fn plain_memory(&self) -> Option<&Request> {
        let usual = MapFlags::PRIVATE | MapFlags::ANONYMOUS;
        self.anonymous().filter(|request| {
            request.prot.rwx() == Prot::READ | Prot::WRITE && request.flags == usual
        })
    }

    /// Whether it was left, after trimming, aligned to `align`, and `cut` bytes had been cut off.
    pub(super) fn aligned_by_trimming(&self, align: u64, cut: u64) -> bool {
        let [first, second] = self.steps.trimmed;
        self.range.start().0.is_multiple_of(align)
            && (first == cut || first.saturating_add(second) == cut)
    }
}
