//! What can go wrong between memtrace and its tracees.

use std::io;

use crate::units::Tid;

/// A failure of tracing, worded for the user: what failed, on what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The program could not be found.
    #[error("cannot find program '{program}'")]
    NotFound {
        /// As given.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The program cannot be executed.
    #[error("cannot execute '{program}'")]
    NotExecutable {
        /// As given.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A process cannot be attached to.
    #[error("cannot attach to process {pid}: {reason}")]
    Attach {
        /// Which.
        pid: Tid,
        /// Why, and what to do.
        reason: String,
    },
    /// The kernel's tracepoints cannot be used.
    #[error("the kernel cannot observe here: {reason}")]
    Kernel {
        /// Why, and what to do.
        reason: String,
    },
    /// A request of the supervisor failed.
    #[error("{request} failed{}", tid.map(|tid| format!(" for task {tid}")).unwrap_or_default())]
    Request {
        /// The system call or ptrace request.
        request: &'static str,
        /// On whom.
        tid: Option<Tid>,
        /// Why.
        source: io::Error,
    },
}

impl TraceError {
    /// The exit status that goes with it.
    pub fn status(&self) -> i32 {
        match self {
            TraceError::NotFound { .. } => 127,
            TraceError::NotExecutable { .. } => 126,
            TraceError::Attach { .. } | TraceError::Kernel { .. } | TraceError::Request { .. } => {
                125
            }
        }
    }
}
