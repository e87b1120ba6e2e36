//! Which limit refused a call: the kernel's checks, in its order.
//!
//! Each check says no (it cannot have been this one), yes (the figures show that the kernel must have
//! stopped here, if it came so far), or perhaps. The first yes with no perhaps before it is proven;
//! anything else is a list of candidates. The rules are those of Linux 6.12 and later; older ones
//! check the same things, some of them in another order.

use crate::abi::{Abi, CallKind, MapFlags, MremapFlags, Prot};
use crate::decode::{Args, Call, Mmap, Mremap, Placement, RawCall, effective_kind};
use crate::mm::{Backing, Charge, Vma};
use crate::units::{Addr, AddrRange, Bytes, PAGE};

mod limits;

use super::{Amounts, Cause, EAGAIN, ENOMEM, EPERM, Figures, Limiter, Surroundings};

/// What MAP_32BIT allows (arch/x86/kernel/sys_x86_64.c, `find_start_end`).
const LOW: (u64, u64) = (0x4000_0000, 0x8000_0000);
/// Kept free below a mapping that grows down (`stack_guard_gap`, 256 pages by default).
const STACK_GAP: u64 = 256 * PAGE;
/// A mapping of hugetlbfs has no smaller alignment; such are not charged.
const HUGE: u64 = 2 << 20;
const CAP_SYS_ADMIN: u64 = 21;
const MADV_HWPOISON: i32 = 100;
const MADV_SOFT_OFFLINE: i32 = 101;

/// The checks of one call.
pub(super) struct Checks<'a> {
    figures: &'a Figures,
    around: Surroundings<'a>,
    abi: Abi,
    yes: Option<Cause>,
    perhaps: Vec<Cause>,
    /// What remains possible if no check says yes.
    rest: Vec<Limiter>,
}

/// Part of a check: what the figures say.
enum Answer {
    No,
    Yes(Option<Amounts>),
    Perhaps(Option<Amounts>),
}

