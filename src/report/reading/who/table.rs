//! The sums of a profile by owner and by stack.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::report::reading::by::Sums;
use crate::timeline::Namer;
use crate::units::{Bytes, Timestamp};

use super::{Label, Labels, Profile, owner};

/// A table of stacks, the largest first.
#[derive(Clone, Debug, PartialEq)]
pub struct StackTable {
    /// The rows.
    pub rows: Vec<StackRow>,
    /// Their sum.
    pub total: Sums,
    /// Time of the last event.
    pub until: Timestamp,
}

/// Stacks that read the same.
#[derive(Clone, Debug, PartialEq)]
pub struct StackRow {
    /// Its steps, innermost first; never empty.
    pub labels: Vec<Label>,
    /// What it did and what is left of it.
    pub sums: Sums,
}

/// A table of owners, the largest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Owners {
    /// The rows.
    pub rows: Vec<OwnerRow>,
    /// Their sum.
    pub total: Sums,
    /// Time of the last event.
    pub until: Timestamp,
}

/// All that one function owns, see [`owner`].
#[derive(Clone, Debug, PartialEq)]
pub struct OwnerRow {
    /// Which.
    pub owner: Label,
    /// Stacks that it is the owner of.
    pub stacks: u64,
    /// What it did and what is left of it.
    pub sums: Sums,
}

impl StackRow {
    /// The step that says most about whose it is.
    pub fn owner(&self) -> Option<&Label> {
        owner(&self.labels)
    }
}

/// What rows are ordered by: bytes that were given a state with access or taken as addresses, or
/// what is left of them if that is more.
pub fn weight(sums: &Sums) -> Bytes {
    let left = sums.reserved + sums.committed;
    (sums.made() + sums.flow.commit).max(left)
}

impl Profile {
    /// By stack, whichever process it was in.
    pub fn by_stack(&self, namer: &mut dyn Namer) -> StackTable {
        let mut labels = Labels::new(&self.stacks, namer);
        let mut by_label: BTreeMap<Vec<Label>, Sums> = BTreeMap::new();
        let mut total = Sums::default();
        for entry in &self.entries {
            total += entry.sums;
            *by_label.entry(labels.source(&entry.source)).or_default() += entry.sums;
        }
        let rows = by_label.into_iter();
        let mut rows: Vec<StackRow> = rows
            .map(|(labels, sums)| StackRow { labels, sums })
            .collect();
        rows.sort_by_key(|row| Reverse((weight(&row.sums), row.sums.calls)));
        StackTable {
            rows,
            total,
            until: self.until,
        }
    }

    /// By the function that owns each stack.
    pub fn by_owner(&self, namer: &mut dyn Namer) -> Owners {
        let table = self.by_stack(namer);
        let mut by_owner: BTreeMap<Label, (u64, Sums)> = BTreeMap::new();
        for row in &table.rows {
            if let Some(owner) = row.owner() {
                let (stacks, sums) = by_owner.entry(owner.without_line()).or_default();
                *stacks += 1;
                *sums += row.sums;
            }
        }
        let rows = by_owner.into_iter();
        let mut rows: Vec<OwnerRow> = rows
            .map(|(owner, (stacks, sums))| OwnerRow {
                owner,
                stacks,
                sums,
            })
            .collect();
        rows.sort_by_key(|row| Reverse((weight(&row.sums), row.sums.calls)));
        Owners {
            rows,
            total: table.total,
            until: table.until,
        }
    }
}
