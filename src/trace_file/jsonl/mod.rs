//! Observations in lines of JSON: what makes a file of `memtrace.events/1` readable again.
//!
//! Lines hold events, for other programs; a trace is read again from observations. So the first
//! line about an observation has it as `raw` besides, the `time` of the line being its own, and
//! the header has the whole of [`TraceInfo`] as `info`, and the version of what `raw` holds as `raw`.
//! A line without `raw` was concluded from others and is not read.
//!
//! | type of the line | `raw` |
//! |---|---|
//! | `space` | space, pid, began, parent, exe, known, brk_start, read_implies_exec, snapshot |
//! | `launch`, `attach`, `thread`, `fork` | tid, pid, space, parent, origin, comm |
//! | `enter`, `call` | tid, space, entered, abi (if i386), nr, args, fetched; result (none: the call was cut short), evidence, overlapped, stack, refused (what bounded the caller of a call that was refused) |
//! | `check`, `resync` | space, cause, snapshot |
//! | `sample` | space, now, anon, file, shmem, high_water, mapped, swap |
//! | `touch` | tid, space, addr, write, stands_for, stack |
//! | `high_water` | space, mapped, resident: the kernel's own peaks |
//! | `grown` | space, start, end of a stack that page faults extended |
//! | `exec` | tid, former, comm |
//! | `exit` | tid, end |
//! | `space_end` | space, ended |
//! | `signal` | tid, signal, stopped, code, errno, fields |
//! | `note` | space, text |
//! | `lost` | count |
//! | `file` | space, path, dev, inode, build_id, version |
//! | `module` | path, dev, inode: the next module that stacks lead through, numbered from 0 |
//! | `stack` | id, end, frames (module and offset in its file, or space and pc), innermost first |
//! | `names` | names: frames, each with function, offset, file, line of what it is called |
//! | `observed` | any of these, as `what` says: it made no event when it was seen (a call cut short, whose effect the next check tells) |
//! | `end` | none; `observations` counts those before, `notes` and `damage` say what a trace that these lines were made from lacked |
//!
//! Registers, addresses, file offsets and inodes are hex strings (many programs round JSON's own
//! numbers above 2^53); bytes that are no UTF-8 are `{"hex": "..."}`; what is
//! false, zero or empty is left out. `seq` goes up by one from event to event (`enter`, `file`, `touch`, `high_water` and
//! `observed` have that of the event before), so that missing lines are noticed; `end` comes last but for the summary, so that a missing end is.

mod begins;
mod calls;
mod damage;
mod maps;
mod reader;
mod stacks;
mod wire;

pub use damage::WireDamage;
pub use reader::JsonlReader;

use crate::timeline::{Observation, Observed, TraceInfo};

/// The name of the format; after it a version.
pub const SCHEMA: &str = "memtrace.events/";
/// The version of the format; a newer one cannot be read.
pub const VERSION: u16 = 1;
/// The version of `raw`; a newer one cannot be read.
pub const RAW: u16 = 1;
/// Longest line but for a summary, which may be longer. As long as a block of a trace file.
pub const MAX_LINE: u64 = super::format::MAX_BLOCK as u64;

/// Kinds of `raw`, by the type of line that usually has it.
pub(super) mod kind {
    pub(crate) const SPACE: &str = "space";
    pub(crate) const TASK: &str = "launch";
    pub(crate) const ENTER: &str = "enter";
    pub(crate) const CALL: &str = "call";
    pub(crate) const CHECK: &str = "check";
    pub(crate) const SAMPLE: &str = "sample";
    pub(crate) const TOUCH: &str = "touch";
    pub(crate) const HIGH_WATER: &str = "high_water";
    pub(crate) const GROWN: &str = "grown";
    pub(crate) const EXEC: &str = "exec";
    pub(crate) const EXIT: &str = "exit";
    pub(crate) const SPACE_END: &str = "space_end";
    pub(crate) const SIGNAL: &str = "signal";
    pub(crate) const NOTE: &str = "note";
    pub(crate) const LOST: &str = "lost";
    pub(crate) const FILE: &str = "file";
    pub(crate) const MODULE: &str = "module";
    pub(crate) const STACK: &str = "stack";
    pub(crate) const NAMES: &str = "names";
}

/// The type of a line about a call that is not told of.
pub const UNSHOWN: &str = "unshown";

/// What a line about `observation` has as `raw`: JSON text.
pub fn raw(observation: &Observation) -> serde_json::Result<String> {
    wire::text(&observation.what)
}

/// What an `observed` line about `observation` has as `what`.
pub fn what(observation: &Observation) -> &'static str {
    match &observation.what {
        Observed::SpaceBegan(_) => kind::SPACE,
        Observed::TaskBegan(_) => kind::TASK,
        Observed::CallEntered(_) => kind::ENTER,
        Observed::Call(_) | Observed::CallCut { .. } => kind::CALL,
        Observed::Checkpoint { .. } => kind::CHECK,
        Observed::Resident { .. } => kind::SAMPLE,
        Observed::Touched(_) => kind::TOUCH,
        Observed::HighWater { .. } => kind::HIGH_WATER,
        Observed::Grown { .. } => kind::GROWN,
        Observed::Exec { .. } => kind::EXEC,
        Observed::TaskEnded { .. } => kind::EXIT,
        Observed::SpaceEnded { .. } => kind::SPACE_END,
        Observed::Signal(_) => kind::SIGNAL,
        Observed::Note { .. } => kind::NOTE,
        Observed::Lost(_) => kind::LOST,
        Observed::File(_) => kind::FILE,
        Observed::Module(_) => kind::MODULE,
        Observed::Stack(_) => kind::STACK,
        Observed::Names(_) => kind::NAMES,
    }
}

/// What the header has as `info`: the header text of a trace file.
pub fn info(info: &TraceInfo) -> serde_json::Value {
    let text = super::header::info_text(info).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}
