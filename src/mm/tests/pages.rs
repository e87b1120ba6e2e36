//! The naive twin: an array of pages that does every change page by page.

use proptest::prelude::*;
use std::sync::Arc;

use crate::abi::Prot;
use crate::mm::{
    AddressSpace, Backing, Change, Charge, FileId, Flow, Span, Totals, Verb, Vma, VmaFlags,
};
use crate::units::{Addr, AddrRange, Bytes, PAGE};

const PAGES: usize = 24;

/// What one page shows; `vma.range` is that page alone.
type Page = Option<Vma>;

fn page_range(index: usize) -> AddrRange {
    range(index, 1)
}

fn range(first: usize, count: usize) -> AddrRange {
    let start = Addr((first as u64 + 16) * PAGE);
    AddrRange::covering(start, count as u64 * PAGE).expect("a range")
}

fn indices(range: AddrRange) -> std::ops::Range<usize> {
    let first = (range.start().0 / PAGE) as usize - 16;
    first..first + (range.len() / PAGE) as usize
}

fn verb(was: &Page, is: &Page, replaced: bool) -> Vec<Verb> {
    let state = |page: &Page| page.as_ref().map(Vma::is_reserved);
    let gone = |reserved| {
        if reserved {
            Verb::ReleaseReserved
        } else {
            Verb::ReleaseCommitted
        }
    };
    let made = |reserved| if reserved { Verb::Reserve } else { Verb::Map };
    match (state(was), state(is)) {
        (None, None) => vec![],
        (None, Some(reserved)) => vec![made(reserved)],
        (Some(reserved), None) => vec![gone(reserved)],
        (Some(true), Some(false)) => vec![Verb::Commit],
        (Some(false), Some(true)) => vec![Verb::Decommit],
        (Some(reserved), Some(_)) if replaced => vec![gone(reserved), made(reserved)],
        _ => vec![],
    }
}

/// Does `change` to every page on its own.
fn apply(pages: &mut [Page], change: &Change) -> Flow {
    let mut flow = Flow::default();
    let mut count = |verbs: Vec<Verb>| {
        verbs
            .into_iter()
            .for_each(|verb| flow.count(verb, Bytes(PAGE)));
    };
    let mut set = |pages: &mut [Page], index: usize, page: Page, replaced: bool| {
        count(verb(&pages[index], &page, replaced));
        pages[index] = page;
    };
    match change {
        Change::Insert(vma) => {
            for index in indices(vma.range) {
                set(pages, index, vma.clipped(page_range(index)), true);
            }
        }
        Change::Remove(range) => {
            for index in indices(*range) {
                set(pages, index, None, true);
            }
        }
        Change::Protect { range, prot } => {
            for index in indices(*range) {
                let mut page = pages[index].clone();
                if let Some(vma) = &mut page {
                    vma.protect(*prot);
                }
                set(pages, index, page, false);
            }
        }
        Change::Move {
            from,
            to,
            keep_source,
        } => {
            let moved: Vec<Page> = indices(*from).map(|index| pages[index].clone()).collect();
            let target = indices(AddrRange::covering(*to, from.len()).expect("a range"));
            for index in indices(*from) {
                pages[index] = None;
            }
            for (index, page) in target.zip(&moved) {
                if let Some(vma) = page {
                    set(pages, index, None, true);
                    pages[index] = Some(vma.clone().moved_to(page_range(index)));
                }
            }
            for (index, page) in indices(*from).zip(moved) {
                if *keep_source {
                    set(pages, index, page, true);
                }
            }
        }
        Change::Discard(range) => {
            let mapped = indices(*range).filter(|index| pages[*index].is_some());
            count(vec![Verb::Discard; mapped.count()]);
        }
        Change::Replace { range, vmas } => {
            for index in indices(*range) {
                let is = vmas.iter().find_map(|vma| vma.clipped(page_range(index)));
                let (mut page, mut replaced) = (is.clone(), true);
                if let (Some(was), Some(is)) = (&pages[index], &is)
                    && was.same_backing(is)
                {
                    let mut kept = was.clone();
                    kept.protect(is.prot);
                    (page, replaced) = (Some(kept), false);
                }
                set(pages, index, page, replaced);
            }
        }
        Change::DontFork { range, on } => {
            for index in indices(*range) {
                if let Some(vma) = &mut pages[index] {
                    vma.flags.dontfork = *on;
                }
            }
        }
        Change::Seal(_) | Change::Grow(_) => {}
    }
    flow
}

