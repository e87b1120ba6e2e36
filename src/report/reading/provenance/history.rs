//! The bytes of one space, and how spans and the model alter what is known of them.

use std::sync::Arc;

use crate::decode::{Call, FetchedData};
use crate::mm::Verb;
use crate::report::reading::range_map::RangeMap;
use crate::timeline::CallEvent;
use crate::units::{Addr, AddrRange};

use super::{Happened, Now, Origin, Piece};

/// The bytes of one living space.
#[derive(Clone, Debug, Default)]
pub(in crate::report::reading) struct History {
    pub(in crate::report::reading) pieces: RangeMap<Piece>,
}

impl History {
    /// Puts what the model shows in `range` there.
    pub(super) fn insert(&mut self, range: AddrRange, origin: &Arc<Origin>, now: &Now<'_>) {
        for vma in now.state.model.overlapping(range) {
            if let Some(range) = vma.range.intersect(range) {
                let piece = Piece {
                    origin: Arc::clone(origin),
                    change: None,
                    commit: None,
                    place: now.place(range),
                    prot: vma.prot.rwx(),
                    name: None,
                };
                self.pieces.set(range, piece);
            }
        }
    }

    /// Takes the rights in `range` from the model, where they differ.
    pub(super) fn sync(&mut self, range: AddrRange, now: &mut Now<'_>) {
        for vma in now.state.model.overlapping(range) {
            let Some(range) = vma.range.intersect(range) else {
                continue;
            };
            let prot = vma.prot.rwx();
            if self
                .pieces
                .overlapping(range)
                .all(|(_, piece)| piece.prot == prot)
            {
                continue;
            }
            for (range, mut piece) in self.pieces.lift(range) {
                if piece.prot != prot {
                    piece.prot = prot;
                    piece.change = now.change();
                }
                self.pieces.set(range, piece);
            }
        }
    }

    /// This event committed or decommitted what is in `range`; mmap(2) put something else there.
    pub(super) fn switch(
        &mut self,
        verb: Verb,
        range: AddrRange,
        now: &mut Now<'_>,
        tell: &mut dyn FnMut(Happened<'_>),
    ) {
        let replaced = matches!(now.call, Some(call) if matches!(call.call, Call::Mmap(_)));
        for vma in now.state.model.overlapping(range) {
            let Some(range) = vma.range.intersect(range) else {
                continue;
            };
            for (range, mut piece) in self.pieces.lift(range) {
                let first = piece.commit.is_none();
                piece.prot = vma.prot.rwx();
                piece.change = now.change();
                if verb == Verb::Commit {
                    piece.commit = now.change();
                }
                if replaced {
                    piece.place = now.place(range);
                    piece.name = None;
                }
                tell(Happened {
                    verb,
                    range,
                    piece: &piece,
                    first,
                });
                self.pieces.set(range, piece);
            }
        }
    }

    pub(super) fn put_down(
        &mut self,
        from: AddrRange,
        to: AddrRange,
        pieces: Vec<(AddrRange, Piece)>,
        now: &mut Now<'_>,
    ) {
        let distance = to.start().0.wrapping_sub(from.start().0);
        let moved = |addr: Addr| Addr(addr.0.wrapping_add(distance));
        for (range, mut piece) in pieces {
            if let Some(range) = AddrRange::new(moved(range.start()), moved(range.end())) {
                piece.change = now.change();
                self.pieces.set(range, piece);
            }
        }
    }

    pub(super) fn name(&mut self, range: AddrRange, call: &CallEvent) {
        let name = call.fetched.iter().find_map(|fetched| match &fetched.data {
            FetchedData::String { bytes, .. } => Some(bytes),
            _ => None,
        });
        let name: Option<Arc<str>> = name.map(|name| String::from_utf8_lossy(name).into());
        for (range, mut piece) in self.pieces.lift(range) {
            piece.name = name.clone();
            self.pieces.set(range, piece);
        }
    }

    pub(super) fn tell(&self, verb: Verb, range: AddrRange, tell: &mut dyn FnMut(Happened<'_>)) {
        for (range, piece) in self.pieces.overlapping(range) {
            tell(Happened {
                verb,
                range,
                piece,
                first: false,
            });
        }
    }
}
