//! The verdict: which limit, if any, can be the reason for a restart, and whether the size of the
//! address space matters.
//!
//! | evidence, the strongest first                                            | cause                      |
//! |--------------------------------------------------------------------------|----------------------------|
//! | killed by SIGKILL, and the kernel counted an out-of-memory kill meanwhile | what filled the cgroup most |
//! | a limit refused a call (proven by its figures), and the program failed    | that limit                 |
//! | a limit refused a call                                                   | that limit                 |
//! | a limit is near ([`super::thresholds`])                                  | that limit; of a cgroup what fills it |
//! | a cgroup met its limit, is full, and holds mostly page cache              | `cgroup_cache`             |
//! | a kill is on record in its own cgroup, and nothing is near now            | `unknown`                  |
//! | nothing, but what decides could not be read                              | `unknown`                  |
//! | nothing                                                                  | `none`                     |
//!
//! The size of an address space is limited by RLIMIT_AS and by the addresses that there are, and by
//! the commit limit in overcommit mode 2. It matters when one of these is near or has refused
//! something, and never else.

use crate::units::{Bytes, Tid};

use super::cgroup::{Filling, Level};
use super::evidence::evidence;
use super::facts::{Facts, Source, State};
use super::limits::{Limited, Room, Row, rows, thresholds};
use super::process::bytes_of;
use super::refusals::{Refusal, Refuser};

/// The reason for a restart, in the words of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No limit that can be seen.
    None,
    /// RLIMIT_AS, or no addresses are left.
    VszLimit,
    /// A cgroup full of this process's anonymous memory.
    CgroupAnon,
    /// A cgroup full of page cache.
    CgroupCache,
    /// A cgroup full of shared memory.
    CgroupShmem,
    /// A cgroup full of kernel memory.
    CgroupKernel,
    /// A cgroup full of other processes' memory.
    CgroupOtherProcess,
    /// The commit limit.
    CommitLimit,
    /// vm.max_map_count.
    MapCount,
    /// RLIMIT_DATA.
    RlimitData,
    /// RLIMIT_STACK.
    RlimitStack,
    /// It cannot be told.
    Unknown,
}

impl Cause {
    /// The word of the contract.
    pub fn word(self) -> &'static str {
        match self {
            Cause::None => "none",
            Cause::VszLimit => "vsz_limit",
            Cause::CgroupAnon => "cgroup_anon",
            Cause::CgroupCache => "cgroup_cache",
            Cause::CgroupShmem => "cgroup_shmem",
            Cause::CgroupKernel => "cgroup_kernel",
            Cause::CgroupOtherProcess => "cgroup_other_process",
            Cause::CommitLimit => "commit_limit",
            Cause::MapCount => "map_count",
            Cause::RlimitData => "rlimit_data",
            Cause::RlimitStack => "rlimit_stack",
            Cause::Unknown => "unknown",
        }
    }
}

/// One argument for a verdict, with its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A limit refused calls.
    Refused(Refusal),
    /// A limit is near.
    Near(Row),
    /// What fills a cgroup that is near its limit.
    Fills {
        /// Its path.
        path: String,
        /// What.
        filling: Filling,
        /// How much of that is this process's; `None` where it belongs to none.
        own: Option<Bytes>,
    },
    /// All processes of the program together had so much physical memory at their peak.
    Together(Bytes),
    /// Another process has most of it.
    Neighbour {
        /// The largest other process.
        pid: Tid,
        /// Its command name.
        name: String,
        /// Its anonymous memory.
        anon: Bytes,
        /// This process's.
        own: Bytes,
    },
    /// What is filled with anonymous memory belongs to no process that can be seen.
    Unattributed {
        /// Anonymous memory of the cgroup.
        anon: Bytes,
        /// Of it, of all the processes that are seen.
        seen: Bytes,
    },
    /// A cgroup met its limit and is full, mostly of page cache.
    CacheFull {
        /// Its path.
        path: String,
        /// Its limit.
        limit: Bytes,
        /// What it counts.
        counted: Bytes,
        /// Page cache.
        cache: Bytes,
        /// What cannot be taken back.
        fixed: Bytes,
        /// How often the limit was met.
        met: u64,
    },
    /// The kernel killed processes of a cgroup.
    Kills {
        /// Its path; empty for the whole machine.
        path: String,
        /// How many.
        kills: u64,
        /// Since the program was launched, not since the cgroup was made.
        meanwhile: bool,
    },
    /// The program was killed by SIGKILL.
    Killed {
        /// Out-of-memory kills on the machine meanwhile; `None`: not known.
        kills: Option<u64>,
    },
    /// The machine has little memory left.
    MachineFull(Row),
    /// Nothing is near; the nearest.
    NothingNear(Option<Row>),
    /// A limit could not be held against what it counts.
    NotChecked(Row),
    /// What decides could not be read.
    NotKnown(&'static str),
    /// It has no address space.
    NoSpace(State),
    /// Why the size of the address space matters, or why not.
    Size {
        /// Whether it does.
        matters: bool,
        /// RLIMIT_AS; `None`: unlimited or not known.
        limit: Option<Bytes>,
        /// Whether RLIMIT_AS is known.
        limit_known: bool,
        /// vm.overcommit_memory.
        overcommit: Option<u8>,
        /// Where anonymous memory of a large space is committed and not resident, how much.
        untouched: Option<Bytes>,
    },
    /// Levels above the last one that is seen may have limits, too.
    Hidden {
        /// The last one.
        path: String,
    },
    /// The limit that is the lowest holds in a cgroup that cannot be seen.
    HiddenLimit(Bytes),
}

