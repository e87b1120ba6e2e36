//! What a comparison says. Plain values, exact bytes.

use std::collections::HashSet;

use crate::mm::Parts;
use crate::units::{Bytes, SpaceId, Tid};

use super::cells::First;
use super::json::subject_text;
use super::owner::Owner;
use super::role::Role;

/// Two traces (or two sets of traces of one program each) compared.
#[derive(Clone, Debug)]
pub struct Diff {
    /// Nothing changed but what is noise.
    pub same: bool,
    /// The earlier one.
    pub before: Side,
    /// The later one.
    pub after: Side,
    /// Address spaces, paired by what they are for.
    pub spaces: Vec<SpacePair>,
    /// What is new, gone or altered at the end, the largest first. Those of one figure add up to
    /// the difference of the figure.
    pub changes: Vec<Change>,
    /// The same when the figure was at its peak.
    pub peak_changes: Vec<Change>,
    /// Calls whose number differs, the largest difference first.
    pub calls: Vec<CallChange>,
    /// How the calls of both go together.
    pub timelines: Timelines,
    /// What makes the comparison less than certain, in sentences.
    pub doubts: Vec<String>,
}

/// One side of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// The program and its arguments; empty when attached.
    pub command: Vec<String>,
    /// When, in RFC 3339.
    pub started: String,
    /// Traces on this side; the figures are those of one of them.
    pub runs: usize,
    /// Which of them, from 0: the one in the middle by what it maps.
    pub shown: usize,
    /// Its sums over all spaces.
    pub sums: Sums,
}

/// A value at the end, and the highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndPeak {
    /// The last value; of several spaces the sum of each one's last.
    pub end: u64,
    /// The highest; of several spaces that of the sum.
    pub peak: u64,
}

/// Sums of one space, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// All mappings.
    pub mapped: EndPeak,
    /// Those without any access right.
    pub reserved: EndPeak,
    /// The others.
    pub committed: EndPeak,
    /// Committed at the end, by backing.
    pub parts: Parts,
    /// Counted against the commit limit.
    pub charged: EndPeak,
    /// Physical memory, as measured; 0 if it never was.
    pub resident: EndPeak,
    /// Mappings, a count.
    pub mappings: EndPeak,
    /// Events; 0 for a single space.
    pub events: u64,
}

/// The difference of two amounts, exact for all that a trace can hold.
pub fn difference(before: u64, after: u64) -> i64 {
    let exact = i128::from(after) - i128::from(before);
    exact.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Address spaces with one role.
#[derive(Clone, Debug)]
pub struct SpacePair {
    /// What people call it.
    pub name: String,
    /// The earlier one.
    pub before: Option<SpaceSide>,
    /// The later one.
    pub after: Option<SpaceSide>,
}

/// One of a pair.
#[derive(Clone, Debug)]
pub struct SpaceSide {
    /// Its number in its trace.
    pub id: SpaceId,
    /// The process it began with.
    pub pid: Tid,
    /// The program.
    pub exe: String,
    /// Its sums.
    pub sums: Sums,
}

/// Which sum a change belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FigureName {
    /// Mapped without any access right.
    Reserved,
    /// The rest of what is mapped.
    Committed,
}

/// What happened to the mappings of one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There were none before.
    New,
    /// There are none any more.
    Gone,
    /// More bytes.
    Grown,
    /// Fewer bytes.
    Shrunk,
}

/// Why a difference is none that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// The kernel places heap and stack at random within a page or so, and they grow in steps.
    Steps,
    /// A few more or fewer mappings of equal shape: stacks of threads, arenas.
    Count,
    /// Small beside what there is.
    Small,
    /// Within what runs of one side differ by.
    Spread,
}

/// What a change is about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Mappings of one role.
    Mappings {
        /// The role.
        role: Role,
        /// The name, where it has one, as it was seen last.
        name: String,
        /// The sizes that were asked for, before and after; 0 where none tells one from another.
        sizes: [u64; 2],
    },
    /// All mappings of processes that the other side does not have.
    Processes,
}

/// Bytes that are new, gone, more or fewer.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub kind: Kind,
    /// Which sum it belongs to.
    pub figure: FigureName,
    /// What it is about.
    pub subject: Subject,
    /// In which program.
    pub space: String,
    /// Bytes before.
    pub before: u64,
    /// Bytes after.
    pub after: u64,
    /// How many mappings (processes, if it is about those), before and after.
    pub numbers: [u64; 2],
    /// The first of these mappings, before and after.
    pub first: [Option<First>; 2],
    /// Who made that, before and after, where it is known.
    pub owners: [Option<Owner>; 2],
    /// Why it does not count, if so.
    pub noise: Option<Noise>,
}

impl Diff {
    /// What counts at the end, the largest first.
    pub fn at_end(&self) -> Vec<&Change> {
        self.changes
            .iter()
            .filter(|change| change.counts())
            .collect()
    }

    /// What counts at the peak and is not told by the end, the largest first.
    pub fn only_at_peak(&self) -> Vec<&Change> {
        let key = |change: &Change| {
            let what = subject_text(&change.subject);
            (change.figure, change.space.clone(), what)
        };
        let told: HashSet<_> = self.changes.iter().map(key).collect();
        let at_peak = self.peak_changes.iter().filter(|change| change.counts());
        at_peak
            .filter(|change| !told.contains(&key(change)))
            .collect()
    }
}

impl Change {
    /// Whether it is more than noise.
    pub fn counts(&self) -> bool {
        self.noise.is_none()
    }

    /// After less before.
    pub fn delta(&self) -> i64 {
        difference(self.before, self.after)
    }
}

/// A call that was made more or less often, or failed more or less often.
#[derive(Clone, Debug)]
pub struct CallChange {
    /// Its name.
    pub name: String,
    /// How often, before and after.
    pub counts: [u64; 2],
    /// How often it failed.
    pub failed: [u64; 2],
    /// Why it does not count, if so.
    pub noise: Option<Noise>,
}

/// How the calls of both sides go together, thread by thread.
#[derive(Clone, Debug, Default)]
pub struct Timelines {
    /// Calls that both sides have in the same order.
    pub same: u64,
    /// Calls of the earlier one alone.
    pub only_before: u64,
    /// Calls of the later one alone.
    pub only_after: u64,
    /// Where the first threads of a program part first.
    pub parting: Option<Parting>,
}

/// The first calls that differ.
#[derive(Clone, Debug)]
pub struct Parting {
    /// In which program.
    pub space: String,
    /// Calls of the thread before it that are the same.
    pub after_calls: u64,
    /// The first call of the earlier one that the later one does not have there.
    pub before: Option<First>,
    /// The first call of the later one that the earlier one does not have there.
    pub after: Option<First>,
}

impl Sums {
    /// The figures with their names, in the order people read them.
    pub fn figures(&self) -> [(&'static str, EndPeak); 6] {
        [
            ("mapped", self.mapped),
            ("reserved", self.reserved),
            ("committed", self.committed),
            ("charged", self.charged),
            ("resident", self.resident),
            ("mappings", self.mappings),
        ]
    }

    /// The parts of committed with their names.
    pub fn parts(&self) -> [(&'static str, Bytes); 4] {
        let Parts {
            anon,
            file,
            shmem,
            special,
        } = self.parts;
        [
            ("anon", anon),
            ("file", file),
            ("shmem", shmem),
            ("special", special),
        ]
    }
}
