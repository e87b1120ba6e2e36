//! What the kernel maps, or lends to a process under a name that only it can give.

use crate::report::Place;

use super::{Basis, Clues, Recognized, found};

pub(super) const OWNER: &str = "kernel";

/// By the names of fs/aio.c, io_uring/memmap.c, kernel/events/core.c.
const RINGS: &[(&str, &str)] = &[
    ("/[aio]", "AIO rings"),
    ("anon_inode:[io_uring]", "io_uring rings"),
    ("anon_inode:[perf_event]", "perf buffers"),
    ("anon_inode:kvm-vcpu*", "KVM run pages"),
];

pub(super) fn by_name(clues: &Clues) -> Option<Recognized> {
    let name = match &clues.place {
        Place::File(name) | Place::Special(name) | Place::Shared(name) => &**name,
        _ => return None,
    };
    for (ring, what) in RINGS {
        if name.starts_with(ring.trim_end_matches('*')) {
            return Some(found(OWNER, what, Basis::File, name.to_owned()));
        }
    }
    match &clues.place {
        Place::Special(name) if name.starts_with('[') => {
            Some(found(OWNER, "vdso and vvar", Basis::File, name.to_string()))
        }
        _ => None,
    }
}
