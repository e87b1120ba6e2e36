//! Who did it: sums by stack, by owner, as a call tree.
//!
//! Bytes that are left belong to a step of their life: what is reserved and what is mapped to the
//! call that took the addresses, what is committed to the call that committed it. So of a heap that
//! one function reserved and another committed a part of, each shows its own; the sums of all stacks
//! are those of the report, and reserved and committed together are each byte once.

mod label;
mod owner;
mod profile;
mod source;
mod table;
mod tree;

#[cfg(test)]
mod tests;

pub(super) use label::OwnerNames;
pub use label::{Kind, Label, Labels};
pub use owner::{is_wrapper, owner};
pub(super) use profile::process_name;
pub use profile::{Entry, Profile, ProfileSink};
pub use source::Source;
pub use table::{OwnerRow, Owners, StackRow, StackTable, weight};
pub use tree::{Direction, Node, Tree, Weight};
