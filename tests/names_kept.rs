//! Names that a recording keeps, because no file tells them later or because it was asked to.

mod support;
mod support_real;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use memtrace::timeline::{CallDone, Frame, HeldNames, Namer, Observed, Stacks, Timeline};
use memtrace::trace_file::TraceReader;
use support::{Ended, is_root, memtrace, run, skipped};
use support_real::need;
use support_real::programs::compiled;

/// What the program maps in each of its ways.
const SIZE: u64 = 0x12_3000;

/// The program, in a folder where it may be changed.
struct Copy {
    _folder: tempfile::TempDir,
    program: PathBuf,
}

fn copy_of(program: &Path) -> Copy {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().canonicalize().expect("it is there");
    let copy = root.join("calls_from");
    fs::copy(program, &copy).expect("it can be copied");
    Copy {
        _folder: folder,
        program: copy,
    }
}

/// A recording, and what it says by itself.
struct Recorded {
    ended: Ended,
    stacks: Stacks,
    calls: Vec<CallDone>,
}

#[track_caller]
fn record(options: &[&str], words: &[&str]) -> Recorded {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("trace");
    let mut all = vec!["-qq", "-k", "-o", file.to_str().expect("UTF-8")];
    all.extend(options);
    let ended = run(&mut memtrace(&all, words));
    let mut reader = TraceReader::open(&file).expect("it is a trace");
    let mut timeline = Timeline::default();
    let mut calls = Vec::new();
    while let Some(observation) = reader.next().expect("it can be read") {
        if let Observed::Call(call) = &observation.what {
            calls.push(call.clone());
        }
        timeline.observe(observation, &mut Vec::new());
    }
    let stacks = timeline.stacks;
    Recorded {
        ended,
        stacks,
        calls,
    }
}

impl Recorded {
    /// The frames of the call that maps [`SIZE`] bytes.
    #[track_caller]
    fn frames(&self) -> &[Frame] {
        let call = self.calls.iter().find(|call| call.call.args[1] == SIZE);
        let call = call.unwrap_or_else(|| panic!("no such call: {:?}", self.ended));
        self.stacks.frames(call.stack.id().expect("a stack"))
    }

    /// What the trace itself calls it.
    #[track_caller]
    fn function(&self) -> Option<String> {
        self.functions().into_iter().next().flatten()
    }

    /// And all frames of that stack.
    #[track_caller]
    fn functions(&self) -> Vec<Option<String>> {
        let name = |frame: &Frame| {
            let names = HeldNames.name(*frame, &self.stacks);
            names.last().map(|name| name.function.to_string())
        };
        self.frames().iter().map(name).collect()
    }
}

fn program(flags: &[&str]) -> Result<PathBuf, String> {
    let name = format!("calls_from{}", flags.concat().replace(['=', ','], "-"));
    compiled("gcc", "calls_from.c", &name, flags)
}

#[test]
fn a_file_that_can_be_found_again_is_not_copied_into_the_trace() {
    // A copy: another test may build the program again meanwhile.
    let copy = copy_of(&need!(program(&["-O1"])));
    let recorded = record(&[], &[copy.program.to_str().expect("UTF-8"), "own"]);
    assert_eq!(recorded.function(), None);
}

#[test]
fn embedded_names_are_all_there() {
    let program = need!(program(&["-O1"]));
    let words = [program.to_str().expect("UTF-8"), "own"];
    let recorded = record(&["--embed-symbols"], &words);
    let functions = recorded.functions();
    let functions: Vec<&str> = functions.iter().flatten().map(String::as_str).collect();
    assert_eq!(functions[..2], ["reserve", "main"], "{functions:?}");
    assert_eq!(functions.last(), Some(&"_start"), "{functions:?}");
    let frames = recorded.stacks.iter().flat_map(|stack| stack.frames.iter());
    let unnamed: Vec<&Frame> = frames
        .filter(|frame| HeldNames.name(**frame, &recorded.stacks).is_empty())
        .collect();
    assert!(unnamed.is_empty(), "{unnamed:?} of {:?}", recorded.stacks);
}

#[test]
fn without_a_build_id_names_are_kept() {
    let program = need!(program(&["-O1", "-Wl,--build-id=none"]));
    let recorded = record(&[], &[program.to_str().expect("UTF-8"), "own"]);
    assert_eq!(recorded.function().as_deref(), Some("reserve"));
}

