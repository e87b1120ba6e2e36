//! The traces in `fixtures/traces/`: they must read for ever.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use memtrace::abi::CallSet;
use memtrace::export::jsonl::JsonLines;
use memtrace::report::{Report, json, replay, replay_into};
use memtrace::term::strace::{Options, StraceFormat};
use memtrace::term::{Pretty, Style, write_summary};
use memtrace::timeline::Observation;
use memtrace::trace_file::{TraceReader, TraceWriter};
use memtrace::units::Bytes;
use serde_json::Value;

/// Files in the folder of traces that end so.
fn files(ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    let entries = fs::read_dir(folder).expect("the folder of traces");
    let paths = entries.map(|entry| entry.expect("a directory entry").path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|it| it == ending))
        .collect();
    files.sort();
    files
}

fn observations(path: &Path) -> Vec<Observation> {
    let mut reader = TraceReader::open(path).expect("it is a trace");
    let all = reader.by_ref().collect::<Result<_, _>>();
    assert_eq!(reader.damage(), None, "{}", path.display());
    assert_eq!(reader.skipped(), 0, "{}", path.display());
    all.expect("it can be read")
}

fn report(path: &Path) -> Report {
    let mut reader = TraceReader::open(path).expect("it is a trace");
    replay(&mut reader).expect("it can be read")
}

#[test]
fn every_trace_reads_whole_and_its_sums_are_exact() {
    let traces = files("mtr");
    assert!(9 <= traces.len(), "only {} traces", traces.len());
    for path in traces {
        let name = path.display();
        assert!(!observations(&path).is_empty(), "{name}");
        let report = report(&path);
        assert_eq!((report.damage, report.lost), (None, 0), "{name}");
        assert!(!report.spaces.is_empty(), "{name}");
        for space in &report.spaces {
            let id = space.id;
            let sum = Bytes(space.reserved.end.0 + space.committed.end.0);
            assert_eq!(space.mapped.end, sum, "{name}, space {id:?}");
            let parts = space.parts;
            let sum = parts.anon.0 + parts.file.0 + parts.shmem.0 + parts.special.0;
            assert_eq!(space.committed.end.0, sum, "{name}, space {id:?}");
            // Nothing stands still at its end where the kernel observes.
            let checked = space.verify.checks > 0 || report.info.backend == "kernel";
            assert!(checked, "{name}, space {id:?}");
            let drift = (space.verify.drift, space.verify.resynced);
            assert_eq!(drift, (Bytes(0), Bytes(0)), "{name}, space {id:?}");
        }
    }
}

#[test]
fn every_trace_can_be_written_again() {
    for path in files("mtr") {
        let info = TraceReader::open(&path)
            .expect("it is a trace")
            .info()
            .clone();
        let all = observations(&path);
        let mut writer = TraceWriter::new(Vec::new(), &info).expect("a Vec takes all");
        for observation in &all {
            writer.observation(observation).expect("a Vec takes all");
        }
        let written = writer.finish().expect("a Vec takes all");
        let mut reader = TraceReader::new(written.as_slice()).expect("it is a trace");
        let again: Vec<Observation> = reader.by_ref().map(|it| it.expect("it reads")).collect();
        assert_eq!(*reader.info(), info);
        assert_eq!(again, all, "{}", path.display());
    }
}

/// Where `now` lacks something of `then` or has another value for it. What was added since is fine.
fn differences(then: &Value, now: &Value, at: &str, found: &mut Vec<String>) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for (key, then) in then {
                let now = now.get(key).unwrap_or(&Value::Null);
                differences(then, now, &format!("{at}.{key}"), found);
            }
        }
        (Value::Array(then), Value::Array(now)) if then.len() == now.len() => {
            for (i, (then, now)) in then.iter().zip(now).enumerate() {
                differences(then, now, &format!("{at}[{i}]"), found);
            }
        }
        _ if then == now => {}
        _ => found.push(format!("{at}: was {then}, is {now}")),
    }
}

#[test]
fn golden_traces_of_every_version_say_what_they_said_when_they_were_made() {
    let golden = files("json");
    assert!(2 <= golden.len());
    for path in golden {
        let text = fs::read_to_string(&path).expect("it can be read");
        let then: Value = serde_json::from_str(&text).expect("it is JSON");
        let now = json::report(&report(&path.with_extension("mtr")));
        let mut found = Vec::new();
        differences(&then, &now, "", &mut found);
        assert!(found.is_empty(), "{}: {found:#?}", path.display());
    }
}

