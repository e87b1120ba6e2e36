//! `memtrace explain`: a living process, a trace, or a program that is launched for it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;

use crate::abi::CallSet;
use crate::export;
use crate::report::explain::{
    Cgroups, Facts, Level, Memory, Owner, Refusals, Source, State, facts_of_trace, key_value,
    memory_of_status, owners_of_kinds, verdict,
};
use crate::report::reading::{Ahead, By, Filter, LivesSink, Stop, Table, follow};
use crate::report::{json, replay_into};
use crate::term::write_explanation;
use crate::timeline::{Event, EventKind, Limits, Observation, Sink, TaskEnd, Timeline};
use crate::tracee::Outside;
use crate::units::{Bytes, Tid};

use super::args::{self, Backend, Explain, Explained, Format, Quiet, Target, Trace, Verify};
use super::names::TraceNames;
use super::open::{open, open_silently};
use super::{Failure, run, style_for};

/// How often cgroup and status are looked at while a program runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Explains; the exit status.
pub fn explain(arguments: &Explain) -> Result<i32, Failure> {
    match &arguments.what {
        Explained::Process(pid) => process(arguments, Tid(*pid)),
        Explained::Program { words, output } => program(arguments, words, output.clone()),
        Explained::TraceOrProgram(words) => match words.split_first() {
            Some((first, rest)) if is_trace(Path::new(first)) => {
                let arguments = args::after_trace(arguments, rest).map_err(|usage| {
                    Failure::new(usage.status.into(), anyhow::anyhow!(usage.message))
                })?;
                trace(&arguments, Path::new(first))
            }
            _ => program(arguments, words, None).map_err(|failure| match failure.status {
                126 | 127 => Failure {
                    error: anyhow::anyhow!("{:#}; nor is it a recorded trace", failure.error),
                    ..failure
                },
                _ => failure,
            }),
        },
    }
}

fn process(arguments: &Explain, pid: Tid) -> Result<i32, Failure> {
    let facts = Outside::here()
        .facts(pid)
        .map_err(|error| Failure::new(2, error.into()))?;
    tell(arguments, &facts, 0)
}

/// Whether a file begins as a recorded trace does.
fn is_trace(path: &Path) -> bool {
    const MOST: u64 = 4096;
    let Ok(file) = File::open(path) else {
        return false;
    };
    // A FIFO or a device would be read from.
    if !file.metadata().is_ok_and(|data| data.is_file()) {
        return false;
    }
    let mut begin = Vec::new();
    let _ = file.take(MOST).read_to_end(&mut begin);
    crate::trace_file::is_trace(&begin)
}

fn trace(arguments: &Explain, path: &Path) -> Result<i32, Failure> {
    let mut refusals = Refusals::default();
    let report = replay_into(&mut *open(path)?, &mut [&mut refusals])
        .with_context(|| format!("cannot read {}", path.display()))
        .map_err(|error| Failure::new(2, error))?;
    if let Some(damage) = &report.damage {
        run::say(&damage.to_string());
    }
    let mut facts = facts_of_trace(&report, &refusals).ok_or_else(|| {
        let path = path.display();
        Failure::new(
            2,
            anyhow::anyhow!("{path} holds no address space: nothing to explain"),
        )
    })?;
    name_owners(&mut facts, path);
    tell(arguments, &facts, 0)
}

/// Launches it under the tracer, and explains it at its end.
fn program(
    arguments: &Explain,
    words: &[OsString],
    output: Option<PathBuf>,
) -> Result<i32, Failure> {
    let kept = Kept::new(output.as_deref());
    let here = Outside::here();
    let before = here.cgroups(None);
    let oom_kills_before = here.machine().oom_kills;
    let request = Trace {
        target: Target::Launch(words.to_vec()),
        output: kept.path.clone(),
        runs: 1,
        this_run: None,
        format: Format::default(),
        log: None,
        quiet: Quiet::All,
        verbose: false,
        shown: CallSet::default(),
        // What bounded a refused call is read while its task stands still.
        backend: Backend::Ptrace,
        follow: true,
        duration: None,
        touch: false,
        resident: false,
        stacks: kept.path.is_some(),
        stack_depth: None,
        embed_symbols: false,
        verify: Verify::default(),
        color: arguments.color,
    };
    let mut watcher = Watcher {
        refusals: Refusals::default(),
        looks: Arc::default(),
        thread: None,
    };
    let (status, report) = run::trace_for(&request, Some(&mut watcher))?;
    let looks = watcher.end();
    let Some(mut facts) = facts_of_trace(&report, &watcher.refusals) else {
        return Ok(status);
    };
    facts.subject.source = Source::Program;
    facts.missing.clear();
    facts.machine = here.machine();
    facts.oom_kills_before = oom_kills_before;
    facts.cgroup = cgroups(before, &looks, here.cgroups(None));
    last_look(&mut facts, &looks);
    facts.limits = watcher.refusals.limits_of(facts.subject.pid, facts.limits);
    if let Some(path) = &kept.path {
        name_owners(&mut facts, path);
    }
    tell(arguments, &facts, status)
}

