//! What the tracker concludes: strace lines and maps in, events and maps out.

use crate::abi::{Abi, CALLS};
use crate::decode::RawCall;
use crate::mm::{Snapshot, Verb, parse_maps, parse_smaps};
use crate::units::{Addr, AddrRange, Bytes, SpaceId, Tid, Timestamp};

use super::{
    Began, CallDone, CallEvent, CheckCause, Checked, Ended, Event, EventKind, Observation,
    Observed, SpaceBegan, TaskBegan, TaskEnd, TaskOrigin, Timeline,
};

const NAMES: &[(&str, u64)] = &[
    ("PROT_NONE", 0),
    ("PROT_READ", 1),
    ("PROT_WRITE", 2),
    ("MAP_PRIVATE", 0x2),
    ("MAP_FIXED", 0x10),
    ("MAP_ANONYMOUS", 0x20),
    ("MAP_GROWSDOWN", 0x100),
    ("MAP_NORESERVE", 0x4000),
];

#[track_caller]
fn value(text: &str) -> u64 {
    let one = |word: &str| {
        let named = NAMES.iter().find(|(name, _)| *name == word);
        let hex = || u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
        let decimal = || word.parse::<i64>().ok().map(|n| n as u64);
        let known = named.map(|(_, value)| *value).or_else(hex);
        known.or_else(decimal).expect("a number or a known name")
    };
    text.split('|').fold(0, |bits, word| bits | one(word))
}

/// `munmap(0x1000, 0x1000)` as registers.
#[track_caller]
fn registers(text: &str) -> RawCall {
    let (name, rest) = text.split_once('(').expect("a call");
    let info = CALLS.iter().find(|info| info.name == name);
    let mut args = [0; 6];
    let given = rest.trim_end_matches(')').split(", ");
    for (arg, given) in args.iter_mut().zip(given.filter(|given| !given.is_empty())) {
        *arg = value(given);
    }
    RawCall {
        abi: Abi::X86_64,
        nr: info.and_then(|info| info.x86_64).expect("a known call"),
        args,
    }
}

#[track_caller]
fn snapshot(text: &str) -> Snapshot {
    match text.contains("VmFlags") {
        true => parse_smaps(text.as_bytes()).expect("lines of smaps"),
        false => parse_maps(text.as_bytes()).expect("lines of maps"),
    }
}

/// A timeline and what came out of it.
#[derive(Default)]
struct Trace {
    timeline: Timeline,
    events: Vec<Event>,
    time: u64,
}

impl Trace {
    /// Process 100 in space 1.
    fn of_a_program(maps: &str) -> Trace {
        let mut trace = Trace::default();
        trace.space(1, 100, Began::Exec, maps);
        trace.task(100, 100, 1, None, TaskOrigin::Launch);
        trace
    }

    fn see(&mut self, what: Observed) {
        self.time += 1;
        let time = Timestamp(self.time);
        let observation = Observation { time, what };
        self.timeline.observe(observation, &mut self.events);
    }

    fn space(&mut self, space: u32, pid: i32, began: Began, maps: &str) {
        self.see(Observed::SpaceBegan(SpaceBegan {
            space: SpaceId(space),
            pid: Tid(pid),
            began,
            exe: "/bin/program".into(),
            snapshot: snapshot(maps),
            known: true,
            brk_start: None,
            read_implies_exec: false,
        }));
    }

    fn task(&mut self, tid: i32, pid: i32, space: u32, parent: Option<i32>, origin: TaskOrigin) {
        self.see(Observed::TaskBegan(TaskBegan {
            tid: Tid(tid),
            pid: Tid(pid),
            space: SpaceId(space),
            parent: parent.map(Tid),
            origin,
            comm: "program".into(),
        }));
    }

    /// A finished call, `munmap(0x1000, 0x1000) = 0`, for which the kernel was asked nothing.
    #[track_caller]
    fn call(&mut self, tid: i32, line: &str) {
        let (call, result) = line.split_once(" = ").expect("a result");
        let space = self.timeline.tasks[&Tid(tid)].space;
        self.see(Observed::Call(CallDone {
            tid: Tid(tid),
            space,
            entered: Timestamp(self.time),
            call: registers(call),
            fetched: Vec::new(),
            result: value(result).cast_signed(),
            evidence: Vec::new(),
            overlapped: false,
            stack: crate::timeline::Stack::Absent,
            refused: None,
        }));
    }

