//! Follows reservations through their lives, one event at a time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::mm::{Flow, Verb};
use crate::report::reading::filter::Filter;
use crate::report::reading::provenance::{Happened, How, Origin, Piece, Provenance};
use crate::report::reading::who::{Label, Labels, Source, process_name};
use crate::report::touched::TouchedPages;
use crate::report::{Place, Touches};
use crate::timeline::{
    CallEvent, Event, EventKind, Namer, Sink, SpaceState, Stacks, Timeline, TouchEvent,
};
use crate::units::{Bytes, SpaceId, Tid, Timestamp};

use super::{Commits, LifeSums, Lives, ReservationLife, TouchedBy};

/// Lives that are over and of which all is kept, once there are twice as many.
pub(super) const KEPT: usize = 2048;
/// Committers of one reservation that are told one by one while it lives.
const COMMITTERS: usize = 256;

/// A life as it goes on.
#[derive(Debug)]
struct Going {
    origin: Arc<Origin>,
    pid: Tid,
    comm: Arc<str>,
    place: Place,
    name: Option<Arc<str>>,
    committers: BTreeMap<Source, Commits>,
    touchers: BTreeMap<Source, TouchedBy>,
    sums: LifeSums,
    /// Bytes that are mapped.
    live: u64,
    /// Some were mapped with access.
    mapped_committed: bool,
    released: Option<Timestamp>,
}

impl Going {
    fn new(piece: &Piece, state: &SpaceState) -> Going {
        Going {
            origin: Arc::clone(&piece.origin),
            pid: state.pid,
            comm: process_name(state),
            place: piece.place.clone(),
            name: None,
            committers: BTreeMap::new(),
            touchers: BTreeMap::new(),
            sums: LifeSums {
                count: 1,
                ..LifeSums::default()
            },
            live: 0,
            mapped_committed: false,
            released: None,
        }
    }

    /// What `source` committed; of too many they are put together.
    fn commits(&mut self, source: Source) -> &mut Commits {
        let known = self.committers.contains_key(&source) || self.committers.len() < COMMITTERS;
        let source = if known { source } else { Source::Others };
        self.committers.entry(source).or_default()
    }

    fn touched(&mut self, event: &Event, touch: &TouchEvent, new: bool) {
        self.sums.touched.add(touch, new);
        let task = Source::Task(event.tid);
        let (source, before) = match touch.stack {
            Some(stack) => (Source::Stack(stack), self.touchers.remove(&task)),
            None => (task, None),
        };
        let known = self.touchers.contains_key(&source) || self.touchers.len() < COMMITTERS;
        let source = if known { source } else { Source::Others };
        let by = self.touchers.entry(source).or_default();
        if by.touches.recorded == 0 {
            by.first = event.time;
        }
        if let Some(before) = before {
            by.touches += before.touches;
            by.first = by.first.min(before.first);
        }
        by.touches.add(touch, new);
        by.stacks += u64::from(touch.stack.is_some());
        by.last = event.time;
    }

    fn is_untouched_copy(&self) -> bool {
        self.origin.copied.is_some()
            && self.sums.flow == Flow::default()
            && self.sums.touched == Touches::default()
    }

    fn size(&self) -> Reverse<(Bytes, Reverse<u64>)> {
        Reverse((self.sums.reserved, Reverse(self.origin.id)))
    }
}

/// A sink that makes [`Lives`]. The filter chooses the reservations; of each its whole life is told.
#[derive(Debug)]
pub struct LivesSink {
    filter: Filter,
    provenance: Provenance,
    /// By space and number of the origin.
    going: BTreeMap<(SpaceId, u64), Going>,
    over: Vec<Going>,
    smaller: LifeSums,
    copies: LifeSums,
    stacks: Stacks,
    touched: BTreeMap<SpaceId, TouchedPages>,
    with_touches: bool,
    until: Timestamp,
}

impl LivesSink {
    /// A sink for the reservations that `filter` admits.
    pub fn new(filter: Filter) -> LivesSink {
        LivesSink {
            filter,
            provenance: Provenance::default(),
            going: BTreeMap::new(),
            over: Vec::new(),
            smaller: LifeSums::default(),
            copies: LifeSums::default(),
            stacks: Stacks::default(),
            touched: BTreeMap::new(),
            with_touches: false,
            until: Timestamp(0),
        }
    }

