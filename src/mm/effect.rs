//! What a finished call did to the address space, read off its arguments, its result and, where
//! these do not tell, the kernel's own answer about the touched ranges.

use crate::abi::{MapFlags, Prot};
use crate::decode::{Call, IoVec, Mmap, Placement};
use crate::units::{Addr, AddrRange};

use super::evidence::{SHM_REMAP, evidence_wanted, is_plain};
use super::growth::{growth, hides_growth};
use super::mremap::{mremap, mremap_failed};
use super::vma::HUGE_PAGE;
use super::{AddressSpace, Backing, Change, Charge, FileId, MapsEntry, Vma, VmaFlags};

/// The kernel's answer about one range, asked right after the call while no other call ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The range that was asked about.
    pub range: AddrRange,
    /// Every mapping that shares bytes with it, whole, in order of address.
    pub entries: Vec<MapsEntry>,
}

/// What the effect of a call depends on beside the call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// The heap's end before the call, page-rounded up; `None` until a brk call showed it.
    pub brk: Option<Addr>,
    /// The heap's start (`start_brk`), page-aligned; `None` if unknown.
    pub brk_start: Option<Addr>,
    /// vm.overcommit_memory is 2: MAP_NORESERVE is ignored.
    pub strict_overcommit: bool,
    /// A 32-bit call: lengths and addresses wrap at 4 GiB.
    pub compat: bool,
    /// The task's personality makes readable mappings executable.
    pub read_implies_exec: bool,
}

/// What a call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Changes to apply, in order.
    pub changes: Vec<Change>,
    /// The break after the call, when it told (exact byte, not rounded).
    pub brk: Option<Addr>,
    /// The call's outcome contradicts the model or cannot be told without a snapshot, which the
    /// caller should ask for. Never set where evidence was given as [`evidence_wanted`] asks.
    pub recheck: bool,
}

/// How a call ended, as far as the layout is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Interrupted before it did anything; it will run again.
    NotRun,
    /// An error, by number. Something may have changed all the same.
    Failed(i32),
    /// Success, with the result as an address.
    Done(Addr),
}

impl Outcome {
    pub(super) fn of(result: i64, context: &Context) -> Outcome {
        match result {
            // ERESTARTSYS to ERESTART_RESTARTBLOCK, include/linux/errno.h: seen only by tracers.
            -516..=-512 => Outcome::NotRun,
            -4095..=-1 => Outcome::Failed(-result as i32),
            _ if context.compat => Outcome::Done(Addr(result as u64 & 0xffff_ffff)),
            _ => Outcome::Done(Addr(result as u64)),
        }
    }
}

/// The errno of madvise(2) that says "all that was mapped is done" (mm/madvise.c,
/// `madvise_walk_vmas`).
const ENOMEM: i32 = 12;

