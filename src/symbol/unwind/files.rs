//! Finds the files of code, while their processes live or thereafter.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::timeline::Module;
use crate::units::{Addr, AddrRange, Tid};

use super::code::Code;
use super::infer::Text;

/// How long a file may keep us waiting: a tracee may be what serves it, and must not wait for us for
/// ever. Long, because a busy machine is slow and a file given up is not read again.
const PATIENCE: Duration = Duration::from_secs(10);
/// A file that could not be opened is tried again, so often.
const TRIES: u8 = 4;
/// The largest image that is read from memory.
const LARGEST_IMAGE: u64 = 1 << 20;

/// Everything read so far.
#[derive(Debug, Default)]
pub(super) struct Files {
    known: HashMap<Module, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    code: Option<Code>,
    reading: Option<Later<Loaded>>,
    failures: u8,
    /// `Some(None)`: it was looked for.
    text: Option<Option<Text>>,
}

impl Files {
    /// Begins to read what will be asked for.
    pub(super) fn expect(&mut self, module: &Module, pid: Tid, range: AddrRange) {
        let entry = self.entry(module);
        if let Some(entry) = entry.filter(|entry| entry.code.is_none() && entry.failures == 0)
            && entry.reading.is_none()
        {
            entry.reading = load(module.clone(), pid, range);
        }
    }

    /// The code of `module`, which a task of `pid` has at `range`.
    pub(super) fn code(
        &mut self,
        module: &Module,
        pid: Tid,
        range: AddrRange,
    ) -> Option<&mut Code> {
        let entry = self.entry(module)?;
        if entry.code.is_none() && entry.failures < TRIES {
            let reading = entry.reading.take();
            let reading = reading.or_else(|| load(module.clone(), pid, range));
            match reading.and_then(Later::done) {
                Some(Loaded::Code(code)) => entry.code = Some(*code),
                Some(Loaded::Nothing) | None => entry.failures = TRIES,
                Some(Loaded::Unreadable) => entry.failures += 1,
            }
        }
        entry.code.as_mut()
    }

    fn entry(&mut self, module: &Module) -> Option<&mut Entry> {
        if module.file.inode == 0 && &*module.path != "[vdso]" {
            return None;
        }
        if !self.known.contains_key(module) {
            self.known.insert(module.clone(), Entry::default());
        }
        self.known.get_mut(module)
    }

    /// The instructions of `module`.
    pub(super) fn text(
        &mut self,
        module: &Module,
        pid: Tid,
        range: AddrRange,
    ) -> Option<&mut Text> {
        let entry = self.entry(module)?;
        let text = entry.text.get_or_insert_with(|| {
            let module = module.clone();
            patiently(move || match module.file.inode {
                // What 32-bit code enters the kernel by. Otherwise unwind information tells.
                0 => Some(Text::of_bytes32(copied(pid, range).ok()?)),
                _ => Text::of_file(opened(&module, pid, range)?),
            })?
        });
        text.as_mut()
    }

    /// The same, and an address in the file: it knows where functions begin around an offset.
    pub(super) fn functions(
        &mut self,
        module: &Module,
        pid: Tid,
        range: AddrRange,
        offset: u64,
    ) -> Option<(&mut Text, u64)> {
        self.text(module, pid, range)?;
        let entry = self.known.get_mut(module)?;
        let text = entry.text.as_mut()?.as_mut()?;
        let address = text.address(offset)?;
        text.learn(address, entry.code.as_ref().and_then(Code::go));
        Some((text, address))
    }
}

#[derive(Debug)]
enum Loaded {
    Code(Box<Code>),
    /// It is no file of code, or too slow.
    Nothing,
    Unreadable,
}

fn load(module: Module, pid: Tid, range: AddrRange) -> Option<Later<Loaded>> {
    Later::begin(move || match module.file.inode {
        0 => from_memory(pid, range),
        _ => from_file(&module, pid, range),
    })
}

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    /// A thread that reads files for this one.
    static READER: RefCell<Option<Sender<Job>>> = const { RefCell::new(None) };
}

