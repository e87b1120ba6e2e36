//! Where the bytes are, what became of the reservations, and which calls did it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use crate::report::{CallCount, Place, PlaceBytes, Reservation, SpaceReport};
use crate::term::page::Page;
use crate::term::{Count, Percent, Role, SIZE_WIDTH, Size, escaped, shorten, width_of};
use crate::units::Bytes;

use super::{amount, name_of, peak_by};

/// Places that are listed.
const PLACES: usize = 8;
/// Reservations that are listed.
const RESERVATIONS: usize = 4;
/// Smaller reservations are not worth a line.
const WORTH_A_LINE: Bytes = Bytes(1 << 20);
/// Kinds of calls that are listed.
const CALLS: usize = 8;

/// Writes where the bytes of `space` are at its end, and its largest reservations.
pub(super) fn write(page: &mut Page<'_>, space: &SpaceReport) -> io::Result<()> {
    let Some(detail) = &space.detail else {
        return Ok(());
    };
    write_places(page, space, &detail.end)?;
    let reservations = &detail.reservations;
    let worth = |reservation: &&Reservation| reservation.bytes >= WORTH_A_LINE;
    let mut largest = reservations
        .largest
        .iter()
        .filter(worth)
        .take(RESERVATIONS)
        .peekable();
    if largest.peek().is_none() {
        return Ok(());
    }
    page.blank()?;
    page.text(
        Role::Dim,
        format_args!("  {:>10}  {:>10}", "reserved", "ever used"),
    );
    page.line.push("  ");
    let share = Percent {
        part: reservations.ever_committed,
        whole: reservations.bytes,
    };
    page.text(
        Role::Dim,
        format_args!(
            "{} reservations, {}, {share} ever committed",
            Count(reservations.count),
            Size(reservations.bytes)
        ),
    );
    page.end()?;
    for reservation in largest {
        let share = Percent {
            part: reservation.ever_committed,
            whole: reservation.bytes,
        };
        page.line
            .role(Role::Reserved)
            .push_right(2 + SIZE_WIDTH, Size(reservation.bytes));
        page.line
            .role(Role::Committed)
            .push_right(4 + 2 * SIZE_WIDTH, share)
            .push("  ");
        page.line.role(Role::Plain);
        let mut words = vec![
            reservation.start().to_string(),
            format!(
                "at {}",
                peak_by(reservation.time, &reservation.by, Some(space.pid))
            ),
        ];
        if reservation.released.is_some() {
            words.push("given back".to_owned());
        } else if reservation.committed > Bytes(0) {
            words.push(format!("{} committed at end", Size(reservation.committed)));
        }
        page.wrap(6 + 2 * SIZE_WIDTH, Role::Dim, ", ", &words)?;
    }
    Ok(())
}

fn write_places(page: &mut Page<'_>, space: &SpaceReport, places: &[PlaceBytes]) -> io::Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    page.blank()?;
    let unicode = page.style.unicode;
    page.text(
        Role::Dim,
        format_args!("  {:>10}  {:>10}", "reserved", "committed"),
    );
    page.text(
        Role::Dim,
        format_args!("  at the end of {}", name_of(space, unicode)),
    );
    page.end()?;
    let places = together(places);
    let shown = if places.len() == PLACES + 1 {
        PLACES + 1
    } else {
        PLACES
    };
    let mut row = |reserved: Bytes, committed: Bytes, name: &str, role: Role| {
        page.line
            .role(Role::Reserved)
            .push_right(2 + SIZE_WIDTH, amount(reserved));
        page.line
            .role(Role::Committed)
            .push_right(4 + 2 * SIZE_WIDTH, amount(committed));
        page.line.role(role).push("  ");
        let room = page.width().saturating_sub(page.line.width()).max(12);
        match page.style.width {
            Some(_) if width_of(name) > room => {
                let name = shorten(name, room, page.style);
                page.line.push(&name);
            }
            _ => {
                page.line.push(name);
            }
        }
        page.end()
    };
    for place in places.iter().take(shown) {
        let name = place_name(&place.place, unicode);
        row(place.reserved, place.committed, &name, Role::Plain)?;
    }
    let rest = places.get(shown..).unwrap_or_default();
    if !rest.is_empty() {
        let reserved = rest.iter().map(|place| place.reserved).sum();
        let committed = rest.iter().map(|place| place.committed).sum();
        let name = format!("{} more", Count(rest.len() as u64));
        row(reserved, committed, &name, Role::Dim)?;
    }
    Ok(())
}

