//! Which pages of a space were touched: at which a page fault was seen since they were mapped.

use std::collections::VecDeque;

use roaring::RoaringTreemap;

use crate::mm::{Span, Verb};
use crate::timeline::TouchEvent;
use crate::units::{Addr, AddrRange, Bytes};

const PAGE: u64 = 4096;

/// Page faults, and what they touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touches {
    /// Page faults; where not all were recorded, those that the recorded ones stand for.
    pub faults: u64,
    /// Those that were recorded.
    pub recorded: u64,
    /// Pages at which one was recorded, each once as long as it is mapped. Not more than was touched: a
    /// fault can bring in the pages beside it too (huge pages, files), and what the kernel fills by
    /// itself (MAP_POPULATE, mlock(2)) takes none.
    pub bytes: Bytes,
}

impl Touches {
    /// Counts a page fault; `new` says whether its page had not been touched before.
    pub(super) fn add(&mut self, touch: &TouchEvent, new: bool) {
        self.faults = self.faults.saturating_add(touch.stands_for.into());
        self.recorded += 1;
        if new {
            self.bytes += Bytes(PAGE);
        }
    }
}

impl std::ops::AddAssign for Touches {
    fn add_assign(&mut self, other: Touches) {
        self.faults = self.faults.saturating_add(other.faults);
        self.recorded += other.recorded;
        self.bytes += other.bytes;
    }
}

/// The pages of one space that were touched since they were mapped.
#[derive(Debug, Default)]
pub(super) struct TouchedPages {
    pages: RoaringTreemap,
    /// What one call moves: where it was, and which pages of it were touched.
    lifted: VecDeque<(AddrRange, RoaringTreemap)>,
}

impl TouchedPages {
    /// Whether it is the first touch of its page.
    pub(super) fn touch(&mut self, at: Addr) -> bool {
        self.pages.insert(at.0 / PAGE)
    }

    /// Follows what one call did.
    pub(super) fn follow(&mut self, spans: &[Span]) {
        if self.pages.is_empty() {
            return;
        }
        for Span { range, verb } in spans {
            let numbers = range.start().0 / PAGE..range.end().0.div_ceil(PAGE);
            match verb {
                Verb::ReleaseReserved | Verb::ReleaseCommitted => {
                    self.pages.remove_range(numbers);
                }
                Verb::MovedFrom => {
                    let mut lifted = RoaringTreemap::new();
                    lifted.insert_range(numbers.clone());
                    lifted &= &self.pages;
                    self.pages.remove_range(numbers);
                    self.lifted.push_back((*range, lifted));
                }
                Verb::MovedTo => {
                    if let Some((from, pages)) = self.lifted.pop_front() {
                        let old = from.start().0 / PAGE;
                        let moved = |page: u64| numbers.start + page.saturating_sub(old);
                        self.pages.extend(pages.into_iter().map(moved));
                    }
                }
                _ => {}
            }
        }
        self.lifted.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, pages: u64) -> AddrRange {
        AddrRange::new(Addr(first * PAGE), Addr((first + pages) * PAGE)).expect("a range")
    }

    #[test]
    fn a_page_counts_once_until_it_is_unmapped() {
        let mut pages = TouchedPages::default();
        assert!(pages.touch(Addr(5 * PAGE + 7)));
        assert!(!pages.touch(Addr(5 * PAGE)));
        pages.follow(&[Span {
            range: range(4, 3),
            verb: Verb::ReleaseCommitted,
        }]);
        assert!(pages.touch(Addr(5 * PAGE)));
    }

    #[test]
    fn touched_pages_move_with_their_mapping() {
        let mut pages = TouchedPages::default();
        pages.touch(Addr(5 * PAGE));
        let (from, to) = (range(4, 3), range(100, 3));
        pages.follow(&[
            Span {
                range: from,
                verb: Verb::MovedFrom,
            },
            Span {
                range: to,
                verb: Verb::MovedTo,
            },
        ]);
        assert!(!pages.touch(Addr(101 * PAGE)));
        assert!(pages.touch(Addr(5 * PAGE)));
    }
}
