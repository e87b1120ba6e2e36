//! One function: its frame, its lines and what was inlined into it.

use super::pclntab::{Format, PclnTab};
use super::read::{u32_at, varint};

/// Number of the table that tells which inlined call an address belongs to, and of the calls.
const INLINED_INDEX: u32 = 2;
const INLINED_TREE: u32 = 3;
/// More functions are not inlined into each other.
const DEEPEST: usize = 256;
/// FuncFlagTopFrame and FuncFlagSPWrite of internal/abi/symtab.go, since Go 1.17.
const TOP_FRAME: u8 = 1;
const SP_WRITE: u8 = 2;
/// What has the first of them, by name for the versions before.
const OUTERMOST: &[&str] = &["runtime.goexit", "runtime.mstart", "runtime.rt0_go"];

/// A function, as the table has it.
#[derive(Clone, Copy, Debug)]
pub struct Function<'a> {
    table: PclnTab<'a>,
    /// Where it begins and ends, as the file's addresses go.
    entry: u64,
    end: u64,
    name: &'a str,
    pcsp: u32,
    pcfile: u32,
    pcln: u32,
    unit: u32,
    flags: u8,
    /// Where the numbers of its further tables are.
    pcdata: usize,
    pcdata_count: u32,
    funcdata_count: u8,
}

/// A function that was being executed at an address: one of its own, or one inlined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoFrame<'a> {
    /// Its name, as Go writes it: `runtime.(*mheap).sysAlloc`.
    pub function: &'a str,
    /// Source file.
    pub file: Option<&'a str>,
    /// Line in it; 0 if not known.
    pub line: u32,
}

impl<'a> Function<'a> {
    pub(super) fn new(table: PclnTab<'a>, at: usize, entry: u64, end: u64) -> Option<Function<'a>> {
        let bytes = table.bytes.get(at..)?;
        let first = table.widths().1;
        // name, args, deferreturn, pcsp, pcfile, pcln, npcdata, then cuOffset and startLine in
        // those that have them, then funcID, flag, padding and nfuncdata.
        let word = |number: usize| u32_at(bytes, first + 4 * number);
        let (unit, last) = match table.format {
            Format::Go12 => (0, 7),
            Format::Go116 | Format::Go118 => (word(7)?, 8),
            Format::Go120 => (word(7)?, 9),
        };
        let last = first + 4 * last;
        let &[_, flag, _, funcdata_count] = bytes.get(last..)?.first_chunk()?;
        Some(Function {
            table,
            entry,
            end,
            name: table.name(word(0)?)?,
            pcsp: word(3)?,
            pcfile: word(4)?,
            pcln: word(5)?,
            unit,
            flags: if table.format == Format::Go12 {
                0
            } else {
                flag
            },
            pcdata: at.checked_add(last + 4)?,
            pcdata_count: word(6)?,
            funcdata_count,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Where it begins, as the file's addresses go.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// The address behind it.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether it is the outermost of its stack, by Go's own account.
    pub fn is_outermost(&self) -> bool {
        let name = self.name.strip_suffix(".abi0").unwrap_or(self.name);
        self.flags & TOP_FRAME != 0 || OUTERMOST.contains(&name)
    }

    /// Whether it sets the stack pointer in ways that the table cannot tell.
    pub fn writes_sp(&self) -> bool {
        self.flags & SP_WRITE != 0
    }

    /// Bytes from the stack pointer at `pc` up to the return address.
    pub fn sp_delta(&self, pc: u64) -> Option<u64> {
        let delta = self.value(self.pcsp, pc)?;
        u64::try_from(delta).ok().filter(|delta| delta % 8 == 0)
    }

    /// What was being executed at `pc`, innermost function first. Where something was inlined but
    /// nothing tells what, only the function itself, without a line: the line is the other's.
    pub fn frames(&self, pc: u64) -> Vec<GoFrame<'a>> {
        let plain = |pc: Option<u64>| {
            let (file, line) = pc.and_then(|pc| self.line(pc)).unzip();
            GoFrame {
                function: self.name,
                file,
                line: line.unwrap_or(0),
            }
        };
        let Some(mut number) = self.inlined_at(pc) else {
            return vec![plain(Some(pc))];
        };
        let mut frames = Vec::new();
        let mut at = pc;
        loop {
            let Some((function, call)) = self.inlined(number) else {
                return vec![plain(None)];
            };
            let (file, line) = self.line(at).unzip();
            frames.push(GoFrame {
                function,
                file,
                line: line.unwrap_or(0),
            });
            at = call;
            match self.inlined_at(at) {
                None => break,
                Some(_) if DEEPEST < frames.len() => return vec![plain(None)],
                Some(outer) => number = outer,
            }
        }
        frames.push(plain(Some(at)));
        frames
    }

    /// File and line of the instruction at `pc`, inlined or not.
    fn line(&self, pc: u64) -> Option<(&'a str, u32)> {
        let line = u32::try_from(self.value(self.pcln, pc)?).ok()?;
        let number = u32::try_from(self.value(self.pcfile, pc)?).ok()?;
        Some((self.table.file(self.unit, number)?, line))
    }

    /// Number of the inlined call that `pc` belongs to.
    fn inlined_at(&self, pc: u64) -> Option<usize> {
        if self.pcdata_count <= INLINED_INDEX {
            return None;
        }
        let table = u32_at(self.table.bytes, self.pcdata + 4 * INLINED_INDEX as usize)?;
        usize::try_from(self.value(table, pc)?).ok()
    }

    /// The name of an inlined function, and an address whose line is that of the call to it.
    fn inlined(&self, number: usize) -> Option<(&'a str, u64)> {
        if u32::from(self.funcdata_count) <= INLINED_TREE {
            return None;
        }
        // Before Go 1.18 funcdata was a pointer, and behind a relocation.
        let (size, name, call) = match self.table.format {
            Format::Go12 | Format::Go116 => return None,
            Format::Go118 => (20, 12, 16),
            Format::Go120 => (16, 4, 8),
        };
        let skipped = u64::from(self.pcdata_count) + u64::from(INLINED_TREE);
        let at = self
            .pcdata
            .checked_add(usize::try_from(4 * skipped).ok()?)?;
        let tree = u32_at(self.table.bytes, at).filter(|&tree| tree != u32::MAX)?;
        let at = (tree as usize).checked_add(number.checked_mul(size)?)?;
        let entry = self.table.funcdata.get(at..)?.get(..size)?;
        let function = self.table.name(u32_at(entry, name)?)?;
        let call = self.entry.checked_add(u64::from(u32_at(entry, call)?))?;
        (call < self.end).then_some((function, call))
    }

    /// The value of one of its tables at `pc`: pairs of differences, of the value and of the address
    /// up to which it holds.
    fn value(&self, table: u32, pc: u64) -> Option<i32> {
        if table == 0 {
            return None;
        }
        let start = self.table.pc_tables.checked_add(table as usize)?;
        let mut bytes = self.table.bytes.get(start..)?;
        let (mut value, mut until) = (-1i32, self.entry);
        for step in 0.. {
            let (delta, rest) = varint(bytes)?;
            if delta == 0 && step != 0 {
                return None;
            }
            let (advance, rest) = varint(rest)?;
            bytes = rest;
            // Zigzag: the sign is the lowest bit.
            let delta = (delta >> 1) as i32 ^ -((delta & 1) as i32);
            value = value.wrapping_add(delta);
            until = until.checked_add(u64::from(advance) * self.table.quantum)?;
            if pc < until {
                return Some(value);
            }
            if self.end < until {
                return None;
            }
        }
        None
    }
}
