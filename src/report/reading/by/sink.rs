//! Makes a table of events, one at a time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::mm::{Flow, Verb};
use crate::report::call_name;
use crate::report::reading::filter::Filter;
use crate::report::reading::follow::Ahead;
use crate::report::reading::kinds::{Followed, Gone, Kinds};
use crate::report::reading::provenance::{History, How, Piece, Provenance};
use crate::report::reading::range_map::RangeMap;
use crate::report::recognize::Recognized;
use crate::report::touched::TouchedPages;
use crate::timeline::{
    CallEvent, Event, EventKind, Namer, Observation, Sink, SpaceState, Timeline, TouchEvent,
};
use crate::units::{AddrRange, Bytes, SpaceId, Tid, Timestamp};

use super::{By, Key, MappingRow, Row, Sums, Table};

/// Mappings that are gone and of which all is kept, once there are twice as many.
const KEPT: usize = 2048;

/// A sink that makes a [`Table`].
#[derive(Debug)]
pub struct TableSink {
    by: By,
    filter: Filter,
    provenance: Provenance,
    kinds: Kinds,
    rows: BTreeMap<Key, Row>,
    touched: BTreeMap<SpaceId, TouchedPages>,
    done: usize,
    until: Timestamp,
}

/// What one event did to bytes of one row.
struct Told {
    verb: Verb,
    range: AddrRange,
    key: Key,
}

impl Table {
    /// A sink that makes a table of the events that `filter` admits.
    pub fn of(by: By, filter: Filter) -> TableSink {
        TableSink {
            by,
            filter,
            provenance: Provenance::default(),
            kinds: Kinds::default(),
            rows: BTreeMap::new(),
            touched: BTreeMap::new(),
            done: 0,
            until: Timestamp(0),
        }
    }
}

/// The row that a piece belongs to.
fn key_of(by: By, piece: &Piece) -> Key {
    let origin = &piece.origin;
    match (by, origin.how) {
        // What it is becomes known later.
        (By::Mapping | By::Kind, _) => Key::Mapping(origin.id),
        (By::File, _) => Key::Place(piece.place.clone()),
        (By::Space, _) => Key::Space(origin.space),
        (By::Call | By::Thread, How::Began(_)) => Key::Began,
        (By::Call | By::Thread, How::Grown | How::Found) => Key::Found,
        (By::Call, How::Call) => origin.by.call().map_or(Key::Found, Key::Call),
        (By::Thread, How::Call) => Key::Thread(origin.by.tid),
    }
}

impl TableSink {
    /// Functions that called get their names from `namer`: of use for a table by kind.
    pub fn named_by(mut self, namer: Box<dyn Namer + Send>) -> TableSink {
        self.kinds.name_by(namer);
        self
    }

    /// Tells it what the trace holds further on: of use for a table by kind.
    pub fn knowing(mut self, ahead: Ahead) -> TableSink {
        self.kinds.know(ahead);
        self
    }

    /// The table, once all events were taken.
    pub fn into_table(self) -> Table {
        let TableSink {
            by, rows, until, ..
        } = self;
        let mut total = Sums::default();
        let mut rows: Vec<Row> = rows.into_values().collect();
        rows.iter().for_each(|row| total += row.sums);
        rows.retain(|row| row.sums != Sums::default());
        // What is no row of its own kind goes last among equals, and the rest of many always.
        rows.sort_by_key(|row| {
            (
                row.key == Key::Others,
                Reverse(row.weight(by)),
                row.key.clone(),
            )
        });
        Table {
            by,
            rows,
            total,
            until,
        }
    }

    fn row(&mut self, key: Key) -> &mut Row {
        self.rows
            .entry(key.clone())
            .or_insert_with(|| Row::new(key))
    }

