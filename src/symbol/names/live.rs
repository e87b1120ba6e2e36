//! Names while a program is traced: read by a thread of its own.
//!
//! The file of a module is opened when a stack first leads through it, as its process may be gone
//! when the name is wanted; it is read only if one is. Opening and reading may take long, for ever
//! where the file system is served by a tracee that waits for us. So nobody waits for the thread
//! but for a short while: a name that is not there in time is shown as missing.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::timeline::{
    Began, Frame, FrameName, ModuleId, Namer, NamesSeen, Observed, RawStack, SpaceBegan, Stacks,
};
use crate::units::{AddrRange, SpaceId, Tid};

use super::Symbols;
use super::jit::{Compiled, MOST_PARENTS};
use super::process::{Home, Opened, PerfMapFile, Roots};

/// How long one name of the live timeline is waited for, and all of them together.
const PATIENCE: Duration = Duration::from_millis(100);
const ALL_PATIENCE: Duration = Duration::from_secs(3);
/// How long the end of a trace waits for the names it must hold, and for all if they are asked for.
const END_PATIENCE: Duration = Duration::from_secs(5);
const EMBED_PATIENCE: Duration = Duration::from_secs(60);
/// Most files that are kept open.
const MOST_OPEN: usize = 256;
/// Most processes of which it is known where they are at home.
const MOST_HOMES: usize = 1 << 16;

/// Whose stack it is.
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    /// The task.
    pub tid: Tid,
    /// Its process.
    pub pid: Tid,
    /// Its space.
    pub space: SpaceId,
}

/// Names of the frames of a program that is being traced. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct LiveNames(Arc<Mutex<Front>>);

/// What is asked of the thread.
#[derive(Debug)]
enum Ask {
    Tell(Observed),
    /// A module, the first time: open its file.
    Open(ModuleId, Whose, Option<AddrRange>),
    /// A module that is several files under one name.
    Forget(ModuleId),
    /// A process, the first time, and the space that it is a copy of.
    Began(SpaceId, Home, Option<SpaceId>),
    Bare(Frame, Whose),
    Ended(SpaceId),
    Name(Frame, Sender<Arc<[FrameName]>>),
    Finish {
        all: bool,
        answer: Sender<(NamesSeen, Vec<String>)>,
    },
}

#[derive(Debug, Default)]
struct Front {
    /// `None` if there is no thread, or it has hung.
    ask: Option<Sender<Vec<Ask>>>,
    /// What is asked next: to wake the thread for each would cost the program more than the answers.
    next: Vec<Ask>,
    ready: Option<Receiver<NamesSeen>>,
    named: HashMap<Frame, Arc<[FrameName]>>,
    /// Names that were not there in time.
    late: HashMap<Frame, Receiver<Arc<[FrameName]>>>,
    waited: Duration,
    modules: u32,
    /// `[vdso]`, and whether it was a 32-bit process's.
    vdso: Option<(ModuleId, bool)>,
}

impl LiveNames {
    /// Starts the thread; nothing is named before. Not before signals are blocked nor after the
    /// calling thread was placed on a CPU: the new one inherits both.
    pub fn start(&self) {
        let (ask, asked) = mpsc::channel();
        let (tell, ready) = mpsc::channel();
        let work = move || {
            let mut worker = Worker::new(tell);
            while let Ok(asks) = asked.recv() {
                for ask in asks {
                    worker.take(ask);
                }
            }
        };
        // It ends with the channel; nobody waits for it, as a file may hang.
        let thread = thread::Builder::new().name("names".into()).spawn(work);
        let front = &mut *self.front();
        front.ask = thread.is_ok().then_some(ask);
        front.ready = Some(ready);
    }

