//! Who observes: a tracer or the kernel.

use crate::tracee::{
    Deliver, KernelObserver, Options, Outcome, Program, Rings, Supervisor, TraceError, Wanted,
    is_32_bit,
};
use crate::units::Tid;

use super::say;
use crate::cli::Failure;
use crate::cli::args::{Backend, Format, Target, Trace, Verify};

/// One of the two ways to observe.
pub(super) enum Observer {
    Ptrace(Box<Supervisor>),
    Kernel(Box<KernelObserver>),
}

impl Observer {
    /// Observes until all has ended or was let go.
    pub(super) fn run(&mut self, deliver: &mut Deliver<'_>) -> Result<Outcome, TraceError> {
        match self {
            Observer::Ptrace(supervisor) => supervisor.run(deliver),
            Observer::Kernel(observer) => observer.run(deliver),
        }
    }
}

/// The kernel's rings, if it is to observe; and what was chosen and why, if nobody said so.
pub(super) fn rings(
    trace: &Trace,
    options: &Options,
) -> Result<(Option<Rings>, Option<String>), Failure> {
    let wanted = Wanted {
        calls: options.extra.clone(),
        resident: trace.resident,
        faults: trace.touch,
        stacks: trace.stacks,
    };
    let pids = match (trace.backend, &trace.target) {
        (Backend::Kernel, _) => {
            let rings = Rings::open(&wanted).map_err(refused)?;
            return Ok((Some(rings), None));
        }
        (Backend::Auto, Target::Attach(pids)) => pids,
        _ => return Ok((None, None)),
    };
    let rings = match needs_ptrace(trace, pids) {
        Some(why) => Err(why),
        None => Rings::open(&wanted).map_err(|error| error.to_string()),
    };
    Ok(match rings {
        Ok(rings) => {
            let chosen = "backend kernel: nothing is stopped, the kernel's tracepoints are read \
                          (--backend ptrace would stop every call)";
            (Some(rings), Some(chosen.to_owned()))
        }
        Err(why) => {
            let chosen = format!("backend ptrace: every call is stopped, as {why}");
            (None, Some(chosen))
        }
    })
}

/// Why only a tracer can tell what is asked of running processes.
fn needs_ptrace(trace: &Trace, pids: &[i32]) -> Option<String> {
    let why = match () {
        () if matches!(trace.verify, Verify::Every(_)) => {
            "--verify=every compares while nothing moves"
        }
        () if trace.format == Format::Strace => {
            "--format strace shows signals and unfinished calls"
        }
        () => {
            let pid = pids.iter().find(|pid| is_32_bit(Tid(**pid)))?;
            return Some(format!(
                "{pid} is a 32-bit program, whose calls the tracepoints do not show"
            ));
        }
    };
    Some(why.to_owned())
}

pub(super) fn begin(
    trace: &Trace,
    options: Options,
    rings: Option<Rings>,
) -> Result<Observer, Failure> {
    match &trace.target {
        Target::Launch(words) => {
            let mut words = words.iter().cloned();
            let program = Program {
                name: words.next().unwrap_or_default(),
                args: words.collect(),
            };
            let observer = match rings {
                Some(rings) => KernelObserver::launch(options, &program, rings)
                    .map(|observer| Observer::Kernel(Box::new(observer))),
                None => Supervisor::launch(options, &program)
                    .map(|supervisor| Observer::Ptrace(Box::new(supervisor))),
            };
            observer.map_err(refused)
        }
        Target::Attach(pids) => {
            let pids: Vec<Tid> = pids.iter().map(|&pid| Tid(pid)).collect();
            let (observer, errors) = match rings {
                Some(rings) => {
                    let (observer, errors) =
                        KernelObserver::attach(options, &pids, rings).map_err(refused)?;
                    (Observer::Kernel(Box::new(observer)), errors)
                }
                None => {
                    let (supervisor, errors) =
                        Supervisor::attach(options, &pids).map_err(refused)?;
                    (Observer::Ptrace(Box::new(supervisor)), errors)
                }
            };
            for error in errors {
                say(&error.to_string());
            }
            Ok(observer)
        }
    }
}

pub(super) fn refused(error: TraceError) -> Failure {
    Failure::new(error.status(), error.into())
}