/// What `call` did to `space`. An error does not mean that nothing changed (cases, finding 2).
pub fn effect(
    space: &AddressSpace,
    call: &Call,
    result: i64,
    context: &Context,
    evidence: &[Evidence],
) -> Effect {
    let mut effect = Effect::default();
    let outcome = Outcome::of(result, context);
    if evidence.is_empty() {
        // The kernel should have been asked and has not answered.
        let mut wanted = Vec::new();
        evidence_wanted(call, result, context, &mut wanted);
        effect.recheck = !wanted.is_empty();
    }
    let lines = evidence.iter().flat_map(|answer| &answer.entries);
    for grown in lines.filter_map(|line| growth(space, line)) {
        if !effect.changes.contains(&grown) {
            effect.changes.push(grown);
        }
    }
    match (call, outcome) {
        (_, Outcome::NotRun) => {}
        (Call::Mmap(call), Outcome::Done(at)) => {
            mmap(space, call, at, context, evidence, &mut effect);
        }
        (Call::Munmap { addr, len }, Outcome::Done(_)) => {
            let range = AddrRange::covering(*addr, *len);
            effect.changes.extend(range.map(Change::Remove));
        }
        (
            Call::Mprotect {
                addr, len, prot, ..
            },
            Outcome::Done(_),
        ) => {
            if let Some(range) = AddrRange::covering(*addr, *len) {
                mprotect(space, range, *prot, evidence, &mut effect);
            }
        }
        (Call::Mprotect { .. }, Outcome::Failed(_)) => take_over_whole(evidence, &mut effect),
        (Call::Mremap(call), Outcome::Done(at)) => {
            mremap(space, call, at, &mut effect);
            take_over(evidence, &mut effect);
        }
        (Call::Mremap(call), Outcome::Failed(_)) => {
            mremap_failed(space, call, evidence, &mut effect);
            take_over(evidence, &mut effect);
        }
        (Call::Brk { addr }, Outcome::Done(now)) => {
            brk(space, *addr, now, context, evidence, &mut effect);
        }
        (Call::Madvise { addr, len, advice }, Outcome::Done(_) | Outcome::Failed(ENOMEM)) => {
            let range = AddrRange::covering(*addr, *len);
            effect
                .changes
                .extend(range.and_then(|range| advise(range, *advice)));
        }
        (Call::ProcessMadvise { ranges, advice, .. }, Outcome::Done(Addr(bytes))) => {
            let done = advised(ranges, bytes);
            effect
                .changes
                .extend(done.filter_map(|range| advise(range, *advice)));
        }
        (Call::Shmat { flags, stored, .. }, Outcome::Done(at)) => {
            let at = stored.unwrap_or(at);
            let replaces = flags & SHM_REMAP != 0;
            insert_whole(space, at, replaces, evidence, &mut effect);
        }
        (Call::Shmdt { addr }, Outcome::Done(_)) => shmdt(space, *addr, evidence, &mut effect),
        (Call::IoSetup { context: ring, .. }, Outcome::Done(_)) => match ring {
            Some(ring) => insert_whole(space, *ring, false, evidence, &mut effect),
            None => effect.recheck = true,
        },
        (Call::IoDestroy { context: ring }, Outcome::Done(_)) => {
            take_over(evidence, &mut effect);
            if evidence.is_empty() {
                let ring = space.at(*ring).map(|vma| Change::Remove(vma.range));
                effect.changes.extend(ring);
            }
        }
        (Call::RemapFilePages { addr, len, .. }, Outcome::Done(_)) => {
            remap_file_pages(*addr, *len, evidence, &mut effect);
            take_over(evidence, &mut effect);
        }
        (Call::MapShadowStack { .. }, Outcome::Done(_)) => take_over(evidence, &mut effect),
        (Call::Mseal { addr, len, .. }, Outcome::Done(_)) => {
            let range = AddrRange::covering(*addr, *len);
            effect.changes.extend(range.map(Change::Seal));
        }
        (Call::Other, _) => {}
        // Whatever an error left behind is in the answer, where there was reason to ask.
        (_, Outcome::Failed(_)) => take_over(evidence, &mut effect),
    }
    effect.recheck |= hides_growth(space, call, &effect.changes);
    effect
}

/// Puts the kernel's answers in the place of the model's view.
fn take_over(evidence: &[Evidence], effect: &mut Effect) {
    for answer in evidence {
        let lines = answer
            .entries
            .iter()
            .map(|line| Vma::from_entry(line, None));
        effect.changes.push(Change::Replace {
            range: answer.range,
            vmas: lines.filter_map(|vma| vma.clipped(answer.range)).collect(),
        });
    }
}

/// The same, down to where the first line begins: PROT_GROWSDOWN makes mprotect(2) reach below its
/// range, to the start of the mapping.
fn take_over_whole(evidence: &[Evidence], effect: &mut Effect) {
    let mut answers = evidence.to_vec();
    for answer in &mut answers {
        if let Some(first) = answer.entries.first() {
            let start = first.range.start().min(answer.range.start());
            answer.range = AddrRange::new(start, answer.range.end()).unwrap_or(answer.range);
        }
    }
    take_over(&answers, effect);
}

/// The kernel's line about `addr`.
pub(super) fn line_at(evidence: &[Evidence], addr: Addr) -> Option<&MapsEntry> {
    let mut lines = evidence.iter().flat_map(|answer| &answer.entries);
    lines.find(|line| line.range.contains(addr))
}

