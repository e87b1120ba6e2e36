//! The loop: records in, observations out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::abi::{Abi, call_info};
use crate::mm::Snapshot;
use crate::timeline::{
    Began, Ended, Observation, Observed, Resident, SpaceBegan, TaskEnd, TaskOrigin,
};
use crate::units::{SpaceId, Tid, Timestamp};

use super::super::control::{Control, Requests};
use super::super::error::TraceError;
use super::super::files::Files;
use super::super::launch::{self, Launching, Program};
use super::super::lives::cheap_to_walk;
use super::super::supervisor::{Deliver, Options, Outcome};
use super::super::{procfs, sys};
use super::record::{Record, What};
use super::rings::{Rings, SLACK, now};
use super::state::{First, Item, Look, Space, Task};
use super::stop::while_stopped;

/// The time of a trace: since it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(u64);

impl Clock {
    pub(super) fn at(self, time: u64) -> Timestamp {
        Timestamp(time.saturating_sub(self.0))
    }
}

/// Records that are worked on before the rings are emptied again.
const BATCH: usize = 2048;
/// How long records are worked on before signals and the clock are looked at.
const TURN: Duration = Duration::from_millis(50);
/// A first look is tried so often, where a process cannot be stopped for it.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(5);

/// Observes through the kernel's tracepoints. Nothing that it observes is its tracee.
#[derive(Debug)]
pub struct KernelObserver {
    pub(super) options: Options,
    pub(super) rings: Rings,
    pub(super) clock: Clock,
    pub(super) tasks: HashMap<Tid, Task>,
    pub(super) spaces: BTreeMap<SpaceId, Space>,
    pub(super) last_space: u32,
    pub(super) queue: VecDeque<Item>,
    pub(super) looks: Vec<Look>,
    /// Looks at programs whose execve is still to be worked on.
    pub(super) early: HashMap<Tid, (u64, u64, First)>,
    /// How processes end that have called exit_group(2).
    pub(super) endings: HashMap<Tid, TaskEnd>,
    pub(super) launching: Option<Launching>,
    pub(super) launched: Option<Tid>,
    pub(super) launched_end: Option<TaskEnd>,
    out: Vec<Observation>,
    /// Records before this are of no interest: the first look knows better.
    start: u64,
    /// Records have been lost since the tasks were last counted.
    lost: bool,
    failed: Option<TraceError>,
    control: Control,
    files: Files,
    deadline: Option<Instant>,
    sampled: Instant,
    let_go: bool,
}

/// What the first look at a process tells.
struct Seen {
    tasks: Vec<(Tid, std::sync::Arc<str>)>,
    known: bool,
    first: First,
}

