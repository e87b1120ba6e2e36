//! What `memtrace report` answers about recorded traces, held against the live run, the kernel, the
//! summary, and recounts.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Ended, MEMTRACE, run, tracee};

/// A trace in a folder of its own, and what its program printed.
struct Trace {
    folder: tempfile::TempDir,
    ended: Ended,
}

impl Trace {
    #[track_caller]
    fn of(options: &[&str], name: &str, args: &[&str]) -> Trace {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(MEMTRACE);
        command.arg("-o").arg(folder.path().join("trace"));
        command
            .args(options)
            .arg("--log")
            .arg(folder.path().join("log"));
        command.arg("--").arg(tracee(name)).args(args);
        let ended = run(command.env("LC_ALL", "C.UTF-8"));
        Trace { folder, ended }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("trace")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }

    #[track_caller]
    fn text(&self, options: &[&str]) -> String {
        let ended = report(options, &[&self.path()]);
        assert_eq!(ended.status(), 0, "{options:?}: {}", ended.stderr);
        ended.stdout
    }

    #[track_caller]
    fn json(&self, options: &[&str]) -> Value {
        let options: Vec<&str> = options.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.text(&options)).expect("JSON")
    }

    #[track_caller]
    fn events(&self, options: &[&str]) -> Vec<Value> {
        let options: Vec<&str> = ["--format", "jsonl"]
            .iter()
            .chain(options)
            .copied()
            .collect();
        let text = self.text(&options);
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        lines.collect()
    }
}

fn report(options: &[&str], traces: &[&Path]) -> Ended {
    run(Command::new(MEMTRACE)
        .arg("report")
        .args(options)
        .args(traces)
        .env("LC_ALL", "C.UTF-8"))
}

fn number(value: &Value, path: &str) -> u64 {
    let found = value.pointer(path).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number {path} in {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key]
        .as_array()
        .unwrap_or_else(|| panic!("no list {key} in {value}"))
}

fn hex(value: &Value) -> u64 {
    let text = value.as_str().and_then(|text| text.strip_prefix("0x"));
    u64::from_str_radix(text.expect("a hex string"), 16).expect("a hex string")
}

#[test]
fn a_replay_is_the_live_timeline_to_the_byte() {
    for format in ["strace", "pretty", "jsonl"] {
        for (name, args, calls) in [
            ("threads", &["all"][..], "%memory"),
            ("forkstorm", &["20", "3"], "mmap,munmap"),
            ("execs", &["all"], "!mmap"),
            ("calls", &["2000"], "madvise"),
        ] {
            let trace = Trace::of(&["--format", format], name, args);
            let again = trace.text(&["--format", format]);
            assert!(
                trace.log() == again,
                "{format} of {name} differs from the live run"
            );
            assert!(again.lines().count() > 20, "{format} of {name}: {again}");
            let options = ["--format", format, "-e", calls];
            let trace = Trace::of(&options, name, args);
            assert!(
                trace.log() == trace.text(&options),
                "{format} of {name} with -e {calls} differs from the live run"
            );
        }
    }
}

/// The bytes of some mappings, neighbours of equal rights and name as one.
fn runs(mappings: impl Iterator<Item = (u64, u64, String)>) -> Vec<(u64, u64, String)> {
    let mut runs: Vec<(u64, u64, String)> = Vec::new();
    for (start, end, what) in mappings {
        match runs.last_mut() {
            Some(last) if last.1 == start && last.2 == what => last.1 = end,
            _ => runs.push((start, end, what)),
        }
    }
    runs
}

/// Lines of maps; of the stack only the upper end, because faults extend it.
fn of_the_kernel(maps: &str) -> Vec<(u64, u64, String)> {
    let lines = maps.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let perms = fields.next()?;
        let name = fields.nth(3).unwrap_or_default();
        let number = |text| u64::from_str_radix(text, 16).expect("hex");
        let start = if name == "[stack]" { 0 } else { number(start) };
        // What the kernel calls the heap is anonymous memory with a label.
        let name = if name == "[heap]" || name == "[stack]" {
            ""
        } else {
            name
        };
        (name != "[vsyscall]").then(|| (start, number(end), format!("{perms} {name}")))
    });
    runs(lines)
}

