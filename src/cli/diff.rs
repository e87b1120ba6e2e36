//! `memtrace diff`: what changed between two traces, or between two sets of them.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};

use crate::diff::{Collector, Recorded, compare, json};
use crate::export::markdown;
use crate::report::json::pretty_text;
use crate::report::replay_into;
use crate::term::write_diff;

use super::args::{Diff, DiffFormat};
use super::names::TraceNames;
use super::open::open;
use super::run::say;
use super::{Failure, style_for};

/// Reads all traces and prints on stdout what changed; 0 if nothing did, 1 if something did.
pub fn diff(args: &Diff) -> Result<i32, Failure> {
    let before = read(&args.before)?;
    let after = read(&args.after)?;
    let diff = compare(&before, &after);
    let diff = diff.ok_or_else(|| Failure::new(2, anyhow!("nothing to compare")))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = match args.format {
        DiffFormat::Json => writeln!(out, "{}", pretty_text(&json::diff(&diff))),
        DiffFormat::Markdown => markdown::write_diff(&mut out, &diff),
        DiffFormat::Text => write_diff(&mut out, &diff, &style_for(args.color, io::stdout())),
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => {}
        // `memtrace diff … | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            let error = anyhow::Error::new(error).context("cannot write the comparison");
            return Err(Failure::new(2, error));
        }
    }
    Ok(i32::from(!diff.same))
}

fn read(traces: &[PathBuf]) -> Result<Vec<Recorded>, Failure> {
    let each = traces.iter().map(|path| {
        let mut source = open(path)?;
        let mut collector = Collector::default();
        let report = replay_into(&mut *source, &mut [&mut collector])
            .with_context(|| format!("cannot read {}", path.display()))
            .map_err(|error| Failure::new(2, error))?;
        let mut recorded = collector.finish(report);
        if recorded.has_stacks() {
            let mut names = TraceNames::of(path);
            recorded.name_owners(&mut names);
            names.take_notes().iter().for_each(|note| say(note));
        }
        Ok(recorded)
    });
    each.collect()
}
