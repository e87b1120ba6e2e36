//! What a report says. Plain values, exact bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::abi;
use crate::decode::{self, RawCall};
use crate::mm::{Difference, Flow, Parts, Totals};
use crate::timeline::{Began, Ended, FileSeen, TaskEnd, TraceInfo};
use crate::trace_file::Damage;
use crate::units::{Addr, AddrRange, Bytes, SpaceId, Tid, Timestamp};

use super::failures::Refusals;
use super::places::PlaceBytes;
use super::touched::Touches;

/// Everything that a trace tells in sums.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What is true of the whole trace.
    pub info: TraceInfo,
    /// Events of the timeline that have a number.
    pub events: u64,
    /// Observations that were lost.
    pub lost: u64,
    /// Time of the last event.
    pub until: Timestamp,
    /// Remarks for the user, the first [`Report::MAX_NOTES`].
    pub notes: Vec<Note>,
    /// Remarks beyond those.
    pub more_notes: u64,
    /// Files of code that were mapped, in order of appearance, the first [`Report::MAX_FILES`].
    pub files: Vec<FileReport>,
    /// Files beyond those.
    pub more_files: u64,
    /// Calls that a limit refused, and which it was.
    pub refusals: Refusals,
    /// Where the file stopped being readable, for a recorded trace.
    pub damage: Option<Damage>,
    /// Every address space, in order of appearance.
    pub spaces: Vec<SpaceReport>,
    /// All spaces together.
    pub tree: TreeReport,
}

impl Report {
    /// Remarks that are kept.
    pub const MAX_NOTES: usize = 200;
    /// Files of code that are kept.
    pub const MAX_FILES: usize = 1000;
}

/// A mapped file of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// When it was looked at, which is soon after it was mapped.
    pub time: Timestamp,
    /// What it says of itself.
    pub seen: FileSeen,
}

/// A remark for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// When.
    pub time: Timestamp,
    /// The space it is about; 0 if none.
    pub space: SpaceId,
    /// One line.
    pub text: String,
}

/// A figure over the traced time. `peak` is at least `begin` and `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figure<T> {
    /// The first value.
    pub begin: T,
    /// The last value.
    pub end: T,
    /// The highest value.
    pub peak: T,
    /// When it was reached first.
    pub peak_time: Timestamp,
    /// The event that made it.
    pub peak_by: Maker,
}

impl<T: Copy + PartialOrd> Figure<T> {
    /// A figure that begins with `value`.
    pub fn new(value: T, time: Timestamp, by: Maker) -> Figure<T> {
        Figure {
            begin: value,
            end: value,
            peak: value,
            peak_time: time,
            peak_by: by,
        }
    }

    /// Takes the value after an event.
    pub fn set(&mut self, value: T, time: Timestamp, by: Maker) {
        self.end = value;
        if self.peak < value {
            (self.peak, self.peak_time, self.peak_by) = (value, time, by);
        }
    }
}

/// The event that made a figure what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maker {
    /// Number of the event.
    pub seq: u64,
    /// Whose.
    pub tid: Tid,
    /// What it was.
    pub what: Made,
}

/// What kind of event changed a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Made {
    /// The figure began with it.
    #[default]
    Began,
    /// A call with this result, if it returned.
    Call(RawCall, Option<i64>),
    /// A comparison with the kernel's map: a stack had grown, or the model was corrected.
    Checked,
    /// A measurement.
    Sampled,
}

impl Maker {
    /// Name of the call, if it was one.
    pub fn call(&self) -> Option<Cow<'static, str>> {
        match &self.what {
            Made::Call(raw, _) => Some(call_name(raw)),
            _ => None,
        }
    }
}

/// The kernel's name of a call; an operation of i386 ipc(2) goes by its own.
pub fn call_name(raw: &RawCall) -> Cow<'static, str> {
    let info = abi::call_info(raw.abi, raw.nr);
    match (info, decode::effective_kind(raw)) {
        (Some(info), Some(kind)) if info.kind != kind => {
            let own = abi::CALLS.iter().find(|call| call.kind == kind);
            own.map_or(info.name, |own| own.name).into()
        }
        (Some(info), _) => info.name.into(),
        (None, _) => format!("syscall_{:#x}", raw.nr).into(),
    }
}

/// Whether `result` is an error. Of an i386 call only the low half counts.
pub fn is_error(raw: &RawCall, result: i64) -> bool {
    let result = match raw.abi {
        abi::Abi::I386 => i64::from(result as i32),
        _ => result,
    };
    (-4095..0).contains(&result)
}

