//! What changed between two traces.
//!
//! A [`Collector`] keeps of each trace what a comparison needs, [`compare`] makes a [`Diff`] of
//! them: facts only, exact bytes. Addresses, process ids and the order in which threads came differ
//! between any two runs; so spaces are paired by their way down the process tree (`pair.rs`),
//! mappings by what they are for (`role.rs`) and, where both traces hold stacks, by who made them
//! (`owner.rs`), calls by a form without addresses (`steps.rs`).
//! Every byte that is mapped at the end of a space belongs to exactly one role, so the listed
//! changes add up to the difference of their figure. `noise.rs` holds what does not count.

mod align;
mod calls;
mod cells;
mod collect;
mod compare;
mod doubts;
mod facts;
pub mod json;
mod known;
mod lineage;
mod noise;
mod owner;
mod pair;
mod pieces;
mod role;
mod steps;
mod sums;

pub use cells::First;
pub use collect::{Collector, Recorded};
pub use compare::compare;
pub use facts::*;
pub use owner::Owner;
pub use role::{Anon, Role, Shape, without_versions};
