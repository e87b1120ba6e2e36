//! Questions about short runs, told as observations.

pub(crate) mod run;

use crate::abi::Prot;
use crate::report::{Place, Summary};
use crate::timeline::{Began, HeldNames, Observation, Sink, Timeline, TraceInfo};
use crate::trace_file::tests::any::observation;
use crate::units::{Addr, AddrRange, Bytes, SpaceId, Tid, Timestamp};

use super::*;
use proptest::prelude::*;
use run::{Run, mmap, mprotect, mremap, munmap};

const A: u64 = 0x7f00_0000_0000;
const K: u64 = 0x1000;

fn at(run: &Run, filter: Filter) -> Then {
    let mut at = At::new(filter);
    run.tell(&mut at);
    at.into_then()
}

/// A mapping: start and length in pages, rights, and the numbers of the events that made and
/// changed its bytes.
type Expected<'a> = (u64, u64, &'a str, &'a [(u64, Option<u64>)]);

/// The mappings of the last space from `A` on.
#[track_caller]
fn check(run: &Run, expected: &[Expected<'_>]) {
    let then = at(run, Filter::default());
    let space = then.spaces.last().expect("a space");
    let shown: Vec<_> = space
        .mappings
        .iter()
        .filter(|mapping| (A..A + (1 << 30)).contains(&mapping.range.start().0))
        .map(|mapping| {
            let made = mapping.made.iter().map(|made| {
                let changed = made.change.as_ref().map(|change| change.by.seq);
                (made.origin.first().by.seq, changed)
            });
            let prot = [(Prot::READ, 'r'), (Prot::WRITE, 'w'), (Prot::EXEC, 'x')];
            let prot = prot.map(|(flag, c)| if mapping.prot.contains(flag) { c } else { '-' });
            (
                (mapping.range.start().0 - A) / K,
                mapping.range.len() / K,
                prot.iter().collect::<String>(),
                made.collect::<Vec<_>>(),
            )
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(start, pages, prot, made)| (*start, *pages, (*prot).to_owned(), made.to_vec()))
        .collect();
    assert_eq!(shown, expected);
}

// Events 1 and 2 are the space and its task.

#[test]
fn a_mapping_knows_who_made_it_and_who_gave_it_its_rights() {
    let mut run = Run::new();
    run.call(10, mmap(A, 16 * K, 0)); // 3
    run.call(11, mprotect(A + 4 * K, 4 * K, 3)); // 4
    run.call(12, mprotect(A + 4 * K, K, 1)); // 5
    run.call(10, munmap(A + 14 * K, 2 * K));
    check(
        &run,
        &[
            (0, 4, "---", &[(3, None)]),
            (4, 1, "r--", &[(3, Some(5))]),
            (5, 3, "rw-", &[(3, Some(4))]),
            (8, 6, "---", &[(3, None)]),
        ],
    );
}

#[test]
fn rights_that_were_there_already_change_nothing() {
    let mut run = Run::new();
    run.call(10, mmap(A, 4 * K, 3)); // 3
    run.call(10, mprotect(A, 4 * K, 3));
    check(&run, &[(0, 4, "rw-", &[(3, None)])]);
}

#[test]
fn neighbours_that_the_model_keeps_as_one_have_a_maker_each() {
    let mut run = Run::new();
    run.call(10, mmap(A, 2 * K, 3)); // 3
    run.call(11, mmap(A + 2 * K, 2 * K, 3)); // 4
    check(&run, &[(0, 4, "rw-", &[(3, None), (4, None)])]);
}

#[test]
fn a_reservation_that_mmap_commits_is_still_its_reservers() {
    let mut run = Run::new();
    run.call(10, mmap(A, 8 * K, 0)); // 3
    run.call(11, mmap(A, 2 * K, 3)); // 4, over it
    run.call(12, mmap(A, K, 3)); // 5, in the same state: another mapping
    check(
        &run,
        &[
            (0, 2, "rw-", &[(5, None), (3, Some(4))]),
            (2, 6, "---", &[(3, None)]),
        ],
    );
}

#[test]
fn moved_pages_keep_their_maker() {
    let mut run = Run::new();
    run.call(10, mmap(A, 4 * K, 3)); // 3
    run.call(11, mremap(A, 4 * K, 6 * K, A + 100 * K)); // 4
    check(&run, &[(100, 6, "rw-", &[(3, Some(4)), (4, None)])]);
}

#[test]
fn what_fork_copied_was_made_by_the_parents_calls() {
    let mut run = Run::new();
    run.call(10, mmap(A, 2 * K, 3)); // 3
    run.fork(2, 20);
    let then = at(&run, Filter::default());
    let child = then.spaces.iter().find(|space| space.id == SpaceId(2));
    let child = child.expect("the child");
    let copied = child
        .mappings
        .iter()
        .find(|mapping| mapping.range.start() == Addr(A));
    let made = &copied.expect("the copy").made[0];
    assert!(matches!(made.origin.how, How::Began(Began::Fork { .. })));
    let first = made.origin.first();
    assert_eq!(
        (first.by.seq, first.by.tid, first.space),
        (3, Tid(10), SpaceId(1))
    );
}

#[test]
fn the_end_is_the_last_instant_at_which_a_space_lived() {
    let mut run = Run::new();
    run.call(10, mmap(A, 2 * K, 3));
    run.exit(1, 10);
    let then = at(&run, Filter::default());
    assert!(then.last);
    assert_eq!(then.spaces[0].totals.mapped, Bytes(run::BEGAN + 2 * K));
}

#[test]
fn mappings_are_chosen_by_size_rights_maker_and_time() {
    let mut run = Run::new();
    run.call(10, mmap(A, 2 * K, 3));
    run.call(11, mmap(A + 8 * K, 4 * K, 0));
    let shown = |filter| {
        let then = at(&run, filter);
        let mappings = then.spaces.iter().flat_map(|space| &space.mappings);
        let starts = mappings.map(|mapping| mapping.range.start().0);
        starts
            .filter(|start| (A..A + (1 << 30)).contains(start))
            .collect::<Vec<_>>()
    };
    let none = Rights {
        mask: Prot::READ | Prot::WRITE | Prot::EXEC,
        value: Prot::NONE,
    };
    let filter = Filter::default;
    assert_eq!(
        shown(Filter {
            min_size: Some(4 * K),
            ..filter()
        }),
        [A + 8 * K]
    );
    assert_eq!(
        shown(Filter {
            rights: Some(none),
            ..filter()
        }),
        [A + 8 * K]
    );
    assert_eq!(
        shown(Filter {
            tids: vec![Tid(11)],
            ..filter()
        }),
        [A + 8 * K]
    );
    let since = Some(Timestamp(run::STEP * 3));
    assert_eq!(shown(Filter { since, ..filter() }), [A, A + 8 * K]);
    assert_eq!(
        shown(
            Filter {
                spaces: vec![SpaceId(9)],
                ..filter()
            }
            .clone()
        )
        .len(),
        0
    );
}

#[test]
fn the_life_of_a_page_tells_what_it_was_before_and_after() {
    let mut run = Run::new();
    run.call(10, mmap(A, 8 * K, 0));
    run.call(10, mmap(A + 100 * K, 8 * K, 0));
    run.call(11, mprotect(A, 8 * K, 3));
    run.call(11, mprotect(A, 8 * K, 1));
    run.call(10, munmap(A + 4 * K, 2 * K));
    run.call(10, munmap(A, 2 * K));
    run.exit(1, 10);
    let range = AddrRange::covering(Addr(A), 1).expect("a page");
    let mut around = Around::new(range, Filter::default());
    run.tell(&mut around);
    let lives: Vec<_> = around.lives().collect();
    let [life] = lives.as_slice() else {
        panic!("one life: {lives:?}");
    };
    let prot = |parts: &[Part]| parts.first().map(|part| part.prot);
    let steps: Vec<_> = life
        .touches
        .iter()
        .map(|touch| (touch.event.seq, prot(&touch.before), prot(&touch.after)))
        .collect();
    let rw = Prot::READ | Prot::WRITE;
    assert_eq!(
        steps,
        [
            (3, None, Some(Prot::NONE)),
            (5, Some(Prot::NONE), Some(rw)),
            (6, Some(rw), Some(Prot::READ)),
            (8, Some(Prot::READ), None),
        ]
    );
    assert!(
        life.touches
            .iter()
            .flat_map(|touch| &touch.after)
            .all(|part| part.place == Place::Anon)
    );
}

#[test]
fn what_is_left_belongs_to_who_made_it() {
    let mut run = Run::new();
    run.call(10, mmap(A, 8 * K, 0));
    run.call(11, mprotect(A, 2 * K, 3));
    run.call(12, munmap(A + 6 * K, 2 * K));
    let mut table = Table::of(By::Thread, Filter::default());
    run.tell(&mut table);
    let table = table.into_table();
    let row = |tid| {
        let row = table
            .rows
            .iter()
            .find(|row| row.key == Key::Thread(Tid(tid)));
        row.map(|row| {
            (
                row.sums.flow,
                row.sums.reserved.0 / K,
                row.sums.committed.0 / K,
            )
        })
    };
    let (flow, reserved, committed) = row(10).expect("a row");
    assert_eq!((flow.reserve.0 / K, reserved, committed), (8, 4, 2));
    let (flow, reserved, committed) = row(11).expect("a row");
    assert_eq!((flow.commit.0 / K, reserved, committed), (2, 0, 0));
    let (flow, ..) = row(12).expect("a row");
    assert_eq!(flow.release.0 / K, 2);
    let began = table
        .rows
        .iter()
        .find(|row| row.key == Key::Began)
        .expect("a row");
    assert_eq!(began.sums.committed, Bytes(run::BEGAN));
}

#[test]
fn figures_over_time_keep_every_peak_however_long_it_took() {
    let mut run = Run::new();
    run.call(10, mmap(A, 8 * K, 0));
    run.call(10, munmap(A, 8 * K));
    run.wait(3_600_000_000_000);
    run.call(10, mmap(A, 2 * K, 3));
    let mut over_time = OverTime::new(Filter::default());
    run.tell(&mut over_time);
    let steps = over_time.into_steps();
    assert!(steps.list.len() <= 2048);
    let [mapped, reserved, committed, _] = steps.curves;
    assert_eq!(mapped.peak, Bytes(run::BEGAN + 8 * K));
    assert_eq!(mapped.peak_time, Timestamp(run::STEP * 3));
    assert_eq!(reserved.peak, Bytes(8 * K));
    assert_eq!(committed.peak, Bytes(run::BEGAN + 2 * K));
    for count in [1, 7, 80, 5000] {
        let columns = steps.columns(count);
        assert_eq!(columns.len(), count);
        assert_eq!(
            columns.iter().map(|column| column[0]).max(),
            Some(mapped.peak.0)
        );
        assert_eq!(
            columns.last().map(|column| column[2]),
            Some(committed.peak.0)
        );
        assert_eq!(steps.column_of(mapped.peak_time, count), 0);
    }
    for step in &steps.list {
        let [mapped, reserved, committed, _] = step.last;
        assert_eq!(mapped, reserved + committed);
    }
}

/// Tells observations as they come, whatever they say, to all questions at once.
fn ask_all(observations: &[Observation]) {
    let range = AddrRange::covering(Addr(0x40_0000), 64 * K).expect("a range");
    let mut at = At::new(Filter::default());
    let mut around = Around::new(range, Filter::default());
    let mut over_time = OverTime::new(Filter::default());
    let mut tables = [
        By::Call,
        By::Mapping,
        By::File,
        By::Thread,
        By::Space,
        By::Kind,
    ]
    .map(|by| Table::of(by, Filter::default()));
    let mut profile = ProfileSink::new(Filter::default());
    let mut lives = LivesSink::new(Filter::default());
    let mut summary = Summary::new(TraceInfo::default());
    let mut timeline = Timeline::new(TraceInfo::default());
    let mut events = Vec::new();
    {
        let mut sinks: Vec<&mut dyn Sink> = vec![
            &mut at,
            &mut around,
            &mut over_time,
            &mut profile,
            &mut lives,
            &mut summary,
        ];
        sinks.extend(tables.iter_mut().map(|table| table as &mut dyn Sink));
        for observation in observations {
            timeline.observe(observation.clone(), &mut events);
            for event in events.drain(..) {
                let told = sinks
                    .iter_mut()
                    .try_for_each(|sink| sink.event(&event, &timeline));
                told.expect("memory is no file");
            }
        }
        let done = sinks.iter_mut().try_for_each(|sink| sink.finish(&timeline));
        done.expect("memory is no file");
    }
    for space in at.into_then().spaces {
        let sum: u64 = space
            .mappings
            .iter()
            .map(|mapping| mapping.range.len())
            .sum();
        assert_eq!(sum, space.totals.mapped.0);
        for mapping in &space.mappings {
            let made: u64 = mapping.made.iter().map(|made| made.range.len()).sum();
            assert_eq!(made, mapping.range.len(), "{mapping:?}");
        }
    }
    let totals = tables.map(|table| table.into_table().total);
    for total in &totals {
        assert_eq!(*total, totals[0]);
    }
    over_time.into_steps().columns(100);
    let profile = profile.into_profile();
    let stacks = profile.by_stack(&mut HeldNames);
    let owners = profile.by_owner(&mut HeldNames);
    assert_eq!((stacks.total, owners.total), (totals[0], totals[0]));
    let sum = |rows: &mut dyn Iterator<Item = Sums>| {
        let mut sum = Sums::default();
        rows.for_each(|sums| sum += sums);
        sum
    };
    assert_eq!(sum(&mut stacks.rows.iter().map(|row| row.sums)), totals[0]);
    assert_eq!(sum(&mut owners.rows.iter().map(|row| row.sums)), totals[0]);
    for direction in [Direction::Down, Direction::Up] {
        let tree = profile.tree(&mut HeldNames, direction, None);
        assert_eq!(tree.nodes[0].sums, totals[0]);
        for node in &tree.nodes {
            let mut below = node.own;
            node.children
                .iter()
                .for_each(|child| below += tree.nodes[*child].sums);
            assert_eq!(below, node.sums);
        }
    }
    let ends = summary.into_report().tree;
    assert_eq!(ends.reserved.end, totals[0].reserved.0);
    assert_eq!(ends.committed.end, totals[0].committed.0);
    assert_eq!(ends.mapped.end, totals[0].mapped.0);
    let lives = lives.into_lives(&mut HeldNames);
    let total = lives.list.iter().map(|life| life.sums.reserved_now).sum();
    assert!(lives.total.reserved_now >= total);
    assert!(lives.total.reserved_now.0 <= totals[0].reserved.0);
    assert!(lives.total.ever_committed >= lives.total.committed_now);
}

proptest! {
    #[test]
    fn whatever_was_observed_every_byte_has_a_maker_and_all_tables_sum_to_the_same(
        observations in proptest::collection::vec(observation(), 0..60),
    ) {
        ask_all(&observations);
    }
}
