//! An explanation as JSON: the object `memtrace.explain/1`.
//!
//! All amounts are bytes; what is not known is null.

use serde_json::{Value, json};

use crate::report::explain::{
    Cgroups, Facts, Level, Limited, Machine, Member, Memory, Owner, Peaked, Refusal, Refuser, Room,
    Row, Source, Space, Split, State, Unit, Verdict, rows,
};
use crate::report::json::{parts, task_end};
use crate::term::{next_words, reason_words};
use crate::timeline::{Bound, Limit};
use crate::units::{Bytes, Timestamp};

/// The name and version of the object.
pub const SCHEMA: &str = "memtrace.explain/1";

/// The object.
pub fn explanation(facts: &Facts, verdict: &Verdict) -> Value {
    let because = verdict.reasons.iter();
    let because: Vec<String> = because.map(|reason| reason_words(reason, facts)).collect();
    json!({
        "schema": SCHEMA,
        "facts": facts_object(facts),
        "verdict": {
            "cause": verdict.cause.word(),
            "vsz_matters": verdict.vsz_matters,
            "because": because,
            "next": verdict.next.iter().map(|next| next_words(next, facts)).collect::<Vec<_>>(),
        },
    })
}

fn facts_object(facts: &Facts) -> Value {
    let Facts {
        subject,
        space,
        memory,
        limits: _,
        cgroup,
        machine,
        tree_resident,
        oom_kills_before,
        refusals,
        missing,
    } = facts;
    let split = space.as_ref().and_then(|space| space.split.as_ref());
    let (state, status) = match subject.state {
        State::Alive => ("alive", Value::Null),
        State::KernelThread => ("kernel_thread", Value::Null),
        State::Zombie => ("zombie", Value::Null),
        State::Ended(end) => ("ended", task_end(end)),
    };
    json!({
        "source": match subject.source {
            Source::Process => "process",
            Source::Trace => "trace",
            Source::Program => "program",
        },
        "pid": subject.pid.0,
        "name": subject.name,
        "state": state,
        "status": status,
        "other_spaces": subject.other_spaces,
        "mapped": figure(space.as_ref().map(|space| space.mapped)),
        "reserved": reserved(split),
        "committed": committed(split),
        "charged": charged(split),
        "resident": resident(memory),
        "mappings": {
            "end": split.map(|split| split.mappings.now),
            "peak": split.and_then(|split| split.mappings.peak),
            "peak_time": time(split.and_then(|split| split.mappings.peak_time)),
            "exact": split.is_some_and(|split| split.mappings_exact),
        },
        "thread_stacks": split.map(|split| split.thread_stacks.iter().map(|(size, count)| json!({
            "size": size.0, "count": count,
        })).collect::<Vec<_>>()),
        "owners": split.map(|split| split.owners.iter().take(OWNERS).map(owner).collect::<Vec<_>>()),
        "page_tables": bytes(space.as_ref().and_then(|space: &Space| space.page_tables)),
        "limits": rows(facts).iter().map(|row| limit(row, facts)).collect::<Vec<_>>(),
        "cgroup": cgroup.as_ref().map(cgroups),
        "machine": machine_object(machine),
        "rlimits": {
            "as": rlimit(facts.limits.address_space),
            "data": rlimit(facts.limits.data),
            "stack": rlimit(facts.limits.stack),
            "memlock": rlimit(facts.limits.locked),
        },
        "tree_resident_peak": bytes(*tree_resident),
        "oom_kill_before": oom_kills_before,
        "refused": refusals.iter().map(refusal).collect::<Vec<_>>(),
        "missing": missing.iter().map(|missing| json!({
            "what": missing.what, "why": missing.why, "remedy": missing.remedy,
        })).collect::<Vec<_>>(),
    })
}

/// Owners that are told.
const OWNERS: usize = 64;
/// Processes of a cgroup that are told.
const MEMBERS: usize = 64;

fn bytes(bytes: Option<Bytes>) -> Value {
    json!(bytes.map(|bytes| bytes.0))
}

/// Nanoseconds since the trace began.
fn time(time: Option<Timestamp>) -> Value {
    json!(time.map(|time| time.0))
}

