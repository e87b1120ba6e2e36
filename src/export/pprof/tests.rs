//! A profile for pprof, read back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use flate2::read::GzDecoder;

use super::*;
use crate::report::reading::tests::run::{Run, mmap, mprotect};
use crate::report::reading::{Filter, ProfileSink};
use crate::timeline::HeldNames;

const A: u64 = 0x7f00_0000_0000;
const K: u64 = 0x1000;

fn run() -> Run {
    let mut run = Run::new();
    let reserve = run.stack(&["mmap", "reserve", "main"]);
    let commit = run.stack(&["mprotect", "grow", "+code", "main"]);
    run.call_from(10, mmap(A, 16 * K, 0), reserve);
    run.call_from(10, mprotect(A, 4 * K, 3), commit);
    run.call_from(10, mprotect(A + 8 * K, 4 * K, 3), commit);
    run.call(10, mmap(A + 64 * K, K, 0));
    run.fork_with(2, 20, "7f0000000000-7f0000002000 ---p 00000000 00:00 0 \n");
    run
}

fn profile() -> proto::Profile {
    let mut sink = ProfileSink::new(Filter::default());
    run().tell(&mut sink);
    let info = TraceInfo {
        command: vec!["./server".to_owned(), "--port".to_owned()],
        started: "2026-11-23T16:20:00Z".to_owned(),
        ..TraceInfo::default()
    };
    let path: Arc<str> = "/srv/server".into();
    let about = About {
        info,
        program: Arc::clone(&path),
        build_ids: HashMap::from([(path, [0xab, 0x01].into())]),
    };
    let mut out = Vec::new();
    let profile = sink.into_profile();
    write(&mut out, &profile, &mut HeldNames, &about).expect("memory is no file");
    let mut bytes = Vec::new();
    let mut gzip = GzDecoder::new(out.as_slice());
    gzip.read_to_end(&mut bytes).expect("gzip");
    proto::Profile::decode(bytes.as_slice()).expect("a profile")
}

impl proto::Profile {
    fn text(&self, string: i64) -> &str {
        &self.string_table[string as usize]
    }

    /// Root first.
    fn stack(&self, sample: &proto::Sample) -> String {
        let ids = sample.location_id.iter().rev();
        let locations = ids.map(|id| &self.location[*id as usize - 1]);
        let lines = locations.flat_map(|location| location.line.iter().rev());
        let functions = lines.map(|line| &self.function[line.function_id as usize - 1]);
        let names: Vec<&str> = functions.map(|function| self.text(function.name)).collect();
        names.join(";")
    }
}

#[test]
fn samples_hold_all_figures_of_a_stack() {
    let profile = profile();
    let samples: BTreeMap<String, Vec<i64>> = profile
        .sample
        .iter()
        .map(|sample| (profile.stack(sample), sample.value.clone()))
        .collect();
    let k = K as i64;
    let expected = [
        ("main;reserve;mmap", [8 * k, 0, 16 * k, 1]),
        ("main;server+0x2002;grow;mprotect", [0, 8 * k, 0, 2]),
        ("(no stack) mmap", [k, 0, k, 1]),
        ("(began: exec)", [0, 3 * k, 3 * k, 0]),
        ("(began: fork);main;reserve;mmap", [2 * k, 0, 2 * k, 0]),
        ("(began: fork);(began: exec)", [0, 3 * k, 3 * k, 0]),
    ];
    let expected = expected.map(|(stack, values)| (stack.to_owned(), values.to_vec()));
    assert_eq!(samples, BTreeMap::from(expected));
    for sample in &profile.sample {
        let [label] = sample.label.as_slice() else {
            panic!("one label: {sample:?}");
        };
        let label = (profile.text(label.key), profile.text(label.text));
        assert_eq!(label, ("process", "server"));
    }
}

#[test]
fn it_says_what_its_values_are_and_where_they_come_from() {
    let profile = profile();
    let types = profile.sample_type.iter();
    let types: Vec<_> = types
        .map(|kind| (profile.text(kind.kind), profile.text(kind.unit)))
        .collect();
    assert_eq!(types, TYPES);
    assert_eq!(profile.text(profile.default_sample_type), "reserved");
    assert_eq!(profile.text(profile.comment[0]), "./server --port");
    assert_eq!(profile.time_nanos, 1_795_450_800_000_000_000);
    assert!(profile.duration_nanos > 0);
    let [mapping] = profile.mapping.as_slice() else {
        panic!("one module: {:?}", profile.mapping);
    };
    assert_eq!(profile.text(mapping.filename), "/srv/server");
    assert_eq!(profile.text(mapping.build_id), "ab01");
    assert!(mapping.has_functions);
    let inside = mapping.memory_start..mapping.memory_limit;
    let locations = profile.location.iter();
    for location in locations.filter(|location| location.mapping_id == mapping.id) {
        assert!(inside.contains(&location.address), "{location:?}");
    }
}

#[test]
fn everything_is_told_once() {
    let profile = profile();
    assert_eq!(profile.string_table[0], "");
    let strings: BTreeSet<&String> = profile.string_table.iter().collect();
    assert_eq!(strings.len(), profile.string_table.len());
    let places: BTreeSet<_> = profile
        .location
        .iter()
        .map(|location| (location.mapping_id, location.address, &location.line[0]))
        .map(|(mapping, address, line)| (mapping, address, line.function_id))
        .collect();
    assert_eq!(places.len(), profile.location.len());
    for (index, location) in profile.location.iter().enumerate() {
        assert_eq!(location.id, index as u64 + 1);
    }
}
