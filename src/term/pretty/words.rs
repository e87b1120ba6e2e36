//! What a call asked for, in words that people read: `private anon fixed noreserve`.

use std::fmt::{self, Write};

use crate::abi::{CallKind, MapFlags, MremapFlags, Names, Prot, call_info, name_of, names};
use crate::decode::{Args, Call, Fd, FetchedData, Mmap, Placement, RawCall, effective_kind};
use crate::report::reading;
use crate::term::{Line, Size, Style};
use crate::timeline::CallEvent;
use crate::units::{Addr, Bytes};

use super::columns::GAP;

/// The parts of a call that have columns of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Bytes to act on.
    pub size: Option<u64>,
    /// Rights.
    pub prot: Option<Prot>,
    /// Where.
    pub addr: Option<Addr>,
    /// What the result means.
    pub result: ResultKind,
}

/// What a result that is no error means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ResultKind {
    /// Only that it worked.
    #[default]
    Done,
    /// An address.
    Address,
    /// A descriptor or another small number.
    Number(&'static str),
}

impl Asked {
    /// The columns of `event`.
    pub fn of(event: &CallEvent) -> Asked {
        let reading::Asked { size, prot, addr } = reading::asked(&event.call, &event.raw);
        let done = Asked {
            size,
            prot,
            addr,
            result: ResultKind::Done,
        };
        let address = Asked {
            result: ResultKind::Address,
            ..done
        };
        match &event.call {
            Call::Mmap(_) | Call::MapShadowStack { .. } | Call::Brk { .. } => address,
            // The result is where it is now.
            Call::Mremap(mremap) => Asked {
                size: Some(mremap.new_len),
                addr: None,
                ..address
            },
            Call::ProcessMadvise { ranges, .. } => Asked {
                addr: ranges.first().map(|range| range.addr),
                ..done
            },
            Call::Shmat { stored: None, .. } => address,
            Call::Shmat { stored: addr, .. } | Call::IoSetup { context: addr, .. } => Asked {
                addr: *addr,
                ..done
            },
            Call::Shmdt { addr } | Call::IoDestroy { context: addr } => Asked {
                addr: Some(*addr),
                ..done
            },
            Call::Other => Asked {
                result: number(&event.raw),
                ..done
            },
            _ => done,
        }
    }
}

/// What the number is that a call returns.
fn number(raw: &RawCall) -> ResultKind {
    match effective_kind(raw) {
        Some(CallKind::Shmget) => ResultKind::Number("shmid "),
        Some(CallKind::MemfdCreate | CallKind::MemfdSecret | CallKind::Userfaultfd) => {
            ResultKind::Number("fd ")
        }
        Some(CallKind::PkeyAlloc) => ResultKind::Number("key "),
        _ => ResultKind::Done,
    }
}

/// Words with one blank between them, on a line.
struct Words<'a> {
    line: &'a mut Line,
    style: &'a Style,
    start: usize,
}

impl Words<'_> {
    fn separate(&mut self) {
        if self.line.width() > self.start {
            self.line.push(" ");
        }
    }

    fn word(&mut self, word: &str) {
        self.separate();
        self.line.push(word);
    }

    fn args(&mut self, words: fmt::Arguments<'_>) {
        self.separate();
        let _ = self.line.write_fmt(words);
    }

    /// The bits that are set by name, `MAP_FIXED` as `fixed`; what has no name as a number.
    fn bits(&mut self, value: u32, names: &Names) {
        let mut rest = u64::from(value);
        for &(bits, name) in names {
            if bits != 0 && rest & bits == bits {
                self.name(name);
                rest &= !bits;
            }
        }
        if rest != 0 {
            self.args(format_args!("{rest:#x}"));
        }
    }

    /// One of several numbers by name.
    fn number(&mut self, value: i32, names: &'static Names) {
        match name_of(names, u64::from(value as u32)) {
            Some(name) => self.name(name),
            None => self.args(format_args!("{value:#x}")),
        }
    }

    fn name(&mut self, name: &str) {
        self.separate();
        let (_, word) = name.split_once('_').unwrap_or(("", name));
        for letter in word.chars() {
            let letter = letter.to_ascii_lowercase();
            self.line.push(letter.encode_utf8(&mut [0; 4]));
        }
    }

    /// A tracee's path, its middle left out where it would pass column `end` (with `after` more
    /// columns to come).
    fn path(&mut self, path: &[u8], end: usize, after: usize) {
        self.separate();
        let end = end.saturating_sub(after);
        self.line.push_path_until(path, end, self.style);
    }
}

