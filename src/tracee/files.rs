//! What mapped files of code say of themselves: build-id and version.
//!
//! Looked for in the observations themselves, when those are handed on, and read by a thread of
//! its own: no tracee waits for a file, not even for one on a file system that a tracee serves.
//! Each file is read once. A process may be gone by then; so the file is opened through its root
//! directory, by its mapping, or by our own path to it, and must have the mapping's inode.

mod elf;

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::abi::{CallKind, Prot};
use crate::decode::{FetchedData, effective_kind};
use crate::mm::{FileId, MapsEntry};
use crate::timeline::{CallDone, FileSeen, Observation, Observed};
use crate::units::{AddrRange, SpaceId, Tid};

use super::procfs;

/// Files that are looked at in one trace, at most.
const MOST: usize = 4096;
/// A file that could not be opened is tried again when another space maps it, so often.
const TRIES: u8 = 4;
/// How long the end of a trace waits for what is still being read.
const PATIENCE: Duration = Duration::from_millis(500);

/// A file as a mapping or a call names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    path: Arc<str>,
    /// `None` where only a call told of it.
    file: Option<FileId>,
}

/// A file to be looked at.
#[derive(Debug)]
struct Wanted {
    key: Key,
    tid: Tid,
    space: SpaceId,
    range: Option<AddrRange>,
}

/// What came of it.
#[derive(Debug)]
enum Answer {
    Seen(FileSeen),
    /// It is known already, or no ELF file.
    Nothing,
    /// It could not be opened.
    Unreadable(Key),
}

/// Which files were asked for, and the thread that reads them.
#[derive(Debug)]
pub(super) struct Files {
    asked: HashSet<Key>,
    failed: HashMap<Key, u8>,
    /// A task of each space, to reach its root directory.
    tasks: HashMap<SpaceId, Tid>,
    outstanding: usize,
    ready: Vec<FileSeen>,
    /// `None` if no thread could be started: then nothing is said of files.
    reader: Option<(Sender<Wanted>, Receiver<Answer>)>,
}

impl Files {
    /// Starts the thread: after signals were blocked, before the calling thread is placed anywhere.
    pub(super) fn start() -> Files {
        Files {
            asked: HashSet::new(),
            failed: HashMap::new(),
            tasks: HashMap::new(),
            outstanding: 0,
            ready: Vec::new(),
            reader: start(),
        }
    }

    /// Asks for every file of code in `observations` that was not asked for before.
    pub(super) fn look_for(&mut self, observations: &[Observation]) {
        for observation in observations {
            match &observation.what {
                Observed::SpaceBegan(began) => {
                    self.tasks.insert(began.space, began.pid);
                    self.mapped(began.space, &began.snapshot.entries);
                }
                Observed::Checkpoint {
                    space, snapshot, ..
                } => self.mapped(*space, &snapshot.entries),
                Observed::Call(call) => {
                    if let Some(path) = mapped_code(call) {
                        let key = Key { path, file: None };
                        self.want(key, call.tid, call.space, None);
                    }
                }
                Observed::SpaceEnded { space, .. } => drop(self.tasks.remove(space)),
                _ => {}
            }
        }
    }

    fn mapped(&mut self, space: SpaceId, entries: &[MapsEntry]) {
        let Some(&tid) = self.tasks.get(&space) else {
            return;
        };
        for entry in entries {
            if entry.prot.contains(Prot::EXEC) && entry.file.inode != 0 {
                let key = Key {
                    path: Arc::clone(&entry.name),
                    file: Some(entry.file),
                };
                self.want(key, tid, space, Some(entry.range));
            }
        }
    }

    fn want(&mut self, key: Key, tid: Tid, space: SpaceId, range: Option<AddrRange>) {
        let Some((ask, _)) = &self.reader else {
            return;
        };
        if MOST <= self.asked.len() || !key.path.starts_with('/') || self.asked.contains(&key) {
            return;
        }
        self.asked.insert(key.clone());
        let wanted = Wanted {
            key,
            tid,
            space,
            range,
        };
        self.outstanding += usize::from(ask.send(wanted).is_ok());
    }

    /// What has been read since the last call.
    pub(super) fn take(&mut self) -> Vec<FileSeen> {
        while 0 < self.outstanding
            && let Some((_, answers)) = &self.reader
            && let Ok(answer) = answers.try_recv()
        {
            self.answered(answer);
        }
        std::mem::take(&mut self.ready)
    }

    /// Waits a moment for what is still being read.
    pub(super) fn wait(&mut self) {
        let until = Instant::now() + PATIENCE;
        while 0 < self.outstanding
            && let Some((_, answers)) = &self.reader
            && let Ok(answer) =
                answers.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.answered(answer);
        }
    }

    fn answered(&mut self, answer: Answer) {
        self.outstanding -= 1;
        match answer {
            Answer::Seen(file) => self.ready.push(file),
            Answer::Nothing => {}
            Answer::Unreadable(key) => {
                let failures = self.failed.entry(key.clone()).or_default();
                *failures += 1;
                if *failures < TRIES {
                    self.asked.remove(&key);
                }
            }
        }
    }
}

