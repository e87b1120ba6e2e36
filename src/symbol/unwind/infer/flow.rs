//! Follows instructions along every way that jumps lead.

use std::collections::BTreeMap;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
};

use super::state::State;
use super::{Instructions, RSP_NUMBER, Word};

/// Steps, those included that find less known than before. Larger functions are rare.
const MOST_STEPS: usize = 1 << 15;

/// What becomes of a way that comes to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    /// It goes on behind it.
    Return,
    /// It is given up: who knows whether it returns?
    End,
}

/// What is known at each instruction.
#[derive(Debug)]
pub(super) struct Flow {
    nodes: BTreeMap<u64, Node>,
    work: Vec<u64>,
    /// Instructions that leave the function.
    ends: Vec<u64>,
    /// Jumps that may lead anywhere.
    open: Vec<u64>,
}

#[derive(Debug)]
struct Node {
    before: State,
    length: u64,
    /// Nothing led here but a call that may not return, and padding.
    behind_call: bool,
}

impl Flow {
    /// From `origin` on. `None` if that is too much.
    pub(super) fn follow(text: &mut impl Instructions, origin: u64, calls: Calls) -> Option<Flow> {
        let mut flow = Flow {
            nodes: BTreeMap::new(),
            work: Vec::new(),
            ends: Vec::new(),
            open: Vec::new(),
        };
        let mut info = InstructionInfoFactory::new();
        flow.go(origin, &State::origin(text.word()), false);
        for _ in 0..MOST_STEPS {
            let Some(address) = flow.work.pop() else {
                flow.ends.sort_unstable();
                flow.ends.dedup();
                return Some(flow);
            };
            let Some(instruction) = decode(text, address) else {
                continue;
            };
            if let Some(node) = flow.nodes.get_mut(&address) {
                node.length = instruction.len() as u64;
                let mut state = node.before.clone();
                let behind_call = node.behind_call && is_padding(&instruction);
                flow.leave(
                    text,
                    &instruction,
                    &mut state,
                    behind_call,
                    calls,
                    &mut info,
                );
            }
        }
        None
    }

    /// Goes on from an instruction.
    fn leave(
        &mut self,
        text: &mut impl Instructions,
        instruction: &Instruction,
        state: &mut State,
        behind_call: bool,
        calls: Calls,
        info: &mut InstructionInfoFactory,
    ) {
        let (address, next) = (instruction.ip(), instruction.next_ip());
        match instruction.flow_control() {
            FlowControl::Return => self.ends.push(address),
            FlowControl::UnconditionalBranch => {
                self.jump(text, instruction, state);
            }
            FlowControl::IndirectBranch => self.open.push(address),
            FlowControl::ConditionalBranch => {
                self.jump(text, instruction, state);
                state.step(instruction, info);
                self.go(next, state, false);
            }
            FlowControl::Call | FlowControl::IndirectCall => {
                let direct = instruction.near_branch_target();
                // A call of what follows takes an address: the stack is not as it was.
                if calls == Calls::Return && direct != next && goes_on(text, next) {
                    state.step(instruction, info);
                    self.go(next, state, true);
                }
            }
            FlowControl::Next | FlowControl::XbeginXabortXend
                if instruction.mnemonic() != Mnemonic::Hlt =>
            {
                state.step(instruction, info);
                self.go(next, state, behind_call);
            }
            FlowControl::Interrupt
                if !matches!(instruction.mnemonic(), Mnemonic::Int3 | Mnemonic::Int1) =>
            {
                state.step(instruction, info);
                self.go(next, state, false);
            }
            _ => {}
        }
    }

    fn jump(&mut self, text: &mut impl Instructions, instruction: &Instruction, state: &State) {
        let target = instruction.near_branch_target();
        match text.is_start(target) {
            // It returns for this one.
            true => self.ends.push(instruction.ip()),
            false => self.go(target, state, false),
        }
    }

    fn go(&mut self, address: u64, state: &State, behind_call: bool) {
        let Some(node) = self.nodes.get_mut(&address) else {
            let node = Node {
                before: state.clone(),
                length: 0,
                behind_call,
            };
            self.nodes.insert(address, node);
            self.work.push(address);
            return;
        };
        let agree = node.before.register(RSP_NUMBER) == state.register(RSP_NUMBER);
        let changed = match (node.behind_call, behind_call) {
            // The stack is as deep whichever way an instruction is reached, so the call never returns.
            (false, true) if !agree => false,
            (true, false) if !agree => {
                node.before = state.clone();
                true
            }
            _ => node.before.meet(state),
        };
        node.behind_call &= behind_call;
        if changed {
            self.work.push(address);
        }
    }

    /// What is known before the instruction that an address is in.
    pub(super) fn at(&self, address: u64) -> Option<&State> {
        let (start, node) = self.nodes.range(..=address).next_back()?;
        (address - start < node.length).then_some(&node.before)
    }

    /// What is known where the function is left.
    pub(super) fn ends(&self) -> impl Iterator<Item = &State> {
        self.before(&self.ends)
    }

    /// What is known before jumps whose targets only the processor knows.
    pub(super) fn open(&self) -> impl Iterator<Item = &State> {
        self.before(&self.open)
    }

    fn before(&self, places: &[u64]) -> impl Iterator<Item = &State> {
        let nodes = places.iter().filter_map(|place| self.nodes.get(place));
        nodes.map(|node| &node.before)
    }
}

pub(super) fn decode(text: &mut impl Instructions, address: u64) -> Option<Instruction> {
    let bytes = text.fetch(address)?;
    let instruction = text.word().decode(&bytes, address);
    (!instruction.is_invalid()).then_some(instruction)
}

impl Word {
    pub(super) fn decode(self, bytes: &[u8], address: u64) -> Instruction {
        let bits = 8 * self.size() as u32;
        Decoder::with_ip(bits, bytes, address, DecoderOptions::NONE).decode()
    }
}

/// Whether what follows a call belongs to the same function. Nothing but another function follows a
/// call that never returns, perhaps behind padding.
fn goes_on(text: &mut impl Instructions, next: u64) -> bool {
    if !text.knows_starts() {
        return decode(text, next).is_some_and(|it| !is_padding(&it));
    }
    let mut address = next;
    while !text.is_start(address) && !text.is_end(address) {
        match decode(text, address) {
            Some(it) if is_padding(&it) => address = it.next_ip(),
            Some(_) => return true,
            None => return false,
        }
    }
    false
}

fn is_padding(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
}
