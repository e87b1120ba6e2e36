//! Memory calls that the kernel refused, and which limit did it, where the figures prove it.

use std::io;

use crate::decode::{Call, Placement};
use crate::mm::Totals;
use crate::report::call_name;
use crate::report::recognize::Surroundings;
use crate::timeline::{
    CallEvent, CheckCause, Event, EventKind, Limits, Observation, Observed, Sink, SpaceState,
    Timeline,
};
use crate::units::{AddrRange, Bytes, SpaceId, Tid, Timestamp};

use super::facts::{Machine, Split};
use super::process::{bytes_of, data_of, largest_hole, split};

/// ENOMEM.
const NO_MEMORY: i64 = -12;
/// EAGAIN, which madvise(2) and mlock(2) return instead.
const AGAIN: i64 = -11;
/// Kinds of refusals that are kept.
const KINDS: usize = 16;
/// Spaces whose last look is kept.
const SPACES: usize = 512;

/// Refusals of one kind: the same call, refused by the same limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The call.
    pub call: String,
    /// Bytes by which the first would have grown the address space (mprotect: which it would have
    /// made writable).
    pub asked: Bytes,
    /// The error as a positive number.
    pub errno: i32,
    /// When it was refused first.
    pub time: Timestamp,
    /// Whose, the first time.
    pub pid: Tid,
    /// In which space, the first time.
    pub space: SpaceId,
    /// Which limit it was.
    pub refuser: Refuser,
    /// How often.
    pub times: u64,
}

/// The limit that refused a call. Each but `Unknown` is proven by its figures, those of that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuser {
    /// RLIMIT_AS: `mapped` and what was asked exceed `limit`.
    AddressSpace {
        /// The soft limit.
        limit: Bytes,
        /// What was mapped.
        mapped: Bytes,
    },
    /// RLIMIT_DATA: `data` and what was asked exceed `limit`.
    Data {
        /// The soft limit.
        limit: Bytes,
        /// What it counts.
        data: Bytes,
    },
    /// vm.max_map_count.
    Mappings {
        /// The limit.
        limit: u64,
        /// Mappings, at least.
        mappings: u64,
    },
    /// No hole is so large.
    Addresses {
        /// The largest.
        hole: Bytes,
    },
    /// Overcommit mode 2: `committed` and what was asked exceed `limit`.
    Commit {
        /// CommitLimit.
        limit: Bytes,
        /// Committed_AS.
        committed: Bytes,
    },
    /// Overcommit mode 0: more at once than there is memory and swap.
    Guess {
        /// Memory and swap.
        all: Bytes,
    },
    /// No figure proves which.
    Unknown,
}

/// Figures at the moment of a refusal, from the living process.
pub type Now<'a> = dyn FnMut(Tid) -> (Limits, Machine) + 'a;

/// What a space was when it was looked at last, right before its end.
#[derive(Clone, Debug, PartialEq)]
pub struct LastLook {
    /// Its mappings.
    pub split: Split,
    /// MADV_FREE'd and still resident.
    pub lazy_free: Bytes,
    /// Swapped out.
    pub swap: Bytes,
}

/// Collects refusals, and the last look at each space.
#[derive(Default)]
pub struct Refusals<'a> {
    now: Option<Box<Now<'a>>>,
    found: Vec<Refusal>,
    looks: Vec<(SpaceId, LastLook)>,
    /// The limits of processes that were refused something, where they were read then.
    limits: Vec<(Tid, Limits)>,
}

impl std::fmt::Debug for Refusals<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refusals")
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

