//! Any bytes as a file of code: headers, symbols, packed symbols, DWARF, Go's table. Nothing may
//! panic, overflow, hang or take more memory than its bounds.
//!
//! ```sh
//! mkdir -p corpus-code && cp /bin/true corpus-code
//! cargo +nightly fuzz run --fuzz-dir . code corpus-code -- -max_total_time=600 -rss_limit_mb=2048
//! ```
//!
//! Good seeds are small programs, with and without `-g`, and a Go program. `trace.rs` tells how to
//! run it without cargo-fuzz. What it finds becomes a case of `tests/names.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::symbol::names::names_in;

fuzz_target!(|bytes: &[u8]| {
    // Around the entry point, where the code of a small program is.
    let entry = bytes.get(24..32).and_then(|it| it.first_chunk());
    let entry = entry.map_or(0x1000, |it| u64::from_le_bytes(*it));
    let near = (0..16).map(|step| entry.wrapping_add(step * 32));
    let offsets: Vec<u64> = near.chain([0, 1, 0x1001, u64::MAX]).collect();
    names_in(bytes.to_vec(), &offsets);
});
