//! One line of output: columns, looks, and a cut at the terminal's edge. Reused from line to line,
//! so that a traced call allocates nothing to be shown.

use std::fmt;
use std::io::{self, Write};

use unicode_width::UnicodeWidthChar;

use super::escape::escape;
use super::style::{Role, Style};

/// Columns that a shortened path takes at least: fewer would say nothing.
const LEAST_PATH: usize = 10;

/// In fewer columns the end of a path says more than a beginning and an end.
const SHORT_PATH: usize = 16;

/// Columns that `text` takes.
pub fn width_of(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    text.chars().map(|char| char.width().unwrap_or(0)).sum()
}

/// `path` in at most `width` columns, its middle left out: the beginning and the end of a path say
/// the most, the end more than the beginning.
pub fn shorten(path: &str, width: usize, style: &Style) -> String {
    let dots = style.ellipsis();
    if width_of(path) <= width {
        return path.to_owned();
    }
    let Some(room) = width.checked_sub(width_of(dots)) else {
        return head(path, width).to_owned();
    };
    let whole_name = path
        .rfind('/')
        .map(|slash| &path[slash..])
        .filter(|name| width_of(name) <= room && width_of(name) >= room / 2);
    let (start, end) = match whole_name {
        // What is left of the directories is whole too, if that leaves any.
        Some(name) => {
            let start = head(path, room - width_of(name));
            (start.rfind('/').map_or("", |slash| &start[..=slash]), name)
        }
        None if room < SHORT_PATH => ("", tail(path, room)),
        None => {
            let end = tail(path, room - room / 3);
            (head(path, room - width_of(end)), end)
        }
    };
    format!("{start}{dots}{end}")
}

/// The longest beginning that fits in `width` columns.
fn head(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, char) in text.char_indices() {
        used += char.width().unwrap_or(0);
        if used > width {
            return &text[..at];
        }
    }
    text
}

/// The longest end that fits in `width` columns.
fn tail(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, char) in text.char_indices().rev() {
        used += char.width().unwrap_or(0);
        if used > width {
            return &text[at + char.len_utf8()..];
        }
    }
    text
}

/// A line under construction.
#[derive(Debug, Default)]
pub struct Line {
    text: String,
    /// Byte offsets at which another role begins.
    marks: Vec<(usize, Role)>,
    width: usize,
}

impl Line {
    /// Makes it empty again.
    pub fn clear(&mut self) {
        self.text.clear();
        self.marks.clear();
        self.width = 0;
    }

    /// Columns so far.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What follows has this look.
    pub fn role(&mut self, role: Role) -> &mut Line {
        self.marks.push((self.text.len(), role));
        self
    }

    /// Appends text of memtrace's own.
    pub fn push(&mut self, text: &str) -> &mut Line {
        self.text.push_str(text);
        self.width += width_of(text);
        self
    }

    /// Appends text of a tracee's, escaped.
    pub fn push_escaped(&mut self, bytes: &[u8], style: &Style) -> &mut Line {
        let from = self.text.len();
        escape(bytes, style.unicode, &mut self.text);
        self.width += width_of(&self.text[from..]);
        self
    }

    /// Blanks up to column `column`; none if the line is there already.
    pub fn pad_to(&mut self, column: usize) -> &mut Line {
        while self.width < column {
            self.text.push(' ');
            self.width += 1;
        }
        self
    }

    /// `count` blanks.
    pub fn gap(&mut self, count: usize) -> &mut Line {
        self.pad_to(self.width + count)
    }

    /// Appends text of a tracee's, escaped and cut to `room` columns.
    pub fn push_escaped_within(&mut self, bytes: &[u8], room: usize, style: &Style) -> &mut Line {
        let from = self.text.len();
        escape(bytes, style.unicode, &mut self.text);
        let wide = width_of(&self.text[from..]);
        if wide <= room {
            self.width += wide;
            return self;
        }
        let dots = head(style.ellipsis(), room);
        let keep = head(&self.text[from..], room - width_of(dots)).len();
        self.text.truncate(from + keep);
        self.width += width_of(&self.text[from..]);
        self.push(dots)
    }

    /// Appends a tracee's path, escaped; its middle left out where it would pass column `end` of a
    /// terminal.
    pub fn push_path_until(&mut self, path: &[u8], end: usize, style: &Style) -> &mut Line {
        let room = end.saturating_sub(self.width);
        let from = self.text.len();
        escape(path, style.unicode, &mut self.text);
        let wide = width_of(&self.text[from..]);
        if style.width.is_none() || wide <= room {
            self.width += wide;
            return self;
        }
        let short = shorten(&self.text[from..], room.max(LEAST_PATH), style);
        self.text.truncate(from);
        self.push(&short)
    }

