//! A run told as observations, so that the model and everything above it is the real one.

use crate::abi::{Abi, CALLS, CallKind, MapFlags};
use crate::decode::RawCall;
use crate::mm::{FileId, parse_maps};
use crate::timeline::{
    Began, CallDone, CheckCause, Ended, Frame, FrameName, Module, ModuleId, NamesSeen, Observation,
    Observed, Resident, Sink, SpaceBegan, Stack, StackEnd, StackSeen, TaskBegan, TaskEnd,
    TaskOrigin, Timeline, Touched, TraceInfo,
};
use crate::units::{Addr, Bytes, SpaceId, StackId, Tid, Timestamp};

/// Nanoseconds from one observation to the next.
pub(crate) const STEP: u64 = 1_000_000;
/// Bytes that are mapped when the program begins.
pub(crate) const BEGAN: u64 = 0x3000;

const MAPS: &str = "\
400000-402000 r-xp 00000000 08:01 77 /srv/server
7ffffffde000-7ffffffdf000 rw-p 00000000 00:00 0 [stack]
";

/// What was observed.
pub(crate) struct Run {
    observations: Vec<Observation>,
    time: u64,
    stacks: u32,
}

/// A call and its result.
pub(crate) type Answered = (CallKind, [u64; 6], i64);

/// A private anonymous mapping, at `at` whatever is there.
pub(crate) fn mmap(at: u64, len: u64, prot: u64) -> Answered {
    let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED;
    let args = [at, len, prot, flags.bits().into(), u64::MAX, 0];
    (CallKind::Mmap, args, at.cast_signed())
}

pub(crate) fn munmap(at: u64, len: u64) -> Answered {
    (CallKind::Munmap, [at, len, 0, 0, 0, 0], 0)
}

pub(crate) fn mprotect(at: u64, len: u64, prot: u64) -> Answered {
    (CallKind::Mprotect, [at, len, prot, 0, 0, 0], 0)
}

pub(crate) fn mremap(at: u64, len: u64, new: u64, to: u64) -> Answered {
    (CallKind::Mremap, [at, len, new, 3, to, 0], to.cast_signed())
}

impl Run {
    /// Process 10 in space 1.
    pub(crate) fn new() -> Run {
        let mut run = Run {
            observations: Vec::new(),
            time: 0,
            stacks: 0,
        };
        run.space(1, 10, Began::Exec, "");
        run.task(1, 10, TaskOrigin::Launch);
        run
    }

    fn push(&mut self, what: Observed) {
        self.time += STEP;
        let time = Timestamp(self.time);
        self.observations.push(Observation { time, what });
    }

    fn space(&mut self, id: u32, pid: i32, began: Began, more: &str) {
        let mut maps = MAPS.to_owned();
        maps.insert_str(maps.find("7fff").unwrap_or(0), more);
        self.push(Observed::SpaceBegan(SpaceBegan {
            space: SpaceId(id),
            pid: Tid(pid),
            began,
            exe: "/srv/server".into(),
            snapshot: parse_maps(maps.as_bytes()).expect("maps"),
            known: true,
            brk_start: None,
            read_implies_exec: false,
        }));
    }

    fn task(&mut self, space: u32, tid: i32, origin: TaskOrigin) {
        self.push(Observed::TaskBegan(TaskBegan {
            tid: Tid(tid),
            pid: Tid(tid),
            space: SpaceId(space),
            parent: None,
            origin,
            comm: "server".into(),
        }));
    }

    /// A call of `tid` in space 1.
    pub(crate) fn call(&mut self, tid: i32, answered: Answered) {
        self.call_in(1, tid, answered, Stack::Absent);
    }

    /// A call of `tid` in space 1 from `stack`.
    pub(crate) fn call_from(&mut self, tid: i32, answered: Answered, stack: StackId) {
        self.call_in(1, tid, answered, Stack::Known(stack));
    }

    /// A page fault of `tid` in space 1, of which the stack was taken or not.
    pub(crate) fn touch(&mut self, tid: i32, at: u64, stack: Option<StackId>) {
        self.push(Observed::Touched(Touched {
            tid: Tid(tid),
            space: SpaceId(1),
            addr: Addr(at),
            write: true,
            stands_for: 1,
            stack: stack.map_or(Stack::Absent, Stack::Known),
        }));
    }

