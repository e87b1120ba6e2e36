//! Memory calls: a begin and a return make one.

use crate::abi::{Abi, CallKind, call_info};
use crate::decode::{
    Fetched, FetchedData, Phase, RESULT, RawCall, Want, decode, is_memory_call, wants,
};
use crate::mm::{Context, Evidence, MapsEntry, evidence_wanted};
use crate::timeline::{CallDone, Observation, Observed, Stack, read_implies_exec};
use crate::units::{Addr, AddrRange, SpaceId, Tid};

use super::super::calls::splits;
use super::super::slot::is_plain_mmap;
use super::super::supervisor::Verify;
use super::observer::KernelObserver;
use super::order::{Footprint, Order};
use super::state::{Finished, Held, InCall, Item, Space};

/// A report waits for that of another call at most so long, in nanoseconds.
const HOLD: u64 = 1_000_000_000;

impl KernelObserver {
    /// A memory call of a known task begins.
    pub(super) fn call_begins(&mut self, tid: Tid, time: u64, nr: u32, args: [u64; 6]) {
        let call = RawCall {
            abi: Abi::X86_64,
            nr,
            args,
        };
        let Some(info) = call_info(call.abi, nr).filter(|_| is_memory_call(&call)) else {
            return;
        };
        let layout = info.layout || splits(info.kind, &call);
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        let id = task.space;
        let caller = task.caller.take().filter(|(of, _)| *of == nr);
        let stack = caller.map_or(Stack::Absent, |(_, stack)| Stack::Raw(stack));
        let forgotten = task.call.replace(InCall {
            call,
            layout,
            entered: time,
            stack,
            shown: Vec::new(),
        });
        if layout && let Some(space) = self.spaces.get_mut(&id) {
            // Its return was lost.
            space.doubt |= forgotten.is_some_and(|call| call.layout);
            if !space.in_flight.contains(&tid) {
                space.in_flight.push(tid);
            }
            self.disturb_maps(id);
        }
    }

    /// A mapping was made or altered by a task.
    pub(super) fn mapped(&mut self, tid: Tid, time: u64, entry: MapsEntry) {
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        if let Some(exec) = task.exec.as_mut().filter(|exec| exec.committed.is_some()) {
            exec.shown.push(entry);
            return;
        }
        let (space, stack) = (task.space, entry.range);
        let is_stack = &*entry.name == "[stack]";
        // A stack grows by a page fault, which a call may cause that reads or writes there.
        let grows = match &mut task.call {
            None => entry.file.inode == 0,
            Some(call) => {
                let grows = is_stack && !call.layout;
                call.shown.push(entry);
                grows
            }
        };
        let in_call = task.call.is_some();
        if grows {
            self.push(time, Observed::Grown { space, stack });
        }
        if !in_call && !is_stack {
            // Growth of another stack, or the kernel's own doing: the map will tell.
            if let Some(space) = self.spaces.get_mut(&space) {
                space.doubt = true;
            }
            self.disturb(space);
        }
    }

