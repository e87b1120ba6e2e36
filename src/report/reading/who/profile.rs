//! Sums by stack and process.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::mm::Vma;
use crate::report::reading::by::Sums;
use crate::report::reading::filter::Filter;
use crate::report::reading::provenance::{History, Provenance};
use crate::report::touched::TouchedPages;
use crate::timeline::{Event, EventKind, Sink, SpaceState, Stacks, Timeline, TouchEvent};
use crate::units::{AddrRange, Bytes, SpaceId, Timestamp};

use super::Source;

/// A sink that makes a [`Profile`]. What it keeps depends on what is alive and on how many stacks and
/// command names there are.
#[derive(Debug)]
pub struct ProfileSink {
    filter: Filter,
    /// Counts what every stack touched, and nothing else.
    touchers: bool,
    provenance: Provenance,
    /// Of living spaces.
    living: BTreeMap<SpaceId, BTreeMap<Source, Sums>>,
    touched: BTreeMap<SpaceId, TouchedPages>,
    done: BTreeMap<(Arc<str>, Source), Sums>,
    stacks: Stacks,
    until: Timestamp,
}

/// What every stack did, and what is left of it.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The sums.
    pub entries: Vec<Entry>,
    /// The stacks that they refer to.
    pub stacks: Stacks,
    /// Time of the last event.
    pub until: Timestamp,
}

/// The sums of one source in the processes of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Command name of the processes.
    pub process: Arc<str>,
    /// Who did it.
    pub source: Source,
    /// What, and what is left.
    pub sums: Sums,
}

impl ProfileSink {
    /// A sink for the events that `filter` admits.
    pub fn new(filter: Filter) -> ProfileSink {
        ProfileSink {
            filter,
            touchers: false,
            provenance: Provenance::default(),
            living: BTreeMap::new(),
            touched: BTreeMap::new(),
            done: BTreeMap::new(),
            stacks: Stacks::default(),
            until: Timestamp(0),
        }
    }

    /// A sink that counts for every stack what it touched itself, and nothing else. Where stacks were only
    /// sampled, the page faults of a thread that had none taken count for the next that it had taken.
    pub fn touchers(filter: Filter) -> ProfileSink {
        ProfileSink {
            touchers: true,
            ..ProfileSink::new(filter)
        }
    }

    /// The sums, once all events were taken.
    pub fn into_profile(self) -> Profile {
        let ProfileSink {
            done,
            stacks,
            until,
            ..
        } = self;
        let entries = done.into_iter().map(|((process, source), sums)| Entry {
            process,
            source,
            sums,
        });
        Profile {
            entries: entries
                .filter(|entry| entry.sums != Sums::default())
                .collect(),
            stacks,
            until,
        }
    }

    fn sums(&mut self, space: SpaceId, source: Source) -> &mut Sums {
        let sources = self.living.entry(space).or_default();
        sources.entry(source).or_default()
    }

    fn began(&mut self, space: SpaceId) {
        let Some(history) = self.provenance.spaces.get(&space) else {
            return;
        };
        let mut began: BTreeMap<Source, Bytes> = BTreeMap::new();
        for (range, piece) in history
            .pieces
            .iter()
            .filter(|(_, piece)| piece.origin.counts)
        {
            *began.entry(Source::of_origin(&piece.origin)).or_default() += Bytes(range.len());
        }
        for (source, bytes) in began {
            self.sums(space, source).began += bytes;
        }
    }

    /// A page fault, on bytes that somebody committed.
    fn touch(&mut self, event: &Event, touch: &TouchEvent) {
        let pages = self.touched.entry(event.space).or_default();
        let new = pages.touch(touch.addr);
        if self.touchers {
            return self.touched_by(event, touch, new);
        }
        let piece = self.provenance.piece_at(event.space, touch.addr);
        let committed = piece.map_or((Source::Found, true), Source::of_commit);
        if let (source, true) = committed {
            self.sums(event.space, source).touched.add(touch, new);
        }
    }

