//! Which bytes the kernel charges: the rows of `cases.md`, 2.9.

use super::strace::Story;
use crate::mm::{AddressSpace, parse_maps, parse_smaps};

const MAP: &str = "mmap(0x10000, 0x4000, ";

/// Bounds of the charge in pages after `calls`.
#[track_caller]
fn charged(calls: &str) -> (u64, u64) {
    let totals = Story::default().run(calls).space.totals();
    (totals.charged_low.0 / 4096, totals.charged_high.0 / 4096)
}

fn anon(prot: &str, flags: &str) -> String {
    format!("{MAP}{prot}, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED{flags}, -1, 0) = 0x10000\n")
}

#[test]
fn private_writable_memory_is_charged_from_the_start() {
    assert_eq!(charged(&anon("PROT_READ|PROT_WRITE", "")), (4, 4));
    assert_eq!(charged(&anon("PROT_READ", "")), (0, 0));
    assert_eq!(charged(&anon("PROT_NONE", "")), (0, 0));
    assert_eq!(
        charged(&anon("PROT_READ|PROT_WRITE", "|MAP_NORESERVE")),
        (0, 0)
    );
}

#[test]
fn becoming_writable_charges_and_losing_it_makes_it_unsure() {
    let mut calls = anon("PROT_NONE", "");
    calls += "mprotect(0x10000, 0x2000, PROT_READ|PROT_WRITE) = 0\n";
    assert_eq!(charged(&calls), (2, 2));
    calls += "mprotect(0x10000, 0x1000, PROT_NONE) = 0\n";
    assert_eq!(charged(&calls), (1, 2));
    calls += "mprotect(0x10000, 0x4000, PROT_WRITE) = 0\n";
    assert_eq!(charged(&calls), (4, 4));
}

#[test]
fn a_file_once_written_to_stays_charged() {
    let calls = "mmap(NULL, 0x2000, PROT_READ|PROT_WRITE, MAP_PRIVATE, 3, 0) = 0x10000\n \
                   00010000-00012000 rw-p 00000000 08:01 77 /lib/x\n\
                 mprotect(0x10000, 0x1000, PROT_READ) = 0";
    assert_eq!(charged(calls), (2, 2));
}

#[test]
fn noreserve_is_ignored_where_overcommit_is_strict() {
    let mut story = Story::default();
    story.context.strict_overcommit = true;
    let story = story.run(&anon("PROT_READ|PROT_WRITE", "|MAP_NORESERVE"));
    let totals = story.space.totals();
    assert_eq!((totals.charged_low.0, totals.noreserve.0), (0x4000, 0));
}

#[test]
fn smaps_tells_the_exact_charge() {
    let story = Story::default().run(&format!(
        "{}mprotect(0x10000, 0x4000, PROT_NONE) = 0",
        anon("PROT_READ|PROT_WRITE", "")
    ));
    let mut space = story.space;
    let text = "00010000-00013000 ---p 00000000 00:00 0 \nVmFlags: mr mw me ac \n\
                00013000-00014000 ---p 00000000 00:00 0 \nVmFlags: mr mw me \n";
    space.learn_flags(&parse_smaps(text.as_bytes()).expect("lines of smaps"));
    let totals = space.totals();
    assert_eq!(
        (totals.charged_low.0, totals.charged_high.0),
        (0x3000, 0x3000)
    );
    assert_eq!(totals, space.recount());
}

#[test]
fn a_child_inherits_what_maps_does_not_show() {
    let parent = Story::default().run(&format!(
        "{}mprotect(0x10000, 0x1000, PROT_NONE) = 0",
        anon("PROT_READ|PROT_WRITE", "|MAP_NORESERVE")
    ));
    let maps = "00010000-00011000 ---p 00000000 00:00 0 \n\
                00011000-00014000 rw-p 00000000 00:00 0 \n";
    let child = parse_maps(maps.as_bytes()).expect("lines of maps");
    let child = AddressSpace::forked(&parent.space, &child);
    assert_eq!(child.totals(), parent.space.totals());
    assert_eq!(child.totals().noreserve.0, 0x3000);
}
