//! Which ranges the kernel must be asked about after a call, because its arguments and its result
//! do not tell what it did.
//!
//! | call | asked when |
//! |---|---|
//! | mmap | not plain private anonymous memory (device and inode, rounding, growth are the kernel's); failed with MAP_FIXED |
//! | munmap, mprotect | failed on a valid range; PROT_GROWSDOWN; READ_IMPLIES_EXEC |
//! | mremap | always: source and target |
//! | brk | only the first one, when the break before it is not known |
//! | shmat, shmdt, remap_file_pages, io_setup, io_destroy, map_shadow_stack | always |
//! | madvise, process_madvise, mseal | never |
//!
//! An answer costs 0.2 µs a mapping (PROCMAP_QUERY, Linux 6.11), so where in doubt it asks.

use crate::abi::{MapFlags, MremapFlags, Prot};
use crate::decode::{Call, Mmap, Mremap, Placement};
use crate::units::{Addr, AddrRange, PAGE};

use super::effect::{Context, Outcome};
use super::vma::HUGE_PAGE;

/// SHM_REMAP of shmat(2), include/uapi/linux/shm.h.
pub(super) const SHM_REMAP: i32 = 0o40000;

/// How far above its address a segment, a ring or a heap of unknown size is looked for.
const SEGMENT_SPAN: u64 = 1 << 30;
const RING_SPAN: u64 = 16 << 20;
const HEAP_SPAN: u64 = 1 << 40;

/// The ranges to ask the kernel about at the exit stop of `call`, appended to `out`.
/// `result` is the return value as a signed register. Nothing for the hot calls that succeed.
/// Depends on nothing but the arguments, so the edge can call it without the model.
pub fn evidence_wanted(call: &Call, result: i64, context: &Context, out: &mut Vec<AddrRange>) {
    let outcome = Outcome::of(result, context);
    if outcome == Outcome::NotRun {
        return;
    }
    match call {
        Call::Mmap(mmap) => out.extend(mmap_wants(mmap, outcome, context)),
        Call::Munmap { addr, len } => {
            if let Outcome::Failed(_) = outcome {
                out.extend(AddrRange::covering(*addr, *len));
            }
        }
        Call::Mprotect {
            addr, len, prot, ..
        } => {
            let adds_exec = context.read_implies_exec
                && prot.contains(Prot::READ)
                && !prot.contains(Prot::EXEC);
            let told = matches!(outcome, Outcome::Done(_))
                && !adds_exec
                && !prot.intersects(Prot::GROWSDOWN | Prot::GROWSUP);
            if !told {
                out.extend(AddrRange::covering(*addr, *len));
            }
        }
        Call::Mremap(mremap) => mremap_wants(mremap, outcome, out),
        Call::Brk { addr } => {
            // Where the heap ended is not known: look at all that it may have been or become.
            if let Outcome::Done(now) = outcome
                && context.brk.is_none()
                && *addr == now
            {
                let start = context.brk_start.filter(|start| *start <= now);
                let start = start.unwrap_or(Addr(now.0.saturating_sub(HEAP_SPAN)));
                let start = start.page_floor();
                out.extend(span_above(start, now.0 - start.0 + HEAP_SPAN));
            }
        }
        Call::Shmat {
            addr,
            flags,
            stored,
            ..
        } => match outcome {
            Outcome::Done(result) => {
                let at = stored.unwrap_or(result);
                out.extend(AddrRange::covering(at, PAGE));
            }
            _ if flags & SHM_REMAP != 0 => {
                out.extend(span_above(addr.page_floor(), SEGMENT_SPAN));
            }
            _ => {}
        },
        Call::Shmdt { addr } => {
            if let Outcome::Done(_) = outcome {
                out.extend(span_above(*addr, SEGMENT_SPAN));
            }
        }
        // The size is rounded down here (mm/mmap.c, `remap_file_pages`); asking for more is no harm.
        Call::RemapFilePages { addr, len, .. } => {
            out.extend(AddrRange::covering(addr.page_floor(), *len));
        }
        Call::IoSetup { context: ring, .. } => {
            if let (Outcome::Done(_), Some(ring)) = (outcome, ring) {
                out.extend(AddrRange::covering(*ring, PAGE));
            }
        }
        Call::IoDestroy { context: ring } => {
            if let Outcome::Done(_) = outcome {
                out.extend(span_above(*ring, RING_SPAN));
            }
        }
        Call::MapShadowStack { len, .. } => {
            if let Outcome::Done(at) = outcome {
                out.extend(AddrRange::covering(at, *len));
            }
        }
        Call::Madvise { .. } | Call::ProcessMadvise { .. } | Call::Mseal { .. } | Call::Other => {}
    }
}

fn mmap_wants(mmap: &Mmap, outcome: Outcome, context: &Context) -> Option<AddrRange> {
    match (outcome, mmap.placement()) {
        (Outcome::Done(at), _) if !is_plain(mmap, context) => AddrRange::covering(at, mmap.len),
        // Refused by the file after the old mapping was taken out, or before: not told (2.1).
        (Outcome::Failed(_), Placement::Replacing(at)) => {
            if mmap.flags.contains(MapFlags::HUGETLB) || !mmap.flags.contains(MapFlags::ANONYMOUS) {
                huge_covering(at, mmap.len)
            } else {
                AddrRange::covering(at, mmap.len)
            }
        }
        _ => None,
    }
}

/// Private anonymous memory whose place is the result and whose rest the arguments tell.
pub(super) fn is_plain(mmap: &Mmap, context: &Context) -> bool {
    let adds_exec = context.read_implies_exec && mmap.prot.contains(Prot::READ);
    mmap.flags.contains(MapFlags::ANONYMOUS)
        && mmap.flags.sharing() == MapFlags::PRIVATE.bits()
        && !mmap
            .flags
            .intersects(MapFlags::HUGETLB | MapFlags::GROWSDOWN)
        && (!adds_exec || mmap.prot.contains(Prot::EXEC))
}

fn mremap_wants(mremap: &Mremap, outcome: Outcome, out: &mut Vec<AddrRange>) {
    out.extend(huge_covering(mremap.old_addr, mremap.old_len));
    let target = match outcome {
        Outcome::Done(at) => Some(at),
        _ if mremap.flags.contains(MremapFlags::FIXED) => Some(mremap.new_addr),
        _ => None,
    };
    out.extend(target.and_then(|at| huge_covering(at, mremap.new_len)));
}

/// The pages of `len` bytes at `start`; if a huge page could begin there, whole huge pages,
/// because lengths on hugetlbfs are rounded to those.
fn huge_covering(start: Addr, len: u64) -> Option<AddrRange> {
    let exact = AddrRange::covering(start, len)?;
    if !start.0.is_multiple_of(HUGE_PAGE) {
        return Some(exact);
    }
    let huge = len.checked_next_multiple_of(HUGE_PAGE);
    huge.and_then(|len| AddrRange::covering(start, len))
        .or(Some(exact))
}

/// At most `len` bytes from `start` on, not past the highest page there can be.
fn span_above(start: Addr, len: u64) -> Option<AddrRange> {
    let top = Addr(u64::MAX).page_floor();
    let end = start.0.saturating_add(len).min(top.0);
    AddrRange::new(start, Addr(end).page_floor())
}
