//! What is recorded survives what ends the recording.

mod support;

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use memtrace::timeline::Observed;
use memtrace::trace_file::{Damage, DamageReason, OpenError, TraceReader};
use memtrace::units::Timestamp;
use std::path::Path;
use support::{MEMTRACE, Running, memtrace, run, tracee};

/// Kills memtrace after `time` in a storm of calls; gives how many calls are read then.
fn calls_read_after_a_kill(time: Duration) -> usize {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("trace");
    let pairs = tracee("pairs");
    let words = [pairs.as_os_str(), "100000000".as_ref(), "2".as_ref()];
    let begun = Instant::now();
    let running = Running::start(&mut memtrace(
        &["-qq", "-o", file.to_str().expect("UTF-8")],
        &words,
    ));
    sleep(time.saturating_sub(begun.elapsed()));
    running.signal(libc::SIGKILL);
    running.end();
    let size = match fs::metadata(&file) {
        Ok(meta) => meta.len(),
        // It had not come so far.
        Err(_) => return 0,
    };
    let mut reader = match TraceReader::open(&file) {
        Ok(reader) => reader,
        Err(OpenError::NotATrace | OpenError::Header) if size < 4096 => return 0,
        Err(error) => panic!("{size} bytes: {error}"),
    };
    let (mut calls, mut last) = (0, Timestamp(0));
    for observation in reader.by_ref() {
        let observation = observation.expect("it can be read");
        if let Observed::Call(_) = observation.what {
            calls += 1;
            last = observation.time;
        }
    }
    let damage = reader.damage().copied().expect("it has no end");
    let Damage {
        offset,
        reason,
        missing,
        unread,
        ..
    } = damage;
    assert!(
        matches!(reason, DamageReason::NoEnd | DamageReason::Torn),
        "{damage:?}"
    );
    assert_eq!((unread, offset + missing), (Some(size - offset), size));
    assert!(last <= damage.after && damage.after.0 < 600_000_000_000);
    let report = run(Command::new(MEMTRACE).arg("report").arg(&file));
    assert_eq!(report.status(), 0, "{report:?}");
    assert!(
        report.stdout.contains("the trace is incomplete"),
        "{report:?}"
    );
    calls
}

#[test]
fn whenever_memtrace_is_killed_the_trace_reads_up_to_there() {
    let mut seed = u64::from(std::process::id());
    let mut most = 0;
    for round in 0..12 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Early kills meet the header, late ones the flush of every second.
        let range = if round < 8 { 150_000 } else { 2_500_000 };
        most = most.max(calls_read_after_a_kill(Duration::from_micros(
            (seed >> 33) % range,
        )));
    }
    // What took seconds is there, though on a slow machine few calls fit into them.
    most = most.max(calls_read_after_a_kill(Duration::from_secs(4)));
    assert!(0 < most, "no call was read in any round");
}

/// A trace of this version of the format, whole otherwise.
fn of_version(path: &Path, major: u16, minor: u16) {
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/traces/format-1.0.mtr"
    );
    let mut bytes = fs::read(golden).expect("the golden trace");
    bytes[8..10].copy_from_slice(&major.to_le_bytes());
    bytes[10..12].copy_from_slice(&minor.to_le_bytes());
    let text = u32::from_le_bytes(*bytes[12..].first_chunk().expect("four bytes")) as usize;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[8..16]);
    crc.update(&bytes[20..20 + text]);
    let crc = crc.finalize().to_le_bytes();
    bytes[16..20].copy_from_slice(&crc);
    fs::write(path, bytes).expect("it can be written");
}

#[test]
fn a_newer_minor_version_is_read_with_a_note_and_a_newer_major_one_refused_in_words() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("trace");
    let report = || run(Command::new(MEMTRACE).arg("report").arg(&file));
    of_version(&file, 1, 99);
    let read = report();
    assert_eq!((read.status(), read.stderr.as_str()), (0, ""), "{read:?}");
    assert!(read.stdout.contains("format 1.99"), "{read:?}");
    of_version(&file, 2, 0);
    let refused = report();
    assert_eq!((refused.status(), refused.stdout.as_str()), (2, ""));
    let line = refused.one_line();
    assert!(
        line.contains("format version 2") && line.contains("newer"),
        "{line}"
    );
}

#[test]
fn a_trace_is_private_whatever_the_umask_and_whatever_was_there() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    for there_before in [false, true] {
        let file = folder.path().join(format!("trace-{there_before}"));
        if there_before {
            fs::write(&file, "public").expect("it can be written");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("it is ours");
        }
        let script = format!("umask 0; exec {MEMTRACE} -qq -o {} -- true", file.display());
        let ended = run(Command::new("/bin/sh").args(["-c", &script]));
        assert_eq!(ended.status(), 0, "{ended:?}");
        let mode = fs::metadata(&file)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// build-id by the section headers, as binutils finds it.
#[test]
fn mapped_files_tell_the_build_ids_that_readelf_tells() {
    let Some(readelf) = support::installed("readelf") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("trace");
    let words = ["-qq", "-o", file.to_str().expect("UTF-8")];
    // Two programs that are gone when the files are looked at.
    let ended = run(&mut memtrace(
        &words,
        &["/bin/sh", "-c", "/bin/true; /bin/ls /"],
    ));
    assert_eq!(ended.status(), 0, "{ended:?}");
    let report = support::Report::read(&file, &ended);
    let files = report.0["files"].as_array().expect("a list");
    let mut compared = 0;
    for file in files {
        let path = file["path"].as_str().expect("a path");
        let notes = run(Command::new(&readelf).args(["-n", path]));
        let told = notes
            .stdout
            .lines()
            .find_map(|line| line.trim().strip_prefix("Build ID: "));
        assert_eq!(file["build_id"].as_str(), told, "{path}");
        compared += usize::from(told.is_some());
    }
    let mapped = |name: &str| {
        let ends =
            |file: &serde_json::Value| file["path"].as_str().is_some_and(|it| it.ends_with(name));
        assert!(files.iter().any(ends), "{name} is missing: {files:#?}");
    };
    ["/true", "/ls"].into_iter().for_each(mapped);
    assert!(0 < compared, "{files:#?}");
}
