//! Names of frames, from real binaries, held against `nm` and `addr2line`.

mod support;
mod support_real;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use memtrace::mm::FileId;
use memtrace::symbol::names::{Symbols, names_in};
use memtrace::timeline::{
    FileSeen, Frame, FrameName, Module, ModuleId, Namer, Observation, Observed, Stacks, TraceInfo,
};
use memtrace::trace_file::{TraceReader, TraceWriter};
use memtrace::units::{SpaceId, Timestamp};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use support::skipped;
use support_real::need;
use support_real::programs::go_server;

// ── programs ────────────────────────────────────────────────────────────────────────────────────────────

const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static inline __attribute__((always_inline)) int innermost(int x) {
    return printf("%d\n", x);
}
static inline __attribute__((always_inline)) int inner(int x) {
    return innermost(x + 1) * 3;
}
static __attribute__((noinline)) int local(int x) {
    return inner(x) + 1;
}
__attribute__((noinline)) int global(int x) {
    return local(x) + inner(x);
}
__asm__(".text\n.globl sizeless\n.type sizeless, @function\nsizeless:\n nop\n nop\n ret\n"
        ".globl after\n.type after, @function\nafter:\n ret\n.size after, .-after\n");
int main(int argc, char **argv) {
    return global(argc) == 17;
}
"#;

