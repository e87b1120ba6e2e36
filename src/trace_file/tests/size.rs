//! How many bytes an event takes.

use crate::abi::{Abi, Prot};
use crate::decode::RawCall;
use crate::mm::{FileId, MapsEntry, Snapshot};
use crate::timeline::{Began, CallDone, Observation, Observed, SpaceBegan};
use crate::units::{Addr, AddrRange, SpaceId, Tid, Timestamp};

use super::{info, write};
use crate::trace_file::TraceWriter;

/// A number that looks random, the same in every run.
fn noise(i: u64) -> u64 {
    let x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}

fn call(time: u64, tid: i32, nr: u32, args: [u64; 6], result: u64) -> Observation {
    let call = CallDone {
        tid: Tid(tid),
        space: SpaceId(1),
        entered: Timestamp(time - 2500 - noise(time) % 3000),
        call: RawCall {
            abi: Abi::X86_64,
            nr,
            args,
        },
        fetched: Vec::new(),
        result: result.cast_signed(),
        evidence: Vec::new(),
        overlapped: false,
        stack: crate::timeline::Stack::Absent,
        refused: None,
    };
    Observation {
        time: Timestamp(time),
        what: Observed::Call(call),
    }
}

/// Pairs of mmap and munmap on `threads` threads, each of another size at another place.
fn storm_of(pairs: u64, threads: u64) -> Vec<Observation> {
    let mut time = 1_000_000;
    let pair = |i: u64| {
        let tid = 4711 + (noise(i) % threads) as i32;
        let len = (1 + noise(i) % 64) << 12;
        let addr = 0x7f12_3456_7000 - len;
        time += 6_000 + noise(i) % 9_000;
        let mmap = call(time, tid, 9, [0, len, 3, 0x22, u64::MAX, 0], addr);
        time += 6_000 + noise(i + 7) % 9_000;
        [
            mmap,
            call(time, tid, 11, [addr, len, 0x22, 0x22, u64::MAX, 0], 0),
        ]
    };
    (0..pairs).flat_map(pair).collect()
}

/// A storm on one thread.
pub(super) fn storm(pairs: u64) -> Vec<Observation> {
    storm_of(pairs, 1)
}

#[test]
fn a_storm_of_pairs_takes_at_most_twelve_bytes_an_event() {
    for threads in [1, 8] {
        let observations = storm_of(50_000, threads);
        let bytes = write(&observations, |_| false).len() as f64;
        let each = bytes / observations.len() as f64;
        println!("{threads} threads: {each:.2} bytes an event");
        assert!(each <= 12.0, "{threads} threads: {each} bytes an event");
    }
}

#[test]
fn the_snapshot_of_a_fork_takes_little_after_its_sibling() {
    let entry = |i: u64| MapsEntry {
        range: AddrRange::covering(Addr(0x5555_0000_0000 + (i << 20)), (i % 7 + 1) << 12)
            .expect("it is one"),
        prot: Prot::READ,
        shared: false,
        offset: i << 12,
        file: FileId {
            major: 8,
            minor: 1,
            inode: i / 4,
        },
        name: format!("/usr/lib/library-{}.so", i / 4).into(),
    };
    let fork = |id: u32| {
        let began = SpaceBegan {
            space: SpaceId(id),
            pid: Tid(id.cast_signed()),
            began: Began::Fork {
                parent: Some(SpaceId(1)),
            },
            exe: "/usr/bin/sh".into(),
            snapshot: Snapshot {
                entries: (0..100).map(entry).collect(),
                smaps: Vec::new(),
            },
            known: true,
            brk_start: Some(Addr(0x5555_0000_0000)),
            read_implies_exec: false,
        };
        Observation {
            time: Timestamp(id.into()),
            what: Observed::SpaceBegan(began),
        }
    };
    let size = |forks| write(&(1..=forks).map(fork).collect::<Vec<_>>(), |_| false).len();
    let one_more = size(101) - size(100);
    assert!(one_more < 40, "{one_more} bytes a fork");
}

#[test]
fn the_writer_does_not_grow_with_the_trace() {
    struct Largest(usize);
    impl std::io::Write for Largest {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.max(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut writer = TraceWriter::new(Largest(0), &info()).expect("it takes all");
    // Every call comes from a task never seen before, the worst for tables.
    for i in 0..50_000i32 {
        let seen = call(10_000 + u64::from(i.cast_unsigned()), i, 9, [0; 6], 0);
        writer.observation(&seen).expect("it takes all");
    }
    let Largest(block) = writer.finish().expect("it takes all");
    assert!(block < 70 << 10, "a block of {block} bytes");
}
