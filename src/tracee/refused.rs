//! What bounded a task whose memory call was just refused. Read at its exit stop, so that a limit
//! set a moment ago counts; only then, so that what it costs does not matter.

use std::fs;
use std::path::Path;

use crate::abi::{CallKind, MapFlags};
use crate::decode::{Call, Fetched, RawCall, decode, effective_kind};
use crate::timeline::{Bound, Figures, Limit, is_refused};
use crate::units::{Addr, AddrRange, Bytes, PAGE, SpaceId, Tid};

use super::environment::{limits, number};
use super::procfs::{self, Status};
use super::slot;
use super::state::{InCall, Kind};
use super::supervisor::Supervisor;

impl Supervisor {
    /// The figures behind the refusal of a call; `None` if it was not refused.
    pub(super) fn refused(
        &mut self,
        tid: Tid,
        id: SpaceId,
        in_call: &InCall,
        fetched: &[Fetched],
        result: i64,
    ) -> Option<Box<Figures>> {
        let call = &in_call.call;
        let space = self.tables.spaces.get_mut(&id)?;
        if 0 <= result || !slot::is_plain_mmap(call) {
            // It may have added mappings, or cut one in two.
            space.map_count = None;
        }
        is_refused(call, result)?;
        let beside = match in_call.kind {
            Kind::Layout => {
                let mut running = space.in_flight.iter();
                in_call.overlapped || running.any(|running| running.tid == tid && running.beside)
            }
            _ => 1 < space.tasks,
        };
        let map_count = match space.map_count {
            None => procfs::map_count(tid),
            known => known,
        };
        space.map_count = map_count;
        let figures = figures(tid, call, fetched);
        Some(Box::new(Figures {
            map_count,
            beside: Some(u64::from(beside)),
            ..figures
        }))
    }
}

/// What bounds the task now, and how much of it is in use: all but the number of mappings, which
/// takes long to count.
fn figures(tid: Tid, call: &RawCall, fetched: &[Fetched]) -> Figures {
    let mut figures = of_task(tid);
    of_machine(&mut figures);
    of_call(&mut figures, tid, call, fetched);
    figures
}

/// The figures behind a refusal of a while ago; `None` if the task has ended since. What was done to
/// its limits meanwhile nobody knows.
pub(super) fn refused_before(
    pid: Tid,
    tid: Tid,
    call: &RawCall,
    fetched: &[Fetched],
) -> Option<Box<Figures>> {
    let figures = Figures {
        map_count: procfs::map_count(tid),
        beside: Some(1),
        ..figures(tid, call, fetched)
    };
    let is_there = figures.mapped.is_some() && procfs::is_thread_of(pid, tid);
    is_there.then(|| Box::new(figures))
}

fn of_task(tid: Tid) -> Figures {
    let limits = limits(&fs::read_to_string(format!("/proc/{tid}/limits")).unwrap_or_default());
    let soft = |limit: Option<Limit>| limit.map(|limit| limit.soft);
    let status = Status::read(tid).unwrap_or_default();
    let kib = |key: &str| status.number(key)?.checked_mul(1024).map(Bytes);
    let effective = status
        .get("CapEff")
        .and_then(|hex| u64::from_str_radix(hex, 16).ok());
    Figures {
        limit_as: soft(limits.address_space),
        limit_data: soft(limits.data),
        limit_data_hard: limits.data.map(|limit: Limit| -> Bound { limit.hard }),
        limit_memlock: soft(limits.locked),
        mapped: kib("VmSize"),
        data: kib("VmData"),
        locked: kib("VmLck"),
        capabilities: in_initial_user_namespace(tid)
            .and_then(|initial| if initial { effective } else { Some(0) }),
        static_data: procfs::static_data(tid),
        ..Figures::default()
    }
}

/// Elsewhere capabilities do not count for what the whole machine shares.
fn in_initial_user_namespace(tid: Tid) -> Option<bool> {
    // PROC_USER_INIT_INO, include/linux/proc_ns.h.
    let namespace = fs::read_link(format!("/proc/{tid}/ns/user")).ok()?;
    Some(namespace == Path::new("user:[4026531837]"))
}

fn of_machine(figures: &mut Figures) {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let kib = |key: &str| field(key)?.checked_mul(1024).map(Bytes);
    let reserve = |name: &str| number(name)?.checked_mul(1024).map(Bytes);
    figures.max_map_count = number("/proc/sys/vm/max_map_count");
    figures.overcommit = number("/proc/sys/vm/overcommit_memory");
    figures.memory = kib("MemTotal:");
    figures.swap = kib("SwapTotal:");
    figures.commit_limit = kib("CommitLimit:");
    figures.committed = kib("Committed_AS:");
    figures.admin_reserve = reserve("/proc/sys/vm/admin_reserve_kbytes");
    figures.user_reserve = reserve("/proc/sys/vm/user_reserve_kbytes");
    figures.min_addr = number("/proc/sys/vm/mmap_min_addr");
    figures.huge_page = kib("Hugepagesize:");
    let huge = field("HugePages_Free:").zip(field("HugePages_Rsvd:"));
    figures.huge_free = huge.map(|(free, promised)| free.saturating_sub(promised));
}

/// What matters to some calls only.
fn of_call(figures: &mut Figures, tid: Tid, call: &RawCall, fetched: &[Fetched]) {
    let kind = effective_kind(call);
    let decoded = decode(call, fetched);
    let huge = matches!(&decoded, Call::Mmap(mmap) if mmap.flags.contains(MapFlags::HUGETLB));
    if !huge {
        (figures.huge_page, figures.huge_free) = (None, None);
    }
    if let Call::Shmat { shmid, .. } = decoded {
        figures.segment = segment(tid, shmid);
    }
    if matches!(kind, Some(CallKind::Mlock | CallKind::Mlock2)) {
        let [addr, len, ..] = call.args;
        let start = Addr(addr & !(PAGE - 1));
        let range = AddrRange::covering(start, len.saturating_add(addr % PAGE));
        figures.locked_in_range = range.and_then(|range| procfs::locked_in(tid, range));
    }
}

/// The size of a SysV segment, if the task's segments are those that memtrace sees.
fn segment(tid: Tid, shmid: i32) -> Option<Bytes> {
    let namespace = |task: &str| fs::read_link(format!("/proc/{task}/ns/ipc")).ok();
    if namespace("self")? != namespace(&tid.to_string())? {
        return None;
    }
    // key shmid perms size …
    let text = fs::read_to_string("/proc/sysvipc/shm").ok()?;
    text.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let found: i32 = fields.next()?.parse().ok()?;
        let size = fields.nth(1)?.parse().ok()?;
        (found == shmid).then_some(Bytes(size))
    })
}
