//! What calls do, case by case as the experiments v01 and v02 saw it (`cases.md`, section 2).

use super::strace::{Story, check, pages};
use crate::units::Addr;

const ANON: &str = "MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED, -1, 0";

/// `{anon}` stands for the flags of private anonymous memory at a fixed place.
fn calls(lines: &str) -> String {
    lines.replace("{anon}", ANON)
}

#[track_caller]
fn check_calls(lines: &str, maps: &str) -> Story {
    check(&calls(lines), maps)
}

#[test]
fn protecting_the_middle_splits_a_vma_in_three() {
    let story = check_calls(
        "mmap(0x10000, 0x3000, PROT_NONE, {anon}) = 0x10000\n\
         mprotect(0x11000, 0x1000, PROT_READ|PROT_WRITE) = 0",
        "10000-11000 ---p\n11000-12000 rw-p\n12000-13000 ---p\n",
    );
    assert_eq!(pages(&story.flow), [3, 0, 1, 0, 0, 0]);
    assert_eq!(story.space.totals().mappings, 3);
}

#[test]
fn lengths_round_up_to_pages() {
    check_calls(
        "mmap(0x10000, 1, PROT_READ, {anon}) = 0x10000\n\
         mmap(0x20000, 0x4000, PROT_READ, {anon}) = 0x20000\n\
         munmap(0x21000, 0x1001) = 0\n\
         munmap(0x20000, 0) = -1 EINVAL\n\
         mprotect(0x10000, 1, PROT_NONE) = 0",
        "10000-11000 ---p\n20000-21000 r--p\n23000-24000 r--p\n",
    );
}

#[test]
fn a_fixed_mapping_over_the_same_state_counts_as_release_and_map() {
    let story = check_calls(
        "mmap(0x10000, 0x6000, PROT_READ|PROT_WRITE, {anon}) = 0x10000\n\
         mmap(0x12000, 0x2000, PROT_READ, {anon}) = 0x12000\n\
         mmap(0x15000, 0x4000, PROT_READ|PROT_WRITE, {anon}) = 0x15000",
        "10000-12000 rw-p\n12000-14000 r--p\n14000-19000 rw-p\n",
    );
    assert_eq!(pages(&story.flow), [0, 12, 0, 0, 3, 0]);
}

#[test]
fn a_fixed_mapping_over_the_other_state_commits_and_decommits() {
    // How Go makes reserved memory usable, and how HotSpot gives it back.
    let story = check_calls(
        "mmap(0x10000, 0x4000, PROT_NONE, {anon}) = 0x10000\n\
         mmap(0x11000, 0x2000, PROT_READ|PROT_WRITE, {anon}) = 0x11000\n\
         mmap(0x12000, 0x3000, PROT_NONE, {anon}) = 0x12000",
        "10000-11000 ---p\n11000-12000 rw-p\n12000-15000 ---p\n",
    );
    assert_eq!(pages(&story.flow), [4 + 1 + 1, 0, 2, 1, 1, 0]);
    assert_eq!(
        story.spans(),
        "10000-14000 Reserve\n11000-13000 Commit\n13000-14000 ReleaseReserved\n\
         12000-13000 Decommit\n13000-15000 Reserve\n"
    );
}

#[test]
fn neighbours_that_differ_in_nothing_are_one_vma() {
    let story = check_calls(
        "mmap(0x10000, 0x2000, PROT_READ, {anon}) = 0x10000\n\
         mmap(0x14000, 0x2000, PROT_READ, {anon}) = 0x14000\n\
         mmap(0x12000, 0x2000, PROT_READ, {anon}) = 0x12000",
        "10000-16000 r--p\n",
    );
    assert_eq!(story.space.totals().mappings, 1);
}

#[test]
fn unmapping_may_meet_holes_or_nothing_at_all() {
    check_calls(
        "mmap(0x10000, 0x2000, PROT_READ, {anon}) = 0x10000\n\
         mmap(0x14000, 0x2000, PROT_READ, {anon}) = 0x14000\n\
         munmap(0x11000, 0x4000) = 0\n\
         munmap(0x20000, 0x4000) = 0",
        "10000-11000 r--p\n15000-16000 r--p\n",
    );
}

