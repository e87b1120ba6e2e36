//! What a call was asked to act on: bytes, rights, a span.

use crate::abi::{CallKind, Prot, call_info};
use crate::decode::{Args, Call, RawCall, effective_kind};
use crate::units::{Addr, AddrRange};

/// See [`asked`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Bytes to act on, as passed.
    pub size: Option<u64>,
    /// Rights to give.
    pub prot: Option<Prot>,
    /// Where, for calls that act on what is there already.
    pub addr: Option<Addr>,
}

impl Asked {
    /// The pages to act on, where the call says so.
    pub fn range(&self) -> Option<AddrRange> {
        let (addr, size) = (self.addr?, self.size.unwrap_or(1).max(1));
        let start = addr.page_floor();
        AddrRange::covering(start, size.checked_add(addr.0 - start.0)?)
    }
}

/// What `call`, decoded from `raw`, asks for.
pub fn asked(call: &Call, raw: &RawCall) -> Asked {
    let span = |addr: Addr, len: u64| Asked {
        size: Some(len),
        addr: Some(addr),
        ..Asked::default()
    };
    match call {
        Call::Mmap(mmap) => Asked {
            size: Some(mmap.len),
            prot: Some(mmap.prot),
            ..Asked::default()
        },
        Call::Mremap(mremap) => span(mremap.old_addr, mremap.old_len.max(mremap.new_len)),
        Call::Mprotect {
            addr, len, prot, ..
        } => Asked {
            prot: Some(*prot),
            ..span(*addr, *len)
        },
        Call::Munmap { addr, len }
        | Call::Madvise { addr, len, .. }
        | Call::RemapFilePages { addr, len, .. }
        | Call::Mseal { addr, len, .. } => span(*addr, *len),
        Call::MapShadowStack { len, .. } => Asked {
            size: Some(*len),
            ..Asked::default()
        },
        Call::ProcessMadvise { ranges, .. } => Asked {
            size: (!ranges.is_empty()).then(|| {
                let add = |sum: u64, range: &crate::decode::IoVec| sum.saturating_add(range.len);
                ranges.iter().fold(0, add)
            }),
            ..Asked::default()
        },
        Call::Other => of_raw(raw),
        Call::Brk { .. }
        | Call::Shmat { .. }
        | Call::Shmdt { .. }
        | Call::IoSetup { .. }
        | Call::IoDestroy { .. } => Asked::default(),
    }
}

/// prctl(2): names and attributes of anonymous memory.
pub const PR_SET_VMA: u64 = 0x5356_4d41;

fn of_raw(raw: &RawCall) -> Asked {
    let Some(info) = call_info(raw.abi, raw.nr) else {
        return Asked::default();
    };
    let Args { kind, args, .. } = Args::of(raw, info.kind);
    let span = |addr: u64, len: u64| Asked {
        size: Some(len),
        addr: Some(Addr(addr)),
        ..Asked::default()
    };
    match kind {
        CallKind::Mlock
        | CallKind::Mlock2
        | CallKind::Munlock
        | CallKind::Msync
        | CallKind::Mincore
        | CallKind::Mbind
        | CallKind::SetMempolicyHomeNode => span(args[0], args[1]),
        CallKind::Prctl if args[0] == PR_SET_VMA => span(args[2], args[3]),
        CallKind::Shmget => Asked {
            size: Some(args[1]),
            ..Asked::default()
        },
        _ => Asked::default(),
    }
}

/// The span that a prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME) names.
pub(super) fn named(raw: &RawCall) -> Option<AddrRange> {
    let is_prctl = effective_kind(raw) == Some(CallKind::Prctl);
    let names = is_prctl && raw.args[0] == PR_SET_VMA && raw.args[1] == 0;
    names
        .then(|| AddrRange::covering(Addr(raw.args[2]), raw.args[3]))
        .flatten()
}
