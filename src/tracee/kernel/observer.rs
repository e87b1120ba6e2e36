//! The loop: records in, observations out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::timeline::{Observation, Observed, Stack, TaskEnd, Touched};
use crate::units::{SpaceId, Tid, Timestamp};

use super::super::control::{Control, Requests};
use super::super::error::TraceError;
use super::super::files::Files;
use super::super::launch::Launching;
use super::super::procfs;
use super::super::supervisor::{Deliver, Options, Outcome};
use super::super::sys;
use super::books::Books;
use super::census::Census;
use super::record::{EXECVE, EXECVEAT, Fault, Record, What};
use super::resident::Kinds;
use super::rings::{Rings, now};
use super::state::{First, Item, Look, Space, Task};
use super::table::ByTid;

/// The time of a trace: since it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(u64);

impl Clock {
    pub(super) fn at(self, time: u64) -> Timestamp {
        Timestamp(time.saturating_sub(self.0))
    }
}

/// Records that are worked on before the rings are emptied again.
pub(super) const BATCH: usize = 2048;
/// How long records are worked on before signals and the clock are looked at.
const TURN: Duration = Duration::from_millis(50);
/// Between two tries to find processes quiet.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Observes through the kernel's tracepoints. Nothing that it observes is its tracee.
#[derive(Debug)]
pub struct KernelObserver {
    pub(super) options: Options,
    pub(super) rings: Rings,
    /// What the kernel tells of processes that end, where it may be listened to.
    pub(super) books: Option<Books>,
    pub(super) clock: Clock,
    pub(super) tasks: ByTid<Task>,
    pub(super) spaces: BTreeMap<SpaceId, Space>,
    pub(super) last_space: u32,
    pub(super) queue: VecDeque<Item>,
    pub(super) looks: Vec<Look>,
    /// `--resident`: which space the kernel's numbers stand for.
    pub(super) counters: HashMap<u32, SpaceId>,
    /// What was counted of spaces that no task has yet.
    pub(super) making: HashMap<u32, Kinds>,
    /// Looks at programs whose execve is still to be worked on.
    pub(super) early: ByTid<(u64, u64, First)>,
    /// How processes end that have called exit_group(2).
    pub(super) endings: ByTid<TaskEnd>,
    pub(super) launching: Option<Launching>,
    pub(super) launched: Option<Tid>,
    pub(super) launched_end: Option<TaskEnd>,
    out: Vec<Observation>,
    /// Records before this are of no interest: the first look knows better.
    pub(super) start: u64,
    /// Records have been lost since the tasks were last counted.
    pub(super) lost: bool,
    /// They have been asked for, and records have not come as far.
    pub(super) census: Option<Census>,
    pub(super) next_census: u64,
    /// A task that has ended without a record until now, and since when that is known.
    pub(super) gone: Option<(Tid, u64)>,
    /// No look for the reason of a refusal before this.
    pub(super) next_reason: u64,
    /// Children that watched processes had before they were.
    pub(super) strangers: BTreeSet<Tid>,
    /// Records come faster than they can be told: so many calls were only counted since.
    pub(super) skipped: Option<u64>,
    /// So many page faults were told of by their stacks alone, and others stand for them too.
    told_beside: u32,
    failed: Option<TraceError>,
    control: Control,
    files: Files,
    deadline: Option<Instant>,
    sampled: Instant,
    pub(super) let_go: bool,
    /// Recording has been stopped.
    pub(super) deaf: bool,
}

