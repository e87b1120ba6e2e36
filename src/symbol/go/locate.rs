//! Finds the table in a file.
//!
//! By the name of its section, or, where names are gone, by what it begins with. What it leaves out,
//! where the code begins and where the data on inlined functions is, stands in `runtime.moduledata`,
//! which has no name in a stripped file either: it begins with the table's address.

use std::ops::Range;

use object::elf::{ET_DYN, FileHeader64, PF_W, PF_X, PT_GNU_EH_FRAME, PT_LOAD, R_X86_64_RELATIVE};
use object::read::elf::{FileHeader, ProgramHeader, Rela as _, SectionHeader};
use object::{LittleEndian, ReadRef};

use super::pclntab::PclnTab;
use super::read::{u32_at, u64_at};

type Header = FileHeader64<LittleEndian>;

/// Words of `runtime.moduledata`: src/runtime/symtab.go, Go 1.16 to 1.27.
mod words {
    pub const NAMES: u64 = 1;
    pub const PCLN_TABLE: u64 = 13;
    pub const MIN_PC: u64 = 20;
    pub const MAX_PC: u64 = 21;
    pub const TEXT: u64 = 22;
    pub const END_TEXT: u64 = 23;
}

/// Where in a file the table and what belongs to it are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The table, by offsets in the file; it may end before that.
    pub table: Range<u64>,
    /// Address of `runtime.text`.
    pub text: u64,
    /// What `go:func.*` begins, by offsets in the file; it may end before that.
    pub funcdata: Option<Range<u64>>,
}

/// Finds the table of a 64-bit ELF file. `None` if there is none, or if nothing tells where its
/// code is.
pub fn locate<'d, R: ReadRef<'d>>(data: R) -> Option<Location> {
    let file = File::parse(data)?;
    let named = file.named_tables();
    if let Some(found) = named.iter().find_map(|range| file.confirm(range)) {
        return Some(found);
    }
    if !named.is_empty() || file.may_be_go() {
        return file.scan();
    }
    None
}

/// A part of a file that is loaded.
#[derive(Clone, Debug)]
struct Segment {
    address: u64,
    file: Range<u64>,
    code: bool,
    writable: bool,
}

struct File<'d, R> {
    data: R,
    header: &'d Header,
    segments: Vec<Segment>,
    unwinds_like_c: bool,
    /// Words that the loader writes, by address: without them a PIE has no pointers.
    relocated: Vec<(u64, u64)>,
}

