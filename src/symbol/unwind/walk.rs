//! From frame to frame.
//!
//! Nothing here is guessed: each step follows from the tables of the code it is in, and where there
//! are none, from a frame pointer that leads up the stack to an address of code. A step that leads
//! anywhere else is not made.

use std::sync::Arc;

use crate::abi::Prot;
use crate::mm::{AddressSpace, Backing, FileId, Vma};
use crate::symbol::go::Function;
use crate::timeline::{Module, RawStack, StackEnd};
use crate::units::{Addr, Tid};

use super::cfi::{Cfa, RBP, REGISTERS, RSP, Rules, Saved, evaluate};
use super::files::Files;
use super::infer::{Inferred, Text};
use super::machine::{Machine, Used, Value};

/// As many frames as are kept.
const DEEPEST: usize = 512;
/// Leaves a goroutine's stack for that of the thread, and comes back.
const SWITCHES: &str = "runtime.systemstack";
/// Leave it to schedule: once they have let go of the goroutine, nothing called what they do.
const SCHEDULE: &[&str] = &["runtime.mcall", "runtime.morestack"];
/// Leaves it unless it is on the thread's stack already.
const CALLS_C: &str = "runtime.asmcgocall";
/// What a goroutine that waits in one of them is said to be in: it never was, but has the same frame.
const SWITCHED: &str = "runtime.systemstack_switch";
/// Writes the stack pointer, but so that both stacks can be unwound through it: runtime/traceback.go.
const CALLS_BACK: &str = "runtime.cgocallback";

/// A frame: an address, and the number of its mapping in [`Walked::mappings`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    pub pc: Addr,
    pub mapping: Option<usize>,
}

/// A stack, and all that it follows from.
#[derive(Debug)]
pub(super) struct Walked {
    pub sites: Vec<Site>,
    pub end: StackEnd,
    pub mappings: Vec<Mapping>,
    pub used: Used,
    /// Addresses that would have been frames, were there code.
    pub no_code: Vec<Addr>,
}

/// A mapping of code.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub vma: Vma,
    pub module: Option<Module>,
}

impl Mapping {
    pub(super) fn new(vma: &Vma) -> Mapping {
        let module = match &vma.backing {
            Backing::Anon => None,
            Backing::File { id, name, .. } => Some((name, *id)),
            Backing::Special { name } => Some((name, FileId::default())),
        };
        Mapping {
            vma: vma.clone(),
            module: module.map(|(path, file)| Module {
                path: Arc::clone(path),
                file,
            }),
        }
    }

    /// Offset in the module's file.
    pub(super) fn offset(&self, pc: u64) -> u64 {
        let start = match self.vma.backing {
            Backing::File { offset, .. } => offset,
            Backing::Anon | Backing::Special { .. } => 0,
        };
        start.wrapping_add(pc.wrapping_sub(self.vma.range.start().0))
    }
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug)]
struct Caller {
    pc: u64,
    /// It was interrupted there; it is no return address.
    interrupted: bool,
}

/// A walk up one stack; each step tells the caller, or why there is none.
pub(super) struct Walk<'a> {
    machine: Machine<'a>,
    compat: bool,
    model: &'a AddressSpace,
    files: &'a mut Files,
    pid: Tid,
    mappings: Vec<Mapping>,
    no_code: Vec<Addr>,
}

impl<'a> Walk<'a> {
    /// All the way up.
    pub(super) fn walk(
        raw: &'a RawStack,
        pid: Tid,
        model: &'a AddressSpace,
        files: &'a mut Files,
    ) -> Walked {
        let mut walk = Walk {
            machine: Machine::new(raw),
            compat: raw.compat,
            model,
            files,
            pid,
            mappings: Vec::new(),
            no_code: Vec::new(),
        };
        let mut sites = Vec::new();
        let mut at = Caller {
            pc: raw.registers.pc,
            interrupted: raw.interrupted,
        };
        let end = loop {
            let lookup = at.pc.wrapping_sub(u64::from(!at.interrupted));
            let mapping = walk.mapping(lookup);
            // A name is looked up one byte before: within the instruction that was interrupted.
            let pc = Addr(at.pc.wrapping_add(u64::from(at.interrupted)));
            sites.push(Site { pc, mapping });
            if DEEPEST <= sites.len() {
                break StackEnd::Deep;
            }
            walk.machine.pc = at.pc;
            let step = match mapping {
                None => Err(StackEnd::Lost),
                Some(mapping) if walk.compat => walk.by_instructions(at, mapping),
                Some(mapping) => walk.step(at, mapping),
            };
            match step {
                Ok(caller) => at = caller,
                Err(end) => break end,
            }
        };
        Walked {
            sites,
            end,
            mappings: walk.mappings,
            used: walk.machine.into_used(),
            no_code: walk.no_code,
        }
    }

