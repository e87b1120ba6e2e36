//! Lines of JSON from stories made by hand.

use serde_json::Value;

use crate::abi::MapFlags;
use crate::mm::Verb;
use crate::report::json;
use crate::report::tests::story::{Story, info, range};
use crate::timeline::{CheckCause, EventKind, Resident, Sink, TaskOrigin, Timeline};
use crate::units::Bytes;

use super::jsonl::JsonLines;

const A: u64 = 0x7f00_0000_0000;

fn lines(story: &Story) -> Vec<Value> {
    let mut out = Vec::new();
    let timeline = Timeline::default();
    let mut sink = JsonLines::new(&mut out, &info());
    for event in &story.events {
        sink.event(event, &timeline).expect("a Vec takes all");
    }
    sink.finish(&timeline).expect("a Vec takes all");
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    assert!(text.ends_with('\n'));
    let parse = |line| serde_json::from_str(line).expect("a line is an object");
    text.lines().map(parse).collect()
}

fn a_story() -> Story {
    let mut story = Story::of_a_program(3);
    story.call_with(
        1,
        "mmap",
        MapFlags::NORESERVE,
        &[(Verb::Reserve, range(A, 2))],
        Some(A.cast_signed()),
    );
    story.call(1, "mprotect", &[(Verb::Commit, range(A, 1))]);
    story.call_with(1, "munmap", MapFlags::empty(), &[], Some(-22));
    story.call_with(1, "munmap", MapFlags::empty(), &[], None);
    story.task(1, 101, 100, TaskOrigin::Thread);
    story.resident(
        1,
        Resident {
            now: Bytes(4096),
            ..Resident::default()
        },
    );
    story.checked(1, CheckCause::Asked, 0, None);
    story.checked(1, CheckCause::Exit, 4096, None);
    story.push(
        1,
        100,
        EventKind::Note("\u{1b}]0;title\u{7} and \u{9b}2J".into()),
    );
    story.exit(1, 100, 0);
    story
}

#[test]
fn a_call_has_the_fields_of_the_contract() {
    let lines = lines(&a_story());
    let call = lines[3].as_object().expect("an object");
    let keys: Vec<&str> = call.keys().map(String::as_str).collect();
    let expected = "type seq time duration pid tid space name args result error delta now spans";
    assert_eq!(keys, expected.split(' ').collect::<Vec<_>>());
    assert_eq!(call["result"], "0x7f0000000000");
    assert_eq!(call["args"]["length"], 8192);
    assert_eq!(
        call["args"]["flags"],
        "MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE"
    );
    assert_eq!(call["delta"]["reserved"], 8192);
    assert_eq!(call["now"]["mapped"], 5 * 4096);
    assert_eq!(
        (&call["time"], &call["duration"]),
        (&Value::from(3000), &Value::from(500))
    );
    assert_eq!(lines[4]["delta"]["reserved"], -4096);
    assert_eq!(lines[4]["result"], 0);
    assert_eq!(
        (&lines[5]["result"], &lines[5]["error"]),
        (&Value::Null, &Value::from("EINVAL"))
    );
    assert_eq!(lines[6]["cut"], true);
}

#[test]
fn a_header_comes_first_and_the_report_last() {
    let story = a_story();
    let lines = lines(&story);
    assert_eq!(lines[0]["type"], "header");
    assert_eq!(lines[0]["schema"], "memtrace.events/1");
    let last = lines.last().expect("there are some");
    assert_eq!(last["type"], "summary");
    assert_eq!(last["report"], json::report(&story.report()));
    let types: Vec<_> = lines
        .iter()
        .filter_map(|line| line["type"].as_str())
        .collect();
    let expected = "header space launch call call call call thread sample check resync note exit space_end end summary";
    assert_eq!(types, expected.split(' ').collect::<Vec<_>>());
}

#[test]
fn deltas_add_up_to_now() {
    let mut mapped = 0;
    for line in lines(&a_story()) {
        match (line["type"].as_str(), line["now"]["mapped"].as_i64()) {
            (Some("space"), Some(now)) => mapped = now,
            (Some("call" | "check" | "resync"), Some(now)) => {
                mapped += line["delta"]["mapped"].as_i64().expect("a number");
                assert_eq!(mapped, now);
            }
            _ => {}
        }
        let now = &line["now"];
        if let [Some(mapped), Some(reserved), Some(committed)] =
            ["mapped", "reserved", "committed"].map(|key| now[key].as_u64())
        {
            assert_eq!(mapped, reserved + committed);
        }
    }
}

#[test]
fn a_closed_pipe_is_an_error_and_no_second_one() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut sink = JsonLines::new(Closed, &info());
    assert!(sink.idle().is_err());
    assert!(sink.idle().is_ok());
}
