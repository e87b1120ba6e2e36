//! Values by address: spans that never overlap, equal neighbours kept as one.

use std::collections::BTreeMap;

use crate::units::{Addr, AddrRange};

/// A value for every byte of some spans.
#[derive(Clone, Debug)]
pub(super) struct RangeMap<T> {
    /// By start: the end, and the value.
    spans: BTreeMap<Addr, (Addr, T)>,
    bytes: u64,
}

impl<T> Default for RangeMap<T> {
    fn default() -> RangeMap<T> {
        RangeMap {
            spans: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl<T: Clone + PartialEq> RangeMap<T> {
    /// Bytes that have a value.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All spans in order of address.
    pub(super) fn iter(&self) -> impl Iterator<Item = (AddrRange, &T)> {
        let span = |(start, (end, value))| Some((AddrRange::new(start, end)?, value));
        self.spans
            .iter()
            .map(|(start, (end, value))| (*start, (*end, value)))
            .filter_map(span)
    }

    /// The spans that share bytes with `range`, cut to it, in order of address.
    pub(super) fn overlapping(&self, range: AddrRange) -> impl Iterator<Item = (AddrRange, &T)> {
        let spans = self.spans.range(self.first_in(range)..range.end());
        spans.filter_map(move |(start, (end, value))| {
            let span = AddrRange::new(*start, *end)?;
            Some((span.intersect(range)?, value))
        })
    }

    /// Gives every byte of `range` this value.
    pub(super) fn set(&mut self, range: AddrRange, value: T) {
        self.lift(range);
        self.bytes = self.bytes.saturating_add(range.len());
        let (mut start, mut end) = (range.start(), range.end());
        let before = self.spans.range(..start).next_back();
        if let Some((at, _)) = before.filter(|(_, (until, near))| *until == start && *near == value)
        {
            start = *at;
        }
        if let Some((until, near)) = self.spans.get(&end)
            && *near == value
        {
            let until = *until;
            self.spans.remove(&end);
            end = until;
        }
        self.spans.insert(start, (end, value));
    }

    /// Takes everything in `range` out; the pieces, cut to it, in order of address.
    pub(super) fn lift(&mut self, range: AddrRange) -> Vec<(AddrRange, T)> {
        let from = self.first_in(range);
        let starts: Vec<Addr> = self
            .spans
            .range(from..range.end())
            .map(|(start, _)| *start)
            .collect();
        let mut lifted = Vec::with_capacity(starts.len());
        for start in starts {
            let Some((end, value)) = self.spans.remove(&start) else {
                continue;
            };
            if start < range.start() {
                self.spans.insert(start, (range.start(), value.clone()));
            }
            if range.end() < end {
                self.spans.insert(range.end(), (end, value.clone()));
            }
            if let Some(inside) = AddrRange::new(start.max(range.start()), end.min(range.end())) {
                self.bytes = self.bytes.saturating_sub(inside.len());
                lifted.push((inside, value));
            }
        }
        lifted
    }

    /// Where the first span begins that reaches into `range`; at most its start.
    fn first_in(&self, range: AddrRange) -> Addr {
        let before = self.spans.range(..range.start()).next_back();
        before
            .filter(|(_, (end, _))| range.start() < *end)
            .map_or(range.start(), |(start, _)| *start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap as Pages;

    proptest! {
        #[test]
        fn it_equals_a_value_kept_for_every_page(
            steps in proptest::collection::vec((0u64..40, 1u64..12, 0u8..4, any::<bool>()), 0..60),
        ) {
            let mut map = RangeMap::default();
            let mut pages = Pages::new();
            for (start, count, value, set) in steps {
                let range = AddrRange::covering(Addr(start << 12), count << 12).expect("a range");
                if set {
                    map.set(range, value);
                    pages.extend((start..start + count).map(|page| (page, value)));
                } else {
                    let lifted = map.lift(range);
                    let bytes: u64 = lifted.iter().map(|(range, _)| range.len()).sum();
                    let gone = (start..start + count).filter_map(|page| pages.remove(&page)).count();
                    prop_assert_eq!(bytes, (gone as u64) << 12);
                }
                let shown: Vec<(u64, u8)> = map
                    .iter()
                    .flat_map(|(range, value)| {
                        (range.start().0 >> 12..range.end().0 >> 12).map(|page| (page, *value))
                    })
                    .collect();
                prop_assert_eq!(shown, pages.iter().map(|(page, value)| (*page, *value)).collect::<Vec<_>>());
                prop_assert_eq!(map.bytes(), (pages.len() as u64) << 12);
                let spans: Vec<_> = map.iter().collect();
                for pair in spans.windows(2) {
                    let joined = pair[0].0.end() == pair[1].0.start() && pair[0].1 == pair[1].1;
                    prop_assert!(!joined, "equal neighbours are one");
                }
            }
        }
    }
}
