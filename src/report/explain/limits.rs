//! Every limit that holds for a process, what it counts, and how near it is.

use crate::timeline::Bound;
use crate::units::Bytes;

use super::cgroup::Level;
use super::facts::{Facts, Machine, Source};
use super::process::bytes_of;

/// What counts as near, and why there.
///
/// | limit                | near                                  | reason                                                        |
/// |----------------------|---------------------------------------|---------------------------------------------------------------|
/// | memory.max           | 9/10 of limit and swap cannot be taken back | what is left is less than a burst of work allocates; no page cache counts |
/// | memory.high          | all of it cannot be taken back        | up to there the kernel only takes back; above it, it slows the process down |
/// | a cgroup's cache     | 95/100 of the limit counted, the limit was met, half or more is cache | page cache grows to the limit by itself, so a full cgroup alone says nothing |
/// | RLIMIT_AS            | 9/10                                  | runtimes ask for 64 MiB and more at once                      |
/// | RLIMIT_DATA          | 9/10                                  | the same                                                      |
/// | RLIMIT_STACK         | 9/10                                  | a deep recursion takes the rest at once                       |
/// | CommitLimit, mode 2  | 19/20                                 | it is the whole machine's: a twentieth is still much          |
/// | max_map_count        | 9/10                                  | a thread takes two, an arena a few                            |
/// | address space        | no hole of 1 GiB (64 MiB of 32 bits)  | no runtime needs a larger piece at once as a rule             |
/// | the machine's memory | less than 1/20 of memory and swap available | then the machine's out-of-memory killer is near          |
///
/// A share is a fraction: so many of so many.
pub mod thresholds {
    use crate::units::Bytes;

    /// Of memory.max and the swap that is free: what cannot be taken back.
    pub const CGROUP_FIXED: (u64, u64) = (9, 10);
    /// Of memory.max: a look at a cgroup that was less full tells nothing of what filled it later.
    pub const SEEN_FILLING: (u64, u64) = (1, 2);
    /// Of memory.high: what cannot be taken back.
    pub const CGROUP_HIGH: (u64, u64) = (1, 1);
    /// Of memory.max: all that is counted, where it is mostly cache.
    pub const CGROUP_CACHE: (u64, u64) = (19, 20);
    /// Of RLIMIT_AS.
    pub const ADDRESS_SPACE: (u64, u64) = (9, 10);
    /// Of RLIMIT_DATA.
    pub const DATA: (u64, u64) = (9, 10);
    /// Of RLIMIT_STACK.
    pub const STACK: (u64, u64) = (9, 10);
    /// Of RLIMIT_STACK: a stack is as large as it was ever needed, so that less than this much of the
    /// limit is nothing to speak of.
    pub const STACK_TOLD: (u64, u64) = (1, 2);
    /// Of CommitLimit, where it is enforced.
    pub const COMMIT: (u64, u64) = (19, 20);
    /// Of vm.max_map_count.
    pub const MAPPINGS: (u64, u64) = (9, 10);
    /// The largest hole of an address space of 47 bits is smaller.
    pub const HOLE: Bytes = Bytes(1 << 30);
    /// The largest hole of an address space of 32 bits is smaller.
    pub const NARROW_HOLE: Bytes = Bytes(64 << 20);
    /// Of the machine's memory and swap: what is taken.
    pub const MACHINE: (u64, u64) = (19, 20);
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// memory.max, or memory.limit_in_bytes.
    CgroupMax,
    /// memory.high.
    CgroupHigh,
    /// RLIMIT_AS.
    AddressSpace,
    /// RLIMIT_DATA.
    Data,
    /// RLIMIT_STACK.
    Stack,
    /// CommitLimit.
    Commit,
    /// vm.max_map_count.
    Mappings,
    /// The addresses that there are.
    Addresses,
    /// The machine's memory and swap.
    Machine,
}

/// What a limit counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
}

