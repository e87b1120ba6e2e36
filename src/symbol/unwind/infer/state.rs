//! What is known of registers and of the stack at an instruction, and what one instruction does to it.

use iced_x86::{
    Code, FlowControl, Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpAccess, OpKind,
    Register,
};

use super::{Number, RBX_NUMBER, RSP_NUMBER, Word};

/// More places of one stack frame are not followed.
const MOST_PLACES: usize = 256;
/// Registers that a call leaves anything in: rax, rcx, rdx, r8 to r11, rsi, rdi; in 32-bit code the first
/// three.
const LOST_IN_CALLS: [usize; 9] = [0, 1, 2, 8, 9, 10, 11, 6, 7];

/// What a register holds, by what there was at the origin: where following the instructions began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// What a register held, and so much.
    Is(Number, i64),
    /// A word of memory, so far from where a register pointed.
    At(Number, i64),
    Zero,
    Unknown,
}

/// Registers, by the encoding's numbers, and the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    word: Word,
    registers: [Value; 16],
    /// What was written to the stack, by distance from the stack pointer of the origin; sorted.
    written: Vec<(i64, Value)>,
    /// What the stack pointer is if the zero flag is set.
    compared: Option<Value>,
}

impl State {
    /// At the origin.
    pub(super) fn origin(word: Word) -> State {
        State {
            word,
            registers: std::array::from_fn(|number| Value::Is(number as Number, 0)),
            written: Vec::new(),
            compared: None,
        }
    }

    pub(super) fn register(&self, number: Number) -> Value {
        self.registers[usize::from(number)]
    }

    /// Where on the stack the value is that a register had at the origin.
    pub(super) fn saved(&self, number: Number) -> Option<i64> {
        let wanted = Value::Is(number, 0);
        let is = |(_, value): &&(i64, Value)| *value == wanted;
        self.written.iter().find(is).map(|(place, _)| *place)
    }

    /// What holds whichever way the instruction was reached. Tells whether that is less than before.
    pub(super) fn meet(&mut self, other: &State) -> bool {
        let mut less = false;
        let mut weaken = |ours: &mut Value, other: Value| {
            if *ours != other && *ours != Value::Unknown {
                *ours = Value::Unknown;
                less = true;
            }
        };
        for (ours, other) in self.registers.iter_mut().zip(&other.registers) {
            weaken(ours, *other);
        }
        for (place, ours) in &mut self.written {
            weaken(ours, other.at(*place).unwrap_or(Value::Unknown));
        }
        for (place, _) in &other.written {
            if let Err(at) = self.find(*place) {
                self.written.insert(at, (*place, Value::Unknown));
                less = true;
            }
        }
        if self.compared != other.compared && self.compared.is_some() {
            self.compared = None;
            less = true;
        }
        less
    }

