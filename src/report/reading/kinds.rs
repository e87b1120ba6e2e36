//! Follows what is known of every living mapping, so that it can be told what each is.
//!
//! Clues are kept for what one event made (an [`Origin`]); they are dropped with its last byte.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::abi::Prot;
use crate::decode::Call;
use crate::mm::Verb;
use crate::report::Place;
use crate::report::recognize::{Clues, Recognized, Surroundings, is_allocator, recognize_snapshot};
use crate::timeline::{
    Began, CallEvent, Event, EventKind, Frame, FrameName, HeldNames, Namer, Observation, Observed,
    SpaceState, Stacks, Timeline,
};
use crate::units::{AddrRange, SpaceId, StackId};

mod known;

use known::{Known, Living, Made, request};

use super::asked::named;
use super::follow::Ahead;
use super::provenance::{Happened, History, Origin, Piece, Provenance};

/// What one event did to bytes of one origin.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) verb: Verb,
    pub(super) range: AddrRange,
    pub(super) piece: Piece,
}

impl Followed {
    pub(super) fn of(happened: &Happened<'_>) -> Followed {
        Followed {
            verb: happened.verb,
            range: happened.range,
            piece: happened.piece.clone(),
        }
    }
}

/// A mapping whose last byte is gone, and what it was.
pub(super) struct Gone {
    /// Number of its origin.
    pub(super) id: u64,
    pub(super) verdict: Option<Recognized>,
}

/// Whether what bytes are is told by what is mapped there.
fn is_file(place: &Place) -> bool {
    matches!(place, Place::File(_) | Place::Shared(_))
}

/// All living spaces.
pub(super) struct Kinds {
    namer: Box<dyn Namer + Send>,
    callers: HashMap<StackId, Arc<[Arc<str>]>>,
    /// Versions that files state, by path: told once in a trace.
    versions: BTreeMap<Arc<str>, Arc<str>>,
    /// Names that the trace holds further on.
    names: HashMap<Frame, Arc<[FrameName]>>,
    /// What was recognised of spaces that were attached to and whose event is still to come.
    attached: BTreeMap<SpaceId, Vec<(AddrRange, Recognized)>>,
    spaces: BTreeMap<SpaceId, Known>,
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kinds { spaces, .. } = self;
        f.debug_struct("Kinds")
            .field("spaces", spaces)
            .finish_non_exhaustive()
    }
}

impl Default for Kinds {
    fn default() -> Kinds {
        Kinds {
            namer: Box::new(HeldNames),
            callers: HashMap::new(),
            versions: BTreeMap::new(),
            names: HashMap::new(),
            attached: BTreeMap::new(),
            spaces: BTreeMap::new(),
        }
    }
}

impl Kinds {
    /// Takes what the trace holds further on.
    pub(super) fn know(&mut self, ahead: Ahead) {
        for file in ahead.files {
            self.versions
                .extend(file.version.map(|version| (file.path, version)));
        }
        self.names = ahead.names;
    }

    /// The same with functions named by `namer`.
    pub(super) fn name_by(&mut self, namer: Box<dyn Namer + Send>) {
        self.namer = namer;
    }

    /// Takes what is to be known before the events that are made of it: what maps showed of a space
    /// that lived before it was traced.
    pub(super) fn observe(&mut self, observation: &Observation) {
        let Observed::SpaceBegan(seen) = &observation.what else {
            return;
        };
        if seen.began != Began::Attach {
            return;
        }
        let mut around = Surroundings::of_program(&seen.exe);
        for entry in &seen.snapshot.entries {
            if let Some(version) = self.versions.get(&entry.name) {
                around.version(version);
            }
        }
        let verdicts = recognize_snapshot(&seen.snapshot, &around);
        let lines = seen.snapshot.entries.iter().map(|entry| entry.range);
        let known = lines
            .zip(verdicts)
            .filter_map(|(range, verdict)| Some((range, verdict?)));
        self.attached.insert(seen.space, known.collect());
    }