/// Where the trace of a program is kept while it is explained: who called tells whose its memory is.
struct Kept {
    /// `None`: there is no room for one, and nothing is told of callers.
    path: Option<PathBuf>,
    /// A file without a name, gone with this.
    _unnamed: Option<File>,
}

impl Kept {
    fn new(asked: Option<&Path>) -> Kept {
        if let Some(path) = asked {
            return Kept {
                path: Some(path.to_owned()),
                _unnamed: None,
            };
        }
        let mut options = File::options();
        options.read(true).write(true).mode(0o600);
        options.custom_flags(libc::O_TMPFILE);
        let unnamed = options.open(std::env::temp_dir()).ok();
        let path = |file: &File| {
            let number = file.as_raw_fd();
            PathBuf::from(format!("/proc/self/fd/{number}"))
        };
        Kept {
            path: unnamed.as_ref().map(path),
            _unnamed: unnamed,
        }
    }
}

/// Says whose the bytes of the explained space are, from all that the trace tells; what cannot be
/// read a second time stays as it was.
fn name_owners(facts: &mut Facts, path: &Path) {
    let (Some(id), Some(split)) = (
        facts.subject.space,
        facts.space.as_mut().and_then(|space| space.split.as_mut()),
    ) else {
        return;
    };
    let filter = || Filter {
        spaces: vec![id],
        ..Filter::default()
    };
    let read = || -> Option<Vec<Owner>> {
        let tell = |sink: &mut dyn Sink| {
            let source = &mut *open_silently(path).ok()?;
            follow(source, Stop::End, sink).ok()
        };
        let ahead = Ahead::read(&mut *open_silently(path).ok()?).ok()?;
        let mut names = TraceNames::of(path);
        let table = Table::of(By::Kind, filter()).knowing(ahead);
        let mut table = table.named_by(Box::new(names.clone()));
        tell(&mut table)?;
        let mut lives = LivesSink::new(filter());
        tell(&mut lives)?;
        Some(owners_of_kinds(
            &table.into_table(),
            &lives.into_lives(&mut names),
        ))
    };
    if let Some(owners) = read() {
        let sum: Bytes = owners
            .iter()
            .map(|owner| owner.reserved + owner.committed)
            .sum();
        if sum == split.reserved.now + split.committed.now {
            split.owners = owners;
        }
    }
}

/// The cgroups when they were fullest, with the counters of the end.
fn cgroups(before: Option<Cgroups>, looks: &Looks, after: Option<Cgroups>) -> Option<Cgroups> {
    let mut cgroups = after?;
    let fullest = looks.fullest.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fullest) = fullest.as_ref() {
        for (level, full) in cgroups.levels.iter_mut().zip(&fullest.levels) {
            *level = full.counted_later(level);
        }
    }
    cgroups.before = before.map(|before| before.levels).unwrap_or_default();
    Some(cgroups)
}

/// What only the status of the living process tells.
fn last_look(facts: &mut Facts, looks: &Looks) {
    let statuses = looks
        .statuses
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let Some((_, last)) = statuses.iter().find(|(pid, _)| *pid == facts.subject.pid) else {
        return;
    };
    let memory = &mut facts.memory;
    let Memory {
        swap,
        hugetlb,
        locked,
        ..
    } = last.memory;
    (memory.hugetlb, memory.locked) = (hugetlb, locked);
    memory.swap = memory.swap.or(swap);
    // Unseen at its end, it was seen before.
    memory.resident = memory.resident.or(last.memory.resident);
    memory.anon = memory.anon.or(last.memory.anon);
    memory.file = memory.file.or(last.memory.file);
    memory.shmem = memory.shmem.or(last.memory.shmem);
    // The kernel takes the memory of what it kills for want of memory before the process ends.
    if let State::Ended(TaskEnd::Killed { .. }) = facts.subject.state {
        memory.anon = memory.anon.max(last.memory.anon);
    }
    if let Some(space) = &mut facts.space {
        space.page_tables = last.page_tables;
    }
    if let Some(limits) = last.limits {
        facts.limits = limits;
    }
}

