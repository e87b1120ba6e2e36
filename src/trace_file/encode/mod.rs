//! Observations to bytes. The mirror of `decode/`; both follow `format.rs`.

mod maps;
mod stacks;

use crate::abi::Abi;
use crate::decode::{Fetched, FetchedData, RawCall};
use crate::mm::FileId;
use crate::timeline::{
    Began, CallDone, CallEntered, CheckCause, Ended, Figures, FileSeen, Observation, Observed,
    Resident, SignalSeen, SpaceBegan, TaskBegan, TaskEnd, TaskOrigin, Touched,
};
use crate::units::{Bytes, SpaceId, Tid, Timestamp};

use crate::trace_file::format::{MAX_FETCHED, MAX_INTERNED, record};
use crate::trace_file::tables::{Bases, Caller, Callers, Numbered, Shape};
use crate::trace_file::wire::{put_near, put_signed, put_varint};

/// The state of one block while it is written.
#[derive(Default)]
pub(in crate::trace_file) struct Encoder {
    time: u64,
    callers: Callers,
    strings: Numbered<Box<[u8]>>,
    shapes: Numbered<Shape>,
    bases: Bases,
    body: Vec<u8>,
}

impl Encoder {
    /// Whether a new block must begin before the next observation.
    pub(in crate::trace_file) fn is_full(&self) -> bool {
        self.callers.is_full()
    }

    /// Forgets everything, for a new block.
    pub(in crate::trace_file) fn clear(&mut self) {
        let body = std::mem::take(&mut self.body);
        *self = Encoder {
            body,
            ..Encoder::default()
        };
        self.body.clear();
        self.body.shrink_to(1 << 20);
    }

    /// Appends one observation to `out`.
    pub(in crate::trace_file) fn observation(
        &mut self,
        out: &mut Vec<u8>,
        observation: &Observation,
    ) {
        let Observation { time, what } = observation;
        if let Observed::Call(call) = what
            && call.fetched.is_empty()
            && call.evidence.is_empty()
            && !call.overlapped
            && call.stack.id().is_none()
            && call.refused.is_none()
        {
            let tag = out.len();
            out.push(record::PLAIN_CALL);
            let mask = self.call_done(out, *time, call);
            out[tag] |= mask;
            return;
        }
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let kind = self.record(&mut body, *time, what);
        out.push(kind);
        put_varint(out, body.len() as u64);
        out.extend_from_slice(&body);
        self.body = body;
    }

    fn record(&mut self, out: &mut Vec<u8>, time: Timestamp, what: &Observed) -> u8 {
        if !matches!(what, Observed::Call(_)) {
            put_signed(out, time.0.wrapping_sub(self.time).cast_signed());
            if !is_late(what) {
                self.time = time.0;
            }
        }
        match what {
            Observed::SpaceBegan(began) => self.space_began(out, began),
            Observed::TaskBegan(began) => self.task_began(out, began),
            Observed::CallEntered(CallEntered {
                tid,
                space,
                call,
                fetched,
            }) => {
                self.call_without_result(out, *tid, *space, call, fetched);
                record::CALL_ENTERED
            }
            Observed::Call(call) => {
                let mask = out.len();
                out.push(0);
                out[mask] = self.call_done(out, time, call);
                out.push(u8::from(call.overlapped));
                self.fetched(out, &call.fetched);
                self.evidence(out, call.call.args[0], &call.evidence);
                let stack = call.stack.id().map_or(0, |stack| stack.0);
                if stack != 0 || call.refused.is_some() {
                    put_varint(out, stack.into());
                }
                if let Some(figures) = &call.refused {
                    put_figures(out, figures);
                }
                record::CALL
            }
            Observed::CallCut {
                tid,
                space,
                entered,
                call,
                fetched,
            } => {
                put_signed(out, time.0.wrapping_sub(entered.0).cast_signed());
                self.call_without_result(out, *tid, *space, call, fetched);
                record::CALL_CUT
            }
            Observed::Checkpoint {
                space,
                cause,
                snapshot,
            } => {
                put_varint(out, space.0.into());
                out.push(match cause {
                    CheckCause::Exit => 0,
                    CheckCause::Exec => 1,
                    CheckCause::Detach => 2,
                    CheckCause::Asked => 3,
                    CheckCause::Doubt => 4,
                });
                self.snapshot(out, snapshot);
                record::CHECKPOINT
            }
            Observed::Resident { space, resident } => {
                put_varint(out, space.0.into());
                put_resident(out, resident);
                record::RESIDENT
            }
            Observed::Touched(touched) => {
                put_touched(out, touched);
                record::TOUCH
            }
            Observed::Grown { space, stack } => {
                put_varint(out, space.0.into());
                put_varint(out, stack.start().0);
                put_varint(out, stack.len());
                record::GROWN
            }
            Observed::HighWater { space, high_water } => {
                put_varint(out, space.0.into());
                put_varint(out, high_water.mapped.0);
                put_varint(out, high_water.resident.0);
                record::HIGH_WATER
            }
            Observed::Exec { tid, former, comm } => {
                put_tid(out, *tid);
                put_tid(out, *former);
                self.string(out, comm.as_bytes());
                record::EXEC
            }
            Observed::TaskEnded { tid, end } => {
                put_tid(out, *tid);
                put_task_end(out, *end);
                record::TASK_ENDED
            }
            Observed::SpaceEnded { space, ended } => {
                put_varint(out, space.0.into());
                out.push(match ended {
                    Ended::Exit => 0,
                    Ended::Exec => 1,
                    Ended::Detach => 2,
                    Ended::Cut => 3,
                });
                record::SPACE_ENDED
            }
            Observed::Signal(signal) => {
                put_signal(out, signal);
                record::SIGNAL
            }
            Observed::Note { space, text } => {
                out.push(u8::from(space.is_some()));
                if let Some(space) = space {
                    put_varint(out, space.0.into());
                }
                put_bytes(out, text.as_bytes());
                record::NOTE
            }
            Observed::Lost(count) => {
                put_varint(out, *count);
                record::LOST
            }
            Observed::File(file) => {
                put_file(out, file);
                record::FILE
            }
            Observed::Module(module) => {
                stacks::put_module(out, module);
                record::MODULE
            }
            Observed::Stack(stack) => {
                stacks::put_stack(out, stack);
                record::STACK
            }
            Observed::Names(names) => {
                stacks::put_names(out, names);
                record::NAMES
            }
        }
    }

