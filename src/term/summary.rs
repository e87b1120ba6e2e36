//! The summary of a trace: what was reserved, committed and resident, where, by which calls, and
//! whether the sums can be trusted. Short: a tree of three hundred processes fits on a screen.

mod environment;
mod figures;
mod places;
mod refused;
mod space;
mod tree;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use crate::report::{Made, Maker, Report, SpaceReport};
use crate::units::{Bytes, Tid, Timestamp};

pub(super) use places::place_name;

use super::page::Page;
use super::{Count, Elapsed, Role, Style, escaped};

/// Remarks that are repeated in the summary.
const NOTES: usize = 8;
/// As many spaces are shown one by one; of more only a table.
const SINGLE: usize = 3;

/// Writes the summary of `report`.
pub fn write_summary(out: &mut dyn Write, report: &Report, style: &Style) -> io::Result<()> {
    let mut page = Page::new(out, style);
    match report.spaces.as_slice() {
        [] => {
            page.text(Role::Plain, format_args!("  no address space was seen"));
            page.end()?;
        }
        [only] => {
            space::write(&mut page, only)?;
            places::write(&mut page, only)?;
            places::write_calls(&mut page, &report.spaces)?;
        }
        spaces => {
            if spaces.len() <= SINGLE {
                for space in spaces {
                    space::write(&mut page, space)?;
                    page.blank()?;
                }
            }
            tree::write(&mut page, report, spaces.len() > SINGLE)?;
            if let Some(biggest) = tree::biggest(spaces) {
                places::write(&mut page, biggest)?;
            }
            places::write_calls(&mut page, spaces)?;
        }
    }
    refused::write(&mut page, report)?;
    environment::write(&mut page, report)?;
    doubts(&mut page, report)
}

/// Everything that makes the figures less than certain, last, where it is seen.
fn doubts(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    let unicode = page.style.unicode;
    if !report.notes.is_empty() || report.lost > 0 || report.damage.is_some() {
        page.blank()?;
    }
    for note in report.notes.iter().take(NOTES) {
        let text = escaped(note.text.as_bytes(), unicode);
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        page.text(Role::Plain, format_args!("  note: "));
        page.wrap(4, Role::Plain, " ", &words)?;
    }
    let more = report.notes.len().saturating_sub(NOTES) as u64 + report.more_notes;
    if more > 0 {
        page.text(Role::Dim, format_args!("  and {} more notes", Count(more)));
        page.end()?;
    }
    if report.lost > 0 {
        let lost = Count(report.lost);
        page.text(
            Role::Alarm,
            format_args!("  {lost} observations were LOST: no sum above is certain"),
        );
        page.end()?;
    }
    if let Some(damage) = report.damage {
        let text = escaped(damage.to_string().as_bytes(), unicode);
        page.text(Role::Alarm, format_args!("  {text}"));
        page.end()?;
    }
    Ok(())
}

/// When a figure was at its highest and which event made it so: `0.011 s by mmap`.
fn peak_by(time: Timestamp, by: &Maker, pid: Option<Tid>) -> String {
    let time = Elapsed(time.0);
    let who = match pid {
        Some(pid) if by.tid != pid && by.tid != Tid(0) => format!(" of {}", by.tid),
        _ => String::new(),
    };
    match (&by.what, by.call()) {
        (Made::Call(..), Some(call)) => format!("{time} by {call}{who}"),
        (Made::Checked, _) => format!("{time}, a stack grew"),
        (Made::Sampled, _) => format!("{time}, measured"),
        _ => format!("{time}, from the start"),
    }
}

/// What people call a space: the command name, else the file name of the program.
fn name_of(space: &SpaceReport, unicode: bool) -> String {
    let file = space.exe.rsplit('/').next().unwrap_or_default();
    let name = match (space.comm.as_ref(), file) {
        ("", "") => "?",
        ("", file) => file,
        (comm, _) => comm,
    };
    escaped(name.as_bytes(), unicode)
}

/// An amount for a table, `-` for none.
pub(super) fn amount(bytes: Bytes) -> String {
    match bytes {
        Bytes(0) => "-".to_owned(),
        bytes => super::Size(bytes).to_string(),
    }
}
