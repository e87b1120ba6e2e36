//! Folded stacks, read back.

use std::collections::BTreeMap;

use super::*;
use crate::report::Summary;
use crate::report::reading::tests::run::{Run, mmap, mprotect};
use crate::report::reading::{Filter, ProfileSink};
use crate::timeline::{HeldNames, TraceInfo};

const A: u64 = 0x7f00_0000_0000;
const K: u64 = 0x1000;

fn folded(run: &Run, weight: Weight) -> String {
    let mut sink = ProfileSink::new(Filter::default());
    run.tell(&mut sink);
    let mut out = Vec::new();
    let profile = sink.into_profile();
    write(&mut out, &profile, &mut HeldNames, weight).expect("memory is no file");
    String::from_utf8(out).expect("UTF-8")
}

fn run() -> Run {
    let mut run = Run::new();
    let reserve = run.stack(&["mmap", "<[u8; 32] as Pool>::reserve", "main"]);
    let commit = run.stack(&["mprotect", "grow\n", "+code", "main"]);
    run.call_from(10, mmap(A, 16 * K, 0), reserve);
    run.call_from(10, mprotect(A, 4 * K, 3), commit);
    run.call(10, mmap(A + 64 * K, K, 0));
    run.fork_with(2, 20, "7f0000000000-7f0000002000 ---p 00000000 00:00 0 \n");
    run
}

#[test]
fn a_line_is_a_stack_from_the_root_on_and_its_bytes() {
    assert_eq!(
        folded(&run(), Weight::Reserved),
        "server;(began: fork);main;<[u8: 32] as Pool>::reserve;mmap 8192\n\
         server;(no stack) mmap 4096\n\
         server;main;<[u8: 32] as Pool>::reserve;mmap 49152\n"
    );
    assert_eq!(
        folded(&run(), Weight::Committed),
        "server;(began: exec) 12288\n\
         server;(began: fork);(began: exec) 12288\n\
         server;main;server+0x2002;grow?;mprotect 16384\n"
    );
}

#[test]
fn the_bytes_add_up_to_the_ends_of_the_report() {
    let run = run();
    let mut summary = Summary::new(TraceInfo::default());
    run.tell(&mut summary);
    let tree = summary.into_report().tree;
    let ends = [tree.reserved.end, tree.committed.end, tree.mapped.end];
    for (weight, end) in Weight::ALL.into_iter().zip(ends) {
        let text = folded(&run, weight);
        let lines: BTreeMap<&str, u64> = text
            .lines()
            .map(|line| {
                let (stack, bytes) = line.rsplit_once(' ').expect("a number at the end");
                (stack, bytes.parse().expect("a number"))
            })
            .collect();
        assert_eq!(lines.len(), text.lines().count(), "each stack has one line");
        assert_eq!(lines.values().sum::<u64>(), end, "{weight:?}");
    }
}
