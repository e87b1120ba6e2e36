//! From a syscall number and six registers to a typed [`Call`].
//!
//! Pure: what a pointer points to and what a descriptor names is fetched by the edge, which asks
//! [`wants`] what this call needs. After this module nobody tests a raw flag bit again.

mod call;
mod fetch;
mod typed;

pub use call::*;
pub use fetch::{
    Args, Fetched, FetchedData, Phase, RESULT, SHOWN, ShmCommand, Want, effective_kind,
    fetched_for, int_at, is_memory_call, mask_words, memory_for, path_for, shm_command, shows,
    wants, word_at,
};
pub use typed::{decode, old_mmap, spans, stored_address};

use crate::abi::Abi;

/// A system call as the registers show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawCall {
    /// Which table `nr` counts in; a 64-bit process can make i386 calls by `int 0x80`.
    pub abi: Abi,
    /// The syscall number.
    pub nr: u32,
    /// The six argument registers; upper halves cleared already for i386.
    pub args: [u64; 6],
}
