//! The text of `/proc/PID/maps` and `/proc/PID/smaps`, read and written.
//!
//! Both are read on every fork, exec and exit, so the parsers work on bytes and copy nothing but
//! names, each once. Where the text comes from is the edge's business.

use std::fmt;
use std::sync::Arc;

use crate::abi::Prot;
use crate::units::{Addr, AddrRange, Bytes};

use super::FileId;

/// One line of maps (or one answer of PROCMAP_QUERY).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapsEntry {
    /// Where.
    pub range: AddrRange,
    /// Rights.
    pub prot: Prot,
    /// `s` instead of `p`.
    pub shared: bool,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Device and inode; all zero for anonymous memory.
    pub file: FileId,
    /// The last column as printed; empty for nameless mappings.
    pub name: Arc<str>,
}

/// What smaps adds to a line of maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmapsInfo {
    /// Rss.
    pub resident: Bytes,
    /// Anonymous: the part of `resident` that belongs to no file.
    pub anonymous: Bytes,
    /// Swap.
    pub swap: Bytes,
    /// LazyFree: MADV_FREE'd pages not yet taken back.
    pub lazy_free: Bytes,
    /// Locked.
    pub locked: Bytes,
    /// VmFlags `ac`.
    pub charged: bool,
    /// VmFlags `nr`.
    pub noreserve: bool,
    /// VmFlags `gd`.
    pub growsdown: bool,
    /// VmFlags `dc`.
    pub dontfork: bool,
    /// VmFlags `sl`.
    pub sealed: bool,
    /// VmFlags `ht`.
    pub hugetlb: bool,
}

/// The kernel's own view of an address space, read at an instant when nothing changed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The lines of maps, in order of address, `[vsyscall]` left out.
    pub entries: Vec<MapsEntry>,
    /// What smaps says of each of them; empty when only maps was read, else as long as `entries`.
    pub smaps: Vec<SmapsInfo>,
}

/// A text that is not maps or smaps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of a maps text makes no sense: {text:?}")]
pub struct MapsError {
    /// Number of the line, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

/// Where the name begins on a line of maps (fs/proc/task_mmu.c, `show_map_vma`).
const NAME_COLUMN: usize = 73;

/// The rights of a line of maps: `rw-p`.
pub(super) fn rights(prot: Prot, shared: bool) -> [char; 4] {
    let bit = |flag, letter| if prot.contains(flag) { letter } else { '-' };
    [
        bit(Prot::READ, 'r'),
        bit(Prot::WRITE, 'w'),
        bit(Prot::EXEC, 'x'),
        if shared { 's' } else { 'p' },
    ]
}

impl MapsEntry {
    /// What follows the range on a line of maps, without the padding before the name.
    pub(super) fn description(&self) -> String {
        let mut text = self.fields();
        if self.name.is_empty() {
            text.pop();
        }
        text.push_str(&self.name);
        text
    }

    /// From the rights to the blank after the inode.
    fn fields(&self) -> String {
        let [r, w, x, s] = rights(self.prot, self.shared);
        let FileId {
            major,
            minor,
            inode,
        } = self.file;
        let offset = self.offset;
        format!("{r}{w}{x}{s} {offset:08x} {major:02x}:{minor:02x} {inode} ")
    }
}

/// The line of `/proc/PID/maps`, to the letter: also the blank that ends a nameless one.
impl fmt::Display for MapsEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (self.range.start().0, self.range.end().0);
        let line = format!("{start:08x}-{end:08x} {}", self.fields());
        if self.name.is_empty() {
            return f.write_str(&line);
        }
        write!(f, "{line:<width$} {}", self.name, width = NAME_COLUMN - 1)
    }
}

/// Reads the text of `/proc/PID/maps`.
pub fn parse_maps(text: &[u8]) -> Result<Snapshot, MapsError> {
    let mut names = Names::default();
    let mut entries = Vec::with_capacity(text.len() / 64);
    let mut lines = Lines::new(text);
    while let Some(line) = lines.next() {
        match parse_line(line, &mut names) {
            Some(entry) => entries.extend(Some(entry).filter(|entry| !is_vsyscall(entry))),
            None => return Err(lines.error(line)),
        }
    }
    Ok(Snapshot {
        entries,
        smaps: Vec::new(),
    })
}

/// Reads the text of `/proc/PID/smaps`.
pub fn parse_smaps(text: &[u8]) -> Result<Snapshot, MapsError> {
    let mut names = Names::default();
    let mut snapshot = Snapshot::default();
    let mut lines = Lines::new(text);
    // What the fields belong to; `[vsyscall]` is left out with its fields.
    let mut skipping = false;
    while let Some(line) = lines.next() {
        // Ranges are printed in lower case, field names begin with a capital.
        if !line.first().is_some_and(u8::is_ascii_uppercase) {
            let Some(entry) = parse_line(line, &mut names) else {
                return Err(lines.error(line));
            };
            skipping = is_vsyscall(&entry);
            if !skipping {
                snapshot.entries.push(entry);
                snapshot.smaps.push(SmapsInfo::default());
            }
        } else if let Some(info) = snapshot.smaps.last_mut() {
            if !skipping && parse_field(line, info).is_none() {
                return Err(lines.error(line));
            }
        } else if !skipping {
            return Err(lines.error(line));
        }
    }
    Ok(snapshot)
}

/// The page at a fixed address that is in no address space's VmSize (arch/x86 `gate_vma`).
fn is_vsyscall(entry: &MapsEntry) -> bool {
    &*entry.name == "[vsyscall]"
}