/// Whether a tool is there; a test that needs it is skipped otherwise.
fn has(tool: &str) -> bool {
    let there = Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !there {
        let required = std::env::var_os("MEMTRACE_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!required, "{tool} is not here, and MEMTRACE_REQUIRE_ALL=1");
        skipped(format_args!("{tool} is not here"));
    }
    there
}

#[track_caller]
fn done<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(tool: &str, args: I) -> String {
    let output = Command::new(tool).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(output.status.success(), "{tool}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder with a program in it.
struct Built {
    _folder: tempfile::TempDir,
    program: PathBuf,
}

impl Built {
    #[track_caller]
    fn with(compiler: &str, source: &str, options: &[&str]) -> Built {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // The name of a temporary folder may be reached by a link.
        let root = folder.path().canonicalize().expect("it is there");
        let ending = if compiler == "g++" { "cpp" } else { "c" };
        let text = root.join(format!("program.{ending}"));
        fs::write(&text, source).expect("it can be written");
        let program = root.join("program");
        let mut command = Command::new(compiler);
        command.args(options).arg(&text).arg("-o").arg(&program);
        let output = command.output().expect("the compiler runs");
        assert!(output.status.success(), "{output:?}");
        Built {
            _folder: folder,
            program,
        }
    }

    fn path(&self) -> &str {
        self.program.to_str().expect("UTF-8")
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.program.with_file_name(name)
    }
}

// ── frames of it ────────────────────────────────────────────────────────────────────────────────────────

/// What a trace knows of a file of code.
#[derive(Clone, Debug)]
struct Traced {
    path: PathBuf,
    id: FileId,
    build_id: Vec<u8>,
    started: String,
    /// From addresses to offsets in the file.
    code: Vec<(u64, u64, u64)>,
}

impl Traced {
    #[track_caller]
    fn of(path: &Path) -> Traced {
        let meta = fs::metadata(path).expect("it is there");
        let bytes = fs::read(path).expect("it can be read");
        let elf = ElfFile64::<object::Endianness>::parse(bytes.as_slice()).expect("an ELF file");
        let endian = elf.endian();
        let mut code = Vec::new();
        let mut build_id = Vec::new();
        for segment in elf.elf_program_headers() {
            if segment.p_type(endian) == object::elf::PT_LOAD {
                let offset = segment.p_offset(endian);
                code.push((segment.p_vaddr(endian), segment.p_filesz(endian), offset));
            }
            if let Ok(Some(mut notes)) = segment.notes(endian, bytes.as_slice()) {
                while let Ok(Some(note)) = notes.next() {
                    if note.n_type(endian) == object::elf::NT_GNU_BUILD_ID {
                        build_id = note.desc().to_vec();
                    }
                }
            }
        }
        let _ = elf.elf_header().e_machine(endian);
        Traced {
            path: path.to_owned(),
            id: FileId {
                major: nix::sys::stat::major(meta.dev()) as u32,
                minor: nix::sys::stat::minor(meta.dev()) as u32,
                inode: meta.ino(),
            },
            build_id,
            started: "2126-11-25T12:00:00Z".to_owned(),
            code,
        }
    }

    /// The offset in the file of a call whose last byte is at `address`: where it returns to.
    fn offset_of(&self, address: u64) -> u64 {
        let found = self.code.iter().find_map(|&(start, size, offset)| {
            let into = address.checked_sub(start).filter(|into| *into < size)?;
            Some(offset + into + 1)
        });
        found.unwrap_or_else(|| panic!("{address:#x} is in no segment"))
    }

    /// A trace that holds a module and what was seen of its file, and what names it gives.
    fn symbols(&self) -> Symbols {
        let info = TraceInfo {
            started: self.started.clone(),
            page_size: 4096,
            ..TraceInfo::default()
        };
        let path: Arc<str> = self.path.to_str().expect("UTF-8").into();
        let seen = FileSeen {
            space: SpaceId(1),
            path: Arc::clone(&path),
            file: self.id,
            build_id: self.build_id.as_slice().into(),
            version: None,
        };
        let module = Module {
            path,
            file: self.id,
        };
        let mut writer = TraceWriter::new(Vec::new(), &info).expect("memory");
        for what in [Observed::Module(module), Observed::File(seen)] {
            let time = Timestamp(1);
            writer
                .observation(&Observation { time, what })
                .expect("memory");
        }
        let bytes = writer.finish().expect("memory");
        let mut reader = TraceReader::new(bytes.as_slice()).expect("a trace");
        Symbols::of(&mut reader).expect("it can be read")
    }

    fn names(&self, addresses: &[u64]) -> Vec<Arc<[FrameName]>> {
        let mut symbols = self.symbols();
        let name = |&address| symbols.name(frame(self.offset_of(address)), &Stacks::default());
        addresses.iter().map(name).collect()
    }

    /// The functions at an address, innermost first.
    fn functions(&self, address: u64) -> Vec<String> {
        let names = self.names(&[address]).remove(0);
        names.iter().map(|name| name.function.to_string()).collect()
    }
}

fn frame(offset: u64) -> Frame {
    let module = ModuleId(0);
    Frame::Module { module, offset }
}

/// Start and size of each function that nm knows.
fn nm(path: &str) -> HashMap<String, (u64, u64)> {
    let text = done("nm", ["-S", "--defined-only", path]);
    let functions = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u64::from_str_radix(words.get(at)?, 16).ok();
        match words.len() {
            4 => Some((words[3].to_owned(), (number(0)?, number(1)?))),
            _ => Some((words[2].to_owned(), (number(0)?, 0))),
        }
    });
    functions.collect()
}

/// What addr2line says of each address: functions, innermost first, each with file:line.
fn addr2line(path: &str, addresses: &[u64]) -> Vec<Vec<(String, String)>> {
    let mut command = Command::new("addr2line");
    command.args(["-afiCe", path]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("addr2line");
    let mut input = child.stdin.take().expect("a pipe");
    let text: String = addresses.iter().map(|it| format!("{it:#x}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("addr2line");
    writer.join().expect("no panic").expect("it reads all");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut all: Vec<Vec<(String, String)>> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            all.push(Vec::new());
        } else if let (Some(last), Some(place)) = (all.last_mut(), lines.next()) {
            let place = place.split(" (discriminator").next().unwrap_or(place);
            last.push((line.to_owned(), place.to_owned()));
        }
    }
    assert_eq!(all.len(), addresses.len());
    all
}

/// Every byte of the functions named.
fn span(functions: &HashMap<String, (u64, u64)>, names: &[&str]) -> Vec<u64> {
    let ranges = names.iter().map(|name| functions[*name]);
    let spans = ranges.flat_map(|(start, size)| start..start + size);
    spans.collect()
}

// ── C ───────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn functions_lines_and_inlining_are_those_of_addr2line() {
    if !has("gcc") || !has("addr2line") {
        return;
    }
    let packed: &[&str] = &["-O2", "-g", "-gz"];
    for options in [&["-O2", "-g"], &["-O1", "-gdwarf-4"], packed] {
        let built = Built::with("gcc", C, options);
        let traced = Traced::of(&built.program);
        let functions = nm(built.path());
        let addresses = span(&functions, &["local", "global", "main"]);
        let expected = addr2line(built.path(), &addresses);
        let found = traced.names(&addresses);
        let mut inlined = 0;
        for ((address, expected), found) in addresses.iter().zip(expected).zip(found) {
            let ours: Vec<(String, String)> = found
                .iter()
                .map(|name| {
                    let file = name.file.as_deref().unwrap_or("??");
                    let line = match name.line {
                        0 => "?".to_owned(),
                        line => line.to_string(),
                    };
                    (name.function.to_string(), format!("{file}:{line}"))
                })
                .collect();
            assert_eq!(ours, expected, "{address:#x} with {options:?}");
            inlined += usize::from(1 < ours.len());
        }
        assert!(20 < inlined, "only {inlined} addresses of inlined code");
    }
}

#[test]
fn a_symbol_names_what_it_holds_and_nothing_else() {
    if !has("gcc") {
        return;
    }
    let built = Built::with("gcc", C, &["-O2"]);
    let traced = Traced::of(&built.program);
    let functions = nm(built.path());
    for name in ["local", "global", "main"] {
        let (start, size) = functions[name];
        assert_eq!(traced.functions(start), [name]);
        assert_eq!(traced.functions(start + size - 1), [name]);
        let names = traced.names(&[start + 3]);
        assert_eq!(names[0][0].offset, 4, "{name} is called from its byte 3");
    }
    let (start, _) = functions["sizeless"];
    assert_eq!(functions["after"].0, start + 3);
    for address in start..start + 3 {
        assert_eq!(traced.functions(address), ["sizeless"]);
    }
    assert_eq!(traced.functions(start + 3), ["after"]);
    assert!(
        traced.functions(start + 4).is_empty(),
        "padding has no name"
    );
}

const ASSEMBLY: &str = r#"
__asm__(".text\n"
        ".globl outer\n.type outer, @function\nouter:\n nop\nlabel:\n nop\n nop\n.size outer, .-outer\n"
        ".fill 5, 1, 0x90\n"
        ".globl __first\n.type __first, @function\n.type local_one, @function\n"
        ".weak first\n.type first, @function\n.globl first64\n.type first64, @function\n"
        "__first:\nlocal_one:\nfirst:\nfirst64:\n nop\n nop\n"
        ".size __first, 2\n.size local_one, 2\n.size first, 2\n.size first64, 2\n");
int main(void) { return 0; }
"#;

#[test]
fn of_several_symbols_the_best_one_names() {
    if !has("gcc") {
        return;
    }
    let built = Built::with("gcc", ASSEMBLY, &["-O2"]);
    let traced = Traced::of(&built.program);
    let symbols = nm(built.path());
    let (start, size) = symbols["outer"];
    assert_eq!(size, 3);
    for address in start..start + 3 {
        assert_eq!(traced.functions(address), ["outer"], "also behind a label");
    }
    for address in start + 3..start + 8 {
        let names = traced.functions(address);
        assert!(names.is_empty(), "nobody's byte is called {names:?}");
    }
    let (start, _) = symbols["first"];
    assert_eq!(traced.functions(start), ["first"]);
    assert_eq!(traced.functions(start + 1), ["first"]);
}

// ── separate debug files ────────────────────────────────────────────────────────────────────────────────

/// Moves what names things out of a program, into `debug`.
#[track_caller]
fn strip_into(program: &str, debug: &str) {
    done("objcopy", ["--only-keep-debug", program, debug]);
    done("strip", ["--strip-all", program]);
}

/// `local` is inlined into nothing and has an inlined chain: its first call's functions.
#[track_caller]
fn knows_all_of(traced: &Traced, functions: &HashMap<String, (u64, u64)>) {
    let (start, size) = functions["local"];
    let calls = traced.names(&(start..start + size).collect::<Vec<_>>());
    let chain = ["innermost", "inner", "local"];
    let inlined = calls
        .iter()
        .find(|names| names.iter().map(|name| &*name.function).eq(chain));
    let inlined = inlined.unwrap_or_else(|| panic!("no inlined functions in {calls:?}"));
    let file = inlined[0].file.as_deref().unwrap_or_default();
    assert!(file.ends_with("/program.c"), "{inlined:?}");
    assert_eq!(inlined[0].line, 5, "{inlined:?}");
}

#[test]
fn a_debug_file_beside_the_program_is_found_by_its_link() {
    if !has("gcc") || !has("objcopy") {
        return;
    }
    for (id, hidden) in [("sha1", false), ("none", false), ("none", true)] {
        let option = format!("-Wl,--build-id={id}");
        let built = Built::with("gcc", C, &["-O2", "-g", &option]);
        let functions = nm(built.path());
        let debug = built.beside("program.debug");
        let debug = debug.to_str().expect("UTF-8");
        strip_into(built.path(), debug);
        let link = format!("--add-gnu-debuglink={debug}");
        done("objcopy", [&link, built.path()]);
        if hidden {
            let folder = built.beside(".debug");
            fs::create_dir(&folder).expect("a folder");
            fs::rename(debug, folder.join("program.debug")).expect("it moves");
        }
        knows_all_of(&Traced::of(&built.program), &functions);
    }
}

/// A file that is gone when the test ends, however it ends.
struct Placed(PathBuf);

impl Drop for Placed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        // Only if nothing else is in it.
        let _ = self.0.parent().map(fs::remove_dir);
    }
}

