//! A short trace with a bit of everything, for the tests.

use super::*;
use crate::abi::{Abi, MapFlags, Prot};
use crate::decode::{Call, Fd, Mmap, Mremap, RawCall};
use crate::mm::{AddressSpace, Context, Difference, Flow, Span, Verb};
use crate::timeline::{CallEvent, SpaceState, Task};
use crate::units::{Addr, AddrRange, Bytes, Timestamp};

const MIB: u64 = 1 << 20;

/// A server with one thread beside its leader.
pub(super) fn timeline(comm: &str) -> Timeline {
    let mut timeline = Timeline::default();
    let (pid, space) = (Tid(16731), SpaceId(1));
    for tid in [pid, Tid(16733)] {
        let comm = comm.into();
        timeline.tasks.insert(tid, Task { pid, space, comm });
    }
    let state = SpaceState {
        pid,
        exe: "/srv/server".into(),
        comm: comm.into(),
        began: Began::Exec,
        since: Timestamp(0),
        model: AddressSpace::default(),
        context: Context::default(),
        known: true,
    };
    timeline.spaces.insert(space, state);
    timeline
}

fn event(ms: u64, kind: EventKind) -> Event {
    Event {
        seq: 1,
        time: Timestamp(ms * 1_000_000),
        tid: Tid(16731),
        pid: Tid(16731),
        space: SpaceId(1),
        kind,
    }
}

fn sums(reserved: u64, committed: u64) -> Totals {
    let (reserved, committed) = (Bytes(reserved), Bytes(committed));
    let mapped = reserved + committed;
    Totals {
        mapped,
        reserved,
        committed,
        ..Totals::default()
    }
}

fn call(ms: u64, nr: u32, call: Call, result: i64, flow: Flow, now: Totals) -> Event {
    let raw = RawCall {
        abi: Abi::X86_64,
        nr,
        args: [0; 6],
    };
    event(
        ms,
        EventKind::Call(CallEvent {
            entered: Timestamp(ms * 1_000_000),
            raw,
            fetched: Vec::new(),
            call,
            result: Some(result),
            spans: Vec::new(),
            flow,
            before: now,
            now,
            stack: None,
            failure: None,
        }),
    )
}

fn mmap(len: u64, prot: Prot, flags: MapFlags, path: Option<&[u8]>) -> Call {
    Call::Mmap(Mmap {
        addr: Addr(0),
        len,
        prot,
        flags,
        fd: path.map(|path| Fd {
            number: 3,
            path: Some(path.to_vec()),
        }),
        raw_fd: 3,
        offset: if path.is_some() { 0x26000 } else { 0 },
    })
}

