//! What it costs to be observed by the kernel's tracepoints, which stop nothing.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use crate::process::{Beside, run, until};

use super::{Case, Found, Tools, aim, command, contender, find, told, want};

const KERNEL: [&str; 2] = ["--backend", "kernel"];

fn case(
    name: &'static str,
    what: impl Into<String>,
    unit: &'static str,
    contenders: Vec<super::Contender>,
    wants: Vec<super::Want>,
) -> Case {
    Case {
        name,
        what: what.into(),
        unit,
        rounds: 1,
        contenders,
        wants,
    }
}

/// memtrace, attached to `pid` and recording to `trace`.
fn attached(tools: &Tools, pid: u32, trace: &Path) -> Result<Beside, String> {
    let _ = fs::remove_file(trace);
    let mut memtrace = Command::new(&tools.memtrace);
    memtrace.args(KERNEL).arg("-q").arg("-o").arg(trace);
    let mut memtrace = Beside::start(memtrace.args(["-p", &pid.to_string()]))?;
    // The header comes first, and the look at the target after it.
    until("memtrace records", || {
        memtrace.has_ended() || fs::metadata(trace).is_ok_and(|trace| 0 < trace.len())
    })?;
    std::thread::sleep(Duration::from_millis(300));
    match memtrace.has_ended() {
        true => Err("the kernel cannot observe here".to_owned()),
        false => Ok(memtrace),
    }
}

/// Wants nothing lost and no drift in `trace`.
fn is_exact(tools: &Tools, trace: &Path) -> Result<(), String> {
    let report = run(Command::new(&tools.memtrace)
        .args(["report", "--json"])
        .arg(trace))?;
    let report: serde_json::Value =
        serde_json::from_str(&report.stdout).map_err(|error| error.to_string())?;
    let spaces = report["spaces"]
        .as_array()
        .ok_or("a report without spaces")?;
    let drift = |space: &serde_json::Value| space["verify"]["drift"] != 0;
    match report["lost"] == 0 && !spaces.iter().any(drift) {
        true => Ok(()),
        false => Err(format!("inexact: {} lost, or drift", report["lost"])),
    }
}

/// A server that others ask `command` of.
pub fn redis(name: &'static str, tools: &Tools, command: &'static str) -> Found<Case> {
    let (server, benchmark, cli) = (
        find("redis-server")?,
        find("redis-benchmark")?,
        find("redis-cli")?,
    );
    let folder = Rc::new(tempfile::tempdir().map_err(|error| error.to_string())?);
    let arguments = ["--port", "0", "--unixsocket", "socket", "--save", ""];
    let mut start = Command::new(server);
    let server = Rc::new(Beside::start(
        start.args(arguments).current_dir(folder.path()),
    )?);
    until("redis answers", || {
        let mut ping = Command::new(&cli);
        run(ping
            .args(["-s", "socket", "ping"])
            .current_dir(folder.path()))
        .is_ok_and(|ran| ran.stdout.trim() == "PONG")
    })?;
    let requests = if tools.quick { 20_000 } else { 200_000 };
    let load = {
        let (server, folder) = (server.clone(), folder.clone());
        move || {
            let _alive = &server;
            let number = requests.to_string();
            let mut ask = Command::new(&benchmark);
            ask.args(["-s", "socket", "-n", &number, "-c", "20", "--csv"]);
            let ran = run(ask.args(["-t", command]).current_dir(folder.path()))?;
            // "GET","6203.47",… below a line of headings.
            let head = format!("\"{}\",\"", command.to_uppercase());
            let rate = ran.stdout.lines().find_map(|line| {
                let rest = line.strip_prefix(&head)?;
                rest.split('"').next()?.parse::<f64>().ok()
            });
            Ok(1e6 / rate.ok_or("no rate")?)
        }
    };
    let (pid, trace, memtrace) = (server.pid(), folder.path().join("trace"), tools.clone());
    let under = {
        let load = load.clone();
        move || {
            let beside = attached(&memtrace, pid, &trace)?;
            let result = load();
            beside.interrupt()?;
            is_exact(&memtrace, &trace)?;
            result
        }
    };
    let what = format!("{requests} {}s of 20 clients", command.to_uppercase());
    let contenders = vec![contender("untraced", load), contender("memtrace", under)];
    let mut case = case(
        name,
        what,
        "µs a request",
        contenders,
        // 0.97 of the throughput.
        vec![want("memtrace", "untraced", 1.031)],
    );
    case.rounds = 2;
    Ok(case)
}

