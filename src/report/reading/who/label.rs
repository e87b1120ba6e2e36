//! What frames are called, as people read them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::timeline::{Frame, Namer, StackEnd, Stacks};
use crate::units::StackId;

use super::{Source, owner};

/// One step of a stack, as people read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// The function; `module+0xoffset` or an address where no name is known; `(a remark)`.
    pub text: Arc<str>,
    /// Which of these.
    pub kind: Kind,
    /// Path of the module, if it is in one.
    pub module: Option<Arc<str>>,
    /// Source file, if known.
    pub file: Option<Arc<str>>,
    /// Line in it, from 1; 0 if not known.
    pub line: u32,
}

/// What a label is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The name of a function.
    Function,
    /// Where the code is: its name is not known.
    Address,
    /// The command name of processes.
    Process,
    /// What stands where there is no frame: `(began: exec)`.
    Remark,
}

impl Label {
    pub(super) fn remark(text: &str) -> Label {
        Label {
            text: format!("({text})").into(),
            kind: Kind::Remark,
            module: None,
            file: None,
            line: 0,
        }
    }

    /// The same function, whichever line of it.
    pub(super) fn without_line(&self) -> Label {
        Label {
            file: None,
            line: 0,
            ..self.clone()
        }
    }

    /// Whether it says that a space began with something.
    pub(super) fn is_about_beginnings(&self) -> bool {
        self.kind == Kind::Remark && self.text.starts_with("(began: ")
    }

    /// File name of the module.
    pub fn module_name(&self) -> Option<&str> {
        self.module.as_deref().map(base)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn base(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// Gives sources their labels.
pub struct Labels<'a> {
    namer: &'a mut dyn Namer,
    stacks: &'a Stacks,
    known: HashMap<Frame, Arc<[Label]>>,
}

impl<'a> Labels<'a> {
    /// Labels of `stacks`, named by `namer`.
    pub fn new(stacks: &'a Stacks, namer: &'a mut dyn Namer) -> Labels<'a> {
        Labels {
            namer,
            stacks,
            known: HashMap::new(),
        }
    }

    /// What a frame is called, innermost function first: one for each that was inlined into another
    /// there. At least one.
    pub fn frame(&mut self, frame: Frame) -> Arc<[Label]> {
        if let Some(known) = self.known.get(&frame) {
            return Arc::clone(known);
        }
        let labels = self.new_frame(frame);
        self.known.insert(frame, Arc::clone(&labels));
        labels
    }

    fn new_frame(&mut self, frame: Frame) -> Arc<[Label]> {
        let module = match frame {
            Frame::Module { module, .. } => self.stacks.module(module),
            Frame::Bare { .. } => None,
        };
        let module = module.map(|module| Arc::clone(&module.path));
        let names = self.namer.name(frame, self.stacks);
        let named = names.iter().filter(|name| !name.function.is_empty());
        let labels: Vec<Label> = named
            .map(|name| Label {
                text: Arc::clone(&name.function),
                kind: Kind::Function,
                module: module.clone(),
                file: name.file.clone(),
                line: name.line,
            })
            .collect();
        if !labels.is_empty() {
            return labels.into();
        }
        let text = match (frame, module.as_deref()) {
            (Frame::Module { offset, .. }, Some(path)) => format!("{}+{offset:#x}", base(path)),
            // A trace that tells of a frame before its module was damaged.
            (Frame::Module { module, offset }, None) => format!("module {}+{offset:#x}", module.0),
            (Frame::Bare { pc, .. }, _) => format!("{:#x}", pc.0),
        };
        [Label {
            text: text.into(),
            kind: Kind::Address,
            module,
            file: None,
            line: 0,
        }]
        .into()
    }

    /// All steps of a source, innermost first; at least one.
    pub fn source(&mut self, source: &Source) -> Vec<Label> {
        let remark = match source {
            Source::Stack(id) => match self.stacks.get(*id) {
                Some(stack) => {
                    let stack = Arc::clone(stack);
                    let frames = stack.frames.iter().map(|frame| self.frame(*frame));
                    let mut labels: Vec<Label> =
                        frames.flat_map(|labels| labels.to_vec()).collect();
                    labels.extend(remark_of(stack.end).map(Label::remark));
                    if labels.is_empty() {
                        labels.push(Label::remark("no frames"));
                    }
                    return labels;
                }
                None => Label::remark("unknown stack"),
            },
            Source::Fork(Some(copied)) => {
                let mut labels = self.source(copied);
                labels.push(Label::remark("began: fork"));
                return labels;
            }
            Source::Call(name) => Label {
                text: format!("(no stack) {name}").into(),
                ..Label::remark("")
            },
            Source::Exec => Label::remark("began: exec"),
            Source::Fork(None) => Label::remark("began: fork"),
            Source::Attach => Label::remark("began: attach"),
            Source::Grown => Label::remark("grown by page faults"),
            Source::Found => Label::remark("found in the kernel's map"),
            Source::Task(tid) => Label {
                text: format!("(no stack) task {tid}").into(),
                ..Label::remark("")
            },
            Source::Others => Label::remark("others"),
        };
        vec![remark]
    }
}

/// What stands above the outermost frame that is known, unless that is the real one.
pub(super) fn remark_of(end: StackEnd) -> Option<&'static str> {
    match end {
        StackEnd::Root => None,
        StackEnd::Cut | StackEnd::Deep => Some("callers cut off"),
        StackEnd::Lost => Some("callers unknown"),
    }
}

/// The owners of stacks by name.
pub(in crate::report::reading) struct OwnerNames<'a> {
    labels: Labels<'a>,
    known: HashMap<StackId, Option<Arc<str>>>,
}

impl<'a> OwnerNames<'a> {
    /// Owners in `stacks`, named by `namer`.
    pub fn new(stacks: &'a Stacks, namer: &'a mut dyn Namer) -> OwnerNames<'a> {
        OwnerNames {
            labels: Labels::new(stacks, namer),
            known: HashMap::new(),
        }
    }

    /// The owner of what a stack did; `None` if the stack is not known.
    pub fn of(&mut self, stack: StackId) -> Option<Arc<str>> {
        let labels = &mut self.labels;
        let name = self.known.entry(stack).or_insert_with(|| {
            let labels = labels.source(&Source::Stack(stack));
            let owner = owner(&labels).filter(|owner| owner.kind != Kind::Remark)?;
            Some(Arc::clone(&owner.text))
        });
        name.clone()
    }
}