    fn space_began(&mut self, out: &mut Vec<u8>, began: &SpaceBegan) -> u8 {
        let SpaceBegan {
            space,
            pid,
            began,
            exe,
            snapshot,
            known,
            brk_start,
            read_implies_exec,
        } = began;
        put_varint(out, space.0.into());
        put_tid(out, *pid);
        match began {
            Began::Exec => out.push(0),
            Began::Fork { parent: None } => out.push(1),
            Began::Attach => out.push(2),
            Began::Fork {
                parent: Some(parent),
            } => {
                out.push(3);
                put_varint(out, parent.0.into());
            }
        }
        self.string(out, exe.as_bytes());
        let flags = [*known, *read_implies_exec, brk_start.is_some()];
        out.push(bits(&flags) as u8);
        if let Some(brk_start) = brk_start {
            put_near(out, brk_start.0, [0, 0]);
        }
        self.snapshot(out, snapshot);
        record::SPACE_BEGAN
    }

    fn task_began(&mut self, out: &mut Vec<u8>, began: &TaskBegan) -> u8 {
        let TaskBegan {
            tid,
            pid,
            space,
            parent,
            origin,
            comm,
        } = began;
        put_tid(out, *tid);
        put_tid(out, *pid);
        put_varint(out, space.0.into());
        out.push(match origin {
            TaskOrigin::Launch => 0,
            TaskOrigin::Attach => 1,
            TaskOrigin::Thread => 2,
            TaskOrigin::Fork => 3,
            TaskOrigin::Vfork => 4,
            TaskOrigin::SharedSpace => 5,
        });
        out.push(u8::from(parent.is_some()));
        if let Some(parent) = parent {
            put_tid(out, *parent);
        }
        self.string(out, comm.as_bytes());
        record::TASK_BEGAN
    }

    /// Appends caller, times, arguments and result; gives the mask.
    fn call_done(&mut self, out: &mut Vec<u8>, time: Timestamp, call: &CallDone) -> u8 {
        let index = self.caller(out, Caller::of(call.tid, call.space, &call.call));
        put_signed(out, call.entered.0.wrapping_sub(self.time).cast_signed());
        put_varint(out, time.0.wrapping_sub(call.entered.0));
        self.time = time.0;
        self.args(out, index, &call.call.args, Some(call.result))
    }

    fn call_without_result(
        &mut self,
        out: &mut Vec<u8>,
        tid: Tid,
        space: SpaceId,
        call: &RawCall,
        fetched: &[Fetched],
    ) {
        let mask = out.len();
        out.push(0);
        let index = self.caller(out, Caller::of(tid, space, call));
        out[mask] = self.args(out, index, &call.args, None);
        self.fetched(out, fetched);
    }

    fn caller(&mut self, out: &mut Vec<u8>, caller: Caller) -> usize {
        if let Some(index) = self.callers.find(&caller) {
            put_varint(out, index as u64);
            return index;
        }
        let index = self.callers.len();
        put_varint(out, index as u64);
        put_tid(out, caller.tid);
        put_varint(out, caller.space.0.into());
        out.push(match caller.abi {
            Abi::X86_64 => 0,
            Abi::I386 => 1,
        });
        put_varint(out, caller.nr.into());
        self.callers.define(caller);
        index
    }

    fn args(
        &mut self,
        out: &mut Vec<u8>,
        index: usize,
        args: &[u64; 6],
        result: Option<i64>,
    ) -> u8 {
        let mut mask = 0;
        let Some((_, guesses)) = self.callers.guesses(index) else {
            return mask;
        };
        for (i, arg) in args.iter().enumerate() {
            if *arg != guesses.args[i] {
                mask |= 1 << i;
                put_near(out, *arg, guesses.arg(i));
            }
        }
        if let Some(result) = result.map(i64::cast_unsigned)
            && result != guesses.result
        {
            mask |= 1 << 6;
            put_near(out, result, guesses.result());
        }
        self.callers.learn(index, *args, result);
        mask
    }

