//! What `/proc` says of a task. Parsing of maps is the core's; this only fetches.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::abi::Prot;
use crate::mm::{Evidence, FileId, MapsEntry, Snapshot, parse_maps, parse_smaps};
use crate::timeline::Resident;
use crate::units::{Addr, AddrRange, Bytes, PAGE, Tid};

use super::sys;

/// Bytes of tracee origin as text: what is not UTF-8 is kept as `\ooo`.
pub(super) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold(String::new(), |mut text, &byte| {
            if byte.is_ascii() {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("\\{byte:03o}"));
            }
            text
        }),
    }
}

fn read_all(path: &str, expected: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Files of /proc say that they are empty, so the first guess decides how often we ask. A
    // `Take` reads without asking for the size and the position first: two calls of five.
    let mut bytes = Vec::with_capacity(expected);
    file.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that the kernel makes as a whole when it is read first (`single_open`), and that is
/// shorter than a page: one read(2) has all of it.
fn read_short(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let mut file = File::open(path)?;
    let mut length = file.read(&mut bytes)?;
    if length == bytes.len() {
        length += file.read_to_end(&mut bytes)?;
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// `/proc/TID/maps`. An empty snapshot for a zombie.
pub(super) fn maps(tid: Tid) -> io::Result<Snapshot> {
    parse_maps(&read_all(&format!("/proc/{tid}/maps"), 16 << 10)?).map_err(invalid)
}

/// `/proc/TID/smaps`. An empty snapshot for a zombie.
pub(super) fn smaps(tid: Tid) -> io::Result<Snapshot> {
    parse_smaps(&read_all(&format!("/proc/{tid}/smaps"), 64 << 10)?).map_err(invalid)
}

/// The command name.
pub(super) fn comm(tid: Tid) -> Arc<str> {
    let bytes = read_short(&format!("/proc/{tid}/comm")).unwrap_or_default();
    text(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).into()
}

/// The program file; empty if it cannot be read.
pub(super) fn exe(tid: Tid) -> Arc<str> {
    match fs::read_link(format!("/proc/{tid}/exe")) {
        Ok(path) => text(path.as_os_str().as_bytes()).into(),
        Err(_) => "".into(),
    }
}

/// Whether the program file is one of 32 bits (EI_CLASS of its ELF header).
pub fn is_32_bit(tid: Tid) -> bool {
    const ELFCLASS32: u8 = 1;
    let mut head = [0u8; 5];
    let read = File::open(format!("/proc/{tid}/exe")).and_then(|mut exe| exe.read_exact(&mut head));
    read.is_ok() && head == [0x7f, b'E', b'L', b'F', ELFCLASS32]
}

/// What a descriptor is open on.
pub(super) fn fd_path(tid: Tid, fd: i32) -> Option<Vec<u8>> {
    let path = fs::read_link(format!("/proc/{tid}/fd/{fd}")).ok()?;
    Some(path.into_os_string().into_encoded_bytes())
}

/// Fields of `/proc/TID/stat` from field 3 (state) on.
fn stat_fields(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let after_comm = text
        .iter()
        .rposition(|&b| b == b')')
        .map_or(text.len(), |at| at + 2);
    text.get(after_comm..)
        .unwrap_or_default()
        .split(|&b| b == b' ')
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.trim().parse().ok()
}

/// `start_brk`, field 47; `None` where ptrace access is not granted (it shows as 0).
pub(super) fn brk_start(tid: Tid) -> Option<Addr> {
    let bytes = read_short(&format!("/proc/{tid}/stat")).ok()?;
    let value = number(stat_fields(&bytes).nth(47 - 3)?)?;
    (value != 0).then_some(Addr(value))
}

/// Bytes of the program's static data, `end_data - start_data` (fields 46 and 45); `None` as above.
pub(super) fn static_data(tid: Tid) -> Option<Bytes> {
    let bytes = read_short(&format!("/proc/{tid}/stat")).ok()?;
    let mut fields = stat_fields(&bytes).skip(45 - 3);
    let (start, end) = (number(fields.next()?)?, number(fields.next()?)?);
    let shown = start != 0 && start <= end;
    shown.then(|| Bytes(end - start))
}

/// Mappings of a space as the kernel counts them (`mm->map_count`): `[vsyscall]` is none of them.
pub(super) fn map_count(tid: Tid) -> Option<u64> {
    let bytes = read_all(&format!("/proc/{tid}/maps"), 16 << 10).ok()?;
    let lines = bytes.split(|&byte| byte == b'\n');
    let counted = lines.filter(|line| !line.is_empty() && !line.ends_with(b"[vsyscall]"));
    Some(counted.count() as u64).filter(|count| *count != 0)
}

/// Bytes of `range` that are locked: mappings with `lo` among the VmFlags of smaps.
pub(super) fn locked_in(tid: Tid, range: AddrRange) -> Option<Bytes> {
    let bytes = read_all(&format!("/proc/{tid}/smaps"), 64 << 10).ok()?;
    let mut mapping = None;
    let mut locked = Bytes(0);
    for line in bytes.split(|&byte| byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        if let Some(flags) = text.strip_prefix("VmFlags:") {
            let shared: Option<AddrRange> = mapping;
            if let Some(shared) = shared
                && flags.split_ascii_whitespace().any(|flag| flag == "lo")
            {
                locked += Bytes(shared.len());
            }
        } else if let Some((start, end)) = text
            .split(' ')
            .next()
            .and_then(|addresses| addresses.split_once('-'))
        {
            let address = |hex: &str| u64::from_str_radix(hex, 16).ok().map(Addr);
            mapping = AddrRange::new(address(start)?, address(end)?)?.intersect(range);
        }
    }
    Some(locked)
}

/// The CPU a task last ran on (field 39 of stat), from an open `/proc/TID/stat`.
pub(super) fn last_cpu(stat: &File) -> Option<usize> {
    use std::os::unix::fs::FileExt;
    let mut buffer = [0u8; 1024];
    let count = stat.read_at(&mut buffer, 0).ok()?;
    number(stat_fields(buffer.get(..count)?).nth(39 - 3)?).map(|cpu| cpu as usize)
}

/// The state letter of a task (`R`, `S`, `D`, `T`, `t`, `Z`, …).
pub(super) fn state(tid: Tid) -> Option<u8> {
    let bytes = read_short(&format!("/proc/{tid}/stat")).ok()?;
    stat_fields(&bytes).next()?.first().copied()
}

/// Every process that is to be seen, with its parent (field 4 of stat).
pub(super) fn processes() -> Vec<(Tid, Tid)> {
    let with_parent = |pid: Tid| {
        let bytes = read_short(&format!("/proc/{pid}/stat")).ok()?;
        let parent = number(stat_fields(&bytes).nth(4 - 3)?)?;
        Some((pid, Tid(i32::try_from(parent).ok()?)))
    };
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| with_parent(Tid(pid))).collect()
}

/// Whether the personality has READ_IMPLIES_EXEC.
pub(super) fn read_implies_exec(tid: Tid) -> bool {
    const READ_IMPLIES_EXEC: u32 = 0x0040_0000;
    read_short(&format!("/proc/{tid}/personality"))
        .ok()
        .and_then(|bytes| u32::from_str_radix(std::str::from_utf8(&bytes).ok()?.trim(), 16).ok())
        .is_some_and(|bits| bits & READ_IMPLIES_EXEC != 0)
}

/// Numbers of `/proc/TID/status` by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    text: Vec<u8>,
}

impl Status {
    /// Reads it.
    pub(super) fn read(tid: Tid) -> io::Result<Status> {
        Ok(Status {
            text: read_short(&format!("/proc/{tid}/status"))?,
        })
    }

    /// The rest of the line that begins with `key:`.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.text.split(|&b| b == b'\n').find_map(|line| {
            let rest = line.strip_prefix(key.as_bytes())?.strip_prefix(b":")?;
            std::str::from_utf8(rest).ok().map(str::trim)
        })
    }

    /// The first number of that line.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.split_ascii_whitespace().next()?.parse().ok()
    }

    fn kib(&self, key: &str) -> Option<Bytes> {
        self.number(key).map(|kib| Bytes(kib << 10))
    }

    /// The memory figures, if the task still has an address space.
    pub(super) fn resident(&self) -> Option<Resident> {
        Some(Resident {
            now: self.kib("VmRSS")?,
            anon: self.kib("RssAnon"),
            file: self.kib("RssFile"),
            shmem: self.kib("RssShmem"),
            high_water: self.kib("VmHWM"),
            mapped: self.kib("VmSize"),
            swap: self.kib("VmSwap"),
        })
    }
}

