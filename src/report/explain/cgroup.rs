//! A memory cgroup: its limits, what it counts, and what of that the kernel could give back.
//!
//! | what is counted          | version 2 (memory.stat)        | version 1                      | can be taken back without swap |
//! |--------------------------|--------------------------------|--------------------------------|--------------------------------|
//! | anonymous                | anon                           | total_rss                      | no, but pages of MADV_FREE     |
//! | shared memory, tmpfs     | shmem                          | total_shmem                    | no                             |
//! | page cache               | file − shmem                   | total_cache − total_shmem      | yes, if clean and not locked   |
//! | kernel                   | kernel (or its parts)          | memory.kmem.usage_in_bytes     | slab_reclaimable               |
//!
//! The lists of file pages (active_file, inactive_file) hold exactly what can be taken back without
//! swap: page cache that is not locked, and MADV_FREE'd anonymous pages (mm/swap.c,
//! `folio_mark_lazyfree`). So *fixed* is what is counted, less these lists, less reclaimable slab.

use crate::timeline::Bound;
use crate::units::{Bytes, PAGE};

use super::process::number_of;

/// One cgroup. All amounts hold what is below it, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Its path, from the root of the hierarchy as far as that can be seen.
    pub path: String,
    /// memory.max; memory.limit_in_bytes of version 1.
    pub max: Option<Bound>,
    /// memory.high; version 1 has none.
    pub high: Option<Bound>,
    /// memory.swap.max; version 1 has none.
    pub swap_max: Option<Bound>,
    /// memory.swap.current.
    pub swap: Option<Bytes>,
    /// memory.memsw.limit_in_bytes of version 1: memory and swap together.
    pub memsw_max: Option<Bound>,
    /// The lowest limit of it and all above it, seen or not (hierarchical_memory_limit of version 1).
    pub lowest_max: Option<Bound>,
    /// memory.current; memory.usage_in_bytes of version 1.
    pub counted: Option<Bytes>,
    /// memory.peak; memory.max_usage_in_bytes of version 1.
    pub peak: Option<Bytes>,
    /// Anonymous memory.
    pub anon: Option<Bytes>,
    /// Page cache without shared memory.
    pub cache: Option<Bytes>,
    /// Shared memory and tmpfs.
    pub shmem: Option<Bytes>,
    /// The lists of file pages: what can be taken back without swap.
    pub file_lists: Option<Bytes>,
    /// Memory of the kernel's.
    pub kernel: Option<Bytes>,
    /// The part of `kernel` that is reclaimable slab; version 1 does not tell it.
    pub slab_reclaimable: Option<Bytes>,
    /// Page tables, a part of `kernel`.
    pub page_tables: Option<Bytes>,
    /// Network buffers, a part of `kernel`.
    pub sock: Option<Bytes>,
    /// Cache that must be written to its file before it can be taken back.
    pub dirty: Option<Bytes>,
    /// How often the limit was met and memory had to be taken back: `max` of memory.events;
    /// memory.failcnt of version 1.
    pub met: Option<u64>,
    /// How often more than memory.high was counted.
    pub high_met: Option<u64>,
    /// How often nothing could be taken back: `oom` of memory.events.
    pub oom: Option<u64>,
    /// Processes of it, or below it, that the out-of-memory killer has killed; of it alone in version 1.
    pub oom_kills: Option<u64>,
}

/// What fills a cgroup most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    /// What.
    pub kind: FillingKind,
    /// How much.
    pub bytes: Bytes,
}

/// A kind of memory that a cgroup counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FillingKind {
    /// Anonymous memory.
    Anon,
    /// Shared memory and tmpfs.
    Shmem,
    /// The kernel's own.
    Kernel,
    /// Page cache.
    Cache,
}

impl Level {
    /// What the files of a cgroup say; `read` gives the text of one by its name.
    pub fn of(version: u8, path: String, read: &dyn Fn(&str) -> Option<String>) -> Level {
        match version {
            1 => Level::version_1(path, read),
            _ => Level::version_2(path, read),
        }
    }

    fn version_2(path: String, read: &dyn Fn(&str) -> Option<String>) -> Level {
        let stat = read("memory.stat").unwrap_or_default();
        let events = read("memory.events").unwrap_or_default();
        let stat = |key: &str| number_of(&stat, key).map(Bytes);
        let event = |key: &str| number_of(&events, key);
        let parts = [
            stat("slab "),
            stat("pagetables "),
            stat("sec_pagetables "),
            stat("kernel_stack "),
            stat("percpu "),
            stat("vmalloc "),
        ];
        let sock = stat("sock ");
        // Before 5.18 there is no sum; network buffers are counted beside it.
        let kernel =
            stat("kernel ").or_else(|| stat("slab ").map(|_| parts.into_iter().flatten().sum()));
        Level {
            path,
            max: bound(read("memory.max"), u64::MAX),
            high: bound(read("memory.high"), u64::MAX),
            swap_max: bound(read("memory.swap.max"), u64::MAX),
            swap: amount(read("memory.swap.current")),
            memsw_max: None,
            lowest_max: None,
            counted: amount(read("memory.current")),
            peak: amount(read("memory.peak")),
            anon: stat("anon "),
            cache: less(stat("file "), stat("shmem ")),
            shmem: stat("shmem "),
            file_lists: both(stat("active_file "), stat("inactive_file ")),
            kernel: kernel.map(|kernel| kernel + sock.unwrap_or_default()),
            slab_reclaimable: stat("slab_reclaimable "),
            page_tables: stat("pagetables "),
            sock,
            dirty: both(stat("file_dirty "), stat("file_writeback ")),
            met: event("max "),
            high_met: event("high "),
            oom: event("oom "),
            oom_kills: event("oom_kill "),
        }
    }