fn totals(pages: &[Page]) -> Totals {
    let mut totals = Totals::default();
    for (index, page) in pages.iter().enumerate() {
        let Some(vma) = page else { continue };
        totals.add(vma);
        let last = index.checked_sub(1).and_then(|last| pages[last].as_ref());
        totals.mappings += u64::from(!last.is_some_and(|last| last.joins(vma)));
    }
    totals
}

fn any_range() -> impl Strategy<Value = AddrRange> {
    (0..PAGES - 1)
        .prop_flat_map(|first| (Just(first), 1..=(PAGES - first).min(9)))
        .prop_map(|(first, count)| range(first, count))
}

fn any_prot() -> impl Strategy<Value = Prot> {
    prop_oneof![
        Just(Prot::NONE),
        Just(Prot::READ),
        Just(Prot::READ | Prot::WRITE)
    ]
}

fn any_vma() -> impl Strategy<Value = Vma> {
    (any_range(), any_prot(), 0..5u64, any::<bool>()).prop_map(|(range, prot, kind, noreserve)| {
        let name: Arc<str> = if kind == 3 {
            "/dev/zero (deleted)".into()
        } else {
            "/lib/x".into()
        };
        let backing = match kind {
            0 | 1 => Backing::Anon,
            // Offsets that continue each other at any address, so that neighbours may join.
            _ => Backing::File {
                id: FileId {
                    major: 8,
                    minor: 1,
                    inode: kind,
                },
                offset: range.start().0,
                name,
            },
        };
        let flags = VmaFlags {
            noreserve,
            ..VmaFlags::default()
        };
        let mut vma = Vma {
            range,
            prot,
            shared: kind == 3,
            backing,
            flags,
            charge: Charge::No,
        };
        vma.charge = vma.fresh_charge();
        vma
    })
}

/// Two ranges of one length that share nothing.
fn any_move() -> impl Strategy<Value = Change> {
    (
        0..PAGES / 2,
        PAGES / 2..PAGES,
        1..6usize,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(low, high, count, up, keep_source)| {
            let count = count.min(PAGES / 2 - low).min(PAGES - high);
            let (from, to) = if up { (low, high) } else { (high, low) };
            let to = range(to, 1).start();
            Change::Move {
                from: range(from, count),
                to,
                keep_source,
            }
        })
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any_vma().prop_map(Change::Insert),
        2 => any_range().prop_map(Change::Remove),
        3 => (any_range(), any_prot()).prop_map(|(range, prot)| Change::Protect { range, prot }),
        2 => any_move(),
        1 => any_range().prop_map(Change::Discard),
        1 => (any_range(), any::<bool>()).prop_map(|(range, on)| Change::DontFork { range, on }),
        2 => (any_range(), proptest::collection::vec(any_vma(), 0..3)).prop_map(|(range, mut vmas)| {
            vmas.sort_by_key(|vma| vma.range.start());
            let mut end = range.start();
            let mut clipped = Vec::new();
            for vma in vmas {
                let free = AddrRange::new(end.max(range.start()), range.end());
                if let Some(vma) = free.and_then(|free| vma.clipped(free)) {
                    end = vma.range.end();
                    clipped.push(vma);
                }
            }
            Change::Replace { range, vmas: clipped }
        }),
    ]
}

fn summed(spans: &[Span]) -> Flow {
    let mut flow = Flow::default();
    spans
        .iter()
        .for_each(|span| flow.count(span.verb, Bytes(span.range.len())));
    flow
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }) })]

    #[test]
    fn every_change_does_what_it_does_to_each_page(changes in proptest::collection::vec(any_change(), 1..40)) {
        let mut space = AddressSpace::default();
        let mut pages: Vec<Page> = vec![None; PAGES];
        for change in changes {
            let expected = apply(&mut pages, &change);
            let mut spans = Vec::new();
            let flow = space.apply(change.clone(), &mut spans);
            prop_assert_eq!(flow, expected, "flow of {:?}", &change);
            prop_assert_eq!(flow, summed(&spans), "spans of {:?}", &change);
            let seen: Vec<Page> = (0..PAGES)
                .map(|index| space.at(page_range(index).start())?.clipped(page_range(index)))
                .collect();
            prop_assert_eq!(&seen, &pages, "pages after {:?}", &change);
            let sums = space.totals();
            prop_assert_eq!(sums, totals(&pages), "totals after {:?}", &change);
            prop_assert_eq!(sums, space.recount());
            prop_assert_eq!(sums.mapped, sums.reserved + sums.committed);
            let parts = sums.parts;
            prop_assert_eq!(sums.committed, parts.anon + parts.file + parts.shmem + parts.special);
        }
    }
}