    /// A call that was never seen to return.
    #[track_caller]
    fn cut(&mut self, tid: i32, call: &str) {
        let space = self.timeline.tasks[&Tid(tid)].space;
        self.see(Observed::CallCut {
            tid: Tid(tid),
            space,
            entered: Timestamp(self.time),
            call: registers(call),
            fetched: Vec::new(),
        });
    }

    #[track_caller]
    fn check(&mut self, space: u32, cause: CheckCause, maps: &str) -> Checked {
        self.see(Observed::Checkpoint {
            space: SpaceId(space),
            cause,
            snapshot: snapshot(maps),
        });
        match self.events.last().map(|event| &event.kind) {
            Some(EventKind::Checked(checked)) => checked.clone(),
            other => panic!("no comparison: {other:?}"),
        }
    }

    fn end_space(&mut self, space: u32, ended: Ended) {
        let space = SpaceId(space);
        self.see(Observed::SpaceEnded { space, ended });
    }

    /// The last call reported.
    #[track_caller]
    fn last_call(&self) -> &CallEvent {
        let mut kinds = self.events.iter().rev().map(|event| &event.kind);
        kinds
            .find_map(|kind| match kind {
                EventKind::Call(call) => Some(call),
                _ => None,
            })
            .expect("a call")
    }

    /// The model: `10000-14000 rw-p`.
    fn maps(&self, space: u32) -> String {
        let state = &self.timeline.spaces[&SpaceId(space)];
        assert_eq!(state.model.totals(), state.model.recount());
        let line = |vma: &crate::mm::Vma| {
            let entry = vma.to_entry().to_string();
            let rights = entry.split(' ').nth(1).unwrap_or_default().to_owned();
            format!("{} {rights}\n", vma.range)
        };
        state.model.vmas().map(line).collect()
    }
}

const HEAP: &str = "00010000-00014000 rw-p 00000000 00:00 0 [heap]\n";

#[test]
fn a_fork_inherits_what_maps_does_not_show_and_goes_its_own_way() {
    let mut trace = Trace::of_a_program(HEAP);
    trace.call(
        100,
        "mmap(0x20000, 0x2000, PROT_READ|PROT_WRITE, \
         MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED|MAP_NORESERVE, -1, 0) = 0x20000",
    );
    let parent = Some(SpaceId(1));
    let maps = format!("{HEAP}00020000-00022000 rw-p 00000000 00:00 0 \n");
    trace.space(2, 101, Began::Fork { parent }, &maps);
    trace.task(101, 101, 2, Some(100), TaskOrigin::Fork);
    let noreserve = |trace: &Trace, space| {
        let state = &trace.timeline.spaces[&SpaceId(space)];
        state.model.at(Addr(0x20000)).map(|vma| vma.flags.noreserve)
    };
    assert_eq!(noreserve(&trace, 2), Some(true));

    trace.call(101, "munmap(0x20000, 0x1000) = 0");
    assert_eq!(trace.maps(2), "10000-14000 rw-p\n21000-22000 rw-p\n");
    assert_eq!(trace.maps(1), "10000-14000 rw-p\n20000-22000 rw-p\n");
    // Its break is the parent's.
    trace.call(101, "brk(0x15000) = 0x15000");
    assert_eq!(trace.maps(2), "10000-15000 rw-p\n21000-22000 rw-p\n");
}

#[test]
fn an_exec_replaces_the_space() {
    let mut trace = Trace::of_a_program(HEAP);
    // Called by a thread, which becomes its process's leader.
    trace.task(101, 100, 1, Some(100), TaskOrigin::Thread);
    let (tid, former) = (Tid(100), Tid(101));
    trace.see(Observed::TaskEnded {
        tid,
        end: TaskEnd::Gone,
    });
    let comm = "other".into();
    trace.see(Observed::Exec { tid, former, comm });
    trace.end_space(1, Ended::Exec);
    trace.space(
        2,
        100,
        Began::Exec,
        "00040000-00041000 r-xp 00000000 08:01 7 /bin/other\n",
    );
    let task = &trace.timeline.tasks[&tid];
    assert_eq!((task.space, &*task.comm), (SpaceId(2), "other"));
    assert!(!trace.timeline.tasks.contains_key(&former));
    assert!(!trace.timeline.spaces.contains_key(&SpaceId(1)));
    trace.call(100, "munmap(0x40000, 0x1000) = 0");
    assert_eq!(trace.maps(2), "");
}

