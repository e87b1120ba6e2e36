//! One system call, from its entry stop to its exit stop.

use std::time::Instant;

use crate::abi::{Abi, CallKind, MapFlags, call_info};
use crate::decode::{
    Call, Fetched, FetchedData, Phase, RESULT, RawCall, Want, decode, is_memory_call, wants,
};
use crate::mm::{Context, Evidence, evidence_wanted};
use crate::timeline::{CallDone, CallEntered, Observation, Observed, Stack, read_implies_exec};
use crate::units::{Addr, SpaceId, Tid};

use super::filter::{CLONE_UNTRACED, OUR_DATA};
use super::looks::SAMPLE_EVERY;
use super::state::{InCall, Kind};
use super::supervisor::{Stops, Supervisor};
use super::sys::{self, SyscallInfo};
use super::{memory, procfs, slot, stack};

impl Supervisor {
    /// An entry, exit or seccomp stop: which of them, the kernel is asked (counting goes wrong).
    pub(super) fn syscall_stop(&mut self, tid: Tid) {
        match sys::syscall_info(tid) {
            Ok(SyscallInfo::Seccomp { data, .. }) if data as u16 != OUR_DATA => {
                self.foreign_filter(tid);
            }
            Ok(SyscallInfo::Seccomp { arch, nr, args, .. })
            | Ok(SyscallInfo::Entry { arch, nr, args }) => match sys::raw_call(arch, nr, args) {
                Some(call) => self.entry(tid, call),
                None => self.resume(tid, 0),
            },
            Ok(SyscallInfo::Exit { result }) => self.exit(tid, result),
            Ok(SyscallInfo::None) => self.resume(tid, 0),
            Err(_) => {}
        }
    }

    /// A filter of the program itself answered SECCOMP_RET_TRACE. Untraced, the call fails with
    /// ENOSYS (seccomp(2)); so it does here.
    fn foreign_filter(&mut self, tid: Tid) {
        if let Ok(mut regs) = memory::regs(tid) {
            regs.orig_rax = u64::MAX;
            regs.rax = (-i64::from(libc::ENOSYS)) as u64;
            let _ = sys::set_regs(tid, &regs);
        }
        self.resume(tid, 0);
    }

    fn classify(&self, tid: Tid, call: &RawCall) -> Kind {
        if let Some(info) = call_info(call.abi, call.nr) {
            let stops = info.default || self.options.extra.contains(&info.kind);
            return match stops && is_memory_call(call) {
                true if info.layout || splits(info.kind, call) => Kind::Layout,
                true => Kind::Memory,
                false => Kind::Other,
            };
        }
        use Abi::{I386, X86_64};
        match (call.abi, call.nr) {
            (X86_64, 59 | 322) | (I386, 11 | 358) => {
                let task = &self.tables.tasks[&tid];
                match self.tables.one_process(task.space, task.pid) {
                    true => Kind::Exec,
                    false => Kind::Other,
                }
            }
            (X86_64, 56) | (I386, 120) if call.args[0] & CLONE_UNTRACED != 0 => Kind::Clone,
            (_, 435) => Kind::Clone3 {
                at: call.args[0],
                flags: 0,
            },
            _ => Kind::Other,
        }
    }

