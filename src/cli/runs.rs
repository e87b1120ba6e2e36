//! `memtrace run --runs N`: a program several times, a trace each.
//!
//! Each run is a memtrace of its own, because tracing alters what a child inherits (blocked
//! signals, scheduling), and the second run shall begin as the first did.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::{io, thread};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Failure;
use super::args::{Quiet, Trace};
use super::run::say;

/// Runs the program as often as asked; the first exit status that is not 0. A signal to memtrace
/// ends the series with the run it met, and so does a run that memtrace could not make.
pub fn runs(trace: &Trace, args: &[OsString]) -> Result<i32, Failure> {
    let failed = |error: anyhow::Error| Failure::new(125, error);
    let series = Series::start()
        .context("cannot listen for signals")
        .map_err(failed)?;
    let mut status = 0;
    for run in 1..=trace.runs {
        if trace.quiet != Quiet::All {
            say(&format!("run {run} of {}", trace.runs));
        }
        let last = series
            .run(run, args)
            .context("cannot start memtrace itself again")
            .map_err(failed)?;
        if status == 0 {
            status = last;
        }
        let unmade = matches!(last, 125..=127);
        if unmade || series.ended.load(Ordering::Acquire) {
            break;
        }
    }
    Ok(status)
}

/// What the runs share.
struct Series {
    /// A signal asked for the end.
    ended: Arc<AtomicBool>,
    /// The run that is going on, 0 if none is.
    child: Arc<AtomicI32>,
}

impl Series {
    /// Listens for signals. Those that a terminal sends reach the runs by themselves; others are
    /// passed on. A handler, unlike an ignored or blocked signal, is not inherited.
    fn start() -> io::Result<Series> {
        let mut signals = Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP])?;
        let series = Series {
            ended: Arc::default(),
            child: Arc::default(),
        };
        let (ended, child) = (Arc::clone(&series.ended), Arc::clone(&series.child));
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    ended.store(true, Ordering::Release);
                    let child = child.load(Ordering::Acquire);
                    if let Ok(signal @ Signal::SIGTERM) = Signal::try_from(signal)
                        && child != 0
                    {
                        let _ = kill(Pid::from_raw(child), signal);
                    }
                }
            })?;
        Ok(series)
    }

    fn run(&self, run: u32, args: &[OsString]) -> io::Result<i32> {
        let mut child = Command::new("/proc/self/exe")
            .arg(format!("--this-run={run}"))
            .args(args.iter().skip(1))
            .spawn()?;
        self.child.store(child.id() as i32, Ordering::Release);
        let status = child.wait();
        self.child.store(0, Ordering::Release);
        let status = status?;
        Ok(status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }
}
