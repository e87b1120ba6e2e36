//! The words of a comparison, for a terminal and for Markdown alike. What a tracee chose is
//! escaped here.

use crate::abi::Prot;
use crate::decode::{Call, decode};
use crate::diff::{Change, First, Kind, Owner, Role, Side, SpacePair, Subject, difference, json};
use crate::report::Made;
use crate::term::{Count, Elapsed, Size, escaped};
use crate::units::Bytes;

/// How to write what is not ASCII.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// Characters beyond ASCII.
    pub unicode: bool,
}

impl Signs {
    fn minus(self) -> &'static str {
        if self.unicode { "−" } else { "-" }
    }

    /// `→`
    pub fn arrow(self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }

    fn times(self) -> &'static str {
        if self.unicode { "×" } else { "x" }
    }

    /// `+512.0 MiB`; nothing has no sign.
    pub fn signed(self, delta: i64) -> String {
        format!("{}{}", self.sign(delta), Size(Bytes(delta.unsigned_abs())))
    }

    /// `+12`
    pub fn signed_count(self, delta: i64) -> String {
        format!("{}{}", self.sign(delta), Count(delta.unsigned_abs()))
    }

    fn sign(self, delta: i64) -> &'static str {
        match delta {
            0 => "",
            1.. => "+",
            _ => self.minus(),
        }
    }

    /// `+36.6 %`; nothing where nothing changed, or where there was nothing.
    pub fn percent(self, before: u64, after: u64) -> String {
        if before == after || before == 0 {
            return String::new();
        }
        let delta = difference(before, after);
        let tenths =
            (u128::from(delta.unsigned_abs()) * 1000 + u128::from(before) / 2) / u128::from(before);
        let sign = self.sign(delta);
        match tenths {
            0 => format!("{sign}< 0.1 %"),
            // Ten times as much is no matter of percent.
            9_000.. if before < after => format!("{}{}", self.times(), Count(after / before)),
            _ if tenths.is_multiple_of(10) => format!("{sign}{} %", tenths / 10),
            _ => format!("{sign}{}.{} %", tenths / 10, tenths % 10),
        }
    }

    /// What a change is about: `anonymous ---, 512.0 MiB each ×3 → ×5`.
    pub fn subject(self, change: &Change) -> String {
        let [before, after] = change.numbers;
        // The mappings of a file, or of the heap, are parts of one.
        let counted = match &change.subject {
            Subject::Mappings { role, .. } => matches!(role, Role::Anon(_)),
            Subject::Processes => true,
        };
        let counts = match (before, after) {
            _ if !counted => String::new(),
            (0 | 1, 0 | 1) => String::new(),
            (before, after) if before == after => format!(" {}{}", self.times(), Count(after)),
            (before, after) => {
                let (before, after) = (Count(before), Count(after));
                let (times, arrow) = (self.times(), self.arrow());
                format!(" {times}{before} {arrow} {times}{after}")
            }
        };
        match &change.subject {
            Subject::Processes => {
                let name = escaped(change.space.as_bytes(), self.unicode);
                format!("process {name}{counts}")
            }
            Subject::Mappings { role, name, sizes } => {
                let what = escaped(json::role_text(role, name).as_bytes(), self.unicode);
                let size = |bytes| Size(Bytes(bytes));
                let each = if counts.is_empty() { "" } else { " each" };
                let sizes = match *sizes {
                    [0, 0] => String::new(),
                    [0, one] | [one, 0] => format!(", {}{each}", size(one)),
                    [old, new] if old == new => format!(", {}{each}", size(new)),
                    [old, new] => format!(", {} {} {}{each}", size(old), self.arrow(), size(new)),
                };
                format!("{what}{sizes}{counts}")
            }
        }
    }
}

/// When and by what the first mapping of a change was made: of the later trace, unless it is gone.
pub fn first_of(change: &Change) -> String {
    let [before, after] = change.first;
    let first = match change.kind {
        Kind::Gone => before,
        Kind::New | Kind::Grown | Kind::Shrunk => after.or(before),
    };
    first.map_or_else(String::new, |first| first_words(&first))
}

/// Who made the mappings of a change: `of runtime.mallocinit`; empty if nobody knows.
pub fn owner_of(change: &Change, signs: Signs) -> String {
    let [before, after] = &change.owners;
    let shown = |owner: &Owner| escaped(owner.to_string().as_bytes(), signs.unicode);
    match (before, after) {
        (Some(before), Some(after)) if before.to_string() != after.to_string() => {
            format!("of {} {} {}", shown(before), signs.arrow(), shown(after))
        }
        (_, Some(owner)) | (Some(owner), None) => format!("of {}", shown(owner)),
        (None, None) => String::new(),
    }
}

/// `0.018 s by mmap`
fn first_words(first: &First) -> String {
    let time = Elapsed(first.time.0);
    match (&first.by.what, first.by.call()) {
        (Made::Call(..), Some(call)) => format!("{time} by {call}"),
        (Made::Began, _) => "from the start".to_owned(),
        _ => format!("{time}"),
    }
}

/// A call as one says it: `mmap 512.0 MiB --- at 0.018 s`.
pub fn call_words(first: &First) -> String {
    let time = Elapsed(first.time.0);
    let Made::Call(raw, result) = first.by.what else {
        return first_words(first);
    };
    let name = first.by.call().unwrap_or_default();
    let size = |len: u64| Size(Bytes(len));
    let what = match decode(&raw, &[]) {
        Call::Mmap(mmap) => {
            let kind = if mmap.fd.is_some() {
                "file"
            } else {
                "anonymous"
            };
            format!(" {} {} {kind}", size(mmap.len), rwx(mmap.prot))
        }
        Call::Munmap { len, .. } | Call::Madvise { len, .. } | Call::Mseal { len, .. } => {
            format!(" {}", size(len))
        }
        Call::Mprotect { len, prot, .. } => format!(" {} {}", size(len), rwx(prot)),
        Call::Mremap(mremap) => format!(" {} to {}", size(mremap.old_len), size(mremap.new_len)),
        _ => String::new(),
    };
    let failed = result.is_some_and(|result| crate::report::is_error(&raw, result));
    let failed = if failed { ", failed" } else { "" };
    format!("{name}{what} at {time}{failed}")
}

fn rwx(prot: Prot) -> String {
    let sign = |bit, sign| if prot.contains(bit) { sign } else { '-' };
    [
        sign(Prot::READ, 'r'),
        sign(Prot::WRITE, 'w'),
        sign(Prot::EXEC, 'x'),
    ]
    .iter()
    .collect()
}

/// What people call the program of one side.
pub fn program(side: &Side, spaces: &[SpacePair], later: bool, unicode: bool) -> String {
    let first = spaces.first().and_then(|pair| match later {
        true => pair.after.as_ref(),
        false => pair.before.as_ref(),
    });
    let path = match (side.command.first(), first) {
        (Some(word), _) => word.as_str(),
        (None, Some(space)) => space.exe.as_str(),
        (None, None) => "",
    };
    let name = path.rsplit('/').next().unwrap_or_default();
    match name {
        "" => "?".to_owned(),
        name => escaped(name.as_bytes(), unicode),
    }
}

/// `5 runs and 5 runs, of each the one in the middle is shown`; nothing for two single runs.
pub fn runs(before: &Side, after: &Side) -> Option<String> {
    let runs = |side: &Side| match side.runs {
        1 => "1 run".to_owned(),
        runs => format!("{runs} runs"),
    };
    (1 < before.runs.max(after.runs)).then(|| {
        let (old, new) = (runs(before), runs(after));
        format!("{old} and {new}; the figures are those of the one in the middle")
    })
}
