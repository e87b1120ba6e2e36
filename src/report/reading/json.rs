//! The answers as JSON. As in a report: amounts are bytes, times nanoseconds since the trace began,
//! addresses hex strings; fields are added, never renamed.

use serde_json::{Value, json};

use crate::abi::Prot;
use crate::mm::Backing;
use crate::report::json::{ended, flow, hex, kind_and_name, maker, parts, touches};
use crate::report::recognize::Recognized;
use crate::report::{Made as MadeBy, Place, Touches};
use crate::timeline::{Began, EventKind};
use crate::units::{Bytes, Timestamp};

use super::around::{Around, Life, Part, Touch};
use super::at::{Made, Mapping, SpaceThen, Then};
use super::by::{By, Key, Row, Sums, Table};
use super::over_time::{Curve, Figures, Steps};
use super::provenance::{How, Origin, RightsChange};

mod who;

pub use who::{lives, owners, stacks, tree};

/// `memtrace.at/1`: the spaces at one moment.
pub fn at(then: &Then) -> Value {
    let Then { time, last, spaces } = then;
    json!({
        "schema": "memtrace.at/1",
        "time": time.0,
        "last": last,
        "spaces": spaces.iter().map(space).collect::<Vec<_>>(),
    })
}

fn space(space: &SpaceThen) -> Value {
    let SpaceThen {
        id,
        pid,
        exe,
        comm,
        began,
        since,
        totals,
        resident,
        threads,
        mappings,
        hidden,
    } = space;
    json!({
        "id": id.0,
        "pid": pid.0,
        "exe": &**exe,
        "comm": &**comm,
        "began": began_word(*began),
        "since": since.0,
        "mapped": totals.mapped.0,
        "reserved": totals.reserved.0,
        "committed": totals.committed.0,
        "parts": parts(&totals.parts),
        "noreserve": totals.noreserve.0,
        "charged": {"at_most": totals.charged_high.0, "at_least": totals.charged_low.0},
        "resident": resident.map(|(bytes, time)| json!({"bytes": bytes.0, "measured": time.0})),
        "threads": threads,
        "mappings": mappings.iter().map(mapping).collect::<Vec<_>>(),
        "hidden": hidden,
    })
}

fn began_word(began: Began) -> &'static str {
    match began {
        Began::Exec => "exec",
        Began::Fork { .. } => "fork",
        Began::Attach => "attach",
    }
}

/// Rights as maps prints them: `rw-p`.
fn rights(prot: Prot, shared: bool) -> String {
    let letter = |flag, letter| if prot.contains(flag) { letter } else { '-' };
    [
        letter(Prot::READ, 'r'),
        letter(Prot::WRITE, 'w'),
        letter(Prot::EXEC, 'x'),
        if shared { 's' } else { 'p' },
    ]
    .iter()
    .collect()
}

fn mapping(mapping: &Mapping) -> Value {
    let Mapping {
        range,
        prot,
        shared,
        backing,
        flags,
        place,
        name,
        made,
    } = mapping;
    let (kind, place_name) = kind_and_name(place);
    let name = name.as_ref().or(place_name);
    let (offset, file) = match backing {
        Backing::File { id, offset, .. } => (
            json!(offset),
            json!({"major": id.major, "minor": id.minor, "inode": id.inode}),
        ),
        Backing::Anon | Backing::Special { .. } => (Value::Null, Value::Null),
    };
    json!({
        "start": hex(range.start()),
        "end": hex(range.end()),
        "bytes": range.len(),
        "perms": rights(*prot, *shared),
        "state": if prot.is_empty() { "reserved" } else { "committed" },
        "kind": kind,
        "name": name.map(|name| &**name),
        "offset": offset,
        "file": file,
        "noreserve": flags.noreserve,
        "sealed": flags.sealed,
        "made": made.iter().map(made_by).collect::<Vec<_>>(),
    })
}

fn made_by(made: &Made) -> Value {
    let Made {
        range,
        origin,
        change,
        owner,
        recognized: known,
    } = made;
    json!({
        "start": hex(range.start()),
        "bytes": range.len(),
        "by": origin_object(origin),
        "changed": change.as_deref().map(change_object),
        "owner": owner.as_deref(),
        "recognized": recognized(known.as_ref()),
    })
}

