//! Stacks in few lines: their steps one after the other, wrapped at the edge of the output.

use std::io;

use crate::report::reading::Label;
use crate::term::page::Page;
use crate::term::{Role, Style, escaped};

/// Steps of a chain that are shown where it is not asked for all.
pub(super) const STEPS: usize = 12;

/// What stands between steps, from the innermost on: is called by.
pub(super) fn called_by(style: &Style) -> &'static str {
    if style.unicode { " ← " } else { " <- " }
}

/// What stands between steps, from the outermost on: calls.
pub(super) fn calls(style: &Style) -> &'static str {
    if style.unicode { " → " } else { " -> " }
}

/// The steps as text. Of more than `most` the middle is left out, and it is said how many these are.
pub(super) fn steps<'a>(
    labels: impl ExactSizeIterator<Item = &'a Label>,
    most: Option<usize>,
    style: &Style,
) -> Vec<String> {
    let count = labels.len();
    let left_out = most.filter(|most| *most < count).map(|most| {
        let first = most / 2;
        first..count - (most - first - 1)
    });
    let mut pieces = Vec::new();
    for (index, label) in labels.enumerate() {
        match &left_out {
            Some(gap) if gap.start == index => {
                pieces.push(format!("{} {} more", style.ellipsis(), gap.len()));
            }
            Some(gap) if gap.contains(&index) => {}
            _ => pieces.push(escaped(label.text.as_bytes(), style.unicode)),
        }
    }
    pieces
}

/// Ends the line with a stack, innermost first; what does not fit goes on from column `indent` on.
pub(super) fn write_stack(
    page: &mut Page<'_>,
    indent: usize,
    labels: &[Label],
    most: Option<usize>,
) -> io::Result<()> {
    let pieces = steps(labels.iter(), most, page.style);
    page.wrap(indent, Role::Dim, called_by(page.style), &pieces)
}