    /// Takes an event, after `provenance` did, and what that told of it. What is gone by it is
    /// returned.
    pub(super) fn event(
        &mut self,
        event: &Event,
        timeline: &Timeline,
        provenance: &Provenance,
        told: &[Followed],
    ) -> Vec<Gone> {
        match &event.kind {
            EventKind::File(file) => {
                if let Some(version) = &file.version {
                    let path = Arc::clone(&file.path);
                    self.versions.insert(path, Arc::clone(version));
                    for known in self.spaces.values_mut() {
                        if known.files.contains(&file.path) {
                            known.around.version(version);
                        }
                    }
                }
                Vec::new()
            }
            EventKind::SpaceBegan { began, .. } => {
                if let (Some(state), Some(history)) = (
                    timeline.spaces.get(&event.space),
                    provenance.spaces.get(&event.space),
                ) {
                    self.begin(event.space, *began, state, history);
                }
                Vec::new()
            }
            EventKind::Call(call) => {
                let callers = call.stack.map(|id| self.callers(id, &timeline.stacks));
                let gone = self.call(event, call, callers, told);
                if let (Some(range), Some(history)) =
                    (named(&call.raw), provenance.spaces.get(&event.space))
                {
                    self.name(event.space, range, history);
                }
                gone
            }
            _ => Vec::new(),
        }
    }

    /// What bytes are.
    pub(super) fn of(
        &mut self,
        space: SpaceId,
        range: AddrRange,
        piece: &Piece,
    ) -> Option<Recognized> {
        let known = self.spaces.get_mut(&space)?;
        let living = known.mappings.get(&piece.origin.first().id).cloned();
        match living {
            Some(living) if living.clues.place == piece.place || !is_file(&piece.place) => {
                known.verdict(&living)
            }
            _ => known.verdict(&Living {
                id: piece.origin.id,
                bytes: range.len(),
                clues: Clues::new(range, piece.place.clone()),
                shown: None,
            }),
        }
    }

    /// A file that was mapped into a reservation: what these bytes are is told by the file.
    pub(super) fn of_file(&mut self, space: SpaceId, piece: &Piece) -> Option<Recognized> {
        let known = self.spaces.get(&space)?;
        let living = known.mappings.get(&piece.origin.first().id)?;
        let inside = is_file(&piece.place) && !is_file(&living.clues.place);
        let range = living.clues.range;
        inside.then(|| self.of(space, range, piece)).flatten()
    }

    /// All that is known of a space that ended, and what each of its mappings was.
    pub(super) fn end(&mut self, space: SpaceId) -> Vec<Gone> {
        let Some(mut known) = self.spaces.remove(&space) else {
            return Vec::new();
        };
        let mappings = std::mem::take(&mut known.mappings);
        known.learn(mappings.values());
        mappings
            .into_values()
            .map(|living| Gone {
                id: living.id,
                verdict: known.verdict(&living),
            })
            .collect()
    }

    /// Drops a space that ended.
    pub(super) fn forget(&mut self, space: SpaceId) {
        self.spaces.remove(&space);
    }

    /// Lets a space learn which runtimes are in it from all that is there.
    pub(super) fn learn(&mut self, space: SpaceId) {
        if let Some(known) = self.spaces.get_mut(&space) {
            let mappings = std::mem::take(&mut known.mappings);
            known.learn(mappings.values());
            known.mappings = mappings;
        }
    }

    fn callers(&mut self, id: StackId, stacks: &Stacks) -> Arc<[Arc<str>]> {
        if let Some(callers) = self.callers.get(&id) {
            return Arc::clone(callers);
        }
        let mut functions: Vec<Arc<str>> = Vec::new();
        let mut in_allocator = false;
        for frame in stacks.frames(id) {
            // Whoever called an allocator did not call for what that mapped.
            let module = match frame {
                Frame::Module { module, .. } => stacks.module(*module),
                Frame::Bare { .. } => None,
            };
            let of_allocator = module.is_some_and(|module| is_allocator(&module.path));
            if in_allocator && !of_allocator {
                break;
            }
            in_allocator |= of_allocator;
            let names = match stacks.names(*frame).or_else(|| self.names.get(frame)) {
                Some(names) => Arc::clone(names),
                None => self.namer.name(*frame, stacks),
            };
            let known = names.iter().filter(|name| !name.function.is_empty());
            functions.extend(known.map(|name| Arc::clone(&name.function)));
        }
        let functions: Arc<[Arc<str>]> = functions.into();
        self.callers.insert(id, Arc::clone(&functions));
        functions
    }

