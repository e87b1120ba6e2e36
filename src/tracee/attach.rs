//! Attaching to running processes, and letting them go unharmed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::timeline::{Began, CheckCause, Ended, Observed, TaskEnd, TaskOrigin};
use crate::units::{SpaceId, Tid};

use super::control::Control;
use super::error::TraceError;
use super::launch::ptrace_options;
use super::supervisor::{Deliver, Options, Stops, Supervisor};
use super::sys::{self, Waited};
use super::{memory, procfs};

/// How long to wait for tasks to stop. Only a task in an uninterruptible sleep takes longer.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Attaches to every task of the processes. Those that refuse are reported; it fails if none
    /// could be attached to.
    pub fn attach(
        options: Options,
        pids: &[Tid],
    ) -> Result<(Supervisor, Vec<TraceError>), TraceError> {
        let options = Options {
            stops: Stops::Syscall,
            ..options
        };
        let control = Control::start().map_err(|source| TraceError::Request {
            request: "starting a thread",
            tid: None,
            source,
        })?;
        let epoch = Instant::now();
        let mut supervisor = Supervisor::new(options, control, epoch);
        let mut refused = Vec::new();
        let mut seized = BTreeMap::new();
        for &pid in pids {
            match seize_process(pid, &mut seized) {
                Ok(()) => {}
                Err(error) => refused.push(error),
            }
        }
        if seized.is_empty() {
            return Err(refused.pop().unwrap_or(TraceError::Attach {
                pid: Tid(0),
                reason: "no process was named".into(),
            }));
        }
        supervisor.stop_and_look(seized)?;
        Ok((supervisor, refused))
    }

    /// Stops every task, reads the maps while all stand still, and lets them go on under tracing.
    fn stop_and_look(&mut self, mut seized: BTreeMap<Tid, Tid>) -> Result<(), TraceError> {
        for &tid in seized.keys() {
            let _ = ptrace::interrupt(Pid::from_raw(tid.0));
        }
        let mut stops: Vec<(Tid, i32)> = Vec::new();
        let mut stopped = BTreeSet::new();
        let began = Instant::now();
        // Threads created meanwhile are seized by the kernel (PTRACE_O_TRACECLONE), and stop.
        while seized.keys().any(|tid| !stopped.contains(tid)) {
            if STOP_PATIENCE < began.elapsed() {
                let text = "a task did not stop in time (an uninterruptible sleep?): the first \
                            look at its space may be inexact"
                    .to_owned();
                self.push(Observed::Note { space: None, text });
                break;
            }
            self.control.hurry(true);
            let waited = self
                .waiter
                .wait(seized.len())
                .map_err(|source| TraceError::Request {
                    request: "wait4",
                    tid: None,
                    source,
                })?;
            self.control.forget_tick();
            match waited {
                Waited::Status { tid, status } if libc::WIFSTOPPED(status) => {
                    seized.entry(tid).or_insert_with(|| process_of(tid));
                    stopped.insert(tid);
                    stops.push((tid, status));
                }
                Waited::Status { tid, .. } => {
                    seized.remove(&tid);
                    stopped.remove(&tid);
                    stops.retain(|(stopped, _)| *stopped != tid);
                }
                Waited::NoChild => break,
                Waited::Nothing | Waited::Interrupted => {}
            }
        }
        self.first_look(&seized);
        for (tid, status) in stops {
            let interrupted =
                status >> 16 == sys::EVENT_STOP && libc::WSTOPSIG(status) == libc::SIGTRAP;
            if let Some(task) = self.tables.tasks.get_mut(&tid) {
                task.may_rewind = interrupted;
            }
            self.status(tid, status)?;
        }
        Ok(())
    }

    /// Everything stands still: makes the spaces and the tasks.
    fn first_look(&mut self, seized: &BTreeMap<Tid, Tid>) {
        let mut spaces: BTreeMap<Tid, SpaceId> = BTreeMap::new();
        for (&tid, &pid) in seized {
            let space = match spaces.get(&pid) {
                Some(&space) => space,
                None => {
                    // A vfork child, say, shares the space of a process already looked at.
                    let shared = spaces
                        .iter()
                        .find(|(other, _)| sys::same_space(**other, tid) == Some(true));
                    let space = match shared {
                        Some((_, &space)) => space,
                        None => self.begin_space(tid, pid, Began::Attach),
                    };
                    spaces.insert(pid, space);
                    space
                }
            };
            self.add_task(tid, pid, space, None, TaskOrigin::Attach);
        }
    }

    /// Lets every tracee go: each is stopped first, so that the map can be compared a last time.
    pub(super) fn let_all_go(&mut self, deliver: &mut Deliver<'_>) -> Result<(), TraceError> {
        self.holding = true;
        let began = Instant::now();
        self.interrupt_all();
        loop {
            let moving = self
                .tables
                .tasks
                .values()
                .any(|t| t.held.is_none() && !t.waiting);
            if !moving && self.announced.is_empty() {
                break;
            }
            if STOP_PATIENCE < began.elapsed() {
                break;
            }
            self.control.hurry(true);
            let waited = self
                .waiter
                .wait(self.tables.tasks.len())
                .map_err(|source| TraceError::Request {
                    request: "wait4",
                    tid: None,
                    source,
                })?;
            self.control.forget_tick();
            match waited {
                Waited::Status { tid, status } => {
                    let interrupted =
                        status >> 16 == sys::EVENT_STOP && libc::WSTOPSIG(status) == libc::SIGTRAP;
                    let mut torn = false;
                    if let Some(task) = self.tables.tasks.get_mut(&tid) {
                        task.may_rewind = interrupted && task.interrupted;
                        // Torn by our request, a call reaches its exit stop before the stop asked for.
                        let at_call = status >> 8 == libc::SIGTRAP | 0x80;
                        torn = at_call && task.interrupted;
                    }
                    self.status(tid, status)?;
                    if torn {
                        memory::rewind_interrupted(tid);
                    }
                }
                Waited::NoChild => break,
                Waited::Nothing | Waited::Interrupted => {
                    self.adopt_parked();
                }
            }
            deliver(&mut self.out, false);
            self.out.clear();
        }
        self.last_look();
        self.detach_all();
        self.let_go = true;
        Ok(())
    }

    fn interrupt_all(&mut self) {
        for (tid, task) in &mut self.tables.tasks {
            if !task.waiting && !task.exiting && task.held.is_none() {
                task.interrupted = true;
                let _ = ptrace::interrupt(Pid::from_raw(tid.0));
            }
        }
    }

    fn last_look(&mut self) {
        let mut seen = HashSet::new();
        let spaces: Vec<(SpaceId, Tid)> = self
            .tables
            .tasks
            .iter()
            .filter(|(_, task)| !task.exiting && seen.insert(task.space))
            .map(|(&tid, task)| (task.space, tid))
            .collect();
        for (space, tid) in spaces {
            // What was at its entry will run when we are gone; what is in the kernel may have run.
            let cut: Vec<Tid> = self
                .tables
                .spaces
                .get(&space)
                .map(|space| space.in_flight.iter().map(|running| running.tid).collect())
                .unwrap_or_default();
            for running in cut {
                self.cut_short(running);
            }
            self.report_all_held_back(space);
            self.final_look(tid, space, CheckCause::Detach);
        }
    }

    fn cut_short(&mut self, tid: Tid) {
        let Some(task) = self.tables.tasks.get_mut(&tid) else {
            return;
        };
        let space = task.space;
        // At its entry stop it has not begun.
        let at_entry = task.held.is_some();
        if let Some(call) = task.call.take()
            && !at_entry
        {
            self.push(Observed::CallCut {
                tid,
                space,
                entered: call.entered,
                call: call.call,
                fetched: call.fetched,
            });
        }
    }

    fn detach_all(&mut self) {
        let tids: Vec<(Tid, Option<i32>)> = self
            .tables
            .tasks
            .iter()
            .map(|(&tid, task)| (tid, task.held))
            .collect();
        for (tid, held) in tids {
            let _ = sys::detach(tid, held.unwrap_or(0));
            self.push(Observed::TaskEnded {
                tid,
                end: TaskEnd::Gone,
            });
        }
        let spaces: BTreeSet<SpaceId> = self.tables.spaces.keys().copied().collect();
        for space in spaces {
            self.push(Observed::SpaceEnded {
                space,
                ended: Ended::Detach,
            });
        }
        for &tid in self.parked.keys() {
            let _ = sys::detach(tid, 0);
        }
        self.tables.tasks.clear();
        self.tables.spaces.clear();
    }
}