#[test]
fn the_versions_of_runtimes_are_known() {
    let version = |trace: &str, file: &str| {
        let path = format!("{}/fixtures/traces/{trace}.mtr", env!("CARGO_MANIFEST_DIR"));
        let report = report(Path::new(&path));
        let found = report
            .files
            .iter()
            .find(|seen| seen.seen.path.ends_with(file));
        let found = found.unwrap_or_else(|| panic!("{trace} has no {file}"));
        found.seen.version.as_deref().map(str::to_owned)
    };
    assert_eq!(
        version("go-1.21.13", "/server").as_deref(),
        Some("go1.21.13")
    );
    assert_eq!(version("go-1.25.5", "/server").as_deref(), Some("go1.25.5"));
    assert_eq!(
        version("java-17.0.9.2", "/libjvm.so").as_deref(),
        Some("17.0.9")
    );
    assert_eq!(
        version("java-21.0.8.2", "/libjvm.so").as_deref(),
        Some("21.0.8")
    );
}

/// Makes the checksums of a damaged trace right, as somebody would who means harm.
fn forge(bytes: &mut [u8]) -> Option<()> {
    const HEAD: usize = 48;
    let word = |bytes: &[u8], at: usize| {
        Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
    };
    let set = |bytes: &mut [u8], at: usize, value: u32| {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    let text = word(bytes, 12)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(8..16)?);
    crc.update(bytes.get(20..text.checked_add(20)?)?);
    set(bytes, 16, crc.finalize());
    let mut at = 20 + text;
    while at + HEAD <= bytes.len() {
        let length = word(bytes, at + 8)?.min(bytes.len() - at - HEAD);
        set(bytes, at + 8, length as u32);
        let payload = crc32fast::hash(&bytes[at + HEAD..][..length]);
        set(bytes, at + 40, payload);
        let head = crc32fast::hash(&bytes[at..at + 44]);
        set(bytes, at + 44, head);
        at += HEAD + length;
    }
    Some(())
}

/// What all reading commands together do with a trace; gives how many observations it had.
fn read_by_all(bytes: &[u8]) -> usize {
    let Ok(mut reader) = TraceReader::new(bytes) else {
        return 0;
    };
    let info = reader.info().clone();
    let style = Style::plain(Some(100), true);
    let options = Options {
        calls: CallSet::ALL,
        signals: true,
        to_file: false,
    };
    let mut pretty = Pretty::new(io::sink(), style.clone(), CallSet::ALL);
    let mut strace = StraceFormat::new(io::sink(), options);
    let mut lines = JsonLines::new(io::sink(), &info);
    let report = replay_into(&mut reader, &mut [&mut pretty, &mut strace, &mut lines])
        .expect("memory can be read");
    write_summary(&mut io::sink(), &report, &style).expect("a sink takes all");
    json::pretty_text(&json::report(&report));
    for space in &report.spaces {
        let sum = space.reserved.end.0.checked_add(space.committed.end.0);
        assert_eq!(Some(space.mapped.end.0), sum, "space {:?}", space.id);
    }
    let mut more = 0;
    while reader.resume() {
        more += reader.by_ref().map_while(Result::ok).count();
    }
    report.events as usize + more
}

/// The fuzz target of `tests/fuzz` does the same for longer.
#[test]
fn a_spoiled_or_forged_trace_harms_nobody() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below.max(1)
    };
    let mut read = 0;
    for path in files("mtr") {
        let whole = fs::read(&path).expect("it can be read");
        for round in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..=random(6) {
                let at = random(bytes.len());
                bytes[at] =
                    [0, 0xff, 0x80, bytes[at] ^ 1 << random(8), random(256) as u8][random(5)];
            }
            if round % 4 == 0 {
                bytes.truncate(random(bytes.len()));
            }
            read += read_by_all(&bytes);
            if forge(&mut bytes).is_some() {
                read += read_by_all(&bytes);
            }
        }
    }
    assert!(1000 < read, "hardly anything was read: {read}");
}
