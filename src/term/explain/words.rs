//! Arguments in words: each with the rule and the figures that it follows from.

use crate::report::explain::{
    Cause, Cgroups, Facts, FillingKind, Level, Limited, Next, Reason, Refusal, Refuser, Row,
    Source, State, Unit, Verdict,
};
use crate::term::{Count, ErrorName, Percent, Size, escaped};
use crate::units::Bytes;

/// What a row limits, and where: `memory.max of /a/b`.
pub(super) fn limit_name(row: &Row, facts: &Facts) -> String {
    let of = |file: &str| match level(row, facts) {
        // A trace holds the lowest of them, not whose it is.
        Some((all, level)) if all.only_at_begin && row.limited == Limited::CgroupMax => {
            format!("the lowest {file} of {} and above", safe(&level.path))
        }
        Some((_, level)) => format!("{file} of {}", safe(&level.path)),
        None => file.to_owned(),
    };
    match row.limited {
        Limited::CgroupMax => of(Level::max_name(version(facts))),
        Limited::CgroupHigh => of("memory.high"),
        Limited::AddressSpace => "RLIMIT_AS".to_owned(),
        Limited::Data => "RLIMIT_DATA".to_owned(),
        Limited::Stack => "RLIMIT_STACK".to_owned(),
        Limited::Commit => "CommitLimit".to_owned(),
        Limited::Mappings => "vm.max_map_count".to_owned(),
        Limited::Addresses => "addresses".to_owned(),
        Limited::Machine => "memory and swap of the machine".to_owned(),
    }
}

fn version(facts: &Facts) -> u8 {
    facts.cgroup.as_ref().map_or(2, |cgroups| cgroups.version)
}

fn level<'a>(row: &Row, facts: &'a Facts) -> Option<(&'a Cgroups, &'a Level)> {
    let cgroups = facts.cgroup.as_ref()?;
    Some((cgroups, cgroups.levels.get(row.level?)?))
}

/// Text of a tracee's, safe to show.
pub(super) fn safe(text: &str) -> String {
    escaped(text.as_bytes(), true)
}

/// An amount of a row's.
pub(super) fn amount(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => Size(Bytes(value)).to_string(),
        Unit::Count => Count(value).to_string(),
    }
}

/// How much of a limit is used.
pub(super) fn share(row: &Row) -> String {
    let most = row.value.unwrap_or_default().saturating_add(row.slack);
    Percent {
        part: Bytes(row.decisive.unwrap_or_default()),
        whole: Bytes(most),
    }
    .to_string()
}