    fn row_of(&mut self, piece: &Piece, pid: Tid) -> &mut Row {
        let key = key_of(self.by, piece);
        let by_mapping = self.by == By::Mapping;
        let row = self.row(key);
        if by_mapping {
            row.pid = Some(pid);
            let mapping = row.mapping.get_or_insert_with(|| MappingRow {
                origin: Arc::clone(&piece.origin),
                place: piece.place.clone(),
                name: None,
                released: None,
            });
            mapping.place = piece.place.clone();
            mapping.name = piece.name.clone();
        }
        row
    }

    fn began(&mut self, event: &Event, state: &SpaceState) {
        let history = self.provenance.spaces.get(&event.space).cloned();
        for (range, piece) in history.unwrap_or_default().pieces.iter() {
            let counts = piece.origin.counts;
            let row = self.row_of(piece, state.pid);
            row.live += range.len();
            if counts {
                row.sums.began += Bytes(range.len());
            }
        }
        if self.by == By::Space && self.filter.admits_space(event.space, state.pid) {
            self.name_space(event.space, state);
        }
    }

    fn name_space(&mut self, space: SpaceId, state: &SpaceState) {
        let name = match state.exe.rsplit('/').next() {
            Some(file) if state.comm.is_empty() => file.into(),
            _ => Arc::clone(&state.comm),
        };
        let row = self.row(Key::Space(space));
        (row.comm, row.pid) = (name, Some(state.pid));
    }

    fn call(&mut self, event: &Event, call: &CallEvent, told: &[Told], timeline: &Timeline) {
        let whole = Sums::of_call(call);
        let key = match self.by {
            By::Call => Key::Call(call_name(&call.raw)),
            By::Thread => Key::Thread(event.tid),
            By::Space => Key::Space(event.space),
            By::File | By::Mapping | By::Kind => return self.split(whole, told),
        };
        if whole == Sums::default() {
            return;
        }
        let row = self.row(key);
        row.sums += whole;
        if let Key::Thread(tid) = row.key
            && let Some(task) = timeline.tasks.get(&tid)
        {
            (row.comm, row.pid) = (Arc::clone(&task.comm), Some(task.pid));
        }
        if let (By::Space, Some(state)) = (self.by, timeline.spaces.get(&event.space)) {
            self.name_space(event.space, state);
        }
    }

    /// A page fault: of who took it, where rows are threads; else of the bytes.
    fn touch(&mut self, event: &Event, touch: &TouchEvent) {
        let pages = self.touched.entry(event.space).or_default();
        let new = pages.touch(touch.addr);
        let key = match self.by {
            By::Thread => Key::Thread(event.tid),
            By::Space => Key::Space(event.space),
            By::Call | By::File | By::Mapping | By::Kind => {
                match self.provenance.piece_at(event.space, touch.addr) {
                    None => Key::Found,
                    Some(piece) if !piece.origin.counts => return,
                    Some(piece) => match self.kinds.of_file(event.space, piece) {
                        Some(known) if self.by == By::Kind => self.kind_row(Some(known), 0),
                        _ => key_of(self.by, piece),
                    },
                }
            }
        };
        self.row(key).sums.touched.add(touch, new);
    }

    /// Gives each byte of a call to its row, and the call to the row with the most.
    fn split(&mut self, whole: Sums, told: &[Told]) {
        let mut rest = whole;
        let mut last = RangeMap::default();
        for Told { verb, range, key } in told {
            if *verb != Verb::MovedFrom {
                last.set(*range, key);
            }
            let mut flow = Flow::default();
            flow.count(*verb, Bytes(range.len()));
            take(&mut rest.flow, &flow);
            self.row(key.clone()).sums.flow += flow;
        }
        let mut bytes: BTreeMap<&Key, u64> = BTreeMap::new();
        for (range, key) in last.iter() {
            *bytes.entry(key).or_default() += range.len();
        }
        for (key, bytes) in &bytes {
            self.row((*key).clone()).sums.bytes += Bytes(*bytes);
            rest.bytes.0 = rest.bytes.0.saturating_sub(*bytes);
        }
        let most = bytes.iter().max_by_key(|(_, bytes)| **bytes);
        let most = most.map_or(Key::Nothing, |(key, _)| (*key).clone());
        let row = self.row(most);
        row.sums.calls += rest.calls;
        row.sums.failed += rest.failed;
        (rest.calls, rest.failed) = (0, 0);
        if rest != Sums::default() {
            self.row(Key::Found).sums += rest;
        }
    }

