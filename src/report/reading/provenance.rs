//! Who made each mapping and when, and who gave it its present rights.
//!
//! The model keeps what is mapped, not who did it: neighbours that differ in nothing are one there.
//! Beside it a map of the same bytes is kept here, one value for what one event made. It follows
//! the spans of calls, takes rights and backing from the model, and is brought in line with it
//! where bytes changed without a span.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::decode::Call;
use crate::mm::{Span, Verb};
use crate::report::{Made, Maker, Place, is_error};
use crate::timeline::{Began, CallEvent, Event, EventKind, SpaceState, Timeline};
use crate::units::{Addr, AddrRange, SpaceId};

use super::asked::{asked, named};

/// The result of a call that failed with EINVAL.
const EINVAL: i64 = -22;

mod history;
mod origin;

pub(super) use history::History;
pub(super) use origin::Piece;
pub use origin::{How, Origin, RightsChange};

/// What happened to some bytes: those that are gone as they were, all others as they are now.
pub(super) struct Happened<'a> {
    pub(super) verb: Verb,
    pub(super) range: AddrRange,
    pub(super) piece: &'a Piece,
    /// Of bytes that are committed: for the first time since they were mapped.
    pub(super) first: bool,
}

/// All living spaces.
#[derive(Debug, Default)]
pub(super) struct Provenance {
    pub(super) spaces: BTreeMap<SpaceId, History>,
    origins: u64,
}

/// The event at hand.
struct Now<'a> {
    event: &'a Event,
    by: Maker,
    how: How,
    counts: bool,
    call: Option<&'a CallEvent>,
    state: &'a SpaceState,
    /// Made when it is needed.
    origin: Option<Arc<Origin>>,
    change: Option<Arc<RightsChange>>,
}

impl Now<'_> {
    fn origin(&mut self, origins: &mut u64, start: Addr) -> Arc<Origin> {
        let origin = self.origin.get_or_insert_with(|| {
            *origins += 1;
            Arc::new(Origin {
                id: *origins,
                time: self.event.time,
                by: self.by,
                how: self.how,
                space: self.event.space,
                start,
                copied: None,
                counts: self.counts,
                stack: self.call.and_then(|call| call.stack),
            })
        });
        Arc::clone(origin)
    }

    /// The same event, as that after which a stack was seen to have grown.
    fn grown(&self, origins: &mut u64, start: Addr) -> Arc<Origin> {
        *origins += 1;
        Arc::new(Origin {
            id: *origins,
            time: self.event.time,
            by: self.by,
            how: How::Grown,
            space: self.event.space,
            start,
            copied: None,
            counts: self.counts,
            stack: None,
        })
    }

    fn change(&mut self) -> Option<Arc<RightsChange>> {
        let change = self.change.get_or_insert_with(|| {
            Arc::new(RightsChange {
                time: self.event.time,
                by: self.by,
                stack: self.call.and_then(|call| call.stack),
                counts: self.counts,
            })
        });
        Some(Arc::clone(change))
    }

    fn place(&self, range: AddrRange) -> Place {
        match self.call {
            Some(call) => Place::of_call(&call.call, range, Some(self.state)),
            None => {
                let vma = self.state.model.overlapping(range).next();
                vma.map_or(Place::Anon, |vma| Place::of(vma, self.state))
            }
        }
    }
}

impl Provenance {
    /// What is known of the byte at `addr`.
    pub(super) fn piece_at(&self, space: SpaceId, addr: Addr) -> Option<&Piece> {
        let page = AddrRange::covering(addr.page_floor(), 1)?;
        let pieces = &self.spaces.get(&space)?.pieces;
        pieces.overlapping(page).next().map(|(_, piece)| piece)
    }

