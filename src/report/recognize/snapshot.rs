//! What the mappings of a process are of which nothing but its maps is known: it lived before it was
//! looked at. There are no calls to go by, so less is recognised than in a trace.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::abi::Prot;
use crate::mm::{MapsEntry, Snapshot, Vma};
use crate::report::Place;
use crate::units::{AddrRange, Bytes};

use super::{Basis, Clues, Kind, Recognized, Surroundings, by_name, found, loader};
use super::{glibc, go, hotspot, partition_alloc, v8};

const MIB: u64 = 1 << 20;
const ARENA: u64 = 64 * MIB;

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
    for run in runs(&lines) {
        of_run(&lines, run, &around, &mut verdicts);
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

/// Shapes of lines that touch.
fn of_run(
    lines: &[Line<'_>],
    run: std::ops::Range<usize>,
    around: &Surroundings,
    verdicts: &mut [Option<Recognized>],
) {
    let mut index = run.start;
    while index < run.end {
        let rest = &lines[index..run.end];
        let (count, verdict) = None
            .or_else(|| arena(rest, around))
            .or_else(|| code_cache(rest, around))
            .or_else(|| stack(rest, around))
            .or_else(|| go_heap(rest, around))
            .or_else(|| java_heap(rest, around))
            .or_else(|| partition_alloc(rest, around))
            .or_else(|| v8(rest, around))
            .or_else(|| go_rest(rest, around))
            .unwrap_or((1, None));
        for known in &mut verdicts[index..index + count] {
            if known.is_none() {
                known.clone_from(&verdict);
            }
        }
        index += count;
    }
}

type Found = Option<(usize, Option<Recognized>)>;

fn shape(owner: &'static str, what: &'static str, evidence: &'static str) -> Option<Recognized> {
    Some(found(owner, what, Basis::Shape, evidence))
}

/// Lines from the first one up to `end`, if there is a border.
fn up_to(lines: &[Line<'_>], end: u64) -> Option<usize> {
    let last = lines
        .iter()
        .position(|line| end <= line.entry.range.end().0)?;
    (lines[last].entry.range.end().0 == end).then_some(last + 1)
}

fn arena(lines: &[Line<'_>], around: &Surroundings) -> Found {
    let [first, ..] = lines else { return None };
    let start = first.entry.range.start().0;
    if !start.is_multiple_of(ARENA) || !first.is_data() || first.noreserve == Some(false) {
        return None;
    }
    let count = up_to(lines, start.checked_add(ARENA)?)?;
    let shaped = lines[1..count]
        .iter()
        .all(|line| line.is_reserved() && line.noreserve != Some(false));
    let known = around.has(glibc::OWNER) && !around.replaces_malloc() && !around.has(go::OWNER);
    // With smaps the flag is known, and it is what Go's arenas do not have.
    let known = known || (around.has(glibc::OWNER) && first.noreserve == Some(true));
    (shaped && 2 == count && known).then(|| {
        let evidence = "shape: 64 MiB at their alignment, NORESERVE, used from the bottom";
        (count, shape(glibc::OWNER, "malloc arenas", evidence))
    })
}

fn code_cache(lines: &[Line<'_>], around: &Surroundings) -> Found {
    let [first, ..] = lines else { return None };
    let code = first.entry.prot.rwx() == Prot::READ | Prot::WRITE | Prot::EXEC;
    (around.has(hotspot::OWNER) && code).then(|| {
        let rest = lines[1..]
            .iter()
            .take_while(|line| line.is_reserved() || line.entry.prot.contains(Prot::EXEC));
        let evidence = "shape: writable and executable, in a process of HotSpot";
        (
            1 + rest.count(),
            shape(hotspot::OWNER, "code cache", evidence),
        )
    })
}

/// A guard page and a stack of a usual size above it.
fn stack(lines: &[Line<'_>], around: &Surroundings) -> Found {
    let [guard, stack, ..] = lines else {
        return None;
    };
    let size = stack.entry.range.len();
    let shaped = guard.is_reserved()
        && guard.entry.range.len() == 4096
        && stack.is_data()
        && around.is_stack_size(size);
    (shaped && around.has(glibc::OWNER)).then(|| {
        let evidence = "shape: a guard page below memory of RLIMIT_STACK, 8 MiB or 1 MiB";
        (2, shape(glibc::OWNER, "thread stacks", evidence))
    })
}

/// Arenas that touch: 64 MiB each at their alignment, usable in multiples of 4 MiB (`pallocChunkBytes`).
/// Since 1.27 the first of them is not used from its start on.
fn go_heap(lines: &[Line<'_>], around: &Surroundings) -> Found {
    let [first, ..] = lines else { return None };
    let start = first.entry.range.start().0;
    if !around.has(go::OWNER) || !start.is_multiple_of(ARENA) {
        return None;
    }
    let mut used = false;
    let mut whole = None;
    for (index, line) in lines.iter().enumerate() {
        let end = line.entry.range.end().0;
        let next = lines.get(index + 1);
        let changes = next.is_none_or(|next| next.is_reserved() != line.is_reserved());
        let usual = line.is_data() || line.is_reserved();
        if !usual || line.noreserve == Some(true) || (changes && !end.is_multiple_of(4 * MIB)) {
            break;
        }
        used |= line.is_data();
        if used && end.is_multiple_of(ARENA) {
            whole = Some(index + 1);
        }
    }
    whole.map(|count| {
        let evidence = "shape: arenas of 64 MiB at their alignment, used in multiples of 4 MiB";
        (count, shape(go::OWNER, "heap arenas", evidence))
    })
}

fn java_heap(lines: &[Line<'_>], around: &Surroundings) -> Found {
    let [first, ..] = lines else { return None };
    // Where compressed references reach without a base: ReservedHeapSpace, OopEncodingHeapMax.
    let low = first.entry.range.start().0 < 32 << 30;
    let end = lines.last()?.entry.range.end().0;
    let size = end.saturating_sub(first.entry.range.start().0);
    let below_classes = end <= 32 << 30;
    let known = around.has(hotspot::OWNER) && low && below_classes && 8 * MIB <= size;
    known.then(|| {
        let evidence = "shape: 8 MiB or more below 32 GiB, where references stay compressed";
        (lines.len(), shape(hotspot::OWNER, "Java heap", evidence))
    })
}

/// A pool is used in super pages of 2 MiB; of its metadata, where that lies apart, one page for each of
/// them is.
fn partition_alloc(lines: &[Line<'_>], around: &Surroundings) -> Found {
    let [first, ..] = lines else { return None };
    if !around.has(partition_alloc::OWNER) || first.noreserve == Some(true) {
        return None;
    }
    let start = first.entry.range.start().0;
    let sizes = partition_alloc::POOL_SIZES.into_iter();
    let known = |what, evidence| shape(partition_alloc::OWNER, what, evidence);
    let mut found = sizes.filter_map(|size| {
        let count = up_to(lines, start.checked_add(size)?)?;
        Some((count, start.is_multiple_of(size), size))
    });
    let (count, aligned, size) = found.next()?;
    if aligned {
        // V8 has cages of that size too; two pools beside each other are larger.
        let evidence = "shape: 32 GiB at their alignment, as two pools are reserved";
        return (size == 32 << 30).then(|| (count, known(partition_alloc::POOLS, evidence)));
    }
    let used = lines[..count].iter().filter(|line| line.is_data());
    let used: Vec<AddrRange> = used.map(|line| line.entry.range).collect();
    let pages = used.iter().all(|range| range.len() == 4096);
    let next = |range: &&AddrRange| {
        let next = range.start().0.checked_add(2 * MIB);
        used.iter().any(|other| Some(other.start().0) == next)
    };
    let steps = used.iter().filter(next).count();
    (pages && 2 <= steps).then(|| {
        let evidence = "shape: of the size of a pool, single pages of it used 2 MiB apart";
        (count, known(partition_alloc::METADATA, evidence))
    })
}

fn v8(lines: &[Line<'_>], around: &Surroundings) -> Found {
    let [first, ..] = lines else { return None };
    if !around.has(v8::OWNER) || first.noreserve == Some(false) {
        return None;
    }
    let (start, len) = (first.entry.range.start().0, first.entry.range.len());
    // 1 TiB and regions around it.
    let end = lines.last()?.entry.range.end().0;
    if first.is_reserved() && start.is_multiple_of(4 << 30) && 1 << 40 <= end.checked_sub(start)? {
        let evidence = "shape: 1 TiB or more, NORESERVE";
        return Some((lines.len(), shape(v8::OWNER, v8::SANDBOX, evidence)));
    }
    // 32-bit memories: guards of 2 GiB below them, and room to 8 GiB above their start.
    if first.is_reserved()
        && 2048 * MIB <= len
        && let Some(count) = up_to(lines, start.checked_add(10240 * MIB)?)
    {
        let evidence = "shape: 10 GiB, the lowest 2 GiB without access";
        return Some((count, shape(v8::OWNER, "wasm memory", evidence)));
    }
    // kMaximalCodeRangeSize of this and of earlier versions.
    let code = |line: &Line<'_>| line.entry.prot.contains(Prot::EXEC);
    let sizes = [512 * MIB, 128 * MIB].into_iter();
    let mut ranges = sizes.filter_map(|size| up_to(lines, start.checked_add(size)?));
    if let Some(count) = ranges.find(|count| lines[..*count].iter().any(code)) {
        let evidence = "shape: 512 or 128 MiB with code that belongs to no file";
        return Some((count, shape(v8::OWNER, "code range", evidence)));
    }
    let page = first.is_data() && start.is_multiple_of(256 << 10) && len == 256 << 10;
    (page && lines.len() == 1).then(|| {
        let evidence = "shape: 256 KiB at their alignment, apart from all else";
        (1, shape(v8::OWNER, "heap pages", evidence))
    })
}

/// What is left of a Go program that holds no other runtime.
fn go_rest(lines: &[Line<'_>], around: &Surroundings) -> Found {
    let [first, ..] = lines else { return None };
    if !around.has(go::OWNER) || first.noreserve == Some(true) {
        return None;
    }
    let is_summary = |line: &Line<'_>| line.is_reserved() && 64 << 10 <= line.entry.range.len();
    if is_summary(first) {
        // With the few pages of them that are used.
        let mut count = 1;
        while let Some([used, next, ..]) = lines.get(count..)
            && used.is_data()
            && used.entry.range.len() < MIB
            && is_summary(next)
        {
            count += 2;
        }
        let evidence = "shape: reserved without NORESERVE, outside the heap of a Go program";
        return Some((count, shape(go::OWNER, "page summaries", evidence)));
    }
    let alone = !around.has(glibc::OWNER);
    let evidence = "shape: memory outside the heap of a Go program without a C library";
    (alone && first.is_data()).then(|| (1, shape(go::OWNER, "heap metadata", evidence)))
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
