//! Which events a question is about. The model always sees them all.

use crate::abi::{CallSet, Prot};
use crate::decode::{Call, RawCall, decode, shows};
use crate::timeline::{CallEvent, Event, EventKind};
use crate::units::{SpaceId, Tid, Timestamp};

use super::asked::asked;

/// Conditions that an event meets all at once; an empty list or `None` is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Calls of this set.
    pub calls: Option<CallSet>,
    /// Calls that act on at least so many bytes: asked for, or changed.
    pub min_size: Option<u64>,
    /// Calls that give these rights.
    pub rights: Option<Rights>,
    /// Of these tasks.
    pub tids: Vec<Tid>,
    /// Of these processes.
    pub pids: Vec<Tid>,
    /// In these spaces.
    pub spaces: Vec<SpaceId>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
}

/// Rights to look for: each letter set, not set, or either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The letters that count.
    pub mask: Prot,
    /// Their values.
    pub value: Prot,
}

impl Rights {
    /// Whether `prot` is one of them.
    pub fn matches(self, prot: Prot) -> bool {
        prot.rwx() & self.mask == self.value
    }
}

impl Filter {
    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether it has conditions that only a call can meet.
    pub fn is_about_calls(&self) -> bool {
        let Filter {
            calls,
            min_size,
            rights,
            tids: _,
            pids: _,
            spaces: _,
            since: _,
            until: _,
        } = self;
        calls.is_some() || min_size.is_some() || rights.is_some()
    }

    /// Whether `event` is to be shown. Events that are no calls are context: conditions about
    /// calls do not hide them.
    pub fn shows(&self, event: &Event) -> bool {
        let call = match &event.kind {
            EventKind::Call(call) => self.admits_call(call),
            EventKind::CallEntered { raw, fetched } => {
                self.admits(raw, &decode(raw, fetched), None)
            }
            _ => true,
        };
        call && self.admits_place(event)
    }

    /// Whether `event` counts: one that is no call only where there are no conditions about calls.
    pub fn counts(&self, event: &Event) -> bool {
        match &event.kind {
            EventKind::Call(call) => self.admits_call(call) && self.admits_place(event),
            _ => !self.is_about_calls() && self.admits_place(event),
        }
    }

    /// Whether it admits the time, the task and the space of `event`.
    fn admits_place(&self, event: &Event) -> bool {
        let any = |list: &[Tid], tid: Tid| list.is_empty() || list.contains(&tid);
        any(&self.tids, event.tid)
            && any(&self.pids, event.pid)
            && (self.spaces.is_empty() || self.spaces.contains(&event.space))
            && self.since.is_none_or(|since| since <= event.time)
            && self.until.is_none_or(|until| event.time <= until)
    }

    /// Whether it admits a space.
    pub fn admits_space(&self, space: SpaceId, pid: Tid) -> bool {
        (self.spaces.is_empty() || self.spaces.contains(&space))
            && (self.pids.is_empty() || self.pids.contains(&pid))
    }

    fn admits_call(&self, call: &CallEvent) -> bool {
        self.admits(&call.raw, &call.call, Some(call))
    }

    fn admits(&self, raw: &RawCall, call: &Call, done: Option<&CallEvent>) -> bool {
        if self.calls.is_some_and(|calls| !shows(calls, raw)) {
            return false;
        }
        let asked = asked(call, raw);
        let rights = self.rights.is_none_or(|rights| {
            let given = asked.prot;
            given.is_some_and(|given| rights.matches(given))
        });
        let size = self.min_size.is_none_or(|least| {
            let changed = done.map_or(0, changed);
            least <= asked.size.unwrap_or(0).max(changed)
        });
        rights && size
    }
}

/// Bytes of the spans of a call; a brk(2) has no size but these.
fn changed(call: &CallEvent) -> u64 {
    let lens = call.spans.iter().map(|span| span.range.len());
    lens.fold(0, u64::saturating_add)
}
