//! Where functions begin, by the symbols of a file.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;

use object::elf::{
    FileHeader32, FileHeader64, PF_X, PT_LOAD, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STB_LOCAL,
    STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{FileKind, LittleEndian, ReadCache};

/// What may be a function.
#[derive(Debug)]
pub(super) struct Symbol {
    /// Offset in the names.
    name: u32,
    pub range: Range<u64>,
    /// A function that only its own file's code calls.
    local: bool,
}

/// The functions of a file.
#[derive(Debug, Default)]
pub(super) struct Functions {
    pub whole: Vec<Range<u64>>,
    /// Parts that are elsewhere, and where the functions begin that may be theirs.
    pub parts: Vec<(Range<u64>, u64)>,
}

impl Functions {
    /// Takes the symbols of a table that are of code.
    pub(super) fn add<'a>(
        &mut self,
        symbols: impl Iterator<Item = &'a Symbol> + Clone,
        names: &[u8],
    ) {
        let name = |symbol: &Symbol| {
            let name = names.get(symbol.name as usize..)?;
            name.split(|&byte| byte == 0).next()
        };
        let mut parts: HashMap<&[u8], Vec<Range<u64>>> = HashMap::new();
        for symbol in symbols.clone() {
            match symbol.local.then(|| whole(name(symbol)?)).flatten() {
                Some(whole) => parts.entry(whole).or_default().push(symbol.range.clone()),
                None => self.whole.push(symbol.range.clone()),
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

/// The symbol tables of a file, and the names they refer to.
pub(super) fn tables(file: &File) -> Vec<(Vec<Symbol>, Vec<u8>)> {
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