#[test]
fn a_vfork_child_works_on_its_parents_space_until_it_calls_exec() {
    let mut trace = Trace::of_a_program(HEAP);
    trace.task(101, 101, 1, Some(100), TaskOrigin::Vfork);
    trace.call(101, "munmap(0x13000, 0x1000) = 0");
    assert_eq!(trace.maps(1), "10000-13000 rw-p\n");
    let (tid, former, comm) = (Tid(101), Tid(101), "child".into());
    trace.see(Observed::Exec { tid, former, comm });
    trace.space(2, 101, Began::Exec, HEAP);
    trace.call(101, "munmap(0x10000, 0x4000) = 0");
    assert_eq!((trace.maps(2), trace.timeline.spaces.len()), ("".into(), 2));
    assert_eq!(trace.maps(1), "10000-13000 rw-p\n");
}

#[test]
fn what_a_cut_call_did_is_told_by_the_next_look() {
    let mut trace = Trace::of_a_program(HEAP);
    trace.cut(100, "munmap(0x12000, 0x1000)");
    assert_eq!(trace.maps(1), "10000-14000 rw-p\n", "not known yet");
    let checked = trace.check(
        1,
        CheckCause::Exit,
        "00010000-00012000 rw-p 00000000 00:00 0 [heap]\n\
         00013000-00014000 rw-p 00000000 00:00 0 [heap]\n",
    );
    assert_eq!((checked.drift.0, checked.resynced.0), (0, 0));
    let call = trace.last_call();
    assert_eq!(call.result, None);
    assert_eq!(call.flow.release.0, 0x1000);
    assert_eq!(call.before.mapped.0 - call.now.mapped.0, 0x1000);
}

#[test]
fn a_cut_call_that_did_nothing_is_told_too_and_so_is_one_never_looked_at() {
    let mut trace = Trace::of_a_program(HEAP);
    trace.cut(100, "munmap(0x12000, 0x1000)");
    assert_eq!(trace.check(1, CheckCause::Asked, HEAP).drift.0, 0);
    assert_eq!(trace.last_call().flow, Default::default());
    trace.cut(100, "munmap(0x13000, 0x1000)");
    trace.end_space(1, Ended::Exit);
    let told = |event: &&Event| matches!(event.kind, EventKind::Call(_));
    assert_eq!(trace.events.iter().filter(told).count(), 2);
}

#[test]
fn a_stack_that_a_cut_call_made_is_its_doing_and_no_growth() {
    let mut trace = Trace::of_a_program(HEAP);
    trace.cut(
        100,
        "mmap(0x20000, 0x2000, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED|MAP_GROWSDOWN, -1, 0)",
    );
    let checked = trace.check(
        1,
        CheckCause::Doubt,
        "00010000-00014000 rw-p 00000000 00:00 0 [heap]\n\
         VmFlags: rd wr mr mw me ac \n\
         00020000-00022000 r--p 00000000 00:00 0 \n\
         VmFlags: rd mr mw me gd \n",
    );
    assert_eq!((checked.resynced.0, checked.grown.0), (0, 0));
    assert_eq!(trace.last_call().flow.map.0, 0x2000);
}

#[test]
fn a_difference_is_drift_unless_it_was_looked_for() {
    let other = "00010000-00014000 r--p 00000000 00:00 0 [heap]\n";
    let mut trace = Trace::of_a_program(HEAP);
    let checked = trace.check(1, CheckCause::Doubt, other);
    assert_eq!((checked.drift.0, checked.resynced.0), (0, 0x4000));
    assert_eq!(trace.maps(1), "10000-14000 r--p\n");
    let checked = trace.check(1, CheckCause::Asked, HEAP);
    assert_eq!((checked.drift.0, checked.resynced.0), (0x4000, 0x4000));
    assert_eq!(checked.differences[0].model, "r--p 00000000 00:00 0");
    let checked = trace.check(1, CheckCause::Asked, HEAP);
    assert_eq!((checked.drift.0, checked.resynced.0), (0, 0));
}

#[test]
fn a_result_that_contradicts_the_model_asks_for_a_look() {
    let mut trace = Trace::of_a_program(HEAP);
    trace.call(100, "munmap(0x13000, 0x1000) = 0");
    assert_eq!(trace.timeline.take_rechecks(), []);
    let anonymous = "MAP_PRIVATE|MAP_ANONYMOUS, -1, 0";
    let line = format!("mmap(0, 0x1000, PROT_READ, {anonymous}) = 0x12000");
    trace.call(100, &line);
    assert_eq!(trace.timeline.take_rechecks(), [SpaceId(1)]);
    assert_eq!(trace.timeline.take_rechecks(), []);
}

