//! A moment in which processes stand still, so that their maps can be read whole.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::units::Tid;

use super::super::sys::{self, Waited};
use super::super::{memory, procfs};

/// How long to wait for tasks to stop; those of uninterruptible sleeps are left alone then.
pub(super) const PATIENCE: Duration = Duration::from_millis(60);
const PAUSE: Duration = Duration::from_micros(50);

/// Stops every task of `pids` that may be stopped, within `patience`, looks, and lets them go. Processes that could
/// not be stopped (another tracer has them, or permissions are missing) go on meanwhile: whoever
/// looks must be able to tell, by the records or by what this returns beside: whether all stood still.
///
/// In a thread of its own, whose end sets free what did not come to its stop in time.
pub(super) fn while_stopped<T: Send>(
    pids: &[Tid],
    patience: Duration,
    look: impl FnOnce() -> T + Send,
) -> Option<(T, bool)> {
    let work = || {
        let (stopped, all) = stop(pids, patience);
        let seen = look();
        for (tid, signal) in stopped {
            match signal {
                Some(signal) => drop(sys::detach(tid, signal)),
                None => {
                    memory::rewind_interrupted(tid);
                    let _ = sys::detach(tid, 0);
                }
            }
        }
        (seen, all)
    };
    thread::scope(|scope| scope.spawn(work).join().ok())
}

/// The tasks that stand still, each with the signal to deliver when it goes on (0: none), or `None`
/// where our own request stopped it; and whether those are all.
fn stop(pids: &[Tid], patience: Duration) -> (Vec<(Tid, Option<i32>)>, bool) {
    let began = Instant::now();
    let mut all = !pids.is_empty();
    let mut tasks: BTreeMap<Tid, Option<Option<i32>>> = BTreeMap::new();
    loop {
        // Threads are made until the last of their makers stands still.
        let mut new = false;
        let mut refused = false;
        for tid in pids
            .iter()
            .flat_map(|&pid| procfs::tasks(pid).unwrap_or_default())
        {
            let at = Pid::from_raw(tid.0);
            if tasks.contains_key(&tid) {
                continue;
            }
            match ptrace::seize(at, ptrace::Options::empty()) {
                Ok(()) => {
                    let _ = ptrace::interrupt(at);
                    tasks.insert(tid, None);
                    new = true;
                }
                Err(_) => refused = true,
            }
        }
        let moving = |tasks: &BTreeMap<_, Option<_>>| tasks.values().any(Option::is_none);
        while moving(&tasks) && began.elapsed() < patience {
            tasks.retain(|&tid, stop| stop.is_some() || wait(tid, stop));
            if moving(&tasks) {
                thread::sleep(PAUSE);
            }
        }
        if !new || patience <= began.elapsed() {
            all &= !new && !refused && !moving(&tasks);
            break;
        }
    }
    let stopped = tasks.into_iter();
    let stopped = stopped.filter_map(|(tid, stop)| Some((tid, stop?)));
    (stopped.collect(), all)
}

/// Takes note of a stop of the task. Whether the task is still there.
fn wait(tid: Tid, stop: &mut Option<Option<i32>>) -> bool {
    match sys::wait(tid, false) {
        Ok(Waited::Status { status, .. }) if libc::WIFSTOPPED(status) => {
            let signal = libc::WSTOPSIG(status);
            *stop = Some(match status >> 16 {
                sys::EVENT_STOP if signal == libc::SIGTRAP => None,
                0 => Some(signal),
                _ => Some(0),
            });
            true
        }
        Ok(Waited::Nothing | Waited::Interrupted) => true,
        _ => false,
    }
}
