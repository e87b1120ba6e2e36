//! Bytes to observations. The mirror of `encode/`; both follow `format.rs`.
//!
//! The bytes may come from a stranger: every length and index is checked against what is there,
//! and what a record makes in memory is bounded by its own size and the tables' limits.

mod maps;
mod stacks;

use std::collections::HashSet;
use std::sync::Arc;

use crate::abi::Abi;
use crate::decode::{Fetched, FetchedData, RawCall};
use crate::mm::FileId;
use crate::timeline::{
    Began, CallDone, CallEntered, CheckCause, Ended, Figures, FileSeen, HighWater, Observation,
    Observed, Resident, SignalSeen, SpaceBegan, Stack, TaskBegan, TaskEnd, TaskOrigin, Touched,
};
use crate::units::{Addr, AddrRange, Bytes, SpaceId, StackId, Tid, Timestamp};

use crate::trace_file::format::{MAX_FETCHED, MAX_INTERNED, MAX_TABLE, Malformed, record};
use crate::trace_file::tables::{Bases, Caller, Callers, Guesses, Shape};
use crate::trace_file::wire::Input;

type Read<T> = Result<T, Malformed>;

/// The state of one block while it is read.
#[derive(Default)]
pub(in crate::trace_file) struct Decoder {
    time: u64,
    callers: Callers,
    strings: Vec<Arc<[u8]>>,
    shapes: Vec<Shape>,
    bases: Bases,
    names: Names,
}

/// Names seen anywhere in the trace, so that equal ones share their memory.
#[derive(Default)]
struct Names {
    seen: HashSet<Arc<str>>,
}

impl Names {
    fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(seen) = self.seen.get(text) {
            return Arc::clone(seen);
        }
        let shared: Arc<str> = text.into();
        if text.len() <= MAX_INTERNED {
            if MAX_TABLE <= self.seen.len() {
                self.seen.clear();
            }
            self.seen.insert(Arc::clone(&shared));
        }
        shared
    }
}

impl Decoder {
    /// Forgets everything, for a new block.
    pub(in crate::trace_file) fn clear(&mut self) {
        let names = std::mem::take(&mut self.names);
        *self = Decoder {
            names,
            ..Decoder::default()
        };
    }

    /// Reads one record; `None` if it is of a kind that a newer version added.
    pub(in crate::trace_file) fn observation(
        &mut self,
        input: &mut Input<'_>,
    ) -> Read<Option<Observation>> {
        let kind = input.byte()?;
        if record::PLAIN_CALL <= kind {
            let call = self.call_done(input, kind & !record::PLAIN_CALL)?;
            return Ok(Some(self.at_now(Observed::Call(call))));
        }
        let mut body = Input::new(counted(input)?);
        if record::FILE <= kind {
            return self.late(kind, &mut body);
        }
        let what = self.record(kind, &mut body)?;
        Ok(what.map(|what| self.at_now(what)))
    }

    /// What a minor version added moves no clock: who skips it has the same time afterwards.
    fn late(&mut self, kind: u8, body: &mut Input<'_>) -> Read<Option<Observation>> {
        if !(record::FILE..=record::LAST).contains(&kind) {
            return Ok(None);
        }
        let time = self.time.wrapping_add(body.signed()?.cast_unsigned());
        let what = match kind {
            record::FILE => Observed::File(self.file(body)?),
            record::MODULE => Observed::Module(stacks::module(body)?),
            record::STACK => Observed::Stack(stacks::stack(body)?),
            record::NAMES => Observed::Names(stacks::names(body)?),
            record::TOUCH => Observed::Touched(touched(body)?),
            record::GROWN => Observed::Grown {
                space: space(body)?,
                stack: AddrRange::covering(Addr(body.varint()?), body.varint()?)
                    .ok_or(Malformed("a stack that is nowhere"))?,
            },
            record::HIGH_WATER => Observed::HighWater {
                space: space(body)?,
                high_water: HighWater {
                    mapped: Bytes(body.varint()?),
                    resident: Bytes(body.varint()?),
                },
            },
            _ => return Ok(None),
        };
        let time = Timestamp(time);
        Ok(Some(Observation { time, what }))
    }

