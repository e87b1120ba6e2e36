//! Test support: calls in strace's notation, spaces in that of maps.
//!
//! A line that starts with a blank is a line of maps that the kernel answers with, if it is asked
//! after the call above it; the answer holds nothing else.

use crate::abi::{MapFlags, MremapFlags, Prot};
use crate::decode::{Call, Fd, Mmap, Mremap};
use crate::mm::{
    AddressSpace, Context, Effect, Evidence, Flow, Snapshot, Span, effect, evidence_wanted,
    parse_maps,
};
use crate::units::{Addr, AddrRange, Bytes};

const NAMES: &[(&str, u64)] = &[
    ("NULL", 0),
    ("PROT_NONE", 0),
    ("PROT_READ", 1),
    ("PROT_WRITE", 2),
    ("PROT_EXEC", 4),
    ("PROT_GROWSDOWN", 0x100_0000),
    ("MAP_SHARED", 0x1),
    ("MAP_PRIVATE", 0x2),
    ("MAP_DROPPABLE", 0x8),
    ("MAP_FIXED", 0x10),
    ("MAP_ANONYMOUS", 0x20),
    ("MAP_GROWSDOWN", 0x100),
    ("MAP_NORESERVE", 0x4000),
    ("MAP_HUGETLB", 0x4_0000),
    ("MAP_FIXED_NOREPLACE", 0x10_0000),
    ("MREMAP_MAYMOVE", 1),
    ("MREMAP_FIXED", 2),
    ("MREMAP_DONTUNMAP", 4),
    ("MADV_DONTNEED", 4),
    ("MADV_FREE", 8),
    ("MADV_DONTFORK", 10),
    ("MADV_DOFORK", 11),
    ("MADV_GUARD_INSTALL", 102),
    ("SHM_REMAP", 0o40000),
    ("EPERM", 1),
    ("ENOMEM", 12),
    ("EFAULT", 14),
    ("EEXIST", 17),
    ("EINVAL", 22),
    ("ERESTARTNOINTR", 513),
];

/// A number, a name, or names joined by `|`.
#[track_caller]
fn value(text: &str) -> u64 {
    let one = |word: &str| {
        let named = NAMES.iter().find(|(name, _)| *name == word);
        named.map(|(_, value)| *value).unwrap_or_else(|| {
            let parsed = match word.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => word.parse::<i64>().map(|value| value as u64),
            };
            parsed.unwrap_or_else(|_| panic!("no value: {word:?}"))
        })
    };
    text.split('|').map(one).fold(0, |bits, bit| bits | bit)
}

/// `mmap(0x10000, 0x3000, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x10000`
#[track_caller]
pub fn parse_call(line: &str) -> (Call, i64) {
    let (call, result) = line.rsplit_once(" = ").expect("a result");
    let (name, args) = call.split_once('(').expect("a call");
    let args = args.trim_end().strip_suffix(')').expect("arguments");
    let args: Vec<u64> = args.split(", ").map(value).collect();
    let result = match result.split_once(' ') {
        Some(("-1" | "?", error)) => -(value(error) as i64),
        _ => value(result) as i64,
    };
    let arg = |index: usize| args.get(index).copied().unwrap_or(0);
    let (addr, len) = (Addr(arg(0)), arg(1));
    let prot = Prot::from_bits_retain(arg(2) as u32);
    let call = match name {
        "mmap" => {
            let flags = MapFlags::from_bits_retain(arg(3) as u32);
            let number = arg(4) as i32;
            Call::Mmap(Mmap {
                addr,
                len,
                prot,
                flags,
                fd: (0 <= number).then_some(Fd { number, path: None }),
                raw_fd: number,
                offset: arg(5),
            })
        }
        "munmap" => Call::Munmap { addr, len },
        "mprotect" => Call::Mprotect {
            addr,
            len,
            prot,
            pkey: None,
        },
        "mremap" => Call::Mremap(Mremap {
            old_addr: addr,
            old_len: len,
            new_len: arg(2),
            flags: MremapFlags::from_bits_retain(arg(3) as u32),
            new_addr: Addr(arg(4)),
        }),
        "madvise" => Call::Madvise {
            addr,
            len,
            advice: arg(2) as i32,
        },
        "brk" => Call::Brk { addr },
        "mseal" => Call::Mseal {
            addr,
            len,
            flags: 0,
        },
        "shmat" => Call::Shmat {
            shmid: arg(0) as i32,
            addr: Addr(arg(1)),
            flags: arg(2) as i32,
            stored: None,
        },
        "shmdt" => Call::Shmdt { addr },
        "io_destroy" => Call::IoDestroy { context: addr },
        "remap_file_pages" => Call::RemapFilePages {
            addr,
            len,
            prot,
            pgoff: arg(3),
            flags: MapFlags::empty(),
        },
        _ => panic!("no such call here: {name}"),
    };
    (call, result)
}

