//! Where the tracing thread runs.
//!
//! What a stop costs is waking a task on another, idle CPU. So the tracing thread follows its
//! tracee: it pins *itself* to the CPU the tracee last ran on and becomes SCHED_IDLE, so that the
//! scheduler still counts that CPU as free and leaves the tracee on it. Nothing of the tracee is
//! changed.
//!
//! A SCHED_IDLE task starves on a busy CPU, and following helps only while one task does all the
//! stopping. So the thread goes back to normal scheduling when several tasks take turns, when more
//! tasks want to run than there are CPUs (`/proc/loadavg`), and when it had to wait for its CPU
//! (`/proc/thread-self/schedstat`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::units::Tid;

use super::{procfs, sys};

/// Stops of the followed task between two looks at where it runs.
const LOOK_EVERY: u32 = 8;
/// Stops between two looks at whether following still pays.
const WATCH_EVERY: u32 = 64;
/// The same in time, for stops that come slowly.
const WATCH_AFTER: Duration = Duration::from_millis(4);
/// Stops of other tasks, of the last [`WATCH_EVERY`], from which on nobody is followed.
const OTHERS: u32 = 8;
/// Normal scheduling lasts this long after following did not pay: the first while the machine is
/// crowded, which costs nothing to find out; doubled each time we starved, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// Keeps the calling thread beside its tracee.
#[derive(Debug)]
pub(super) struct Placement {
    /// The CPUs memtrace may use, and how many they are.
    allowed: CpuSet,
    cpus: u64,
    /// SCHED_IDLE can be taken, and given back.
    may_idle: bool,
    following: Option<usize>,
    tid: Tid,
    stat: Option<File>,
    /// Stops of `tid`, and of others, since the last watch.
    own: u32,
    others: u32,
    schedstat: Option<File>,
    loadavg: Option<File>,
    waited: u64,
    watched: Instant,
    paused_until: Option<Instant>,
    pause: Duration,
}

impl Placement {
    /// `None` where it cannot help: one CPU only, or affinity is not to be had.
    pub(super) fn new() -> Option<Placement> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
        let cpus = (0..CpuSet::count())
            .filter(|&cpu| allowed.is_set(cpu) == Ok(true))
            .count();
        (1 < cpus).then(|| Placement {
            allowed,
            cpus: cpus as u64,
            may_idle: can_leave_idle(),
            following: None,
            tid: Tid(0),
            stat: None,
            own: 0,
            others: 0,
            schedstat: File::open("/proc/thread-self/schedstat").ok(),
            loadavg: File::open("/proc/loadavg").ok(),
            waited: 0,
            watched: Instant::now(),
            paused_until: None,
            pause: FIRST_PAUSE,
        })
    }

    /// Called right after `tid` was resumed.
    pub(super) fn after_stop(&mut self, tid: Tid, now: Instant) {
        if self.tid == tid {
            self.own += 1;
        } else {
            self.others += 1;
            if self.own <= self.others {
                self.tid = tid;
                self.stat = None;
                self.own = 0;
            }
        }
        let stops = self.own + self.others;
        if WATCH_EVERY <= stops || WATCH_AFTER <= now.duration_since(self.watched) {
            self.watch(now);
        } else if stops % LOOK_EVERY == LOOK_EVERY - 1
            && self.paused_until.is_none()
            && self.others < OTHERS
            && self.tid == tid
        {
            self.follow();
        }
    }

    fn follow(&mut self) {
        let stat = match &self.stat {
            Some(stat) => stat,
            // The stat of a process adds up the times of all its threads; that of a task does not.
            None => match File::open(format!("/proc/{0}/task/{0}/stat", self.tid)) {
                Ok(stat) => self.stat.insert(stat),
                Err(_) => return,
            },
        };
        let Some(cpu) = procfs::last_cpu(stat) else {
            return;
        };
        if self.following == Some(cpu) || self.allowed.is_set(cpu) != Ok(true) {
            return;
        }
        let mut one = CpuSet::new();
        if one.set(cpu).is_ok() && sched_setaffinity(Pid::from_raw(0), &one).is_ok() {
            if self.following.is_none() && self.may_idle {
                let _ = sys::set_idle_policy(true);
            }
            self.following = Some(cpu);
        }
    }

    /// Goes back to normal scheduling on any allowed CPU.
    pub(super) fn release(&mut self) {
        if self.following.take().is_some() {
            if self.may_idle {
                let _ = sys::set_idle_policy(false);
            }
            let _ = sched_setaffinity(Pid::from_raw(0), &self.allowed);
        }
    }

    /// Whether following pays, looked at now and then.
    fn watch(&mut self, now: Instant) {
        let crowded = OTHERS <= self.others;
        (self.own, self.others) = (0, 0);
        let since = std::mem::replace(&mut self.watched, now);
        // Right after a resume the tracee wants to run, and so do we.
        let busy = self
            .loadavg
            .as_ref()
            .and_then(runnable)
            .is_some_and(|all| self.cpus + 2 <= all);
        if crowded {
            self.release();
        }
        if let Some(until) = self.paused_until {
            if busy {
                self.paused_until = Some(until.max(now + FIRST_PAUSE));
            } else if until <= now {
                self.paused_until = None;
            }
            return;
        }
        let waited = self
            .schedstat
            .as_ref()
            .and_then(run_delay)
            .unwrap_or_default();
        let delay = waited.saturating_sub(self.waited);
        self.waited = waited;
        let starved =
            self.following.is_some() && now.duration_since(since).as_nanos() as u64 / 2 < delay;
        if busy {
            self.release();
            self.paused_until = Some(now + FIRST_PAUSE);
        } else if starved {
            self.release();
            self.paused_until = Some(now + self.pause);
            self.pause = (self.pause * 2).min(LAST_PAUSE);
        } else if self.following.is_some() {
            self.pause = FIRST_PAUSE;
        }
    }
}

/// Nanoseconds this thread was runnable and did not run: the second number of schedstat.
fn run_delay(schedstat: &File) -> Option<u64> {
    let mut buffer = [0u8; 96];
    let count = schedstat.read_at(&mut buffer, 0).ok()?;
    std::str::from_utf8(buffer.get(..count)?)
        .ok()?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

/// Tasks that run or want to, on the whole machine: before the slash in loadavg's fourth field.
fn runnable(loadavg: &File) -> Option<u64> {
    let mut buffer = [0u8; 96];
    let count = loadavg.read_at(&mut buffer, 0).ok()?;
    let text = std::str::from_utf8(buffer.get(..count)?).ok()?;
    text.split(' ').nth(3)?.split('/').next()?.parse().ok()
}

/// Leaving SCHED_IDLE needs CAP_SYS_NICE or a permissive RLIMIT_NICE (sched(7)); without either it
/// must not be entered.
fn can_leave_idle() -> bool {
    const CAP_SYS_NICE: u32 = 23;
    let status = procfs::Status::read(Tid(std::process::id() as i32)).unwrap_or_default();
    let capable = status
        .get("CapEff")
        .and_then(|caps| u64::from_str_radix(caps, 16).ok())
        .is_some_and(|caps| caps >> CAP_SYS_NICE & 1 != 0);
    let by_limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NICE)
        .is_ok_and(|(soft, _)| 20 <= soft);
    capable || by_limit
}
