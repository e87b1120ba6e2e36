//! A report as JSON: the object `memtrace.report/1`.
//!
//! Fields are added, never renamed or re-meant. Amounts are bytes, times nanoseconds since the
//! trace began, addresses hex strings.

use serde_json::{Map, Value, json};

use crate::mm::{Difference, FileId, Flow, Parts, Totals};
use crate::timeline::{Began, Ended, FileSeen, TaskEnd, TraceInfo};
use crate::trace_file::{Damage, environment_to_json};
use crate::units::{Addr, Bytes, SpaceId};

use super::facts::*;
use super::failures::refusals;
use super::places::{Place, PlaceBytes};
use super::touched::Touches;

/// The name and version of the object.
pub const SCHEMA: &str = "memtrace.report/1";

/// The report as a JSON object.
pub fn report(report: &Report) -> Value {
    let Report {
        info,
        events,
        lost,
        until,
        notes,
        more_notes,
        files,
        more_files,
        refusals: refused,
        damage,
        spaces,
        tree,
    } = report;
    json!({
        "schema": SCHEMA,
        "command": info.command,
        "backend": info.backend,
        "started": info.started,
        "host": host(info),
        "events": events,
        "lost": lost,
        "spaces": spaces.iter().map(space).collect::<Vec<_>>(),
        "tree": tree_object(tree),
        "duration": until.0,
        "attached": info.attached,
        "stops": info.stops,
        "version": info.version,
        "complete": damage.is_none(),
        "damage": damage.as_ref().map(damage_object),
        "notes": notes.iter().map(note).collect::<Vec<_>>(),
        "more_notes": more_notes,
        "environment": environment(info),
        "files": files.iter().map(file).collect::<Vec<_>>(),
        "more_files": more_files,
        "refused": refusals(refused),
        "more_refused": refused.more,
    })
}

/// JSON text that is safe on a terminal: what JSON need not escape but a terminal may obey (DEL,
/// C1 controls, line separators, direction marks) is escaped too. No value changes by it.
pub fn text(value: &Value) -> String {
    safe(value.to_string())
}

/// The same over several lines, for people.
pub fn pretty_text(value: &Value) -> String {
    safe(format!("{value:#}"))
}

/// Any text of JSON, made as safe as [`text`] makes a value.
pub fn safe(json: String) -> String {
    if json.bytes().all(|byte| byte < 0x7f) {
        return json;
    }
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // Outside of strings JSON is ASCII, so each of these is inside one.
            '\u{7f}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
    text
}

/// The machine a trace was made on.
pub fn host(info: &TraceInfo) -> Value {
    json!({
        "kernel": info.kernel,
        "arch": info.arch,
        "page_size": info.page_size,
        "overcommit": info.overcommit,
    })
}

/// What bounded the traced program. A limit is a number of bytes or `"unlimited"`; null: not known.
pub fn environment(info: &TraceInfo) -> Value {
    environment_to_json(&info.environment)
}

/// A mapped file of code, as members of an object.
pub fn file_fields(seen: &FileSeen) -> [(&'static str, Value); 4] {
    let FileSeen {
        space: _,
        path,
        file: FileId {
            major,
            minor,
            inode,
        },
        build_id,
        version,
    } = seen;
    let hex: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    [
        ("path", Value::String(path.to_string())),
        (
            "file",
            json!({"device": format!("{major:02x}:{minor:02x}"), "inode": inode}),
        ),
        ("build_id", json!((!hex.is_empty()).then_some(hex))),
        ("version", json!(version.as_deref())),
    ]
}

fn file(file: &FileReport) -> Value {
    let mut object = json!({"time": file.time.0, "space": file.seen.space.0});
    for (key, value) in file_fields(&file.seen) {
        insert(&mut object, key, value);
    }
    object
}

/// An address.
pub fn hex(addr: Addr) -> Value {
    Value::String(addr.to_string())
}

fn note(note: &Note) -> Value {
    let Note { time, space, text } = note;
    let space = (*space != SpaceId(0)).then_some(space.0);
    json!({"time": time.0, "space": space, "text": text})
}

fn damage_object(damage: &Damage) -> Value {
    let Damage {
        offset,
        reason,
        missing,
        unread,
        after,
        until,
        lost,
    } = damage;
    json!({
        "offset": offset,
        "reason": reason.to_string(),
        "unread": unread,
        "missing": missing,
        "after": after.0,
        "until": until.map(|until| until.0),
        "lost": lost,
    })
}

fn space(space: &SpaceReport) -> Value {
    let mut committed = figure(&space.committed);
    insert(&mut committed, "parts", parts(&space.parts));
    insert(&mut committed, "noreserve", json!(space.noreserve.0));
    insert(&mut committed, "at_peak", {
        let mut at_peak = parts(&space.at_peak.parts);
        insert(&mut at_peak, "noreserve", json!(space.at_peak.noreserve.0));
        at_peak
    });
    let (began, parent) = match space.began {
        Began::Exec => ("exec", None),
        Began::Fork { parent } => ("fork", parent),
        Began::Attach => ("attach", None),
    };
    json!({
        "id": space.id.0,
        "pid": space.pid.0,
        "exe": &*space.exe,
        "began": began,
        "ended": ended(space.ended),
        "mapped": figure(&space.mapped),
        "reserved": figure(&space.reserved),
        "committed": committed,
        "charged": charged(&space.charged),
        "resident": resident(space.resident.as_ref()),
        "mappings": count_figure(&space.mappings),
        "calls": calls(space),
        "flow": flow(&space.flow),
        "verify": verify(&space.verify),
        "comm": &*space.comm,
        "parent": parent.map(|parent| parent.0),
        "since": space.since.0,
        "until": space.until.0,
        "known": space.known,
        "status": space.status.map(task_end),
        "threads": {"total": space.tasks.total, "peak": space.tasks.peak},
        "where": space.detail.as_ref().map(places),
        "reservations": space.detail.as_ref().map(|detail| reservations(&detail.reservations)),
        "touched": space.touched.as_ref().map(touches),
    })
}

/// How a space ended.
pub fn ended(ended: Ended) -> &'static str {
    match ended {
        Ended::Exit => "exit",
        Ended::Exec => "exec",
        Ended::Detach => "detach",
        Ended::Cut => "cut",
    }
}

