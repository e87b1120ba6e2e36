//! What texts and traces say, in their own notation.

use std::path::Path;

use super::*;
use crate::mm::{parse_maps, parse_smaps};
use crate::report::recognize::Surroundings;
use crate::report::replay_into;
use crate::timeline::Bound;
use crate::trace_file::TraceReader;
use crate::units::Bytes;

fn level(version: u8, files: &[(&str, &str)]) -> Level {
    Level::of(version, "/a".to_owned(), &|name| {
        let (_, text) = files.iter().find(|(file, _)| *file == name)?;
        Some((*text).to_owned())
    })
}

#[test]
fn both_versions_of_cgroups_say_the_same_in_other_words() {
    let two = level(
        2,
        &[
            ("memory.max", "1000\n"),
            ("memory.current", "900\n"),
            (
                "memory.stat",
                "anon 300\nfile 500\nshmem 100\nkernel 100\nactive_file 150\ninactive_file 240\n\
                 slab_reclaimable 10\n",
            ),
            ("memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\n"),
        ],
    );
    let one = level(
        1,
        &[
            ("memory.limit_in_bytes", "1000\n"),
            ("memory.usage_in_bytes", "900\n"),
            (
                "memory.stat",
                "cache 1\nrss 1\ntotal_cache 500\ntotal_rss 300\ntotal_shmem 100\n\
                 total_active_file 150\ntotal_inactive_file 240\n",
            ),
            ("memory.kmem.usage_in_bytes", "100\n"),
            ("memory.failcnt", "7\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
        ],
    );
    for level in [&two, &one] {
        assert_eq!(level.max, Some(Bound::Bytes(Bytes(1000))));
        assert_eq!(level.anon, Some(Bytes(300)));
        assert_eq!(level.cache, Some(Bytes(400)));
        assert_eq!(level.shmem, Some(Bytes(100)));
        assert_eq!(level.kernel, Some(Bytes(100)));
        assert_eq!((level.met, level.oom_kills), (Some(7), Some(2)));
    }
    // Version 1 does not tell how much slab can be taken back.
    assert_eq!(two.fixed(), Some(Bytes(500)));
    assert_eq!(one.fixed(), Some(Bytes(510)));
    let filled = two.filled_by().map(|filling| filling.kind);
    assert_eq!(filled, Some(FillingKind::Anon));
}

#[test]
fn pages_of_madv_free_are_not_what_fills_a_cgroup() {
    let lazy = level(
        2,
        &[(
            "memory.stat",
            "anon 900\nfile 0\nshmem 50\nkernel 20\nactive_file 0\ninactive_file 890\n",
        )],
    );
    let filling = lazy.filled_by().map(|filling| filling.kind);
    assert_eq!(filling, Some(FillingKind::Shmem));
}

#[test]
fn no_limit_of_version_1_is_a_large_number() {
    let level = level(1, &[("memory.limit_in_bytes", "9223372036854771712\n")]);
    assert_eq!(level.max, Some(Bound::Unlimited));
    assert_eq!(level.fixed(), None);
}

#[test]
fn owners_add_up_and_pieces_of_one_run_are_one() {
    let text = b"\
00400000-00500000 r-xp 00000000 08:01 42                                 /srv/server\n\
00600000-00700000 rw-p 00100000 08:01 42                                 /srv/server\n\
c000000000-c000400000 rw-p 00000000 00:00 0 \n\
c000400000-c004000000 ---p 00000000 00:00 0 \n\
d000000000-d000001000 rw-p 00000000 00:00 0 \n";
    let snapshot = parse_maps(text).expect("maps");
    let owners = owners_of_snapshot(&snapshot, &Surroundings::default());
    let told: Vec<(&str, u64, u64)> = owners
        .iter()
        .map(|owner| (&*owner.name, owner.reserved.0, owner.committed.0))
        .collect();
    assert_eq!(
        told,
        [
            ("anonymous memory at 0xc000000000", 0x3c0_0000, 0x40_0000),
            ("/srv/server", 0, 0x20_0000),
            ("anonymous memory at 0xd000000000", 0, 0x1000),
        ]
    );
    assert!(owners.iter().all(|owner| owner.resident.is_none()));
}

#[test]
fn guard_pages_are_told_where_maps_shows_none() {
    let text = b"\
c000000000-c000400000 rw-p 00000000 00:00 0 \n\
Size:               4096 kB\nRss:                  16 kB\nLazyFree:              8 kB\n\
AnonHugePages:         0 kB\nVmFlags: rd wr mr mw me ac gu \n";
    assert!(parse_smaps(text).is_ok());
    let mut memory = Memory::default();
    let split = space_of_maps(text, true, &Surroundings::default(), &mut memory);
    let split = split.expect("smaps").expect("a mapping");
    assert_eq!(split.guarded, Some((1, Bytes(4 << 20))));
    assert_eq!(memory.lazy_free, Some(Bytes(8 << 10)));
    assert_eq!(split.reserved.now + split.committed.now, Bytes(4 << 20));
}

#[test]
fn a_recorded_go_server_is_no_case_for_its_vsz() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces/go-1.25.5.mtr");
    let mut reader = TraceReader::open(&path).expect("a trace");
    let mut refusals = Refusals::default();
    let report = replay_into(&mut reader, &mut [&mut refusals]).expect("it can be read");
    let facts = facts_of_trace(&report, &refusals).expect("a space");
    let space = facts.space.as_ref().expect("its figures");
    let split = space.split.as_ref().expect("its mappings");
    assert_eq!(space.mapped.now, split.reserved.now + split.committed.now);
    let owned: Bytes = split.owners.iter().map(Owner::mapped).sum();
    assert_eq!(space.mapped.now, owned);
    let verdict = verdict(&facts);
    assert_eq!((verdict.cause, verdict.vsz_matters), (Cause::None, false));
    assert_eq!(verdict.next, [Next::OutsideMemory, Next::LiveLook]);
}

#[test]
fn no_facts_prove_nothing() {
    let verdict = verdict(&Facts::default());
    assert_eq!(
        (verdict.cause, verdict.vsz_matters),
        (Cause::Unknown, false)
    );
}