#[test]
fn growth_that_a_call_of_another_thread_altered_is_growth_and_keeps_growing() {
    let mut trace = Trace::of_a_program("");
    let stack = "MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED|MAP_GROWSDOWN, -1, 0";
    trace.call(
        100,
        &format!("mmap(0x20000, 0x4000, PROT_NONE, {stack}) = 0x20000"),
    );
    let shown = "00020000-00024000 ---p 00000000 00:00 0 \n\
                 VmFlags: mr mw me gd \n";
    trace.check(1, CheckCause::Asked, shown);
    trace.timeline.take_rechecks();
    // A fault has taken it down to 18000 by now.
    trace.call(100, "munmap(0x1c000, 0x8000) = 0");
    assert_eq!(trace.timeline.take_rechecks(), [SpaceId(1)]);
    let checked = trace.check(
        1,
        CheckCause::Asked,
        "00018000-0001c000 ---p 00000000 00:00 0 \n\
         VmFlags: mr mw me gd \n",
    );
    assert_eq!((checked.drift.0, checked.resynced.0), (0, 0));
    assert_eq!(checked.grown.0, 0x4000);
    assert_eq!(trace.maps(1), "18000-1c000 ---p\n");
    // What was left grows in its turn, which maps tells alone.
    let grown = "00017000-0001c000 ---p 00000000 00:00 0 \n";
    let checked = trace.check(1, CheckCause::Exit, grown);
    assert_eq!((checked.drift.0, checked.grown.0), (0, 0x1000));
}

#[test]
fn a_stack_grows_when_the_kernel_says_so_and_nothing_else_does() {
    let maps = "10000-14000 rw-p 00000000 00:00 0\n20000-24000 rw-p 00000000 00:00 0 [stack]\n";
    let mut trace = Trace::of_a_program(maps);
    let space = SpaceId(1);
    let grown = |trace: &mut Trace, start, end| {
        let before = trace.events.len();
        let stack = AddrRange::new(Addr(start), Addr(end)).expect("a range");
        trace.see(Observed::Grown { space, stack });
        let told = trace.events.get(before).map(|event| event.kind.clone());
        told.map(|kind| match kind {
            EventKind::Checked(checked) => (checked.cause, checked.grown.0, checked.drift.0),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(grown(&mut trace, 0x1e000, 0x24000), Some((None, 0x2000, 0)));
    // As large as it is; no stack; into what is taken.
    assert_eq!(grown(&mut trace, 0x1e000, 0x24000), None);
    assert_eq!(grown(&mut trace, 0xf000, 0x14000), None);
    assert_eq!(grown(&mut trace, 0x13000, 0x24000), None);
    let known = "10000-14000 rw-p 00000000 00:00 0\n1e000-24000 rw-p 00000000 00:00 0 [stack]\n";
    assert_eq!(trace.check(1, CheckCause::Exit, known).drift, Bytes(0));
}

#[test]
fn events_are_numbered_from_one_but_for_calls_that_only_began() {
    let mut trace = Trace::of_a_program(HEAP);
    trace.see(Observed::CallEntered(super::CallEntered {
        tid: Tid(100),
        space: SpaceId(1),
        call: registers("munmap(0x13000, 0x1000)"),
        fetched: Vec::new(),
    }));
    trace.call(100, "munmap(0x13000, 0x1000) = 0");
    trace.end_space(1, Ended::Exit);
    let numbers: Vec<u64> = trace.events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [1, 2, 2, 3, 4]);
}

#[test]
fn a_space_stays_until_its_end_has_been_told() {
    let mut trace = Trace::of_a_program(HEAP);
    trace.end_space(1, Ended::Exit);
    let last = trace.events.last().map(|event| &event.kind);
    let Some(EventKind::SpaceEnded { last, .. }) = last else {
        panic!("no end: {last:?}");
    };
    assert_eq!(last.mapped.0, 0x4000);
    assert!(trace.timeline.spaces.contains_key(&SpaceId(1)));
    let (tid, end) = (Tid(100), TaskEnd::Exited(0));
    trace.see(Observed::TaskEnded { tid, end });
    assert!(trace.timeline.spaces.is_empty() && trace.timeline.tasks.is_empty());
}

#[test]
fn a_call_tells_which_bytes_changed_and_how() {
    let mut trace = Trace::of_a_program(HEAP);
    trace.call(100, "mprotect(0x11000, 0x1000, PROT_NONE) = 0");
    let call = trace.last_call();
    let spans: Vec<(String, Verb)> = call
        .spans
        .iter()
        .map(|span| (span.range.to_string(), span.verb))
        .collect();
    assert_eq!(spans, [("11000-12000".into(), Verb::Decommit)]);
    assert_eq!((call.before.reserved.0, call.now.reserved.0), (0, 0x1000));
}
