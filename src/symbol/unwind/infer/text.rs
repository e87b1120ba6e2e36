//! The code of a file, and where its functions begin.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use iced_x86::FlowControl;
use object::elf::{
    FileHeader32, FileHeader64, PF_X, PT_LOAD, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STB_LOCAL,
    STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{FileKind, LittleEndian, ReadCache};

use crate::symbol::go::PclnTab;

use super::super::cfi::{Cfa, Rules};
use super::super::files::patiently;
use super::flow::{Calls, Flow};
use super::{Inferred, Instructions, Word, from_start, function, signal, to_return};

const PAGE: u64 = 16 << 10;
/// Pages kept; then all are forgotten.
const MOST_PAGES: usize = 64;
/// No instruction is longer.
const LONGEST: usize = 15;
/// Nor any call.
const LONGEST_CALL: u64 = 8;

/// Code, by the file's own addresses.
#[derive(Debug)]
pub(in super::super) struct Text {
    file: Source,
    word: Word,
    /// Code in the file, and its address.
    segments: Vec<(Range<u64>, u64)>,
    /// Functions, by address, once they were learned.
    functions: Option<Vec<Range<u64>>>,
    /// Parts of functions that are elsewhere, and where those begin.
    parts: Vec<(Range<u64>, u64)>,
    pages: HashMap<u64, Option<Vec<u8>>>,
    known: HashMap<(u64, u64), Option<Inferred>>,
    /// The function that was followed last.
    last: Option<(u64, Option<Flow>)>,
}

#[derive(Debug)]
enum Source {
    File(Arc<File>),
    Bytes(Vec<u8>),
}

impl Text {
    /// The code of a file.
    pub(in super::super) fn of_file(file: File) -> Option<Text> {
        let cache = ReadCache::new(&file);
        let (word, segments) = match FileKind::parse(&cache).ok()? {
            FileKind::Elf64 => (Word::Eight, segments::<FileHeader64<LittleEndian>>(&cache)?),
            FileKind::Elf32 => (Word::Four, segments::<FileHeader32<LittleEndian>>(&cache)?),
            _ => return None,
        };
        drop(cache);
        Some(Text::new(Source::File(Arc::new(file)), word, segments))
    }

    /// A piece of code, such as what the kernel maps.
    pub(in super::super) fn of_bytes32(bytes: Vec<u8>) -> Text {
        let segments = vec![(0..bytes.len() as u64, 0)];
        Text::new(Source::Bytes(bytes), Word::Four, segments)
    }

    /// The file's own address of what is at an offset in it.
    pub(in super::super) fn address(&self, offset: u64) -> Option<u64> {
        let mut segments = self.segments.iter();
        let (range, address) = segments.find(|(range, _)| range.contains(&offset))?;
        Some(address.wrapping_add(offset - range.start))
    }

    fn new(file: Source, word: Word, segments: Vec<(Range<u64>, u64)>) -> Text {
        Text {
            file,
            word,
            segments,
            functions: None,
            parts: Vec::new(),
            pages: HashMap::new(),
            known: HashMap::new(),
            last: None,
        }
    }

    /// Learns where functions begin, once, from the file and from Go's table of it.
    pub(in super::super) fn learn(&mut self, go: Option<PclnTab<'_>>) {
        if self.functions.is_some() {
            return;
        }
        let mut functions = Vec::new();
        if let Source::File(file) = &self.file {
            let file = Arc::clone(file);
            for (symbols, names) in patiently(move || tables(&file)).unwrap_or_default() {
                self.add_symbols(&symbols, &names, &mut functions);
            }
        }
        // Stripped files name none else.
        let go = go.iter().flat_map(PclnTab::functions);
        functions.extend(go.map(|it| it.entry()..it.end()));
        self.functions = Some(ordered(functions));
    }

    fn add_symbols(&mut self, symbols: &[Symbol], names: &[u8], found: &mut Vec<Range<u64>>) {
        let name = |symbol: &Symbol| {
            let name = names.get(symbol.name as usize..)?;
            name.split(|&byte| byte == 0).next()
        };
        let mut parts: HashMap<&[u8], Vec<Range<u64>>> = HashMap::new();
        for symbol in symbols {
            if self.offset(symbol.range.start).is_none() {
                continue;
            }
            match symbol.local.then(|| whole(name(symbol)?)).flatten() {
                Some(whole) => parts.entry(whole).or_default().push(symbol.range.clone()),
                None => found.push(symbol.range.clone()),
            }
        }
        if parts.is_empty() {
            return;
        }
        for function in symbols {
            if let Some(parts) = name(function).and_then(|name| parts.get(name)) {
                let start = function.range.start;
                let parts = parts.iter().map(|part| (part.clone(), start));
                self.parts.extend(parts);
            }
        }
    }

    /// How to unwind from an address by instructions: `address` is in the one that was last executed,
    /// or would have been next, and `next` is where it goes on.
    pub(in super::super) fn inferred(&mut self, address: u64, next: u64) -> Option<Inferred> {
        if let Some(known) = self.known.get(&(address, next)) {
            return known.clone();
        }
        let inferred = self.infer(address, next);
        self.known.insert((address, next), inferred.clone());
        inferred
    }

    fn infer(&mut self, address: u64, next: u64) -> Option<Inferred> {
        if let Some(rules) = signal::interrupted(self, next) {
            return Some(Inferred::Rules(rules));
        }
        // What is behind a call that never returns may be another function.
        let behind_call = self.called(next).is_some();
        let starts = self.starts(address);
        for start in &starts {
            if let Some(rules) = self.in_function(*start, address) {
                return Some(Inferred::Rules(rules));
            }
        }
        let (rules, word) = (self.to_return(next)?, self.word);
        match starts[..] {
            _ if !behind_call => Some(Inferred::Rules(rules)),
            [] => Some(Inferred::IfCalled(rules)),
            // Only a table of jumps leads there: the stack is as deep as where it was used.
            [start, ..] => {
                let flow = self.function(start)?;
                let depths = flow.open().filter_map(|state| from_start(state, word));
                let agrees = depths.map(|it| it.cfa).any(|cfa| cfa == rules.cfa);
                agrees.then_some(Inferred::Rules(rules))
            }
        }
    }

    fn function(&mut self, start: u64) -> Option<&Flow> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != start) {
            self.last = Some((start, function(self, start)));
        }
        let (_, flow) = self.last.as_ref()?;
        flow.as_ref()
    }

    fn in_function(&mut self, start: u64, address: u64) -> Option<Rules> {
        let word = self.word;
        from_start(self.function(start)?.at(address)?, word)
    }

    fn to_return(&mut self, next: u64) -> Option<Rules> {
        to_return(self, next, Calls::End).or_else(|| to_return(self, next, Calls::Return))
    }

    /// Whether a function that begins at `start` has these rules at an address.
    pub(in super::super) fn confirms(&mut self, start: u64, address: u64, rules: &Rules) -> bool {
        let found = self.in_function(start, address);
        found.is_some_and(|found| found.cfa == rules.cfa)
    }

    /// What the call before a return address calls; `Some(None)` if only the processor knows. `None`
    /// if there is no call.
    pub(in super::super) fn called(&mut self, return_address: u64) -> Option<Option<u64>> {
        (2..=LONGEST_CALL).find_map(|length| {
            let start = return_address.checked_sub(length)?;
            let bytes = self.fetch(start)?;
            let instruction = self.word.decode(&bytes, start);
            if instruction.is_invalid() || instruction.len() as u64 != length {
                return None;
            }
            match instruction.flow_control() {
                FlowControl::Call => Some(Some(instruction.near_branch_target())),
                FlowControl::IndirectCall => Some(None),
                _ => None,
            }
        })
    }

    /// Whether what is there ends the handling of a signal: nothing called it.
    pub(in super::super) fn ends_signal(&mut self, address: u64) -> bool {
        signal::interrupted(self, address).is_some()
    }

    /// Where the function begins that an address is in; names of parts may stand for several.
    fn starts(&self, address: u64) -> Vec<u64> {
        let parts = self.parts.iter().filter(|(it, _)| it.contains(&address));
        let starts: Vec<u64> = parts.map(|(_, start)| *start).collect();
        if !starts.is_empty() {
            return starts;
        }
        let functions = self.functions.as_deref().unwrap_or_default();
        let behind = functions.partition_point(|it| it.start <= address);
        let function = functions[..behind].last();
        let function = function.filter(|it| it.contains(&address));
        function.map(|it| it.start).into_iter().collect()
    }

    /// Where code is in the file, and how much follows it there.
    fn offset(&self, address: u64) -> Option<(u64, u64)> {
        self.segments.iter().find_map(|(range, start)| {
            let from = address.checked_sub(*start)?;
            let offset = range.start.checked_add(from)?;
            range
                .contains(&offset)
                .then(|| (offset, range.end - offset))
        })
    }

    fn page(&mut self, number: u64) -> Option<&[u8]> {
        if MOST_PAGES <= self.pages.len() && !self.pages.contains_key(&number) {
            self.pages.clear();
        }
        let page = self.pages.entry(number).or_insert_with(|| {
            let start = number.checked_mul(PAGE)?;
            match &self.file {
                Source::Bytes(bytes) => {
                    let rest = bytes.get(usize::try_from(start).ok()?..)?;
                    Some(rest[..rest.len().min(PAGE as usize)].to_vec())
                }
                Source::File(file) => {
                    let file = Arc::clone(file);
                    patiently(move || {
                        let mut bytes = vec![0; PAGE as usize];
                        let count = file.read_at(&mut bytes, start).ok()?;
                        bytes.truncate(count);
                        Some(bytes)
                    })?
                }
            }
        });
        page.as_deref()
    }
}

