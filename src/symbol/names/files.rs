//! Opens files of code and what belongs to them, and takes none that is another version.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::timeline::Module;

use super::elf::{Cursor, Data, Elf};

/// Where distributions put separate debug files.
const DEBUG_FOLDER: &str = "/usr/lib/debug";
/// Longest debug file whose checksum is computed, where it has no build-id to compare.
const MOST_CHECKED: u64 = 1 << 30;
/// Longest unpacked `.gnu_debugdata`, and longest dictionary for it.
const MOST_MINI: u64 = 64 << 20;
const MOST_DICTIONARY: usize = 64 << 20;

/// Opens a regular file, without waiting for whatever else may be there.
pub(super) fn open(path: &Path) -> Option<(File, Metadata)> {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
    let file = options.open(path).ok()?;
    let meta = file.metadata().ok().filter(Metadata::is_file)?;
    Some((file, meta))
}

/// The path of a module: maps marks files that were removed, and escapes the end of a line.
pub(super) fn path_of(module: &Module) -> String {
    let path = module.path.trim_end_matches(" (deleted)");
    path.replace("\\012", "\n")
}

/// `path` as a process sees it whose root directory is `root` for us; an empty one is our own.
pub(super) fn beneath(root: &Path, path: &str) -> PathBuf {
    match root.as_os_str().is_empty() {
        true => PathBuf::from(path),
        false => root.join(path.trim_start_matches('/')),
    }
}

/// The same with a path as a process has it whose root directory is `root` for us: links that begin
/// at the root lead to what they do for the process.
pub(super) fn open_beneath(root: &Path, path: &str) -> Option<(File, Metadata)> {
    if root.as_os_str().is_empty() {
        return open(Path::new(path));
    }
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
    let folder = options.open(root).ok()?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let within = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match openat2(&folder, path, OpenHow::new().flags(flags).resolve(within)) {
        Ok(file) => {
            let file = File::from(file);
            let meta = file.metadata().ok().filter(Metadata::is_file)?;
            Some((file, meta))
        }
        // Before Linux 5.6, or a filter that does not know it; or somebody renamed folders meanwhile.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EAGAIN) => open(&beneath(root, path)),
        Err(_) => None,
    }
}

/// Reads the ELF file at such a path.
fn elf(root: &Path, path: &str) -> Option<Elf> {
    let (file, _) = open_beneath(root, path)?;
    Elf::read(Data::file(file).ok()?)
}

/// What a file of code leads to.
#[derive(Debug, Default)]
pub(super) struct Companions {
    /// The separate debug file.
    pub debug: Option<Elf>,
    /// The part of the DWARF that dwz(1) moved into a file shared with others.
    pub shared: Option<Elf>,
    /// The symbols in `.gnu_debugdata`.
    pub mini: Option<Elf>,
}

/// A root directory, and where a file lies below it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Below<'a> {
    /// As a path for us; an empty one is our own.
    pub root: &'a Path,
    pub path: &'a str,
}

