//! What is true of a whole trace.

use crate::units::Bytes;

/// The facts that do not change while a trace is made: a trace file's header, and part of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceInfo {
    /// Version of memtrace that made the trace.
    pub version: String,
    /// The program and its arguments; empty when attached.
    pub command: Vec<String>,
    /// The processes attached to; empty when launched.
    pub attached: Vec<i32>,
    /// How it was observed: `ptrace` or `kernel`.
    pub backend: String,
    /// How memory calls were stopped: `seccomp` or `syscall`, and why in words.
    pub stops: String,
    /// When, in RFC 3339 with second precision, UTC.
    pub started: String,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// Machine, as `uname -m` prints it.
    pub arch: String,
    /// Bytes in a page.
    pub page_size: u32,
    /// vm.overcommit_memory: 0, 1 or 2.
    pub overcommit: u8,
    /// What bounded the traced program.
    pub environment: Environment,
}

/// What bounds the memory of the traced program, read when tracing began. Of several programs
/// attached to, it is about the first. `None`: it could not be read, or there is no such thing here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// MemTotal of `/proc/meminfo`.
    pub memory: Option<Bytes>,
    /// SwapTotal of `/proc/meminfo`.
    pub swap: Option<Bytes>,
    /// vm.overcommit_ratio, percent; the kernel uses it if vm.overcommit_kbytes is 0.
    pub overcommit_ratio: Option<u64>,
    /// vm.overcommit_kbytes, in KiB.
    pub overcommit_kbytes: Option<u64>,
    /// vm.max_map_count.
    pub max_map_count: Option<u64>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub thp: Option<String>,
    /// Resource limits of the process.
    pub limits: Limits,
    /// Its memory cgroup.
    pub cgroup: Option<Cgroup>,
}

/// Resource limits of a process, those that bound memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// RLIMIT_AS.
    pub address_space: Option<Limit>,
    /// RLIMIT_DATA.
    pub data: Option<Limit>,
    /// RLIMIT_STACK.
    pub stack: Option<Limit>,
    /// RLIMIT_MEMLOCK.
    pub locked: Option<Limit>,
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What the kernel enforces.
    pub soft: Bound,
    /// How far the process itself may raise it.
    pub hard: Bound,
}

/// A number of bytes, or no limit at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// At most so many bytes.
    Bytes(Bytes),
    /// `unlimited` of a resource limit, `max` of a cgroup.
    Unlimited,
}

impl Bound {
    /// The number, if there is one.
    pub fn bytes(self) -> Option<Bytes> {
        match self {
            Bound::Bytes(bytes) => Some(bytes),
            Bound::Unlimited => None,
        }
    }
}

/// The memory cgroup of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// 2, or 1 where the memory controller is not on the unified hierarchy.
    pub version: u8,
    /// Its path, as `/proc/PID/cgroup` has it.
    pub path: String,
    /// memory.max; memory.limit_in_bytes of version 1.
    pub max: Option<Bound>,
    /// memory.high; version 1 has none.
    pub high: Option<Bound>,
    /// memory.swap.max; version 1 has none (its memsw limit counts memory too).
    pub swap_max: Option<Bound>,
    /// The lowest `max` of it and of those above it, as far as they can be seen: what binds.
    pub lowest_max: Option<Bound>,
    /// memory.current, when tracing began; memory.usage_in_bytes of version 1.
    pub current: Option<Bytes>,
}
