//! How other programs see a timeline. One file per format.

mod args;
pub mod check;
pub mod explain;
pub mod folded;
pub mod jsonl;
pub mod markdown;
pub mod pprof;

pub use args::{args, lossless};

#[cfg(test)]
mod tests;
