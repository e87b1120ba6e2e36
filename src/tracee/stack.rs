//! What is copied of a stopped task so that its stack can be unwound later: little, and quickly.

use std::io::IoSliceMut;
use std::sync::{Mutex, PoisonError};

use crate::timeline::{Copied, RawStack, Registers, Stack};
use crate::units::{Addr, Tid};

use super::memory;

/// The most that is copied of one stack.
const MOST: usize = 32 << 10;
/// A copy that is no longer than this takes no more memory than it needs.
const SHORT: usize = 8 << 10;
const WORD: usize = 8;
/// What `cs` holds in 32-bit code.
const USER32_CS: u64 = 0x23;

/// Copies that are used again: the kernel clears each fresh page, which takes longer than to read it.
static USED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// So many are kept.
const MOST_USED: usize = 256;

/// Takes back what was copied, once it is known what it leads to.
pub fn reuse(stack: RawStack) {
    let copies = stack.copies.into_iter().map(|copy| copy.bytes);
    give_back(copies.filter(|bytes| MOST <= bytes.capacity()));
}

fn give_back(rooms: impl Iterator<Item = Vec<u8>>) {
    let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
    let free = MOST_USED.saturating_sub(used.len());
    used.extend(rooms.take(free));
}

/// What is read into.
fn room() -> Vec<u8> {
    let used = USED.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut room = used.unwrap_or_else(|| Vec::with_capacity(MOST));
    room.resize(MOST, 0);
    room
}

/// The copy in a room: most are short, and leave the room.
fn kept(mut room: Vec<u8>, count: usize) -> Vec<u8> {
    if SHORT < count {
        room.truncate(count);
        return room;
    }
    let bytes = room[..count].to_vec();
    give_back([room].into_iter());
    bytes
}

/// Who calls: registers and a copy of the stack of a stopped task. A goroutine's own stack, too,
/// where the Go runtime makes the call for it on a stack of the thread.
pub(super) fn capture(tid: Tid) -> Stack {
    let Ok(regs) = memory::regs(tid) else {
        return Stack::Absent;
    };
    let registers = Registers {
        pc: regs.rip,
        sp: regs.rsp,
        bp: regs.rbp,
        bx: regs.rbx,
        r12_to_r15: [regs.r12, regs.r13, regs.r14, regs.r15],
    };
    let compat = regs.cs == USER32_CS;
    // Go keeps `g` right below the thread pointer; other programs keep anything there.
    let beside = Addr(regs.fs_base.wrapping_sub(WORD as u64));
    let wanted = regs.fs_base != 0 && !compat;
    let mut bytes = room();
    let beside = wanted.then_some(beside);
    let with_g = beside.and_then(|it| copy_beside(tid, Addr(regs.rsp), it, &mut bytes));
    let (count, g) = match with_g {
        Some((count, g)) => (count, Some(g)),
        None => (copy(tid, Addr(regs.rsp), &mut bytes), None),
    };
    let bytes = kept(bytes, count);
    let mut copies = vec![Copied {
        start: Addr(regs.rsp),
        cut: bytes.len() == MOST,
        bytes,
    }];
    let left = g.and_then(|g| goroutine(tid, g, regs.rsp));
    let goroutine = left.map(|(left, top)| {
        let size = usize::try_from(top - left.sp).map_or(MOST, |size| size.min(MOST));
        let mut bytes = room();
        let count = copy(tid, Addr(left.sp), &mut bytes[..size]);
        copies.push(Copied {
            start: Addr(left.sp),
            bytes: kept(bytes, count),
            cut: size == MOST,
        });
        left
    });
    Stack::Raw(Box::new(RawStack {
        registers,
        compat,
        interrupted: false,
        copies,
        goroutine,
    }))
}

/// Copies what is at `start`, as much of it as there is and `room` holds: how many bytes.
fn copy(tid: Tid, start: Addr, room: &mut [u8]) -> usize {
    let places = [(start, room.len())];
    memory::read_into(tid, &mut [IoSliceMut::new(room)], &places).unwrap_or(0)
}

/// Copies the stack at `sp`, and gives the word at `beside`: in one request.
fn copy_beside(tid: Tid, sp: Addr, beside: Addr, room: &mut [u8]) -> Option<(usize, u64)> {
    let mut word = [0; WORD];
    let places = [(beside, WORD), (sp, room.len())];
    let local = &mut [IoSliceMut::new(&mut word), IoSliceMut::new(room)];
    let count = memory::read_into(tid, local, &places).ok()?;
    Some((count.checked_sub(WORD)?, u64::from_le_bytes(word)))
}

/// Words of `runtime.g` (runtime2.go; the same since Go 1.2), as far as they are needed.
mod g {
    pub const STACK_LOW: usize = 0;
    pub const STACK_HIGH: usize = 1;
    pub const M: usize = 6;
    pub const SP: usize = 7;
    pub const PC: usize = 8;
    pub const SELF: usize = 9;
    pub const WORDS: usize = 10;
}

/// Words of `runtime.m`: `curg` until Go 1.24, and since `gobuf` is shorter.
mod m {
    pub const G0: usize = 0;
    pub const CURRENT: [usize; 2] = [24, 23];
    pub const WORDS: usize = 25;
}

/// Where the goroutine was left that the thread works for on `g`, the stack of its own, and where the
/// goroutine's stack ends. `None` if anything is not as the Go runtime has it.
fn goroutine(tid: Tid, g: u64, sp: u64) -> Option<(Registers, u64)> {
    let system = words::<{ g::WORDS }>(tid, g)?;
    if !(system[g::STACK_LOW]..system[g::STACK_HIGH]).contains(&sp) {
        return None;
    }
    let thread = words::<{ m::WORDS }>(tid, system[g::M])?;
    if thread[m::G0] != g {
        return None;
    }
    m::CURRENT.into_iter().find_map(|number| {
        let current = thread[number];
        let words = words::<{ g::WORDS }>(tid, current)?;
        let left = Registers {
            pc: words[g::PC],
            sp: words[g::SP],
            ..Registers::default()
        };
        let stack = words[g::STACK_LOW]..words[g::STACK_HIGH];
        let genuine = current != g
            && words[g::M] == system[g::M]
            && words[g::SELF] == current
            && stack.contains(&left.sp);
        genuine.then_some((left, stack.end))
    })
}

fn words<const N: usize>(tid: Tid, address: u64) -> Option<[u64; N]> {
    if address == 0 || !address.is_multiple_of(WORD as u64) {
        return None;
    }
    let mut bytes = vec![0; N * WORD];
    let local = &mut [IoSliceMut::new(&mut bytes)];
    let count = memory::read_into(tid, local, &[(Addr(address), N * WORD)]).ok()?;
    if count < bytes.len() {
        return None;
    }
    let mut words = bytes.chunks_exact(WORD);
    Some(std::array::from_fn(|_| {
        let word = words.next().and_then(|word| word.first_chunk());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    }))
}
