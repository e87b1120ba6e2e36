//! Keeps tasks and spaces, and applies each observation to the model of its space.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use crate::abi::{Abi, CallKind, call_info};
use crate::decode::{Call, Fetched, RawCall, decode};
use crate::mm::{
    AddressSpace, Change, Context, Flow, Snapshot, Span, Totals, Vma, compare, effect, grown_to,
};
use crate::units::{Addr, AddrRange, Bytes, SpaceId, Tid, Timestamp};

use super::failure::Surroundings;
use super::{
    Began, CallDone, CallEvent, CheckCause, Checked, Event, EventKind, Failure, Observation,
    Observed, SpaceBegan, Stacks, TaskBegan, TouchEvent, TraceInfo,
};

/// A task, as long as it lives.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its process.
    pub pid: Tid,
    /// Its space.
    pub space: SpaceId,
    /// Command name.
    pub comm: Arc<str>,
}

/// A space, as long as it lives.
#[derive(Clone, Debug)]
pub struct SpaceState {
    /// The process it began with.
    pub pid: Tid,
    /// The program.
    pub exe: Arc<str>,
    /// Command name of the task it began with.
    pub comm: Arc<str>,
    /// How it began.
    pub began: Began,
    /// When.
    pub since: Timestamp,
    /// The model.
    pub model: AddressSpace,
    /// What effects depend on: the break, personality.
    pub context: Context,
    /// The maps could be read when it began, so that the model can be verified.
    pub known: bool,
}

#[derive(Clone, Debug)]
struct CutCall {
    tid: Tid,
    entered: Timestamp,
    raw: RawCall,
    fetched: Vec<Fetched>,
}

/// All that is known at one instant of the trace.
#[derive(Debug, Default)]
pub struct Timeline {
    /// What is true of the whole trace.
    pub info: TraceInfo,
    /// Tasks alive.
    pub tasks: BTreeMap<Tid, Task>,
    /// Spaces alive (an ended one stays until its `SpaceEnded` event has been delivered).
    pub spaces: BTreeMap<SpaceId, SpaceState>,
    /// Who called: all stacks so far.
    pub stacks: Stacks,
    seq: u64,
    ended: Option<SpaceId>,
    recheck: Vec<SpaceId>,
    /// Calls cut short, whose effect the next look at the kernel's map will tell.
    cut: BTreeMap<SpaceId, Vec<CutCall>>,
}

impl Timeline {
    /// An empty timeline of a trace.
    pub fn new(info: TraceInfo) -> Timeline {
        Timeline {
            info,
            ..Timeline::default()
        }
    }

    /// Spaces whose model met a contradiction since the last call, and should be compared with the
    /// kernel's map as soon as possible.
    pub fn take_rechecks(&mut self) -> Vec<SpaceId> {
        mem::take(&mut self.recheck)
    }

