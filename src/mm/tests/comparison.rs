//! What counts as drift, and what does not.

use super::strace::Story;
use crate::mm::{Comparison, compare, parse_maps, parse_smaps};

#[track_caller]
fn compared(model: &str, kernel: &str) -> Comparison {
    let snapshot = parse_maps(kernel.as_bytes()).expect("lines of maps");
    compare(&Story::from_maps(model).space, &snapshot)
}

#[test]
fn lines_labels_and_path_text_are_no_drift() {
    let found = compared(
        "00010000-00014000 rw-p 00000000 00:00 0 [heap]\n\
         00020000-00022000 r--p 00001000 08:01 7 /lib/x\n",
        "00010000-00012000 rw-p 00000000 00:00 0 \n\
         00012000-00014000 rw-p 00000000 00:00 0 [anon:arena]\n\
         00020000-00021000 r--p 00001000 08:01 7 /lib/x\n\
         00021000-00022000 r--p 00002000 08:01 7 /lib/y (deleted)\n\
         ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n",
    );
    assert_eq!(found, Comparison::default());
}

#[test]
fn rights_sharing_backing_and_place_are() {
    let found = compared(
        "00010000-00014000 rw-p 00000000 00:00 0 \n\
         00020000-00022000 r--p 00001000 08:01 7 /lib/x\n",
        "00010000-00011000 rw-p 00000000 00:00 0 \n\
         00011000-00012000 r--p 00000000 00:00 0 \n\
         00020000-00022000 r--p 00000000 08:01 7 /lib/x\n\
         00030000-00031000 r--p 00000000 00:00 0 [vvar]\n",
    );
    assert_eq!(found.drift.0, 0x6000);
    let lines: Vec<String> = found
        .differences
        .iter()
        .map(|difference| {
            let (range, model, kernel) = (difference.range, &difference.model, &difference.kernel);
            format!("{range}: {model} | {kernel}")
        })
        .collect();
    assert_eq!(
        lines,
        [
            "11000-12000: rw-p 00000000 00:00 0 | r--p 00000000 00:00 0",
            "12000-14000: rw-p 00000000 00:00 0 | unmapped",
            "20000-22000: r--p 00001000 08:01 7 /lib/x | r--p 00000000 08:01 7 /lib/x",
            "30000-31000: unmapped | r--p 00000000 00:00 0 [vvar]",
        ]
    );
}

#[test]
fn a_stack_that_grew_is_grown_and_a_mapping_below_it_is_not() {
    let stack = "00010000-00014000 rw-p 00000000 00:00 0 [stack]\n";
    let found = compared(stack, "0000c000-00014000 rw-p 00000000 00:00 0 [stack]\n");
    assert_eq!(found.drift.0, 0);
    assert_eq!(found.grown.len(), 1);
    assert_eq!(found.grown[0].to_string(), "c000-10000");
    let found = compared(
        stack,
        "0000c000-00010000 r--p 00000000 00:00 0 \n\
         00010000-00014000 rw-p 00000000 00:00 0 [stack]\n",
    );
    assert_eq!((found.drift.0, found.grown.len()), (0x4000, 0));
}

#[track_caller]
fn compared_with_flags(model: &str, kernel: &str) -> (u64, Vec<String>) {
    let snapshot = parse_smaps(kernel.as_bytes()).expect("lines of smaps");
    let found = compare(&Story::default().run(model).space, &snapshot);
    let grown = found.grown.iter().map(ToString::to_string).collect();
    (found.drift.0, grown)
}

const STACK: &str = "mmap(0x10000, 0x4000, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED|MAP_GROWSDOWN, -1, 0) = 0x10000\n  \
     00010000-00014000 ---p 00000000 00:00 0\n";

#[test]
fn growth_that_a_call_altered_is_told_by_its_flag() {
    // A fault took it down to 8000; then mprotect(0xc000, 0x2000, PROT_READ) was made, which the
    // model could not apply.
    let found = compared_with_flags(
        STACK,
        "00008000-0000c000 ---p 00000000 00:00 0 \n\
         VmFlags: mr mw me gd \n\
         0000c000-0000e000 r--p 00000000 00:00 0 \n\
         VmFlags: rd mr mw me gd \n\
         0000e000-00014000 ---p 00000000 00:00 0 \n\
         VmFlags: mr mw me gd \n",
    );
    assert_eq!(
        found,
        (
            0,
            vec!["8000-c000".into(), "c000-e000".into(), "e000-10000".into()]
        )
    );
}

#[test]
fn growth_whose_stack_is_gone_is_told_by_its_flag() {
    let unmapped = format!("{STACK}munmap(0x10000, 0x4000) = 0\n");
    let found = compared_with_flags(
        &unmapped,
        "00008000-00010000 ---p 00000000 00:00 0 \n\
         VmFlags: mr mw me gd \n",
    );
    assert_eq!(found, (0, vec!["8000-10000".into()]));
}

#[test]
fn a_mapping_that_does_not_grow_is_drift_also_below_a_stack() {
    let found = compared_with_flags(
        STACK,
        "0000c000-00010000 r--p 00000000 00:00 0 \n\
         VmFlags: rd mr mw me \n\
         00010000-00014000 ---p 00000000 00:00 0 \n\
         VmFlags: mr mw me gd \n",
    );
    assert_eq!(found, (0x4000, vec![]));
    // Nor is other rights of what the model holds.
    let found = compared_with_flags(
        STACK,
        "00010000-00014000 r--p 00000000 00:00 0 \n\
         VmFlags: rd mr mw me gd \n",
    );
    assert_eq!(found, (0x4000, vec![]));
}
