//! The header text of a trace: a JSON object. Wire types of its own, so that the model's types stay
//! free of serde.
//!
//! Members that are missing are empty, unknown ones are skipped: so a minor version may add some.
//! Since 1.1 there is `environment`. Of what could not be read when the trace was made, a member is
//! null. A limit is a number of bytes or the word `unlimited`.

use serde::{Deserialize, Serialize};

use crate::timeline::{Bound, Cgroup, Environment, Limit, Limits, TraceInfo};
use crate::units::Bytes;

/// [`TraceInfo`] as the header text holds it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WireInfo {
    version: String,
    command: Vec<String>,
    attached: Vec<i32>,
    backend: String,
    stops: String,
    started: String,
    kernel: String,
    arch: String,
    page_size: u32,
    overcommit: u8,
    environment: WireEnvironment,
}

/// The header text for `info`.
pub(super) fn info_text(info: &TraceInfo) -> serde_json::Result<Vec<u8>> {
    let TraceInfo {
        version,
        command,
        attached,
        backend,
        stops,
        started,
        kernel,
        arch,
        page_size,
        overcommit,
        environment,
    } = info.clone();
    serde_json::to_vec(&WireInfo {
        version,
        command,
        attached,
        backend,
        stops,
        started,
        kernel,
        arch,
        page_size,
        overcommit,
        environment: (&environment).into(),
    })
}

/// What a header text says.
pub(super) fn parse_info(text: &[u8]) -> serde_json::Result<TraceInfo> {
    let WireInfo {
        version,
        command,
        attached,
        backend,
        stops,
        started,
        kernel,
        arch,
        page_size,
        overcommit,
        environment,
    } = serde_json::from_slice(text)?;
    Ok(TraceInfo {
        version,
        command,
        attached,
        backend,
        stops,
        started,
        kernel,
        arch,
        page_size,
        overcommit,
        environment: environment.into(),
    })
}

/// [`Environment`] as JSON holds it, in the header of a trace and in reports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WireEnvironment {
    memory: Option<u64>,
    swap: Option<u64>,
    overcommit_ratio: Option<u64>,
    overcommit_kbytes: Option<u64>,
    max_map_count: Option<u64>,
    thp: Option<String>,
    limits: WireLimits,
    cgroup: Option<WireCgroup>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WireLimits {
    address_space: Option<WireLimit>,
    data: Option<WireLimit>,
    stack: Option<WireLimit>,
    locked: Option<WireLimit>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct WireLimit {
    soft: WireBound,
    hard: WireBound,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum WireBound {
    Bytes(u64),
    Word(Unlimited),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Unlimited {
    #[serde(rename = "unlimited")]
    Unlimited,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WireCgroup {
    version: u8,
    path: String,
    max: Option<WireBound>,
    high: Option<WireBound>,
    swap_max: Option<WireBound>,
    lowest_max: Option<WireBound>,
    current: Option<u64>,
}

/// `environment` as a JSON object, the same in the header of a trace and in reports.
pub fn environment_to_json(environment: &Environment) -> serde_json::Value {
    serde_json::to_value(WireEnvironment::from(environment)).unwrap_or_default()
}

/// What [`environment_to_json`] made; `None` if `value` is no such object.
pub fn environment_from_json(value: &serde_json::Value) -> Option<Environment> {
    WireEnvironment::deserialize(value)
        .ok()
        .map(Environment::from)
}

impl From<&Environment> for WireEnvironment {
    fn from(environment: &Environment) -> WireEnvironment {
        let Environment {
            memory,
            swap,
            overcommit_ratio,
            overcommit_kbytes,
            max_map_count,
            thp,
            limits,
            cgroup,
        } = environment;
        let Limits {
            address_space,
            data,
            stack,
            locked,
        } = *limits;
        WireEnvironment {
            memory: memory.map(|bytes| bytes.0),
            swap: swap.map(|bytes| bytes.0),
            overcommit_ratio: *overcommit_ratio,
            overcommit_kbytes: *overcommit_kbytes,
            max_map_count: *max_map_count,
            thp: thp.clone(),
            limits: WireLimits {
                address_space: address_space.map(WireLimit::from),
                data: data.map(WireLimit::from),
                stack: stack.map(WireLimit::from),
                locked: locked.map(WireLimit::from),
            },
            cgroup: cgroup.as_ref().map(WireCgroup::from),
        }
    }
}

impl From<WireEnvironment> for Environment {
    fn from(wire: WireEnvironment) -> Environment {
        let WireEnvironment {
            memory,
            swap,
            overcommit_ratio,
            overcommit_kbytes,
            max_map_count,
            thp,
            limits,
            cgroup,
        } = wire;
        let WireLimits {
            address_space,
            data,
            stack,
            locked,
        } = limits;
        Environment {
            memory: memory.map(Bytes),
            swap: swap.map(Bytes),
            overcommit_ratio,
            overcommit_kbytes,
            max_map_count,
            thp,
            limits: Limits {
                address_space: address_space.map(Limit::from),
                data: data.map(Limit::from),
                stack: stack.map(Limit::from),
                locked: locked.map(Limit::from),
            },
            cgroup: cgroup.map(Cgroup::from),
        }
    }
}

impl From<Limit> for WireLimit {
    fn from(Limit { soft, hard }: Limit) -> WireLimit {
        WireLimit {
            soft: soft.into(),
            hard: hard.into(),
        }
    }
}

impl From<WireLimit> for Limit {
    fn from(WireLimit { soft, hard }: WireLimit) -> Limit {
        Limit {
            soft: soft.into(),
            hard: hard.into(),
        }
    }
}

impl From<Bound> for WireBound {
    fn from(bound: Bound) -> WireBound {
        match bound {
            Bound::Bytes(bytes) => WireBound::Bytes(bytes.0),
            Bound::Unlimited => WireBound::Word(Unlimited::Unlimited),
        }
    }
}

impl From<WireBound> for Bound {
    fn from(bound: WireBound) -> Bound {
        match bound {
            WireBound::Bytes(bytes) => Bound::Bytes(Bytes(bytes)),
            WireBound::Word(Unlimited::Unlimited) => Bound::Unlimited,
        }
    }
}

impl From<&Cgroup> for WireCgroup {
    fn from(cgroup: &Cgroup) -> WireCgroup {
        let Cgroup {
            version,
            path,
            max,
            high,
            swap_max,
            lowest_max,
            current,
        } = cgroup;
        WireCgroup {
            version: *version,
            path: path.clone(),
            max: max.map(WireBound::from),
            high: high.map(WireBound::from),
            swap_max: swap_max.map(WireBound::from),
            lowest_max: lowest_max.map(WireBound::from),
            current: current.map(|bytes| bytes.0),
        }
    }
}

impl From<WireCgroup> for Cgroup {
    fn from(wire: WireCgroup) -> Cgroup {
        let WireCgroup {
            version,
            path,
            max,
            high,
            swap_max,
            lowest_max,
            current,
        } = wire;
        Cgroup {
            version,
            path,
            max: max.map(Bound::from),
            high: high.map(Bound::from),
            swap_max: swap_max.map(Bound::from),
            lowest_max: lowest_max.map(Bound::from),
            current: current.map(Bytes),
        }
    }
}