#[test]
fn a_debug_file_is_found_by_its_build_id_where_distributions_put_it() {
    if !has("gcc") || !has("objcopy") {
        return;
    }
    let built = Built::with("gcc", C, &["-O2", "-g", "-Wl,--build-id=sha1"]);
    let functions = nm(built.path());
    let traced = Traced::of(&built.program);
    let id: String = traced
        .build_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let folder = Path::new("/usr/lib/debug/.build-id").join(&id[..2]);
    if fs::create_dir_all(&folder).is_err() {
        return skipped(format_args!("{} cannot be made", folder.display()));
    }
    let placed = Placed(folder.join(format!("{}.debug", &id[2..])));
    strip_into(built.path(), placed.0.to_str().expect("UTF-8"));
    let traced = Traced::of(&built.program);
    knows_all_of(&traced, &functions);
    drop(placed);
    let (start, _) = functions["local"];
    assert!(traced.functions(start).is_empty());
}

#[test]
fn a_debug_file_of_another_build_is_not_believed() {
    if !has("gcc") || !has("objcopy") {
        return;
    }
    for id in ["sha1", "none"] {
        let option = format!("-Wl,--build-id={id}");
        let built = Built::with("gcc", C, &["-O2", "-g", &option]);
        let functions = nm(built.path());
        let debug = built.beside("program.debug");
        let debug = debug.to_str().expect("UTF-8");
        strip_into(built.path(), debug);
        let link = format!("--add-gnu-debuglink={debug}");
        done("objcopy", [&link, built.path()]);
        let other = format!("{C}\nint more(void) {{ return 1; }}\n");
        let other = Built::with("gcc", &other, &["-O2", "-g", &option]);
        strip_into(other.path(), debug);
        let (start, _) = functions["local"];
        assert!(Traced::of(&built.program).functions(start).is_empty());
    }
}

