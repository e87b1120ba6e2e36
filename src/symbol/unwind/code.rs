//! A file of code: what it says of unwinding.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use object::elf::{FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian, ReadCache, ReadRef};

use crate::symbol::go::{Location, PclnTab, locate};

use super::cfi::{Cfi, Rules, Section};

/// Functions that begin at a file's entry point are shorter than this.
const LONGEST_START: u64 = 64;

/// What is kept of a file of code.
#[derive(Debug, Default)]
pub(super) struct Code {
    /// Offsets in the file of what is mapped as code, and its address by the file's own account.
    segments: Vec<(Range<u64>, u64)>,
    entry: u64,
    cfi: Cfi,
    go: Option<(Vec<u8>, Location)>,
    /// Rules by address, as far as they were needed.
    rules: HashMap<u64, Option<Arc<Rules>>>,
}

impl Code {
    /// Reads a file.
    pub(super) fn of_file(file: File) -> Option<Code> {
        let length = file.metadata().ok()?.len();
        // Large parts are read once, past the cache.
        let part = |range: &Range<u64>| {
            let size = range.end.checked_sub(range.start)?;
            let wanted = usize::try_from(size).ok().filter(|_| range.end <= length)?;
            // Not by read_exact_at(), for which they would be set to zero first.
            let mut bytes = Vec::with_capacity(wanted);
            (&file).seek(SeekFrom::Start(range.start)).ok()?;
            (&file).take(size).read_to_end(&mut bytes).ok()?;
            (bytes.len() == wanted).then_some(bytes)
        };
        Code::read(&ReadCache::new(&file), part)
    }

    /// Reads an image.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Code> {
        let part = |range: &Range<u64>| {
            let (start, end) = (range.start as usize, range.end as usize);
            Some(bytes.get(start..end)?.to_vec())
        };
        Code::read(bytes, part)
    }

    fn read<'d, R: ReadRef<'d>>(
        data: R,
        part: impl Fn(&Range<u64>) -> Option<Vec<u8>>,
    ) -> Option<Code> {
        let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let mut segments = Vec::new();
        let mut loaded = Vec::new();
        let mut index = None;
        for program in header.program_headers(endian, data).ok()? {
            let (start, size) = program.file_range(endian);
            let range = start..start.checked_add(size)?;
            let address = program.p_vaddr(endian);
            match program.p_type(endian) {
                PT_LOAD => {
                    if program.p_flags(endian).contains(PF_X) {
                        segments.push((range.clone(), address));
                    }
                    loaded.push((range, address));
                }
                PT_GNU_EH_FRAME => index = Some((range, address)),
                _ => {}
            }
        }
        let (mut eh_frame, mut debug_frame, mut text) = (None, Vec::new(), 0);
        let sections = header.sections(endian, data).ok();
        let sections = sections.unwrap_or_default();
        for section in sections.iter() {
            let Some((start, size)) = section.file_range(endian) else {
                continue;
            };
            let range = start..start.saturating_add(size);
            let address = section.sh_addr(endian);
            let packed = section
                .sh_flags(endian)
                .contains(object::elf::SHF_COMPRESSED);
            match sections.section_name(endian, section).unwrap_or_default() {
                b".eh_frame" => {
                    eh_frame = part(&range).map(|bytes| Section { address, bytes });
                }
                b".debug_frame" if !packed => debug_frame = part(&range).unwrap_or_default(),
                b".text" => text = address,
                _ => {}
            }
        }
        let index = index.and_then(|(range, address)| {
            let bytes = part(&range)?;
            Some(Section { address, bytes })
        });
        // Without section headers the index tells where the rest is.
        let eh_frame = eh_frame.or_else(|| {
            let address = index.as_ref()?.eh_frame()?;
            let (range, start) = loaded.iter().find(|(range, start)| {
                (*start..start.saturating_add(range.end - range.start)).contains(&address)
            })?;
            let bytes = part(&(range.start + (address - start)..range.end))?;
            Some(Section { address, bytes })
        });
        let go = locate(data).and_then(|location| Some((part(&location.table)?, location)));
        Some(Code {
            segments,
            entry: header.e_entry(endian),
            cfi: Cfi::new(eh_frame.unwrap_or_default(), index, debug_frame, text),
            go,
            rules: HashMap::new(),
        })
    }

    /// The file's own address of what is at an offset in it.
    pub(super) fn address(&self, offset: u64) -> Option<u64> {
        let (range, address) = self
            .segments
            .iter()
            .find(|(range, _)| range.contains(&offset))?;
        Some(address.wrapping_add(offset - range.start))
    }

    /// The table of a Go program.
    pub(super) fn go(&self) -> Option<PclnTab<'_>> {
        let (table, location) = self.go.as_ref()?;
        PclnTab::new(table, location.text, &[])
    }

    /// How to unwind from an address.
    pub(super) fn rules(&mut self, address: u64) -> Option<Arc<Rules>> {
        let rules = self.rules.entry(address);
        let rules = rules.or_insert_with(|| self.cfi.rules(address).map(Arc::new));
        rules.as_ref().map(Arc::clone)
    }

    /// Whether the kernel begins programs there: nothing called it.
    pub(super) fn is_start(&self, address: u64) -> bool {
        self.entry != 0 && (self.entry..self.entry.saturating_add(LONGEST_START)).contains(&address)
    }
}

impl Section {
    /// Where `.eh_frame` is, by the index of it that this is.
    fn eh_frame(&self) -> Option<u64> {
        let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(self.address);
        let header = gimli::EhFrameHdr::new(&self.bytes, gimli::LittleEndian);
        header.parse(&bases, 8).ok()?.eh_frame_ptr().direct().ok()
    }
}
