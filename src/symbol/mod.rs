//! Who called: from a copy of a stack to frames, and from frames to names.
//!
//! [`unwind`] runs while a program is traced, [`names`] after it, or when a trace is read. Both read
//! files of code; neither touches a tracee.

pub mod go;
pub mod names;
pub mod unwind;
