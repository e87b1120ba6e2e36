//! What lines of JSON tell can be read again; what is no such line does no harm.

use std::sync::LazyLock;

use proptest::prelude::*;

use crate::timeline::{HeldNames, Observation, Observed, Sink, Timeline};
use crate::trace_file::jsonl::JsonlReader;
use crate::trace_file::tests::{any, info};
use crate::trace_file::{Damage, DamageReason, OpenError, Source};
use crate::units::Timestamp;

use super::{JsonLines, StackLines};

fn write(observations: &[Observation]) -> Vec<u8> {
    let mut out = Vec::new();
    let stacks = StackLines::new(Box::new(HeldNames));
    let mut sink = JsonLines::new(&mut out, &info()).with_stacks(stacks);
    let mut timeline = Timeline::new(info());
    let mut events = Vec::new();
    for observation in observations {
        sink.observation(observation).expect("a Vec takes all");
        timeline.observe(observation.clone(), &mut events);
        for event in events.drain(..) {
            sink.event(&event, &timeline).expect("a Vec takes all");
        }
    }
    sink.finish(&timeline).expect("a Vec takes all");
    out
}

fn read_all(mut reader: JsonlReader<&[u8]>) -> (Vec<Observation>, Option<Damage>) {
    let mut all = Vec::new();
    while let Some(observation) = reader.next().expect("memory can be read") {
        all.push(observation);
    }
    (all, reader.damage().copied())
}

fn read(lines: &[u8]) -> (Vec<Observation>, Option<Damage>) {
    read_all(JsonlReader::new(lines).expect("the header is sound"))
}

/// Some of every kind, the same ones each time.
static SOME: LazyLock<Vec<Observation>> = LazyLock::new(|| {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(any::observation(), 40..41);
    let tree = strategy.new_tree(&mut runner).expect("it makes values");
    tree.current()
});

/// The lines of those.
static LINES: LazyLock<Vec<u8>> = LazyLock::new(|| write(&SOME));

/// Where each line begins, and the end.
fn begins(lines: &[u8]) -> Vec<usize> {
    let ends = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    std::iter::once(0)
        .chain(ends.map(|(at, _)| at + 1))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_observation_comes_back(observations in prop::collection::vec(any::observation(), 0..60)) {
        let lines = write(&observations);
        prop_assert_eq!(read(&lines), (observations, None));
    }

    #[test]
    fn made_up_lines_do_no_harm(
        texts in prop::collection::vec("[{}\\[\\]:,\"a-z0-9\\n]{0,40}", 0..8),
        at in 0usize..40,
    ) {
        let whole = LINES.clone();
        let begins = begins(&whole);
        let begin = begins[(at + 1).min(begins.len() - 1)];
        let mut lines = whole[..begin].to_vec();
        lines.extend_from_slice(texts.join("\n").as_bytes());
        lines.extend_from_slice(&whole[begin..]);
        let (all, damage) = read(&lines);
        prop_assert!(all.len() <= SOME.len());
        prop_assert_eq!(&all[..], &SOME[..all.len()]);
        prop_assert!(damage.is_some() || all == *SOME);
    }

    #[test]
    fn a_flipped_bit_does_no_harm(at: prop::sample::Index, bit in 0..8u32) {
        let mut lines = LINES.clone();
        let at = at.index(lines.len());
        lines[at] ^= 1u8 << bit;
        if let Ok(mut reader) = JsonlReader::new(lines.as_slice()) {
            let report = crate::report::replay(&mut reader).expect("memory can be read");
            prop_assert!(report.events <= SOME.len() as u64 * 2);
        }
    }
}

#[test]
fn the_header_comes_back() {
    let lines = write(&[]);
    let reader = JsonlReader::new(lines.as_slice()).expect("the header is sound");
    assert_eq!(*reader.info(), info());
}

