//! What one file of code and its companions say of an address in it.

use std::cell::OnceCell;
use std::ops::Range;

use crate::symbol::go::{PclnTab, locate};

use super::elf::{Data, Elf, TableKind};
use super::files::{Below, Companions};
use super::lines::{Line, Lines, NoLines, has};
use super::readable::readable;
use super::table::{Found, SymbolTable};

/// Longest table of Go's that is read, and longest segment that is searched for it.
const MOST_GO: u64 = 256 << 20;

/// A module, ready to be asked.
pub(super) struct Image {
    elf: Elf,
    companions: Companions,
    table: OnceCell<SymbolTable>,
    lines: OnceCell<Result<Lines, NoLines>>,
    go: OnceCell<Option<GoTable>>,
}

/// One function at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub function: String,
    pub offset: u64,
    pub file: Option<String>,
    pub line: u32,
}

impl Image {
    /// Looks for the companions of `elf`, which lies at these places.
    pub fn new(elf: Elf, places: &[Below<'_>]) -> Image {
        let companions = Companions::of(&elf, places);
        Image {
            elf,
            companions,
            table: OnceCell::new(),
            lines: OnceCell::new(),
            go: OnceCell::new(),
        }
    }

    /// Bytes of DWARF that were too many to read.
    pub fn left_out(&self) -> Option<u64> {
        match self.lines.get() {
            Some(Err(NoLines::TooMuch(size))) => Some(*size),
            _ => None,
        }
    }

    /// The functions at an offset of the file that a call returns to, innermost first. DWARF is
    /// read only as far as bytes are `left` for it.
    pub fn names(&self, offset: u64, left: &mut u64) -> Vec<Named> {
        // The call is before the address it returns to, which may be another function's, or line's.
        let call = offset.checked_sub(1);
        let address = call.and_then(|call| self.elf.address_of(call));
        // There is nothing behind the last of all addresses.
        let Some(address) = address.filter(|&address| address != u64::MAX) else {
            return Vec::new();
        };
        if let Some(names) = self.go().as_ref().and_then(|go| go.names(address)) {
            return names;
        }
        let symbol = self.table().find(address);
        let lines = match self.lines(left) {
            Ok(lines) => lines.at(address),
            Err(_) => Vec::new(),
        };
        named(address + 1, symbol, lines)
    }

    fn go(&self) -> &Option<GoTable> {
        self.go.get_or_init(|| GoTable::read(&self.elf.data))
    }

    fn table(&self) -> &SymbolTable {
        self.table.get_or_init(|| {
            let Companions { debug, mini, .. } = &self.companions;
            let mut table = SymbolTable::default();
            table.add(&self.elf, TableKind::Full);
            if let Some(debug) = debug {
                table.add(debug, TableKind::Full);
            }
            // Both say what a full table says.
            if table.is_empty() {
                if let Some(mini) = mini {
                    table.add(mini, TableKind::Full);
                }
                table.add(&self.elf, TableKind::Dynamic);
            }
            table.sort();
            table
        })
    }

    fn lines(&self, left: &mut u64) -> &Result<Lines, NoLines> {
        self.lines.get_or_init(|| {
            let own = Some(&self.elf).filter(|elf| has(elf));
            match own.or(self.companions.debug.as_ref()) {
                Some(elf) => Lines::read(elf, self.companions.shared.as_ref(), left),
                None => Err(NoLines::None),
            }
        })
    }
}

/// What Go's runtime knows of its functions.
struct GoTable {
    table: Vec<u8>,
    funcdata: Vec<u8>,
    text: u64,
}

impl GoTable {
    fn read(data: &Data) -> Option<GoTable> {
        let place = data.parsed(MOST_GO, |bytes| locate(bytes))?;
        let bytes = |range: Range<u64>| {
            data.bytes(range.start, range.end.checked_sub(range.start)?, MOST_GO)
        };
        Some(GoTable {
            table: bytes(place.table)?,
            funcdata: place.funcdata.and_then(bytes).unwrap_or_default(),
            text: place.text,
        })
    }

    fn names(&self, address: u64) -> Option<Vec<Named>> {
        let table = PclnTab::new(&self.table, self.text, &self.funcdata)?;
        let function = table.function(address)?;
        let frames = function.frames(address);
        let mut names: Vec<Named> = frames
            .into_iter()
            .map(|frame| Named {
                function: frame.function.to_owned(),
                offset: 0,
                file: frame.file.map(str::to_owned),
                line: frame.line,
            })
            .collect();
        names.last_mut()?.offset = address.checked_add(1)?.checked_sub(function.entry())?;
        Some(names)
    }
}

/// The table of symbols names the function that is really there, DWARF those inlined into it.
fn named(address: u64, symbol: Option<Found>, lines: Vec<Line>) -> Vec<Named> {
    // A line of the source reaches over the padding behind a function, which is nobody's.
    if symbol.is_none() && lines.iter().all(|line| line.function.is_none()) {
        return Vec::new();
    }
    let last = lines.len().saturating_sub(1);
    let mut names: Vec<Named> = lines
        .into_iter()
        .map(|line| Named {
            function: line
                .function
                .map_or_else(String::new, |name| readable(&name).into_owned()),
            offset: 0,
            file: line.file,
            line: line.line,
        })
        .collect();
    if let Some(symbol) = symbol {
        if names.is_empty() {
            names.push(Named::default());
        }
        names[last].function = readable(&symbol.name).into_owned();
        names[last].offset = address.saturating_sub(symbol.start);
    }
    names
}
