//! Where functions begin, by the symbols of a file.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::elf::{
    FileHeader32, FileHeader64, PF_X, PT_LOAD, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STB_LOCAL,
    STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE,
};
use object::pod::{bytes_of_slice_mut, slice_from_all_bytes};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{FileKind, LittleEndian, ReadCache};

/// A longer name is none.
const LONGEST_NAME: usize = 1024;
/// What is read of names at once, and how much of it is kept.
const BLOCK: u64 = 64 << 10;
const MOST_BLOCKS: usize = 256;
/// So many symbols are read at once, as words of eight bytes: fewer than what a processor keeps near.
const SYMBOL_WORDS: usize = 8 << 10;

/// What may be a function.
#[derive(Debug)]
struct Symbol {
    range: Range<u64>,
    /// Its name, if it is certainly a function.
    name: Option<Name>,
    /// Only its own file's code knows it.
    local: bool,
}

/// The functions of a part of a file: large ones have hundreds of thousands.
#[derive(Debug, Default)]
pub(super) struct Functions {
    pub whole: Vec<Range<u64>>,
    /// Parts of functions that are elsewhere, and the names of those.
    pub parts: Vec<(Range<u64>, Vec<u8>)>,
}

impl Functions {
    /// Those that begin in `window`.
    pub(super) fn of(file: &File, window: &Range<u64>) -> Functions {
        let mut found = Functions::default();
        let mut names = Names::new(file);
        for symbol in symbols(file, |start| window.contains(&start)) {
            let name = symbol.name.filter(|_| symbol.local);
            let name = name.and_then(|name| names.at(name));
            match name.as_deref().and_then(whole) {
                Some(whole) => found.parts.push((symbol.range, whole.to_vec())),
                None => found.whole.push(symbol.range),
            }
        }
        found
    }

    /// Where functions of that name begin: several files may have one.
    pub(super) fn named(file: &File, name: &[u8]) -> Vec<u64> {
        let functions = symbols(file, |_| true).into_iter();
        let mut names = Names::new(file);
        let is_it = |function: &Symbol| {
            let found = function.name.and_then(|at| names.at(at));
            found.is_some_and(|found| found == name)
        };
        functions.filter(is_it).map(|it| it.range.start).collect()
    }
}

/// Where a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    /// Offset and size in the file of the table that holds it.
    table: (u64, u64),
    /// Offset in the table.
    at: u64,
}

/// Names of symbols, read as they are asked for: a file may have many megabytes of them.
struct Names<'a> {
    file: &'a File,
    /// By number, what was read of the file.
    blocks: HashMap<u64, Vec<u8>>,
}

impl Names<'_> {
    fn new(file: &File) -> Names<'_> {
        Names {
            file,
            blocks: HashMap::new(),
        }
    }

    fn at(&mut self, Name { table, at }: Name) -> Option<Vec<u8>> {
        let (offset, size) = table;
        let mut next = offset.checked_add(at)?;
        let end = offset.checked_add(size)?;
        let mut name = Vec::new();
        while next < end && name.len() < LONGEST_NAME {
            let block = self.block(next / BLOCK)?;
            let rest = block.get((next % BLOCK) as usize..)?;
            let rest = &rest[..rest.len().min((end - next) as usize)];
            if let Some(length) = rest.iter().position(|&byte| byte == 0) {
                name.extend_from_slice(&rest[..length]);
                return Some(name);
            }
            if rest.is_empty() {
                return None;
            }
            name.extend_from_slice(rest);
            next += rest.len() as u64;
        }
        None
    }

    fn block(&mut self, number: u64) -> Option<&[u8]> {
        if MOST_BLOCKS <= self.blocks.len() && !self.blocks.contains_key(&number) {
            self.blocks.clear();
        }
        let start = number.checked_mul(BLOCK)?;
        let block = self.blocks.entry(number).or_insert_with(|| {
            let mut bytes = vec![0; BLOCK as usize];
            let count = self.file.read_at(&mut bytes, start).unwrap_or(0);
            bytes.truncate(count);
            bytes
        });
        Some(block)
    }
}

/// The code of a file and its address.
pub(super) fn segments<Header: FileHeader<Endian = LittleEndian>>(
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

/// The symbols of code that begin where it is wanted.
fn symbols(file: &File, wanted: impl Fn(u64) -> bool) -> Vec<Symbol> {
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache) {
        Ok(FileKind::Elf64) => symbols_in::<FileHeader64<LittleEndian>>(file, &cache, wanted),
        Ok(FileKind::Elf32) => symbols_in::<FileHeader32<LittleEndian>>(file, &cache, wanted),
        _ => Vec::new(),
    }
}

fn symbols_in<Header: FileHeader<Endian = LittleEndian>>(
    file: &File,
    data: &ReadCache<&File>,
    wanted: impl Fn(u64) -> bool,
) -> Vec<Symbol> {
    let endian = LittleEndian;
    let sections = Header::parse(data).and_then(|header| header.sections(endian, data));
    let Ok(sections) = sections else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for table in sections.iter() {
        if !matches!(table.sh_type(endian), SHT_SYMTAB | SHT_DYNSYM) {
            continue;
        }
        let names = sections.section(table.link(endian));
        let names = names.ok().and_then(|names| names.file_range(endian));
        let (mut start, size) = table.file_range(endian).unwrap_or_default();
        let end = start.saturating_add(size);
        // All of a table would be a megabyte or ten, of which little is wanted.
        let mut words = [0u64; SYMBOL_WORDS];
        let whole = size_of_val(&words) / size_of::<Header::Sym>() * size_of::<Header::Sym>();
        while start < end {
            let bytes = &mut bytes_of_slice_mut(&mut words)[..whole];
            let wanted_now = bytes.len().min((end - start) as usize);
            if file.read_exact_at(&mut bytes[..wanted_now], start).is_err() {
                break;
            }
            start += wanted_now as u64;
            let symbols = slice_from_all_bytes::<Header::Sym>(&bytes[..wanted_now]);
            found.extend(
                symbols
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|symbol| function_of::<Header>(symbol, names, &wanted)),
            );
        }
    }
    found
}

/// What may be a function, if it begins where it is wanted.
fn function_of<Header: FileHeader<Endian = LittleEndian>>(
    symbol: &Header::Sym,
    names: Option<(u64, u64)>,
    wanted: impl Fn(u64) -> bool,
) -> Option<Symbol> {
    let endian = LittleEndian;
    let start: u64 = symbol.st_value(endian).into();
    let kind = symbol.st_type();
    let code = matches!(kind, STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE);
    if !code || symbol.st_shndx(endian) == SHN_UNDEF || !wanted(start) {
        return None;
    }
    let size: u64 = symbol.st_size(endian).into();
    let at = symbol.st_name(endian).into();
    let name = names.map(|table| Name { table, at });
    Some(Symbol {
        range: start..start.saturating_add(size),
        name: name.filter(|_| kind == STT_FUNC),
        local: symbol.st_bind() == STB_LOCAL,
    })
}

/// By address, each to its end or, where nothing tells that, to the next.
pub(super) fn ordered(mut functions: Vec<Range<u64>>) -> Vec<Range<u64>> {
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