/// How near a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is none: `unlimited`, `max`.
    NoLimit,
    /// It is not enforced here, whatever its value.
    NotEnforced,
    /// Far.
    Far,
    /// Near, by the table of [`thresholds`].
    Near,
    /// What it counts is not known.
    Unknown,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is limited.
    pub limited: Limited,
    /// The cgroup, as an index of [`super::Cgroups::levels`].
    pub level: Option<usize>,
    /// What it counts in.
    pub unit: Unit,
    /// The limit; `None`: there is none.
    pub value: Option<u64>,
    /// What is counted now.
    pub counted: Option<u64>,
    /// What of it decides: of a cgroup, that which cannot be taken back; else all.
    pub decisive: Option<u64>,
    /// Beside the limit, what may be used before it bites: swap that is free.
    pub slack: u64,
    /// How near it is.
    pub room: Room,
}

impl Row {
    fn new(limited: Limited, unit: Unit, value: Option<u64>, counted: Option<u64>) -> Row {
        let room = match (value, counted) {
            (None, _) => Room::NoLimit,
            (_, None) => Room::Unknown,
            _ => Room::Far,
        };
        Row {
            limited,
            level: None,
            unit,
            value,
            counted,
            decisive: counted,
            slack: 0,
            room,
        }
    }

    /// Near, if at least `share` of the limit is decisive.
    fn near_from(mut self, share: (u64, u64)) -> Row {
        if self.room == Room::Far && self.reaches(share) {
            self.room = Room::Near;
        }
        self
    }

    /// Whether what decides is at least this share of the limit and its slack.
    fn reaches(&self, (part, whole): (u64, u64)) -> bool {
        let (Some(value), Some(decisive)) = (self.value, self.decisive) else {
            return false;
        };
        let most = u128::from(value) + u128::from(self.slack);
        u128::from(part) * most <= u128::from(whole) * u128::from(decisive)
    }

    /// How much of the limit and its slack is used, in thousandths; `None` without a limit.
    pub fn thousandths(&self) -> Option<u64> {
        let most = u128::from(self.value?) + u128::from(self.slack);
        let used = u128::from(self.decisive?) * 1000;
        used.checked_div(most)
            .map(|used| used.min(u128::from(u64::MAX)) as u64)
    }

    /// Whether it is worth a word where others are told.
    pub fn is_told(&self) -> bool {
        self.limited != Limited::Stack || self.reaches(thresholds::STACK_TOLD)
    }

    /// Whether it is near.
    pub fn is_near(&self) -> bool {
        self.room == Room::Near
    }
}

/// All limits: of the cgroups from the inside out, then of the process, then of the machine.
pub fn rows(facts: &Facts) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(cgroups) = &facts.cgroup {
        for (index, level) in cgroups.levels.iter().enumerate() {
            rows.extend(cgroup_rows(facts, level, index));
        }
    }
    rows.extend(process_rows(facts));
    rows.extend(machine_rows(&facts.machine));
    rows
}

fn cgroup_rows(facts: &Facts, level: &Level, index: usize) -> impl Iterator<Item = Row> {
    let row = |limited, bound: Option<Bound>, slack| {
        bound.map(|bound| {
            let value = bound.bytes().map(|bytes| bytes.0);
            let counted = level.counted.map(|bytes| bytes.0);
            let fixed = level.fixed().map(|bytes| bytes.0);
            let mut row = Row::new(limited, Unit::Bytes, value, counted);
            row.level = Some(index);
            row.decisive = fixed;
            row.slack = slack;
            // The figures of a trace are those of its begin: they say nothing about its end.
            let old = facts.subject.source == Source::Trace;
            if value.is_some() && (fixed.is_none() || old) {
                row.room = Room::Unknown;
            }
            row
        })
    };
    let slack = swap_room(facts).0;
    let max = row(Limited::CgroupMax, level.max, slack)
        .map(|row| row.near_from(thresholds::CGROUP_FIXED));
    let high =
        row(Limited::CgroupHigh, level.high, 0).map(|row| row.near_from(thresholds::CGROUP_HIGH));
    max.into_iter().chain(high)
}

