//! Shapes of lines of maps that touch.

use crate::abi::Prot;
use crate::report::recognize::{Basis, Recognized, Surroundings, found};
use crate::report::recognize::{glibc, go, hotspot, partition_alloc, sanitizer, v8};
use crate::units::AddrRange;

use super::Line;

const MIB: u64 = 1 << 20;
const ARENA: u64 = 64 * MIB;

/// Shapes of lines that touch.
pub(super) fn of_run(
    lines: &[Line<'_>],
    run: std::ops::Range<usize>,
    around: &Surroundings,
    verdicts: &mut [Option<Recognized>],
) {
    let mut index = run.start;
    while index < run.end {
        let rest = &lines[index..run.end];
        let (count, verdict) = None
            .or_else(|| sanitizer(rest, around))
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

/// Memory where the program itself can have none.
fn sanitizer(lines: &[Line<'_>], around: &Surroundings) -> Found {
    let [first, ..] = lines else { return None };
    let mut layouts = sanitizer::LAYOUTS.iter();
    let layout = layouts.find(|layout| around.has(layout.owner))?;
    let what = match (first.is_reserved(), first.is_data()) {
        (true, _) => layout.without_access(first.entry.range),
        (_, true) => layout.usable(first.entry.range),
        _ => None,
    }?;
    let evidence = "shape: where its layout leaves no room for the program's own";
    Some((1, shape(layout.owner, what, evidence)))
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
