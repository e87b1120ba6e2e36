//! Whose the bytes of an address space are: the place of each, and the call that reserved it.
//!
//! Follows the spans of events, so it costs little more than a map entry per live mapping. Where
//! bytes change without a span (a stack that grew, a corrected model) it is brought in line with
//! the model again, and what is known about the other bytes stays.

use std::collections::{BTreeMap, VecDeque};

use crate::decode::Call;
use crate::mm::{Span, Totals, Verb};
use crate::timeline::SpaceState;
use crate::units::{Addr, AddrRange, Bytes, Timestamp};

use super::facts::{Maker, Reservation, Reservations};
use super::places::{Place, PlaceBytes, Places};

/// Reservations that a report lists for each space.
const LARGEST: usize = 32;

/// Bytes with one fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    end: Addr,
    reserved: bool,
    /// It was committed at some time. Kept only where it belongs to a reservation.
    ever: bool,
    owner: Option<usize>,
    place: usize,
}

/// Live mappings with their owners.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pieces: BTreeMap<Addr, Piece>,
    places: Places,
    owners: Vec<Option<Reservation>>,
    free: Vec<usize>,
    ended: Vec<Reservation>,
    totals: Reservations,
    reserved: u64,
    committed: u64,
    /// What one call moves: where each span was, and what was there.
    lifted: VecDeque<(AddrRange, Vec<(AddrRange, Piece)>)>,
}

/// A mapping as the model shows it.
struct Shown {
    range: AddrRange,
    reserved: bool,
    place: Place,
}

/// What made the bytes at hand.
#[derive(Clone, Copy)]
pub(super) struct Cause<'a> {
    pub time: Timestamp,
    pub by: Maker,
    pub call: &'a Call,
    pub state: Option<&'a SpaceState>,
}

impl Ledger {
    /// Follows the spans of one call.
    pub(super) fn call(&mut self, spans: &[Span], now: &Totals, cause: Cause<'_>) {
        for Span { range, verb } in spans {
            match verb {
                Verb::Reserve => self.reserve(*range, cause),
                Verb::Map => self.map(*range, Place::of_call(cause.call, *range, cause.state)),
                Verb::Grown => self.map(*range, Place::Stack),
                Verb::Commit => self.set_reserved(*range, false),
                Verb::Decommit => self.set_reserved(*range, true),
                Verb::ReleaseReserved | Verb::ReleaseCommitted => {
                    let gone = self.lift(*range);
                    self.release(&gone, cause.time);
                }
                Verb::MovedFrom => {
                    let pieces = self.lift(*range);
                    self.lifted.push_back((*range, pieces));
                }
                Verb::MovedTo => self.put_down(*range),
                Verb::Discard => {}
            }
        }
        while let Some((_, gone)) = self.lifted.pop_front() {
            self.release(&gone, cause.time);
        }
        self.check(now, cause.time, cause.state);
    }

    /// Brings the ledger in line with the model if their sums differ.
    pub(super) fn check(&mut self, now: &Totals, time: Timestamp, state: Option<&SpaceState>) {
        if (self.reserved, self.committed) != (now.reserved.0, now.committed.0)
            && let Some(state) = state
        {
            let shown = state.model.vmas();
            self.rebuild(
                time,
                shown.map(|vma| Shown {
                    range: vma.range,
                    reserved: vma.is_reserved(),
                    place: Place::of(vma, state),
                }),
            );
        }
    }

    /// Bytes by place.
    pub(super) fn places(&self) -> Vec<PlaceBytes> {
        self.places.list()
    }

    /// The largest reservations, live and ended.
    pub(super) fn reservations(&self) -> Reservations {
        let mut totals = self.totals.clone();
        let mut largest = self.ended.clone();
        for owner in self.owners.iter().flatten() {
            totals.ever_committed += owner.ever_committed;
            largest.push(*owner);
        }
        sort_largest(&mut largest);
        largest.truncate(LARGEST);
        totals.largest = largest;
        totals
    }

    fn reserve(&mut self, range: AddrRange, cause: Cause<'_>) {
        let place = Place::of_call(cause.call, range, cause.state);
        let owner = self.own(range, cause.time, cause.by);
        let place = self.places.number(place);
        self.insert(
            range,
            Piece {
                end: range.end(),
                reserved: true,
                ever: false,
                owner: Some(owner),
                place,
            },
        );
    }