/// What to look at next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Who allocates anonymous memory.
    Allocations,
    /// The other process.
    Neighbour(Tid),
    /// Who writes files, and how fast.
    Files,
    /// Files of tmpfs and shared segments.
    SharedMemory,
    /// Sockets, page tables, slab.
    Kernel,
    /// Who reserves address space.
    Reservations,
    /// Who makes so many mappings.
    Mappings,
    /// What needs so much stack.
    Stack,
    /// Who has committed what, on the machine.
    Commit,
    /// The kernel's log of the kill.
    KernelLog,
    /// Exit status and log of the program, probes.
    OutsideMemory,
    /// Rights to see more.
    Rights,
    /// The living process.
    LiveLook,
}

/// What can be concluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The reason for a restart.
    pub cause: Cause,
    /// Whether the size of the address space matters.
    pub vsz_matters: bool,
    /// What this follows from, the strongest first.
    pub reasons: Vec<Reason>,
    /// What to look at next.
    pub next: Vec<Next>,
}

/// What follows from `facts`.
pub fn verdict(facts: &Facts) -> Verdict {
    let rows = rows(facts);
    let found = evidence(facts, &rows);
    let decided = found.iter().find(|found| found.cause != Cause::None);
    let cause = decided.map(|found| found.cause);
    let vsz_matters = matters(facts, &rows);
    let mut reasons: Vec<Reason> = Vec::new();
    for reason in found.into_iter().flat_map(|found| found.reasons) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    let undecided = undecided(facts, &rows);
    let cause = cause.unwrap_or(match undecided.is_empty() {
        true => Cause::None,
        false => Cause::Unknown,
    });
    if matches!(cause, Cause::None | Cause::Unknown) {
        reasons.extend(undecided);
        if cause == Cause::None && facts.space.is_some() {
            reasons.push(Reason::NothingNear(nearest(&rows)));
        }
    }
    let told = reasons.contains(&Reason::NoSpace(facts.subject.state));
    if !told && matches!(facts.subject.state, State::KernelThread | State::Zombie) {
        reasons.push(Reason::NoSpace(facts.subject.state));
    }
    reasons.extend(hidden(facts));
    let unchecked = rows
        .iter()
        .filter(|row| row.room == Room::Unknown && row.level.is_none());
    reasons.extend(unchecked.cloned().map(Reason::NotChecked));
    reasons.extend(size(facts, vsz_matters));
    let next = next(facts, cause, &reasons);
    Verdict {
        cause,
        vsz_matters,
        reasons,
        next,
    }
}

fn matters(facts: &Facts, rows: &[Row]) -> bool {
    let near = rows.iter().any(|row| {
        let size = matches!(
            row.limited,
            Limited::AddressSpace | Limited::Addresses | Limited::Commit
        );
        size && row.is_near()
    });
    let refused = facts.refusals.iter().any(|refusal| match refusal.refuser {
        Refuser::AddressSpace { .. } | Refuser::Commit { .. } => true,
        Refuser::Addresses { hole } => hole < thresholds::HOLE,
        _ => false,
    });
    near || refused
}

