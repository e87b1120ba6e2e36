//! Any bytes as a trace: read, told again through the model and every renderer, resumed behind each
//! damage. Nothing may panic, overflow or take more memory than a file justifies.
//!
//! The input is read twice: as it is, and with all lengths and checksums made right, which is what a
//! stranger would forge.
//!
//! Ten minutes, in the folder of this crate, with cargo-fuzz:
//!
//! ```sh
//! mkdir -p corpus
//! cargo +nightly fuzz run --fuzz-dir . trace corpus ../../fixtures/traces -- -max_total_time=600 -rss_limit_mb=1024
//! ```
//!
//! and without it:
//!
//! ```sh
//! mkdir -p corpus
//! RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
//!   -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
//!   -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
//!   cargo +nightly run --release --target x86_64-unknown-linux-gnu --bin trace -- \
//!   -max_total_time=600 -rss_limit_mb=1024 corpus ../../fixtures/traces
//! ```
//!
//! What it finds becomes a case of `tests/traces.rs` or of the unit tests of the reader.

#![no_main]

use std::io::{self, Write};

use libfuzzer_sys::fuzz_target;
use memtrace::abi::CallSet;
use memtrace::export::jsonl::JsonLines;
use memtrace::report::{json, replay_into};
use memtrace::term::strace::{Options, StraceFormat};
use memtrace::term::{Pretty, Style, write_summary};
use memtrace::trace_file::TraceReader;

const PREAMBLE: usize = 20;
const HEAD: usize = 48;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut forged = bytes.to_vec();
    if forge(&mut forged).is_some() {
        read(&forged);
    }
});

/// Makes lengths and checksums right, block by block: `trace_file/format.rs`.
fn forge(bytes: &mut [u8]) -> Option<()> {
    bytes.get_mut(..8)?.copy_from_slice(b"\x89MTR\r\n\x1a\n");
    let word = |bytes: &[u8], at: usize| {
        Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
    };
    let text = word(bytes, 12)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(8..16)?);
    crc.update(bytes.get(PREAMBLE..PREAMBLE.checked_add(text)?)?);
    put(bytes, 16, crc.finalize());
    let mut at = PREAMBLE + text;
    while at + HEAD <= bytes.len() {
        let room = bytes.len() - at - HEAD;
        let length = word(bytes, at + 8)?.min(room);
        bytes[at..at + 4].copy_from_slice(b"\xf7MTB");
        put(bytes, at + 8, length as u32);
        put(
            bytes,
            at + 40,
            crc32fast::hash(&bytes[at + HEAD..][..length]),
        );
        put(bytes, at + 44, crc32fast::hash(&bytes[at..at + 44]));
        at += HEAD + length;
    }
    Some(())
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// What all reading commands together do.
fn read(bytes: &[u8]) {
    let Ok(mut reader) = TraceReader::new(bytes) else {
        return;
    };
    let info = reader.info().clone();
    let style = Style::plain(Some(100), true);
    let options = Options {
        calls: CallSet::ALL,
        signals: true,
        to_file: false,
    };
    let mut pretty = Pretty::new(io::sink(), style.clone(), CallSet::ALL);
    let mut strace = StraceFormat::new(io::sink(), options);
    let mut lines = JsonLines::new(io::sink(), &info);
    let report = replay_into(&mut reader, &mut [&mut pretty, &mut strace, &mut lines]);
    if let Ok(report) = report {
        let _ = write_summary(&mut io::sink(), &report, &style);
        let _ = write!(io::sink(), "{}", json::pretty_text(&json::report(&report)));
    }
    while reader.resume() {
        while let Ok(Some(_)) = reader.next() {}
    }
}
