//! Reports of stories made by hand.

mod model;
pub(crate) mod story;

use crate::abi::MapFlags;
use crate::mm::Verb;
use crate::timeline::{
    Began, CheckCause, Ended, EventKind, Observation, Observed, Resident, TaskEnd, TaskOrigin,
};
use crate::trace_file::{TraceReader, TraceWriter};
use crate::units::{Bytes, SpaceId, Timestamp};

use super::{Place, PlaceBytes, SpaceReport, json, replay};
use story::{Story, range};

const PAGE: u64 = 4096;
const A: u64 = 0x7f00_0000_0000;

fn only(story: &Story) -> SpaceReport {
    let mut report = story.report();
    assert_eq!(report.spaces.len(), 1);
    report.spaces.remove(0)
}

fn sums_hold(space: &SpaceReport) {
    let sum = |places: &[PlaceBytes]| {
        let sum = |amount: fn(&PlaceBytes) -> Bytes| places.iter().map(amount).sum::<Bytes>();
        (sum(|place| place.reserved), sum(|place| place.committed))
    };
    assert_eq!(space.mapped.end, space.reserved.end + space.committed.end);
    let parts = space.parts;
    assert_eq!(
        space.committed.end,
        parts.anon + parts.file + parts.shmem + parts.special
    );
    for figure in [&space.mapped, &space.reserved, &space.committed] {
        assert!(
            figure.begin <= figure.peak && figure.end <= figure.peak,
            "{figure:?}"
        );
    }
    let detail = space.detail.as_ref().expect("few spaces");
    assert_eq!(sum(&detail.end), (space.reserved.end, space.committed.end));
    let (reserved, committed) = sum(&detail.mapped_peak);
    assert_eq!(reserved + committed, space.mapped.peak);
    assert_eq!(sum(&detail.committed_peak).1, space.committed.peak);
}

#[test]
fn a_peak_names_its_time_and_the_event_that_made_it() {
    let mut story = Story::of_a_program(0);
    story.call(1, "mmap", &[(Verb::Reserve, range(A, 100))]);
    story.call(1, "mprotect", &[(Verb::Commit, range(A, 10))]);
    story.call(
        1,
        "munmap",
        &[
            (Verb::ReleaseCommitted, range(A, 10)),
            (Verb::ReleaseReserved, range(A + 10 * PAGE, 20)),
        ],
    );
    story.call(1, "mmap", &[(Verb::Map, range(A, 30))]);
    story.exit(1, 100, 3);
    let space = only(&story);
    sums_hold(&space);
    assert_eq!(
        (space.mapped.peak.0, space.mapped.end.0),
        (100 * PAGE, 100 * PAGE)
    );
    let first = &story.events[2];
    assert_eq!(
        (space.mapped.peak_time, space.mapped.peak_by.seq),
        (first.time, first.seq),
        "the first of equals"
    );
    assert_eq!(space.mapped.peak_by.call().as_deref(), Some("mmap"));
    assert_eq!(space.reserved.peak.0, 100 * PAGE);
    assert_eq!(space.reserved.end.0, 70 * PAGE);
    assert_eq!(
        (space.committed.peak.0, space.committed.peak_by.seq),
        (30 * PAGE, story.events[5].seq)
    );
    assert_eq!(space.ended, Ended::Exit);
    assert_eq!(space.status, Some(TaskEnd::Exited(3)));
    assert_eq!(space.flow.reserve.0, 100 * PAGE);
    assert_eq!(space.flow.commit.0, 10 * PAGE);
    assert_eq!(space.flow.release.0, 30 * PAGE);
    assert_eq!(space.flow.map.0, 30 * PAGE);
}

#[test]
fn calls_count_failures_and_each_byte_once() {
    let mut story = Story::of_a_program(0);
    story.call(1, "mmap", &[(Verb::Map, range(A, 4))]);
    // MAP_FIXED over half of it.
    story.call(
        1,
        "mmap",
        &[
            (Verb::ReleaseCommitted, range(A, 2)),
            (Verb::Map, range(A, 2)),
        ],
    );
    story.call_with(1, "mmap", MapFlags::empty(), &[], Some(-12));
    story.call(1, "madvise", &[(Verb::Discard, range(A, 4))]);
    story.call_with(
        1,
        "munmap",
        MapFlags::empty(),
        &[(Verb::ReleaseCommitted, range(A, 1))],
        None,
    );
    story.call_with(1, "munmap", MapFlags::empty(), &[], None);
    let space = only(&story);
    let count = |name| space.calls.get(name).copied().unwrap_or_default();
    let mmap = count("mmap");
    assert_eq!((mmap.count, mmap.failed, mmap.bytes.0), (3, 1, 6 * PAGE));
    assert_eq!(
        (count("madvise").count, count("madvise").bytes.0),
        (1, 4 * PAGE)
    );
    let munmap = count("munmap");
    assert_eq!((munmap.count, munmap.cut, munmap.bytes.0), (1, 1, PAGE));
    assert_eq!(space.flow.discard.0, 4 * PAGE);
    assert_eq!(space.ended, Ended::Cut);
    assert_eq!(
        space.until,
        story.events.last().expect("there are some").time
    );
}

