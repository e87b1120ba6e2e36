//! Owners, stacks, call trees and the lives of reservations as JSON.

use serde_json::{Value, json};

use crate::report::json::{flow, hex, kind_and_name, touches};
use crate::report::reading::lives::{Commits, LifeSums, Lives, ReservationLife, TouchedBy};
use crate::report::reading::who::{
    Direction, Kind, Label, Node, OwnerRow, Owners, StackRow, StackTable, Tree, weight,
};
use crate::report::reading::{Sums, Weight};

use super::{origin_object, sums};

/// `memtrace.table/1` by stack.
pub fn stacks(table: &StackTable) -> Value {
    let StackTable { rows, total, until } = table;
    let row = |row: &StackRow| {
        let object = json!({
            "stack": labels(&row.labels),
            "owner": row.owner().map(|owner| &*owner.text),
        });
        with_sums(object, &row.sums)
    };
    json!({
        "schema": "memtrace.table/1",
        "by": "stack",
        "until": until.0,
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "total": sums(total),
    })
}

/// `memtrace.table/1` by owner.
pub fn owners(table: &Owners) -> Value {
    let Owners { rows, total, until } = table;
    let row = |row: &OwnerRow| {
        let OwnerRow {
            owner,
            stacks,
            sums,
        } = row;
        let mut object = json!({"owner": &*owner.text});
        if let (Value::Object(object), Value::Object(more)) = (&mut object, label(owner)) {
            object.extend(more.into_iter().filter(|(key, _)| key != "name"));
            object.insert("stacks".to_owned(), json!(stacks));
        }
        with_sums(object, sums)
    };
    json!({
        "schema": "memtrace.table/1",
        "by": "owner",
        "until": until.0,
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "total": sums(total),
    })
}

fn with_sums(mut object: Value, of: &Sums) -> Value {
    if let (Value::Object(object), Value::Object(sums)) = (&mut object, sums(of)) {
        object.extend(sums);
        object.insert("weight".to_owned(), json!(weight(of).0));
    }
    object
}

/// Steps of a stack, innermost first.
fn labels(labels: &[Label]) -> Value {
    labels.iter().map(label).collect()
}

fn label(label: &Label) -> Value {
    let Label {
        text,
        kind,
        module,
        file,
        line,
    } = label;
    let mut object = json!({
        "name": &**text,
        "kind": match kind {
            Kind::Function => "function",
            Kind::Address => "address",
            Kind::Process => "process",
            Kind::Remark => "remark",
        },
    });
    if let Value::Object(object) = &mut object {
        let module = module.as_ref().map(|module| json!(&**module));
        object.extend(module.map(|module| ("module".to_owned(), module)));
        let file = file.as_ref().map(|file| json!(&**file));
        object.extend(file.map(|file| ("file".to_owned(), file)));
        if 0 < *line {
            object.insert("line".to_owned(), json!(line));
        }
    }
    object
}

/// `memtrace.tree/1`: a list of nodes, each before those below it. A list, because stacks are deeper
/// than many readers of JSON go.
pub fn tree(tree: &Tree) -> Value {
    let Tree {
        direction,
        weight,
        nodes,
        until,
    } = tree;
    let node = |(id, node): (usize, &Node)| {
        let Node {
            label: of,
            sums: all,
            own,
            parent,
            children: _,
        } = node;
        let mut object = json!({
            "id": id,
            "parent": (0 < id).then_some(parent),
            "calls": all.calls,
            "reserved": all.reserved.0,
            "committed": all.committed.0,
            "mapped": all.mapped.0,
            "own": {
                "calls": own.calls,
                "reserved": own.reserved.0,
                "committed": own.committed.0,
                "mapped": own.mapped.0,
            },
        });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, label(of))
            && 0 < id
        {
            object.extend(more);
        }
        object
    };
    json!({
        "schema": "memtrace.tree/1",
        "direction": match direction {
            Direction::Down => "down",
            Direction::Up => "up",
        },
        "weight": weight.map(Weight::name),
        "until": until.0,
        "nodes": nodes.iter().enumerate().map(node).collect::<Vec<_>>(),
    })
}

/// `memtrace.reservations/1`: the lives of reservations, the largest first.
pub fn lives(lives: &Lives) -> Value {
    let Lives {
        list,
        smaller,
        copies,
        total,
        with_stacks,
        with_touches,
        until,
    } = lives;
    json!({
        "schema": "memtrace.reservations/1",
        "until": until.0,
        "stacks": with_stacks,
        "touches": with_touches,
        "reservations": list.iter().map(life).collect::<Vec<_>>(),
        "smaller": life_sums(smaller),
        "untouched_copies": life_sums(copies),
        "total": life_sums(total),
    })
}

fn life(life: &ReservationLife) -> Value {
    let ReservationLife {
        origin,
        pid,
        comm,
        place,
        name,
        reserver,
        committers,
        touchers,
        sums,
        released,
    } = life;
    let (kind, place_name) = kind_and_name(place);
    let name = name.as_ref().or(place_name);
    let commits = |(who, commits): &(Vec<Label>, Commits)| {
        let Commits {
            calls,
            bytes,
            left,
            first,
            last,
            ..
        } = commits;
        json!({
            "by": labels(who),
            "calls": calls,
            "bytes": bytes.0,
            "left": left.0,
            "first": first.0,
            "last": last.0,
        })
    };
    let touched = |(who, by): &(Vec<Label>, TouchedBy)| {
        let TouchedBy {
            touches: of,
            stacks,
            first,
            last,
        } = by;
        json!({
            "by": labels(who),
            "touched": touches(of),
            "first": first.0,
            "last": last.0,
            "stacks": stacks,
        })
    };
    let mut object = json!({
        "space": origin.space.0,
        "pid": pid.0,
        "comm": &**comm,
        "start": hex(origin.start),
        "kind": kind,
        "name": name.map(|name| &**name),
        "made": origin_object(origin),
        "reserver": labels(reserver),
        "committers": committers.iter().map(commits).collect::<Vec<_>>(),
        "touchers": touchers.iter().map(touched).collect::<Vec<_>>(),
        "gone": released.map(|time| time.0),
    });
    if let (Value::Object(object), Value::Object(sums)) = (&mut object, life_sums(sums)) {
        object.extend(sums.into_iter().filter(|(key, _)| key != "count"));
    }
    object
}

fn life_sums(of: &LifeSums) -> Value {
    let LifeSums {
        count,
        reserved,
        ever_committed,
        flow: then,
        reserved_now,
        committed_now,
        touched,
    } = of;
    json!({
        "count": count,
        "reserved": reserved.0,
        "ever_committed": ever_committed.0,
        "flow": flow(then),
        "touched": touches(touched),
        "end": {"reserved": reserved_now.0, "committed": committed_now.0},
    })
}
