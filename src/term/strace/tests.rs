//! Lines as strace prints them.

use super::*;
use crate::decode::{Call, FetchedData};
use crate::mm::{Flow, Totals};
use crate::timeline::SignalSeen;
use crate::units::{SpaceId, Timestamp};

/// Sends events and takes what was printed.
struct Story {
    format: StraceFormat<Vec<u8>>,
    timeline: Timeline,
}

impl Story {
    fn new(to_file: bool, tasks: &[i32]) -> Story {
        let options = Options {
            calls: CallSet::ALL,
            signals: true,
            to_file,
        };
        let mut story = Story {
            format: StraceFormat::new(Vec::new(), options),
            timeline: Timeline::default(),
        };
        for &tid in tasks {
            story.format.tasks.insert(Tid(tid));
        }
        story
    }

    fn send(&mut self, tid: i32, kind: EventKind) {
        let event = Event {
            seq: 1,
            time: Timestamp(0),
            tid: Tid(tid),
            pid: Tid(tid),
            space: SpaceId(1),
            kind,
        };
        self.format.event(&event, &self.timeline).unwrap();
    }

    fn enter(&mut self, tid: i32, raw: RawCall) {
        let fetched = Vec::new();
        self.send(tid, EventKind::CallEntered { raw, fetched });
    }

    fn leave(&mut self, tid: i32, raw: RawCall, result: Option<i64>) {
        self.leave_with(tid, raw, result, Vec::new());
    }

    fn leave_with(&mut self, tid: i32, raw: RawCall, result: Option<i64>, fetched: Vec<Fetched>) {
        self.send(
            tid,
            EventKind::Call(CallEvent {
                entered: Timestamp(0),
                raw,
                fetched,
                call: Call::Other,
                result,
                spans: Vec::new(),
                flow: Flow::default(),
                before: Totals::default(),
                now: Totals::default(),
                stack: None,
                failure: None,
            }),
        );
    }

    #[track_caller]
    fn expect(self, expected: &str) {
        assert_eq!(
            String::from_utf8(self.format.into_inner()).unwrap(),
            expected
        );
    }
}

fn raw(nr: u32, args: [u64; 6]) -> RawCall {
    let abi = Abi::X86_64;
    RawCall { abi, nr, args }
}

fn munmap(len: u64) -> RawCall {
    raw(11, [0, len, 0, 0, 0, 0])
}

fn mincore() -> RawCall {
    raw(27, [0x1000, 0x1000, 0x9000, 0, 0, 0])
}

fn vector() -> Vec<Fetched> {
    vec![Fetched {
        arg: 2,
        at_exit: true,
        data: FetchedData::Memory(vec![1]),
    }]
}

#[test]
fn a_call_that_nothing_interrupts_is_one_line() {
    let mut story = Story::new(false, &[7]);
    story.enter(7, munmap(1));
    story.leave(7, munmap(1), Some(0));
    story.enter(7, munmap(0));
    story.leave(7, munmap(0), Some(-22));
    story.expect(
        "munmap(NULL, 1)                         = 0\n\
         munmap(NULL, 0)                         = -1 EINVAL (Invalid argument)\n",
    );
}

#[test]
fn the_result_begins_at_column_forty_prefix_included() {
    let mut story = Story::new(true, &[7]);
    story.leave(18239, munmap(1), Some(0));
    story.leave(4, raw(12, [0; 6]), Some(0x55_5555_5000));
    story.expect(
        "18239 munmap(NULL, 1)                   = 0\n\
         4     brk(NULL)                         = 0x5555555000\n",
    );
}

#[test]
fn a_call_that_another_interrupts_is_two_lines() {
    let mut story = Story::new(false, &[18225, 5]);
    story.enter(18225, mincore());
    story.enter(5, munmap(1));
    story.leave_with(18225, mincore(), Some(0), vector());
    story.leave(5, munmap(1), Some(0));
    story.expect(
        "[pid 18225] mincore(0x1000, 4096,  <unfinished ...>\n\
         [pid     5] munmap(NULL, 1 <unfinished ...>\n\
         [pid 18225] <... mincore resumed>[1])   = 0\n\
         [pid     5] <... munmap resumed>)       = 0\n",
    );
}

#[test]
fn a_slow_call_shows_its_beginning_and_goes_on_in_the_same_line() {
    let mut story = Story::new(false, &[7]);
    story.enter(7, mincore());
    story.format.idle().unwrap();
    assert_eq!(story.format.out, b"mincore(0x1000, 4096, ");
    story.leave_with(7, mincore(), Some(0), vector());
    story.enter(7, munmap(1));
    story.format.idle().unwrap();
    story.enter(8, munmap(2));
    story.expect(
        "mincore(0x1000, 4096, [1])              = 0\n\
         munmap(NULL, 1 <unfinished ...>\n",
    );
}

/// As strace prints threads that exit_group(2) or a signal ends in a call.
#[test]
fn a_call_cut_short_has_no_result() {
    let mut story = Story::new(true, &[1, 2]);
    story.enter(22341, mincore());
    story.leave(22341, mincore(), None);
    story.enter(22340, mincore());
    story.enter(22342, munmap(1));
    story.leave(22340, mincore(), None);
    story.leave(22342, munmap(1), None);
    story.send(22340, EventKind::TaskEnded(TaskEnd::Exited(1)));
    story.expect(
        "22341 mincore(0x1000, 4096,  <unfinished ...>) = ?\n\
         22340 mincore(0x1000, 4096,  <unfinished ...>\n\
         22342 munmap(NULL, 1 <unfinished ...>\n\
         22340 <... mincore resumed> <unfinished ...>) = ?\n\
         22342 <... munmap resumed>)             = ?\n\
         22340 +++ exited with 1 +++\n",
    );
}

