//! What is known of bytes: who made them, who changed their rights, what they are.

use std::sync::Arc;

use crate::abi::Prot;
use crate::report::{Maker, Place};
use crate::timeline::Began;
use crate::units::{Addr, SpaceId, StackId, Timestamp};

/// How bytes came to be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The space began with them.
    Began(Began),
    /// A call mapped them.
    Call,
    /// A stack grew into them by page faults.
    Grown,
    /// The kernel's map showed them.
    Found,
}

/// What made some bytes of a space.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// Number, from 1, in the order of making; of the whole trace.
    pub id: u64,
    /// When.
    pub time: Timestamp,
    /// Which event.
    pub by: Maker,
    /// How.
    pub how: How,
    /// The space.
    pub space: SpaceId,
    /// Where its first byte was.
    pub start: Addr,
    /// What made the same bytes of the space that fork(2) copied.
    pub copied: Option<Arc<Origin>>,
    /// The event that made it is one that the question is about.
    pub counts: bool,
    /// Who called, if that was recorded.
    pub stack: Option<StackId>,
}

impl Origin {
    /// What made the bytes first, in whatever space that was.
    pub fn first(&self) -> &Origin {
        self.copied.as_deref().unwrap_or(self)
    }
}

/// An event that gave bytes other rights, or moved them, after they were mapped.
#[derive(Clone, Debug, PartialEq)]
pub struct RightsChange {
    /// When.
    pub time: Timestamp,
    /// Which event.
    pub by: Maker,
    /// Who called, if that was recorded.
    pub stack: Option<StackId>,
    /// It is one that the question is about.
    pub counts: bool,
}

/// Bytes with one history.
#[derive(Clone, Debug)]
pub(in crate::report::reading) struct Piece {
    pub(in crate::report::reading) origin: Arc<Origin>,
    pub(in crate::report::reading) change: Option<Arc<RightsChange>>,
    /// What committed them last, if that was another event than what mapped them; stays when they
    /// are decommitted.
    pub(in crate::report::reading) commit: Option<Arc<RightsChange>>,
    pub(in crate::report::reading) place: Place,
    pub(in crate::report::reading) prot: Prot,
    /// As prctl(PR_SET_VMA_ANON_NAME) gave it.
    pub(in crate::report::reading) name: Option<Arc<str>>,
}

impl PartialEq for Piece {
    fn eq(&self, other: &Piece) -> bool {
        let Piece {
            origin,
            change,
            commit,
            place,
            prot,
            name,
        } = self;
        let same =
            |one: &Option<Arc<RightsChange>>, other: &Option<Arc<RightsChange>>| match (one, other)
            {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
        Arc::ptr_eq(origin, &other.origin)
            && same(change, &other.change)
            && same(commit, &other.commit)
            && *prot == other.prot
            && *place == other.place
            && *name == other.name
    }
}