    /// Takes one observation; appends the events it makes to `out`. Each is to be delivered before
    /// the next observation.
    pub fn observe(&mut self, observation: Observation, out: &mut Vec<Event>) {
        if let Some(ended) = self.ended.take() {
            self.spaces.remove(&ended);
        }
        let Observation { time, what } = observation;
        match what {
            Observed::SpaceBegan(began) => self.space_began(time, began, out),
            Observed::TaskBegan(began) => self.task_began(time, began, out),
            Observed::CallEntered(entered) => {
                let kind = EventKind::CallEntered {
                    raw: entered.call,
                    fetched: entered.fetched,
                };
                self.emit(out, time, entered.tid, entered.space, kind);
            }
            Observed::Call(done) => self.call_done(time, done, out),
            Observed::CallCut {
                tid,
                space,
                entered,
                call,
                fetched,
            } => {
                let cut = CutCall {
                    tid,
                    entered,
                    raw: call,
                    fetched,
                };
                match self.spaces.get_mut(&space) {
                    Some(state) if state.known => self.cut.entry(space).or_default().push(cut),
                    _ => self.settle_cut(time, space, cut, None, out),
                }
            }
            Observed::Checkpoint {
                space,
                cause,
                snapshot,
            } => {
                self.checkpoint(time, space, cause, &snapshot, out);
            }
            Observed::Resident { space, resident } => {
                let pid = self.spaces.get(&space).map_or(Tid(0), |state| state.pid);
                self.emit(out, time, pid, space, EventKind::Sample(resident));
            }
            Observed::Touched(touched) => {
                let kind = EventKind::Touched(TouchEvent {
                    addr: touched.addr,
                    write: touched.write,
                    stands_for: touched.stands_for,
                    stack: touched.stack.id(),
                });
                self.emit(out, time, touched.tid, touched.space, kind);
            }
            Observed::Grown { space, stack } => self.grown(time, space, stack, out),
            Observed::HighWater { space, high_water } => {
                let pid = self.spaces.get(&space).map_or(Tid(0), |state| state.pid);
                self.emit(out, time, pid, space, EventKind::HighWater(high_water));
            }
            Observed::Exec { tid, former, comm } => {
                let task = self
                    .tasks
                    .remove(&former)
                    .or_else(|| self.tasks.remove(&tid));
                let space = task.as_ref().map_or(SpaceId(0), |task| task.space);
                self.tasks.insert(
                    tid,
                    Task {
                        pid: tid,
                        space,
                        comm,
                    },
                );
                self.emit(out, time, tid, space, EventKind::Exec { former });
            }
            Observed::TaskEnded { tid, end } => {
                let space = self.tasks.get(&tid).map_or(SpaceId(0), |task| task.space);
                self.emit(out, time, tid, space, EventKind::TaskEnded(end));
                self.tasks.remove(&tid);
            }
            Observed::SpaceEnded { space, ended } => {
                let Some(state) = self.spaces.get(&space) else {
                    return;
                };
                let cut = self.cut.remove(&space).unwrap_or_default();
                let pid = state.pid;
                let last = state.model.totals();
                for cut in cut {
                    self.settle_cut(time, space, cut, None, out);
                }
                self.emit(out, time, pid, space, EventKind::SpaceEnded { ended, last });
                self.ended = Some(space);
            }
            Observed::Signal(signal) => {
                let space = self
                    .tasks
                    .get(&signal.tid)
                    .map_or(SpaceId(0), |task| task.space);
                self.emit(out, time, signal.tid, space, EventKind::Signal(signal));
            }
            Observed::Note { space, text } => {
                let space = space.unwrap_or_default();
                let pid = self.spaces.get(&space).map_or(Tid(0), |state| state.pid);
                self.emit(out, time, pid, space, EventKind::Note(text));
            }
            Observed::Lost(count) => {
                self.emit(out, time, Tid(0), SpaceId(0), EventKind::Lost(count));
            }
            Observed::File(file) => {
                self.stacks.add_file(&file);
                let space = file.space;
                let pid = self.spaces.get(&space).map_or(Tid(0), |state| state.pid);
                self.emit(out, time, pid, space, EventKind::File(file));
            }
            // They make no events: an event refers to them.
            Observed::Module(module) => self.stacks.add_module(module),
            Observed::Stack(stack) => self.stacks.add(stack),
            Observed::Names(names) => self.stacks.add_names(names),
        }
    }

    fn emit(
        &mut self,
        out: &mut Vec<Event>,
        time: Timestamp,
        tid: Tid,
        space: SpaceId,
        kind: EventKind,
    ) {
        let pid = self.tasks.get(&tid).map_or(tid, |task| task.pid);
        if !matches!(
            kind,
            EventKind::CallEntered { .. }
                | EventKind::File(_)
                | EventKind::Touched(_)
                | EventKind::HighWater(_)
        ) {
            self.seq += 1;
        }
        out.push(Event {
            seq: self.seq,
            time,
            tid,
            pid,
            space,
            kind,
        });
    }

    fn space_began(&mut self, time: Timestamp, began: SpaceBegan, out: &mut Vec<Event>) {
        let SpaceBegan {
            space,
            pid,
            began,
            exe,
            snapshot,
            known,
            brk_start,
            read_implies_exec,
        } = began;
        let parent = match began {
            Began::Fork {
                parent: Some(parent),
            } => self.spaces.get(&parent),
            _ => None,
        };
        let model = match parent {
            // The child ran on unseen: it is what it was made as.
            Some(parent) if snapshot.entries.is_empty() => parent.model.copied(),
            Some(parent) => AddressSpace::forked(&parent.model, &snapshot),
            None => AddressSpace::from_snapshot(&snapshot),
        };
        let inherited = parent.map(|parent| parent.context).unwrap_or_default();
        // At attach no brk call has told where the break is: it is in the last page of the heap.
        let heap = snapshot
            .entries
            .iter()
            .find(|entry| &*entry.name == "[heap]");
        let heap_end = match heap {
            Some(heap) => Some(heap.range.end()),
            // The heap is empty.
            None => brk_start.and_then(Addr::page_ceil),
        };
        let context = Context {
            brk: inherited.brk.or(heap_end),
            brk_start: brk_start.or(inherited.brk_start),
            strict_overcommit: self.info.overcommit == 2,
            compat: false,
            read_implies_exec: read_implies_exec || inherited.read_implies_exec,
        };
        let now = model.totals();
        let comm = self
            .tasks
            .get(&pid)
            .map_or_else(|| "".into(), |task| Arc::clone(&task.comm));
        let state = SpaceState {
            pid,
            exe: Arc::clone(&exe),
            comm,
            began,
            since: time,
            model,
            context,
            known,
        };
        self.spaces.insert(space, state);
        if began == Began::Exec
            && let Some(task) = self.tasks.get_mut(&pid)
        {
            task.space = space;
        }
        self.emit(
            out,
            time,
            pid,
            space,
            EventKind::SpaceBegan { began, exe, now },
        );
    }

