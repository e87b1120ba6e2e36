//! What is known of a process, its limits, its cgroups and its machine. Plain values, exact bytes.

use std::collections::BTreeMap;

use crate::mm::Parts;
use crate::timeline::{Limits, TaskEnd};
use crate::units::{Bytes, PAGE, SpaceId, Tid, Timestamp};

use super::cgroup::Level;
use super::owners::Owner;
use super::refusals::Refusal;

/// All that a verdict can be drawn from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// What is explained, and how it was looked at.
    pub subject: Subject,
    /// Its address space; `None` where there is none (a zombie, a kernel thread) or nothing of it
    /// could be read.
    pub space: Option<Space>,
    /// Its physical memory.
    pub memory: Memory,
    /// Its resource limits.
    pub limits: Limits,
    /// Its memory cgroup and those above it.
    pub cgroup: Option<Cgroups>,
    /// The machine.
    pub machine: Machine,
    /// The peak of physical memory of all address spaces of a traced program together.
    pub tree_resident: Option<Bytes>,
    /// `oom_kill` of /proc/vmstat when the program was launched.
    pub oom_kills_before: Option<u64>,
    /// Memory calls that the kernel refused, where calls were seen: the first of each kind.
    pub refusals: Vec<Refusal>,
    /// What could not be learnt, and why.
    pub missing: Vec<Missing>,
}

/// How something was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// A living process, not traced.
    #[default]
    Process,
    /// A recorded trace.
    Trace,
    /// A program that was launched, and traced to its end.
    Program,
}

/// What is explained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// How it was looked at.
    pub source: Source,
    /// The process.
    pub pid: Tid,
    /// Its command name.
    pub name: String,
    /// What became of it.
    pub state: State,
    /// Its address space, of a trace.
    pub space: Option<SpaceId>,
    /// Other address spaces of the trace; this is the one to look at first.
    pub other_spaces: usize,
}

/// What state a process is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It lives, or did when it was seen last.
    #[default]
    Alive,
    /// It belongs to the kernel.
    KernelThread,
    /// It has ended, and nobody has waited for it yet.
    Zombie,
    /// It ended while it was traced.
    Ended(TaskEnd),
}

/// A value now (of a trace: at its end), and the highest that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peaked<T> {
    /// The last value.
    pub now: T,
    /// The highest; `None`: not known.
    pub peak: Option<T>,
    /// When it was reached, of a trace.
    pub peak_time: Option<Timestamp>,
}

impl<T> Peaked<T> {
    /// A value of which only the last is known.
    pub fn now(now: T) -> Peaked<T> {
        Peaked {
            now,
            peak: None,
            peak_time: None,
        }
    }
}

impl<T: Copy + Ord> Peaked<T> {
    /// The highest value that is known.
    pub fn most(self) -> T {
        self.peak.map_or(self.now, |peak| peak.max(self.now))
    }
}

/// An address space.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Space {
    /// All mappings.
    pub mapped: Peaked<Bytes>,
    /// How they are split; `None` where maps could not be read.
    pub split: Option<Split>,
    /// VmPTE.
    pub page_tables: Option<Bytes>,
    /// What RLIMIT_DATA counts: private writable mappings but stacks (VmData).
    pub data: Option<Peaked<Bytes>>,
}

/// What the mappings are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// Those without any access right.
    pub reserved: Peaked<Bytes>,
    /// Physical memory behind `reserved`: touched before its rights were taken.
    pub reserved_resident: Option<Bytes>,
    /// The others.
    pub committed: Peaked<Bytes>,
    /// Committed, by backing.
    pub parts: Parts,
    /// Committed with MAP_NORESERVE.
    pub noreserve: Bytes,
    /// Private writable mappings but stacks, from the mappings themselves.
    pub data: Bytes,
    /// Counted against the commit limit, at most.
    pub charged: Peaked<Bytes>,
    /// Whether that was read from smaps, and is exact.
    pub charged_exact: bool,
    /// Mappings: lines of maps, which is what the kernel counts, or of a trace the runs of equal
    /// mappings, which are no more than those.
    pub mappings: Peaked<u64>,
    /// Whether `mappings` are lines of maps.
    pub mappings_exact: bool,
    /// The largest hole in the part of the address space that programs may use.
    pub largest_hole: Option<Bytes>,
    /// The address space ends at 4 GiB.
    pub narrow: bool,
    /// Mappings that may hold guard pages of MADV_GUARD_INSTALL, and their bytes.
    pub guarded: Option<(u64, Bytes)>,
    /// The main thread's stack, which RLIMIT_STACK bounds.
    pub stack: Option<Bytes>,
    /// Memory above a guard page, as glibc makes the stacks of threads: sizes, and how many there
    /// are of each. None where glibc is not.
    pub thread_stacks: BTreeMap<Bytes, u64>,
    /// Whose the bytes are, the largest first.
    pub owners: Vec<Owner>,
}