fn mmap(
    space: &AddressSpace,
    call: &Mmap,
    at: Addr,
    context: &Context,
    evidence: &[Evidence],
    effect: &mut Effect,
) {
    let Some(range) = AddrRange::covering(at, call.len) else {
        effect.recheck = true;
        return;
    };
    let replaces = matches!(call.placement(), Placement::Replacing(_));
    // The kernel put it where the model holds something: calls were seen in another order.
    effect.recheck |= !replaces && !space.is_free(range);

    let mut vma = told_by_arguments(call, range, context);
    if !is_plain(call, context) {
        match line_at(evidence, at) {
            Some(line) => {
                let mut shown = Vma::from_entry(line, None);
                shown.flags = vma.flags;
                let mut range = range;
                if let Some(tail) = AddrRange::new(range.end(), line.range.end())
                    && (vma.flags.hugetlb || is_huge_tail(space, &shown, range, tail))
                {
                    shown.flags.hugetlb = true;
                    range = AddrRange::new(range.start(), tail.end()).unwrap_or(range);
                }
                match shown.clipped(range) {
                    Some(clipped) if clipped.range == range => vma = clipped,
                    // Less than was asked for: whatever it is, the answer holds it.
                    _ => return take_over(evidence, effect),
                }
            }
            // Gone again, or never asked.
            None if evidence.is_empty() => {}
            None => return take_over(evidence, effect),
        }
        vma.charge = vma.fresh_charge();
    }
    effect.changes.push(Change::Insert(vma));
}

/// Whether a mapping that is longer than asked for is so because its length was rounded to huge
/// pages (mm/mmap.c, `ksys_mmap_pgoff`), not because it merged with a neighbour of the same file.
fn is_huge_tail(space: &AddressSpace, shown: &Vma, asked: AddrRange, tail: AddrRange) -> bool {
    let aligned = (asked.start().0 | tail.end().0).is_multiple_of(HUGE_PAGE);
    let known = space.at(tail.start());
    let merged = shown.clipped(tail).is_some_and(|tail| {
        known
            .and_then(|vma| vma.clipped(tail.range))
            .is_some_and(|vma| vma.same_backing(&tail))
    });
    aligned && !merged
}

/// The mapping as far as the arguments of mmap(2) tell (mm/mmap.c, `do_mmap`).
fn told_by_arguments(call: &Mmap, range: AddrRange, context: &Context) -> Vma {
    let mut prot = call.prot.rwx();
    if context.read_implies_exec && prot.contains(Prot::READ) {
        prot |= Prot::EXEC;
    }
    let flags = call.flags;
    let shared = flags.is_shared();
    let anonymous = flags.contains(MapFlags::ANONYMOUS);
    let hugetlb = anonymous && flags.contains(MapFlags::HUGETLB);
    let ignored = context.strict_overcommit && !hugetlb;
    let droppable = flags.sharing() == MapFlags::DROPPABLE.bits();
    let backing = if anonymous && !shared {
        Backing::Anon
    } else {
        // Only a stand-in: which file it is, only the kernel can say.
        let path = call.fd.as_ref().and_then(|fd| fd.path.as_deref());
        let name = String::from_utf8_lossy(path.unwrap_or(b"/dev/zero (deleted)"));
        Backing::File {
            id: FileId::default(),
            offset: call.offset,
            name: name.into(),
        }
    };
    let mut vma = Vma {
        range,
        prot,
        shared,
        backing,
        flags: VmaFlags {
            noreserve: droppable || (flags.contains(MapFlags::NORESERVE) && !ignored),
            growsdown: anonymous && !shared && flags.contains(MapFlags::GROWSDOWN),
            hugetlb,
            ..VmaFlags::default()
        },
        charge: Charge::No,
    };
    vma.charge = vma.fresh_charge();
    vma
}

fn mprotect(
    space: &AddressSpace,
    range: AddrRange,
    prot: Prot,
    evidence: &[Evidence],
    effect: &mut Effect,
) {
    if !evidence.is_empty() {
        return take_over_whole(evidence, effect);
    }
    // It succeeded, so all of the range is mapped. What the model lacks below a stack has grown.
    let mut at = range.start();
    for vma in space.overlapping(range) {
        if let Some(hole) = AddrRange::new(at, vma.range.start()) {
            if vma.flags.growsdown {
                effect.changes.push(Change::Grow(hole));
            } else {
                effect.recheck = true;
            }
        }
        at = vma.range.end();
    }
    effect.recheck |= at < range.end();
    let prot = prot.rwx();
    effect.changes.push(Change::Protect { range, prot });
}