/// Why the absence of evidence proves nothing, if it does not.
fn undecided(facts: &Facts, rows: &[Row]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if facts.space.is_none() && facts.subject.state == State::Alive {
        reasons.push(Reason::NotKnown("the address space"));
    }
    if facts.subject.state == State::Zombie {
        reasons.push(Reason::NoSpace(State::Zombie));
    }
    match &facts.cgroup {
        None if facts.subject.source != Source::Trace => {
            reasons.push(Reason::NotKnown("the memory cgroup"));
        }
        Some(cgroups) if cgroups.levels.is_empty() => {
            reasons.push(Reason::NotKnown("the memory cgroup"));
        }
        _ => {}
    }
    let unknown = |row: &&Row| row.room == Room::Unknown && row.level.is_some();
    if facts.subject.source != Source::Trace
        && let Some(row) = rows.iter().find(unknown)
    {
        reasons.push(Reason::NotChecked(row.clone()));
    }
    reasons
}

fn nearest(rows: &[Row]) -> Option<Row> {
    let far = rows
        .iter()
        .filter(|row| row.room == Room::Far && row.limited != Limited::Addresses && row.is_told());
    far.max_by_key(|row| row.thousandths()).cloned()
}

fn hidden(facts: &Facts) -> Option<Reason> {
    let cgroups = facts.cgroup.as_ref()?;
    let bytes = |level: &Level| bytes_of(level.max);
    let lowest = cgroups.levels.iter().filter_map(bytes).min();
    let told = cgroups
        .levels
        .iter()
        .filter_map(|level| bytes_of(level.lowest_max))
        .min();
    if let Some(told) = told
        && lowest.is_none_or(|lowest| told < lowest)
    {
        return Some(Reason::HiddenLimit(told));
    }
    let last = cgroups.levels.last()?;
    cgroups.hidden.then(|| Reason::Hidden {
        path: last.path.clone(),
    })
}

fn size(facts: &Facts, matters: bool) -> Option<Reason> {
    let space = facts.space.as_ref()?;
    let limit = facts.limits.address_space;
    let untouched = space.split.as_ref().and_then(|split| {
        let elsewhere = [facts.memory.swap, facts.memory.hugetlb]
            .into_iter()
            .flatten();
        let touched = facts.memory.resident? + elsewhere.sum();
        let untouched = split.committed.now.0.saturating_sub(touched.0);
        (touched.0 < untouched).then_some(Bytes(untouched))
    });
    Some(Reason::Size {
        matters,
        limit: bytes_of(limit.map(|limit| limit.soft)),
        limit_known: limit.is_some(),
        overcommit: facts.machine.overcommit,
        untouched,
    })
}

fn next(facts: &Facts, cause: Cause, reasons: &[Reason]) -> Vec<Next> {
    let mut next = Vec::new();
    let neighbour = reasons.iter().find_map(|reason| match reason {
        Reason::Neighbour { pid, .. } => Some(*pid),
        _ => None,
    });
    match cause {
        Cause::CgroupAnon => next.push(Next::Allocations),
        Cause::CgroupOtherProcess => next.extend(neighbour.map(Next::Neighbour)),
        Cause::CgroupCache => next.push(Next::Files),
        Cause::CgroupShmem => next.push(Next::SharedMemory),
        Cause::CgroupKernel => next.push(Next::Kernel),
        Cause::VszLimit => next.push(Next::Reservations),
        Cause::MapCount => next.push(Next::Mappings),
        Cause::CommitLimit => next.push(Next::Commit),
        Cause::RlimitData => next.push(Next::Allocations),
        Cause::RlimitStack => next.push(Next::Stack),
        Cause::None => next.push(Next::OutsideMemory),
        Cause::Unknown => {}
    }
    let kills = |reason: &Reason| matches!(reason, Reason::Kills { .. } | Reason::Killed { .. });
    if reasons.iter().any(kills) {
        next.push(Next::KernelLog);
    }
    if facts.missing.iter().any(|missing| missing.remedy.is_some()) {
        next.push(match facts.subject.source {
            Source::Trace => Next::LiveLook,
            _ => Next::Rights,
        });
    }
    next
}