    /// The lives, once all events were taken.
    pub fn into_lives(self, namer: &mut dyn Namer) -> Lives {
        let LivesSink {
            mut over,
            smaller,
            copies,
            stacks,
            with_touches,
            until,
            ..
        } = self;
        over.sort_by_key(Going::size);
        let mut total = smaller;
        total += copies;
        let mut labels = Labels::new(&stacks, namer);
        let named = over.into_iter().map(|going| {
            total += going.sums;
            named(going, &mut labels)
        });
        let list = named.collect();
        Lives {
            list,
            smaller,
            copies,
            total,
            with_stacks: !stacks.is_empty(),
            with_touches,
            until,
        }
    }

    /// Reservations that a space began with. Of a copy that fork(2) made, what was committed of it
    /// belongs to it too.
    fn began(&mut self, space: SpaceId, state: &SpaceState) {
        let Some(history) = self.provenance.spaces.get(&space) else {
            return;
        };
        let mut begun: BTreeMap<u64, (Going, bool)> = BTreeMap::new();
        for (range, piece) in history.pieces.iter() {
            if !piece.origin.counts {
                continue;
            }
            let life = begun.entry(piece.origin.id);
            let (life, is_reservation) = life.or_insert_with(|| (Going::new(piece, state), false));
            let bytes = Bytes(range.len());
            life.sums.reserved += bytes;
            life.live += bytes.0;
            *is_reservation |= piece.prot.is_empty();
            if piece.commit.is_some() {
                life.sums.ever_committed += bytes;
            }
            if !piece.prot.is_empty() {
                // What was mapped with access is none, whatever was taken from a part of it since.
                life.mapped_committed |= piece.commit.is_none();
                let commits = life.commits(Source::of_commit(piece).0);
                commits.bytes += bytes;
                (commits.first, commits.last) = (piece.origin.time, piece.origin.time);
            }
        }
        for (id, (life, is_reservation)) in begun {
            if is_reservation && !life.mapped_committed {
                self.going.insert((space, id), life);
            }
        }
    }

    /// A page fault.
    fn touch(&mut self, event: &Event, touch: &TouchEvent) {
        self.with_touches = true;
        let new = self
            .touched
            .entry(event.space)
            .or_default()
            .touch(touch.addr);
        if let Some(piece) = self.provenance.piece_at(event.space, touch.addr)
            && let Some(life) = self.going.get_mut(&(event.space, piece.origin.id))
        {
            life.touched(event, touch, new);
        }
    }

    /// What is left of a space, and of its lives.
    fn ended(&mut self, space: SpaceId, state: &SpaceState) {
        self.touched.remove(&space);
        let history = self.provenance.spaces.remove(&space).unwrap_or_default();
        for vma in state.model.vmas() {
            for (range, piece) in history.pieces.overlapping(vma.range) {
                let bytes = Bytes(range.len());
                let key = (space, piece.origin.id);
                if vma.is_reserved() && piece.origin.how == How::Found && piece.origin.counts {
                    let found = self.going.entry(key);
                    let found = found.or_insert_with(|| Going::new(piece, state));
                    found.sums.reserved += bytes;
                }
                let Some(life) = self.going.get_mut(&key) else {
                    continue;
                };
                if vma.is_reserved() {
                    life.sums.reserved_now += bytes;
                } else {
                    life.sums.committed_now += bytes;
                    life.commits(Source::of_commit(piece).0).left += bytes;
                }
            }
        }
        let all = (space, 0)..=(space, u64::MAX);
        let ids: Vec<_> = self.going.range(all).map(|(key, _)| *key).collect();
        for id in ids {
            if let Some(life) = self.going.remove(&id) {
                self.is_over(life);
            }
        }
    }

    fn is_over(&mut self, mut life: Going) {
        // What the kernel's map showed was committed by no call.
        let ever = life.sums.ever_committed.max(life.sums.committed_now);
        life.sums.ever_committed = ever;
        if life.is_untouched_copy() {
            self.copies += life.sums;
            return;
        }
        self.over.push(life);
        if self.over.len() >= 2 * KEPT {
            self.over.sort_by_key(Going::size);
            for life in self.over.drain(KEPT..) {
                self.smaller += life.sums;
            }
        }
    }
}