#[test]
fn packed_symbols_in_a_stripped_program_are_read() {
    if !has("gcc") || !has("objcopy") || !has("xz") {
        return;
    }
    let built = Built::with("gcc", C, &["-O2", "-g"]);
    let functions = nm(built.path());
    let mini = built.beside("mini");
    let mini = mini.to_str().expect("UTF-8");
    // As rpm's find-debuginfo makes it: symbols of functions only, packed.
    done("objcopy", ["--only-keep-debug", built.path(), mini]);
    done(
        "objcopy",
        [
            "-S",
            "--remove-section=.comment",
            "--keep-symbol=local",
            "--keep-symbol=main",
            mini,
        ],
    );
    done("strip", ["--strip-all", built.path()]);
    done("xz", [mini]);
    let section = format!("--add-section=.gnu_debugdata={mini}.xz");
    done("objcopy", [&section, built.path()]);
    let traced = Traced::of(&built.program);
    let (start, size) = functions["local"];
    assert_eq!(traced.functions(start), ["local"]);
    assert_eq!(traced.functions(start + size - 1), ["local"]);
    assert!(traced.functions(functions["global"].0).is_empty());
}

/// dwz(1) moves what several files have in common into one of its own: Fedora packs all debug files so.
#[test]
fn dwarf_that_was_moved_into_a_shared_file_is_read() {
    if !has("gcc") || !has("dwz") {
        return;
    }
    let built = Built::with("gcc", C, &["-O2", "-g", "-Wl,--build-id"]);
    let functions = nm(built.path());
    let twin = built.beside("twin");
    let twin = twin.to_str().expect("UTF-8");
    let other = format!("{C}\nint more(void) {{ return 1; }}\n");
    let other = Built::with("gcc", &other, &["-O2", "-g", "-Wl,--build-id"]);
    fs::copy(&other.program, twin).expect("it can be copied");
    let shared = built.beside("shared");
    let shared = shared.to_str().expect("UTF-8");
    done("dwz", ["-m", shared, built.path(), twin]);
    let sections = done("readelf", ["-SW", built.path()]);
    assert!(sections.contains(".gnu_debugaltlink"), "{sections}");
    knows_all_of(&Traced::of(&built.program), &functions);
    // Without it, symbols still name the functions.
    fs::remove_file(shared).expect("it was there");
    let (start, _) = functions["local"];
    assert_eq!(Traced::of(&built.program).functions(start), ["local"]);
}