    fn at_now(&self, what: Observed) -> Observation {
        Observation {
            time: Timestamp(self.time),
            what,
        }
    }

    fn record(&mut self, kind: u8, input: &mut Input<'_>) -> Read<Option<Observed>> {
        if !(record::SPACE_BEGAN..=record::LOST).contains(&kind) {
            return Ok(None);
        }
        if kind != record::CALL {
            self.time = self.time.wrapping_add(input.signed()?.cast_unsigned());
        }
        Ok(Some(match kind {
            record::SPACE_BEGAN => Observed::SpaceBegan(self.space_began(input)?),
            record::TASK_BEGAN => Observed::TaskBegan(self.task_began(input)?),
            record::CALL_ENTERED => {
                let (tid, space, call, fetched) = self.call_without_result(input)?;
                Observed::CallEntered(CallEntered {
                    tid,
                    space,
                    call,
                    fetched,
                })
            }
            record::CALL => {
                let mask = input.byte()?;
                let mut call = self.call_done(input, mask)?;
                call.overlapped = input.bool()?;
                call.fetched = self.fetched(input)?;
                call.evidence = self.evidence(input, call.call.args[0])?;
                if 0 < input.left() {
                    call.stack = match input.u32()? {
                        0 => Stack::Absent,
                        id => Stack::Known(StackId(id)),
                    };
                }
                if 0 < input.left() {
                    call.refused = Some(Box::new(figures(input)?));
                }
                Observed::Call(call)
            }
            record::CALL_CUT => {
                let ago = input.signed()?.cast_unsigned();
                let entered = Timestamp(self.time.wrapping_sub(ago));
                let (tid, space, call, fetched) = self.call_without_result(input)?;
                Observed::CallCut {
                    tid,
                    space,
                    entered,
                    call,
                    fetched,
                }
            }
            record::CHECKPOINT => Observed::Checkpoint {
                space: space(input)?,
                cause: match input.byte()? {
                    0 => CheckCause::Exit,
                    1 => CheckCause::Exec,
                    2 => CheckCause::Detach,
                    3 => CheckCause::Asked,
                    4 => CheckCause::Doubt,
                    _ => return Err(Malformed("an unknown cause of a check")),
                },
                snapshot: self.snapshot(input)?,
            },
            record::RESIDENT => Observed::Resident {
                space: space(input)?,
                resident: resident(input)?,
            },
            record::EXEC => Observed::Exec {
                tid: tid(input)?,
                former: tid(input)?,
                comm: self.name(input)?,
            },
            record::TASK_ENDED => Observed::TaskEnded {
                tid: tid(input)?,
                end: task_end(input)?,
            },
            record::SPACE_ENDED => Observed::SpaceEnded {
                space: space(input)?,
                ended: match input.byte()? {
                    0 => Ended::Exit,
                    1 => Ended::Exec,
                    2 => Ended::Detach,
                    3 => Ended::Cut,
                    _ => return Err(Malformed("an unknown end of a space")),
                },
            },
            record::SIGNAL => Observed::Signal(signal(input)?),
            record::NOTE => {
                let space = if input.bool()? {
                    Some(space(input)?)
                } else {
                    None
                };
                let text = utf8(counted(input)?)?.to_owned();
                Observed::Note { space, text }
            }
            _ => Observed::Lost(input.varint()?),
        }))
    }

    fn space_began(&mut self, input: &mut Input<'_>) -> Read<SpaceBegan> {
        let id = space(input)?;
        let pid = tid(input)?;
        let began = match input.byte()? {
            0 => Began::Exec,
            1 => Began::Fork { parent: None },
            2 => Began::Attach,
            3 => Began::Fork {
                parent: Some(space(input)?),
            },
            _ => return Err(Malformed("an unknown begin of a space")),
        };
        let exe = self.name(input)?;
        let flags = input.byte()?;
        let brk_start = if flags & 4 != 0 {
            Some(Addr(input.near([0, 0])?))
        } else {
            None
        };
        Ok(SpaceBegan {
            space: id,
            pid,
            began,
            exe,
            snapshot: self.snapshot(input)?,
            known: flags & 1 != 0,
            brk_start,
            read_implies_exec: flags & 2 != 0,
        })
    }