/// How a task ended.
pub fn task_end(end: TaskEnd) -> Value {
    match end {
        TaskEnd::Exited(status) => json!({"exited": status}),
        TaskEnd::Killed { signal, core } => json!({"signal": signal, "core": core}),
        TaskEnd::Gone => json!({"gone": true}),
    }
}

/// The sums at one instant.
pub fn totals(totals: &Totals) -> Value {
    json!({
        "mapped": totals.mapped.0,
        "reserved": totals.reserved.0,
        "committed": totals.committed.0,
    })
}

/// Committed, by what is behind it.
pub fn parts(parts: &Parts) -> Value {
    let Parts {
        anon,
        file,
        shmem,
        special,
    } = parts;
    json!({"anon": anon.0, "file": file.0, "shmem": shmem.0, "special": special.0})
}

/// Bytes by what happened to them.
pub fn flow(flow: &Flow) -> Value {
    let Flow {
        reserve,
        map,
        commit,
        decommit,
        release,
        discard,
    } = flow;
    json!({
        "reserve": reserve.0,
        "map": map.0,
        "commit": commit.0,
        "decommit": decommit.0,
        "release": release.0,
        "discard": discard.0,
    })
}

/// Where model and kernel differed.
pub fn difference(difference: &Difference) -> Value {
    let Difference {
        range,
        model,
        kernel,
    } = difference;
    json!({"start": hex(range.start()), "end": hex(range.end()), "model": model, "kernel": kernel})
}

fn figure(figure: &Figure<Bytes>) -> Value {
    let Figure {
        begin,
        end,
        peak,
        peak_time,
        peak_by,
    } = figure;
    json!({
        "end": end.0,
        "peak": peak.0,
        "peak_time": peak_time.0,
        "peak_event": maker(peak_by),
        "begin": begin.0,
    })
}

fn count_figure(figure: &Figure<u64>) -> Value {
    let Figure {
        begin,
        end,
        peak,
        peak_time,
        peak_by,
    } = figure;
    json!({
        "end": end,
        "peak": peak,
        "peak_time": peak_time.0,
        "peak_event": maker(peak_by),
        "begin": begin,
    })
}

/// The event behind a figure; null for what was there from the begin.
pub(super) fn maker(maker: &Maker) -> Value {
    let Maker { seq, tid, what } = maker;
    match what {
        Made::Began => Value::Null,
        Made::Call(..) | Made::Checked | Made::Sampled => json!({
            "seq": seq,
            "tid": tid.0,
            "call": maker.call(),
            "text": what.to_string(),
        }),
    }
}

fn charged(charged: &Charged) -> Value {
    let Charged {
        end,
        exact,
        at_least,
        peak,
    } = charged;
    json!({
        "end": end.0,
        "exact": exact,
        "peak": peak.peak.0,
        "peak_time": peak.peak_time.0,
        "peak_event": maker(&peak.peak_by),
        "at_least": at_least.0,
    })
}

/// Every key is there; what was not measured is null.
/// Page faults, and the bytes they touched.
pub(super) fn touches(of: &Touches) -> Value {
    let Touches {
        faults,
        recorded,
        bytes,
    } = of;
    json!({"bytes": bytes.0, "faults": faults, "recorded": recorded})
}