// ── the right file ──────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_program_that_was_built_again_names_nothing() {
    if !has("gcc") {
        return;
    }
    let built = Built::with("gcc", C, &["-O2"]);
    let traced = Traced::of(&built.program);
    let (start, _) = nm(built.path())["local"];
    assert_eq!(traced.functions(start), ["local"]);
    let other = Built::with("gcc", &C.replace("17", "18"), &["-O2"]);
    fs::copy(&other.program, &built.program).expect("it can be written");
    let mut symbols = traced.symbols();
    let stacks = Stacks::default();
    let names = symbols.name(frame(traced.offset_of(start)), &stacks);
    assert!(names.is_empty(), "{names:?}");
    symbols.name(frame(traced.offset_of(start) + 1), &stacks);
    let notes = symbols.take_notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("another version"), "{notes:?}");
    fs::remove_file(&built.program).expect("it is ours");
    assert!(traced.functions(start).is_empty());
}

#[test]
fn without_a_build_id_a_file_must_be_the_same_and_unchanged_since() {
    if !has("gcc") {
        return;
    }
    let built = Built::with("gcc", C, &["-O2", "-Wl,--build-id=none"]);
    let traced = Traced::of(&built.program);
    let (start, _) = nm(built.path())["local"];
    assert_eq!(traced.functions(start), ["local"]);
    let elsewhere = FileId {
        inode: traced.id.inode + 1,
        ..traced.id
    };
    let moved = Traced {
        id: elsewhere,
        ..traced.clone()
    };
    assert!(moved.functions(start).is_empty());
    // It was traced, and then something was done to it.
    let before = Traced {
        started: "2001-09-09T01:46:40Z".to_owned(),
        ..traced
    };
    assert!(before.functions(start).is_empty());
}

// ── other languages ─────────────────────────────────────────────────────────────────────────────────────

const CPP: &str = r#"
#include <cstdio>
#include <vector>
namespace outer {
template <typename T> struct Box {
    __attribute__((noinline)) int put(const std::vector<T> &all, int at) { return printf("%d", (int)all[at]); }
};
}
template struct outer::Box<long>;
int main() { outer::Box<long> box; return box.put({1, 2}, 1); }
"#;

#[test]
fn cpp_names_are_readable() {
    if !has("g++") {
        return;
    }
    for options in [["-O2", "-g"], ["-O2", "-g0"]] {
        let built = Built::with("g++", CPP, &options);
        let traced = Traced::of(&built.program);
        let mangled = nm(built.path());
        let (_, (start, _)) = mangled
            .iter()
            .find(|(name, _)| name.contains("Box") && name.contains("put"))
            .expect("it is there");
        let functions = traced.functions(*start + 1);
        let last = functions.last().map(String::as_str);
        let expected =
            "outer::Box<long>::put(std::vector<long, std::allocator<long> > const&, int)";
        assert_eq!(last, Some(expected));
    }
}

