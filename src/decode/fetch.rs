//! What of a call lies behind a pointer or a descriptor, so that the edge can fetch it.

use super::RawCall;
use crate::abi::{Abi, CallKind, CallSet, call_info};
use crate::units::{Addr, PAGE};

/// Before the call has run, or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// At the entry stop: what the program passes in.
    Entry,
    /// At the exit stop: what the kernel wrote. `result` is the return value as a signed register.
    Exit {
        /// The return value, negative for an error.
        result: i64,
    },
}

/// One thing to fetch from a stopped tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The target of `/proc/TID/fd/N`, where N is argument `arg` as an `int`.
    FdPath {
        /// Index of the argument, 0 to 5.
        arg: u8,
    },
    /// The target of `/proc/TID/fd/N`, where N is an `int` in memory at `addr`.
    FdPathIn {
        /// Index of the argument it stands for, 0 to 5.
        arg: u8,
        /// Where the descriptor's number is.
        addr: Addr,
    },
    /// The target of `/proc/TID/fd/N`, where N is the return value. What was fetched belongs to the
    /// argument [`RESULT`].
    ResultPath,
    /// `len` bytes at `addr`.
    Memory {
        /// Index of the argument that points there, 0 to 5.
        arg: u8,
        /// Where.
        addr: Addr,
        /// How many bytes, at most.
        len: u32,
    },
    /// A NUL-terminated string at `addr`, at most `max` bytes of it.
    CString {
        /// Index of the argument that points there, 0 to 5.
        arg: u8,
        /// Where.
        addr: Addr,
        /// Longest part to fetch, in bytes.
        max: u32,
    },
}

/// The "argument" that [`Want::ResultPath`] belongs to: the one after the last.
pub const RESULT: u8 = 6;

/// What came of one [`Want`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The argument it belongs to.
    pub arg: u8,
    /// Whether it was fetched at the exit stop.
    pub at_exit: bool,
    /// The data.
    pub data: FetchedData,
}

/// The data behind an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchedData {
    /// Where the descriptor is open on.
    Path(Vec<u8>),
    /// Memory, possibly shorter than asked for when the rest is not mapped.
    Memory(Vec<u8>),
    /// The string without its NUL.
    String {
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether the string went on past what was fetched: past `max`, or into memory that
        /// cannot be read.
        truncated: bool,
    },
    /// It could not be read.
    Unreadable,
}

/// Elements of an array that are fetched for show, and bytes of a string that are shown: where
/// strace abbreviates.
pub const SHOWN: usize = 32;

/// Longest part of a name that is fetched. A memfd's name has at most 249 bytes, a VMA's 79.
const NAME_MAX: u32 = 256;

/// Most spans process_madvise(2) takes: UIO_MAXIOV. All are fetched, since each discards memory.
const VECTOR_MAX: u64 = 1024;

/// Appends to `out` what must be fetched in this phase to render `call` in full. Nothing for the
/// hot calls (anonymous mmap, munmap, mprotect, madvise, brk).
pub fn wants(call: &RawCall, phase: Phase, out: &mut Vec<Want>) {
    let Some(info) = call_info(call.abi, call.nr) else {
        return;
    };
    match info.kind {
        // The hot ones first, so that they pay for no other test.
        CallKind::Munmap
        | CallKind::Mprotect
        | CallKind::Madvise
        | CallKind::Brk
        | CallKind::Mremap => {}
        CallKind::Mmap | CallKind::Mmap2 => {
            // MAP_ANONYMOUS nearly always comes with -1.
            if phase == Phase::Entry && 0 <= call.args[4] as i32 {
                out.push(Want::FdPath { arg: 4 });
            }
        }
        kind => {
            let call = &Args::of(call, kind);
            match phase {
                Phase::Entry => entry_wants(call, out),
                Phase::Exit { result } => exit_wants(call, result, out),
            }
        }
    }
}

fn entry_wants(call: &Args, out: &mut Vec<Want>) {
    let word = call.word();
    match call.kind {
        CallKind::OldMmap => {
            memory(out, 0, call.at(0), 24);
            if let Some(addr) = call.at(0).checked_add(16).filter(|_| call.at(0) != 0) {
                let addr = Addr(addr);
                out.push(Want::FdPathIn { arg: 4, addr });
            }
        }
        CallKind::ProcessMadvise => {
            out.extend(call.fd(0));
            let bytes = call.at(2).min(VECTOR_MAX) * 2 * word;
            memory(out, 1, call.at(1), bytes);
        }
        CallKind::ProcessMrelease => out.extend(call.fd(0)),
        CallKind::Cachestat => {
            out.extend(call.fd(0));
            memory(out, 1, call.at(1), 16);
        }
        CallKind::MemfdCreate => string(out, 0, call.at(0)),
        CallKind::Prctl if call.at(0) as u32 == PR_SET_VMA && call.at(1) == 0 => {
            string(out, 4, call.at(4));
        }
        CallKind::Mbind => mask(out, call, 3, call.at(4)),
        CallKind::SetMempolicy => mask(out, call, 1, call.at(2)),
        CallKind::MigratePages => {
            mask(out, call, 2, call.at(1));
            mask(out, call, 3, call.at(1));
        }
        CallKind::MovePages => {
            array(out, 2, call.at(2), call.at(1), word);
            array(out, 3, call.at(3), call.at(1), 4);
        }
        CallKind::IoSetup => memory(out, 1, call.at(1), word),
        CallKind::Shmctl if shm_command(call.at(1)) == ShmCommand::Set => {
            memory(out, call.raw_index(2), call.at(2), shmid_size(call.abi));
        }
        _ => {}
    }
}