#[test]
fn a_call_to_be_restarted_has_no_result_either() {
    let mut story = Story::new(false, &[7]);
    story.leave(7, raw(152, [0; 6]), Some(-513));
    story.leave(7, raw(152, [0; 6]), Some(-524));
    story.leave(7, raw(152, [0; 6]), Some(-600));
    story.expect(
        "munlockall()                            = ? ERESTARTNOINTR (To be restarted)\n\
         munlockall()                            = -1 ENOTSUPP (Unknown error 524)\n\
         munlockall()                            = -1 (errno 600)\n",
    );
}

#[test]
fn the_pid_is_shown_while_there_are_several() {
    let mut story = Story::new(false, &[]);
    let launched = EventKind::TaskBegan {
        parent: None,
        origin: TaskOrigin::Launch,
    };
    story.send(7, launched);
    story.leave(7, munmap(1), Some(0));
    let forked = EventKind::TaskBegan {
        parent: Some(Tid(7)),
        origin: TaskOrigin::Fork,
    };
    story.send(8, forked);
    story.leave(7, munmap(1), Some(0));
    let killed = TaskEnd::Killed {
        signal: 11,
        core: true,
    };
    story.send(8, EventKind::TaskEnded(killed));
    story.send(7, EventKind::TaskEnded(TaskEnd::Exited(3)));
    story.expect(
        "munmap(NULL, 1)                         = 0\n\
         memtrace: Process 8 attached\n\
         [pid     7] munmap(NULL, 1)             = 0\n\
         [pid     8] +++ killed by SIGSEGV (core dumped) +++\n\
         +++ exited with 3 +++\n",
    );
}

/// strace prints the first call after such an execve in two lines, whatever happens between.
#[test]
fn an_execve_by_a_thread_supersedes_its_leader() {
    let mut story = Story::new(false, &[1, 18230, 18231]);
    story.send(18230, EventKind::Exec { former: Tid(18231) });
    for _ in 0..2 {
        story.enter(18230, raw(12, [0; 6]));
        story.leave(18230, raw(12, [0; 6]), Some(0x5000));
    }
    story.expect(
        "[pid 18230] +++ superseded by execve in pid 18231 +++\n\
         [pid 18230] brk(NULL <unfinished ...>\n\
         [pid 18230] <... brk resumed>)          = 0x5000\n\
         [pid 18230] brk(NULL)                   = 0x5000\n",
    );
}

#[test]
fn a_change_of_table_is_said_once() {
    let mut story = Story::new(false, &[18255]);
    let i386 = RawCall {
        abi: Abi::I386,
        nr: 45,
        args: [0; 6],
    };
    story.enter(18255, i386);
    story.leave(18255, i386, Some(0xc7d_1000));
    story.leave(18255, i386, Some(0xc7d_1000));
    story.leave(18255, raw(12, [0; 6]), Some(0xc7d_1000));
    story.expect(
        "[ Process PID=18255 runs in 32 bit mode. ]\n\
         brk(NULL)                               = 0xc7d1000\n\
         brk(NULL)                               = 0xc7d1000\n\
         [ Process PID=18255 runs in 64 bit mode. ]\n\
         brk(NULL)                               = 0xc7d1000\n",
    );
}

#[test]
fn a_signal_interrupts_a_line_too() {
    let mut story = Story::new(true, &[1]);
    story.enter(18225, munmap(1));
    let signal = SignalSeen {
        tid: Tid(18229),
        signal: 19,
        stopped: true,
        code: 0,
        errno: 0,
        fields: [0; 4],
    };
    story.send(18229, EventKind::Signal(signal));
    story.expect(
        "18225 munmap(NULL, 1 <unfinished ...>\n\
         18229 --- stopped by SIGSTOP ---\n",
    );
}

#[test]
fn only_the_calls_asked_for_are_shown() {
    let mut story = Story::new(false, &[7]);
    story.format.options.calls = CallSet::parse("munmap").unwrap();
    story.format.options.signals = false;
    story.enter(7, mincore());
    story.leave(7, mincore(), Some(0));
    story.enter(7, munmap(1));
    story.leave(7, munmap(1), Some(0));
    story.expect("munmap(NULL, 1)                         = 0\n");
}

#[test]
fn stacks_are_printed_as_strace_prints_them() {
    let mut timeline = Timeline::default();
    crate::timeline::stacks_for_tests::tell(&mut timeline);
    let stacks = StackView::new(Box::new(crate::timeline::HeldNames), usize::MAX);
    let mut story = Story::new(false, &[7]);
    story.timeline = timeline;
    story.format = StraceFormat::new(Vec::new(), Options::default()).with_stacks(stacks);
    story.send(
        7,
        EventKind::Call(CallEvent {
            entered: Timestamp(0),
            raw: munmap(1),
            fetched: Vec::new(),
            call: Call::Other,
            result: Some(0),
            spans: Vec::new(),
            flow: Flow::default(),
            before: Totals::default(),
            now: Totals::default(),
            stack: Some(crate::units::StackId(1)),
            failure: None,
        }),
    );
    let text = String::from_utf8(story.format.into_inner()).unwrap();
    let (_, stack) = text.split_once('\n').expect("the call");
    // The function that was inlined has no frame of its own, and no symbol.
    let expected = r" > /usr/lib/x86_64-linux-gnu/libc.so.6(mmap64+0x13) [0xff943]
 > /srv/ser\33ver(init\33[2J+0x44) [0x1234]
 > /srv/ser\33ver() [0x99]
 > unexpected_backtracing_error [0x7f123456]
";
    assert_eq!(stack, expected);
}
