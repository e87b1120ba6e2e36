//! What tracing costs: the same program untraced, under strace and under memtrace, in turn.
//!
//! `cargo bench --bench against_strace -- --help` says what can be chosen. Machines are noisy and differ: the
//! contenders take turns, what counts are ratios of medians, and beside each stands between what the ratios of
//! single rounds lie. Nothing here fails for being slow; it says whether the wanted ratio was reached.

mod cases;
mod figures;
mod process;
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../support_real/programs.rs"]
mod programs;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use cases::{Case, Tools, Want};
use figures::{Figure, Samples, short};

const HELP: &str = "\
cargo bench --bench against_strace -- [OPTIONS]

  --quick      fewer rounds and shorter programs: a first look, not a measurement
  --only NAME  this case; may be given again
  --runs N     rounds of each case (default 5, quick 2; program starts four times as many)
  --list       the names of the cases

MEMTRACE_BIN names another memtrace. MEMTRACE_GO_1_25 names the go that builds the server, and with
MEMTRACE_REQUIRE_ALL=1 pip fetches one.";

/// Whether to fetch what is missing.
fn everything_is_required() -> bool {
    std::env::var_os("MEMTRACE_REQUIRE_ALL").is_some_and(|value| value == "1")
}

#[derive(Default)]
struct Options {
    quick: bool,
    list: bool,
    only: Vec<String>,
    runs: Option<usize>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options::default();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // What cargo itself adds.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--list" => options.list = true,
                "--only" => options.only.push(value()?),
                "--runs" => {
                    let runs = value()?;
                    let number = runs.parse().ok().filter(|number| 0 < *number);
                    options.runs =
                        Some(number.ok_or(format!("--runs {runs}: not a number of rounds"))?);
                }
                "--help" | "-h" => return Err(HELP.to_owned()),
                _ => return Err(format!("unknown option {arg}\n\n{HELP}")),
            }
        }
        match options
            .only
            .iter()
            .find(|only| !cases::NAMES.contains(&only.as_str()))
        {
            Some(only) => Err(format!(
                "no case {only}; there are {}",
                cases::NAMES.join(", ")
            )),
            None => Ok(options),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            println!("{why}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        println!("{}", cases::NAMES.join("\n"));
        return ExitCode::SUCCESS;
    }
    let tools = match tools(options.quick) {
        Ok(tools) => tools,
        Err(why) => {
            println!("{why}");
            return ExitCode::FAILURE;
        }
    };

    let runs = options.runs.unwrap_or(if options.quick { 2 } else { 5 });
    let mut rows = Vec::new();
    for name in cases::NAMES.into_iter().filter(|name| options.wants(name)) {
        match cases::prepare(name, &tools) {
            Ok(case) => rows.push(measure(case, runs)),
            Err(why) => {
                println!("\n{name}: skipped: {}", why.lines().next().unwrap_or(""));
                rows.push(Row {
                    name,
                    ratios: [None; 3],
                    verdicts: vec!["skipped".to_owned()],
                });
            }
        }
    }
    print_rows(&rows);
    ExitCode::SUCCESS
}

/// Builds the tracee programs, which `cargo bench` does not, and says what runs here.
fn tools(quick: bool) -> Result<Tools, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["build", "--release", "--locked", "--quiet", "--examples"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = build.status().map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err(format!("the tracee programs do not build: {status}"));
    }
    let memtrace = std::env::var_os("MEMTRACE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_memtrace").into(), PathBuf::from);
    let strace = programs::find("strace");
    // DIR/deps/against_strace-HASH, and the tracees are in DIR/examples.
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = this
        .parent()
        .and_then(Path::parent)
        .ok_or("where are the tracees?")?;

    let cpus = std::thread::available_parallelism().map_or(0, |cpus| cpus.get());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version =
        |tool: &Path| first_line(Command::new(tool).arg("-V")).unwrap_or_else(|| "?".to_owned());
    let others = strace.as_deref().map_or_else(|why| why.clone(), version);
    println!(
        "Linux {}, {cpus} CPUs; {}; {others}",
        kernel.trim(),
        version(&memtrace)
    );
    println!("{}", cases::CONTENDERS);
    Ok(Tools {
        memtrace,
        strace,
        tracees: folder.join("examples"),
        quick,
    })
}