fn origin_object(origin: &Origin) -> Value {
    let Origin {
        id: _,
        time,
        by,
        how,
        space,
        start: _,
        copied,
        counts: _,
        stack: _,
    } = origin;
    json!({
        "how": match how {
            How::Began(began) => began_word(*began),
            How::Call => "call",
            How::Grown | How::Found => "found",
        },
        "time": time.0,
        "space": space.0,
        "event": maker(by),
        "copied_from": copied.as_deref().map(origin_object),
    })
}

fn change_object(change: &RightsChange) -> Value {
    let RightsChange {
        time,
        by,
        stack: _,
        counts: _,
    } = change;
    json!({"time": time.0, "event": maker(by)})
}

/// `memtrace.around/1`: the life of a range.
pub fn around(around: &Around) -> Value {
    let range = around.range();
    json!({
        "schema": "memtrace.around/1",
        "start": hex(range.start()),
        "end": hex(range.end()),
        "spaces": around.lives().map(life).collect::<Vec<_>>(),
        "more": around.more,
    })
}

fn life(life: &Life) -> Value {
    let Life {
        space,
        pid,
        exe,
        comm,
        ended,
        touches,
    } = life;
    json!({
        "id": space.0,
        "pid": pid.0,
        "exe": &**exe,
        "comm": &**comm,
        "ended": ended.map(|time| time.0),
        "events": touches.iter().map(touch).collect::<Vec<_>>(),
    })
}

fn touch(touch: &Touch) -> Value {
    let by = touch.maker();
    let what = match &touch.event.kind {
        EventKind::SpaceBegan { began, .. } => began_word(*began),
        EventKind::SpaceEnded { ended: how, .. } => match ended(*how) {
            "exec" => "ended by exec",
            "exit" => "ended by exit",
            "detach" => "ended by detach",
            _ => "cut",
        },
        EventKind::Call(_) => "call",
        _ => "found",
    };
    let text = match &by.what {
        MadeBy::Call(..) => Some(by.what.to_string()),
        _ => None,
    };
    json!({
        "seq": touch.event.seq,
        "time": touch.event.time.0,
        "tid": touch.event.tid.0,
        "what": what,
        "call": by.call(),
        "text": text,
        "owner": touch.owner.as_deref(),
        "before": touch.before.iter().map(part).collect::<Vec<_>>(),
        "after": touch.after.iter().map(part).collect::<Vec<_>>(),
    })
}

fn part(part: &Part) -> Value {
    let Part {
        range,
        prot,
        shared,
        place,
    } = part;
    let (kind, name) = kind_and_name(place);
    json!({
        "start": hex(range.start()),
        "bytes": range.len(),
        "perms": rights(*prot, *shared),
        "kind": kind,
        "name": name.map(|name| &**name),
    })
}

/// `memtrace.table/1`: a table of sums, the largest row first.
pub fn table(table: &Table) -> Value {
    let Table {
        by,
        rows,
        total,
        until,
    } = table;
    json!({
        "schema": "memtrace.table/1",
        "by": by_word(*by),
        "until": until.0,
        "rows": rows.iter().map(|line| row(*by, line)).collect::<Vec<_>>(),
        "total": sums(total),
    })
}

/// What `--by` takes.
pub fn by_word(by: By) -> &'static str {
    match by {
        By::Call => "call",
        By::Mapping => "mapping",
        By::File => "file",
        By::Thread => "thread",
        By::Space => "space",
        By::Kind => "kind",
    }
}

fn row(by: By, row: &Row) -> Value {
    let comm = || (!row.comm.is_empty()).then_some(&*row.comm);
    let pid = row.pid.map(|pid| pid.0);
    let mut object = match &row.key {
        Key::Call(name) => json!({"call": name}),
        Key::Thread(tid) => json!({"tid": tid.0, "pid": pid, "comm": comm()}),
        Key::Space(id) => json!({"space": id.0, "pid": pid, "comm": comm()}),
        Key::Place(place) => place_object(place),
        Key::Kind(_) => kind_object(row),
        Key::Mapping(_) => mapping_object(row),
        Key::Began => json!({"other": "began"}),
        Key::Found => json!({"other": "found"}),
        Key::Nothing => json!({"other": "nothing"}),
        Key::Others => json!({"other": "smaller", "rows": row.rows}),
    };
    if let (Value::Object(object), Value::Object(sums)) = (&mut object, sums(&row.sums)) {
        object.extend(sums);
        object.insert("weight".to_owned(), json!(row.weight(by).0));
    }
    object
}