    fn task_began(&mut self, time: Timestamp, began: TaskBegan, out: &mut Vec<Event>) {
        let TaskBegan {
            tid,
            pid,
            space,
            parent,
            origin,
            comm,
        } = began;
        if let Some(state) = self.spaces.get_mut(&space)
            && state.comm.is_empty()
        {
            state.comm = Arc::clone(&comm);
        }
        self.tasks.insert(tid, Task { pid, space, comm });
        self.emit(
            out,
            time,
            tid,
            space,
            EventKind::TaskBegan { parent, origin },
        );
    }

    fn call_done(&mut self, time: Timestamp, done: CallDone, out: &mut Vec<Event>) {
        let CallDone {
            tid,
            space,
            entered,
            call: raw,
            fetched,
            result,
            evidence,
            stack,
            refused,
            overlapped: _,
        } = done;
        let call = decode(&raw, &fetched);
        let mut spans = Vec::new();
        let mut flow = Flow::default();
        let (mut before, mut now) = (Totals::default(), Totals::default());
        if let Some(state) = self.spaces.get_mut(&space) {
            before = state.model.totals();
            let context = Context {
                compat: raw.abi == Abi::I386,
                ..state.context
            };
            let done = effect(&state.model, &call, result, &context, &evidence);
            for change in done.changes {
                flow += state.model.apply(change, &mut spans);
            }
            if let Some(brk) = done.brk {
                state.context.brk = brk.page_ceil();
            }
            if let Some(implied) = read_implies_exec(&raw, result) {
                state.context.read_implies_exec = implied;
            }
            if (done.recheck || unmodelled(&raw, result)) && state.known {
                self.recheck.push(space);
            }
            now = state.model.totals();
        }
        let failure = refused.and_then(|figures| {
            let state = self.spaces.get(&space);
            let around = Surroundings {
                model: state.filter(|state| state.known).map(|state| &state.model),
                brk_start: state.and_then(|state| state.context.brk_start),
                read_implies_exec: state.is_some_and(|state| state.context.read_implies_exec),
            };
            Failure::of(&raw, &fetched, result, *figures, around).map(Box::new)
        });
        let kind = EventKind::Call(CallEvent {
            entered,
            raw,
            fetched,
            call,
            result: Some(result),
            spans,
            flow,
            before,
            now,
            stack: stack.id(),
            failure,
        });
        self.emit(out, time, tid, space, kind);
    }

    /// Reports a call whose exit was never seen, with what it turned out to have done.
    fn settle_cut(
        &mut self,
        time: Timestamp,
        space: SpaceId,
        cut: CutCall,
        done: Option<(Vec<Span>, Flow, Totals)>,
        out: &mut Vec<Event>,
    ) {
        let now = self
            .spaces
            .get(&space)
            .map(|state| state.model.totals())
            .unwrap_or_default();
        let (spans, flow, before) = done.unwrap_or_else(|| (Vec::new(), Flow::default(), now));
        let CutCall {
            tid,
            entered,
            raw,
            fetched,
        } = cut;
        let call: Call = decode(&raw, &fetched);
        let kind = EventKind::Call(CallEvent {
            entered,
            raw,
            fetched,
            call,
            result: None,
            spans,
            flow,
            before,
            now,
            stack: None,
            failure: None,
        });
        self.emit(out, time, tid, space, kind);
    }

    fn grown(&mut self, time: Timestamp, space: SpaceId, stack: AddrRange, out: &mut Vec<Event>) {
        let Some(state) = self.spaces.get_mut(&space).filter(|state| state.known) else {
            return;
        };
        let Some(change @ Change::Grow(grown)) = grown_to(&state.model, stack) else {
            return;
        };
        let before = state.model.totals();
        state.model.apply(change, &mut Vec::new());
        let checked = Checked {
            cause: None,
            drift: Bytes(0),
            resynced: Bytes(0),
            grown: Bytes(grown.len()),
            differences: Vec::new(),
            charged: None,
            before,
            now: state.model.totals(),
        };
        let pid = state.pid;
        self.emit(out, time, pid, space, EventKind::Checked(checked));
    }