/// Appends how the call was made: flags, files, names. Paths are shortened to end before column
/// `end` where the output is a terminal.
pub(in crate::term) fn push_how(line: &mut Line, event: &CallEvent, style: &Style, end: usize) {
    let start = line.width();
    let mut words = Words { line, style, start };
    match &event.call {
        Call::Mmap(mmap) => mmap_words(&mut words, mmap, event.result, end),
        Call::Munmap { .. } => {}
        Call::Mprotect { prot, pkey, .. } => {
            words.bits(prot.bits() & !RWX, names::PROT);
            if let Some(key) = pkey {
                words.args(format_args!("key {key}"));
            }
        }
        Call::Mremap(mremap) => {
            let (size, addr) = (Size(Bytes(mremap.old_len)), mremap.old_addr);
            words.args(format_args!("from {size} at {addr}"));
            words.bits(mremap.flags.bits(), names::MREMAP);
            if mremap.flags.contains(MremapFlags::FIXED) {
                words.args(format_args!("to {}", mremap.new_addr));
            }
        }
        Call::Brk { addr: Addr(0) } => words.word("where is it?"),
        Call::Brk { addr } if event.result.is_none_or(|end| end as u64 != addr.0) => {
            words.args(format_args!("asked for {addr}"));
        }
        Call::Brk { .. } => {}
        Call::Madvise { advice, .. } => words.number(*advice, names::MADV),
        Call::ProcessMadvise {
            pidfd,
            count,
            advice,
            flags,
            ..
        } => {
            words.number(*advice, names::MADV);
            words.args(format_args!("{count} spans, pidfd {}", pidfd.number));
            words.bits(*flags, &[]);
        }
        Call::Shmat {
            shmid, addr, flags, ..
        } => {
            words.args(format_args!("shmid {shmid}"));
            words.bits(*flags as u32, names::SHMAT);
            if addr.0 != 0 {
                words.args(format_args!("at {addr}"));
            }
        }
        Call::Shmdt { .. } => {}
        Call::RemapFilePages { pgoff, flags, .. } => {
            words.args(format_args!("page {pgoff}"));
            words.bits(flags.bits(), names::MAP);
        }
        Call::IoSetup { events, .. } => words.args(format_args!("{events} events")),
        Call::IoDestroy { .. } => {}
        Call::Mseal { flags, .. } => words.bits(*flags as u32, &[]),
        Call::MapShadowStack { addr, flags, .. } => {
            words.bits(*flags, names::SHADOW_STACK);
            if addr.0 != 0 {
                words.args(format_args!("at {addr}"));
            }
        }
        Call::Other => other_words(&mut words, event, end),
    }
}

fn mmap_words(words: &mut Words<'_>, mmap: &Mmap, result: Option<i64>, end: usize) {
    match mmap.flags.sharing() {
        1 => words.word("shared"),
        2 => words.word("private"),
        3 => words.word("shared_validate"),
        8 => words.word("droppable"),
        other => words.args(format_args!("sharing {other}")),
    }
    if mmap.flags.contains(MapFlags::ANONYMOUS) {
        words.word("anon");
    }
    let mut bits = mmap.flags.bits() & !0xf & !MapFlags::ANONYMOUS.bits();
    let huge = match mmap.flags.contains(MapFlags::HUGETLB) {
        true => bits >> names::HUGE_SHIFT & 0x3f,
        false => 0,
    };
    bits &= !(huge << names::HUGE_SHIFT);
    words.bits(bits & !IGNORED, names::MAP);
    if huge > 0 {
        words.args(format_args!("of {}", Size(Bytes(1 << huge))));
    }
    words.bits(mmap.prot.bits() & !RWX, names::PROT);
    match mmap.placement() {
        Placement::Replacing(addr) | Placement::IfFree(addr) if result.is_none_or(|at| at < 0) => {
            words.args(format_args!("at {addr}"));
        }
        Placement::Near(addr) if result != Some(addr.0 as i64) => {
            words.args(format_args!("hint {addr}"));
        }
        _ => {}
    }
    // In a file the path goes last, see `push_path`: a long one would push all else aside.
    if let (Some(fd), Some(_)) = (&mmap.fd, words.style.width) {
        backing_words(words, mmap, fd, end);
    }
}

