//! The header of the table, and its search by address.

use std::ops::Range;

use super::function::Function;
use super::read::{string_at, u32_at, u64_at};

/// Which Go wrote the table. The numbers are what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    /// 0xfffffffb, until Go 1.15.
    Go12,
    /// 0xfffffffa, until Go 1.17: the table in parts.
    Go116,
    /// 0xfffffff0, until Go 1.19: entries relative to the text.
    Go118,
    /// 0xfffffff1.
    Go120,
}

/// A table, and where its code is.
#[derive(Clone, Copy, Debug)]
pub struct PclnTab<'a> {
    pub(super) format: Format,
    /// All of it, from the header.
    pub(super) bytes: &'a [u8],
    /// What the funcdata offsets of functions count from; empty if not known.
    pub(super) funcdata: &'a [u8],
    /// Where entries count from, as the file's addresses go.
    text: u64,
    /// Least size of an instruction.
    pub(super) quantum: u64,
    functions: usize,
    pub(super) files: u32,
    pub(super) names: usize,
    pub(super) units: usize,
    pub(super) file_names: usize,
    pub(super) pc_tables: usize,
    /// Where the functions begin: the index, then what it points to.
    index: usize,
}

impl<'a> PclnTab<'a> {
    /// Reads the header in `bytes`, which begin with it; their end is taken for the table's. `text`
    /// is the address of `runtime.text`, and is not needed before Go 1.18. `funcdata` is what
    /// begins at `go:func.*`: without it nothing is told of inlined functions.
    pub fn new(bytes: &'a [u8], text: u64, funcdata: &'a [u8]) -> Option<PclnTab<'a>> {
        let format = match u32_at(bytes, 0)? {
            0xffff_fffb => Format::Go12,
            0xffff_fffa => Format::Go116,
            0xffff_fff0 => Format::Go118,
            0xffff_fff1 => Format::Go120,
            _ => return None,
        };
        // Two zeros, the least size of an instruction, the size of a pointer.
        let &[0, 0, quantum @ (1 | 2 | 4), 8] = bytes.get(4..8)? else {
            return None;
        };
        let place = |word: usize| {
            let offset = usize::try_from(u64_at(bytes, 8 + 8 * word)?).ok()?;
            (offset <= bytes.len()).then_some(offset)
        };
        let functions = usize::try_from(u64_at(bytes, 8)?).ok()?;
        let mut table = PclnTab {
            format,
            bytes,
            funcdata,
            text: 0,
            quantum: u64::from(quantum),
            functions,
            files: 0,
            names: 0,
            units: 0,
            file_names: 0,
            pc_tables: 0,
            index: 16,
        };
        if format == Format::Go12 {
            let end = functions.checked_mul(16)?.checked_add(24)?;
            table.file_names = u32_at(bytes, end)? as usize;
            table.files = u32_at(bytes, table.file_names)?;
        } else {
            let first = if format == Format::Go116 { 2 } else { 3 };
            table.files = u32::try_from(u64_at(bytes, 16)?).ok()?;
            table.names = place(first)?;
            table.units = place(first + 1)?;
            table.file_names = place(first + 2)?;
            table.pc_tables = place(first + 3)?;
            table.index = place(first + 4)?;
            if Format::Go118 <= format {
                table.text = text;
            }
        }
        // The index ends with the address behind the last function.
        let (entry, _) = table.widths();
        let length = functions.checked_mul(2 * entry)?.checked_add(entry)?;
        let end = table.index.checked_add(length)?;
        (0 < functions && end <= bytes.len()).then_some(table)
    }

    /// Where the text begins by the table's own account: Go 1.18 to 1.25, and there only where no
    /// relocation was needed.
    pub(super) fn stated_text(bytes: &[u8]) -> Option<u64> {
        match u32_at(bytes, 0)? {
            0xffff_fff0 | 0xffff_fff1 => u64_at(bytes, 24).filter(|&text| text != 0),
            _ => None,
        }
    }

    /// Sizes of an address in the index and in a function.
    pub(super) fn widths(&self) -> (usize, usize) {
        match self.format {
            Format::Go12 | Format::Go116 => (8, 8),
            Format::Go118 | Format::Go120 => (4, 4),
        }
    }

    fn word(&self, at: usize) -> Option<u64> {
        match self.widths().0 {
            8 => u64_at(self.bytes, at),
            _ => u32_at(self.bytes, at).map(u64::from),
        }
    }

    /// Address of the function of that number; that of the last one's end for the number behind it.
    fn entry(&self, number: usize) -> Option<u64> {
        let width = self.widths().0;
        let offset = self.word(self.index + number * 2 * width)?;
        self.text.checked_add(offset)
    }

    /// The first address of Go code and the one behind the last.
    pub fn bounds(&self) -> Option<(u64, u64)> {
        let (start, end) = (self.entry(0)?, self.entry(self.functions)?);
        (start < end).then_some((start, end))
    }

    /// The function that `pc` is in. To ask about a call, give an address inside it: its return
    /// address less one.
    pub fn function(&self, pc: u64) -> Option<Function<'a>> {
        let (mut low, mut high) = (0, self.functions);
        if !(self.entry(0)? <= pc && pc < self.entry(high)?) {
            return None;
        }
        while high - low > 1 {
            let middle = low.midpoint(high);
            match self.entry(middle)? <= pc {
                true => low = middle,
                false => high = middle,
            }
        }
        self.numbered(low)
            .filter(|function| (function.entry()..function.end()).contains(&pc))
    }

    /// All functions, by address.
    pub fn functions(&self) -> impl Iterator<Item = Function<'a>> {
        let table = *self;
        (0..table.functions).filter_map(move |number| table.numbered(number))
    }

    /// Those that begin in `window`, by address: each from its entry to its end.
    pub fn functions_in(&self, window: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let (table, Range { start, end }) = (*self, window.clone());
        (0..table.functions)
            .map_while(move |number| Some(table.entry(number)?..table.entry(number + 1)?))
            .skip_while(move |range| range.start < start)
            .take_while(move |range| range.start < end)
    }

    fn numbered(&self, number: usize) -> Option<Function<'a>> {
        let (entry, end) = (self.entry(number)?, self.entry(number + 1)?);
        let width = self.widths().0;
        let offset = self.word(self.index + number * 2 * width + width)?;
        let base = match self.format {
            Format::Go12 => 0,
            _ => self.index,
        };
        let at = base.checked_add(usize::try_from(offset).ok()?)?;
        Function::new(*self, at, entry, end)
    }

    /// A function's name.
    pub(super) fn name(&self, offset: u32) -> Option<&'a str> {
        let names = self.bytes.get(self.names..)?;
        string_at(names, offset as usize).filter(|name| !name.is_empty())
    }

    /// A file's name, by its number in a compilation unit.
    pub(super) fn file(&self, unit: u32, number: u32) -> Option<&'a str> {
        let (base, offset) = if self.format == Format::Go12 {
            if !(1..self.files).contains(&number) {
                return None;
            }
            let entry = self.file_names.checked_add(4 * number as usize)?;
            (0, u32_at(self.bytes, entry)?)
        } else {
            let entry = (unit as usize).checked_add(number as usize)?;
            let entry = self.units.checked_add(entry.checked_mul(4)?)?;
            let offset = u32_at(self.bytes, entry)?;
            // The linker dropped the file: nothing refers to it.
            if offset == u32::MAX {
                return None;
            }
            (self.file_names, offset)
        };
        let names = self.bytes.get(base..)?;
        string_at(names, offset as usize).filter(|name| !name.is_empty())
    }
}
