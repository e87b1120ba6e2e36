//! How watching ends: a last look at every space, and what is left is let go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::mm::Snapshot;
use crate::timeline::{Ended, Observed, Resident, TaskEnd};
use crate::units::{SpaceId, Tid};

use super::super::lives::cheap_to_walk;
use super::super::procfs;
use super::super::supervisor::Deliver;
use super::observer::{BATCH, KernelObserver, PAUSE};
use super::rings::{SLACK, now};
use super::stop::{PATIENCE, while_stopped};

/// How long the end may take to tell what has come in; then, to count what is left; and what even that
/// leaves is thrown away unread.
const TELLING: Duration = Duration::from_millis(300);
const COUNTING: Duration = Duration::from_millis(200);
/// So often everything is stopped for a last look.
const STOPS: u32 = 3;

impl KernelObserver {
    /// Looks at every space a last time, and leaves.
    pub(super) fn let_all_go(&mut self, deliver: &mut Deliver<'_>) {
        let until = Instant::now() + TELLING;
        self.let_go = true;
        // Who was born and what has begun meanwhile is still among the records.
        self.catch_up(now(), until, deliver);
        let mut left = self.not_looked_at();
        for tried in 0.. {
            let readers: Vec<(SpaceId, Tid)> = self
                .readers()
                .into_iter()
                .filter(|(id, _)| left.contains(id))
                .collect();
            if readers.is_empty() || STOPS <= tried && until < Instant::now() {
                break;
            }
            // Whom a few stops have not held, more only disturb.
            let pids: BTreeSet<Tid> = self.tasks.values().map(|task| task.pid).collect();
            let pids: Vec<Tid> = pids.into_iter().filter(|_| tried < STOPS).collect();
            let looked = while_stopped(&pids, PATIENCE * (1 << tried.min(STOPS)), || {
                let began = now();
                let seen: Vec<(SpaceId, Option<Resident>, Snapshot)> = readers
                    .iter()
                    .filter_map(|&(id, tid)| last(id, tid))
                    .collect();
                (began, now(), seen)
            });
            let Some(((began, ended, seen), stood_still)) = looked else {
                break;
            };
            self.looks.clear();
            // Without records only a stop shows that nothing happened meanwhile.
            let seen = seen.into_iter().filter(|_| stood_still || !self.deaf);
            for (id, resident, map) in seen.collect::<Vec<_>>() {
                self.add_last_look(id, began, ended, resident, map, stood_still);
            }
            self.catch_up(ended, until, deliver);
            if self.lost || self.census.is_some() || self.deaf {
                self.count_tasks();
            }
            self.settle(ended + 1);
            left = self.not_looked_at();
            self.cut_calls(ended, &left);
            if !left.is_empty() {
                std::thread::sleep(PAUSE);
            }
        }
        self.end_all(&left);
    }

    fn not_looked_at(&self) -> BTreeSet<SpaceId> {
        let spaces = self.spaces.iter();
        spaces
            .filter(|(_, space)| !space.looked)
            .map(|(&id, _)| id)
            .collect()
    }

    /// Works on all records up to `time`, and tells what they tell, until it gets too late for that.
    fn catch_up(&mut self, time: u64, until: Instant, deliver: &mut Deliver<'_>) {
        loop {
            let complete = self.drain_until(time);
            let mut count = 0usize;
            while let Some(record) = self.rings.next() {
                if count.is_multiple_of(BATCH / 8) {
                    self.hand_on(deliver, false);
                    let now = Instant::now();
                    if until + COUNTING < now {
                        return self.throw_away();
                    }
                    if until < now {
                        self.skip();
                    }
                }
                self.record(record);
                count += 1;
            }
            let worked = 0 < count;
            if complete {
                break;
            }
            if !worked {
                std::thread::sleep(Duration::from_nanos(SLACK));
            }
        }
        self.skip_no_more();
    }

    /// Calls that are still under way when watching ends: what they do is not waited for.
    fn cut_calls(&mut self, time: u64, spaces: &BTreeSet<SpaceId>) {
        let under_way: Vec<Tid> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.call.is_some() && spaces.contains(&task.space))
            .map(|(&tid, _)| tid)
            .collect();
        for tid in under_way {
            let call = self
                .tasks
                .get_mut(&tid)
                .and_then(|task| Some((task.call.take()?, task.space)));
            let Some((call, space)) = call else { continue };
            let entered = self.clock.at(call.entered);
            self.push(
                time,
                Observed::CallCut {
                    tid,
                    space,
                    entered,
                    call: call.call,
                    fetched: Vec::new(),
                },
            );
            if let Some(space) = self.spaces.get_mut(&space) {
                space.in_flight.retain(|other| *other != tid);
            }
            self.release(space, Some(tid), time);
        }
    }

    fn end_all(&mut self, unverified: &BTreeSet<SpaceId>) {
        let time = self.rings.horizon;
        let ids: Vec<SpaceId> = self.spaces.keys().copied().collect();
        for &id in &ids {
            self.begin_as_shown(id);
            self.release_all(id);
            self.tell_last_counted(id);
            let known = self.spaces.get(&id).is_some_and(|space| space.known);
            if known && unverified.contains(&id) {
                let text =
                    "the last map could not be compared: its process cannot be stopped for a \
                            moment (another tracer has it?) and was never quiet"
                        .to_owned();
                let space = Some(id);
                self.push(time, Observed::Note { space, text });
            }
        }
        let mut tids: Vec<Tid> = self.tasks.drain().map(|(tid, _)| tid).collect();
        tids.sort_unstable();
        for tid in tids {
            let end = TaskEnd::Gone;
            self.push(time, Observed::TaskEnded { tid, end });
        }
        for space in ids {
            let ended = Ended::Detach;
            self.push(time, Observed::SpaceEnded { space, ended });
        }
        self.spaces.clear();
    }
}

/// The last look at a space, by `tid` or, where that has gone unseen, by another thread of its process.
fn last(id: SpaceId, tid: Tid) -> Option<(SpaceId, Option<Resident>, Snapshot)> {
    let mut threads = procfs::tasks(tid).unwrap_or_default();
    threads.insert(0, tid);
    threads.into_iter().find_map(|tid| last_by(id, tid))
}

fn last_by(id: SpaceId, tid: Tid) -> Option<(SpaceId, Option<Resident>, Snapshot)> {
    let resident = procfs::Status::read(tid)
        .ok()
        .and_then(|status| status.resident());
    let map = match cheap_to_walk(tid) {
        true => procfs::smaps(tid).or_else(|_| procfs::maps(tid)),
        false => procfs::maps(tid),
    };
    let map = map.ok().filter(|map| !map.entries.is_empty())?;
    Some((id, resident, map))
}
