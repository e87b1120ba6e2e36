//! One space: its runtimes, and the clues to each of its mappings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::abi::MapFlags;
use crate::decode::Call;
use crate::report::Place;
use crate::report::recognize::{Basis, Clues, Recognized, Request, Step, Surroundings, recognize};
use crate::units::{AddrRange, Tid};

use super::{Origin, Piece};

/// One space.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) around: Surroundings,
    /// By the number of the first origin, which a fork does not change.
    pub(super) mappings: BTreeMap<u64, Living>,
    /// Whether the last mmap of a task made bytes executable.
    pub(super) code: BTreeMap<Tid, bool>,
    /// Paths of mapped files, each once.
    pub(super) files: BTreeSet<Arc<str>>,
    pub(super) start: Start,
}

/// How far the dynamic loader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Start {
    /// It may be at work.
    #[default]
    Unknown,
    /// It has let go of its cache.
    Over,
}

#[derive(Clone, Debug)]
pub(super) struct Living {
    pub(super) id: u64,
    pub(super) bytes: u64,
    pub(super) clues: Clues,
    /// What maps showed it to be when the space was attached to.
    pub(super) shown: Option<Recognized>,
}

/// What the call at hand brings to all that it makes.
pub(super) struct Made {
    pub(super) request: Option<Request>,
    pub(super) callers: Arc<[Arc<str>]>,
    pub(super) after_code: bool,
}

pub(super) fn request(call: &Call) -> Option<Request> {
    match call {
        Call::Mmap(mmap) => Some(Request {
            len: mmap.len,
            prot: mmap.prot,
            flags: mmap.flags,
            addr: mmap.addr,
        }),
        _ => None,
    }
}

impl Known {
    pub(super) fn file(&mut self, path: &Arc<str>, versions: &BTreeMap<Arc<str>, Arc<str>>) {
        if self.files.insert(Arc::clone(path)) {
            self.around.file(path);
            if let Some(version) = versions.get(path) {
                self.around.version(version);
            }
        }
    }

    pub(super) fn verdict(&mut self, living: &Living) -> Option<Recognized> {
        let clues = &living.clues;
        let verdict = match clues.at_start && self.start == Start::Unknown {
            true => recognize(
                &Clues {
                    at_start: false,
                    ..clues.clone()
                },
                &self.around,
            ),
            false => recognize(clues, &self.around),
        };
        let verdict = verdict.or_else(|| living.shown.clone());
        // Files of one runtime are read by others.
        if let Some(known) = verdict.as_ref().filter(|known| known.basis != Basis::File) {
            let by: Arc<str> = known.evidence.as_ref().into();
            self.around.shown(known.kind.owner, &by);
        }
        verdict
    }

