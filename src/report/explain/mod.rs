//! `memtrace explain`: where the size of a process comes from, which limits hold for it, and whether
//! one of them can be the reason for a restart.
//!
//! ```text
//! texts of /proc and cgroups ─┐
//!                             ├──► Facts ──► limits::rows ──► Verdict { cause, reasons }
//! report of a trace, refusals ┘
//! ```
//!
//! Pure: texts and reports go in, [`Facts`] and a [`Verdict`] come out. Reading the files is for
//! `tracee`, wording for `term`, the JSON object for `export`. A fact that could not be learnt is
//! `None` and never counts as an argument; what is concluded carries the figures it follows from.

mod cgroup;
mod evidence;
mod facts;
mod limits;
mod owners;
mod process;
mod refusals;
mod trace;
mod verdict;

#[cfg(test)]
mod tests;

pub use cgroup::{Filling, FillingKind, Level};
pub use facts::*;
pub use limits::{Limited, Room, Row, Unit, rows, thresholds};
pub use owners::{Owner, owners_of_kinds, owners_of_places, owners_of_snapshot};
pub use process::{Meminfo, key_value, memory_of_status, number_of, space_of_maps};
pub use refusals::{LastLook, Refusal, Refusals, Refuser};
pub use trace::facts_of_trace;
pub use verdict::{Cause, Next, Reason, Verdict, verdict};
