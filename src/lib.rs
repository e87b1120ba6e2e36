//! memtrace: who reserved, who committed, what is resident.
//!
//! ```text
//!    kernel
//!      │ stops
//!  ┌───▼────┐ Observation            ┌─────────────────┐ bytes
//!  │ tracee ├──────────┬────────────►│ trace_file      ├───────► disk
//!  └────────┘          │             │ writer / reader │◄───────
//!                      │             └───────┬─────────┘
//!                      ▼                     │ Observation
//!                 ┌──────────┐◄──────────────┘
//!                 │ timeline │ Event      ┌────────┐
//!                 │ decode,mm├───────────►│ report ├──► term, export
//!                 └──────────┘            └────────┘
//! ```
//!
//! From the bottom: [`units`] and [`abi`] are the vocabulary; [`decode`] turns registers into typed
//! calls; [`mm`] is the exact model of one address space; [`timeline`] turns what was observed into
//! events; [`report`] asks questions about them, [`diff`] compares two traces, and [`trace_file`]
//! keeps them. These do no I/O of their own (the trace file reads and writes what it is handed or
//! told to open), read no clock and no host page size, and build on any machine. `tracee` is the only
//! part that touches a live process; `symbol` tells who called, from copies of stacks and files of
//! code; `term` and `export` are how people and programs see the result; `cli` wires it up. A `use`
//! points down only; `tests/layers.rs` checks it.
//!
//! # Invariants
//!
//! 1. The core cannot fail. An unknown call is [`decode::Call::Other`]; a contradiction makes the
//!    timeline ask for the kernel's view, and what is taken over from it is counted as `resynced`.
//! 2. The kernel is right. The model never predicts where a mapping lands; it reads the result, and
//!    where neither arguments nor result tell, the kernel's own answer about the touched range that
//!    was taken at the exit stop ([`mm::evidence_wanted`]).
//!    Neighbours that differ in nothing are one VMA in the model: lines of maps cannot be compared
//!    (the kernel's merging depends on state no syscall shows), so there is nothing to keep apart.
//! 3. `mapped = reserved + committed`, always; cached totals equal a recount.
//! 4. Kernel order: a layout-changing call of a space runs alone, or beside others whose order the
//!    addresses tell (`tracee/slot.rs`).
//! 5. No exit path leaves a tracee stopped or broken. What was launched dies with memtrace, what was
//!    attached lives on.
//! 6. Live and recorded events go through the same reports and renderers. A trace file stores
//!    observations, not events: what is concluded from them is computed by the same code when they
//!    are made and when they are read again, so the two cannot differ, and a better model improves
//!    old traces.
//! 7. Numbers are exact bytes until `term` or `export` prints them.

pub mod abi;
pub mod decode;
pub mod diff;
pub mod mm;
pub mod report;
pub mod timeline;
pub mod trace_file;
pub mod units;

#[cfg(feature = "linux")]
pub mod cli;
#[cfg(feature = "linux")]
pub mod export;
#[cfg(feature = "linux")]
pub mod symbol;
#[cfg(feature = "linux")]
pub mod term;
#[cfg(all(feature = "linux", target_os = "linux"))]
pub mod tracee;
