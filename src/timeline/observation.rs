//! What the edge saw, before anything is concluded from it. A trace file stores exactly these.

use std::sync::Arc;

use crate::decode::{Fetched, RawCall};
use crate::mm::{Evidence, FileId, Snapshot};
use crate::units::{Addr, AddrRange, Bytes, SpaceId, Tid, Timestamp};

use super::{Figures, Module, NamesSeen, Stack, StackSeen};

/// One thing seen, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When it was seen.
    pub time: Timestamp,
    /// What.
    pub what: Observed,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// An address space came into sight.
    SpaceBegan(SpaceBegan),
    /// A task came into sight.
    TaskBegan(TaskBegan),
    /// A memory call reached the kernel; sent only where the live format shows unfinished calls.
    CallEntered(CallEntered),
    /// A memory call has finished.
    Call(CallDone),
    /// A memory call whose task died, or whose space ended, before its exit stop.
    CallCut {
        /// Who.
        tid: Tid,
        /// In which space.
        space: SpaceId,
        /// When it started.
        entered: Timestamp,
        /// What.
        call: RawCall,
        /// What was fetched at its entry.
        fetched: Vec<Fetched>,
    },
    /// The kernel's view of a whole space, at a moment when no layout-changing call of it was in
    /// flight (calls cut short excepted): to be compared with the model.
    Checkpoint {
        /// Which.
        space: SpaceId,
        /// Why it was read.
        cause: CheckCause,
        /// What the kernel showed.
        snapshot: Snapshot,
    },
    /// A page fault has extended a stack downwards, which no call tells.
    Grown {
        /// Which.
        space: SpaceId,
        /// Where the whole of its mapping is now.
        stack: AddrRange,
    },
    /// Physical memory, measured.
    Resident {
        /// Which.
        space: SpaceId,
        /// The figures.
        resident: Resident,
    },
    /// A page was touched that was not there, or not there for what was wanted.
    Touched(Touched),
    /// What the kernel itself kept of the space that is about to end.
    HighWater {
        /// Which.
        space: SpaceId,
        /// The figures.
        high_water: HighWater,
    },
    /// A task has called execve successfully. The new space follows as `SpaceBegan`.
    Exec {
        /// The task that goes on, now its process's leader.
        tid: Tid,
        /// Its tid before the call.
        former: Tid,
        /// The new command name.
        comm: Arc<str>,
    },
    /// A task is gone.
    TaskEnded {
        /// Which.
        tid: Tid,
        /// How.
        end: TaskEnd,
    },
    /// A space is gone, or no longer traced.
    SpaceEnded {
        /// Which.
        space: SpaceId,
        /// How.
        ended: Ended,
    },
    /// A signal is about to be delivered to a tracee, or stopped it.
    Signal(SignalSeen),
    /// Something the user should know: what was dropped, guessed or could not be followed.
    Note {
        /// Which space it is about, if one.
        space: Option<SpaceId>,
        /// One line.
        text: String,
    },
    /// Observations that were lost, a count.
    Lost(u64),
    /// A file of code that a space has mapped; the first time it is seen in the trace.
    File(FileSeen),
    /// The next module that stacks lead through.
    Module(Module),
    /// A stack, before the first call that has it.
    Stack(StackSeen),
    /// Names of frames.
    Names(NamesSeen),
}

/// How a space came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Began {
    /// By execve(2); at launch too.
    Exec,
    /// As a copy of another space, by fork(2) or clone(2) without CLONE_VM.
    Fork {
        /// The space that was copied; `None` if it was not traced.
        parent: Option<SpaceId>,
    },
    /// It was there when tracing began.
    Attach,
}

/// How a space ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its last task exited.
    Exit,
    /// Its last task called execve(2).
    Exec,
    /// It was let go.
    Detach,
    /// The trace stops before the space did.
    Cut,
}

/// See [`Observed::SpaceBegan`].
#[derive(Clone, Debug, PartialEq)]
pub struct SpaceBegan {
    /// Its number, new.
    pub space: SpaceId,
    /// The process.
    pub pid: Tid,
    /// How.
    pub began: Began,
    /// Target of `/proc/PID/exe`; empty if it could not be read.
    pub exe: Arc<str>,
    /// Its mappings at that moment. Empty for a fork that could not be looked at: a copy of the
    /// parent's.
    pub snapshot: Snapshot,
    /// False if the maps could not be read (an execute-only file): the model begins empty and
    /// cannot be verified.
    pub known: bool,
    /// `start_brk` (field 47 of stat), if it could be read.
    pub brk_start: Option<Addr>,
    /// The process runs with the READ_IMPLIES_EXEC personality.
    pub read_implies_exec: bool,
}

/// See [`Observed::TaskBegan`].
#[derive(Clone, Debug, PartialEq)]
pub struct TaskBegan {
    /// The task.
    pub tid: Tid,
    /// Its process.
    pub pid: Tid,
    /// Its address space, announced before.
    pub space: SpaceId,
    /// Who made it, if that was traced.
    pub parent: Option<Tid>,
    /// How.
    pub origin: TaskOrigin,
    /// Command name.
    pub comm: Arc<str>,
}

