//! Whole maps of running programs: read, and valid only if nothing happened meanwhile.

use crate::mm::{MapsEntry, Snapshot};
use crate::timeline::{Began, CheckCause, Observation, Observed, Resident, SpaceBegan};
use crate::units::{SpaceId, Tid};

use super::super::procfs;
use super::observer::KernelObserver;
use super::picture::at_exec;
use super::rings::now;
use super::state::{First, Item, Look, Seen};

const MILLISECOND: u64 = 1_000_000;
/// A space that never keeps still for a look begins with what the loader's records tell.
const FIRST_LOOK_PATIENCE: u64 = 60 * MILLISECOND;
/// A space that has changed is compared once it has been quiet for so long: should it end then, its
/// model was.
const QUIET: u64 = 200 * MILLISECOND;
/// Looks for doubt take a tenth of the time at most.
const SHARE: u64 = 10;

/// What is read of a program that has just begun.
fn first(pid: Tid) -> Option<First> {
    Some(First {
        snapshot: procfs::maps(pid)
            .ok()
            .filter(|map| !map.entries.is_empty())?,
        exe: procfs::exe(pid),
        brk_start: procfs::brk_start(pid),
        read_implies_exec: procfs::read_implies_exec(pid),
    })
}

impl KernelObserver {
    /// Looks at processes whose execve has just returned, before its record is worked on.
    pub(super) fn look_early(&mut self, pids: Vec<Tid>) {
        for pid in pids {
            let began = now();
            if let Some(first) = first(pid) {
                self.early.insert(pid, (began, now(), first));
            }
        }
    }

    /// The first look at a space that begins now.
    pub(super) fn first_look(&mut self, id: SpaceId, pid: Tid, time: u64) {
        if let Some((began, ended, first)) = self.early.remove(&pid)
            && time <= began
        {
            self.add_look(id, began, ended, Seen::First(first));
        }
    }

    /// What was read when watching ends.
    pub(super) fn add_last_look(
        &mut self,
        space: SpaceId,
        began: u64,
        ended: u64,
        resident: Option<Resident>,
        map: Snapshot,
        still: bool,
    ) {
        self.add_look(space, began, ended, Seen::Last(resident, map));
        if let Some(look) = self.looks.last_mut() {
            look.still = still;
        }
    }

    fn add_look(&mut self, space: SpaceId, began: u64, ended: u64, seen: Seen) {
        if !matches!(seen, Seen::Resident(_))
            && let Some(space) = self.spaces.get_mut(&space)
        {
            space.looking = true;
        }
        self.looks.push(Look {
            space,
            began,
            ended,
            seen,
            reached: false,
            torn: false,
            still: false,
        });
    }

    /// Looks that are under way at this moment show more than one moment.
    pub(super) fn disturb(&mut self, id: SpaceId) {
        for look in &mut self.looks {
            look.torn |= look.reached && look.space == id;
        }
    }

    /// The same by a call that has altered nothing yet: what refused another still holds.
    pub(super) fn disturb_maps(&mut self, id: SpaceId) {
        for look in &mut self.looks {
            let of_map = !matches!(look.seen, Seen::Refused(..));
            look.torn |= look.reached && look.space == id && of_map;
        }
    }

    /// A task of each space, whose files of /proc show it: a leader where there is one, which is the
    /// last to go.
    pub(super) fn readers(&self) -> Vec<(SpaceId, Tid)> {
        let mut readers: Vec<(SpaceId, bool, Tid)> = Vec::new();
        for (&tid, task) in &self.tasks {
            readers.push((task.space, tid != task.pid, tid));
        }
        readers.sort_unstable();
        readers.dedup_by_key(|(space, ..)| *space);
        readers.into_iter().map(|(id, _, tid)| (id, tid)).collect()
    }

    /// Makes the looks that are due. Whether any must be made again soon.
    pub(super) fn look(&mut self) -> bool {
        let start = now();
        for space in self.spaces.values_mut() {
            let quiet = space.in_flight.is_empty() && space.changed + QUIET < start;
            space.due |= quiet && 0 < space.since_check && space.next_look <= start;
        }
        let wanted = |space: &super::state::Space| {
            space.known && (space.doubt || space.due) || space.beginning.is_some()
        };
        if !self.spaces.values().any(wanted) {
            return false;
        }
        for (id, tid) in self.readers() {
            let Some(space) = self.spaces.get_mut(&id) else {
                continue;
            };
            if !wanted(space) || space.looking || start < space.next_look {
                continue;
            }
            let began = now();
            if let Some(beginning) = &space.beginning {
                if FIRST_LOOK_PATIENCE < began.saturating_sub(beginning.time) {
                    space.doubt = true;
                    self.begin_as_shown(id);
                } else if let Some(first) = first(tid) {
                    self.add_look(id, began, now(), Seen::First(first));
                }
                continue;
            }
            let read = match space.contradicted {
                true => procfs::smaps(tid),
                false => procfs::maps(tid),
            };
            if let Some(map) = read.ok().filter(|map| !map.entries.is_empty()) {
                let ended = now();
                space.next_look = ended + SHARE * (ended - began);
                self.add_look(id, began, ended, Seen::Map(map));
            } else {
                space.next_look = began + 100 * MILLISECOND;
            }
        }
        true
    }

    /// Measures what is resident, of 64 spaces at most.
    pub(super) fn sample(&mut self) {
        let has_ended = |tid: Tid| matches!(procfs::state(tid), None | Some(b'Z' | b'X'));
        let launching = self.launching.as_ref().map(|launching| launching.pid);
        let mut gone = launching.filter(|pid| has_ended(*pid));
        for (id, tid) in self.readers().into_iter().take(64) {
            let is_counted = self
                .spaces
                .get(&id)
                .is_some_and(|space| space.counted.is_some());
            let resident = procfs::statm(tid);
            if resident.is_none() && has_ended(tid) {
                gone = Some(tid);
            }
            if !is_counted && let Some(resident) = resident {
                let time = now();
                self.add_look(id, time, time, Seen::Resident(resident));
            }
        }
        self.misses_end(gone);
    }

