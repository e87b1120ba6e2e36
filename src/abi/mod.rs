//! What the kernel's headers say: call numbers, flag names, errors. Unknown bits survive.

mod calls;
mod errno;
mod flags;
pub mod names;
mod set;
mod signal;

pub use calls::{CALLS, CallInfo, CallKind, call_by_name, call_info};
pub use errno::{errno_name, errno_restarts, errno_text};
pub use flags::*;
pub use names::{Bits, Names, Number, advice_name, name_of};
pub use set::{CallSet, strace_memory_class};
pub use signal::{si_code_name, signal_name};

/// A table of system call numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abi {
    /// 64-bit calls on x86-64.
    X86_64,
    /// 32-bit calls: i386 programs, and `int 0x80` from 64-bit ones.
    I386,
}

impl Abi {
    /// Bytes in a `long` or a pointer.
    pub const fn word(self) -> u64 {
        match self {
            Abi::X86_64 => 8,
            Abi::I386 => 4,
        }
    }
}