#[test]
fn rust_names_are_readable() {
    // This very program.
    let program = std::env::current_exe().expect("a test knows where it is");
    let traced = Traced::of(&program);
    if !has("nm") {
        return;
    }
    let symbols = nm(program.to_str().expect("UTF-8"));
    let (_, (start, _)) = symbols
        .iter()
        .find(|(name, _)| {
            name.contains("names")
                && name.contains("rust_names_are_readable")
                && !name.contains("closure")
        })
        .expect("it is there");
    let functions = traced.functions(*start + 4);
    let last = functions.last().map(String::as_str);
    assert_eq!(last, Some("names::rust_names_are_readable"));
}

#[test]
fn go_names_come_from_its_own_table_stripped_or_not() {
    for version in ["1.21.13", "1.25.5"] {
        let server = need!(go_server(version));
        let symbols = nm(server.to_str().expect("UTF-8"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let stripped = folder.path().join("server");
        fs::copy(&server, &stripped).expect("it can be copied");
        done("strip", ["--strip-all", stripped.to_str().expect("UTF-8")]);
        let functions: Vec<(String, u64)> = symbols
            .into_iter()
            .filter(|(name, (_, size))| {
                let ours = name.starts_with("runtime.") || name.starts_with("main.");
                // What the linker made beside functions has a dot and no table.
                ours && 16 < *size && !name.contains("..")
            })
            .map(|(name, (start, _))| (name.trim_end_matches(".abi0").to_owned(), start))
            .collect();
        for file in [&server, &stripped] {
            let traced = Traced::of(file);
            let in_code = |start: u64| {
                let within = |&(at, size, _): &(u64, u64, u64)| (at..at + size).contains(&start);
                traced.code.first().is_some_and(within)
            };
            let functions: Vec<&(String, u64)> = functions
                .iter()
                .filter(|(_, start)| in_code(*start))
                .collect();
            let addresses: Vec<u64> = functions.iter().map(|(_, start)| start + 1).collect();
            let found = traced.names(&addresses);
            let mut named = 0;
            for ((name, _), found) in functions.iter().zip(&found) {
                if let Some(last) = found.last() {
                    assert_eq!(&*last.function, name, "Go {version}");
                    assert!(last.line != 0, "{name} has no line in Go {version}");
                    named += 1;
                }
            }
            assert!(1000 < named, "{named} of {}", found.len());
            assert_eq!(named, found.len(), "Go {version}");
        }
    }
}

// ── anything ────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn code_at_the_end_of_the_address_space_is_named() {
    if !has("gcc") {
        return;
    }
    let built = Built::with("gcc", C, &["-O2", "-g"]);
    let mut bytes = fs::read(&built.program).expect("it can be read");
    let word = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes"))
    };
    // e_phoff, and 56 bytes for each segment: type and flags, offset, address.
    let (table, count) = (word(&bytes, 32) as usize, usize::from(bytes[56]));
    let is_code = |at: &usize| bytes[*at] == 1 && bytes[*at + 4] & 1 != 0;
    let code = (table..).step_by(56).take(count).find(is_code);
    let code = code.expect("a segment of code");
    let offset = word(&bytes, code + 8);
    bytes[code + 16..code + 24].copy_from_slice(&(u64::MAX - 100).to_le_bytes());
    let names = names_in(bytes, &[offset + 100, offset + 101, offset + 102]);
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn a_file_that_was_damaged_anywhere_is_read_without_panic() {
    if !has("gcc") {
        return;
    }
    let mut seed = 0x5eed_u64;
    let mut random = move |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below.max(1)
    };
    for options in [&["-O2", "-g"][..], &["-O2", "-g", "-gz"]] {
        let built = Built::with("gcc", C, options);
        let whole = fs::read(&built.program).expect("it can be read");
        let offsets: Vec<u64> = (0x1000..0x1200).step_by(16).collect();
        let intact = names_in(whole.clone(), &offsets);
        assert!(intact.iter().any(|names| 1 < names.len()), "{intact:?}");
        // Headers of sections are at the end.
        let headers = whole.len() - 0x1000..whole.len();
        for round in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random(8) {
                let at = match round % 3 {
                    0 => random(0x200),
                    1 => headers.start + random(headers.len()),
                    _ => random(bytes.len()),
                };
                bytes[at] = match random(4) {
                    0 => 0xff,
                    1 => 0,
                    2 => bytes[at] ^ (1 << random(8)),
                    _ => random(256) as u8,
                };
            }
            if round % 10 == 0 {
                bytes.truncate(random(whole.len()));
            }
            names_in(bytes, &offsets);
        }
    }
}
