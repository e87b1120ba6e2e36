//! Events made by hand: a story told call by call, with the sums kept alongside.

use crate::abi::{Abi, MapFlags, Prot};
use crate::decode::{Call, Mmap, RawCall};
use crate::mm::{Flow, Span, Totals, Verb};
use crate::report::{Report, Summary};
use crate::timeline::{
    Began, CallEvent, CheckCause, Checked, Ended, Event, EventKind, HighWater, Resident, Sink,
    TaskEnd, TaskOrigin, Timeline, TraceInfo,
};
use crate::units::{Addr, AddrRange, Bytes, SpaceId, Tid, Timestamp};

/// Events of a few spaces. Every event comes a microsecond after the one before. All memory is
/// private and anonymous.
#[derive(Default)]
pub(crate) struct Story {
    pub(crate) events: Vec<Event>,
    time: u64,
    seq: u64,
    now: std::collections::BTreeMap<u32, Totals>,
}

pub(crate) fn range(start: u64, pages: u64) -> AddrRange {
    AddrRange::covering(Addr(start), pages << 12).expect("a range")
}

pub(crate) fn info() -> TraceInfo {
    TraceInfo {
        command: vec!["./server".into()],
        backend: "ptrace".into(),
        started: "2026-11-23T16:20:00Z".into(),
        kernel: "6.18.0".into(),
        arch: "x86_64".into(),
        page_size: 4096,
        ..TraceInfo::default()
    }
}

impl Story {
    /// A program with `pages` committed when it begins.
    pub(crate) fn of_a_program(pages: u64) -> Story {
        let mut story = Story::default();
        story.space(1, 100, Began::Exec, pages);
        story.task(1, 100, 100, TaskOrigin::Launch);
        story
    }

    pub(crate) fn push(&mut self, space: u32, pid: i32, kind: EventKind) {
        self.time += 1000;
        self.seq += 1;
        self.events.push(Event {
            seq: self.seq,
            time: Timestamp(self.time),
            tid: Tid(pid),
            pid: Tid(pid),
            space: SpaceId(space),
            kind,
        });
    }

    fn sums(&self, space: u32) -> Totals {
        self.now.get(&space).copied().unwrap_or_default()
    }

    pub(crate) fn space(&mut self, id: u32, pid: i32, began: Began, pages: u64) {
        let mut now = Totals::default();
        shift(&mut now, 0, (pages << 12).cast_signed());
        self.now.insert(id, now);
        self.push(
            id,
            pid,
            EventKind::SpaceBegan {
                began,
                exe: "/srv/server".into(),
                now,
            },
        );
    }

    pub(crate) fn task(&mut self, space: u32, tid: i32, pid: i32, origin: TaskOrigin) {
        self.push(
            space,
            pid,
            EventKind::TaskBegan {
                parent: None,
                origin,
            },
        );
        if let Some(event) = self.events.last_mut() {
            event.tid = Tid(tid);
        }
    }

    /// A call of process 100 that did this, one verb a span.
    pub(crate) fn call(&mut self, space: u32, name: &str, spans: &[(Verb, AddrRange)]) {
        self.call_with(space, name, MapFlags::empty(), spans, Some(0));
    }