    fn map(&mut self, range: AddrRange, place: Place) {
        let place = self.places.number(place);
        self.insert(
            range,
            Piece {
                end: range.end(),
                reserved: false,
                ever: false,
                owner: None,
                place,
            },
        );
    }

    /// A new reservation, without bytes yet.
    fn own(&mut self, range: AddrRange, time: Timestamp, by: Maker) -> usize {
        let bytes = Bytes(range.len());
        self.totals.count += 1;
        self.totals.bytes += bytes;
        let reservation = Reservation {
            range,
            time,
            by,
            bytes,
            ever_committed: Bytes(0),
            committed: Bytes(0),
            mapped: Bytes(0),
            released: None,
        };
        match self.free.pop() {
            Some(owner) => {
                self.owners[owner] = Some(reservation);
                owner
            }
            None => {
                self.owners.push(Some(reservation));
                self.owners.len() - 1
            }
        }
    }

    /// Adds (or takes away) the bytes of a piece to all sums.
    fn count(&mut self, len: u64, piece: &Piece, add: bool) {
        let step = |amount: &mut u64| {
            *amount = if add {
                amount.saturating_add(len)
            } else {
                amount.saturating_sub(len)
            };
        };
        step(if piece.reserved {
            &mut self.reserved
        } else {
            &mut self.committed
        });
        match add {
            true => self.places.add(piece.place, len, piece.reserved),
            false => self.places.sub(piece.place, len, piece.reserved),
        }
        if let Some(owner) = piece
            .owner
            .and_then(|owner| self.owners.get_mut(owner)?.as_mut())
        {
            step(&mut owner.mapped.0);
            if !piece.reserved {
                step(&mut owner.committed.0);
            }
        }
    }

    /// Puts a piece into a free range, as one with a neighbour it does not differ from.
    fn insert(&mut self, range: AddrRange, mut piece: Piece) {
        self.count(range.len(), &piece, true);
        let mut start = range.start();
        if let Some((before, neighbour)) = self.pieces.range(..start).next_back()
            && *neighbour
                == (Piece {
                    end: start,
                    ..piece
                })
        {
            start = *before;
        }
        if let Some(next) = self.pieces.get(&piece.end)
            && *next
                == (Piece {
                    end: next.end,
                    ..piece
                })
        {
            let end = next.end;
            self.pieces.remove(&piece.end);
            piece.end = end;
        }
        self.pieces.insert(start, piece);
    }

    /// Takes all pieces in `range` out, cutting those that reach beyond it.
    fn lift(&mut self, range: AddrRange) -> Vec<(AddrRange, Piece)> {
        let first = self.pieces.range(..range.start()).next_back();
        let first = first
            .filter(|(_, piece)| range.start() < piece.end)
            .map(|(start, _)| *start);
        let from = first.unwrap_or(range.start());
        let mut lifted = Vec::new();
        while let Some((start, piece)) = self
            .pieces
            .range(from..range.end())
            .map(|(s, p)| (*s, *p))
            .find(|(_, piece)| range.start() < piece.end)
        {
            self.pieces.remove(&start);
            if start < range.start() {
                self.pieces.insert(
                    start,
                    Piece {
                        end: range.start(),
                        ..piece
                    },
                );
            }
            if range.end() < piece.end {
                self.pieces.insert(range.end(), piece);
            }
            let inside = AddrRange::new(start.max(range.start()), piece.end.min(range.end()));
            if let Some(inside) = inside {
                self.count(inside.len(), &piece, false);
                lifted.push((
                    inside,
                    Piece {
                        end: inside.end(),
                        ..piece
                    },
                ));
            }
        }
        lifted
    }

    /// Lifted pieces are gone for good.
    fn release(&mut self, pieces: &[(AddrRange, Piece)], time: Timestamp) {
        for (_, piece) in pieces {
            self.places.forget_empty(piece.place);
            let Some(owner) = piece.owner else { continue };
            let slot = self.owners.get_mut(owner);
            if let Some(mut ended) = slot.and_then(|slot| slot.take_if(|owner| owner.mapped.0 == 0))
            {
                self.free.push(owner);
                ended.released = Some(time);
                self.totals.ever_committed += ended.ever_committed;
                self.keep_if_large(ended);
            }
        }
    }

