//! Stacks that come again: a loop of calls is unwound once.
//!
//! Unwinding looks at a few words of a stack. Where those, the registers that mattered and the
//! mappings of code are what they were, so is the stack.

use std::collections::HashMap;

use crate::abi::Prot;
use crate::mm::AddressSpace;
use crate::timeline::{RawStack, Registers};
use crate::units::{Addr, SpaceId, StackId};

use super::walk::{Mapping, Walked};

/// Stacks kept of one place: the same code may be reached in several ways.
const MOST_ALIKE: usize = 4;
/// Places kept; then all is forgotten.
const MOST_PLACES: usize = 1024;

/// The stacks of late.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// By space, address and stack pointer.
    places: HashMap<(SpaceId, u64, u64), Vec<Stack>>,
}

#[derive(Debug)]
struct Stack {
    registers: Registers,
    compat: bool,
    interrupted: bool,
    walked: Walked,
    id: StackId,
}

impl Remembered {
    /// The stack, if it is one of them.
    pub(super) fn find(
        &self,
        raw: &RawStack,
        space: SpaceId,
        model: &AddressSpace,
    ) -> Option<StackId> {
        let Registers { pc, sp, .. } = raw.registers;
        let stacks = self.places.get(&(space, pc, sp))?;
        let stack = stacks.iter().find(|stack| {
            let there = |mapping: &Mapping| {
                let now = model.at(mapping.vma.range.start());
                now.is_some_and(|now| {
                    now.range == mapping.vma.range
                        && now.prot == mapping.vma.prot
                        && now.backing == mapping.vma.backing
                })
            };
            let code = |address: &Addr| {
                let now = model.at(*address);
                now.is_some_and(|now| now.prot.contains(Prot::EXEC))
            };
            stack.compat == raw.compat
                && stack.interrupted == raw.interrupted
                && stack.walked.used.holds(&stack.registers, raw)
                && stack.walked.mappings.iter().all(there)
                && !stack.walked.no_code.iter().any(code)
        })?;
        Some(stack.id)
    }

    pub(super) fn add(&mut self, raw: &RawStack, space: SpaceId, walked: Walked, id: StackId) {
        if MOST_PLACES <= self.places.len() {
            self.places.clear();
        }
        let Registers { pc, sp, .. } = raw.registers;
        let stacks = self.places.entry((space, pc, sp)).or_default();
        if MOST_ALIKE <= stacks.len() {
            stacks.remove(0);
        }
        stacks.push(Stack {
            registers: raw.registers,
            compat: raw.compat,
            interrupted: raw.interrupted,
            walked,
            id,
        });
    }
}