/// The plainest form of a call: all registers, nothing interpreted.
impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Made::Began => f.write_str("began with it"),
            Made::Checked => f.write_str("comparison with the kernel's map"),
            Made::Sampled => f.write_str("measurement"),
            Made::Call(raw, result) => {
                let [a, b, c, d, e, g] = raw.args;
                let name = call_name(raw);
                write!(f, "{name}({a:#x}, {b:#x}, {c:#x}, {d:#x}, {e:#x}, {g:#x})")?;
                match result {
                    Some(result) if is_error(raw, *result) => write!(f, " = {}", *result as i32),
                    Some(result) => write!(f, " = {result:#x}"),
                    None => f.write_str(" = ?"),
                }
            }
        }
    }
}

/// One address space.
#[derive(Clone, Debug, PartialEq)]
pub struct SpaceReport {
    /// Its number.
    pub id: SpaceId,
    /// The process it began with.
    pub pid: Tid,
    /// The program; empty if unknown.
    pub exe: Arc<str>,
    /// Command name of the task it began with.
    pub comm: Arc<str>,
    /// How it began.
    pub began: Began,
    /// How it ended.
    pub ended: Ended,
    /// How the process ended, if it ended with this space.
    pub status: Option<TaskEnd>,
    /// When it began.
    pub since: Timestamp,
    /// When it ended, or was seen last.
    pub until: Timestamp,
    /// False if its maps could not be read when it began: then it began empty and is not verified.
    pub known: bool,
    /// All mappings.
    pub mapped: Figure<Bytes>,
    /// Those without any access right.
    pub reserved: Figure<Bytes>,
    /// The others.
    pub committed: Figure<Bytes>,
    /// Committed at the end, by backing.
    pub parts: Parts,
    /// Committed at the end with MAP_NORESERVE.
    pub noreserve: Bytes,
    /// All sums when committed was at its peak.
    pub at_peak: Totals,
    /// Counted against the commit limit.
    pub charged: Charged,
    /// Physical memory; `None` if it was never measured.
    pub resident: Option<ResidentReport>,
    /// What was touched, if page faults were recorded.
    pub touched: Option<Touches>,
    /// Maximal runs of equal rights, sharing and backing.
    pub mappings: Figure<u64>,
    /// Its calls by name.
    pub calls: BTreeMap<Cow<'static, str>, CallCount>,
    /// Bytes by what happened to them.
    pub flow: Flow,
    /// Model against kernel.
    pub verify: Verify,
    /// Its tasks.
    pub tasks: TaskCount,
    /// Where its bytes were, and who reserved them; `None` for spaces beyond the first
    /// [`SpaceReport::DETAILED`] that ended.
    pub detail: Option<Detail>,
}

impl SpaceReport {
    /// Spaces of which everything is kept.
    pub const DETAILED: usize = 512;

    /// Whether the most that was ever mapped is what the kernel's own books say, which is a check of
    /// every step that led there; `None` where they were not read, or know what was before the trace.
    pub fn peak_agrees(&self) -> Option<bool> {
        let kernel = self.verify.kernel_peak.filter(|_| self.known)?;
        match self.mapped.peak == kernel {
            false if self.began == Began::Attach => None,
            agrees => Some(agrees),
        }
    }

    /// By how much it differs where it does not agree.
    pub fn peak_differs_by(&self) -> Bytes {
        let kernel = self.verify.kernel_peak.unwrap_or_default();
        Bytes(self.mapped.peak.0.abs_diff(kernel.0))
    }
}

/// Bytes counted against the commit limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// The last value: from smaps, else the highest that the calls allow.
    pub end: Bytes,
    /// Whether `end` was read from smaps.
    pub exact: bool,
    /// The lowest that the calls allow at the end; equals `end` if that is exact.
    pub at_least: Bytes,
    /// The highest value that the calls allow, over the traced time.
    pub peak: Figure<Bytes>,
}

/// Physical memory, as measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentReport {
    /// At the last measurement.
    pub end: Bytes,
    /// When that was.
    pub measured: Timestamp,
    /// Highest: of all measurements, and the kernel's own high-water mark where it was read.
    pub peak: Bytes,
    /// When `peak` was seen or read.
    pub peak_time: Timestamp,
    /// Whether `peak` is the kernel's own mark, which misses nothing.
    pub peak_exact: bool,
    /// Private anonymous, file-backed and shared memory, when they were last told apart.
    pub parts: Option<ResidentParts>,
    /// What was swapped out, when that was last measured.
    pub swap: Option<Bytes>,
    /// Number of measurements.
    pub samples: u64,
}

impl ResidentReport {
    /// At the last measurement, if there was one: of a process that lived for a moment only the
    /// kernel's own mark may be known.
    pub fn last(&self) -> Option<Bytes> {
        (0 < self.samples).then_some(self.end)
    }
}

/// Resident memory by kind, at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentParts {
    /// RssAnon.
    pub anon: Bytes,
    /// RssFile.
    pub file: Bytes,
    /// RssShmem.
    pub shmem: Bytes,
    /// When.
    pub measured: Timestamp,
}

