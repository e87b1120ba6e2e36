//! Source lines and inlined functions, from DWARF.

use std::sync::Arc;

use addr2line::Context;
use gimli::{Dwarf, EndianArcSlice, Error, RunTimeEndian, SectionId};

use super::elf::Elf;

/// Most DWARF that is read, unpacked, of one module and of all together. A browser has gigabytes of
/// it: its symbols tell the functions without.
const MOST_DWARF: u64 = 256 << 20;
pub(super) const MOST_DWARF_OF_ALL: u64 = 1 << 30;
/// Functions that are inlined into each other at one address, at most.
const MOST_INLINED: usize = 64;

type Slice = EndianArcSlice<RunTimeEndian>;

/// The DWARF of a module.
pub(super) struct Lines(Context<Slice>);

/// A function that was, or was inlined, at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// As the linker knows it.
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: u32,
}

/// Why there are no lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLines {
    /// There is no DWARF, or it cannot be understood.
    None,
    /// There is more than is read: so many bytes.
    TooMuch(u64),
}

/// What addr2line uses.
const SECTIONS: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

impl Lines {
    /// Reads the DWARF of `elf`; `shared` is what dwz(1) moved out of it. Takes what it needs from
    /// the bytes that are `left` to read.
    pub fn read(elf: &Elf, shared: Option<&Elf>, left: &mut u64) -> Result<Lines, NoLines> {
        if !has(elf) {
            return Err(NoLines::None);
        }
        let size = size(elf).saturating_add(shared.map_or(0, size));
        if MOST_DWARF.min(*left) < size {
            return Err(NoLines::TooMuch(size));
        }
        *left -= size;
        let mut dwarf = Dwarf::load(|id| load(elf, id)).map_err(|_: Error| NoLines::None)?;
        if let Some(shared) = shared {
            let loaded = dwarf.load_sup(|id| load(shared, id));
            loaded.map_err(|_: Error| NoLines::None)?;
        }
        let context = Context::from_dwarf(dwarf).map_err(|_| NoLines::None)?;
        Ok(Lines(context))
    }

    /// The functions at an address, innermost first; none if DWARF does not know it.
    pub fn at(&self, address: u64) -> Vec<Line> {
        let mut lines = Vec::new();
        let Ok(mut frames) = self.0.find_frames(address).skip_all_loads() else {
            return lines;
        };
        while let Ok(Some(frame)) = frames.next()
            && lines.len() < MOST_INLINED
        {
            let function = frame.function.as_ref();
            let location = frame.location.as_ref();
            lines.push(Line {
                function: function
                    .and_then(|name| name.raw_name().ok())
                    .map(|name| name.into_owned()),
                file: location.and_then(|at| at.file).map(str::to_owned),
                line: location.and_then(|at| at.line).unwrap_or(0),
            });
        }
        lines
    }
}

/// Whether there is any DWARF.
pub(super) fn has(elf: &Elf) -> bool {
    let present = |name: &[u8]| {
        elf.section(name)
            .is_some_and(|it| !it.absent && 0 < it.size)
    };
    present(b".debug_info") && present(b".debug_abbrev")
}

fn size(elf: &Elf) -> u64 {
    SECTIONS
        .iter()
        .filter_map(|id| elf.section(id.name().as_bytes()))
        .filter(|section| !section.absent)
        .fold(0, |sum: u64, section| {
            sum.saturating_add(elf.unpacked_size(section))
        })
}

fn load(elf: &Elf, id: SectionId) -> Result<Slice, Error> {
    let wanted = SECTIONS.contains(&id);
    let section = elf.section(id.name().as_bytes()).filter(|_| wanted);
    let bytes = section.and_then(|section| elf.contents(section, MOST_DWARF));
    let bytes: Arc<[u8]> = bytes.unwrap_or_default().into();
    Ok(EndianArcSlice::new(bytes, elf.endian()))
}