    fn checkpoint(
        &mut self,
        time: Timestamp,
        space: SpaceId,
        cause: CheckCause,
        snapshot: &Snapshot,
        out: &mut Vec<Event>,
    ) {
        let Some(state) = self.spaces.get_mut(&space) else {
            return;
        };
        let pid = state.pid;
        let before = state.model.totals();
        let mut grown = Bytes(0);
        let mut cut = self.cut.remove(&space).unwrap_or_default().into_iter();
        let mut comparison = match cut.len() {
            0 => compare(&state.model, snapshot),
            // Flags tell growth only as long as no mmap(2) is missing from the model.
            _ => compare(&state.model, &without_flags(snapshot)),
        };
        let mut spans = Vec::new();
        for &range in &comparison.grown {
            grown += Bytes(range.len());
            let change = match snapshot.smaps.is_empty() {
                true => Change::Grow(range),
                false => replace(range, snapshot),
            };
            state.model.apply(change, &mut spans);
        }
        if let Some(first) = cut.next() {
            let before = state.model.totals();
            let mut spans = Vec::new();
            let mut flow = Flow::default();
            for difference in &comparison.differences {
                flow += state
                    .model
                    .apply(replace(difference.range, snapshot), &mut spans);
            }
            comparison = compare(&state.model, snapshot);
            self.settle_cut(time, space, first, Some((spans, flow, before)), out);
            for cut in cut {
                self.settle_cut(time, space, cut, None, out);
            }
        }
        let Some(state) = self.spaces.get_mut(&space) else {
            return;
        };
        let mut spans = Vec::new();
        for difference in &comparison.differences {
            state
                .model
                .apply(replace(difference.range, snapshot), &mut spans);
        }
        let resynced = comparison.drift;
        let drift = if cause == CheckCause::Doubt {
            Bytes(0)
        } else {
            comparison.drift
        };
        let charged = (!snapshot.smaps.is_empty()).then(|| {
            state.model.learn_flags(snapshot);
            charged(snapshot)
        });
        let now = state.model.totals();
        let checked = Checked {
            cause: Some(cause),
            drift,
            resynced,
            grown,
            differences: comparison.differences,
            charged,
            before,
            now,
        };
        self.emit(out, time, pid, space, EventKind::Checked(checked));
    }
}

/// Whether a call may have changed the layout in a way that only the kernel's map tells:
/// arch_prctl(ARCH_MAP_VDSO_*), shadow stacks, prctl(PR_SET_MM).
fn unmodelled(call: &RawCall, result: i64) -> bool {
    let kind = call_info(call.abi, call.nr).map(|info| info.kind);
    const PR_SET_MM: u64 = 35;
    let moves_labels = kind == Some(CallKind::Prctl) && call.args[0] == PR_SET_MM;
    0 <= result && (kind == Some(CallKind::ArchPrctl) || moves_labels)
}

/// What a successful personality(2) says of READ_IMPLIES_EXEC; `None` for all other calls, and for
/// the one that only asks.
pub fn read_implies_exec(call: &RawCall, result: i64) -> Option<bool> {
    const READ_IMPLIES_EXEC: u64 = 0x0040_0000;
    let info = call_info(call.abi, call.nr)?;
    let sets = info.kind == CallKind::Personality && 0 <= result;
    (sets && call.args[0] as u32 != u32::MAX).then_some(call.args[0] & READ_IMPLIES_EXEC != 0)
}

fn without_flags(snapshot: &Snapshot) -> Snapshot {
    Snapshot {
        entries: snapshot.entries.clone(),
        smaps: Vec::new(),
    }
}

/// The kernel's view of a range, as a change.
fn replace(range: AddrRange, snapshot: &Snapshot) -> Change {
    let first = snapshot
        .entries
        .partition_point(|entry| entry.range.end() <= range.start());
    let vmas = snapshot
        .entries
        .iter()
        .enumerate()
        .skip(first)
        .take_while(|(_, entry)| entry.range.start() < range.end())
        .filter_map(|(index, entry)| {
            Vma::from_entry(entry, snapshot.smaps.get(index)).clipped(range)
        })
        .collect();
    Change::Replace { range, vmas }
}

/// The exact charge that smaps shows.
fn charged(snapshot: &Snapshot) -> Bytes {
    let lines = snapshot.entries.iter().zip(&snapshot.smaps);
    lines
        .filter(|(_, smaps)| smaps.charged)
        .map(|(entry, _)| Bytes(entry.range.len()))
        .sum()
}
