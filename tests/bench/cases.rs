//! What is measured, and what is wanted of it.

#[path = "kernel.rs"]
mod kernel;
#[path = "stacks.rs"]
mod stacks;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use crate::process::{Beside, Ran, is_traced_by, run, until};
use crate::programs::{Found, find, go_server, java_classes, python};

pub const NAMES: [&str; 24] = [
    "pairs",
    "pairs8",
    "calls",
    "hogs",
    "idle",
    "python",
    "node",
    "java",
    "go",
    "forks",
    "forkexecs",
    "redis",
    "memory",
    "trace",
    "stacks-pairs",
    "stacks-python",
    "stacks-node",
    "stacks-java",
    "stacks-go",
    "kernel-get",
    "kernel-set",
    "kernel-pairs",
    "kernel-gap",
    "kernel-idle",
];

/// How each is run, for who reads the numbers.
pub const CONTENDERS: &str = "strace is `strace -f --seccomp-bpf -e trace=%memory -o /dev/null`, \
    memtrace is `memtrace -q -o FILE`; median [min – max]";

/// The programs under comparison.
#[derive(Clone)]
pub struct Tools {
    pub memtrace: PathBuf,
    pub strace: Found<PathBuf>,
    /// Where the tracee programs are.
    pub tracees: PathBuf,
    pub quick: bool,
}

/// One thing to measure.
pub struct Case {
    pub name: &'static str,
    pub what: String,
    pub unit: &'static str,
    /// Short ones are run more often: so many times the rounds asked for.
    pub rounds: usize,
    pub contenders: Vec<Contender>,
    pub wants: Vec<Want>,
}

pub struct Contender {
    pub name: &'static str,
    pub job: Job,
}

/// One run; smaller is better.
type Job = Box<dyn FnMut() -> Result<f64, String>>;

/// A ratio of medians that is asked for.
pub struct Want {
    pub one: &'static str,
    pub other: &'static str,
    pub most: f64,
    /// Good to have, rather than asked for.
    pub is_aim: bool,
}

const fn want(one: &'static str, other: &'static str, most: f64) -> Want {
    Want {
        one,
        other,
        most,
        is_aim: false,
    }
}

const fn aim(one: &'static str, other: &'static str, most: f64) -> Want {
    Want {
        one,
        other,
        most,
        is_aim: true,
    }
}

