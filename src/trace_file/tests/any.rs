//! Any observation, likely and unlikely.

use std::sync::Arc;

use proptest::option;
use proptest::prelude::*;

use crate::abi::{Abi, Prot};
use crate::decode::{Fetched, FetchedData, RawCall};
use crate::mm::{Evidence, FileId, MapsEntry, SmapsInfo, Snapshot};
use crate::timeline::*;
use crate::units::{Addr, AddrRange, Bytes, SpaceId, StackId, Tid, Timestamp};

fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![
        Just(0),
        0..100u64,
        (0..64u64).prop_map(|page| 0x7fff_0000_0000 + (page << 12)),
        any::<u64>(),
    ]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes(0)),
        (0..5000u64).prop_map(|kb| Bytes(kb << 10)),
        number().prop_map(Bytes)
    ]
}

fn tid() -> impl Strategy<Value = Tid> {
    prop_oneof![(1..4i32).prop_map(Tid), any::<i32>().prop_map(Tid)]
}

fn space() -> impl Strategy<Value = SpaceId> {
    prop_oneof![(1..3u32).prop_map(SpaceId), any::<u32>().prop_map(SpaceId)]
}

fn time() -> impl Strategy<Value = Timestamp> + Clone {
    number().prop_map(Timestamp)
}

fn name() -> impl Strategy<Value = Arc<str>> {
    let any_name: BoxedStrategy<String> = prop_oneof![
        Just(String::new()),
        Just("[heap]".to_owned()),
        Just("/usr/lib/libc.so.6 (deleted)\\012\u{1b}[2J".to_owned()),
        any::<String>(),
        Just("x".repeat(5000)),
    ]
    .boxed();
    any_name.prop_map(Arc::from)
}

fn range() -> impl Strategy<Value = AddrRange> {
    let pages = prop_oneof![0..40u64, 0..(1u64 << 51)];
    let range = |(start, len): (u64, u64)| AddrRange::covering(Addr(start << 12), len << 12);
    (pages, prop_oneof![1..5u64, 1..(1u64 << 50)]).prop_filter_map("it wraps", range)
}

fn call() -> impl Strategy<Value = RawCall> {
    let abi = prop_oneof![Just(Abi::X86_64), Just(Abi::I386)];
    let args = prop_oneof![
        prop::array::uniform6(number()),
        number().prop_map(|addr| [addr, 0x1000, 3, 0x22, u64::MAX, 0]),
    ];
    (abi, prop_oneof![9..12u32, any::<u32>()], args).prop_map(|(abi, nr, args)| RawCall {
        abi,
        nr,
        args,
    })
}

fn fetched() -> impl Strategy<Value = Vec<Fetched>> {
    let some_bytes = prop::collection::vec(any::<u8>(), 0..20);
    let data = prop_oneof![
        some_bytes.clone().prop_map(FetchedData::Path),
        some_bytes.clone().prop_map(FetchedData::Memory),
        (some_bytes, any::<bool>())
            .prop_map(|(bytes, truncated)| FetchedData::String { bytes, truncated }),
        Just(FetchedData::Unreadable),
    ];
    let one = (0..6u8, any::<bool>(), data).prop_map(|(arg, at_exit, data)| Fetched {
        arg,
        at_exit,
        data,
    });
    prop_oneof![2 => Just(Vec::new()).boxed(), 1 => prop::collection::vec(one, 0..5).boxed()]
}

fn entry() -> impl Strategy<Value = MapsEntry> {
    let file = prop_oneof![
        Just(FileId::default()),
        (any::<u32>(), 0..3u32, number()).prop_map(|(major, minor, inode)| FileId {
            major,
            minor,
            inode
        }),
    ];
    (range(), any::<u32>(), any::<bool>(), number(), file, name()).prop_map(
        |(range, prot, shared, offset, file, name)| {
            let prot = Prot::from_bits_retain(prot);
            MapsEntry {
                range,
                prot,
                shared,
                offset,
                file,
                name,
            }
        },
    )
}

fn smaps() -> impl Strategy<Value = SmapsInfo> {
    let amounts = prop::array::uniform5(bytes());
    (amounts, prop::array::uniform6(any::<bool>())).prop_map(|(amounts, flags)| {
        let [resident, anonymous, swap, lazy_free, locked] = amounts;
        let [charged, noreserve, growsdown, dontfork, sealed, hugetlb] = flags;
        SmapsInfo {
            resident,
            anonymous,
            swap,
            lazy_free,
            locked,
            charged,
            noreserve,
            growsdown,
            dontfork,
            sealed,
            hugetlb,
        }
    })
}