impl KernelObserver {
    fn new(options: Options, rings: Rings, epoch: u64) -> Result<KernelObserver, TraceError> {
        let control = Control::start().map_err(|source| TraceError::Request {
            request: "starting a thread",
            tid: None,
            source,
        })?;
        Ok(KernelObserver {
            deadline: options.duration.map(|duration| Instant::now() + duration),
            options,
            rings,
            clock: Clock(epoch),
            tasks: HashMap::new(),
            spaces: BTreeMap::new(),
            last_space: 0,
            queue: VecDeque::new(),
            looks: Vec::new(),
            early: HashMap::new(),
            endings: HashMap::new(),
            launching: None,
            launched: None,
            launched_end: None,
            out: Vec::new(),
            start: 0,
            lost: false,
            failed: None,
            control,
            files: Files::start(),
            sampled: Instant::now(),
            let_go: false,
        })
    }

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
        observer.first_looks(&chosen);
        Ok((observer, refused))
    }

    /// Looks at the processes until a look shows one moment.
    fn first_looks(&mut self, pids: &[Tid]) {
        for tried in 0..TRIES {
            let looked = while_stopped(pids, || {
                let began = now();
                let seen: Vec<(Tid, Seen)> = pids
                    .iter()
                    .filter_map(|&pid| Some((pid, see(pid)?)))
                    .collect();
                (began, now(), seen)
            });
            let Some((began, ended, seen)) = looked else {
                continue;
            };
            let quiet = self.was_quiet(began, ended);
            if quiet || tried + 1 == TRIES {
                self.start = ended;
                return self.begin_attached(began, seen, quiet);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether no record of a watched process tells of anything between two moments.
    fn was_quiet(&mut self, began: u64, ended: u64) -> bool {
        let mut in_call = BTreeSet::new();
        let mut quiet = true;
        loop {
            let complete = self.drain_until(ended);
            while let Some(record) = self.rings.next() {
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
    fn drain_until(&mut self, time: u64) -> bool {
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

    /// Something to tell.
    pub(super) fn push(&mut self, time: u64, what: Observed) {
        let time = self.clock.at(time);
        self.tell(Observation { time, what });
    }

    pub(super) fn tell(&mut self, observation: Observation) {
        self.queue.push_back(Item::Ready(observation));
    }

    /// Observes until every task has ended or was let go.
    pub fn run(&mut self, deliver: &mut Deliver<'_>) -> Result<Outcome, TraceError> {
        while !self.let_go {
            self.turn(deliver);
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.tasks.is_empty() {
                break;
            }
            let soon = self.look();
            let requests = self.control.take();
            if requests.any() {
                self.requests(requests, deliver);
            }
            if !self.let_go {
                let milliseconds = match () {
                    _ if self.rings.has_ready() => 0,
                    _ if !self.looks.is_empty() => 3,
                    _ if soon => 10,
                    _ if self.rings.is_behind() => 20,
                    _ => 500,
                };
                self.rings.wait(milliseconds);
            }
        }
        self.hand_on(deliver, true);
        self.files.wait();
        self.hand_on(deliver, true);
        match self.let_go {
            true => Ok(Outcome::LetGo),
            false => Ok(Outcome::Ended(self.launched_end)),
        }
    }

    /// Works on the records that have come, but not for so long that requests would wait.
    fn turn(&mut self, deliver: &mut Deliver<'_>) {
        let began = Instant::now();
        loop {
            let execs = self.rings.drain();
            self.look_early(execs);
            let mut count = 0;
            while count < BATCH
                && let Some(record) = self.rings.next()
            {
                self.record(record);
                count += 1;
            }
            self.hand_on(deliver, false);
            if count < BATCH || TURN < began.elapsed() {
                break;
            }
        }
        if std::mem::take(&mut self.lost) {
            self.count_tasks();
        }
        // Of these times, all has been worked on.
        let settled = self.rings.next_time().unwrap_or(u64::MAX);
        self.settle(settled.min(self.rings.horizon));
        self.finish_silent_execs();
        self.hand_on(deliver, true);
    }

    fn hand_on(&mut self, deliver: &mut Deliver<'_>, idle: bool) {
        while let Some(Item::Ready(_)) = self.queue.front()
            && let Some(Item::Ready(observation)) = self.queue.pop_front()
        {
            self.out.push(observation);
        }
        self.files.look_for(&self.out);
        for seen in self.files.take() {
            let time = self
                .out
                .last()
                .map_or_else(|| self.clock.at(now()), |last| last.time);
            let what = Observed::File(seen);
            self.out.push(Observation { time, what });
        }
        let feedback = deliver(&mut self.out, idle);
        self.out.clear();
        for space in feedback.recheck {
            if let Some(space) = self.spaces.get_mut(&space) {
                (space.doubt, space.contradicted) = (true, true);
            }
        }
    }

    fn record(&mut self, record: Record) {
        let Record {
            time,
            pid,
            tid,
            what,
        } = record;
        if let What::Lost(count) = what {
            return self.records_lost(time, count);
        }
        if time < self.start {
            return;
        }
        self.settle(time);
        let of_birth = matches!(what, What::Fork { .. } | What::NewTask { .. });
        if !of_birth
            && self
                .tasks
                .get(&tid)
                .is_some_and(|task| task.birth.is_some())
        {
            self.born(tid, None);
        }
        match what {
            What::Enter { nr, args } => self.enters(pid, tid, time, nr, args),
            What::Exit {
                nr: 59 | 322,
                result,
            } => self.exec_returns(tid, time, result),
            What::Exit { nr, result } => self.call_returns(tid, time, nr, result),
            What::NewTask { flags } => self.born(tid, Some(flags)),
            What::Signal(signal) => {
                if let Some(task) = self.tasks.get_mut(&tid) {
                    task.signal = Some(signal);
                }
            }
            What::Fork { pid, tid, ptid, .. } => self.forked(time, pid, tid, ptid),
            What::Ended { tid, .. } => self.ended(time, tid),
            What::Exec { pid, tid, comm } => self.exec_commits(time, pid, tid, &comm),
            What::Mapped(entry) => self.mapped(tid, entry),
            What::Lost(_) | What::Other => {}
        }
    }

    fn enters(&mut self, pid: Tid, tid: Tid, time: u64, nr: u32, args: [u64; 6]) {
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        let status = TaskEnd::Exited((args[0] & 0xff) as i32);
        match nr {
            56..=58 | 435 => task.cloning = Some(time),
            59 | 322 => self.exec_begins(tid),
            60 => task.exits = Some(status),
            231 => drop(self.endings.entry(pid).or_insert(status)),
            _ => self.call_begins(tid, time, nr, args),
        }
    }

    fn ended(&mut self, time: u64, tid: Tid) {
        if self
            .launching
            .as_ref()
            .is_some_and(|launching| launching.pid == tid)
        {
            self.failed = self.launch_failed();
            return;
        }
        self.task_ends(time, tid, None);
    }

    /// A 32-bit program begins without a word of its execve's return.
    fn finish_silent_execs(&mut self) {
        let horizon = self.rings.horizon;
        let silent = |task: &Task| {
            let committed = task.exec.as_ref().and_then(|exec| exec.committed.as_ref());
            committed.is_some_and(|(_, at)| at + 50_000_000 < horizon)
        };
        let silent: Vec<Tid> = self
            .tasks
            .iter()
            .filter(|(_, task)| silent(task))
            .map(|(&tid, _)| tid)
            .collect();
        for tid in silent {
            self.exec_returns(tid, horizon, 0);
        }
    }

    /// Nothing that is under way can be relied on; the kernel's maps put it right.
    fn records_lost(&mut self, time: u64, count: u64) {
        self.push(time, Observed::Lost(count));
        self.lost = true;
        for task in self.tasks.values_mut() {
            (task.call, task.cloning, task.birth) = (None, None, None);
        }
        let ids: Vec<SpaceId> = self.spaces.keys().copied().collect();
        for id in ids {
            self.begin_as_shown(id);
            self.release_all(id);
            if let Some(space) = self.spaces.get_mut(&id) {
                (space.doubt, space.contradicted) = (true, true);
                space.in_flight.clear();
                space.finished.clear();
            }
        }
        for look in &mut self.looks {
            look.torn = true;
        }
    }

    /// Which tasks there are, after records of births and ends may have been lost.
    fn count_tasks(&mut self) {
        let time = self.rings.horizon;
        let pids: BTreeSet<Tid> = self.tasks.values().map(|task| task.pid).collect();
        for pid in pids {
            if self
                .launching
                .as_ref()
                .is_some_and(|launching| launching.pid == pid)
            {
                continue;
            }
            let there = procfs::tasks(pid).unwrap_or_default();
            let mut known: Vec<(Tid, SpaceId)> = Vec::new();
            for (&tid, task) in self.tasks.iter().filter(|(_, task)| task.pid == pid) {
                known.push((tid, task.space));
            }
            let Some(&(_, space)) = known.first() else {
                continue;
            };
            for &tid in there
                .iter()
                .filter(|tid| !known.iter().any(|(k, _)| k == *tid))
            {
                let task = Task::new(pid, space, procfs::comm(tid));
                self.add_task(time, tid, task, None, TaskOrigin::Thread);
            }
            for (tid, _) in known.iter().filter(|(tid, _)| !there.contains(tid)) {
                self.task_ends(time, *tid, Some(TaskEnd::Gone));
            }
        }
    }

    fn requests(&mut self, requests: Requests, deliver: &mut Deliver<'_>) {
        if requests.stop() {
            self.hand_on(deliver, true);
            let _ = sys::kill(Tid(std::process::id() as i32), libc::SIGSTOP);
        }
        if requests.end() || requests.forward().next().is_some() {
            match self.launched {
                None => return self.let_all_go(deliver),
                Some(program) => self.pass_on(program, requests, deliver),
            }
        }
        if self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now())
        {
            return self.let_all_go(deliver);
        }
        if requests.tick() {
            let left = self
                .deadline
                .map(|at| at.saturating_duration_since(Instant::now()));
            self.control
                .hurry(left.is_some_and(|left| left < Duration::from_millis(200)));
            if Duration::from_millis(90) <= self.sampled.elapsed() {
                self.sampled = Instant::now();
                self.sample();
            }
        }
    }

    /// A signal meant for a launched program was sent to memtrace instead. When the program is gone
    /// and only its children live on, they are let go: they never were ours.
    fn pass_on(&mut self, program: Tid, requests: Requests, deliver: &mut Deliver<'_>) {
        if self.launched_end.is_some() {
            return self.let_all_go(deliver);
        }
        for signal in requests.forward() {
            let _ = sys::kill(program, signal);
        }
    }

    /// Looks at every space a last time, and leaves.
    fn let_all_go(&mut self, deliver: &mut Deliver<'_>) {
        self.let_go = true;
        if self.spaces.is_empty() {
            // The program's begin is still among the records.
            self.catch_up(now(), deliver);
        }
        let pids: BTreeSet<Tid> = self.tasks.values().map(|task| task.pid).collect();
        let pids: Vec<Tid> = pids.into_iter().collect();
        let mut left: BTreeSet<SpaceId> = self.spaces.keys().copied().collect();
        for tried in 0..TRIES {
            let readers: Vec<(SpaceId, Tid)> = self
                .readers()
                .into_iter()
                .filter(|(id, _)| left.contains(id))
                .collect();
            if readers.is_empty() {
                break;
            }
            let looked = while_stopped(&pids, || {
                let began = now();
                let seen: Vec<(SpaceId, Option<Resident>, Snapshot)> = readers
                    .iter()
                    .filter_map(|&(id, tid)| last(id, tid))
                    .collect();
                (began, now(), seen)
            });
            let Some((began, ended, seen)) = looked else {
                break;
            };
            self.looks.clear();
            for (id, resident, map) in seen {
                self.add_last_look(id, began, ended, resident, map);
            }
            self.catch_up(ended, deliver);
            if tried == 0 && std::mem::take(&mut self.lost) {
                self.count_tasks();
            }
            self.settle(ended + 1);
            left.retain(|id| self.spaces.get(id).is_some_and(|space| !space.looked));
            self.cut_calls(ended, &left);
            if !left.is_empty() {
                std::thread::sleep(PAUSE);
            }
        }
        self.end_all(&left);
    }

    /// Works on all records up to `time`.
    fn catch_up(&mut self, time: u64, deliver: &mut Deliver<'_>) {
        loop {
            let complete = self.drain_until(time);
            let mut worked = false;
            while let Some(record) = self.rings.next() {
                self.record(record);
                worked = true;
                if BATCH < self.queue.len() {
                    self.hand_on(deliver, false);
                }
            }
            if complete {
                break;
            }
            if !worked {
                std::thread::sleep(Duration::from_nanos(SLACK));
            }
        }
    }

    /// Calls that are still under way when watching ends: what they do is not waited for.
    fn cut_calls(&mut self, time: u64, spaces: &BTreeSet<SpaceId>) {
        let under_way: Vec<Tid> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.call.is_some() && spaces.contains(&task.space))
            .map(|(&tid, _)| tid)
            .collect();
        for tid in under_way {
            let call = self
                .tasks
                .get_mut(&tid)
                .and_then(|task| Some((task.call.take()?, task.space)));
            let Some((call, space)) = call else { continue };
            let entered = self.clock.at(call.entered);
            self.push(
                time,
                Observed::CallCut {
                    tid,
                    space,
                    entered,
                    call: call.call,
                    fetched: Vec::new(),
                },
            );
            if let Some(space) = self.spaces.get_mut(&space) {
                space.in_flight.retain(|other| *other != tid);
            }
            self.release(space, Some(tid), time);
        }
    }

    fn end_all(&mut self, unverified: &BTreeSet<SpaceId>) {
        let time = self.rings.horizon;
        let ids: Vec<SpaceId> = self.spaces.keys().copied().collect();
        for &id in &ids {
            self.begin_as_shown(id);
            self.release_all(id);
            let known = self.spaces.get(&id).is_some_and(|space| space.known);
            if known && unverified.contains(&id) {
                let text =
                    "the last map could not be compared: its process cannot be stopped for a \
                            moment (another tracer has it?) and was never quiet"
                        .to_owned();
                let space = Some(id);
                self.push(time, Observed::Note { space, text });
            }
        }
        let mut tids: Vec<Tid> = self.tasks.drain().map(|(tid, _)| tid).collect();
        tids.sort_unstable();
        for tid in tids {
            let end = TaskEnd::Gone;
            self.push(time, Observed::TaskEnded { tid, end });
        }
        for space in ids {
            let ended = Ended::Detach;
            self.push(time, Observed::SpaceEnded { space, ended });
        }
        self.spaces.clear();
    }
}

/// The last look at a space.
fn last(id: SpaceId, tid: Tid) -> Option<(SpaceId, Option<Resident>, Snapshot)> {
    let resident = procfs::Status::read(tid)
        .ok()
        .and_then(|status| status.resident());
    let map = match cheap_to_walk(tid) {
        true => procfs::smaps(tid).or_else(|_| procfs::maps(tid)),
        false => procfs::maps(tid),
    };
    Some((id, resident, map.ok()?))
}

fn see(pid: Tid) -> Option<Seen> {
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
