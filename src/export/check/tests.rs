//! Names that mean something to the format come out as names.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::*;

const NASTY: &str = "a<b>&\"'|`*_[x](y)%0A\n::error::, \u{1}\u{ffff}@me ]]>";

fn nasty() -> Vec<Checked> {
    let case = |name: &str, failure: Option<&str>| Case {
        name: name.to_owned(),
        failure: failure.map(str::to_owned),
    };
    vec![
        Checked {
            trace: NASTY.to_owned(),
            cases: vec![case(NASTY, Some(NASTY)), case("fine", None)],
        },
        Checked {
            trace: "good".to_owned(),
            cases: vec![case(NASTY, None)],
        },
    ]
}

fn written(write: fn(&mut dyn Write, &[Checked]) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out, &nasty()).expect("a Vec takes all");
    String::from_utf8(out).expect("text")
}

#[test]
fn junit_is_xml_that_gives_every_text_back() {
    let text = written(junit);
    let mut reader = Reader::from_str(&text);
    let (mut names, mut messages) = (Vec::new(), Vec::new());
    loop {
        match reader.read_event().expect("sound XML") {
            Event::Start(tag) | Event::Empty(tag) => {
                let value = |key: &str| {
                    let found = tag.try_get_attribute(key).expect("sound attributes");
                    found.map(|it| {
                        let value = it.normalized_value(quick_xml::XmlVersion::Implicit1_0);
                        value.expect("sound escapes").into_owned()
                    })
                };
                match tag.name().as_ref() {
                    "testcase" => names.extend(value("name")),
                    "failure" => messages.extend(value("message")),
                    _ => {}
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let plain = |text: &str| {
        let text = text.replace(['\u{1}', '\u{ffff}'], "\u{fffd}");
        text.replace('\n', " ")
    };
    let names: Vec<String> = names.iter().map(|name| plain(name)).collect();
    assert_eq!(names, [plain(NASTY), "fine".into(), plain(NASTY)]);
    assert_eq!(
        messages.iter().map(|it| plain(it)).collect::<Vec<_>>(),
        [plain(NASTY)]
    );
    assert!(text.contains("tests=\"3\" failures=\"1\""), "{text}");
}

#[test]
fn github_gets_one_command_for_each_failure_whatever_the_names_are() {
    let text = written(github);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].starts_with("::error title=memtrace%3A a<b>"),
        "{text}"
    );
    assert!(!lines[1].starts_with("::"), "{text}");
    let rest = lines[0].trim_start_matches("::error ");
    let (title, message) = rest.split_once("::").expect("a message");
    assert!(!title.contains([',', ':']), "{title}");
    let expected = format!("{NASTY}: {NASTY}").replace("%0A\n", "%250A%0A");
    assert_eq!(message, expected);
}

#[test]
fn a_table_of_markdown_keeps_its_columns() {
    for line in written(markdown).lines() {
        let bars = line.replace("\\|", "").matches('|').count();
        assert_eq!(bars, 4, "{line}");
        assert!(!line.contains(['<', '@']), "{line}");
    }
}

#[test]
fn text_has_a_line_for_each_failure_and_for_each_trace_without() {
    let all = [
        Checked {
            trace: "a.mtr".into(),
            cases: vec![
                Case {
                    name: "anon".into(),
                    failure: Some("too much".into()),
                },
                Case {
                    name: "file".into(),
                    failure: None,
                },
            ],
        },
        Checked {
            trace: "b.mtr".into(),
            cases: vec![Case::default()],
        },
    ];
    let mut out = Vec::new();
    text(&mut out, &all).expect("a Vec takes all");
    assert_eq!(out, b"a.mtr: too much\nb.mtr: within budget ()\n");
}
