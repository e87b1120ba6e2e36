//! Lives of reservations, told of short runs.

use super::sink::KEPT;
use super::*;
use crate::report::Reservations;
use crate::report::reading::tests::run::{Run, mmap, mprotect, mremap, munmap};
use crate::report::reading::{Filter, json};
use crate::timeline::{HeldNames, Stack};
use crate::units::Addr;

const A: u64 = 0x7f00_0000_0000;
const K: u64 = 0x1000;

fn lives(run: &Run) -> Lives {
    let mut sink = LivesSink::new(Filter::default());
    run.tell(&mut sink);
    sink.into_lives(&mut HeldNames)
}

fn text(labels: &[Label]) -> String {
    let texts: Vec<&str> = labels.iter().map(|label| &*label.text).collect();
    texts.join(" < ")
}

/// Reserved at first, ever committed, reserved now, committed now, in pages.
fn pages(sums: &LifeSums) -> [u64; 4] {
    let amounts = [
        sums.reserved,
        sums.ever_committed,
        sums.reserved_now,
        sums.committed_now,
    ];
    amounts.map(|Bytes(bytes)| bytes / K)
}

#[test]
fn a_reservation_keeps_its_life_across_splits_moves_and_partial_commits() {
    let mut run = Run::new();
    let reserve = run.stack(&["mmap", "reserve", "main"]);
    let grow = run.stack(&["mprotect", "grow", "main"]);
    let fault = run.stack(&["mmap", "commit", "main"]);
    let shrink = run.stack(&["mprotect", "shrink", "main"]);
    let resize = run.stack(&["mremap", "resize", "main"]);
    run.call_from(10, mmap(A, 32 * K, 0), reserve);
    run.call_from(10, mprotect(A + 4 * K, 4 * K, 3), grow);
    run.call_from(10, mprotect(A + 20 * K, 4 * K, 3), grow);
    run.call_from(10, mmap(A + 8 * K, 2 * K, 3), fault);
    // A hole, then the upper part goes elsewhere and grows there.
    run.call_from(10, munmap(A + 14 * K, 2 * K), shrink);
    run.call_from(10, mprotect(A + 4 * K, 2 * K, 0), shrink);
    run.call_from(10, mprotect(A + 4 * K, K, 3), grow);
    run.call_from(10, mremap(A + 24 * K, 8 * K, 12 * K, A + 100 * K), resize);
    run.call_from(10, mprotect(A + 100 * K, 2 * K, 3), grow);
    run.exit(1, 10);
    let lives = lives(&run);
    let [first, growth] = lives.list.as_slice() else {
        panic!("two reservations: {:?}", lives.list);
    };
    assert_eq!(text(&first.reserver), "mmap < reserve < main");
    assert_eq!(first.origin.start, Addr(A));
    assert_eq!(pages(&first.sums), [32, 12, 19, 11]);
    let flow = first.sums.flow;
    let flow = [flow.commit, flow.decommit, flow.release].map(|Bytes(bytes)| bytes / K);
    assert_eq!(flow, [13, 2, 2]);
    let committers: Vec<_> = first
        .committers
        .iter()
        .map(|(who, commits)| {
            let Commits {
                calls, bytes, left, ..
            } = commits;
            (text(who), *calls, bytes.0 / K, left.0 / K)
        })
        .collect();
    assert_eq!(
        committers,
        [
            ("mprotect < grow < main".to_owned(), 4, 11, 9),
            ("mmap < commit < main".to_owned(), 1, 2, 2),
        ]
    );
    let (_, commits) = &first.committers[0];
    assert!(commits.first < commits.last);
    assert_eq!(first.released, None);
    // What mremap(2) added was reserved by it.
    assert_eq!(text(&growth.reserver), "mremap < resize < main");
    assert_eq!(pages(&growth.sums), [4, 0, 4, 0]);
}

#[test]
fn a_reservation_that_is_gone_says_when() {
    let mut run = Run::new();
    run.call(10, mmap(A, 8 * K, 0)); // 3
    run.call(10, mprotect(A, K, 3));
    run.call(10, munmap(A, 4 * K));
    run.call(10, munmap(A + 4 * K, 4 * K));
    run.call(10, mmap(A, K, 3));
    let lives = lives(&run);
    let [life] = lives.list.as_slice() else {
        panic!("what is mapped with access is no reservation: {lives:?}");
    };
    assert_eq!(pages(&life.sums), [8, 1, 0, 0]);
    assert_eq!(life.sums.flow.release, Bytes(8 * K));
    assert_eq!(life.released, Some(Timestamp(6_000_000)));
    assert_eq!(text(&life.reserver), "(no stack) mmap");
    assert!(!lives.with_stacks);
}