/// The lines of a text, counted. A last line without newline is a line, an empty rest is none.
struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    fn new(rest: &'a [u8]) -> Lines<'a> {
        Lines { rest, number: 0 }
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.number += 1;
        let (line, rest) = match newline(self.rest) {
            Some(at) => (&self.rest[..at], &self.rest[at + 1..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        Some(line)
    }

    fn error(&self, line: &[u8]) -> MapsError {
        MapsError {
            line: self.number,
            text: String::from_utf8_lossy(line).into_owned(),
        }
    }
}

/// Position of the first newline. Eight bytes at a time: a smaps of 1000 mappings is 700 kB.
fn newline(text: &[u8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, _) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        // A byte of `other` is zero where the text has a newline; the lowest such byte is found exactly.
        let other = u64::from_le_bytes(*word) ^ (LOW * u64::from(b'\n'));
        let zeros = other.wrapping_sub(LOW) & !other & HIGH;
        if zeros != 0 {
            return Some(index * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    let tail = words.len() * 8;
    let found = text[tail..].iter().position(|&byte| byte == b'\n')?;
    Some(tail + found)
}

/// Hands out one `Arc` for the same name on neighbouring lines: the segments of a library, often
/// with a nameless bss between them and the next.
#[derive(Default)]
struct Names {
    empty: Option<Arc<str>>,
    last: Option<Arc<str>>,
}

impl Names {
    fn get(&mut self, name: &[u8]) -> Arc<str> {
        let slot = if name.is_empty() {
            &mut self.empty
        } else {
            &mut self.last
        };
        match slot {
            Some(known) if known.as_bytes() == name => known.clone(),
            _ => slot.insert(String::from_utf8_lossy(name).into()).clone(),
        }
    }
}

fn parse_line(line: &[u8], names: &mut Names) -> Option<MapsEntry> {
    let mut field = Fields(line);
    let start = field.hex(b'-')?;
    let end = field.hex(b' ')?;
    let &[r, w, x, s, b' ', ..] = field.0 else {
        return None;
    };
    field.0 = &field.0[5..];
    let mut prot = Prot::NONE;
    for (byte, letter, flag) in [
        (r, b'r', Prot::READ),
        (w, b'w', Prot::WRITE),
        (x, b'x', Prot::EXEC),
    ] {
        match byte {
            b'-' => {}
            _ if byte == letter => prot |= flag,
            _ => return None,
        }
    }
    let shared = match s {
        b's' => true,
        b'p' => false,
        _ => return None,
    };
    let offset = field.hex(b' ')?;
    let major = field.hex(b':')?.try_into().ok()?;
    let minor = field.hex(b' ')?.try_into().ok()?;
    let inode = field.decimal()?;
    let name = match field.0 {
        [] => &[][..],
        [b' ', rest @ ..] => rest.trim_ascii_start(),
        _ => return None,
    };
    Some(MapsEntry {
        range: AddrRange::new(Addr(start), Addr(end))?,
        prot,
        shared,
        offset,
        file: FileId {
            major,
            minor,
            inode,
        },
        name: names.get(name),
    })
}

/// One `Key:   123 kB` or `VmFlags: rd wr …` line into what it says; unknown keys say nothing.
fn parse_field(line: &[u8], info: &mut SmapsInfo) -> Option<()> {
    let amount = |key: &[u8]| {
        let mut field = Fields(line[key.len()..].trim_ascii_start());
        let amount = field.decimal()?.checked_mul(1024)?;
        (field.0 == b" kB").then_some(Bytes(amount))
    };
    // The first two letters tell most of the twenty keys apart.
    match line {
        [b'R', b's', b's', b':', ..] => info.resident = amount(b"Rss:")?,
        [b'A', b'n', b'o', b'n', b'y', ..] => info.anonymous = amount(b"Anonymous:")?,
        [b'S', b'w', b'a', b'p', b':', ..] => info.swap = amount(b"Swap:")?,
        [b'L', b'a', b'z', b'y', ..] => info.lazy_free = amount(b"LazyFree:")?,
        [b'L', b'o', b'c', b'k', ..] => info.locked = amount(b"Locked:")?,
        [b'V', b'm', b'F', b'l', b'a', b'g', b's', b':', flags @ ..] => parse_flags(flags, info),
        _ => {}
    }
    Some(())
}

/// The two-letter words of VmFlags (fs/proc/task_mmu.c, `show_smap_vma_flags`).
fn parse_flags(flags: &[u8], info: &mut SmapsInfo) {
    for flag in flags.split(|&byte| byte == b' ') {
        match flag {
            b"ac" => info.charged = true,
            b"nr" => info.noreserve = true,
            b"gd" => info.growsdown = true,
            b"dc" => info.dontfork = true,
            b"sl" => info.sealed = true,
            b"ht" => info.hugetlb = true,
            _ => {}
        }
    }
}

/// Takes numbers off the front of a line.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// A hexadecimal number as the kernel prints it (lower case) and the byte that must end it.
    fn hex(&mut self, end: u8) -> Option<u64> {
        let mut value = 0u64;
        for (index, &byte) in self.0.iter().enumerate() {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ if byte == end && 0 < index => {
                    self.0 = &self.0[index + 1..];
                    return Some(value);
                }
                _ => return None,
            };
            if value >> 60 != 0 {
                return None;
            }
            value = value << 4 | u64::from(digit);
        }
        None
    }

    /// A decimal number, up to whatever is no digit.
    fn decimal(&mut self) -> Option<u64> {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit());
        let mut value = 0u64;
        let mut count = 0;
        for digit in digits {
            value = value.checked_mul(10)?.checked_add((digit - b'0').into())?;
            count += 1;
        }
        self.0 = &self.0[count..];
        (0 < count).then_some(value)
    }
}