/// What another thread is doing, because it may take too long, or for ever.
#[derive(Debug)]
struct Later<T> {
    answers: Receiver<T>,
    asked: Instant,
}

impl<T: Send + 'static> Later<T> {
    /// Lets it be done; `None` if there is nobody to do it.
    fn begin(work: impl FnOnce() -> T + Send + 'static) -> Option<Later<T>> {
        let (answer, answers) = mpsc::channel();
        let job: Job = Box::new(move || {
            let _ = answer.send(work());
        });
        READER.with_borrow_mut(|reader| {
            let reader = match reader {
                Some(reader) => reader,
                None => reader.insert(new_reader()?),
            };
            reader.send(job).ok()
        })?;
        let asked = Instant::now();
        Some(Later { answers, asked })
    }

    /// Waits for it; `None` if it takes too long.
    fn done(self) -> Option<T> {
        let left = PATIENCE.saturating_sub(self.asked.elapsed());
        let done = self.answers.recv_timeout(left).ok();
        if done.is_none() {
            // Nobody waits for its end.
            READER.with_borrow_mut(Option::take);
        }
        done
    }
}

/// Does what may take too long, or for ever; `None` if it does.
pub(super) fn patiently<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    Later::begin(work)?.done()
}

fn new_reader() -> Option<Sender<Job>> {
    let (jobs, work) = mpsc::channel::<Job>();
    let thread = thread::Builder::new().name("code".into());
    thread
        .spawn(move || work.iter().for_each(|job| job()))
        .ok()?;
    Some(jobs)
}

fn from_memory(pid: Tid, range: AddrRange) -> Loaded {
    match copied(pid, range).or_else(|_| own_vdso(range.len())) {
        Ok(bytes) => made(Code::of_bytes(&bytes)),
        Err(_) => Loaded::Unreadable,
    }
}

/// The vdso of this process, if it has that size: the kernel has one for all 64-bit programs, and the
/// one whose stack it is may have ended meanwhile.
fn own_vdso(size: u64) -> io::Result<Vec<u8>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"));
    let range = line.and_then(|line| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok().map(Addr);
        AddrRange::new(address(start)?, address(end)?)
    });
    match range.filter(|range| range.len() == size) {
        Some(range) => copied(Tid(std::process::id() as i32), range),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

fn copied(pid: Tid, range: AddrRange) -> io::Result<Vec<u8>> {
    let size = range.len().min(LARGEST_IMAGE);
    let mut bytes = vec![0; size as usize];
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    memory.read_exact_at(&mut bytes, range.start().0)?;
    Ok(bytes)
}

fn from_file(module: &Module, pid: Tid, range: AddrRange) -> Loaded {
    match opened(module, pid, range) {
        Some(file) => made(Code::of_file(file)),
        None => Loaded::Unreadable,
    }
}

/// The file that a module is.
fn opened(module: &Module, pid: Tid, range: AddrRange) -> Option<File> {
    // Maps escapes nothing but the end of a line.
    let path = module.path.trim_end_matches(" (deleted)");
    let path = path.replace("\\012", "\n");
    let (start, end) = (range.start().0, range.end().0);
    let sources = [
        format!("/proc/{pid}/root{path}"),
        format!("/proc/{pid}/map_files/{start:x}-{end:x}"),
        path.clone(),
    ];
    // Not the device: on btrfs and overlayfs stat(2) and maps name different ones.
    let is_it = |file: &File| {
        let meta = file.metadata();
        meta.is_ok_and(|meta| meta.is_file() && meta.ino() == module.file.inode)
    };
    sources.iter().filter_map(|source| open(source)).find(is_it)
}

fn made(code: Option<Code>) -> Loaded {
    code.map_or(Loaded::Nothing, |code| Loaded::Code(Box::new(code)))
}

/// Opens without waiting for whatever may be there instead of a file.
fn open(path: &str) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).ok()
}