    fn begin(&mut self, space: SpaceId, began: Began, state: &SpaceState, history: &History) {
        let shown = self.attached.remove(&space).unwrap_or_default();
        let parent = match began {
            Began::Fork {
                parent: Some(parent),
            } => self.spaces.get(&parent),
            _ => None,
        };
        let mut known = match parent {
            Some(parent) => Known {
                mappings: BTreeMap::new(),
                code: BTreeMap::new(),
                ..parent.clone()
            },
            None => Known {
                around: Surroundings::of_program(&state.exe),
                ..Known::default()
            },
        };
        let mut before: Option<(AddrRange, Place)> = None;
        for (range, piece) in history.pieces.iter() {
            if let Place::File(path) = &piece.place {
                known.file(path, &self.versions);
            }
            let first = piece.origin.first().id;
            let copied = parent.and_then(|parent| parent.mappings.get(&first));
            let living = known.mappings.entry(first).or_insert_with(|| {
                let mut clues = match copied {
                    Some(living) => living.clues.clone(),
                    None => Clues::new(range, piece.place.clone()),
                };
                // execve puts the bss of a program directly behind its data.
                let behind = before.take().filter(|(file, place)| {
                    let file = file.end() == range.start() && matches!(place, Place::File(_));
                    file && began == Began::Exec && piece.prot.contains(Prot::WRITE)
                });
                if let Some((file, place)) = behind {
                    clues.over = Some((place, file));
                }
                let shown = shown.iter().find(|(line, _)| line.covers(range));
                Living {
                    id: piece.origin.id,
                    bytes: 0,
                    clues,
                    shown: match copied {
                        Some(living) => living.shown.clone(),
                        None => shown.map(|(_, known)| known.clone()),
                    },
                }
            });
            living.bytes += range.len();
            let is_data = piece.prot.contains(Prot::WRITE);
            before = is_data.then(|| (range, piece.place.clone()));
        }
        self.spaces.insert(space, known);
    }

    fn call(
        &mut self,
        event: &Event,
        call: &CallEvent,
        callers: Option<Arc<[Arc<str>]>>,
        told: &[Followed],
    ) -> Vec<Gone> {
        let Some(known) = self.spaces.get_mut(&event.space) else {
            return Vec::new();
        };
        let made = Made {
            request: request(&call.call),
            callers: callers.unwrap_or_else(|| [].into()),
            after_code: known.code.get(&event.tid).copied().unwrap_or(false),
        };
        let mut replaced: Vec<(AddrRange, Place)> = Vec::new();
        let mut gone = Vec::new();
        for Followed { verb, range, piece } in told {
            let (range, first) = (*range, piece.origin.first().id);
            match verb {
                Verb::Reserve | Verb::Map | Verb::Grown => {
                    if let Place::File(path) = &piece.place {
                        known.file(path, &self.versions);
                    }
                    known.made(range, piece, &made, &replaced);
                    if let (Verb::Grown, Some(living)) = (verb, known.mappings.get_mut(&first)) {
                        living.clues.place = Place::Stack;
                    }
                }
                Verb::Commit => known.committed(first, range, piece, &call.call),
                Verb::ReleaseReserved | Verb::ReleaseCommitted => {
                    known.released(first, range, piece, &call.call, &mut replaced);
                    let living = known.mappings.get(&first);
                    if living.is_some_and(|living| living.bytes == 0)
                        && let Some(living) = known.mappings.remove(&first)
                    {
                        gone.push(Gone {
                            id: living.id,
                            verdict: known.verdict(&living),
                        });
                    }
                }
                Verb::MovedTo => {
                    if let Some(living) = known.mappings.get_mut(&first) {
                        living.clues.range = range;
                    }
                }
                Verb::Decommit | Verb::Discard | Verb::MovedFrom => {}
            }
        }
        if let Call::Mmap(mmap) = &call.call {
            let made_code = mmap.fd.is_none() && mmap.prot.contains(Prot::EXEC);
            known.code.insert(event.tid, made_code);
        }
        gone
    }

    fn name(&mut self, space: SpaceId, range: AddrRange, history: &History) {
        let Some(known) = self.spaces.get_mut(&space) else {
            return;
        };
        for (_, piece) in history.pieces.overlapping(range) {
            if let (Some(name), Some(living)) = (
                &piece.name,
                known.mappings.get_mut(&piece.origin.first().id),
            ) {
                living.clues.name = Some(Arc::clone(name));
            }
        }
    }
}