fn figure(figure: Option<Peaked<Bytes>>) -> Value {
    json!({
        "end": bytes(figure.map(|figure| figure.now)),
        "peak": bytes(figure.and_then(|figure| figure.peak)),
        "peak_time": time(figure.and_then(|figure| figure.peak_time)),
    })
}

fn reserved(split: Option<&Split>) -> Value {
    json!({
        "end": bytes(split.map(|split| split.reserved.now)),
        "peak": bytes(split.and_then(|split| split.reserved.peak)),
        "peak_time": time(split.and_then(|split| split.reserved.peak_time)),
        "resident": bytes(split.and_then(|split| split.reserved_resident)),
    })
}

fn committed(split: Option<&Split>) -> Value {
    json!({
        "end": bytes(split.map(|split| split.committed.now)),
        "peak": bytes(split.and_then(|split| split.committed.peak)),
        "peak_time": time(split.and_then(|split| split.committed.peak_time)),
        "parts": split.map(|split| parts(&split.parts)),
        "noreserve": bytes(split.map(|split| split.noreserve)),
    })
}

fn charged(split: Option<&Split>) -> Value {
    json!({
        "end": bytes(split.map(|split| split.charged.now)),
        "exact": split.is_some_and(|split| split.charged_exact),
        "peak": bytes(split.and_then(|split| split.charged.peak)),
        "peak_time": time(split.and_then(|split| split.charged.peak_time)),
    })
}

fn resident(memory: &Memory) -> Value {
    let Memory {
        resident,
        peak,
        anon,
        file,
        shmem,
        swap,
        lazy_free,
        huge,
        hugetlb,
        locked,
        measured,
        peak_time,
    } = *memory;
    json!({
        "end": bytes(resident),
        "peak": bytes(peak),
        "anon": bytes(anon),
        "file": bytes(file),
        "shmem": bytes(shmem),
        "measured": time(measured),
        "peak_time": time(peak_time),
        "swap": bytes(swap),
        "lazy_free": bytes(lazy_free),
        "huge": bytes(huge),
        "hugetlb": bytes(hugetlb),
        "locked": bytes(locked),
    })
}

fn owner(owner: &Owner) -> Value {
    let Owner {
        name,
        reserved,
        committed,
        resident,
        reserved_by,
    } = owner;
    let callers: Vec<&str> = reserved_by.iter().map(|caller| &**caller).collect();
    json!({
        "name": name,
        "reserved": reserved.0,
        "committed": committed.0,
        "resident": bytes(*resident),
        "reserved_by": callers,
    })
}

fn limit(row: &Row, facts: &Facts) -> Value {
    let Row {
        limited,
        level,
        unit,
        value,
        counted,
        decisive,
        slack,
        room,
    } = row;
    let cgroups = facts.cgroup.as_ref();
    let of = level.and_then(|level| cgroups?.levels.get(level));
    let version = cgroups.map_or(2, |cgroups| cgroups.version);
    json!({
        "name": match limited {
            Limited::CgroupMax => Level::max_name(version),
            Limited::CgroupHigh => "memory.high",
            Limited::AddressSpace => "RLIMIT_AS",
            Limited::Data => "RLIMIT_DATA",
            Limited::Stack => "RLIMIT_STACK",
            Limited::Commit => "CommitLimit",
            Limited::Mappings => "max_map_count",
            Limited::Addresses => "address_space",
            Limited::Machine => "machine_memory",
        },
        "cgroup": of.map(|level| &level.path),
        "unit": match unit {
            Unit::Bytes => "bytes",
            Unit::Count => "count",
        },
        "value": match value {
            Some(value) => json!(value),
            None => json!("unlimited"),
        },
        "now": counted,
        "decisive": decisive,
        "slack": slack,
        "near": match room {
            Room::NoLimit | Room::NotEnforced | Room::Far => Some(false),
            Room::Near => Some(true),
            Room::Unknown => None,
        },
        "enforced": *room != Room::NotEnforced && *room != Room::NoLimit,
    })
}

