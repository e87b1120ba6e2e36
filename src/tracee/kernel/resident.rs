//! `--resident`: what is resident, as the kernel counts it (kmem:rss_stat).
//!
//! Each record holds the bytes of one kind, all of them, and a number that stands for the space. Whose
//! number that is shows when a task of the space itself makes pages resident. Records come with every
//! page fault; they are told every [`PAUSE`] at most, and every highest value is.

use crate::timeline::{Observed, Resident};
use crate::units::{Bytes, SpaceId, Tid};

use super::super::procfs;
use super::observer::KernelObserver;

/// Between two tellings, in nanoseconds.
const PAUSE: u64 = 1_000_000;
/// Spaces in the making that are remembered: of some, no task is ever watched.
const MAKING: usize = 1024;

/// One record of kmem:rss_stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RssStat {
    /// Stands for the space.
    pub mm: u32,
    /// It is the space of the running task.
    pub own: bool,
    /// MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES (include/linux/mm_types_task.h).
    pub kind: u32,
    pub size: u64,
}

/// What is resident in a space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    file: u64,
    anon: u64,
    shmem: u64,
    swap: u64,
}

impl Kinds {
    fn of(tid: Tid) -> Kinds {
        let status = procfs::Status::read(tid).unwrap_or_default();
        let seen = status.resident().unwrap_or_default();
        let bytes = |bytes: Option<Bytes>| bytes.map_or(0, |bytes| bytes.0);
        Kinds {
            file: bytes(seen.file),
            anon: bytes(seen.anon),
            shmem: bytes(seen.shmem),
            swap: bytes(seen.swap),
        }
    }

    fn set(&mut self, stat: RssStat) {
        match stat.kind {
            0 => self.file = stat.size,
            1 => self.anon = stat.size,
            2 => self.swap = stat.size,
            3 => self.shmem = stat.size,
            _ => {}
        }
    }

    /// What is resident: what is swapped out is not.
    fn sum(self) -> u64 {
        self.file + self.anon + self.shmem
    }
}

/// What was counted in a space, and what of that was told.
#[derive(Debug, Default)]
pub(super) struct Counted {
    now: Kinds,
    /// When it became that, if that was not told.
    untold: Option<u64>,
    told: u64,
    highest_told: u64,
}

impl Counted {
    /// What is to be told when `next` is counted at `time`: with when it was so.
    fn count(&mut self, next: Kinds, time: u64) -> Option<(u64, Kinds)> {
        let falls_from_peak = next.sum() < self.now.sum() && self.highest_told < self.now.sum();
        let due = match self.untold {
            Some(at) if falls_from_peak || self.told + PAUSE <= at => Some((at, self.now)),
            _ => None,
        };
        if let Some((at, kinds)) = due {
            (self.told, self.highest_told) = (at, self.highest_told.max(kinds.sum()));
        }
        if next != self.now {
            (self.now, self.untold) = (next, Some(time));
        } else if due.is_some() {
            self.untold = None;
        }
        due
    }

    /// What is still to be told.
    fn rest(&mut self) -> Option<(u64, Kinds)> {
        let at = self.untold.take()?;
        (self.told, self.highest_told) = (at, self.highest_told.max(self.now.sum()));
        Some((at, self.now))
    }
}