/// The storm.
pub fn pairs(name: &'static str, tools: &Tools, pairs: usize) -> Case {
    let argv = tools.tracee("pairs", &[pairs]);
    let (memtrace, alone) = (tools.clone(), argv.clone());
    let cost = told("us per pair");
    let contenders = vec![
        contender("untraced", move || cost(run(&mut command(&alone))?)),
        contender("memtrace", move || {
            let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
            let trace = folder.path().join("trace");
            let mut under = Command::new(&memtrace.memtrace);
            under.args(KERNEL).arg("-q").arg("-o").arg(&trace);
            let ran = run(under.arg("--").args(&argv))?;
            is_exact(&memtrace, &trace)?;
            cost(ran)
        }),
    ];
    let what = format!("{pairs} mmap/munmap pairs on one thread");
    let wants = vec![want("memtrace", "untraced", 2.5)];
    case(name, what, "µs a pair", contenders, wants)
}

/// How long a target is held when memtrace comes and when it leaves.
pub fn gap(name: &'static str, tools: &Tools) -> Case {
    let program: OsString = tools.tracees.join("gaps").into();
    let memtrace: OsString = tools.memtrace.clone().into();
    let cost = told("ms longest gap");
    let alone = vec![program, "2500".into()];
    let mut beside = alone.clone();
    beside.push(memtrace);
    beside.extend(KERNEL.map(OsString::from));
    beside.extend(["-qq", "--duration", "1s", "-p", "PID"].map(OsString::from));
    let contenders = vec![
        contender("untraced", move || cost(run(&mut command(&alone))?)),
        contender("memtrace", move || cost(run(&mut command(&beside))?)),
        // Not a contender but the bound.
        contender("bound", || Ok(100.0)),
    ];
    let what =
        "longest time in which a busy target stands still, attaching and letting go included";
    case(
        name,
        what,
        "ms",
        contenders,
        vec![want("memtrace", "bound", 1.0)],
    )
}

/// What watching an idle process takes.
pub fn idle(name: &'static str, tools: &Tools) -> Found<Case> {
    let sleep = find("sleep")?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (tools, seconds) = (tools.clone(), if tools.quick { 1 } else { 5 });
    let watch = move || {
        let target = Beside::start(Command::new(&sleep).arg("1000"))?;
        let memtrace = attached(&tools, target.pid(), &folder.path().join("trace"))?;
        let before = cpu_time(memtrace.pid())?;
        std::thread::sleep(Duration::from_secs(seconds));
        let used = cpu_time(memtrace.pid())? - before;
        memtrace.interrupt()?;
        Ok(used / seconds as f64)
    };
    let contenders = vec![
        contender("memtrace", watch),
        // Not a contender but the bound: half a percent.
        contender("bound", || Ok(5.0)),
    ];
    let what = "CPU time of memtrace that watches a sleeping process";
    let wants = vec![
        want("memtrace", "bound", 1.0),
        aim("memtrace", "bound", 0.5),
    ];
    Ok(case(name, what, "ms a second", contenders, wants))
}

/// User and system time so far, in milliseconds (nanoseconds in `/proc/PID/task/TID/schedstat`).
fn cpu_time(pid: u32) -> Result<f64, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut all = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(text)?
        .flatten()
    {
        let stat = fs::read_to_string(task.path().join("schedstat")).map_err(text)?;
        let ran = stat
            .split(' ')
            .next()
            .and_then(|ran| ran.parse::<f64>().ok());
        all += ran.ok_or("no schedstat")? / 1e6;
    }
    Ok(all)
}