    /// Takes what a stack of `whose` made known. `range` tells where a module of that name is
    /// mapped in its space.
    pub fn told(
        &self,
        told: &[Observed],
        whose: Whose,
        raw: &RawStack,
        range: impl Fn(&str) -> Option<AddrRange>,
    ) {
        let front = &mut *self.front();
        for what in told {
            front.send(Ask::Tell(what.clone()));
            match what {
                Observed::Module(module) => {
                    let id = ModuleId(front.modules);
                    front.modules += 1;
                    if &*module.path == "[vdso]" {
                        front.vdso = Some((id, raw.compat));
                    }
                    front.send(Ask::Open(id, whose, range(&module.path)));
                }
                Observed::Stack(stack) => front.stack(&stack.frames, whose, raw.compat),
                _ => {}
            }
        }
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a space that begins, and where its process is at home: that is to be found out while its
    /// last stop has not been answered, or it may be gone.
    pub fn began(&self, began: &SpaceBegan, home: Home) {
        let parent = match began.began {
            Began::Fork { parent } => parent,
            Began::Exec | Began::Attach => None,
        };
        self.front().send(Ask::Began(began.space, home, parent));
    }

    /// Takes what else is seen.
    pub fn observe(&self, what: &Observed) {
        let front = &mut *self.front();
        match what {
            Observed::File(_) => front.send(Ask::Tell(what.clone())),
            Observed::SpaceEnded { space, .. } => front.send(Ask::Ended(*space)),
            _ => {}
        }
    }

    /// Lets the thread work on what was told, and gives the names that the trace must hold, as far as
    /// they are known by now.
    pub fn take(&self) -> Option<NamesSeen> {
        let front = &mut *self.front();
        front.hand_over();
        front.ready.as_ref()?.try_recv().ok()
    }

    /// The names that the trace must hold: those that no file will tell of later, or `all`. With
    /// what the user should know of it.
    pub fn finish(&self, all: bool) -> (NamesSeen, Vec<String>) {
        let front = &mut *self.front();
        let (answer, answered) = mpsc::channel();
        front.send(Ask::Finish { all, answer });
        front.hand_over();
        let patience = if all { EMBED_PATIENCE } else { END_PATIENCE };
        match answered.recv_timeout(patience) {
            Ok(answer) => answer,
            Err(_) => {
                front.ask = None;
                let names = NamesSeen { names: Vec::new() };
                let note =
                    "names of functions could not be read in time: the trace does not hold them";
                (names, vec![note.to_owned()])
            }
        }
    }
}

impl Front {
    fn send(&mut self, ask: Ask) {
        if self.ask.is_some() {
            self.next.push(ask);
        }
    }

    fn hand_over(&mut self) {
        let asks = std::mem::take(&mut self.next);
        if let Some(to) = self.ask.as_ref().filter(|_| !asks.is_empty())
            && to.send(asks).is_err()
        {
            self.ask = None;
        }
    }

    fn stack(&mut self, frames: &[Frame], whose: Whose, compat: bool) {
        for &frame in frames {
            match frame {
                Frame::Bare { .. } => self.send(Ask::Bare(frame, whose)),
                Frame::Module { module, .. } => {
                    if self
                        .vdso
                        .is_some_and(|(vdso, of)| vdso == module && of != compat)
                    {
                        self.send(Ask::Forget(module));
                    }
                }
            }
        }
    }

