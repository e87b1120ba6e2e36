//! Questions about a timeline: summaries.
//!
//! [`Summary`] takes a timeline's events, live or replayed, and makes a [`Report`] of them: facts
//! only, exact bytes. How a report looks is for `term` and `export`; [`json`] is the one shape
//! that scripts rely on. Memory depends on what is alive at once and on the number of address
//! spaces, never on the number of events.

pub mod check;
pub mod explain;
mod facts;
mod failures;
pub mod json;
mod ledger;
mod places;
pub mod reading;
pub mod recognize;
mod replay;
mod space;
mod stack;
mod summary;
mod touched;

#[cfg(test)]
pub(crate) mod tests;

pub use facts::*;
pub use failures::{Refusals, RefusedCalls, failure_object};
pub use places::{Place, PlaceBytes};
pub use replay::{replay, replay_into};
pub use stack::{Code, Step, Steps};
pub use summary::Summary;
pub use touched::Touches;
