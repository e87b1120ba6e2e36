//! Who called: stacks as they were copied, as frames, and the names of those.
//!
//! A frame is where a module's file was being executed, not an address: the same code gives the same
//! stack in every process, wherever the kernel put it. This module names nothing itself.

use std::collections::HashMap;
use std::sync::Arc;

use crate::mm::FileId;
use crate::units::{Addr, SpaceId, StackId};

use super::FileSeen;

/// The call stack of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stack {
    /// It was not asked for, or could not be read.
    #[default]
    Absent,
    /// As it was copied at the stop. Only between the edge and the unwinder: no trace holds one.
    Raw(Box<RawStack>),
    /// One that a [`StackSeen`] has told of.
    Known(StackId),
}

impl Stack {
    /// The number of a stack that is known.
    pub fn id(&self) -> Option<StackId> {
        match self {
            Stack::Known(id) => Some(*id),
            Stack::Absent | Stack::Raw(_) => None,
        }
    }
}

/// Registers and a copy of the stack of a task that stands at the entry of a call, or at a page fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawStack {
    /// The registers that unwinding begins with.
    pub registers: Registers,
    /// The task runs 32-bit code: words of four bytes.
    pub compat: bool,
    /// It stands at an instruction that is still to be done; elsewhere after the one that entered the
    /// kernel.
    pub interrupted: bool,
    /// Copies of memory; the first holds what the stack pointer points to.
    pub copies: Vec<Copied>,
    /// Where the Go runtime left the goroutine that it works for on a stack of its own: pc, sp and
    /// bp, all of which the runtime keeps. The second copy holds what that points to.
    pub goroutine: Option<Registers>,
}

/// Registers at a stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The instruction after the one that entered the kernel; in an interrupted program, the next.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// rbp: a frame pointer, or anything.
    pub bp: u64,
    /// rbx.
    pub bx: u64,
    /// r12 to r15.
    pub r12_to_r15: [u64; 4],
}

/// A piece of a tracee's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Where it begins.
    pub start: Addr,
    /// What is there.
    pub bytes: Vec<u8>,
    /// More was there to read than was copied.
    pub cut: bool,
}

/// A file that code was executed from, or a mapping with a name such as `[vdso]`: the first time a
/// stack leads through it. Numbered from 0 in order of appearance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// Its path or name, as maps prints it.
    pub path: Arc<str>,
    /// Device and inode, as maps prints them; zero if it is no file.
    pub file: FileId,
}

/// Number of a [`Module`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleId(pub u32);

/// One step of a stack: the address a call returns to (innermost: the instruction after the one that
/// entered the kernel). The call itself is the instruction before it: a name is that of the byte
/// before. Where a signal interrupted the code, it is the address behind the first byte of the
/// instruction that would have been next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frame {
    /// In a module.
    Module {
        /// Which.
        module: ModuleId,
        /// Offset in its file (not an address of its symbol table).
        offset: u64,
    },
    /// In memory that belongs to no file: code made at run time.
    Bare {
        /// The space it was in.
        space: SpaceId,
        /// Where.
        pc: Addr,
    },
}

/// A stack that calls refer to; told once, before the first of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackSeen {
    /// Its number: from 1, in order of appearance.
    pub id: StackId,
    /// Its frames, innermost first.
    pub frames: Arc<[Frame]>,
    /// Why there are no more.
    pub end: StackEnd,
}

/// Why a stack has no more frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StackEnd {
    /// The outermost function was reached.
    #[default]
    Root,
    /// Unwinding would have gone on where the stack was not copied.
    Cut,
    /// Nothing tells how to go on from the last frame.
    Lost,
    /// As many frames as are kept.
    Deep,
}

/// What a frame is called. A frame has one for each function inlined into another there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FrameName {
    /// The function, readable; empty if nothing is known.
    pub function: Arc<str>,
    /// Bytes from the function's start to the frame's address.
    pub offset: u64,
    /// Source file, if known.
    pub file: Option<Arc<str>>,
    /// Line in it, from 1; 0 if not known.
    pub line: u32,
}

/// Names that are kept in a trace: of code that no file will tell of later, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamesSeen {
    /// Which frame is called what, innermost function first.
    pub names: Vec<(Frame, Arc<[FrameName]>)>,
}

/// All stacks of a trace so far.
#[derive(Clone, Debug, Default)]
pub struct Stacks {
    modules: Vec<Arc<Module>>,
    stacks: Vec<Arc<StackSeen>>,
    names: HashMap<Frame, Arc<[FrameName]>>,
    /// By path and inode: the device is not the same in every source (`tracee/files.rs`).
    build_ids: HashMap<(Arc<str>, u64), Arc<[u8]>>,
}

impl Stacks {
    /// Takes the next module.
    pub(super) fn add_module(&mut self, module: Module) {
        self.modules.push(Arc::new(module));
    }