    fn entry(&mut self, tid: Tid, call: RawCall) {
        let mut kind = self.classify(tid, &call);
        match &mut kind {
            Kind::Other => {
                self.resume(tid, 0);
                if self.stops == Stops::Syscall {
                    self.placed(tid, Instant::now());
                }
                return;
            }
            // An untraced child would inherit the filter and get ENOSYS for every memory call.
            Kind::Clone => {
                if let Ok(mut regs) = memory::regs(tid) {
                    match call.abi {
                        Abi::X86_64 => regs.rdi &= !CLONE_UNTRACED,
                        Abi::I386 => regs.rbx &= !CLONE_UNTRACED,
                    }
                    let _ = sys::set_regs(tid, &regs);
                }
                return self.resume(tid, 0);
            }
            Kind::Clone3 { at, flags } => {
                *flags = memory::read_u64(tid, Addr(*at)).unwrap_or(0);
                if *flags & CLONE_UNTRACED == 0 {
                    return self.resume(tid, 0);
                }
                let _ = memory::write_u64(tid, Addr(*at), *flags & !CLONE_UNTRACED);
            }
            Kind::Layout | Kind::Memory | Kind::Exec => {}
        }
        let entered = self.now();
        let fetched = match kind.is_memory() {
            true => self.fetch(tid, &call, Phase::Entry),
            false => Vec::new(),
        };
        if self.options.announce_entries
            && kind.is_memory()
            && let Some((space, _)) = self.tables.space_of(tid)
        {
            let fetched = fetched.clone();
            self.push(Observed::CallEntered(CallEntered {
                tid,
                space,
                call,
                fetched,
            }));
        }
        let stack = match self.options.stacks && kind.is_memory() {
            true => stack::capture(tid),
            false => Stack::Absent,
        };
        if let Some(task) = self.tables.tasks.get_mut(&tid) {
            task.call = Some(InCall {
                call,
                kind,
                entered,
                fetched,
                stack,
                overlapped: false,
            });
        }
        match kind.needs_slot() {
            true => self.take_slot(tid),
            false => self.resume(tid, 0),
        }
    }

    fn fetch(&mut self, tid: Tid, call: &RawCall, phase: Phase) -> Vec<Fetched> {
        self.wants.clear();
        wants(call, phase, &mut self.wants);
        let at_exit = phase != Phase::Entry;
        self.wants
            .iter()
            .map(|want| match *want {
                Want::FdPath { arg } => {
                    let number = call.args[usize::from(arg)] as i32;
                    Fetched {
                        arg,
                        at_exit,
                        data: path_of(tid, Some(number)),
                    }
                }
                Want::FdPathIn { arg, addr } => {
                    let bytes = memory::read(tid, addr, 4).ok();
                    let number = bytes
                        .and_then(|b| b.try_into().ok())
                        .map(i32::from_ne_bytes);
                    Fetched {
                        arg,
                        at_exit,
                        data: path_of(tid, number),
                    }
                }
                Want::ResultPath => {
                    let number = match phase {
                        Phase::Exit { result } => i32::try_from(result).ok(),
                        Phase::Entry => None,
                    };
                    Fetched {
                        arg: RESULT,
                        at_exit,
                        data: path_of(tid, number),
                    }
                }
                Want::Memory { arg, addr, len } => {
                    let bytes = memory::read(tid, addr, len as usize).map(FetchedData::Memory);
                    Fetched {
                        arg,
                        at_exit,
                        data: bytes.unwrap_or(FetchedData::Unreadable),
                    }
                }
                Want::CString { arg, addr, max } => {
                    let string = memory::read_string(tid, addr, max as usize);
                    let data =
                        string.map(|(bytes, truncated)| FetchedData::String { bytes, truncated });
                    Fetched {
                        arg,
                        at_exit,
                        data: data.unwrap_or(FetchedData::Unreadable),
                    }
                }
            })
            .collect()
    }

    fn exit(&mut self, tid: Tid, result: i64) {
        let Some(task) = self.tables.tasks.get_mut(&tid) else {
            return;
        };
        let space = task.space;
        let Some(call) = task.call.take() else {
            return self.resume(tid, 0);
        };
        match call.kind {
            Kind::Layout | Kind::Memory => self.memory_exit(tid, space, call, result),
            Kind::Clone3 { at, flags } => {
                let _ = memory::write_u64(tid, Addr(at), flags);
                self.resume(tid, 0);
            }
            Kind::Exec => {
                self.resume(tid, 0);
                self.release_slot(space, tid);
            }
            Kind::Clone | Kind::Other => self.resume(tid, 0),
        }
    }