#[test]
fn a_reservation_keeps_what_was_ever_committed_until_its_last_byte_is_gone() {
    let mut story = Story::of_a_program(0);
    story.call(1, "mmap", &[(Verb::Reserve, range(A, 1000))]);
    story.call(1, "mprotect", &[(Verb::Commit, range(A + 10 * PAGE, 10))]);
    story.call(1, "mprotect", &[(Verb::Decommit, range(A + 10 * PAGE, 5))]);
    story.call(1, "mprotect", &[(Verb::Commit, range(A + 8 * PAGE, 4))]);
    story.call(1, "mmap", &[(Verb::Reserve, range(A + 1000 * PAGE, 50))]);
    story.call(
        1,
        "munmap",
        &[(Verb::ReleaseReserved, range(A + 1000 * PAGE, 50))],
    );
    story.call(
        1,
        "munmap",
        &[(Verb::ReleaseReserved, range(A + 500 * PAGE, 500))],
    );
    let space = only(&story);
    sums_hold(&space);
    let reservations = space.detail.expect("few spaces").reservations;
    assert_eq!((reservations.count, reservations.bytes.0), (2, 1050 * PAGE));
    assert_eq!(reservations.ever_committed.0, 12 * PAGE);
    let [large, small] = &reservations.largest[..] else {
        panic!("{reservations:?}")
    };
    assert_eq!(large.range, range(A, 1000));
    assert_eq!(large.by.seq, story.events[2].seq);
    assert_eq!(
        (large.ever_committed.0, large.committed.0, large.mapped.0),
        (12 * PAGE, 9 * PAGE, 500 * PAGE)
    );
    assert_eq!(large.released, None);
    assert_eq!(
        (small.ever_committed.0, small.released),
        (0, Some(story.events[7].time))
    );
}

#[test]
fn a_moved_reservation_stays_the_same_one() {
    let mut story = Story::of_a_program(0);
    let there = A + 10_000 * PAGE;
    story.call(1, "mmap", &[(Verb::Reserve, range(A, 20))]);
    story.call(1, "mprotect", &[(Verb::Commit, range(A, 5))]);
    story.call(
        1,
        "mremap",
        &[
            (Verb::MovedFrom, range(A, 20)),
            (Verb::MovedTo, range(there, 20)),
        ],
    );
    story.call(1, "mprotect", &[(Verb::Commit, range(there + 5 * PAGE, 3))]);
    story.call(
        1,
        "munmap",
        &[
            (Verb::ReleaseCommitted, range(there, 8)),
            (Verb::ReleaseReserved, range(there + 8 * PAGE, 12)),
        ],
    );
    let space = only(&story);
    sums_hold(&space);
    let reservations = space.detail.expect("few spaces").reservations;
    assert_eq!(reservations.count, 1);
    assert_eq!(reservations.largest[0].ever_committed.0, 8 * PAGE);
    assert_eq!(reservations.largest[0].released, Some(story.events[6].time));
}

#[test]
fn places_tell_the_heap_and_thread_stacks_from_other_memory() {
    let mut story = Story::of_a_program(0);
    story.call(1, "brk", &[(Verb::Map, range(0x5555_0000_0000, 33))]);
    story.call_with(
        1,
        "mmap",
        MapFlags::STACK,
        &[(Verb::Reserve, range(A, 2049))],
        Some(A.cast_signed()),
    );
    story.call(1, "mprotect", &[(Verb::Commit, range(A + PAGE, 2048))]);
    story.call(1, "mmap", &[(Verb::Map, range(A + 9000 * PAGE, 7))]);
    story.call(
        1,
        "munmap",
        &[(Verb::ReleaseCommitted, range(A + 9000 * PAGE, 6))],
    );
    let space = only(&story);
    sums_hold(&space);
    let detail = space.detail.expect("few spaces");
    let place = |place, reserved, committed| PlaceBytes {
        place,
        reserved: Bytes(reserved * PAGE),
        committed: Bytes(committed * PAGE),
    };
    assert_eq!(
        detail.end,
        [
            place(Place::ThreadStack, 1, 2048),
            place(Place::Heap, 0, 33),
            place(Place::Anon, 0, 1)
        ]
    );
    assert_eq!(detail.committed_peak[2], place(Place::Anon, 0, 7));
}

