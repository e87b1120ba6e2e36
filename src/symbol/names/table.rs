//! A sorted table of symbols, from one or more files that are linked to the same addresses.
//!
//! Names stay in their files until they are asked for: a browser has millions, a stack a dozen.

use object::elf::{STB_LOCAL, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, Sym32, Sym64, SymbolSection};
use object::pod::{Pod, slice_from_bytes};
use object::read::elf::Sym;
use object::{Endianness, elf};

use super::elf::{Data, Elf, TableKind};

/// Most symbols of functions that are kept of one module: 32 bytes each.
const MOST_SYMBOLS: usize = 4 << 20;
/// Most symbols that are looked at for them: most of a table may be about data.
const MOST_READ: u64 = 32 << 20;
/// Longest name that is read.
const MOST_NAME: usize = 16 << 10;
/// So many symbols before an address are looked at for one that reaches it: more than any linker
/// nests, and little enough for a table that was made to be slow.
const MOST_STEPS: usize = 4096;
/// So many symbols at one address compete for its name. Folded functions share theirs.
const MOST_ALIASES: usize = 256;
/// Symbols are read in pieces of so many.
const PIECE: u64 = 32 << 10;

/// A symbol of code.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u64,
    /// The first address behind it; of one without a size the end of its section.
    end: u64,
    /// Furthest end of this and all entries before it that have a size.
    reach: u64,
    name: u32,
    file: u8,
    sized: bool,
    /// Higher is better: functions before labels, what others can link to before what is local.
    rank: u8,
}

/// Where names are.
#[derive(Debug)]
struct Strings {
    data: Data,
    offset: u64,
    size: u64,
}

/// Symbols by address.
#[derive(Debug, Default)]
pub(super) struct SymbolTable {
    entries: Vec<Entry>,
    strings: Vec<Strings>,
    /// How many symbols were looked at.
    read: u64,
    /// Symbols were left out: what follows one is not known.
    cut: bool,
}

/// The symbol that an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub name: String,
    pub start: u64,
}

impl SymbolTable {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the tables of a file. [`SymbolTable::sort`] must follow.
    pub fn add(&mut self, elf: &Elf, kind: TableKind) {
        for section in &elf.sections {
            if section.table != Some(kind) || section.absent || section.compressed {
                continue;
            }
            let Some(strings) = elf.sections.get(section.link).filter(|it| !it.absent) else {
                continue;
            };
            let Ok(file) = u8::try_from(self.strings.len()) else {
                return;
            };
            self.strings.push(Strings {
                data: elf.data.clone(),
                offset: strings.offset,
                size: strings.size,
            });
            match elf.is_64 {
                true => self.read::<Sym64<Endianness>>(elf, section.offset, section.size, file),
                false => self.read::<Sym32<Endianness>>(elf, section.offset, section.size, file),
            }
        }
    }

    fn read<S: Sym<Endian = Endianness> + Pod>(
        &mut self,
        elf: &Elf,
        mut offset: u64,
        size: u64,
        file: u8,
    ) {
        let each = size_of::<S>() as u64;
        let endian = match elf.big_endian {
            true => Endianness::Big,
            false => Endianness::Little,
        };
        let mut left = size / each;
        while 0 < left {
            let count = left.min(PIECE);
            let Some(bytes) = elf.data.bytes(offset, count * each, u64::MAX) else {
                self.cut = true;
                return;
            };
            let Ok((symbols, _)) = slice_from_bytes::<S>(&bytes, count as usize) else {
                return;
            };
            for symbol in symbols {
                self.entries.extend(entry(symbol, endian, elf, file));
            }
            self.read += count;
            if MOST_SYMBOLS < self.entries.len() || MOST_READ < self.read {
                self.cut = true;
                return;
            }
            left -= count;
            offset += count * each;
        }
    }

    /// Makes it ready for [`SymbolTable::find`].
    pub fn sort(&mut self) {
        self.entries.sort_by_key(|entry| (entry.start, entry.end));
        self.entries.shrink_to_fit();
        let mut reach = 0;
        for entry in &mut self.entries {
            if entry.sized {
                reach = reach.max(entry.end);
            }
            entry.reach = reach;
        }
    }

