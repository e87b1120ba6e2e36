//! The trace file: versioned, append-only, checksummed, readable up to its last whole block.
//!
//! [`TraceWriter`] stores observations as they are made, [`TraceReader`] gives them back exactly.
//! [`mod@format`] holds the format in words, [`jsonl`] that of the same observations as lines of JSON;
//! [`open`] reads either. Model types know nothing of it: the wire has its own
//! encoding, written by hand in `encode/` and read in `decode/`.
//!
//! Whatever happened to a file, reading it neither panics nor takes more memory than the file
//! justifies; strings in it are data and stay so.

mod decode;
mod encode;
pub mod format;
mod header;
pub mod jsonl;
mod open;
mod reader;
mod source;
mod tables;
mod window;
mod wire;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

pub use header::{environment_from_json, environment_to_json};
pub use open::{is_trace, open};
pub use reader::{Damage, DamageReason, OpenError, TraceReader};
pub use source::Source;
pub use writer::TraceWriter;
