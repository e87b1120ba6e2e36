//! The checks of one limit each, from the figures and the model.

use crate::abi::{Abi, MapFlags};
use crate::mm::AddressSpace;
use crate::timeline::Bound;
use crate::timeline::failure::{Amounts, EPERM, Figures, Limiter};
use crate::units::{Addr, AddrRange, Bytes, PAGE};

use super::{Answer, CAP_SYS_ADMIN, Checks, STACK_GAP};

/// Where the address space ends unless a hint above it was given: TASK_SIZE of x86-64 with four
/// levels of page tables, DEFAULT_MAP_WINDOW with five.
const WINDOW: u64 = (1 << 47) - PAGE;
/// TASK_SIZE with five levels.
const WIDEST: u64 = (1 << 56) - PAGE;
/// IA32_PAGE_OFFSET.
const WINDOW_I386: u64 = 0xffff_e000;
const CAP_IPC_LOCK: u64 = 14;
const CAP_SYS_RAWIO: u64 = 17;

impl Checks<'_> {
    /// A limit that the kernel counts in pages.
    pub(super) fn limit(&self, limit: Option<Bound>, used: Option<Bytes>, asked: u64) -> Answer {
        let limit = limit.map(|limit| match limit {
            Bound::Bytes(bytes) => Bound::Bytes(Bytes(bytes.0 / PAGE * PAGE)),
            Bound::Unlimited => Bound::Unlimited,
        });
        self.bytes_limit(limit, used, asked)
    }

    pub(super) fn bytes_limit(
        &self,
        limit: Option<Bound>,
        used: Option<Bytes>,
        asked: u64,
    ) -> Answer {
        match (limit, used) {
            (Some(Bound::Unlimited), _) => Answer::No,
            (Some(Bound::Bytes(limit)), Some(used)) => over(limit.0, used.0, asked),
            (Some(Bound::Bytes(_)), None) | (None, _) => Answer::Perhaps(None),
        }
    }

    pub(super) fn address_space(&mut self, added: u64) {
        let answer = self.limit(self.figures.limit_as, self.figures.mapped, added);
        self.check(Limiter::AddressSpace, answer);
    }

    /// `may_expand_vm` of a private writable mapping. Where the soft limit is 0, the hard one counts.
    pub(super) fn data_limit(&self, added: u64) -> Answer {
        let Figures {
            limit_data,
            limit_data_hard,
            data,
            ..
        } = *self.figures;
        match limit_data {
            Some(Bound::Bytes(Bytes(0))) => self.limit(limit_data_hard, data, added),
            limit => self.limit(limit, data, added),
        }
    }

    pub(super) fn has(&self, capability: u64) -> Option<bool> {
        let capabilities = self.figures.capabilities?;
        Some(capabilities >> capability & 1 == 1)
    }

    pub(super) fn locked_limit(&self, used: Option<Bytes>, asked: u64) -> Answer {
        match (
            self.limit(self.figures.limit_memlock, used, asked),
            self.has(CAP_IPC_LOCK),
        ) {
            (Answer::No, _) | (_, Some(true)) => Answer::No,
            (answer, Some(false)) => answer,
            (Answer::Yes(amounts) | Answer::Perhaps(amounts), None) => Answer::Perhaps(amounts),
        }
    }

    pub(super) fn lock_limit(&self, asked: u64) -> Answer {
        self.locked_limit(self.figures.locked, asked)
    }

    /// `mlock_future_ok` of a mapping that is to be locked: EAGAIN says that it is.
    pub(super) fn lock_more(&mut self, asked: u64) {
        let answer = self.lock_limit(asked);
        self.check(Limiter::Locked, answer);
    }

    /// `can_do_mlock`: any limit but 0 will do.
    pub(super) fn may_not_lock(&mut self) {
        let amounts = Amounts {
            limit: 0,
            used: 0,
            asked: 0,
        };
        let answer = match (self.figures.limit_memlock, self.has(CAP_IPC_LOCK)) {
            (_, Some(true)) => Answer::No,
            (Some(Bound::Bytes(Bytes(0))), Some(false)) => Answer::Yes(Some(amounts)),
            (Some(Bound::Bytes(Bytes(0))) | None, _) => Answer::Perhaps(None),
            (Some(_), _) => Answer::No,
        };
        self.check(Limiter::Locked, answer);
    }

    /// The call would have made up to `more` mappings more than now.
    pub(super) fn map_count(&mut self, more: u64) {
        let Figures {
            map_count,
            max_map_count,
            ..
        } = *self.figures;
        let answer = match (max_map_count, map_count) {
            (Some(limit), Some(used)) => over(limit, used, more),
            _ => Answer::Perhaps(None),
        };
        self.check(Limiter::MapCount, answer);
    }

    /// `__vm_enough_memory`, mm/util.c. At least `least` bytes are charged, at most `most`; none at
    /// all where it is `doubtful`.
    pub(super) fn commit(&mut self, least: u64, most: u64, doubtful: bool) {
        let Figures {
            overcommit,
            memory,
            swap,
            ..
        } = *self.figures;
        let answer = |at_least: Answer, at_most: Answer| match (at_least, at_most) {
            (Answer::Yes(amounts), _) if !doubtful => Answer::Yes(amounts),
            (_, Answer::Yes(amounts) | Answer::Perhaps(amounts)) => Answer::Perhaps(amounts),
            (_, Answer::No) => Answer::No,
        };
        match overcommit {
            Some(0) => {
                let (Some(memory), Some(swap)) = (memory, swap) else {
                    return self.perhaps(Limiter::Overcommit);
                };
                let all = memory.0.saturating_add(swap.0);
                let answer = answer(over(all, 0, least), over(all, 0, most));
                self.check(Limiter::Overcommit, answer);
            }
            Some(1) => {}
            Some(2) => {
                let answer = answer(self.commit_limit(least), self.commit_limit(most));
                self.check(Limiter::CommitLimit, answer);
            }
            Some(_) | None => self.perhaps(Limiter::Overcommit),
        }
    }

    pub(super) fn commit_limit(&self, asked: u64) -> Answer {
        let Figures {
            commit_limit: Some(limit),
            committed: Some(committed),
            admin_reserve: Some(admin),
            user_reserve: Some(user),
            mapped: Some(mapped),
            ..
        } = *self.figures
        else {
            return Answer::Perhaps(None);
        };
        let admin = match self.has(CAP_SYS_ADMIN) {
            Some(true) => 0,
            Some(false) => admin.0,
            None => return Answer::Perhaps(None),
        };
        let kept = (mapped.0 / PAGE / 32 * PAGE).min(user.0) + admin;
        // Refused unless what would be committed is less than that.
        let allowed = limit.0.saturating_sub(kept).saturating_sub(PAGE);
        over(allowed, committed.0, asked)
    }

    pub(super) fn window(&self, hint: Addr) -> (u64, u64) {
        match self.abi {
            Abi::I386 => (0, WINDOW_I386),
            Abi::X86_64 if WINDOW < hint.0 => (0, WIDEST),
            Abi::X86_64 => (0, WINDOW),
        }
    }

    /// Whether `len` bytes fit anywhere in a window.
    pub(super) fn room(&mut self, len: u64, window: (u64, u64)) {
        let Some(model) = self.around.model else {
            return self.rest.push(Limiter::NoRoom);
        };
        let (low, high) = window;
        let total = model.totals();
        let holes = total.mappings.saturating_add(1);
        // Even if all that is mapped lay in the window, one of the holes must be as long.
        let free = (high - low).saturating_sub(total.mapped.0);
        if len.checked_mul(holes).is_some_and(|wanted| wanted < free) {
            return;
        }
        let largest = largest_gap(model, window);
        let answer = over(largest.0, 0, len);
        // Guard gaps below stacks and alignment take from what is free.
        let tight = largest.0.saturating_sub(len) < 2 * STACK_GAP;
        match answer {
            Answer::No if tight => self.perhaps(Limiter::NoRoom),
            answer => self.check(Limiter::NoRoom, answer),
        }
    }

    /// A range at a fixed address.
    pub(super) fn end_of(&mut self, addr: Addr, len: u64) {
        let end = addr.0.checked_add(len);
        let (_, window) = self.window(Addr(0));
        match end {
            Some(end) if end <= window => {}
            // With five levels of page tables it would be in order.
            Some(end) if self.abi == Abi::X86_64 && end <= WIDEST => {
                self.perhaps(Limiter::BeyondTheEnd);
            }
            _ => self.check(Limiter::BeyondTheEnd, Answer::Yes(None)),
        }
    }

    pub(super) fn min_addr(&mut self, exact: Option<Addr>) {
        let (Some(addr), Some(least)) = (exact, self.figures.min_addr) else {
            return;
        };
        if least <= addr.0 {
            return;
        }
        match self.has(CAP_SYS_RAWIO) {
            Some(true) => {}
            Some(false) => self.check(Limiter::MinAddr, Answer::Yes(None)),
            None => self.perhaps(Limiter::MinAddr),
        }
    }

    /// A sealed mapping in the range.
    pub(super) fn sealed(&mut self, errno: i32, addr: Addr, len: u64) {
        if errno != EPERM {
            return;
        }
        let (Some(model), Some(range)) = (self.around.model, AddrRange::covering(addr, len)) else {
            return;
        };
        let sealed = model.overlapping(range).find(|vma| vma.flags.sealed);
        if let Some(vma) = sealed {
            let at = vma.range.start().max(range.start());
            self.check(Limiter::Sealed(at), Answer::Yes(None));
        }
    }

    /// The first address of the range where nothing is mapped.
    pub(super) fn not_mapped(&mut self, addr: Addr, len: u64) {
        let start = Addr(addr.0 & !(PAGE - 1));
        let (Some(model), Some(range)) = (self.around.model, AddrRange::covering(start, len))
        else {
            return;
        };
        let mut at = range.start();
        for vma in model.overlapping(range) {
            if at < vma.range.start() {
                break;
            }
            at = vma.range.end();
        }
        self.yes_if(Limiter::NotMapped(at), at < range.end());
    }

    /// `hugetlb_reserve_pages`: other things than free pages count too.
    pub(super) fn huge_pages(&mut self, flags: MapFlags, len: u64) {
        const SIZE_BITS: u32 = 0x3f << 26;
        let default_size = flags.bits() & SIZE_BITS == 0;
        let amounts = match (self.figures.huge_page, self.figures.huge_free) {
            (Some(size), Some(free)) if default_size => Some(Amounts {
                limit: size.0.saturating_mul(free),
                used: 0,
                asked: len,
            }),
            _ => None,
        };
        match amounts {
            Some(amounts) if amounts.over() == 0 => {}
            amounts => self.check(Limiter::HugePages, Answer::Perhaps(amounts)),
        }
    }

    /// Bytes of a range that are mapped.
    pub(super) fn mapped_in(&self, range: AddrRange) -> Option<u64> {
        let model = self.around.model?;
        let pieces = model.overlapping(range);
        Some(
            pieces
                .filter_map(|vma| vma.range.intersect(range))
                .map(AddrRange::len)
                .sum(),
        )
    }
}

fn over(limit: u64, used: u64, asked: u64) -> Answer {
    let amounts = Amounts { limit, used, asked };
    match amounts.over() {
        0 => Answer::No,
        _ => Answer::Yes(Some(amounts)),
    }
}

/// The longest free range of a window.
fn largest_gap(model: &AddressSpace, (low, high): (u64, u64)) -> Bytes {
    let mut at = low;
    let mut largest = 0;
    for vma in model.vmas() {
        let (start, end) = (vma.range.start().0.min(high), vma.range.end().0);
        largest = largest.max(start.saturating_sub(at));
        at = at.max(end);
    }
    Bytes(largest.max(high.saturating_sub(at)))
}