    /// The symbol whose bytes hold `address`: of several that do, the one that begins last, of
    /// several that begin there, the one with the best name.
    pub fn find(&self, address: u64) -> Option<Found> {
        let after = self.entries.partition_point(|entry| entry.start <= address);
        let before = &self.entries[..after];
        let holds = |entry: &Entry| entry.sized && address < entry.end;
        let innermost = before
            .iter()
            .rev()
            .take(MOST_STEPS)
            .take_while(|entry| address < entry.reach)
            .find(|entry| holds(entry));
        if let Some(innermost) = innermost {
            let first = before.partition_point(|entry| entry.start < innermost.start);
            let same = before[first..]
                .iter()
                .take(MOST_ALIASES)
                .take_while(|entry| entry.start == innermost.start);
            return self.best(same.filter(|entry| holds(entry)));
        }
        // A symbol without a size goes on to the next one, in its section; a label inside of a
        // function ends with that.
        let last = before.last().filter(|_| !self.cut)?;
        if last.start < last.reach {
            return None;
        }
        let first = before.partition_point(|entry| entry.start < last.start);
        let same = &before[first..];
        if same.iter().take(MOST_STEPS).any(|entry| entry.sized) {
            return None;
        }
        let reach = same.iter().filter(|entry| address < entry.end);
        self.best(reach.take(MOST_ALIASES))
    }

    fn best<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Option<Found> {
        let named = entries.filter_map(|entry| Some((entry, self.name(entry)?)));
        let (entry, name) = named.min_by_key(|(entry, name)| {
            let underscores = name.len() - name.trim_start_matches('_').len();
            (
                std::cmp::Reverse(entry.rank),
                // Mangled names begin with one.
                underscores.max(1),
                name.len(),
                name.clone(),
            )
        })?;
        Some(Found {
            name,
            start: entry.start,
        })
    }

    /// The name of an entry; `None` for what marks code without naming it.
    fn name(&self, entry: &Entry) -> Option<String> {
        let strings = self.strings.get(usize::from(entry.file))?;
        let into = u64::from(entry.name);
        let room = strings.size.checked_sub(into)?.min(MOST_NAME as u64);
        let mut name = Vec::new();
        while (name.len() as u64) < room {
            let mut piece = [0; 256];
            let at = strings.offset.checked_add(into)? + name.len() as u64;
            let count = strings.data.read_at(&mut piece, at).ok()?;
            let piece = &piece[..count];
            if let Some(end) = piece.iter().position(|&byte| byte == 0) {
                name.extend_from_slice(&piece[..end]);
                let name = String::from_utf8(name).ok()?;
                // Mapping symbols and assembler labels: ELF for the Arm 64-bit Architecture, 5.5.
                let marks = name.is_empty() || name.starts_with('$') || name.starts_with(".L");
                return (!marks).then_some(name);
            }
            if piece.is_empty() {
                return None;
            }
            name.extend_from_slice(piece);
        }
        None
    }
}

/// What a symbol says, if it is defined and about code.
fn entry<S: Sym<Endian = Endianness>>(
    symbol: &S,
    endian: Endianness,
    elf: &Elf,
    file: u8,
) -> Option<Entry> {
    let kind = symbol.st_type();
    let function = kind == STT_FUNC || kind == STT_GNU_IFUNC;
    if !function && kind != STT_NOTYPE {
        return None;
    }
    let SymbolSection(index) = symbol.st_shndx(endian);
    let reserved = index == elf::SHN_UNDEF.0 || elf::SHN_LORESERVE <= index;
    let section = elf.sections.get(usize::from(index)).filter(|_| !reserved);
    let code = section.filter(|section| section.code);
    if code.is_none() && !(function && index == elf::SHN_XINDEX.0) {
        return None;
    }
    let start: u64 = symbol.st_value(endian).into();
    let size: u64 = symbol.st_size(endian).into();
    let end = match size {
        0 => {
            let section = code?;
            let end = section.address.checked_add(section.size)?;
            (section.address <= start && start < end).then_some(end)?
        }
        size => start.checked_add(size)?,
    };
    Some(Entry {
        start,
        end,
        reach: 0,
        name: symbol.st_name(endian),
        file,
        sized: size != 0,
        rank: u8::from(function) << 1 | u8::from(symbol.st_bind() != STB_LOCAL),
    })
}
