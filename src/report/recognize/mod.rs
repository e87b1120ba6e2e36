//! What a mapping is, with the evidence for it; unknown rather than a guess.
//!
//! Evidence counts in this order: who called for it, the name that the program gave it with
//! prctl(2), the file that is mapped, the call that the kernel itself mapped it for, and last its
//! shape (size, alignment, flags, what followed). A shape means something only where the runtime
//! that makes it is known to be in the space; an address alone proves nothing.
//!
//! [`Clues`] are what is known of one mapping, [`Surroundings`] of its space. Each runtime is a table
//! of a file of its own: what shows that it is there, its functions, names, files and shapes.

use std::borrow::Cow;
use std::fmt;

mod clues;
mod cpython;
mod glibc;
mod go;
mod hotspot;
mod jemalloc;
mod kernel_rings;
mod loader;
mod mimalloc;
mod musl;
mod partition_alloc;
mod pattern;
mod sanitizer;
mod snapshot;
mod surroundings;
mod tcmalloc;
#[cfg(test)]
mod tests;
mod v8;

pub use clues::{Clues, Request, Step, Steps};
pub use snapshot::{KindSum, recognize_snapshot, sums_of_snapshot};
pub use surroundings::Surroundings;

/// Whose some memory is, and which part of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// The runtime, library or part of the system: `Go`, `glibc`, `ld.so`.
    pub owner: &'static str,
    /// What it uses it for: `heap arenas`.
    pub what: &'static str,
}

impl Kind {
    /// A file that belongs to nothing known: what it is, its name tells.
    pub const MAPPED_FILES: Kind = Kind {
        owner: "process",
        what: "mapped files",
    };
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kind { owner, what } = self;
        write!(f, "{owner} {what}")
    }
}

/// What a verdict rests on, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Basis {
    /// A function on the stack of the call.
    Caller,
    /// The name of the mapping.
    Name,
    /// The file that is mapped, or the call or mechanism by which only one thing is mapped.
    File,
    /// Size, alignment, flags, what followed.
    Shape,
}

impl Basis {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Basis::Caller => "caller",
            Basis::Name => "name",
            Basis::File => "file",
            Basis::Shape => "shape",
        }
    }
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognized {
    /// What it is.
    pub kind: Kind,
    /// What kind of evidence there is.
    pub basis: Basis,
    /// The evidence, in a short phrase.
    pub evidence: Cow<'static, str>,
}

/// What is known of one runtime: a table.
struct Runtime {
    owner: &'static str,
    /// Files that show that it is in a space, by the last parts of their paths.
    libraries: &'static [&'static str],
    /// What the version stated in a file begins with, where that shows it.
    version: Option<&'static str>,
    /// Functions that call for memory, and what for. Of a stack the innermost function that is
    /// listed decides.
    functions: &'static [(&'static str, &'static str)],
    /// Names given with prctl(2), and what they are for.
    names: &'static [(&'static str, &'static str)],
    /// Files that it maps, by the last parts of their paths.
    files: &'static [(&'static str, &'static str)],
    /// Shapes, the most telling first.
    shapes: &'static [Shape],
}

impl Runtime {
    /// The most telling of its shapes that a mapping has.
    fn shape(&self, clues: &Clues, around: &Surroundings) -> Option<&Shape> {
        let fits = |shape: &&Shape| (shape.fits)(clues, around);
        self.shapes.iter().find(fits)
    }
}

/// A shape that a runtime's mappings have.
struct Shape {
    what: &'static str,
    evidence: &'static str,
    /// So particular that it shows the runtime too, as where that is linked statically.
    alone: bool,
    fits: fn(&Clues, &Surroundings) -> bool,
}

/// What memory is whose name tells only whose: a shape of theirs may tell more.
const MEMORY: &str = "memory";

/// All runtimes. Where two know the same evidence the earlier has the better one: those that bring
/// an allocator of their own come before the C library that they replace or sit on.
static RUNTIMES: &[Runtime] = &[
    go::GO,
    hotspot::HOTSPOT,
    sanitizer::ASAN,
    sanitizer::TSAN,
    sanitizer::MSAN,
    partition_alloc::PARTITION_ALLOC,
    partition_alloc::CHROMIUM,
    v8::V8,
    jemalloc::JEMALLOC,
    mimalloc::MIMALLOC,
    tcmalloc::TCMALLOC,
    musl::MUSL,
    loader::LOADER,
    glibc::GLIBC,
    cpython::CPYTHON,
];

/// Functions that begin so are nobody else's, so that they show their runtime even where it is linked
/// statically. Others, such as `new_arena`, count only where the runtime is known to be there.
const OWN_PREFIXES: &[&str] = &[
    "runtime.",
    "v8::internal::",
    "partition_alloc::",
    "je_",
    "_rjem_je_",
    "_mi_",
    "mi_",
    "tcmalloc::",
    "TCMalloc_",
    "__asan::",
    "__tsan::",
    "__msan::",
];