    /// A stack of functions, innermost first; a name that begins with `+` is that of no function.
    pub(crate) fn stack(&mut self, functions: &[&str]) -> StackId {
        let name = "/srv/server".into();
        let module = Module {
            path: name,
            file: FileId::default(),
        };
        if self.stacks == 0 {
            self.push(Observed::Module(module));
        }
        self.stacks += 1;
        let id = StackId(self.stacks);
        let frame = |index: usize| Frame::Module {
            module: ModuleId(0),
            offset: u64::from(id.0) * 0x1000 + index as u64,
        };
        let frames = (0..functions.len()).map(frame).collect();
        let named = functions
            .iter()
            .enumerate()
            .filter(|(_, name)| !name.starts_with('+'));
        let names = named.map(|(index, name)| {
            let name = FrameName {
                function: (*name).into(),
                ..FrameName::default()
            };
            (frame(index), [name].into())
        });
        let names = names.collect();
        self.push(Observed::Names(NamesSeen { names }));
        let end = StackEnd::Root;
        self.push(Observed::Stack(StackSeen { id, frames, end }));
        id
    }

    /// The kernel's map of space 1.
    pub(crate) fn checkpoint(&mut self, maps: &str) {
        self.push(Observed::Checkpoint {
            space: SpaceId(1),
            cause: CheckCause::Doubt,
            snapshot: parse_maps(maps.as_bytes()).expect("maps"),
        });
    }

    /// A call in any space.
    pub(crate) fn call_in(
        &mut self,
        space: u32,
        tid: i32,
        (kind, args, result): Answered,
        stack: Stack,
    ) {
        let info = CALLS.iter().find(|call| call.kind == kind);
        let nr = info.and_then(|call| call.x86_64).expect("a number");
        let entered = Timestamp(self.time);
        self.push(Observed::Call(CallDone {
            tid: Tid(tid),
            space: SpaceId(space),
            entered,
            call: RawCall {
                abi: Abi::X86_64,
                nr,
                args,
            },
            fetched: Vec::new(),
            result,
            evidence: Vec::new(),
            overlapped: false,
            stack,
            refused: None,
        }));
    }

    /// The program of space 1 forks; all it has mapped is readable and writable.
    pub(crate) fn fork(&mut self, id: u32, pid: i32) {
        // A child of fork has what its parent has.
        let calls = self
            .observations
            .iter()
            .filter_map(|seen| match &seen.what {
                Observed::Call(done) => Some(done.call.args),
                _ => None,
            });
        let lines = calls.map(|args| {
            let (start, end) = (args[0], args[0] + args[1]);
            format!("{start:x}-{end:x} rw-p 00000000 00:00 0 \n")
        });
        let maps: String = lines.collect();
        self.fork_with(id, pid, &maps);
    }

    /// The same with these lines of maps.
    pub(crate) fn fork_with(&mut self, id: u32, pid: i32, maps: &str) {
        let parent = Some(SpaceId(1));
        self.space(id, pid, Began::Fork { parent }, maps);
        self.task(id, pid, TaskOrigin::Fork);
    }

    pub(crate) fn resident(&mut self, bytes: u64) {
        let resident = Resident {
            now: Bytes(bytes),
            ..Resident::default()
        };
        let space = SpaceId(1);
        self.push(Observed::Resident { space, resident });
    }

    pub(crate) fn exit(&mut self, space: u32, tid: i32) {
        let (space, ended) = (SpaceId(space), Ended::Exit);
        self.push(Observed::SpaceEnded { space, ended });
        let (tid, end) = (Tid(tid), TaskEnd::Exited(0));
        self.push(Observed::TaskEnded { tid, end });
    }

    /// Nothing happens for a while.
    pub(crate) fn wait(&mut self, nanoseconds: u64) {
        self.time += nanoseconds;
    }

    /// Tells it to `sink`.
    pub(crate) fn tell(&self, sink: &mut dyn Sink) {
        let mut timeline = Timeline::new(TraceInfo::default());
        let mut events = Vec::new();
        for observation in &self.observations {
            timeline.observe(observation.clone(), &mut events);
            for event in events.drain(..) {
                sink.event(&event, &timeline).expect("memory is no file");
            }
        }
        sink.finish(&timeline).expect("memory is no file");
    }
}