/// One argument, a sentence without its full stop.
pub fn reason(reason: &Reason, facts: &Facts) -> String {
    match reason {
        Reason::Refused(refusal) => refused(refusal),
        Reason::Near(row) => near(row, facts),
        Reason::Fills { filling, own, .. } => {
            let what = match filling.kind {
                FillingKind::Anon => "anonymous memory (MADV_FREE'd pages left out)",
                FillingKind::Shmem => {
                    "shared memory and tmpfs, which stay until they are deleted or go to swap"
                }
                FillingKind::Kernel => "memory of the kernel's own (page tables, slab, sockets)",
                FillingKind::Cache => "page cache that is locked or waits to be written",
            };
            let bytes = Size(filling.bytes);
            let mut text = format!("most of what cannot be taken back there is {what}: {bytes}");
            if facts.cgroup.as_ref().is_some_and(|all| all.only_at_begin) {
                text = format!("of the process itself, {bytes} was {what}");
            } else if let Some(own) = own {
                text.push_str(&format!(", {} of this process's", Size(*own)));
            }
            text
        }
        Reason::Together(resident) => format!(
            "all processes of the program together came to {} of physical memory at their peak",
            Size(*resident)
        ),
        Reason::Neighbour {
            pid,
            name,
            anon,
            own,
        } => format!(
            "process {pid} ({}) in the same cgroup has {} of anonymous memory, this one {}: \
             the kernel may kill either, though only the first fills it",
            safe(name),
            Size(*anon),
            Size(*own)
        ),
        Reason::Unattributed { anon, seen } => format!(
            "of {} of anonymous memory that is counted there, the processes that can be seen \
             have {}: the rest belongs to others, or to processes that moved away",
            Size(*anon),
            Size(*seen)
        ),
        Reason::CacheFull {
            path,
            limit,
            counted,
            cache,
            fixed,
            met,
        } => format!(
            "{} counts {} of {} and has met its limit {} times; {} of it is page cache, which the \
             kernel takes back before it kills anybody ({} cannot be taken back): this slows file \
             access and allocation, and is no reason for an out-of-memory kill by itself",
            safe(path),
            Size(*counted),
            Size(*limit),
            Count(*met),
            Size(*cache),
            Size(*fixed)
        ),
        Reason::Kills {
            path,
            kills,
            meanwhile,
        } => format!(
            "the kernel has counted {} out-of-memory {} in {}{}",
            Count(*kills),
            plural(*kills, "kill", "kills"),
            safe(path),
            if *meanwhile {
                " since the program was launched"
            } else {
                " (or below it) since that was made; what filled it then is not on record"
            }
        ),
        Reason::Killed { kills } => match kills {
            Some(0) => "it was ended by SIGKILL, and the kernel counted no out-of-memory kill on \
                        the machine meanwhile: somebody sent it"
                .to_owned(),
            Some(kills) => format!(
                "it was ended by SIGKILL, and the kernel counted {} out-of-memory {} on the machine \
                 meanwhile",
                Count(*kills),
                plural(*kills, "kill", "kills")
            ),
            None => "it was ended by SIGKILL; who sent it, the kernel for want of memory or \
                     somebody else, is not known here"
                .to_owned(),
        },
        Reason::MachineFull(row) => format!(
            "of the machine's memory and swap ({}) {} is taken: its out-of-memory killer may kill \
             any process, whatever its cgroup",
            amount(row.value.unwrap_or_default(), row.unit),
            share(row)
        ),
        Reason::NothingNear(Some(row)) => format!(
            "none of the limits above is near; the nearest is {}: {} of {}",
            limit_name(row, facts),
            share(row),
            amount(row.value.unwrap_or_default(), row.unit)
        ),
        Reason::NothingNear(None) => {
            "none of the limits above is near: none that can be checked has a value".to_owned()
        }
        Reason::NotChecked(row) => format!(
            "{} ({}) was not checked: what it counts is not known",
            limit_name(row, facts),
            amount(row.value.unwrap_or_default(), row.unit)
        ),
        Reason::NotKnown(what) => format!("{what} could not be read: nothing can be excluded"),
        Reason::NoSpace(State::KernelThread) => {
            "it is a thread of the kernel's: it has no address space, and no limit ends it".to_owned()
        }
        Reason::NoSpace(_) => {
            "it has ended already (a zombie): its memory is gone, its exit status waits for its parent"
                .to_owned()
        }
        Reason::Size {
            matters,
            limit,
            limit_known,
            overcommit,
            untouched,
        } => size(*matters, *limit, *limit_known, *overcommit, *untouched),
        Reason::Hidden { path } => format!(
            "cgroups above {} cannot be seen from here; a lower limit of theirs would hold as well",
            safe(path)
        ),
        Reason::HiddenLimit(limit) => format!(
            "the kernel tells of a limit of {} in a cgroup above those that can be seen from here",
            Size(*limit)
        ),
    }
}