    /// Records have come as far as `time`: looks that ended before it are settled.
    pub(super) fn settle(&mut self, time: u64) {
        if self.looks.is_empty() {
            return;
        }
        let in_exec = |id: SpaceId| {
            let mut tasks = self.tasks.values();
            tasks.any(|task| task.space == id && task.exec.is_some())
        };
        for look in &mut self.looks {
            if !look.reached && look.began <= time {
                look.reached = true;
                let space = self.spaces.get(&look.space);
                let busy = |space: &super::state::Space| {
                    !space.in_flight.is_empty() || !space.held.is_empty()
                };
                look.torn |= space.is_none_or(busy) || in_exec(look.space);
            }
        }
        let mut at = 0;
        while let Some(look) = self.looks.get(at) {
            match look.reached && look.ended < time {
                true => {
                    let look = self.looks.remove(at);
                    self.settled(look);
                }
                false => at += 1,
            }
        }
    }

    fn settled(&mut self, look: Look) {
        let id = look.space;
        if let Seen::Resident(resident) = look.seen {
            return self.push(
                look.began,
                Observed::Resident {
                    space: id,
                    resident,
                },
            );
        }
        if let Seen::Refused(figures, evidence, time) = look.seen {
            let space = self.spaces.get(&id);
            // A call under way may have done its work already.
            let alone = space.is_some_and(|space| space.in_flight.is_empty());
            if alone && !look.torn {
                self.reason_found(id, time, figures, evidence);
            }
            return;
        }
        let Some(space) = self.spaces.get_mut(&id) else {
            return;
        };
        space.looking = false;
        if look.torn {
            space.torn += 1;
            let pause = MILLISECOND << space.torn.min(8);
            space.next_look = match space.beginning {
                Some(_) => look.ended,
                None => space.next_look.max(look.ended + pause),
            };
            return;
        }
        space.torn = 0;
        match look.seen {
            Seen::First(first) => self.begin(id, Some(first)),
            Seen::Map(snapshot) => {
                let doubt = std::mem::take(&mut space.doubt);
                let due = std::mem::take(&mut space.due);
                (space.contradicted, space.since_check) = (false, 0);
                let doubt = doubt.then_some(CheckCause::Doubt);
                let due = due.then_some(CheckCause::Asked);
                for cause in doubt.into_iter().chain(due) {
                    let snapshot = snapshot.clone();
                    self.push(
                        look.began,
                        Observed::Checkpoint {
                            space: id,
                            cause,
                            snapshot,
                        },
                    );
                }
            }
            Seen::Resident(_) | Seen::Refused(..) => {}
            Seen::Last(resident, snapshot) => self.last_settled(id, look.began, resident, snapshot),
        }
    }

    fn last_settled(
        &mut self,
        id: SpaceId,
        time: u64,
        resident: Option<Resident>,
        snapshot: Snapshot,
    ) {
        let Some(space) = self.spaces.get_mut(&id) else {
            return;
        };
        space.looked = true;
        self.tell_last_counted(id);
        let Some(space) = self.spaces.get_mut(&id) else {
            return;
        };
        let doubt = space.doubt || space.beginning.is_some();
        let known = space.known;
        self.begin_as_shown(id);
        if let Some(resident) = resident {
            self.push(
                time,
                Observed::Resident {
                    space: id,
                    resident,
                },
            );
        }
        let causes = [CheckCause::Doubt, CheckCause::Detach];
        for &cause in causes.iter().skip(usize::from(!doubt)).filter(|_| known) {
            let snapshot = snapshot.clone();
            self.push(
                time,
                Observed::Checkpoint {
                    space: id,
                    cause,
                    snapshot,
                },
            );
        }
    }

    /// A space that begins with what the loader's records tell.
    pub(super) fn begin_as_shown(&mut self, id: SpaceId) {
        self.begin(id, None);
    }

    /// The first map of a space is known, or never will be: what waited for it is told.
    fn begin(&mut self, id: SpaceId, first: Option<First>) {
        let Some(space) = self.spaces.get_mut(&id) else {
            return;
        };
        let Some(beginning) = space.beginning.take() else {
            return;
        };
        let entries: Vec<MapsEntry> = match &first {
            Some(first) => at_exec(
                &beginning.shown,
                &first.snapshot.entries,
                &beginning.touched,
            ),
            None => beginning.shown.clone(),
        };
        if let Some(first) = &first {
            space.exe = first.exe.clone();
            space.brk_start = first.brk_start;
        }
        space.read_implies_exec |= first.as_ref().is_some_and(|first| first.read_implies_exec);
        let began = SpaceBegan {
            space: id,
            pid: beginning.pid,
            began: Began::Exec,
            exe: space.exe.clone(),
            snapshot: Snapshot {
                entries,
                smaps: Vec::new(),
            },
            known: true,
            brk_start: first.as_ref().and_then(|first| first.brk_start),
            read_implies_exec: space.read_implies_exec,
        };
        let observation = Observation {
            time: self.clock.at(beginning.time),
            what: Observed::SpaceBegan(began),
        };
        let place = self.queue.iter_mut().find(|item| match item {
            Item::Begins(waiting) => *waiting == id,
            Item::Ready(_) | Item::Refused(..) => false,
        });
        if let Some(place) = place {
            *place = Item::Ready(observation);
        }
    }
}
