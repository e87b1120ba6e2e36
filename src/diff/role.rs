//! What a mapping is for, told so that two runs can be compared: without addresses, process ids and
//! version digits.

use std::fmt;
use std::sync::Arc;

use crate::abi::{MapFlags, Prot};
use crate::decode::{Mmap, Placement};
use crate::mm::{Backing, Category, Vma};
use crate::timeline::SpaceState;
use crate::units::PAGE;

/// What a mapping is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The file of the running program, its zeroed data included.
    Program,
    /// Another file, by its name as [`without_versions`] leaves it; its zeroed data included.
    File(Arc<str>),
    /// Shared anonymous memory, memfd, SysV, by name in the same way.
    Shared(Arc<str>),
    /// What the kernel maps itself: vdso, vvar, rings.
    Special(Arc<str>),
    /// Moved by brk(2).
    Heap,
    /// The main thread's stack.
    Stack,
    /// Private anonymous memory.
    Anon(Anon),
}

/// Private anonymous memory as it was mapped first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Anon {
    /// PROT_READ, PROT_WRITE, PROT_EXEC as bits.
    pub prot: u32,
    /// MAP_STACK: the stack of a thread.
    pub stack: bool,
    /// MAP_NORESERVE.
    pub noreserve: bool,
    /// MAP_HUGETLB.
    pub hugetlb: bool,
}

/// A role, and for private anonymous memory the size that was asked for: mappings of one shape are
/// one group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// What for.
    pub role: Role,
    /// Bytes, in whole pages; 0 where the size does not tell one from another.
    pub size: u64,
}

impl Shape {
    /// A shape in which all mappings of a role are one.
    pub(super) fn whole(role: Role) -> Shape {
        Shape { role, size: 0 }
    }

    /// Of what mmap(2) maps anonymously and privately; `None` for everything else.
    pub(super) fn of_mmap(call: &Mmap) -> Option<Shape> {
        if !call.flags.contains(MapFlags::ANONYMOUS) || call.flags.is_shared() {
            return None;
        }
        let anon = Anon {
            prot: call.prot.rwx().bits(),
            stack: call.flags.contains(MapFlags::STACK),
            noreserve: call.flags.contains(MapFlags::NORESERVE),
            hugetlb: call.flags.contains(MapFlags::HUGETLB),
        };
        Some(Shape {
            role: Role::Anon(anon),
            size: call.len.checked_next_multiple_of(PAGE).unwrap_or(call.len),
        })
    }

    /// Of a mapping as the model shows it. `program` is the path of the running program.
    pub(super) fn of_vma(vma: &Vma, state: &SpaceState) -> Shape {
        let name = match &vma.backing {
            Backing::Anon if vma.flags.growsdown => return Shape::whole(Role::Stack),
            Backing::Anon => return Shape::of_anon(vma),
            Backing::Special { name } | Backing::File { name, .. } => name,
        };
        let short: Arc<str> = without_versions(name).into();
        Shape::whole(match vma.category() {
            Category::Anon => return Shape::of_anon(vma),
            Category::File if same_file(name, &state.exe) => Role::Program,
            Category::File => Role::File(short),
            Category::Shmem => Role::Shared(short),
            Category::Special => Role::Special(short),
        })
    }

    fn of_anon(vma: &Vma) -> Shape {
        let anon = Anon {
            prot: vma.prot.rwx().bits(),
            stack: false,
            noreserve: vma.flags.noreserve,
            hugetlb: vma.flags.hugetlb,
        };
        Shape {
            role: Role::Anon(anon),
            size: vma.range.len(),
        }
    }
}

impl Anon {
    /// As maps shows the rights: `rw-`.
    pub fn rwx(&self) -> &'static str {
        let prot = Prot::from_bits_retain(self.prot);
        let has = |bit| usize::from(prot.contains(bit));
        const RWX: [&str; 8] = ["---", "r--", "-w-", "rw-", "--x", "r-x", "-wx", "rwx"];
        let index = has(Prot::READ) | has(Prot::WRITE) << 1 | has(Prot::EXEC) << 2;
        RWX.get(index).copied().unwrap_or("???")
    }
}

/// `anonymous rw-`, `thread stack, mapped ---`: the rights as they were first.
impl fmt::Display for Anon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.stack {
            "thread stack"
        } else {
            "anonymous"
        };
        let mapped = if self.prot == 0 { ", mapped" } else { "" };
        write!(f, "{what}{mapped} {}", self.rwx())?;
        f.write_str(if self.noreserve { " noreserve" } else { "" })?;
        f.write_str(if self.hugetlb { " hugetlb" } else { "" })
    }
}

/// How a call asks for a place, without saying where.
pub(super) fn placement(call: &Mmap) -> &'static str {
    match call.placement() {
        Placement::Anywhere => "anywhere",
        Placement::Near(_) => "near",
        Placement::Replacing(_) => "replacing",
        Placement::IfFree(_) => "if free",
    }
}

fn same_file(name: &str, exe: &str) -> bool {
    let trimmed = |path: &str| path.trim_end_matches(" (deleted)").to_owned();
    !exe.is_empty() && trimmed(name) == trimmed(exe)
}

/// A name without what changes from version to version and from run to run: digits with what
/// joins them to the rest, and ` (deleted)`. `/usr/lib/python3.11/libfoo-2.so.1.2` becomes
/// `/usr/lib/python/libfoo.so`.
pub fn without_versions(name: &str) -> String {
    let name = name.trim_end_matches(" (deleted)");
    let mut short = String::with_capacity(name.len());
    let mut rest = name.chars().peekable();
    while let Some(char) = rest.next() {
        if !char.is_ascii_digit() {
            short.push(char);
            continue;
        }
        while short.ends_with(['.', '-', '_', '+', '~']) {
            short.pop();
        }
        while rest.next_if(|next| next.is_ascii_digit()).is_some() {}
    }
    short
}

/// The last part of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_two_versions_are_one() {
        let same = |a: &str, b: &str| assert_eq!(without_versions(a), without_versions(b));
        same("/usr/lib/libfoo.so.1.2", "/usr/lib/libfoo.so.1.3.11");
        same("/usr/lib/libfoo.so.1.2", "/usr/lib/libfoo.so");
        same("/usr/lib/python3.11/json.so", "/usr/lib/python3.12/json.so");
        same("/opt/node-v20.11.1/bin/node", "/opt/node-v22/bin/node");
        same("/srv/server-1.21.13", "/srv/server-1.25.5");
        same("/srv/server (deleted)", "/srv/server");
        same("/tmp/hsperfdata_root/4711", "/tmp/hsperfdata_root/99");
        assert_ne!(
            without_versions("/lib/libm.so"),
            without_versions("/lib/libc.so")
        );
    }
}
