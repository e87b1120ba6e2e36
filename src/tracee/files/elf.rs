//! What an ELF file says of itself: its build-id, and the version of what made it.
//!
//! Only headers, notes and the section of Go's build information are read, each up to
//! [`MOST_BYTES`]: a file may be anything.

use std::fs::File;

use object::elf::{FileHeader32, FileHeader64, NT_GNU_BUILD_ID, NoteType};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, FileKind, ReadCache, ReadRef};

/// Longest part of a file that is read at once.
const MOST_BYTES: u64 = 1 << 20;
/// Longest build-id and longest version that are believed.
const MOST_ID: usize = 64;
const MOST_VERSION: usize = 200;
/// The package metadata note: <https://systemd.io/ELF_PACKAGE_METADATA/>.
const NT_FDO_PACKAGING_METADATA: NoteType = NoteType(0xcafe_1a7e);
/// Begins Go's build information: debug/buildinfo/buildinfo.go.
const GO_MAGIC: &[u8] = b"\xff Go buildinf:";

/// See the fields of [`FileSeen`](crate::timeline::FileSeen).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub build_id: Vec<u8>,
    pub version: Option<String>,
}

/// What `file` says; `None` if it is no ELF file.
pub(super) fn facts(file: File) -> Option<Facts> {
    let cache = ReadCache::new(file);
    let data = Bounded(&cache);
    match FileKind::parse(data).ok()? {
        FileKind::Elf64 => read::<FileHeader64<Endianness>>(data),
        FileKind::Elf32 => read::<FileHeader32<Endianness>>(data),
        _ => None,
    }
}

/// A file of which no long part is read, whatever its headers say.
#[derive(Clone, Copy, Debug)]
struct Bounded<'a>(&'a ReadCache<File>);

impl<'a> ReadRef<'a> for Bounded<'a> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        match size <= MOST_BYTES {
            true => self.0.read_bytes_at(offset, size),
            false => Err(()),
        }
    }

    fn read_bytes_at_until(
        self,
        range: std::ops::Range<u64>,
        delimiter: u8,
    ) -> Result<&'a [u8], ()> {
        let end = range.end.min(range.start.saturating_add(MOST_BYTES));
        self.0.read_bytes_at_until(range.start..end, delimiter)
    }
}

fn read<Elf: FileHeader<Endian = Endianness>>(data: Bounded<'_>) -> Option<Facts> {
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let mut facts = Facts::default();
    let mut package = None;
    for segment in header.program_headers(endian, data).unwrap_or_default() {
        let Ok(Some(mut notes)) = segment.notes(endian, data) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            match (note.name(), note.n_type(endian)) {
                (b"GNU", NT_GNU_BUILD_ID) if note.desc().len() <= MOST_ID => {
                    facts.build_id = note.desc().to_vec();
                }
                (b"FDO", NT_FDO_PACKAGING_METADATA) => package = package_of(note.desc()),
                _ => {}
            }
        }
    }
    if facts.build_id.is_empty() {
        facts.build_id = id_of_section(header, endian, data).unwrap_or_default();
    }
    let go = || go_version::<Elf>(header, endian, data);
    facts.version = go().or(package).filter(|text| text.len() <= MOST_VERSION);
    Some(facts)
}

/// The build-id that Go's linker makes: in a section outside of the segments of notes.
fn id_of_section<Elf: FileHeader<Endian = Endianness>>(
    header: &Elf,
    endian: Endianness,
    data: Bounded<'_>,
) -> Option<Vec<u8>> {
    let sections = header.sections(endian, data).ok()?;
    let (_, section) = sections.section_by_name(endian, b".note.gnu.build-id")?;
    let mut notes = section.notes(endian, data).ok()??;
    let note = notes.next().ok()??;
    let is_id = note.name() == b"GNU" && note.n_type(endian) == NT_GNU_BUILD_ID;
    (is_id && note.desc().len() <= MOST_ID).then(|| note.desc().to_vec())
}

/// `name version` of a package, from the JSON of its note.
fn package_of(note: &[u8]) -> Option<String> {
    let text = note.split(|&byte| byte == 0).next()?;
    let object: serde_json::Value = serde_json::from_slice(text).ok()?;
    let word = |key: &str| object.get(key)?.as_str();
    Some(format!("{} {}", word("name")?, word("version")?))
}

/// The toolchain that built a Go program, 1.18 or later (earlier ones keep a pointer to it).
fn go_version<Elf: FileHeader<Endian = Endianness>>(
    header: &Elf,
    endian: Endianness,
    data: Bounded<'_>,
) -> Option<String> {
    const INLINE: u8 = 2;
    let sections = header.sections(endian, data).ok()?;
    let (_, section) = sections.section_by_name(endian, b".go.buildinfo")?;
    let (offset, size) = section.file_range(endian)?;
    let bytes = data.read_bytes_at(offset, size.min(4096)).ok()?;
    let rest = bytes.strip_prefix(GO_MAGIC)?;
    if rest.get(1)? & INLINE == 0 {
        return None;
    }
    // A varint of one byte is enough: such strings are short.
    let length = usize::from(*bytes.get(32)?);
    let version = bytes.get(33..33 + length).filter(|_| length < 0x80)?;
    let version = std::str::from_utf8(version).ok()?;
    version.starts_with("go").then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_no_elf_file_says_nothing() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(b"#!/bin/sh\n").expect("it can be written");
        assert_eq!(facts(file), None);
    }

    #[test]
    fn a_file_that_claims_endless_tables_is_read_in_little_memory() {
        let mut header = vec![0u8; 64];
        header[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        header[16] = 2; // e_type
        header[18] = 62; // e_machine
        header[20] = 1; // e_version
        header[32] = 64; // e_phoff
        header[40] = 64; // e_shoff
        header[52] = 64; // e_ehsize
        header[54] = 56; // e_phentsize
        header[56..58].copy_from_slice(&[0xfe, 0xff]); // e_phnum
        header[58] = 64; // e_shentsize, e_shnum 0: the count is in the first section
        let mut section = vec![0u8; 64];
        section[32..40].copy_from_slice(&(1u64 << 40).to_le_bytes());
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&[header, section].concat())
            .expect("it can be written");
        file.set_len(1 << 50)
            .or_else(|_| file.set_len(1 << 40))
            .expect("a sparse file");
        assert_eq!(facts(file), Some(Facts::default()));
    }

    #[test]
    fn package_notes_are_read() {
        let note = b"{\"type\":\"deb\",\"name\":\"glibc\",\"version\":\"2.41-1\"}\0\0\0";
        assert_eq!(package_of(note).as_deref(), Some("glibc 2.41-1"));
        assert_eq!(package_of(b"{"), None);
    }
}