/// What memtrace itself takes to observe through the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnMemory {
    /// The rings that the kernel writes into.
    pub rings: Bytes,
    /// The most that has been resident; whether the rings are part of it depends on the kernel.
    pub peak: Bytes,
}

/// What memtrace takes now; `None` if it cannot be told.
pub fn own_memory() -> Option<OwnMemory> {
    let me = Tid(std::process::id() as i32);
    let map = maps(me).ok()?;
    let rings = map.entries.iter();
    let rings = rings.filter(|entry| &*entry.name == "anon_inode:[perf_event]");
    Some(OwnMemory {
        rings: Bytes(rings.map(|entry| entry.range.len()).sum()),
        peak: Status::read(me).ok()?.kib("VmHWM")?,
    })
}

/// `VmSize` and `VmRSS` by `/proc/TID/statm`, the cheap way; `None` once the space is gone.
pub(super) fn statm(tid: Tid) -> Option<Resident> {
    let bytes = read_short(&format!("/proc/{tid}/statm")).ok()?;
    let mut fields = bytes.split(|&b| b == b' ');
    let mapped = Bytes(number(fields.next()?)? * PAGE);
    let now = Bytes(number(fields.next()?)? * PAGE);
    let shared = Bytes(number(fields.next()?)? * PAGE);
    let anon = Bytes(now.0.saturating_sub(shared.0));
    (mapped.0 != 0).then_some(Resident {
        now,
        anon: Some(anon),
        file: None,
        shmem: None,
        high_water: None,
        mapped: Some(mapped),
        swap: None,
    })
}