    fn fetched(&mut self, out: &mut Vec<u8>, fetched: &[Fetched]) {
        let fetched = &fetched[..fetched.len().min(MAX_FETCHED)];
        put_varint(out, fetched.len() as u64);
        for Fetched { arg, at_exit, data } in fetched {
            out.push((arg & 7) | u8::from(*at_exit) << 3);
            match data {
                FetchedData::Path(path) => {
                    out.push(0);
                    self.string(out, path);
                }
                FetchedData::Memory(memory) => {
                    out.push(1);
                    put_bytes(out, memory);
                }
                FetchedData::String { bytes, truncated } => {
                    out.push(2 + u8::from(*truncated));
                    self.string(out, bytes);
                }
                FetchedData::Unreadable => out.push(4),
            }
        }
    }

    fn string(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        if let Some(index) = self.strings.find(bytes) {
            put_varint(out, index as u64 + 1);
            return;
        }
        put_varint(out, 0);
        put_bytes(out, bytes);
        if bytes.len() <= MAX_INTERNED {
            self.strings.add(bytes.into());
        }
    }
}

/// Whether a minor version added it: it moves no clock, so that who skips it has the same time
/// afterwards.
pub(in crate::trace_file) fn is_late(what: &Observed) -> bool {
    matches!(
        what,
        Observed::File(_)
            | Observed::Module(_)
            | Observed::Stack(_)
            | Observed::Names(_)
            | Observed::Touched(_)
            | Observed::HighWater { .. }
            | Observed::Grown { .. }
    )
}

fn bits(flags: &[bool]) -> u32 {
    flags
        .iter()
        .rev()
        .fold(0, |bits, flag| bits << 1 | u32::from(*flag))
}

fn put_tid(out: &mut Vec<u8>, tid: Tid) {
    put_signed(out, tid.0.into());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_touched(out: &mut Vec<u8>, touched: &Touched) {
    let Touched {
        tid,
        space,
        addr,
        write,
        stands_for,
        stack,
    } = touched;
    put_tid(out, *tid);
    put_varint(out, space.0.into());
    put_varint(out, addr.0);
    out.push(u8::from(*write));
    put_varint(out, (*stands_for).into());
    put_varint(out, stack.id().map_or(0, |stack| stack.0).into());
}

fn put_resident(out: &mut Vec<u8>, resident: &Resident) {
    let Resident {
        now,
        anon,
        file,
        shmem,
        high_water,
        mapped,
        swap,
    } = resident;
    let optional: [&Option<Bytes>; 6] = [anon, file, shmem, high_water, mapped, swap];
    put_near(out, now.0, [0, 0]);
    out.push(bits(&optional.map(Option::is_some)) as u8);
    for amount in optional.into_iter().flatten() {
        put_near(out, amount.0, [0, 0]);
    }
}

fn put_task_end(out: &mut Vec<u8>, end: TaskEnd) {
    let (code, value) = match end {
        TaskEnd::Exited(status) => (0, Some(status)),
        TaskEnd::Killed { signal, core } => (1 + u8::from(core), Some(signal)),
        TaskEnd::Gone => (3, None),
    };
    out.push(code);
    if let Some(value) = value {
        put_signed(out, value.into());
    }
}

fn put_signal(out: &mut Vec<u8>, seen: &SignalSeen) {
    let SignalSeen {
        tid,
        signal,
        stopped,
        code,
        errno,
        fields,
    } = seen;
    put_tid(out, *tid);
    put_signed(out, (*signal).into());
    out.push(u8::from(*stopped));
    put_signed(out, (*code).into());
    put_signed(out, (*errno).into());
    fields.iter().for_each(|field| put_varint(out, *field));
}

/// A bit for each figure that is known, and those.
fn put_figures(out: &mut Vec<u8>, figures: &Figures) {
    let numbers = figures.numbers();
    let known = numbers.iter().rev();
    let known = known.fold(0, |bits, (_, number)| {
        bits << 1 | u64::from(number.is_some())
    });
    put_varint(out, known);
    let numbers = numbers.iter().filter_map(|(_, number)| *number);
    numbers.for_each(|number| put_varint(out, number));
}

/// What came with a minor version: no table knows of it.
fn put_file(out: &mut Vec<u8>, seen: &FileSeen) {
    let FileSeen {
        space,
        path,
        file: FileId {
            major,
            minor,
            inode,
        },
        build_id,
        version,
    } = seen;
    put_varint(out, space.0.into());
    put_varint(out, (*major).into());
    put_varint(out, (*minor).into());
    put_varint(out, *inode);
    put_bytes(out, path.as_bytes());
    put_bytes(out, build_id);
    put_bytes(out, version.as_deref().unwrap_or_default().as_bytes());
}
