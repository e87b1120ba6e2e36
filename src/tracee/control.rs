//! The supervisor's ears while it waits for tracees: signals to memtrace, and the passing of time.
//!
//! The tracing thread sleeps in wait4(2). A control thread takes every signal meant for memtrace,
//! notes it, and wakes the tracing thread with a signal that does nothing; it does so too at each
//! tick. A wake-up that comes too early is repeated by the next tick, so none is ever missed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::units::Tid;

use super::sys;

/// What has arrived since the last look, as a bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Requests(u32);

impl Requests {
    const TICK: u32 = 1;
    const INTERRUPT: u32 = 2;
    const TERMINATE: u32 = 4;
    const STOP: u32 = 8;
    const HANGUP: u32 = 16;
    const QUIT: u32 = 32;
    const INTERRUPT_SENT: u32 = 64;
    const HANGUP_SENT: u32 = 128;
    const QUIT_SENT: u32 = 256;

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Whether anything has.
    pub(super) fn any(self) -> bool {
        self.0 != 0
    }

    /// Time has passed.
    pub(super) fn tick(self) -> bool {
        self.has(Requests::TICK)
    }

    /// A reason to let attached processes go.
    pub(super) fn end(self) -> bool {
        self.has(Requests::INTERRUPT | Requests::TERMINATE | Requests::HANGUP | Requests::QUIT)
    }

    /// The terminal asked its foreground group to stop.
    pub(super) fn stop(self) -> bool {
        self.has(Requests::STOP)
    }

    /// Signals that somebody sent to memtrace alone and that a launched program is to get. (What
    /// a terminal sends, it sends to the program too.)
    pub(super) fn forward(self) -> impl Iterator<Item = i32> {
        [
            (Requests::TERMINATE, libc::SIGTERM),
            (Requests::INTERRUPT_SENT, libc::SIGINT),
            (Requests::HANGUP_SENT, libc::SIGHUP),
            (Requests::QUIT_SENT, libc::SIGQUIT),
        ]
        .into_iter()
        .filter(move |&(bit, _)| self.has(bit))
        .map(|(_, signal)| signal)
    }
}

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU32,
    hurry: AtomicBool,
    done: AtomicBool,
}

/// The control thread, as the tracing thread sees it.
#[derive(Debug)]
pub(super) struct Control {
    shared: Arc<Shared>,
    wake: i32,
    thread: Option<thread::JoinHandle<()>>,
    thread_id: Tid,
    hurried: bool,
}

const IDLE_TICK: Duration = Duration::from_millis(100);
const FAST_TICK: Duration = Duration::from_millis(10);

/// What to listen to. A blocked signal is kept even when it is ignored, so what is ignored on purpose
/// (SIGHUP under nohup, job control where there is none) is left alone. SIGINT and SIGQUIT are heard
/// all the same: a script's `memtrace -p PID &` starts with both ignored, and `kill -INT` is how it ends.
fn signals() -> Vec<i32> {
    let always = [libc::SIGINT, libc::SIGTERM, libc::SIGQUIT];
    let unless_ignored = [libc::SIGHUP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    let heard = unless_ignored
        .into_iter()
        .filter(|&signal| !sys::is_ignored(signal));
    always
        .into_iter()
        .chain(heard)
        .chain([libc::SIGRTMIN() + 4])
        .collect()
}

impl Control {
    /// Starts listening. From the tracing thread, after the program has been forked: the signals
    /// are blocked from here on.
    pub(super) fn start() -> io::Result<Control> {
        let poke = sys::install_poke()?;
        let signals = signals();
        sys::block_signals(&signals);
        // See `wait.rs`. The control thread must not be woken by it either.
        sys::block_signals(&[libc::SIGCHLD]);
        let shared = Arc::new(Shared::default());
        let tracer = sys::gettid();
        let process = Tid(std::process::id() as i32);
        let (tell, told) = std::sync::mpsc::channel();
        let state = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                // Only the tracing thread may be interrupted by the poke.
                sys::block_signals(&[poke]);
                let _ = tell.send(sys::gettid());
                listen(&state, &signals, || {
                    let _ = sys::tgkill(process, tracer, poke);
                });
            })?;
        let thread_id = told.recv().unwrap_or_default();
        let wake = libc::SIGRTMIN() + 4;
        Ok(Control {
            shared,
            wake,
            thread: Some(thread),
            thread_id,
            hurried: false,
        })
    }

    /// What has arrived since the last call.
    pub(super) fn take(&self) -> Requests {
        if self.shared.requests.load(Ordering::Relaxed) == 0 {
            return Requests(0);
        }
        Requests(self.shared.requests.swap(0, Ordering::AcqRel))
    }

    /// Takes note of a tick only: whatever else has arrived waits for [`Control::take`].
    pub(super) fn forget_tick(&self) {
        self.shared
            .requests
            .fetch_and(!Requests::TICK, Ordering::AcqRel);
    }

    /// Whether ticks come every 10 ms rather than every 100.
    pub(super) fn hurry(&mut self, on: bool) {
        if self.hurried != on {
            self.hurried = on;
            self.shared.hurry.store(on, Ordering::Release);
            if on {
                let process = Tid(std::process::id() as i32);
                let _ = sys::tgkill(process, self.thread_id, self.wake);
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Release);
        let process = Tid(std::process::id() as i32);
        let _ = sys::tgkill(process, self.thread_id, self.wake);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(shared: &Shared, signals: &[i32], poke: impl Fn()) {
    while !shared.done.load(Ordering::Acquire) {
        let tick = if shared.hurry.load(Ordering::Acquire) {
            FAST_TICK
        } else {
            IDLE_TICK
        };
        let bits = match sys::take_signal(signals, tick) {
            None => Requests::TICK,
            Some(taken) => match taken.signal {
                libc::SIGINT if taken.by_process => Requests::INTERRUPT | Requests::INTERRUPT_SENT,
                libc::SIGINT => Requests::INTERRUPT,
                libc::SIGTERM => Requests::TERMINATE,
                libc::SIGHUP if taken.by_process => Requests::HANGUP | Requests::HANGUP_SENT,
                libc::SIGHUP => Requests::HANGUP,
                libc::SIGQUIT if taken.by_process => Requests::QUIT | Requests::QUIT_SENT,
                libc::SIGQUIT => Requests::QUIT,
                libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Requests::STOP,
                _ => continue,
            },
        };
        shared.requests.fetch_or(bits, Ordering::AcqRel);
        poke();
    }
}
