//! Whose the bytes of an address space are.
//!
//! This is the place where recognised owners go ("Go heap", "thread stacks"): both functions return
//! what the verdict and the renderers know as [`Owner`], and nothing else asks where a name came
//! from. Until then an owner is a place: the heap, a stack, a file, an anonymous mapping by address.

use crate::mm::{MapsEntry, Snapshot};
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
}

impl Owner {
    /// All its bytes.
    pub fn mapped(&self) -> Bytes {
        self.reserved + self.committed
    }
}

/// The owners of what `snapshot` shows, the largest first; they sum to mapped.
pub fn owners_of_snapshot(snapshot: &Snapshot) -> Vec<Owner> {
    let mut owners: Vec<Owner> = Vec::new();
    let mut named = std::collections::HashMap::<String, usize>::new();
    // An anonymous run: mappings that touch are pieces of one reservation as a rule (an arena and
    // what is committed of it).
    let mut run: Option<AddrRange> = None;
    let mut index = 0;
    for (number, entry) in snapshot.entries.iter().enumerate() {
        let anonymous = is_nameless(entry);
        let continues = run.is_some_and(|run| run.end() == entry.range.start());
        if !(anonymous && continues) {
            let name = match anonymous {
                true => format!("anonymous memory at {}", entry.range.start()),
                false => entry.name.to_string(),
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