/// What may be a function.
#[derive(Debug)]
struct Symbol {
    /// Offset in the names.
    name: u32,
    range: Range<u64>,
    /// A function that only its own file's code calls.
    local: bool,
}

/// The code of a file and its address.
fn segments<Header: FileHeader<Endian = LittleEndian>>(
    data: &ReadCache<&File>,
) -> Option<Vec<(Range<u64>, u64)>> {
    let header = Header::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let mut segments = Vec::new();
    for program in header.program_headers(endian, data).ok()? {
        let (start, size) = program.file_range(endian);
        if program.p_type(endian) == PT_LOAD && program.p_flags(endian).contains(PF_X) {
            let range = start..start.checked_add(size)?;
            segments.push((range, program.p_vaddr(endian).into()));
        }
    }
    Some(segments)
}

/// The symbol tables of a file, and the names they refer to.
fn tables(file: &File) -> Vec<(Vec<Symbol>, Vec<u8>)> {
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache) {
        Ok(FileKind::Elf64) => tables_in::<FileHeader64<LittleEndian>>(&cache),
        Ok(FileKind::Elf32) => tables_in::<FileHeader32<LittleEndian>>(&cache),
        _ => Vec::new(),
    }
}

fn tables_in<Header: FileHeader<Endian = LittleEndian>>(
    data: &ReadCache<&File>,
) -> Vec<(Vec<Symbol>, Vec<u8>)> {
    let endian = LittleEndian;
    let sections = Header::parse(data).and_then(|header| header.sections(endian, data));
    let Ok(sections) = sections else {
        return Vec::new();
    };
    let tables = sections
        .iter()
        .filter(|it| matches!(it.sh_type(endian), SHT_SYMTAB | SHT_DYNSYM));
    let read = |table: &Header::SectionHeader| {
        let symbols: &[Header::Sym] = table.data_as_array(endian, data).ok()?;
        let names = sections.section(table.link(endian)).ok()?;
        let names = names.data(endian, data).ok()?;
        let symbols = symbols.iter().filter_map(|symbol| {
            let kind = symbol.st_type();
            let code = matches!(kind, STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE);
            if !code || symbol.st_shndx(endian) == SHN_UNDEF {
                return None;
            }
            let start: u64 = symbol.st_value(endian).into();
            let size: u64 = symbol.st_size(endian).into();
            Some(Symbol {
                name: symbol.st_name(endian),
                range: start..start.saturating_add(size),
                local: kind == STT_FUNC && symbol.st_bind() == STB_LOCAL,
            })
        });
        Some((symbols.collect(), names.to_vec()))
    };
    tables.filter_map(read).collect()
}