impl<'a> Refusals<'a> {
    /// For a trace that is made now: `now` reads limits and the machine's figures at a refusal.
    pub fn live(now: Box<Now<'a>>) -> Refusals<'a> {
        Refusals {
            now: Some(now),
            ..Refusals::default()
        }
    }

    /// What was refused.
    pub fn found(&self) -> &[Refusal] {
        &self.found
    }

    /// The limits of a process when it was refused something last.
    pub fn limits_of(&self, pid: Tid) -> Option<Limits> {
        let (_, limits) = self.limits.iter().find(|(known, _)| *known == pid)?;
        Some(*limits)
    }

    /// What a space was when it was looked at last.
    pub fn last_look(&self, space: SpaceId) -> Option<&LastLook> {
        let (_, look) = self.looks.iter().find(|(id, _)| *id == space)?;
        Some(look)
    }

    fn call(&mut self, event: &Event, call: &CallEvent, timeline: &Timeline) {
        let Some(errno) = refused(call) else {
            return;
        };
        let Some(state) = timeline.spaces.get(&event.space) else {
            return;
        };
        let environment = &timeline.info.environment;
        let (limits, machine) = match &mut self.now {
            Some(now) => {
                let (limits, machine) = now(event.pid);
                self.limits.retain(|(pid, _)| *pid != event.pid);
                if self.limits.len() < KINDS {
                    self.limits.push((event.pid, limits));
                }
                (limits, machine)
            }
            None => {
                let recorded = Machine {
                    memory: environment.memory,
                    swap: environment.swap,
                    overcommit: Some(timeline.info.overcommit),
                    max_map_count: environment.max_map_count,
                    ..Machine::default()
                };
                (environment.limits, recorded)
            }
        };
        let asked = asked(&call.call, state);
        let name = call_name(&call.raw);
        let known = |refusal: &&mut Refusal| {
            refusal.call == name && refusal.errno == errno && refusal.space == event.space
        };
        // One that fails in a loop is refused by the same limit each time.
        if let Some(refusal) = self.found.iter_mut().find(known) {
            refusal.times += 1;
            if refusal.refuser != Refuser::Unknown || refusal.times > 1000 {
                return;
            }
            refusal.refuser = refuser(&call.call, asked, &call.before, state, limits, &machine);
            return;
        }
        if self.found.len() < KINDS {
            self.found.push(Refusal {
                call: name.into_owned(),
                asked: Bytes(asked),
                errno,
                time: event.time,
                pid: event.pid,
                space: event.space,
                refuser: refuser(&call.call, asked, &call.before, state, limits, &machine),
                times: 1,
            });
        }
    }
}

impl Sink for Refusals<'_> {
    fn observation(&mut self, observation: &Observation) -> io::Result<()> {
        let Observed::Checkpoint {
            space,
            cause: CheckCause::Exit | CheckCause::Exec | CheckCause::Detach,
            snapshot,
        } = &observation.what
        else {
            return Ok(());
        };
        if !snapshot.smaps.is_empty() && self.looks.len() < SPACES {
            let smaps = snapshot.smaps.iter();
            let look = LastLook {
                split: split(snapshot, &Surroundings::default()),
                lazy_free: smaps.clone().map(|info| info.lazy_free).sum(),
                swap: smaps.map(|info| info.swap).sum(),
            };
            self.looks.push((*space, look));
        }
        Ok(())
    }

    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        if let EventKind::Call(call) = &event.kind {
            self.call(event, call, timeline);
        }
        Ok(())
    }
}

/// The error that says that there was no room, as a positive number.
fn refused(call: &CallEvent) -> Option<i32> {
    let result = call.result?;
    match (&call.call, result) {
        // brk(2) returns the break that is, not an error.
        (Call::Brk { addr }, now) if addr.0 != 0 && (now as u64) < addr.0 => Some(12),
        (Call::Brk { .. } | Call::Other, _) => None,
        (_, NO_MEMORY) => Some(12),
        (Call::Madvise { .. } | Call::ProcessMadvise { .. }, AGAIN) => Some(11),
        _ => None,
    }
}

