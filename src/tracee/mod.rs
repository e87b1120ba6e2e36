//! The only part that touches a live process: ptrace, seccomp, `/proc`, the kernel's tracepoints.
//!
//! There are two ways to observe, which tell the same: by ptrace ([`Supervisor`]), and by what the
//! kernel records ([`KernelObserver`]), which stops nothing.
//!
//! One thread makes every ptrace request. It turns stops into [`Observation`]s and decides nothing
//! about memory: the model is the timeline's.
//!
//! [`Observation`]: crate::timeline::Observation

mod attach;
mod calls;
mod control;
mod environment;
mod error;
mod files;
mod filter;
mod kernel;
mod launch;
mod lives;
mod looks;
mod memory;
mod offers;
mod outside;
mod placement;
mod procfs;
mod refused;
mod slot;
mod stack;
mod state;
mod supervisor;
mod sys;
mod wait;

pub use environment::environment;
pub use error::TraceError;
pub use kernel::{KernelObserver, Rings, Wanted};
pub use launch::Program;
pub use offers::{Offer, host, offers};
pub use outside::{LookError, Outside};
pub use procfs::{OwnMemory, is_32_bit, own_memory};
pub use stack::reuse;
pub use supervisor::{Deliver, Feedback, Options, Outcome, Stops, Supervisor, Verify};
pub use sys::terminal_width;
