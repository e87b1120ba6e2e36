//! Spaces and tasks that come into sight, as JSON.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::mm::Snapshot;
use crate::timeline::{Began, Observed, SpaceBegan, TaskBegan, TaskOrigin};
use crate::units::{Addr, SpaceId, Tid};

use super::maps::WireSnapshot;
use super::wire::{Hex, Impossible, is_default};

#[derive(Serialize, Deserialize)]
#[serde(remote = "TaskOrigin", rename_all = "snake_case")]
enum Origin {
    Launch,
    Attach,
    Thread,
    Fork,
    Vfork,
    SharedSpace,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HowBegan {
    Exec,
    Fork,
    Attach,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Space {
    space: u32,
    pid: i32,
    began: HowBegan,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<u32>,
    exe: Arc<str>,
    known: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    brk_start: Option<Hex>,
    #[serde(default, skip_serializing_if = "is_default")]
    read_implies_exec: bool,
    snapshot: WireSnapshot,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    tid: i32,
    pid: i32,
    space: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<i32>,
    #[serde(with = "Origin")]
    origin: TaskOrigin,
    comm: Arc<str>,
}

impl From<&SpaceBegan> for Space {
    fn from(began: &SpaceBegan) -> Space {
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
        let (began, parent) = match began {
            Began::Exec => (HowBegan::Exec, None),
            Began::Fork { parent } => (HowBegan::Fork, *parent),
            Began::Attach => (HowBegan::Attach, None),
        };
        Space {
            space: space.0,
            pid: pid.0,
            began,
            parent: parent.map(|parent| parent.0),
            exe: Arc::clone(exe),
            known: *known,
            brk_start: brk_start.map(Hex::from),
            read_implies_exec: *read_implies_exec,
            snapshot: snapshot.into(),
        }
    }
}

impl Space {
    pub(super) fn observed(self) -> Result<Observed, Impossible> {
        Ok(Observed::SpaceBegan(SpaceBegan {
            space: SpaceId(self.space),
            pid: Tid(self.pid),
            began: match self.began {
                HowBegan::Exec => Began::Exec,
                HowBegan::Fork => Began::Fork {
                    parent: self.parent.map(SpaceId),
                },
                HowBegan::Attach => Began::Attach,
            },
            exe: self.exe,
            snapshot: Snapshot::try_from(self.snapshot)?,
            known: self.known,
            brk_start: self.brk_start.map(|brk| Addr(brk.0)),
            read_implies_exec: self.read_implies_exec,
        }))
    }
}

impl From<&TaskBegan> for Task {
    fn from(began: &TaskBegan) -> Task {
        let TaskBegan {
            tid,
            pid,
            space,
            parent,
            origin,
            comm,
        } = began;
        Task {
            tid: tid.0,
            pid: pid.0,
            space: space.0,
            parent: parent.map(|parent| parent.0),
            origin: *origin,
            comm: Arc::clone(comm),
        }
    }
}

impl Task {
    pub(super) fn observed(self) -> Observed {
        Observed::TaskBegan(TaskBegan {
            tid: Tid(self.tid),
            pid: Tid(self.pid),
            space: SpaceId(self.space),
            parent: self.parent.map(Tid),
            origin: self.origin,
            comm: self.comm,
        })
    }
}
