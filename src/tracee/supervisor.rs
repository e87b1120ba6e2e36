//! The event loop: one wait status in, observations out, the task resumed.
//!
//! What needs the stopped task is done between stop and resume; everything else (decoding, the
//! model, writing) happens in the sink while the tracees run. The rules of the slot are in
//! `slot.rs`, those of births and ends in `lives.rs`, attaching and detaching in `attach.rs`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::abi::CallKind;
use crate::decode::Want;
use crate::timeline::{Observation, Observed, SignalSeen, TaskEnd};
use crate::units::{AddrRange, SpaceId, Tid, Timestamp};

use super::control::{Control, Requests};
use super::error::TraceError;
use super::files::Files;
use super::lives::{Birth, Parked};
use super::memory;
use super::placement::Placement;
use super::state::Tables;
use super::sys::{self, Restart, Waited};
use super::wait::Waiter;

/// How memory calls are made to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stops {
    /// A seccomp filter stops exactly them. Only for a program that is launched and never let go.
    Seccomp,
    /// Every system call stops, twice.
    Syscall,
}

/// When the model is compared with the kernel's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// When a space ends.
    Exit,
    /// After every N layout-changing calls of a space; 1 is `--verify=every`.
    Every(u64),
}

/// What the user asked of the supervisor.
#[derive(Clone, Debug)]
pub struct Options {
    /// How memory calls stop. A launch falls back to [`Stops::Syscall`] where seccomp is missing.
    pub stops: Stops,
    /// Trace children too.
    pub follow: bool,
    /// When to compare.
    pub verify: Verify,
    /// Let everything go after this time.
    pub duration: Option<Duration>,
    /// Calls that stop although they do not by default.
    pub extra: Vec<CallKind>,
    /// Record who called.
    pub stacks: bool,
    /// Report calls when they start, too.
    pub announce_entries: bool,
    /// Hand observations on as soon as no stop is pending, rather than in batches: for a live view.
    pub prompt: bool,
    /// vm.overcommit_memory is 2.
    pub strict_overcommit: bool,
}

/// What the sink answers to a batch of observations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// Spaces whose model should be compared and corrected at the next quiet moment.
    pub recheck: Vec<SpaceId>,
}

/// Takes observations, in order. `idle` is true when no stop is pending: time to show things.
pub type Deliver<'a> = dyn FnMut(&mut Vec<Observation>, bool) -> Feedback + 'a;

/// How tracing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every tracee ended. For a launch: how the program did.
    Ended(Option<TaskEnd>),
    /// The tracees were let go and run on.
    LetGo,
}

/// Observations are handed on in batches of about this many.
const BATCH: usize = 512;
/// The same where each has a copy of a stack: so few that their memory is used again while it is near.
const BATCH_OF_STACKS: usize = 16;

/// The tracing thread's state. All requests must come from the thread that made it.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) options: Options,
    pub(super) stops: Stops,
    pub(super) tables: Tables,
    pub(super) out: Vec<Observation>,
    pub(super) control: Control,
    pub(super) placement: Option<Placement>,
    pub(super) epoch: Instant,
    /// New tasks whose parent's event has not come yet.
    pub(super) parked: HashMap<Tid, Parked>,
    /// New tasks whose own first stop has not come yet.
    pub(super) announced: HashMap<Tid, Birth>,
    /// The launched program until its first exec, and where its child process reports.
    pub(super) launching: Option<super::launch::Launching>,
    pub(super) launched: Option<Tid>,
    pub(super) launched_end: Option<TaskEnd>,
    /// Tasks stay in the stops they reach: attaching or detaching.
    pub(super) holding: bool,
    pub(super) deadline: Option<Instant>,
    pub(super) let_go: bool,
    stop_asked: Option<Instant>,
    interrupts: u32,
    pub(super) waiter: Waiter,
    pub(super) wants: Vec<Want>,
    pub(super) ranges: Vec<AddrRange>,
    files: Files,
    /// Files are looked for through the root directory of a process, which may end soon.
    pub(super) new_space: bool,
}

impl Supervisor {
    pub(super) fn new(options: Options, control: Control, epoch: Instant) -> Supervisor {
        Supervisor {
            stops: options.stops,
            deadline: None,
            options,
            tables: Tables::default(),
            out: Vec::new(),
            control,
            placement: Placement::new(),
            epoch,
            parked: HashMap::new(),
            announced: HashMap::new(),
            launching: None,
            launched: None,
            launched_end: None,
            holding: false,
            let_go: false,
            stop_asked: None,
            interrupts: 0,
            waiter: Waiter::new(),
            wants: Vec::new(),
            ranges: Vec::new(),
            files: Files::start(),
            new_space: false,
        }
    }