/// Half of them are cut from the same list, as the snapshots of one program are.
fn snapshot() -> impl Strategy<Value = Snapshot> {
    let family = (0..30u64, 0..30u64, any::<bool>()).prop_map(|(from, len, odd)| {
        let keep = |i: &u64| !odd || !i.is_multiple_of(5);
        let entry = |i| MapsEntry {
            range: AddrRange::covering(Addr(i << 16), (i % 4 + 1) << 12).expect("it is one"),
            prot: Prot::from_bits_retain((i % 8) as u32),
            shared: false,
            offset: (i % 3) << 12,
            file: FileId::default(),
            name: "[anon]".into(),
        };
        (from..from + len)
            .filter(keep)
            .map(entry)
            .collect::<Vec<_>>()
    });
    let entries = prop_oneof![family.boxed(), prop::collection::vec(entry(), 0..6).boxed()];
    entries
        .prop_flat_map(|entries| {
            let full = prop::collection::vec(smaps(), entries.len());
            (
                Just(entries),
                prop_oneof![Just(Vec::new()).boxed(), full.boxed()],
            )
        })
        .prop_map(|(entries, smaps)| Snapshot { entries, smaps })
}

fn call_done() -> impl Strategy<Value = CallDone> {
    let one = (range(), prop::collection::vec(entry(), 0..3))
        .prop_map(|(range, entries)| Evidence { range, entries });
    let evidence =
        prop_oneof![3 => Just(Vec::new()).boxed(), 1 => prop::collection::vec(one, 0..3).boxed()];
    let result = prop_oneof![Just(0i64), -200..0i64, number().prop_map(u64::cast_signed)];
    (
        tid(),
        space(),
        time(),
        call(),
        fetched(),
        result,
        evidence,
        prop::bool::weighted(0.1),
        (stack(), refused()),
    )
        .prop_map(
            |(
                tid,
                space,
                entered,
                call,
                fetched,
                result,
                evidence,
                overlapped,
                (stack, refused),
            )| CallDone {
                tid,
                space,
                entered,
                call,
                fetched,
                result,
                evidence,
                overlapped,
                stack,
                refused,
            },
        )
}

fn stack() -> impl Strategy<Value = Stack> {
    prop_oneof![
        Just(Stack::Absent),
        (1..=u32::MAX).prop_map(|id| Stack::Known(StackId(id))),
    ]
}

fn refused() -> impl Strategy<Value = Option<Box<Figures>>> {
    let numbers = prop::collection::vec(option::of(number()), Figures::COUNT);
    let figures = numbers.prop_map(|numbers| {
        let numbers = numbers.try_into().expect("as many as there are");
        Box::new(Figures::of_numbers(numbers))
    });
    prop_oneof![3 => Just(None).boxed(), 1 => figures.prop_map(Some).boxed()]
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<u32>(), number()).prop_map(|(module, offset)| Frame::Module {
            module: ModuleId(module),
            offset,
        }),
        (space(), number()).prop_map(|(space, pc)| Frame::Bare {
            space,
            pc: Addr(pc)
        }),
    ]
}

fn touched() -> impl Strategy<Value = Touched> {
    (tid(), space(), any::<u64>(), any::<bool>(), 1u32.., stack()).prop_map(
        |(tid, space, addr, write, stands_for, stack)| Touched {
            tid,
            space,
            addr: Addr(addr),
            write,
            stands_for,
            stack,
        },
    )
}

fn stack_seen() -> impl Strategy<Value = StackSeen> {
    use StackEnd::*;
    let end = prop::sample::select(vec![Root, Cut, Lost, Deep]);
    (any::<u32>(), end, prop::collection::vec(frame(), 0..5)).prop_map(|(id, end, frames)| {
        StackSeen {
            id: StackId(id),
            frames: frames.into(),
            end,
        }
    })
}

fn names_seen() -> impl Strategy<Value = NamesSeen> {
    let file = option::of("[a-z/]{1,9}").prop_map(|file| file.map(Arc::from));
    let one = (name(), number(), file, any::<u32>()).prop_map(|(function, offset, file, line)| {
        FrameName {
            function,
            offset,
            file,
            line,
        }
    });
    let named = (frame(), prop::collection::vec(one, 0..3));
    prop::collection::vec(named, 0..3).prop_map(|names| NamesSeen {
        names: names
            .into_iter()
            .map(|(frame, names)| (frame, names.into()))
            .collect(),
    })
}

fn space_began() -> impl Strategy<Value = SpaceBegan> {
    let began = prop_oneof![
        Just(Began::Exec),
        Just(Began::Attach),
        option::of(space()).prop_map(|parent| Began::Fork { parent }),
    ];
    let brk = option::of(number().prop_map(Addr));
    (
        space(),
        tid(),
        began,
        name(),
        snapshot(),
        any::<bool>(),
        brk,
        any::<bool>(),
    )
        .prop_map(
            |(space, pid, began, exe, snapshot, known, brk_start, read_implies_exec)| SpaceBegan {
                space,
                pid,
                began,
                exe,
                snapshot,
                known,
                brk_start,
                read_implies_exec,
            },
        )
}

