//! The peaks of the parts of committed, which a report has only together.

use std::collections::HashMap;
use std::io;

use crate::mm::Parts;
use crate::timeline::{Event, EventKind, Sink, Timeline};
use crate::units::{Bytes, SpaceId, Timestamp};

use super::Measure;
use super::measured::part;

/// A sink that keeps the highest value of each part of committed, for each space and for all
/// spaces that live at the same instant.
#[derive(Clone, Debug, Default)]
pub struct PartsPeaks {
    now: HashMap<SpaceId, Parts>,
    peaks: HashMap<SpaceId, Parts>,
    tree_now: Parts,
    tree_peak: Parts,
    /// When each of the sums was at its highest first.
    tree_time: HashMap<Measure, Timestamp>,
}

impl PartsPeaks {
    /// The highest values of one space, each at its own instant.
    pub fn of(&self, space: SpaceId) -> Parts {
        self.peaks.get(&space).copied().unwrap_or_default()
    }

    /// The highest sums over living spaces, each at its own instant.
    pub fn tree(&self) -> Parts {
        self.tree_peak
    }

    /// When the highest sum of `measure`, which is a part of committed, was reached.
    pub(super) fn tree_time(&self, measure: Measure) -> Timestamp {
        self.tree_time.get(&measure).copied().unwrap_or_default()
    }

    fn set(&mut self, time: Timestamp, space: SpaceId, parts: Parts) {
        let old = self.now.insert(space, parts).unwrap_or_default();
        let peak = self.peaks.entry(space).or_default();
        *peak = each(*peak, parts, u64::max);
        let rest = each(self.tree_now, old, u64::saturating_sub);
        self.tree_now = each(rest, parts, u64::saturating_add);
        for measure in [Measure::Anon, Measure::File, Measure::Shmem] {
            if part(&self.tree_peak, measure) < part(&self.tree_now, measure) {
                self.tree_time.insert(measure, time);
            }
        }
        self.tree_peak = each(self.tree_peak, self.tree_now, u64::max);
    }
}

fn each(a: Parts, b: Parts, join: fn(u64, u64) -> u64) -> Parts {
    let join = |a: Bytes, b: Bytes| Bytes(join(a.0, b.0));
    Parts {
        anon: join(a.anon, b.anon),
        file: join(a.file, b.file),
        shmem: join(a.shmem, b.shmem),
        special: join(a.special, b.special),
    }
}

impl Sink for PartsPeaks {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        match &event.kind {
            EventKind::SpaceBegan { now, .. } => self.set(event.time, event.space, now.parts),
            // A call in a space that has ended, or was never seen, has no sums.
            EventKind::Call(call) if timeline.spaces.contains_key(&event.space) => {
                self.set(event.time, event.space, call.now.parts);
            }
            EventKind::Checked(checked) => self.set(event.time, event.space, checked.now.parts),
            EventKind::SpaceEnded { last, .. } => {
                self.set(event.time, event.space, last.parts);
                if let Some(gone) = self.now.remove(&event.space) {
                    self.tree_now = each(self.tree_now, gone, u64::saturating_sub);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