impl KernelObserver {
    /// The kernel has counted.
    pub(super) fn counted(&mut self, tid: Tid, time: u64, stat: RssStat) {
        let task = self.tasks.get(&tid);
        let in_exec = task.is_some_and(|task| task.exec.is_some());
        let of_task = task.map(|task| task.space);
        let known = self.counters.get(&stat.mm).copied();
        let id = match (stat.own, known, of_task) {
            (true, Some(id), Some(space)) if in_exec || id == space => id,
            (true, _, Some(space)) if !in_exec => {
                self.counters.insert(stat.mm, space);
                space
            }
            // Somebody else's pages: reclaimed, say. But a task that has left its space (exit(2)) takes
            // it to pieces, which is no more than its end.
            (false, Some(id), space) if space != Some(id) => id,
            // A space in the making, by fork(2) or execve(2).
            (_, None, Some(_)) => {
                if MAKING < self.making.len() {
                    self.making.clear();
                }
                return self.making.entry(stat.mm).or_default().set(stat);
            }
            _ => return,
        };
        let Some(space) = self.spaces.get_mut(&id) else {
            return;
        };
        if space.counted.is_none() {
            let now = match self.making.remove(&stat.mm) {
                Some(kinds) => kinds,
                // It was there before we came: of the other kinds nothing has been told yet.
                None if stat.own => Kinds::of(tid),
                None => return,
            };
            space.counted = Some(Counted {
                now,
                ..Counted::default()
            });
        }
        let Some(counted) = &mut space.counted else {
            return;
        };
        let mut next = counted.now;
        next.set(stat);
        let due = counted.count(next, time);
        self.tell_resident(id, due);
    }

    /// Tells what was counted a while ago and nothing has followed; of spaces that end, all.
    pub(super) fn tell_counted(&mut self, before: u64) {
        let mut due: Vec<(SpaceId, Option<(u64, Kinds)>)> = Vec::new();
        for (&id, space) in &mut self.spaces {
            if let Some(counted) = &mut space.counted
                && counted.untold.is_some_and(|at| at + PAUSE <= before)
            {
                due.push((id, counted.rest()));
            }
        }
        for (id, due) in due {
            self.tell_resident(id, due);
        }
    }

    pub(super) fn tell_last_counted(&mut self, id: SpaceId) {
        let space = self.spaces.get_mut(&id);
        let counted = space.and_then(|space| space.counted.as_mut());
        let due = counted.and_then(Counted::rest);
        self.tell_resident(id, due);
        self.counters.retain(|_, of| *of != id);
    }

    fn tell_resident(&mut self, space: SpaceId, due: Option<(u64, Kinds)>) {
        let Some((time, kinds)) = due else { return };
        let resident = Resident {
            now: Bytes(kinds.sum()),
            anon: Some(Bytes(kinds.anon)),
            file: Some(Bytes(kinds.file)),
            shmem: Some(Bytes(kinds.shmem)),
            high_water: None,
            mapped: None,
            swap: Some(Bytes(kinds.swap)),
        };
        self.push(time, Observed::Resident { space, resident });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anon(bytes: u64) -> Kinds {
        Kinds {
            anon: bytes,
            ..Kinds::default()
        }
    }

    /// Counts (microseconds, bytes) and returns what was told.
    fn told(counts: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut counted = Counted::default();
        let mut told: Vec<_> = counts
            .iter()
            .filter_map(|&(at, bytes)| counted.count(anon(bytes), at * 1000 + PAUSE))
            .collect();
        told.extend(counted.rest());
        let plain = |(at, kinds): (u64, Kinds)| ((at - PAUSE) / 1000, kinds.sum());
        told.into_iter().map(plain).collect()
    }

    #[test]
    fn what_grows_is_told_now_and_then_and_at_its_end() {
        let counts: Vec<(u64, u64)> = (0..3000).map(|n| (n, 4096 * n)).collect();
        let told = told(&counts);
        assert_eq!(
            told,
            [
                (1, 4096),
                (1001, 1001 * 4096),
                (2001, 2001 * 4096),
                (2999, 2999 * 4096)
            ]
        );
    }

    #[test]
    fn no_peak_goes_untold() {
        let told = told(&[(0, 100), (10, 900), (20, 200), (30, 800), (40, 300)]);
        assert!(told.contains(&(10, 900)), "{told:?}");
        assert_eq!(told.last(), Some(&(40, 300)));
        assert!(
            !told.contains(&(30, 800)),
            "below a peak that is known: {told:?}"
        );
    }
}
