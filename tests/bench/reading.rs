//! How fast a trace is read, on one core: the observations alone, and told again with the model as
//! `memtrace report` does it; and how much memory that takes for a short and a long trace.
//!
//! `cargo bench --bench reading -- [EVENTS]` (default 10 million; `--quick`: 200 thousand). The trace is the
//! worst there is for its size: a storm of mmap and munmap, each of another size at another place, on two
//! threads of a space of two hundred mappings. Nothing here fails for being slow.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use memtrace::abi::{Abi, Prot};
use memtrace::decode::RawCall;
use memtrace::mm::{FileId, MapsEntry, Snapshot};
use memtrace::report::replay;
use memtrace::timeline::{
    Began, CallDone, Observation, Observed, SpaceBegan, TaskBegan, TaskOrigin, TraceInfo,
};
use memtrace::trace_file::{TraceReader, TraceWriter};
use memtrace::units::{Addr, AddrRange, SpaceId, Tid, Timestamp};

/// Events a second of reading that are wanted.
const WANTED: f64 = 3e6;
const PID: Tid = Tid(4711);

/// A number that looks random, the same in every run.
fn noise(i: u64) -> u64 {
    let x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}

/// A space of two hundred mappings, none beside another.
fn space_began() -> SpaceBegan {
    let entry = |i: u64| MapsEntry {
        range: AddrRange::covering(Addr(0x5555_0000_0000 + (i << 20)), (i % 7 + 1) << 12)
            .expect("it is one"),
        prot: Prot::READ,
        shared: false,
        offset: 0,
        file: FileId::default(),
        name: "".into(),
    };
    SpaceBegan {
        space: SpaceId(1),
        pid: PID,
        began: Began::Exec,
        exe: "/usr/bin/storm".into(),
        snapshot: Snapshot {
            entries: (0..200).map(entry).collect(),
            smaps: Vec::new(),
        },
        known: true,
        brk_start: None,
        read_implies_exec: false,
    }
}

fn call(time: u64, tid: i32, nr: u32, args: [u64; 6], result: u64) -> Observation {
    let call = CallDone {
        tid: Tid(tid),
        space: SpaceId(1),
        entered: Timestamp(time - 2500 - noise(time) % 3000),
        call: RawCall {
            abi: Abi::X86_64,
            nr,
            args,
        },
        fetched: Vec::new(),
        result: result.cast_signed(),
        evidence: Vec::new(),
        overlapped: false,
        stack: memtrace::timeline::Stack::Absent,
        refused: None,
    };
    Observation {
        time: Timestamp(time),
        what: Observed::Call(call),
    }
}

/// Writes a trace of so many events; gives its size in bytes.
fn write(path: &Path, events: u64) -> std::io::Result<u64> {
    let info = TraceInfo {
        page_size: 4096,
        ..TraceInfo::default()
    };
    let mut writer = TraceWriter::new(File::create(path)?, &info)?;
    let at_start = |what| Observation {
        time: Timestamp(0),
        what,
    };
    writer.observation(&at_start(Observed::SpaceBegan(space_began())))?;
    for tid in [PID, Tid(PID.0 + 1)] {
        let began = TaskBegan {
            tid,
            pid: PID,
            space: SpaceId(1),
            parent: None,
            origin: TaskOrigin::Launch,
            comm: "storm".into(),
        };
        writer.observation(&at_start(Observed::TaskBegan(began)))?;
    }
    let mut time = 1_000_000;
    for i in 0..events / 2 {
        let tid = PID.0 + (noise(i) % 2) as i32;
        let len = (1 + noise(i) % 64) << 12;
        let addr = 0x7f12_3456_7000 - len;
        time += 6_000 + noise(i) % 9_000;
        writer.observation(&call(time, tid, 9, [0, len, 3, 0x22, u64::MAX, 0], addr))?;
        time += 6_000 + noise(i + 7) % 9_000;
        writer.observation(&call(time, tid, 11, [addr, len, 3, 0x22, u64::MAX, 0], 0))?;
    }
    writer.finish()?.metadata().map(|meta| meta.len())
}

/// Highest resident memory of a process of its own that does `what` with `path`, in KiB.
fn memory(what: &str, path: &Path) -> Option<u64> {
    let me = std::env::current_exe().ok()?;
    let output = Command::new(me).arg(what).arg(path).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn high_water() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn rate(what: &str, events: u64, wanted: Option<f64>, mut job: impl FnMut()) {
    let best = (0..3)
        .map(|_| {
            let begun = Instant::now();
            job();
            begun.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    let rate = events as f64 / best;
    let verdict = match wanted {
        Some(wanted) if rate < wanted => format!(" (wanted: {:.1})", wanted / 1e6),
        Some(_) => " (as wanted)".to_owned(),
        None => String::new(),
    };
    println!(
        "{what:<36} {:>8.2} million events a second{verdict}",
        rate / 1e6
    );
}

fn measure(events: u64) -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("long.mtr");
    let size = write(&path, events)?;
    println!(
        "{events} events, {size} bytes: {:.2} bytes an event",
        size as f64 / events as f64
    );
    let open = || TraceReader::open(&path).expect("it is a trace");
    rate("reading", events, Some(WANTED), || {
        assert!(events <= open().count() as u64);
    });
    rate("reading and the model's report", events, None, || {
        assert!(events <= replay(&mut open()).expect("it can be read").events);
    });
    let short = folder.path().join("short.mtr");
    write(&short, events / 10)?;
    for (what, path) in [("a tenth of it", &short), ("all of it", &path)] {
        match memory("--report-of", path) {
            Some(kib) => println!("memory of a report on {what}: {kib} KiB"),
            None => println!("memory of a report on {what}: not known here"),
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| it != "--bench")
        .collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let events = match words.as_slice() {
        ["--report-of", path] => {
            let reader = TraceReader::open(Path::new(path)).ok();
            let report = reader.and_then(|mut reader| replay(&mut reader).ok());
            let known = report.and_then(|_| high_water());
            known.iter().for_each(|kib| println!("{kib}"));
            return ExitCode::SUCCESS;
        }
        [] => 10_000_000,
        ["--quick"] => 200_000,
        [number] if number.parse::<u64>().is_ok() => number.parse().unwrap_or_default(),
        _ => {
            eprintln!("cargo bench --bench reading -- [EVENTS | --quick]");
            return ExitCode::FAILURE;
        }
    };
    match measure(events) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the trace cannot be made: {error}");
            ExitCode::FAILURE
        }
    }
}