#[test]
fn names_of_a_removed_file_are_kept() {
    let copy = copy_of(&need!(program(&["-O1"])));
    let recorded = record(&[], &[copy.program.to_str().expect("UTF-8"), "unlink"]);
    assert!(!copy.program.exists());
    assert_eq!(recorded.function().as_deref(), Some("reserve"));
}

/// As in a container: a file system that only the program's own namespace has.
#[test]
fn names_from_another_mount_namespace_are_kept() {
    let program = need!(program(&["-O1"]));
    let script =
        r#"mount -t tmpfs none /mnt && cp "$0" /mnt/calls_from && exec /mnt/calls_from own"#;
    let words = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        program.to_str().expect("UTF-8"),
    ];
    let can = Command::new(words[0]).args([words[1], "true"]).status();
    if !is_root() || !can.is_ok_and(|status| status.success()) {
        return skipped("no mount namespace can be made");
    }
    let recorded = record(&[], &words);
    assert_eq!(recorded.function().as_deref(), Some("reserve"));
    assert!(!Path::new("/mnt/calls_from").exists());
}

/// The program without its symbols, and its separate debug file where nobody looks for it.
struct Stripped {
    copy: Copy,
    debug: PathBuf,
    /// Where that belongs by its build-id, below `/usr/lib/debug`.
    by_id: String,
}

fn stripped(flags: &[&str]) -> Result<Stripped, String> {
    let copy = copy_of(&program(flags)?);
    let aside = copy.program.with_file_name("aside");
    fs::create_dir(&aside).map_err(|error| error.to_string())?;
    let (program, debug) = (&copy.program, aside.join("calls_from.debug"));
    let output = |words: &[&OsStr]| {
        let ended = Command::new(words[0]).args(&words[1..]).output();
        let ended = ended.map_err(|error| format!("{}: {error}", words[0].display()))?;
        match ended.status.success() {
            true => Ok(String::from_utf8_lossy(&ended.stdout).into_owned()),
            false => Err(format!("{words:?} failed")),
        }
    };
    let link = format!("--add-gnu-debuglink={}", debug.display());
    let steps: [&[&OsStr]; 2] = [
        &[
            "--only-keep-debug".as_ref(),
            program.as_ref(),
            debug.as_ref(),
        ],
        &["--strip-all".as_ref(), link.as_ref(), program.as_ref()],
    ];
    for step in steps {
        output(&[&[OsStr::new("objcopy")], step].concat())?;
    }
    let notes = output(&["readelf".as_ref(), "-n".as_ref(), program.as_ref()])?;
    let (_, id) = notes.split_once("Build ID: ").ok_or("no build-id")?;
    let id: String = id.chars().take_while(char::is_ascii_hexdigit).collect();
    let (first, rest) = id.split_at(2);
    let by_id = format!(".build-id/{first}/{rest}.debug");
    Ok(Stripped { copy, debug, by_id })
}

/// A separate debug file that only the program's own mount namespace has, whether the program is only there, too,
/// or everywhere.
#[test]
fn names_of_debug_files_in_another_mount_namespace_are_kept() {
    let Stripped { copy, debug, by_id } = need!(stripped(&["-O1"]));
    let can = Command::new("unshare").args(["--mount", "true"]).status();
    if !is_root() || !can.is_ok_and(|status| status.success()) {
        return skipped("no mount namespace can be made");
    }
    let (program, debug) = (copy.program.display(), debug.display());
    let by_build_id = format!(
        "mkdir -p /usr/lib/debug && mount --bind /mnt /usr/lib/debug && \
         mkdir -p $(dirname /mnt/{by_id}) && cp {debug} /mnt/{by_id} && exec {program} own"
    );
    let by_link = format!(
        "mkdir /mnt/.debug && cp {debug} /mnt/.debug && cp {program} /mnt && exec /mnt/calls_from own"
    );
    for place in [by_build_id, by_link] {
        let script = format!("mount -t tmpfs none /mnt && {place}");
        let recorded = record(&[], &["unshare", "--mount", "sh", "-c", &script]);
        let function = recorded.function();
        assert_eq!(
            function.as_deref(),
            Some("reserve"),
            "{place}: {:?}",
            recorded.ended
        );
    }
}

