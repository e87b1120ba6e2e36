use super::*;
use crate::abi::Abi;
use crate::mm::parse_maps;
use crate::units::PAGE;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const NO_ERROR: i64 = 0;

/// Two mappings, a hole, a third one.
const MAPS: &str = "\
200000000000-200000002000 rw-p 00000000 00:00 0
200000002000-200000004000 r--p 00000000 00:00 0
200000008000-200000009000 ---p 00000000 00:00 0
";

fn bytes(bytes: u64) -> Option<Bound> {
    Some(Bound::Bytes(Bytes(bytes)))
}

/// A task without limits on a machine of 16 GiB.
fn roomy() -> Figures {
    Figures {
        limit_as: Some(Bound::Unlimited),
        limit_data: Some(Bound::Unlimited),
        limit_data_hard: Some(Bound::Unlimited),
        limit_memlock: Some(Bound::Unlimited),
        mapped: Some(Bytes(100 * MIB)),
        data: Some(Bytes(20 * MIB)),
        locked: Some(Bytes(0)),
        map_count: Some(30),
        max_map_count: Some(65530),
        overcommit: Some(0),
        memory: Some(Bytes(15 * GIB)),
        swap: Some(Bytes(GIB)),
        commit_limit: Some(Bytes(8 * GIB)),
        committed: Some(Bytes(6 * GIB)),
        admin_reserve: Some(Bytes(8 * MIB)),
        user_reserve: Some(Bytes(128 * MIB)),
        capabilities: Some(0),
        static_data: Some(Bytes(MIB)),
        min_addr: Some(65536),
        beside: Some(0),
        ..Figures::default()
    }
}

fn call(nr: u32, args: [u64; 6]) -> RawCall {
    let abi = Abi::X86_64;
    RawCall { abi, nr, args }
}

fn why(nr: u32, args: [u64; 6], result: i64, figures: Figures) -> Option<Failure> {
    let snapshot = parse_maps(MAPS.as_bytes()).expect("maps");
    let model = AddressSpace::from_snapshot(&snapshot);
    let around = Surroundings {
        model: Some(&model),
        brk_start: Some(Addr(0x1000_0000)),
        read_implies_exec: false,
    };
    Failure::of(&call(nr, args), &[], result, figures, around)
}

#[track_caller]
fn proven(nr: u32, args: [u64; 6], result: i64, figures: Figures, what: Limiter, over: u64) {
    let failure = why(nr, args, result, figures).expect("it was refused");
    let [cause] = failure.causes.as_slice() else {
        panic!("{failure:?}");
    };
    assert!(failure.proven, "{failure:?}");
    assert_eq!(cause.what, what);
    assert_eq!(cause.amounts.map_or(0, |amounts| amounts.over()), over);
}

#[track_caller]
fn candidates(nr: u32, args: [u64; 6], result: i64, figures: Figures, expected: &[Limiter]) {
    let failure = why(nr, args, result, figures).expect("it was refused");
    assert!(!failure.proven, "{failure:?}");
    let found: Vec<Limiter> = failure.causes.iter().map(|cause| cause.what).collect();
    assert_eq!(found, expected);
}

const RW: u64 = 3;
const ANON: u64 = 0x22;
const NOBODY: u64 = u64::MAX;
const NO_MEMORY: i64 = -12;
const AGAIN: i64 = -11;
const NOT_PERMITTED: i64 = -1;

fn mmap(len: u64, prot: u64, flags: u64) -> [u64; 6] {
    [0, len, prot, flags, NOBODY, 0]
}

#[test]
fn the_address_space_limit_counts_whole_pages_and_stops_one_too_many() {
    let limit = 100 * MIB + 10 * PAGE + 4095;
    let figures = Figures {
        limit_as: bytes(limit),
        ..roomy()
    };
    proven(
        9,
        mmap(11 * PAGE, 0, ANON),
        NO_MEMORY,
        figures,
        Limiter::AddressSpace,
        PAGE,
    );
    // Ten more would have fit: it was something else.
    candidates(
        9,
        mmap(10 * PAGE, 0, ANON),
        NO_MEMORY,
        figures,
        &[Limiter::KernelMemory],
    );
}

