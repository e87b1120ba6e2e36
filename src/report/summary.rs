//! Builds a report from events, one at a time.

use std::collections::{BTreeMap, HashMap};
use std::io;

use crate::mm::Totals;
use crate::timeline::{
    Began, Ended, Event, EventKind, FileSeen, Sink, SpaceState, TaskEnd, Timeline, TraceInfo,
};
use crate::units::{Bytes, SpaceId, Tid, Timestamp};

use super::facts::{FileReport, Made, Maker, Note, Report, SpaceReport, TreeReport};
use super::space::{Identity, Living};

/// A sink that makes a [`Report`].
#[derive(Debug, Default)]
pub struct Summary {
    report: Report,
    living: BTreeMap<SpaceId, Living>,
    /// Which space each task is in.
    tasks: HashMap<Tid, SpaceId>,
    /// Spaces that have ended, by number: the status of a process may be known after its space.
    ended: HashMap<SpaceId, usize>,
    detailed: usize,
}

impl Summary {
    /// A summary of the trace that `info` is about.
    pub fn new(info: TraceInfo) -> Summary {
        let report = Report {
            info,
            ..Report::default()
        };
        Summary {
            report,
            ..Summary::default()
        }
    }

    /// The report. Spaces that still live are cut: their last instant is that of the last event.
    pub fn into_report(mut self) -> Report {
        let until = self.report.until;
        for id in self.living.keys().copied().collect::<Vec<_>>() {
            let last = self.living.get(&id).map(|living| living.last);
            self.space_ended(id, Ended::Cut, &last.unwrap_or_default(), until);
        }
        self.report.spaces.sort_by_key(|space| space.id);
        self.report
    }

    fn take(&mut self, event: &Event, timeline: &Timeline) {
        let Event {
            seq,
            time,
            tid,
            pid,
            space,
            kind,
        } = event;
        if let EventKind::File(file) = kind {
            // It was looked at when there was time: the trace is no longer by that.
            return self.file(*time, file);
        }
        self.report.events = self.report.events.max(*seq);
        self.report.until = self.report.until.max(*time);
        let state = timeline.spaces.get(space);
        let made = |what| Maker {
            seq: *seq,
            tid: *tid,
            what,
        };
        match kind {
            EventKind::SpaceBegan { began, exe, now } => {
                let by = made(Made::Began);
                let identity = Identity {
                    id: *space,
                    pid: *pid,
                    exe: exe.clone(),
                    began: *began,
                    by,
                    time: *time,
                };
                self.space_began(identity, now, state);
            }
            EventKind::TaskBegan { .. } => self.task_is_in(*tid, *space),
            EventKind::Call(call) => {
                let by = made(Made::Call(call.raw, call.result));
                self.report.refusals.add(*space, *time, by, call);
                self.alter(*space, *time, by, |living| {
                    living.call(call, *time, by, state)
                });
            }
            EventKind::Checked(checked) => {
                let by = made(Made::Checked);
                self.alter(*space, *time, by, |living| {
                    living.checked(checked, *time, by, state)
                });
            }
            EventKind::Sample(resident) => {
                let by = made(Made::Sampled);
                self.alter(*space, *time, by, |living| living.sample(resident, *time));
                if let Some(high_water) = resident.high_water {
                    let at = (*time, *space, by);
                    self.report.tree.resident.at_least(high_water.0, at);
                }
            }
            EventKind::HighWater(high_water) => {
                let by = made(Made::Sampled);
                self.alter(*space, *time, by, |living| {
                    living.high_water(high_water, *time)
                });
                let at = (*time, *space, by);
                self.report
                    .tree
                    .resident
                    .at_least(high_water.resident.0, at);
            }
            EventKind::Touched(touch) => {
                if let Some(living) = self.living.get_mut(space) {
                    living.touched(touch);
                }
            }
            EventKind::Exec { former } => {
                // The space of the new program follows, and takes the task along.
                if former != tid {
                    self.task_left(*former, None);
                }
            }
            EventKind::TaskEnded(end) => {
                // A process ends as its leader does, wherever other threads were.
                let status = (tid == pid && *end != TaskEnd::Gone).then_some(*end);
                self.task_left(*tid, status);
                if let Some(ended) = self.ended.get(space)
                    && let Some(report) = self.report.spaces.get_mut(*ended)
                    && report.pid == *pid
                {
                    report.status = status.or(report.status);
                }
            }
            EventKind::SpaceEnded { ended, last } => self.space_ended(*space, *ended, last, *time),
            EventKind::Note(text) => self.note(*time, *space, text.clone()),
            EventKind::Lost(count) => self.report.lost = self.report.lost.saturating_add(*count),
            EventKind::CallEntered { .. } | EventKind::Signal(_) | EventKind::File(_) => {}
        }
    }

