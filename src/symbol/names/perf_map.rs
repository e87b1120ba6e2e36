//! `/tmp/perf-PID.map`: what a just-in-time compiler says of the code it made.
//!
//! One function a line: start and size in hexadecimal, and a name up to the end of the line
//! (tools/perf/Documentation/jit-interface.txt in the kernel's sources).

use std::collections::BTreeMap;
use std::sync::Arc;

/// Most functions that are kept of one process, and most bytes of their names.
const MOST_FUNCTIONS: usize = 1 << 20;
const MOST_TEXT: usize = 128 << 20;
/// A longer name is cut.
const MOST_NAME: usize = 4096;
/// Of a line, more is not looked at.
const MOST_LINE: usize = 2 * MOST_NAME;

/// Functions by address. Memory is used again: a later line replaces what it overlaps of earlier ones.
#[derive(Clone, Debug, Default)]
pub struct PerfMap {
    /// By the first address that is still theirs.
    functions: BTreeMap<u64, Function>,
    text: usize,
    /// The beginning of a line whose end has not been read yet.
    begun: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Function {
    start: u64,
    end: u64,
    name: Arc<str>,
}

impl PerfMap {
    /// Takes the next bytes of the file.
    pub fn add(&mut self, bytes: &[u8]) {
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let last = lines.next_back().unwrap_or_default();
        for line in lines {
            if self.begun.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(line);
                self.line(&whole);
            }
        }
        let room = MOST_LINE.saturating_sub(self.begun.len());
        self.begun.extend_from_slice(&last[..last.len().min(room)]);
    }

    /// Takes what stands behind the last end of a line: nothing more will come.
    pub fn end(&mut self) {
        let line = std::mem::take(&mut self.begun);
        self.line(&line);
    }

    /// The function that holds an address: its name and where it begins.
    pub fn find(&self, address: u64) -> Option<(&Arc<str>, u64)> {
        let (_, function) = self.functions.range(..=address).next_back()?;
        (address < function.end).then_some((&function.name, function.start))
    }

    /// How many functions there are.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    fn line(&mut self, line: &[u8]) {
        if let Some((start, end, name)) = parse(line)
            && self.functions.len() < MOST_FUNCTIONS
            && self.text + name.len() <= MOST_TEXT
        {
            self.text += name.len();
            self.insert(Function {
                start,
                end,
                name: name.into(),
            });
        }
    }

    fn insert(&mut self, new: Function) {
        let (start, end) = (new.start, new.end);
        let before = self.functions.range_mut(..start).next_back();
        let mut rest = None;
        if let Some((_, before)) = before
            && start < before.end
        {
            rest = (end < before.end).then(|| before.clone());
            before.end = start;
        }
        while let Some((&at, _)) = self.functions.range(start..end).next() {
            rest = self.functions.remove(&at).filter(|old| end < old.end);
        }
        if let Some(rest) = rest {
            self.functions.insert(end, rest);
        }
        self.functions.insert(start, new);
    }
}

/// Start, end and name.
fn parse(line: &[u8]) -> Option<(u64, u64, String)> {
    let line = &line[..line.len().min(MOST_LINE)];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.splitn(3, |&byte| byte == b' ' || byte == b'\t');
    let mut number = || {
        let word = std::str::from_utf8(words.next()?).ok()?;
        let word = word.strip_prefix("0x").unwrap_or(word);
        let digits = word.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(word, 16).ok().filter(|_| digits)
    };
    let (start, size) = (number()?, number()?);
    let name = words.next()?.trim_ascii();
    let end = start.checked_add(size).filter(|end| start < *end)?;
    if name.is_empty() {
        return None;
    }
    let name = &name[..name.len().min(MOST_NAME)];
    Some((start, end, String::from_utf8_lossy(name).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, addresses: &[(u64, Option<(&str, u64)>)]) {
        // In whatever pieces it is read.
        for size in [1, 7, text.len().max(1)] {
            let mut map = PerfMap::default();
            text.as_bytes()
                .chunks(size)
                .for_each(|piece| map.add(piece));
            map.end();
            for (address, expected) in addresses {
                let found = map.find(*address).map(|(name, start)| (&**name, start));
                assert_eq!(found, *expected, "{address:#x} of {text:?}");
            }
        }
    }

    #[test]
    fn a_line_names_its_range_only() {
        check(
            "1000 10 foo\n2000 8 Lcom/sun/Foo;::bar (int) [x]\n0x3000 0x4 hexed",
            &[
                (0xfff, None),
                (0x1000, Some(("foo", 0x1000))),
                (0x100f, Some(("foo", 0x1000))),
                (0x1010, None),
                (0x2004, Some(("Lcom/sun/Foo;::bar (int) [x]", 0x2000))),
                (0x3003, Some(("hexed", 0x3000))),
            ],
        );
    }

    #[test]
    fn later_lines_win() {
        let old_around = (0x1000, Some(("old", 0x1000)));
        check(
            "1000 100 old\n1040 10 new\n",
            &[
                old_around,
                (0x103f, Some(("old", 0x1000))),
                (0x1040, Some(("new", 0x1040))),
                (0x104f, Some(("new", 0x1040))),
                (0x1050, Some(("old", 0x1000))),
                (0x10ff, Some(("old", 0x1000))),
                (0x1100, None),
            ],
        );
        check(
            "1000 10 a\n1010 10 b\n1020 10 c\n1008 20 over\n",
            &[
                (0x1007, Some(("a", 0x1000))),
                (0x1008, Some(("over", 0x1008))),
                (0x1027, Some(("over", 0x1008))),
                (0x1028, Some(("c", 0x1020))),
                (0x1030, None),
            ],
        );
        check(
            "1000 10 old\n1000 10 new\n",
            &[(0x1000, Some(("new", 0x1000)))],
        );
    }

    #[test]
    fn what_is_no_line_is_left_out() {
        check(
            "\n1000\n1000 10\n1000 10 \nxyz 10 foo\n1000 -10 foo\n+1000 10 foo\n1000 0 foo\n\
             ffffffffffffffff 10 foo\n11111111111111111 1 foo\n2000 10 bar\n",
            &[
                (0x1000, None),
                (u64::MAX, None),
                (0x2000, Some(("bar", 0x2000))),
            ],
        );
    }

    #[test]
    fn a_line_without_end_takes_little_memory() {
        let mut map = PerfMap::default();
        for _ in 0..1000 {
            map.add(&[b'1'; 4096]);
        }
        assert!(map.begun.len() <= MOST_LINE);
        map.end();
        assert!(map.is_empty());
    }

    #[test]
    fn any_bytes_make_a_map_without_overlaps() {
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize
        };
        let alphabet = b"0123456789abcdef  \n\nxg\xff";
        for _ in 0..2000 {
            let text: Vec<u8> = (0..next() % 200)
                .map(|_| alphabet[next() % alphabet.len()])
                .collect();
            let mut map = PerfMap::default();
            map.add(&text);
            map.end();
            let mut last = 0;
            for (&at, function) in &map.functions {
                assert!(last <= at && at < function.end && function.start <= at);
                last = function.end;
            }
        }
    }
}
