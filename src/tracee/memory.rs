//! A stopped tracee's memory and registers.

use std::io::{self, IoSlice, IoSliceMut};

use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use crate::units::{Addr, PAGE, Tid};

use super::sys;

/// The general registers.
pub(super) fn regs(tid: Tid) -> io::Result<libc::user_regs_struct> {
    ptrace::getregs(Pid::from_raw(tid.0)).map_err(io::Error::from)
}

/// Up to `len` bytes at `addr`; fewer where the rest is not mapped. An error if none can be read.
pub(super) fn read(tid: Tid, addr: Addr, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; len];
    let count = read_into(tid, &mut [IoSliceMut::new(&mut bytes)], &[(addr, len)])?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Reads what is at these places, one behind the other, up to the first byte that cannot be read:
/// how many there were. An error if there were none.
pub(super) fn read_into(
    tid: Tid,
    local: &mut [IoSliceMut<'_>],
    places: &[(Addr, usize)],
) -> io::Result<usize> {
    // process_vm_readv gives up at the granularity of an iovec, so one is passed for each page.
    let mut remote = Vec::new();
    for (addr, len) in places {
        let (mut at, mut left) = (addr.0, *len as u64);
        while 0 < left {
            let piece = left.min(PAGE - at % PAGE);
            remote.push(RemoteIoVec {
                base: at as usize,
                len: piece as usize,
            });
            at = at.wrapping_add(piece);
            left -= piece;
        }
    }
    if remote.is_empty() {
        return Ok(0);
    }
    Ok(process_vm_readv(Pid::from_raw(tid.0), local, &remote)?)
}

/// A NUL-terminated string of at most `max` bytes, and whether it goes on beyond them.
pub(super) fn read_string(tid: Tid, addr: Addr, max: usize) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = read(tid, addr, max + 1)?;
    match bytes.iter().position(|&byte| byte == 0) {
        Some(end) => {
            bytes.truncate(end);
            Ok((bytes, false))
        }
        None => {
            bytes.truncate(max);
            Ok((bytes, true))
        }
    }
}

/// Eight bytes at `addr`.
pub(super) fn read_u64(tid: Tid, addr: Addr) -> Option<u64> {
    let bytes = read(tid, addr, 8).ok()?;
    bytes.try_into().ok().map(u64::from_ne_bytes)
}

/// Writes eight bytes at `addr`.
pub(super) fn write_u64(tid: Tid, addr: Addr, value: u64) -> io::Result<()> {
    let bytes = value.to_ne_bytes();
    let remote = [RemoteIoVec {
        base: addr.0 as usize,
        len: bytes.len(),
    }];
    process_vm_writev(Pid::from_raw(tid.0), &[IoSlice::new(&bytes)], &remote)?;
    Ok(())
}

/// Calls that PTRACE_INTERRUPT makes return EINTR though no signal came (cases, 1.11). x86-64.
const NOT_TRANSPARENT: &[u64] = &[
    45,  // recvfrom
    47,  // recvmsg
    65,  // semop
    128, // rt_sigtimedwait
    208, // io_getevents
    220, // semtimedop
    232, // epoll_wait
    281, // epoll_pwait
    299, // recvmmsg
    333, // io_pgetevents
    441, // epoll_pwait2
];

/// At the stop that our own PTRACE_INTERRUPT made: if it tore a system call that does not restart
/// by itself, sets the registers so that it is made again, and the program never knows. Relative
/// time-outs begin anew.
pub(super) fn rewind_interrupted(tid: Tid) {
    const USER_CS: u64 = 0x33;
    let Ok(mut regs) = regs(tid) else { return };
    let interrupted = regs.rax as i64 == -i64::from(libc::EINTR)
        && regs.cs == USER_CS
        && NOT_TRANSPARENT.contains(&regs.orig_rax);
    // A signal of the program's own would have caused the same: then EINTR is the truth.
    if !interrupted || super::attach::signal_pending(tid) {
        return;
    }
    regs.rip -= 2; // the two bytes of the syscall instruction
    regs.rax = regs.orig_rax;
    regs.orig_rax = u64::MAX;
    let _ = sys::set_regs(tid, &regs);
}
