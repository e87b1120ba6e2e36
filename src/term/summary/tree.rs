//! Many address spaces: their sums, and a table of the biggest.

use std::io;

use crate::report::{Report, SpaceReport, TreeFigure};
use crate::term::page::Page;
use crate::term::{Count, Duration, Role, SIZE_WIDTH, SignalName, Size, width_of};
use crate::timeline::{Ended, TaskEnd};
use crate::units::Bytes;

use super::figures::{self, RESERVED, Row};
use super::{amount, name_of, peak_by};

/// Spaces in the table.
const LISTED: usize = 10;
/// Columns of a name.
const NAME: usize = 15;

/// The space that committed the most.
pub(super) fn biggest(spaces: &[SpaceReport]) -> Option<&SpaceReport> {
    spaces.iter().max_by_key(|space| {
        (
            space.committed.peak,
            space.mapped.peak,
            std::cmp::Reverse(space.id),
        )
    })
}

/// Writes the sums of all spaces, and the table if `table`.
pub(super) fn write(page: &mut Page<'_>, report: &Report, table: bool) -> io::Result<()> {
    let spaces = &report.spaces;
    page.text(
        Role::Strong,
        format_args!("  all {} address spaces", Count(spaces.len() as u64)),
    );
    let calls: u64 = spaces
        .iter()
        .flat_map(|space| space.calls.values())
        .map(|calls| calls.count)
        .sum();
    let head = [
        format!("at most {} at once", Count(report.tree.most_spaces)),
        format!(
            "{} memory calls in {}",
            Count(calls),
            Duration(report.until.0)
        ),
        verdict(spaces),
    ];
    page.line.push(", ");
    let differs =
        |space: &SpaceReport| space.verify.drift > Bytes(0) || space.peak_agrees() == Some(false);
    let drift = spaces.iter().any(differs);
    page.wrap(
        4,
        if drift { Role::Error } else { Role::Plain },
        ", ",
        &head,
    )?;
    let tree = &report.tree;
    figures::bar(
        page,
        Bytes(tree.mapped.peak),
        Bytes(tree.committed.peak),
        Bytes(tree.resident.peak),
    )?;
    let row = |label, role, figure: &TreeFigure, note: &str| Row {
        label,
        role,
        values: [Some(Bytes(figure.peak)), Some(Bytes(figure.end))],
        when: peak_by(figure.peak_time, &figure.peak_by, None),
        notes: [note]
            .into_iter()
            .filter(|note| !note.is_empty())
            .map(str::to_owned)
            .collect(),
    };
    let rows = [
        row("mapped (VSZ)", Role::Plain, &tree.mapped, ""),
        row("  reserved", Role::Reserved, &tree.reserved, RESERVED),
        row(
            "  committed",
            Role::Committed,
            &tree.committed,
            "may be touched",
        ),
        row(
            "charged",
            Role::Plain,
            &tree.charged,
            "counts against the commit limit",
        ),
        row(
            "resident",
            Role::Strong,
            &tree.resident,
            "shared pages count in each",
        ),
    ];
    figures::write(page, ["at once", "end sums"], &rows)?;
    let words = "at once: the most of all spaces alive at one time; end sums: the last value of every space, added up";
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    page.line.push("  ");
    page.wrap(2, Role::Dim, " ", &words)?;
    if table {
        write_table(page, spaces)
    } else {
        Ok(())
    }
}