fn first_line(command: &mut Command) -> Option<String> {
    process::run(command)
        .ok()?
        .stdout
        .lines()
        .next()
        .map(str::to_owned)
}

struct Row {
    name: &'static str,
    /// strace/untraced, memtrace/untraced, memtrace/strace
    ratios: [Option<Figure>; 3],
    verdicts: Vec<String>,
}

/// Lets the contenders take turns and prints what came out.
fn measure(mut case: Case, runs: usize) -> Row {
    println!("\n{}: {}", case.name, case.what);
    let runs = runs * case.rounds;
    let mut results: Vec<Result<Samples, String>> = case
        .contenders
        .iter()
        .map(|_| Ok(Samples(Vec::new())))
        .collect();
    // The first start reads files and fills caches, for whoever comes next.
    if let Some(first) = case.contenders.first_mut() {
        let _ = (first.job)();
    }
    for round in 0..runs {
        for turn in 0..case.contenders.len() {
            // Nobody is always the first, nor always behind the same one.
            let at = (turn + round) % case.contenders.len();
            let Ok(samples) = &mut results[at] else {
                continue;
            };
            match (case.contenders[at].job)() {
                Ok(sample) => samples.0.push(sample),
                Err(why) => results[at] = Err(why),
            }
        }
    }

    for (contender, result) in case.contenders.iter().zip(&results) {
        match result {
            Ok(samples) => {
                let figure = samples
                    .figure()
                    .map_or(String::new(), |figure| figure.to_string());
                println!("  {:<14}{figure} {}", contender.name, case.unit);
            }
            Err(why) => println!(
                "  {:<14}{}",
                contender.name,
                why.lines().next().unwrap_or("")
            ),
        }
    }
    let samples = |name: &str| {
        let at = case
            .contenders
            .iter()
            .position(|contender| contender.name == name)?;
        results[at].as_ref().ok()
    };
    let ratio = |one: &str, other: &str| samples(one)?.over(samples(other)?);
    let verdicts: Vec<String> = case.wants.iter().map(|want| verdict(want, ratio)).collect();
    verdicts.iter().for_each(|verdict| println!("  {verdict}"));
    let ratios = [
        ("strace", "untraced"),
        ("memtrace", "untraced"),
        ("memtrace", "strace"),
    ];
    Row {
        name: case.name,
        ratios: ratios.map(|(one, other)| ratio(one, other)),
        verdicts,
    }
}

fn verdict(want: &Want, ratio: impl Fn(&str, &str) -> Option<Figure>) -> String {
    let Want {
        one,
        other,
        most,
        is_aim,
    } = *want;
    let what = format!(
        "{one}/{other}, {} ≤ {most}:",
        if is_aim { "aim" } else { "wanted" }
    );
    match ratio(one, other) {
        None => format!("{what} not measured"),
        Some(figure) => {
            let reached = match figure.middle <= most {
                true => "reached",
                false if is_aim => "not reached",
                false => "MISSED",
            };
            format!("{what} {} {reached}", short(figure.middle))
        }
    }
}

fn print_rows(rows: &[Row]) {
    println!(
        "\n{:<14}{:>27}{:>27}{:>27}",
        "ratios", "strace/untraced", "memtrace/untraced", "memtrace/strace"
    );
    for row in rows {
        print!("{:<14}", row.name);
        for ratio in row.ratios {
            print!(
                "{:>27}",
                ratio.map_or("–".to_owned(), |ratio| ratio.to_string())
            );
        }
        println!("   {}", row.verdicts.join("; "));
    }
}
