//! Any bytes as a file with Go's tables, and as such a table: found, and asked about addresses all over.
//! Nothing may panic, overflow or take more memory than a file justifies.
//!
//! It is run as `trace.rs` says, with `gopclntab` for `trace` and Go programs, stripped, for a corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::symbol::go::{PclnTab, locate};

fuzz_target!(|bytes: &[u8]| {
    if let Some(found) = locate(bytes) {
        let part = |range: &std::ops::Range<u64>| {
            let (start, end) = (range.start as usize, range.end as usize);
            bytes.get(start..end).unwrap_or_default()
        };
        let funcdata = found.funcdata.as_ref().map_or(&[][..], part);
        if let Some(table) = PclnTab::new(part(&found.table), found.text, funcdata) {
            ask(table);
        }
    }
    if let Some(table) = PclnTab::new(bytes, 0x40_1000, bytes) {
        ask(table);
    }
});

fn ask(table: PclnTab<'_>) {
    for function in table.functions().take(1000) {
        let (entry, end) = (function.entry(), function.end());
        for pc in [entry, entry.midpoint(end), end.wrapping_sub(1)] {
            let _ = (function.sp_delta(pc), function.frames(pc));
            let _ = table.function(pc).map(|found| found.name());
        }
    }
}
