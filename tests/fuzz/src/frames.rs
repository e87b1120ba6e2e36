//! Any bytes as machine code whose frame nothing else tells of: followed from a start, and to a return.
//! Nothing may panic, overflow or go on for ever, whatever the jumps.
//!
//! It is run as `trace.rs` says, with `frames` for `trace` and the `.text` of programs, cut in pieces, for
//! a corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::symbol::unwind::inferred_frame;

const START: u64 = 0x40_1000;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[begins, low, high], code)) = bytes.split_first_chunk() else {
        return;
    };
    let at = START + u64::from(u16::from_le_bytes([low, high])) % (code.len() as u64 + 1);
    // At the end of the address space, too.
    let start = match begins & 2 {
        0 => START,
        _ => u64::MAX - code.len() as u64,
    };
    let at = start + (at - START);
    let _ = inferred_frame(code, start, begins & 1 != 0, (at.wrapping_sub(1), at));
    let _ = inferred_frame(code, start, begins & 1 != 0, (at, at));
});
