//! Registers and the stack, as far as they are known, and what of them was used.

use crate::timeline::{Copied, RawStack, Registers, StackEnd};

use super::cfi::{RBP, RBX, REGISTERS, RSP};

/// What a stack follows from beside the code it leads through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Bits by number: registers as they were at the stop.
    registers: u32,
    /// Words of the stack, by address.
    words: Vec<(u64, u64)>,
    /// Where a goroutine was left.
    goroutine: Option<Registers>,
}

impl Used {
    /// Whether all of it, which was found in `before`, is the same in `now`.
    pub(super) fn holds(&self, before: &Registers, now: &RawStack) -> bool {
        let same = |&number: &usize| {
            self.registers & (1 << number) == 0
                || initial(before, number) == initial(&now.registers, number)
        };
        (0..REGISTERS)
            .filter(|number| *number != RSP)
            .all(|number| same(&number))
            && before.sp == now.registers.sp
            && (self.goroutine.is_none() || self.goroutine == now.goroutine)
            && self
                .words
                .iter()
                .all(|&(address, word)| look(&now.copies, address) == Ok(word))
    }
}

fn initial(registers: &Registers, number: usize) -> Option<u64> {
    match number {
        RBX => Some(registers.bx),
        RBP => Some(registers.bp),
        RSP => Some(registers.sp),
        12..=15 => Some(registers.r12_to_r15[number - 12]),
        _ => None,
    }
}

/// Eight bytes of what was copied.
fn look(copies: &[Copied], address: u64) -> Result<u64, StackEnd> {
    let mut end = StackEnd::Lost;
    for copy in copies {
        let Some(at) = address.checked_sub(copy.start.0) else {
            continue;
        };
        let rest = usize::try_from(at).ok().and_then(|at| copy.bytes.get(at..));
        if let Some(word) = rest.and_then(<[u8]>::first_chunk) {
            return Ok(u64::from_le_bytes(*word));
        }
        // The end of a copy is followed by more of the same stack.
        if copy.cut && at < MOST_BEYOND {
            end = StackEnd::Cut;
        }
    }
    Err(end)
}

/// No stack goes on so far behind what was copied of it.
const MOST_BEYOND: u64 = 1 << 30;

/// What a register holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Known(u64),
    /// What it held at the stop.
    Initial,
    /// It was saved there; nobody has needed it yet.
    At(u64),
    Unknown,
}

/// The registers of the frame that was reached.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    raw: &'a RawStack,
    values: [Value; REGISTERS],
    /// Where the frame is, as expressions see it: those of a PLT ask how far its code has come.
    pub(super) pc: u64,
    used: Used,
}

impl<'a> Machine<'a> {
    pub(super) fn new(raw: &'a RawStack) -> Machine<'a> {
        let values = std::array::from_fn(|number| match initial(&raw.registers, number) {
            Some(_) => Value::Initial,
            None => Value::Unknown,
        });
        Machine {
            raw,
            values,
            pc: raw.registers.pc,
            used: Used::default(),
        }
    }

    /// What a register holds. Nothing tells: `Lost`.
    pub(super) fn register(&mut self, number: usize) -> Result<u64, StackEnd> {
        match self.values[number] {
            Value::Known(value) => Ok(value),
            Value::Initial => {
                self.used.registers |= 1 << number;
                initial(&self.raw.registers, number).ok_or(StackEnd::Lost)
            }
            Value::At(address) => {
                let value = self.memory(address)?;
                self.values[number] = Value::Known(value);
                Ok(value)
            }
            Value::Unknown => Err(StackEnd::Lost),
        }
    }

    /// Eight bytes of the stack.
    pub(super) fn memory(&mut self, address: u64) -> Result<u64, StackEnd> {
        let word = look(&self.raw.copies, address)?;
        self.used.words.push((address, word));
        Ok(word)
    }

    /// The lower half of a register, and four bytes of the stack: as 32-bit code has them.
    pub(super) fn memory32(&mut self, address: u64) -> Result<u64, StackEnd> {
        // The words that are remembered are of eight bytes.
        let word = match look(&self.raw.copies, address) {
            Ok(_) => self.memory(address)?,
            Err(_) => self.memory(address.wrapping_sub(4))? >> 32,
        };
        Ok(word & u64::from(u32::MAX))
    }

    pub(super) fn values(&self) -> [Value; REGISTERS] {
        self.values
    }

    pub(super) fn set(&mut self, values: [Value; REGISTERS]) {
        self.values = values;
    }

    /// Whether the thread works for a goroutine that it has left.
    pub(super) fn has_goroutine(&self) -> bool {
        self.raw.goroutine.is_some()
    }

    /// The goroutine that the thread works for, from here on.
    pub(super) fn go_on_with_goroutine(&mut self) -> Option<Registers> {
        if self.used.goroutine.is_some() {
            return None;
        }
        let left = self.raw.goroutine?;
        self.used.goroutine = Some(left);
        let mut values = [Value::Unknown; REGISTERS];
        values[RSP] = Value::Known(left.sp);
        values[RBP] = Value::Known(left.bp);
        self.values = values;
        Some(left)
    }

    pub(super) fn into_used(self) -> Used {
        self.used
    }
}
