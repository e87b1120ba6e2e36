//! Errors and signals by name.

use std::fmt;

use crate::abi::{errno_name, errno_restarts, errno_text, signal_name};

/// An error as the kernel returned it: `ENOMEM cannot allocate memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorName(pub i32);

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if errno_restarts(self.0) {
            return f.write_str("interrupted, to be restarted");
        }
        let (Some(name), Some(text)) = (errno_name(self.0), errno_text(self.0)) else {
            return write!(f, "error {}", self.0);
        };
        write!(f, "{name} ")?;
        let mut chars = text.chars();
        // "Cannot allocate memory" goes on in lower case, "RFS specific error" does not.
        match (chars.next(), chars.clone().next()) {
            (Some(first), Some(second)) if second.is_lowercase() => {
                write!(f, "{}{}", first.to_lowercase(), chars.as_str())
            }
            _ => f.write_str(text),
        }
    }
}

/// A signal: `SIGSEGV`, `SIGRT_5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalName(pub i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1..=64 => f.pad(&signal_name(self.0)),
            other => write!(f, "signal {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_signals_have_names() {
        assert_eq!(ErrorName(12).to_string(), "ENOMEM cannot allocate memory");
        assert_eq!(ErrorName(512).to_string(), "interrupted, to be restarted");
        assert_eq!(ErrorName(4000).to_string(), "error 4000");
        assert_eq!(SignalName(11).to_string(), "SIGSEGV");
        assert_eq!(SignalName(37).to_string(), "SIGRT_5");
        assert_eq!(SignalName(99).to_string(), "signal 99");
    }
}