/// Appends the file and the flags without effect, where lines may have any length.
pub(super) fn push_path(line: &mut Line, event: &CallEvent, style: &Style) {
    let Call::Mmap(mmap) = &event.call else {
        return;
    };
    let ignored = mmap.flags.bits() & IGNORED;
    if style.width.is_some() || (mmap.fd.is_none() && ignored == 0) {
        return;
    }
    line.gap(GAP);
    let start = line.width();
    let mut words = Words { line, style, start };
    if let Some(fd) = &mmap.fd {
        backing_words(&mut words, mmap, fd, usize::MAX);
    }
    words.bits(ignored, names::MAP);
}

fn backing_words(words: &mut Words<'_>, mmap: &Mmap, fd: &Fd, end: usize) {
    let offset_width = match mmap.offset {
        0 => 0,
        offset => " @0x".len() + offset.ilog2() as usize / 4 + 1,
    };
    match &fd.path {
        Some(path) => words.path(path, end, offset_width),
        None => words.args(format_args!("fd {}", fd.number)),
    }
    if mmap.offset != 0 {
        words.args(format_args!("@{:#x}", mmap.offset));
    }
}

fn other_words(words: &mut Words<'_>, event: &CallEvent, end: usize) {
    let string = event
        .fetched
        .iter()
        .find_map(|fetched| match &fetched.data {
            FetchedData::String { bytes, .. } => Some(bytes),
            _ => None,
        });
    let path = event
        .fetched
        .iter()
        .find_map(|fetched| match &fetched.data {
            FetchedData::Path(path) => Some(path),
            _ => None,
        });
    let info = call_info(event.raw.abi, event.raw.nr);
    let meant = info.map(|info| Args::of(&event.raw, info.kind));
    let args = meant.as_ref().map_or(event.raw.args, |meant| meant.args);
    match meant.map(|meant| meant.kind) {
        Some(CallKind::Mlock | CallKind::Munlock | CallKind::Munlockall | CallKind::Mincore) => {}
        Some(CallKind::Mlock2) => words.bits(args[2] as u32, names::MLOCK),
        Some(CallKind::Mlockall) => words.bits(args[0] as u32, names::MCL),
        Some(CallKind::Msync) => words.bits(args[2] as u32, names::MS),
        Some(CallKind::Mbind) => {
            words.number(args[2] as i32, names::MPOL);
            words.bits(args[5] as u32, names::MBIND);
        }
        Some(CallKind::SetMempolicy) => words.number(args[0] as i32, names::MPOL),
        Some(CallKind::Shmctl) => {
            words.args(format_args!("shmid {}", args[0] as i32));
            words.number(args[1] as i32 & 0xff, names::SHMCTL);
        }
        Some(CallKind::Prctl) if args[0] == reading::PR_SET_VMA => words.word("name"),
        Some(CallKind::Prctl) => {
            words.number(args[0] as i32, names::PRCTL);
            words.args(format_args!("{:#x} {:#x}", args[1], args[2]));
        }
        Some(CallKind::MemfdCreate) => words.bits(args[1] as u32, names::MFD),
        Some(CallKind::MemfdSecret) => words.bits(args[0] as u32, names::SECRETMEM),
        Some(CallKind::Userfaultfd) => words.bits(args[0] as u32, names::UFFD),
        Some(CallKind::Shmget) => {
            match args[0] as u32 {
                0 => words.word("private"),
                key => words.args(format_args!("key {key:#x}")),
            }
            let flags = args[2] as u32;
            words.bits(flags & !0o777, names::SHMGET);
            words.args(format_args!("{:#o}", flags & 0o777));
        }
        Some(CallKind::PkeyFree) => words.args(format_args!("key {}", args[0] as i32)),
        _ => {
            let used = args
                .iter()
                .rposition(|arg| *arg != 0)
                .map_or(0, |last| last + 1);
            for arg in &args[..used] {
                words.args(format_args!("{arg:#x}"));
            }
        }
    }
    if let Some(text) = string.or(path) {
        words.path(text, end, 0);
    }
}

/// MAP_DENYWRITE and MAP_EXECUTABLE, which the kernel accepts and does nothing with.
const IGNORED: u32 = MapFlags::DENYWRITE.bits() | MapFlags::EXECUTABLE.bits();

/// What the first three bits say has a column of its own.
const RWX: u32 = 7;