#[test]
fn lines_cut_anywhere_give_all_whole_lines_before_the_cut() {
    let some = &*SOME;
    let lines = LINES.clone();
    let begins = begins(&lines);
    let of_end = begins[begins.len() - 3];
    let around = |begin: &usize| [*begin - 1, *begin, *begin + 1, *begin + 100];
    let cuts = begins.iter().skip(1).flat_map(around);
    for cut in cuts.filter(|cut| begins[1] <= *cut && *cut < lines.len()) {
        let (all, damage) = read(&lines[..cut]);
        let whole = begins.partition_point(|begin| *begin <= cut) - 1;
        let with_raw = lines[..begins[whole]]
            .split(|byte| *byte == b'\n')
            .filter(|line| String::from_utf8_lossy(line).contains(",\"raw\":{"));
        assert_eq!(all, some[..with_raw.count()], "cut at {cut}");
        match damage {
            Some(damage) => {
                assert_eq!(damage.offset, begins[whole] as u64, "cut at {cut}");
                assert_eq!(damage.offset + damage.missing, cut as u64, "cut at {cut}");
            }
            // What follows the end line is the report, which can be made again.
            None => assert!(of_end < begins[whole], "cut at {cut}"),
        }
    }
}

#[test]
fn a_line_that_is_missing_is_noticed_whichever_it_is() {
    let some = &*SOME;
    let lines = LINES.clone();
    let begins = begins(&lines);
    for pair in begins.windows(2).skip(1) {
        let without = [&lines[..pair[0]], &lines[pair[1]..]].concat();
        let (all, damage) = read(&without);
        let gone = &lines[pair[0]..pair[1]];
        let numbered = String::from_utf8_lossy(gone).contains("\"seq\":")
            && !gone.starts_with(b"{\"type\":\"enter\"")
            && !gone.starts_with(b"{\"type\":\"file\"")
            && !gone.starts_with(b"{\"type\":\"touch\"")
            && !gone.starts_with(b"{\"type\":\"high_water\"")
            && !gone.starts_with(b"{\"type\":\"observed\"");
        // Without a number of its own it is only missed at the end.
        assert!(!numbered || all[..] == some[..all.len()]);
        assert!(
            damage.is_some() || gone.starts_with(b"{\"type\":\"summary\""),
            "nobody misses {}",
            String::from_utf8_lossy(gone)
        );
    }
}

#[test]
fn a_line_in_the_middle_that_makes_no_sense_ends_the_reading_and_says_how_much_is_missing() {
    let lines = LINES.clone();
    let begins = begins(&lines);
    let mut broken = lines.clone();
    broken[begins[20]] = b'x';
    let (all, damage) = read(&broken);
    assert_eq!(all[..], SOME[..all.len()]);
    let damage = damage.expect("it is damaged");
    assert_eq!(damage.offset, begins[20] as u64);
    assert!(matches!(damage.reason, DamageReason::Line(_)), "{damage}");
    assert!(damage.until.is_some() && damage.lost.is_some(), "{damage}");
}

#[test]
fn a_line_that_is_too_long_is_not_kept() {
    let lines = LINES.clone();
    let reader = JsonlReader::new(lines.as_slice()).expect("the header is sound");
    let (all, damage) = read_all(reader.with_longest(1000));
    assert_eq!(all[..], SOME[..all.len()]);
    let damage = damage.expect("some line is longer");
    assert_eq!(damage.reason, DamageReason::LongLine);
    assert!(begins(&lines).contains(&(damage.offset as usize)));
}

#[test]
fn types_and_fields_of_a_newer_memtrace_are_left_out_with_a_note() {
    let lines = write(&[Observation {
        time: Timestamp(5),
        what: Observed::Lost(1),
    }]);
    let lines = String::from_utf8(lines).expect("JSON is UTF-8");
    let newer = lines
        .replacen(
            "{\"type\":\"lost\"",
            "{\"type\":\"weather\",\"time\":\"noon\",\"seq\":[]}\n{\"wind\":[{}],\"type\":\"lost\"",
            1,
        )
        .replacen("\"raw\":{", "\"raw\":{\"rain\":null,", 1);
    let mut reader = JsonlReader::new(newer.as_bytes()).expect("the header is sound");
    let observed = reader.next().expect("memory can be read");
    assert_eq!(observed.map(|one| one.what), Some(Observed::Lost(1)));
    assert_eq!(reader.next().expect("memory can be read"), None);
    assert_eq!(reader.damage(), None);
    assert_eq!(reader.notes(), ["lines of unknown types were left out: 1"]);
}

