//! The figures: a row each for mapped, reserved, committed, charged, resident.

use std::io;

use crate::mm::Parts;
use crate::term::page::Page;
use crate::term::{Role, Size};
use crate::units::Bytes;

/// Where the label of a row ends.
const LABEL: usize = 15;
/// Where its first amount ends.
const END: usize = LABEL + 12;
/// Where its second amount ends.
const PEAK: usize = END + 12;
/// Columns for when a peak was.
const WHEN: usize = 30;
/// From this width on that has a column of its own.
const WIDE: usize = 110;
/// Below this width notes have lines of their own.
const NARROW: usize = 64;
const NARROW_INDENT: usize = 6;

/// One row.
pub(super) struct Row {
    /// What it is.
    pub label: &'static str,
    /// Its look.
    pub role: Role,
    /// Its values: the last and the highest; `None` where that was never seen.
    pub values: [Option<Bytes>; 2],
    /// When the highest was, in words; may be empty.
    pub when: String,
    /// What there is to say about it.
    pub notes: Vec<String>,
}

/// The table; `names` are those of its columns of values.
pub(super) fn write(page: &mut Page<'_>, names: [&str; 2], rows: &[Row]) -> io::Result<()> {
    let (wide, narrow) = (page.width() >= WIDE, page.width() < NARROW);
    page.line.role(Role::Dim);
    page.line
        .push_right(END, names[0])
        .push_right(PEAK, names[1]);
    if wide {
        page.line.push("  peak at");
    }
    page.end()?;
    for row in rows {
        page.text(Role::Strong, format_args!("  {}", row.label));
        page.line.role(row.role);
        let shown =
            |value: Option<Bytes>| value.map_or("-".to_owned(), |value| Size(value).to_string());
        let [first, second] = row.values.map(shown);
        page.line.push_right(END, first).push_right(PEAK, second);
        if row.values == [Some(Bytes(0)); 2] {
            page.end()?;
            continue;
        }
        let mut notes = row.notes.clone();
        let mut column = if narrow { NARROW_INDENT } else { PEAK + 2 };
        if wide {
            page.line.role(Role::Dim).push("  ").push(&row.when);
            column = (column + WHEN).max(page.line.width() + 2);
        } else if row.when.starts_with(|first: char| first.is_ascii_digit()) {
            notes.push(format!("peak at {}", row.when));
        } else if !row.when.is_empty() {
            notes.push(format!("peak {}", row.when));
        }
        if narrow {
            page.end()?;
        }
        page.line.role(Role::Plain);
        page.wrap(column, Role::Dim, ", ", &notes)?;
    }
    Ok(())
}

/// A bar of what is resident, committed and reserved, with its legend. Nothing where there is no
/// room or nothing to compare.
pub(super) fn bar(
    page: &mut Page<'_>,
    mapped: Bytes,
    committed: Bytes,
    resident: Bytes,
) -> io::Result<()> {
    let legend = match page.style.unicode {
        true => [('█', "resident"), ('▒', "committed"), ('░', "reserved")],
        false => [('#', "resident"), ('+', "committed"), ('.', "reserved")],
    };
    const LEGEND: usize = 38;
    let cells = page.width().saturating_sub(2 + 2 + LEGEND).min(60);
    if cells < 16 || mapped == Bytes(0) {
        return Ok(());
    }
    let cells_of = |bytes: Bytes| {
        let part = u128::from(bytes.0) * cells as u128 / u128::from(mapped.0);
        (part as usize).min(cells)
    };
    // Whatever is not nothing shows, if only as one cell.
    let solid = cells_of(resident).max(usize::from(resident > Bytes(0)));
    let light = match mapped.0.saturating_sub(committed.0) {
        0 => 0,
        reserved => cells_of(Bytes(reserved)).max(1),
    };
    let solid = solid.min(cells - light.min(cells - 1));
    let medium = cells - light.min(cells - solid) - solid;
    let light = cells - solid - medium;
    page.line.push("  ");
    let parts = [
        (solid, Role::Strong),
        (medium, Role::Committed),
        (light, Role::Reserved),
    ];
    for ((count, role), (sign, _)) in parts.into_iter().zip(legend) {
        page.line.role(role);
        for _ in 0..count {
            page.line.push(sign.encode_utf8(&mut [0; 4]));
        }
    }
    for ((_, role), (sign, word)) in parts.into_iter().zip(legend) {
        page.line.push("  ");
        page.text(role, format_args!("{sign}"));
        page.text(Role::Dim, format_args!(" {word}"));
    }
    page.end()
}

/// `104.6 MiB anonymous`, `7.7 MiB files`: the parts of committed that are not empty.
pub(super) fn parts(parts: &Parts) -> Vec<String> {
    let Parts {
        anon,
        file,
        shmem,
        special,
    } = *parts;
    [
        (anon, "anonymous"),
        (file, "files"),
        (shmem, "shared memory"),
        (special, "special"),
    ]
    .into_iter()
    .filter(|(bytes, _)| *bytes > Bytes(0))
    .map(|(bytes, word)| format!("{} {word}", Size(bytes)))
    .collect()
}

/// What a reader who takes VSZ for memory must know.
pub(super) const RESERVED: &str = "no access rights: address space only";