#[test]
fn charged_is_exact_only_while_nothing_changed_since_smaps_was_read() {
    let story = |after: bool| {
        let mut story = Story::of_a_program(10);
        story.checked(1, CheckCause::Exit, 0, Some(Bytes(7 * PAGE)));
        if after {
            story.call(1, "mmap", &[(Verb::Map, range(A, 1))]);
        }
        only(&story).charged
    };
    let exact = story(false);
    assert_eq!(
        (exact.end.0, exact.exact, exact.at_least.0),
        (7 * PAGE, true, 7 * PAGE)
    );
    assert_eq!(exact.peak.peak.0, 10 * PAGE);
    let bound = story(true);
    assert_eq!((bound.end.0, bound.exact), (11 * PAGE, false));
}

#[test]
fn the_kernels_own_peak_is_a_check_of_ours_and_tells_what_was_resident() {
    let with = |mapped: u64| {
        let mut story = Story::of_a_program(10);
        story.high_water(1, mapped, 4 * PAGE);
        story.exit(1, 100, 0);
        only(&story)
    };
    let space = with(10 * PAGE);
    assert_eq!(space.peak_agrees(), Some(true));
    let resident = space.resident.expect("the kernel knows");
    assert_eq!(
        (resident.peak.0, resident.peak_exact, resident.last()),
        (4 * PAGE, true, None),
        "what was resident at its end nobody has seen"
    );
    let space = with(12 * PAGE);
    assert_eq!(space.peak_agrees(), Some(false));
    assert_eq!(space.peak_differs_by().0, 2 * PAGE);
    assert_eq!(space.mapped.peak.0, 10 * PAGE, "ours stays as it is");
    let attached = SpaceReport {
        began: Began::Attach,
        ..space
    };
    assert_eq!(
        attached.peak_agrees(),
        None,
        "it may have been larger before"
    );
}

#[test]
fn resident_says_when_it_was_measured() {
    let mut story = Story::of_a_program(10);
    story.resident(
        1,
        Resident {
            now: Bytes(5 * PAGE),
            ..Resident::default()
        },
    );
    let space = only(&story);
    let resident = space.resident.expect("it was measured");
    assert_eq!(
        (resident.end.0, resident.parts, resident.peak_exact),
        (5 * PAGE, None, false)
    );
    story.resident(
        1,
        Resident {
            now: Bytes(3 * PAGE),
            anon: Some(Bytes(PAGE)),
            file: Some(Bytes(2 * PAGE)),
            shmem: Some(Bytes(0)),
            high_water: Some(Bytes(6 * PAGE)),
            mapped: None,
            swap: None,
        },
    );
    let resident = only(&story).resident.expect("it was measured");
    assert_eq!(
        (resident.end.0, resident.peak.0, resident.peak_exact),
        (3 * PAGE, 6 * PAGE, true)
    );
    assert_eq!(resident.measured, story.events[3].time);
    assert_eq!(resident.parts.map(|parts| parts.anon.0), Some(PAGE));
}

#[test]
fn the_tree_sums_what_lives_at_the_same_instant() {
    let mut story = Story::of_a_program(100);
    story.space(
        2,
        200,
        Began::Fork {
            parent: Some(SpaceId(1)),
        },
        100,
    );
    story.task(2, 200, 200, TaskOrigin::Fork);
    story.call(2, "mmap", &[(Verb::Map, range(A, 11))]);
    let peak = story.events.last().expect("there are some").clone();
    story.exit(2, 200, 0);
    story.end(1, Ended::Exec);
    story.space(3, 100, Began::Exec, 150);
    story.exit(3, 100, 0);
    let report = story.report();
    let mapped = report.tree.mapped;
    assert_eq!(
        (mapped.peak, mapped.peak_time, mapped.peak_space),
        (211 * PAGE, peak.time, SpaceId(2))
    );
    assert_eq!(mapped.end, (100 + 111 + 150) * PAGE);
    assert_eq!(report.tree.most_spaces, 2);
    let status = |i: usize| report.spaces[i].status;
    assert_eq!(status(0), None);
    assert_eq!(
        (status(1), status(2)),
        (Some(TaskEnd::Exited(0)), Some(TaskEnd::Exited(0)))
    );
    assert_eq!(report.events, story.events.len() as u64);
}

