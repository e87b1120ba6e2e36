//! The address space of a process, described the way the kernel describes it.
//!
//! [`AddressSpace`] holds VMAs; applying a [`Change`] is the only way to alter them.
//! This module never reads a clock, a file or a tracee, so the same code runs under
//! the supervisor, over a recorded trace, and in the fuzzer.

mod accounting;
mod change;
mod compare;
mod effect;
mod evidence;
mod growth;
mod maps;
mod mremap;
mod space;
#[cfg(test)]
mod tests;
mod vma;

pub use accounting::{Charge, Flow, Parts, Totals};
pub use change::{Change, Span, Verb};
pub use compare::{Comparison, Difference, compare};
pub use effect::{Context, Effect, Evidence, effect};
pub use evidence::evidence_wanted;
pub use growth::grown_to;
pub use maps::{MapsEntry, MapsError, SmapsInfo, Snapshot, parse_maps, parse_smaps};
pub use space::AddressSpace;
pub use vma::{Backing, Category, FileId, Vma, VmaFlags};