/// As in a root directory of its own, but with our mounts: the program can be found again, its debug file cannot.
#[test]
fn names_of_debug_files_below_another_root_are_kept() {
    let Stripped { copy, debug, by_id } = need!(stripped(&["-O1", "-static"]));
    if !is_root() {
        return skipped("only root changes its root directory");
    }
    let root = copy.program.parent().expect("a folder");
    let by_id = Path::new("usr/lib/debug").join(by_id);
    for place in [
        by_id.as_path(),
        Path::new("usr/lib/debug/calls_from.debug"),
        Path::new(".debug/calls_from.debug"),
    ] {
        let place = root.join(place);
        fs::create_dir_all(place.parent().expect("a folder")).expect("folders");
        fs::copy(&debug, &place).expect("a copy");
        let words = [
            "chroot",
            root.to_str().expect("UTF-8"),
            "/calls_from",
            "own",
        ];
        let recorded = record(&[], &words);
        let function = recorded.function();
        assert_eq!(
            function.as_deref(),
            Some("reserve"),
            "{place:?}: {:?}",
            recorded.ended
        );
        fs::remove_file(&place).expect("it is there");
    }
    // A link that begins at the root begins at the program's.
    let kept = root
        .join("kept")
        .join(by_id.strip_prefix("usr/lib/debug").expect("it begins so"));
    fs::create_dir_all(kept.parent().expect("a folder")).expect("folders");
    fs::copy(&debug, &kept).expect("a copy");
    fs::remove_dir_all(root.join("usr/lib/debug")).expect("it is there");
    std::os::unix::fs::symlink("/kept", root.join("usr/lib/debug")).expect("a link");
    let words = [
        "chroot",
        root.to_str().expect("UTF-8"),
        "/calls_from",
        "own",
    ];
    assert_eq!(record(&[], &words).function().as_deref(), Some("reserve"));
}

#[track_caller]
fn check_compiled(words: &[&str]) {
    let recorded = record(&[], words);
    let map = recorded.ended.stdout.trim();
    let removed = fs::remove_file(map);
    assert!(removed.is_ok(), "{map}: {:?}", recorded.ended);
    assert!(matches!(recorded.frames()[0], Frame::Bare { .. }));
    let function = recorded.function();
    assert_eq!(
        function.as_deref(),
        Some("jit:reserve (compiled)"),
        "{words:?}"
    );
}

#[test]
fn compiled_code_is_named_by_its_perf_map() {
    let program = need!(program(&["-O1"]));
    for how in ["jit", "late", "fork"] {
        check_compiled(&[program.to_str().expect("UTF-8"), how]);
    }
}

/// A trace without the names of compiled code: they are read when it is reported, from a map that was written while
/// the process lived. An older or a later one is another process's of the same number.
#[test]
fn a_report_reads_the_perf_map_that_was_not_there_when_it_was_recorded() {
    let program = need!(program(&["-O1"]));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = folder.path().join("trace");
    let trace = trace.to_str().expect("UTF-8");
    let words = [program.to_str().expect("UTF-8"), "moved"];
    let ended = run(&mut memtrace(&["-qq", "-k", "-o", trace], &words));
    assert_eq!(ended.status(), 0, "{ended:?}");
    let map = PathBuf::from(ended.stdout.trim());
    let named = || {
        let report = run(&mut memtrace::<&str>(
            &["report", "--by", "stack", trace],
            &[],
        ));
        assert_eq!(report.status(), 0, "{report:?}");
        report.stdout.contains("jit:reserve (compiled)")
    };
    assert!(!named());
    fs::rename(map.with_extension("map.moved"), &map).expect("it was moved");
    let there = named();
    let file = fs::File::options().write(true).open(&map).expect("the map");
    let written = file
        .metadata()
        .and_then(|meta| meta.modified())
        .expect("its time");
    let hour = Duration::from_secs(3600);
    let others = [written - hour, written + hour].map(|time| {
        file.set_modified(time).expect("a time");
        named()
    });
    fs::remove_file(&map).expect("it is there");
    assert!(there);
    assert_eq!(others, [false, false]);
}

#[test]
fn a_perf_map_has_the_number_that_the_process_has_for_itself() {
    let program = need!(program(&["-O1"]));
    let unshare = ["unshare", "--pid", "--fork"];
    let can = Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("true")
        .status();
    if !can.is_ok_and(|status| status.success()) {
        return skipped("no PID namespace can be made");
    }
    let words = [&unshare[..], &[program.to_str().expect("UTF-8"), "jit"]].concat();
    check_compiled(&words);
}
