//! `-k --format strace` against `strace -k`: the same frames, written the same way, live and told again.
//!
//! The names may differ: strace takes the nearest name of `.dynsym` where it finds no other, memtrace
//! none that does not hold the address.

mod support;

use std::path::Path;
use std::process::Command;

use support::{memtrace, run, skipped};

/// Frames without the names of functions: ` > /path(…) [0x…]`.
fn places(text: &str) -> Vec<String> {
    let frames = text.lines().filter(|line| line.starts_with(" > "));
    let place = |line: &str| {
        let (path, rest) = line.split_once('(').unwrap_or((line, ""));
        let (name, offset) = rest.rsplit_once(") [").unwrap_or_else(|| {
            // Without libunwind's names, strace leaves the parentheses out.
            line.rsplit_once(" [")
                .map_or(("", ""), |(_, offset)| ("", offset))
        });
        let path = path.split(" [").next().unwrap_or_default();
        let shaped = name.is_empty() || name.contains("+0x");
        assert!(
            shaped && offset.starts_with("0x") && offset.ends_with(']'),
            "{line}"
        );
        format!("{path} [{offset}")
    };
    frames.map(place).collect()
}

#[test]
fn the_frames_are_those_of_strace() {
    let version = Command::new("strace").arg("-V").output();
    let version = version.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    if !version.is_ok_and(|said| said.contains("stack-trace=libunwind")) {
        return skipped("no strace that unwinds by libunwind");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let read = |path: &Path| std::fs::read_to_string(path).expect("a log");
    let program = ["/bin/true"];
    let mut strace = Command::new("strace");
    strace.args(["-f", "-k", "-e", "trace=memory", "-o"]);
    assert_eq!(run(strace.arg(at("theirs")).args(program)).status(), 0);
    let trace = at("trace").display().to_string();
    let log = at("ours").display().to_string();
    let options = [
        "-k", "--format", "strace", "-o", &trace, "--log", &log, "-q",
    ];
    let ended = run(&mut memtrace(&options, &program));
    assert_eq!(ended.status(), 0, "{ended:?}");
    let (theirs, ours) = (places(&read(&at("theirs"))), places(&read(&at("ours"))));
    assert!(10 < theirs.len(), "{theirs:#?}");
    assert_eq!(ours, theirs);
    let again = |depth: &[&str]| {
        let mut report = Command::new(support::MEMTRACE);
        report.args(["report", "--format", "strace"]).args(depth);
        places(&run(report.arg(&trace)).stdout)
    };
    assert_eq!(again(&[]), theirs);
    let innermost = again(&["--stack-depth", "1"]);
    assert!(!innermost.is_empty() && innermost.len() < theirs.len());
}