#[test]
fn sums_are_those_of_the_summary() {
    let mut run = Run::new();
    for index in 0..40 {
        let at = A + index * 16 * K;
        run.call(10, mmap(at, 8 * K, 0));
        run.call(10, mprotect(at, (index % 3 + 1) * K, 3));
        if index % 5 == 0 {
            run.call(10, munmap(at, 8 * K));
        }
    }
    let lives = lives(&run);
    let mut summary = crate::report::Summary::new(Default::default());
    run.tell(&mut summary);
    let report = summary.into_report();
    let detail = report.spaces[0].detail.as_ref().expect("detail");
    let Reservations {
        count,
        bytes,
        ever_committed,
        ..
    } = detail.reservations;
    let total = lives.total;
    assert_eq!(
        (total.count, total.reserved, total.ever_committed),
        (count, bytes, ever_committed)
    );
    assert_eq!(total.reserved_now, report.spaces[0].reserved.end);
}

#[test]
fn many_that_are_gone_are_put_together_and_the_largest_are_kept() {
    let mut run = Run::new();
    let many = 3 * KEPT as u64;
    for index in 0..many {
        let len = (index + 1) * K;
        run.call(10, mmap(A, len, 0));
        run.call(10, munmap(A, len));
    }
    let lives = lives(&run);
    assert!(lives.list.len() < 2 * KEPT);
    assert_eq!(lives.list[0].sums.reserved, Bytes(many * K));
    assert_eq!(lives.total.count, many);
    assert_eq!(lives.total.reserved, Bytes(many * (many + 1) / 2 * K));
    assert_eq!(lives.smaller.count + lives.list.len() as u64, many);
}

#[test]
fn a_copy_that_nobody_touched_is_no_row() {
    let mut run = Run::new();
    let reserve = run.stack(&["mmap", "reserve"]);
    let commit = run.stack(&["mprotect", "commit"]);
    run.call_from(10, mmap(A, 8 * K, 0), reserve);
    run.call_from(10, mprotect(A, 2 * K, 3), commit);
    let parts = |at: u64| {
        format!(
            "{at:x}-{:x} rw-p 00000000 00:00 0 \n{:x}-{:x} ---p 00000000 00:00 0 \n",
            at + 2 * K,
            at + 2 * K,
            at + 8 * K
        )
    };
    run.fork_with(2, 20, &parts(A));
    run.fork_with(3, 30, &parts(A));
    run.call_in(3, 30, mprotect(A + 2 * K, K, 3), Stack::Known(commit));
    let lives = lives(&run);
    assert_eq!(
        (lives.copies.count, lives.copies.reserved),
        (1, Bytes(8 * K))
    );
    let [copy, own] = [&lives.list[1], &lives.list[0]];
    assert_eq!(pages(&own.sums), [8, 2, 6, 2]);
    assert_eq!(pages(&copy.sums), [8, 3, 5, 3]);
    assert_eq!(text(&copy.reserver), "mmap < reserve < (began: fork)");
    let committers: Vec<_> = copy
        .committers
        .iter()
        .map(|(who, commits)| (text(who), commits.calls, commits.left.0 / K))
        .collect();
    assert_eq!(
        committers,
        [
            ("mprotect < commit < (began: fork)".to_owned(), 0, 2),
            ("mprotect < commit".to_owned(), 1, 1),
        ]
    );
}

#[test]
fn a_life_as_json_has_both_steps() {
    let mut run = Run::new();
    let reserve = run.stack(&["mmap", "reserve"]);
    let commit = run.stack(&["mprotect", "commit"]);
    run.call_from(10, mmap(A, 8 * K, 0), reserve);
    run.call_from(10, mprotect(A, 2 * K, 3), commit);
    let value = json::lives(&lives(&run));
    assert_eq!(value["schema"], "memtrace.reservations/1");
    let life = &value["reservations"][0];
    assert_eq!(life["start"], "0x7f0000000000");
    assert_eq!(life["reserved"], 8 * K);
    assert_eq!(life["ever_committed"], 2 * K);
    assert_eq!(
        life["end"],
        serde_json::json!({"reserved": 6 * K, "committed": 2 * K})
    );
    assert_eq!(life["reserver"][1]["name"], "reserve");
    assert_eq!(
        life["committers"],
        serde_json::json!([{
            "by": [
                {"name": "mprotect", "kind": "function", "module": "/srv/server"},
                {"name": "commit", "kind": "function", "module": "/srv/server"},
            ],
            "calls": 1, "bytes": 2 * K, "left": 2 * K, "first": 9_000_000, "last": 9_000_000,
        }])
    );
}