impl KernelObserver {
    pub(super) fn new(
        options: Options,
        rings: Rings,
        epoch: u64,
    ) -> Result<KernelObserver, TraceError> {
        let control = Control::start().map_err(|source| TraceError::Request {
            request: "starting a thread",
            tid: None,
            source,
        })?;
        Ok(KernelObserver {
            deadline: None,
            options,
            rings,
            books: Books::open().ok(),
            clock: Clock(epoch),
            tasks: ByTid::default(),
            spaces: BTreeMap::new(),
            last_space: 0,
            queue: VecDeque::new(),
            looks: Vec::new(),
            counters: HashMap::new(),
            making: HashMap::new(),
            early: ByTid::default(),
            endings: ByTid::default(),
            launching: None,
            launched: None,
            launched_end: None,
            out: Vec::new(),
            start: 0,
            lost: false,
            census: None,
            next_census: 0,
            next_reason: 0,
            gone: None,
            strangers: BTreeSet::new(),
            skipped: None,
            told_beside: 0,
            failed: None,
            control,
            files: Files::start(),
            sampled: Instant::now(),
            let_go: false,
            deaf: false,
        })
    }

    /// Ends the watching with an error.
    pub(super) fn fail(&mut self, error: TraceError) {
        self.failed = Some(error);
    }

    /// Something to tell.
    pub(super) fn push(&mut self, time: u64, what: Observed) {
        let time = self.clock.at(time);
        self.tell(Observation { time, what });
    }

    pub(super) fn tell(&mut self, observation: Observation) {
        self.queue.push_back(Item::Ready(observation));
    }

    /// Observes until every task has ended or was let go: for as long as was asked, from now on.
    pub fn run(&mut self, deliver: &mut Deliver<'_>) -> Result<Outcome, TraceError> {
        let duration = self.options.duration;
        self.deadline = duration.map(|duration| Instant::now() + duration);
        while !self.let_go {
            self.turn(deliver);
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.tasks.is_empty() {
                break;
            }
            self.follow_cpus();
            // While it is not known whose calls would disturb a look, there is none.
            let soon = self.lost || self.look();
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
        self.looks.clear();
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
            if let Some(books) = &mut self.books {
                books.read();
            }
            self.look_early(execs);
            if std::mem::take(&mut self.rings.overflowed) {
                self.may_have_lost();
            }
            if self.rings.is_full() {
                self.skip();
            }
            let mut count = 0;
            while count < BATCH
                && let Some(record) = self.rings.next()
            {
                self.record(record);
                count += 1;
            }
            if count < BATCH {
                self.skip_no_more();
            }
            self.hand_on(deliver, false);
            if count < BATCH || TURN < began.elapsed() {
                break;
            }
        }
        // Of these times, all has been worked on.
        let next = self.rings.next_time().unwrap_or(u64::MAX);
        let settled = next.min(self.rings.horizon);
        self.settle(settled);
        self.settle_census(settled);
        if let Some(books) = &mut self.books {
            books.worked_on(settled);
        }
        self.take_census();
        self.finish_silent_execs(settled);
        self.tell_counted(settled);
        self.hand_on(deliver, true);
    }

    /// What happened on a CPU that came meanwhile, or was away, may be lost.
    fn follow_cpus(&mut self) {
        let followed = self.rings.follow_cpus().and_then(|(any, mut new)| {
            // Who was there before records stacks there, too; who comes later has that from its maker.
            new.try_for_each(|cpu| {
                let mut tids = self.tasks.keys();
                tids.try_for_each(|tid| self.rings.record_stacks_on(cpu, *tid))
            })?;
            Ok(any)
        });
        let text = match followed {
            Ok(false) => return,
            Ok(true) => {
                "a CPU came or was away meanwhile: what happened there may be lost".to_owned()
            }
            Err(error) => format!("a CPU came whose events cannot be told: {error}"),
        };
        let time = self.rings.horizon;
        self.push(time, Observed::Note { space: None, text });
        self.records_lost(time, 0);
    }

