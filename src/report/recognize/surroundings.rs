//! What is known of the space around a mapping.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::mm::Snapshot;
use crate::units::Bytes;

use super::{RUNTIMES, Request, hotspot, pattern};

/// Most different sizes that are remembered: enough for any runtime's own reservations.
const MOST_SIZES: usize = 4096;

/// The runtimes of a space, and what they reserved.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// By owner: what showed that it is there.
    present: BTreeMap<&'static str, Arc<str>>,
    /// Sizes of reservations made with MAP_NORESERVE; whether one was asked for at a low address.
    sizes: BTreeMap<u64, bool>,
    /// Names of memory files that were mapped over reservations.
    laid_over: BTreeSet<Arc<str>>,
    /// The program's file.
    program: Option<Arc<str>>,
    /// RLIMIT_STACK.
    stack_limit: Option<u64>,
}

impl Surroundings {
    /// Of a space that runs the program in this file.
    pub fn of_program(path: &Arc<str>) -> Surroundings {
        let mut around = Surroundings {
            program: (!path.is_empty()).then(|| Arc::clone(path)),
            ..Surroundings::default()
        };
        around.file(path);
        around
    }

    /// A file is mapped.
    pub fn file(&mut self, path: &Arc<str>) {
        for runtime in RUNTIMES {
            let shows = |listed: &&str| pattern::is_path(listed, path);
            if runtime.libraries.iter().any(shows) {
                self.shown(runtime.owner, path);
            }
        }
    }

    /// The files of a snapshot are mapped.
    pub fn files_of(&mut self, snapshot: &Snapshot) {
        let entries = snapshot.entries.iter();
        entries
            .filter(|entry| entry.name.starts_with('/'))
            .for_each(|entry| self.file(&entry.name));
    }

    /// Whether glibc is there.
    pub fn has_glibc(&self) -> bool {
        self.has(super::glibc::OWNER)
    }

    /// RLIMIT_STACK, which glibc makes stacks of threads as large as.
    pub fn stack_limit(&mut self, limit: Bytes) {
        self.stack_limit = Some(limit.0);
    }

    /// Whether a stack of a thread may be so large: as the limit is by default, or 1 MiB as HotSpot
    /// asks for.
    pub(super) fn is_stack_size(&self, bytes: u64) -> bool {
        let limits = [self.stack_limit.unwrap_or(8 << 20), 8 << 20, 1 << 20];
        limits.contains(&bytes)
    }

    /// A mapped file states this version.
    pub fn version(&mut self, version: &Arc<str>) {
        for runtime in RUNTIMES {
            let shows = |begin: &str| version.starts_with(begin);
            if runtime.version.is_some_and(shows) {
                self.shown(runtime.owner, version);
            }
        }
    }

    /// Something else shows that a runtime is there.
    pub fn shown(&mut self, owner: &'static str, by: &Arc<str>) {
        self.present.entry(owner).or_insert_with(|| Arc::clone(by));
    }

    /// Whether a runtime is known to be there.
    pub fn has(&self, owner: &str) -> bool {
        self.present.contains_key(owner)
    }

    /// The runtimes that are known to be there, each with what showed it.
    pub fn runtimes(&self) -> impl Iterator<Item = (&'static str, &Arc<str>)> {
        self.present.iter().map(|(owner, by)| (*owner, by))
    }

    /// This was asked for, with MAP_NORESERVE and without any right.
    pub fn reserved(&mut self, asked: &Request) {
        if self.sizes.len() < MOST_SIZES {
            *self.sizes.entry(asked.len).or_default() |= hotspot::is_low(asked);
        }
    }

    /// A memory file of this name was mapped over a reservation.
    pub fn laid_over(&mut self, name: &Arc<str>) {
        if self.laid_over.len() < MOST_SIZES {
            self.laid_over.insert(Arc::clone(name));
        }
    }

    /// Whether a memory file whose name begins so was mapped over a reservation.
    pub(super) fn is_laid_over_by(&self, begin: &str) -> bool {
        let mut from = self.laid_over.range(Arc::from(begin)..);
        from.next().is_some_and(|name| name.starts_with(begin))
    }

    /// Whether a reservation of such a size was made.
    pub(super) fn reserved_within(&self, least: u64, most: u64) -> bool {
        least <= most && self.sizes.range(least..=most).next().is_some()
    }

    /// Whether a reservation of this size was asked for at a low address.
    pub(super) fn is_reserved_low(&self, bytes: u64) -> bool {
        self.sizes.get(&bytes) == Some(&true)
    }

    /// The sizes of reservations, each once.
    pub(super) fn sizes(&self) -> impl Iterator<Item = u64> {
        self.sizes.keys().copied()
    }

    /// Whether this is the program's file.
    pub(super) fn is_program(&self, path: &str) -> bool {
        self.program.as_deref() == Some(path)
    }

    /// An allocator that takes the place of the C library's.
    pub(super) fn replaces_malloc(&self) -> bool {
        let others = [
            super::jemalloc::OWNER,
            super::mimalloc::OWNER,
            super::tcmalloc::OWNER,
            super::sanitizer::ASAN.owner,
            super::sanitizer::TSAN.owner,
            super::sanitizer::MSAN.owner,
        ];
        others.iter().any(|owner| self.has(owner))
    }
}