    /// Takes the next stack; one that is not the next is forgotten.
    pub(super) fn add(&mut self, stack: StackSeen) {
        if stack.id.0 as usize == self.stacks.len() + 1 {
            self.stacks.push(Arc::new(stack));
        }
    }

    pub(super) fn add_names(&mut self, seen: NamesSeen) {
        self.names.extend(seen.names);
    }

    /// Takes what a file of code says of itself.
    pub(super) fn add_file(&mut self, seen: &FileSeen) {
        let key = (Arc::clone(&seen.path), seen.file.inode);
        self.build_ids.insert(key, Arc::clone(&seen.build_id));
    }

    /// The build-id of the file that a module is: empty if it has none, `None` if nobody knows.
    pub fn build_id(&self, module: &Module) -> Option<&Arc<[u8]>> {
        let path = module.path.trim_end_matches(" (deleted)");
        self.build_ids.get(&(path.into(), module.file.inode))
    }

    /// A stack.
    pub fn get(&self, id: StackId) -> Option<&Arc<StackSeen>> {
        self.stacks.get((id.0 as usize).checked_sub(1)?)
    }

    /// The frames of a stack, innermost first; none if it is unknown.
    pub fn frames(&self, id: StackId) -> &[Frame] {
        self.get(id).map_or(&[], |stack| &stack.frames)
    }

    /// A module.
    pub fn module(&self, id: ModuleId) -> Option<&Arc<Module>> {
        self.modules.get(id.0 as usize)
    }

    /// The names that the trace itself holds for a frame.
    pub fn names(&self, frame: Frame) -> Option<&Arc<[FrameName]>> {
        self.names.get(&frame)
    }

    /// Every stack, in order of appearance.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<StackSeen>> {
        self.stacks.iter()
    }

    /// Every module, in order of appearance.
    pub fn modules(&self) -> impl Iterator<Item = (ModuleId, &Arc<Module>)> {
        (0..).map(ModuleId).zip(&self.modules)
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }
}

/// Gives frames their names.
pub trait Namer {
    /// What `frame` is called, innermost function first; empty if nothing is known. What the trace
    /// itself says ([`Stacks::names`]) comes first.
    fn name(&mut self, frame: Frame, stacks: &Stacks) -> Arc<[FrameName]>;
}

/// Knows what the trace holds and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeldNames;

impl Namer for HeldNames {
    fn name(&mut self, frame: Frame, stacks: &Stacks) -> Arc<[FrameName]> {
        stacks.names(frame).map_or_else(|| [].into(), Arc::clone)
    }
}

/// Stacks for tests of those who show them.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::timeline::{FileSeen, Observation, Observed, Timeline};
    use crate::units::Timestamp;

    /// A stack of libc, a program with an inlined function and a hostile name, and bare code; and one of
    /// a single frame without a name.
    pub(crate) fn tell(timeline: &mut Timeline) {
        let mut see = |what| {
            let time = Timestamp(0);
            timeline.observe(Observation { time, what }, &mut Vec::new());
        };
        let paths = ["/usr/lib/x86_64-linux-gnu/libc.so.6", "/srv/ser\u{1b}ver"];
        for (inode, path) in (1..).zip(paths) {
            let file = FileId {
                inode,
                ..FileId::default()
            };
            let path: Arc<str> = path.into();
            see(Observed::File(FileSeen {
                space: SpaceId(1),
                path: Arc::clone(&path),
                file,
                build_id: [inode as u8].into(),
                version: None,
            }));
            see(Observed::Module(Module { path, file }));
        }
        let at = |module, offset| Frame::Module {
            module: ModuleId(module),
            offset,
        };
        let bare = Frame::Bare {
            space: SpaceId(1),
            pc: Addr(0x7f12_3456),
        };
        let name = |function: &str, offset, line: Option<(&str, u32)>| FrameName {
            function: function.into(),
            offset,
            file: line.map(|(file, _)| file.into()),
            line: line.map_or(0, |(_, line)| line),
        };
        let named = |frame: Frame, names: &[FrameName]| (frame, Arc::from(names));
        see(Observed::Names(NamesSeen {
            names: vec![
                named(at(0, 0xff943), &[name("mmap64", 0x13, None)]),
                named(
                    at(1, 0x1234),
                    &[
                        name("reserve", 4, Some(("/src/heap.rs", 70))),
                        name("init\u{1b}[2J", 0x44, Some(("/src/main.rs", 12))),
                    ],
                ),
            ],
        }));
        let frames = [at(0, 0xff943), at(1, 0x1234), at(1, 0x99), bare];
        let stacks = [
            (1, frames.as_slice(), StackEnd::Root),
            (2, &[at(0, 0x77)], StackEnd::Lost),
        ];
        for (id, frames, end) in stacks {
            see(Observed::Stack(StackSeen {
                id: StackId(id),
                frames: frames.into(),
                end,
            }));
        }
    }
}