fn of_memtrace(space: &Value) -> Vec<(u64, u64, String)> {
    let mappings = list(space, "mappings").iter().map(|mapping| {
        let is_stack = mapping["kind"] == "stack";
        let start = if is_stack { 0 } else { hex(&mapping["start"]) };
        let perms = mapping["perms"].as_str().expect("perms");
        let name = match mapping["kind"].as_str() {
            Some("file" | "shared" | "special") => mapping["name"].as_str().unwrap_or_default(),
            _ => "",
        };
        let name = name.split_whitespace().next().unwrap_or_default();
        (start, hex(&mapping["end"]), format!("{perms} {name}"))
    });
    runs(mappings)
}

#[test]
fn the_mappings_at_a_moment_are_those_that_the_program_saw() {
    let trace = Trace::of(&[], "moments", &[]);
    assert_eq!(trace.ended.status(), 0, "{:?}", trace.ended);
    let events = trace.events(&[]);
    let mut moments = 0;
    for moment in trace.ended.stdout.split("moment ").skip(1) {
        let (marker, maps) = moment.split_once('\n').expect("a line");
        let is_marker = |event: &&Value| {
            event["type"] == "call"
                && event["name"] == "mmap"
                && event["delta"]["mapped"].as_u64() == marker.parse().ok()
        };
        let made = events
            .iter()
            .find(is_marker)
            .expect("the marker was traced");
        let time = format!("{}ns", number(made, "/time"));
        let then = trace.json(&["--at", &time]);
        let [space] = list(&then, "spaces") else {
            panic!("one process: {then}");
        };
        assert_eq!(of_memtrace(space), of_the_kernel(maps), "moment {marker}");
        // Whoever reads it finds who made the marker, to the event.
        let own = list(space, "mappings")
            .iter()
            .flat_map(|mapping| list(mapping, "made"));
        let mut own = own.filter(|made| made["bytes"].as_u64() == marker.parse().ok());
        let origin = own.next().expect("the marker");
        assert_eq!(origin["by"]["event"]["seq"], made["seq"]);
        assert_eq!(origin["by"]["time"], made["time"]);
        moments += 1;
    }
    assert_eq!(moments, 4);
}

#[test]
fn every_byte_of_every_mapping_has_one_maker_and_the_sums_are_those_of_the_report() {
    for (name, args) in [
        ("random", &["3", "500"][..]),
        ("moments", &[]),
        ("forkstorm", &["12", "4"]),
    ] {
        let trace = Trace::of(&["-q"], name, args);
        let summary = trace.json(&[]);
        for at in ["end", "peak", "peak:committed", "50%"] {
            let then = trace.json(&["--at", at]);
            assert!(!list(&then, "spaces").is_empty(), "{name} at {at}");
            let mut sums = BTreeMap::new();
            for space in list(&then, "spaces") {
                for mapping in list(space, "mappings") {
                    let state = mapping["state"].as_str().expect("a state");
                    *sums.entry(state).or_insert(0) += number(mapping, "/bytes");
                    let mut next = hex(&mapping["start"]);
                    for made in list(mapping, "made") {
                        assert_eq!(hex(&made["start"]), next, "{name} at {at}: {mapping}");
                        next += number(made, "/bytes");
                    }
                    assert_eq!(next, hex(&mapping["end"]), "{name} at {at}: {mapping}");
                }
            }
            let sum = |key| -> u64 { list(&then, "spaces").iter().map(|s| number(s, key)).sum() };
            assert_eq!(sum("/mapped"), sum("/reserved") + sum("/committed"));
            assert_eq!(sums.get("reserved").copied().unwrap_or(0), sum("/reserved"));
            assert_eq!(
                sums.get("committed").copied().unwrap_or(0),
                sum("/committed")
            );
            match at {
                "peak" => assert_eq!(sum("/mapped"), number(&summary, "/tree/mapped/peak")),
                "peak:committed" => {
                    assert_eq!(sum("/committed"), number(&summary, "/tree/committed/peak"));
                }
                "end" => {
                    let id = &then["spaces"][0]["id"];
                    let spaces = list(&summary, "spaces");
                    let space = spaces.iter().find(|space| space["id"] == *id).expect("it");
                    assert_eq!(sum("/mapped"), number(space, "/mapped/end"));
                }
                _ => {}
            }
        }
    }
}