#[test]
fn a_vfork_child_does_not_end_its_parents_process() {
    let mut story = Story::of_a_program(1);
    story.task(1, 200, 200, TaskOrigin::Vfork);
    story.push(1, 200, EventKind::TaskEnded(TaskEnd::Exited(127)));
    story.task(1, 101, 100, TaskOrigin::Thread);
    story.exit(1, 100, 0);
    let space = only(&story);
    assert_eq!(space.status, Some(TaskEnd::Exited(0)));
    assert_eq!((space.tasks.total, space.tasks.peak), (3, 2));
}

#[test]
fn memory_is_kept_for_what_lives_only() {
    let mut story = Story::of_a_program(0);
    for i in 0..2000 {
        let here = range(A, 1 + i % 50);
        story.call(1, "mmap", &[(Verb::Reserve, here)]);
        story.call(1, "munmap", &[(Verb::ReleaseReserved, here)]);
    }
    let space = only(&story);
    let reservations = space.detail.expect("few spaces").reservations;
    assert_eq!(reservations.count, 2000);
    assert_eq!(reservations.largest.len(), 32);
    assert!(
        reservations
            .largest
            .iter()
            .all(|one| one.bytes.0 == 50 * PAGE)
    );
}

#[test]
fn the_json_report_has_the_keys_of_the_contract_in_its_order() {
    let mut story = Story::of_a_program(5);
    story.call(1, "mmap", &[(Verb::Reserve, range(A, 100))]);
    story.checked(1, CheckCause::Exit, 0, None);
    story.exit(1, 100, 0);
    let value = json::report(&story.report());
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value
            .as_object()
            .map(|object| object.keys().cloned().collect())
            .unwrap_or_default()
    };
    let begins = |value: &serde_json::Value, expected: &str| {
        let expected: Vec<&str> = expected.split(' ').collect();
        assert_eq!(keys(value)[..expected.len()], expected);
    };
    begins(
        &value,
        "schema command backend started host events lost spaces",
    );
    begins(&value["host"], "kernel arch page_size");
    let space = &value["spaces"][0];
    begins(
        space,
        "id pid exe began ended mapped reserved committed charged resident mappings calls flow verify",
    );
    begins(&space["mapped"], "end peak peak_time");
    begins(&space["committed"], "end peak peak_time");
    begins(&space["committed"]["parts"], "anon file shmem special");
    begins(&space["charged"], "end exact peak peak_time");
    begins(&space["resident"], "end peak anon file shmem measured");
    begins(&space["mappings"], "end peak");
    begins(&space["calls"]["mmap"], "count failed bytes");
    begins(
        &space["flow"],
        "reserve map commit decommit release discard",
    );
    begins(&space["verify"], "checks drift resynced grown differences");
    assert_eq!(value["schema"], "memtrace.report/1");
    assert_eq!(space["mapped"]["end"], 105 * PAGE);
    assert_eq!(space["committed"]["noreserve"], 0);
    assert_eq!(space["reserved"]["peak_event"]["call"], "mmap");
    assert_eq!(
        space["reservations"]["largest"][0]["start"],
        "0x7f0000000000"
    );
    assert_eq!(space["ended"], "exit");
}

#[test]
fn no_name_can_send_control_sequences_through_json() {
    let value = serde_json::json!({"exe": "\u{1b}[2J\u{9b}31m\u{7f}\u{202e}ä"});
    let text = json::text(&value);
    assert_eq!(text, r#"{"exe":"\u001b[2J\u009b31m\u007f\u202eä"}"#);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).ok(),
        Some(value)
    );
}

#[test]
fn the_report_of_a_torn_trace_says_what_is_missing() {
    let mut writer = TraceWriter::new(Vec::new(), &story::info()).expect("a Vec takes all");
    for second in 1..=3u64 {
        let time = Timestamp(second * 1_000_000_000);
        let what = Observed::Lost(second);
        writer
            .observation(&Observation { time, what })
            .expect("a Vec takes all");
        writer.flush().expect("a Vec takes all");
    }
    let mut trace = writer.finish().expect("a Vec takes all");
    let whole = replay(&mut TraceReader::new(trace.as_slice()).expect("a trace"));
    assert_eq!(whole.expect("memory can be read").damage, None);
    trace.truncate(trace.len() - 50);
    let report = replay(&mut TraceReader::new(trace.as_slice()).expect("a trace"));
    let report = report.expect("memory can be read");
    assert_eq!(report.info, story::info());
    let damage = report.damage.expect("it is torn");
    assert_eq!(damage.after, Timestamp(2_000_000_000));
    let note = &report.notes.last().expect("it is said").text;
    assert!(
        note.starts_with("the trace is incomplete: it stops inside a block at byte "),
        "{note}"
    );
    assert!(note.contains("read up to 2.000 s"), "{note}");
}