#[test]
fn what_a_fixed_mapping_replaces_is_not_added() {
    let figures = Figures {
        limit_as: bytes(100 * MIB),
        ..roomy()
    };
    let fixed = |pages: u64| [0x2000_0000_0000, pages * PAGE, 0, ANON | 0x10, NOBODY, 0];
    candidates(9, fixed(4), NO_MEMORY, figures, &[Limiter::KernelMemory]);
    proven(9, fixed(5), NO_MEMORY, figures, Limiter::AddressSpace, PAGE);
}

#[test]
fn data_is_private_and_writable_and_no_stack() {
    let figures = Figures {
        limit_data: bytes(20 * MIB),
        ..roomy()
    };
    proven(
        9,
        mmap(PAGE, RW, ANON),
        NO_MEMORY,
        figures,
        Limiter::Data,
        PAGE,
    );
    for (prot, flags) in [(1, ANON), (RW, 0x21), (RW, ANON | 0x100)] {
        let rest = &[Limiter::KernelMemory];
        candidates(9, mmap(PAGE, prot, flags), NO_MEMORY, figures, rest);
    }
    // The workaround for Valgrind: of a soft limit of 0, the hard one counts.
    let valgrind = Figures {
        limit_data: bytes(0),
        limit_data_hard: bytes(21 * MIB),
        ..roomy()
    };
    candidates(
        9,
        mmap(MIB, RW, ANON),
        NO_MEMORY,
        valgrind,
        &[Limiter::KernelMemory],
    );
    proven(
        9,
        mmap(2 * MIB, RW, ANON),
        NO_MEMORY,
        valgrind,
        Limiter::Data,
        MIB,
    );
}

#[test]
fn mprotect_makes_data_of_what_was_none() {
    let figures = Figures {
        limit_data: bytes(20 * MIB),
        ..roomy()
    };
    let mprotect = |start: u64, pages: u64| [start, pages * PAGE, RW, 0, 0, 0];
    // The first two pages are data already; the two behind them are what is refused.
    let args = mprotect(0x2000_0000_0000, 4);
    proven(10, args, NO_MEMORY, figures, Limiter::Data, 2 * PAGE);
    let args = mprotect(0x2000_0000_0000, 2);
    candidates(10, args, NO_MEMORY, figures, &[Limiter::KernelMemory]);
}

#[test]
fn the_first_hole_in_a_range_is_named() {
    let hole = Limiter::NotMapped(Addr(0x2000_0000_4000));
    let range = |third| [0x2000_0000_0000, 6 * PAGE, third, 0, 0, 0];
    // madvise, mlock, mseal
    for nr in [28, 149, 462] {
        let figures = Figures {
            locked_in_range: Some(Bytes(0)),
            ..roomy()
        };
        proven(nr, range(4), NO_MEMORY, figures, hole, 0);
    }
    // mprotect stops at the first that is refused: here rights that are there already.
    let args = [0x2000_0000_2000, 6 * PAGE, 1, 0, 0, 0];
    proven(10, args, NO_MEMORY, roomy(), hole, 0);
}

#[test]
fn overcommit_of_mode_0_refuses_only_what_is_more_than_everything() {
    let asked = 17 * GIB;
    proven(
        9,
        mmap(asked, RW, ANON),
        NO_MEMORY,
        roomy(),
        Limiter::Overcommit,
        GIB,
    );
    proven(
        9,
        mmap(asked, RW, 0x21),
        NO_MEMORY,
        roomy(),
        Limiter::Overcommit,
        GIB,
    );
    let rest = &[Limiter::KernelMemory];
    candidates(9, mmap(16 * GIB, RW, ANON), NO_MEMORY, roomy(), rest);
    // Not charged: no access, read only, MAP_NORESERVE.
    candidates(9, mmap(asked, 0, ANON), NO_MEMORY, roomy(), rest);
    candidates(9, mmap(asked, 1, ANON), NO_MEMORY, roomy(), rest);
    candidates(9, mmap(asked, RW, ANON | 0x4000), NO_MEMORY, roomy(), rest);
}

