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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{HeldNames, Timeline, stacks_for_tests};

    #[test]
    fn wrappers_own_nothing_and_code_without_a_name_is_where_it_is() {
        let mut timeline = Timeline::default();
        stacks_for_tests::tell(&mut timeline);
        let owner = |id| Owner::of(StackId(id), &timeline.stacks, &mut HeldNames);
        assert_eq!(owner(1), Some(Owner::Function("reserve".into())));
        let code = owner(2).expect("it is in a file");
        assert_eq!(code.to_string(), "libc.so.6+0x77");
        assert_eq!(owner(3), None);
    }

    #[test]
    fn code_is_the_same_only_in_the_same_file() {
        let code = |module: &str, offset, build_id: Option<u8>| Owner::Code {
            module: module.into(),
            offset,
            build_id: build_id.map(|byte| [byte].into()),
        };
        let function = |name: &str| Owner::Function(name.into());
        let first = code("libfoo.so.1", 0x10, Some(1));
        assert_eq!(first.is(&code("libfoo.so.2", 0x10, Some(1))), Some(true));
        assert_eq!(first.is(&code("libfoo.so.1", 0x20, Some(1))), Some(false));
        assert_eq!(first.is(&code("libfoo.so.1", 0x10, Some(2))), None);
        assert_eq!(first.is(&code("libfoo.so.1", 0x10, None)), None);
        assert_eq!(first.is(&function("f")), None);
        assert_eq!(function("f").is(&function("g")), Some(false));
    }
}