    /// Cuts the line to `columns`, if the output is a terminal.
    pub fn cut(&mut self, columns: usize, style: &Style) -> &mut Line {
        if style.width.is_some() && self.width > columns {
            let dots = head(style.ellipsis(), columns);
            let keep = head(&self.text, columns - width_of(dots)).len();
            self.text.truncate(keep);
            self.marks.retain(|(at, _)| *at <= keep);
            self.width = width_of(&self.text);
            self.push(dots);
        }
        self
    }

    /// Appends `shown` so that its last column is just before `column`.
    pub fn push_right(&mut self, column: usize, shown: impl fmt::Display) -> &mut Line {
        let room = column.saturating_sub(self.width);
        let from = self.text.len();
        let _ = fmt::Write::write_fmt(&mut self.text, format_args!("{shown:>room$}"));
        self.width += width_of(&self.text[from..]);
        self
    }

    /// Writes the line, cut to the terminal's width, with a newline.
    pub fn write_to(&self, out: &mut dyn Write, style: &Style) -> io::Result<()> {
        let text = self.text.trim_end_matches(' ');
        let limit = style.width.unwrap_or(usize::MAX);
        let shown = match self.width > limit && width_of(text) > limit {
            true => head(text, limit.saturating_sub(width_of(style.ellipsis()))),
            false => text,
        };
        let mut from = 0;
        let mut current = Role::Plain;
        for &(at, role) in &self.marks {
            let at = at.min(shown.len());
            if from < at {
                write_piece(out, &shown[from..at], current, style)?;
            }
            (from, current) = (at, role);
        }
        write_piece(out, &shown[from..], current, style)?;
        if shown.len() < text.len() {
            out.write_all(head(style.ellipsis(), limit).as_bytes())?;
        }
        out.write_all(b"\n")
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

fn write_piece(out: &mut dyn Write, text: &str, role: Role, style: &Style) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    out.write_all(style.begin(role).as_bytes())?;
    out.write_all(text.as_bytes())?;
    out.write_all(style.end(role).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(line: &Line, style: &Style) -> String {
        let mut out = Vec::new();
        line.write_to(&mut out, style).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_long_line_is_cut_at_the_terminal_and_whole_in_a_file() {
        let mut line = Line::default();
        line.push("mmap")
            .pad_to(8)
            .role(Role::Error)
            .push("no memory");
        assert_eq!(
            written(&line, &Style::plain(None, true)),
            "mmap    no memory\n"
        );
        assert_eq!(
            written(&line, &Style::plain(Some(12), true)),
            "mmap    no …\n"
        );
        assert_eq!(
            written(&line, &Style::plain(Some(12), false)),
            "mmap    n...\n"
        );
        assert_eq!(written(&line, &Style::plain(Some(2), false)), "..\n");
        assert_eq!(written(&line, &Style::plain(Some(0), true)), "\n");
        assert_eq!(
            written(&line, &Style::colored(Some(12), true)),
            "mmap    \u{1b}[31mno \u{1b}[0m…\n"
        );
    }

    #[test]
    fn a_path_loses_its_middle() {
        let style = Style::plain(None, true);
        let path = "/usr/lib/x86_64-linux-gnu/libc.so.6";
        assert_eq!(shorten(path, 40, &style), path);
        assert_eq!(shorten(path, 20, &style), "/usr/lib/…/libc.so.6");
        assert_eq!(shorten(path, 12, &style), "/…/libc.so.6");
        assert_eq!(shorten(path, 1, &style), "…");
        assert_eq!(shorten(path, 0, &style), "");
        assert_eq!(shorten("/日本語/日本語", 9, &style), "/…/日本語");
    }

    proptest! {
        #[test]
        fn a_shortened_path_fits(path: String, width in 0usize..40, unicode: bool) {
            let path = super::super::escape::escaped(path.as_bytes(), unicode);
            let short = shorten(&path, width, &Style::plain(None, unicode));
            prop_assert!(width_of(&short) <= width);
        }

        #[test]
        fn a_line_never_exceeds_the_terminal(name: Vec<u8>, width in 0usize..60, color: bool) {
            let style = match color {
                true => Style::colored(Some(width), true),
                false => Style::plain(Some(width), true),
            };
            let mut line = Line::default();
            line.push("x ").role(Role::Error).push_escaped(&name, &style).role(Role::Plain).push(" y");
            let mut text = written(&line, &style);
            for role in [Role::Error, Role::Plain] {
                if color {
                    text = text.replace("\u{1b}[31m", "").replace(style.end(role), "");
                }
            }
            let text = text.trim_end_matches('\n');
            prop_assert!(!text.chars().any(char::is_control), "{text:?}");
            prop_assert!(width_of(text) <= width, "{text:?}");
        }
    }
}