    /// The mapping of code that holds an address.
    fn mapping(&mut self, address: u64) -> Option<usize> {
        let address = Addr(address);
        let known = |mapping: &Mapping| mapping.vma.range.contains(address);
        if let Some(found) = self.mappings.iter().position(known) {
            return Some(found);
        }
        let vma = self.model.at(address);
        let Some(vma) = vma.filter(|vma| vma.prot.contains(Prot::EXEC)) else {
            self.no_code.push(address);
            return None;
        };
        self.mappings.push(Mapping::new(vma));
        Some(self.mappings.len() - 1)
    }

    fn step(&mut self, at: Caller, number: usize) -> Result<Caller, StackEnd> {
        let lookup = at.pc.wrapping_sub(u64::from(!at.interrupted));
        let mapping = &self.mappings[number];
        let Some(module) = &mapping.module else {
            return self.by_frame_pointer();
        };
        let offset = mapping.offset(lookup);
        let code = self.files.code(module, self.pid, mapping.vma.range);
        let Some((code, address)) = code.and_then(|code| {
            let address = code.address(offset)?;
            Some((code, address))
        }) else {
            return self.by_frame_pointer();
        };
        if let Some(function) = code.go().and_then(|table| table.function(address)) {
            let go = GoStep::new(&function, address);
            if go.is_known() {
                return self.by_go(go);
            }
        }
        match code.rules(address) {
            Some(rules) => self.by_rules(&rules),
            None if code.is_start(address) => Err(StackEnd::Root),
            None => self.by_instructions(at, number),
        }
    }

    /// Where nothing tells but the code itself.
    fn by_instructions(&mut self, at: Caller, number: usize) -> Result<Caller, StackEnd> {
        let lookup = at.pc.wrapping_sub(u64::from(!at.interrupted));
        let mapping = &self.mappings[number];
        let (module, range) = (mapping.module.as_ref(), mapping.vma.range);
        let (text, address) = module
            .and_then(|module| {
                let offset = mapping.offset(lookup);
                self.files.functions(module, self.pid, range, offset)
            })
            .ok_or(StackEnd::Lost)?;
        let next = address.wrapping_add(u64::from(!at.interrupted));
        let inferred = text.inferred(address, next).ok_or(StackEnd::Lost)?;
        let (Inferred::Rules(rules) | Inferred::IfCalled(rules)) = &inferred;
        let caller = self.by_rules(rules)?;
        if caller.interrupted {
            return Ok(caller);
        }
        // Only a call leaves a return address, or the kernel.
        let from = self.mapping(caller.pc.wrapping_sub(1));
        let from = from.ok_or(StackEnd::Lost)?;
        let offset = self.mappings[from].offset(caller.pc.wrapping_sub(1));
        let text = self.text(from).ok_or(StackEnd::Lost)?;
        let last = text.address(offset).ok_or(StackEnd::Lost)?;
        let returns_to = last.wrapping_add(1);
        let confirmed = match (&inferred, text.called(returns_to)) {
            (Inferred::Rules(_), Some(_)) => true,
            (Inferred::Rules(_), None) => text.ends_signal(returns_to),
            (Inferred::IfCalled(_), Some(Some(start))) if from == number => {
                text.confirms(start, address, rules)
            }
            (Inferred::IfCalled(_), _) => false,
        };
        confirmed.then_some(caller).ok_or(StackEnd::Lost)
    }

