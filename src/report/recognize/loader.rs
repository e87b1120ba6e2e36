//! What exec(2), ld.so and the break make: told by the mechanism itself.

use crate::report::Place;

use super::{Basis, Clues, Kind, Recognized, Runtime, Surroundings, by_file, found, kernel_rings};
use super::{glibc, musl, tcmalloc};

pub(super) const OWNER: &str = "ld.so";

/// Of what belongs to no runtime.
const PROCESS: &str = "process";

const LIBRARIES: &str = "libraries";
const START: &str = "TLS and start-up memory";

pub(super) const LOADER: Runtime = Runtime {
    owner: OWNER,
    libraries: &["ld-linux*.so*", "ld-2.*.so", "ld64.so*"],
    version: None,
    functions: &[
        ("_dl_map_segments", LIBRARIES),
        ("_dl_map_segment", LIBRARIES),
        ("_dl_map_object_from_fd", LIBRARIES),
        ("_dl_protect_relro", LIBRARIES),
        ("_dl_sysdep_read_whole_file", "library cache"),
        ("__minimal_malloc", START),
        ("_dl_early_allocate", START),
        ("init_tls", START),
    ],
    names: &[],
    files: &[("/etc/ld.so.cache", "library cache")],
    shapes: &[],
};

/// What a mapping is by how it came to be: a file, the break, a thing of the kernel's.
pub(super) fn by_mechanism(clues: &Clues, around: &Surroundings) -> Option<Recognized> {
    if let Some(known) = kernel_rings::by_name(clues) {
        return Some(known);
    }
    match &clues.place {
        Place::File(path) => Some(file(path, around)),
        Place::Heap => Some(heap(around)),
        Place::Stack => Some(found(PROCESS, "main stack", Basis::File, "[stack]")),
        Place::Shared(name) => {
            if let Some(known) = by_file(name, around) {
                return Some(known);
            }
            let what = match &**name {
                name if name.starts_with("/memfd:") => "memfd files",
                name if name.starts_with("/SYSV") => "System V shared memory",
                _ => "shared anonymous memory",
            };
            Some(found(PROCESS, what, Basis::File, name.to_string()))
        }
        Place::Anon => anonymous(clues, around),
        Place::ThreadStack | Place::Special(_) | Place::Others => None,
    }
}

/// A file's part of memory, whatever else lies around it.
pub(super) fn file(path: &str, around: &Surroundings) -> Recognized {
    if let Some(known) = by_file(path, around) {
        return known;
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain = name.strip_suffix(" (deleted)").unwrap_or(name);
    if around.is_program(path) {
        found("program", "code and data", Basis::File, path.to_owned())
    } else if plain.ends_with(".so") || plain.contains(".so.") {
        found(OWNER, LIBRARIES, Basis::File, "files named .so".to_owned())
    } else {
        let Kind { owner, what } = Kind::MAPPED_FILES;
        found(owner, what, Basis::File, "a file is mapped")
    }
}

/// The break belongs to whoever is malloc.
fn heap(around: &Surroundings) -> Recognized {
    let owner = |owner, what, evidence: &'static str| found(owner, what, Basis::File, evidence);
    if around.has(tcmalloc::OWNER) {
        owner(
            tcmalloc::OWNER,
            tcmalloc::HEAP,
            "the break, and tcmalloc is malloc",
        )
    } else if around.replaces_malloc() {
        owner(PROCESS, "break", "brk(2)")
    } else if around.has(musl::OWNER) {
        owner(musl::OWNER, musl::HEAP, "the break, and musl is malloc")
    } else if around.has(glibc::OWNER) {
        owner(glibc::OWNER, glibc::HEAP, "the break, and glibc is malloc")
    } else {
        owner(PROCESS, "break", "brk(2)")
    }
}

fn anonymous(clues: &Clues, around: &Surroundings) -> Option<Recognized> {
    match &clues.over {
        Some((Place::File(path), _)) if around.is_program(path) => {
            return Some(found("program", "bss", Basis::File, "mapped over its file"));
        }
        Some((Place::File(_), _)) => {
            return Some(found(
                OWNER,
                "bss of libraries",
                Basis::File,
                "mapped over its file",
            ));
        }
        _ => {}
    }
    let early = clues.at_start && clues.plain_memory().is_some() && around.has(OWNER);
    early.then(|| {
        let evidence = "mapped before ld.so let go of its cache, when nothing else runs";
        found(OWNER, START, Basis::Shape, format!("shape: {evidence}"))
    })
}
