//! What an ELF file says of itself: segments, sections, build-id. Any bytes may be handed in.
//!
//! Files are read in pieces, never mapped: one that shrinks while it is read makes a short read, not
//! a signal. No table is read that is longer than what it could sensibly be.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use gimli::RunTimeEndian;
use object::elf::{
    FileHeader32, FileHeader64, NT_GNU_BUILD_ID, PF_X, PT_LOAD, SHF_COMPRESSED, SHF_EXECINSTR,
    SHT_DYNSYM, SHT_NOBITS, SHT_SYMTAB,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::read::{CompressedData, CompressionFormat};
use object::{Endianness, FileKind, ReadCache, ReadRef};

/// Longest table of headers, notes or section names that is read.
const MOST_HEADERS: u64 = 8 << 20;
/// Longest build-id that is believed.
const MOST_ID: usize = 64;
/// Most sections that are looked at.
const MOST_SECTIONS: usize = 1 << 16;

/// The bytes of an ELF file.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// On a disk.
    File(Arc<File>, u64),
    /// In memory: unpacked from another file, or copied from a process.
    Memory(Arc<[u8]>),
}

impl Data {
    /// A regular file.
    pub fn file(file: File) -> io::Result<Data> {
        let length = file.metadata()?.len();
        Ok(Data::File(Arc::new(file), length))
    }

    pub fn len(&self) -> u64 {
        match self {
            Data::File(_, length) => *length,
            Data::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `buffer` from `offset` on, as far as there is something; the count.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Data::File(file, _) => file.read_at(buffer, offset),
            Data::Memory(bytes) => {
                let start = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
                Read::read(&mut &bytes[start..], buffer)
            }
        }
    }

    /// Has it parsed by what wants references, no part of it longer than `most`.
    pub fn parsed<T>(&self, most: u64, parse: impl FnOnce(Bounded<'_, '_>) -> T) -> T {
        let cache = ReadCache::new(Cursor { data: self, at: 0 });
        parse(Bounded {
            cache: &cache,
            most,
        })
    }

    /// Exactly `length` bytes, unless that is more than `most` or not there.
    pub fn bytes(&self, offset: u64, length: u64, most: u64) -> Option<Vec<u8>> {
        let end = offset.checked_add(length)?;
        if most < length || self.len() < end {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        let mut cursor = Cursor {
            data: self,
            at: offset,
        };
        cursor.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// Reads [`Data`] from front to back.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub data: &'a Data,
    pub at: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.data.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.data.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Bytes of which no long part is read, whatever the headers in them say.
#[derive(Clone, Copy)]
pub(super) struct Bounded<'a, 'd> {
    cache: &'a ReadCache<Cursor<'d>>,
    most: u64,
}

impl<'a> ReadRef<'a> for Bounded<'a, '_> {
    fn len(self) -> Result<u64, ()> {
        self.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        match size <= self.most {
            true => self.cache.read_bytes_at(offset, size),
            false => Err(()),
        }
    }

    fn read_bytes_at_until(
        self,
        range: std::ops::Range<u64>,
        delimiter: u8,
    ) -> Result<&'a [u8], ()> {
        let end = range.end.min(range.start.saturating_add(self.most));
        self.cache.read_bytes_at_until(range.start..end, delimiter)
    }
}

/// Code of the file: where it lies and where it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub offset: u64,
    pub size: u64,
    pub address: u64,
}

/// Which table of symbols a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableKind {
    Full,
    Dynamic,
}

/// A section.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub name: Vec<u8>,
    pub address: u64,
    pub offset: u64,
    pub size: u64,
    /// Nothing of it is in the file.
    pub absent: bool,
    pub code: bool,
    pub compressed: bool,
    pub table: Option<TableKind>,
    /// Number of the section it refers to.
    pub link: usize,
}

/// An ELF file whose headers were read.
#[derive(Clone, Debug)]
pub(super) struct Elf {
    pub data: Data,
    pub is_64: bool,
    pub big_endian: bool,
    pub code: Vec<Segment>,
    pub sections: Vec<Section>,
    pub build_id: Vec<u8>,
    /// A segment of notes holds the build-id. Go's linker makes one outside: traces of early
    /// versions do not have those.
    pub id_in_segment: bool,
}

impl Elf {
    /// `None` if it is no ELF file, or its headers make no sense.
    pub fn read(data: Data) -> Option<Elf> {
        let mut elf = data.parsed(MOST_HEADERS, |bounded| {
            match FileKind::parse(bounded).ok()? {
                FileKind::Elf64 => read::<FileHeader64<Endianness>>(bounded),
                FileKind::Elf32 => read::<FileHeader32<Endianness>>(bounded),
                _ => None,
            }
        })?;
        elf.data = data;
        Some(elf)
    }

    pub fn endian(&self) -> RunTimeEndian {
        match self.big_endian {
            true => RunTimeEndian::Big,
            false => RunTimeEndian::Little,
        }
    }

