//! In which order the kernel ran calls of one space that overlapped in time.
//!
//! A call ran somewhere between its begin and its return. Calls that touch different addresses give
//! the same map in either order. Of two that touch the same, an mmap(2) that was given an address
//! by the kernel shows that the munmap(2) of that address came first; all other pairs are in doubt,
//! and the kernel's map is looked at as soon as the space is quiet.

use crate::abi::{CallKind, MapFlags, MremapFlags, call_info};
use crate::decode::RawCall;
use crate::units::{Addr, AddrRange, PAGE};

/// What a call does to which addresses, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    /// Where the kernel put something into free space.
    pub takes: Option<AddrRange>,
    /// What becomes free.
    pub frees: Option<AddrRange>,
    /// Everything that is altered.
    pub touches: Vec<AddrRange>,
}

/// What is known of two calls that overlapped in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It makes no difference.
    Any,
    /// The first must have run after the second.
    After,
    /// Not known.
    Doubt,
}

impl Footprint {
    /// That of `call`; `result` once it has returned.
    pub(super) fn of(call: &RawCall, result: Option<i64>) -> Footprint {
        let [addr, len, new_len, flags, new_addr, _] = call.args;
        let at = |addr: u64, len: u64| AddrRange::covering(Addr(addr).page_floor(), len);
        let result = result.filter(|result| 0 <= *result).map(|at| at as u64);
        let mut footprint = Footprint::default();
        let Some(info) = call_info(call.abi, call.nr) else {
            return footprint;
        };
        match info.kind {
            CallKind::Mmap => {
                let flags = MapFlags::from_bits_retain(call.args[3] as u32);
                let fixed = flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE);
                let made = match fixed {
                    true => at(addr, len),
                    false => result.and_then(|result| at(result, len)),
                };
                footprint.takes = made.filter(|_| !fixed);
                footprint.touches.extend(made);
            }
            CallKind::Munmap => {
                footprint.frees = at(addr, len);
                footprint.touches.extend(footprint.frees);
            }
            CallKind::Mremap => {
                let fixed =
                    MremapFlags::from_bits_retain(flags as u32).contains(MremapFlags::FIXED);
                let target = match fixed {
                    true => at(new_addr, new_len),
                    false => result.and_then(|result| at(result, new_len)),
                };
                footprint.takes = target.filter(|_| !fixed);
                footprint.frees = at(addr, len);
                footprint
                    .touches
                    .extend(footprint.frees.into_iter().chain(target));
            }
            // Where the break was before is not known here: breaks only meet breaks.
            CallKind::Brk => footprint.touches.extend(at(0, PAGE)),
            CallKind::Shmat => {
                footprint.takes = result.and_then(|result| at(result, PAGE));
                footprint.touches.extend(footprint.takes);
            }
            CallKind::Shmdt | CallKind::IoDestroy => footprint.touches.extend(at(addr, PAGE)),
            _ => footprint.touches.extend(at(addr, len)),
        }
        footprint
    }

    /// When `self`, which has returned, ran relative to `other`, which overlapped it.
    pub(super) fn order(&self, other: &Footprint) -> Order {
        let meet = |a: Option<AddrRange>, b: Option<AddrRange>| match (a, b) {
            (Some(a), Some(b)) => a.overlaps(b),
            _ => false,
        };
        let given_after = meet(self.takes, other.frees);
        let taken_after = meet(other.takes, self.frees);
        let touching = |a: &AddrRange| other.touches.iter().any(|b| a.overlaps(*b));
        match (given_after, taken_after) {
            (true, false) => Order::After,
            (false, false) if !self.touches.iter().any(touching) => Order::Any,
            _ => Order::Doubt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Abi;

    fn call(nr: u32, args: [u64; 6]) -> RawCall {
        RawCall {
            abi: Abi::X86_64,
            nr,
            args,
        }
    }

    fn mmap(at: u64, len: u64) -> Footprint {
        Footprint::of(&call(9, [0, len, 3, 0x22, 0, 0]), Some(at as i64))
    }

    fn munmap(at: u64, len: u64) -> Footprint {
        Footprint::of(&call(11, [at, len, 0, 0, 0, 0]), None)
    }

    #[test]
    fn what_the_kernel_gave_was_free_before() {
        let given = mmap(0x10000, 0x2000);
        assert_eq!(given.order(&munmap(0x11000, 0x4000)), Order::After);
        assert_eq!(given.order(&munmap(0x12000, 0x4000)), Order::Any);
    }

    #[test]
    fn rights_and_unmapping_of_the_same_pages_are_in_doubt() {
        let protect = Footprint::of(&call(10, [0x10000, 0x2000, 0, 0, 0, 0]), Some(0));
        assert_eq!(protect.order(&munmap(0x10000, 0x1000)), Order::Doubt);
        assert_eq!(protect.order(&munmap(0x20000, 0x1000)), Order::Any);
        let heap = Footprint::of(&call(12, [0x5000, 0, 0, 0, 0, 0]), Some(0x5000));
        assert_eq!(heap.order(&heap.clone()), Order::Doubt);
    }

    #[test]
    fn a_fixed_mapping_proves_nothing() {
        let fixed = Footprint::of(&call(9, [0x10000, 0x1000, 3, 0x32, 0, 0]), Some(0x10000));
        assert_eq!(fixed.order(&munmap(0x10000, 0x1000)), Order::Doubt);
    }
}
