//! The ledger of a report against the exact model, both led through the same random changes.

use std::sync::Arc;

use proptest::prelude::*;

use crate::abi::Prot;
use crate::decode::{Call, RawCall};
use crate::mm::{
    AddressSpace, Backing, Change, Charge, Context, Totals, Vma, VmaFlags, parse_maps,
};
use crate::report::Summary;
use crate::timeline::{Began, CallEvent, Event, EventKind, Sink, SpaceState, TaskOrigin, Timeline};
use crate::units::{Addr, Bytes, SpaceId, Tid, Timestamp};

use super::story::{info, range};

const A: u64 = 0x1000_0000;

fn change() -> impl Strategy<Value = Change> {
    let span = || (0..40u64, 1..12u64).prop_map(|(page, pages)| range(A + (page << 12), pages));
    let prot = || {
        prop_oneof![
            Just(Prot::NONE),
            Just(Prot::READ),
            Just(Prot::READ | Prot::WRITE)
        ]
    };
    let insert = (span(), prot()).prop_map(|(range, prot)| {
        Change::Insert(Vma {
            range,
            prot,
            shared: false,
            backing: Backing::Anon,
            flags: VmaFlags::default(),
            charge: Charge::No,
        })
    });
    prop_oneof![
        4 => insert,
        2 => span().prop_map(Change::Remove),
        3 => (span(), prot()).prop_map(|(range, prot)| Change::Protect { range, prot }),
        1 => span().prop_map(Change::Discard),
        1 => (span(), 60..90u64, any::<bool>()).prop_map(|(from, page, keep_source)| {
            Change::Move { from, to: Addr(A + (page << 12)), keep_source }
        }),
    ]
}

fn event(time: u64, kind: EventKind) -> Event {
    let (tid, pid, space) = (Tid(100), Tid(100), SpaceId(1));
    Event {
        seq: time,
        time: Timestamp(time),
        tid,
        pid,
        space,
        kind,
    }
}

fn call(change: Change, model: &mut AddressSpace) -> CallEvent {
    let mut spans = Vec::new();
    let before = model.totals();
    let flow = model.apply(change, &mut spans);
    CallEvent {
        entered: Timestamp(0),
        raw: RawCall {
            abi: crate::abi::Abi::X86_64,
            nr: 9,
            args: [0; 6],
        },
        fetched: Vec::new(),
        call: Call::Other,
        result: Some(0),
        spans,
        flow,
        before,
        now: model.totals(),
        stack: None,
        failure: None,
    }
}

fn highest(seen: &[Totals], figure: fn(&Totals) -> Bytes) -> Bytes {
    seen.iter().map(figure).max().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn places_and_peaks_follow_the_model(changes in prop::collection::vec(change(), 1..40)) {
        let maps = "10000000-10004000 rw-p 00000000 00:00 0\n10010000-10020000 ---p 00000000 00:00 0\n";
        let snapshot = parse_maps(maps.as_bytes())?;
        let model = AddressSpace::from_snapshot(&snapshot);
        let begin = model.totals();
        let mut timeline = Timeline::default();
        timeline.spaces.insert(SpaceId(1), SpaceState {
            pid: Tid(100),
            exe: Arc::from("/bin/true"),
            comm: Arc::from("true"),
            began: Began::Attach,
            since: Timestamp(0),
            model,
            context: Context::default(),
            known: true,
        });
        let mut summary = Summary::new(info());
        let began = EventKind::SpaceBegan { began: Began::Attach, exe: "/bin/true".into(), now: begin };
        summary.event(&event(1, began), &timeline)?;
        let task = EventKind::TaskBegan { parent: None, origin: TaskOrigin::Attach };
        summary.event(&event(2, task), &timeline)?;
        // From here on the summary sees no model: its ledger must do with the spans.
        let blind = Timeline::default();
        let mut seen = vec![begin];
        let mut flow_sum = 0i128;
        for (i, change) in changes.into_iter().enumerate() {
            let Some(state) = timeline.spaces.get_mut(&SpaceId(1)) else { break };
            let call = call(change, &mut state.model);
            seen.push(call.now);
            let flow = call.flow;
            flow_sum += i128::from(flow.reserve.0) + i128::from(flow.map.0) - i128::from(flow.release.0);
            summary.event(&event(3 + i as u64, EventKind::Call(call)), &blind)?;
        }
        let report = summary.into_report();
        let space = &report.spaces[0];
        super::sums_hold(space);
        let last = seen.last().copied().unwrap_or_default();
        prop_assert_eq!((space.mapped.end, space.reserved.end), (last.mapped, last.reserved));
        prop_assert_eq!(space.mapped.peak, highest(&seen, |totals| totals.mapped));
        prop_assert_eq!(space.reserved.peak, highest(&seen, |totals| totals.reserved));
        prop_assert_eq!(space.committed.peak, highest(&seen, |totals| totals.committed));
        prop_assert_eq!(i128::from(begin.mapped.0) + flow_sum, i128::from(last.mapped.0));
        let reservations = &space.detail.as_ref().expect("few spaces").reservations;
        prop_assert!(reservations.ever_committed <= reservations.bytes);
        for one in &reservations.largest {
            prop_assert!(one.committed <= one.ever_committed && one.committed <= one.mapped, "{:?}", one);
            prop_assert!(one.ever_committed <= one.bytes && one.mapped <= one.bytes, "{:?}", one);
        }
    }
}