/// What an event did to bytes of reservations.
fn happened(
    going: &mut BTreeMap<(SpaceId, u64), Going>,
    gone: &mut Vec<(SpaceId, u64)>,
    (event, call): (&Event, Option<&CallEvent>),
    state: &SpaceState,
    told: &Happened<'_>,
) {
    let Happened {
        verb,
        range,
        piece,
        first,
    } = told;
    let bytes = Bytes(range.len());
    let key = (event.space, piece.origin.id);
    if *verb == Verb::Reserve && piece.origin.counts {
        going.entry(key).or_insert_with(|| Going::new(piece, state));
    }
    let Some(life) = going.get_mut(&key) else {
        return;
    };
    (life.place, life.name) = (piece.place.clone(), piece.name.clone());
    match verb {
        Verb::Reserve => {
            life.sums.reserved += bytes;
            life.live += bytes.0;
        }
        Verb::Map | Verb::Grown => life.live += bytes.0,
        Verb::ReleaseReserved | Verb::ReleaseCommitted => {
            life.live = life.live.saturating_sub(bytes.0);
            if life.live == 0 {
                life.released = Some(event.time);
                gone.push(key);
            }
            life.sums.flow.count(*verb, bytes);
        }
        Verb::Commit => {
            life.sums.flow.count(*verb, bytes);
            if *first {
                life.sums.ever_committed += bytes;
            }
            let source = call.map_or(Source::Found, Source::of_call);
            let commits = life.commits(source);
            if commits.seq != event.seq {
                commits.calls += 1;
                commits.seq = event.seq;
            }
            if commits.bytes == Bytes(0) {
                commits.first = event.time;
            }
            commits.last = event.time;
            commits.bytes += bytes;
        }
        Verb::Decommit | Verb::Discard => life.sums.flow.count(*verb, bytes),
        Verb::MovedFrom | Verb::MovedTo => {}
    }
}

fn named(going: Going, labels: &mut Labels<'_>) -> ReservationLife {
    let Going {
        origin,
        pid,
        comm,
        place,
        name,
        committers,
        touchers,
        sums,
        live: _,
        mapped_committed: _,
        released,
    } = going;
    let committers = committers.into_iter();
    let mut committers: Vec<(Vec<Label>, Commits)> = committers
        .map(|(source, commits)| (labels.source(&source), commits))
        .collect();
    committers.sort_by_key(|(_, commits)| Reverse(commits.bytes.max(commits.left)));
    let touchers = touchers.into_iter();
    let mut touchers: Vec<(Vec<Label>, TouchedBy)> = touchers
        .map(|(source, by)| (labels.source(&source), by))
        .collect();
    touchers.sort_by_key(|(_, by)| Reverse((by.touches.bytes, by.touches.faults)));
    ReservationLife {
        reserver: labels.source(&Source::of_origin(&origin)),
        origin,
        pid,
        comm,
        place,
        name,
        committers,
        touchers,
        sums,
        released,
    }
}

impl Sink for LivesSink {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        self.until = self.until.max(event.time);
        let counts = self.filter.counts(event);
        let Some(state) = timeline.spaces.get(&event.space) else {
            return Ok(());
        };
        let call = match &event.kind {
            EventKind::Call(call) => Some(call),
            _ => None,
        };
        let going = &mut self.going;
        let mut gone = Vec::new();
        self.provenance.event(event, timeline, counts, &mut |told| {
            happened(going, &mut gone, (event, call), state, &told);
        });
        for key in gone {
            if let Some(life) = self.going.remove(&key) {
                self.is_over(life);
            }
        }
        match &event.kind {
            EventKind::SpaceBegan { .. } => self.began(event.space, state),
            EventKind::Touched(touch) => self.touch(event, touch),
            EventKind::Call(call) => {
                if let Some(touched) = self.touched.get_mut(&event.space) {
                    touched.follow(&call.spans);
                }
            }
            EventKind::SpaceEnded { .. } => self.ended(event.space, state),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, timeline: &Timeline) -> io::Result<()> {
        for (space, state) in &timeline.spaces {
            if self.provenance.spaces.contains_key(space) {
                self.ended(*space, state);
            }
        }
        self.stacks = timeline.stacks.clone();
        Ok(())
    }
}