#[test]
fn protection_that_fails_at_a_hole_has_changed_what_is_before_it() {
    check_calls(
        "mmap(0x10000, 0x2000, PROT_READ|PROT_WRITE, {anon}) = 0x10000\n\
         mmap(0x14000, 0x2000, PROT_READ|PROT_WRITE, {anon}) = 0x14000\n\
         mprotect(0x10000, 0x6000, PROT_READ) = -1 ENOMEM\n \
           00010000-00012000 r--p 00000000 00:00 0 \n \
           00014000-00016000 rw-p 00000000 00:00 0 ",
        "10000-12000 r--p\n14000-16000 rw-p\n",
    );
}

#[test]
fn a_fixed_mapping_that_its_file_refuses_leaves_a_hole() {
    let story = check_calls(
        "mmap(0x10000, 0x6000, PROT_READ|PROT_WRITE, {anon}) = 0x10000\n\
         mmap(0x12000, 0x2000, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_FIXED, 3, 0x7000000) = -1 EINVAL\n \
           00010000-00012000 rw-p 00000000 00:00 0 \n \
           00014000-00016000 rw-p 00000000 00:00 0 ",
        "10000-12000 rw-p\n14000-16000 rw-p\n",
    );
    assert_eq!(pages(&story.flow), [0, 6, 0, 0, 2, 0]);
}

#[test]
fn a_file_is_known_by_the_kernels_answer_and_split_with_its_offsets() {
    check_calls(
        "mmap(NULL, 0x2800, PROT_READ, MAP_PRIVATE, 3, 0x1000) = 0x10000\n \
           00010000-00013000 r--p 00001000 08:01 77                       /lib/x\n\
         mprotect(0x11000, 0x1000, PROT_READ|PROT_WRITE) = 0\n\
         mprotect(0x11000, 0x1000, PROT_READ) = 0",
        "10000-11000 r--p 00001000 08:01 77 /lib/x\n\
         11000-12000 r--p 00002000 08:01 77 /lib/x\n\
         12000-13000 r--p 00003000 08:01 77 /lib/x\n",
    );
}

#[test]
fn advice_over_a_hole_is_done_on_all_that_is_mapped() {
    let story = check_calls(
        "mmap(0x10000, 0x2000, PROT_READ, {anon}) = 0x10000\n\
         mmap(0x14000, 0x2000, PROT_NONE, {anon}) = 0x14000\n\
         madvise(0x10000, 0x6000, MADV_DONTNEED) = -1 ENOMEM\n\
         madvise(0x10000, 0x1000, MADV_GUARD_INSTALL) = 0\n\
         madvise(0x10000, 0x1000, MADV_FREE) = -1 EINVAL\n\
         madvise(0x10000, 0x1000, MADV_DONTNEED) = ? ERESTARTNOINTR",
        "10000-12000 r--p\n14000-16000 ---p\n",
    );
    assert_eq!(pages(&story.flow)[5], 5);
}

#[test]
fn a_move_counts_as_nothing_and_what_was_under_it_as_released() {
    let story = check_calls(
        "mmap(0x10000, 0x4000, PROT_READ|PROT_WRITE, {anon}) = 0x10000\n\
         mmap(0x20000, 0x3000, PROT_NONE, {anon}) = 0x20000\n\
         mremap(0x11000, 0x2000, 0x2000, MREMAP_MAYMOVE|MREMAP_FIXED, 0x20000) = 0x20000\n \
           00010000-00011000 rw-p 00000000 00:00 0 \n \
           00013000-00014000 rw-p 00000000 00:00 0 \n \
           00020000-00022000 rw-p 00000000 00:00 0 \n \
           00022000-00023000 ---p 00000000 00:00 0 ",
        "10000-11000 rw-p\n13000-14000 rw-p\n20000-22000 rw-p\n22000-23000 ---p\n",
    );
    assert_eq!(pages(&story.flow), [3, 4, 0, 0, 2, 0]);
    assert!(
        story
            .spans()
            .ends_with("20000-22000 ReleaseReserved\n11000-13000 MovedFrom\n20000-22000 MovedTo\n")
    );
}