pub fn prepare(name: &'static str, tools: &Tools) -> Found<Case> {
    let pairs = if tools.quick { 10_000 } else { 100_000 };
    let case = |what: String, unit, contenders, wants| Case {
        name,
        what,
        unit,
        rounds: 1,
        contenders,
        wants,
    };
    let few = |number: usize| if tools.quick { number / 10 } else { number };
    match name {
        "pairs" => {
            let contenders = tools.three(&tools.tracee("pairs", &[pairs]), told("us per pair"));
            let wants = vec![
                want("memtrace", "strace", 0.5),
                aim("memtrace", "strace", 0.3),
            ];
            Ok(case(
                format!("{pairs} mmap/munmap pairs on one thread"),
                "µs a pair",
                contenders,
                wants,
            ))
        }
        "pairs8" => {
            let contenders =
                tools.three(&tools.tracee("pairs", &[pairs / 8, 8]), told("us per pair"));
            let want = want("memtrace", "strace", 0.6);
            Ok(case(
                format!("{pairs} pairs in all, on 8 threads"),
                "µs a pair",
                contenders,
                vec![want],
            ))
        }
        "calls" => {
            let (calls, cost) = (few(1_000_000), told("ns per call"));
            let argv = tools.tracee("calls", &[calls]);
            let mut contenders = tools.three(&argv, cost);
            let filter = [vec![tools.tracees.join("allowfilter").into()], argv].concat();
            contenders.push(contender("filter", move || {
                cost(run(&mut command(&filter))?)
            }));
            let what = format!(
                "{calls} calls that are none of memory; filter: under one that allows everything"
            );
            Ok(case(
                what,
                "ns a call",
                contenders,
                vec![want("memtrace", "filter", 1.05)],
            ))
        }
        "hogs" => {
            let hogs = (0..2)
                .map(|_| Beside::start(Command::new("sh").args(["-c", "while :; do :; done"])));
            let hogs = Rc::new(hogs.collect::<Result<Vec<_>, _>>()?);
            let pairs = few(20_000);
            let mut contenders = tools.three(&tools.tracee("pairs", &[pairs]), told("us per pair"));
            // They live as long as the contenders.
            for contender in &mut contenders {
                let (hogs, mut job) = (
                    hogs.clone(),
                    std::mem::replace(&mut contender.job, Box::new(|| Ok(0.0))),
                );
                contender.job = Box::new(move || {
                    let _beside = &hogs;
                    job()
                });
            }
            let what =
                format!("{pairs} pairs on one thread, beside two processes that only compute");
            Ok(case(
                what,
                "µs a pair",
                contenders,
                vec![want("memtrace", "strace", 1.2)],
            ))
        }
        "idle" => {
            let (threads, pairs, cost) = (
                4000,
                if tools.quick { 500 } else { 5000 },
                told("us per pair"),
            );
            let mut contenders = tools.three(&tools.tracee("idle", &[threads, pairs]), cost);
            let alone = tools.under_memtrace(&tools.tracee("idle", &[0, pairs]));
            contenders.push(contender("memtrace alone", move || cost(alone.run()?)));
            let what =
                format!("{pairs} pairs in a process with {threads} idle threads; alone: with none");
            Ok(case(
                what,
                "µs a pair",
                contenders,
                vec![want("memtrace", "memtrace alone", 1.1)],
            ))
        }
        "python" => Ok(start(name, tools, &python_start()?)),
        "node" => Ok(start(name, tools, &node_start()?)),
        "java" => Ok(start(name, tools, &java_start()?)),
        "go" => Ok(start(name, tools, &go_start()?)),
        "forks" | "forkexecs" => {
            let children = few(2000);
            let mut argv = tools.tracee("forkstorm", &[children]);
            if name == "forkexecs" {
                argv.push("exec".into());
            }
            let contenders = tools.three(&argv, milliseconds);
            let what = if name == "forks" {
                "children, eight at a time"
            } else {
                "children that execute true"
            };
            Ok(case(
                format!("{children} {what}"),
                "ms",
                contenders,
                Vec::new(),
            ))
        }
        "stacks-pairs" => stacks::pairs(name, tools, pairs),
        "stacks-python" => stacks::start(name, tools, &python_start()?),
        "stacks-node" => stacks::start(name, tools, &node_start()?),
        "stacks-java" => stacks::start(name, tools, &java_start()?),
        "stacks-go" => stacks::start(name, tools, &go_start()?),
        "redis" => redis(name, tools),
        "kernel-get" => kernel::redis(name, tools, "get"),
        "kernel-set" => kernel::redis(name, tools, "set"),
        "kernel-pairs" => Ok(kernel::pairs(name, tools, pairs)),
        "kernel-gap" => Ok(kernel::gap(name, tools)),
        "kernel-idle" => kernel::idle(name, tools),
        "memory" => Ok(memory(name, tools)),
        "trace" => Ok(trace(name, tools)),
        _ => Err("no such case".to_owned()),
    }
}

// ── the usual three ─────────────────────────────────────────────────────────────────────────────────────

fn contender(name: &'static str, job: impl FnMut() -> Result<f64, String> + 'static) -> Contender {
    Contender {
        name,
        job: Box::new(job),
    }
}

fn command<S: AsRef<OsStr>>(argv: &[S]) -> Command {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    command
}

fn milliseconds(ran: Ran) -> Result<f64, String> {
    Ok(ran.wall.as_secs_f64() * 1e3)
}

/// The number that the program prints before `unit`: its own time, without its start.
fn told(unit: &'static str) -> impl Fn(Ran) -> Result<f64, String> + Copy {
    move |ran| {
        let number = ran
            .stdout
            .lines()
            .find_map(|line| line.strip_suffix(unit)?.trim().parse().ok());
        number.ok_or_else(|| format!("it does not tell its {unit}"))
    }
}

/// A run under memtrace, with a fresh trace in a folder that goes away.
struct UnderMemtrace(PathBuf, Vec<OsString>);

impl UnderMemtrace {
    fn run(&self) -> Result<Ran, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        self.recording_to(&folder.path().join("trace"))
    }

    fn recording_to(&self, trace: &Path) -> Result<Ran, String> {
        let UnderMemtrace(memtrace, argv) = self;
        run(Command::new(memtrace)
            .arg("-q")
            .arg("-o")
            .arg(trace)
            .arg("--")
            .args(argv))
    }
}

impl Tools {
    fn tracee(&self, name: &str, numbers: &[usize]) -> Vec<OsString> {
        let program = self.tracees.join(name).into();
        [program]
            .into_iter()
            .chain(numbers.iter().map(|number| number.to_string().into()))
            .collect()
    }

