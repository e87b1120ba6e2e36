//! Any bytes as `/tmp/perf-PID.map`, in any pieces: nothing may panic, and no address has two names.
//!
//! ```sh
//! cargo +nightly fuzz run --fuzz-dir . perf_map -- -max_total_time=600 -rss_limit_mb=512
//! ```
//!
//! `trace.rs` tells how to run it without cargo-fuzz.

#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::symbol::names::PerfMap;

fuzz_target!(|bytes: &[u8]| {
    let Some((&size, text)) = bytes.split_first() else {
        return;
    };
    let mut whole = PerfMap::default();
    whole.add(text);
    whole.end();
    let mut pieces = PerfMap::default();
    text.chunks(usize::from(size).max(1))
        .for_each(|piece| pieces.add(piece));
    pieces.end();
    assert_eq!(whole.len(), pieces.len());
    for line in text.split(|&byte| byte == b'\n') {
        let word = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        let word = std::str::from_utf8(word).unwrap_or_default();
        let Ok(address) = u64::from_str_radix(word, 16) else {
            continue;
        };
        for address in [address, address.wrapping_sub(1), address.wrapping_add(1)] {
            assert_eq!(whole.find(address), pieces.find(address));
            if let Some((_, start)) = whole.find(address) {
                assert!(start <= address);
            }
        }
    }
});
