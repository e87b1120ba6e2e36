//! One event as a line.

use serde_json::{Map, Value, json};

use crate::abi::{Abi, CallKind, errno_name, signal_name};
use crate::decode::{
    Args, Fetched, FetchedData, RESULT, RawCall, effective_kind, path_for, stored_address,
};
use crate::export::args::{args, lossless};
use crate::mm::{Span, Totals, Verb};
use crate::report::{call_name, failure_object, is_error, json as report_json};
use crate::timeline::{
    Began, CallEvent, CheckCause, Checked, Event, EventKind, Resident, SignalSeen, TaskOrigin,
    Timeline, TouchEvent,
};
use crate::units::{Addr, Bytes};

/// One event as an object.
pub fn line(event: &Event, timeline: &Timeline) -> Value {
    let Event {
        seq,
        time,
        tid,
        pid,
        space,
        kind,
    } = event;
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
    put("type", type_of(kind).into());
    put("seq", (*seq).into());
    put("time", time.0.into());
    if let EventKind::Call(call) = kind {
        put("duration", time.since(call.entered).into());
    }
    put("pid", pid.0.into());
    put("tid", tid.0.into());
    put("space", space.0.into());
    match kind {
        EventKind::Call(call) => put_call(&mut put, call),
        EventKind::CallEntered { raw, fetched } => put_raw(&mut put, raw, fetched),
        EventKind::SpaceBegan { began, exe, now } => {
            let (began, parent) = match began {
                Began::Exec => ("exec", None),
                Began::Fork { parent } => ("fork", *parent),
                Began::Attach => ("attach", None),
            };
            put("began", began.into());
            put("parent", json!(parent.map(|parent| parent.0)));
            put("exe", Value::String(exe.to_string()));
            put("now", report_json::totals(now));
            put("parts", report_json::parts(&now.parts));
        }
        EventKind::SpaceEnded { ended, last } => {
            put("ended", report_json::ended(*ended).into());
            put("now", report_json::totals(last));
            put("parts", report_json::parts(&last.parts));
        }
        EventKind::TaskBegan { parent, origin } => {
            put("parent", json!(parent.map(|parent| parent.0)));
            put("how", how(*origin).into());
            let comm = timeline.tasks.get(tid).map(|task| task.comm.to_string());
            put("comm", json!(comm));
        }
        EventKind::Exec { former } => {
            put("former", former.0.into());
            let comm = timeline.tasks.get(tid).map(|task| task.comm.to_string());
            put("comm", json!(comm));
        }
        EventKind::TaskEnded(end) => put("status", report_json::task_end(*end)),
        EventKind::Sample(resident) => put_resident(&mut put, resident),
        EventKind::Touched(touched) => put_touched(&mut put, touched),
        EventKind::HighWater(high_water) => {
            put("mapped", high_water.mapped.0.into());
            put("resident", high_water.resident.0.into());
        }
        EventKind::Checked(checked) => put_checked(&mut put, checked),
        EventKind::Signal(signal) => put_signal(&mut put, signal),
        EventKind::Note(text) => put("text", text.as_str().into()),
        EventKind::Lost(count) => put("count", (*count).into()),
        EventKind::File(file) => {
            for (key, value) in report_json::file_fields(file) {
                put(key, value);
            }
        }
    }
    Value::Object(object)
}

fn type_of(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::SpaceBegan { .. } => "space",
        EventKind::SpaceEnded { .. } => "space_end",
        EventKind::TaskBegan { origin, .. } => match origin {
            TaskOrigin::Launch => "launch",
            TaskOrigin::Attach => "attach",
            TaskOrigin::Thread => "thread",
            TaskOrigin::Fork | TaskOrigin::Vfork | TaskOrigin::SharedSpace => "fork",
        },
        EventKind::CallEntered { .. } => "enter",
        EventKind::Call(_) => "call",
        EventKind::Exec { .. } => "exec",
        EventKind::TaskEnded(_) => "exit",
        EventKind::Sample(_) => "sample",
        EventKind::Touched(_) => "touch",
        EventKind::HighWater(_) => "high_water",
        EventKind::Checked(Checked { cause: None, .. }) => "grown",
        EventKind::Checked(Checked {
            drift: Bytes(0),
            resynced: Bytes(0),
            ..
        }) => "check",
        EventKind::Checked(_) => "resync",
        EventKind::Signal(_) => "signal",
        EventKind::Note(_) => "note",
        EventKind::Lost(_) => "lost",
        EventKind::File(_) => "file",
    }
}

fn how(origin: TaskOrigin) -> &'static str {
    match origin {
        TaskOrigin::Launch => "launch",
        TaskOrigin::Attach => "attach",
        TaskOrigin::Thread => "thread",
        TaskOrigin::Fork => "fork",
        TaskOrigin::Vfork => "vfork",
        TaskOrigin::SharedSpace => "shared",
    }
}

fn put_raw(put: &mut impl FnMut(&str, Value), raw: &RawCall, fetched: &[Fetched]) {
    put("name", call_name(raw).into());
    put("args", args(raw, fetched));
    if raw.abi == Abi::I386 {
        put("abi", "i386".into());
    }
}