/// The file that a successful mmap mapped as code.
fn mapped_code(call: &CallDone) -> Option<Arc<str>> {
    let executable = call.call.args[2] & u64::from(Prot::EXEC.bits()) != 0;
    if call.fetched.is_empty() || !executable || (-4095..0).contains(&call.result) {
        return None;
    }
    let is_mmap = matches!(
        effective_kind(&call.call),
        Some(CallKind::Mmap | CallKind::Mmap2)
    );
    let path = call.fetched.iter().find_map(|fetched| match &fetched.data {
        FetchedData::Path(path) => Some(path),
        _ => None,
    });
    let path = path.filter(|_| is_mmap)?;
    Some(procfs::text(path).into())
}

fn start() -> Option<(Sender<Wanted>, Receiver<Answer>)> {
    let (ask, asked) = mpsc::channel::<Wanted>();
    let (answer, answers) = mpsc::channel();
    let work = move || {
        let mut known = HashSet::new();
        while let Ok(wanted) = asked.recv() {
            if answer.send(look(wanted, &mut known)).is_err() {
                break;
            }
        }
    };
    // It ends with the channel; nobody waits for it, as a file may hang.
    let thread = thread::Builder::new().name("files".into()).spawn(work);
    thread.is_ok().then_some((ask, answers))
}

/// Opens a file and reads it, unless its path and inode are `known`.
fn look(wanted: Wanted, known: &mut HashSet<(Arc<str>, u64)>) -> Answer {
    let path: Arc<str> = wanted.key.path.trim_end_matches(" (deleted)").into();
    if let Some(file) = wanted.key.file
        && known.contains(&(Arc::clone(&path), file.inode))
    {
        return Answer::Nothing;
    }
    let Some((opened, file)) = open(&wanted, &path) else {
        return Answer::Unreadable(wanted.key);
    };
    if !known.insert((Arc::clone(&path), file.inode)) {
        return Answer::Nothing;
    }
    let Some(facts) = elf::facts(opened) else {
        return Answer::Nothing;
    };
    let root = format!("/proc/{}/root", wanted.tid);
    let jdk = || jdk_version(&root, &path).or_else(|| jdk_version("", &path));
    Answer::Seen(FileSeen {
        space: wanted.space,
        file,
        build_id: facts.build_id.into(),
        version: facts.version.or_else(jdk).map(Arc::from),
        path,
    })
}

/// The file behind a mapping: by name if its inode is the mapping's. Where only a call told of it,
/// the name in the task's own root must do.
fn open(wanted: &Wanted, path: &str) -> Option<(File, FileId)> {
    let Wanted {
        key, tid, range, ..
    } = wanted;
    let identity = |file: &File| {
        let meta = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        match key.file {
            // Not the device: on btrfs and overlayfs stat(2) and maps name different ones.
            Some(mapped) => (mapped.inode == meta.ino()).then_some(mapped),
            None => Some(FileId {
                major: nix::sys::stat::major(meta.dev()) as u32,
                minor: nix::sys::stat::minor(meta.dev()) as u32,
                inode: meta.ino(),
            }),
        }
    };
    let in_root = || open_file(&format!("/proc/{tid}/root{path}"));
    let by_range = || {
        let (start, end) = range.map(|range| (range.start().0, range.end().0))?;
        open_file(&format!("/proc/{tid}/map_files/{start:x}-{end:x}"))
    };
    let here = || key.file.and_then(|_| open_file(path));
    let sources: [&dyn Fn() -> Option<File>; 3] = [&in_root, &by_range, &here];
    sources.into_iter().find_map(|source| {
        let file = source()?;
        identity(&file).map(|identity| (file, identity))
    })
}

/// The version that an ELF file states; see [`FileSeen::version`].
pub(super) fn version_of(path: &Path) -> Option<String> {
    elf::facts(open_file(path.to_str()?)?)?.version
}

/// Opens without waiting for whatever may be there instead of a file.
fn open_file(path: &str) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).ok()
}

/// JAVA_VERSION of the file `release` in the JDK that a libjvm.so belongs to.
fn jdk_version(root: &str, path: &str) -> Option<String> {
    if Path::new(path).file_name()? != "libjvm.so" {
        return None;
    }
    let home = Path::new(path).ancestors().nth(3)?.to_str()?;
    let mut text = String::new();
    let release = open_file(&format!("{root}{home}/release"))?;
    release.take(64 << 10).read_to_string(&mut text).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("JAVA_VERSION="))?;
    Some(line.trim_matches('"').to_owned()).filter(|version| !version.is_empty())
}