/// The tasks of a process.
pub(super) fn tasks(pid: Tid) -> io::Result<Vec<Tid>> {
    let mut tids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = entry?.file_name();
        tids.extend(name.to_str().and_then(|name| name.parse().ok()).map(Tid));
    }
    Ok(tids)
}

/// Whether `tid` is a thread of process `pid`.
pub(super) fn is_thread_of(pid: Tid, tid: Tid) -> bool {
    fs::exists(format!("/proc/{pid}/task/{tid}")).unwrap_or(false)
}

/// Asks the kernel about ranges of one space, by PROCMAP_QUERY where the kernel has it.
#[derive(Debug)]
pub(super) struct MapsFile {
    file: File,
    text_only: bool,
}

impl MapsFile {
    /// Opens `/proc/TID/maps`; it stays bound to the space that the task has now.
    pub(super) fn open(tid: Tid) -> io::Result<MapsFile> {
        Ok(MapsFile {
            file: File::open(format!("/proc/{tid}/maps"))?,
            text_only: false,
        })
    }

    /// Every mapping that shares bytes with `range`, whole.
    pub(super) fn ask(&mut self, range: AddrRange) -> io::Result<Evidence> {
        if !self.text_only {
            match self.query(range) {
                Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => self.text_only = true,
                answer => return answer,
            }
        }
        let mut text = Vec::with_capacity(8 << 10);
        use std::io::Seek;
        self.file.rewind()?;
        self.file.read_to_end(&mut text)?;
        let snapshot = parse_maps(&text).map_err(invalid)?;
        let entries = snapshot
            .entries
            .into_iter()
            .filter(|e| e.range.overlaps(range))
            .collect();
        Ok(Evidence { range, entries })
    }

    fn query(&self, range: AddrRange) -> io::Result<Evidence> {
        const READABLE: u64 = 1;
        const WRITABLE: u64 = 2;
        const EXECUTABLE: u64 = 4;
        const SHARED: u64 = 8;
        let mut name = [0u8; 4096];
        let mut entries = Vec::new();
        let mut at = range.start();
        while at < range.end() {
            let Some(vma) = sys::query_mapping(self.file.as_fd(), at, &mut name)? else {
                break;
            };
            let Some(found) = AddrRange::new(Addr(vma.vma_start), Addr(vma.vma_end)) else {
                break;
            };
            if range.end() <= found.start() {
                break;
            }
            let mut prot = Prot::NONE;
            prot.set(Prot::READ, vma.vma_flags & READABLE != 0);
            prot.set(Prot::WRITE, vma.vma_flags & WRITABLE != 0);
            prot.set(Prot::EXEC, vma.vma_flags & EXECUTABLE != 0);
            let length = (vma.vma_name_size as usize).saturating_sub(1);
            entries.push(MapsEntry {
                range: found,
                prot,
                shared: vma.vma_flags & SHARED != 0,
                offset: vma.vma_offset,
                file: FileId {
                    major: vma.dev_major,
                    minor: vma.dev_minor,
                    inode: vma.inode,
                },
                name: text(name.get(..length).unwrap_or_default()).into(),
            });
            at = found.end();
        }
        Ok(Evidence { range, entries })
    }
}
