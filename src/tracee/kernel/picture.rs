//! The map of a space that execve(2) has just made.
//!
//! It cannot be read at that very moment: the program runs. What can be had is the mappings that the
//! kernel's loader recorded, some of which it cut afterwards without a word; and the map a little
//! later, when calls of the program have altered it, all of which were seen. So what no call has
//! touched is taken from the later map, and the rest from the loader's records.

use crate::mm::MapsEntry;
use crate::units::AddrRange;

/// Puts `entry` into a list ordered by address, over whatever was there.
pub(super) fn overlay(entries: &mut Vec<MapsEntry>, entry: MapsEntry) {
    cut(entries, entry.range);
    let at = entries.partition_point(|other| other.range.start() < entry.range.start());
    entries.insert(at, entry);
}

/// Takes whatever lies in `range` out of the list.
pub(super) fn cut(entries: &mut Vec<MapsEntry>, range: AddrRange) {
    let first = entries.partition_point(|entry| entry.range.end() <= range.start());
    let count = entries
        .iter()
        .skip(first)
        .take_while(|entry| entry.range.start() < range.end())
        .count();
    let cut: Vec<MapsEntry> = entries.drain(first..first + count).collect();
    let below = |entry: &MapsEntry| AddrRange::new(entry.range.start(), range.start());
    let above = |entry: &MapsEntry| AddrRange::new(range.end(), entry.range.end());
    let left = cut.first().and_then(|entry| clipped(entry, below(entry)?));
    let right = cut.last().and_then(|entry| clipped(entry, above(entry)?));
    entries.splice(first..first, left.into_iter().chain(right));
}

/// The part of an entry that lies in `range`.
fn clipped(entry: &MapsEntry, range: AddrRange) -> Option<MapsEntry> {
    let range = entry.range.intersect(range)?;
    let skipped = range.start().0 - entry.range.start().0;
    let has_file = entry.file.inode != 0 || entry.name.starts_with('/');
    let offset = entry.offset + if has_file { skipped } else { 0 };
    Some(MapsEntry {
        range,
        offset,
        ..entry.clone()
    })
}

/// The map at the end of execve(2): that of `later` except where calls have `touched` it since, and
/// there what the loader had `shown`.
pub(super) fn at_exec(
    shown: &[MapsEntry],
    later: &[MapsEntry],
    touched: &[AddrRange],
) -> Vec<MapsEntry> {
    let mut map = later.to_vec();
    for &range in touched {
        cut(&mut map, range);
    }
    for &range in touched {
        for piece in shown.iter().filter_map(|entry| clipped(entry, range)) {
            overlay(&mut map, piece);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::parse_maps;

    fn maps(text: &str) -> Vec<MapsEntry> {
        parse_maps(text.as_bytes()).unwrap().entries
    }

    fn text(entries: &[MapsEntry]) -> Vec<String> {
        entries.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_later_mapping_lies_over_an_earlier_one() {
        let mut list = maps("10000-20000 r--p 00000000 08:01 7 /bin/a\n");
        for entry in maps("14000-18000 r-xp 00004000 08:01 7 /bin/a\n") {
            overlay(&mut list, entry);
        }
        assert_eq!(
            text(&list),
            text(&maps(
                "10000-14000 r--p 00000000 08:01 7 /bin/a\n\
                 14000-18000 r-xp 00004000 08:01 7 /bin/a\n\
                 18000-20000 r--p 00008000 08:01 7 /bin/a\n"
            ))
        );
    }

    #[test]
    fn what_the_program_has_touched_is_as_the_loader_left_it() {
        let shown = maps("10000-14000 rw-p 00000000 08:01 7 /bin/a\n");
        // Since then: a mprotect of the first page, and a new mapping.
        let later = maps(
            "10000-11000 r--p 00000000 08:01 7 /bin/a\n\
             11000-14000 rw-p 00001000 08:01 7 /bin/a\n\
             30000-31000 rw-p 00000000 00:00 0\n",
        );
        let range = |start, end| {
            use crate::units::Addr;
            AddrRange::new(Addr(start), Addr(end)).unwrap()
        };
        let touched = [range(0x10000, 0x11000), range(0x30000, 0x31000)];
        assert_eq!(
            text(&at_exec(&shown, &later, &touched)),
            text(&maps(
                "10000-11000 rw-p 00000000 08:01 7 /bin/a\n\
                 11000-14000 rw-p 00001000 08:01 7 /bin/a\n"
            ))
        );
    }
}
