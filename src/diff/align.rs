//! The calls of two spaces side by side, thread by thread.

use imara_diff::{Algorithm, Diff as Alignment, InternedInput};

use crate::units::SpaceId;

use super::collect::Recorded;
use super::facts::{Parting, Timelines};
use super::steps::Step;

/// Adds the calls of a pair of spaces. Threads are paired in order of appearance; only the first
/// threads tell where the timelines part, because when others begin is a matter of chance.
pub(super) fn add(
    timelines: &mut Timelines,
    name: &str,
    (before, old): (&Recorded, SpaceId),
    (after, new): (&Recorded, SpaceId),
) {
    let old = before.steps.threads(old);
    let new = after.steps.threads(new);
    for thread in 0..old.len().max(new.len()) {
        let steps = |threads: &[(_, Vec<Step>)]| -> Vec<Step> {
            let thread = threads.get(thread);
            thread.map_or_else(Vec::new, |(_, steps): &(_, Vec<Step>)| steps.clone())
        };
        let (old, new) = (steps(old), steps(new));
        let first = align(timelines, &old, &new);
        if thread == 0
            && timelines.parting.is_none()
            && let Some((old_at, new_at)) = first
        {
            timelines.parting = Some(Parting {
                space: name.to_owned(),
                after_calls: old_at as u64,
                before: old.get(old_at).map(|step| step.at),
                after: new.get(new_at).map(|step| step.at),
            });
        }
    }
}

/// Counts what both have in order and what one has alone; where they part first.
fn align(timelines: &mut Timelines, old: &[Step], new: &[Step]) -> Option<(usize, usize)> {
    let mut input: InternedInput<u64> = InternedInput::default();
    input.update_before(old.iter().map(|step| step.token));
    input.update_after(new.iter().map(|step| step.token));
    // Its worst case is bounded, and it depends on no clock: the same traces give the same answer.
    let alignment = Alignment::compute(Algorithm::Histogram, &input);
    let removed = u64::from(alignment.count_removals());
    timelines.only_before += removed;
    timelines.only_after += u64::from(alignment.count_additions());
    timelines.same += (old.len() as u64).saturating_sub(removed);
    let first = alignment.hunks().next()?;
    Some((first.before.start as usize, first.after.start as usize))
}