/// The sums of all spaces of a report, as a table names them.
fn sums_of(summary: &Value) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    let mut add = |key: String, value: u64| *sums.entry(key).or_insert(0) += value;
    for space in list(summary, "spaces") {
        for calls in space["calls"].as_object().expect("calls").values() {
            for key in ["count", "failed", "bytes"] {
                add(
                    key.replace("count", "calls"),
                    number(calls, &format!("/{key}")),
                );
            }
        }
        for (verb, bytes) in space["flow"].as_object().expect("a flow") {
            add(verb.clone(), bytes.as_u64().expect("bytes"));
        }
        for key in ["mapped", "reserved", "committed"] {
            add(key.to_owned(), number(space, &format!("/{key}/end")));
        }
        add("began".to_owned(), number(space, "/mapped/begin"));
    }
    sums
}

fn sums_of_row(row: &Value) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for key in ["calls", "failed", "bytes", "began"] {
        sums.insert(key.to_owned(), number(row, &format!("/{key}")));
    }
    for part in ["flow", "end"] {
        for (key, bytes) in row[part].as_object().expect("sums") {
            sums.insert(key.clone(), bytes.as_u64().expect("bytes"));
        }
    }
    sums
}

#[test]
fn the_rows_of_every_table_add_up_to_the_sums_of_the_report() {
    let programs = [
        ("threads", &["all"][..]),
        ("forkstorm", &["12", "4"]),
        ("random", &["5", "800"]),
        ("moments", &[]),
        ("growstack", &["all"]),
    ];
    for (name, args) in programs {
        let trace = Trace::of(&["-q"], name, args);
        let summary = trace.json(&[]);
        let whole = sums_of(&summary);
        for by in ["call", "mapping", "file", "thread", "space"] {
            let table = trace.json(&["--by", by]);
            let mut sums: BTreeMap<String, u64> = BTreeMap::new();
            let mut weights = Vec::new();
            for row in list(&table, "rows") {
                for (key, value) in sums_of_row(row) {
                    *sums.entry(key).or_default() += value;
                }
                weights.push(number(row, "/weight"));
            }
            assert_eq!(sums, whole, "{name} by {by}");
            assert_eq!(sums_of_row(&table["total"]), whole, "{name} by {by}: total");
            if list(&table, "rows")
                .iter()
                .all(|row| row["other"] != "smaller")
            {
                assert!(
                    weights.is_sorted_by(|a, b| a >= b),
                    "{name} by {by}: {weights:?}"
                );
            }
        }
        for row in list(&trace.json(&["--by", "call"]), "rows") {
            let Some(call) = row["call"].as_str() else {
                continue;
            };
            let of_space = |space: &Value| space["calls"][call]["bytes"].as_u64().unwrap_or(0);
            let bytes: u64 = list(&summary, "spaces").iter().map(of_space).sum();
            assert_eq!(number(row, "/bytes"), bytes, "{name}: {call}");
        }
    }
}