    /// A memory call has returned.
    pub(super) fn call_returns(&mut self, tid: Tid, time: u64, nr: u32, result: i64) {
        let Some(task) = self.tasks.get_mut(&tid) else {
            return;
        };
        let id = task.space;
        // A stack that no begin has taken is that of a begin that was lost.
        task.caller = None;
        let Some(in_call) = task.call.take_if(|call| call.call.nr == nr) else {
            // It began before we came, or its begin was lost.
            let layout = call_info(Abi::X86_64, nr).is_some_and(|info| info.layout);
            if let Some(space) = self.spaces.get_mut(&id)
                && layout
            {
                space.doubt = true;
                self.disturb(id);
            }
            return;
        };
        if in_call.layout {
            match result < 0 && is_plain_mmap(&in_call.call) {
                true => self.disturb_maps(id),
                false => self.disturb(id),
            }
        }
        if self.skipped.is_some() {
            return self.skip_call(id, tid, time, in_call, result);
        }
        let strict = self.options.strict_overcommit;
        let Some(space) = self.spaces.get_mut(&id) else {
            return;
        };
        let InCall {
            call,
            layout,
            entered,
            stack,
            shown,
        } = in_call;
        let fetched = fetched(&call, result, &shown);
        let context = Context {
            strict_overcommit: strict,
            read_implies_exec: space.read_implies_exec,
            ..Context::default()
        };
        let mut wanted = Vec::new();
        evidence_wanted(&decode(&call, &fetched), result, &context, &mut wanted);
        if let Some(implied) = read_implies_exec(&call, result) {
            space.read_implies_exec = implied;
        }
        let evidence = evidence(&wanted, &shown);
        if evidence.len() < wanted.len() {
            // Where the break was, the timeline knows; how far an mremap moved, its result tells.
            let kind = call_info(call.abi, nr).map(|info| info.kind);
            let told = kind == Some(CallKind::Mremap) && 0 <= result;
            let asked = kind != Some(CallKind::Brk);
            space.doubt |= asked;
            space.contradicted |= asked && !told;
        }
        let footprint = Footprint::of(&call, Some(result));
        let mut overlapped = false;
        let mut after = Vec::new();
        if layout {
            space.in_flight.retain(|other| *other != tid);
            space.changed = time;
            space.since_check += 1;
            if let Verify::Every(calls) = self.options.verify {
                space.due |= calls <= space.since_check;
            }
            space.touched(&call, result, &shown);
            let finished = space
                .finished
                .iter()
                .filter(|other| entered < other.returned);
            for other in finished {
                match footprint.order(&other.footprint) {
                    Order::Any => {}
                    // As they are told. Only if it was mapped before does the address prove it.
                    Order::After => space.doubt = true,
                    Order::Doubt => {
                        (space.doubt, space.contradicted, overlapped) = (true, true, true);
                    }
                }
            }
            for &other in &space.in_flight {
                let Some(running) = self.tasks.get(&other).and_then(|task| task.call.as_ref())
                else {
                    continue;
                };
                match footprint.order(&Footprint::of(&running.call, None)) {
                    Order::Any => {}
                    Order::After => {
                        space.doubt = true;
                        after.push(other);
                    }
                    Order::Doubt => {
                        (space.doubt, space.contradicted, overlapped) = (true, true, true);
                    }
                }
            }
            match space.in_flight.is_empty() {
                true => space.finished.clear(),
                false => space.finished.push(Finished {
                    returned: time,
                    footprint,
                }),
            }
        }
        let waits = !after.is_empty() || !space.held.is_empty() && !space.is_awaited(tid);
        let untold: &[AddrRange] = match evidence.is_empty() {
            true => &wanted,
            false => &[],
        };
        let returned = (&call, &*fetched, result);
        let explained = !waits && self.look_for_reason(id, tid, time, returned, untold);
        let observation = Observation {
            time: self.clock.at(time),
            what: Observed::Call(CallDone {
                tid,
                space: id,
                entered: self.clock.at(entered),
                call,
                fetched,
                result,
                evidence,
                overlapped,
                stack,
                refused: None,
            }),
        };
        if explained {
            let item = Item::Refused(id, time, observation);
            self.queue.push_back(item);
        } else if waits && let Some(space) = self.spaces.get_mut(&id) {
            space.held.push_back(Held {
                observation,
                after,
                since: time,
            });
        } else {
            self.tell(observation);
        }
        if layout {
            self.release(id, Some(tid), time);
        }
    }

    /// A call that is only counted: what it did, the kernel's map will tell.
    fn skip_call(&mut self, id: SpaceId, tid: Tid, time: u64, in_call: InCall, result: i64) {
        self.skipped = self.skipped.map(|skipped| skipped + 1);
        let Some(space) = self.spaces.get_mut(&id) else {
            return;
        };
        (space.doubt, space.contradicted) = (true, true);
        if let Some(implied) = read_implies_exec(&in_call.call, result) {
            space.read_implies_exec = implied;
        }
        if in_call.layout {
            space.in_flight.retain(|other| *other != tid);
            space.finished.clear();
            space.changed = time;
            space.touched(&in_call.call, result, &in_call.shown);
            self.release(id, Some(tid), time);
        }
    }

    /// Reports what waited for the call of `done` (or for too long).
    pub(super) fn release(&mut self, id: SpaceId, done: Option<Tid>, time: u64) {
        let Some(space) = self.spaces.get_mut(&id) else {
            return;
        };
        for held in &mut space.held {
            held.after.retain(|tid| Some(*tid) != done);
        }
        let now = self.clock.at(time);
        while let Some(space) = self.spaces.get_mut(&id)
            && let Some(held) = space.held.front()
            && (held.after.is_empty() || HOLD < time.saturating_sub(held.since))
            && let Some(mut held) = space.held.pop_front()
        {
            held.observation.time = held.observation.time.max(now);
            self.tell(held.observation);
        }
    }

