//! The calls of each thread in their order, in a form that two runs share: no addresses, no process
//! ids, no version digits.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::decode::Call;
use crate::mm::Verb;
use crate::report::{call_name, is_error};
use crate::timeline::CallEvent;
use crate::units::{Addr, PAGE, SpaceId, Tid};

use super::cells::First;
use super::role::{Shape, placement, without_versions};

/// Calls that are kept of a trace; those beyond are only counted.
const KEPT: u64 = 1 << 20;

/// One call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Equal for calls that mean the same.
    pub token: u64,
    pub at: First,
}

/// The calls of a trace, by space and by the order in which the threads of a space came.
#[derive(Debug, Default)]
pub(super) struct Steps {
    of: HashMap<SpaceId, Vec<(Tid, Vec<Step>)>>,
    /// Where the newest thread of a number stands.
    newest: HashMap<(SpaceId, Tid), usize>,
    kept: u64,
    /// Calls that were not kept.
    pub left_out: u64,
}

impl Steps {
    /// A thread came into a space. Its number may have been another's, long gone.
    pub fn task_is_in(&mut self, tid: Tid, space: SpaceId) {
        let threads = self.of.entry(space).or_default();
        let idle = |index: &usize| {
            threads
                .get(*index)
                .is_some_and(|(_, steps)| steps.is_empty())
        };
        if !self.newest.get(&(space, tid)).is_some_and(idle) {
            self.newest.insert((space, tid), threads.len());
            threads.push((tid, Vec::new()));
        }
    }

    /// Keeps a call.
    pub fn push(&mut self, space: SpaceId, tid: Tid, step: Step) {
        if KEPT <= self.kept {
            self.left_out += 1;
            return;
        }
        self.kept += 1;
        let threads = self.of.entry(space).or_default();
        let newest = self.newest.entry((space, tid)).or_insert(threads.len());
        match threads.get_mut(*newest) {
            Some((_, steps)) => steps.push(step),
            None => threads.push((tid, vec![step])),
        }
    }

    /// The calls of each thread of a space, the threads in order of appearance.
    pub fn threads(&self, space: SpaceId) -> &[(Tid, Vec<Step>)] {
        self.of.get(&space).map_or(&[], Vec::as_slice)
    }
}

/// A number that calls share which mean the same. `shape_at` tells what an address belonged to
/// before the call.
pub(super) fn token(call: &CallEvent, shape_at: impl Fn(Addr) -> Option<Shape>) -> u64 {
    let mut hash = DefaultHasher::new();
    call_name(&call.raw).hash(&mut hash);
    let failed = call.result.filter(|result| is_error(&call.raw, *result));
    failed.hash(&mut hash);
    let pages = |len: u64| len.div_ceil(PAGE);
    match &call.call {
        Call::Mmap(mmap) => {
            let file = mmap.fd.as_ref().and_then(|fd| fd.path.as_deref());
            let file = file.map(|path| without_versions(&String::from_utf8_lossy(path)));
            (pages(mmap.len), mmap.prot, mmap.flags, placement(mmap)).hash(&mut hash);
            (file, mmap.offset).hash(&mut hash);
        }
        // How much is cut off for alignment depends on the address.
        Call::Munmap { addr, .. } => shape_at(*addr).hash(&mut hash),
        Call::Mprotect {
            addr, len, prot, ..
        } => (shape_at(*addr), pages(*len), prot).hash(&mut hash),
        Call::Mremap(mremap) => {
            (pages(mremap.old_len), pages(mremap.new_len), mremap.flags).hash(&mut hash);
        }
        Call::Brk { addr } => {
            let grown = call.spans.iter().any(|span| span.verb == Verb::Map);
            (addr.0 == 0, grown, call.spans.len()).hash(&mut hash);
        }
        Call::Madvise { addr, advice, .. } => (shape_at(*addr), advice).hash(&mut hash),
        Call::ProcessMadvise { advice, count, .. } => (advice, count).hash(&mut hash),
        Call::Shmat { flags, .. } => flags.hash(&mut hash),
        Call::Mseal { addr, len, .. } => (shape_at(*addr), pages(*len)).hash(&mut hash),
        Call::MapShadowStack { len, .. } => pages(*len).hash(&mut hash),
        Call::Shmdt { .. }
        | Call::RemapFilePages { .. }
        | Call::IoSetup { .. }
        | Call::IoDestroy { .. }
        | Call::Other => {}
    }
    hash.finish()
}