    /// What an instruction leaves behind, where it goes on with the next.
    pub(super) fn step(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let compared = self.compared.take();
        if self.moves(instruction) {
            return;
        }
        let call = matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        );
        if call {
            // The callee takes its return address away.
            let lost = match self.word {
                Word::Eight => &LOST_IN_CALLS[..],
                Word::Four => &LOST_IN_CALLS[..3],
            };
            for &number in lost {
                self.registers[number] = Value::Unknown;
            }
            // `__x86.get_pc_thunk.bx` is for that.
            if self.word == Word::Four && self.saved(RBX_NUMBER).is_some() {
                self.registers[usize::from(RBX_NUMBER)] = Value::Unknown;
            }
            return;
        }
        if instruction.mnemonic() == Mnemonic::Jne {
            // Goes on where the flag is set. Loops touch each page of a large frame on their way.
            if let Some(value) = compared {
                self.registers[usize::from(RSP_NUMBER)] = value;
            }
            return;
        }
        if instruction.mnemonic() == Mnemonic::Cmp {
            self.compare(instruction);
        }
        self.forget(instruction, info);
    }

    /// Instructions that values are followed through. Tells whether this is one.
    fn moves(&mut self, instruction: &Instruction) -> bool {
        let sp = usize::from(RSP_NUMBER);
        let word = self.word;
        let first = || word.full(instruction.op_register(0));
        let is_register = |operand| instruction.op_kind(operand) == OpKind::Register;
        match instruction.mnemonic() {
            Mnemonic::Push => {
                let value = match instruction.op_kind(0) {
                    OpKind::Register => {
                        first().map_or(Value::Unknown, |number| self.register(number))
                    }
                    _ => Value::Unknown,
                };
                self.registers[sp] =
                    self.registers[sp].plus(i64::from(instruction.stack_pointer_increment()));
                self.write(self.registers[sp], word.size(), value);
            }
            Mnemonic::Pop if is_register(0) => {
                let value = self.read(self.registers[sp]);
                self.registers[sp] =
                    self.registers[sp].plus(i64::from(instruction.stack_pointer_increment()));
                match first() {
                    Some(number) => self.registers[usize::from(number)] = value,
                    None => self.lose(instruction.op_register(0)),
                }
            }
            Mnemonic::Leave if matches!(instruction.code(), Code::Leaveq | Code::Leaved) => {
                self.registers[sp] = self.registers[5].plus(word.size());
                self.registers[5] = self.read(self.registers[5]);
            }
            Mnemonic::Mov if is_register(0) => {
                let Some(number) = first() else { return false };
                self.registers[usize::from(number)] = match instruction.op_kind(1) {
                    OpKind::Register => word
                        .full(instruction.op_register(1))
                        .map_or(Value::Unknown, |from| self.register(from)),
                    OpKind::Memory => self.read(self.place(instruction)),
                    _ => Value::Unknown,
                };
            }
            Mnemonic::Mov if instruction.op_kind(0) == OpKind::Memory && is_register(1) => {
                let from = word.full(instruction.op_register(1));
                let value = from.map_or(Value::Unknown, |number| self.register(number));
                let size = instruction.memory_size().size() as i64;
                self.write(self.place(instruction), size, value);
            }
            Mnemonic::Lea => {
                let Some(number) = first() else { return false };
                self.registers[usize::from(number)] = self.place(instruction);
            }
            Mnemonic::Add | Mnemonic::Sub if is_register(0) => {
                let Some(number) = first() else { return false };
                let Some(change) = word.constant(instruction) else {
                    return false;
                };
                let change = match instruction.mnemonic() {
                    Mnemonic::Add => change,
                    _ => change.wrapping_neg(),
                };
                let register = &mut self.registers[usize::from(number)];
                *register = register.plus(change);
            }
            Mnemonic::Xor | Mnemonic::Sub
                if is_register(0)
                    && is_register(1)
                    && instruction.op_register(0) == instruction.op_register(1) =>
            {
                // Writing four bytes clears the others.
                let written = instruction.op_register(0);
                let Some(number) = general(written).filter(|_| 4 <= written.size()) else {
                    return false;
                };
                self.registers[usize::from(number)] = Value::Zero;
            }
            _ => return false,
        }
        true
    }

    /// Where an operand in memory is.
    fn place(&self, instruction: &Instruction) -> Value {
        let plain = instruction.memory_index() == Register::None
            && instruction.segment_prefix() == Register::None;
        match self.word.full(instruction.memory_base()).filter(|_| plain) {
            Some(base) => self
                .register(base)
                .plus(self.word.signed(instruction.memory_displacement64())),
            None => Value::Unknown,
        }
    }

    fn compare(&mut self, instruction: &Instruction) {
        let registers = [0, 1].map(|operand| {
            let register = instruction.op_kind(operand) == OpKind::Register;
            register
                .then(|| self.word.full(instruction.op_register(operand)))
                .flatten()
        });
        self.compared = match registers {
            [Some(RSP_NUMBER), Some(other)] | [Some(other), Some(RSP_NUMBER)] => {
                match self.register(other) {
                    it @ Value::Is(..) => Some(it),
                    _ => None,
                }
            }
            _ => None,
        };
    }

    /// Whatever an instruction writes is not known thereafter.
    fn forget(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let writes = |access| {
            !matches!(
                access,
                OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
            )
        };
        let info = info.info(instruction);
        for used in info.used_memory().iter() {
            if !writes(used.access()) || used.index() != Register::None {
                continue;
            }
            let base = self.word.full(used.base()).map(|base| self.register(base));
            let size = match used.memory_size() {
                MemorySize::Unknown => 64,
                size => size.size() as i64,
            };
            if let Some(Value::Is(RSP_NUMBER, base)) = base {
                let place = base.wrapping_add(self.word.signed(used.displacement()));
                self.overwrite(place, size);
            }
        }
        for used in info.used_registers() {
            if writes(used.access()) {
                self.lose(used.register());
            }
        }
    }

    fn lose(&mut self, register: Register) {
        if let Some(number) = general(register) {
            self.registers[usize::from(number)] = Value::Unknown;
        }
    }

    fn find(&self, place: i64) -> Result<usize, usize> {
        self.written.binary_search_by_key(&place, |(at, _)| *at)
    }

    fn at(&self, place: i64) -> Option<Value> {
        self.find(place).ok().map(|at| self.written[at].1)
    }

    fn read(&self, place: Value) -> Value {
        match place {
            Value::Is(RSP_NUMBER, place) => {
                let overlaps = |(at, _): &&(i64, Value)| {
                    let size = self.word.size();
                    *at != place && (-size..size).contains(&at.wrapping_sub(place))
                };
                match self.at(place) {
                    Some(value) => value,
                    None if self.written.iter().any(|it| overlaps(&it)) => Value::Unknown,
                    None => Value::At(RSP_NUMBER, place),
                }
            }
            Value::Is(number, place) => Value::At(number, place),
            _ => Value::Unknown,
        }
    }

    fn write(&mut self, place: Value, size: i64, value: Value) {
        let Value::Is(RSP_NUMBER, place) = place else {
            return;
        };
        self.overwrite(place, size);
        if MOST_PLACES <= self.written.len() {
            // Not followed any more, so nothing is.
            self.registers[usize::from(RSP_NUMBER)] = Value::Unknown;
            return;
        }
        match self.find(place) {
            Ok(at) => {
                self.written[at].1 = if size == self.word.size() {
                    value
                } else {
                    Value::Unknown
                }
            }
            Err(at) if size == self.word.size() => self.written.insert(at, (place, value)),
            Err(at) => self.written.insert(at, (place, Value::Unknown)),
        }
    }

    /// What was there is there no more.
    fn overwrite(&mut self, place: i64, size: i64) {
        let end = place.saturating_add(size);
        for (at, value) in &mut self.written {
            if *at < end && place < at.saturating_add(self.word.size()) {
                *value = Value::Unknown;
            }
        }
    }
}

