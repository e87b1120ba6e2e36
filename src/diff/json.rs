//! A comparison as JSON: the object `memtrace.diff/1`. Fields are added, never renamed or re-meant.
//! Amounts are bytes.

use serde_json::{Map, Value, json};

use crate::report::Made;

use super::cells::First;
use super::facts::*;
use super::owner::Owner;
use super::role::Role;

/// The name and version of the object.
pub const SCHEMA: &str = "memtrace.diff/1";

/// The comparison as a JSON object.
pub fn diff(diff: &Diff) -> Value {
    let Diff {
        same,
        before,
        after,
        spaces,
        changes,
        peak_changes,
        calls,
        timelines,
        doubts,
    } = diff;
    json!({
        "schema": SCHEMA,
        "same": same,
        "before": sums(&before.sums),
        "after": sums(&after.sums),
        "delta": delta(&before.sums, &after.sums),
        "spaces": spaces.iter().map(space).collect::<Vec<_>>(),
        "changes": changes.iter().map(change).collect::<Vec<_>>(),
        "peak_changes": peak_changes.iter().map(change).collect::<Vec<_>>(),
        "calls": calls.iter().map(call).collect::<Vec<_>>(),
        "timelines": timelines_object(timelines),
        "sides": {"before": side(before), "after": side(after)},
        "doubts": doubts,
    })
}

fn side(side: &Side) -> Value {
    let Side {
        command,
        started,
        runs,
        shown,
        sums: _,
    } = side;
    json!({"command": command, "started": started, "runs": runs, "shown": shown + 1})
}

fn sums(sums: &Sums) -> Value {
    let mut object = Map::new();
    for (name, EndPeak { end, peak }) in sums.figures() {
        object.insert(name.to_owned(), json!({"end": end, "peak": peak}));
    }
    let parts = sums.parts().into_iter();
    let parts: Map<_, _> = parts
        .map(|(name, bytes)| (name.to_owned(), json!(bytes.0)))
        .collect();
    insert(&mut object, "committed", "parts", Value::Object(parts));
    object.insert("events".to_owned(), json!(sums.events));
    Value::Object(object)
}

fn delta(before: &Sums, after: &Sums) -> Value {
    let mut object = Map::new();
    for ((name, old), (_, new)) in before.figures().into_iter().zip(after.figures()) {
        let end = difference(old.end, new.end);
        let peak = difference(old.peak, new.peak);
        object.insert(name.to_owned(), json!({"end": end, "peak": peak}));
    }
    let parts = before.parts().into_iter().zip(after.parts());
    let parts: Map<_, _> = parts
        .map(|((name, old), (_, new))| (name.to_owned(), json!(difference(old.0, new.0))))
        .collect();
    insert(&mut object, "committed", "parts", Value::Object(parts));
    object.insert(
        "events".to_owned(),
        json!(difference(before.events, after.events)),
    );
    Value::Object(object)
}

fn insert(object: &mut Map<String, Value>, figure: &str, key: &str, value: Value) {
    if let Some(Value::Object(figure)) = object.get_mut(figure) {
        figure.insert(key.to_owned(), value);
    }
}

fn space(pair: &SpacePair) -> Value {
    let SpacePair {
        name,
        before,
        after,
    } = pair;
    let side = |side: &Option<SpaceSide>| {
        side.as_ref().map(|side| {
            let SpaceSide {
                id,
                pid,
                exe,
                sums: figures,
            } = side;
            let mut object = sums(figures);
            if let Value::Object(object) = &mut object {
                object.remove("events");
                object.insert("id".to_owned(), json!(id.0));
                object.insert("pid".to_owned(), json!(pid.0));
                object.insert("exe".to_owned(), json!(exe));
            }
            object
        })
    };
    json!({"name": name, "before": side(before), "after": side(after)})
}