    /// Keeps up which mappings are gone.
    fn follow_life(&mut self, told: &[Told], time: Timestamp) {
        for Told { verb, range, key } in told {
            let Some(row) = self.rows.get_mut(key) else {
                continue;
            };
            match verb {
                Verb::Reserve | Verb::Map | Verb::Grown => row.live += range.len(),
                Verb::ReleaseReserved | Verb::ReleaseCommitted => {
                    row.live = row.live.saturating_sub(range.len());
                }
                _ => {}
            }
            if row.live == 0 && !row.done {
                row.done = true;
                self.done += 1;
                if let Some(mapping) = &mut row.mapping {
                    mapping.released = Some(time);
                }
            }
        }
    }

    /// What is left of a space is what its rows end with.
    fn ended(&mut self, space: SpaceId, state: &SpaceState) {
        self.touched.remove(&space);
        let history: History = self.provenance.spaces.remove(&space).unwrap_or_default();
        if self.by == By::Kind {
            return self.ended_by_kind(space, state, &history);
        }
        for vma in state.model.vmas() {
            for (range, piece) in history.pieces.overlapping(vma.range) {
                let reserved = vma.is_reserved();
                let by_mapping = self.by == By::Mapping;
                let row = self.row_of(piece, state.pid);
                if piece.origin.counts {
                    row.sums.leave(Bytes(range.len()), reserved);
                }
                if by_mapping && !row.done {
                    row.done = true;
                    self.done += 1;
                }
            }
        }
        self.fold();
    }

    /// The same where rows are kinds.
    fn ended_by_kind(&mut self, space: SpaceId, state: &SpaceState, history: &History) {
        self.kinds.learn(space);
        let mut verdicts: BTreeMap<u64, Option<Recognized>> = BTreeMap::new();
        for vma in state.model.vmas() {
            for (range, piece) in history.pieces.overlapping(vma.range) {
                let id = piece.origin.id;
                let key = match self.kinds.of_file(space, piece) {
                    Some(known) => self.kind_row(Some(known), 0),
                    None => {
                        let verdict = verdicts.entry(id);
                        verdict.or_insert_with(|| self.kinds.of(space, range, piece));
                        Key::Mapping(id)
                    }
                };
                if piece.origin.counts {
                    let sums = &mut self.row(key).sums;
                    sums.leave(Bytes(range.len()), vma.is_reserved());
                }
            }
        }
        let known = self.kinds.end(space);
        verdicts.extend(known.into_iter().map(|gone| (gone.id, gone.verdict)));
        for (id, verdict) in verdicts {
            self.merge(Gone { id, verdict });
        }
    }

    /// The row of a kind, of which `mappings` more are known.
    fn kind_row(&mut self, verdict: Option<Recognized>, mappings: u64) -> Key {
        let key = Key::Kind(verdict.as_ref().map(|known| known.kind));
        let row = self.row(key.clone());
        row.rows += mappings;
        let better = match (&row.recognized, &verdict) {
            (Some(known), Some(new)) => new.basis < known.basis,
            (None, new) => new.is_some(),
            (Some(_), None) => false,
        };
        if better {
            row.recognized = verdict;
        }
        key
    }

    /// Adds the sums of a mapping to those of its kind.
    fn merge(&mut self, gone: Gone) {
        let Some(row) = self.rows.remove(&Key::Mapping(gone.id)) else {
            return;
        };
        let counts = row.sums != Sums::default();
        let key = self.kind_row(gone.verdict, u64::from(counts));
        self.row(key).sums += row.sums;
    }