fn task_began() -> impl Strategy<Value = TaskBegan> {
    use TaskOrigin::*;
    let origin = prop::sample::select(vec![Launch, Attach, Thread, Fork, Vfork, SharedSpace]);
    (tid(), tid(), space(), option::of(tid()), origin, name()).prop_map(
        |(tid, pid, space, parent, origin, comm)| TaskBegan {
            tid,
            pid,
            space,
            parent,
            origin,
            comm,
        },
    )
}

fn resident() -> impl Strategy<Value = Resident> {
    (bytes(), prop::array::uniform6(option::of(bytes()))).prop_map(|(now, rest)| {
        let [anon, file, shmem, high_water, mapped, swap] = rest;
        Resident {
            now,
            anon,
            file,
            shmem,
            high_water,
            mapped,
            swap,
        }
    })
}

fn task_end() -> impl Strategy<Value = TaskEnd> {
    prop_oneof![
        any::<i32>().prop_map(TaskEnd::Exited),
        (any::<i32>(), any::<bool>()).prop_map(|(signal, core)| TaskEnd::Killed { signal, core }),
        Just(TaskEnd::Gone),
    ]
}

fn signal() -> impl Strategy<Value = SignalSeen> {
    (
        tid(),
        any::<i32>(),
        any::<bool>(),
        any::<i32>(),
        any::<i32>(),
        prop::array::uniform4(number()),
    )
        .prop_map(|(tid, signal, stopped, code, errno, fields)| SignalSeen {
            tid,
            signal,
            stopped,
            code,
            errno,
            fields,
        })
}

fn file_seen() -> impl Strategy<Value = FileSeen> {
    let build_id = prop::collection::vec(any::<u8>(), 0..24);
    let file = (any::<u32>(), any::<u32>(), any::<u64>());
    (space(), name(), file, build_id, option::of("[ -~]{1,12}")).prop_map(
        |(space, path, (major, minor, inode), build_id, version)| FileSeen {
            space,
            path,
            file: FileId {
                major,
                minor,
                inode,
            },
            build_id: build_id.into(),
            version: version.map(Arc::from),
        },
    )
}

/// Any observation at any time.
pub(crate) fn observation() -> impl Strategy<Value = Observation> {
    use CheckCause::*;
    let cause = prop::sample::select(vec![Exit, Exec, Detach, Asked, Doubt]);
    let ended = prop::sample::select(vec![Ended::Exit, Ended::Exec, Ended::Detach, Ended::Cut]);
    let what = prop_oneof![
        1 => space_began().prop_map(Observed::SpaceBegan),
        1 => task_began().prop_map(Observed::TaskBegan),
        1 => (tid(), space(), call(), fetched()).prop_map(|(tid, space, call, fetched)| {
            Observed::CallEntered(CallEntered { tid, space, call, fetched })
        }),
        4 => call_done().prop_map(Observed::Call),
        1 => (tid(), space(), time(), call(), fetched()).prop_map(|(tid, space, entered, call, fetched)| {
            Observed::CallCut { tid, space, entered, call, fetched }
        }),
        2 => (space(), cause, snapshot())
            .prop_map(|(space, cause, snapshot)| Observed::Checkpoint { space, cause, snapshot }),
        1 => (space(), resident()).prop_map(|(space, resident)| Observed::Resident { space, resident }),
        1 => touched().prop_map(Observed::Touched),
        1 => (space(), range()).prop_map(|(space, stack)| Observed::Grown { space, stack }),
        1 => (space(), any::<u64>(), any::<u64>()).prop_map(|(space, mapped, resident)| {
            let high_water = HighWater { mapped: Bytes(mapped), resident: Bytes(resident) };
            Observed::HighWater { space, high_water }
        }),
        1 => (tid(), tid(), name()).prop_map(|(tid, former, comm)| Observed::Exec { tid, former, comm }),
        1 => (tid(), task_end()).prop_map(|(tid, end)| Observed::TaskEnded { tid, end }),
        1 => (space(), ended).prop_map(|(space, ended)| Observed::SpaceEnded { space, ended }),
        1 => signal().prop_map(Observed::Signal),
        1 => (option::of(space()), any::<String>()).prop_map(|(space, text)| Observed::Note { space, text }),
        1 => any::<u64>().prop_map(Observed::Lost),
        1 => file_seen().prop_map(Observed::File),
        1 => (any::<u64>(), name()).prop_map(|(inode, path)| {
            let file = FileId { inode, ..FileId::default() };
            Observed::Module(Module { path, file })
        }),
        1 => stack_seen().prop_map(Observed::Stack),
        1 => names_seen().prop_map(Observed::Names),
    ];
    (time(), what).prop_map(|(time, what)| Observation { time, what })
}
