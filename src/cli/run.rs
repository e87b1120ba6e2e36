//! The pipeline of a trace: supervisor → observations → trace file and timeline → events → sinks.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::abi::{CALLS, CallKind, CallSet, Prot};
use crate::mm::{AddressSpace, Backing, Vma};
use crate::report::{Report, Summary};
use crate::symbol::names::{Home, LiveNames, Roots, Whose};
use crate::symbol::unwind::Unwinder;
use crate::term::{Size, write_summary};
use crate::timeline::{
    Began, Event, NamesSeen, Observation, Observed, Sink, Stack, TaskEnd, Timeline, TraceInfo,
};
use crate::tracee::{Feedback, Options, Outcome, Stops, environment, host, own_memory, reuse};
use crate::units::{AddrRange, SpaceId, Tid, Timestamp};

use super::args::{Format, Quiet, Target, Trace, Verify};
use super::{Failure, one_line};

mod apart;
mod observer;
mod outputs;

use observer::{Observer, begin, refused, rings};
use outputs::Outputs;
pub(super) use outputs::{Stacks, live};

/// A trace file reaches the disk at least this often.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Names of so many frames are one record of a trace.
const NAMES_IN_ONE: usize = 512;

/// Traces as asked; the exit status of memtrace.
pub fn trace(trace: &Trace) -> Result<i32, Failure> {
    trace_for(trace, None).map(|(status, _)| status)
}

/// The same, with every observation and event given to `watcher` too; the exit status and what the
/// summary tells.
pub(super) fn trace_for(
    trace: &Trace,
    watcher: Option<&mut (dyn Sink + Send)>,
) -> Result<(i32, Report), Failure> {
    let shown = trace.shown;
    let mut info = header(trace);
    if info.page_size != crate::units::PAGE as u32 {
        let error = anyhow!(
            "pages of {} bytes: memtrace knows only x86-64's of 4096",
            info.page_size
        );
        return Err(Failure::new(125, error));
    }
    let options = options(trace, shown, &info);
    let (rings, chosen) = rings(trace, &options)?;
    info.backend = match rings {
        Some(_) => "kernel".to_owned(),
        None => "ptrace".to_owned(),
    };
    info.stops = match (&rings, options.stops) {
        (Some(_), _) => "none: the kernel's tracepoints are read".to_owned(),
        (None, Stops::Seccomp) => "seccomp: only memory calls stop".to_owned(),
        (None, Stops::Syscall) => "syscall: every system call stops".to_owned(),
    };
    let names = trace.stacks.then(LiveNames::default);
    let outputs = Outputs::open(trace, shown, &info, names.as_ref())?;
    if trace.verbose {
        match rings {
            Some(_) => {
                let own = own_memory().map(|own| format!(", from rings of {}", Size(own.rings)));
                say(&format!(
                    "nothing is stopped: the kernel's tracepoints are read (kernel){}",
                    own.unwrap_or_default()
                ));
            }
            None => say(&format!("calls are stopped by {} (ptrace)", info.stops)),
        }
    }
    let mut observer = begin(trace, options, rings)?;
    if let Some(chosen) = chosen.filter(|_| trace.quiet == Quiet::No) {
        say(&chosen);
    }
    if let Some(names) = &names {
        names.start();
    }
    let mut pipeline = Pipeline::new(info, outputs, names, watcher);
    let outcome = match trace.stacks && pipeline.watcher.is_none() {
        true => apart::run(&mut observer, &mut pipeline),
        false => observer.run(&mut |observations, idle| pipeline.take(observations, idle)),
    };
    // The tracees are gone or free: nothing below can hurt them.
    let kernel = match observer {
        Observer::Ptrace(_) => None,
        Observer::Kernel(observer) => Some(observer),
    };
    let (failed, report) = pipeline.finish(trace.quiet == Quiet::All, trace.embed_symbols);
    if let Some(own) = own_memory().filter(|_| trace.verbose && kernel.is_some()) {
        let (peak, rings) = (Size(own.peak), Size(own.rings));
        say(&format!(
            "memory of its own: {peak} at most, and rings of {rings}"
        ));
    }
    drop(kernel);
    let outcome = outcome.map_err(refused)?;
    if failed {
        return Ok((125, report));
    }
    let status = match (&trace.target, outcome) {
        (Target::Launch(_), Outcome::Ended(Some(TaskEnd::Exited(status)))) => status,
        (Target::Launch(_), Outcome::Ended(Some(TaskEnd::Killed { signal, .. }))) => 128 + signal,
        _ => 0,
    };
    Ok((status, report))
}