impl<'d, R: ReadRef<'d>> File<'d, R> {
    fn parse(data: R) -> Option<File<'d, R>> {
        let header = Header::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let length = data.len().ok()?;
        let programs = header.program_headers(endian, data).ok()?;
        let mut segments = Vec::new();
        for program in programs {
            let (start, size) = program.file_range(endian);
            let end = start.saturating_add(size).min(length);
            if program.p_type(endian) == PT_LOAD && start < end {
                segments.push(Segment {
                    address: program.p_vaddr(endian),
                    file: start..end,
                    code: program.p_flags(endian).contains(PF_X),
                    writable: program.p_flags(endian).contains(PF_W),
                });
            }
        }
        let unwinds_like_c = programs
            .iter()
            .any(|program| program.p_type(endian) == PT_GNU_EH_FRAME);
        Some(File {
            data,
            header,
            segments,
            unwinds_like_c,
            relocated: Vec::new(),
        })
    }

    fn sections(&self) -> impl Iterator<Item = (&'d [u8], Range<u64>)> {
        let table = self.header.sections(LittleEndian, self.data).ok();
        let table = table.unwrap_or_default();
        let sections: Vec<_> = table
            .iter()
            .filter_map(|section| {
                let name = table.section_name(LittleEndian, section).ok()?;
                let (start, size) = section.file_range(LittleEndian)?;
                Some((name, start..start.checked_add(size)?))
            })
            .collect();
        sections.into_iter()
    }

    fn named_tables(&self) -> Vec<Range<u64>> {
        let ours = |name: &[u8]| name == b".gopclntab" || name == b".data.rel.ro.gopclntab";
        self.sections()
            .filter(|(name, _)| ours(name))
            .map(|(_, range)| range)
            .collect()
    }

    /// Whether reading all its data for a table is worth while. Pure Go has nothing that C unwinds
    /// by; a file with cgo has Go's note.
    fn may_be_go(&self) -> bool {
        let noted = || {
            let programs = self.header.program_headers(LittleEndian, self.data);
            programs.unwrap_or_default().iter().any(|program| {
                let Ok(Some(mut notes)) = program.notes(LittleEndian, self.data) else {
                    return false;
                };
                std::iter::from_fn(|| notes.next().ok().flatten()).any(|note| note.name() == b"Go")
            })
        };
        !self.unwinds_like_c || noted()
    }

    /// Looks for a table in all data that is loaded.
    fn scan(mut self) -> Option<Location> {
        let mut candidates = Vec::new();
        for segment in self.segments.iter().filter(|segment| !segment.code) {
            let range = segment.file.clone();
            let size = range.end - range.start;
            let bytes = self.data.read_bytes_at(range.start, size).ok()?;
            // The linker aligns it to more than this.
            for (number, word) in bytes.chunks_exact(8).enumerate() {
                let begins = matches!(
                    word,
                    [
                        0xf0 | 0xf1 | 0xfa | 0xfb,
                        0xff,
                        0xff,
                        0xff,
                        0,
                        0,
                        1 | 2 | 4,
                        8
                    ]
                );
                let at = 8 * number;
                if begins && PclnTab::new(&bytes[at..], 0, &[]).is_some() {
                    candidates.push(range.start + at as u64..range.end);
                }
            }
        }
        candidates.iter().find_map(|range| self.confirm_mut(range))
    }

    fn confirm(&self, range: &Range<u64>) -> Option<Location> {
        let mut file = File {
            segments: self.segments.clone(),
            relocated: Vec::new(),
            ..*self
        };
        file.confirm_mut(range)
    }

    /// Completes what is known of the table at `range`; `None` if it is none.
    fn confirm_mut(&mut self, range: &Range<u64>) -> Option<Location> {
        let size = range.end.checked_sub(range.start)?;
        let bytes = self.data.read_bytes_at(range.start, size).ok()?;
        let table = PclnTab::new(bytes, 0, &[])?;
        let address = self.address_of(range.start);
        let module = address.and_then(|address| self.module_data(address, &table));
        let (text, funcdata) = match module {
            Some(module) => {
                let text = self.word(module, words::TEXT)?;
                let start = self.gofunc(module).and_then(|start| self.rest_of(start));
                (text, start)
            }
            None if u32_at(bytes, 0)? < 0xffff_fffa => (PclnTab::stated_text(bytes)?, None),
            // Addresses in these tables are whole, if the file's place was known at link time.
            None => (0, None),
        };
        let (start, end) = PclnTab::new(bytes, text, &[])?.bounds()?;
        self.is_code(start..end).then_some(Location {
            table: range.clone(),
            text,
            funcdata,
        })
    }

    fn is_code(&self, range: Range<u64>) -> bool {
        self.segments.iter().any(|segment| {
            let size = segment.file.end - segment.file.start;
            let end = segment.address.saturating_add(size);
            segment.code && segment.address <= range.start && range.end <= end
        })
    }

    fn address_of(&self, offset: u64) -> Option<u64> {
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.file.contains(&offset))?;
        segment.address.checked_add(offset - segment.file.start)
    }

    /// From an address to the end of its segment, by offsets in the file.
    fn rest_of(&self, address: u64) -> Option<Range<u64>> {
        self.segments.iter().find_map(|segment| {
            let offset = address.checked_sub(segment.address)?;
            let start = segment.file.start.checked_add(offset)?;
            (start < segment.file.end).then_some(start..segment.file.end)
        })
    }

    /// Eight bytes of memory, as the loader leaves them in a file that it did not move.
    fn word(&self, base: u64, number: u64) -> Option<u64> {
        let address = base.checked_add(8 * number)?;
        let by_address = |&(at, _): &(u64, u64)| at;
        if let Ok(found) = self.relocated.binary_search_by_key(&address, by_address) {
            return Some(self.relocated[found].1);
        }
        let range = self.rest_of(address)?;
        u64_at(self.data.read_bytes_at(range.start, 8).ok()?, 0)
    }

    /// The module data that belongs to the table at `address`.
    fn module_data(&mut self, address: u64, table: &PclnTab<'_>) -> Option<u64> {
        if self.header.e_type(LittleEndian) == ET_DYN && self.relocated.is_empty() {
            self.relocated = self.relocations();
        }
        let is_it = |place: &u64| {
            self.is_module_data(*place, address, table)
                .is_some_and(|is| is)
        };
        let relocated = self.relocated.iter().filter(|(_, it)| *it == address);
        if let Some((module, _)) = relocated.clone().find(|(place, _)| is_it(place)) {
            return Some(*module);
        }
        // The runtime writes to it: it is not in the larger part of the data.
        let data = |writable| {
            let segments = self.segments.iter();
            segments.filter(move |it| !it.code && it.writable == writable)
        };
        let wanted = address.to_le_bytes();
        data(true).chain(data(false)).find_map(|segment| {
            let range = &segment.file;
            let size = range.end - range.start;
            let bytes = self.data.read_bytes_at(range.start, size).ok()?;
            let words = bytes.chunks_exact(8).enumerate();
            let found = words.filter(|(_, word)| **word == wanted);
            found
                .map(|(number, _)| segment.address.wrapping_add(8 * number as u64))
                .find(|place| is_it(place))
        })
    }

    /// Whether what it says of the table is what the table says of itself.
    fn is_module_data(&self, module: u64, address: u64, table: &PclnTab<'_>) -> Option<bool> {
        let word = |number| self.word(module, number);
        let text = word(words::TEXT)?;
        let agree = word(words::NAMES)? == address.checked_add(table.names as u64)?
            && address < word(words::PCLN_TABLE)?
            && word(words::MIN_PC)? < word(words::MAX_PC)?
            && text <= word(words::MIN_PC)?
            && word(words::MAX_PC)? <= word(words::END_TEXT)?;
        let rebased = PclnTab::new(table.bytes, text, &[])?;
        Some(agree && rebased.bounds()? == (word(words::MIN_PC)?, word(words::MAX_PC)?))
    }

    /// Address of `go:func.*`, Go 1.18 and later.
    fn gofunc(&self, module: u64) -> Option<u64> {
        let word = |number| self.word(module, number);
        let range = self.rest_of(word(0)?)?;
        let magic = u32_at(self.data.read_bytes_at(range.start, 4).ok()?, 0)?;
        match magic {
            0xffff_fff0 => word(38),
            // types, typedesclen, etypes, itaboffset, itabsize, rodata, gofunc: since Go 1.27.
            0xffff_fff1 if word(38)? < word(37)? => word(43),
            // types, etypes, rodata, gofunc.
            0xffff_fff1 => word(40),
            _ => None,
        }
    }

    fn relocations(&self) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        let table = self.header.sections(LittleEndian, self.data);
        for section in table.unwrap_or_default().iter() {
            let Ok(Some((relas, _))) = section.rela(LittleEndian, self.data) else {
                continue;
            };
            for rela in relas {
                if rela.r_type(LittleEndian, false) == R_X86_64_RELATIVE {
                    let place = rela.r_offset(LittleEndian);
                    found.push((place, rela.r_addend(LittleEndian) as u64));
                }
            }
        }
        found.sort_unstable();
        found
    }
}
