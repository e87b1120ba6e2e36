//! Mapped, reserved, committed and resident over time, of all spaces together.
//!
//! However long a trace is, its time is cut into at most [`STEPS`] equal steps: when there would be
//! more, each becomes twice as long.

use std::collections::BTreeMap;
use std::io;

use crate::report::{Made, Maker};
use crate::timeline::{Event, EventKind, Sink, Timeline};
use crate::units::{Bytes, SpaceId, Timestamp};

use super::filter::Filter;

/// Most steps that are kept.
const STEPS: usize = 2048;
/// The shortest step, in nanoseconds.
const SHORTEST: u64 = 1000;
/// Figures: mapped, reserved, committed, resident.
const FIGURES: usize = 4;

/// Mapped, reserved, committed, resident at one instant or over a step.
pub type Figures = [u64; FIGURES];

/// An equal part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The highest value of each figure, also of what it began with.
    pub highest: Figures,
    /// The values at its end.
    pub last: Figures,
}

/// The figures over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    /// When the first step begins.
    pub start: Timestamp,
    /// When the last one ends.
    pub end: Timestamp,
    /// Nanoseconds of each.
    pub length: u64,
    /// The steps.
    pub list: Vec<Step>,
    /// Of each figure.
    pub curves: [Curve; FIGURES],
}

/// What is to be said of one figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Curve {
    /// The highest value.
    pub peak: Bytes,
    /// When it was reached first.
    pub peak_time: Timestamp,
    /// The event that made it.
    pub peak_by: Maker,
}

impl Steps {
    fn new(start: Timestamp) -> Steps {
        Steps {
            start,
            end: start,
            length: SHORTEST,
            ..Steps::default()
        }
    }

    /// From `time` on, the figures are `now`; they were `before` until then.
    fn record(&mut self, time: Timestamp, before: Figures, now: Figures) {
        self.end = self.end.max(time);
        let index = loop {
            let index = usize::try_from(time.since(self.start) / self.length);
            match index {
                Ok(index) if index < STEPS => break index,
                _ => self.halve(),
            }
        };
        let carried = Step {
            highest: before,
            last: before,
        };
        if self.list.len() <= index {
            self.list.resize(index + 1, carried);
        }
        // An event may bear a time a little before the last one's.
        if let Some(step) = self.list.last_mut() {
            for (highest, now) in step.highest.iter_mut().zip(now) {
                *highest = now.max(*highest);
            }
            step.last = now;
        }
    }

    fn halve(&mut self) {
        let pairs = self.list.chunks(2).map(|pair| match pair {
            [first, second] => Step {
                highest: std::array::from_fn(|i| first.highest[i].max(second.highest[i])),
                last: second.last,
            },
            _ => pair.first().copied().unwrap_or_default(),
        });
        self.list = pairs.collect();
        self.length = self.length.saturating_mul(2);
    }

    /// Nanoseconds from the first step to the end.
    pub fn duration(&self) -> u64 {
        self.end.since(self.start)
    }

    /// The highest values in each of `count` equal parts of the time; empty if nothing was seen.
    pub fn columns(&self, count: usize) -> Vec<Figures> {
        let Some(last) = self.list.len().checked_sub(1) else {
            return Vec::new();
        };
        let part = |column: usize| {
            let duration = u128::from(self.duration());
            let time = duration * column as u128 / count.max(1) as u128;
            time / u128::from(self.length.max(1))
        };
        let column = |column: usize| {
            let first = (part(column) as usize).min(last);
            let end = (part(column + 1) as usize).clamp(first, last);
            let steps = self.list.get(first..=end).unwrap_or_default();
            steps.iter().fold([0; FIGURES], |highest, step| {
                std::array::from_fn(|i| highest[i].max(step.highest[i]))
            })
        };
        (0..count).map(column).collect()
    }

    /// In which of `count` equal parts of the time `time` is.
    pub fn column_of(&self, time: Timestamp, count: usize) -> usize {
        let at = u128::from(time.since(self.start)) * count as u128;
        let column = at / u128::from(self.duration().max(1));
        (column as usize).min(count.saturating_sub(1))
    }
}

/// A sink that collects the figures over time.
#[derive(Debug)]
pub struct OverTime {
    filter: Filter,
    spaces: BTreeMap<SpaceId, Figures>,
    now: Figures,
    steps: Steps,
}

impl OverTime {
    /// The figures of the spaces that `filter` admits, in the time that it admits.
    pub fn new(filter: Filter) -> OverTime {
        let start = filter.since.unwrap_or_default();
        OverTime {
            filter,
            spaces: BTreeMap::new(),
            now: [0; FIGURES],
            steps: Steps::new(start),
        }
    }

    /// What was collected.
    pub fn into_steps(self) -> Steps {
        self.steps
    }

    fn set(&mut self, event: &Event, what: Made, change: impl FnOnce(&mut Figures)) {
        let space = self.spaces.entry(event.space).or_default();
        let old = *space;
        change(space);
        let new = *space;
        let before = self.now;
        for ((sum, old), new) in self.now.iter_mut().zip(old).zip(new) {
            *sum = sum.saturating_sub(old).saturating_add(new);
        }
        if self.now != before && self.steps.start <= event.time {
            let by = Maker {
                seq: event.seq,
                tid: event.tid,
                what,
            };
            self.peaks(before, self.steps.start, Maker::default());
            self.peaks(self.now, event.time, by);
            self.steps.record(event.time, before, self.now);
        }
    }

    fn peaks(&mut self, values: Figures, time: Timestamp, by: Maker) {
        for (curve, value) in self.steps.curves.iter_mut().zip(values) {
            if curve.peak.0 < value {
                *curve = Curve {
                    peak: Bytes(value),
                    peak_time: time,
                    peak_by: by,
                };
            }
        }
    }
}

impl Sink for OverTime {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        let pid = timeline.spaces.get(&event.space).map(|state| state.pid);
        if !self
            .filter
            .admits_space(event.space, pid.unwrap_or(event.pid))
        {
            return Ok(());
        }
        if self.steps.start <= event.time {
            self.steps.end = self.steps.end.max(event.time);
        }
        let sums = |figures: &mut Figures, now: &crate::mm::Totals| {
            *figures = [now.mapped.0, now.reserved.0, now.committed.0, figures[3]];
        };
        match &event.kind {
            EventKind::SpaceBegan { now, .. } => {
                self.set(event, Made::Began, |figures| sums(figures, now));
            }
            EventKind::Call(call) => {
                let made = Made::Call(call.raw, call.result);
                self.set(event, made, |figures| sums(figures, &call.now));
            }
            EventKind::Checked(checked) => {
                self.set(event, Made::Checked, |figures| sums(figures, &checked.now));
            }
            EventKind::Sample(resident) => {
                self.set(event, Made::Sampled, |figures| figures[3] = resident.now.0);
            }
            EventKind::SpaceEnded { .. } => {
                self.set(event, Made::Checked, |figures| {
                    *figures = Figures::default()
                });
                self.spaces.remove(&event.space);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _: &Timeline) -> io::Result<()> {
        let now = self.now;
        self.peaks(now, self.steps.start, Maker::default());
        let end = self.steps.end;
        if end > self.steps.start || now != Figures::default() {
            self.steps.record(end, now, now);
        }
        Ok(())
    }
}