fn put_call(put: &mut impl FnMut(&str, Value), call: &CallEvent) {
    let CallEvent {
        entered: _,
        raw,
        fetched,
        call: _,
        result,
        spans,
        flow: _,
        before,
        now,
        stack,
        failure,
    } = call;
    put_raw(put, raw, fetched);
    match *result {
        Some(result) if is_error(raw, result) => {
            let errno = (result as i32).saturating_neg();
            put("result", Value::Null);
            put(
                "error",
                errno_name(errno)
                    .map_or_else(|| errno.to_string(), str::to_owned)
                    .into(),
            );
            put("errno", errno.into());
        }
        Some(result) => {
            put("result", result_of(raw, fetched, result));
            put("error", Value::Null);
        }
        None => {
            put("result", Value::Null);
            put("error", Value::Null);
            put("cut", true.into());
        }
    }
    put("delta", delta(before, now));
    put("now", report_json::totals(now));
    if let Some(stack) = stack {
        put("stack", stack.0.into());
    }
    if let Some(failure) = failure {
        put("failure", failure_object(failure));
    }
    if !spans.is_empty() {
        put("spans", spans.iter().map(span).collect());
    }
    if let Some(path) = path_for(fetched, RESULT, true) {
        put("result_path", lossless(path).into());
    }
    let memory: Vec<Value> = fetched.iter().filter_map(behind).collect();
    if !memory.is_empty() {
        put("memory", memory.into());
    }
}

/// An address as a hex string, anything else as an integer.
fn result_of(raw: &RawCall, fetched: &[Fetched], result: i64) -> Value {
    let kind = effective_kind(raw);
    let addr = match raw.abi {
        Abi::X86_64 => Addr(result.cast_unsigned()),
        Abi::I386 => Addr(u64::from(result as u32)),
    };
    match kind {
        Some(
            CallKind::Mmap
            | CallKind::Mmap2
            | CallKind::OldMmap
            | CallKind::Mremap
            | CallKind::Brk
            | CallKind::MapShadowStack,
        ) => report_json::hex(addr),
        // Through i386 ipc(2) the address is where the program asked it to be stored.
        Some(kind @ CallKind::Shmat) => {
            let stored = stored_address(&Args::of(raw, kind), fetched);
            report_json::hex(stored.unwrap_or(addr))
        }
        _ => result.into(),
    }
}

fn delta(before: &Totals, now: &Totals) -> Value {
    let delta = |before: Bytes, now: Bytes| now.0.wrapping_sub(before.0).cast_signed();
    json!({
        "mapped": delta(before.mapped, now.mapped),
        "reserved": delta(before.reserved, now.reserved),
        "committed": delta(before.committed, now.committed),
    })
}

fn span(span: &Span) -> Value {
    let verb = match span.verb {
        Verb::Reserve => "reserve",
        Verb::Map => "map",
        Verb::Commit => "commit",
        Verb::Decommit => "decommit",
        Verb::ReleaseReserved => "release_reserved",
        Verb::ReleaseCommitted => "release_committed",
        Verb::Discard => "discard",
        Verb::MovedFrom => "moved_from",
        Verb::MovedTo => "moved_to",
        Verb::Grown => "grown",
    };
    json!({"verb": verb, "start": report_json::hex(span.range.start()), "bytes": span.range.len()})
}

/// What a pointer pointed to, where `args` does not show it.
fn behind(fetched: &Fetched) -> Option<Value> {
    let bytes = match &fetched.data {
        FetchedData::Memory(bytes) => bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
        FetchedData::Path(_) | FetchedData::String { .. } | FetchedData::Unreadable => return None,
    };
    Some(json!({"arg": fetched.arg + 1, "at_exit": fetched.at_exit, "bytes": bytes}))
}

fn put_touched(put: &mut impl FnMut(&str, Value), touched: &TouchEvent) {
    let TouchEvent {
        addr,
        write,
        stands_for,
        stack,
    } = *touched;
    put("addr", format!("{:#x}", addr.0).into());
    put("write", write.into());
    put("stands_for", stands_for.into());
    if let Some(stack) = stack {
        put("stack", stack.0.into());
    }
}

fn put_resident(put: &mut impl FnMut(&str, Value), resident: &Resident) {
    let Resident {
        now,
        anon,
        file,
        shmem,
        high_water,
        mapped,
        swap,
    } = resident;
    let amount = |amount: &Option<Bytes>| json!(amount.map(|amount| amount.0));
    put("resident", now.0.into());
    put("anon", amount(anon));
    put("file", amount(file));
    put("shmem", amount(shmem));
    put("high_water", amount(high_water));
    put("mapped", amount(mapped));
    put("swap", amount(swap));
}

fn put_checked(put: &mut impl FnMut(&str, Value), checked: &Checked) {
    let Checked {
        cause,
        drift,
        resynced,
        grown,
        differences,
        charged,
        before,
        now,
    } = checked;
    put(
        "cause",
        match cause {
            Some(CheckCause::Exit) => "exit",
            Some(CheckCause::Exec) => "exec",
            Some(CheckCause::Detach) => "detach",
            Some(CheckCause::Asked) => "asked",
            Some(CheckCause::Doubt) => "doubt",
            None => "grown",
        }
        .into(),
    );
    put("drift", drift.0.into());
    put("resynced", resynced.0.into());
    put("grown", grown.0.into());
    put("charged", json!(charged.map(|charged| charged.0)));
    put(
        "differences",
        differences.iter().map(report_json::difference).collect(),
    );
    put("delta", delta(before, now));
    put("now", report_json::totals(now));
}

fn put_signal(put: &mut impl FnMut(&str, Value), seen: &SignalSeen) {
    let SignalSeen {
        tid: _,
        signal,
        stopped,
        code,
        errno,
        fields: _,
    } = seen;
    put("signal", (*signal).into());
    put("name", signal_name(*signal).into());
    put("stopped", (*stopped).into());
    put("code", (*code).into());
    put("errno", (*errno).into());
}
