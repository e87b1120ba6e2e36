//! Observations as JSON and back: which struct each is on the wire, and the small ones of them.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mm::{FileId, Snapshot};
use crate::timeline::{
    CallEntered, CheckCause, Ended, FileSeen, HighWater, Observed, Resident, SignalSeen, Stack,
    TaskEnd, Touched,
};
use crate::units::{Addr, AddrRange, Bytes, SpaceId, StackId, Tid};

use super::begins::{Space, Task};
use super::calls::{Call, bytes, digits};
use super::kind;
use super::maps::WireSnapshot;
use super::stacks;

/// What cannot be, though it is JSON of the right shape.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Impossible(pub(super) &'static str);

/// Whether a field goes without saying.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A register or an address: `"0x7f0000000000"`. JSON's own numbers are exact up to 2^53 only.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct Hex(pub(super) u64);

impl From<Addr> for Hex {
    fn from(addr: Addr) -> Hex {
        Hex(addr.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        struct Digits;
        impl de::Visitor<'_> for Digits {
            type Value = Hex;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number as \"0x…\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hex, E> {
                let value = text
                    .strip_prefix("0x")
                    .and_then(|digits| u64::from_str_radix(digits, 16).ok());
                value
                    .map(Hex)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "CheckCause", rename_all = "snake_case")]
enum Cause {
    Exit,
    Exec,
    Detach,
    Asked,
    Doubt,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Ended", rename_all = "snake_case")]
enum HowEnded {
    Exit,
    Exec,
    Detach,
    Cut,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "TaskEnd", rename_all = "snake_case")]
enum End {
    Exited(i32),
    Killed { signal: i32, core: bool },
    Gone,
}

#[derive(Serialize, Deserialize)]
struct Check {
    space: u32,
    #[serde(with = "Cause")]
    cause: CheckCause,
    snapshot: WireSnapshot,
}

#[derive(Serialize, Deserialize)]
struct Sample {
    space: u32,
    now: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    anon: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shmem: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high_water: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mapped: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    swap: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Touch {
    tid: i32,
    space: u32,
    addr: Hex,
    #[serde(default, skip_serializing_if = "is_default")]
    write: bool,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    stands_for: NonZeroU32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stack: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct Grown {
    space: u32,
    start: Hex,
    end: Hex,
}

#[derive(Serialize, Deserialize)]
struct Peaks {
    space: u32,
    mapped: u64,
    resident: u64,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn is_one(count: &NonZeroU32) -> bool {
    *count == NonZeroU32::MIN
}

#[derive(Serialize, Deserialize)]
struct Exec {
    tid: i32,
    former: i32,
    comm: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct Exit {
    tid: i32,
    #[serde(with = "End")]
    end: TaskEnd,
}

#[derive(Serialize, Deserialize)]
struct SpaceEnd {
    space: u32,
    #[serde(with = "HowEnded")]
    ended: Ended,
}

#[derive(Serialize, Deserialize)]
struct Signal {
    tid: i32,
    signal: i32,
    #[serde(default, skip_serializing_if = "is_default")]
    stopped: bool,
    code: i32,
    errno: i32,
    fields: [Hex; 4],
}

#[derive(Serialize, Deserialize)]
struct Note {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    space: Option<u32>,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Lost {
    count: u64,
}

#[derive(Serialize, Deserialize)]
struct File {
    space: u32,
    path: Arc<str>,
    /// Major and minor.
    #[serde(default, skip_serializing_if = "is_default")]
    dev: (u32, u32),
    #[serde(default, skip_serializing_if = "is_default")]
    inode: Hex,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    build_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Arc<str>>,
}

/// An observation as JSON.
pub(super) fn text(what: &Observed) -> serde_json::Result<String> {
    use serde_json::to_string;
    match what {
        Observed::SpaceBegan(began) => to_string(&Space::from(began)),
        Observed::TaskBegan(began) => to_string(&Task::from(began)),
        Observed::CallEntered(CallEntered {
            tid,
            space,
            call,
            fetched,
        }) => to_string(&Call::new(*tid, *space, None, call, fetched)),
        Observed::Call(done) => to_string(&Call::from(done)),
        Observed::CallCut {
            tid,
            space,
            entered,
            call,
            fetched,
        } => to_string(&Call::new(*tid, *space, Some(*entered), call, fetched)),
        Observed::Checkpoint {
            space,
            cause,
            snapshot,
        } => to_string(&Check {
            space: space.0,
            cause: *cause,
            snapshot: snapshot.into(),
        }),
        Observed::Resident { space, resident } => to_string(&Sample::new(*space, resident)),
        Observed::Touched(touched) => to_string(&Touch::from(touched)),
        Observed::Grown { space, stack } => to_string(&Grown {
            space: space.0,
            start: Hex(stack.start().0),
            end: Hex(stack.end().0),
        }),
        Observed::HighWater { space, high_water } => to_string(&Peaks {
            space: space.0,
            mapped: high_water.mapped.0,
            resident: high_water.resident.0,
        }),
        Observed::Exec { tid, former, comm } => to_string(&Exec {
            tid: tid.0,
            former: former.0,
            comm: Arc::clone(comm),
        }),
        Observed::TaskEnded { tid, end } => to_string(&Exit {
            tid: tid.0,
            end: *end,
        }),
        Observed::SpaceEnded { space, ended } => to_string(&SpaceEnd {
            space: space.0,
            ended: *ended,
        }),
        Observed::Signal(signal) => to_string(&Signal::from(signal)),
        Observed::Note { space, text } => to_string(&Note {
            space: space.map(|space| space.0),
            text: text.clone(),
        }),
        Observed::Lost(count) => to_string(&Lost { count: *count }),
        Observed::File(seen) => to_string(&File::from(seen)),
        Observed::Module(module) => to_string(&stacks::Module::from(module)),
        Observed::Stack(stack) => to_string(&stacks::Stack::from(stack)),
        Observed::Names(names) => to_string(&stacks::Names::from(names)),
    }
}

/// Whether lines of this type may have a `raw` that [`observed`] knows.
pub(super) fn is_known(kind: &str) -> bool {
    use kind::*;
    let kinds = [
        SPACE,
        TASK,
        "attach",
        "thread",
        "fork",
        ENTER,
        CALL,
        CHECK,
        "resync",
        SAMPLE,
        TOUCH,
        HIGH_WATER,
        GROWN,
        EXEC,
        EXIT,
        SPACE_END,
        SIGNAL,
        NOTE,
        LOST,
        FILE,
        MODULE,
        STACK,
        NAMES,
        super::UNSHOWN,
    ];
    kinds.contains(&kind)
}

/// The observation on a line of type `kind`; `None` if this reader does not know the type.
pub(super) fn observed(kind: &str, raw: &str) -> Option<Result<Observed, Impossible>> {
    let what = match kind {
        kind::SPACE => parse::<Space>(raw).and_then(Space::observed),
        kind::TASK | "attach" | "thread" | "fork" => parse::<Task>(raw).map(Task::observed),
        kind::ENTER => parse::<Call>(raw).and_then(Call::entered),
        kind::CALL => parse::<Call>(raw).and_then(Call::observed),
        kind::CHECK | "resync" => parse::<Check>(raw).and_then(Check::observed),
        kind::SAMPLE => parse::<Sample>(raw).map(Sample::observed),
        kind::TOUCH => parse::<Touch>(raw).map(Touch::observed),
        kind::GROWN => parse::<Grown>(raw).and_then(Grown::observed),
        kind::HIGH_WATER => parse::<Peaks>(raw).map(Peaks::observed),
        kind::EXEC => parse(raw).map(|Exec { tid, former, comm }| Observed::Exec {
            tid: Tid(tid),
            former: Tid(former),
            comm,
        }),
        kind::EXIT => {
            parse(raw).map(|Exit { tid, end }| Observed::TaskEnded { tid: Tid(tid), end })
        }
        kind::SPACE_END => parse(raw).map(|SpaceEnd { space, ended }| Observed::SpaceEnded {
            space: SpaceId(space),
            ended,
        }),
        kind::SIGNAL => parse::<Signal>(raw).map(Signal::observed),
        kind::NOTE => parse(raw).map(|Note { space, text }| Observed::Note {
            space: space.map(SpaceId),
            text,
        }),
        kind::LOST => parse(raw).map(|Lost { count }| Observed::Lost(count)),
        kind::FILE => parse::<File>(raw).and_then(File::observed),
        kind::MODULE => parse::<stacks::Module>(raw).map(stacks::Module::observed),
        kind::STACK => parse::<stacks::Stack>(raw).and_then(stacks::Stack::observed),
        kind::NAMES => parse::<stacks::Names>(raw).map(stacks::Names::observed),
        _ => return None,
    };
    Some(what)
}

fn parse<T: DeserializeOwned>(raw: &str) -> Result<T, Impossible> {
    serde_json::from_str(raw).map_err(|_| Impossible("its raw part is not what its type says"))
}

impl Check {
    fn observed(self) -> Result<Observed, Impossible> {
        Ok(Observed::Checkpoint {
            space: SpaceId(self.space),
            cause: self.cause,
            snapshot: Snapshot::try_from(self.snapshot)?,
        })
    }
}

impl From<&Touched> for Touch {
    fn from(touched: &Touched) -> Touch {
        Touch {
            tid: touched.tid.0,
            space: touched.space.0,
            addr: Hex(touched.addr.0),
            write: touched.write,
            stands_for: NonZeroU32::new(touched.stands_for).unwrap_or(NonZeroU32::MIN),
            stack: touched.stack.id().map(|id| id.0),
        }
    }
}

impl Touch {
    fn observed(self) -> Observed {
        Observed::Touched(Touched {
            tid: Tid(self.tid),
            space: SpaceId(self.space),
            addr: Addr(self.addr.0),
            write: self.write,
            stands_for: self.stands_for.get(),
            stack: (self.stack).map_or(Stack::Absent, |id| Stack::Known(StackId(id))),
        })
    }
}

impl Grown {
    fn observed(self) -> Result<Observed, Impossible> {
        let stack = AddrRange::new(Addr(self.start.0), Addr(self.end.0));
        let stack = stack.ok_or(Impossible("a stack that is nowhere"))?;
        let space = SpaceId(self.space);
        Ok(Observed::Grown { space, stack })
    }
}

impl Peaks {
    fn observed(self) -> Observed {
        Observed::HighWater {
            space: SpaceId(self.space),
            high_water: HighWater {
                mapped: Bytes(self.mapped),
                resident: Bytes(self.resident),
            },
        }
    }
}

impl Sample {
    fn new(space: SpaceId, resident: &Resident) -> Sample {
        let Resident {
            now,
            anon,
            file,
            shmem,
            high_water,
            mapped,
            swap,
        } = *resident;
        let amount = |amount: Option<Bytes>| amount.map(|amount| amount.0);
        Sample {
            space: space.0,
            now: now.0,
            anon: amount(anon),
            file: amount(file),
            shmem: amount(shmem),
            high_water: amount(high_water),
            mapped: amount(mapped),
            swap: amount(swap),
        }
    }

    fn observed(self) -> Observed {
        Observed::Resident {
            space: SpaceId(self.space),
            resident: Resident {
                now: Bytes(self.now),
                anon: self.anon.map(Bytes),
                file: self.file.map(Bytes),
                shmem: self.shmem.map(Bytes),
                high_water: self.high_water.map(Bytes),
                mapped: self.mapped.map(Bytes),
                swap: self.swap.map(Bytes),
            },
        }
    }
}

impl From<&SignalSeen> for Signal {
    fn from(seen: &SignalSeen) -> Signal {
        let SignalSeen {
            tid,
            signal,
            stopped,
            code,
            errno,
            fields,
        } = *seen;
        Signal {
            tid: tid.0,
            signal,
            stopped,
            code,
            errno,
            fields: fields.map(Hex),
        }
    }
}

impl Signal {
    fn observed(self) -> Observed {
        Observed::Signal(SignalSeen {
            tid: Tid(self.tid),
            signal: self.signal,
            stopped: self.stopped,
            code: self.code,
            errno: self.errno,
            fields: self.fields.map(|field| field.0),
        })
    }
}

impl From<&FileSeen> for File {
    fn from(seen: &FileSeen) -> File {
        let FileSeen {
            space,
            path,
            file,
            build_id,
            version,
        } = seen;
        let FileId {
            major,
            minor,
            inode,
        } = *file;
        File {
            space: space.0,
            path: Arc::clone(path),
            dev: (major, minor),
            inode: Hex(inode),
            build_id: digits(build_id),
            version: version.clone(),
        }
    }
}

impl File {
    fn observed(self) -> Result<Observed, Impossible> {
        Ok(Observed::File(FileSeen {
            space: SpaceId(self.space),
            path: self.path,
            file: FileId {
                major: self.dev.0,
                minor: self.dev.1,
                inode: self.inode.0,
            },
            build_id: bytes(&self.build_id)?.into(),
            version: self.version,
        }))
    }
}