/// One line of memtrace's own on stderr, whatever happens to it.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "memtrace: {}", one_line(text));
}

fn header(trace: &Trace) -> TraceInfo {
    let started = jiff::Timestamp::now();
    let started = started
        .round(jiff::Unit::Second)
        .unwrap_or(started)
        .to_string();
    let mut info = TraceInfo { started, ..host() };
    match &trace.target {
        Target::Launch(words) => {
            info.command = words
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
        }
        Target::Attach(pids) => info.attached = pids.clone(),
    }
    // A program that is launched has the limits and the cgroup of memtrace.
    info.environment = environment(info.attached.first().map(|&pid| Tid(pid)));
    info
}

fn options(trace: &Trace, shown: CallSet, info: &TraceInfo) -> Options {
    let launched = matches!(trace.target, Target::Launch(_));
    // A filter is for ever: what shall run on without us must never have one (cases, finding 4).
    let filter = launched && trace.duration.is_none() && trace.follow;
    let live = trace.quiet == Quiet::No || trace.log.is_some();
    let extra = |kind: &CallKind| shown.contains(*kind);
    Options {
        stops: if filter {
            Stops::Seccomp
        } else {
            Stops::Syscall
        },
        follow: trace.follow,
        verify: match trace.verify {
            Verify::AtEnd => crate::tracee::Verify::Exit,
            Verify::Every(calls) => crate::tracee::Verify::Every(calls),
        },
        duration: trace.duration,
        extra: CALLS
            .iter()
            .filter(|call| !call.default)
            .map(|call| call.kind)
            .filter(extra)
            .collect(),
        stacks: trace.stacks,
        announce_entries: live && trace.format == Format::Strace,
        prompt: trace.quiet == Quiet::No && trace.log.is_none(),
        strict_overcommit: info.overcommit == 2,
    }
}

/// Where code of that name is mapped.
fn code_of(path: &str, model: &AddressSpace) -> Option<AddrRange> {
    let is_it = |vma: &&Vma| {
        let name = match &vma.backing {
            Backing::File { name, .. } | Backing::Special { name } => &**name,
            Backing::Anon => return false,
        };
        vma.prot.contains(Prot::EXEC) && name == path
    };
    model.vmas().find(is_it).map(|vma| vma.range)
}

/// Takes observations and hands on events.
struct Pipeline<'a> {
    timeline: Timeline,
    summary: Summary,
    watcher: Option<&'a mut (dyn Sink + Send)>,
    outputs: Outputs,
    events: Vec<Event>,
    unwinder: Unwinder,
    told: Vec<Observed>,
    /// With stacks only.
    names: Option<LiveNames>,
    /// Where processes are at home whose spaces are about to begin.
    homes: HashMap<SpaceId, Home>,
    roots: Roots,
    flushed: Instant,
    /// When the last observation was made.
    last: Timestamp,
    /// The recording is incomplete.
    failed: bool,
}