    fn under_memtrace<S: AsRef<OsStr>>(&self, argv: &[S]) -> UnderMemtrace {
        UnderMemtrace(
            self.memtrace.clone(),
            argv.iter().map(|arg| arg.as_ref().to_owned()).collect(),
        )
    }

    /// The strace to measure against; the name of its log comes next, then the program.
    fn strace(&self) -> Found<Vec<OsString>> {
        let strace = self.strace.clone()?.into_os_string();
        let options = ["-qq", "-f", "--seccomp-bpf", "-e", "trace=%memory", "-o"];
        Ok([strace]
            .into_iter()
            .chain(options.map(OsString::from))
            .collect())
    }

    fn three<S: AsRef<OsStr>>(
        &self,
        argv: &[S],
        cost: impl Fn(Ran) -> Result<f64, String> + Copy + 'static,
    ) -> Vec<Contender> {
        let alone: Vec<OsString> = argv.iter().map(|arg| arg.as_ref().to_owned()).collect();
        let under_strace = self
            .strace()
            .map(|strace| [strace, vec!["/dev/null".into()], alone.clone()].concat());
        let under_memtrace = self.under_memtrace(argv);
        vec![
            contender("untraced", move || cost(run(&mut command(&alone))?)),
            contender("strace", move || {
                cost(run(&mut command(&under_strace.clone()?))?)
            }),
            contender("memtrace", move || cost(under_memtrace.run()?)),
        ]
    }
}

fn python_start() -> Found<Vec<OsString>> {
    Ok(vec![python()?.into(), "-c".into(), "pass".into()])
}

fn node_start() -> Found<Vec<OsString>> {
    Ok(vec![find("node")?.into(), "-e".into(), "0".into()])
}

fn java_start() -> Found<Vec<OsString>> {
    let (java, classes) = (find("java")?, java_classes("Hello.java")?);
    let words = ["Hello", "hello"].map(OsString::from);
    Ok([java.into(), "-cp".into(), classes.into()]
        .into_iter()
        .chain(words)
        .collect())
}

fn go_start() -> Found<Vec<OsString>> {
    Ok(vec![go_server("1.25.5")?.into(), "-once".into()])
}

fn start_of(argv: &[OsString]) -> String {
    let words: Vec<_> = argv
        .iter()
        .map(|arg| Path::new(arg).file_name().unwrap_or(arg).to_string_lossy())
        .collect();
    format!("start and end of `{}`", words.join(" "))
}

/// From nothing to the end of a program that does nothing.
fn start(name: &'static str, tools: &Tools, argv: &[OsString]) -> Case {
    let what = start_of(argv);
    let wants = vec![
        want("memtrace", "strace", 1.0),
        aim("memtrace", "untraced", 1.1),
    ];
    Case {
        name,
        what,
        unit: "ms",
        rounds: 4,
        contenders: tools.three(argv, milliseconds),
        wants,
    }
}

// ── redis ───────────────────────────────────────────────────────────────────────────────────────────────