    fn text(&mut self, number: usize) -> Option<&mut Text> {
        let mapping = &self.mappings[number];
        let (module, range) = (mapping.module.as_ref()?, mapping.vma.range);
        self.files.text(module, self.pid, range)
    }

    /// A return address, if it is one.
    fn caller(&mut self, pc: u64) -> Result<Caller, StackEnd> {
        match self.mapping(pc.wrapping_sub(1)) {
            Some(_) => Ok(Caller {
                pc,
                interrupted: false,
            }),
            None => Err(StackEnd::Lost),
        }
    }

    fn by_frame_pointer(&mut self) -> Result<Caller, StackEnd> {
        let (sp, bp) = (self.machine.register(RSP)?, self.machine.register(RBP)?);
        if bp < sp || bp % 8 != 0 {
            return Err(StackEnd::Lost);
        }
        let pc = self.machine.memory(bp.wrapping_add(8))?;
        let mut values = self.machine.values();
        values[RSP] = Value::Known(bp.wrapping_add(16));
        values[RBP] = Value::At(bp);
        self.machine.set(values);
        self.caller(pc)
    }

    fn by_rules(&mut self, rules: &Rules) -> Result<Caller, StackEnd> {
        let Some(return_address) = &rules.return_address else {
            return Err(StackEnd::Root);
        };
        let sp = self.machine.register(RSP)?;
        let cfa = match &rules.cfa {
            Cfa::Register(number, offset) => {
                self.machine.register(*number)?.wrapping_add_signed(*offset)
            }
            Cfa::Expression(code) => self.evaluate(code, None)?,
        };
        // A signal handler may have a stack of its own, above that of what it interrupted.
        if cfa <= sp && !rules.signal {
            return Err(StackEnd::Lost);
        }
        let before = self.machine.values();
        let mut values = before;
        values[RSP] = Value::Known(cfa);
        for (number, saved) in &rules.saved {
            values[*number] = match self.saved(saved, cfa, &before)? {
                Value::At(address) if self.compat => match self.machine.memory32(address) {
                    Ok(value) => Value::Known(value),
                    Err(_) => Value::Unknown,
                },
                value => value,
            };
        }
        let pc = match self.saved(return_address, cfa, &before)? {
            Value::Known(pc) => pc,
            Value::At(address) if self.compat => self.machine.memory32(address)?,
            Value::At(address) => self.machine.memory(address)?,
            Value::Initial | Value::Unknown => return Err(StackEnd::Lost),
        };
        self.machine.set(values);
        match (pc, rules.signal) {
            (0, _) => Err(StackEnd::Root),
            (pc, false) => self.caller(pc),
            (pc, true) => Ok(Caller {
                pc,
                interrupted: true,
            }),
        }
    }

    fn saved(
        &mut self,
        saved: &Saved,
        cfa: u64,
        before: &[Value; REGISTERS],
    ) -> Result<Value, StackEnd> {
        Ok(match saved {
            Saved::At(offset) => Value::At(cfa.wrapping_add_signed(*offset)),
            Saved::Value(offset) => Value::Known(cfa.wrapping_add_signed(*offset)),
            Saved::Register(other) => before[*other],
            Saved::AtExpression(code) => Value::At(self.evaluate(code, Some(cfa))?),
            Saved::ValueExpression(code) => Value::Known(self.evaluate(code, Some(cfa))?),
            Saved::Nowhere => Value::Unknown,
        })
    }

    fn evaluate(&mut self, code: &[u8], initial: Option<u64>) -> Result<u64, StackEnd> {
        evaluate(code, initial, &mut self.machine)?.ok_or(StackEnd::Lost)
    }

    fn by_go(&mut self, go: GoStep) -> Result<Caller, StackEnd> {
        let delta = match go {
            GoStep::Outermost => return Err(StackEnd::Root),
            GoStep::Switches => return self.on_goroutine(),
            GoStep::Schedules if !self.machine.has_goroutine() => return Err(StackEnd::Root),
            GoStep::Schedules => return self.on_goroutine(),
            GoStep::CallsC(delta) => return self.by_call_of_c(delta),
            GoStep::Delta(delta) => delta,
            GoStep::Unknown => return Err(StackEnd::Lost),
        };
        self.up_go_frame(delta)
    }