    fn keep_if_large(&mut self, ended: Reservation) {
        if self.ended.len() < LARGEST
            || self
                .ended
                .last()
                .is_some_and(|last| last.bytes < ended.bytes)
        {
            self.ended.push(ended);
            sort_largest(&mut self.ended);
            self.ended.truncate(LARGEST);
        }
    }

    /// Puts the span that was lifted first down at `to`.
    fn put_down(&mut self, to: AddrRange) {
        let Some((from, pieces)) = self.lifted.pop_front() else {
            return;
        };
        let distance = to.start().0.wrapping_sub(from.start().0);
        let moved = |addr: Addr| Addr(addr.0.wrapping_add(distance));
        for (range, piece) in pieces {
            if let Some(range) = AddrRange::new(moved(range.start()), moved(range.end())) {
                self.insert(
                    range,
                    Piece {
                        end: range.end(),
                        ..piece
                    },
                );
            }
        }
    }

    fn set_reserved(&mut self, range: AddrRange, reserved: bool) {
        for (range, mut piece) in self.lift(range) {
            if !reserved
                && !piece.ever
                && let Some(owner) = piece
                    .owner
                    .and_then(|owner| self.owners.get_mut(owner)?.as_mut())
            {
                owner.ever_committed += Bytes(range.len());
                piece.ever = true;
            }
            self.insert(range, Piece { reserved, ..piece });
        }
    }

    /// Takes the layout from the model, and what is known of its bytes from the ledger.
    fn rebuild(&mut self, time: Timestamp, layout: impl Iterator<Item = Shown>) {
        let everything = AddrRange::new(Addr(0), Addr(!0xfff));
        let mut old = everything
            .map_or_else(Vec::new, |all| self.lift(all))
            .into_iter()
            .peekable();
        let mut dropped = Vec::new();
        self.zero();
        for Shown {
            range,
            reserved,
            place,
        } in layout
        {
            let mut at = range.start();
            while at < range.end() {
                while let Some(gone) = old.next_if(|(old, _)| old.end() <= at) {
                    dropped.push(gone);
                }
                // Up to the next old piece nothing is known; inside one, its owner is.
                let (until, known) = match old.peek() {
                    Some((old, piece)) if old.start() <= at => {
                        (old.end().min(range.end()), Some(*piece))
                    }
                    Some((old, _)) => (old.start().min(range.end()), None),
                    None => (range.end(), None),
                };
                let Some(part) = AddrRange::new(at, until) else {
                    break;
                };
                self.adopt(part, known, reserved, &place, time);
                at = until;
            }
        }
        dropped.extend(old);
        self.release(&dropped, time);
        self.places.forget_all_empty();
    }

    /// All sums of an empty ledger, whatever led to it.
    fn zero(&mut self) {
        self.pieces.clear();
        self.places.zero();
        (self.reserved, self.committed) = (0, 0);
        for owner in self.owners.iter_mut().flatten() {
            (owner.mapped, owner.committed) = (Bytes(0), Bytes(0));
        }
    }

    fn adopt(
        &mut self,
        range: AddrRange,
        known: Option<Piece>,
        reserved: bool,
        shown: &Place,
        time: Timestamp,
    ) {
        let mut piece = known.unwrap_or(Piece {
            end: range.end(),
            reserved,
            ever: false,
            owner: None,
            place: usize::MAX,
        });
        piece.end = range.end();
        let before = self.places.get(piece.place);
        // The model cannot tell these from other private memory.
        let told_apart =
            matches!(before, Some(Place::Heap | Place::ThreadStack)) && *shown == Place::Anon;
        if !told_apart {
            piece.place = self.places.number(shown.clone());
        }
        if reserved && piece.owner.is_none() && known.is_none() {
            piece.owner = Some(self.own(range, time, Maker::default()));
        }
        if !reserved
            && !piece.ever
            && let Some(owner) = piece
                .owner
                .and_then(|owner| self.owners.get_mut(owner)?.as_mut())
        {
            owner.ever_committed += Bytes(range.len());
            piece.ever = true;
        }
        self.insert(range, Piece { reserved, ..piece });
    }
}

/// The largest first; the older first among equals.
fn sort_largest(reservations: &mut [Reservation]) {
    reservations.sort_by(|a, b| {
        b.bytes
            .cmp(&a.bytes)
            .then(a.time.cmp(&b.time))
            .then(a.range.cmp(&b.range))
    });
}

#[cfg(test)]
mod tests;
