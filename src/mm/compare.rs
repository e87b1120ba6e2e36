//! Model against kernel: the well-defined comparison (cases, 2.7).
//!
//! Lines are not compared: how the kernel merges neighbours depends on faults, fork history and
//! file objects. What is compared is, for every byte, rights, sharing and backing.

use crate::units::{Addr, AddrRange, Bytes};

use super::vma::Key;
use super::{AddressSpace, MapsEntry, Snapshot, Vma};

/// One span where model and kernel differ, in the notation of maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub range: AddrRange,
    /// The model's view: `rw-p 00000000 08:01 1234 /path`, or `unmapped`.
    pub model: String,
    /// The kernel's view, in the same notation.
    pub kernel: String,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Bytes that differ in address, permission, sharing or backing.
    pub drift: Bytes,
    /// The spans that differ, in order of address.
    pub differences: Vec<Difference>,
    /// Growth of stacks by page faults since the last look: no drift. Whole new spans, which the
    /// caller takes over: by [`super::Change::Grow`], or from the snapshot if it tells the flags.
    pub grown: Vec<AddrRange>,
}

/// Compares canonical forms: maximal intervals of equal rights, sharing and backing.
///
/// One walk along both sides from boundary to boundary; equal maps cost no allocation.
///
/// Growth shows by what begins right above it, unless a call of another thread came between the
/// fault and this look and altered the new part. Where the snapshot has flags they tell it then:
/// VM_GROWSDOWN is set by nothing but mmap(2), and no mmap(2) is missing from the model.
pub fn compare(space: &AddressSpace, snapshot: &Snapshot) -> Comparison {
    let mut found = Comparison::default();
    let mut last: Option<(Option<Key>, Option<Key>)> = None;
    let mut model = space.vmas().peekable();
    let mut kernel = snapshot.entries.iter().enumerate().peekable();
    let mut at = Addr(0);
    loop {
        while model.next_if(|vma| vma.range.end() <= at).is_some() {}
        while kernel.next_if(|(_, line)| line.range.end() <= at).is_some() {}
        let (vma, next) = (model.peek().copied(), kernel.peek().copied());
        let line = next.map(|(_, line)| line);
        let ranges = [vma.map(|vma| vma.range), line.map(|line| line.range)];
        let Some(start) = ranges.iter().flatten().map(|range| range.start()).min() else {
            return found;
        };
        at = at.max(start);
        let boundary = |range: &AddrRange| match range.start() <= at {
            true => range.end(),
            false => range.start(),
        };
        let Some(end) = ranges.iter().flatten().map(boundary).min() else {
            return found;
        };
        let Some(step) = AddrRange::new(at, end) else {
            return found;
        };
        let here = vma.filter(|vma| vma.range.contains(at));
        let shown = line.filter(|line| line.range.contains(at));
        at = end;
        let keys = (here.map(Vma::key), shown.map(MapsEntry::key));
        if keys.0 == keys.1 {
            last = None;
            continue;
        }
        if let (None, Some(_), Some(above)) = (here, shown, vma)
            && let Some(grown) = growth(step.start(), above, kernel.clone().map(|(_, line)| line))
        {
            at = grown.end();
            found.grown.push(grown);
            last = None;
            continue;
        }
        if here.is_none()
            && shown.is_some()
            && let Some((index, _)) = next
            && let Some(flags) = snapshot.smaps.get(index)
            && flags.growsdown
        {
            found.grown.push(step);
            last = None;
            continue;
        }
        found.drift += Bytes(step.len());
        match found.differences.last_mut() {
            Some(difference) if last == Some(keys) && difference.range.end() == step.start() => {
                difference.range =
                    AddrRange::new(difference.range.start(), end).unwrap_or(difference.range);
            }
            _ => found.differences.push(Difference {
                range: step,
                model: describe(here.and_then(|vma| vma.clipped(step))),
                kernel: describe(shown.and_then(|line| Vma::from_entry(line, None).clipped(step))),
            }),
        }
        last = Some(keys);
    }
}

/// If `above` is a mapping that faults extend downwards, and the kernel shows nothing but more of
/// it from `start` up to where it begins in the model: that span.
fn growth<'a>(
    start: Addr,
    above: &Vma,
    lines: impl Iterator<Item = &'a MapsEntry>,
) -> Option<AddrRange> {
    if !above.flags.growsdown {
        return None;
    }
    let mut at = start;
    for line in lines {
        if above.range.start() <= at {
            break;
        }
        if !line.range.contains(at) || line.key() != above.key() {
            return None;
        }
        at = line.range.end();
    }
    let grown = AddrRange::new(start, above.range.start())?;
    (grown.end() <= at).then_some(grown)
}

fn describe(vma: Option<Vma>) -> String {
    match vma {
        Some(vma) => vma.to_entry().description(),
        None => "unmapped".to_owned(),
    }
}