fn place_object(place: &Place) -> Value {
    let (kind, name) = kind_and_name(place);
    json!({"kind": kind, "name": name.map(|name| &**name)})
}

fn kind_object(row: &Row) -> Value {
    let mut object = recognized(row.recognized.as_ref());
    if let Value::Object(object) = &mut object {
        object.insert("mappings".to_owned(), json!(row.rows));
    }
    object
}

/// What memory is, all null where nothing tells.
pub(in crate::report) fn recognized(known: Option<&Recognized>) -> Value {
    json!({
        "owner": known.map(|known| known.kind.owner),
        "what": known.map(|known| known.kind.what),
        "basis": known.map(|known| known.basis.word()),
        "evidence": known.map(|known| &*known.evidence),
    })
}

fn mapping_object(row: &Row) -> Value {
    let Some(mapping) = &row.mapping else {
        return json!({});
    };
    let (kind, place_name) = kind_and_name(&mapping.place);
    let name = mapping.name.as_ref().or(place_name);
    let released = mapping.released.map(|Timestamp(time)| time);
    json!({
        "space": mapping.origin.space.0,
        "pid": row.pid.map(|pid| pid.0),
        "start": hex(mapping.origin.start),
        "kind": kind,
        "name": name.map(|name| &**name),
        "made": origin_object(&mapping.origin),
        "released": released,
    })
}

fn sums(sums: &Sums) -> Value {
    let Sums {
        calls,
        failed,
        bytes,
        flow: flows,
        began,
        reserved,
        committed,
        mapped,
        touched,
    } = sums;
    let mut object = json!({
        "calls": calls,
        "failed": failed,
        "bytes": bytes.0,
        "flow": flow(flows),
        "began": began.0,
        "end": {"reserved": reserved.0, "committed": committed.0, "mapped": mapped.0},
    });
    if let Value::Object(object) = &mut object
        && *touched != Touches::default()
    {
        object.insert("touched".to_owned(), touches(touched));
    }
    object
}

/// `memtrace.timeline/1`: the figures over time. The values of a step are those at its end;
/// `highest` holds the highest of each within it, which need not have been at one instant.
pub fn timeline(steps: &Steps) -> Value {
    let [mapped, reserved, committed, resident] = &steps.curves;
    let time = |index: usize| {
        let end = steps
            .start
            .0
            .saturating_add(steps.length.saturating_mul(index as u64 + 1));
        end.min(steps.end.0)
    };
    let list = steps.list.iter().enumerate().map(|(index, step)| {
        let mut value = figures(&step.last);
        if let Value::Object(object) = &mut value {
            object.insert("time".to_owned(), json!(time(index)));
            object.insert("highest".to_owned(), figures(&step.highest));
        }
        value
    });
    json!({
        "schema": "memtrace.timeline/1",
        "start": steps.start.0,
        "end": steps.end.0,
        "step": steps.length,
        "peak": {
            "mapped": curve(mapped),
            "reserved": curve(reserved),
            "committed": curve(committed),
            "resident": curve(resident),
        },
        "steps": list.collect::<Vec<_>>(),
    })
}

fn figures(values: &Figures) -> Value {
    let [mapped, reserved, committed, resident] = values;
    json!({"mapped": mapped, "reserved": reserved, "committed": committed, "resident": resident})
}

fn curve(curve: &Curve) -> Value {
    let Curve {
        peak: Bytes(peak),
        peak_time,
        peak_by,
    } = curve;
    json!({"bytes": peak, "time": peak_time.0, "event": maker(peak_by)})
}

/// `memtrace.reports/1`: answers about several traces, each with the name of its file.
pub fn several(answers: Vec<(String, Value)>) -> Value {
    let with_name = |(trace, mut answer): (String, Value)| {
        if let Value::Object(object) = &mut answer {
            object.insert("trace".to_owned(), Value::String(trace));
        }
        answer
    };
    let reports: Vec<Value> = answers.into_iter().map(with_name).collect();
    json!({"schema": "memtrace.reports/1", "reports": reports})
}
