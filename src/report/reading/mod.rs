//! Questions beyond the summary: the mappings at a moment, the life of an address, tables by call,
//! mapping, file, thread and space, figures over time.
//!
//! Each is a [`Sink`](crate::timeline::Sink) that a trace is told to, see [`follow`]; what it keeps
//! depends on what is alive at once and on the length of the answer. Plain facts and exact bytes;
//! how they look is for `term`.

mod around;
mod asked;
mod at;
mod by;
mod filter;
mod follow;
pub mod json;
mod kinds;
mod lives;
mod over_time;
mod provenance;
mod range_map;
mod who;

#[cfg(test)]
pub(crate) mod tests;

pub use around::{Around, Life, Part, Touch};
pub use asked::{Asked, PR_SET_VMA, asked};
pub use at::{At, Made, Mapping, Moment, Peak, SpaceThen, Then};
pub use by::{By, Key, MappingRow, Row, Sums, Table, TableSink};
pub use filter::{Filter, Rights};
pub use follow::{Ahead, Followed, Stop, follow};
pub use lives::{Commits, LifeSums, Lives, LivesSink, ReservationLife, TouchedBy};
pub use over_time::{Curve, Figures, OverTime, Step, Steps};
pub use provenance::{How, Origin, RightsChange};
pub use who::{
    Direction, Entry, Kind, Label, Labels, Node, OwnerRow, Owners, Profile, ProfileSink, Source,
    StackRow, StackTable, Tree, Weight, is_wrapper, owner, weight,
};
