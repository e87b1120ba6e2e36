//! From frames to names.
//!
//! A name is a fact or it is not given: a file counts only if it is the one that was traced, and a
//! symbol only if it holds the address.
//!
//! Sources, in this order: the names a trace holds; the full table of symbols of the file or of its
//! separate debug file; where there is neither, `.gnu_debugdata` and the dynamic table. DWARF adds
//! source lines and the functions that were inlined.

mod elf;
mod files;
mod image;
mod jit;
mod lines;
mod live;
mod perf_map;
mod process;
mod readable;
mod table;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::timeline::{
    Began, Frame, FrameName, Module, ModuleId, Namer, Observed, Stacks, Timeline,
};
use crate::trace_file::Source;
use crate::units::{Addr, SpaceId, Tid, Timestamp};

use elf::{Data, Elf};
use files::Below;
use image::{Image, Named};
use jit::Compiled;
use process::{Opened, PerfMapFile};

pub use live::{LiveNames, Whose};
pub use perf_map::PerfMap;
pub use process::{Home, Roots};

/// Modules whose files are read, at most: each takes memory as long as names are asked for.
const MOST_MODULES: usize = 4096;

/// Names from the files of code themselves.
pub struct Symbols {
    /// All that a trace tells of its stacks, also what it tells only at its end.
    told: Timeline,
    /// A file that has no build-id is believed to be the one that was traced only if it has not
    /// changed since then: seconds since 1970.
    began: Option<i64>,
    /// Files of code that were opened while their processes lived.
    supplied: HashMap<ModuleId, Opened>,
    /// Of a recorded trace.
    lives: HashMap<SpaceId, Life>,
    compiled: Compiled,
    modules: HashMap<ModuleId, Option<Box<Image>>>,
    named: HashMap<Frame, Arc<[FrameName]>>,
    texts: HashSet<Arc<str>>,
    /// Bytes of DWARF that may still be read.
    dwarf_left: u64,
    notes: Vec<String>,
    said: HashSet<ModuleId>,
}

/// When a space was there, and of which process.
#[derive(Clone, Debug)]
struct Life {
    pid: Tid,
    parent: Option<SpaceId>,
    time: RangeInclusive<Timestamp>,
}

impl Default for Symbols {
    fn default() -> Symbols {
        Symbols {
            told: Timeline::default(),
            began: None,
            supplied: HashMap::new(),
            lives: HashMap::new(),
            compiled: Compiled::default(),
            modules: HashMap::new(),
            named: HashMap::new(),
            texts: HashSet::new(),
            dwarf_left: lines::MOST_DWARF_OF_ALL,
            notes: Vec::new(),
            said: HashSet::new(),
        }
    }
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols")
            .field("modules", &self.modules.len())
            .field("named", &self.named.len())
            .finish_non_exhaustive()
    }
}

impl Symbols {
    /// Names for a recorded trace, from the files of this machine as far as they are the ones that
    /// were traced. Reads the trace to its end: names and build-ids may come after what they are of.
    pub fn of(source: &mut dyn Source) -> io::Result<Symbols> {
        let started = source.info().started.parse::<jiff::Timestamp>();
        let mut symbols = Symbols {
            began: started.ok().map(jiff::Timestamp::as_second),
            ..Symbols::default()
        };
        let mut last = Timestamp(0);
        while let Some(observation) = source.next()? {
            last = last.max(observation.time);
            match &observation.what {
                Observed::SpaceBegan(began) => {
                    let parent = match began.began {
                        Began::Fork { parent } => parent,
                        Began::Exec | Began::Attach => None,
                    };
                    let life = Life {
                        pid: began.pid,
                        parent,
                        time: observation.time..=Timestamp(u64::MAX),
                    };
                    symbols.lives.insert(began.space, life);
                }
                Observed::SpaceEnded { space, .. } => {
                    if let Some(life) = symbols.lives.get_mut(space) {
                        life.time = *life.time.start()..=observation.time;
                    }
                }
                _ => symbols.tell(observation.what),
            }
        }
        for life in symbols.lives.values_mut() {
            life.time = *life.time.start()..=last.min(*life.time.end());
        }
        Ok(symbols)
    }

    /// By the file that a just-in-time compiler left on this machine.
    fn compiled(&mut self, space: SpaceId, pc: Addr) -> Option<FrameName> {
        let second = |time: Timestamp| self.began?.checked_add_unsigned(time.0 / 1_000_000_000);
        let mut next = Some(space);
        for _ in 0..=jit::MOST_PARENTS {
            let Some(life) = next.and_then(|space| self.lives.get(&space)) else {
                break;
            };
            // `began` is rounded to seconds, and times of files lag behind.
            let from = second(*life.time.start())?.saturating_sub(1);
            let to = second(*life.time.end())?.saturating_add(1);
            let file = PerfMapFile::left_by(life.pid, from..=to);
            self.compiled.follow(next?, file, life.parent);
            next = life.parent;
        }
        self.compiled.name(space, pc)
    }

    /// Takes what an observation tells of stacks, and forgets the rest of it.
    fn tell(&mut self, what: Observed) {
        let of_stacks = matches!(
            what,
            Observed::File(_) | Observed::Module(_) | Observed::Stack(_) | Observed::Names(_)
        );
        if of_stacks {
            let time = Timestamp(0);
            let observation = crate::timeline::Observation { time, what };
            self.told.observe(observation, &mut Vec::new());
        }
    }

    /// Takes the file of a module.
    fn supply(&mut self, module: ModuleId, opened: Opened) {
        self.supplied.insert(module, opened);
    }