/// The places with vdso, vvar and their like as one: each is tiny and there are many.
fn together(places: &[PlaceBytes]) -> Vec<PlaceBytes> {
    let special = |place: &&PlaceBytes| matches!(place.place, Place::Special(_));
    let mut list: Vec<PlaceBytes> = places
        .iter()
        .filter(|place| !special(place))
        .cloned()
        .collect();
    let special: Vec<&PlaceBytes> = places.iter().filter(special).collect();
    if !special.is_empty() {
        list.push(PlaceBytes {
            place: Place::Special("vdso, vvar and their like".into()),
            reserved: special.iter().map(|place| place.reserved).sum(),
            committed: special.iter().map(|place| place.committed).sum(),
        });
        list.sort_by_key(|place| std::cmp::Reverse(place.reserved + place.committed));
    }
    list
}

pub(in crate::term) fn place_name(place: &Place, unicode: bool) -> String {
    match place {
        Place::Heap => "heap (brk)".to_owned(),
        Place::Stack => "stack".to_owned(),
        Place::ThreadStack => "thread stacks".to_owned(),
        Place::Anon => "anonymous".to_owned(),
        Place::Shared(name) => format!("{} (shared memory)", escaped(name.as_bytes(), unicode)),
        Place::File(name) => escaped(name.as_bytes(), unicode),
        Place::Special(name) => escaped(name.as_bytes(), unicode),
        Place::Others => "smaller ones".to_owned(),
    }
}

/// Writes the calls of all `spaces` by name, those that changed the most bytes first.
pub(super) fn write_calls(page: &mut Page<'_>, spaces: &[SpaceReport]) -> io::Result<()> {
    let mut sums: BTreeMap<&Cow<'static, str>, CallCount> = BTreeMap::new();
    for (name, calls) in spaces.iter().flat_map(|space| &space.calls) {
        let sum = sums.entry(name).or_default();
        sum.count += calls.count;
        sum.failed += calls.failed;
        sum.bytes += calls.bytes;
    }
    let mut order: Vec<_> = sums
        .into_iter()
        .filter(|(_, calls)| calls.count > 0)
        .collect();
    order.sort_by_key(|(_, calls)| std::cmp::Reverse((calls.bytes, calls.count)));
    if order.is_empty() {
        return Ok(());
    }
    page.blank()?;
    let (count, failed, bytes) = (14, 24, 36);
    page.line.role(Role::Dim).push_right(count, "calls");
    page.line
        .push_right(failed, "failed")
        .push_right(bytes, "bytes");
    page.end()?;
    for (name, calls) in order.iter().take(CALLS) {
        page.line.push_right(count, Count(calls.count));
        match calls.failed {
            0 => page.line.push_right(failed, "-"),
            some => page
                .line
                .role(Role::Error)
                .push_right(failed, Count(some))
                .role(Role::Plain),
        };
        page.line.push_right(bytes, amount(calls.bytes));
        page.line.push("  ").push(name);
        page.end()?;
    }
    let rest = order.get(CALLS..).unwrap_or_default();
    if !rest.is_empty() {
        let names: Vec<String> = rest
            .iter()
            .map(|(name, calls)| format!("{} {name}", Count(calls.count)))
            .collect();
        page.line.role(Role::Dim).push("  and ");
        page.wrap(6, Role::Dim, ", ", &names)?;
    }
    Ok(())
}