impl Split {
    /// Stacks of threads that have the size of the limit, as glibc makes them where nothing else is
    /// asked for (pthread_create(3)); `None` if there are none.
    pub fn stacks_by_limit(&self, limit: Bytes) -> Option<u64> {
        let size = limit.0.checked_next_multiple_of(PAGE)?;
        self.thread_stacks.get(&Bytes(size)).copied()
    }
}

/// Physical memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// VmRSS.
    pub resident: Option<Bytes>,
    /// VmHWM, or the highest measurement of a trace.
    pub peak: Option<Bytes>,
    /// When `resident` was measured, of a trace.
    pub measured: Option<Timestamp>,
    /// When `peak` was reached or read, of a trace.
    pub peak_time: Option<Timestamp>,
    /// RssAnon.
    pub anon: Option<Bytes>,
    /// RssFile.
    pub file: Option<Bytes>,
    /// RssShmem.
    pub shmem: Option<Bytes>,
    /// VmSwap.
    pub swap: Option<Bytes>,
    /// LazyFree of smaps: MADV_FREE'd, still resident, and free for the kernel to take.
    pub lazy_free: Option<Bytes>,
    /// AnonHugePages, ShmemPmdMapped and FilePmdMapped of smaps: resident in huge pages.
    pub huge: Option<Bytes>,
    /// HugetlbPages: from a pool of its own, not part of `resident`.
    pub hugetlb: Option<Bytes>,
    /// VmLck.
    pub locked: Option<Bytes>,
}

/// A memory cgroup with those above it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cgroups {
    /// 2, or 1 where the memory controller is not on the unified hierarchy.
    pub version: u8,
    /// The path of the process's own, as `/proc/PID/cgroup` has it.
    pub path: String,
    /// Its own first, then those above it as far as they can be seen.
    pub levels: Vec<Level>,
    /// More may be above the last level: it is not the root of the hierarchy.
    pub hidden: bool,
    /// The same levels when the program was launched.
    pub before: Vec<Level>,
    /// Who is in the level that is the tightest, and below it.
    pub members: Option<Members>,
    /// The figures of a trace, which are those of its begin.
    pub only_at_begin: bool,
}

/// The processes of a cgroup and those below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Index of that cgroup in [`Cgroups::levels`].
    pub level: usize,
    /// The processes, the most resident anonymous memory first; those that cannot be seen are
    /// left out.
    pub list: Vec<Member>,
    /// Processes that could not be looked at.
    pub unseen: u64,
}

/// A process of a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its pid.
    pub pid: Tid,
    /// Its command name.
    pub name: String,
    /// RssAnon and VmSwap.
    pub anon: Bytes,
    /// RssShmem.
    pub shmem: Bytes,
    /// RssFile.
    pub file: Bytes,
}

/// The machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// MemTotal.
    pub memory: Option<Bytes>,
    /// MemAvailable.
    pub available: Option<Bytes>,
    /// SwapTotal.
    pub swap: Option<Bytes>,
    /// SwapFree.
    pub swap_free: Option<Bytes>,
    /// CommitLimit.
    pub commit_limit: Option<Bytes>,
    /// Committed_AS.
    pub committed: Option<Bytes>,
    /// vm.overcommit_memory.
    pub overcommit: Option<u8>,
    /// vm.max_map_count.
    pub max_map_count: Option<u64>,
    /// `oom_kill` of /proc/vmstat: kills on the whole machine since it started.
    pub oom_kills: Option<u64>,
}

/// A file that could not be read, and what is not known therefore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is not known.
    pub what: &'static str,
    /// Why, in words.
    pub why: String,
    /// What to do about it.
    pub remedy: Option<&'static str>,
}
