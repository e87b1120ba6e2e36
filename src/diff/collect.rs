//! Keeps of a trace what a comparison needs.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use crate::report::{Made, Maker, Report};
use crate::timeline::{
    Began, CallEvent, Event, EventKind, Namer, Sink, SpaceState, Stacks, Timeline,
};
use crate::units::{SpaceId, StackId, Tid};

use super::cells::{Cell, First};
use super::known::{Known, Shapes};
use super::lineage::Lineage;
use super::owner::Owner;
use super::steps::{Step, Steps};

/// A sink that keeps of a trace what a comparison needs; its memory depends on the number of
/// address spaces and mappings, and on the number of calls up to a bound.
#[derive(Debug, Default)]
pub struct Collector {
    known: Known,
    living: HashMap<SpaceId, Lineage>,
    lines: HashMap<SpaceId, Line>,
    /// Which space each task is in.
    tasks: HashMap<Tid, SpaceId>,
    steps: Steps,
    stacks: Stacks,
}

/// Where a space stands among the others.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// The space it was copied from, or that its task was in before.
    pub parent: Option<SpaceId>,
    pub began: Began,
    pub exe: Arc<str>,
}

/// A whole trace, kept for comparison.
#[derive(Debug)]
pub struct Recorded {
    /// Its summary.
    pub report: Report,
    pub(super) shapes: Shapes,
    pub(super) cells: Vec<Cell>,
    pub(super) lines: HashMap<SpaceId, Line>,
    pub(super) steps: Steps,
    /// Who made the first mapping of a cell.
    pub(super) owners: HashMap<StackId, Owner>,
    stacks: Stacks,
}

impl Recorded {
    /// Whether the trace holds stacks, so that it can be told who made a mapping.
    pub fn has_stacks(&self) -> bool {
        !self.stacks.is_empty()
    }

    /// Finds out who made the mappings.
    pub fn name_owners(&mut self, namer: &mut dyn Namer) {
        let stacks = self.cells.iter().filter_map(|cell| cell.first.stack);
        let stacks: BTreeSet<StackId> = stacks.collect();
        let owner = |id: StackId| Some((id, Owner::of(id, &self.stacks, namer)?));
        self.owners = stacks.into_iter().filter_map(owner).collect();
    }
}

impl Collector {
    /// All that was kept, with the summary of the same trace.
    pub fn finish(mut self, report: Report) -> Recorded {
        for space in self.living.keys().copied().collect::<Vec<_>>() {
            self.space_ended(space);
        }
        Recorded {
            report,
            shapes: self.known.shapes,
            cells: self.known.cells.list,
            lines: self.lines,
            steps: self.steps,
            owners: HashMap::new(),
            stacks: self.stacks,
        }
    }

    fn take(&mut self, event: &Event, timeline: &Timeline) {
        let state = timeline.spaces.get(&event.space);
        let first = |what| First {
            time: event.time,
            by: Maker {
                seq: event.seq,
                tid: event.tid,
                what,
            },
            stack: match &event.kind {
                EventKind::Call(call) => call.stack,
                _ => None,
            },
        };
        match &event.kind {
            EventKind::SpaceBegan { began, exe, .. } => {
                let line = Line {
                    parent: match began {
                        Began::Fork { parent } => *parent,
                        Began::Exec | Began::Attach => self.tasks.get(&event.pid).copied(),
                    },
                    began: *began,
                    exe: exe.clone(),
                };
                if *began == Began::Exec {
                    self.task_is_in(event.pid, event.space);
                }
                self.space_began(event.space, &line, state, first(Made::Began));
                self.lines.insert(event.space, line);
            }
            EventKind::TaskBegan { .. } => self.task_is_in(event.tid, event.space),
            EventKind::Call(call) => {
                self.call(call, event, state, first(Made::Call(call.raw, call.result)));
            }
            EventKind::Checked(checked) => {
                if let Some(lineage) = self.living.get_mut(&event.space) {
                    let by = first(Made::Checked);
                    lineage.check(&checked.now, state, by, &mut self.known);
                }
            }
            EventKind::SpaceEnded { last, .. } => {
                if let Some(lineage) = self.living.get_mut(&event.space) {
                    lineage.check(last, state, first(Made::Checked), &mut self.known);
                    self.known.cells.settle();
                }
                self.space_ended(event.space);
            }
            EventKind::TaskEnded(_) => {
                self.tasks.remove(&event.tid);
            }
            EventKind::Exec { former } => {
                // The thread that called execve goes on as the leader of its process.
                if let Some(space) = self.tasks.remove(former) {
                    self.tasks.insert(event.tid, space);
                }
            }
            EventKind::CallEntered { .. }
            | EventKind::Sample(_)
            | EventKind::Touched(_)
            | EventKind::HighWater(_)
            | EventKind::Signal(_)
            | EventKind::Note(_)
            | EventKind::Lost(_)
            | EventKind::File(_) => {}
        }
        self.known.cells.settle();
    }

    fn task_is_in(&mut self, tid: Tid, space: SpaceId) {
        self.tasks.insert(tid, space);
        self.steps.task_is_in(tid, space);
    }

    fn space_began(
        &mut self,
        space: SpaceId,
        line: &Line,
        state: Option<&SpaceState>,
        first: First,
    ) {
        let parent = match line.began {
            Began::Fork { parent } => parent.and_then(|parent| self.living.get(&parent)),
            Began::Exec | Began::Attach => None,
        };
        let lineage = Lineage::new(space, parent, state, first, &mut self.known);
        self.living.insert(space, lineage);
    }

    fn call(&mut self, call: &CallEvent, event: &Event, state: Option<&SpaceState>, by: First) {
        let Some(lineage) = self.living.get_mut(&event.space) else {
            return;
        };
        if call.result.is_some() || !call.spans.is_empty() {
            let token = super::steps::token(call, |addr| lineage.shape_at(addr, &self.known));
            self.steps
                .push(event.space, event.tid, Step { token, at: by });
        }
        if !call.spans.is_empty() || call.now != call.before {
            lineage.call(call, by, state, &mut self.known);
        }
    }

    fn space_ended(&mut self, space: SpaceId) {
        if self.living.remove(&space).is_none() {
            return;
        }
        self.known.end_space(space);
    }
}

impl Sink for Collector {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        self.take(event, timeline);
        Ok(())
    }

    fn finish(&mut self, timeline: &Timeline) -> io::Result<()> {
        self.stacks = timeline.stacks.clone();
        Ok(())
    }
}
