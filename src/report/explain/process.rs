//! The texts of `/proc` about a process and the machine, and what they say.

use std::collections::BTreeMap;

use crate::abi::Prot;
use crate::mm::{AddressSpace, MapsEntry, MapsError, Snapshot, Vma, parse_maps, parse_smaps};
use crate::report::recognize::Surroundings;
use crate::timeline::Bound;
use crate::units::{Addr, Bytes, PAGE};

use super::facts::{Machine, Memory, Peaked, Space, Split};
use super::owners::owners_of_snapshot;

/// Where programs' addresses end on x86-64, unless they ask for more by hint.
const WIDE_END: u64 = (1 << 47) - PAGE;
/// Where those of a 32-bit program end.
const NARROW_END: u64 = 1 << 32;

/// The first number on the line of `text` that begins with `key`, which ends in a colon or blank.
pub fn number_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn kib_of(text: &str, key: &str) -> Option<Bytes> {
    number_of(text, key)?.checked_mul(1024).map(Bytes)
}

/// What follows `key` on its line, trimmed.
pub fn key_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim())
}

/// What `/proc/PID/status` says of physical memory and of the address space; the second is `None`
/// for a task without one.
pub fn memory_of_status(status: &str) -> (Memory, Option<Space>) {
    let memory = Memory {
        resident: kib_of(status, "VmRSS:"),
        peak: kib_of(status, "VmHWM:"),
        anon: kib_of(status, "RssAnon:"),
        file: kib_of(status, "RssFile:"),
        shmem: kib_of(status, "RssShmem:"),
        swap: kib_of(status, "VmSwap:"),
        hugetlb: kib_of(status, "HugetlbPages:"),
        locked: kib_of(status, "VmLck:"),
        lazy_free: None,
        huge: None,
        measured: None,
        peak_time: None,
    };
    let space = kib_of(status, "VmSize:").map(|size| Space {
        mapped: Peaked {
            now: size,
            peak: kib_of(status, "VmPeak:"),
            peak_time: None,
        },
        split: None,
        page_tables: kib_of(status, "VmPTE:"),
        data: kib_of(status, "VmData:").map(Peaked::now),
    });
    (memory, space)
}

/// What maps or smaps say of a space in which those runtimes are, `smaps` telling which text it is; `None` if there are no mappings. What
/// smaps knows of physical memory goes into `memory`.
pub fn space_of_maps(
    text: &[u8],
    smaps: bool,
    around: &Surroundings,
    memory: &mut Memory,
) -> Result<Option<Split>, MapsError> {
    let snapshot = match smaps {
        true => parse_smaps(text)?,
        false => parse_maps(text)?,
    };
    if snapshot.entries.is_empty() {
        return Ok(None);
    }
    let mut split = split(&snapshot, around);
    if smaps {
        let sums = Sums::of(text);
        memory.lazy_free = Some(sums.lazy_free);
        memory.huge = Some(sums.huge);
        split.guarded = Some(sums.guarded);
    }
    Ok(Some(split))
}

/// What a snapshot shows.
pub(super) fn split(snapshot: &Snapshot, around: &Surroundings) -> Split {
    let space = AddressSpace::from_snapshot(snapshot);
    let totals = space.totals();
    let now = Peaked::now;
    let narrow = is_narrow(snapshot);
    Split {
        reserved: now(totals.reserved),
        reserved_resident: reserved_resident(snapshot),
        committed: now(totals.committed),
        parts: totals.parts,
        noreserve: totals.noreserve,
        data: data_of(&space),
        charged: now(totals.charged_high),
        charged_exact: !snapshot.smaps.is_empty(),
        mappings: Peaked::now(snapshot.entries.len() as u64),
        mappings_exact: true,
        largest_hole: Some(largest_hole(&space, narrow)),
        narrow,
        guarded: None,
        stack: main_stack(snapshot),
        thread_stacks: thread_stacks(snapshot, around),
        owners: owners_of_snapshot(snapshot, around),
    }
}

fn main_stack(snapshot: &Snapshot) -> Option<Bytes> {
    let stacks = snapshot.entries.iter();
    let mut sizes = stacks
        .filter(|entry| &*entry.name == "[stack]")
        .map(|entry| Bytes(entry.range.len()));
    let first = sizes.next()?;
    Some(first + sizes.sum())
}

