//! Calls as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::abi::Abi;
use crate::decode::{Fetched, FetchedData, RawCall};
use crate::mm::Evidence;
use crate::timeline::{CallDone, CallEntered, Figures, Observed, Stack};
use crate::trace_file::format::MAX_FETCHED;
use crate::units::{SpaceId, StackId, Tid, Timestamp};

use super::maps::WireEvidence;
use super::wire::{Hex, Impossible, is_default};

/// Bytes that usually are text.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Utf8(String),
    Bytes { hex: String },
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Text {
        match str::from_utf8(bytes) {
            Ok(text) => Text::Utf8(text.to_owned()),
            Err(_) => Text::Bytes { hex: digits(bytes) },
        }
    }
}

impl TryFrom<Text> for Vec<u8> {
    type Error = Impossible;

    fn try_from(text: Text) -> Result<Vec<u8>, Impossible> {
        match text {
            Text::Utf8(text) => Ok(text.into_bytes()),
            Text::Bytes { hex } => bytes(&hex),
        }
    }
}

pub(super) fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn bytes(hex: &str) -> Result<Vec<u8>, Impossible> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(pair).collect();
    bytes.ok_or(Impossible("bytes are not hex"))
}

#[derive(Serialize, Deserialize)]
pub(super) struct Call {
    tid: i32,
    space: u32,
    /// Nanoseconds since the trace began; none of a call that is only entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entered: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    abi: WireAbi,
    nr: u32,
    args: [Hex; 6],
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fetched: Vec<WireFetched>,
    /// The register; none if the call was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Hex>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    evidence: Vec<WireEvidence>,
    #[serde(default, skip_serializing_if = "is_default")]
    overlapped: bool,
    /// Number of its stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stack: Option<u32>,
    /// What bounded the caller, if it was refused: figures by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<BTreeMap<Cow<'static, str>, Hex>>,
}

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireAbi {
    #[default]
    #[serde(rename = "x86_64")]
    X86_64,
    I386,
}

#[derive(Serialize, Deserialize)]
struct WireFetched {
    arg: u8,
    #[serde(default, skip_serializing_if = "is_default")]
    at_exit: bool,
    #[serde(flatten)]
    data: Data,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Data {
    Path(Text),
    Memory(String),
    String(Text),
    /// Part of a string.
    Prefix(Text),
    Unreadable(bool),
}

impl From<&CallDone> for Call {
    fn from(done: &CallDone) -> Call {
        let CallDone {
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
        } = done;
        Call {
            result: Some(Hex(result.cast_unsigned())),
            evidence: evidence.iter().map(WireEvidence::from).collect(),
            overlapped: *overlapped,
            stack: stack.id().map(|id| id.0),
            refused: refused.as_deref().map(by_name),
            ..Call::new(*tid, *space, Some(*entered), call, fetched)
        }
    }
}

impl Call {
    pub(super) fn new(
        tid: Tid,
        space: SpaceId,
        entered: Option<Timestamp>,
        call: &RawCall,
        fetched: &[Fetched],
    ) -> Call {
        let RawCall { abi, nr, args } = *call;
        Call {
            tid: tid.0,
            space: space.0,
            entered: entered.map(|entered| entered.0),
            abi: match abi {
                Abi::X86_64 => WireAbi::X86_64,
                Abi::I386 => WireAbi::I386,
            },
            nr,
            args: args.map(Hex),
            fetched: fetched.iter().map(WireFetched::from).collect(),
            result: None,
            evidence: Vec::new(),
            overlapped: false,
            stack: None,
            refused: None,
        }
    }

    fn raw(&self) -> RawCall {
        RawCall {
            abi: match self.abi {
                WireAbi::X86_64 => Abi::X86_64,
                WireAbi::I386 => Abi::I386,
            },
            nr: self.nr,
            args: self.args.map(|arg| arg.0),
        }
    }

    pub(super) fn entered(self) -> Result<Observed, Impossible> {
        Ok(Observed::CallEntered(CallEntered {
            tid: Tid(self.tid),
            space: SpaceId(self.space),
            call: self.raw(),
            fetched: fetched(self.fetched)?,
        }))
    }

    pub(super) fn observed(self) -> Result<Observed, Impossible> {
        let (tid, space, call) = (Tid(self.tid), SpaceId(self.space), self.raw());
        let entered = self.entered.map(Timestamp);
        let entered = entered.ok_or(Impossible("a call does not say when it began"))?;
        let fetched = fetched(self.fetched)?;
        let Some(result) = self.result else {
            return Ok(Observed::CallCut {
                tid,
                space,
                entered,
                call,
                fetched,
            });
        };
        let evidence = self.evidence.into_iter().map(Evidence::try_from);
        Ok(Observed::Call(CallDone {
            tid,
            space,
            entered,
            call,
            fetched,
            result: result.0.cast_signed(),
            evidence: evidence.collect::<Result<_, _>>()?,
            overlapped: self.overlapped,
            refused: self.refused.as_ref().map(figures).map(Box::new),
            stack: (self.stack).map_or(Stack::Absent, |id| Stack::Known(StackId(id))),
        }))
    }
}

fn by_name(figures: &Figures) -> BTreeMap<Cow<'static, str>, Hex> {
    let numbers = figures.numbers().into_iter();
    numbers
        .filter_map(|(name, number)| Some((name.into(), Hex(number?))))
        .collect()
}

/// Figures with names that are not known are left out.
fn figures(numbers: &BTreeMap<Cow<'static, str>, Hex>) -> Figures {
    let names = Figures::default().numbers();
    Figures::of_numbers(names.map(|(name, _)| numbers.get(name).map(|number| number.0)))
}

impl From<&Fetched> for WireFetched {
    fn from(fetched: &Fetched) -> WireFetched {
        let Fetched { arg, at_exit, data } = fetched;
        WireFetched {
            arg: *arg,
            at_exit: *at_exit,
            data: match data {
                FetchedData::Path(path) => Data::Path(path.as_slice().into()),
                FetchedData::Memory(bytes) => Data::Memory(digits(bytes)),
                FetchedData::String { bytes, truncated } => match truncated {
                    true => Data::Prefix(bytes.as_slice().into()),
                    false => Data::String(bytes.as_slice().into()),
                },
                FetchedData::Unreadable => Data::Unreadable(true),
            },
        }
    }
}

fn fetched(wire: Vec<WireFetched>) -> Result<Vec<Fetched>, Impossible> {
    if MAX_FETCHED < wire.len() {
        return Err(Impossible("too much was fetched"));
    }
    let one = |WireFetched { arg, at_exit, data }| {
        if 7 < arg {
            return Err(Impossible("a call has no such argument"));
        }
        let data = match data {
            Data::Path(path) => FetchedData::Path(path.try_into()?),
            Data::Memory(hex) => FetchedData::Memory(bytes(&hex)?),
            Data::String(text) => FetchedData::String {
                bytes: text.try_into()?,
                truncated: false,
            },
            Data::Prefix(text) => FetchedData::String {
                bytes: text.try_into()?,
                truncated: true,
            },
            Data::Unreadable(_) => FetchedData::Unreadable,
        };
        Ok(Fetched { arg, at_exit, data })
    };
    wire.into_iter().map(one).collect()
}