impl Companions {
    /// Looks at the first of `places` first: in the root where the code came from, then in our own.
    pub fn of(elf: &Elf, places: &[Below<'_>]) -> Companions {
        let mut each = places.iter();
        let debug = each.find_map(|below| debug_file(elf, below.path, below.root));
        let shared = places.iter().find_map(|below| match &debug {
            Some((debug, home)) => shared_dwarf(debug, home, below.root),
            None => shared_dwarf(elf, Path::new(below.path), below.root),
        });
        Companions {
            debug: debug.map(|(debug, _)| debug),
            shared,
            mini: mini(elf),
        }
    }
}

/// The separate debug file, and its path in `root`.
fn debug_file(elf: &Elf, path: &str, root: &Path) -> Option<(Elf, PathBuf)> {
    by_build_id(&elf.build_id, ".debug", root).or_else(|| by_link(elf, path, root))
}

/// A file under `.build-id`: the debug file, or without an ending the file of code itself.
pub(super) fn by_build_id(id: &[u8], ending: &str, root: &Path) -> Option<(Elf, PathBuf)> {
    let (first, rest) = id.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    // Fedora links the code itself in the second.
    let folders = [DEBUG_FOLDER, "/usr/lib"];
    folders.into_iter().find_map(|folder| {
        let path = format!("{folder}/.build-id/{first:02x}/{rest}{ending}");
        let found = self::elf(root, &path)?;
        (found.build_id == id).then(|| (found, PathBuf::from(path)))
    })
}

/// The file that `.gnu_debuglink` names, at the places where GDB looks, with the checksum it states.
fn by_link(elf: &Elf, path: &str, root: &Path) -> Option<(Elf, PathBuf)> {
    let section = elf.section(b".gnu_debuglink")?;
    let link = elf.contents(section, 4096)?;
    let end = link.iter().position(|&byte| byte == 0)?;
    let name = std::str::from_utf8(&link[..end]).ok()?;
    let at = (end + 1).next_multiple_of(4);
    let crc = *link.get(at..)?.first_chunk::<4>()?;
    let crc = match elf.big_endian {
        true => u32::from_be_bytes(crc),
        false => u32::from_le_bytes(crc),
    };
    if !is_plain(name) {
        return None;
    }
    let folder = Path::new(path).parent()?.to_str()?;
    let places = [
        format!("{folder}/{name}"),
        format!("{folder}/.debug/{name}"),
        format!("{DEBUG_FOLDER}{folder}/{name}"),
    ];
    places
        .into_iter()
        .filter(|place| place != path)
        .find_map(|place| {
            let found = self::elf(root, &place)?;
            let same = match elf.build_id.is_empty() || found.build_id.is_empty() {
                true => checksum(&found.data)? == crc,
                false => elf.build_id == found.build_id,
            };
            same.then(|| (found, PathBuf::from(place)))
        })
}

/// Whether a name that a file states is one, and does not lead elsewhere.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != "." && name != ".."
}

fn checksum(data: &Data) -> Option<u32> {
    if MOST_CHECKED < data.len() {
        return None;
    }
    let mut crc = crc32fast::Hasher::new();
    let mut cursor = Cursor { data, at: 0 };
    let mut piece = vec![0; 256 << 10];
    loop {
        match cursor.read(&mut piece).ok()? {
            0 => return Some(crc.finalize()),
            count => crc.update(&piece[..count]),
        }
    }
}

/// The file that `.gnu_debugaltlink` names: a path, relative to the file that has it, and a build-id.
fn shared_dwarf(elf: &Elf, home: &Path, root: &Path) -> Option<Elf> {
    let section = elf.section(b".gnu_debugaltlink")?;
    let link = elf.contents(section, 4096)?;
    let end = link.iter().position(|&byte| byte == 0)?;
    let name = std::str::from_utf8(&link[..end]).ok()?;
    let id = &link[end + 1..];
    let named = home.parent()?.join(name);
    let found = self::elf(root, named.to_str()?);
    let same = found.filter(|found| found.build_id == id);
    same.or_else(|| Some(by_build_id(id, ".debug", root)?.0))
}

/// The symbols that Fedora and others keep in stripped files, packed with xz.
fn mini(elf: &Elf) -> Option<Elf> {
    let section = elf.section(b".gnu_debugdata")?;
    let packed = io::Cursor::new(elf.contents(section, MOST_MINI)?);
    let decoder = xz4rust::XzDecoder::in_heap_with_alloc_dict_size(0, MOST_DICTIONARY);
    let size = std::num::NonZeroUsize::new(64 << 10)?;
    let reader = xz4rust::XzReader::new_with_buffer_size_and_decoder(packed, size, decoder);
    let mut bytes = Vec::new();
    reader.take(MOST_MINI + 1).read_to_end(&mut bytes).ok()?;
    if MOST_MINI < bytes.len() as u64 {
        return None;
    }
    Elf::read(Data::Memory(bytes.into()))
}

/// Whether a file has not changed since `second` (of the Unix epoch): neither its contents nor the
/// file its name stands for. The inode's own time, as it cannot be set back.
pub(super) fn unchanged_since(meta: &Metadata, second: i64) -> bool {
    meta.ctime() <= second
}