/// Swap that the process may still fill.
pub(super) fn swap_room(facts: &Facts) -> Bytes {
    let machine = facts.machine.swap_free.unwrap_or_default();
    let levels = facts.cgroup.iter().flat_map(|cgroups| &cgroups.levels);
    let rooms = levels.map(|level| {
        let swap = bytes_of(level.swap_max)
            .map(|max| max.0.saturating_sub(level.swap.unwrap_or_default().0));
        // Memory and swap together: what the second limit is above the first is for swap alone.
        let memsw = bytes_of(level.memsw_max).map(|both| {
            let memory = bytes_of(level.max).map_or(u64::MAX, |max| max.0);
            let room = both.0.saturating_sub(memory);
            room.saturating_sub(level.swap.unwrap_or_default().0)
        });
        swap.unwrap_or(u64::MAX).min(memsw.unwrap_or(u64::MAX))
    });
    rooms.fold(machine, |room, level| Bytes(room.0.min(level)))
}

fn process_rows(facts: &Facts) -> Vec<Row> {
    let mut rows = Vec::new();
    let space = facts.space.as_ref();
    let split = space.and_then(|space| space.split.as_ref());
    let whole = facts.subject.source != Source::Process;
    // Of a trace the highest counts, of a process what is now.
    let seen = |peaked: super::Peaked<Bytes>| match whole {
        true => peaked.most().0,
        false => peaked.now.0,
    };
    let soft = |limit: Option<crate::timeline::Limit>| {
        limit.map(|limit| limit.soft.bytes().map(|bytes| bytes.0))
    };
    if let Some(value) = soft(facts.limits.address_space) {
        let mapped = space.map(|space| seen(space.mapped));
        let row = Row::new(Limited::AddressSpace, Unit::Bytes, value, mapped);
        rows.push(row.near_from(thresholds::ADDRESS_SPACE));
    }
    if let Some(value) = soft(facts.limits.data) {
        let data = space.and_then(|space| space.data).map(seen);
        let row = Row::new(Limited::Data, Unit::Bytes, value, data);
        rows.push(row.near_from(thresholds::DATA));
    }
    if let Some(value) = soft(facts.limits.stack)
        && let Some(stack) = split.and_then(|split| split.stack)
    {
        let row = Row::new(Limited::Stack, Unit::Bytes, value, Some(stack.0));
        rows.push(row.near_from(thresholds::STACK));
    }
    if let (Some(max), Some(_)) = (facts.machine.max_map_count, space) {
        let count = split.map(|split| match whole {
            true => split.mappings.most(),
            false => split.mappings.now,
        });
        let row = Row::new(Limited::Mappings, Unit::Count, Some(max), count);
        rows.push(row.near_from(thresholds::MAPPINGS));
    }
    if let (Some(space), Some(split)) = (space, split)
        && let Some(hole) = split.largest_hole
    {
        let (end, least) = match split.narrow {
            true => (1 << 32, thresholds::NARROW_HOLE),
            false => (1 << 47, thresholds::HOLE),
        };
        let mapped = space.mapped.now.0;
        let mut row = Row::new(Limited::Addresses, Unit::Bytes, Some(end), Some(mapped));
        if hole < least {
            row.room = Room::Near;
        }
        rows.push(row);
    }
    rows
}

fn machine_rows(machine: &Machine) -> Vec<Row> {
    let mut rows = Vec::new();
    if let (Some(limit), Some(mode)) = (machine.commit_limit, machine.overcommit) {
        let committed = machine.committed.map(|bytes| bytes.0);
        let row = Row::new(Limited::Commit, Unit::Bytes, Some(limit.0), committed);
        rows.push(match mode {
            2 => row.near_from(thresholds::COMMIT),
            _ => Row {
                room: Room::NotEnforced,
                ..row
            },
        });
    }
    if let (Some(memory), Some(available)) = (machine.memory, machine.available) {
        let swap = machine.swap.unwrap_or_default();
        let free = available + machine.swap_free.unwrap_or_default();
        let taken = (memory + swap).0.saturating_sub(free.0);
        let row = Row::new(
            Limited::Machine,
            Unit::Bytes,
            Some((memory + swap).0),
            Some(taken),
        );
        rows.push(row.near_from(thresholds::MACHINE));
    }
    rows
}