fn resident(resident: Option<&ResidentReport>) -> Value {
    let parts = resident.and_then(|resident| resident.parts);
    json!({
        "end": resident.and_then(ResidentReport::last).map(|end| end.0),
        "peak": resident.map(|resident| resident.peak.0),
        "anon": parts.map(|parts| parts.anon.0),
        "file": parts.map(|parts| parts.file.0),
        "shmem": parts.map(|parts| parts.shmem.0),
        "measured": resident.map(|resident| resident.measured.0),
        "parts_measured": parts.map(|parts| parts.measured.0),
        "peak_time": resident.map(|resident| resident.peak_time.0),
        "peak_exact": resident.map(|resident| resident.peak_exact),
        "samples": resident.map_or(0, |resident| resident.samples),
        "swap": resident.and_then(|resident| resident.swap).map(|swap| swap.0),
    })
}

fn calls(space: &SpaceReport) -> Value {
    let call = |(name, count): (&std::borrow::Cow<'static, str>, &CallCount)| {
        let CallCount {
            count,
            failed,
            bytes,
            cut,
        } = count;
        let value = json!({"count": count, "failed": failed, "bytes": bytes.0, "cut": cut});
        (name.to_string(), value)
    };
    Value::Object(space.calls.iter().map(call).collect::<Map<_, _>>())
}

fn verify(verify: &Verify) -> Value {
    let Verify {
        checks,
        doubts,
        drift,
        resynced,
        grown,
        differences,
        more_differences,
        kernel_peak,
    } = verify;
    json!({
        "checks": checks,
        "drift": drift.0,
        "resynced": resynced.0,
        "grown": grown.0,
        "differences": differences.iter().map(difference).collect::<Vec<_>>(),
        "more_differences": more_differences,
        "doubts": doubts,
        "kernel_peak": kernel_peak.map(|peak| peak.0),
    })
}

fn places(detail: &Detail) -> Value {
    let list = |places: &[PlaceBytes]| places.iter().map(place).collect::<Vec<_>>();
    json!({
        "end": list(&detail.end),
        "mapped_peak": list(&detail.mapped_peak),
        "committed_peak": list(&detail.committed_peak),
    })
}

fn place(bytes: &PlaceBytes) -> Value {
    let PlaceBytes {
        place,
        reserved,
        committed,
    } = bytes;
    let (kind, name) = kind_and_name(place);
    json!({"place": kind, "name": name.map(|name| &**name), "reserved": reserved.0, "committed": committed.0})
}

/// A place in one word, and the name that goes with it.
pub(super) fn kind_and_name(place: &Place) -> (&'static str, Option<&std::sync::Arc<str>>) {
    match place {
        Place::Heap => ("heap", None),
        Place::Stack => ("stack", None),
        Place::ThreadStack => ("thread_stack", None),
        Place::Anon => ("anon", None),
        Place::Shared(name) => ("shared", Some(name)),
        Place::File(name) => ("file", Some(name)),
        Place::Special(name) => ("special", Some(name)),
        Place::Others => ("others", None),
    }
}

fn reservations(reservations: &Reservations) -> Value {
    let Reservations {
        count,
        bytes,
        ever_committed,
        largest,
    } = reservations;
    json!({
        "count": count,
        "bytes": bytes.0,
        "ever_committed": ever_committed.0,
        "largest": largest.iter().map(reservation).collect::<Vec<_>>(),
    })
}

fn reservation(reservation: &Reservation) -> Value {
    let Reservation {
        range,
        time,
        by,
        bytes,
        ever_committed,
        committed,
        mapped,
        released,
    } = reservation;
    json!({
        "start": hex(range.start()),
        "bytes": bytes.0,
        "ever_committed": ever_committed.0,
        "committed": committed.0,
        "mapped": mapped.0,
        "time": time.0,
        "event": maker(by),
        "released": released.map(|time| time.0),
    })
}

fn tree_object(tree: &TreeReport) -> Value {
    let TreeReport {
        mapped,
        reserved,
        committed,
        charged,
        resident,
        mappings,
        most_spaces,
    } = tree;
    json!({
        "mapped": tree_figure(mapped),
        "reserved": tree_figure(reserved),
        "committed": tree_figure(committed),
        "charged": tree_figure(charged),
        "resident": tree_figure(resident),
        "mappings": tree_figure(mappings),
        "most_spaces": most_spaces,
    })
}

fn tree_figure(figure: &TreeFigure) -> Value {
    json!({
        "end": figure.end,
        "peak": figure.peak,
        "peak_time": figure.peak_time.0,
        "peak_space": figure.peak_space.0,
        "peak_event": maker(&figure.peak_by),
    })
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(object) = object {
        object.insert(key.to_owned(), value);
    }
}