    /// A page fault, for whom it was.
    fn touched_by(&mut self, event: &Event, touch: &TouchEvent, new: bool) {
        let task = Source::Task(event.tid);
        let sources = self.living.entry(event.space).or_default();
        let (source, before) = match touch.stack {
            Some(stack) => (Source::Stack(stack), sources.remove(&task)),
            None => (task, None),
        };
        let sums = sources.entry(source).or_default();
        if let Some(before) = before {
            *sums += before;
        }
        sums.touched.add(touch, new);
    }

    /// What is left of a space belongs to who made it.
    fn ended(&mut self, space: SpaceId, state: &SpaceState) {
        self.touched.remove(&space);
        let history = self.provenance.spaces.remove(&space).unwrap_or_default();
        let touchers = self.touchers;
        for vma in state.model.vmas().filter(|_| !touchers) {
            self.left(space, vma, &history, state);
        }
        let process = process_name(state);
        for (source, sums) in self.living.remove(&space).unwrap_or_default() {
            let key = (Arc::clone(&process), source);
            *self.done.entry(key).or_default() += sums;
        }
    }

    fn left(&mut self, space: SpaceId, vma: &Vma, history: &History, state: &SpaceState) {
        let reserved = vma.is_reserved();
        let mut at = vma.range.start();
        for (range, piece) in history.pieces.overlapping(vma.range) {
            self.unknown(space, AddrRange::new(at, range.start()), reserved, state);
            at = range.end();
            let bytes = Bytes(range.len());
            if piece.origin.counts {
                let sums = self.sums(space, Source::of_origin(&piece.origin));
                sums.mapped += bytes;
                if reserved {
                    sums.reserved += bytes;
                }
            }
            if !reserved && let (source, true) = Source::of_commit(piece) {
                self.sums(space, source).committed += bytes;
            }
        }
        self.unknown(space, AddrRange::new(at, vma.range.end()), reserved, state);
    }

    /// Bytes of the model of which nothing is known.
    fn unknown(
        &mut self,
        space: SpaceId,
        range: Option<AddrRange>,
        reserved: bool,
        state: &SpaceState,
    ) {
        let counts = self.filter.admits_space(space, state.pid) && !self.filter.is_about_calls();
        let Some(range) = range.filter(|_| counts) else {
            return;
        };
        let bytes = Bytes(range.len());
        let sums = self.sums(space, Source::Found);
        sums.mapped += bytes;
        match reserved {
            true => sums.reserved += bytes,
            false => sums.committed += bytes,
        }
    }
}

/// What people call the processes of a space: the command name, else the file of the program.
pub(in crate::report::reading) fn process_name(state: &SpaceState) -> Arc<str> {
    match (&*state.comm, state.exe.rsplit('/').next()) {
        ("", None | Some("")) => "?".into(),
        ("", Some(file)) => file.into(),
        _ => Arc::clone(&state.comm),
    }
}

impl Sink for ProfileSink {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        self.until = self.until.max(event.time);
        let counts = self.filter.counts(event);
        self.provenance.event(event, timeline, counts, &mut |_| {});
        let Some(state) = timeline.spaces.get(&event.space) else {
            return Ok(());
        };
        if let EventKind::Call(call) = &event.kind
            && let Some(touched) = self.touched.get_mut(&event.space)
        {
            touched.follow(&call.spans);
        }
        match &event.kind {
            EventKind::SpaceBegan { .. } if !self.touchers => self.began(event.space),
            EventKind::Call(call) if counts && !self.touchers => {
                let sums = Sums::of_call(call);
                if sums != Sums::default() {
                    *self.sums(event.space, Source::of_call(call)) += sums;
                }
            }
            EventKind::Touched(touch) if counts => self.touch(event, touch),
            EventKind::SpaceEnded { .. } => self.ended(event.space, state),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, timeline: &Timeline) -> io::Result<()> {
        for (space, state) in &timeline.spaces {
            if self.provenance.spaces.contains_key(space) || self.living.contains_key(space) {
                self.ended(*space, state);
            }
        }
        self.stacks = timeline.stacks.clone();
        Ok(())
    }
}
