//! What the mappings of a process are of which nothing but its maps is known: it lived before it was
//! looked at. There are no calls to go by, so less is recognised than in a trace.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::abi::Prot;
use crate::mm::{MapsEntry, Snapshot, Vma};
use crate::report::Place;
use crate::units::{AddrRange, Bytes};

use super::sanitizer;
use super::{Basis, Clues, Kind, Recognized, Surroundings, by_name, loader};

mod shapes;
#[cfg(test)]
mod tests;

/// The bytes of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindSum {
    /// All of them.
    pub mapped: Bytes,
    /// Those without any access right.
    pub reserved: Bytes,
    /// The others.
    pub committed: Bytes,
    /// Physical memory behind them, where smaps was read.
    pub resident: Option<Bytes>,
    /// Lines of maps.
    pub count: u64,
    /// What the first of them was told by.
    pub evidence: Option<Recognized>,
}

/// One line of maps, as far as it matters here.
struct Line<'a> {
    entry: &'a MapsEntry,
    /// `None` where smaps was not read.
    noreserve: Option<bool>,
}

impl Line<'_> {
    /// Private memory of no file.
    fn is_anonymous(&self) -> bool {
        let name = &*self.entry.name;
        !self.entry.shared && (name.is_empty() || name.starts_with("[anon:"))
    }

    fn is_reserved(&self) -> bool {
        self.entry.prot.rwx().is_empty()
    }

    fn is_data(&self) -> bool {
        self.entry.prot.rwx() == Prot::READ | Prot::WRITE
    }

    fn place(&self) -> Place {
        match &*self.entry.name {
            "[heap]" => Place::Heap,
            "[stack]" => Place::Stack,
            _ => {
                let vma = Vma::from_entry(self.entry, None);
                match vma.category() {
                    crate::mm::Category::Anon => Place::Anon,
                    crate::mm::Category::File => Place::File(Arc::clone(&self.entry.name)),
                    crate::mm::Category::Shmem => Place::Shared(Arc::clone(&self.entry.name)),
                    crate::mm::Category::Special => Place::Special(Arc::clone(&self.entry.name)),
                }
            }
        }
    }
}

/// What each line of `snapshot` is. `around` tells of the program and of the versions that files
/// state; the mapped files are taken from the snapshot itself.
pub fn recognize_snapshot(snapshot: &Snapshot, around: &Surroundings) -> Vec<Option<Recognized>> {
    let mut around = around.clone();
    around.files_of(snapshot);
    let lines: Vec<Line<'_>> = snapshot
        .entries
        .iter()
        .enumerate()
        .map(|(index, entry)| Line {
            entry,
            noreserve: snapshot.smaps.get(index).map(|smaps| smaps.noreserve),
        })
        .collect();
    let mut verdicts: Vec<Option<Recognized>> = lines
        .iter()
        .enumerate()
        .map(|(index, line)| {
            let mut clues = Clues::new(line.entry.range, line.place());
            if line.entry.name.starts_with("[anon:") {
                clues.name = Some(Arc::clone(&line.entry.name));
            }
            let before = index.checked_sub(1).and_then(|index| lines.get(index));
            clues.over = before.and_then(|before| bss_of(before, line));
            let verdict =
                by_name(&clues, &around).or_else(|| loader::by_mechanism(&clues, &around));
            match (verdict, &clues.over) {
                // Nobody was seen to map it there.
                (Some(known), Some(_)) if known.kind.what.contains("bss") => Some(Recognized {
                    basis: Basis::Shape,
                    evidence: "shape: directly behind the data of a file".into(),
                    ..known
                }),
                (verdict, _) => verdict,
            }
        })
        .collect();
    for layout in &sanitizer::LAYOUTS {
        if layout.is_of(snapshot) {
            let by = "where its shadow lies".into();
            around.shown(layout.owner, &by);
        }
    }
    for run in runs(&lines) {
        shapes::of_run(&lines, run, &around, &mut verdicts);
    }
    verdicts
}

/// The file whose data segment `line` directly continues: ld.so and execve put a bss there.
fn bss_of(before: &Line<'_>, line: &Line<'_>) -> Option<(Place, AddrRange)> {
    let follows = before.entry.range.end() == line.entry.range.start()
        && before.entry.name.starts_with('/')
        && before.is_data()
        && line.is_data()
        && line.entry.name.is_empty();
    follows.then(|| (before.place(), before.entry.range))
}

/// Lines that touch and are anonymous.
fn runs(lines: &[Line<'_>]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if !line.is_anonymous() {
            continue;
        }
        match runs.last_mut() {
            Some(run)
                if run.end == index
                    && lines[index - 1].entry.range.end() == line.entry.range.start() =>
            {
                run.end = index + 1;
            }
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

/// The bytes of each kind, the largest first; `None` is what nothing tells of.
pub fn sums_of_snapshot(
    snapshot: &Snapshot,
    around: &Surroundings,
) -> Vec<(Option<Kind>, KindSum)> {
    let mut sums: BTreeMap<Option<Kind>, KindSum> = BTreeMap::new();
    let verdicts = recognize_snapshot(snapshot, around);
    for (index, (entry, verdict)) in snapshot.entries.iter().zip(verdicts).enumerate() {
        let kind = verdict.as_ref().map(|verdict| verdict.kind);
        let sum = sums.entry(kind).or_default();
        let bytes = Bytes(entry.range.len());
        sum.mapped += bytes;
        match entry.prot.rwx().is_empty() {
            true => sum.reserved += bytes,
            false => sum.committed += bytes,
        }
        if let Some(smaps) = snapshot.smaps.get(index) {
            *sum.resident.get_or_insert(Bytes(0)) += smaps.resident;
        }
        sum.count += 1;
        if sum.evidence.is_none() {
            sum.evidence = verdict;
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|(a_kind, a), (b_kind, b)| b.mapped.cmp(&a.mapped).then(a_kind.cmp(b_kind)));
    sums
}
