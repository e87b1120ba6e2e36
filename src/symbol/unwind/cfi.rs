//! Call frame information: how to get from a function's registers to its caller's.
//!
//! Rows of `.eh_frame` and `.debug_frame` are computed once for each address and kept as [`Rules`].

use std::sync::Arc;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, DebugFrame, EhFrame, EhFrameHdr, Encoding, EndianSlice,
    EvaluationResult, Format, LittleEndian, Location, Register, RegisterRule, UnwindContext,
    UnwindExpression, UnwindSection, UnwindTableRow, Value, X86_64,
};

use crate::timeline::StackEnd;

use super::machine::Machine;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Registers that rules are kept of, by their number in DWARF: rax to r15, then the return address.
pub(super) const REGISTERS: usize = 17;
pub(super) const RBX: usize = 3;
pub(super) const RBP: usize = 6;
pub(super) const RSP: usize = 7;
const RETURN_ADDRESS: usize = 16;
/// Steps of an expression: nothing real needs more.
const MOST_STEPS: u32 = 1000;

/// A section and its address.
#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    pub address: u64,
    pub bytes: Vec<u8>,
}

/// The unwind information of a file.
#[derive(Debug, Default)]
pub(super) struct Cfi {
    eh_frame: Section,
    /// Its index, if the file has one.
    header: Option<Section>,
    /// Ours, if it has none: first address, last and place, by address.
    index: Vec<(u64, u64, usize)>,
    debug_frame: Vec<u8>,
    debug_index: Vec<(u64, u64, usize)>,
    text: u64,
}

/// How to get from a frame to its caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub cfa: Cfa,
    /// Only registers that are not what they were.
    pub saved: Vec<(usize, Saved)>,
    /// `None`: nothing called this.
    pub return_address: Option<Saved>,
    /// The caller was interrupted: its address is no return address.
    pub signal: bool,
}

/// Where the caller's stack pointer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cfa {
    Register(usize, i64),
    Expression(Arc<[u8]>),
}

/// Where the caller's value of a register is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// In memory, so far from the CFA.
    At(i64),
    /// It is the CFA and so much.
    Value(i64),
    Register(usize),
    /// In memory, where the expression says.
    AtExpression(Arc<[u8]>),
    ValueExpression(Arc<[u8]>),
    Nowhere,
}

impl Cfi {
    /// Takes the sections of a file; empty where it has none.
    pub(super) fn new(
        eh_frame: Section,
        header: Option<Section>,
        debug_frame: Vec<u8>,
        text: u64,
    ) -> Cfi {
        let mut cfi = Cfi {
            eh_frame,
            header,
            index: Vec::new(),
            debug_frame,
            debug_index: Vec::new(),
            text,
        };
        if cfi.header.is_none() {
            let section = EhFrame::new(&cfi.eh_frame.bytes, LittleEndian);
            cfi.index = index(&section, &cfi.bases());
        }
        if !cfi.debug_frame.is_empty() {
            let mut section = DebugFrame::new(&cfi.debug_frame, LittleEndian);
            section.set_address_size(8);
            cfi.debug_index = index(&section, &cfi.bases());
        }
        cfi
    }

    fn bases(&self) -> BaseAddresses {
        let header = self.header.as_ref().map_or(0, |header| header.address);
        BaseAddresses::default()
            .set_eh_frame(self.eh_frame.address)
            .set_eh_frame_hdr(header)
            .set_text(self.text)
    }

    /// The rules at an address; `None` if the file has none for it.
    pub(super) fn rules(&self, address: u64) -> Option<Rules> {
        self.by_eh_frame(address)
            .or_else(|| self.by_debug_frame(address))
    }

    fn by_eh_frame(&self, address: u64) -> Option<Rules> {
        let section = EhFrame::new(&self.eh_frame.bytes, LittleEndian);
        let bases = self.bases();
        let fde = match &self.header {
            Some(header) => {
                let header = EhFrameHdr::new(&header.bytes, LittleEndian);
                let header = header.parse(&bases, 8).ok()?;
                let table = header.table()?;
                table
                    .fde_for_address(&section, &bases, address, EhFrame::cie_from_offset)
                    .ok()?
            }
            None => {
                let offset = find(&self.index, address)?;
                section
                    .fde_from_offset(&bases, offset.into(), EhFrame::cie_from_offset)
                    .ok()?
            }
        };
        let signal = fde.is_signal_trampoline();
        let mut context = UnwindContext::new();
        let row = fde
            .unwind_info_for_address(&section, &bases, &mut context, address)
            .ok()?;
        Rules::from_row(row, signal, &section)
    }

