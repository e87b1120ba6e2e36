//! Text of several lines: wrapped paragraphs and tables, as wide as the output.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use super::{Line, Role, Style, width_of};

/// Where a text goes, and how wide it is.
pub(super) struct Page<'a> {
    out: &'a mut dyn Write,
    /// How the output looks.
    pub style: &'a Style,
    /// The line being written.
    pub line: Line,
}

impl<'a> Page<'a> {
    /// A text on `out`.
    pub fn new(out: &'a mut dyn Write, style: &'a Style) -> Page<'a> {
        Page {
            out,
            style,
            line: Line::default(),
        }
    }

    /// Columns of the output; a file's are as good as many.
    pub fn width(&self) -> usize {
        self.style.width.unwrap_or(160)
    }

    /// Writes the line and starts another.
    pub fn end(&mut self) -> io::Result<()> {
        self.line.write_to(self.out, self.style)?;
        self.line.clear();
        Ok(())
    }

    /// An empty line.
    pub fn blank(&mut self) -> io::Result<()> {
        self.line.clear();
        self.end()
    }

    /// Appends to the line.
    pub fn text(&mut self, role: Role, text: fmt::Arguments<'_>) {
        self.line.role(role);
        let _ = self.line.write_fmt(text);
        self.line.role(Role::Plain);
    }

    /// Appends `pieces`, each followed by `separator` but the last, and ends the line. What does
    /// not fit goes on in further lines from column `indent` on. Text of a tracee's must have been
    /// escaped.
    pub fn wrap(
        &mut self,
        indent: usize,
        role: Role,
        separator: &str,
        pieces: &[String],
    ) -> io::Result<()> {
        self.line.pad_to(if pieces.is_empty() { 0 } else { indent });
        for (i, piece) in pieces.iter().enumerate() {
            let last = i + 1 == pieces.len();
            let end = if last { "" } else { separator.trim_end() };
            let gap = match i {
                0 => 0,
                _ => width_of(separator) - width_of(separator.trim_end()),
            };
            let after = self.line.width() + gap + width_of(piece) + width_of(end);
            if after > self.width() && self.line.width() > indent {
                self.end()?;
                self.line.pad_to(indent);
            } else {
                self.line.gap(gap);
            }
            self.text(role, format_args!("{piece}{end}"));
        }
        self.end()
    }
}