impl<'a> Pipeline<'a> {
    fn new(
        info: TraceInfo,
        outputs: Outputs,
        names: Option<LiveNames>,
        watcher: Option<&'a mut (dyn Sink + Send)>,
    ) -> Pipeline<'a> {
        Pipeline {
            watcher,
            summary: Summary::new(info.clone()),
            timeline: Timeline::new(info),
            outputs,
            events: Vec::new(),
            unwinder: Unwinder::default(),
            told: Vec::new(),
            names,
            homes: HashMap::new(),
            roots: Roots::default(),
            flushed: Instant::now(),
            last: Timestamp::default(),
            failed: false,
        }
    }

    fn take(&mut self, observations: &mut Vec<Observation>, idle: bool) -> Feedback {
        for mut observation in observations.drain(..) {
            self.unwind(&mut observation);
            self.last = observation.time;
            self.observe(observation);
        }
        while let Some(names) = self.names.as_ref().and_then(LiveNames::take) {
            self.hold(names);
        }
        if idle {
            self.idle();
        }
        Feedback {
            recheck: self.timeline.take_rechecks(),
        }
    }

    /// Makes frames of the copy of a stack; what they refer to is told first.
    fn unwind(&mut self, observation: &mut Observation) {
        let (tid, space, stack) = match &mut observation.what {
            Observed::Call(call) => (call.tid, call.space, &mut call.stack),
            Observed::Touched(touched) => (touched.tid, touched.space, &mut touched.stack),
            _ => return,
        };
        let Stack::Raw(raw) = stack else { return };
        let Some(state) = self.timeline.spaces.get(&space) else {
            return;
        };
        let whose = (space, state.pid);
        let id = self
            .unwinder
            .unwind(raw, whose, &state.model, &mut self.told);
        if let Some(names) = &self.names {
            let pid = state.pid;
            let whose = Whose { tid, pid, space };
            let range = |path: &str| code_of(path, &state.model);
            names.told(&self.told, whose, raw, range);
        }
        if let Stack::Raw(raw) = std::mem::replace(stack, Stack::Known(id)) {
            reuse(*raw);
        }
        let time = observation.time;
        for what in std::mem::take(&mut self.told) {
            self.observe(Observation { time, what });
        }
    }

    /// Keeps names in the trace.
    fn hold(&mut self, names: NamesSeen) {
        let what = Observed::Names(names);
        let time = self.last;
        self.observe(Observation { time, what });
    }

    fn observe(&mut self, observation: Observation) {
        match (&self.names, &observation.what) {
            (Some(names), Observed::SpaceBegan(began)) => {
                let home = self.homes.remove(&began.space);
                let home = home.unwrap_or_else(|| Home::of(began.pid, began.pid, &mut self.roots));
                names.began(began, home);
            }
            (Some(names), what) => names.observe(what),
            (None, _) => {}
        }
        if let Some((writer, _)) = &mut self.outputs.file {
            let written = writer.observation(&observation);
            self.recorded(written);
        }
        if let Some(live) = &mut self.outputs.live
            && live.observation(&observation).is_err()
        {
            self.outputs.live = None;
        }
        if let Some(watcher) = &mut self.watcher {
            let _ = watcher.observation(&observation);
        }
        let begins = match &observation.what {
            Observed::SpaceBegan(began) if began.began == Began::Exec => Some(began.space),
            _ => None,
        };
        self.timeline.observe(observation, &mut self.events);
        let begins = begins.filter(|_| self.names.is_some());
        if let Some(state) = begins.and_then(|space| self.timeline.spaces.get(&space)) {
            self.unwinder.expect(state.pid, &state.model);
        }
        for event in self.events.drain(..) {
            let _ = self.summary.event(&event, &self.timeline);
            if let Some(watcher) = &mut self.watcher {
                let _ = watcher.event(&event, &self.timeline);
            }
            if let Some(live) = &mut self.outputs.live
                && live.event(&event, &self.timeline).is_err()
            {
                // Whoever read it is gone (EPIPE), or its disk is full: the trace goes on.
                self.outputs.live = None;
            }
        }
    }

    fn idle(&mut self) {
        if let Some(live) = &mut self.outputs.live
            && live.idle().is_err()
        {
            self.outputs.live = None;
        }
        if FLUSH_EVERY <= self.flushed.elapsed() {
            self.flushed = Instant::now();
            if let Some((writer, _)) = &mut self.outputs.file {
                let written = writer.flush();
                self.recorded(written);
            }
        }
    }

    /// A failure to record is said once; the writer keeps still from then on.
    fn recorded(&mut self, written: io::Result<()>) {
        if let (Err(error), Some((_, path))) = (written, &self.outputs.file) {
            self.failed = true;
            say(&format!(
                "cannot write to {}: {error}; what was recorded so far can be read, the program runs on",
                path.display()
            ));
        }
    }

    /// Names that must be in the trace because nothing will tell them later.
    fn keep_names(&mut self, silent: bool, embed: bool) {
        if self.outputs.file.is_none() {
            return;
        }
        let Some(names) = self.names.clone() else {
            return;
        };
        let (last, notes) = names.finish(embed);
        while let Some(names) = names.take() {
            self.hold(names);
        }
        for names in last.names.chunks(NAMES_IN_ONE) {
            let names = names.to_vec();
            self.hold(NamesSeen { names });
        }
        if !silent {
            notes.iter().for_each(|note| say(note));
        }
    }

    fn finish(mut self, silent: bool, embed: bool) -> (bool, Report) {
        self.keep_names(silent, embed);
        let mut after_live = false;
        if let Some(mut live) = self.outputs.live.take() {
            after_live = live.finish(&self.timeline).is_ok() && self.outputs.live_on_stderr;
        }
        if let Some((writer, path)) = self.outputs.file.take()
            && let Err(error) = writer.finish()
        {
            self.failed = true;
            say(&format!("cannot write to {}: {error}", path.display()));
        }
        let summary = self.summary.into_report();
        // Nothing was seen: an error will say why.
        if !silent && !summary.spaces.is_empty() {
            let mut err = io::BufWriter::new(io::stderr().lock());
            if after_live {
                let _ = writeln!(err);
            }
            let _ = write_summary(&mut err, &summary, &self.outputs.style);
            let _ = err.flush();
        }
        (self.failed, summary)
    }
}
