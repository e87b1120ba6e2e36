//! The architecture as a test: a `use` points down only, and the core does no I/O.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, top first; modules of one layer do not use each other.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["tracee", "term", "export"],
    &["symbol"],
    &["diff"],
    &["report"],
    &["trace_file"],
    &["timeline"],
    &["mm"],
    &["decode"],
    &["abi", "units"],
];

/// Uses between modules of one layer that are part of the design, with the reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("abi", "units", "both are vocabulary"),
    (
        "export",
        "term",
        "Markdown is for people: it says things as a terminal does",
    ),
];

/// The layers that must build and run anywhere, under Miri and the fuzzer.
const CORE: &[&str] = &["timeline", "mm", "decode", "abi", "units", "report", "diff"];

/// What the core may not name: the outside world.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "libc::",
    "nix::",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "println!",
    "print!",
    "eprintln!",
    "eprint!",
    "sysconf",
    "std::os::",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("a source folder");
    for entry in entries {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The files of a module, each with its code: comments and the tests at its end left out.
fn module(name: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let folder = root.join(name);
    if folder.is_dir() {
        sources(&folder, &mut files);
    } else {
        files.push(root.join(format!("{name}.rs")));
    }
    files
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs") && !path.ends_with("testing.rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code: Vec<&str> = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            (path, code.join("\n"))
        })
        .collect()
}

#[test]
fn every_use_points_down() {
    let mut wrong = Vec::new();
    for (level, layer) in LAYERS.iter().enumerate() {
        for from in *layer {
            for (path, code) in module(from) {
                for to in LAYERS[..=level].iter().flat_map(|layer| layer.iter()) {
                    let allowed =
                        from == to || ALLOWED.iter().any(|(a, b, _)| a == from && b == to);
                    if !allowed && code.contains(&format!("crate::{to}")) {
                        wrong.push(format!("{} uses crate::{to}", path.display()));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "uses that point up or sideways:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_module_has_a_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(root).expect("src") {
        let path = entry.expect("a directory entry").path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a name")
            .to_owned();
        let known = LAYERS.iter().any(|layer| layer.contains(&name.as_str()));
        assert!(
            known || name == "lib" || name == "main",
            "{name} stands in no layer"
        );
    }
}

/// Whether `word` begins somewhere in `code`: `glibc::` is not `libc::`.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    })
}

#[test]
fn the_core_does_no_io_and_reads_no_clock() {
    let mut wrong = Vec::new();
    for name in CORE {
        for (path, code) in module(name) {
            for word in IMPURE {
                if names(&code, word) {
                    wrong.push(format!("{} names {word}", path.display()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "impure code in the core:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn unsafe_code_has_one_address() {
    for layer in LAYERS {
        for name in *layer {
            for (path, code) in module(name) {
                let is_sys =
                    path.ends_with("tracee/sys.rs") || path.ends_with("tracee/sys/perf.rs");
                assert!(
                    is_sys || !code.contains("unsafe "),
                    "{} holds unsafe code",
                    path.display()
                );
            }
        }
    }
}
