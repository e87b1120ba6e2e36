//! From what was observed to what happened: tasks, shared spaces, the model of each, events.
//!
//! [`Timeline::observe`] is the only entry. It is pure: the same observations give the same
//! events, live and from a recorded trace.

mod event;
mod failure;
mod frame_text;
mod info;
mod observation;
mod stack;
#[cfg(test)]
mod tests;
mod tracker;

pub use event::*;
pub use failure::{Amounts, Cause, Failure, Figures, Limiter, is_refused};
pub use frame_text::FrameText;
pub use info::{Bound, Cgroup, Environment, Limit, Limits, TraceInfo};
pub use observation::*;
pub use stack::*;
pub use tracker::{SpaceState, Task, Timeline, read_implies_exec};

#[cfg(test)]
pub(crate) use stack::testing as stacks_for_tests;