    fn task_began(&mut self, input: &mut Input<'_>) -> Read<TaskBegan> {
        Ok(TaskBegan {
            tid: tid(input)?,
            pid: tid(input)?,
            space: space(input)?,
            origin: match input.byte()? {
                0 => TaskOrigin::Launch,
                1 => TaskOrigin::Attach,
                2 => TaskOrigin::Thread,
                3 => TaskOrigin::Fork,
                4 => TaskOrigin::Vfork,
                5 => TaskOrigin::SharedSpace,
                _ => return Err(Malformed("an unknown origin of a task")),
            },
            parent: if input.bool()? {
                Some(tid(input)?)
            } else {
                None
            },
            comm: self.name(input)?,
        })
    }

    fn call_done(&mut self, input: &mut Input<'_>, mask: u8) -> Read<CallDone> {
        let (index, caller, guesses) = self.caller(input)?;
        let gap = input.signed()?.cast_unsigned();
        let entered = self.time.wrapping_add(gap);
        self.time = entered.wrapping_add(input.varint()?);
        let args = args(input, mask, &guesses)?;
        let result = match mask & 1 << 6 {
            0 => guesses.result,
            _ => input.near(guesses.result())?,
        };
        let result = result.cast_signed();
        self.callers.learn(index, args, Some(result));
        Ok(CallDone {
            tid: caller.tid,
            space: caller.space,
            entered: Timestamp(entered),
            call: caller.call(args),
            fetched: Vec::new(),
            result,
            evidence: Vec::new(),
            overlapped: false,
            stack: Stack::Absent,
            refused: None,
        })
    }

    fn call_without_result(
        &mut self,
        input: &mut Input<'_>,
    ) -> Read<(Tid, SpaceId, RawCall, Vec<Fetched>)> {
        let mask = input.byte()?;
        let (index, caller, guesses) = self.caller(input)?;
        let args = args(input, mask, &guesses)?;
        self.callers.learn(index, args, None);
        let fetched = self.fetched(input)?;
        Ok((caller.tid, caller.space, caller.call(args), fetched))
    }

    fn caller(&mut self, input: &mut Input<'_>) -> Read<(usize, Caller, Guesses)> {
        let index = input.varint()? as usize;
        if index == self.callers.len() && !self.callers.is_full() {
            let caller = Caller {
                tid: tid(input)?,
                space: space(input)?,
                abi: match input.byte()? {
                    0 => Abi::X86_64,
                    1 => Abi::I386,
                    _ => return Err(Malformed("an unknown ABI")),
                },
                nr: input.u32()?,
            };
            self.callers.define(caller);
        }
        let (caller, guesses) = self
            .callers
            .guesses(index)
            .ok_or(Malformed("an unknown caller"))?;
        Ok((index, caller, guesses))
    }

    fn fetched(&mut self, input: &mut Input<'_>) -> Read<Vec<Fetched>> {
        let count = input.varint()?;
        if MAX_FETCHED as u64 <= count.saturating_sub(1) {
            return Err(Malformed("too much was fetched for one call"));
        }
        let one = |_| {
            let head = input.byte()?;
            let data = match input.byte()? {
                0 => FetchedData::Path(self.string(input)?.to_vec()),
                1 => FetchedData::Memory(counted(input)?.to_vec()),
                kind @ (2 | 3) => {
                    let bytes = self.string(input)?.to_vec();
                    FetchedData::String {
                        bytes,
                        truncated: kind == 3,
                    }
                }
                4 => FetchedData::Unreadable,
                _ => return Err(Malformed("unknown data of a call")),
            };
            Ok(Fetched {
                arg: head & 7,
                at_exit: head & 8 != 0,
                data,
            })
        };
        (0..count).map(one).collect()
    }

    fn file(&mut self, input: &mut Input<'_>) -> Read<FileSeen> {
        Ok(FileSeen {
            space: space(input)?,
            file: FileId {
                major: input.u32()?,
                minor: input.u32()?,
                inode: input.varint()?,
            },
            path: self.names.shared(utf8(counted(input)?)?),
            build_id: counted(input)?.into(),
            version: match utf8(counted(input)?)? {
                "" => None,
                version => Some(self.names.shared(version)),
            },
        })
    }