/// Functions by which memory is asked for that is not mapped for its caller alone.
const MALLOC: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_memalign",
];

/// Whether a file is the library of an allocator that takes the place of the C library's.
pub fn is_allocator(path: &str) -> bool {
    let allocators = [
        &jemalloc::JEMALLOC,
        &mimalloc::MIMALLOC,
        &tcmalloc::TCMALLOC,
    ];
    let is_of = |listed: &&str| pattern::is_path(listed, path);
    allocators.iter().any(|it| it.libraries.iter().any(is_of))
}

/// What a mapping is; `None` if nothing tells.
pub fn recognize(clues: &Clues, around: &Surroundings) -> Option<Recognized> {
    by_caller(clues, around)
        .or_else(|| by_name(clues, around))
        .or_else(|| loader::by_mechanism(clues, around))
        .or_else(|| by_shape(clues, around))
}

fn found(
    owner: &'static str,
    what: &'static str,
    basis: Basis,
    evidence: impl Into<Cow<'static, str>>,
) -> Recognized {
    Recognized {
        kind: Kind { owner, what },
        basis,
        evidence: evidence.into(),
    }
}

/// The first of all runtimes for which `rule` says what something is; those that are known to be in
/// the space come first, because some have functions, names and files in common.
fn first(
    around: &Surroundings,
    rule: impl Fn(&Runtime) -> Option<&'static str>,
) -> Option<(&'static str, &'static str)> {
    let tell = |runtime: &Runtime| Some((runtime.owner, rule(runtime)?));
    let mut present = RUNTIMES.iter().filter(|it| around.has(it.owner));
    let known = present.find_map(tell);
    known.or_else(|| RUNTIMES.iter().find_map(tell))
}

fn by_caller(clues: &Clues, around: &Surroundings) -> Option<Recognized> {
    let mut malloc = false;
    clues.callers.iter().find_map(|function| {
        // Whoever called malloc did not call for what that mapped.
        if malloc {
            return None;
        }
        malloc = MALLOC.contains(&&**function);
        let (owner, what) = first(around, |runtime| {
            let mut listed = runtime.functions.iter().filter(|(listed, _)| {
                let its_own = OWN_PREFIXES.iter().any(|own| listed.starts_with(own));
                its_own || around.has(runtime.owner)
            });
            listed
                .find(|(listed, _)| pattern::matches(listed, function))
                .map(|(_, what)| *what)
        })?;
        let evidence = format!("called by {function}");
        Some(found(owner, what, Basis::Caller, evidence))
    })
}

fn by_name(clues: &Clues, around: &Surroundings) -> Option<Recognized> {
    let name = clues.name.as_deref()?;
    let plain = name.strip_prefix("[anon:").unwrap_or(name);
    let plain = plain.strip_suffix(']').unwrap_or(plain).trim();
    let (owner, what) = first(around, |runtime| {
        let mut listed = runtime.names.iter();
        listed
            .find(|(listed, _)| pattern::matches(listed, plain))
            .map(|(_, what)| *what)
    })?;
    let named = format!("named \"{plain}\"");
    let mut told = RUNTIMES.iter().filter(|it| it.owner == owner);
    let shape = told
        .find_map(|runtime| runtime.shape(clues, around))
        .filter(|_| what == MEMORY);
    Some(match shape {
        Some(Shape { what, evidence, .. }) => {
            found(owner, what, Basis::Name, format!("{named}; {evidence}"))
        }
        None => found(owner, what, Basis::Name, named),
    })
}

/// A file that a runtime is known to map.
fn by_file(path: &str, around: &Surroundings) -> Option<Recognized> {
    let (owner, what) = first(around, |runtime| {
        let mut listed = runtime.files.iter();
        listed
            .find(|(listed, _)| pattern::is_path(listed, path))
            .map(|(_, what)| *what)
    })?;
    Some(found(owner, what, Basis::File, path.to_owned()))
}

fn by_shape(clues: &Clues, around: &Surroundings) -> Option<Recognized> {
    let of = |runtime: &Runtime, shape: &Shape| {
        let evidence = format!("shape: {}", shape.evidence);
        found(runtime.owner, shape.what, Basis::Shape, evidence)
    };
    let present = RUNTIMES
        .iter()
        .filter(|runtime| around.has(runtime.owner))
        .find_map(|runtime| Some(of(runtime, runtime.shape(clues, around)?)));
    present.or_else(|| {
        RUNTIMES.iter().find_map(|runtime| {
            let fits = |shape: &&Shape| shape.alone && (shape.fits)(clues, around);
            Some(of(runtime, runtime.shapes.iter().find(fits)?))
        })
    })
}