fn exit_wants(call: &Args, result: i64, out: &mut Vec<Want>) {
    if result < 0 {
        return;
    }
    let word = call.word();
    match call.kind {
        CallKind::MemfdCreate | CallKind::MemfdSecret | CallKind::Userfaultfd => {
            out.push(Want::ResultPath);
        }
        CallKind::Shmat => {
            if let Some(pointer) = call.stored {
                memory(out, 3, pointer, 4);
            }
        }
        CallKind::IoSetup => memory(out, 1, call.at(1), word),
        CallKind::Mincore => array(out, 2, call.at(2), call.at(1).div_ceil(PAGE), 1),
        CallKind::GetMempolicy => {
            memory(out, 0, call.at(0), 4);
            mask(out, call, 1, call.at(2));
        }
        CallKind::MovePages => array(out, 4, call.at(4), call.at(1), 4),
        CallKind::Shmctl => {
            let size = match shm_command(call.at(1)) {
                ShmCommand::Stat => shmid_size(call.abi),
                ShmCommand::Limits => 9 * word,
                ShmCommand::Usage => 6 * word,
                ShmCommand::Set | ShmCommand::Other => return,
            };
            memory(out, call.raw_index(2), call.at(2), size);
        }
        CallKind::Cachestat => memory(out, 2, call.at(2), 40),
        _ => {}
    }
}

fn memory(out: &mut Vec<Want>, arg: u8, addr: u64, len: u64) {
    if addr != 0 && len != 0 {
        let (addr, len) = (Addr(addr), len as u32);
        out.push(Want::Memory { arg, addr, len });
    }
}

fn array(out: &mut Vec<Want>, arg: u8, addr: u64, count: u64, size: u64) {
    memory(out, arg, addr, count.min(SHOWN as u64) * size);
}

fn string(out: &mut Vec<Want>, arg: u8, addr: u64) {
    if addr != 0 {
        let (addr, max) = (Addr(addr), NAME_MAX);
        out.push(Want::CString { arg, addr, max });
    }
}

fn mask(out: &mut Vec<Want>, call: &Args, arg: u8, maxnode: u64) {
    let words = mask_words(call.abi, maxnode);
    array(out, arg, call.at(arg as usize), words, call.word());
}

/// Words in a node mask of `maxnode` bits, of which the kernel does not count the last: get_nodes in
/// `mm/mempolicy.c`. 0 where the count makes no sense.
pub fn mask_words(abi: Abi, maxnode: u64) -> u64 {
    let bits = 8 * abi.word();
    maxnode.wrapping_add(bits - 2) / bits
}

/// What shmctl(2) does with its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShmCommand {
    /// IPC_SET: reads a `shmid_ds`.
    Set,
    /// IPC_STAT, SHM_STAT, SHM_STAT_ANY: writes one.
    Stat,
    /// IPC_INFO: writes a `shminfo`.
    Limits,
    /// SHM_INFO: writes a `shm_info`.
    Usage,
    /// Nothing, or not known.
    Other,
}

/// What a shmctl(2) command does with its buffer. IPC_64 (0x100) may be set.
pub fn shm_command(command: u64) -> ShmCommand {
    match command as u32 & !0x100 {
        1 => ShmCommand::Set,
        2 | 13 | 15 => ShmCommand::Stat,
        3 => ShmCommand::Limits,
        14 => ShmCommand::Usage,
        _ => ShmCommand::Other,
    }
}

/// Bytes of `struct shmid64_ds`.
fn shmid_size(abi: Abi) -> u64 {
    match abi {
        Abi::X86_64 => 112,
        Abi::I386 => 84,
    }
}

const PR_SET_MM: u32 = 35;
const PR_SET_THP_DISABLE: u32 = 41;
const PR_SET_MEMORY_MERGE: u32 = 67;
const PR_SET_VMA: u32 = 0x5356_4d41;

/// Whether this call is a memory call given its arguments too: of prctl(2), arch_prctl(2) and i386
/// ipc(2) only some operations are.
pub fn is_memory_call(call: &RawCall) -> bool {
    let Some(info) = call_info(call.abi, call.nr) else {
        return false;
    };
    let operation = call.args[0] as u32;
    match info.kind {
        CallKind::Prctl => matches!(
            operation,
            PR_SET_MM | PR_SET_THP_DISABLE | PR_SET_MEMORY_MERGE | PR_SET_VMA
        ),
        CallKind::ArchPrctl => matches!(operation, 0x2001..=0x2003 | 0x5001..=0x5005),
        CallKind::Ipc => ipc_kind(operation).is_some(),
        _ => true,
    }
}