    fn string(&mut self, input: &mut Input<'_>) -> Read<Arc<[u8]>> {
        if let Some(index) = input.varint()?.checked_sub(1) {
            let known = self.strings.get(index as usize);
            return known.cloned().ok_or(Malformed("an unknown string"));
        }
        let len = input.varint()?;
        let bytes: Arc<[u8]> = input.take(len)?.into();
        if bytes.len() <= MAX_INTERNED && self.strings.len() < MAX_TABLE {
            self.strings.push(Arc::clone(&bytes));
        }
        Ok(bytes)
    }

    fn name(&mut self, input: &mut Input<'_>) -> Read<Arc<str>> {
        let bytes = self.string(input)?;
        Ok(self.names.shared(utf8(&bytes)?))
    }
}

fn args(input: &mut Input<'_>, mask: u8, guesses: &Guesses) -> Read<[u64; 6]> {
    let mut args = guesses.args;
    for (i, arg) in args.iter_mut().enumerate() {
        if mask & 1 << i != 0 {
            *arg = input.near(guesses.arg(i))?;
        }
    }
    Ok(args)
}

/// A length, and so many bytes.
fn counted<'a>(input: &mut Input<'a>) -> Read<&'a [u8]> {
    let len = input.varint()?;
    input.take(len)
}

fn utf8(bytes: &[u8]) -> Read<&str> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a name is not UTF-8"))
}

fn tid(input: &mut Input<'_>) -> Read<Tid> {
    input.i32().map(Tid)
}

fn space(input: &mut Input<'_>) -> Read<SpaceId> {
    input.u32().map(SpaceId)
}

fn touched(input: &mut Input<'_>) -> Read<Touched> {
    Ok(Touched {
        tid: tid(input)?,
        space: space(input)?,
        addr: Addr(input.varint()?),
        write: input.bool()?,
        stands_for: match input.u32()? {
            0 => return Err(Malformed("a page fault that stands for none")),
            count => count,
        },
        stack: match input.u32()? {
            0 => Stack::Absent,
            id => Stack::Known(StackId(id)),
        },
    })
}

fn resident(input: &mut Input<'_>) -> Read<Resident> {
    let now = Bytes(input.near([0, 0])?);
    let flags = input.byte()?;
    let mut amount = |bit: u8| match flags & bit {
        0 => Ok(None),
        _ => input.near([0, 0]).map(|bytes| Some(Bytes(bytes))),
    };
    Ok(Resident {
        now,
        anon: amount(1)?,
        file: amount(2)?,
        shmem: amount(4)?,
        high_water: amount(8)?,
        mapped: amount(16)?,
        swap: amount(32)?,
    })
}

/// Those after the last that is known here are left over.
fn figures(input: &mut Input<'_>) -> Read<Figures> {
    let known = input.varint()?;
    let mut numbers = [None; Figures::COUNT];
    for (at, number) in numbers.iter_mut().enumerate() {
        if known >> at & 1 == 1 {
            *number = Some(input.varint()?);
        }
    }
    Ok(Figures::of_numbers(numbers))
}

fn task_end(input: &mut Input<'_>) -> Read<TaskEnd> {
    Ok(match input.byte()? {
        0 => TaskEnd::Exited(input.i32()?),
        1 => TaskEnd::Killed {
            signal: input.i32()?,
            core: false,
        },
        2 => TaskEnd::Killed {
            signal: input.i32()?,
            core: true,
        },
        3 => TaskEnd::Gone,
        _ => return Err(Malformed("an unknown end of a task")),
    })
}

fn signal(input: &mut Input<'_>) -> Read<SignalSeen> {
    Ok(SignalSeen {
        tid: tid(input)?,
        signal: input.i32()?,
        stopped: input.bool()?,
        code: input.i32()?,
        errno: input.i32()?,
        fields: [
            input.varint()?,
            input.varint()?,
            input.varint()?,
            input.varint()?,
        ],
    })
}
