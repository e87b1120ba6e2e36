//! Which columns fit, and where each begins.

use crate::term::SIZE_WIDTH;

/// Blanks between columns.
pub(super) const GAP: usize = 2;
/// `  0.011 s`, up to 999 s; later times shift their line.
const TIME: usize = 9;
const CALL: usize = 8;
const PROT: usize = 3;
/// `→ 0x7ffff7fc1000`
const RESULT: usize = 16;
/// `4.0 MiB → committed`, `+112.3 MiB committed`
const CHANGE_SHORT: usize = 20;
/// `64.0 MiB reserved → committed`
const CHANGE: usize = 29;
/// Longest name shown whole on a terminal: 15 of a command name, a slash, a tid.
const WHO_MOST: usize = 23;
/// Terminals with fewer columns show only what was done.
const NARROW: usize = 36;
const HOW_LEAST: usize = 18;
/// In a file, where paths go last: `private anon fixed noreserve stack`
const HOW_FILE: usize = 34;
const HOW_MOST: usize = 44;

/// The columns of a timeline, as wide as the output allows. A width of 0 leaves a column out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    /// When.
    pub time: usize,
    /// Who did it.
    pub who: usize,
    /// As `comm/tid`, not only the tid.
    pub comm: bool,
    /// Which call.
    pub call: usize,
    /// How many bytes it was asked to act on.
    pub size: usize,
    /// With which rights.
    pub prot: usize,
    /// Flags in words, files.
    pub how: usize,
    /// The result, or the address it acted on.
    pub result: usize,
    /// What it did.
    pub change: usize,
    /// `reserved → committed` rather than `→ committed`.
    pub long_change: bool,
    /// Running totals: reserved, then committed, each this wide.
    pub totals: usize,
}

impl Columns {
    /// The most useful columns that fit in `width`; all where it is `None`. `who` and `tid` are the
    /// longest `comm/tid` and the longest tid so far.
    pub fn fit(width: Option<usize>, who: usize, tid: usize) -> Columns {
        let mut columns = Columns {
            time: TIME,
            call: CALL,
            change: CHANGE_SHORT,
            ..Columns::default()
        };
        let Some(width) = width else {
            return Columns {
                time: TIME,
                who,
                comm: true,
                call: CALL,
                size: SIZE_WIDTH,
                prot: PROT,
                how: HOW_FILE,
                result: RESULT,
                change: CHANGE,
                long_change: true,
                totals: SIZE_WIDTH,
            };
        };
        if width < NARROW {
            columns.time = 0;
            return columns;
        }
        let mut room = width.saturating_sub(TIME + GAP + CALL + GAP + CHANGE_SHORT);
        let mut take = |wide: usize| {
            let fits = wide <= room;
            room -= if fits { wide } else { 0 };
            fits
        };
        if take(GAP + tid) {
            columns.who = tid;
        }
        if take(2 * (GAP + SIZE_WIDTH)) {
            columns.totals = SIZE_WIDTH;
        }
        if take(GAP + PROT) {
            columns.prot = PROT;
        }
        let who = who.min(WHO_MOST);
        if columns.who > 0 && take(who.saturating_sub(tid)) {
            (columns.who, columns.comm) = (who, true);
        }
        if take(GAP + SIZE_WIDTH) {
            columns.size = SIZE_WIDTH;
        }
        if columns.size > 0 && take(GAP + HOW_LEAST) {
            columns.how = HOW_LEAST;
        }
        if columns.how > 0 && take(GAP + RESULT) {
            columns.result = RESULT;
        }
        if columns.result > 0 && take(CHANGE - CHANGE_SHORT) {
            (columns.change, columns.long_change) = (CHANGE, true);
        }
        if columns.how > 0 {
            columns.how = (columns.how + room).min(HOW_MOST);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(columns: Columns) -> usize {
        let Columns {
            time,
            who,
            comm: _,
            call,
            size,
            prot,
            how,
            result,
            change,
            long_change: _,
            totals,
        } = columns;
        let optional = [who, size, prot, how, result, totals, totals];
        let optional = optional.into_iter().filter(|width| *width > 0);
        time + GAP + call + GAP + change + optional.map(|width| GAP + width).sum::<usize>()
    }

    #[test]
    fn a_wide_terminal_shows_every_column_and_a_narrow_one_the_sums_first() {
        let wide = Columns::fit(Some(160), 12, 5);
        assert!(wide.comm && wide.long_change && wide.how > 30 && wide.totals > 0);
        let narrow = Columns::fit(Some(80), 12, 5);
        assert!(!narrow.comm && narrow.who == 5 && narrow.prot > 0 && narrow.totals > 0);
        assert_eq!((narrow.size, narrow.how, narrow.result), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn what_is_chosen_fits(width in 41usize..300, tid in 1usize..8, comm in 0usize..30) {
            prop_assert!(total(Columns::fit(Some(width), comm + 1 + tid, tid)) <= width);
        }
    }
}