/// A space and what happened to it.
#[derive(Default)]
pub struct Story {
    pub space: AddressSpace,
    pub context: Context,
    pub flow: Flow,
    pub spans: Vec<Span>,
    /// Of the last call.
    pub last: Effect,
}

impl Story {
    #[track_caller]
    pub fn from_maps(text: &str) -> Story {
        let snapshot = parse_maps(text.as_bytes()).expect("lines of maps");
        Story {
            space: AddressSpace::from_snapshot(&snapshot),
            ..Story::default()
        }
    }

    /// Runs lines of strace, each followed by the kernel's answers.
    #[track_caller]
    pub fn run(mut self, lines: &str) -> Story {
        let mut lines = lines.lines().peekable();
        while let Some(line) = lines.next() {
            let mut answer = String::new();
            while let Some(shown) = lines.next_if(|line| line.starts_with(' ')) {
                answer.push_str(shown.trim_start());
                answer.push('\n');
            }
            self.call(line, &answer);
        }
        self
    }

    #[track_caller]
    fn call(&mut self, line: &str, answer: &str) {
        let (call, result) = parse_call(line);
        let shown: Snapshot = parse_maps(answer.as_bytes()).expect("lines of maps");
        let mut wanted = Vec::new();
        evidence_wanted(&call, result, &self.context, &mut wanted);
        let answer = |range: AddrRange| {
            let lines = shown.entries.iter();
            Evidence {
                range,
                entries: lines
                    .filter(|line| line.range.overlaps(range))
                    .cloned()
                    .collect(),
            }
        };
        let evidence: Vec<Evidence> = wanted.into_iter().map(answer).collect();
        self.last = effect(&self.space, &call, result, &self.context, &evidence);
        if let Some(brk) = self.last.brk {
            self.context.brk = brk.page_ceil();
        }
        for change in self.last.changes.clone() {
            self.flow += self.space.apply(change, &mut self.spans);
            assert_eq!(self.space.totals(), self.space.recount(), "after {line}");
        }
    }

    /// `10000-11000 rw-p`, and what is behind it unless that is anonymous memory.
    pub fn maps(&self) -> String {
        let mut text = String::new();
        for vma in self.space.vmas() {
            let line = vma.to_entry();
            let shown = line.description();
            let shown = shown.strip_suffix(" 00000000 00:00 0").unwrap_or(&shown);
            text.push_str(&format!("{} {shown}\n", line.range));
        }
        text
    }

    /// What happened, span by span.
    pub fn spans(&self) -> String {
        let lines = self.spans.iter();
        lines
            .map(|span| format!("{} {:?}\n", span.range, span.verb))
            .collect()
    }
}

/// Calls in, map out.
#[track_caller]
pub fn check(calls: &str, maps: &str) -> Story {
    let story = Story::default().run(calls);
    assert_eq!(story.maps(), maps);
    assert!(!story.last.recheck, "no reason for doubt");
    story
}

/// Flow in pages: reserve, map, commit, decommit, release, discard.
pub fn pages(flow: &Flow) -> [u64; 6] {
    let Flow {
        reserve,
        map,
        commit,
        decommit,
        release,
        discard,
    } = *flow;
    [reserve, map, commit, decommit, release, discard].map(|Bytes(bytes)| bytes / 4096)
}