fn refused(refusal: &Refusal) -> String {
    let Refusal {
        call,
        asked,
        errno,
        pid,
        refuser,
        times,
        ..
    } = refusal;
    let times = match times {
        1 => String::new(),
        times => format!(" ({} times)", Count(*times)),
    };
    let call = format!(
        "{call} of process {pid} asked for {} and failed with {}{times}",
        Size(*asked),
        ErrorName(*errno)
    );
    let sum = |a: Bytes| Size(a + *asked);
    match refuser {
        Refuser::AddressSpace { limit, mapped } => format!(
            "{call}: RLIMIT_AS is {}, {} was mapped, {} would have been",
            Size(*limit),
            Size(*mapped),
            sum(*mapped)
        ),
        Refuser::Data { limit, data } => format!(
            "{call}: RLIMIT_DATA is {}, {} of private writable memory was mapped, {} would have been",
            Size(*limit),
            Size(*data),
            sum(*data)
        ),
        Refuser::Mappings { limit, mappings } => format!(
            "{call}: vm.max_map_count is {}, and there were {} mappings at least",
            Count(*limit),
            Count(*mappings)
        ),
        Refuser::Addresses { hole } => {
            format!(
                "{call}: the largest hole in the address space was {}",
                Size(*hole)
            )
        }
        Refuser::Commit { limit, committed } => format!(
            "{call}: overcommit mode 2 allows {} on this machine, {} was charged, {} would have been",
            Size(*limit),
            Size(*committed),
            sum(*committed)
        ),
        Refuser::Guess { all } => format!(
            "{call}: overcommit mode 0 refuses more at once than memory and swap together, {}",
            Size(*all)
        ),
        Refuser::Unknown => format!("{call}: which limit it was cannot be told"),
    }
}

fn near(row: &Row, facts: &Facts) -> String {
    let name = limit_name(row, facts);
    let value = amount(row.value.unwrap_or_default(), row.unit);
    let counted = amount(row.counted.unwrap_or_default(), row.unit);
    let decisive = amount(row.decisive.unwrap_or_default(), row.unit);
    let share = share(row);
    match row.limited {
        Limited::CgroupMax if facts.subject.source == Source::Trace => format!(
            "{name} is {value}, and the memory of this process alone came to {decisive} ({share})"
        ),
        Limited::CgroupMax => {
            let swap = match row.slack {
                0 => String::new(),
                slack => format!(" and {} of swap", Size(Bytes(slack))),
            };
            format!(
                "{name} is {value}; of {counted} that is counted, {decisive} cannot be taken back, \
                 {share} of that limit{swap}: when it is full, the kernel kills a process of the cgroup"
            )
        }
        Limited::CgroupHigh => format!(
            "{name} is {value}; of {counted} that is counted, {decisive} cannot be taken back: \
             above it the kernel slows each process down, and kills none"
        ),
        Limited::AddressSpace => format!(
            "RLIMIT_AS is {value}, and {decisive} is mapped ({share}), reserved or not: beyond it \
             mmap and brk fail with ENOMEM"
        ),
        Limited::Data => format!(
            "RLIMIT_DATA is {value}, and {decisive} of private writable memory is mapped ({share}): \
             beyond it mmap, brk and mprotect fail with ENOMEM"
        ),
        Limited::Stack => format!(
            "RLIMIT_STACK is {value}, and the main thread's stack is {decisive} ({share}): where it would \
             have to grow beyond, the kernel sends SIGSEGV, and no other memory is short"
        ),
        Limited::Commit => format!(
            "overcommit mode 2: the machine has charged {decisive} of {value} ({share}): beyond it \
             every process's mmap, brk and mprotect fail with ENOMEM"
        ),
        Limited::Mappings => format!(
            "vm.max_map_count is {value}, and there are {decisive} mappings ({share}): beyond it \
             mmap, munmap and mprotect fail with ENOMEM"
        ),
        Limited::Addresses => format!(
            "the address space has no large hole left ({counted} of {value} is mapped): mmap fails \
             with ENOMEM for want of addresses"
        ),
        Limited::Machine => format!("{name}: {share} is taken"),
    }
}

