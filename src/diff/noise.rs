//! Which differences do not count.
//!
//! Two runs of one program differ: the kernel places heap and stack at random, threads race for
//! arenas, a compiler in a runtime finishes sooner or later. With several runs on a side the spread
//! is measured; between two single runs these rules stand for it:
//!
//! | what | does not count |
//! |---|---|
//! | stack | up to 128 KiB |
//! | heap (brk) | up to 264 KiB, or 5 % of it |
//! | stacks of threads, in a program with threads | up to 2 (in each process), or a quarter of them, more or fewer |
//! | arenas of malloc, in a program with threads | as many as it has threads, more or fewer |
//! | other private anonymous memory, in a program with threads, or with several processes of one kind at once | up to 1 MiB (in each process), or 2 % of its kind, and no more in sum |
//! | peaks | up to 5 % of the peak, or 1 MiB; all, where several processes lived at once |
//! | calls of a name, and those that fail | up to 8, or a quarter of the calls, more or fewer |
//!
//! Everything else counts, if it is one page: files, shared memory, all mappings of programs with
//! one thread, and processes that one side does not have. Resident memory and times never count.

use super::facts::Noise;
use super::role::{Anon, Role};

/// A difference between two runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Difference<'a> {
    /// `None` for whole processes.
    pub role: Option<&'a Role>,
    /// Bytes.
    pub before: u64,
    /// Bytes.
    pub after: u64,
    /// Mappings of the shape, on each side.
    pub counts: [u64; 2],
    /// Bytes that a mapping of the shape was asked to have; 0 if they differ.
    pub size: u64,
    /// The program has several threads, on either side, or there are several of it at once.
    pub threads: bool,
    /// Processes of this role that are compared.
    pub processes: u64,
    /// Threads that these had at most, on the side that had more.
    pub tasks: u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Why a difference between two single runs does not count, judged by itself.
pub(super) fn of_one(difference: &Difference<'_>) -> Option<Noise> {
    let Difference {
        role,
        before,
        after,
        counts,
        size,
        threads,
        processes,
        tasks,
    } = *difference;
    let apart = before.abs_diff(after);
    let larger = before.max(after);
    match role? {
        Role::Stack => (apart <= 128 * KIB).then_some(Noise::Steps),
        Role::Heap => (apart <= (264 * KIB).max(larger / 20)).then_some(Noise::Steps),
        Role::Anon(anon) if threads => {
            let [few, many] = [counts[0].min(counts[1]), counts[0].max(counts[1])];
            let more = match is_arena(*anon, size) {
                true => tasks,
                false => (many / 4).max(processes.saturating_mul(2)),
            };
            let per_thread = anon.stack || is_arena(*anon, size);
            if per_thread && many - few <= more && apart <= size.saturating_mul(more) {
                return Some(Noise::Count);
            }
            let small = MIB.saturating_mul(processes).max(larger / 50);
            (apart <= small).then_some(Noise::Small)
        }
        Role::Program | Role::File(_) | Role::Shared(_) | Role::Special(_) | Role::Anon(_) => None,
    }
}

/// An arena of glibc's malloc: 64 MiB (HEAP_MAX_SIZE of malloc/arena.c), mapped without access and
/// cut out of twice as much. How many there are depends on which threads met.
fn is_arena(anon: Anon, size: u64) -> bool {
    anon.prot == 0 && anon.noreserve && (size == 64 * MIB || size == 128 * MIB)
}

/// Whether differences that are small each are small together, too. `before` is the figure.
pub(super) fn small_together(net: i64, before: u64, processes: u64) -> bool {
    net.unsigned_abs() <= MIB.saturating_mul(processes).max(before / 50)
}

/// Whether a peak is high for a moment only by chance.
pub(super) fn small_peak(before: u64, after: u64, figure: u64) -> bool {
    before.abs_diff(after) <= MIB.max(figure / 20)
}

/// Why a difference in the number of calls, or of failed ones among so many `calls`, does not count.
pub(super) fn of_calls(before: u64, after: u64, calls: u64) -> Option<Noise> {
    let apart = before.abs_diff(after);
    (apart <= 8.max(calls / 4)).then_some(Noise::Small)
}

/// Why a difference between several runs does not count: the sides overlap, or lie no further
/// apart than the runs of one side do.
pub(super) fn of_many(role: Option<&Role>, before: &[u64], after: &[u64]) -> Option<Noise> {
    let (least, most) = range(before);
    let (their_least, their_most) = range(after);
    let gap = their_least
        .checked_sub(most)
        .or_else(|| least.checked_sub(their_most));
    let spread = (most - least).max(their_most - their_least);
    let Some(gap) = gap.filter(|gap| spread < *gap) else {
        return Some(Noise::Spread);
    };
    // A few runs can show the same page of chance by chance.
    match role {
        Some(Role::Stack) => (gap <= 128 * KIB).then_some(Noise::Steps),
        Some(Role::Heap) => (gap <= 16 * KIB).then_some(Noise::Steps),
        _ => None,
    }
}

fn range(values: &[u64]) -> (u64, u64) {
    let least = values.iter().min().copied().unwrap_or(0);
    let most = values.iter().max().copied().unwrap_or(0);
    (least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_runs_differ_only_beyond_their_spread() {
        let noise = |before: &[u64], after: &[u64]| of_many(None, before, after);
        assert_eq!(noise(&[5, 5, 5], &[6, 6, 6]), None);
        assert_eq!(noise(&[5, 6, 7], &[7, 8, 9]), Some(Noise::Spread));
        assert_eq!(noise(&[5, 6, 7], &[9, 10, 11]), Some(Noise::Spread));
        assert_eq!(noise(&[5, 6, 7], &[10, 11, 12]), None);
        assert_eq!(noise(&[10, 11, 12], &[5, 6, 7]), None);
        assert_eq!(noise(&[5, 6, 7], &[6]), Some(Noise::Spread));
    }

    #[test]
    fn calls_may_be_a_quarter_more() {
        assert_eq!(of_calls(100, 125, 125), Some(Noise::Small));
        assert_eq!(of_calls(100, 140, 140), None);
        assert_eq!(of_calls(0, 8, 8), Some(Noise::Small));
        assert_eq!(of_calls(9, 0, 9), None);
    }
}
