//! Maps to bytes: entries, snapshots, evidence.

use std::sync::Arc;

use crate::mm::{Evidence, FileId, MapsEntry, SmapsInfo, Snapshot};
use crate::trace_file::tables::Shape;
use crate::trace_file::wire::{put_near, put_varint};

use super::{Encoder, bits};

impl Encoder {
    pub(super) fn evidence(&mut self, out: &mut Vec<u8>, near: u64, evidence: &[Evidence]) {
        put_varint(out, evidence.len() as u64);
        for Evidence { range, entries } in evidence {
            put_near(out, range.start().0, [near, 0]);
            put_near(out, range.len(), [0, 0]);
            put_varint(out, entries.len() as u64);
            let mut end = range.start().0;
            for entry in entries {
                self.entry(out, &mut end, entry);
            }
        }
    }

    fn entry(&mut self, out: &mut Vec<u8>, end: &mut u64, entry: &MapsEntry) {
        self.shape(out, Shape::of(entry));
        put_near(out, entry.range.start().0, [*end, 0]);
        *end = entry.range.end().0;
    }

    fn shape(&mut self, out: &mut Vec<u8>, shape: Shape) {
        if let Some(index) = self.shapes.find(&shape) {
            put_varint(out, index as u64 + 1);
            return;
        }
        put_varint(out, 0);
        let Shape {
            len,
            prot,
            shared,
            offset,
            file,
            name,
        } = &shape;
        put_near(out, *len, [0, 0]);
        let has_file = *file != FileId::default();
        out.push(bits(&[*shared, has_file, *offset != 0, !name.is_empty()]) as u8);
        put_varint(out, prot.bits().into());
        if has_file {
            put_varint(out, file.major.into());
            put_varint(out, file.minor.into());
            put_varint(out, file.inode);
        }
        if *offset != 0 {
            put_near(out, *offset, [0, 0]);
        }
        if !name.is_empty() {
            let name = Arc::clone(name);
            self.string(out, name.as_bytes());
        }
        self.shapes.add(shape);
    }

    pub(super) fn snapshot(&mut self, out: &mut Vec<u8>, snapshot: &Snapshot) {
        let Snapshot { entries, smaps } = snapshot;
        put_varint(out, entries.len() as u64);
        match self.best_base(entries) {
            Some((back, steps)) => {
                put_varint(out, back as u64 + 1);
                self.steps(out, entries, &steps);
            }
            None => {
                put_varint(out, 0);
                let mut end = 0;
                for entry in entries {
                    self.entry(out, &mut end, entry);
                }
            }
        }
        self.bases.keep(entries);
        put_varint(out, smaps.len() as u64);
        smaps.iter().for_each(|info| put_smaps(out, info));
    }

    /// The kept snapshot that has most entries in common, if that is at least half of them.
    fn best_base(&self, entries: &[MapsEntry]) -> Option<(usize, Vec<Step>)> {
        let steps = self.bases.iter().map(|base| steps_from(base, entries));
        let (back, (common, steps)) = steps
            .enumerate()
            .max_by_key(|(back, (common, _))| (*common, usize::MAX - back))?;
        (entries.len() <= common * 2 && 0 < common).then_some((back, steps))
    }

    fn steps(&mut self, out: &mut Vec<u8>, entries: &[MapsEntry], steps: &[Step]) {
        let mut rest = entries.iter();
        let mut end = 0;
        for Step { what, count } in steps {
            put_varint(out, (*count as u64) << 2 | *what as u64);
            for _ in 0..*count {
                match what {
                    StepKind::Skip => {}
                    StepKind::Copy => end = rest.next().map_or(end, |entry| entry.range.end().0),
                    StepKind::New => {
                        if let Some(entry) = rest.next() {
                            self.entry(out, &mut end, entry);
                        }
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StepKind {
    Copy = 0,
    Skip = 1,
    New = 2,
}

struct Step {
    what: StepKind,
    count: usize,
}

/// How to get from one list of entries to another, and how many are in both. Both are in order of
/// address, so one walk over both finds it.
fn steps_from(base: &[MapsEntry], entries: &[MapsEntry]) -> (usize, Vec<Step>) {
    let mut steps: Vec<Step> = Vec::new();
    let mut common = 0;
    let mut base = base.iter().peekable();
    let mut step = |what| match steps.last_mut() {
        Some(last) if last.what == what => last.count += 1,
        _ => steps.push(Step { what, count: 1 }),
    };
    for entry in entries {
        while base
            .next_if(|old| old.range.start() < entry.range.start())
            .is_some()
        {
            step(StepKind::Skip);
        }
        if base.next_if(|old| *old == entry).is_some() {
            common += 1;
            step(StepKind::Copy);
        } else {
            step(StepKind::New);
        }
    }
    (common, steps)
}

fn put_smaps(out: &mut Vec<u8>, info: &SmapsInfo) {
    let SmapsInfo {
        resident,
        anonymous,
        swap,
        lazy_free,
        locked,
        charged,
        noreserve,
        growsdown,
        dontfork,
        sealed,
        hugetlb,
    } = info;
    let amounts = [resident, anonymous, swap, lazy_free, locked];
    let flags = bits(&[
        *charged, *noreserve, *growsdown, *dontfork, *sealed, *hugetlb,
    ]);
    let present = bits(&amounts.map(|amount| amount.0 != 0));
    put_varint(out, (flags | present << 6).into());
    for amount in amounts.iter().filter(|amount| amount.0 != 0) {
        put_near(out, amount.0, [0, 0]);
    }
}
