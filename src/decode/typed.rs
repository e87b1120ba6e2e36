//! The typed call, made of registers and what was fetched.

use crate::abi::{Abi, CallKind, MapFlags, MremapFlags, Prot, call_info};
use crate::units::{Addr, PAGE};

use super::RawCall;
use super::call::*;
use super::fetch::*;

/// The typed call. What was not fetched is missing in it, never guessed.
pub fn decode(call: &RawCall, fetched: &[Fetched]) -> Call {
    let Some(info) = call_info(call.abi, call.nr) else {
        return Call::Other;
    };
    let args = &Args::of(call, info.kind);
    let [a, b, c, d, e, f] = args.args;
    match args.kind {
        CallKind::Mmap => mmap(args.args, f, fetched),
        CallKind::Mmap2 => mmap(args.args, f * PAGE, fetched),
        CallKind::OldMmap => match old_mmap(fetched) {
            Some(args) => mmap(args, args[5], fetched),
            None => Call::Other,
        },
        CallKind::Munmap => Call::Munmap {
            addr: Addr(a),
            len: b,
        },
        CallKind::Mprotect | CallKind::PkeyMprotect => Call::Mprotect {
            addr: Addr(a),
            len: b,
            prot: Prot::from_bits_retain(c as u32),
            pkey: (args.kind == CallKind::PkeyMprotect).then_some(d as i32),
        },
        CallKind::Mremap => Call::Mremap(Mremap {
            old_addr: Addr(a),
            old_len: b,
            new_len: c,
            flags: MremapFlags::from_bits_retain(d as u32),
            new_addr: Addr(e),
        }),
        CallKind::Brk => Call::Brk { addr: Addr(a) },
        CallKind::Madvise => Call::Madvise {
            addr: Addr(a),
            len: b,
            advice: c as i32,
        },
        CallKind::ProcessMadvise => Call::ProcessMadvise {
            pidfd: fd(a, path_for(fetched, 0, false)),
            ranges: spans(call.abi, memory_for(fetched, 1, false).unwrap_or_default()),
            vector: Addr(b),
            count: c,
            advice: d as i32,
            flags: e as u32,
        },
        CallKind::Shmat => Call::Shmat {
            shmid: a as i32,
            addr: Addr(b),
            flags: c as i32,
            stored: stored_address(args, fetched),
        },
        CallKind::Shmdt => Call::Shmdt { addr: Addr(a) },
        CallKind::RemapFilePages => Call::RemapFilePages {
            addr: Addr(a),
            len: b,
            prot: Prot::from_bits_retain(c as u32),
            pgoff: d,
            flags: MapFlags::from_bits_retain(e as u32),
        },
        CallKind::IoSetup => Call::IoSetup {
            events: a as u32,
            pointer: Addr(b),
            context: memory_for(fetched, 1, true)
                .and_then(|bytes| word_at(call.abi, bytes, 0))
                .map(Addr),
        },
        CallKind::IoDestroy => Call::IoDestroy { context: Addr(a) },
        CallKind::Mseal => Call::Mseal {
            addr: Addr(a),
            len: b,
            flags: c,
        },
        CallKind::MapShadowStack => Call::MapShadowStack {
            addr: Addr(a),
            len: b,
            flags: c as u32,
        },
        _ => Call::Other,
    }
}

fn mmap(args: [u64; 6], offset: u64, fetched: &[Fetched]) -> Call {
    let [addr, len, prot, flags, number, _] = args;
    let flags = MapFlags::from_bits_retain(flags as u32);
    let named = !flags.contains(MapFlags::ANONYMOUS);
    Call::Mmap(Mmap {
        addr: Addr(addr),
        len,
        prot: Prot::from_bits_retain(prot as u32),
        flags,
        fd: named.then(|| fd(number, path_for(fetched, 4, false))),
        raw_fd: number as i32,
        offset,
    })
}

/// The six arguments of i386's old mmap, which passes them in memory: `struct mmap_arg_struct32`.
/// The offset is in bytes.
pub fn old_mmap(fetched: &[Fetched]) -> Option<[u64; 6]> {
    let bytes = memory_for(fetched, 0, false)?;
    let mut args = [0; 6];
    for (i, arg) in args.iter_mut().enumerate() {
        *arg = u64::from(int_at(bytes, i)?);
    }
    Some(args)
}

/// The spans of a vector, as many as were fetched whole.
pub fn spans(abi: Abi, bytes: &[u8]) -> Vec<IoVec> {
    let count = bytes.len() / (2 * abi.word() as usize);
    (0..count)
        .filter_map(|i| {
            Some(IoVec {
                addr: Addr(word_at(abi, bytes, 2 * i)?),
                len: word_at(abi, bytes, 2 * i + 1)?,
            })
        })
        .collect()
}

/// Where i386 ipc(SHMAT) said that the segment is; its return value is 0.
pub fn stored_address(args: &Args, fetched: &[Fetched]) -> Option<Addr> {
    args.stored?;
    let bytes = memory_for(fetched, 3, true)?;
    Some(Addr(u64::from(int_at(bytes, 0)?)))
}

fn fd(number: u64, path: Option<&[u8]>) -> Fd {
    Fd {
        number: number as i32,
        path: path.map(<[u8]>::to_vec),
    }
}