    /// Names nothing more in a module.
    fn forget(&mut self, module: ModuleId) {
        self.supplied.remove(&module);
        self.modules.insert(module, None);
        let within =
            |frame: &Frame| matches!(frame, Frame::Module { module: it, .. } if *it == module);
        self.named.retain(|frame, _| !within(frame));
    }

    /// What the user should know of names that are missing, since the last call.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn by_file(&mut self, module: ModuleId, offset: u64, stacks: &Stacks) -> Arc<[FrameName]> {
        if !self.modules.contains_key(&module) {
            let it = stacks
                .module(module)
                .or_else(|| self.told.stacks.module(module));
            let image = match it.map(Arc::clone) {
                Some(it) if self.modules.len() < MOST_MODULES => self.read(module, &it, stacks),
                _ => None,
            };
            self.modules.insert(module, image.map(Box::new));
        }
        let Some(Some(image)) = self.modules.get(&module) else {
            return [].into();
        };
        let names = image.names(offset, &mut self.dwarf_left);
        if let Some(size) = image.left_out()
            && self.said.insert(module)
        {
            let path = stacks.module(module).map_or("", |module| &module.path);
            self.notes.push(format!(
                "{path} has {} MiB of debug information, which is more than is read: no source lines for it",
                size >> 20
            ));
        }
        let texts = &mut self.texts;
        names
            .into_iter()
            .map(|name| frame_name(name, texts))
            .collect()
    }

    /// The file of a module, if it can be had and is the same.
    fn read(&mut self, id: ModuleId, module: &Module, stacks: &Stacks) -> Option<Image> {
        let path = &*files::path_of(module);
        let build_id = stacks
            .build_id(module)
            .or_else(|| self.told.stacks.build_id(module))
            .map(|id| id.to_vec());
        let ours = Below {
            root: Path::new(""),
            path,
        };
        if let Some(Opened { data, root }) = self.supplied.remove(&id) {
            let elf = Elf::read(data)?;
            let same = build_id.is_none_or(|id| id == elf.build_id || id.is_empty());
            let theirs = Below {
                root: &root.path(),
                path: root.inside(path),
            };
            return same.then(|| Image::new(elf, &[theirs, ours]));
        }
        if !path.starts_with('/') {
            return None;
        }
        let here = files::open(Path::new(path)).and_then(|(file, meta)| {
            let elf = Elf::read(Data::file(file).ok()?)?;
            Some((elf, meta))
        });
        let found = here.is_some();
        let same = here.filter(|(elf, meta)| match &build_id {
            Some(id) if !id.is_empty() => *id == elf.build_id,
            Some(_) if elf.id_in_segment => false,
            _ => self.same_inode(module, meta),
        });
        let elf = same
            .map(|(elf, _)| elf)
            .or_else(|| Some(files::by_build_id(build_id.as_deref()?, "", ours.root)?.0));
        if elf.is_none() && self.said.insert(id) {
            self.notes.push(match found {
                true => format!(
                    "{path} is another version than the one that was traced: it names nothing"
                ),
                false => format!("{path} is not here: it names nothing"),
            });
        }
        Some(Image::new(elf?, &[ours]))
    }

    /// Whether a file that cannot be told by its build-id is the very one that was mapped.
    fn same_inode(&self, module: &Module, meta: &Metadata) -> bool {
        let device = (
            nix::sys::stat::major(meta.dev()) as u32,
            nix::sys::stat::minor(meta.dev()) as u32,
        );
        module.file.inode == meta.ino()
            && device == (module.file.major, module.file.minor)
            && self
                .began
                .is_some_and(|began| files::unchanged_since(meta, began))
    }
}

/// What an ELF file says by itself of frames at some offsets in it: nothing else is opened.
pub fn names_in(file: Vec<u8>, offsets: &[u64]) -> Vec<Arc<[FrameName]>> {
    let elf = Elf::read(Data::Memory(file.into()));
    let image = elf.map(|elf| Image::new(elf, &[]));
    let mut texts = HashSet::new();
    let mut left = lines::MOST_DWARF_OF_ALL;
    let mut names = |offset: &u64| {
        let named = image
            .iter()
            .flat_map(|image| image.names(*offset, &mut left));
        named.map(|name| frame_name(name, &mut texts)).collect()
    };
    offsets.iter().map(&mut names).collect()
}

/// Whether the file of a module can be found and told from others later, on this machine.
fn lasts(module: &Module, stacks: &Stacks) -> bool {
    let known = stacks.build_id(module).is_some_and(|id| !id.is_empty());
    let there = files::open(Path::new(&files::path_of(module)));
    known && there.is_some_and(|(_, meta)| meta.ino() == module.file.inode)
}

fn frame_name(name: Named, texts: &mut HashSet<Arc<str>>) -> FrameName {
    let mut shared = |text: String| match texts.get(text.as_str()) {
        Some(known) => Arc::clone(known),
        None => {
            let text: Arc<str> = text.into();
            texts.insert(Arc::clone(&text));
            text
        }
    };
    FrameName {
        function: shared(name.function),
        offset: name.offset,
        file: name.file.map(&mut shared),
        line: name.line,
    }
}

impl Namer for Symbols {
    fn name(&mut self, frame: Frame, stacks: &Stacks) -> Arc<[FrameName]> {
        let held = stacks
            .names(frame)
            .or_else(|| self.told.stacks.names(frame));
        if let Some(held) = held {
            return Arc::clone(held);
        }
        if let Some(known) = self.named.get(&frame) {
            return Arc::clone(known);
        }
        let names = match frame {
            Frame::Module { module, offset } => self.by_file(module, offset, stacks),
            Frame::Bare { space, pc } => self.compiled(space, pc).into_iter().collect(),
        };
        self.named.insert(frame, Arc::clone(&names));
        names
    }
}