    /// To the caller of a Go function whose return address is `delta` bytes from the stack pointer.
    fn up_go_frame(&mut self, delta: u64) -> Result<Caller, StackEnd> {
        let sp = self.machine.register(RSP)?;
        let place = sp.checked_add(delta).ok_or(StackEnd::Lost)?;
        let pc = self.machine.memory(place)?;
        // Go's functions keep no register but the frame pointer, below the return address.
        let mut values = [Value::Unknown; REGISTERS];
        values[RSP] = Value::Known(place.wrapping_add(8));
        values[RBP] = match delta {
            0 => self.machine.values()[RBP],
            _ => Value::At(place - 8),
        };
        self.machine.set(values);
        match pc {
            0 => Err(StackEnd::Root),
            pc => self.caller(pc),
        }
    }

    /// From C to what called it, through `runtime.asmcgocall`, whose frame is of `delta` bytes. Below
    /// that it aligns the stack and keeps two words: where the stack pointer was, or how deep, and
    /// the goroutine that it left, or zero.
    fn by_call_of_c(&mut self, delta: u64) -> Result<Caller, StackEnd> {
        let sp = self.machine.register(RSP)?;
        // The room for them, and the lower: with and without what Windows wants.
        for (room, kept) in [(16, 0), (64, 40)] {
            let before = self.machine.memory(sp.wrapping_add(kept))?;
            let goroutine = self.machine.memory(sp.wrapping_add(kept + 8))?;
            if goroutine == 0 && (room..room + 16).contains(&before.wrapping_sub(sp)) {
                let mut values = self.machine.values();
                values[RSP] = Value::Known(before);
                self.machine.set(values);
                return self.up_go_frame(delta);
            }
        }
        self.on_goroutine()
    }

    /// Goes on where the runtime left the goroutine.
    fn on_goroutine(&mut self) -> Result<Caller, StackEnd> {
        let left = self.machine.go_on_with_goroutine().ok_or(StackEnd::Lost)?;
        match self.frame_of_switch(left.pc) {
            Some(delta) => self.up_go_frame(delta),
            None => self.caller(left.pc),
        }
    }

    /// The size of the frame of what does nothing but wait, if `pc` is in it.
    fn frame_of_switch(&mut self, pc: u64) -> Option<u64> {
        let mapping = self.mapping(pc)?;
        let mapping = &self.mappings[mapping];
        let (module, range) = (mapping.module.as_ref()?, mapping.vma.range);
        let code = self.files.code(module, self.pid, range)?;
        let address = code.address(mapping.offset(pc))?;
        let function = code.go()?.function(address)?;
        let waits = plain(function.name()) == SWITCHED;
        waits.then(|| function.sp_delta(address))?
    }
}

/// The name of a function without what tells its calling convention.
fn plain(name: &str) -> &str {
    name.strip_suffix(".abi0").unwrap_or(name)
}

/// What Go's table tells of a frame.
#[derive(Clone, Copy, Debug)]
enum GoStep {
    Outermost,
    Switches,
    Schedules,
    /// Bytes, as in the next.
    CallsC(u64),
    /// Bytes from the stack pointer to the return address.
    Delta(u64),
    Unknown,
}

impl GoStep {
    fn new(function: &Function<'_>, address: u64) -> GoStep {
        let name = plain(function.name());
        if function.is_outermost() {
            return GoStep::Outermost;
        }
        let delta = function.sp_delta(address);
        match name {
            SWITCHES => GoStep::Switches,
            _ if SCHEDULE.contains(&name) => GoStep::Schedules,
            CALLS_C => delta.map_or(GoStep::Unknown, GoStep::CallsC),
            _ if function.writes_sp() && name != CALLS_BACK => GoStep::Unknown,
            _ => delta.map_or(GoStep::Unknown, GoStep::Delta),
        }
    }

    /// C that was linked by Go's own linker has functions in the table, but nothing is told of them.
    fn is_known(self) -> bool {
        !matches!(self, GoStep::Unknown)
    }
}