#[test]
fn what_are_no_such_lines_is_refused_for_its_own_reason() {
    let refused = |text: &str| JsonlReader::new(text.as_bytes()).err();
    for text in [
        "",
        "{",
        "{}\n",
        "[1]\n",
        "{\"type\":\"header\",\"schema\":\"other/1\"}\n",
    ] {
        let refused = refused(text);
        assert!(matches!(refused, Some(OpenError::NotATrace)), "{text}");
    }
    let newer = refused("{\"type\":\"header\",\"schema\":\"memtrace.events/2\"}\n");
    assert!(matches!(newer, Some(OpenError::NewerMajor { found: 2 })));
    let newer = refused("{\"type\":\"header\",\"schema\":\"memtrace.events/1\",\"raw\":2}\n");
    assert!(matches!(newer, Some(OpenError::NewerMajor { found: 2 })));
    let events = refused("{\"type\":\"header\",\"schema\":\"memtrace.events/1\"}\n");
    assert!(matches!(events, Some(OpenError::NoObservations)));
}

#[test]
fn two_files_in_one_are_not_read_as_one() {
    let lines = LINES.clone();
    let (all, damage) = read(&[&lines[..], &lines[..]].concat());
    assert_eq!(all, *SOME);
    assert_eq!(
        damage.map(|damage| damage.reason),
        Some(DamageReason::Trailing)
    );
}

#[test]
fn the_damage_of_the_trace_before_is_told_again() {
    let damage = Damage {
        offset: 77,
        reason: DamageReason::Checksum,
        missing: 5,
        unread: Some(9),
        after: Timestamp(3),
        until: Some(Timestamp(4)),
        lost: Some(2),
    };
    let mut out = Vec::new();
    let report = crate::report::Report {
        damage: Some(damage),
        ..Default::default()
    };
    JsonLines::without_report(&mut out, &info())
        .end(&report, &["a note".to_owned()])
        .expect("a Vec takes all");
    let mut reader = JsonlReader::new(out.as_slice()).expect("the header is sound");
    assert_eq!(reader.next().expect("memory can be read"), None);
    assert_eq!(reader.damage(), Some(&damage));
    assert_eq!(reader.notes(), ["a note"]);
}

#[test]
fn a_stack_is_told_once_with_its_names_and_a_call_names_its_owner() {
    use crate::timeline::stacks_for_tests;
    let mut timeline = Timeline::default();
    stacks_for_tests::tell(&mut timeline);
    let stack = timeline
        .stacks
        .get(crate::units::StackId(1))
        .expect("it was told");
    let seen = Observation {
        time: Timestamp(5),
        what: Observed::Stack(std::sync::Arc::unwrap_or_clone(std::sync::Arc::clone(
            stack,
        ))),
    };
    let mut lines = StackLines::new(Box::new(HeldNames));
    stacks_for_tests::tell(&mut lines.told);
    let fields = serde_json::Value::Object(lines.observed(&seen).expect("a stack"));
    assert_eq!(fields["stack"], 1);
    assert_eq!(fields["end"], "root");
    let expected = serde_json::json!([
        {"function": "mmap64", "offset": 19,
         "module": "/usr/lib/x86_64-linux-gnu/libc.so.6", "module_offset": "0xff943"},
        {"function": "reserve", "offset": 4, "module": "/srv/ser\u{1b}ver", "module_offset": "0x1234",
         "file": "/src/heap.rs", "line": 70, "inlined": true},
        {"function": "init\u{1b}[2J", "offset": 68, "module": "/srv/ser\u{1b}ver",
         "module_offset": "0x1234", "file": "/src/main.rs", "line": 12},
        {"function": null, "module": "/srv/ser\u{1b}ver", "module_offset": "0x99"},
        {"function": null, "address": "0x7f123456"},
    ]);
    assert_eq!(fields["frames"], expected);
    assert_eq!(
        lines.owner_of(crate::units::StackId(1), &timeline.stacks),
        Some("reserve".into())
    );
}