    pub(super) fn learn<'a>(&mut self, mappings: impl Iterator<Item = &'a Living>) {
        for living in mappings {
            self.verdict(living);
        }
    }

    pub(super) fn made(
        &mut self,
        range: AddrRange,
        piece: &Piece,
        made: &Made,
        replaced: &[(AddrRange, Place)],
    ) {
        let origin: &Origin = &piece.origin;
        if let Some(living) = self.mappings.get_mut(&origin.first().id) {
            living.bytes += range.len();
            let whole = living.clues.range;
            let (start, end) = (
                whole.start().min(range.start()),
                whole.end().max(range.end()),
            );
            living.clues.range = AddrRange::new(start, end).unwrap_or(whole);
            return;
        }
        let mut clues = Clues::new(range, piece.place.clone());
        clues.request = made.request;
        clues.callers = Arc::clone(&made.callers);
        clues.after_code = made.after_code;
        clues.at_start = self.start == Start::Unknown;
        let over = replaced.iter().find(|(over, _)| over.overlaps(range));
        clues.over = over.map(|(over, place)| (place.clone(), *over));
        if let Some(request) = clues.free_reservation() {
            self.around.reserved(request);
        }
        let id = origin.id;
        let bytes = range.len();
        let living = Living {
            id,
            bytes,
            clues,
            shown: None,
        };
        self.mappings.insert(origin.first().id, living);
    }

    pub(super) fn committed(&mut self, first: u64, range: AddrRange, piece: &Piece, call: &Call) {
        let Some(living) = self.mappings.get_mut(&first) else {
            return;
        };
        let steps = &mut living.clues.steps;
        if let (Call::Mmap(_), Place::Shared(name)) = (call, &piece.place) {
            self.around.laid_over(name);
            steps.file.get_or_insert_with(|| Arc::clone(name));
        }
        let step: &mut Step = match call {
            Call::Mmap(mmap) if mmap.flags.contains(MapFlags::ANONYMOUS) => &mut steps.mapped,
            Call::Mprotect { .. } => &mut steps.protected,
            _ => return,
        };
        step.take(range, piece.prot);
    }

    pub(super) fn released(
        &mut self,
        first: u64,
        range: AddrRange,
        piece: &Piece,
        call: &Call,
        replaced: &mut Vec<(AddrRange, Place)>,
    ) {
        let is_cache = |path: &str| path.ends_with("/ld.so.cache");
        if matches!(&piece.place, Place::File(path) if is_cache(path)) {
            self.start = Start::Over;
        }
        let mut place = piece.place.clone();
        if let Some(living) = self.mappings.get_mut(&first) {
            living.bytes = living.bytes.saturating_sub(range.len());
            let clues = &mut living.clues;
            match call {
                Call::Munmap { .. } => trim(clues, range),
                _ => clues.steps.low_replaced |= range.start() == clues.range.start(),
            }
            if let Some((root, _)) = &clues.over {
                place = root.clone();
            }
        }
        if matches!(call, Call::Mmap(_)) {
            replaced.push((range, place));
        }
    }
}

/// Takes what munmap(2) cut off an end, if that is how an alignment was come by: the first thing or
/// two that happened.
fn trim(clues: &mut Clues, range: AddrRange) {
    let steps = &mut clues.steps;
    let untouched = steps.mapped.count == 0 && steps.protected.count == 0;
    let at = steps.trimmed.iter().position(|cut| *cut == 0);
    let (Some(at), true) = (at, untouched) else {
        return;
    };
    let whole = clues.range;
    let left = match (range.start() == whole.start(), range.end() == whole.end()) {
        (true, false) => AddrRange::new(range.end(), whole.end()),
        (false, true) => AddrRange::new(whole.start(), range.start()),
        _ => None,
    };
    if let Some(left) = left {
        clues.range = left;
        if let Some(cut) = clues.steps.trimmed.get_mut(at) {
            *cut = range.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Prot;
    use crate::units::Addr;

    fn range(start: u64, end: u64) -> AddrRange {
        AddrRange::new(Addr(start), Addr(end)).expect("a range")
    }

    #[test]
    fn only_the_first_two_cuts_at_an_end_are_trimming() {
        let mut clues = Clues::new(range(0x1000, 0x9000), Place::Anon);
        trim(&mut clues, range(0x1000, 0x2000));
        trim(&mut clues, range(0x8000, 0x9000));
        assert_eq!(clues.range, range(0x2000, 0x8000));
        trim(&mut clues, range(0x7000, 0x8000));
        assert_eq!(clues.range, range(0x2000, 0x8000));
        assert_eq!(clues.steps.trimmed, [0x1000, 0x1000]);
    }

    #[test]
    fn a_hole_is_no_trimming_and_nothing_is_after_the_first_step() {
        let mut clues = Clues::new(range(0x1000, 0x9000), Place::Anon);
        trim(&mut clues, range(0x3000, 0x4000));
        trim(&mut clues, range(0x1000, 0x9000));
        clues
            .steps
            .protected
            .take(range(0x1000, 0x2000), Prot::READ);
        trim(&mut clues, range(0x1000, 0x2000));
        assert_eq!(clues.range, range(0x1000, 0x9000));
        assert_eq!(clues.steps.trimmed, [0, 0]);
    }
}