#[test]
fn a_move_of_several_vmas_leaves_alone_what_lies_under_its_gaps() {
    check_calls(
        "mmap(0x10000, 0x1000, PROT_READ, {anon}) = 0x10000\n\
         mmap(0x12000, 0x1000, PROT_READ, {anon}) = 0x12000\n\
         mmap(0x20000, 0x4000, PROT_WRITE, {anon}) = 0x20000\n\
         mremap(0x10000, 0x3000, 0x3000, MREMAP_MAYMOVE|MREMAP_FIXED, 0x20000) = 0x20000\n \
           00020000-00021000 r--p 00000000 00:00 0 \n \
           00021000-00022000 -w-p 00000000 00:00 0 \n \
           00022000-00023000 r--p 00000000 00:00 0 \n \
           00023000-00024000 -w-p 00000000 00:00 0 ",
        "20000-21000 r--p\n21000-22000 -w-p\n22000-23000 r--p\n23000-24000 -w-p\n",
    );
}

#[test]
fn a_move_that_meets_a_seal_has_moved_what_is_before_it() {
    let story = check_calls(
        "mmap(0x10000, 0x2000, PROT_READ|PROT_WRITE, {anon}) = 0x10000\n\
         mmap(0x12000, 0x2000, PROT_READ, {anon}) = 0x12000\n\
         mseal(0x12000, 0x2000, 0) = 0\n\
         mmap(0x20000, 0x4000, PROT_READ|PROT_EXEC, {anon}) = 0x20000\n\
         mremap(0x10000, 0x4000, 0x4000, MREMAP_MAYMOVE|MREMAP_FIXED, 0x20000) = -1 EPERM\n \
           00012000-00014000 r--p 00000000 00:00 0 \n \
           00020000-00022000 rw-p 00000000 00:00 0 \n \
           00022000-00024000 r-xp 00000000 00:00 0 ",
        "12000-14000 r--p\n20000-22000 rw-p\n22000-24000 r-xp\n",
    );
    assert_eq!(pages(&story.flow), [0, 8, 0, 0, 2, 0]);
}

#[test]
fn a_move_that_fails_in_the_charge_has_lost_its_target() {
    check_calls(
        "mmap(0x10000, 0x1000, PROT_READ|PROT_WRITE, {anon}) = 0x10000\n\
         mmap(0x20000, 0x4000, PROT_READ|PROT_WRITE, {anon}) = 0x20000\n\
         mremap(0x10000, 0x1000, 0x8000, MREMAP_MAYMOVE|MREMAP_FIXED, 0x20000) = -1 ENOMEM\n \
           00010000-00011000 rw-p 00000000 00:00 0 ",
        "10000-11000 rw-p\n",
    );
}

#[test]
fn dontunmap_leaves_a_husk_that_counts_as_mapped() {
    let story = check_calls(
        "mmap(0x10000, 0x2000, PROT_READ|PROT_WRITE, {anon}) = 0x10000\n\
         mremap(0x10000, 0x2000, 0x2000, MREMAP_MAYMOVE|MREMAP_DONTUNMAP, 0) = 0x40000\n \
           00010000-00012000 rw-p 00000000 00:00 0 \n \
           00040000-00042000 rw-p 00000000 00:00 0 ",
        "10000-12000 rw-p\n40000-42000 rw-p\n",
    );
    assert_eq!(pages(&story.flow), [0, 4, 0, 0, 0, 0]);
    assert_eq!(story.space.totals().charged_low.0, 0x4000);
}

#[test]
fn shrinking_and_growing_in_place_count_their_tails() {
    let story = check_calls(
        "mmap(0x10000, 0x8000, PROT_NONE, {anon}) = 0x10000\n\
         mremap(0x10000, 0x8000, 0x4000, 0) = 0x10000\n \
           00010000-00014000 ---p 00000000 00:00 0 \n\
         mremap(0x10000, 0x4000, 0x6000, 0) = 0x10000\n \
           00010000-00016000 ---p 00000000 00:00 0 ",
        "10000-16000 ---p\n",
    );
    assert_eq!(pages(&story.flow), [10, 0, 0, 0, 4, 0]);
}

