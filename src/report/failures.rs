//! Calls that were refused, by what refused them.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::abi::errno_name;
use crate::timeline::{Amounts, CallEvent, Cause, Failure, Figures, Limiter};
use crate::units::{SpaceId, Timestamp};

use super::facts::{Maker, call_name, is_error};
use super::json::{hex, maker};

/// Calls of one name in one space that were refused for the same causes.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedCalls {
    /// Whose.
    pub space: SpaceId,
    /// Which.
    pub call: Cow<'static, str>,
    /// The error they returned; `None` of brk(2), which returns none.
    pub error: Option<i32>,
    /// How many.
    pub count: u64,
    /// When the first was.
    pub first: Timestamp,
    /// Which that was.
    pub by: Maker,
    /// Why the first was refused, with the figures of that moment.
    pub failure: Failure,
}

/// All of a trace, in order of their first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusals {
    /// The first [`Refusals::MAX`] kinds.
    pub kinds: Vec<RefusedCalls>,
    /// Calls of further kinds.
    pub more: u64,
}

impl Refusals {
    /// Kinds that are kept.
    pub const MAX: usize = 100;

    pub(super) fn add(&mut self, space: SpaceId, time: Timestamp, by: Maker, call: &CallEvent) {
        let Some(failure) = call.failure.as_deref() else {
            return;
        };
        let name = call_name(&call.raw);
        let error = call.result.filter(|result| is_error(&call.raw, *result));
        let error = error.map(|result| (result as i32).saturating_neg());
        let full = Refusals::MAX <= self.kinds.len();
        let known = self.kinds.iter_mut().find(|kind| {
            kind.space == space
                && kind.call == name
                && kind.error == error
                && alike(&kind.failure, failure)
        });
        match known {
            Some(kind) => kind.count += 1,
            None if !full => self.kinds.push(RefusedCalls {
                space,
                call: name,
                error,
                count: 1,
                first: time,
                by,
                failure: failure.clone(),
            }),
            None => self.more += 1,
        }
    }
}

/// The same causes, whatever the amounts and addresses.
fn alike(a: &Failure, b: &Failure) -> bool {
    let codes = |failure: &Failure| {
        let causes = failure.causes.clone();
        causes.into_iter().map(|cause| cause.what.code())
    };
    a.proven == b.proven && codes(a).eq(codes(b))
}

/// Why a call was refused. `proven` is false where `causes` are only candidates.
pub fn failure_object(failure: &Failure) -> Value {
    let Failure {
        causes,
        proven,
        figures,
    } = failure;
    json!({
        "proven": proven,
        "causes": causes.iter().map(cause_object).collect::<Vec<_>>(),
        "figures": figures_object(figures),
    })
}

fn cause_object(cause: &Cause) -> Value {
    let Cause { what, amounts } = cause;
    let mut object = json!({"cause": what.code()});
    if let Some(amounts) = amounts {
        let Amounts { limit, used, asked } = *amounts;
        object["limit"] = limit.into();
        object["used"] = used.into();
        object["asked"] = asked.into();
        object["over"] = amounts.over().into();
        object["unit"] = unit(*what).into();
    }
    if let Some(addr) = what.addr() {
        object["address"] = hex(addr);
    }
    object
}

fn unit(what: Limiter) -> &'static str {
    match what {
        Limiter::MapCount => "mappings",
        _ => "bytes",
    }
}

/// Those that are known, by name; a limit that is none is `"unlimited"`.
fn figures_object(figures: &Figures) -> Value {
    let numbers = figures.numbers().into_iter();
    let value = |name: &str, number: u64| match number {
        u64::MAX if name.starts_with("rlimit") => "unlimited".into(),
        _ if name == "capabilities" => format!("{number:#x}").into(),
        _ if name == "beside" => (number == 1).into(),
        number => Value::from(number),
    };
    numbers
        .filter_map(|(name, number)| Some((name.to_owned(), value(name, number?))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The refused calls of a report.
pub(super) fn refusals(refusals: &Refusals) -> Value {
    let kind = |kind: &RefusedCalls| {
        let RefusedCalls {
            space,
            call,
            error,
            count,
            first,
            by,
            failure,
        } = kind;
        let mut object = failure_object(failure);
        object["space"] = space.0.into();
        object["call"] = call.as_ref().into();
        object["error"] =
            json!(error.map(|errno| {
                errno_name(errno).map_or_else(|| errno.to_string(), str::to_owned)
            }));
        object["count"] = (*count).into();
        object["first"] = first.0.into();
        object["event"] = maker(by);
        object
    };
    refusals.kinds.iter().map(kind).collect()
}