#[test]
fn the_life_of_an_address_holds_every_event_whose_spans_touch_it() {
    let trace = Trace::of(&["-q"], "moments", &[]);
    let events = trace.events(&[]);
    let touching = |page: u64| -> BTreeSet<u64> {
        let calls = events.iter().filter(|event| event["type"] == "call");
        let touches = |event: &&Value| {
            event["spans"].as_array().into_iter().flatten().any(|span| {
                let start = hex(&span["start"]);
                (start..start + number(span, "/bytes")).contains(&page)
            })
        };
        calls
            .filter(touches)
            .map(|event| number(event, "/seq"))
            .collect()
    };
    // The first page of every span there is.
    let pages = events
        .iter()
        .flat_map(|event| event["spans"].as_array().into_iter().flatten());
    let pages: BTreeSet<u64> = pages.map(|span| hex(&span["start"])).collect();
    assert!(pages.len() > 20);
    for page in pages.into_iter().step_by(3) {
        let life = trace.json(&["--around", &format!("{page:x}")]);
        let mut seen = BTreeSet::new();
        for space in list(&life, "spaces") {
            let mut now = Value::Array(Vec::new());
            for event in list(space, "events") {
                assert_eq!(
                    event["before"], now,
                    "{page:x}: each begins where the last one ended"
                );
                now = event["after"].clone();
                seen.insert(number(event, "/seq"));
            }
        }
        let missing: Vec<_> = touching(page).difference(&seen).copied().collect();
        assert!(missing.is_empty(), "{page:x}: {missing:?}");
    }
}

#[test]
fn filters_choose_what_a_recount_chooses() {
    let trace = Trace::of(&["-q"], "threads", &["all"]);
    let mut events = trace.events(&[]);
    // What makes lines a trace is of no use where some are left out.
    let objects = events.iter_mut().filter_map(Value::as_object_mut);
    objects.for_each(|event| drop(event.remove("raw")));
    let calls: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "call")
        .collect();
    let tid = number(calls[calls.len() / 2], "/tid");
    let (from, to) = (
        number(calls[10], "/time"),
        number(calls[calls.len() / 2], "/time"),
    );
    let chosen = |options: &[&str]| -> Vec<Value> {
        let mut chosen = trace.events(options);
        let objects = chosen.iter_mut().filter_map(Value::as_object_mut);
        objects.for_each(|event| drop(event.remove("raw")));
        chosen.retain(|event| event["type"] == "call");
        chosen
    };
    let expect = |options: &[&str], admits: &dyn Fn(&Value) -> bool| {
        let expected: Vec<Value> = calls
            .iter()
            .filter(|call| admits(call))
            .map(|&c| c.clone())
            .collect();
        assert!(!expected.is_empty(), "{options:?}");
        assert_eq!(chosen(options), expected, "{options:?}");
    };
    expect(&["-e", "munmap"], &|call| call["name"] == "munmap");
    expect(&["--tid", &tid.to_string()], &|call| call["tid"] == tid);
    expect(
        &[
            "--since",
            &format!("{from}ns"),
            "--until",
            &format!("{to}ns"),
        ],
        &|call| (from..=to).contains(&number(call, "/time")),
    );
    expect(&["--prot", "---", "-e", "mmap"], &|call| {
        call["name"] == "mmap" && call["args"]["prot"] == "PROT_NONE"
    });
    let table = trace.json(&["--by", "call", "-e", "munmap", "--tid", &tid.to_string()]);
    let count = calls
        .iter()
        .filter(|call| call["name"] == "munmap" && call["tid"] == tid);
    assert_eq!(number(&table, "/total/calls"), count.count() as u64);
    let pretty = trace.text(&["-e", "munmap"]);
    assert!(
        pretty.contains(" munmap ") && !pretty.contains(" mmap "),
        "{pretty}"
    );
}

#[test]
fn several_traces_are_told_together_and_each() {
    let one = Trace::of(&["-q"], "moments", &[]);
    let two = Trace::of(&["-q"], "threads", &["all"]);
    let paths = [one.path(), two.path()];
    let paths = [paths[0].as_path(), paths[1].as_path()];
    let both: Value = serde_json::from_str(&report(&["--json"], &paths).stdout).expect("JSON");
    assert_eq!(both["schema"], "memtrace.reports/1");
    for (trace, mut told) in [&one, &two]
        .into_iter()
        .zip(list(&both, "reports").to_vec())
    {
        let path = trace.path();
        let object = told.as_object_mut().expect("an object");
        assert_eq!(
            object.remove("trace").as_ref().and_then(Value::as_str),
            path.to_str()
        );
        assert_eq!(told, trace.json(&[]));
    }
    let text = report(&[], &paths).stdout;
    assert!(
        text.contains("2 traces") && text.contains("total"),
        "{text}"
    );
    for path in paths {
        assert!(
            text.contains(&format!("==> {} <==", path.display())),
            "{text}"
        );
    }
    let missing = one.folder.path().join("missing");
    let failed = report(&[], &[paths[0], &missing]);
    assert_eq!((failed.status(), &*failed.stdout), (2, ""));
    assert!(failed.one_line().contains("missing"), "{}", failed.stderr);
}