    fn by_debug_frame(&self, address: u64) -> Option<Rules> {
        let offset = find(&self.debug_index, address)?;
        let mut section = DebugFrame::new(&self.debug_frame, LittleEndian);
        section.set_address_size(8);
        let bases = self.bases();
        let fde = section
            .fde_from_offset(&bases, offset.into(), DebugFrame::cie_from_offset)
            .ok()?;
        let signal = fde.is_signal_trampoline();
        let mut context = UnwindContext::new();
        let row = fde
            .unwind_info_for_address(&section, &bases, &mut context, address)
            .ok()?;
        Rules::from_row(row, signal, &section)
    }
}

fn index<'a, S>(section: &S, bases: &BaseAddresses) -> Vec<(u64, u64, usize)>
where
    S: UnwindSection<Slice<'a>>,
{
    let mut found = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        if let CieOrFde::Fde(partial) = entry
            && let Ok(fde) = partial.parse(S::cie_from_offset)
        {
            found.push((fde.initial_address(), fde.end_address(), fde.offset()));
        }
    }
    found.sort_unstable();
    found
}

fn find(index: &[(u64, u64, usize)], address: u64) -> Option<usize> {
    let behind = index.partition_point(|(start, _, _)| *start <= address);
    let (_, end, offset) = index[..behind].last()?;
    (address < *end).then_some(*offset)
}

impl Rules {
    fn from_row<'a, S>(row: &UnwindTableRow<usize>, signal: bool, section: &S) -> Option<Rules>
    where
        S: UnwindSection<Slice<'a>>,
    {
        let code = |expression: &UnwindExpression<usize>| -> Option<Arc<[u8]>> {
            Some(Arc::from(expression.get(section).ok()?.0.slice()))
        };
        let number =
            |register: Register| Some(usize::from(register.0)).filter(|&number| number < REGISTERS);
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                Cfa::Register(number(*register)?, *offset)
            }
            CfaRule::Expression(expression) => Cfa::Expression(code(expression)?),
        };
        let mut saved = Vec::new();
        let mut return_address = None;
        for (register, rule) in row.registers() {
            let Some(which) = number(*register) else {
                continue;
            };
            let place = match rule {
                RegisterRule::Undefined if which == RETURN_ADDRESS => continue,
                RegisterRule::SameValue if which != RETURN_ADDRESS => continue,
                RegisterRule::Offset(offset) => Saved::At(*offset),
                RegisterRule::ValOffset(offset) => Saved::Value(*offset),
                RegisterRule::Register(other) => Saved::Register(number(*other)?),
                RegisterRule::Expression(expression) => Saved::AtExpression(code(expression)?),
                RegisterRule::ValExpression(expression) => {
                    Saved::ValueExpression(code(expression)?)
                }
                _ => Saved::Nowhere,
            };
            match which {
                RETURN_ADDRESS => return_address = Some(place),
                _ => saved.push((which, place)),
            }
        }
        Some(Rules {
            cfa,
            saved,
            return_address,
            signal,
        })
    }
}

/// The value of an expression, begun with `initial` on its stack; `None` if it is not understood.
pub(super) fn evaluate(
    code: &[u8],
    initial: Option<u64>,
    machine: &mut Machine<'_>,
) -> Result<Option<u64>, StackEnd> {
    let encoding = Encoding {
        address_size: 8,
        format: Format::Dwarf32,
        version: 4,
    };
    let code = gimli::Expression(EndianSlice::new(code, LittleEndian));
    let mut evaluation = code.evaluation(encoding);
    evaluation.set_max_iterations(MOST_STEPS);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut result = evaluation.evaluate();
    loop {
        result = match result {
            Ok(EvaluationResult::Complete) => break,
            Ok(EvaluationResult::RequiresRegister { register: it, .. }) => {
                let value = match it {
                    X86_64::RA => machine.pc,
                    _ if usize::from(it.0) < REGISTERS => machine.register(usize::from(it.0))?,
                    _ => return Ok(None),
                };
                evaluation.resume_with_register(Value::Generic(value))
            }
            Ok(EvaluationResult::RequiresMemory {
                address, size: 8, ..
            }) => {
                let value = machine.memory(address)?;
                evaluation.resume_with_memory(Value::Generic(value))
            }
            _ => return Ok(None),
        };
    }
    Ok(match evaluation.as_result() {
        [piece] => match piece.location {
            Location::Address { address } => Some(address),
            _ => None,
        },
        _ => None,
    })
}