impl<'a> Checks<'a> {
    pub(super) fn new(figures: &'a Figures, abi: Abi, around: Surroundings<'a>) -> Checks<'a> {
        Checks {
            figures,
            around,
            abi,
            yes: None,
            perhaps: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// The causes, and whether they are one that is proven. `beside`: the figures may have changed
    /// since the kernel looked at them.
    pub(super) fn conclude(self, beside: bool) -> (Vec<Cause>, bool) {
        let proven = self.perhaps.is_empty() && self.yes.is_some() && !beside;
        let mut causes = self.perhaps;
        causes.extend(self.yes);
        if self.yes.is_none() {
            let open = |what: &Limiter| Cause {
                what: *what,
                amounts: None,
            };
            causes.extend(self.rest.iter().map(open));
        }
        let mut seen = Vec::with_capacity(causes.len());
        causes.retain(|cause| {
            let new = !seen.contains(&cause.what);
            seen.push(cause.what);
            new
        });
        (causes, proven)
    }

    fn check(&mut self, what: Limiter, answer: Answer) {
        // The kernel stops at the first: what it would have checked later is no explanation.
        if self.yes.is_some() {
            return;
        }
        match answer {
            Answer::No => {}
            Answer::Yes(amounts) => self.yes = Some(Cause { what, amounts }),
            Answer::Perhaps(amounts) => self.perhaps.push(Cause { what, amounts }),
        }
    }

    fn yes_if(&mut self, what: Limiter, is: bool) {
        if is {
            self.check(what, Answer::Yes(None));
        }
    }

    fn perhaps(&mut self, what: Limiter) {
        self.check(what, Answer::Perhaps(None));
    }

    /// All checks of a call; `None` if it asked for nothing that a limit could refuse.
    pub(super) fn call(
        &mut self,
        raw: &RawCall,
        call: &Call,
        errno: i32,
        result: i64,
    ) -> Option<()> {
        let args = || {
            let kind = effective_kind(raw)?;
            Some(Args::of(raw, kind).args)
        };
        match call {
            Call::Mmap(mmap) => self.mmap(mmap, errno),
            Call::Mremap(mremap) => self.mremap(mremap, errno),
            Call::Mprotect {
                addr, len, prot, ..
            } => self.mprotect(*addr, *len, *prot, errno),
            Call::Brk { addr } => self.brk(*addr, Addr(result.cast_unsigned()))?,
            Call::Munmap { addr, len } => {
                self.sealed(errno, *addr, *len);
                self.if_no_memory(errno, |checks| checks.map_count(1));
            }
            Call::Madvise { addr, len, advice } => self.madvise(*addr, *len, *advice, errno),
            Call::Shmat { addr, .. } => self.shmat(*addr, errno),
            Call::Mseal { addr, len, .. } => self.if_no_memory(errno, |checks| {
                checks.not_mapped(*addr, *len);
                checks.map_count(1);
            }),
            Call::MapShadowStack { addr, len, .. } => self.if_no_memory(errno, |checks| {
                let len = page_ceil(*len);
                checks.map_count(0);
                checks.room(len, checks.window(*addr));
                checks.address_space(len);
            }),
            _ => match effective_kind(raw)? {
                CallKind::Mlock | CallKind::Mlock2 => {
                    let [addr, len, ..] = args()?;
                    self.mlock(Addr(addr), len, errno);
                }
                CallKind::Munlock => {
                    let [addr, len, ..] = args()?;
                    self.if_no_memory(errno, |checks| {
                        checks.not_mapped(Addr(addr), len);
                        checks.map_count(1);
                    });
                }
                CallKind::Mlockall => self.mlockall(args()?[0], errno),
                _ => return None,
            },
        }
        self.rest.push(match errno {
            EPERM => Limiter::SecurityModule,
            _ => Limiter::KernelMemory,
        });
        Some(())
    }

    fn if_no_memory(&mut self, errno: i32, checks: impl FnOnce(&mut Self)) {
        if errno == ENOMEM {
            checks(self);
        }
    }

    /// `do_mmap`, mm/mmap.c, and `__mmap_region`, mm/vma.c.
    fn mmap(&mut self, mmap: &Mmap, errno: i32) {
        let flags = mmap.flags;
        let is_file = mmap.fd.is_some();
        let exact = match mmap.placement() {
            Placement::Replacing(addr) | Placement::IfFree(addr) => Some(addr),
            Placement::Anywhere | Placement::Near(_) => None,
        };
        let Some(len) = checked_ceil(mmap.len) else {
            return self.check(Limiter::BeyondTheEnd, Answer::Yes(None));
        };
        match errno {
            EPERM => {
                self.min_addr(exact);
                if flags.contains(MapFlags::LOCKED) {
                    self.may_not_lock();
                }
                if is_file && mmap.prot.contains(Prot::EXEC) {
                    self.rest.push(Limiter::NoExec);
                }
                if is_file && flags.contains(MapFlags::SHARED) {
                    self.rest.push(Limiter::FileSeal);
                }
                if let Some(addr) = exact {
                    self.sealed(errno, addr, len);
                }
            }
            EAGAIN => {
                self.lock_more(len);
                if is_file {
                    self.rest.push(Limiter::Driver);
                }
            }
            _ => {
                self.map_count(0);
                match exact {
                    Some(addr) => self.end_of(addr, len),
                    None => {
                        let window = match flags.contains(MapFlags::BIT32) {
                            true => LOW,
                            false => self.window(mmap.addr),
                        };
                        self.room(len, window);
                    }
                }
                let replaced = match exact.and_then(|addr| AddrRange::covering(addr, len)) {
                    Some(range) => self.mapped_in(range),
                    None => Some(0),
                };
                self.mmap_limits(mmap, len, replaced);
                if flags.contains(MapFlags::HUGETLB) {
                    self.huge_pages(flags, len);
                }
                if is_file {
                    self.rest.push(Limiter::Driver);
                }
            }
        }
    }

    /// What `__mmap_region` checks: the pages that are replaced do not count.
    fn mmap_limits(&mut self, mmap: &Mmap, len: u64, replaced: Option<u64>) {
        let flags = mmap.flags;
        // MAP_SHARED_VALIDATE is both bits.
        let shared = flags.contains(MapFlags::SHARED);
        let writable = mmap.prot.contains(Prot::WRITE);
        let Some(replaced) = replaced else {
            // Without the model it is not known how much would have been added.
            if Answer::No.differs(&self.limit(self.figures.limit_as, self.figures.mapped, len)) {
                self.perhaps(Limiter::AddressSpace);
            }
            if writable && !shared && Answer::No.differs(&self.data_limit(len)) {
                self.perhaps(Limiter::Data);
            }
            return;
        };
        let added = len.saturating_sub(replaced);
        self.address_space(added);
        if writable && !shared && !flags.contains(MapFlags::GROWSDOWN) {
            let answer = self.data_limit(added);
            self.check(Limiter::Data, answer);
        }
        let promised = flags.contains(MapFlags::NORESERVE) && self.figures.overcommit != Some(2);
        let anon = mmap.fd.is_none();
        let charged = !promised
            && !flags.contains(MapFlags::HUGETLB)
            && (shared && anon || !shared && writable);
        if charged {
            let may_be_huge = !anon && (len | mmap.offset).is_multiple_of(HUGE);
            self.commit(added, len, may_be_huge);
        }
    }

    /// `mremap`, mm/mremap.c.
    fn mremap(&mut self, mremap: &Mremap, errno: i32) {
        let Mremap {
            old_addr,
            old_len,
            new_len,
            flags,
            new_addr,
        } = *mremap;
        let exact = flags.contains(MremapFlags::FIXED);
        let (Some(old_len), Some(new_len)) = (checked_ceil(old_len), checked_ceil(new_len)) else {
            return self.check(Limiter::BeyondTheEnd, Answer::Yes(None));
        };
        let dont_unmap = flags.contains(MremapFlags::DONTUNMAP);
        let grown = match dont_unmap {
            true => new_len,
            false => new_len.saturating_sub(old_len),
        };
        let old = self.around.model.and_then(|model| model.at(old_addr));
        match errno {
            EPERM => {
                self.sealed(errno, old_addr, old_len);
                if exact {
                    self.min_addr(Some(new_addr));
                    self.sealed(errno, new_addr, new_len);
                }
            }
            EAGAIN => self.lock_more(grown),
            _ => {
                if exact || dont_unmap {
                    self.map_count(6);
                }
                if exact {
                    self.end_of(new_addr, new_len);
                }
                if new_len < old_len {
                    self.map_count(1);
                }
                if grown == 0 {
                    return;
                }
                self.address_space(grown);
                match old {
                    Some(vma) if is_data(vma) => {
                        let answer = self.data_limit(grown);
                        self.check(Limiter::Data, answer);
                    }
                    Some(_) => {}
                    None if Answer::No.differs(&self.data_limit(grown)) => {
                        self.perhaps(Limiter::Data);
                    }
                    None => {}
                }
                if !exact && !dont_unmap {
                    self.grow_in_place(mremap, old_len, new_len, old);
                }
                match old.map(|vma| vma.charge) {
                    Some(Charge::No) => {}
                    Some(Charge::Yes) => self.commit(grown, grown, false),
                    Some(Charge::Maybe) | None => self.commit(grown, grown, true),
                }
            }
        }
    }

    /// Whether the old range could grow where it is, and if it may be moved, whether there is room.
    fn grow_in_place(&mut self, mremap: &Mremap, old_len: u64, new_len: u64, old: Option<&Vma>) {
        if mremap.flags.contains(MremapFlags::MAYMOVE) {
            self.room(new_len, self.window(Addr(0)));
            return self.map_count(4);
        }
        let (Some(model), Some(_)) = (self.around.model, old) else {
            return self.perhaps(Limiter::NoRoom);
        };
        let end = mremap.old_addr.0.saturating_add(old_len);
        let wanted = AddrRange::new(Addr(end), Addr(end.saturating_add(new_len - old_len)));
        let in_the_way = wanted.and_then(|wanted| {
            let vma = model.overlapping(wanted).next()?;
            Some(vma.range.start().max(wanted.start()))
        });
        if let Some(at) = in_the_way {
            self.check(Limiter::InTheWay(at), Answer::Yes(None));
        } else if self.window(Addr(0)).1 < end.saturating_add(new_len - old_len) {
            self.check(Limiter::BeyondTheEnd, Answer::Yes(None));
        }
    }

    /// `do_mprotect_pkey`, mm/mprotect.c: mapping by mapping, and the first that is refused ends it.
    fn mprotect(&mut self, addr: Addr, len: u64, prot: Prot, errno: i32) {
        if errno == EPERM {
            return self.sealed(errno, addr, len);
        }
        if errno != ENOMEM {
            return;
        }
        let (Some(model), Some(range)) = (self.around.model, AddrRange::covering(addr, len)) else {
            self.map_count(1);
            self.rest.push(Limiter::Data);
            self.rest.push(Limiter::CommitLimit);
            return;
        };
        let mut wanted = prot.rwx();
        if self.around.read_implies_exec && wanted.contains(Prot::READ) {
            wanted |= Prot::EXEC;
        }
        // What lies before it has its new rights.
        let mut at = range.start();
        let mut refused = None;
        for vma in model.overlapping(range) {
            if at < vma.range.start() {
                break;
            }
            if vma.prot != wanted {
                refused = vma.clipped(range);
                break;
            }
            at = vma.range.end();
        }
        let Some(vma) = refused else {
            return self.yes_if(Limiter::NotMapped(at), at < range.end());
        };
        let len = vma.range.len();
        if prot.contains(Prot::WRITE) && !vma.shared && !vma.flags.growsdown && !is_data(&vma) {
            let answer = self.data_limit(len);
            // Neighbours that the kernel keeps apart are one mapping in the model.
            self.check(Limiter::Data, answer);
            match (vma.flags.noreserve || vma.flags.hugetlb, vma.charge) {
                (true, _) | (_, Charge::Yes) => {}
                (false, Charge::No) => self.commit(len, len, false),
                (false, Charge::Maybe) => self.commit(len, len, true),
            }
        }
        self.map_count(1);
    }

    /// `brk`, mm/mmap.c. It gives no error: the break stays where it is.
    fn brk(&mut self, asked: Addr, now: Addr) -> Option<()> {
        if self.around.brk_start.is_some_and(|start| asked < start) {
            return None;
        }
        let (old, new) = (page_ceil(now.0), page_ceil(asked.0));
        let grown = new.saturating_sub(old);
        // check_data_rlimit: to the byte, static data included.
        let heap = self
            .around
            .brk_start
            .map(|start| now.0.saturating_sub(start.0));
        let static_data = self.figures.static_data.map(|bytes| bytes.0);
        let used = heap
            .zip(static_data)
            .map(|(heap, data)| Bytes(heap.saturating_add(data)));
        let more = asked.0.saturating_sub(now.0);
        let answer = self.bytes_limit(self.figures.limit_data, used, more);
        self.check(Limiter::Data, answer);
        if let Some(model) = self.around.model {
            let end = new.saturating_add(PAGE);
            let ahead = AddrRange::new(Addr(old), Addr(end.saturating_add(STACK_GAP)));
            let next = ahead.and_then(|ahead| model.overlapping(ahead).next());
            if let Some(next) = next {
                let start = next.range.start();
                let gap = match next.flags.growsdown {
                    true => STACK_GAP,
                    false => 0,
                };
                self.yes_if(Limiter::InTheWay(start), start.0.saturating_sub(gap) < end);
            }
        }
        self.yes_if(Limiter::BeyondTheEnd, self.window(Addr(0)).1 < new);
        // Only after mlockall(MCL_FUTURE), which is not known here.
        if self.figures.locked.is_some_and(|locked| 0 < locked.0)
            && let Answer::Yes(amounts) = self.lock_limit(grown)
        {
            self.check(Limiter::Locked, Answer::Perhaps(amounts));
        }
        self.address_space(grown);
        let answer = self.data_limit(grown);
        self.check(Limiter::Data, answer);
        self.map_count(0);
        self.commit(grown, grown, false);
        Some(())
    }

    /// `do_madvise`, mm/madvise.c. ENOMEM of a split becomes EAGAIN.
    fn madvise(&mut self, addr: Addr, len: u64, advice: i32, errno: i32) {
        match errno {
            EPERM if matches!(advice, MADV_HWPOISON | MADV_SOFT_OFFLINE) => {
                let answer = match self.has(CAP_SYS_ADMIN) {
                    Some(true) => Answer::No,
                    Some(false) => Answer::Yes(None),
                    None => Answer::Perhaps(None),
                };
                self.check(Limiter::Privilege, answer);
            }
            EPERM => self.sealed(errno, addr, len),
            ENOMEM => {
                self.not_mapped(addr, len);
                self.rest.push(Limiter::Pages);
            }
            _ => self.map_count(1),
        }
    }

    /// `do_mlock`, mm/mlock.c.
    fn mlock(&mut self, addr: Addr, len: u64, errno: i32) {
        match errno {
            EPERM => self.may_not_lock(),
            ENOMEM => {
                let len = AddrRange::covering(
                    Addr(addr.0 & !(PAGE - 1)),
                    len.saturating_add(addr.0 % PAGE),
                );
                let asked = len.map_or(0, AddrRange::len);
                // What is locked already is not counted twice.
                let again = self.figures.locked_in_range;
                let used = self.figures.locked.zip(again);
                let used = used.map(|(locked, again)| Bytes(locked.0.saturating_sub(again.0)));
                let answer = self.locked_limit(used, asked);
                self.check(Limiter::Locked, answer);
                self.not_mapped(addr, asked);
                self.map_count(1);
                self.rest.push(Limiter::Pages);
            }
            _ => self.rest.push(Limiter::Pages),
        }
    }

    /// `mlockall`, mm/mlock.c: all that is mapped counts, locked or not.
    fn mlockall(&mut self, flags: u64, errno: i32) {
        const MCL_CURRENT: u64 = 1;
        match errno {
            EPERM => self.may_not_lock(),
            _ if flags & MCL_CURRENT != 0 => {
                let answer = self.locked_limit(self.figures.mapped, 0);
                self.check(Limiter::Locked, answer);
                self.map_count(1);
            }
            _ => {}
        }
    }

    /// `do_shmat`, ipc/shm.c: a shared mapping of the whole segment.
    fn shmat(&mut self, addr: Addr, errno: i32) {
        self.if_no_memory(errno, |checks| {
            checks.map_count(0);
            let Some(len) = checks.figures.segment.map(|bytes| page_ceil(bytes.0)) else {
                checks.rest.push(Limiter::AddressSpace);
                checks.rest.push(Limiter::NoRoom);
                return;
            };
            if addr == Addr(0) {
                checks.room(len, checks.window(addr));
            }
            checks.address_space(len);
        });
    }
}

impl Answer {
    fn differs(&self, other: &Answer) -> bool {
        std::mem::discriminant(self) != std::mem::discriminant(other)
    }
}

fn checked_ceil(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE)
}

fn page_ceil(len: u64) -> u64 {
    checked_ceil(len).unwrap_or(u64::MAX / PAGE * PAGE)
}

/// `is_data_mapping`: private, writable, no stack.
fn is_data(vma: &Vma) -> bool {
    vma.prot.contains(Prot::WRITE)
        && !vma.shared
        && !vma.flags.growsdown
        && !matches!(vma.backing, Backing::Special { .. })
}
