//! Flipped, torn, cut and made-up bytes.

use proptest::prelude::*;

use crate::timeline::Observation;
use crate::trace_file::format::{BlockHead, KIND_END, KIND_OBSERVATIONS};
use crate::trace_file::{DamageReason, TraceReader};

use super::{any, read, size, write};

/// Where each block begins, from the heads themselves.
fn blocks(trace: &[u8]) -> Vec<(usize, BlockHead)> {
    let heads = (0..trace.len()).filter_map(|at| Some((at, BlockHead::parse(&trace[at..])?)));
    heads.collect()
}

/// Observations in the blocks that end at or before byte `at`.
fn whole_before(trace: &[u8], at: usize) -> usize {
    let whole =
        |(start, head): &(usize, BlockHead)| start + BlockHead::SIZE + head.length as usize <= at;
    let counts = blocks(trace)
        .into_iter()
        .take_while(whole)
        .map(|(_, head)| head.count as usize);
    counts.sum()
}

#[test]
fn a_trace_cut_anywhere_gives_all_whole_blocks_before_the_cut() {
    let observations = size::storm(100);
    let trace = write(&observations, |i| i % 20 == 19);
    let begin = blocks(&trace)[0].0;
    for cut in begin..trace.len() {
        let (all, damage) = read(&trace[..cut]);
        assert_eq!(
            all,
            observations[..whole_before(&trace, cut)],
            "cut at {cut}"
        );
        let damage = damage.expect("the end is missing");
        assert_eq!(
            damage.offset + damage.missing,
            cut as u64,
            "cut at {cut}: {damage}"
        );
        assert!(
            matches!(damage.reason, DamageReason::Torn | DamageReason::NoEnd),
            "{damage}"
        );
        assert_eq!(damage.until, None);
    }
}

#[test]
fn a_flipped_bit_anywhere_costs_its_own_block_and_is_said() {
    let observations = size::storm(60);
    let trace = write(&observations, |i| i % 20 == 19);
    let begin = blocks(&trace)[0].0;
    for at in begin..trace.len() {
        let mut broken = trace.clone();
        broken[at] ^= 1 << (at % 8);
        let mut reader = TraceReader::new(broken.as_slice()).expect("the header is sound");
        let mut all: Vec<Observation> = reader.by_ref().map_while(Result::ok).collect();
        assert_eq!(
            all,
            observations[..whole_before(&trace, at)],
            "flipped at {at}"
        );
        let damage = *reader.damage().expect("it is damaged");
        if reader.resume() {
            all.extend(reader.by_ref().map_while(Result::ok));
        }
        let lost = damage.lost.unwrap_or(0) as usize;
        assert_eq!(
            all.len() + lost,
            observations.len(),
            "flipped at {at}: {damage}"
        );
        assert!(lost <= 20);
    }
}

#[test]
fn what_is_missing_is_told_in_bytes_and_time() {
    let observations = size::storm(60);
    let mut trace = write(&observations, |i| i % 20 == 19);
    let blocks = blocks(&trace);
    let (second, third) = (blocks[1], blocks[2]);
    trace[second.0 + 60] ^= 0x10;
    let (all, damage) = read(&trace);
    assert_eq!(all, observations[..20]);
    let damage = damage.expect("it is damaged");
    assert_eq!(damage.reason, DamageReason::Checksum);
    assert_eq!(damage.offset, second.0 as u64);
    assert_eq!(damage.missing, (third.0 - second.0) as u64);
    assert_eq!(damage.after, observations[19].time);
    assert_eq!(damage.until, Some(observations[40].time));
    assert_eq!(damage.lost, Some(20));
}

#[test]
fn a_missing_block_is_noticed_though_the_rest_is_sound() {
    let observations = size::storm(60);
    let mut trace = write(&observations, |i| i % 20 == 19);
    let blocks = blocks(&trace);
    trace.drain(blocks[1].0..blocks[2].0);
    let (all, damage) = read(&trace);
    assert_eq!(all, observations[..20]);
    let damage = damage.expect("it is damaged");
    assert_eq!((damage.reason, damage.lost), (DamageReason::Gap, Some(20)));
}

