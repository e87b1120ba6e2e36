//! From registers and a copy of the stack to frames.

mod cfi;
mod code;
mod files;
mod infer;
mod machine;
mod remembered;
mod walk;

use std::collections::HashMap;
use std::sync::Arc;

use crate::abi::Prot;
use crate::mm::AddressSpace;
use crate::timeline::{Frame, Module, ModuleId, Observed, RawStack, StackEnd, StackSeen};
use crate::units::{SpaceId, StackId, Tid};

use files::Files;
use remembered::Remembered;
use walk::{Mapping, Site, Walk};

pub use infer::inferred_frame;

/// Unwinds stacks, and knows those it has seen: each makes one [`StackSeen`] in a trace.
#[derive(Debug, Default)]
pub struct Unwinder {
    modules: HashMap<Module, ModuleId>,
    stacks: HashMap<(Arc<[Frame]>, StackEnd), StackId>,
    files: Files,
    remembered: Remembered,
}

impl Unwinder {
    /// Begins to read the files of code that `model` shows, of a process that will soon be asked about.
    pub fn expect(&mut self, pid: Tid, model: &AddressSpace) {
        for vma in model.vmas().filter(|vma| vma.prot.contains(Prot::EXEC)) {
            if let Some(module) = Mapping::new(vma).module {
                self.files.expect(&module, pid, vma.range);
            }
        }
    }

    /// The stack of a task of `pid`, whose space `model` shows as it was when the stack was copied.
    /// What a trace must be told before it refers to the stack is appended to `told`.
    pub fn unwind(
        &mut self,
        raw: &RawStack,
        (space, pid): (SpaceId, Tid),
        model: &AddressSpace,
        told: &mut Vec<Observed>,
    ) -> StackId {
        if let Some(known) = self.remembered.find(raw, space, model) {
            return known;
        }
        let walked = Walk::walk(raw, pid, model, &mut self.files);
        let frames = walked.sites.iter();
        let frames = frames
            .map(|site| self.frame(*site, space, &walked.mappings, told))
            .collect();
        let id = self.intern(frames, walked.end, told);
        self.remembered.add(raw, space, walked, id);
        id
    }

    fn intern(&mut self, frames: Arc<[Frame]>, end: StackEnd, told: &mut Vec<Observed>) -> StackId {
        let next = StackId(self.stacks.len() as u32 + 1);
        let key = (Arc::clone(&frames), end);
        *self.stacks.entry(key).or_insert_with(|| {
            let id = next;
            told.push(Observed::Stack(StackSeen { id, frames, end }));
            id
        })
    }

    fn frame(
        &mut self,
        site: Site,
        space: SpaceId,
        mappings: &[Mapping],
        told: &mut Vec<Observed>,
    ) -> Frame {
        let pc = site.pc;
        let mapping = site.mapping.and_then(|mapping| mappings.get(mapping));
        let Some((mapping, module)) =
            mapping.and_then(|mapping| Some((mapping, mapping.module.as_ref()?)))
        else {
            return Frame::Bare { space, pc };
        };
        let offset = mapping.offset(pc.0);
        let next = ModuleId(self.modules.len() as u32);
        let module = match self.modules.get(module) {
            Some(known) => *known,
            None => {
                told.push(Observed::Module(module.clone()));
                self.modules.insert(module.clone(), next);
                next
            }
        };
        Frame::Module { module, offset }
    }
}
