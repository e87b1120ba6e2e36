//! The evidence for each cause: refusals, limits that are near, full cgroups, kills. The table is in
//! [`super::verdict()`]'s module.

use crate::timeline::TaskEnd;
use crate::units::Bytes;

use super::cgroup::{Filling, FillingKind};
use super::facts::{Cgroups, Facts, Source, State};
use super::limits::{Limited, Room, Row, Unit, thresholds};
use super::process::bytes_of;
use super::refusals::Refuser;
use super::verdict::{Cause, Reason};

/// How strong an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strength {
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

/// A cause with its evidence.
pub(super) struct Found {
    pub(super) cause: Cause,
    pub(super) strength: Strength,
    /// How full, in thousandths: decides among equals.
    pub(super) full: u64,
    pub(super) reasons: Vec<Reason>,
}

/// All evidence, the strongest first.
pub(super) fn evidence(facts: &Facts, rows: &[Row]) -> Vec<Found> {
    let mut found = refusals(facts);
    let near_rows = rows.iter().filter(|row| row.is_near());
    found.extend(near_rows.map(|row| near(facts, row)));
    found.extend(own_share_of_a_trace(facts));
    found.extend(cache(facts));
    found.extend(kills(facts, rows));
    found.sort_by_key(|found| std::cmp::Reverse((found.strength, found.full)));
    found
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
        Limited::Stack => Cause::RlimitStack,
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
        // What a killed process had was taken from it before its end could be looked at.
        return match was_killed(facts) {
            true => (Cause::Unknown, vec![fills(None)]),
            false => (Cause::CgroupOtherProcess, vec![fills(Some(own))]),
        };
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
    let limit = bytes_of(level.max)?;
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
        unit: Unit::Bytes,
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
            let limit = bytes_of(level.max)?;
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

/// Whether SIGKILL ended it.
fn was_killed(facts: &Facts) -> bool {
    const SIGKILL: i32 = 9;
    matches!(
        facts.subject.state,
        State::Ended(TaskEnd::Killed {
            signal: SIGKILL,
            ..
        })
    )
}

/// Kills that the kernel has counted.
fn kills(facts: &Facts, rows: &[Row]) -> Vec<Found> {
    let mut found = Vec::new();
    let killed = was_killed(facts);
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
            Some(row) if row.is_near() || seen_filling(facts, row) => {
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
        let limited = bytes_of(level.max).is_some();
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

/// Whether the limit of that row was met meanwhile and what filled the cgroup was seen: figures of a
/// moment before it filled, or after the kill, tell nothing of that.
fn seen_filling(facts: &Facts, row: &Row) -> bool {
    let (part, whole) = thresholds::SEEN_FILLING;
    let full = row.thousandths().unwrap_or_default();
    met_meanwhile(facts, row) && part * 1000 <= full * whole
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
