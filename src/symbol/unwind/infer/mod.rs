//! Code without unwind information: what its instructions do to the stack tells where the return
//! address is.
//!
//! A function begins with its return address on top of the stack, and a call leaves the stack pointer
//! and rbx, rbp and r12 to r15 as they were: so much is the calling convention. The rest is followed
//! from the function's start, along each way that its jumps lead, or from where it goes on to where it
//! returns. Ways that disagree prove nothing, and then nothing is said. Whoever asks must see to it
//! that a call stands before the return address found.

mod flow;
mod signal;
mod state;
mod symbols;
#[cfg(test)]
mod tests;
mod text;

use super::cfi::{Cfa, RSP, Rules, Saved};

use flow::{Calls, Flow};
use state::{State, Value};

pub(super) use text::Text;
pub use text::inferred_frame;

/// A register's number in instructions.
type Number = u8;
const RBX_NUMBER: Number = 3;
const RSP_NUMBER: Number = 4;
const RBP_NUMBER: Number = 5;
/// Registers that a function gives back as it found them: rbx, rbp, r12 to r15, or ebx, ebp, esi, edi.
const KEPT: [Number; 6] = [RBX_NUMBER, RBP_NUMBER, 12, 13, 14, 15];
const KEPT_32: [Number; 4] = [RBX_NUMBER, RBP_NUMBER, 6, 7];

/// What code works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Eight,
    /// 32-bit code.
    Four,
}

impl Word {
    fn kept(self) -> &'static [Number] {
        match self {
            Word::Eight => &KEPT,
            Word::Four => &KEPT_32,
        }
    }
}

/// Code that can be read, by the file's own addresses.
trait Instructions {
    fn word(&self) -> Word;
    /// What is at an address: an instruction's length of bytes, or less.
    fn fetch(&mut self, address: u64) -> Option<Vec<u8>>;
    /// Whether a function begins there.
    fn is_start(&self, address: u64) -> bool;
    /// Whether the function ends there that the byte before belongs to.
    fn is_end(&self, address: u64) -> bool;
    /// Whether the starts of functions are known at all.
    fn knows_starts(&self) -> bool;
}

/// How to unwind a frame, by instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inferred {
    Rules(Rules),
    /// Only if what called it called a start that leads to the same.
    IfCalled(Rules),
}

/// The function that begins at `start`; `None` if it leaves the stack otherwise than it found it.
fn function(text: &mut impl Instructions, start: u64) -> Option<Flow> {
    let flow = Flow::follow(text, start, Calls::Return)?;
    let returns_well = |state: &State| match state.register(RSP_NUMBER) {
        Value::Is(RSP_NUMBER, offset) => offset == 0,
        Value::Unknown => true,
        _ => false,
    };
    let well = flow.ends().all(returns_well);
    well.then_some(flow)
}

/// The rules where so much is known of a function that was followed from its start.
fn from_start(state: &State, word: Word) -> Option<Rules> {
    let sp = state.register(RSP_NUMBER);
    // A value that was there to be given back is gone: the deepest frame is marked so (psABI 3.4.1).
    if state.register(RBP_NUMBER) == Value::Zero && state.saved(RBP_NUMBER).is_none() {
        return Some(Rules {
            cfa: Cfa::Register(RSP, 0),
            saved: Vec::new(),
            return_address: None,
            signal: false,
        });
    }
    let kept = word.kept().iter().copied();
    let bases = [RSP_NUMBER].into_iter().chain(kept.clone());
    let (base, offset) = bases
        .filter_map(|number| match state.register(number) {
            Value::Is(RSP_NUMBER, offset) => Some((number, offset)),
            _ => None,
        })
        .next()?;
    if base == RSP_NUMBER && 0 < offset {
        return None;
    }
    let lowest = match sp {
        Value::Is(RSP_NUMBER, offset) => offset,
        _ => i64::MIN,
    };
    let saved = kept.filter_map(|number| {
        if state.register(number) == Value::Is(number, 0) {
            return None;
        }
        let place = state.saved(number).filter(|place| lowest <= *place);
        let place = place.and_then(|place| place.checked_sub(word.size()));
        Some((dwarf(number), place.map_or(Saved::Nowhere, Saved::At)))
    });
    Some(Rules {
        cfa: Cfa::Register(dwarf(base), word.size().checked_sub(offset)?),
        saved: saved.collect(),
        return_address: Some(Saved::At(-word.size())),
        signal: false,
    })
}

/// The rules for code that goes on at `next`: what it does until it returns.
fn to_return(text: &mut impl Instructions, next: u64, calls: Calls) -> Option<Rules> {
    let word = text.word();
    let flow = Flow::follow(text, next, calls)?;
    let mut ends = flow.ends().map(|state| -> Option<Rules> {
        let Value::Is(base, offset) = state.register(RSP_NUMBER) else {
            return None;
        };
        if base == RSP_NUMBER && offset < 0 {
            return None;
        }
        let mut saved = Vec::new();
        for &number in word.kept() {
            match state.register(number) {
                value if value == Value::Is(number, 0) => {}
                Value::At(from, place) => {
                    let place = place.checked_sub(offset)?.checked_sub(word.size())?;
                    let place = match from == base {
                        true => Saved::At(place),
                        false => Saved::Nowhere,
                    };
                    saved.push((dwarf(number), place));
                }
                _ => return None,
            }
        }
        Some(Rules {
            cfa: Cfa::Register(dwarf(base), offset.checked_add(word.size())?),
            saved,
            return_address: Some(Saved::At(-word.size())),
            signal: false,
        })
    });
    let first = ends.next()??;
    ends.all(|other| other.as_ref() == Some(&first))
        .then_some(first)
}

/// Whether a CFA is right behind the return address, where so much is known of a function.
fn leads_to_caller(state: &State, cfa: &Cfa, word: Word) -> bool {
    let Cfa::Register(number, offset) = cfa else {
        return false;
    };
    let is = |&it: &Number| dwarf(it) == *number;
    let base = (0..16).find(is).map(|number| state.register(number));
    matches!(base, Some(Value::Is(RSP_NUMBER, base)) if base.checked_add(*offset) == Some(word.size()))
}

/// A register's number in unwind information.
fn dwarf(number: Number) -> usize {
    const NUMBERS: [usize; 8] = [0, 2, 1, 3, RSP, 6, 4, 5];
    let number = usize::from(number);
    NUMBERS.get(number).copied().unwrap_or(number)
}
