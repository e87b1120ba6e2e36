//! The ledger beside a model that was corrected.

use super::*;

const A: u64 = 0x7f00_0000_0000;

fn pages(from: u64, count: u64) -> AddrRange {
    AddrRange::covering(Addr(A + (from << 12)), count << 12).expect("a range")
}

/// Ledger pieces as `first page, pages, state`, to be compared with maps.
fn pieces(ledger: &Ledger) -> Vec<(u64, u64, bool)> {
    let piece = |(start, piece): (&Addr, &Piece)| {
        (
            (start.0 - A) >> 12,
            (piece.end.0 - start.0) >> 12,
            piece.reserved,
        )
    };
    ledger.pieces.iter().map(piece).collect()
}

#[test]
fn a_corrected_model_keeps_what_is_known_of_the_other_bytes() {
    let call = Call::Other;
    let by = Maker {
        seq: 7,
        ..Maker::default()
    };
    let cause = Cause {
        time: Timestamp(1),
        by,
        call: &call,
        state: None,
    };
    let mut ledger = Ledger::default();
    ledger.reserve(pages(0, 100), cause);
    ledger.set_reserved(pages(10, 10), false);
    ledger.map(pages(200, 5), Place::Heap);
    let shown = |range, reserved, place| Shown {
        range,
        reserved,
        place,
    };
    ledger.rebuild(
        Timestamp(2),
        [
            shown(pages(5, 15), false, Place::Anon),
            shown(pages(20, 30), true, Place::Anon),
            shown(pages(199, 6), false, Place::Anon),
            shown(pages(300, 4), true, Place::Anon),
        ]
        .into_iter(),
    );
    assert_eq!(
        pieces(&ledger),
        [
            (5, 15, false),
            (20, 30, true),
            (199, 1, false),
            (200, 5, false),
            (300, 4, true)
        ]
    );
    assert_eq!((ledger.reserved, ledger.committed), (34 << 12, 21 << 12));
    let heap = ledger
        .places()
        .into_iter()
        .find(|place| place.place == Place::Heap);
    assert_eq!(heap.map(|heap| heap.committed.0), Some(5 << 12));
    let reservations = ledger.reservations();
    let [first, second] = &reservations.largest[..] else {
        panic!("{reservations:?}")
    };
    assert_eq!(
        (first.by.seq, first.ever_committed.0, first.mapped.0),
        (7, 15 << 12, 45 << 12)
    );
    assert_eq!((second.bytes.0, second.time), (4 << 12, Timestamp(2)));
    ledger.rebuild(Timestamp(3), std::iter::empty());
    assert_eq!(pieces(&ledger), []);
    assert!(ledger.places().is_empty());
    assert!(
        ledger
            .reservations()
            .largest
            .iter()
            .all(|one| one.released == Some(Timestamp(3)))
    );
}
