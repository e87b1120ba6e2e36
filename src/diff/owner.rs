//! Who made a mapping, told so that two runs can be compared: by the function where its name is known,
//! else by the place in a file that both sides can be shown to have in common.

use std::fmt;
use std::sync::Arc;

use crate::report::reading::is_wrapper;
use crate::timeline::{Frame, Namer, Stacks};
use crate::units::StackId;

use super::role::{file_name, without_versions};

/// The innermost code of a stack that does more than to pass the call on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A function.
    Function(Arc<str>),
    /// Code whose name is not known.
    Code {
        /// File name of its module.
        module: Arc<str>,
        /// Offset in the file.
        offset: u64,
        /// The build-id of the file, if it has one.
        build_id: Option<Arc<[u8]>>,
    },
}

impl Owner {
    /// The owner of what a stack did; `None` where that is code of no file, which is elsewhere in
    /// every run.
    pub(super) fn of(id: StackId, stacks: &Stacks, namer: &mut dyn Namer) -> Option<Owner> {
        let mut last = None;
        for frame in stacks.frames(id) {
            let names = namer.name(*frame, stacks);
            let mut functions = names.iter().map(|name| &name.function);
            if functions.clone().all(|function| function.is_empty()) {
                return Owner::of_code(*frame, stacks);
            }
            if let Some(function) =
                functions.find(|function| !function.is_empty() && !is_wrapper(function))
            {
                return Some(Owner::Function(Arc::clone(function)));
            }
            last = names.last().map(|name| Arc::clone(&name.function));
        }
        last.filter(|function| !function.is_empty())
            .map(Owner::Function)
    }

    fn of_code(frame: Frame, stacks: &Stacks) -> Option<Owner> {
        let Frame::Module { module, offset } = frame else {
            return None;
        };
        let module = stacks.module(module)?;
        let build_id = stacks.build_id(module).filter(|id| !id.is_empty());
        let path = module.path.trim_end_matches(" (deleted)");
        Some(Owner::Code {
            module: file_name(path).into(),
            offset,
            build_id: build_id.map(Arc::clone),
        })
    }

    /// Whether two owners, one of each side, are one; `None` if that cannot be told.
    pub(super) fn is(&self, other: &Owner) -> Option<bool> {
        match (self, other) {
            (Owner::Function(mine), Owner::Function(theirs)) => Some(mine == theirs),
            (
                Owner::Code {
                    module,
                    offset,
                    build_id: Some(build_id),
                },
                Owner::Code {
                    module: their_module,
                    offset: their_offset,
                    build_id: Some(their_build_id),
                },
            ) if build_id == their_build_id => Some(
                offset == their_offset
                    && without_versions(module) == without_versions(their_module),
            ),
            _ => None,
        }
    }
}

/// `runtime.(*mheap).sysAlloc`, `server+0x12f0`
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Function(function) => f.write_str(function),
            Owner::Code { module, offset, .. } => write!(f, "{module}+{offset:#x}"),
        }
    }
}
