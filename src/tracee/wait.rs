//! Which tracee has something to tell.
//!
//! wait4(-1) looks at every tracee there is: with thousands of idle threads that costs more than
//! anything else (cases, finding 8). So with many tracees the SIGCHLD that each stop sends is taken
//! as a hint of who it was. Pending SIGCHLDs merge into one, so a hint can be missing; a look at
//! everybody, made rarely enough to cost a fifth of the time at most, finds what was missed.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::units::Tid;

use super::sys::{self, Waited};

/// From this many tracees on, hints are used.
const MANY: usize = 64;
/// Tasks asked directly, the latest to stop first.
const RECENT: usize = 3;
/// Stops of recent tasks that may be taken in a row while others wait.
const FAIRNESS: u32 = 16;
/// A look at everybody is not repeated before this many times what it took: the least, while such
/// looks find what hints have missed, and the most, while they find nothing.
const LEAST_PAUSE: u32 = 4;
const MOST_PAUSE: u32 = 64;

#[derive(Debug)]
pub(super) struct Waiter {
    /// Stops taken and not yet handed out.
    ready: VecDeque<(Tid, i32)>,
    recent: VecDeque<Tid>,
    streak: u32,
    scan_cost: Duration,
    scanned: Instant,
    /// The pause after a look at everybody, in times of what it took.
    pause: u32,
    /// Every stop before the last look at everybody has been seen, and no hint came since.
    sure: bool,
}

impl Waiter {
    /// SIGCHLD must be blocked in every thread: a blocked signal is kept though nobody handles it.
    pub(super) fn new() -> Waiter {
        Waiter {
            ready: VecDeque::new(),
            recent: VecDeque::with_capacity(RECENT + 1),
            streak: 0,
            scan_cost: Duration::ZERO,
            scanned: Instant::now(),
            pause: LEAST_PAUSE,
            sure: false,
        }
    }

    /// What has happened already, without waiting.
    pub(super) fn poll(&mut self, tracees: usize) -> io::Result<Waited> {
        if let Some((tid, status)) = self.ready.pop_front() {
            return Ok(Waited::Status { tid, status });
        }
        if tracees < MANY {
            let first = sys::wait(Tid(-1), false)?;
            return self.with_the_others(first, tracees);
        }
        if self.streak < FAIRNESS {
            for index in 0..self.recent.len() {
                let tid = self.recent[index];
                if let status @ Waited::Status { .. } = sys::wait(tid, false)? {
                    self.streak += 1;
                    self.note(tid);
                    return Ok(status);
                }
            }
        }
        self.streak = 0;
        while let Some(hint) = sys::take_signal(&[libc::SIGCHLD], Duration::ZERO) {
            self.sure = false;
            if let status @ Waited::Status { tid, .. } = sys::wait(hint.pid, false)? {
                self.note(tid);
                return Ok(status);
            }
        }
        if !self.sure && self.scan_cost * self.pause <= self.scanned.elapsed() {
            return self.scan();
        }
        Ok(Waited::Nothing)
    }

    /// The next thing that happens. Returns early, with [`Waited::Interrupted`], on a poke.
    pub(super) fn wait(&mut self, tracees: usize) -> io::Result<Waited> {
        if let Some((tid, status)) = self.ready.pop_front() {
            return Ok(Waited::Status { tid, status });
        }
        if tracees < MANY {
            let first = sys::wait(Tid(-1), true)?;
            return self.with_the_others(first, tracees);
        }
        match self.poll(tracees)? {
            Waited::Nothing => {}
            known => return Ok(known),
        }
        let patience = match self.sure {
            true => Duration::from_millis(200),
            false => (self.scan_cost * self.pause).saturating_sub(self.scanned.elapsed()),
        };
        let Some(hint) = sys::take_signal(&[libc::SIGCHLD], patience) else {
            return Ok(Waited::Interrupted);
        };
        self.sure = false;
        let waited = sys::wait(hint.pid, false)?;
        if let Waited::Status { tid, .. } = waited {
            self.note(tid);
        }
        match waited {
            // The hint was of somebody already seen, or of a child of ours that is no tracee.
            Waited::Nothing | Waited::NoChild => Ok(Waited::Interrupted),
            known => Ok(known),
        }
    }

    /// Takes the stops of all others too before `first` is handled. wait4(-1) tells of the newest
    /// task that is stopped, so a busy new one would starve the old ones; but a task that has not
    /// been resumed is told of once.
    fn with_the_others(&mut self, first: Waited, tracees: usize) -> io::Result<Waited> {
        if 1 < tracees && matches!(first, Waited::Status { .. }) {
            while let Waited::Status { tid, status } = sys::wait(Tid(-1), false)? {
                self.ready.push_back((tid, status));
            }
        }
        Ok(first)
    }

    /// Whether `tid` has something to tell; it comes next then.
    pub(super) fn look_at(&mut self, tid: Tid) -> bool {
        if self.ready.iter().any(|&(ready, _)| ready == tid) {
            return true;
        }
        match sys::wait(tid, false) {
            Ok(Waited::Status { tid, status }) => {
                self.ready.push_front((tid, status));
                true
            }
            _ => false,
        }
    }

    fn scan(&mut self) -> io::Result<Waited> {
        let began = Instant::now();
        let first = sys::wait(Tid(-1), false)?;
        let first = self.with_the_others(first, MANY)?;
        self.scanned = Instant::now();
        // The last look of these found nobody: it went past everybody.
        self.scan_cost = self.scanned - began;
        self.sure = true;
        let Waited::Status { tid, .. } = first else {
            self.pause = (self.pause * 2).min(MOST_PAUSE);
            return Ok(first);
        };
        self.note(tid);
        // A busy tracee has mostly stopped again by now. Its hint was not missed: it waits.
        let hint = sys::take_signal(&[libc::SIGCHLD], Duration::ZERO).map(|hint| hint.pid);
        self.pause = match hint == Some(tid) && self.ready.is_empty() {
            true => (self.pause * 2).min(MOST_PAUSE),
            false => LEAST_PAUSE,
        };
        if let Some(hint) = hint {
            self.sure = false;
            self.look_at(hint);
        }
        Ok(first)
    }

    fn note(&mut self, tid: Tid) {
        if self.recent.front() != Some(&tid) {
            self.recent.retain(|&other| other != tid);
            self.recent.push_front(tid);
            self.recent.truncate(RECENT);
        }
    }
}