fn size(
    matters: bool,
    limit: Option<Bytes>,
    limit_known: bool,
    overcommit: Option<u8>,
    untouched: Option<Bytes>,
) -> String {
    let limit = match (limit, limit_known) {
        (Some(limit), _) => format!("RLIMIT_AS is {}", Size(limit)),
        (None, true) => "RLIMIT_AS is unlimited".to_owned(),
        (None, false) => "RLIMIT_AS is not known".to_owned(),
    };
    let mode = match overcommit {
        Some(2) => {
            "the commit limit counts it only as far as it is charged (overcommit mode 2)".to_owned()
        }
        Some(mode) => format!("the commit limit is not enforced (overcommit mode {mode})"),
        None => "the overcommit mode is not known".to_owned(),
    };
    let known = limit_known && overcommit.is_some();
    let mut text = match matters {
        true => format!("VSZ matters here: {limit}, {mode}"),
        false if !known => format!("nothing shows that VSZ matters: {limit}, {mode}"),
        false => format!("VSZ is not it: {limit}, {mode}, and no cgroup counts address space"),
    };
    if let Some(untouched) = untouched {
        text.push_str(&format!(
            "; {} of what is committed was never touched, or was given back: no memory is behind it",
            Size(untouched)
        ));
    }
    text
}

/// The verdict in one line.
pub fn headline(verdict: &Verdict) -> &'static str {
    match verdict.cause {
        Cause::None => "no limit that can be seen here is a reason for a restart",
        Cause::VszLimit => "the limit on address space (VSZ) can be",
        Cause::CgroupAnon => {
            "the cgroup's memory limit can be: this process's anonymous memory fills it"
        }
        Cause::CgroupCache => "page cache fills the cgroup: that slows, and by itself kills nobody",
        Cause::CgroupShmem => "the cgroup's memory limit can be: shared memory or tmpfs fills it",
        Cause::CgroupKernel => "the cgroup's memory limit can be: kernel memory fills it",
        Cause::CgroupOtherProcess => {
            "the cgroup's memory limit can be: another process fills it, not this one"
        }
        Cause::CommitLimit => "the machine's commit limit can be",
        Cause::MapCount => "the limit on the number of mappings can be",
        Cause::RlimitData => "RLIMIT_DATA can be",
        Cause::RlimitStack => "RLIMIT_STACK can be: the main thread's stack has nearly reached it",
        Cause::Unknown => "it cannot be told from what is known here",
    }
}

/// What to do next, a sentence without its full stop.
pub fn next(next: &Next, facts: &Facts) -> String {
    let pid = facts.subject.pid;
    match next {
        Next::Allocations if facts.subject.source != Source::Process => {
            "who commits it: the heap profile of its runtime, or memtrace -k -o run.mtr PROGRAM"
                .to_owned()
        }
        Next::Allocations => format!(
            "who commits it: the heap profile of its runtime, or memtrace -k -o run.mtr -p {pid}"
        ),
        Next::Neighbour(pid) => format!("memtrace explain -p {pid}"),
        Next::Files => "which files it reads and writes; POSIX_FADV_DONTNEED or O_DIRECT for data read once"
            .to_owned(),
        Next::SharedMemory => {
            "df -h /dev/shm and every tmpfs of the container, ipcs -m, memfd files in /proc/PID/fd".to_owned()
        }
        Next::Kernel => {
            "memory.stat (slab, pagetables, sock, percpu), open sockets, directories with many files"
                .to_owned()
        }
        Next::Reservations => {
            "who reserves it: memtrace -o run.mtr PROGRAM, then memtrace report run.mtr; raise ulimit -v"
                .to_owned()
        }
        Next::Mappings => {
            "who maps so often: memtrace report --by mapping; merge mappings, or raise vm.max_map_count"
                .to_owned()
        }
        Next::Stack => {
            "what recurses so deep, or has large variables, in the main thread (a debugger's backtrace); \
             raise ulimit -s"
                .to_owned()
        }
        Next::Commit => {
            "whose memory is charged (ac in smaps); vm.overcommit_ratio, or more swap".to_owned()
        }
        Next::KernelLog => {
            "the kernel's log names victim and cgroup of each kill: dmesg | grep -i 'killed process'"
                .to_owned()
        }
        Next::OutsideMemory => {
            "outside memory limits: exit status, log, health probes; or look again when it is bigger"
                .to_owned()
        }
        Next::Rights => "the same as the process's own user or as root".to_owned(),
        Next::LiveLook => {
            "memtrace explain -p PID on the living process, or memtrace explain -- PROGRAM".to_owned()
        }
    }
}

pub(super) fn plural(count: u64, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}