    /// Reports all that waits in a space: it ends, or records were lost.
    pub(super) fn release_all(&mut self, id: SpaceId) {
        let held = self
            .spaces
            .get_mut(&id)
            .map(|space| std::mem::take(&mut space.held));
        for held in held.into_iter().flatten() {
            self.tell(held.observation);
        }
    }
}

impl Space {
    /// Whether a report waits for the call of `tid`.
    fn is_awaited(&self, tid: Tid) -> bool {
        self.held.iter().any(|held| held.after.contains(&tid))
    }

    /// Takes note of what a call has altered before the first look.
    fn touched(&mut self, call: &RawCall, result: i64, shown: &[MapsEntry]) {
        let Some(beginning) = &mut self.beginning else {
            return;
        };
        let kind = call_info(call.abi, call.nr).map(|info| info.kind);
        if kind == Some(CallKind::Brk) {
            let now = Addr(result as u64);
            let before = beginning.brk.replace(now);
            let ends = before.and_then(|before| Some((before.page_ceil()?, now.page_ceil()?)));
            let moved = ends.and_then(|(a, b)| AddrRange::new(a.min(b), a.max(b)));
            return beginning.touched.extend(moved);
        }
        let footprint = Footprint::of(call, Some(result));
        beginning.touched.extend(footprint.touches);
        // What was mapped beyond that: a segment, rings.
        let whole = !matches!(kind, Some(CallKind::Mmap | CallKind::Mprotect));
        if whole {
            beginning
                .touched
                .extend(shown.iter().map(|entry| entry.range));
        }
    }
}

/// The kernel's answers about `wanted`, as far as its records of the call hold them.
fn evidence(wanted: &[AddrRange], shown: &[MapsEntry]) -> Vec<Evidence> {
    let answer = |&range: &AddrRange| {
        let mut entries: Vec<MapsEntry> = Vec::new();
        for entry in shown.iter().filter(|entry| entry.range.overlaps(range)) {
            super::picture::overlay(&mut entries, entry.clone());
        }
        // Where no record tells, nothing is said: not even that nothing is there.
        let mut at = range.start();
        for entry in &entries {
            if entry.range.contains(at) {
                at = entry.range.end();
            }
        }
        (range.end() <= at).then_some(Evidence { range, entries })
    };
    let answers: Vec<Evidence> = wanted.iter().filter_map(answer).collect();
    // A part of the answers would be taken for all of them.
    match answers.len() == wanted.len() {
        true => answers,
        false => Vec::new(),
    }
}

/// What lies behind the arguments, as far as the kernel's records of the call hold it.
fn fetched(call: &RawCall, result: i64, shown: &[MapsEntry]) -> Vec<Fetched> {
    let mut all = Vec::new();
    let mut wanted = Vec::new();
    for phase in [Phase::Entry, Phase::Exit { result }] {
        wanted.clear();
        wants(call, phase, &mut wanted);
        let at_exit = phase != Phase::Entry;
        all.extend(
            wanted
                .iter()
                .map(|want| fetch(want, at_exit, result, shown)),
        );
    }
    all
}

fn fetch(want: &Want, at_exit: bool, result: i64, shown: &[MapsEntry]) -> Fetched {
    let made = |entry: &&MapsEntry| 0 <= result && entry.range.contains(Addr(result as u64));
    match *want {
        Want::FdPath { arg } | Want::FdPathIn { arg, .. } => {
            let name = shown.iter().rev().find(made).map(|entry| &entry.name);
            let name = name.filter(|name| !name.is_empty());
            let path = name.map(|name| FetchedData::Path(name.as_bytes().to_vec()));
            Fetched {
                arg,
                at_exit,
                data: path.unwrap_or(FetchedData::Unreadable),
            }
        }
        // io_setup(2) stores where it has put its ring.
        Want::Memory { arg, .. } => {
            let ring = shown.iter().find(|entry| entry.name.starts_with("/[aio]"));
            let context = ring.filter(|_| at_exit).map(|ring| ring.range.start().0);
            let context = context.map(|at| FetchedData::Memory(at.to_ne_bytes().to_vec()));
            Fetched {
                arg,
                at_exit,
                data: context.unwrap_or(FetchedData::Unreadable),
            }
        }
        Want::CString { arg, .. } => Fetched {
            arg,
            at_exit,
            data: FetchedData::Unreadable,
        },
        Want::ResultPath => Fetched {
            arg: RESULT,
            at_exit,
            data: FetchedData::Unreadable,
        },
    }
}