fn cgroups(cgroups: &Cgroups) -> Value {
    let Cgroups {
        version,
        path,
        levels,
        hidden,
        before,
        members,
        only_at_begin,
    } = cgroups;
    let of = members
        .as_ref()
        .and_then(|members| levels.get(members.level));
    json!({
        "version": version,
        "path": path,
        "hidden_above": hidden,
        "only_at_begin": only_at_begin,
        "levels": levels.iter().map(level).collect::<Vec<_>>(),
        "before": before.iter().map(level).collect::<Vec<_>>(),
        "processes": members.as_ref().map(|members| json!({
            "cgroup": of.map(|level| &level.path),
            "count": members.list.len(),
            "unseen": members.unseen,
            "largest": members.list.iter().take(MEMBERS).map(member).collect::<Vec<_>>(),
        })),
    })
}

fn member(member: &Member) -> Value {
    let Member {
        pid,
        name,
        anon,
        shmem,
        file,
    } = member;
    json!({"pid": pid.0, "name": name, "anon": anon.0, "shmem": shmem.0, "file": file.0})
}

fn level(level: &Level) -> Value {
    let Level {
        path,
        max,
        high,
        swap_max,
        swap,
        memsw_max,
        lowest_max,
        counted,
        peak,
        anon,
        cache,
        shmem,
        file_lists,
        kernel,
        slab_reclaimable,
        page_tables,
        sock,
        dirty,
        met,
        high_met,
        oom,
        oom_kills,
    } = level;
    json!({
        "path": path,
        "max": bound(*max),
        "high": bound(*high),
        "swap_max": bound(*swap_max),
        "memsw_max": bound(*memsw_max),
        "lowest_max": bound(*lowest_max),
        "now": bytes(*counted),
        "peak": bytes(*peak),
        "anon": bytes(*anon),
        "cache": bytes(*cache),
        "shmem": bytes(*shmem),
        "file_lists": bytes(*file_lists),
        "kernel": bytes(*kernel),
        "slab_reclaimable": bytes(*slab_reclaimable),
        "page_tables": bytes(*page_tables),
        "sock": bytes(*sock),
        "dirty": bytes(*dirty),
        "swap": bytes(*swap),
        "fixed": bytes(level.fixed()),
        "met": met,
        "high_met": high_met,
        "oom": oom,
        "oom_kill": oom_kills,
    })
}

fn machine_object(machine: &Machine) -> Value {
    let Machine {
        memory,
        available,
        swap,
        swap_free,
        commit_limit,
        committed,
        overcommit,
        max_map_count,
        oom_kills,
    } = *machine;
    json!({
        "memory": bytes(memory),
        "available": bytes(available),
        "swap": bytes(swap),
        "swap_free": bytes(swap_free),
        "commit_limit": bytes(commit_limit),
        "committed": bytes(committed),
        "overcommit": overcommit,
        "max_map_count": max_map_count,
        "oom_kill": oom_kills,
    })
}

/// A number of bytes or `"unlimited"`; null: not known.
fn bound(bound: Option<Bound>) -> Value {
    match bound {
        Some(Bound::Bytes(bytes)) => json!(bytes.0),
        Some(Bound::Unlimited) => json!("unlimited"),
        None => Value::Null,
    }
}

fn rlimit(limit: Option<Limit>) -> Value {
    json!({
        "soft": bound(limit.map(|limit| limit.soft)),
        "hard": bound(limit.map(|limit| limit.hard)),
    })
}

fn refusal(refusal: &Refusal) -> Value {
    let Refusal {
        call,
        asked,
        errno,
        time,
        pid,
        space,
        refuser,
        times,
    } = refusal;
    let (by, limit, counted) = match *refuser {
        Refuser::AddressSpace { limit, mapped } => ("RLIMIT_AS", Some(limit.0), Some(mapped.0)),
        Refuser::Data { limit, data } => ("RLIMIT_DATA", Some(limit.0), Some(data.0)),
        Refuser::Mappings { limit, mappings } => ("max_map_count", Some(limit), Some(mappings)),
        Refuser::Addresses { hole } => ("address_space", Some(hole.0), None),
        Refuser::Commit { limit, committed } => ("CommitLimit", Some(limit.0), Some(committed.0)),
        Refuser::Guess { all } => ("overcommit_guess", Some(all.0), None),
        Refuser::Unknown => ("unknown", None, None),
    };
    json!({
        "call": call,
        "asked": asked.0,
        "errno": errno,
        "time": time.0,
        "pid": pid.0,
        "space": space.0,
        "times": times,
        "by": by,
        "limit": limit,
        "counted": counted,
    })
}