/// The process a task belongs to.
fn process_of(tid: Tid) -> Tid {
    let status = procfs::Status::read(tid).ok();
    status
        .and_then(|status| status.number("Tgid"))
        .map_or(tid, |pid| Tid(pid as i32))
}

/// Seizes every task of a process. Passes are made until one finds nothing new: threads may be
/// created all the while.
fn seize_process(pid: Tid, seized: &mut BTreeMap<Tid, Tid>) -> Result<(), TraceError> {
    let me = Tid(std::process::id() as i32);
    let refuse = |reason: String| TraceError::Attach { pid, reason };
    if pid == me {
        return Err(refuse("that is memtrace itself".into()));
    }
    let status = procfs::Status::read(pid).map_err(|_| refuse("no such process".into()))?;
    let pid = status.number("Tgid").map_or(pid, |tgid| Tid(tgid as i32));
    if status
        .get("State")
        .is_some_and(|state| state.starts_with('Z'))
        && status.number("Threads") == Some(1)
    {
        return Err(refuse(
            "it has ended already and waits to be reaped (a zombie)".into(),
        ));
    }
    let mut first_error = None;
    let before = seized.len();
    loop {
        let mut new = false;
        for tid in procfs::tasks(pid).unwrap_or_default() {
            if seized.contains_key(&tid) {
                continue;
            }
            match ptrace::seize(Pid::from_raw(tid.0), ptrace_options()) {
                Ok(()) => {
                    seized.insert(tid, pid);
                    new = true;
                }
                // Seized by the kernel with its creator, or gone.
                Err(nix::Error::EPERM) if traced_by(tid) == Some(me) => {
                    seized.insert(tid, pid);
                    new = true;
                }
                Err(nix::Error::ESRCH) => {}
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        if !new {
            break;
        }
    }
    match first_error {
        Some(error) if seized.len() == before => Err(refuse(why_refused(pid, &status, error))),
        None if seized.len() == before => Err(refuse("it ended while being attached to".into())),
        _ => Ok(()),
    }
}

fn traced_by(tid: Tid) -> Option<Tid> {
    let status = procfs::Status::read(tid).ok()?;
    status
        .number("TracerPid")
        .filter(|&pid| pid != 0)
        .map(|pid| Tid(pid as i32))
}

/// Why PTRACE_SEIZE was refused, and what to do about it (ptrace(2), "Ptrace access mode checking").
fn why_refused(pid: Tid, status: &procfs::Status, error: nix::Error) -> String {
    if error != nix::Error::EPERM {
        return error.desc().to_lowercase();
    }
    if let Some(tracer) = traced_by(pid) {
        let name = procfs::comm(tracer);
        return format!(
            "it is traced already, by {} (process {tracer}); a process has one tracer: end that one first",
            name.escape_default()
        );
    }
    if status.number("VmSize").is_none()
        && procfs::state(pid) != Some(b'Z')
        && procfs::exe(pid).is_empty()
    {
        return "it is a kernel thread, which has no address space".into();
    }
    let my_uid = nix::unistd::Uid::effective().as_raw();
    let uid = status.number("Uid").unwrap_or_default();
    if uid != u64::from(my_uid) && my_uid != 0 {
        return format!(
            "it belongs to user {uid} and you are {my_uid}: run memtrace as that user or as root \
             (CAP_SYS_PTRACE)"
        );
    }
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "1" => "Yama allows tracing of own children only (kernel.yama.ptrace_scope = 1): run as \
                root, set it to 0, or launch the program with memtrace"
            .into(),
        "2" => "Yama allows tracing by the administrator only (kernel.yama.ptrace_scope = 2): run \
                as root"
            .into(),
        "3" => "Yama forbids attaching (kernel.yama.ptrace_scope = 3, until the next boot)".into(),
        _ if my_uid == 0 => "permission denied, even to root: the process has capabilities that \
              memtrace lacks, belongs to another user namespace, or a security module protects it; \
              give memtrace CAP_SYS_PTRACE where the process runs (in a container: --cap-add \
              SYS_PTRACE)"
            .into(),
        _ => "permission denied: the process is protected (not dumpable, or with more \
              capabilities): run as root (CAP_SYS_PTRACE)"
            .into(),
    }
}

/// Whether a signal that the task does not block waits for it.
pub(super) fn signal_pending(tid: Tid) -> bool {
    let Ok(status) = procfs::Status::read(tid) else {
        return true;
    };
    let mask = |key| {
        status
            .get(key)
            .and_then(|bits| u64::from_str_radix(bits, 16).ok())
    };
    match (mask("SigPnd"), mask("ShdPnd"), mask("SigBlk")) {
        (Some(own), Some(shared), Some(blocked)) => (own | shared) & !blocked != 0,
        _ => true,
    }
}
