//! The code of a file, and where its functions begin.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use iced_x86::FlowControl;
use object::elf::{FileHeader32, FileHeader64};
use object::{FileKind, LittleEndian, ReadCache};

use crate::symbol::go::PclnTab;

use super::super::cfi::{Cfa, Rules};
use super::super::files::patiently;
use super::flow::{Calls, Flow};
use super::symbols::{Functions, ordered, segments};
use super::{
    Inferred, Instructions, Word, from_start, function, leads_to_caller, signal, to_return,
};

const PAGE: u64 = 16 << 10;
/// Pages kept; then all are forgotten.
const MOST_PAGES: usize = 64;
/// How far functions are known from an address that was asked about: no function is so long.
const WINDOW: u64 = 512 << 10;
/// By so many powers of two may that grow.
const MOST_GROWTH: u32 = 7;
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
    /// Functions that begin in the window that was learned last, by address.
    functions: Vec<Range<u64>>,
    window: Range<u64>,
    /// How many have been learned.
    windows: u32,
    /// Parts of functions that are elsewhere, and the names of those.
    parts: Vec<(Range<u64>, Vec<u8>)>,
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
            functions: Vec::new(),
            window: 0..0,
            windows: 0,
            parts: Vec::new(),
            pages: HashMap::new(),
            known: HashMap::new(),
            last: None,
        }
    }

    /// Learns where functions begin around an address, from the file and from Go's table of it.
    pub(in super::super) fn learn(&mut self, address: u64, go: Option<PclnTab<'_>>) {
        let known = self.known.contains_key(&(address, address.wrapping_add(1)));
        if known || self.window.contains(&address) {
            return;
        }
        // All symbols are gone through for each: so there are few, of code that is used all over.
        let size = WINDOW << (2 * self.windows).min(MOST_GROWTH);
        self.windows += 1;
        let window = address.saturating_sub(size)..address.saturating_add(size);
        let mut known = Functions::default();
        if let Source::File(file) = &self.file {
            let (file, window) = (Arc::clone(file), window.clone());
            known = patiently(move || Functions::of(&file, &window)).unwrap_or_default();
        }
        // Stripped files name none else.
        let go = go.iter().flat_map(|table| table.functions_in(&window));
        known.whole.extend(go);
        known.whole.retain(|it| self.offset(it.start).is_some());
        self.functions = ordered(known.whole);
        self.parts = known.parts;
        self.window = window;
        self.last = None;
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
        let (rules, word) = (self.until_return(next)?, self.word);
        match starts[..] {
            _ if !behind_call => Some(Inferred::Rules(rules)),
            [] => Some(Inferred::IfCalled(rules)),
            // Only a table of jumps leads there: the stack is as deep as where it was used.
            [start, ..] => {
                let mut depths = self.function(start)?.open();
                let agrees = depths.any(|state| leads_to_caller(state, &rules.cfa, word));
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

    fn until_return(&mut self, next: u64) -> Option<Rules> {
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
        let part = self.parts.iter().find(|(it, _)| it.contains(&address));
        if let (Some((_, name)), Source::File(file)) = (part, &self.file) {
            let (file, name) = (Arc::clone(file), name.clone());
            return patiently(move || Functions::named(&file, &name)).unwrap_or_default();
        }
        let behind = self.functions.partition_point(|it| it.start <= address);
        let function = self.functions[..behind].last();
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
        let found = self.functions.binary_search_by_key(&address, |it| it.start);
        found.is_ok()
    }

    fn is_end(&self, address: u64) -> bool {
        let functions = &self.functions;
        let behind = functions.partition_point(|it| it.start < address);
        let last = functions[..behind].last();
        last.is_some_and(|function| function.end == address)
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
    let segments = vec![(0..code.len() as u64, start)];
    let mut text = Text::new(Source::Bytes(code.to_vec()), Word::Eight, segments);
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
