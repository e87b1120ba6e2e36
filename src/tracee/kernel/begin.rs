//! How watching begins: a launch that nothing stops, or a look at what runs already.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::abi::{Abi, call_info};
use crate::timeline::{Began, Observed, SpaceBegan, TaskOrigin};
use crate::units::{SpaceId, Tid};

use super::super::error::TraceError;
use super::super::launch::{self, Program};
use super::super::lives::cheap_to_walk;
use super::super::supervisor::Options;
use super::super::{procfs, sys};
use super::observer::{KernelObserver, PAUSE};
use super::record::What;
use super::rings::{Rings, SLACK, now};
use super::state::{First, Space, Task};
use super::stop::{PATIENCE, while_stopped};

/// What the first look at a process tells.
#[derive(Debug)]
pub(super) struct Seen {
    pub tasks: Vec<(Tid, std::sync::Arc<str>)>,
    pub known: bool,
    pub first: First,
}

/// A first look is tried so often, and a stop for it so often: whom that could not stop (another
/// tracer has it, or a call that nothing interrupts), more stops only disturb.
const TRIES: u32 = 50;
const STOPS: u32 = 2;
/// Nor for longer than this: what was seen then is compared as soon as there is a quiet moment.
const TRYING: Duration = Duration::from_secs(3);

impl KernelObserver {
    /// Launches `program`, which is never stopped. Must be called while memtrace has one thread.
    pub fn launch(
        options: Options,
        program: &Program,
        rings: Rings,
    ) -> Result<KernelObserver, TraceError> {
        let epoch = now();
        let mut started = launch::fork(program, &[])?;
        let mut observer = KernelObserver::new(options, rings, epoch)?;
        let pid = started.launching.pid;
        let task = Task::new(pid, SpaceId(0), "".into());
        observer.tasks.insert(pid, task);
        observer.rings.watched.insert(pid);
        observer.rings.record_stacks(pid)?;
        observer.launched = Some(pid);
        started.go()?;
        observer.launching = Some(started.launching);
        Ok(observer)
    }

    /// Begins to observe every task of the processes. Those that cannot be are reported; it fails
    /// if none can.
    pub fn attach(
        options: Options,
        pids: &[Tid],
        rings: Rings,
    ) -> Result<(KernelObserver, Vec<TraceError>), TraceError> {
        let mut observer = KernelObserver::new(options, rings, now())?;
        let mut refused = Vec::new();
        let mut chosen = Vec::new();
        for &pid in pids {
            match process(pid) {
                Ok(pid) if chosen.contains(&pid) => {}
                Ok(pid) => chosen.push(pid),
                Err(error) => refused.push(error),
            }
        }
        if chosen.is_empty() {
            return Err(refused.pop().unwrap_or(TraceError::Attach {
                pid: Tid(0),
                reason: "no process was named".into(),
            }));
        }
        observer.rings.watched.extend(&chosen);
        let tracers: Vec<(Tid, Tid)> = chosen.iter().filter_map(|&pid| tracer(pid)).collect();
        observer.record_stacks(&chosen)?;
        observer.first_looks(&chosen);
        for (pid, tracer) in tracers {
            let text = format!(
                "process {pid} is traced by {} ({tracer}): its maps are read without stopping it",
                procfs::comm(tracer)
            );
            let space = observer.tasks.get(&pid).map(|task| task.space);
            observer.push(observer.start, Observed::Note { space, text });
        }
        Ok((observer, refused))
    }

    /// Lets the stacks of all their tasks be recorded, where they are wanted. A thread that is made
    /// meanwhile has this from its maker, if that had it by then.
    fn record_stacks(&mut self, pids: &[Tid]) -> Result<(), TraceError> {
        let mut recorded = BTreeSet::new();
        loop {
            let tasks = pids.iter().flat_map(|&pid| procfs::tasks(pid));
            let new: Vec<Tid> = tasks
                .flatten()
                .filter(|tid| recorded.insert(*tid))
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            for tid in new {
                self.rings.record_stacks(tid)?;
            }
        }
    }

