//! The life of an address: everything that touched a page or a range, and what it was before and
//! after.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::abi::Prot;
use crate::report::{Made, Maker, Place};
use crate::timeline::{CallEvent, Event, EventKind, Namer, Sink, SpaceState, Stacks, Timeline};
use crate::units::{AddrRange, SpaceId, Tid, Timestamp};

use super::asked::asked;
use super::filter::Filter;
use super::who::OwnerNames;

/// Bytes of the range that are mapped in one way.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Where.
    pub range: AddrRange,
    /// Rights.
    pub prot: Prot,
    /// `s` rather than `p` in maps.
    pub shared: bool,
    /// What people call it.
    pub place: Place,
}

/// An event that touched the range.
#[derive(Clone, Debug, PartialEq)]
pub struct Touch {
    /// The event: [`Event::kind`] tells what it was.
    pub event: Event,
    /// The command name of the task that did it; empty if unknown.
    pub comm: Arc<str>,
    /// Who did it, where a stack tells.
    pub owner: Option<Arc<str>>,
    /// What was mapped in the range before.
    pub before: Vec<Part>,
    /// What is mapped there after.
    pub after: Vec<Part>,
}

impl Touch {
    /// The event, as figures name theirs.
    pub fn maker(&self) -> Maker {
        let what = match &self.event.kind {
            EventKind::Call(call) => Made::Call(call.raw, call.result),
            EventKind::Checked(_) => Made::Checked,
            _ => Made::Began,
        };
        Maker {
            seq: self.event.seq,
            tid: self.event.tid,
            what,
        }
    }
}

/// The range in one space.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// The space.
    pub space: SpaceId,
    /// Its process.
    pub pid: Tid,
    /// The program; empty if unknown.
    pub exe: Arc<str>,
    /// Command name of the task it began with.
    pub comm: Arc<str>,
    /// When the space ended, if it did while traced.
    pub ended: Option<Timestamp>,
    /// What touched the range, in order.
    pub touches: Vec<Touch>,
}

/// A sink that collects the life of a range.
#[derive(Debug)]
pub struct Around {
    range: AddrRange,
    filter: Filter,
    /// Spaces in which something touched the range.
    lives: BTreeMap<SpaceId, Life>,
    now: BTreeMap<SpaceId, Vec<Part>>,
    kept: usize,
    stacks: Stacks,
    /// Events that touched it beyond the first [`Around::MOST`].
    pub more: u64,
}

impl Around {
    /// Events that are kept.
    pub const MOST: usize = 100_000;

    /// The life of `range`, as far as `filter` admits the events.
    pub fn new(range: AddrRange, filter: Filter) -> Around {
        Around {
            range,
            filter,
            lives: BTreeMap::new(),
            now: BTreeMap::new(),
            kept: 0,
            stacks: Stacks::default(),
            more: 0,
        }
    }

    /// Finds out who did it, where the trace holds stacks.
    pub fn name_owners(&mut self, namer: &mut dyn Namer) {
        let mut owners = OwnerNames::new(&self.stacks, namer);
        for touch in self.lives.values_mut().flat_map(|life| &mut life.touches) {
            if let EventKind::Call(call) = &touch.event.kind {
                touch.owner = call.stack.and_then(|stack| owners.of(stack));
            }
        }
    }

    /// The range.
    pub fn range(&self) -> AddrRange {
        self.range
    }

    /// The spaces in which something touched the range, in order of appearance.
    pub fn lives(&self) -> impl Iterator<Item = &Life> {
        self.lives.values()
    }

    fn parts(&self, state: &SpaceState, call: Option<&CallEvent>) -> Vec<Part> {
        let clipped = state.model.overlapping(self.range).filter_map(|vma| {
            let range = vma.range.intersect(self.range)?;
            Some((range, vma))
        });
        let fresh = |range: AddrRange| {
            let spans = call.map(|call| call.spans.as_slice()).unwrap_or_default();
            spans.iter().any(|span| span.range.covers(range))
        };
        clipped
            .map(|(range, vma)| Part {
                range,
                prot: vma.prot.rwx(),
                shared: vma.shared,
                place: match (Place::of(vma, state), call) {
                    (Place::Anon, Some(call)) if fresh(range) => {
                        Place::of_call(&call.call, range, Some(state))
                    }
                    (place, _) => place,
                },
            })
            .collect()
    }

    fn touch(&mut self, event: &Event, timeline: &Timeline, before: Vec<Part>, after: Vec<Part>) {
        if !self.filter.shows(event) {
            return;
        }
        if self.kept == Around::MOST {
            self.more += 1;
            return;
        }
        self.kept += 1;
        let state = timeline.spaces.get(&event.space);
        let text = |get: fn(&SpaceState) -> &Arc<str>| {
            state.map_or_else(|| "".into(), |state| Arc::clone(get(state)))
        };
        let comm = match timeline.tasks.get(&event.tid) {
            Some(task) => Arc::clone(&task.comm),
            None => text(|state| &state.comm),
        };
        let life = self.lives.entry(event.space).or_insert_with(|| Life {
            space: event.space,
            pid: state.map_or(event.pid, |state| state.pid),
            exe: text(|state| &state.exe),
            comm: text(|state| &state.comm),
            ended: None,
            touches: Vec::new(),
        });
        life.touches.push(Touch {
            event: event.clone(),
            comm,
            owner: None,
            before,
            after,
        });
    }
}

/// Whether a place is said more exactly by `known` than by what the model alone shows.
fn keep_known(before: &[Part], after: &mut [Part]) {
    for part in after {
        let known = before.iter().find(|known| known.range.overlaps(part.range));
        if let (Place::Anon, Some(Place::ThreadStack)) =
            (&part.place, known.map(|part| &part.place))
        {
            part.place = Place::ThreadStack;
        }
    }
}

impl Sink for Around {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        let Some(state) = timeline.spaces.get(&event.space) else {
            return Ok(());
        };
        let before = self.now.get(&event.space).cloned().unwrap_or_default();
        match &event.kind {
            EventKind::SpaceBegan { .. } => {
                let after = self.parts(state, None);
                if !after.is_empty() {
                    self.touch(event, timeline, Vec::new(), after.clone());
                }
                self.now.insert(event.space, after);
            }
            EventKind::Call(call) => {
                let spans = call
                    .spans
                    .iter()
                    .any(|span| span.range.overlaps(self.range));
                let asked = asked(&call.call, &call.raw).range();
                if !spans && !asked.is_some_and(|asked| asked.overlaps(self.range)) {
                    return Ok(());
                }
                let mut after = self.parts(state, Some(call));
                if !spans {
                    keep_known(&before, &mut after);
                }
                self.now.insert(event.space, after.clone());
                self.touch(event, timeline, before, after);
            }
            EventKind::Checked(_) => {
                let mut after = self.parts(state, None);
                keep_known(&before, &mut after);
                if after != before {
                    self.now.insert(event.space, after.clone());
                    self.touch(event, timeline, before, after);
                }
            }
            EventKind::SpaceEnded { .. } => {
                if !before.is_empty() {
                    self.touch(event, timeline, before, Vec::new());
                }
                self.now.remove(&event.space);
                if let Some(life) = self.lives.get_mut(&event.space) {
                    life.ended = Some(event.time);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, timeline: &Timeline) -> io::Result<()> {
        self.stacks = timeline.stacks.clone();
        Ok(())
    }
}
