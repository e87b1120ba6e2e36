//! A call's stack, step by step, with all that is known of each: what renderers show.

use std::fmt;
use std::sync::Arc;

use crate::timeline::{Frame, FrameName, Namer, StackEnd, Stacks};
use crate::units::{Addr, StackId};

/// One step of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The function; `None` if its name is not known.
    pub function: Option<Arc<str>>,
    /// Bytes from the begin of the function.
    pub offset: u64,
    /// Source file, if known.
    pub file: Option<Arc<str>>,
    /// Line in it, from 1; 0 if not known.
    pub line: u32,
    /// It was inlined into the next step: there is no frame of its own.
    pub inlined: bool,
    /// Where the code is.
    pub code: Code,
}

/// Where code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// In a file, or in what the kernel maps under a name.
    Module {
        /// Its path, as maps prints it.
        path: Arc<str>,
        /// Offset in the file.
        offset: u64,
    },
    /// In memory that belongs to no file.
    Bare(Addr),
}

/// The steps of a stack, innermost first, and why there are no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The steps.
    pub steps: Vec<Step>,
    /// Why they end; `None` if the stack is unknown, in a damaged trace.
    pub end: Option<StackEnd>,
}

impl Steps {
    /// The steps of a stack, named by `namer`.
    pub fn of(id: StackId, stacks: &Stacks, namer: &mut dyn Namer) -> Steps {
        let Some(stack) = stacks.get(id) else {
            return Steps::default();
        };
        let mut steps = Vec::with_capacity(stack.frames.len());
        for frame in stack.frames.iter() {
            push(*frame, stacks, namer, &mut steps);
        }
        Steps {
            steps,
            end: Some(stack.end),
        }
    }
}

fn push(frame: Frame, stacks: &Stacks, namer: &mut dyn Namer, steps: &mut Vec<Step>) {
    let code = match frame {
        Frame::Module { module, offset } => Code::Module {
            path: match stacks.module(module) {
                Some(module) => Arc::clone(&module.path),
                None => "?".into(),
            },
            offset,
        },
        Frame::Bare { pc, .. } => Code::Bare(pc),
    };
    let names = namer.name(frame, stacks);
    let named = names.iter().filter(|name| !name.function.is_empty());
    let before = steps.len();
    steps.extend(named.map(|name| {
        let FrameName {
            function,
            offset,
            file,
            line,
        } = name;
        Step {
            function: Some(Arc::clone(function)),
            offset: *offset,
            file: file.clone(),
            line: *line,
            inlined: true,
            code: code.clone(),
        }
    }));
    match steps.get_mut(before..) {
        // The outermost function is the one that was not inlined.
        Some([.., last]) => last.inlined = false,
        _ => steps.push(Step {
            function: None,
            offset: 0,
            file: None,
            line: 0,
            inlined: false,
            code,
        }),
    }
}

impl Code {
    /// File name of the module.
    pub fn module(&self) -> Option<&str> {
        match self {
            Code::Module { path, .. } => {
                let path = path.strip_suffix(" (deleted)").unwrap_or(path);
                path.rsplit('/').next()
            }
            Code::Bare(_) => None,
        }
    }
}

/// `libc.so.6+0xff943`, or an address.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Module { offset, .. } => {
                write!(f, "{}+{offset:#x}", self.module().unwrap_or_default())
            }
            Code::Bare(pc) => write!(f, "{:#x}", pc.0),
        }
    }
}
