//! How often each call was made, on both sides.

use std::collections::{BTreeMap, BTreeSet};

use crate::report::SpaceReport;

use super::facts::{CallChange, Noise};
use super::{Recorded, noise};

/// Calls by name, over all spaces of a run.
fn calls_of(spaces: &[SpaceReport]) -> BTreeMap<String, [u64; 2]> {
    let mut calls: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for (name, count) in spaces.iter().flat_map(|space| &space.calls) {
        let [sum, failed] = calls.entry(name.to_string()).or_default();
        *sum += count.count;
        *failed += count.failed;
    }
    calls
}

/// Calls whose number differs, the largest difference first; what counts before what does not.
pub(super) fn calls(
    before: &[Recorded],
    after: &[Recorded],
    shown: [&Recorded; 2],
) -> Vec<CallChange> {
    let of = |run: &Recorded| calls_of(&run.report.spaces);
    let [old, new] = shown.map(of);
    let several = 1 < before.len() || 1 < after.len();
    let all = match several {
        true => [before, after].map(|side| side.iter().map(of).collect::<Vec<_>>()),
        false => [Vec::new(), Vec::new()],
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        let value = |run: &BTreeMap<String, [u64; 2]>| run.get(name).copied().unwrap_or_default();
        let ([old_count, old_failed], [new_count, new_failed]) = (value(&old), value(&new));
        if (old_count, old_failed) == (new_count, new_failed) {
            continue;
        }
        let judge = |what: usize, before: u64, after: u64| match several {
            _ if before == after => Some(Noise::Small),
            true => {
                let values = |side: usize| -> Vec<u64> {
                    all[side].iter().map(|run| value(run)[what]).collect()
                };
                noise::of_many(None, &values(0), &values(1))
            }
            false => noise::of_calls(before, after, old_count.max(new_count)),
        };
        let by_count = judge(0, old_count, new_count);
        let by_failed = judge(1, old_failed, new_failed);
        changes.push(CallChange {
            name: name.clone(),
            counts: [old_count, new_count],
            failed: [old_failed, new_failed],
            noise: by_failed.and(by_count),
        });
    }
    changes.sort_by_key(|call| {
        let apart = call.counts[0].abs_diff(call.counts[1]);
        (call.noise.is_some(), std::cmp::Reverse(apart))
    });
    changes
}
