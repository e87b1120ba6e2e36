//! The damage of a trace that lines were made from.

use serde::{Deserialize, Serialize};

use crate::trace_file::{Damage, DamageReason};
use crate::units::Timestamp;

/// A [`Damage`] as the `end` line holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireDamage {
    offset: u64,
    reason: String,
    missing: u64,
    unread: Option<u64>,
    after: u64,
    until: Option<u64>,
    lost: Option<u64>,
}

impl From<&Damage> for WireDamage {
    fn from(damage: &Damage) -> WireDamage {
        let Damage {
            offset,
            reason,
            missing,
            unread,
            after,
            until,
            lost,
        } = *damage;
        WireDamage {
            offset,
            reason: reason.to_string(),
            missing,
            unread,
            after: after.0,
            until: until.map(|until| until.0),
            lost,
        }
    }
}

impl From<WireDamage> for Damage {
    fn from(wire: WireDamage) -> Damage {
        let WireDamage {
            offset,
            reason,
            missing,
            unread,
            after,
            until,
            lost,
        } = wire;
        Damage {
            offset,
            reason: named(&reason),
            missing,
            unread,
            after: Timestamp(after),
            until: until.map(Timestamp),
            lost,
        }
    }
}

/// The reason of this text; [`DamageReason::Before`] for one that is not known.
fn named(text: &str) -> DamageReason {
    use DamageReason::*;
    let known = [
        NoEnd, Torn, Head, Checksum, Gap, Trailing, TornLine, LongLine, GapInLines,
    ];
    let found = known.into_iter().find(|reason| reason.to_string() == text);
    found.unwrap_or(Before)
}
