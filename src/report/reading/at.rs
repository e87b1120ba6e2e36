//! The mappings as they were at one moment, with who made each and when.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::abi::Prot;
use crate::mm::{Backing, Totals, Vma, VmaFlags};
use crate::report::recognize::Recognized;
use crate::report::{Place, Report};
use crate::timeline::{
    Began, Event, EventKind, Namer, Observation, Sink, SpaceState, Stacks, Timeline,
};
use crate::units::{AddrRange, Bytes, SpaceId, Tid, Timestamp};

use super::filter::Filter;
use super::follow::{Ahead, Stop};
use super::kinds::{Followed, Kinds};
use super::provenance::{Origin, Provenance, RightsChange};
use super::who::OwnerNames;

/// A moment of a trace, as a user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long after its begin.
    At(Timestamp),
    /// So many hundredths of a percent of its length after its begin.
    Share(u32),
    /// When the first space came into sight.
    Begin,
    /// The last instant at which a space lived.
    End,
    /// When this figure of all spaces together was highest.
    Peak(Peak),
}

/// A figure that has a peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peak {
    /// All mappings.
    Mapped,
    /// Those without any access right.
    Reserved,
    /// The others.
    Committed,
    /// Physical memory, as measured.
    Resident,
}

impl Moment {
    /// Whether the trace must have been read once to know when it is.
    pub fn needs_report(self) -> bool {
        matches!(self, Moment::Share(_) | Moment::Peak(_))
    }

    /// How far to read for it. `report` is that of the same trace, where it is needed.
    pub fn stop(self, report: Option<&Report>) -> Stop {
        match (self, report) {
            (Moment::At(time), _) => Stop::After(time),
            (Moment::Begin, _) => Stop::AfterEvent(1),
            (Moment::Share(share), Some(report)) => {
                let until = u128::from(report.until.0) * u128::from(share) / 10_000;
                Stop::After(Timestamp(u64::try_from(until).unwrap_or(u64::MAX)))
            }
            (Moment::Peak(peak), Some(report)) => {
                let tree = &report.tree;
                let figure = match peak {
                    Peak::Mapped => &tree.mapped,
                    Peak::Reserved => &tree.reserved,
                    Peak::Committed => &tree.committed,
                    Peak::Resident => &tree.resident,
                };
                match figure.peak_by.seq {
                    0 => Stop::After(figure.peak_time),
                    seq => Stop::AfterEvent(seq),
                }
            }
            (Moment::End | Moment::Share(_) | Moment::Peak(_), _) => Stop::End,
        }
    }
}

/// The spaces at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Then {
    /// Time of the event after which they were so.
    pub time: Timestamp,
    /// No space lived later on: these are as they were when the last one ended.
    pub last: bool,
    /// The spaces that lived, in order of appearance; a filter may leave some out.
    pub spaces: Vec<SpaceThen>,
}

/// A space at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SpaceThen {
    /// Its number.
    pub id: SpaceId,
    /// Its process.
    pub pid: Tid,
    /// The program; empty if unknown.
    pub exe: Arc<str>,
    /// Command name of the task it began with.
    pub comm: Arc<str>,
    /// How it began.
    pub began: Began,
    /// When.
    pub since: Timestamp,
    /// Its sums; of all mappings, whatever is listed.
    pub totals: Totals,
    /// Physical memory as last measured, and when.
    pub resident: Option<(Bytes, Timestamp)>,
    /// Its tasks.
    pub threads: u64,
    /// Its mappings in order of address; those that the filter admits.
    pub mappings: Vec<Mapping>,
    /// Mappings that the filter does not admit.
    pub hidden: u64,
}

/// A mapping at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// Where.
    pub range: AddrRange,
    /// Rights.
    pub prot: Prot,
    /// `s` rather than `p` in maps.
    pub shared: bool,
    /// What is behind it.
    pub backing: Backing,
    /// Further state.
    pub flags: VmaFlags,
    /// What people call it.
    pub place: Place,
    /// The name that the program gave it with prctl(2).
    pub name: Option<Arc<str>>,
    /// What made it, span by span in order of address; never empty but for a bug.
    pub made: Vec<Made>,
}

/// Bytes of a mapping that one event made.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Where.
    pub range: AddrRange,
    /// What mapped them.
    pub origin: Arc<Origin>,
    /// What gave them their present rights, if that was another event.
    pub change: Option<Arc<RightsChange>>,
    /// Who mapped them, where a stack tells.
    pub owner: Option<Arc<str>>,
    /// What they are, if anything tells.
    pub recognized: Option<Recognized>,
}

/// A sink that keeps the spaces as they are after the last event it gets.
#[derive(Debug, Default)]
pub struct At {
    filter: Filter,
    provenance: Provenance,
    kinds: Kinds,
    resident: BTreeMap<SpaceId, (Bytes, Timestamp)>,
    /// Living spaces that the filter does not leave out.
    living: Vec<SpaceId>,
    time: Timestamp,
    then: Then,
    stacks: Stacks,
}

impl Mapping {
    /// What most of it is.
    pub fn recognized(&self) -> Option<&Recognized> {
        let largest = self.made.iter().max_by_key(|made| made.range.len());
        largest?.recognized.as_ref()
    }
}

impl At {
    /// Lists the spaces and mappings that `filter` admits: made by those calls and tasks in that
    /// time, and of at least that size and with those rights at that moment.
    pub fn new(filter: Filter) -> At {
        At {
            filter,
            ..At::default()
        }
    }

