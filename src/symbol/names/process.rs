//! Files as a process sees them: through its root directory, as long as it lives and after.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::timeline::Module;
use crate::units::{AddrRange, Tid};

use super::elf::{Cursor, Data};
use super::files;

/// Most root directories that are kept open.
const MOST_ROOTS: usize = 64;
/// Longest vdso that is copied: the kernel's have two pages or three.
const MOST_VDSO: u64 = 256 << 10;

/// What tells one view of the file system from another: mount namespace and root directory, as
/// links of `/proc` name them.
type View = (PathBuf, PathBuf);

/// The root directory of a process.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// `None` if it is ours.
    held: Option<Arc<Held>>,
    /// It has our mounts: paths in its maps are ours.
    our_mounts: bool,
}

/// A root directory, held open: its process may be gone when files are read. With the last process
/// of a mount namespace all its mounts would go, so that is held too.
#[derive(Debug)]
struct Held {
    root: File,
    /// Where it lies, as its process's links show it.
    at: PathBuf,
    _mounts: File,
}

impl Root {
    const OURS: Root = Root {
        held: None,
        our_mounts: true,
    };

    /// As a path for us, empty if it is ours.
    pub fn path(&self) -> PathBuf {
        match &self.held {
            Some(held) => PathBuf::from(format!("/proc/self/fd/{}", held.root.as_raw_fd())),
            None => PathBuf::new(),
        }
    }

    /// Whether what lies beneath will be found later: no other root directory leads there then.
    pub fn is_ours(&self) -> bool {
        self.held.is_none()
    }

    /// What a path that maps shows us is below this root: where the mounts are ours, it begins at our
    /// root.
    pub fn inside<'a>(&self, path: &'a str) -> &'a str {
        let held = self.held.as_ref().filter(|_| self.our_mounts);
        let below = held.and_then(|held| path.strip_prefix(held.at.to_str()?));
        below.filter(|path| path.starts_with('/')).unwrap_or(path)
    }
}

/// Root directories of processes.
#[derive(Debug, Default)]
pub struct Roots {
    ours: Option<View>,
    open: HashMap<View, Arc<Held>>,
}

impl Roots {
    /// The root directory of a task; `None` if the task is gone. This asks nothing of a file
    /// system but `/proc`: one that a tracee serves could keep us waiting for ever.
    pub(super) fn of(&mut self, tid: Tid) -> Option<Root> {
        let folder = format!("/proc/{tid}");
        if self.ours.is_none() {
            self.ours = view("/proc/self");
        }
        let ours = self.ours.as_ref()?;
        let theirs = view(&folder)?;
        if *ours == theirs {
            return Some(Root::OURS);
        }
        let our_mounts = ours.0 == theirs.0;
        if !self.open.contains_key(&theirs) {
            if MOST_ROOTS <= self.open.len() {
                return None;
            }
            let mut options = OpenOptions::new();
            options
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
            let root = options.open(format!("{folder}/root")).ok()?;
            let _mounts = File::open(format!("{folder}/ns/mnt")).ok()?;
            // The task may have ended and its number been given away in between.
            if view(&folder).is_none_or(|now| now != theirs) {
                return None;
            }
            let at = theirs.1.clone();
            let held = Arc::new(Held { root, at, _mounts });
            self.open.insert(theirs.clone(), held);
        }
        let held = self.open.get(&theirs).map(Arc::clone);
        Some(Root { held, our_mounts })
    }
}

fn view(folder: &str) -> Option<View> {
    let mounts = fs::read_link(format!("{folder}/ns/mnt")).ok()?;
    let root = fs::read_link(format!("{folder}/root")).ok()?;
    Some((mounts, root))
}

/// What is known of a process from when it was seen first: it may be gone when it is needed.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its root directory; `None` if that could not be opened.
    root: Option<Root>,
    /// Its number in its own namespace.
    number: i32,
    /// Its user; `None` if nobody knows.
    owner: Option<u32>,
}

impl Home {
    /// That of a process, by one of its tasks; `pid` is its number for us.
    pub fn of(tid: Tid, pid: Tid, roots: &mut Roots) -> Home {
        Home {
            root: roots.of(tid),
            number: own_number(tid).unwrap_or(pid.0),
            owner: fs::metadata(format!("/proc/{tid}"))
                .ok()
                .map(|meta| meta.uid()),
        }
    }
}

/// A file of code that a task has mapped, and the root through which it was found.
#[derive(Debug)]
pub(super) struct Opened {
    pub data: Data,
    pub root: Root,
}