/// The calls of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCount {
    /// Calls that finished, or were cut short and had changed something.
    pub count: u64,
    /// Those that returned an error.
    pub failed: u64,
    /// Bytes whose state they changed or whose contents they dropped, each byte once per call.
    pub bytes: Bytes,
    /// Calls cut short that changed nothing; not in `count`.
    pub cut: u64,
}

/// What comparisons with the kernel's map found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verify {
    /// Comparisons, those on doubt left out.
    pub checks: u64,
    /// Comparisons on doubt, which are there to correct the model.
    pub doubts: u64,
    /// Bytes that differed.
    pub drift: Bytes,
    /// Bytes taken over from the kernel.
    pub resynced: Bytes,
    /// Bytes by which stacks had grown through page faults.
    pub grown: Bytes,
    /// The first [`Verify::MAX_DIFFERENCES`] spans that differed.
    pub differences: Vec<Difference>,
    /// Spans beyond those.
    pub more_differences: u64,
    /// The most that was ever mapped by the kernel's own books, of a space whose end they told of.
    pub kernel_peak: Option<Bytes>,
}

impl Verify {
    /// Differences that are kept for each space.
    pub const MAX_DIFFERENCES: usize = 32;
}

/// The tasks of a space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCount {
    /// All that ever were.
    pub total: u64,
    /// Most at once.
    pub peak: u64,
}

/// Where the bytes of a space were, and who reserved them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// Places at the end, the largest first; they sum to mapped.
    pub end: Vec<PlaceBytes>,
    /// Places when mapped was at its peak.
    pub mapped_peak: Vec<PlaceBytes>,
    /// Places when committed was at its peak.
    pub committed_peak: Vec<PlaceBytes>,
    /// The reservations.
    pub reservations: Reservations,
}

/// The reservations of a space: bytes that were mapped without any access right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reservations {
    /// How many there were.
    pub count: u64,
    /// Their bytes.
    pub bytes: Bytes,
    /// Bytes of them that were ever committed.
    pub ever_committed: Bytes,
    /// The largest, first.
    pub largest: Vec<Reservation>,
}

/// Bytes that one call reserved, or that were reserved when the space began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Where, when it was made.
    pub range: AddrRange,
    /// When.
    pub time: Timestamp,
    /// Which event made it; [`Made::Began`] if it was there when the space began.
    pub by: Maker,
    /// Bytes reserved.
    pub bytes: Bytes,
    /// Bytes of it that were ever committed.
    pub ever_committed: Bytes,
    /// Bytes of it that are committed at the end.
    pub committed: Bytes,
    /// Bytes of it that are mapped at the end.
    pub mapped: Bytes,
    /// When its last byte was unmapped.
    pub released: Option<Timestamp>,
}

impl Reservation {
    /// Where it began.
    pub fn start(&self) -> Addr {
        self.range.start()
    }
}

/// All spaces together. `end` sums the ends of all spaces, each at its own last instant; a peak is
/// the peak of the sum over the spaces that lived at the same instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeReport {
    /// All mappings.
    pub mapped: TreeFigure,
    /// Those without any access right.
    pub reserved: TreeFigure,
    /// The others.
    pub committed: TreeFigure,
    /// Counted against the commit limit, the highest that the calls allow.
    pub charged: TreeFigure,
    /// Physical memory as last measured, and its peak no less than the high-water mark of any one
    /// space; pages that spaces share count in each.
    pub resident: TreeFigure,
    /// Mappings, a count.
    pub mappings: TreeFigure,
    /// Most spaces at once.
    pub most_spaces: u64,
}

/// One figure of all spaces together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeFigure {
    /// Sum of every space's last value.
    pub end: u64,
    /// Highest sum over living spaces.
    pub peak: u64,
    /// When it was reached.
    pub peak_time: Timestamp,
    /// The space whose event made it.
    pub peak_space: SpaceId,
    /// The event.
    pub peak_by: Maker,
    /// Sum over the spaces living now.
    pub(super) now: u64,
}

impl TreeFigure {
    /// One space's value went from `old` to `new`.
    pub(super) fn change(&mut self, old: u64, new: u64, at: (Timestamp, SpaceId, Maker)) {
        self.now = self.now.saturating_sub(old).saturating_add(new);
        if self.peak < self.now {
            self.peak = self.now;
            (self.peak_time, self.peak_space, self.peak_by) = at;
        }
    }

    /// Something shows that the sum was `least` once, though it was not seen then.
    pub(super) fn at_least(&mut self, least: u64, at: (Timestamp, SpaceId, Maker)) {
        if self.peak < least {
            self.peak = least;
            (self.peak_time, self.peak_space, self.peak_by) = at;
        }
    }

    /// A space is gone; `last` was its value, `end` is what its report says.
    pub(super) fn space_ended(&mut self, last: u64, end: u64) {
        self.now = self.now.saturating_sub(last);
        self.end = self.end.saturating_add(end);
    }
}