#[test]
fn bytes_behind_the_end_are_noticed() {
    let observations = size::storm(3);
    let mut trace = write(&observations, |_| false);
    trace.extend_from_slice(b"more");
    let (all, damage) = read(&trace);
    assert_eq!(all, observations);
    assert_eq!(
        damage.map(|damage| (damage.reason, damage.missing)),
        Some((DamageReason::Trailing, 4))
    );
}

#[test]
fn a_block_of_a_kind_to_come_is_skipped() {
    let observations = size::storm(20);
    let mut trace = write(&observations, |i| i == 19);
    let second = blocks(&trace)[1].0;
    let payload = b"an index of some kind";
    let kind = BlockHead {
        kind: 77,
        length: payload.len() as u32,
        before: 20,
        payload_crc: crc32fast::hash(payload),
        ..BlockHead::default()
    };
    trace.splice(second..second, kind.to_bytes().into_iter().chain(*payload));
    assert_eq!(read(&trace), (observations, None));
}

#[test]
fn a_block_that_claims_to_come_after_all_there_can_be_is_still_read() {
    let observations = size::storm(20);
    let mut trace = write(&observations, |i| i == 19);
    let blocks = blocks(&trace);
    let (at, head) = blocks[1];
    let late = BlockHead {
        before: u64::MAX - 1,
        ..head
    };
    trace[at..at + BlockHead::SIZE].copy_from_slice(&late.to_bytes());
    let mut reader = TraceReader::new(trace.as_slice()).expect("the header is sound");
    let mut read = reader.by_ref().map_while(Result::ok).count();
    let damage = reader.damage().copied().expect("blocks are missing");
    assert_eq!(damage.reason, DamageReason::Gap);
    assert!(reader.resume());
    read += reader.by_ref().map_while(Result::ok).count();
    assert_eq!(read, observations.len());
}

/// A trace whose only block has this payload, with all checksums right.
fn forged(payload: &[u8], count: u32) -> Vec<u8> {
    let mut trace = write(&[], |_| false);
    trace.truncate(trace.len() - BlockHead::SIZE);
    for (kind, count, payload) in [(KIND_OBSERVATIONS, count, payload), (KIND_END, 0, &[][..])] {
        let head = BlockHead {
            kind,
            length: payload.len() as u32,
            count,
            payload_crc: crc32fast::hash(payload),
            ..BlockHead::default()
        };
        trace.extend_from_slice(&head.to_bytes());
        trace.extend_from_slice(payload);
    }
    trace
}

/// The payload of a trace's first block and its count.
fn payload(observations: &[Observation]) -> (Vec<u8>, u32) {
    let trace = write(observations, |_| false);
    let (at, head) = blocks(&trace)[0];
    (
        trace[at + BlockHead::SIZE..][..head.length as usize].to_vec(),
        head.count,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn made_up_records_behind_a_right_checksum_do_no_harm(
        observations in prop::collection::vec(any::observation(), 1..12),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut payload, count) = payload(&observations);
        for (at, byte) in &flips {
            let at = at.index(payload.len());
            payload[at] ^= byte;
        }
        let (all, _) = read(&forged(&payload, count));
        prop_assert!(all.len() <= count as usize);
        let (all, _) = read(&forged(&payload[..cut.index(payload.len())], count));
        prop_assert!(all.len() <= count as usize);
    }

    #[test]
    fn any_bytes_behind_a_right_checksum_do_no_harm(payload in prop::collection::vec(any::<u8>(), 0..600)) {
        read(&forged(&payload, u32::MAX));
    }

    #[test]
    fn any_bytes_as_a_file_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut trace = write(&size::storm(10), |i| i % 7 == 0);
        for (at, byte) in &flips {
            let at = at.index(trace.len());
            trace[at] = *byte;
        }
        for file in [bytes, trace] {
            if let Ok(mut reader) = TraceReader::new(file.as_slice()) {
                while reader.by_ref().map_while(Result::ok).count() != 0 || reader.resume() {}
            }
        }
    }
}