/// A server that is attached to while others ask it.
fn redis(name: &'static str, tools: &Tools) -> Found<Case> {
    let (server, benchmark, cli) = (
        find("redis-server")?,
        find("redis-benchmark")?,
        find("redis-cli")?,
    );
    let folder = Rc::new(tempfile::tempdir().map_err(|error| error.to_string())?);
    let arguments = ["--port", "0", "--unixsocket", "socket", "--save", ""];
    let server = Rc::new(Beside::start(
        Command::new(server)
            .args(arguments)
            .current_dir(folder.path()),
    )?);
    until("redis answers", || {
        run(Command::new(&cli)
            .args(["-s", "socket", "ping"])
            .current_dir(folder.path()))
        .is_ok_and(|ran| ran.stdout.trim() == "PONG")
    })?;
    let requests = if tools.quick { 3_000 } else { 20_000 };
    let pid = server.pid();

    let load = {
        let (server, folder) = (server.clone(), folder.clone());
        move || {
            let _alive = &server;
            let number = requests.to_string();
            let options = [
                "-s", "socket", "-n", &number, "-c", "20", "-t", "get", "--csv",
            ];
            let ran = run(Command::new(&benchmark)
                .args(options)
                .current_dir(folder.path()))?;
            // "GET","6203.47",… below a line of headings.
            let line = ran
                .stdout
                .lines()
                .find(|line| line.starts_with("\"GET\""))
                .ok_or("no line for GET")?;
            let rate = line
                .split(',')
                .nth(1)
                .and_then(|field| field.trim_matches('"').parse::<f64>().ok());
            Ok(1e6 / rate.ok_or_else(|| format!("no rate in {line}"))?)
        }
    };
    let under = |tracer: Found<Vec<OsString>>| {
        let load = load.clone();
        move || {
            let mut beside = Beside::start(&mut command(&tracer.clone()?))?;
            until("the tracer has attached", || {
                beside.has_ended() || is_traced_by(pid, beside.pid())
            })?;
            if beside.has_ended() {
                return Err("the tracer ended at once".to_owned());
            }
            let result = load();
            beside.interrupt()?;
            until("the tracer has let go", || is_traced_by(pid, 0))?;
            result
        }
    };
    let target = pid.to_string();
    let strace = tools.strace.clone().map(|strace| {
        let options = [
            "-qq",
            "-f",
            "-e",
            "trace=%memory",
            "-o",
            "/dev/null",
            "-p",
            &target,
        ];
        [strace.into_os_string()]
            .into_iter()
            .chain(options.map(OsString::from))
            .collect()
    });
    let trace = folder.path().join("trace");
    let memtrace = vec![
        tools.memtrace.clone().into(),
        "-q".into(),
        "-o".into(),
        trace.into(),
        "--backend".into(),
        "ptrace".into(),
        "-p".into(),
        target.into(),
    ];
    let contenders = vec![
        contender("untraced", load.clone()),
        contender("strace", under(strace)),
        contender("memtrace", under(Ok(memtrace))),
    ];
    let what = format!(
        "{requests} GETs of 20 clients, redis attached to (strace without --seccomp-bpf, which cannot)"
    );
    Ok(Case {
        name,
        what,
        unit: "µs a request",
        rounds: 1,
        contenders,
        wants: vec![want("memtrace", "strace", 1.0)],
    })
}

// ── memtrace itself ─────────────────────────────────────────────────────────────────────────────────────

const MIB: f64 = 1048576.0;

/// How large memtrace gets: a million calls, and a tenth of that.
fn memory(name: &'static str, tools: &Tools) -> Case {
    let pairs = if tools.quick { 50_000 } else { 500_000 };
    let job = |pairs: usize| {
        let under = tools.under_memtrace(&tools.tracee("pairs", &[pairs]));
        move || Ok(under.run()?.peak as f64 / MIB)
    };
    let contenders = vec![
        contender("memtrace", job(pairs)),
        contender("a tenth", job(pairs / 10)),
        // Not a contender but the bound.
        contender("bound", || Ok(64.0)),
    ];
    let what = format!(
        "memtrace's own peak resident memory over {} calls, and over a tenth of them",
        2 * pairs
    );
    let wants = vec![
        want("memtrace", "bound", 1.0),
        want("memtrace", "a tenth", 1.1),
    ];
    Case {
        name,
        what,
        unit: "MiB",
        rounds: 1,
        contenders,
        wants,
    }
}

/// How large a recorded call is.
fn trace(name: &'static str, tools: &Tools) -> Case {
    let pairs = if tools.quick { 10_000 } else { 100_000 };
    let argv = tools.tracee("pairs", &[pairs]);
    let (under_memtrace, strace, memtrace) = (
        tools.under_memtrace(&argv),
        tools.strace(),
        tools.memtrace.clone(),
    );
    let text = |error: std::io::Error| error.to_string();
    let contenders = vec![
        contender("strace", move || {
            let folder = tempfile::tempdir().map_err(text)?;
            let log = folder.path().join("log");
            run(command(&strace.clone()?).arg(&log).args(&argv))?;
            let log = fs::read(&log).map_err(text)?;
            Ok(log.len() as f64 / log.iter().filter(|byte| **byte == b'\n').count() as f64)
        }),
        contender("memtrace", move || {
            let folder = tempfile::tempdir().map_err(text)?;
            let trace = folder.path().join("trace");
            under_memtrace.recording_to(&trace)?;
            let report = run(Command::new(&memtrace)
                .args(["report", "--json"])
                .arg(&trace))?;
            let report: serde_json::Value =
                serde_json::from_str(&report.stdout).map_err(|error| error.to_string())?;
            let events = report["events"].as_f64().ok_or("a report without events")?;
            Ok(fs::metadata(&trace).map_err(text)?.len() as f64 / events)
        }),
    ];
    let what =
        format!("size of an event in the trace, of a line in strace's log, for {pairs} pairs");
    Case {
        name,
        what,
        unit: "bytes",
        rounds: 1,
        contenders,
        wants: Vec::new(),
    }
}