/// What i386 ipc(2) does; the upper half of its first argument is a version: `ipc/syscall.c`.
fn ipc_kind(operation: u32) -> Option<CallKind> {
    match operation & 0xffff {
        21 => Some(CallKind::Shmat),
        22 => Some(CallKind::Shmdt),
        23 => Some(CallKind::Shmget),
        24 => Some(CallKind::Shmctl),
        _ => None,
    }
}

/// The kind of call this is, with the operations of i386 ipc(2) told apart: its shmat is
/// [`CallKind::Shmat`].
pub fn effective_kind(call: &RawCall) -> Option<CallKind> {
    match call_info(call.abi, call.nr)?.kind {
        CallKind::Ipc => Some(ipc_kind(call.args[0] as u32).unwrap_or(CallKind::Ipc)),
        kind => Some(kind),
    }
}

/// Whether `set` asks for this call to be shown. Operations of i386 ipc(2) go by their own names,
/// and by `ipc`.
pub fn shows(set: CallSet, call: &RawCall) -> bool {
    let Some(info) = call_info(call.abi, call.nr) else {
        return false;
    };
    set.contains(info.kind) || effective_kind(call).is_some_and(|kind| set.contains(kind))
}

/// A call's arguments as the call of its effective kind takes them: ipc(2)'s sorted out, i386's
/// without what the upper halves of the registers hold.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The table of the call.
    pub abi: Abi,
    /// What the call does.
    pub kind: CallKind,
    /// Its arguments.
    pub args: [u64; 6],
    /// i386 ipc(SHMAT): where the kernel stores the address.
    pub stored: Option<u64>,
    through_ipc: bool,
}

impl Args {
    /// The arguments of `call`, which is of `kind` by its number.
    pub fn of(call: &RawCall, kind: CallKind) -> Args {
        let mut args = call.args;
        if call.abi == Abi::I386 {
            args = args.map(|arg| u64::from(arg as u32));
        }
        let mut sorted = Args {
            abi: call.abi,
            kind,
            args,
            stored: None,
            through_ipc: false,
        };
        // ipc(call, first, second, third, ptr, fifth): `ipc/syscall.c`
        let [operation, first, second, third, pointer, _] = args;
        if kind == CallKind::Ipc
            && let Some(kind) = ipc_kind(operation as u32)
        {
            sorted.kind = kind;
            sorted.through_ipc = true;
            sorted.args = match kind {
                CallKind::Shmat => [first, pointer, second, 0, 0, 0],
                CallKind::Shmdt => [pointer, 0, 0, 0, 0, 0],
                CallKind::Shmctl => [first, second, pointer, 0, 0, 0],
                _ => [first, second, third, 0, 0, 0],
            };
            sorted.stored = (kind == CallKind::Shmat).then_some(third);
        }
        sorted
    }

    /// Argument `i`.
    pub fn at(&self, i: usize) -> u64 {
        self.args[i]
    }

    /// Bytes in a `long` or a pointer.
    pub fn word(&self) -> u64 {
        self.abi.word()
    }

    /// The register that held argument `i`: what is fetched is labelled with it.
    pub fn raw_index(&self, i: u8) -> u8 {
        match self.kind {
            CallKind::Shmctl if self.through_ipc && i == 2 => 4,
            _ => i,
        }
    }

    fn fd(&self, arg: u8) -> Option<Want> {
        (0 <= self.at(arg as usize) as i32).then_some(Want::FdPath { arg })
    }
}

/// What was fetched for one argument in one phase.
pub fn fetched_for(fetched: &[Fetched], arg: u8, at_exit: bool) -> Option<&FetchedData> {
    let found = fetched
        .iter()
        .find(|found| found.arg == arg && found.at_exit == at_exit)?;
    Some(&found.data)
}

/// The memory that was fetched for one argument.
pub fn memory_for(fetched: &[Fetched], arg: u8, at_exit: bool) -> Option<&[u8]> {
    match fetched_for(fetched, arg, at_exit)? {
        FetchedData::Memory(bytes) => Some(bytes),
        _ => None,
    }
}

/// The path that was fetched for one argument.
pub fn path_for(fetched: &[Fetched], arg: u8, at_exit: bool) -> Option<&[u8]> {
    match fetched_for(fetched, arg, at_exit)? {
        FetchedData::Path(path) => Some(path),
        _ => None,
    }
}

/// The `long` or pointer at word `index` of what was fetched.
pub fn word_at(abi: Abi, bytes: &[u8], index: usize) -> Option<u64> {
    match abi {
        Abi::X86_64 => {
            let bytes = bytes.get(8 * index..8 * index + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        }
        Abi::I386 => int_at(bytes, index).map(u64::from),
    }
}

/// The `int` at place `index` of what was fetched.
pub fn int_at(bytes: &[u8], index: usize) -> Option<u32> {
    let bytes = bytes.get(4 * index..4 * index + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