impl Opened {
    /// Opens the file of `module`, which `tid`, whose home is `home`, has mapped at `range`; or
    /// copies what is no file.
    pub fn of(
        module: &Module,
        tid: Tid,
        range: Option<AddrRange>,
        home: Option<&Home>,
        roots: &mut Roots,
    ) -> Option<Opened> {
        if &*module.path == "[vdso]" {
            let data = vdso(tid, range?)?;
            let root = Root::OURS;
            return Some(Opened { data, root });
        }
        let path = &*files::path_of(module);
        if !path.starts_with('/') {
            return None;
        }
        // Not the device: on btrfs and overlayfs stat(2) and maps name different ones.
        let mapped = |found: &(File, Metadata)| found.1.ino() == module.file.inode;
        let root = roots.of(tid).or_else(|| home?.root.clone());
        if let Some(root) = root {
            let ours = || files::open(Path::new(path)).filter(|_| root.our_mounts);
            let in_root = || files::open_beneath(&root.path(), path);
            let exe = || files::open(Path::new(&format!("/proc/{tid}/exe")));
            let mapping = || {
                let (start, end) = range.map(|range| (range.start().0, range.end().0))?;
                files::open(Path::new(&format!(
                    "/proc/{tid}/map_files/{start:x}-{end:x}"
                )))
            };
            let sources: [&dyn Fn() -> Option<(File, Metadata)>; 4] =
                [&ours, &in_root, &exe, &mapping];
            let found = sources.into_iter().find_map(|open| open().filter(mapped));
            if let Some((file, _)) = found {
                let data = Data::file(file).ok()?;
                return Some(Opened { data, root });
            }
        }
        // It is gone already. Another process's path may mean something else here.
        let device = |meta: &Metadata| {
            nix::sys::stat::major(meta.dev()) == u64::from(module.file.major)
                && nix::sys::stat::minor(meta.dev()) == u64::from(module.file.minor)
        };
        let here = files::open(Path::new(path)).filter(mapped);
        let (file, _) = here.filter(|(_, meta)| device(meta))?;
        let data = Data::file(file).ok()?;
        let root = Root::OURS;
        Some(Opened { data, root })
    }
}

/// The code that the kernel gives to every process of a kind, from a task's memory, or from ours.
fn vdso(tid: Tid, range: AddrRange) -> Option<Data> {
    let theirs = memory(&format!("/proc/{tid}/mem"), range);
    let bytes = theirs.or_else(|| {
        // A 32-bit process has another one.
        let wide = u64::from(u32::MAX) < range.start().0;
        memory("/proc/self/mem", own_vdso().filter(|_| wide)?)
    })?;
    Some(Data::Memory(bytes.into()))
}

fn memory(path: &str, range: AddrRange) -> Option<Vec<u8>> {
    if MOST_VDSO < range.len() {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(range.len()).ok()?];
    let file = File::open(path).ok()?;
    file.read_exact_at(&mut bytes, range.start().0).ok()?;
    Some(bytes)
}

fn own_vdso() -> Option<AddrRange> {
    let maps = fs::read("/proc/self/maps").ok()?;
    let maps = crate::mm::parse_maps(&maps).ok()?;
    let vdso = maps.entries.iter().find(|entry| &*entry.name == "[vdso]");
    Some(vdso?.range)
}

/// Where a process writes what it compiled just in time.
#[derive(Debug)]
pub(super) struct PerfMapFile {
    path: PathBuf,
    /// Where that leads through.
    _root: Option<Root>,
    /// Who may have written it, besides root.
    owner: Option<u32>,
    /// When it was written last, in seconds since 1970, if that matters.
    written: Option<RangeInclusive<i64>>,
    read: u64,
}

impl PerfMapFile {
    /// The file of a process.
    pub fn of(home: &Home) -> PerfMapFile {
        let root = home.root.as_ref().map(Root::path).unwrap_or_default();
        PerfMapFile {
            path: files::beneath(&root, &format!("/tmp/perf-{}.map", home.number)),
            _root: home.root.clone(),
            owner: home.owner,
            written: None,
            read: 0,
        }
    }

    /// The file that a process which is gone left here, written last in `seconds` since 1970.
    /// Others had its number before and after it.
    pub fn left_by(pid: Tid, seconds: RangeInclusive<i64>) -> PerfMapFile {
        PerfMapFile {
            path: PathBuf::from(format!("/tmp/perf-{pid}.map")),
            _root: None,
            owner: None,
            written: Some(seconds),
            read: 0,
        }
    }

    /// What has been written since the last call, up to `most` bytes.
    pub fn more(&mut self, most: u64) -> Option<Vec<u8>> {
        let mut options = OpenOptions::new();
        options.read(true);
        // A link in a world-writable folder may lead anywhere.
        options
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NOFOLLOW);
        let file = options.open(&self.path).ok()?;
        let meta = file.metadata().ok().filter(Metadata::is_file)?;
        let trusted = meta.uid() == 0
            || match self.owner {
                Some(owner) => meta.uid() == owner,
                None => meta.uid() == nix::unistd::geteuid().as_raw(),
            };
        let written = self.written.as_ref();
        let in_time = written.is_none_or(|seconds| seconds.contains(&meta.mtime()));
        if !trusted || !in_time || meta.len() <= self.read {
            return None;
        }
        let mut bytes = Vec::new();
        let length = (meta.len() - self.read).min(most);
        let data = Data::file(file).ok()?;
        let cursor = Cursor {
            data: &data,
            at: self.read,
        };
        cursor.take(length).read_to_end(&mut bytes).ok()?;
        self.read += bytes.len() as u64;
        Some(bytes)
    }
}

/// The number of a process in its own namespace.
fn own_number(tid: Tid) -> Option<i32> {
    let status = fs::read(format!("/proc/{tid}/status")).ok()?;
    let line = status
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"NStgid:"))?;
    let last = std::str::from_utf8(line)
        .ok()?
        .split_ascii_whitespace()
        .last()?;
    last.parse().ok()
}
