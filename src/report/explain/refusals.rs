//! Memory calls that the kernel refused, and which limit did it, where the figures prove it.

use std::io;

use crate::decode::{Call, Placement};
use crate::report::call_name;
use crate::report::recognize::Surroundings;
use crate::timeline::{
    Amounts, Bound, CallEvent, CheckCause, Event, EventKind, Failure, Figures, Limit, Limiter,
    Limits, Observation, Observed, Sink, SpaceState, Timeline, is_refused,
};
use crate::units::{AddrRange, Bytes, SpaceId, Tid, Timestamp};

use super::facts::Split;
use super::process::split;

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
#[derive(Debug, Default)]
pub struct Refusals {
    found: Vec<Refusal>,
    looks: Vec<(SpaceId, LastLook)>,
    /// What bounded processes when they were refused something last.
    limits: Vec<(Tid, Figures)>,
}

impl Refusals {
    /// What was refused.
    pub fn found(&self) -> &[Refusal] {
        &self.found
    }

    /// The limits of a process as they were when it was refused something last: it may have had others
    /// than what it was started from. `known` is kept where nothing was read.
    pub fn limits_of(&self, pid: Tid, known: Limits) -> Limits {
        let Some((_, figures)) = self.limits.iter().find(|(of, _)| *of == pid) else {
            return known;
        };
        let newer = |soft: Option<Bound>, hard: Option<Bound>, known: Option<Limit>| match soft {
            Some(soft) => Some(Limit {
                soft,
                hard: hard.or(known.map(|known| known.hard)).unwrap_or(soft),
            }),
            None => known,
        };
        Limits {
            address_space: newer(figures.limit_as, None, known.address_space),
            data: newer(figures.limit_data, figures.limit_data_hard, known.data),
            locked: newer(figures.limit_memlock, None, known.locked),
            stack: known.stack,
        }
    }

    /// What a space was when it was looked at last.
    pub fn last_look(&self, space: SpaceId) -> Option<&LastLook> {
        let (_, look) = self.looks.iter().find(|(id, _)| *id == space)?;
        Some(look)
    }

    fn call(&mut self, event: &Event, call: &CallEvent, timeline: &Timeline) {
        let (Some(failure), Some(errno)) = (&call.failure, no_room(call)) else {
            return;
        };
        let Some(state) = timeline.spaces.get(&event.space) else {
            return;
        };
        self.limits.retain(|(pid, _)| *pid != event.pid);
        if self.limits.len() < KINDS {
            self.limits.push((event.pid, failure.figures));
        }
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
            refusal.refuser = refuser(failure);
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
                refuser: refuser(failure),
                times: 1,
            });
        }
    }
}

impl Sink for Refusals {
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

/// The error of a call that found no room: EPERM is no matter of amounts.
fn no_room(call: &CallEvent) -> Option<i32> {
    const EPERM: i32 = 1;
    is_refused(&call.raw, call.result?).filter(|errno| *errno != EPERM)
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

/// What a failure proves, if that is a limit; candidates prove nothing.
fn refuser(failure: &Failure) -> Refuser {
    let [cause] = failure.causes.as_slice() else {
        return Refuser::Unknown;
    };
    let Some(Amounts { limit, used, .. }) = cause.amounts.filter(|_| failure.proven) else {
        return Refuser::Unknown;
    };
    let (bytes, in_use) = (Bytes(limit), Bytes(used));
    match cause.what {
        Limiter::AddressSpace => Refuser::AddressSpace {
            limit: bytes,
            mapped: in_use,
        },
        Limiter::Data => Refuser::Data {
            limit: bytes,
            data: in_use,
        },
        Limiter::MapCount => Refuser::Mappings {
            limit,
            mappings: used,
        },
        Limiter::NoRoom => Refuser::Addresses { hole: bytes },
        Limiter::CommitLimit => Refuser::Commit {
            limit: bytes,
            committed: in_use,
        },
        Limiter::Overcommit => Refuser::Guess { all: bytes },
        _ => Refuser::Unknown,
    }
}