    /// Takes an event; `counts` says whether the question is about it. What happened to which bytes
    /// is told to `tell`. A space that ends stays until [`Provenance::forget`].
    pub(super) fn event(
        &mut self,
        event: &Event,
        timeline: &Timeline,
        counts: bool,
        tell: &mut dyn FnMut(Happened<'_>),
    ) {
        let Some(state) = timeline.spaces.get(&event.space) else {
            return;
        };
        let (how, what, call) = match &event.kind {
            EventKind::SpaceBegan { began, .. } => (How::Began(*began), Made::Began, None),
            EventKind::Call(call) => (How::Call, Made::Call(call.raw, call.result), Some(call)),
            EventKind::Checked(_) => (How::Found, Made::Checked, None),
            _ => return,
        };
        let by = Maker {
            seq: event.seq,
            tid: event.tid,
            what,
        };
        let now = Now {
            event,
            by,
            how,
            counts,
            call,
            state,
            origin: None,
            change: None,
        };
        match &event.kind {
            EventKind::SpaceBegan { began, .. } => self.begin(*began, now),
            EventKind::Call(call) => self.call(call, now, tell),
            EventKind::Checked(checked)
                if checked.before != checked.now || checked.resynced.0 > 0 =>
            {
                self.align(now);
            }
            _ => {}
        }
    }

    /// Drops a space that ended.
    pub(super) fn forget(&mut self, space: SpaceId) {
        self.spaces.remove(&space);
    }

    fn begin(&mut self, began: Began, now: Now<'_>) {
        let parent = match began {
            Began::Fork {
                parent: Some(parent),
            } => self.spaces.get(&parent).cloned(),
            _ => None,
        };
        let parent = parent.unwrap_or_default();
        let mut history = History::default();
        // Each origin of the parent has one copy, however many pieces it is in.
        let mut copies: BTreeMap<u64, Arc<Origin>> = BTreeMap::new();
        for vma in now.state.model.vmas() {
            let mut at = vma.range.start();
            let mut spans: Vec<(AddrRange, Option<&Piece>)> = Vec::new();
            for (range, piece) in parent.pieces.overlapping(vma.range) {
                spans.extend(AddrRange::new(at, range.start()).map(|range| (range, None)));
                spans.push((range, Some(piece)));
                at = range.end();
            }
            spans.extend(AddrRange::new(at, vma.range.end()).map(|range| (range, None)));
            let mut own: Option<Arc<Origin>> = None;
            for (range, known) in spans {
                let mut make = |copied: Option<Arc<Origin>>| {
                    self.origins += 1;
                    Arc::new(Origin {
                        id: self.origins,
                        time: now.event.time,
                        by: now.by,
                        how: now.how,
                        space: now.event.space,
                        start: range.start(),
                        copied,
                        counts: now.counts,
                        stack: None,
                    })
                };
                let origin = match known {
                    Some(piece) => copies.entry(piece.origin.id).or_insert_with(|| {
                        let first = piece.origin.copied.as_ref().unwrap_or(&piece.origin);
                        make(Some(Arc::clone(first)))
                    }),
                    None => own.get_or_insert_with(|| make(None)),
                };
                let place = match known {
                    Some(piece) => piece.place.clone(),
                    None => Place::of(vma, now.state),
                };
                let piece = Piece {
                    origin: Arc::clone(origin),
                    change: known.and_then(|piece| piece.change.clone()),
                    commit: known.and_then(|piece| piece.commit.clone()),
                    place,
                    prot: vma.prot.rwx(),
                    name: known.and_then(|piece| piece.name.clone()),
                };
                history.pieces.set(range, piece);
            }
        }
        self.spaces.insert(now.event.space, history);
    }

    fn call(&mut self, call: &CallEvent, mut now: Now<'_>, tell: &mut dyn FnMut(Happened<'_>)) {
        let Some(history) = self.spaces.get_mut(&now.event.space) else {
            return;
        };
        let origins = &mut self.origins;
        let mut lifted = VecDeque::new();
        for &Span { range, verb } in &call.spans {
            match verb {
                Verb::Reserve | Verb::Map | Verb::Grown => {
                    history.pieces.lift(range);
                    let origin = match verb {
                        Verb::Grown => now.grown(origins, range.start()),
                        _ => now.origin(origins, range.start()),
                    };
                    history.insert(range, &origin, &now);
                    history.tell(verb, range, tell);
                }
                Verb::Commit | Verb::Decommit => history.switch(verb, range, &mut now, tell),
                Verb::ReleaseReserved | Verb::ReleaseCommitted => {
                    for (range, piece) in history.pieces.lift(range) {
                        tell(Happened {
                            verb,
                            range,
                            piece: &piece,
                            first: false,
                        });
                    }
                }
                Verb::Discard => history.tell(verb, range, tell),
                Verb::MovedFrom => lifted.push_back((range, history.pieces.lift(range))),
                Verb::MovedTo => {
                    if let Some((from, pieces)) = lifted.pop_front() {
                        history.put_down(from, range, pieces, &mut now);
                    }
                    history.tell(verb, range, tell);
                }
            }
        }
        if let (Call::Mprotect { .. }, Some(range)) =
            (&call.call, asked(&call.call, &call.raw).range())
        {
            history.sync(range, &mut now);
        }
        if let Some(range) = named(&call.raw)
            && call.result.is_some_and(|result| {
                // EINVAL is what a kernel without CONFIG_ANON_VMA_NAME answers: the name is no
                // less what the program calls it.
                !is_error(&call.raw, result) || result == EINVAL
            })
        {
            history.name(range, call);
        }
        if history.pieces.bytes() != call.now.mapped.0 {
            self.align(now);
        }
    }

    /// Brings a space in line with its model: bytes that are new there were found by this event.
    fn align(&mut self, mut now: Now<'_>) {
        let Some(history) = self.spaces.get_mut(&now.event.space) else {
            return;
        };
        now.how = How::Found;
        // What a comparison showed and is no difference of it is growth.
        let differences = match &now.event.kind {
            EventKind::Checked(checked) => Some(checked.differences.as_slice()),
            _ => None,
        };
        let is_growth = |range: AddrRange| {
            differences.is_some_and(|found| found.iter().all(|found| !found.range.overlaps(range)))
        };
        let unknown =
            |origins: &mut u64, now: &mut Now<'_>, range: AddrRange| match is_growth(range) {
                true => now.grown(origins, range.start()),
                false => now.origin(origins, range.start()),
            };
        let old = std::mem::take(&mut history.pieces);
        for vma in now.state.model.vmas() {
            let mut at = vma.range.start();
            for (range, piece) in old.overlapping(vma.range) {
                if let Some(new) = AddrRange::new(at, range.start()) {
                    let origin = unknown(&mut self.origins, &mut now, new);
                    history.insert(new, &origin, &now);
                }
                at = range.end();
                let mut piece = piece.clone();
                if piece.prot != vma.prot.rwx() {
                    if piece.prot.is_empty() {
                        piece.commit = now.change();
                    }
                    piece.prot = vma.prot.rwx();
                    piece.change = now.change();
                }
                // What the call said of its place is known better than what the model shows.
                let shown = Place::of(vma, now.state);
                if !matches!((&piece.place, &shown), (Place::ThreadStack, Place::Anon)) {
                    piece.place = shown;
                }
                history.pieces.set(range, piece);
            }
            if let Some(new) = AddrRange::new(at, vma.range.end()) {
                let origin = unknown(&mut self.origins, &mut now, new);
                history.insert(new, &origin, &now);
            }
        }
    }
}
