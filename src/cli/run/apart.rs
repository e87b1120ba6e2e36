//! With stacks, the pipeline has a thread of its own: unwinding takes longer than what a stop takes, and a
//! program that is stopped must not wait for that, nor for files of code to be read, nor the rings.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;

use crate::symbol::names::{Home, Roots};
use crate::timeline::{Observation, Observed};
use crate::tracee::{Feedback, Outcome, TraceError};
use crate::units::SpaceId;

use super::Pipeline;
use super::observer::Observer;

/// So many observations are handed over at once at most.
const MOST: usize = 64;
/// And so often before they are waited for: each may hold a stack of 32 KiB.
const WAITING: usize = 32;

/// What is handed over.
struct Batch {
    observations: Vec<Observation>,
    /// Of processes whose spaces begin among them. It is found out at once: soon they may be gone.
    homes: Vec<(SpaceId, Home)>,
    idle: bool,
}

/// Observes; what is seen goes through the pipeline on another thread. To be called once signals are
/// blocked and before the calling thread was placed on a CPU: the new one inherits both.
pub(super) fn run(
    observer: &mut Observer,
    pipeline: &mut Pipeline<'_>,
) -> Result<Outcome, TraceError> {
    let (batches, work) = sync_channel::<Batch>(WAITING);
    let (rechecks, asked) = channel();
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("stacks".into());
        let there = thread.spawn_scoped(scope, move || works(pipeline, work, &rechecks));
        let worker = there.map_err(|source| TraceError::Request {
            request: "starting a thread",
            tid: None,
            source,
        })?;
        let mut roots = Roots::default();
        let outcome = observer.run(&mut |observations, idle| {
            while MOST < observations.len() {
                let observations = observations.drain(..MOST).collect();
                let _ = batches.send(Batch::new(observations, false, &mut roots));
            }
            let last = std::mem::take(observations);
            if idle || !last.is_empty() {
                let _ = batches.send(Batch::new(last, idle, &mut roots));
            }
            Feedback {
                recheck: asked.try_iter().flatten().collect(),
            }
        });
        drop(batches);
        worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        outcome
    })
}

fn works(pipeline: &mut Pipeline<'_>, work: Receiver<Batch>, rechecks: &Sender<Vec<SpaceId>>) {
    for batch in work {
        let Batch {
            mut observations,
            homes,
            idle,
        } = batch;
        pipeline.homes.extend(homes);
        let Feedback { recheck } = pipeline.take(&mut observations, idle);
        if !recheck.is_empty() {
            let _ = rechecks.send(recheck);
        }
    }
}

impl Batch {
    fn new(observations: Vec<Observation>, idle: bool, roots: &mut Roots) -> Batch {
        let begun = observations.iter().filter_map(|it| match &it.what {
            Observed::SpaceBegan(began) => Some((began.space, began.pid)),
            _ => None,
        });
        let homes = begun
            .map(|(space, pid)| (space, Home::of(pid, pid, roots)))
            .collect();
        Batch {
            observations,
            homes,
            idle,
        }
    }
}