fn change(change: &Change) -> Value {
    let Change {
        kind,
        figure,
        subject,
        space,
        before,
        after,
        numbers,
        first,
        owners,
        noise,
    } = change;
    let owner = |side: usize| owners[side].as_ref().map(Owner::to_string);
    let mut object = json!({
        "what": subject_text(subject),
        "before": before,
        "after": after,
        "delta": change.delta(),
        "figure": figure_name(*figure),
        "kind": kind_name(*kind),
        "space": space,
        "role": match subject {
            Subject::Mappings { role, .. } => role_name(role),
            Subject::Processes => "process",
        },
        "counts": {"before": numbers[0], "after": numbers[1]},
        "first": {"before": first[0].map(first_object), "after": first[1].map(first_object)},
        "noise": noise.map(noise_text),
    });
    // Of traces without stacks there is nothing to tell.
    if owners.iter().any(Option::is_some) {
        object["owner"] = json!({"before": owner(0), "after": owner(1)});
    }
    object
}

/// The word for what happened.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::New => "new",
        Kind::Gone => "gone",
        Kind::Grown => "grown",
        Kind::Shrunk => "shrunk",
    }
}

/// The contract's word for a figure.
pub fn figure_name(figure: FigureName) -> &'static str {
    match figure {
        FigureName::Reserved => "reserved",
        FigureName::Committed => "committed",
    }
}

fn role_name(role: &Role) -> &'static str {
    match role {
        Role::Program => "program",
        Role::File(_) => "file",
        Role::Shared(_) => "shared",
        Role::Special(_) => "special",
        Role::Heap => "heap",
        Role::Stack => "stack",
        Role::Anon(anon) if anon.stack => "thread_stack",
        Role::Anon(_) => "anon",
    }
}

/// Why a difference does not count.
pub fn noise_text(noise: Noise) -> &'static str {
    match noise {
        Noise::Steps => "placed at random, grows in steps",
        Noise::Count => "a few more or fewer of equal shape",
        Noise::Small => "small",
        Noise::Spread => "within the spread of the runs",
    }
}

/// What a change is about, in words.
pub fn subject_text(subject: &Subject) -> String {
    match subject {
        Subject::Processes => "all mappings of processes that the other side does not have".into(),
        Subject::Mappings { role, name, sizes } => {
            let sizes = match *sizes {
                [0, 0] => String::new(),
                [0, size] | [size, 0] => format!(", {} each", size_text(size)),
                [old, new] if old == new => format!(", {} each", size_text(new)),
                [old, new] => format!(", {} each, were {}", size_text(new), size_text(old)),
            };
            format!("{}{sizes}", role_text(role, name))
        }
    }
}

/// What a mapping is for, in words; `name` is that of its file.
pub fn role_text(role: &Role, name: &str) -> String {
    match role {
        Role::Heap => "heap (brk)".to_owned(),
        Role::Stack => "stack".to_owned(),
        Role::Program => format!("the program {name}"),
        Role::File(_) | Role::Shared(_) | Role::Special(_) => name.to_owned(),
        Role::Anon(anon) => anon.to_string(),
    }
}

/// An amount in the largest unit that gives a whole number: `512 MiB`, `132 KiB`.
fn size_text(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

fn first_object(first: First) -> Value {
    let First { time, by, stack: _ } = first;
    let text = match by.what {
        Made::Began => None,
        Made::Call(..) | Made::Checked | Made::Sampled => Some(by.what.to_string()),
    };
    json!({"time": time.0, "seq": by.seq, "tid": by.tid.0, "call": by.call(), "text": text})
}

fn call(call: &CallChange) -> Value {
    let CallChange {
        name,
        counts,
        failed,
        noise,
    } = call;
    json!({
        "name": name,
        "before": {"count": counts[0], "failed": failed[0]},
        "after": {"count": counts[1], "failed": failed[1]},
        "delta": {
            "count": difference(counts[0], counts[1]),
            "failed": difference(failed[0], failed[1]),
        },
        "noise": noise.map(noise_text),
    })
}

fn timelines_object(timelines: &Timelines) -> Value {
    let Timelines {
        same,
        only_before,
        only_after,
        parting,
    } = timelines;
    let parting = parting.as_ref().map(|parting| {
        let Parting {
            space,
            after_calls,
            before,
            after,
        } = parting;
        json!({
            "space": space,
            "after_calls": after_calls,
            "before": before.map(first_object),
            "after": after.map(first_object),
        })
    });
    json!({"same": same, "only_before": only_before, "only_after": only_after, "parting": parting})
}
