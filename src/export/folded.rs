//! Folded stacks, for flame graphs: a line for each stack, its frames from the root on with
//! semicolons between, a blank, and a number of bytes.
//!
//! The root is the command name of the process, without its pid: so graphs of two runs compare. The
//! numbers add up to the `end` of the figure in the report, since what a space began with, what grew
//! by page faults, and calls without a stack have lines of their own.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::report::reading::{Labels, Profile, Weight};
use crate::timeline::Namer;

/// Writes the stacks of `profile` that have any bytes, in order of their text.
pub fn write(
    out: &mut dyn Write,
    profile: &Profile,
    namer: &mut dyn Namer,
    weight: Weight,
) -> io::Result<()> {
    let mut labels = Labels::new(&profile.stacks, namer);
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for entry in &profile.entries {
        let bytes = weight.of(&entry.sums).0;
        if bytes == 0 {
            continue;
        }
        let mut line = String::new();
        push(&entry.process, &mut line);
        for label in labels.source(&entry.source).iter().rev() {
            line.push(';');
            push(&label.text, &mut line);
        }
        let sum = lines.entry(line).or_default();
        *sum = sum.saturating_add(bytes);
    }
    for (line, bytes) in &lines {
        writeln!(out, "{line} {bytes}")?;
    }
    Ok(())
}

/// A frame as the format allows it: `;` separates frames, and a line ends at its end.
fn push(frame: &str, line: &mut String) {
    let frame = if frame.is_empty() { "?" } else { frame };
    line.extend(frame.chars().map(|char| match char {
        ';' => ':',
        char if char.is_control() => '?',
        char => char,
    }));
}

#[cfg(test)]
mod tests;