    pub(crate) fn call_with(
        &mut self,
        space: u32,
        name: &str,
        flags: MapFlags,
        spans: &[(Verb, AddrRange)],
        result: Option<i64>,
    ) {
        let before = self.sums(space);
        let mut now = before;
        let mut flow = Flow::default();
        for (verb, range) in spans {
            let len = range.len().cast_signed();
            let add = |sum: &mut Bytes| sum.0 += range.len();
            match verb {
                Verb::Reserve => (shift(&mut now, len, 0), add(&mut flow.reserve)),
                Verb::Map => (shift(&mut now, 0, len), add(&mut flow.map)),
                Verb::Commit => (shift(&mut now, -len, len), add(&mut flow.commit)),
                Verb::Decommit => (shift(&mut now, len, -len), add(&mut flow.decommit)),
                Verb::ReleaseReserved => (shift(&mut now, -len, 0), add(&mut flow.release)),
                Verb::ReleaseCommitted => (shift(&mut now, 0, -len), add(&mut flow.release)),
                Verb::Discard => ((), add(&mut flow.discard)),
                Verb::Grown => (shift(&mut now, 0, len), ()),
                Verb::MovedFrom | Verb::MovedTo => ((), ()),
            };
        }
        self.now.insert(space, now);
        let first = spans.first().map(|(_, range)| *range);
        let (addr, len) = first.map_or((0, 0), |range| (range.start().0, range.len()));
        let nr = crate::abi::call_by_name(name)
            .find_map(|info| info.x86_64)
            .expect("a call");
        let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | flags;
        let call = match name {
            "mmap" => Call::Mmap(Mmap {
                addr: Addr(0),
                len,
                prot: Prot::NONE,
                flags,
                fd: None,
                raw_fd: -1,
                offset: 0,
            }),
            "brk" => Call::Brk {
                addr: Addr(addr + len),
            },
            _ => Call::Munmap {
                addr: Addr(addr),
                len,
            },
        };
        let raw = RawCall {
            abi: Abi::X86_64,
            nr,
            args: [0, len, 0, flags.bits().into(), u64::MAX, 0],
        };
        let call = CallEvent {
            entered: Timestamp(self.time + 500),
            raw,
            fetched: Vec::new(),
            call,
            result,
            spans: spans
                .iter()
                .map(|(verb, range)| Span {
                    verb: *verb,
                    range: *range,
                })
                .collect(),
            flow,
            before,
            now,
            stack: None,
            failure: None,
        };
        self.push(space, 100, EventKind::Call(call));
    }

    pub(crate) fn resident(&mut self, space: u32, resident: Resident) {
        self.push(space, 100, EventKind::Sample(resident));
    }

    pub(crate) fn high_water(&mut self, space: u32, mapped: u64, resident: u64) {
        let (mapped, resident) = (Bytes(mapped), Bytes(resident));
        let high_water = HighWater { mapped, resident };
        self.push(space, 100, EventKind::HighWater(high_water));
    }

    pub(crate) fn checked(
        &mut self,
        space: u32,
        cause: CheckCause,
        drift: u64,
        charged: Option<Bytes>,
    ) {
        let now = self.sums(space);
        self.push(
            space,
            100,
            EventKind::Checked(Checked {
                cause: Some(cause),
                drift: Bytes(drift),
                resynced: Bytes(0),
                grown: Bytes(0),
                differences: Vec::new(),
                charged,
                before: now,
                now,
            }),
        );
    }

    pub(crate) fn end(&mut self, space: u32, ended: Ended) {
        let last = self.sums(space);
        self.push(space, 100, EventKind::SpaceEnded { ended, last });
    }

    pub(crate) fn exit(&mut self, space: u32, pid: i32, status: i32) {
        self.push(space, pid, EventKind::TaskEnded(TaskEnd::Exited(status)));
        self.end(space, Ended::Exit);
    }

    pub(crate) fn report(&self) -> Report {
        let timeline = Timeline::default();
        let mut summary = Summary::new(info());
        for event in &self.events {
            summary
                .event(event, &timeline)
                .expect("a summary takes all");
        }
        summary.finish(&timeline).expect("a summary takes all");
        summary.into_report()
    }
}

/// Adds to reserved and committed, and all that follows from them.
fn shift(totals: &mut Totals, reserved: i64, committed: i64) {
    let add = |sum: &mut Bytes, bytes: i64| sum.0 = sum.0.checked_add_signed(bytes).expect("a sum");
    add(&mut totals.mapped, reserved + committed);
    add(&mut totals.reserved, reserved);
    for sum in [&mut totals.committed, &mut totals.parts.anon] {
        add(sum, committed);
    }
    for sum in [&mut totals.charged_low, &mut totals.charged_high] {
        add(sum, committed);
    }
    totals.mappings = totals.mapped.0.div_ceil(1 << 20);
}