    /// Looks at the processes until a look shows one moment.
    fn first_looks(&mut self, pids: &[Tid]) {
        let mut in_call = BTreeSet::new();
        let until = Instant::now() + TRYING;
        for tried in 0..TRIES {
            let stopped = if tried < STOPS { pids } else { &[] };
            let looked = while_stopped(stopped, PATIENCE * (1 << tried.min(STOPS)), || {
                let began = now();
                let seen: Vec<(Tid, Seen)> = pids
                    .iter()
                    .filter_map(|&pid| Some((pid, see(pid)?)))
                    .collect();
                (began, now(), seen)
            });
            let Some(((began, ended, seen), _)) = looked else {
                continue;
            };
            let quiet = self.was_quiet(began, ended, &mut in_call);
            if quiet || tried + 1 == TRIES || until < Instant::now() {
                self.start = ended;
                self.pass_over_children(pids);
                return self.begin_attached(began, seen, quiet);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether no record of a watched process tells of anything between two moments. Who is in a
    /// memory call is kept from one try to the next.
    fn was_quiet(&mut self, began: u64, ended: u64, in_call: &mut BTreeSet<Tid>) -> bool {
        let mut quiet = true;
        loop {
            let complete = self.drain_until(ended);
            while let Some(record) = self.rings.next() {
                if let What::Lost(_) = record.what {
                    // Who is in a call now, no record tells: a return without a begin will.
                    quiet = false;
                    in_call.clear();
                }
                if !self.rings.watched.contains(&record.pid) {
                    continue;
                }
                quiet &= record.time < began || ended < record.time;
                let memory = |nr| call_info(Abi::X86_64, nr).is_some();
                match record.what {
                    What::Enter { nr, .. } if record.time < began && memory(nr) => {
                        in_call.insert(record.tid);
                    }
                    What::Exit { .. } if record.time < began => {
                        in_call.remove(&record.tid);
                    }
                    What::Ended { tid, .. } => {
                        in_call.remove(&tid);
                    }
                    _ => {}
                }
            }
            if complete {
                break;
            }
            std::thread::sleep(Duration::from_nanos(SLACK));
        }
        quiet && in_call.is_empty()
    }

    /// Reads records up to `time`, of which none later is handed on. Whether those are all.
    pub(super) fn drain_until(&mut self, time: u64) -> bool {
        let execs = self.rings.drain();
        self.look_early(execs);
        let complete = time <= self.rings.horizon;
        self.rings.horizon = self.rings.horizon.min(time);
        complete
    }

    fn begin_attached(&mut self, time: u64, seen: Vec<(Tid, Seen)>, quiet: bool) {
        let mut spaces: Vec<(Tid, SpaceId)> = Vec::new();
        for (pid, seen) in seen {
            // A vfork child, say, shares the space of a process already looked at.
            let shared = spaces
                .iter()
                .find(|(other, _)| sys::same_space(*other, pid) == Some(true));
            let id = match shared {
                Some(&(_, id)) => id,
                None => {
                    let First {
                        snapshot,
                        exe,
                        brk_start,
                        read_implies_exec,
                    } = seen.first;
                    let id = self.new_space(Space {
                        known: seen.known,
                        exe: exe.clone(),
                        brk_start,
                        read_implies_exec,
                        doubt: !quiet,
                        ..Space::default()
                    });
                    self.push(
                        time,
                        Observed::SpaceBegan(SpaceBegan {
                            space: id,
                            pid,
                            began: Began::Attach,
                            exe,
                            snapshot,
                            known: seen.known,
                            brk_start,
                            read_implies_exec,
                        }),
                    );
                    id
                }
            };
            spaces.push((pid, id));
            for (tid, comm) in seen.tasks {
                let task = Task::new(pid, id, comm);
                self.add_task(time, tid, task, None, TaskOrigin::Attach);
            }
        }
    }
}

pub(super) fn see(pid: Tid) -> Option<Seen> {
    let tasks = procfs::tasks(pid).ok()?;
    let tasks: Vec<_> = tasks
        .into_iter()
        .map(|tid| (tid, procfs::comm(tid)))
        .collect();
    let smaps = cheap_to_walk(pid)
        .then(|| procfs::smaps(pid).ok())
        .flatten();
    let map = smaps.or_else(|| procfs::maps(pid).ok());
    (!tasks.is_empty()).then(|| Seen {
        tasks,
        known: map.is_some(),
        first: First {
            snapshot: map.unwrap_or_default(),
            exe: procfs::exe(pid),
            brk_start: procfs::brk_start(pid),
            read_implies_exec: procfs::read_implies_exec(pid),
        },
    })
}

/// Who traces the process, with it.
fn tracer(pid: Tid) -> Option<(Tid, Tid)> {
    let tracer = procfs::Status::read(pid).ok()?.number("TracerPid")?;
    (tracer != 0).then_some((pid, Tid(tracer as i32)))
}

/// The process that is meant, if it can be observed.
fn process(pid: Tid) -> Result<Tid, TraceError> {
    let refuse = |reason: &str| TraceError::Attach {
        pid,
        reason: reason.to_owned(),
    };
    if pid == Tid(std::process::id() as i32) {
        return Err(refuse("that is memtrace itself"));
    }
    let status = procfs::Status::read(pid).map_err(|_| refuse("no such process"))?;
    let pid = status.number("Tgid").map_or(pid, |pid| Tid(pid as i32));
    if procfs::state(pid) == Some(b'Z') && status.number("Threads") == Some(1) {
        return Err(refuse(
            "it has ended already and waits to be reaped (a zombie)",
        ));
    }
    if status.number("VmSize").is_none() && procfs::exe(pid).is_empty() {
        return Err(refuse("it is a kernel thread, which has no address space"));
    }
    if procfs::is_32_bit(pid) {
        return Err(refuse(
            "it is a 32-bit program, whose calls the kernel's tracepoints do not show: use \
             --backend ptrace",
        ));
    }
    match procfs::maps(pid) {
        Ok(_) => Ok(pid),
        Err(error) => Err(refuse(&format!(
            "its maps cannot be read ({error}): run as root (CAP_SYS_PTRACE)"
        ))),
    }
}