/// By address, each to its end or, where nothing tells that, to the next.
fn ordered(mut functions: Vec<Range<u64>>) -> Vec<Range<u64>> {
    functions.sort_unstable_by_key(|it| (it.start, it.end));
    functions.dedup_by(|next, last| {
        let same = next.start == last.start;
        if same {
            last.end = next.end;
        }
        same
    });
    let mut next = u64::MAX;
    for function in functions.iter_mut().rev() {
        if function.is_empty() {
            function.end = next;
        }
        next = function.start;
    }
    functions
}

/// The name of the function that a part is of, which gcc put elsewhere: `name.cold`, `name.cold.7`.
fn whole(name: &[u8]) -> Option<&[u8]> {
    let digits = |byte: &u8| byte.is_ascii_digit();
    let end = name.iter().rposition(|byte| !digits(byte))? + 1;
    let unnumbered = match end < name.len() {
        true => name[..end].strip_suffix(b".")?,
        false => name,
    };
    unnumbered.strip_suffix(b".cold")
}

#[cfg(test)]
impl Text {
    pub(super) fn functions(&self) -> Vec<Range<u64>> {
        self.functions.clone().unwrap_or_default()
    }

    /// Forgets the names of its functions.
    pub(super) fn strip(&mut self) {
        self.functions = Some(Vec::new());
        self.parts.clear();
    }
}

