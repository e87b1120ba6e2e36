//! Maps as JSON: entries, snapshots, evidence.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::abi::Prot;
use crate::mm::{Evidence, FileId, MapsEntry, SmapsInfo, Snapshot};
use crate::units::{Addr, AddrRange, Bytes};

use super::wire::{Hex, Impossible, is_default};

#[derive(Serialize, Deserialize)]
pub(super) struct WireSnapshot {
    entries: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    smaps: Vec<Smaps>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireEvidence {
    start: Hex,
    end: Hex,
    entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    start: Hex,
    end: Hex,
    /// PROT_* bits.
    #[serde(default, skip_serializing_if = "is_default")]
    prot: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    shared: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    offset: Hex,
    /// Major and minor.
    #[serde(default, skip_serializing_if = "is_default")]
    dev: (u32, u32),
    #[serde(default, skip_serializing_if = "is_default")]
    inode: Hex,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    name: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct Smaps {
    #[serde(default, skip_serializing_if = "is_default")]
    resident: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    anonymous: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    swap: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    lazy_free: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    locked: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    charged: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    noreserve: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    growsdown: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    dontfork: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    sealed: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    hugetlb: bool,
}

fn range(start: Hex, end: Hex) -> Result<AddrRange, Impossible> {
    AddrRange::new(Addr(start.0), Addr(end.0)).ok_or(Impossible("a range is impossible"))
}

impl From<&Snapshot> for WireSnapshot {
    fn from(snapshot: &Snapshot) -> WireSnapshot {
        let Snapshot { entries, smaps } = snapshot;
        WireSnapshot {
            entries: entries.iter().map(Entry::from).collect(),
            smaps: smaps.iter().map(Smaps::from).collect(),
        }
    }
}

impl TryFrom<WireSnapshot> for Snapshot {
    type Error = Impossible;

    fn try_from(wire: WireSnapshot) -> Result<Snapshot, Impossible> {
        let WireSnapshot { entries, smaps } = wire;
        if !smaps.is_empty() && smaps.len() != entries.len() {
            return Err(Impossible("smaps is not as long as maps"));
        }
        Ok(Snapshot {
            entries: self::entries(entries)?,
            smaps: smaps.into_iter().map(SmapsInfo::from).collect(),
        })
    }
}

fn entries(wire: Vec<Entry>) -> Result<Vec<MapsEntry>, Impossible> {
    wire.into_iter().map(MapsEntry::try_from).collect()
}

impl From<&Evidence> for WireEvidence {
    fn from(evidence: &Evidence) -> WireEvidence {
        let Evidence { range, entries } = evidence;
        WireEvidence {
            start: range.start().into(),
            end: range.end().into(),
            entries: entries.iter().map(Entry::from).collect(),
        }
    }
}

impl TryFrom<WireEvidence> for Evidence {
    type Error = Impossible;

    fn try_from(wire: WireEvidence) -> Result<Evidence, Impossible> {
        Ok(Evidence {
            range: range(wire.start, wire.end)?,
            entries: entries(wire.entries)?,
        })
    }
}

impl From<&MapsEntry> for Entry {
    fn from(entry: &MapsEntry) -> Entry {
        let MapsEntry {
            range,
            prot,
            shared,
            offset,
            file,
            name,
        } = entry;
        let FileId {
            major,
            minor,
            inode,
        } = *file;
        Entry {
            start: range.start().into(),
            end: range.end().into(),
            prot: prot.bits(),
            shared: *shared,
            offset: Hex(*offset),
            dev: (major, minor),
            inode: Hex(inode),
            name: Arc::clone(name),
        }
    }
}

impl TryFrom<Entry> for MapsEntry {
    type Error = Impossible;

    fn try_from(wire: Entry) -> Result<MapsEntry, Impossible> {
        Ok(MapsEntry {
            range: range(wire.start, wire.end)?,
            prot: Prot::from_bits_retain(wire.prot),
            shared: wire.shared,
            offset: wire.offset.0,
            file: FileId {
                major: wire.dev.0,
                minor: wire.dev.1,
                inode: wire.inode.0,
            },
            name: wire.name,
        })
    }
}

impl From<&SmapsInfo> for Smaps {
    fn from(info: &SmapsInfo) -> Smaps {
        let SmapsInfo {
            resident,
            anonymous,
            swap,
            lazy_free,
            locked,
            charged,
            noreserve,
            growsdown,
            dontfork,
            sealed,
            hugetlb,
        } = *info;
        Smaps {
            resident: resident.0,
            anonymous: anonymous.0,
            swap: swap.0,
            lazy_free: lazy_free.0,
            locked: locked.0,
            charged,
            noreserve,
            growsdown,
            dontfork,
            sealed,
            hugetlb,
        }
    }
}

impl From<Smaps> for SmapsInfo {
    fn from(wire: Smaps) -> SmapsInfo {
        let Smaps {
            resident,
            anonymous,
            swap,
            lazy_free,
            locked,
            charged,
            noreserve,
            growsdown,
            dontfork,
            sealed,
            hugetlb,
        } = wire;
        SmapsInfo {
            resident: Bytes(resident),
            anonymous: Bytes(anonymous),
            swap: Bytes(swap),
            lazy_free: Bytes(lazy_free),
            locked: Bytes(locked),
            charged,
            noreserve,
            growsdown,
            dontfork,
            sealed,
            hugetlb,
        }
    }
}