#[test]
fn length_zero_shows_shared_memory_twice() {
    check_calls(
        "mmap(NULL, 0x2000, PROT_READ, MAP_SHARED|MAP_ANONYMOUS, -1, 0) = 0x10000\n \
           00010000-00012000 r--s 00000000 00:01 9 /dev/zero (deleted)\n\
         mremap(0x11000, 0, 0x1000, MREMAP_MAYMOVE) = 0x50000\n \
           00050000-00051000 r--s 00001000 00:01 9 /dev/zero (deleted)",
        "10000-12000 r--s 00000000 00:01 9 /dev/zero (deleted)\n\
         50000-51000 r--s 00001000 00:01 9 /dev/zero (deleted)\n",
    );
}

#[test]
fn the_break_grows_shrinks_and_is_returned_on_failure() {
    let story = check_calls(
        "brk(NULL) = 0x10000\n\
         brk(0x10005) = 0x10005\n\
         brk(0x13000) = 0x13000\n\
         mmap(0x11000, 0x1000, PROT_NONE, {anon}) = 0x11000\n\
         brk(0x900000000000) = 0x13000\n\
         brk(0x10800) = 0x10800\n\
         brk(0x12000) = 0x12000",
        "10000-12000 rw-p\n",
    );
    assert_eq!(story.last.brk, Some(Addr(0x12000)));
}

#[test]
fn a_break_that_moved_by_other_means_is_doubted() {
    let story = Story::default().run("brk(NULL) = 0x10000\nbrk(NULL) = 0x30000");
    assert!(story.last.recheck);
}

#[test]
fn a_result_over_a_mapping_that_should_be_there_is_doubted() {
    let story = Story::default().run(
        "mmap(NULL, 0x2000, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x10000\n\
         mmap(NULL, 0x2000, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x11000",
    );
    assert!(story.last.recheck);
}

#[test]
fn a_segment_goes_with_all_its_pieces() {
    check_calls(
        "shmat(7, NULL, 0) = 0x20000\n \
           00020000-00024000 rw-s 00000000 00:01 7 /SYSV00000000 (deleted)\n\
         shmat(7, NULL, 0) = 0x30000\n \
           00030000-00034000 rw-s 00000000 00:01 7 /SYSV00000000 (deleted)\n\
         munmap(0x21000, 0x1000) = 0\n\
         mprotect(0x23000, 0x1000, PROT_READ) = 0\n\
         shmdt(0x20000) = 0\n \
           00030000-00034000 rw-s 00000000 00:01 7 /SYSV00000000 (deleted)",
        "30000-34000 rw-s 00000000 00:01 7 /SYSV00000000 (deleted)\n",
    );
}

#[test]
fn huge_pages_round_lengths_as_the_answer_shows() {
    let story = check_calls(
        "mmap(NULL, 0x1000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB, -1, 0) = 0x200000\n \
           00200000-00400000 rw-p 00000000 00:0f 5 /anon_hugepage (deleted)\n\
         madvise(0x200000, 0x1000, MADV_DONTNEED) = 0",
        "200000-400000 rw-p 00000000 00:0f 5 /anon_hugepage (deleted)\n",
    );
    let totals = story.space.totals();
    assert_eq!((totals.parts.anon.0, totals.charged_high.0), (0x20_0000, 0));
    assert_eq!(story.flow.discard.0, 0);
}

#[test]
fn protection_of_a_stack_reaches_down_to_its_start() {
    let story = Story::from_maps("00010000-00014000 rw-p 00000000 00:00 0 [stack]\n").run(
        "mprotect(0x12000, 0x1000, PROT_READ|PROT_GROWSDOWN) = 0\n \
           0000e000-00013000 r--p 00000000 00:00 0 \n \
           00013000-00014000 rw-p 00000000 00:00 0 ",
    );
    assert_eq!(story.maps(), "e000-13000 r--p\n13000-14000 rw-p\n");
    assert_eq!(pages(&story.flow), [0; 6]);
}
