//! Names of code that was made at run time: in no file but the one its maker writes for profilers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::timeline::{Frame, FrameName};
use crate::units::{Addr, SpaceId};

use super::perf_map::PerfMap;
use super::process::PerfMapFile;

/// Most spaces whose files are followed.
const MOST_SPACES: usize = 1024;
/// A fork of a fork of a fork may still run the code of the first.
pub(super) const MOST_PARENTS: usize = 4;
/// Most bytes of one file that are read in a trace.
const MOST_BYTES: u64 = 256 << 20;
/// The file is read in pieces of so many bytes.
const PIECE: u64 = 1 << 20;

/// The compiled functions of every space.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    spaces: HashMap<SpaceId, Space>,
}

#[derive(Debug)]
struct Space {
    file: PerfMapFile,
    map: PerfMap,
    left: u64,
    /// A fork has its parent's code.
    parent: Option<SpaceId>,
    /// Frames that nothing was said of yet.
    unknown: HashSet<Addr>,
}

impl Compiled {
    /// Follows the file of a process, before frames of it are named. A fork has the code of its
    /// parent.
    pub fn follow(&mut self, space: SpaceId, file: PerfMapFile, parent: Option<SpaceId>) {
        if self.spaces.len() < MOST_SPACES {
            self.spaces.entry(space).or_insert_with(|| Space {
                file,
                map: PerfMap::default(),
                left: MOST_BYTES,
                parent,
                unknown: HashSet::new(),
            });
        }
    }

    /// Names a frame by what the file of its space says now; what it does not say yet it may say
    /// until the space ends.
    pub fn name(&mut self, space: SpaceId, pc: Addr) -> Option<FrameName> {
        let name = self.look(space, pc);
        if name.is_none()
            && let Some(state) = self.spaces.get_mut(&space)
        {
            state.unknown.insert(pc);
        }
        name
    }

    /// Names what was unknown of a space that has ended.
    pub fn end(&mut self, space: SpaceId) -> Vec<(Frame, Arc<[FrameName]>)> {
        let unknown = match self.spaces.get_mut(&space) {
            Some(state) => {
                state.read();
                state.map.end();
                std::mem::take(&mut state.unknown)
            }
            None => return Vec::new(),
        };
        let mut named: Vec<(Frame, Arc<[FrameName]>)> = unknown
            .into_iter()
            .filter_map(|pc| {
                let name = self.look(space, pc)?;
                Some((Frame::Bare { space, pc }, [name].into()))
            })
            .collect();
        named.sort_by_key(|(frame, _)| *frame);
        named
    }

    /// Spaces that have not ended.
    pub fn open(&self) -> Vec<SpaceId> {
        let open = self.spaces.iter().filter(|(_, it)| !it.unknown.is_empty());
        let mut open: Vec<SpaceId> = open.map(|(&space, _)| space).collect();
        open.sort_unstable();
        open
    }

    fn look(&mut self, space: SpaceId, pc: Addr) -> Option<FrameName> {
        let state = self.spaces.get_mut(&space)?;
        state.read();
        let mut parent = state.parent;
        let mut name = state.find(pc);
        for _ in 0..MOST_PARENTS {
            let Some(state) = parent.and_then(|parent| self.spaces.get_mut(&parent)) else {
                break;
            };
            if name.is_some() {
                break;
            }
            state.read();
            name = state.find(pc);
            parent = state.parent;
        }
        name
    }
}

impl Space {
    fn read(&mut self) {
        while 0 < self.left
            && let Some(bytes) = self.file.more(PIECE.min(self.left))
        {
            self.left -= (bytes.len() as u64).min(self.left);
            self.map.add(&bytes);
            if bytes.is_empty() {
                break;
            }
        }
    }

    fn find(&self, pc: Addr) -> Option<FrameName> {
        // The call is before the address it returns to.
        let (name, start) = self.map.find(pc.0.checked_sub(1)?)?;
        Some(FrameName {
            function: Arc::clone(name),
            offset: pc.0 - start,
            file: None,
            line: 0,
        })
    }
}