    /// Tells it what the trace holds further on.
    pub fn knowing(mut self, ahead: Ahead) -> At {
        self.kinds.know(ahead);
        self
    }

    /// Functions that called get their names from `namer`.
    pub fn named_by(mut self, namer: Box<dyn Namer + Send>) -> At {
        self.kinds.name_by(namer);
        self
    }

    /// What was found.
    pub fn into_then(self) -> Then {
        self.then
    }

    /// What was found, with the owners of mappings whose stacks the trace holds.
    pub fn into_named(mut self, namer: &mut dyn Namer) -> Then {
        let mut owners = OwnerNames::new(&self.stacks, namer);
        let spaces = self.then.spaces.iter_mut();
        for made in spaces
            .flat_map(|space| &mut space.mappings)
            .flat_map(|mapping| &mut mapping.made)
        {
            made.owner = made.origin.first().stack.and_then(|stack| owners.of(stack));
        }
        self.then
    }

    fn look(&mut self, timeline: &Timeline, last: bool) -> Then {
        let living = self.living.clone();
        let spaces = living.into_iter().filter_map(|id| {
            let state = timeline.spaces.get(&id)?;
            self.kinds.learn(id);
            Some(self.space(id, state, timeline))
        });
        let spaces = spaces.collect();
        Then {
            time: self.time,
            last,
            spaces,
        }
    }

    fn space(&mut self, id: SpaceId, state: &SpaceState, timeline: &Timeline) -> SpaceThen {
        let mut mappings = Vec::new();
        let mut hidden = 0;
        for vma in state.model.vmas() {
            let mapping = self.mapping(id, vma, state);
            match self.admits(&mapping) {
                true => mappings.push(mapping),
                false => hidden += 1,
            }
        }
        let threads = timeline.tasks.values().filter(|task| task.space == id);
        SpaceThen {
            id,
            pid: state.pid,
            exe: Arc::clone(&state.exe),
            comm: Arc::clone(&state.comm),
            began: state.began,
            since: state.since,
            totals: state.model.totals(),
            resident: self.resident.get(&id).copied(),
            threads: threads.count() as u64,
            mappings,
            hidden,
        }
    }

    fn mapping(&mut self, id: SpaceId, vma: &Vma, state: &SpaceState) -> Mapping {
        let mut made: Vec<Made> = Vec::new();
        let mut largest: Option<(u64, Place, Option<Arc<str>>)> = None;
        let history = self.provenance.spaces.get(&id);
        let pieces = history.map(|history| history.pieces.overlapping(vma.range));
        for (range, piece) in pieces.into_iter().flatten() {
            if largest.as_ref().is_none_or(|(len, ..)| *len < range.len()) {
                largest = Some((range.len(), piece.place.clone(), piece.name.clone()));
            }
            made.push(Made {
                range,
                origin: Arc::clone(&piece.origin),
                change: piece.change.clone(),
                owner: None,
                recognized: self.kinds.of(id, range, piece),
            });
        }
        let (_, place, name) = largest.unwrap_or_else(|| (0, Place::of(vma, state), None));
        Mapping {
            range: vma.range,
            prot: vma.prot.rwx(),
            shared: vma.shared,
            backing: vma.backing.clone(),
            flags: vma.flags,
            place,
            name,
            made,
        }
    }

    fn admits(&self, mapping: &Mapping) -> bool {
        let Filter {
            calls,
            min_size,
            rights,
            tids,
            pids: _,
            spaces: _,
            since,
            until,
        } = &self.filter;
        let maker = Filter {
            calls: *calls,
            tids: tids.clone(),
            since: *since,
            until: *until,
            ..Filter::default()
        };
        min_size.is_none_or(|least| least <= mapping.range.len())
            && rights.is_none_or(|rights| rights.matches(mapping.prot))
            && (maker.is_empty() || mapping.made.iter().any(|made| made.origin.counts))
    }
}

impl Sink for At {
    fn observation(&mut self, observation: &Observation) -> io::Result<()> {
        self.kinds.observe(observation);
        Ok(())
    }

    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        self.time = event.time;
        // Size and rights are those of the mapping, not of the call that made it.
        let maker = Filter {
            min_size: None,
            rights: None,
            ..self.filter.clone()
        };
        let counts = maker.is_empty() || maker.counts(event);
        let mut told = Vec::new();
        self.provenance
            .event(event, timeline, counts, &mut |happened| {
                told.push(Followed::of(&happened));
            });
        self.kinds.event(event, timeline, &self.provenance, &told);
        match &event.kind {
            EventKind::SpaceBegan { .. } => {
                self.then = Then::default();
                if self.filter.admits_space(event.space, event.pid) {
                    self.living.push(event.space);
                }
            }
            EventKind::Sample(resident) => {
                self.resident
                    .insert(event.space, (resident.now, event.time));
            }
            EventKind::SpaceEnded { .. } => {
                if self.living == [event.space] {
                    self.then = self.look(timeline, true);
                }
                self.living.retain(|space| *space != event.space);
                self.provenance.forget(event.space);
                self.kinds.forget(event.space);
                self.resident.remove(&event.space);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, timeline: &Timeline) -> io::Result<()> {
        self.stacks = timeline.stacks.clone();
        if !self.living.is_empty() {
            self.then = self.look(timeline, false);
        }
        Ok(())
    }
}
