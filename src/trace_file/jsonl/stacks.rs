//! Who called, as JSON.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::mm::FileId;
use crate::timeline::{self, Frame, FrameName, ModuleId, NamesSeen, Observed, StackEnd, StackSeen};
use crate::trace_file::format::MAX_FRAMES;
use crate::units::{Addr, SpaceId, StackId};

use super::wire::{Hex, Impossible, is_default};

#[derive(Serialize, Deserialize)]
pub(super) struct Module {
    path: Arc<str>,
    /// Major and minor.
    #[serde(default, skip_serializing_if = "is_default")]
    dev: (u32, u32),
    #[serde(default, skip_serializing_if = "is_default")]
    inode: Hex,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Stack {
    id: u32,
    end: WireEnd,
    frames: Vec<WireFrame>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireEnd {
    Root,
    Cut,
    Lost,
    Deep,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WireFrame {
    /// Number of the module, offset in its file.
    Module {
        module: u32,
        offset: Hex,
    },
    Bare {
        space: u32,
        pc: Hex,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct Names {
    names: Vec<Named>,
}

#[derive(Serialize, Deserialize)]
struct Named {
    #[serde(flatten)]
    frame: WireFrame,
    names: Vec<Name>,
}

#[derive(Serialize, Deserialize)]
struct Name {
    #[serde(default, skip_serializing_if = "str::is_empty")]
    function: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    offset: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "is_default")]
    line: u32,
}

impl From<&timeline::Module> for Module {
    fn from(module: &timeline::Module) -> Module {
        let timeline::Module { path, file } = module;
        let FileId {
            major,
            minor,
            inode,
        } = *file;
        Module {
            path: Arc::clone(path),
            dev: (major, minor),
            inode: Hex(inode),
        }
    }
}

impl Module {
    pub(super) fn observed(self) -> Observed {
        let file = FileId {
            major: self.dev.0,
            minor: self.dev.1,
            inode: self.inode.0,
        };
        Observed::Module(timeline::Module {
            path: self.path,
            file,
        })
    }
}

impl From<Frame> for WireFrame {
    fn from(frame: Frame) -> WireFrame {
        match frame {
            Frame::Module { module, offset } => WireFrame::Module {
                module: module.0,
                offset: Hex(offset),
            },
            Frame::Bare { space, pc } => WireFrame::Bare {
                space: space.0,
                pc: Hex(pc.0),
            },
        }
    }
}

impl From<WireFrame> for Frame {
    fn from(frame: WireFrame) -> Frame {
        match frame {
            WireFrame::Module { module, offset } => Frame::Module {
                module: ModuleId(module),
                offset: offset.0,
            },
            WireFrame::Bare { space, pc } => Frame::Bare {
                space: SpaceId(space),
                pc: Addr(pc.0),
            },
        }
    }
}

impl From<&StackSeen> for Stack {
    fn from(seen: &StackSeen) -> Stack {
        let StackSeen { id, frames, end } = seen;
        Stack {
            id: id.0,
            end: match end {
                StackEnd::Root => WireEnd::Root,
                StackEnd::Cut => WireEnd::Cut,
                StackEnd::Lost => WireEnd::Lost,
                StackEnd::Deep => WireEnd::Deep,
            },
            frames: frames.iter().map(|frame| WireFrame::from(*frame)).collect(),
        }
    }
}

impl Stack {
    pub(super) fn observed(self) -> Result<Observed, Impossible> {
        if MAX_FRAMES < self.frames.len() {
            return Err(Impossible("a stack has too many frames"));
        }
        Ok(Observed::Stack(StackSeen {
            id: StackId(self.id),
            frames: self.frames.into_iter().map(Frame::from).collect(),
            end: match self.end {
                WireEnd::Root => StackEnd::Root,
                WireEnd::Cut => StackEnd::Cut,
                WireEnd::Lost => StackEnd::Lost,
                WireEnd::Deep => StackEnd::Deep,
            },
        }))
    }
}

impl From<&NamesSeen> for Names {
    fn from(seen: &NamesSeen) -> Names {
        let name = |name: &FrameName| {
            let FrameName {
                function,
                offset,
                file,
                line,
            } = name;
            Name {
                function: Arc::clone(function),
                offset: Hex(*offset),
                file: file.clone(),
                line: *line,
            }
        };
        let named = |(frame, names): &(Frame, Arc<[FrameName]>)| Named {
            frame: (*frame).into(),
            names: names.iter().map(name).collect(),
        };
        Names {
            names: seen.names.iter().map(named).collect(),
        }
    }
}

impl Names {
    pub(super) fn observed(self) -> Observed {
        let name = |name: Name| FrameName {
            function: name.function,
            offset: name.offset.0,
            file: name.file,
            line: name.line,
        };
        let named = |named: Named| {
            let names = named.names.into_iter().map(name).collect();
            (Frame::from(named.frame), names)
        };
        Observed::Names(NamesSeen {
            names: self.names.into_iter().map(named).collect(),
        })
    }
}