    fn version_1(path: String, read: &dyn Fn(&str) -> Option<String>) -> Level {
        // No limit is the highest number of whole pages that a long holds (PAGE_COUNTER_MAX).
        const NONE: u64 = i64::MAX as u64 / PAGE * PAGE;
        let stat = read("memory.stat").unwrap_or_default();
        let stat = |key: &str| number_of(&stat, key).map(Bytes);
        let control = read("memory.oom_control").unwrap_or_default();
        let lowest = stat("hierarchical_memory_limit ").map(|Bytes(bytes)| match bytes {
            bytes if NONE <= bytes => Bound::Unlimited,
            bytes => Bound::Bytes(Bytes(bytes)),
        });
        Level {
            path,
            max: bound(read("memory.limit_in_bytes"), NONE),
            high: None,
            swap_max: None,
            swap: stat("total_swap "),
            memsw_max: bound(read("memory.memsw.limit_in_bytes"), NONE),
            lowest_max: lowest,
            counted: amount(read("memory.usage_in_bytes")),
            peak: amount(read("memory.max_usage_in_bytes")),
            anon: stat("total_rss "),
            cache: less(stat("total_cache "), stat("total_shmem ")),
            shmem: stat("total_shmem "),
            file_lists: both(stat("total_active_file "), stat("total_inactive_file ")),
            kernel: amount(read("memory.kmem.usage_in_bytes")),
            slab_reclaimable: None,
            page_tables: None,
            sock: amount(read("memory.kmem.tcp.usage_in_bytes")),
            dirty: both(stat("total_dirty "), stat("total_writeback ")),
            met: number(read("memory.failcnt")),
            high_met: None,
            oom: None,
            oom_kills: number_of(&control, "oom_kill "),
        }
    }

    /// The amounts of this look with the counters of a later one.
    pub fn counted_later(&self, later: &Level) -> Level {
        Level {
            peak: later.peak,
            met: later.met,
            high_met: later.high_met,
            oom: later.oom,
            oom_kills: later.oom_kills,
            ..self.clone()
        }
    }

    /// How full it is, in thousandths of its limit, not counting what can be taken back; `None`
    /// without a limit.
    pub fn fullness(&self) -> Option<u64> {
        let limit = self.max?.bytes()?.0.max(1);
        let full = u128::from(self.fixed()?.0) * 1000 / u128::from(limit);
        u64::try_from(full).ok()
    }

    /// What the kernel can take back without writing to swap.
    pub fn reclaimable(&self) -> Option<Bytes> {
        let slab = self.slab_reclaimable.unwrap_or_default();
        Some(self.file_lists? + slab)
    }

    /// What is counted and cannot be taken back without swap; without the figures for it, unknown.
    pub fn fixed(&self) -> Option<Bytes> {
        let reclaimable = self.reclaimable()?;
        Some(Bytes(self.counted?.0.saturating_sub(reclaimable.0)))
    }

    /// What there is most of among that which cannot be taken back.
    pub fn filled_by(&self) -> Option<Filling> {
        let slab = self.slab_reclaimable.unwrap_or_default();
        // MADV_FREE'd pages are anonymous and on the lists of file pages: as many as these lists
        // hold beyond the page cache, at least.
        let lists = self.file_lists.unwrap_or_default();
        let lazy = lists.0.saturating_sub(self.cache?.0);
        let kinds = [
            (FillingKind::Anon, Bytes(self.anon?.0.saturating_sub(lazy))),
            (FillingKind::Shmem, self.shmem?),
            (
                FillingKind::Kernel,
                Bytes(self.kernel.unwrap_or_default().0.saturating_sub(slab.0)),
            ),
            // Locked, or about to be written: on neither list.
            (
                FillingKind::Cache,
                Bytes(self.cache?.0.saturating_sub(lists.0)),
            ),
        ];
        let (kind, bytes) = kinds.into_iter().rev().max_by_key(|(_, bytes)| *bytes)?;
        Some(Filling { kind, bytes })
    }

    /// The name of the file that holds the limit.
    pub fn max_name(version: u8) -> &'static str {
        match version {
            1 => "memory.limit_in_bytes",
            _ => "memory.max",
        }
    }
}

fn number(text: Option<String>) -> Option<u64> {
    text?.trim().parse().ok()
}

fn amount(text: Option<String>) -> Option<Bytes> {
    number(text).map(Bytes)
}

/// A number of bytes or `max`; `none` and more is no limit either.
fn bound(text: Option<String>, none: u64) -> Option<Bound> {
    match text?.trim() {
        "max" => Some(Bound::Unlimited),
        number => match number.parse().ok()? {
            number if none <= number => Some(Bound::Unlimited),
            number => Some(Bound::Bytes(Bytes(number))),
        },
    }
}

fn both(a: Option<Bytes>, b: Option<Bytes>) -> Option<Bytes> {
    Some(a? + b?)
}

fn less(whole: Option<Bytes>, part: Option<Bytes>) -> Option<Bytes> {
    Some(Bytes(whole?.0.saturating_sub(part?.0)))
}