/// nptl/allocatestack.c: a guard page, and the stack directly above it.
fn thread_stacks(snapshot: &Snapshot, around: &Surroundings) -> BTreeMap<Bytes, u64> {
    let mut around = around.clone();
    around.files_of(snapshot);
    let mut stacks = BTreeMap::new();
    if !around.has_glibc() {
        return stacks;
    }
    for pair in snapshot.entries.windows(2) {
        let [guard, stack] = pair else { continue };
        let plain = |entry: &MapsEntry| entry.name.is_empty() && !entry.shared;
        let guards = plain(guard) && guard.prot.rwx().is_empty() && guard.range.len() == PAGE;
        let usable = plain(stack) && stack.prot.rwx() == Prot::READ | Prot::WRITE;
        if guards && usable && guard.range.end() == stack.range.start() {
            *stacks.entry(Bytes(stack.range.len())).or_default() += 1;
        }
    }
    stacks
}

fn reserved_resident(snapshot: &Snapshot) -> Option<Bytes> {
    if snapshot.smaps.is_empty() {
        return None;
    }
    let entries = snapshot.entries.iter().zip(&snapshot.smaps);
    let reserved = entries.filter(|(entry, _)| entry.prot.rwx().is_empty());
    Some(reserved.map(|(_, info)| info.resident).sum())
}

/// What RLIMIT_DATA counts (mm/mmap.c, `is_data_mapping`): private writable mappings, but stacks.
pub(super) fn data_of(space: &AddressSpace) -> Bytes {
    let counts = |vma: &&Vma| vma.prot.contains(Prot::WRITE) && !vma.shared && !vma.flags.growsdown;
    space
        .vmas()
        .filter(counts)
        .map(|vma| Bytes(vma.range.len()))
        .sum()
}

/// The stack of a 64-bit program lies near the end of the address space.
fn is_narrow(snapshot: &Snapshot) -> bool {
    let last = snapshot.entries.last();
    last.is_some_and(|entry| entry.range.end().0 <= NARROW_END)
}

/// The largest hole between mappings, from the lowest address that may be mapped by default.
pub(super) fn largest_hole(space: &AddressSpace, narrow: bool) -> Bytes {
    const LOWEST: Addr = Addr(64 << 10);
    let end = if narrow { NARROW_END } else { WIDE_END };
    let mut at = LOWEST.0;
    let mut largest = 0;
    for vma in space.vmas() {
        largest = largest.max(vma.range.start().0.min(end).saturating_sub(at));
        at = at.max(vma.range.end().0);
    }
    Bytes(largest.max(end.saturating_sub(at)))
}

/// What smaps says beside what the model needs, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    lazy_free: Bytes,
    huge: Bytes,
    guarded: (u64, Bytes),
}

impl Sums {
    fn of(text: &[u8]) -> Sums {
        const HUGE: [&str; 3] = ["AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:"];
        let mut sums = Sums::default();
        let mut size = Bytes(0);
        for line in text.split(|&byte| byte == b'\n') {
            let amount = |key: &str| {
                let rest = line.strip_prefix(key.as_bytes())?;
                let rest = std::str::from_utf8(rest).ok()?;
                let kib = rest.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
                kib.checked_mul(1024).map(Bytes)
            };
            if let Some(mapped) = amount("Size:") {
                size = mapped;
            } else if let Some(bytes) = amount("LazyFree:") {
                sums.lazy_free += bytes;
            } else if let Some(bytes) = HUGE.iter().find_map(|key| amount(key)) {
                sums.huge += bytes;
            } else if line.starts_with(b"VmFlags:")
                && line.split(|&byte| byte == b' ').any(|flag| flag == b"gu")
            {
                sums.guarded.0 += 1;
                sums.guarded.1 += size;
            }
        }
        sums
    }
}

/// `/proc/meminfo`, and the files beside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meminfo<'a> {
    /// `/proc/meminfo`.
    pub meminfo: &'a str,
    /// `/proc/vmstat`.
    pub vmstat: &'a str,
    /// `/proc/sys/vm/overcommit_memory`.
    pub overcommit: &'a str,
    /// `/proc/sys/vm/max_map_count`.
    pub max_map_count: &'a str,
}

impl Meminfo<'_> {
    /// What the texts say.
    pub fn machine(self) -> Machine {
        let kib = |key| kib_of(self.meminfo, key);
        Machine {
            memory: kib("MemTotal:"),
            available: kib("MemAvailable:"),
            swap: kib("SwapTotal:"),
            swap_free: kib("SwapFree:"),
            commit_limit: kib("CommitLimit:"),
            committed: kib("Committed_AS:"),
            overcommit: self.overcommit.trim().parse().ok(),
            max_map_count: self.max_map_count.trim().parse().ok(),
            oom_kills: number_of(self.vmstat, "oom_kill "),
        }
    }
}

/// A number that a limit may be.
pub(super) fn bytes_of(bound: Option<Bound>) -> Option<Bytes> {
    bound.and_then(Bound::bytes)
}
