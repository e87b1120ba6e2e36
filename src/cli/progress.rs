//! How far reading a trace has come, shown on a terminal when it takes long.
//!
//! One line on stderr, erased when the reading ends. Where stderr is no terminal, nothing is shown.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::term::Size;
use crate::timeline::{Observation, TraceInfo};
use crate::trace_file::{Damage, Source};
use crate::units::Bytes;

/// What takes less time than this is done before anybody has read a line about it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two changes of the line.
const EVERY: Duration = Duration::from_millis(100);
/// Observations between two looks at the clock.
const LOOK_EVERY: u32 = 4096;
/// Columns of a file name that are shown.
const NAME: usize = 30;

/// `source`, with its progress on stderr if that is a terminal that can take back a line.
pub(super) fn shown(source: Box<dyn Source>, path: &Path) -> Box<dyn Source> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if dumb || !io::stderr().is_terminal() {
        return source;
    }
    Box::new(Shown {
        source,
        line: Line::new(io::stderr(), path),
        until_look: LOOK_EVERY,
    })
}

struct Shown<W: Write> {
    source: Box<dyn Source>,
    line: Line<W>,
    until_look: u32,
}

impl<W: Write> Source for Shown<W> {
    fn info(&self) -> &TraceInfo {
        self.source.info()
    }

    fn next(&mut self) -> io::Result<Option<Observation>> {
        self.until_look -= 1;
        if self.until_look == 0 {
            self.until_look = LOOK_EVERY;
            self.line.show(self.source.progress(), Instant::now());
        }
        let next = self.source.next();
        if !matches!(next, Ok(Some(_))) {
            self.line.erase();
        }
        next
    }

    fn damage(&self) -> Option<&Damage> {
        self.source.damage()
    }

    fn notes(&self) -> Vec<String> {
        self.source.notes()
    }

    fn progress(&self) -> (u64, Option<u64>) {
        self.source.progress()
    }
}

/// A line that is written over and over. An error of the terminal is none of the reading.
struct Line<W: Write> {
    out: W,
    name: String,
    due: Instant,
    visible: bool,
}

impl<W: Write> Line<W> {
    fn new(out: W, path: &Path) -> Line<W> {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = crate::term::escaped(name.as_encoded_bytes(), true);
        Line {
            out,
            name: name.chars().take(NAME).collect(),
            due: Instant::now() + PATIENCE,
            visible: false,
        }
    }

    fn show(&mut self, (read, size): (u64, Option<u64>), now: Instant) {
        if now < self.due {
            return;
        }
        self.due = now + EVERY;
        self.visible = true;
        let read_size = Size(Bytes(read));
        let text = match size.filter(|size| 0 < *size) {
            Some(size) => {
                let percent = read.min(size) as f64 / size as f64 * 100.0;
                format!("{percent:3.0} % of {}", Size(Bytes(size)))
            }
            None => read_size.to_string(),
        };
        let _ = write!(self.out, "\r\x1b[Kreading {}: {text}", self.name);
        let _ = self.out.flush();
    }

    fn erase(&mut self) {
        if std::mem::take(&mut self.visible) {
            let _ = self.out.write_all(b"\r\x1b[K");
            let _ = self.out.flush();
        }
    }
}

/// However reading ends, nothing is left on the terminal.
impl<W: Write> Drop for Line<W> {
    fn drop(&mut self) {
        self.erase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(out: &[u8]) -> &str {
        std::str::from_utf8(out).expect("it is text")
    }

    #[test]
    fn nothing_is_shown_of_what_is_read_at_once() {
        let mut out = Vec::new();
        let mut line = Line::new(&mut out, Path::new("a.mtr"));
        line.show((1, Some(2)), Instant::now());
        drop(line);
        assert_eq!(text(&out), "");
    }

    #[test]
    fn what_takes_long_is_shown_now_and_then_and_erased_at_the_end() {
        let mut out = Vec::new();
        let mut line = Line::new(&mut out, Path::new("folder/a\x1b[2J.mtr"));
        let later = Instant::now() + PATIENCE;
        line.show((1 << 20, Some(4 << 20)), later);
        line.show((2 << 20, Some(4 << 20)), later + EVERY / 2);
        line.show((3 << 20, None), later + EVERY);
        drop(line);
        assert_eq!(
            text(&out),
            "\r\x1b[Kreading a\\x1b[2J.mtr:  25 % of 4.0 MiB\r\x1b[Kreading a\\x1b[2J.mtr: 3.0 MiB\r\x1b[K"
        );
    }

    #[test]
    fn observations_pass_through_unchanged() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/traces/format-1.1.mtr"
        );
        let open = || crate::trace_file::TraceReader::open(Path::new(path)).expect("a trace");
        let mut source = Shown {
            source: Box::new(open()),
            line: Line::new(Vec::new(), Path::new(path)),
            until_look: 1,
        };
        for expected in open() {
            let expected = expected.expect("it reads");
            assert_eq!(source.next().expect("it reads"), Some(expected));
        }
        assert_eq!(source.next().expect("it reads"), None);
        assert_eq!(source.progress(), source.source.progress());
    }
}
