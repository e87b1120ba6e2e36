//! The text of a frame: the same in every rendering.

use std::fmt;
use std::sync::Arc;

use super::{Frame, FrameName, Module, Stacks};

/// One function of a frame, as people read it: `function+0x12 (libc.so.6) file.c:12`.
///
/// Paths and names are as they were found: a renderer escapes them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameText {
    /// `function+0x12`; of code without a name `libc.so.6+0x1234`, or an address. A function that
    /// is inlined has no offset.
    pub what: String,
    /// File name of the module, unless `what` begins with it.
    pub module: Option<Arc<str>>,
    /// `file.c:12`, without its folder.
    pub place: Option<String>,
    /// It is part of the function that follows.
    pub inlined: bool,
}

impl FrameText {
    /// The functions at `frame`, innermost first, at least one: `names` is what a
    /// [`Namer`](super::Namer) says of it.
    pub fn of(frame: Frame, names: &[FrameName], stacks: &Stacks) -> Vec<FrameText> {
        let module = match frame {
            Frame::Module { module, .. } => stacks.module(module).map(|module| module.file_name()),
            Frame::Bare { .. } => None,
        };
        let Some(last) = names.len().checked_sub(1) else {
            return vec![FrameText::unnamed(frame, module, None)];
        };
        let texts = names.iter().enumerate().map(|(at, name)| {
            let inlined = at < last;
            let place = name.file.as_deref().map(|file| match name.line {
                0 => base(file).to_owned(),
                line => format!("{}:{line}", base(file)),
            });
            if name.function.is_empty() {
                return FrameText {
                    inlined,
                    ..FrameText::unnamed(frame, module, place)
                };
            }
            let what = match name.offset {
                0 => name.function.to_string(),
                offset => format!("{}+{offset:#x}", name.function),
            };
            FrameText {
                what,
                module: module.map(Arc::from),
                place,
                inlined,
            }
        });
        texts.collect()
    }

    fn unnamed(frame: Frame, module: Option<&str>, place: Option<String>) -> FrameText {
        let what = match (frame, module) {
            (Frame::Module { offset, .. }, Some(name)) => format!("{name}+{offset:#x}"),
            // Its module was told in a part of the trace that is lost.
            (Frame::Module { module, offset }, None) => format!("module {}+{offset:#x}", module.0),
            (Frame::Bare { pc, .. }, _) => format!("{:#x}", pc.0),
        };
        FrameText {
            what,
            module: None,
            place,
            inlined: false,
        }
    }
}

impl fmt::Display for FrameText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(module) = &self.module {
            write!(f, " ({module})")?;
        }
        if let Some(place) = &self.place {
            write!(f, " {place}")?;
        }
        Ok(())
    }
}

impl Module {
    /// Its path without the folder, and without what says that the file was removed.
    pub fn file_name(&self) -> &str {
        base(self.path.trim_end_matches(" (deleted)"))
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::FileId;
    use crate::timeline::ModuleId;
    use crate::units::{Addr, SpaceId};

    fn texts(frame: Frame, names: &[FrameName]) -> Vec<String> {
        let mut stacks = Stacks::default();
        stacks.add_module(Module {
            path: "/usr/lib/libc.so.6 (deleted)".into(),
            file: FileId::default(),
        });
        let texts = FrameText::of(frame, names, &stacks);
        texts.iter().map(FrameText::to_string).collect()
    }

    fn in_module(module: u32) -> Frame {
        Frame::Module {
            module: ModuleId(module),
            offset: 0x1234,
        }
    }

    #[test]
    fn a_named_frame_tells_function_module_and_place() {
        let inner = FrameName {
            function: "inner".into(),
            file: Some("/src/deep/file.c".into()),
            line: 12,
            ..FrameName::default()
        };
        let outer = FrameName {
            function: "outer".into(),
            offset: 0x12,
            ..FrameName::default()
        };
        let texts = texts(in_module(0), &[inner, outer]);
        assert_eq!(
            texts,
            ["inner (libc.so.6) file.c:12", "outer+0x12 (libc.so.6)"]
        );
    }

    #[test]
    fn a_frame_without_a_name_tells_where_it_is() {
        assert_eq!(texts(in_module(0), &[]), ["libc.so.6+0x1234"]);
        assert_eq!(texts(in_module(7), &[]), ["module 7+0x1234"]);
        let bare = Frame::Bare {
            space: SpaceId(1),
            pc: Addr(0x7f00_0000_1000),
        };
        assert_eq!(texts(bare, &[]), ["0x7f0000001000"]);
    }
}