    pub(super) fn hand_on(&mut self, deliver: &mut Deliver<'_>, idle: bool) {
        let waits = |item: &Item| match *item {
            Item::Ready(_) => false,
            Item::Begins(_) => true,
            Item::Refused(space, at, _) => self.looks_for_reason(space, at),
        };
        let count = self.queue.iter().take_while(|item| !waits(item)).count();
        for item in self.queue.drain(..count) {
            if let Item::Ready(observation) | Item::Refused(_, _, observation) = item {
                self.out.push(observation);
            }
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

    pub(super) fn record(&mut self, record: Record) {
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
        self.settle_census(time);
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
            What::Caller { nr, stack } => {
                if let Some(task) = self.tasks.get_mut(&tid) {
                    task.calls_from(nr, stack);
                }
            }
            What::Exit {
                nr: EXECVE | EXECVEAT,
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
            What::Mapped(entry) => self.mapped(tid, time, entry),
            What::Fault(fault) => self.faulted(tid, time, fault),
            What::FaultStack { fault, stack } => {
                self.told_by_stack_alone(tid, time);
                if let Some(task) = self.tasks.get_mut(&tid) {
                    task.toucher = Some((fault, stack));
                }
            }
            What::Rss(stat) => self.counted(tid, time, stat),
            What::Lost(_) | What::Other => {}
        }
    }

    fn enters(&mut self, pid: Tid, tid: Tid, time: u64, nr: u32, args: [u64; 6]) {
        use super::record::{CLONE, CLONE3, EXIT, EXIT_GROUP, FORK, VFORK};
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        let status = TaskEnd::Exited((args[0] & 0xff) as i32);
        match nr {
            CLONE | FORK | VFORK | CLONE3 => task.cloning = Some(time),
            EXECVE | EXECVEAT => self.exec_begins(tid),
            EXIT => task.exits = Some(status),
            EXIT_GROUP => drop(self.endings.entry(pid).or_insert(status)),
            _ => self.call_begins(tid, time, nr, args),
        }
    }

    fn faulted(&mut self, tid: Tid, time: u64, fault: Fault) {
        let mut stands_for = self.rings.rate.stands_for(time);
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        let stack = match task.toucher.take_if(|(of, _)| of.addr == fault.addr) {
            Some((_, stack)) => Stack::Raw(stack),
            None => Stack::Absent,
        };
        if stack == Stack::Absent {
            self.told_by_stack_alone(tid, time);
            // What was told of beside is not counted twice.
            let twice = self.told_beside.min(stands_for - 1);
            self.told_beside -= twice;
            stands_for -= twice;
        }
        self.touched(tid, time, fault, stands_for, stack);
    }

    /// Where page faults are thinned out, one whose stack was taken may have no other record.
    fn told_by_stack_alone(&mut self, tid: Tid, time: u64) {
        let task = self.tasks.get_mut(&tid);
        if let Some((fault, stack)) = task.and_then(|task| task.toucher.take())
            && 1 < self.rings.rate.stands_for(time)
        {
            self.told_beside += 1;
            self.touched(tid, time, fault, 1, Stack::Raw(stack));
        }
    }

    fn touched(&mut self, tid: Tid, time: u64, fault: Fault, stands_for: u32, stack: Stack) {
        let Some(task) = self.tasks.get(&tid).filter(|task| task.exec.is_none()) else {
            return;
        };
        if let Some(skipped) = &mut self.skipped {
            *skipped += 1;
            return;
        }
        let touched = Touched {
            tid,
            space: task.space,
            addr: fault.addr,
            write: fault.write,
            stands_for,
            stack,
        };
        self.push(time, Observed::Touched(touched));
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

    /// A 32-bit program begins without a word of its execve's return: none had come of those times.
    fn finish_silent_execs(&mut self, settled: u64) {
        let silent = |task: &Task| {
            let committed = task.exec.as_ref().and_then(|exec| exec.committed.as_ref());
            committed.is_some_and(|(_, at)| at + 50_000_000 < settled)
        };
        let silent: Vec<Tid> = self
            .tasks
            .iter()
            .filter(|(_, task)| silent(task))
            .map(|(&tid, _)| tid)
            .collect();
        for tid in silent {
            self.exec_returns(tid, settled, 0);
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
        // It has ended, and nothing was recorded of that.
        self.lost |= matches!(procfs::state(program), None | Some(b'Z'));
        for signal in requests.forward() {
            let _ = sys::kill(program, signal);
        }
    }
}