/// How a task came into sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskOrigin {
    /// Launched by memtrace.
    Launch,
    /// Attached to.
    Attach,
    /// A thread of a traced process.
    Thread,
    /// A child with a copy of the space.
    Fork,
    /// A child that shares the space until it execs.
    Vfork,
    /// A process of its own that shares the space (CLONE_VM without CLONE_THREAD).
    SharedSpace,
}

/// See [`Observed::CallEntered`].
#[derive(Clone, Debug, PartialEq)]
pub struct CallEntered {
    /// Who.
    pub tid: Tid,
    /// In which space.
    pub space: SpaceId,
    /// What.
    pub call: RawCall,
    /// What was fetched at the entry.
    pub fetched: Vec<Fetched>,
}

/// See [`Observed::Call`].
#[derive(Clone, Debug, PartialEq)]
pub struct CallDone {
    /// Who.
    pub tid: Tid,
    /// In which space.
    pub space: SpaceId,
    /// When it reached the kernel; the observation's time is when it returned.
    pub entered: Timestamp,
    /// What.
    pub call: RawCall,
    /// What was fetched from the tracee, at entry and exit.
    pub fetched: Vec<Fetched>,
    /// The return value: sign-extended register, negative errno for an error.
    pub result: i64,
    /// The kernel's answers about the touched ranges, where they were asked for.
    pub evidence: Vec<Evidence>,
    /// Another layout-changing call of the space was in flight at the same time (a call that
    /// blocked lost its slot, or nothing was stopped): the order is not certain and a checkpoint
    /// follows.
    pub overlapped: bool,
    /// Who called.
    pub stack: Stack,
    /// What bounded the caller, if the call was refused ([`is_refused`](super::is_refused)).
    pub refused: Option<Box<Figures>>,
}

/// Why a whole map was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckCause {
    /// The space is about to end by exit.
    Exit,
    /// The space is about to end by execve.
    Exec,
    /// Tracing of it ends.
    Detach,
    /// `--verify=every` or `=N`.
    Asked,
    /// Calls overlapped or a result was surprising: the model is to be corrected by it.
    Doubt,
}

/// Physical memory behind a space. From `statm` while running; from `status` and smaps at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// VmRSS.
    pub now: Bytes,
    /// RssAnon, `None` where only statm was read.
    pub anon: Option<Bytes>,
    /// RssFile, `None` where only statm was read.
    pub file: Option<Bytes>,
    /// RssShmem, `None` where only statm was read.
    pub shmem: Option<Bytes>,
    /// VmHWM, the kernel's own peak, where status was read.
    pub high_water: Option<Bytes>,
    /// VmSize, where status or statm was read.
    pub mapped: Option<Bytes>,
    /// VmSwap, which is not resident: where status was read or the kernel's own counts were.
    pub swap: Option<Bytes>,
}

/// The kernel's own peaks over the life of a space, exact to its units (KiB): `hiwater_vm` and
/// `hiwater_rss` of taskstats (Documentation/accounting/taskstats-struct.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HighWater {
    /// Most ever mapped: VmPeak.
    pub mapped: Bytes,
    /// Most ever resident: VmHWM.
    pub resident: Bytes,
}

/// A page fault. See [`Observed::Touched`].
#[derive(Clone, Debug, PartialEq)]
pub struct Touched {
    /// Who.
    pub tid: Tid,
    /// In which space.
    pub space: SpaceId,
    /// Where, to the byte where the kernel tells it so.
    pub addr: Addr,
    /// To write there.
    pub write: bool,
    /// So many page faults this one stands for: more than 1 where not all were recorded.
    pub stands_for: u32,
    /// Who touched it.
    pub stack: Stack,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// exit(2) or exit_group(2) with this status.
    Exited(i32),
    /// A signal ended it.
    Killed {
        /// Which.
        signal: i32,
        /// A core was dumped.
        core: bool,
    },
    /// Another thread's execve ended it, or it was let go.
    Gone,
}

/// See [`Observed::Signal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalSeen {
    /// Who gets it.
    pub tid: Tid,
    /// Number.
    pub signal: i32,
    /// It stopped the process (a group stop) rather than being delivered.
    pub stopped: bool,
    /// `si_code`.
    pub code: i32,
    /// `si_errno`.
    pub errno: i32,
    /// The next words of siginfo_t (from byte 16 on), whose meaning depends on `code` and `signal`.
    pub fields: [u64; 4],
}

/// What a mapped file of code says of itself. See [`Observed::File`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSeen {
    /// The space that mapped it first.
    pub space: SpaceId,
    /// Its path, as maps prints it.
    pub path: Arc<str>,
    /// Device and inode, as maps prints them.
    pub file: FileId,
    /// The ELF note NT_GNU_BUILD_ID; empty if there is none.
    pub build_id: Arc<[u8]>,
    /// The version it states: of the Go toolchain (`go1.25.5`), of the JDK of a libjvm.so, of the
    /// package by the ELF package note.
    pub version: Option<Arc<str>>,
}