#[test]
fn overcommit_of_mode_2_keeps_the_reserves_free_and_ignores_noreserve() {
    let strict = Figures {
        overcommit: Some(2),
        ..roomy()
    };
    // 8 GiB, less 8 MiB for administrators, less a 32nd of 100 MiB.
    let allowed = 2 * GIB - 8 * MIB - 100 * MIB / 32;
    let noreserve = mmap(allowed, RW, ANON | 0x4000);
    proven(9, noreserve, NO_MEMORY, strict, Limiter::CommitLimit, PAGE);
    let less = mmap(allowed - PAGE, RW, ANON);
    candidates(9, less, NO_MEMORY, strict, &[Limiter::KernelMemory]);
    let unknown = Figures {
        committed: None,
        ..strict
    };
    let expected = &[Limiter::CommitLimit, Limiter::KernelMemory];
    candidates(9, less, NO_MEMORY, unknown, expected);
}

#[test]
fn the_count_of_mappings_is_checked_with_one_to_spare_by_mmap_and_to_the_point_by_a_split() {
    let with = |count| Figures {
        map_count: Some(count),
        ..roomy()
    };
    let args = mmap(PAGE, 0, ANON);
    proven(9, args, NO_MEMORY, with(65531), Limiter::MapCount, 1);
    candidates(9, args, NO_MEMORY, with(65530), &[Limiter::KernelMemory]);
    let unmap = [0x2000_0000_1000, PAGE, 0, 0, 0, 0];
    proven(11, unmap, NO_MEMORY, with(65530), Limiter::MapCount, 1);
    // madvise says EAGAIN then.
    proven(
        28,
        [0x2000_0000_0000, PAGE, 14, 0, 0, 0],
        AGAIN,
        with(65530),
        Limiter::MapCount,
        1,
    );
}

#[test]
fn locking_counts_what_is_locked_already_once() {
    let figures = Figures {
        limit_memlock: bytes(8 * PAGE),
        locked: Some(Bytes(8 * PAGE)),
        locked_in_range: Some(Bytes(PAGE)),
        ..roomy()
    };
    // One byte into a page and out of it: two pages.
    let args = [0x2000_0000_0fff, 2, 0, 0, 0, 0];
    proven(149, args, NO_MEMORY, figures, Limiter::Locked, PAGE);
    let privileged = Figures {
        capabilities: Some(1 << 14),
        ..figures
    };
    let rest = &[Limiter::Pages, Limiter::KernelMemory];
    candidates(149, args, NO_MEMORY, privileged, rest);
    // mmap of what is to be locked: EAGAIN.
    proven(
        9,
        mmap(PAGE, RW, ANON | 0x2000),
        AGAIN,
        figures,
        Limiter::Locked,
        PAGE,
    );
    let none = Figures {
        limit_memlock: bytes(0),
        ..figures
    };
    proven(149, args, NOT_PERMITTED, none, Limiter::Locked, 0);
    // mlockall(MCL_CURRENT): all that is mapped counts.
    proven(
        151,
        [1, 0, 0, 0, 0, 0],
        NO_MEMORY,
        figures,
        Limiter::Locked,
        100 * MIB - 8 * PAGE,
    );
}

