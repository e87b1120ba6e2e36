//! What the kernel has signal handlers return to.

use super::super::cfi::{Cfa, RBP, RBX, Rules, Saved};
use super::{Instructions, Word};

/// `mov $15, %rax; syscall` as the two ways to write it: rt_sigreturn(2).
const RETURNS: [&[u8]; 2] = [
    &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05],
    &[0xb8, 15, 0, 0, 0, 0x0f, 0x05],
];
/// The stack pointer points to a `ucontext_t`: the offsets of its registers, as sleb128.
const RBX_AT: [u8; 2] = [0x80, 0x01];
const RBP_AT: [u8; 2] = [0xf8, 0x00];
const RSP_AT: [u8; 2] = [0xa0, 0x01];
const RIP_AT: [u8; 2] = [0xa8, 0x01];
const R12_TO_R15_AT: [[u8; 2]; 4] = [[0xc8, 0x00], [0xd0, 0x00], [0xd8, 0x00], [0xe0, 0x00]];
const DW_OP_BREG7: u8 = 0x77;
const DW_OP_DEREF: u8 = 0x06;

/// How to unwind from `next` to what a signal interrupted, if that is what it returns to.
pub(super) fn interrupted(text: &mut impl Instructions, next: u64) -> Option<Rules> {
    let bytes = text.fetch(next)?;
    if text.word() != Word::Eight || !RETURNS.iter().any(|it| bytes.starts_with(it)) {
        return None;
    }
    let at = |[low, high]: [u8; 2]| Saved::AtExpression([DW_OP_BREG7, low, high].into());
    let [low, high] = RSP_AT;
    let mut saved = vec![(RBX, at(RBX_AT)), (RBP, at(RBP_AT))];
    saved.extend((12..).zip(R12_TO_R15_AT.map(at)));
    Some(Rules {
        cfa: Cfa::Expression([DW_OP_BREG7, low, high, DW_OP_DEREF].into()),
        saved,
        return_address: Some(at(RIP_AT)),
        signal: true,
    })
}