fn verdict(spaces: &[SpaceReport]) -> String {
    let drift: Bytes = spaces.iter().map(|space| space.verify.drift).sum();
    if drift > Bytes(0) {
        return format!("DRIFT: {} differ from the kernel's maps", Size(drift));
    }
    let peaks = |agrees| {
        let spaces = spaces.iter();
        spaces.filter(move |space| space.peak_agrees() == Some(agrees))
    };
    let off: Option<Bytes> = peaks(false).map(SpaceReport::peak_differs_by).max();
    if let Some(most) = off {
        let (count, most) = (Count(peaks(false).count() as u64), Size(most));
        return format!("INEXACT: {count} peaks differ from the kernel's, by up to {most}");
    }
    let verified = |space: &&SpaceReport| space.known && space.verify.checks > 0;
    let verified = spaces.iter().filter(verified).count();
    let resynced: Bytes = spaces.iter().map(|space| space.verify.resynced).sum();
    let corrected = match resynced {
        Bytes(0) => String::new(),
        bytes => format!(" ({} corrected)", Size(bytes)),
    };
    if verified == spaces.len() {
        return format!("all maps verified: no drift{corrected}");
    }
    // Nobody could read the map of those, but the kernel told how large it was at most.
    let by_peak = peaks(true).filter(|space| space.verify.checks == 0).count();
    let rest = spaces.len() - verified - by_peak;
    let counts = [
        (verified, "maps verified: no drift"),
        (by_peak, "verified by their peaks alone"),
        (rest, "not verified"),
    ];
    let counts = counts.iter().filter(|(count, _)| 0 < *count);
    let mut counts: Vec<String> = counts
        .map(|(count, what)| format!("{} {what}", Count(*count as u64)))
        .collect();
    if let Some(first) = counts.first_mut() {
        first.push_str(&corrected);
    }
    counts.join(", ")
}

fn write_table(page: &mut Page<'_>, spaces: &[SpaceReport]) -> io::Result<()> {
    let mut order: Vec<&SpaceReport> = spaces.iter().collect();
    order.sort_by_key(|space| std::cmp::Reverse((space.committed.peak, space.mapped.peak)));
    let pid_width = order
        .iter()
        .take(LISTED)
        .map(|space| space.pid.to_string().len())
        .max();
    let name = 2 + pid_width.unwrap_or(0).max(3) + 2;
    let columns = [name + NAME, name + NAME + 2 + SIZE_WIDTH];
    let after = |count: usize| columns[1] + count * (SIZE_WIDTH + 2);
    page.blank()?;
    page.line
        .role(Role::Dim)
        .push_right(name - 2, "pid")
        .gap(2)
        .push("peak of");
    page.line
        .push_right(columns[1], "mapped")
        .push_right(after(1), "reserved");
    page.line
        .push_right(after(2), "committed")
        .push_right(after(3), "resident")
        .push("  ended");
    page.end()?;
    for space in order.iter().take(LISTED) {
        let shown = name_of(space, page.style.unicode);
        page.line.push_right(name - 2, space.pid).gap(2);
        page.line.role(Role::Strong).push(&shown);
        if width_of(&shown) > NAME {
            page.line.cut(columns[0], page.style);
        }
        page.line.role(Role::Plain).pad_to(columns[0]);
        page.line.push_right(columns[1], Size(space.mapped.peak));
        page.line
            .role(Role::Reserved)
            .push_right(after(1), amount(space.reserved.peak));
        page.line
            .role(Role::Committed)
            .push_right(after(2), amount(space.committed.peak));
        let resident = space.resident.map_or(Bytes(0), |resident| resident.peak);
        page.line
            .role(Role::Strong)
            .push_right(after(3), amount(resident));
        page.line.role(Role::Dim).gap(2);
        let how = match (space.ended, space.status) {
            (Ended::Exit, Some(TaskEnd::Exited(status))) => format!("exit {status}"),
            (Ended::Exit, Some(TaskEnd::Killed { signal, .. })) => SignalName(signal).to_string(),
            (Ended::Exit, _) => "exit".to_owned(),
            (Ended::Exec, _) => "exec".to_owned(),
            (Ended::Detach, _) => "let go".to_owned(),
            (Ended::Cut, _) => "-".to_owned(),
        };
        page.line.push(&how);
        page.end()?;
    }
    if let more @ 1.. = order.len().saturating_sub(LISTED) {
        let rest = order.iter().skip(LISTED);
        let largest = rest
            .map(|space| space.committed.peak)
            .max()
            .unwrap_or_default();
        let more = Count(more as u64);
        page.text(
            Role::Dim,
            format_args!(
                "  and {more} more, each with {} committed or less",
                Size(largest)
            ),
        );
        page.end()?;
    }
    Ok(())
}