/// Prints what is known and what follows; the exit status.
fn tell(arguments: &Explain, facts: &Facts, status: i32) -> Result<i32, Failure> {
    let verdict = verdict(facts);
    let launched = facts.subject.source == Source::Program;
    let written = if arguments.json {
        let value = export::explain::explanation(facts, &verdict);
        let mut out = io::stdout().lock();
        writeln!(out, "{}", json::pretty_text(&value)).and_then(|()| out.flush())
    } else if launched {
        let style = style_for(arguments.color, io::stderr());
        let mut err = io::BufWriter::new(io::stderr().lock());
        let _ = write_explanation(&mut err, facts, &verdict, &style).and_then(|()| err.flush());
        Ok(())
    } else {
        let style = style_for(arguments.color, io::stdout());
        let mut out = io::BufWriter::new(io::stdout().lock());
        write_explanation(&mut out, facts, &verdict, &style).and_then(|()| out.flush())
    };
    match written {
        Ok(()) => Ok(status),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(status),
        Err(error) => {
            let error = anyhow::Error::new(error).context("cannot write the explanation");
            Err(Failure::new(if launched { 125 } else { 2 }, error))
        }
    }
}

/// Follows a launched program: its events, and from a thread of its own what its cgroup counts.
struct Watcher {
    refusals: Refusals,
    looks: Arc<Looks>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread sees.
#[derive(Debug, Default)]
struct Looks {
    ended: AtomicBool,
    /// The process that got an address space last.
    pid: AtomicI32,
    fullest: Mutex<Option<Cgroups>>,
    statuses: Mutex<Vec<(Tid, Status)>>,
}

/// The last status of a process.
#[derive(Debug)]
struct Status {
    memory: Memory,
    page_tables: Option<Bytes>,
    limits: Option<Limits>,
}

/// Processes whose status is kept.
const STATUSES: usize = 64;

impl Looks {
    fn look(&self, here: &Outside) {
        if let Some(now) = here.cgroups(None) {
            let fullness = |all: &Cgroups| all.levels.iter().filter_map(Level::fullness).max();
            let mut fullest = self.fullest.lock().unwrap_or_else(PoisonError::into_inner);
            if fullest
                .as_ref()
                .is_none_or(|known| fullness(known) <= fullness(&now))
            {
                *fullest = Some(now);
            }
        }
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = Tid(self.pid.load(Ordering::Acquire));
        if statuses.len() < STATUSES && statuses.iter().all(|(pid, _)| *pid != newest) {
            let empty = Status {
                memory: Memory::default(),
                page_tables: None,
                limits: None,
            };
            statuses.push((newest, empty));
        }
        for (pid, status) in statuses.iter_mut() {
            let Some(text) = here.status(*pid) else {
                continue;
            };
            let (memory, space) = memory_of_status(&text);
            if let (Some(space), Some(_)) = (space, key_value(&text, "VmRSS:")) {
                status.memory = memory;
                status.page_tables = space.page_tables;
                status.limits = here.limits(*pid).ok();
            }
        }
    }
}

impl Watcher {
    /// Ends the thread; what it saw.
    fn end(&mut self) -> Arc<Looks> {
        self.looks.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        Arc::clone(&self.looks)
    }

    /// Only once something was launched: a process with threads must not fork.
    fn start(&mut self) {
        let looks = Arc::clone(&self.looks);
        let named = thread::Builder::new().name("looks".into());
        self.thread = named
            .spawn(move || {
                let here = Outside::here();
                while !looks.ended.load(Ordering::Acquire) {
                    looks.look(&here);
                    thread::park_timeout(LOOK_EVERY);
                }
            })
            .ok();
    }
}

impl Sink for Watcher {
    fn observation(&mut self, observation: &Observation) -> io::Result<()> {
        self.refusals.observation(observation)
    }

    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        if let EventKind::SpaceBegan { .. } = event.kind {
            self.looks.pid.store(event.pid.0, Ordering::Release);
            if self.thread.is_none() {
                self.start();
            }
        }
        self.refusals.event(event, timeline)
    }
}
