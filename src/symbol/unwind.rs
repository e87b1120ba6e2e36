//! From registers and a copy of the stack to frames.

use std::collections::HashMap;
use std::sync::Arc;

use crate::mm::{AddressSpace, Backing, FileId};
use crate::timeline::{Frame, Module, ModuleId, Observed, RawStack, StackEnd, StackSeen};
use crate::units::{Addr, SpaceId, StackId, Tid};

/// Unwinds stacks, and knows those it has seen: each makes one [`StackSeen`] in a trace.
#[derive(Debug, Default)]
pub struct Unwinder {
    modules: HashMap<Module, ModuleId>,
    stacks: HashMap<(Arc<[Frame]>, StackEnd), StackId>,
}

impl Unwinder {
    /// The stack of a task of `pid`, whose space `model` shows as it was when the stack was copied.
    /// What a trace must be told before it refers to the stack is appended to `told`.
    pub fn unwind(
        &mut self,
        raw: &RawStack,
        (space, pid): (SpaceId, Tid),
        model: &AddressSpace,
        told: &mut Vec<Observed>,
    ) -> StackId {
        let _ = pid;
        let pc = Addr(raw.registers.pc);
        let frame = self.frame(pc, space, model, told);
        let frames: Arc<[Frame]> = [frame].into();
        self.intern(frames, StackEnd::Lost, told)
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
        pc: Addr,
        space: SpaceId,
        model: &AddressSpace,
        told: &mut Vec<Observed>,
    ) -> Frame {
        let bare = Frame::Bare { space, pc };
        let Some(vma) = model.at(pc) else { return bare };
        let (module, offset) = match &vma.backing {
            Backing::Anon => return bare,
            Backing::File { id, offset, name } => {
                let path = Arc::clone(name);
                (Module { path, file: *id }, *offset)
            }
            Backing::Special { name } => {
                let path = Arc::clone(name);
                let file = FileId::default();
                (Module { path, file }, 0)
            }
        };
        let next = ModuleId(self.modules.len() as u32);
        let module = *self.modules.entry(module.clone()).or_insert_with(|| {
            told.push(Observed::Module(module));
            next
        });
        let offset = offset.wrapping_add(pc.0.wrapping_sub(vma.range.start().0));
        Frame::Module { module, offset }
    }
}
