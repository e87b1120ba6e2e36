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

use crate::timeline::TaskEnd;
use crate::units::{Bytes, Tid};

use super::cgroup::{Filling, FillingKind, Level};
use super::facts::{Cgroups, Facts, Source, State};
use super::limits::{Limited, Room, Row, rows, thresholds};
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

/// How strong an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    /// Possible, and none of the causes that have a word.
    Weak,
    /// Met, but survivable.
    Met,
    /// Near.
    Near,
    /// It refused a call.
    Refused,
    /// It refused a call, and the program failed.
    Failed,
    /// The kernel killed it.
    Killed,
}

struct Found {
    cause: Cause,
    strength: Strength,
    /// How full, in thousandths: decides among equals.
    full: u64,
    reasons: Vec<Reason>,
}

/// What follows from `facts`.
pub fn verdict(facts: &Facts) -> Verdict {
    let rows = rows(facts);
    let mut found = Vec::new();
    found.extend(refusals(facts));
    found.extend(
        rows.iter()
            .filter(|row| row.is_near())
            .map(|row| near(facts, row)),
    );
    found.extend(own_share_of_a_trace(facts));
    found.extend(cache(facts));
    found.extend(kills(facts, &rows));
    found.sort_by_key(|found| std::cmp::Reverse((found.strength, found.full)));
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
    if matches!(facts.subject.state, State::KernelThread | State::Zombie) {
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

fn refusals(facts: &Facts) -> Vec<Found> {
    let failed = match facts.subject.state {
        State::Ended(TaskEnd::Exited(status)) => status != 0,
        State::Ended(TaskEnd::Killed { .. }) => true,
        _ => false,
    };
    let strength = match failed {
        true => Strength::Failed,
        false => Strength::Refused,
    };
    let found = facts.refusals.iter().filter_map(|refusal| {
        let cause = match refusal.refuser {
            Refuser::AddressSpace { .. } => Cause::VszLimit,
            // A piece larger than any hole of a space of 47 bits is a mistake or a probe.
            Refuser::Addresses { hole } if hole < thresholds::HOLE => Cause::VszLimit,
            Refuser::Data { .. } => Cause::RlimitData,
            Refuser::Mappings { .. } => Cause::MapCount,
            Refuser::Commit { .. } | Refuser::Guess { .. } => Cause::CommitLimit,
            Refuser::Addresses { .. } | Refuser::Unknown => return None,
        };
        Some(Found {
            cause,
            strength,
            full: 1000,
            reasons: vec![Reason::Refused(refusal.clone())],
        })
    });
    let mut found: Vec<Found> = found.collect();
    let unexplained = facts
        .refusals
        .iter()
        .find(|refusal| refusal.refuser == Refuser::Unknown);
    if let (true, Some(refusal)) = (failed, unexplained) {
        found.push(Found {
            cause: Cause::Unknown,
            strength: Strength::Weak,
            full: 0,
            reasons: vec![Reason::Refused(refusal.clone())],
        });
    }
    found
}

fn near(facts: &Facts, row: &Row) -> Found {
    let mut reasons = vec![Reason::Near(row.clone())];
    let mut strength = Strength::Near;
    let cause = match row.limited {
        Limited::CgroupMax | Limited::CgroupHigh => {
            let (cause, because) = filled(facts, row.level.unwrap_or_default());
            reasons.extend(because);
            cause
        }
        Limited::AddressSpace | Limited::Addresses => Cause::VszLimit,
        Limited::Data => Cause::RlimitData,
        Limited::Commit => Cause::CommitLimit,
        Limited::Mappings => Cause::MapCount,
        Limited::Machine => {
            reasons = vec![Reason::MachineFull(row.clone())];
            strength = Strength::Weak;
            Cause::Unknown
        }
    };
    Found {
        cause,
        strength,
        full: row.thousandths().unwrap_or(1000),
        reasons,
    }
}

/// What fills a cgroup, and whose it is.
fn filled(facts: &Facts, index: usize) -> (Cause, Vec<Reason>) {
    let Some(cgroups) = &facts.cgroup else {
        return (Cause::Unknown, Vec::new());
    };
    let Some((level, filling)) = cgroups
        .levels
        .get(index)
        .and_then(|level| Some((level, level.filled_by()?)))
    else {
        return (Cause::Unknown, vec![Reason::NotKnown("memory.stat")]);
    };
    let path = level.path.clone();
    let fills = |own| Reason::Fills {
        path: path.clone(),
        filling,
        own,
    };
    match filling.kind {
        FillingKind::Anon => whose(facts, cgroups, index, filling, fills),
        FillingKind::Shmem => (Cause::CgroupShmem, vec![fills(None)]),
        FillingKind::Kernel => (Cause::CgroupKernel, vec![fills(None)]),
        FillingKind::Cache => (Cause::CgroupCache, vec![fills(None)]),
    }
}

/// Whether the anonymous memory of a cgroup is this process's.
fn whose(
    facts: &Facts,
    cgroups: &Cgroups,
    index: usize,
    filling: Filling,
    fills: impl Fn(Option<Bytes>) -> Reason,
) -> (Cause, Vec<Reason>) {
    let lazy = facts.memory.lazy_free.unwrap_or_default();
    let Some(anon) = facts.memory.anon else {
        return (Cause::Unknown, vec![fills(None)]);
    };
    let own = Bytes(anon.0.saturating_sub(lazy.0));
    let most = |part: Bytes| filling.bytes.0 <= part.0.saturating_mul(2);
    if most(own) {
        return (Cause::CgroupAnon, vec![fills(Some(own))]);
    }
    // Children of a program are no other processes.
    if let (Source::Program, Some(together)) = (facts.subject.source, facts.tree_resident)
        && most(together)
    {
        let because = vec![fills(Some(own)), Reason::Together(together)];
        return (Cause::CgroupAnon, because);
    }
    let members = cgroups.members.as_ref();
    let members = members.filter(|members| members.level == index);
    let others = members.map(|members| {
        let others = members.list.iter();
        let others = others.filter(|member| member.pid != facts.subject.pid);
        others.collect::<Vec<_>>()
    });
    let Some(others) = others else {
        return (Cause::CgroupOtherProcess, vec![fills(Some(own))]);
    };
    let sum: Bytes = others.iter().map(|member| member.anon).sum();
    let seen = sum + own;
    match others.first() {
        Some(largest) if most(seen) && own < largest.anon => (
            Cause::CgroupOtherProcess,
            vec![
                fills(Some(own)),
                Reason::Neighbour {
                    pid: largest.pid,
                    name: largest.name.clone(),
                    anon: largest.anon,
                    own,
                },
            ],
        ),
        Some(_) if most(seen) => (Cause::CgroupAnon, vec![fills(Some(own))]),
        _ => (
            Cause::Unknown,
            vec![
                fills(Some(own)),
                Reason::Unattributed {
                    anon: filling.bytes,
                    seen,
                },
            ],
        ),
    }
}

/// A trace holds the limit of the cgroup, and what the process itself had: that alone may decide.
fn own_share_of_a_trace(facts: &Facts) -> Option<Found> {
    let cgroups = facts
        .cgroup
        .as_ref()
        .filter(|cgroups| cgroups.only_at_begin)?;
    let level = cgroups.levels.first()?;
    let limit = super::process::bytes_of(level.max)?;
    let (anon, shmem) = (facts.memory.anon?, facts.memory.shmem.unwrap_or_default());
    let own = anon + shmem;
    let (part, whole) = thresholds::CGROUP_FIXED;
    if u128::from(own.0) * u128::from(whole) < u128::from(limit.0) * u128::from(part) {
        return None;
    }
    let (kind, bytes, cause) = match anon < shmem {
        true => (FillingKind::Shmem, shmem, Cause::CgroupShmem),
        false => (FillingKind::Anon, anon, Cause::CgroupAnon),
    };
    let row = Row {
        limited: Limited::CgroupMax,
        level: Some(0),
        unit: super::limits::Unit::Bytes,
        value: Some(limit.0),
        counted: Some(own.0),
        decisive: Some(own.0),
        slack: 0,
        room: Room::Near,
    };
    Some(Found {
        cause,
        strength: Strength::Near,
        full: row.thousandths().unwrap_or(1000),
        reasons: vec![
            Reason::Near(row),
            Reason::Fills {
                path: level.path.clone(),
                filling: Filling { kind, bytes },
                own: Some(bytes),
            },
        ],
    })
}

/// A cgroup at its limit that holds mostly page cache: the kernel takes that back, so it kills
/// nobody by itself; but each byte must wait for it.
fn cache(facts: &Facts) -> Option<Found> {
    let cgroups = facts
        .cgroup
        .as_ref()
        .filter(|cgroups| !cgroups.only_at_begin)?;
    cgroups
        .levels
        .iter()
        .enumerate()
        .find_map(|(index, level)| {
            let limit = super::process::bytes_of(level.max)?;
            let (counted, cache) = (level.counted?, level.cache?);
            let met = level.met?;
            let before = cgroups.before.get(index).and_then(|level| level.met);
            let met = met.saturating_sub(before.unwrap_or_default());
            let (part, whole) = thresholds::CGROUP_CACHE;
            let full =
                u128::from(part) * u128::from(limit.0) <= u128::from(whole) * u128::from(counted.0);
            let mostly = counted.0 <= cache.0.saturating_mul(2);
            (full && mostly && 0 < met).then(|| Found {
                cause: Cause::CgroupCache,
                strength: Strength::Met,
                full: 0,
                reasons: vec![Reason::CacheFull {
                    path: level.path.clone(),
                    limit,
                    counted,
                    cache,
                    fixed: level.fixed().unwrap_or_default(),
                    met,
                }],
            })
        })
}

/// Kills that the kernel has counted.
fn kills(facts: &Facts, rows: &[Row]) -> Vec<Found> {
    const SIGKILL: i32 = 9;
    let mut found = Vec::new();
    let killed = matches!(
        facts.subject.state,
        State::Ended(TaskEnd::Killed {
            signal: SIGKILL,
            ..
        })
    );
    let launched = facts.subject.source == Source::Program;
    let machine = facts
        .oom_kills_before
        .and_then(|before| facts.machine.oom_kills?.checked_sub(before));
    if killed && launched && machine.is_none_or(|kills| 0 < kills) {
        let fullest = rows
            .iter()
            .filter(|row| row.limited == Limited::CgroupMax)
            .max_by_key(|row| row.thousandths());
        // The one that is full may be the one that was met; the machine's is met by none of them.
        let (cause, mut reasons) = match fullest.filter(|_| machine.is_some()) {
            Some(row) if row.is_near() || met_meanwhile(facts, row) => {
                filled(facts, row.level.unwrap_or_default())
            }
            _ => (Cause::Unknown, Vec::new()),
        };
        reasons.insert(0, Reason::Killed { kills: machine });
        found.push(Found {
            cause,
            strength: Strength::Killed,
            full: 1000,
            reasons,
        });
    } else if killed {
        found.push(Found {
            cause: match machine {
                Some(_) => Cause::None,
                None => Cause::Unknown,
            },
            strength: Strength::Weak,
            full: 0,
            reasons: vec![Reason::Killed { kills: machine }],
        });
    }
    for (index, level) in facts
        .cgroup
        .iter()
        .flat_map(|all| all.levels.iter().enumerate())
    {
        let before = facts.cgroup.as_ref().and_then(|all| all.before.get(index));
        let before = before.and_then(|level| level.oom_kills);
        let kills = level
            .oom_kills
            .map_or(0, |kills| kills.saturating_sub(before.unwrap_or_default()));
        if kills == 0 {
            continue;
        }
        let own = index == 0;
        let limited = super::process::bytes_of(level.max).is_some();
        if own || limited {
            found.push(Found {
                // Of those above, somebody else may have been killed in another branch.
                cause: if own { Cause::Unknown } else { Cause::None },
                strength: Strength::Weak,
                full: u64::from(own),
                reasons: vec![Reason::Kills {
                    path: level.path.clone(),
                    kills,
                    meanwhile: before.is_some(),
                }],
            });
        }
    }
    found
}

/// Whether the limit of that row was met since the program was launched.
fn met_meanwhile(facts: &Facts, row: &Row) -> bool {
    let met = facts.cgroup.as_ref().and_then(|cgroups| {
        let index = row.level?;
        let before = cgroups.before.get(index)?.met?;
        Some(before < cgroups.levels.get(index)?.met?)
    });
    met == Some(true)
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
        .filter(|row| row.room == Room::Far && row.limited != Limited::Addresses);
    far.max_by_key(|row| row.thousandths()).cloned()
}

fn hidden(facts: &Facts) -> Option<Reason> {
    let cgroups = facts.cgroup.as_ref()?;
    let bytes = |level: &Level| super::process::bytes_of(level.max);
    let lowest = cgroups.levels.iter().filter_map(bytes).min();
    let told = cgroups
        .levels
        .iter()
        .filter_map(|level| super::process::bytes_of(level.lowest_max))
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
        limit: super::process::bytes_of(limit.map(|limit| limit.soft)),
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