impl Instructions for Text {
    fn word(&self) -> Word {
        self.word
    }

    fn fetch(&mut self, address: u64) -> Option<Vec<u8>> {
        let (mut offset, rest) = self.offset(address)?;
        let wanted = rest.min(LONGEST as u64) as usize;
        let mut bytes = Vec::with_capacity(LONGEST);
        while bytes.len() < wanted {
            let page = self.page(offset / PAGE)?;
            let from = page.get((offset % PAGE) as usize..).unwrap_or_default();
            if from.is_empty() {
                break;
            }
            let size = from.len().min(wanted - bytes.len());
            bytes.extend_from_slice(&from[..size]);
            offset += size as u64;
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    fn is_start(&self, address: u64) -> bool {
        let functions = self.functions.as_deref().unwrap_or_default();
        let found = functions.binary_search_by_key(&address, |it| it.start);
        found.is_ok()
    }

    fn is_end(&self, address: u64) -> bool {
        let functions = self.functions.as_deref().unwrap_or_default();
        let behind = functions.partition_point(|it| it.start < address);
        let last = functions[..behind].last();
        last.is_some_and(|function| function.end == address)
    }

    fn knows_starts(&self) -> bool {
        self.functions.as_ref().is_some_and(|it| !it.is_empty())
    }
}

/// Where the return address of a frame is, by the instructions of `code`, which is at `start` and, if
/// `is_function`, begins a function: the number of a register in DWARF, and so much more. `address` is
/// in the last instruction, `next` is where the frame goes on.
pub fn inferred_frame(
    code: &[u8],
    start: u64,
    is_function: bool,
    (address, next): (u64, u64),
) -> Option<(usize, i64)> {
    let end = start.checked_add(code.len() as u64)?;
    let segments = vec![(0..code.len() as u64, start)];
    let mut text = Text::new(Source::Bytes(code.to_vec()), Word::Eight, segments);
    text.functions = is_function.then(|| [start..end].into());
    match text.inferred(address, next)? {
        Inferred::Rules(Rules {
            cfa: Cfa::Register(number, offset),
            return_address: Some(_),
            ..
        }) => Some((number, offset.checked_sub(8)?)),
        _ => None,
    }
}