/// Bytes by which a call would have grown the address space; for mprotect, its bytes.
fn asked(call: &Call, state: &SpaceState) -> u64 {
    let pages = |len: u64| {
        len.checked_next_multiple_of(crate::units::PAGE)
            .unwrap_or(u64::MAX)
    };
    match call {
        Call::Mmap(mmap) => {
            let len = pages(mmap.len);
            let replaced = match mmap.placement() {
                Placement::Replacing(at) => {
                    AddrRange::covering(at, mmap.len).map_or(0, |range| covered(range, state))
                }
                _ => 0,
            };
            len.saturating_sub(replaced)
        }
        Call::Mremap(mremap) => pages(mremap.new_len).saturating_sub(pages(mremap.old_len)),
        Call::Brk { addr } => {
            let brk = state.context.brk.or(state.context.brk_start);
            brk.map_or(0, |brk| pages(addr.0.saturating_sub(brk.0)))
        }
        Call::Mprotect { len, .. } => pages(*len),
        _ => 0,
    }
}

fn covered(range: AddrRange, state: &SpaceState) -> u64 {
    let parts = state.model.overlapping(range);
    parts
        .filter_map(|vma| vma.range.intersect(range))
        .map(AddrRange::len)
        .sum()
}

/// Which limit a refusal proves, in the order in which the kernel asks them (mm/mmap.c, `do_mmap`
/// and `mmap_region`).
fn refuser(
    call: &Call,
    asked: u64,
    before: &Totals,
    state: &SpaceState,
    limits: Limits,
    machine: &Machine,
) -> Refuser {
    let grows = !matches!(call, Call::Mprotect { .. });
    let soft = |limit: Option<crate::timeline::Limit>| bytes_of(limit.map(|limit| limit.soft));
    // mremap(2) wants four free, a call that splits at both ends two; runs of equal mappings may be
    // fewer than the kernel's.
    const WANTED: u64 = 4;
    if let Some(limit) = machine.max_map_count
        && limit <= before.mappings.saturating_add(WANTED)
    {
        let mappings = before.mappings;
        return Refuser::Mappings { limit, mappings };
    }
    let narrow = state
        .model
        .vmas()
        .last()
        .is_some_and(|vma| vma.range.end().0 <= 1 << 32);
    let hole = largest_hole(&state.model, narrow);
    if grows && hole.0 < asked {
        return Refuser::Addresses { hole };
    }
    let mapped = before.mapped;
    if let Some(limit) = soft(limits.address_space)
        && grows
        && limit.0 < mapped.0.saturating_add(asked)
    {
        return Refuser::AddressSpace { limit, mapped };
    }
    if let Some(limit) = soft(limits.data)
        && is_data(call)
    {
        let data = data_of(&state.model);
        if limit.0 < data.0.saturating_add(asked) {
            return Refuser::Data { limit, data };
        }
    }
    if !is_data(call) {
        return Refuser::Unknown;
    }
    match (machine.overcommit, machine.commit_limit, machine.committed) {
        (Some(2), Some(limit), Some(committed)) if limit.0 < committed.0.saturating_add(asked) => {
            Refuser::Commit { limit, committed }
        }
        (Some(0), ..) => {
            let all = machine
                .memory
                .map(|memory| memory + machine.swap.unwrap_or_default());
            match all {
                Some(all) if all.0 < asked => Refuser::Guess { all },
                _ => Refuser::Unknown,
            }
        }
        _ => Refuser::Unknown,
    }
}

/// Whether it makes private writable memory, which RLIMIT_DATA and the commit limit count.
fn is_data(call: &Call) -> bool {
    use crate::abi::{MapFlags, Prot};
    match call {
        Call::Mmap(mmap) => {
            mmap.prot.contains(Prot::WRITE)
                && !mmap.flags.is_shared()
                && !mmap.flags.contains(MapFlags::NORESERVE)
        }
        Call::Mprotect { prot, .. } => prot.contains(Prot::WRITE),
        Call::Brk { .. } | Call::Mremap(_) => true,
        _ => false,
    }
}