    /// Puts the smallest of many mappings that are gone together.
    fn fold(&mut self) {
        if self.by != By::Mapping || self.done < 2 * KEPT {
            return;
        }
        let by = self.by;
        let done = self
            .rows
            .values()
            .filter(|row| row.done && row.key != Key::Others);
        let mut done: Vec<(Bytes, Key)> =
            done.map(|row| (row.weight(by), row.key.clone())).collect();
        done.sort_by(|a, b| b.cmp(a));
        for (_, key) in done.into_iter().skip(KEPT) {
            if let Some(row) = self.rows.remove(&key) {
                let others = self.row(Key::Others);
                others.rows += 1;
                others.sums += row.sums;
            }
        }
        self.done = KEPT;
    }
}

/// Takes `part` away from `whole`.
fn take(whole: &mut Flow, part: &Flow) {
    let less = |whole: &mut Bytes, part: Bytes| whole.0 = whole.0.saturating_sub(part.0);
    less(&mut whole.reserve, part.reserve);
    less(&mut whole.map, part.map);
    less(&mut whole.commit, part.commit);
    less(&mut whole.decommit, part.decommit);
    less(&mut whole.release, part.release);
    less(&mut whole.discard, part.discard);
}

impl Sink for TableSink {
    fn observation(&mut self, observation: &Observation) -> io::Result<()> {
        self.kinds.observe(observation);
        Ok(())
    }

    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        self.until = self.until.max(event.time);
        let by = self.by;
        let counts = self.filter.counts(event);
        let mut told = Vec::new();
        let mut pieces: Vec<(AddrRange, Piece)> = Vec::new();
        let mut followed: Vec<Followed> = Vec::new();
        self.provenance
            .event(event, timeline, counts, &mut |happened| {
                if matches!(by, By::File | By::Mapping) {
                    told.push(Told {
                        verb: happened.verb,
                        range: happened.range,
                        key: key_of(by, happened.piece),
                    });
                }
                if by == By::Kind {
                    followed.push(Followed::of(&happened));
                }
                if by == By::Mapping {
                    pieces.push((happened.range, happened.piece.clone()));
                }
            });
        let mut gone = Vec::new();
        if by == By::Kind {
            for Followed { verb, range, piece } in &followed {
                let key = match self.kinds.of_file(event.space, piece) {
                    Some(known) => self.kind_row(Some(known), 0),
                    None => key_of(by, piece),
                };
                let (verb, range) = (*verb, *range);
                told.push(Told { verb, range, key });
            }
            gone = self
                .kinds
                .event(event, timeline, &self.provenance, &followed);
        }
        let Some(state) = timeline.spaces.get(&event.space) else {
            return Ok(());
        };
        for (_, piece) in &pieces {
            self.row_of(piece, state.pid);
        }
        match &event.kind {
            EventKind::SpaceBegan { .. } => self.began(event, state),
            EventKind::Call(call) => {
                if counts {
                    self.call(event, call, &told, timeline);
                }
                if let Some(touched) = self.touched.get_mut(&event.space) {
                    touched.follow(&call.spans);
                }
                if by == By::Mapping {
                    self.follow_life(&told, event.time);
                    self.fold();
                }
            }
            EventKind::Touched(touch) if counts => self.touch(event, touch),
            EventKind::SpaceEnded { .. } => self.ended(event.space, state),
            _ => {}
        }
        gone.into_iter().for_each(|gone| self.merge(gone));
        Ok(())
    }

    fn finish(&mut self, timeline: &Timeline) -> io::Result<()> {
        for space in self.provenance.spaces.keys().copied().collect::<Vec<_>>() {
            if let Some(state) = timeline.spaces.get(&space) {
                self.ended(space, state);
            }
        }
        Ok(())
    }
}
