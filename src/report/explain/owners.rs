//! Whose the bytes of an address space are.
//!
//! An owner is what recognition says ("Go page summaries"), and where nothing tells, a place: a file,
//! an anonymous mapping by address.

use std::sync::Arc;

use crate::mm::{MapsEntry, Snapshot};
use crate::report::reading::{Key, Label, Lives, Row, Table};
use crate::report::recognize::{Basis, Kind, Surroundings, recognize_snapshot};
use crate::report::{Place, PlaceBytes};
use crate::units::{AddrRange, Bytes};

/// Bytes with one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its name, not escaped.
    pub name: String,
    /// Without any access right.
    pub reserved: Bytes,
    /// The others.
    pub committed: Bytes,
    /// Physical memory behind it; `None`: not known.
    pub resident: Option<Bytes>,
    /// The functions that called for its largest reservation, from the one that tells what it is for
    /// outwards; empty if no stack tells.
    pub reserved_by: Vec<Arc<str>>,
}

impl Owner {
    /// All its bytes.
    pub fn mapped(&self) -> Bytes {
        self.reserved + self.committed
    }
}

/// The owners of what `snapshot` shows, the largest first; they sum to mapped.
pub fn owners_of_snapshot(snapshot: &Snapshot, around: &Surroundings) -> Vec<Owner> {
    let verdicts = recognize_snapshot(snapshot, around);
    let mut owners: Vec<Owner> = Vec::new();
    let mut named = std::collections::HashMap::<String, usize>::new();
    // An anonymous run: mappings that touch are pieces of one reservation as a rule (an arena and
    // what is committed of it).
    let mut run: Option<AddrRange> = None;
    let mut index = 0;
    for (number, entry) in snapshot.entries.iter().enumerate() {
        let verdict = verdicts.get(number).and_then(Option::as_ref);
        let verdict = verdict.filter(|verdict| verdict.kind != Kind::MAPPED_FILES);
        let anonymous = verdict.is_none() && is_nameless(entry);
        let continues = run.is_some_and(|run| run.end() == entry.range.start());
        if !(anonymous && continues) {
            let name = match verdict {
                Some(verdict) => verdict.kind.to_string(),
                None if anonymous => format!("anonymous memory at {}", entry.range.start()),
                None => entry.name.to_string(),
            };
            index = *named.entry(name.clone()).or_insert_with(|| {
                owners.push(Owner {
                    name,
                    ..Owner::default()
                });
                owners.len() - 1
            });
        }
        run = anonymous.then_some(entry.range);
        let Some(owner) = owners.get_mut(index) else {
            continue;
        };
        let bytes = Bytes(entry.range.len());
        match entry.prot.rwx().is_empty() {
            true => owner.reserved += bytes,
            false => owner.committed += bytes,
        }
        if let Some(info) = snapshot.smaps.get(number) {
            *owner.resident.get_or_insert_default() += info.resident;
        }
    }
    largest_first(owners)
}

/// The owners that a table by kind tells, with who called for the largest reservation of each.
pub fn owners_of_kinds(table: &Table, lives: &Lives) -> Vec<Owner> {
    let rows = table.rows.iter().filter(|row| row.sums.mapped.0 != 0);
    let owner = |row: &Row| Owner {
        name: match &row.key {
            Key::Kind(Some(kind)) => kind.to_string(),
            _ => "unknown".to_owned(),
        },
        reserved: row.sums.reserved,
        committed: row.sums.committed,
        resident: None,
        reserved_by: callers(row, lives),
    };
    largest_first(rows.map(owner).collect())
}

/// Who called for the largest reservation of a kind that is known by its caller.
fn callers(row: &Row, lives: &Lives) -> Vec<Arc<str>> {
    let known = row.recognized.as_ref();
    let Some(known) = known.filter(|known| known.basis == Basis::Caller) else {
        return Vec::new();
    };
    let tells = |label: &Label| *known.evidence == format!("called by {}", label.text);
    let stacks = lives.list.iter().map(|life| &life.reserver);
    let mut from_there = stacks.filter_map(|stack| stack.get(stack.iter().position(tells)?..));
    let callers = from_there.next().unwrap_or_default().iter();
    callers.map(|label| Arc::clone(&label.text)).collect()
}

/// The owners as a report knows them: its places.
pub fn owners_of_places(places: &[PlaceBytes]) -> Vec<Owner> {
    let owner = |bytes: &PlaceBytes| Owner {
        name: match &bytes.place {
            Place::Heap => "[heap]".to_owned(),
            Place::Stack => "[stack]".to_owned(),
            Place::ThreadStack => "thread stacks (MAP_STACK)".to_owned(),
            Place::Anon => "anonymous memory".to_owned(),
            Place::Shared(name) | Place::File(name) | Place::Special(name) => name.to_string(),
            Place::Others => "smaller ones".to_owned(),
        },
        reserved: bytes.reserved,
        committed: bytes.committed,
        resident: None,
        reserved_by: Vec::new(),
    };
    largest_first(places.iter().map(owner).collect())
}

fn is_nameless(entry: &MapsEntry) -> bool {
    entry.name.is_empty() && entry.file.inode == 0
}

fn largest_first(mut owners: Vec<Owner>) -> Vec<Owner> {
    owners.sort_by(|a, b| {
        b.mapped()
            .cmp(&a.mapped())
            .then_with(|| a.name.cmp(&b.name))
    });
    owners
}