    fn memory_exit(&mut self, tid: Tid, space_id: SpaceId, in_call: InCall, result: i64) {
        let call = in_call.call;
        // An i386 result is an int: an address above 2 GiB is not negative.
        let result = match call.abi {
            Abi::I386 if (-4095..0).contains(&(result as i32)) => i64::from(result as i32),
            Abi::I386 => i64::from(result as u32),
            Abi::X86_64 => result,
        };
        let refused = self.refused(tid, space_id, &in_call, &in_call.fetched, result);
        let InCall {
            call,
            kind,
            entered,
            mut fetched,
            stack,
            overlapped,
        } = in_call;
        fetched.extend(self.fetch(tid, &call, Phase::Exit { result }));
        self.note_growing(space_id, &call, &fetched, result);
        let evidence = self.evidence(tid, space_id, &call, &fetched, result);
        let time = self.now();
        let made = slot::made(&call, result);
        let done = CallDone {
            tid,
            space: space_id,
            entered,
            call,
            fetched,
            result,
            evidence,
            overlapped,
            stack,
            refused,
        };
        let observation = Observation {
            time,
            what: Observed::Call(done),
        };
        self.report_call(space_id, tid, observation, made);
        if kind == Kind::Layout {
            self.after_layout_call(tid, space_id, &call, overlapped);
        }
        self.resume(tid, 0);
        if kind == Kind::Layout {
            self.release_slot(space_id, tid);
        }
        let now = Instant::now();
        self.sample(space_id, tid, now, SAMPLE_EVERY);
        self.placed(tid, now);
    }

    /// Keeps the tracing thread beside the task that was just resumed.
    fn placed(&mut self, tid: Tid, now: Instant) {
        if let Some(placement) = &mut self.placement {
            placement.after_stop(tid, now);
        }
    }

    fn note_growing(&mut self, space: SpaceId, call: &RawCall, fetched: &[Fetched], result: i64) {
        let makes = matches!(
            call_info(call.abi, call.nr).map(|info| info.kind),
            Some(CallKind::Mmap | CallKind::Mmap2 | CallKind::OldMmap)
        );
        if makes
            && 0 <= result
            && let Call::Mmap(made) = decode(call, fetched)
            && made.flags.contains(MapFlags::GROWSDOWN)
            && let Some(space) = self.tables.spaces.get_mut(&space)
        {
            space.grows = true;
        }
    }

    fn evidence(
        &mut self,
        tid: Tid,
        space: SpaceId,
        call: &RawCall,
        fetched: &[Fetched],
        result: i64,
    ) -> Vec<Evidence> {
        let Some(space) = self.tables.spaces.get_mut(&space) else {
            return Vec::new();
        };
        let context = Context {
            strict_overcommit: self.options.strict_overcommit,
            compat: call.abi == Abi::I386,
            read_implies_exec: space.read_implies_exec,
            ..Context::default()
        };
        self.ranges.clear();
        evidence_wanted(&decode(call, fetched), result, &context, &mut self.ranges);
        if let Some(implied) = read_implies_exec(call, result) {
            space.read_implies_exec = implied;
        }
        let mut evidence = Vec::with_capacity(self.ranges.len());
        for &range in &self.ranges {
            let maps = match &mut space.maps {
                Some(maps) => maps,
                None => match procfs::MapsFile::open(tid) {
                    Ok(maps) => space.maps.insert(maps),
                    Err(_) => break,
                },
            };
            match maps.ask(range) {
                Ok(answer) => evidence.push(answer),
                Err(_) => space.doubt = true,
            }
        }
        evidence
    }
}

/// Whether this is an madvise(2) or process_madvise(2) that sets a flag of the mapping rather than
/// doing something to its pages (mm/madvise.c, `madvise_update_vma`): it cuts the lines that answers
/// about other calls are made of, a segment just attached for one.
pub(super) fn splits(kind: CallKind, call: &RawCall) -> bool {
    let advice = match kind {
        CallKind::Madvise => call.args[2],
        CallKind::ProcessMadvise => call.args[3],
        _ => return false,
    };
    // NORMAL, RANDOM, SEQUENTIAL, DONTFORK, DOFORK, and MERGEABLE to KEEPONFORK.
    matches!(advice as i32, 0..=2 | 10..=19)
}

/// What a descriptor of a stopped task is open on.
fn path_of(tid: Tid, fd: Option<i32>) -> FetchedData {
    let path = fd.and_then(|fd| procfs::fd_path(tid, fd));
    path.map_or(FetchedData::Unreadable, FetchedData::Path)
}