impl Value {
    fn plus(self, change: i64) -> Value {
        match self {
            Value::Is(number, so_far) => Value::Is(number, so_far.wrapping_add(change)),
            _ => Value::Unknown,
        }
    }
}

/// The number of a general register, of any size.
fn general(register: Register) -> Option<Number> {
    register
        .is_gpr()
        .then(|| register.full_register().number() as Number)
}

impl Word {
    pub(super) fn size(self) -> i64 {
        match self {
            Word::Eight => 8,
            Word::Four => 4,
        }
    }

    /// The number of a register that holds a word.
    fn full(self, register: Register) -> Option<Number> {
        general(register).filter(|_| register.size() as i64 == self.size())
    }

    fn signed(self, number: u64) -> i64 {
        match self {
            Word::Eight => number as i64,
            Word::Four => i64::from(number as u32 as i32),
        }
    }

    /// The second operand, if it is a constant.
    fn constant(self, instruction: &Instruction) -> Option<i64> {
        let is = matches!(
            instruction.op_kind(1),
            OpKind::Immediate8to64
                | OpKind::Immediate32to64
                | OpKind::Immediate64
                | OpKind::Immediate8to32
                | OpKind::Immediate32
        );
        is.then(|| self.signed(instruction.immediate(1)))
    }
}