    /// The address that the code at an offset of the file is linked to.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        self.code.iter().find_map(|segment| {
            let into = offset.checked_sub(segment.offset)?;
            (into < segment.size).then(|| segment.address.checked_add(into))?
        })
    }

    pub fn section(&self, name: &[u8]) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The contents of a section, unpacked, if they are in the file and at most `most` bytes.
    pub fn contents(&self, section: &Section, most: u64) -> Option<Vec<u8>> {
        if section.absent {
            return None;
        }
        if !section.compressed {
            return self.data.bytes(section.offset, section.size, most);
        }
        let packed = self.data.bytes(section.offset, section.size, most)?;
        let (format, size, rest) = self.compression(&packed)?;
        if most < size {
            return None;
        }
        let data = CompressedData {
            format,
            data: rest,
            uncompressed_size: size,
        };
        Some(data.decompress().ok()?.into_owned())
    }

    /// How many bytes a section has once it is unpacked.
    pub fn unpacked_size(&self, section: &Section) -> u64 {
        if !section.compressed {
            return section.size;
        }
        let head = self.data.bytes(section.offset, section.size.min(24), 24);
        head.and_then(|head| Some(self.compression(&head)?.1))
            .unwrap_or(0)
    }

    /// The header of a compressed section (`Elf32_Chdr`, `Elf64_Chdr`): format, size, what follows.
    fn compression<'a>(&self, packed: &'a [u8]) -> Option<(CompressionFormat, u64, &'a [u8])> {
        let word = |at: usize| {
            let bytes = *packed.get(at..)?.first_chunk::<4>()?;
            Some(match self.big_endian {
                true => u32::from_be_bytes(bytes),
                false => u32::from_le_bytes(bytes),
            })
        };
        let format = match word(0)? {
            1 => CompressionFormat::Zlib,
            2 => CompressionFormat::Zstandard,
            _ => return None,
        };
        if !self.is_64 {
            return Some((format, word(4)?.into(), packed.get(12..)?));
        }
        let (low, high) = match self.big_endian {
            true => (word(12)?, word(8)?),
            false => (word(8)?, word(12)?),
        };
        let size = u64::from(high) << 32 | u64::from(low);
        Some((format, size, packed.get(24..)?))
    }
}

fn read<Header: FileHeader<Endian = Endianness>>(data: Bounded<'_, '_>) -> Option<Elf> {
    let header = Header::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let mut code = Vec::new();
    let mut build_id = Vec::new();
    for segment in header.program_headers(endian, data).unwrap_or_default() {
        if segment.p_type(endian) == PT_LOAD && segment.p_flags(endian).contains(PF_X) {
            code.push(Segment {
                offset: segment.p_offset(endian).into(),
                size: segment.p_filesz(endian).into(),
                address: segment.p_vaddr(endian).into(),
            });
        }
        let Ok(Some(mut notes)) = segment.notes(endian, data) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            let is_id = note.name() == b"GNU" && note.n_type(endian) == NT_GNU_BUILD_ID;
            if is_id && note.desc().len() <= MOST_ID {
                build_id = note.desc().to_vec();
            }
        }
    }
    let id_in_segment = !build_id.is_empty();
    let table = header.sections(endian, data).ok();
    let mut sections = Vec::new();
    for section in table
        .iter()
        .flat_map(|table| table.iter())
        .take(MOST_SECTIONS)
    {
        let names = table.as_ref()?;
        let kind = section.sh_type(endian);
        let flags = section.sh_flags(endian);
        if build_id.is_empty()
            && let Ok(Some(mut notes)) = section.notes(endian, data)
        {
            // A debug file has them as well, but its segments may have kept no bytes.
            while let Ok(Some(note)) = notes.next() {
                let is_id = note.name() == b"GNU" && note.n_type(endian) == NT_GNU_BUILD_ID;
                if is_id && note.desc().len() <= MOST_ID {
                    build_id = note.desc().to_vec();
                }
            }
        }
        sections.push(Section {
            name: names
                .section_name(endian, section)
                .unwrap_or_default()
                .to_vec(),
            address: section.sh_addr(endian).into(),
            offset: section.sh_offset(endian).into(),
            size: section.sh_size(endian).into(),
            absent: kind == SHT_NOBITS,
            code: flags.contains(SHF_EXECINSTR),
            compressed: flags.contains(SHF_COMPRESSED),
            table: match kind {
                SHT_SYMTAB => Some(TableKind::Full),
                SHT_DYNSYM => Some(TableKind::Dynamic),
                _ => None,
            },
            link: section.sh_link(endian) as usize,
        });
    }
    Some(Elf {
        data: Data::Memory([].into()),
        is_64: header.is_class_64(),
        big_endian: header.is_big_endian(),
        code,
        sections,
        build_id,
        id_in_segment,
    })
}
