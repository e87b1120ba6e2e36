//! Where bytes are, in words that a user knows: heap, stacks, files.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decode::Call;
use crate::mm::{Backing, Category, Vma};
use crate::timeline::SpaceState;
use crate::units::{AddrRange, Bytes};

use crate::abi::MapFlags;

/// A kind of place in an address space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Moved by brk(2).
    Heap,
    /// The main thread's stack.
    Stack,
    /// Mapped with MAP_STACK, as thread libraries do. Only known where the call was traced.
    ThreadStack,
    /// Other private anonymous memory.
    Anon,
    /// Shared anonymous memory, memfd, SysV, by name as maps prints it.
    Shared(Arc<str>),
    /// A file, by name as maps prints it.
    File(Arc<str>),
    /// vdso, vvar and their like, by name.
    Special(Arc<str>),
    /// All places too small to be listed.
    Others,
}

/// The bytes at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceBytes {
    /// Where.
    pub place: Place,
    /// Without any access right.
    pub reserved: Bytes,
    /// The others.
    pub committed: Bytes,
}

/// Most places in a list.
const MAX_PLACES: usize = 256;

impl Place {
    /// The place that a mapping shows by itself.
    pub(super) fn of(vma: &Vma, state: &SpaceState) -> Place {
        let name = match &vma.backing {
            Backing::Anon if vma.flags.growsdown => return Place::Stack,
            Backing::Anon if is_heap(vma.range, state) => return Place::Heap,
            Backing::Anon => return Place::Anon,
            Backing::Special { name } | Backing::File { name, .. } => name.clone(),
        };
        match vma.category() {
            Category::Anon => Place::Anon,
            Category::File => Place::File(name),
            Category::Shmem => Place::Shared(name),
            Category::Special => Place::Special(name),
        }
    }

    /// The place of bytes that `call` has just mapped at `range`.
    pub(super) fn of_call(call: &Call, range: AddrRange, state: Option<&SpaceState>) -> Place {
        match call {
            Call::Brk { .. } => return Place::Heap,
            Call::Mmap(mmap)
                if mmap.flags.contains(MapFlags::ANONYMOUS) && !mmap.flags.is_shared() =>
            {
                return match mmap.flags.contains(MapFlags::STACK) {
                    true => Place::ThreadStack,
                    false => Place::Anon,
                };
            }
            _ => {}
        }
        let vma = state.and_then(|state| Some((state.model.overlapping(range).next()?, state)));
        vma.map_or(Place::Anon, |(vma, state)| Place::of(vma, state))
    }
}

fn is_heap(range: AddrRange, state: &SpaceState) -> bool {
    let Some(start) = state.context.brk_start else {
        return false;
    };
    match state
        .context
        .brk
        .and_then(|brk| AddrRange::new(start.page_floor(), brk.page_ceil()?))
    {
        Some(heap) => heap.overlaps(range),
        None => range.contains(start) || range.end() == start,
    }
}

/// Sums of bytes by place, kept up to date.
#[derive(Debug, Default)]
pub(super) struct Places {
    known: Vec<PlaceBytes>,
    index: BTreeMap<Place, usize>,
    free: Vec<usize>,
}

impl Places {
    /// The number of a place, valid until [`Places::forget_empty`] finds no bytes there.
    pub(super) fn number(&mut self, place: Place) -> usize {
        if let Some(number) = self.index.get(&place) {
            return *number;
        }
        let empty = PlaceBytes {
            place: place.clone(),
            reserved: Bytes(0),
            committed: Bytes(0),
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.known[number] = empty;
                number
            }
            None => {
                self.known.push(empty);
                self.known.len() - 1
            }
        };
        self.index.insert(place, number);
        number
    }

    pub(super) fn get(&self, number: usize) -> Option<&Place> {
        self.known.get(number).map(|known| &known.place)
    }

    /// Adds bytes to a place.
    pub(super) fn add(&mut self, number: usize, len: u64, reserved: bool) {
        if let Some(known) = self.known.get_mut(number) {
            *(if reserved {
                &mut known.reserved
            } else {
                &mut known.committed
            }) += Bytes(len);
        }
    }

    /// Takes bytes from a place. Its number stays until [`Places::forget_empty`].
    pub(super) fn sub(&mut self, number: usize, len: u64, reserved: bool) {
        if let Some(known) = self.known.get_mut(number) {
            let amount = if reserved {
                &mut known.reserved
            } else {
                &mut known.committed
            };
            *amount = Bytes(amount.0.saturating_sub(len));
        }
    }

    /// Frees the number of a file that is no longer mapped.
    pub(super) fn forget_empty(&mut self, number: usize) {
        let Some(known) = self.known.get(number) else {
            return;
        };
        let named = matches!(
            known.place,
            Place::File(_) | Place::Shared(_) | Place::Special(_)
        );
        if named
            && known.reserved.0 == 0
            && known.committed.0 == 0
            && self.index.remove(&known.place).is_some()
        {
            self.free.push(number);
        }
    }

    /// Frees the numbers of all files that are not mapped.
    pub(super) fn forget_all_empty(&mut self) {
        (0..self.known.len()).for_each(|number| self.forget_empty(number));
    }

    /// Takes all bytes from all places.
    pub(super) fn zero(&mut self) {
        for known in &mut self.known {
            (known.reserved, known.committed) = (Bytes(0), Bytes(0));
        }
    }

    /// All places with bytes, the largest first. The smallest are put together where they are many.
    pub(super) fn list(&self) -> Vec<PlaceBytes> {
        let sum = |known: &PlaceBytes| known.reserved.0.saturating_add(known.committed.0);
        let mut list: Vec<PlaceBytes> = self
            .index
            .values()
            .filter_map(|number| self.known.get(*number))
            .filter(|known| sum(known) != 0)
            .cloned()
            .collect();
        list.sort_by(|a, b| sum(b).cmp(&sum(a)).then_with(|| a.place.cmp(&b.place)));
        if MAX_PLACES < list.len() {
            let rest = list.split_off(MAX_PLACES - 1);
            list.push(PlaceBytes {
                place: Place::Others,
                reserved: rest.iter().map(|known| known.reserved).sum(),
                committed: rest.iter().map(|known| known.committed).sum(),
            });
        }
        list
    }
}
