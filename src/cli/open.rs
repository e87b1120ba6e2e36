//! Opening what a command reads.

use std::path::Path;

use anyhow::Context as _;

use crate::symbol::names::Symbols;
use crate::trace_file::{self, Source};

use super::{Failure, progress};

/// A recorded trace, whatever its format; exit status 2 if it is none. Progress is shown while it is
/// read.
pub(super) fn open(path: &Path) -> Result<Box<dyn Source>, Failure> {
    let source = open_silently(path)?;
    Ok(progress::shown(source, path))
}

/// The same for commands that print while they read: on a terminal their lines are the progress.
pub(super) fn open_silently(path: &Path) -> Result<Box<dyn Source>, Failure> {
    trace_file::open(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .map_err(|error| Failure::new(2, error))
}

/// What names the frames of a recorded trace.
pub(super) fn names_of(_path: &Path) -> Result<Symbols, Failure> {
    Ok(Symbols::default())
}