    /// Adds a remark for the user.
    pub fn note(&mut self, time: Timestamp, space: SpaceId, text: String) {
        match self.report.notes.len() < Report::MAX_NOTES {
            true => self.report.notes.push(Note { time, space, text }),
            false => self.report.more_notes += 1,
        }
    }

    fn file(&mut self, time: Timestamp, seen: &FileSeen) {
        match self.report.files.len() < Report::MAX_FILES {
            true => self.report.files.push(FileReport {
                time,
                seen: seen.clone(),
            }),
            false => self.report.more_files += 1,
        }
    }

    fn space_began(&mut self, identity: Identity, now: &Totals, state: Option<&SpaceState>) {
        let at = (identity.time, identity.id, identity.by);
        let (id, pid) = (identity.id, identity.pid);
        let living = Living::new(identity, *now, state);
        let by_exec = living.report.began == Began::Exec;
        self.living.insert(id, living);
        if by_exec {
            // Its task was in another space until now.
            self.task_is_in(pid, id);
        }
        let tree = &mut self.report.tree;
        tree.most_spaces = tree.most_spaces.max(self.living.len() as u64);
        change_tree(tree, (&Totals::default(), Bytes(0)), (now, Bytes(0)), at);
    }

    fn task_is_in(&mut self, tid: Tid, space: SpaceId) {
        let before = self.tasks.insert(tid, space);
        if before == Some(space) {
            return;
        }
        if let Some(living) = before.and_then(|before| self.living.get_mut(&before)) {
            living.task_left(None);
        }
        if let Some(living) = self.living.get_mut(&space) {
            living.task_began();
        }
    }

    fn task_left(&mut self, tid: Tid, status: Option<TaskEnd>) {
        let space = self.tasks.remove(&tid);
        if let Some(living) = space.and_then(|space| self.living.get_mut(&space)) {
            // A vfork child is not the process that its space belongs to.
            let status = status.filter(|_| living.report.pid == tid);
            living.task_left(status);
        }
    }

    /// Changes a space, and the tree's sums with it.
    fn alter(
        &mut self,
        space: SpaceId,
        time: Timestamp,
        by: Maker,
        change: impl FnOnce(&mut Living),
    ) {
        let Some(living) = self.living.get_mut(&space) else {
            return;
        };
        let before = (living.last, living.resident);
        change(living);
        let after = (living.last, living.resident);
        if before != after {
            let (before, after) = ((&before.0, before.1), (&after.0, after.1));
            change_tree(&mut self.report.tree, before, after, (time, space, by));
        }
    }

    fn space_ended(&mut self, space: SpaceId, ended: Ended, last: &Totals, until: Timestamp) {
        let by = Maker {
            what: Made::Checked,
            ..Maker::default()
        };
        self.alter(space, until, by, |living| living.set_last(last, until, by));
        let Some(living) = self.living.remove(&space) else {
            return;
        };
        let before = living.last;
        let resident = living.resident;
        let detail = self.detailed < SpaceReport::DETAILED;
        self.detailed += 1;
        let report = living.end(ended, until, detail);
        let tree = &mut self.report.tree;
        tree.mapped
            .space_ended(before.mapped.0, report.mapped.end.0);
        tree.reserved
            .space_ended(before.reserved.0, report.reserved.end.0);
        tree.committed
            .space_ended(before.committed.0, report.committed.end.0);
        tree.charged
            .space_ended(before.charged_high.0, report.charged.end.0);
        tree.resident.space_ended(resident.0, resident.0);
        tree.mappings
            .space_ended(before.mappings, report.mappings.end);
        self.ended.insert(space, self.report.spaces.len());
        self.report.spaces.push(report);
    }
}

fn change_tree(
    tree: &mut TreeReport,
    (old, old_resident): (&Totals, Bytes),
    (new, new_resident): (&Totals, Bytes),
    at: (Timestamp, SpaceId, Maker),
) {
    tree.mapped.change(old.mapped.0, new.mapped.0, at);
    tree.reserved.change(old.reserved.0, new.reserved.0, at);
    tree.committed.change(old.committed.0, new.committed.0, at);
    tree.charged
        .change(old.charged_high.0, new.charged_high.0, at);
    tree.resident.change(old_resident.0, new_resident.0, at);
    tree.mappings.change(old.mappings, new.mappings, at);
}

impl Sink for Summary {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        self.take(event, timeline);
        Ok(())
    }
}
