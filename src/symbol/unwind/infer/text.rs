//! The code of a file, and where its functions begin.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, FlowControl};
use object::elf::{
    FileHeader64, PF_X, PT_LOAD, SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE,
};
use object::read::elf::{FileHeader, ProgramHeader, Sym};
use object::{LittleEndian, ReadCache, ReadRef};

use crate::symbol::go::PclnTab;

use super::super::cfi::{Cfa, Rules};
use super::super::files::patiently;
use super::flow::Calls;
use super::{Inferred, Instructions, from_start, signal, to_return};

const PAGE: u64 = 16 << 10;
/// Pages kept; then all are forgotten.
const MOST_PAGES: usize = 64;
/// No instruction is longer.
const LONGEST: usize = 15;
/// Nor any call.
const LONGEST_CALL: u64 = 8;
/// What gcc calls a part of a function that it puts elsewhere.
const ELSEWHERE: &[u8] = b".cold";

/// Code, by the file's own addresses.
#[derive(Debug)]
pub(in super::super) struct Text {
    file: Source,
    /// Code in the file, and its address.
    segments: Vec<(Range<u64>, u64)>,
    /// Functions, by address.
    functions: Vec<Range<u64>>,
    /// Parts of functions that are elsewhere, and where those begin.
    parts: Vec<(Range<u64>, u64)>,
    pages: HashMap<u64, Option<Vec<u8>>>,
    known: HashMap<(u64, u64), Option<Inferred>>,
}

#[derive(Debug)]
enum Source {
    File(Arc<File>),
    Bytes(Vec<u8>),
}

impl Text {
    /// The code of a file, of which Go's table may tell more.
    pub(in super::super) fn of_file(file: File) -> Option<Text> {
        let file = Arc::new(file);
        let mut text = Text::read(&ReadCache::new(&*file))?;
        text.file = Source::File(file);
        Some(text)
    }

    fn read<'d, R: ReadRef<'d>>(data: R) -> Option<Text> {
        let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let mut segments = Vec::new();
        for program in header.program_headers(endian, data).ok()? {
            let (start, size) = program.file_range(endian);
            if program.p_type(endian) == PT_LOAD && program.p_flags(endian).contains(PF_X) {
                segments.push((start..start.checked_add(size)?, program.p_vaddr(endian)));
            }
        }
        let mut text = Text {
            file: Source::Bytes(Vec::new()),
            segments,
            functions: Vec::new(),
            parts: Vec::new(),
            pages: HashMap::new(),
            known: HashMap::new(),
        };
        let sections = header.sections(endian, data).unwrap_or_default();
        let mut parts = Vec::new();
        let mut named = HashMap::new();
        for kind in [SHT_SYMTAB, SHT_DYNSYM] {
            let Ok(symbols) = sections.symbols(endian, data, kind) else {
                continue;
            };
            for symbol in symbols.iter() {
                let (start, kind) = (symbol.st_value(endian), symbol.st_type());
                if symbol.is_undefined(endian)
                    || !matches!(kind, STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE)
                    || text.offset(start).is_none()
                {
                    continue;
                }
                let range = start..start.saturating_add(symbol.st_size(endian));
                let name = symbol.name(endian, symbols.strings()).unwrap_or_default();
                let whole = name.windows(ELSEWHERE.len()).position(|it| it == ELSEWHERE);
                match whole {
                    Some(end) => parts.push((range, name[..end].to_vec())),
                    None => {
                        named.entry(name.to_vec()).or_insert(start);
                        text.functions.push(range);
                    }
                }
            }
        }
        text.parts = parts
            .into_iter()
            .filter_map(|(range, name)| Some((range, *named.get(&name)?)))
            .collect();
        text.order();
        Some(text)
    }

    /// Takes the functions of Go's table, if the file names none itself.
    pub(in super::super) fn add_go(&mut self, table: PclnTab<'_>) {
        if self.functions.is_empty() {
            let functions = table.functions();
            self.functions = functions.map(|it| it.entry()..it.end()).collect();
            self.order();
        }
    }

    /// By address, each to its end or, where nothing tells that, to the next.
    fn order(&mut self) {
        self.functions.sort_unstable_by_key(|it| (it.start, it.end));
        self.functions.dedup_by(|next, last| {
            let same = next.start == last.start;
            if same {
                last.end = next.end;
            }
            same
        });
        let mut next = u64::MAX;
        for function in self.functions.iter_mut().rev() {
            if function.is_empty() {
                function.end = next;
            }
            next = function.start;
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
        let start = self.start(address);
        let rules = start
            .and_then(|start| from_start(self, start, address))
            .or_else(|| to_return(self, next, Calls::End));
        if let Some(rules) = rules {
            return Some(Inferred::Rules(rules));
        }
        let rules = to_return(self, next, Calls::Return)?;
        Some(match start {
            Some(_) => Inferred::Rules(rules),
            None => Inferred::IfCalled(rules),
        })
    }

    /// Whether a function that begins at `start` has these rules at an address.
    pub(in super::super) fn confirms(&mut self, start: u64, address: u64, rules: &Rules) -> bool {
        from_start(self, start, address).is_some_and(|found| found.cfa == rules.cfa)
    }

    /// What the call before a return address calls; `Some(None)` if only the processor knows. `None`
    /// if there is no call.
    pub(in super::super) fn called(&mut self, return_address: u64) -> Option<Option<u64>> {
        (2..=LONGEST_CALL).find_map(|length| {
            let start = return_address.checked_sub(length)?;
            let bytes = self.fetch(start)?;
            let mut decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
            let instruction = decoder.decode();
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

    /// Where the function begins that an address is in.
    fn start(&self, address: u64) -> Option<u64> {
        if let Some((_, start)) = self.parts.iter().find(|(it, _)| it.contains(&address)) {
            return Some(*start);
        }
        let behind = self.functions.partition_point(|it| it.start <= address);
        let function = self.functions[..behind].last()?;
        function.contains(&address).then_some(function.start)
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

impl Instructions for Text {
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
        let found = self.functions.binary_search_by_key(&address, |it| it.start);
        found.is_ok()
    }

    fn knows_starts(&self) -> bool {
        !self.functions.is_empty()
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
    let mut text = Text {
        file: Source::Bytes(code.to_vec()),
        segments: vec![(0..code.len() as u64, start)],
        functions: Vec::new(),
        parts: Vec::new(),
        pages: HashMap::new(),
        known: HashMap::new(),
    };
    if is_function {
        text.functions.push(start..end);
    }
    match text.inferred(address, next)? {
        Inferred::Rules(Rules {
            cfa: Cfa::Register(number, offset),
            return_address: Some(_),
            ..
        }) => Some((number, offset.checked_sub(8)?)),
        _ => None,
    }
}