    fn name(&mut self, frame: Frame) -> Arc<[FrameName]> {
        if let Some(known) = self.named.get(&frame) {
            return Arc::clone(known);
        }
        let answered = match self.late.remove(&frame) {
            Some(late) => late,
            None => {
                let (answer, answered) = mpsc::channel();
                self.send(Ask::Name(frame, answer));
                self.hand_over();
                answered
            }
        };
        let since = Instant::now();
        let patience = PATIENCE.min(ALL_PATIENCE.saturating_sub(self.waited));
        let answer = answered.recv_timeout(patience);
        self.waited += since.elapsed();
        match answer {
            Ok(names) => {
                self.named.insert(frame, Arc::clone(&names));
                names
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.late.insert(frame, answered);
                [].into()
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => [].into(),
        }
    }
}

impl Namer for LiveNames {
    fn name(&mut self, frame: Frame, stacks: &Stacks) -> Arc<[FrameName]> {
        match stacks.names(frame) {
            Some(held) => Arc::clone(held),
            None => self.front().name(frame),
        }
    }
}

/// The thread's side.
struct Worker {
    symbols: Symbols,
    compiled: Compiled,
    roots: Roots,
    /// Where processes are at home, and what they are forks of.
    homes: HashMap<SpaceId, (Home, Option<SpaceId>)>,
    opened: usize,
    /// Modules whose files nobody can be sure to find again.
    passing: HashSet<ModuleId>,
    tell: Sender<NamesSeen>,
}

impl Worker {
    fn new(tell: Sender<NamesSeen>) -> Worker {
        Worker {
            symbols: Symbols::default(),
            compiled: Compiled::default(),
            roots: Roots::default(),
            homes: HashMap::new(),
            opened: 0,
            passing: HashSet::new(),
            tell,
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Tell(what) => self.symbols.tell(what),
            Ask::Open(id, whose, range) => self.open(id, whose, range),
            Ask::Forget(id) => self.symbols.forget(id),
            Ask::Began(space, home, parent) => {
                if self.homes.len() < MOST_HOMES {
                    self.homes.insert(space, (home, parent));
                }
            }
            Ask::Bare(frame, whose) => self.bare(frame, whose),
            Ask::Ended(space) => {
                let names = self.compiled.end(space);
                self.hold(names);
            }
            Ask::Name(frame, answer) => {
                let _ = answer.send(self.symbols.name(frame, &Stacks::default()));
            }
            Ask::Finish { all, answer } => {
                for space in self.compiled.open() {
                    let names = self.compiled.end(space);
                    self.hold(names);
                }
                let names = self.lasting(all);
                let _ = answer.send((NamesSeen { names }, self.symbols.take_notes()));
            }
        }
    }

    fn open(&mut self, id: ModuleId, whose: Whose, range: Option<AddrRange>) {
        let Some(module) = self.symbols.told.stacks.module(id).map(Arc::clone) else {
            return;
        };
        if MOST_OPEN <= self.opened {
            return;
        }
        let home = self.homes.get(&whose.space).map(|(home, _)| home);
        let roots = &mut self.roots;
        let Some(opened) = Opened::of(&module, whose.tid, range, home, roots) else {
            return;
        };
        self.opened += 1;
        if !opened.root.is_ours() || !module.path.starts_with('/') {
            self.passing.insert(id);
        }
        self.symbols.supply(id, opened);
    }

    fn bare(&mut self, frame: Frame, whose: Whose) {
        let Frame::Bare { space, pc } = frame else {
            return;
        };
        let mut next = Some(space);
        for _ in 0..=MOST_PARENTS {
            let Some(of) = next.take() else { break };
            if let Some((home, parent)) = self.homes.get(&of) {
                self.compiled.follow(of, PerfMapFile::of(home), *parent);
                next = *parent;
            } else if of == space {
                let home = Home::of(whose.tid, whose.pid, &mut self.roots);
                self.compiled.follow(of, PerfMapFile::of(&home), None);
            }
        }
        if let Some(name) = self.compiled.name(space, pc) {
            self.hold(vec![(frame, [name].into())]);
        }
    }

    /// Has names kept in the trace.
    fn hold(&mut self, names: Vec<(Frame, Arc<[FrameName]>)>) {
        if !names.is_empty() {
            let seen = NamesSeen { names };
            self.symbols.tell(Observed::Names(seen.clone()));
            let _ = self.tell.send(seen);
        }
    }

    /// Names of frames in files: of those that may not be found again, or of `all`.
    fn lasting(&mut self, all: bool) -> Vec<(Frame, Arc<[FrameName]>)> {
        let stacks = std::mem::take(&mut self.symbols.told.stacks);
        let passing: HashSet<ModuleId> = stacks
            .modules()
            .filter(|(id, module)| {
                all || self.passing.contains(id) || !super::lasts(module, &stacks)
            })
            .map(|(id, _)| id)
            .collect();
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for frame in stacks.iter().flat_map(|stack| stack.frames.iter()) {
            if let Frame::Module { module, .. } = frame
                && passing.contains(module)
                && seen.insert(*frame)
            {
                let known = self.symbols.name(*frame, &stacks);
                if !known.is_empty() {
                    names.push((*frame, known));
                }
            }
        }
        self.symbols.told.stacks = stacks;
        names
    }
}
