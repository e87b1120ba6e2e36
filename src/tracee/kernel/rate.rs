//! How many of the page faults are recorded: all of them, until they come so fast that telling of each
//! would cost the machine too much; then one of 2, of 4, and so on.

use std::collections::VecDeque;

/// Page faults a second, of the whole machine, that are recorded: each costs about a microsecond.
const MOST: u64 = 100_000;
/// How long they are counted before the rate is changed, in nanoseconds.
const COUNTED_FOR: u64 = 20_000_000;
const LARGEST_PERIOD: u32 = 1 << 12;

#[derive(Debug)]
pub(super) struct Rate {
    /// From when on one of how many was recorded, the latest last; the first counts for all before.
    periods: VecDeque<(u64, u32)>,
    since: u64,
    recorded: u64,
}

impl Rate {
    pub(super) fn new(now: u64) -> Rate {
        Rate {
            periods: VecDeque::from([(now, 1)]),
            since: now,
            recorded: 0,
        }
    }

    /// So many more have been recorded.
    pub(super) fn count(&mut self, recorded: u64) {
        self.recorded += recorded;
    }

    /// The period that is right from `now` on, if another was until now.
    pub(super) fn change(&mut self, now: u64) -> Option<u32> {
        let took = now.saturating_sub(self.since);
        if took < COUNTED_FOR {
            return None;
        }
        let per_second = self.recorded.saturating_mul(1_000_000_000) / took;
        (self.since, self.recorded) = (now, 0);
        let period = self.periods.back().map_or(1, |&(_, period)| period);
        let better = match per_second {
            _ if MOST < per_second => {
                let times = per_second.div_ceil(MOST).next_power_of_two();
                let times = u32::try_from(times).unwrap_or(LARGEST_PERIOD);
                period.saturating_mul(times).min(LARGEST_PERIOD)
            }
            _ if per_second < MOST / 4 => (period / 2).max(1),
            _ => period,
        };
        (better != period).then(|| {
            self.periods.push_back((now, better));
            better
        })
    }

    /// How many page faults one stands for that was recorded at `time`. Times do not run backwards.
    pub(super) fn stands_for(&mut self, time: u64) -> u32 {
        while self.periods.get(1).is_some_and(|&(from, _)| from <= time) {
            self.periods.pop_front();
        }
        self.periods.front().map_or(1, |&(_, period)| period)
    }
}

/// Of page faults whose stacks are recorded, each task has one in so many.
pub(super) const FAULTS_A_STACK: u32 = 5;
/// So many stacks are recorded in one window of so many nanoseconds; then none until it is over.
const STACKS: u64 = 500;
const WINDOW: u64 = 100_000_000;

/// Whether the stacks of page faults are recorded.
#[derive(Debug, Default)]
pub(super) struct StackBudget {
    since: u64,
    taken: u64,
    spent: bool,
}

impl StackBudget {
    /// So many more have been recorded until `now`. Whether more are to be, if that has changed.
    pub(super) fn count(&mut self, taken: u64, now: u64) -> Option<bool> {
        if self.since + WINDOW <= now {
            (self.since, self.taken) = (now, 0);
        }
        self.taken += taken;
        let spent = STACKS < self.taken;
        (std::mem::replace(&mut self.spent, spent) != spent).then_some(!spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn stacks_of_page_faults_are_recorded_until_there_are_many_in_one_window() {
        let mut budget = StackBudget::default();
        assert_eq!(budget.count(STACKS, WINDOW), None);
        assert_eq!(budget.count(1, WINDOW + 1), Some(false));
        assert_eq!(budget.count(9, 2 * WINDOW - 1), None, "on their way");
        assert_eq!(budget.count(0, 2 * WINDOW), Some(true));
        assert_eq!(budget.count(STACKS + 1, 3 * WINDOW), Some(false));
    }

    #[test]
    fn page_faults_are_thinned_out_while_they_come_too_fast() {
        let mut rate = Rate::new(0);
        rate.count(MOST * 3 / 10);
        assert_eq!(rate.change(SECOND / 10), Some(4), "three times too many");
        assert_eq!(
            rate.stands_for(SECOND / 20),
            1,
            "those before are all there"
        );
        assert_eq!(rate.stands_for(SECOND / 10), 4);
        rate.count(MOST / 10 / 2);
        assert_eq!(rate.change(SECOND * 2 / 10), None, "as many as may be");
        assert_eq!(
            rate.change(SECOND * 3 / 10),
            Some(2),
            "they have become fewer"
        );
        assert_eq!(rate.change(SECOND * 4 / 10), Some(1));
        assert_eq!(rate.change(SECOND * 5 / 10), None);
        assert_eq!(rate.stands_for(SECOND), 1);
    }
}