    /// How memory calls are stopped now.
    pub fn stops(&self) -> Stops {
        self.stops
    }

    /// Now, on the trace's clock.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.epoch.elapsed().as_nanos() as u64)
    }

    pub(super) fn push(&mut self, what: Observed) {
        let time = self.now();
        self.out.push(Observation { time, what });
    }

    /// Traces until every tracee has ended or was let go: for as long as was asked, from now on.
    pub fn run(&mut self, deliver: &mut Deliver<'_>) -> Result<Outcome, TraceError> {
        let duration = self.options.duration;
        self.deadline = duration.map(|duration| Instant::now() + duration);
        while !self.let_go {
            let batch = match self.options.stacks {
                true => BATCH_OF_STACKS,
                false => BATCH,
            };
            if batch <= self.out.len() || std::mem::take(&mut self.new_space) {
                self.deliver(deliver, false);
            }
            match self.next_status(deliver)? {
                Waited::Status { tid, status } => self.status(tid, status)?,
                Waited::NoChild => break,
                Waited::Nothing | Waited::Interrupted => {}
            }
            let requests = self.control.take();
            if requests.any() {
                self.requests(requests, deliver)?;
            }
        }
        if let Some(placement) = &mut self.placement {
            placement.release();
        }
        self.deliver(deliver, true);
        self.files.wait();
        self.deliver(deliver, true);
        match self.let_go {
            true => Ok(Outcome::LetGo),
            false => Ok(Outcome::Ended(self.launched_end)),
        }
    }

    fn deliver(&mut self, deliver: &mut Deliver<'_>, idle: bool) {
        self.files.look_for(&self.out);
        for seen in self.files.take() {
            self.push(Observed::File(seen));
        }
        let feedback = deliver(&mut self.out, idle);
        self.out.clear();
        for space in feedback.recheck {
            if let Some(space) = self.tables.spaces.get_mut(&space) {
                space.doubt = true;
                space.contradicted = true;
            }
        }
    }

    /// The next change of any tracee.
    fn next_status(&mut self, deliver: &mut Deliver<'_>) -> Result<Waited, TraceError> {
        let failed = |source| TraceError::Request {
            request: "wait4",
            tid: None,
            source,
        };
        let tracees = self.tables.tasks.len();
        if self.options.prompt && !self.out.is_empty() {
            match self.waiter.poll(tracees).map_err(failed)? {
                Waited::Nothing => self.deliver(deliver, true),
                known => return Ok(known),
            }
        }
        self.waiter.wait(tracees).map_err(failed)
    }

    /// One wait status: the table of cases 1.14a.
    pub(super) fn status(&mut self, tid: Tid, status: i32) -> Result<(), TraceError> {
        if libc::WIFEXITED(status) {
            self.ended(tid, TaskEnd::Exited(libc::WEXITSTATUS(status)))?;
            return Ok(());
        }
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            self.ended(
                tid,
                TaskEnd::Killed {
                    signal,
                    core: libc::WCOREDUMP(status),
                },
            )?;
            return Ok(());
        }
        if !libc::WIFSTOPPED(status) {
            return Ok(());
        }
        let signal = libc::WSTOPSIG(status);
        let event = status >> 16;
        if self
            .launching
            .as_ref()
            .is_some_and(|launching| launching.pid == tid)
        {
            return self.launching_stop(tid, signal, event);
        }
        if !self.tables.tasks.contains_key(&tid) {
            self.first_stop(tid, signal);
            return Ok(());
        }
        match event {
            0 if signal == libc::SIGTRAP | 0x80 => self.syscall_stop(tid),
            0 => self.signal_stop(tid, signal),
            libc::PTRACE_EVENT_SECCOMP => self.syscall_stop(tid),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.birth_event(tid, event);
            }
            libc::PTRACE_EVENT_EXEC => self.exec_event(tid),
            libc::PTRACE_EVENT_EXIT => self.exit_event(tid),
            sys::EVENT_STOP => self.event_stop(tid, signal),
            _ => self.resume(tid, 0),
        }
        Ok(())
    }

    /// Lets a stopped task go on, delivering `signal` unless it is 0.
    pub(super) fn resume(&mut self, tid: Tid, signal: i32) {
        let Some(task) = self.tables.tasks.get_mut(&tid) else {
            return;
        };
        if self.holding {
            task.held = Some(signal);
            return;
        }
        let how = match task.call {
            // The exit stop is lost unless every restart on the way asks for it.
            Some(_) => Restart::Syscall,
            None if self.stops == Stops::Syscall && !task.exiting => Restart::Syscall,
            None => Restart::Cont,
        };
        // ESRCH: SIGKILL came first (ptrace(2), "Death under ptrace"); its end will be reported.
        let _ = sys::restart(tid, how, signal);
    }

    fn signal_stop(&mut self, tid: Tid, signal: i32) {
        let info = sys::signal_info(tid).unwrap_or_default();
        self.push(Observed::Signal(SignalSeen {
            tid,
            signal,
            stopped: false,
            code: info.code,
            errno: info.errno,
            fields: info.fields,
        }));
        self.resume(tid, signal);
    }

    /// PTRACE_EVENT_STOP: a group stop, the end of one, our own PTRACE_INTERRUPT, or a first stop.
    pub(super) fn event_stop(&mut self, tid: Tid, signal: i32) {
        let group_stop = matches!(
            signal,
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU
        );
        let Some(task) = self.tables.tasks.get_mut(&tid) else {
            return;
        };
        task.interrupted = false;
        if !group_stop {
            task.listening = false;
            let rewind = std::mem::take(&mut task.may_rewind);
            if rewind {
                memory::rewind_interrupted(tid);
            }
            return self.resume(tid, 0);
        }
        task.listening = true;
        if self.holding {
            task.held = Some(0);
            return;
        }
        let _ = sys::restart(tid, Restart::Listen, 0);
        self.push(Observed::Signal(SignalSeen {
            tid,
            signal,
            stopped: true,
            code: 0,
            errno: 0,
            fields: [0; 4],
        }));
        self.stop_with_program();
    }

    /// Ctrl-Z reached memtrace and stopped the program: stop too, so that the shell sees its job
    /// stopped. Its SIGCONT goes to the whole group and wakes both.
    fn stop_with_program(&mut self) {
        let recent = |at: &Instant| at.elapsed() < Duration::from_secs(5);
        let stopped = self
            .tables
            .tasks
            .values()
            .any(|t| Some(t.pid) == self.launched && t.listening);
        if stopped && self.stop_asked.take_if(|at| recent(at)).is_some() {
            if let Some(placement) = &mut self.placement {
                placement.release();
            }
            let _ = sys::kill(Tid(std::process::id() as i32), libc::SIGSTOP);
        }
    }

    fn requests(
        &mut self,
        requests: Requests,
        deliver: &mut Deliver<'_>,
    ) -> Result<(), TraceError> {
        if requests.stop() {
            self.stop_asked = Some(Instant::now());
            self.deliver(deliver, true);
            self.stop_with_program();
        }
        if requests.end() || requests.forward().next().is_some() {
            match self.launched {
                None => return self.let_all_go(deliver),
                Some(program) => self.pass_on(program, requests),
            }
        }
        if self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now())
        {
            return self.let_all_go(deliver);
        }
        if requests.tick() {
            self.tick();
            self.deliver(deliver, true);
        }
        Ok(())
    }

    /// A signal meant for a launched program was sent to memtrace instead.
    fn pass_on(&mut self, program: Tid, requests: Requests) {
        if self.launched_end.is_none() {
            for signal in requests.forward() {
                let _ = sys::kill(program, signal);
            }
            return;
        }
        // The program is gone, its children live on: the signal is theirs, and asking twice ends
        // the wait for them (they die with us: PTRACE_O_EXITKILL).
        self.interrupts += 1;
        let signal = requests.forward().next().unwrap_or(libc::SIGINT);
        let signal = if 1 < self.interrupts {
            libc::SIGKILL
        } else {
            signal
        };
        let mut pids: Vec<Tid> = self.tables.tasks.values().map(|task| task.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        for pid in pids {
            let _ = sys::kill(pid, signal);
        }
    }

    fn tick(&mut self) {
        let waiting = self.free_overdue_slots();
        let parked = self.adopt_parked();
        let near =
            |at: Instant| at.saturating_duration_since(Instant::now()) < Duration::from_millis(200);
        self.control
            .hurry(waiting || parked || self.deadline.is_some_and(near));
        self.sample_all();
    }
}