/// The beginning of a Go server, and what else may happen.
pub(super) fn story(path: &[u8]) -> Vec<Event> {
    let anon = MapFlags::PRIVATE | MapFlags::ANONYMOUS;
    let rw = Prot::READ | Prot::WRITE;
    let (addr, len) = (Addr(0x1002_a340_0000), 4 * MIB);
    let flow = Flow::default();
    let now = sums(64 * MIB, 2 * MIB + 4096);
    let after = sums(60 * MIB, 6 * MIB + 4096);
    let range = AddrRange::covering(addr, len).unwrap();
    let moved = vec![
        Span {
            range,
            verb: Verb::MovedFrom,
        },
        Span {
            range,
            verb: Verb::MovedTo,
        },
    ];
    let mut mremap = call(
        15,
        25,
        Call::Mremap(Mremap {
            old_addr: addr,
            old_len: len,
            new_len: 2 * len,
            flags: crate::abi::MremapFlags::MAYMOVE,
            new_addr: Addr(0),
        }),
        0x7f00_0000_0000,
        Flow {
            map: Bytes(len),
            ..flow
        },
        after,
    );
    if let EventKind::Call(mremap) = &mut mremap.kind {
        mremap.spans = moved;
    }
    let mut thread = event(
        16,
        EventKind::TaskBegan {
            parent: Some(Tid(16731)),
            origin: TaskOrigin::Thread,
        },
    );
    thread.tid = Tid(16733);
    let difference = Difference {
        range,
        model: "rw-p".into(),
        kernel: "---p".into(),
    };
    vec![
        event(
            1,
            EventKind::SpaceBegan {
                began: Began::Exec,
                exe: String::from_utf8_lossy(path).into(),
                now: sums(0, 2 * MIB),
            },
        ),
        call(
            11,
            9,
            mmap(64 * MIB, Prot::NONE, anon, None),
            0x1002_a000_0000,
            Flow {
                reserve: Bytes(64 * MIB),
                ..flow
            },
            now,
        ),
        call(
            12,
            9,
            mmap(len, rw, anon | MapFlags::FIXED, None),
            addr.0 as i64,
            Flow {
                commit: Bytes(len),
                ..flow
            },
            after,
        ),
        call(
            12,
            9,
            mmap(
                2 * MIB,
                Prot::READ,
                MapFlags::PRIVATE | MapFlags::DENYWRITE,
                Some(path),
            ),
            0x7fff_f7c0_0000,
            Flow {
                map: Bytes(2 * MIB),
                ..flow
            },
            after,
        ),
        call(
            12,
            9,
            mmap(2 * MIB, rw, anon | MapFlags::FIXED, None),
            0x7fff_f7c0_0000,
            Flow {
                map: Bytes(2 * MIB),
                release: Bytes(2 * MIB),
                ..flow
            },
            after,
        ),
        call(
            13,
            10,
            Call::Mprotect {
                addr,
                len: 12288,
                prot: Prot::READ,
                pkey: None,
            },
            0,
            flow,
            after,
        ),
        call(
            13,
            28,
            Call::Madvise {
                addr,
                len: 12288,
                advice: 4,
            },
            0,
            Flow {
                discard: Bytes(12288),
                ..flow
            },
            after,
        ),
        call(
            13,
            28,
            Call::Madvise {
                addr,
                len,
                advice: 14,
            },
            0,
            flow,
            after,
        ),
        call(
            13,
            12,
            Call::Brk { addr: Addr(0) },
            0x55_5555_5000,
            flow,
            after,
        ),
        call(
            14,
            9,
            mmap(1 << 46, rw, anon | MapFlags::NORESERVE, None),
            -12,
            flow,
            after,
        ),
        call(
            14,
            11,
            Call::Munmap {
                addr,
                len: 35 * MIB,
            },
            0,
            Flow {
                release: Bytes(35 * MIB),
                ..flow
            },
            after,
        ),
        mremap,
        thread,
        event(
            17,
            EventKind::Signal(SignalSeen {
                tid: Tid(16731),
                signal: 11,
                stopped: false,
                code: 2,
                errno: 0,
                fields: [0x1002_a000_0000, 0, 0, 0],
            }),
        ),
        event(18, EventKind::Note("the log is \x1b[31mfull".into())),
        event(
            19,
            EventKind::Checked(Checked {
                cause: Some(CheckCause::Exit),
                drift: Bytes(8192),
                resynced: Bytes(8192),
                grown: Bytes(0),
                differences: vec![difference],
                charged: None,
                before: after,
                now: after,
            }),
        ),
        event(
            2034,
            EventKind::TaskEnded(TaskEnd::Killed {
                signal: 15,
                core: false,
            }),
        ),
    ]
}

pub(super) fn shown(style: Style, comm: &str, path: &[u8]) -> String {
    let timeline = timeline(comm);
    let mut out = Vec::new();
    let mut pretty = Pretty::new(&mut out, style, CallSet::ALL);
    for event in story(path) {
        pretty.event(&event, &timeline).unwrap();
    }
    pretty.finish(&timeline).unwrap();
    drop(pretty);
    String::from_utf8(out).unwrap()
}

pub(super) const LIBC: &[u8] = b"/usr/lib/x86_64-linux-gnu/libc.so.6";