#[test]
fn a_reader_that_stops_early_is_no_failure() {
    let trace = Trace::of(&["-q"], "calls", &["3000"]);
    for options in [
        "--format jsonl",
        "--format strace",
        "-e mmap",
        "--by mapping",
        "--at end",
        "",
    ] {
        let script = format!(
            "'{MEMTRACE}' report {options} '{}' 2>&1 >/dev/full | cat; '{MEMTRACE}' report {options} '{}' | head -c 1; \
             echo ${{PIPESTATUS[0]}}",
            trace.path().display(),
            trace.path().display()
        );
        let ended = run(Command::new("bash").arg("-c").arg(script));
        let mut lines = ended.stdout.lines();
        let full = lines.next().unwrap_or_default();
        assert!(
            full.starts_with("memtrace: cannot write the report: "),
            "{options}: {ended:?}"
        );
        assert!(
            ended.stdout.trim_end().ends_with('0'),
            "{options}: {ended:?}"
        );
        assert_eq!(ended.stderr, "", "{options}");
    }
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    let entries = fs::read_dir(folder).expect("the recorded traces");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "mtr"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

#[test]
fn recorded_traces_of_real_programs_add_up_too() {
    for path in fixtures() {
        let json = |options: &[&str]| -> Value {
            let told = report(options, &[&path]);
            assert_eq!(
                (told.status(), &*told.stderr),
                (0, ""),
                "{options:?} of {}",
                path.display()
            );
            serde_json::from_str(&told.stdout).expect("JSON")
        };
        let summary = json(&["--json"]);
        for by in ["call", "mapping", "file", "thread", "space"] {
            let table = json(&["--json", "--by", by]);
            assert_eq!(
                sums_of_row(&table["total"]),
                sums_of(&summary),
                "{} by {by}",
                path.display()
            );
        }
        let then = json(&["--json", "--at", "peak"]);
        let mapped: u64 = list(&then, "spaces")
            .iter()
            .map(|space| number(space, "/mapped"))
            .sum();
        assert_eq!(
            mapped,
            number(&summary, "/tree/mapped/peak"),
            "{}",
            path.display()
        );
        let timeline = json(&["--json", "--timeline"]);
        for figure in ["mapped", "reserved", "committed"] {
            assert_eq!(
                number(&timeline, &format!("/peak/{figure}/bytes")),
                number(&summary, &format!("/tree/{figure}/peak")),
                "{}: {figure}",
                path.display()
            );
        }
    }
}

#[test]
fn the_readme_shows_what_the_commands_print() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("the README");
    let mut shown = 0;
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let (line, output) = block.split_once('\n').expect("a command");
        let arguments = line.strip_prefix("$ memtrace ").unwrap_or_default();
        if !arguments.starts_with("report ") && !arguments.starts_with("explain ") {
            continue;
        }
        let mut command = Command::new(MEMTRACE);
        command.args(arguments.split_whitespace());
        let told = run(command.current_dir(root).env("LC_ALL", "C.UTF-8"));
        assert_eq!(told.stdout, output, "{line}");
        shown += 1;
    }
    assert!(shown >= 7, "only {shown} commands with output");
}

#[test]
fn reports_of_the_real_traces_stay_as_they_were_checked_once() {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    for name in ["go-1.25.5", "node-24.12.0", "java-21.0.8.2", "python3"] {
        let trace = traces.join(format!("{name}.mtr"));
        for (options, kind) in [(&["--color=never"][..], "text"), (&["--json"], "json")] {
            let ended = report(options, &[&trace]);
            assert_eq!((ended.status(), &*ended.stderr), (0, ""), "{name}");
            insta::assert_snapshot!(format!("{}_{kind}", name.replace('.', "_")), ended.stdout);
        }
    }
}
