//! What goes in comes out, and nothing that comes in does harm.

pub(crate) mod any;
mod damage;
mod size;

use std::io::{self, Write};

use proptest::prelude::*;

use crate::timeline::{
    Bound, Cgroup, Environment, Limit, Limits, Observation, Observed, TraceInfo,
};
use crate::units::{Bytes, Timestamp};

use super::encode::{Encoder, is_late};
use super::{Damage, OpenError, TraceReader, TraceWriter};

pub(crate) fn info() -> TraceInfo {
    TraceInfo {
        version: "0.1.0".into(),
        command: vec!["./server".into(), "--päth".into()],
        attached: vec![1, 2],
        backend: "ptrace".into(),
        stops: "seccomp".into(),
        started: "2026-11-23T16:20:00Z".into(),
        kernel: "6.18.0".into(),
        arch: "x86_64".into(),
        page_size: 4096,
        overcommit: 1,
        environment: Environment {
            memory: Some(Bytes(8 << 30)),
            swap: None,
            overcommit_ratio: Some(50),
            overcommit_kbytes: Some(0),
            max_map_count: Some(65530),
            thp: Some("madvise".into()),
            limits: Limits {
                stack: Some(Limit {
                    soft: Bound::Bytes(Bytes(8 << 20)),
                    hard: Bound::Unlimited,
                }),
                ..Limits::default()
            },
            cgroup: Some(Cgroup {
                version: 2,
                path: "/system.slice/x.service".into(),
                max: Some(Bound::Unlimited),
                high: None,
                swap_max: Some(Bound::Bytes(Bytes(0))),
                lowest_max: Some(Bound::Bytes(Bytes(512 << 20))),
                current: Some(Bytes(4096)),
            }),
        },
    }
}

/// A whole trace; a block ends after each index in `flushes`.
fn write(observations: &[Observation], flushes: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut writer = TraceWriter::new(Vec::new(), &info()).expect("a Vec takes all");
    for (i, observation) in observations.iter().enumerate() {
        writer.observation(observation).expect("a Vec takes all");
        if flushes(i) {
            writer.flush().expect("a Vec takes all");
        }
    }
    writer.finish().expect("a Vec takes all")
}

fn read(trace: &[u8]) -> (Vec<Observation>, Option<Damage>) {
    let mut reader = TraceReader::new(trace).expect("the header is sound");
    let mut all = Vec::new();
    while let Some(observation) = reader.next().expect("memory can be read") {
        all.push(observation);
    }
    (all, reader.damage().copied())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_observation_comes_back(
        observations in prop::collection::vec(any::observation(), 0..60),
        every in 1usize..40,
    ) {
        let trace = write(&observations, |i| i % every == 0);
        prop_assert_eq!(read(&trace), (observations, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// What a reader of 1.0 does: it skips whole records of kinds it does not know.
    #[test]
    fn who_skips_what_minor_versions_added_loses_nothing_else(
        observations in prop::collection::vec(any::observation(), 0..60),
    ) {
        let is_new = |observation: &&Observation| is_late(&observation.what);
        let (mut all, mut without) = (Encoder::default(), Encoder::default());
        let (mut kept, mut expected) = (Vec::new(), Vec::new());
        for observation in &observations {
            let mut record = Vec::new();
            all.observation(&mut record, observation);
            if !is_new(&observation) {
                kept.append(&mut record);
                without.observation(&mut expected, observation);
            }
        }
        prop_assert_eq!(kept, expected);
    }
}

#[test]
fn the_header_comes_back() {
    let trace = write(&[], |_| false);
    let reader = TraceReader::new(trace.as_slice()).expect("the header is sound");
    assert_eq!(*reader.info(), info());
    assert_eq!(reader.newer_minor(), None);
}

#[test]
fn a_newer_minor_version_is_read_and_a_newer_major_one_refused() {
    let note = Observation {
        time: Timestamp(5),
        what: Observed::Lost(1),
    };
    let trace = write(std::slice::from_ref(&note), |_| false);
    let with = |at: usize, version: u16| {
        let mut trace = trace.clone();
        trace[at..at + 2].copy_from_slice(&version.to_le_bytes());
        let len = u32::from_le_bytes([trace[12], trace[13], trace[14], trace[15]]) as usize;
        let crc = super::format::preamble_crc(&trace[8..16], &trace[20..20 + len]);
        trace[16..20].copy_from_slice(&crc.to_le_bytes());
        trace
    };
    let newer = with(10, 7);
    let mut reader = TraceReader::new(newer.as_slice()).expect("a minor version is no obstacle");
    assert_eq!(reader.newer_minor(), Some(7));
    assert_eq!(reader.next().expect("memory can be read"), Some(note));
    let refused = TraceReader::new(with(8, 2).as_slice()).err();
    assert!(
        matches!(refused, Some(OpenError::NewerMajor { found: 2 })),
        "{refused:?}"
    );
}

#[test]
fn what_is_no_trace_is_refused() {
    for bytes in [
        &b""[..],
        b"\x89MTR",
        b"#!/bin/sh\necho hello\n",
        b"\x7fELF\x02\x01\x01\0",
    ] {
        let refused = TraceReader::new(bytes).err();
        assert!(
            matches!(refused, Some(OpenError::NotATrace)),
            "{bytes:?}: {refused:?}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_trace_is_for_its_owner_even_where_a_public_file_was() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("a.mtr");
    std::fs::write(&path, "old").expect("a file can be made");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let writer = TraceWriter::create(&path, &info()).expect("it can be written");
    writer.finish().expect("it can be written");
    let mode = std::fs::metadata(&path)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut reader = TraceReader::open(&path).expect("it is a trace");
    assert_eq!(reader.next().expect("it can be read"), None);
    assert_eq!(reader.damage(), None);
}

/// A disk with this many bytes left.
struct Disk(Vec<u8>, usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = bytes.len().min(self.1 - self.0.len());
        self.0.extend_from_slice(&bytes[..room]);
        match room {
            0 if !bytes.is_empty() => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(room),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_said_once_and_what_was_written_stays_readable() {
    let observations = size::storm(1000);
    let mut writer =
        TraceWriter::new(Disk(Vec::new(), 3000), &info()).expect("there is room for it");
    let mut errors = 0;
    for (i, observation) in observations.iter().enumerate() {
        errors += usize::from(writer.observation(observation).is_err());
        if i % 100 == 99 {
            errors += usize::from(writer.flush().is_err());
        }
    }
    assert!(writer.failed());
    assert_eq!(errors, 1);
    let Disk(trace, _) = writer.finish().expect("it was said before");
    assert_eq!(trace.len(), 3000);
    let (all, damage) = read(&trace);
    assert!(
        100 < all.len() && all.len() % 100 == 0,
        "{} read",
        all.len()
    );
    assert_eq!(all, observations[..all.len()]);
    assert!(damage.is_some());
}
