//! What can be replayed.

use std::io::{self, Read};

use crate::timeline::{Observation, TraceInfo};

use super::reader::{Damage, TraceReader};

/// A recorded run, in whatever file it lies: told again one observation after the other.
pub trait Source {
    /// What is true of the whole trace.
    fn info(&self) -> &TraceInfo;

    /// The next observation; `None` at the end, or where damage ends the reading.
    fn next(&mut self) -> io::Result<Option<Observation>>;

    /// The damage at which reading stopped.
    fn damage(&self) -> Option<&Damage>;

    /// What was left out or guessed while reading, in sentences for the reader of a report.
    fn notes(&self) -> Vec<String>;

    /// Bytes of the file read so far, and in all if that is known: for showing progress.
    fn progress(&self) -> (u64, Option<u64>);
}

impl<R: Read> Source for TraceReader<R> {
    fn info(&self) -> &TraceInfo {
        TraceReader::info(self)
    }

    fn next(&mut self) -> io::Result<Option<Observation>> {
        TraceReader::next(self)
    }

    fn damage(&self) -> Option<&Damage> {
        TraceReader::damage(self)
    }

    fn notes(&self) -> Vec<String> {
        let newer = self.newer_minor().map(|minor| {
            format!(
                "a newer memtrace made this trace (format 1.{minor}); what this one does not know is left out"
            )
        });
        let skipped = self.skipped();
        let left_out =
            (skipped != 0).then(|| format!("{skipped} records of unknown kinds were left out"));
        newer.into_iter().chain(left_out).collect()
    }

    fn progress(&self) -> (u64, Option<u64>) {
        TraceReader::progress(self)
    }
}
