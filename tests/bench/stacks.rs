//! What it costs to record who called.

use std::ffi::OsString;
use std::process::Command;

use super::{Case, Contender, Found, Ran, Tools, aim, command, contender, milliseconds, run, want};

/// A loop of calls, each from the same place.
pub fn pairs(name: &'static str, tools: &Tools, pairs: usize) -> Found<Case> {
    let argv = tools.tracee("pairs", &[pairs]);
    Ok(Case {
        name,
        what: format!("{pairs} mmap/munmap pairs on one thread; with -k: their stacks, too"),
        unit: "µs a pair",
        rounds: 1,
        contenders: both(tools, &argv, super::told("us per pair")),
        wants: vec![want("memtrace -k", "memtrace", 2.0)],
    })
}

/// From nothing to the end of a program, its stacks included.
pub fn start(name: &'static str, tools: &Tools, argv: &[OsString]) -> Found<Case> {
    let what = super::start_of(argv);
    let mut contenders = both(tools, argv, milliseconds);
    let alone = argv.to_vec();
    contenders.push(contender("untraced", move || {
        milliseconds(run(&mut command(&alone))?)
    }));
    let (strace, argv) = (tools.strace.clone(), argv.to_vec());
    contenders.push(contender("strace -k", move || {
        let mut under = Command::new(strace.clone()?);
        under.args(["-qq", "-f", "-k", "--seccomp-bpf", "-e", "trace=%memory"]);
        under.args(["-o", "/dev/null"]).args(&argv);
        milliseconds(run(&mut under)?)
    }));
    Ok(Case {
        name,
        what,
        unit: "ms",
        rounds: 2,
        contenders,
        wants: vec![
            want("memtrace -k", "memtrace", 1.15),
            want("memtrace -k", "strace -k", 0.1),
            aim("memtrace -k", "untraced", 1.5),
        ],
    })
}

fn both(
    tools: &Tools,
    argv: &[OsString],
    cost: impl Fn(Ran) -> Result<f64, String> + Copy + 'static,
) -> Vec<Contender> {
    let under = |option: Option<&'static str>| {
        let (memtrace, argv) = (tools.memtrace.clone(), argv.to_vec());
        move || {
            let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
            let mut under = Command::new(&memtrace);
            under.arg("-q").args(option).arg("-o");
            under.arg(folder.path().join("trace")).arg("--").args(&argv);
            cost(run(&mut under)?)
        }
    };
    vec![
        contender("memtrace", under(None)),
        contender("memtrace -k", under(Some("-k"))),
    ]
}