/// brk(2) returns the break, on failure too: the one that was (mm/mmap.c).
fn brk(
    space: &AddressSpace,
    asked: Addr,
    now: Addr,
    context: &Context,
    evidence: &[Evidence],
    effect: &mut Effect,
) {
    effect.brk = Some(now);
    let Some(old) = context.brk.and_then(Addr::page_ceil) else {
        return take_over(evidence, effect);
    };
    let new = now.page_ceil().unwrap_or(now);
    if asked != now {
        // A question, or a refusal. Another break than expected: it was moved by other means.
        effect.recheck |= old != new;
    } else if let Some(grown) = AddrRange::new(old, new) {
        effect.recheck |= !space.is_free(grown);
        let exec = match context.read_implies_exec {
            true => Prot::EXEC,
            false => Prot::NONE,
        };
        // Charged in every overcommit mode (mm/vma.c, `do_brk_flags`).
        effect.changes.push(Change::Insert(Vma {
            range: grown,
            prot: Prot::READ | Prot::WRITE | exec,
            shared: false,
            backing: Backing::Anon,
            flags: VmaFlags::default(),
            charge: Charge::Yes,
        }));
    } else if let Some(dropped) = AddrRange::new(new, old) {
        effect.changes.push(Change::Remove(dropped));
    }
}

/// What a piece of advice changes in the model (include/uapi/asm-generic/mman-common.h).
fn advise(range: AddrRange, advice: i32) -> Option<Change> {
    match advice {
        // DONTNEED, FREE, REMOVE, DONTNEED_LOCKED, GUARD_INSTALL
        4 | 8 | 9 | 24 | 102 => Some(Change::Discard(range)),
        // DONTFORK, DOFORK
        10 => Some(Change::DontFork { range, on: true }),
        11 => Some(Change::DontFork { range, on: false }),
        _ => None,
    }
}

/// The spans of a process_madvise(2) vector that were done, given the bytes it returned.
fn advised(ranges: &[IoVec], bytes: u64) -> impl Iterator<Item = AddrRange> {
    let mut left = bytes;
    ranges
        .iter()
        .map_while(move |span| {
            let done = span.len.min(left);
            left -= done;
            (0 < done || span.len == 0).then(|| AddrRange::covering(span.addr, done))
        })
        .flatten()
}

/// A mapping that the kernel made with a size of its own choosing: its whole line.
fn insert_whole(
    space: &AddressSpace,
    at: Addr,
    replaces: bool,
    evidence: &[Evidence],
    effect: &mut Effect,
) {
    let line = line_at(evidence, at).map(|line| Vma::from_entry(line, None));
    let made = line.and_then(|vma| vma.clipped(AddrRange::new(at, vma.range.end())?));
    match made {
        Some(vma) => {
            effect.recheck |= !replaces && !space.is_free(vma.range);
            effect.changes.push(Change::Insert(vma));
        }
        None => effect.recheck = true,
    }
}

/// remap_file_pages(2) is an mmap(2) of the same file over whole pages of the range, rounded down,
/// with no flags but MAP_SHARED and MAP_FIXED (mm/mmap.c).
fn remap_file_pages(addr: Addr, len: u64, evidence: &[Evidence], effect: &mut Effect) {
    let Some(range) = AddrRange::covering(addr.page_floor(), Addr(len).page_floor().0) else {
        return;
    };
    let lines = evidence.iter().flat_map(|answer| &answer.entries);
    let made = lines.filter_map(|line| Vma::from_entry(line, None).clipped(range));
    effect.changes.extend(made.map(Change::Insert));
}

/// shmdt(2) takes away every piece of the segment that lies where it was attached (ipc/shm.c,
/// `ksys_shmdt`), also beyond holes. What the answer does not reach is told from the model.
fn shmdt(space: &AddressSpace, addr: Addr, evidence: &[Evidence], effect: &mut Effect) {
    take_over(evidence, effect);
    let answered = evidence.iter().map(|answer| answer.range.end()).max();
    let beyond = answered.unwrap_or(addr);
    let Some(range) = AddrRange::new(addr, Addr(u64::MAX).page_floor()) else {
        return;
    };
    let mut pieces = space.overlapping(range);
    let Some(first) = pieces.find(|vma| is_piece_of_segment(vma, addr)) else {
        return;
    };
    let rest = pieces.filter(|vma| vma.shared && vma.same_backing(first));
    for vma in std::iter::once(first).chain(rest) {
        let dropped = AddrRange::new(vma.range.start().max(beyond), vma.range.end());
        effect.changes.extend(dropped.map(Change::Remove));
    }
}

/// Whether `vma` lies at its offset from `addr`, where the segment's first byte is.
fn is_piece_of_segment(vma: &Vma, addr: Addr) -> bool {
    match &vma.backing {
        Backing::File { offset, name, .. } => {
            name.starts_with("/SYSV") && vma.range.start().0.wrapping_sub(addr.0) == *offset
        }
        _ => false,
    }
}