#[test]
fn a_break_is_bounded_by_data_and_by_what_lies_above() {
    let start = 0x1000_0000;
    let brk = |to: u64| [to, 0, 0, 0, 0, 0];
    let figures = Figures {
        limit_data: bytes(4 * MIB),
        data: Some(Bytes(0)),
        ..roomy()
    };
    // One MiB of static data, three of heap.
    let now = (start + MIB) as i64;
    proven(12, brk(start + 3 * MIB + 1), now, figures, Limiter::Data, 1);
    assert_eq!(why(12, brk(0), now, figures), None, "asking is no request");
    assert_eq!(
        why(12, brk(start - 1), now, figures),
        None,
        "below the heap"
    );
    assert_eq!(why(12, brk(start + MIB), now, figures), None, "it moved");
    let (below, above) = (0x1fff_ffff_0000, Addr(0x2000_0000_0000));
    let to = brk(above.0);
    proven(12, to, below, roomy(), Limiter::InTheWay(above), 0);
}

#[test]
fn no_gap_is_as_long_or_what_comes_next_is_in_the_way() {
    let asked = 1 << 50;
    let gap = (1 << 47) - PAGE - 0x2000_0000_9000;
    proven(
        9,
        mmap(asked, 0, ANON),
        NO_MEMORY,
        roomy(),
        Limiter::NoRoom,
        asked - gap,
    );
    let low = mmap(GIB + PAGE, 0, ANON | 0x40);
    proven(9, low, NO_MEMORY, roomy(), Limiter::NoRoom, PAGE);
    let mremap = |flags| [0x2000_0000_2000, 2 * PAGE, 7 * PAGE, flags, 0, 0];
    let way = Limiter::InTheWay(Addr(0x2000_0000_8000));
    proven(25, mremap(0), NO_MEMORY, roomy(), way, 0);
    candidates(25, mremap(1), NO_MEMORY, roomy(), &[Limiter::KernelMemory]);
}

#[test]
fn an_earlier_check_that_cannot_be_made_leaves_candidates() {
    let figures = Figures {
        mapped: None,
        limit_as: bytes(GIB),
        ..roomy()
    };
    let expected = &[Limiter::AddressSpace, Limiter::Overcommit];
    candidates(9, mmap(17 * GIB, RW, ANON), NO_MEMORY, figures, expected);
    // Another call ran at the same time.
    let raced = Figures {
        beside: Some(1),
        ..roomy()
    };
    let args = mmap(17 * GIB, RW, ANON);
    candidates(9, args, NO_MEMORY, raced, &[Limiter::Overcommit]);
}

#[test]
fn other_calls_and_other_errors_are_not_explained() {
    for (nr, result) in [(9, -22), (9, NO_ERROR), (0, NO_MEMORY), (26, NO_MEMORY)] {
        assert_eq!(why(nr, [0; 6], result, roomy()), None, "{nr} {result}");
    }
}

#[test]
fn figures_come_back_from_their_numbers() {
    let figures = roomy();
    let numbers = figures.numbers().map(|(_, number)| number);
    assert_eq!(Figures::of_numbers(numbers), figures);
}

proptest! {
    #[test]
    fn whatever_was_refused_has_causes(
        nr in prop::sample::select(vec![9u32, 10, 11, 12, 25, 28, 30, 149, 150, 151, 325, 329, 453, 462]),
        args in prop::array::uniform6(prop_oneof![
            any::<u64>(),
            0..40u64,
            (0..16u64).prop_map(|page| 0x2000_0000_0000 + page * PAGE),
        ]),
        result in prop::sample::select(vec![-1i64, -11, -12, 0x1000_0000]),
        numbers in prop::collection::vec(prop::option::of(any::<u64>()), Figures::COUNT),
    ) {
        let numbers = numbers.try_into().expect("as many as there are");
        let figures = Figures::of_numbers(numbers);
        if let Some(failure) = why(nr, args, result, figures) {
            prop_assert!(!failure.causes.is_empty());
            prop_assert!(!failure.proven || failure.causes.len() == 1);
        }
    }
}
