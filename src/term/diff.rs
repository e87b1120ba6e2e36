//! What changed between two traces, for people: the verdict, the sums, then what is new, gone, grown
//! and shrunk, the largest first, then the calls.

pub mod words;

use std::io::{self, Write};

use crate::diff::{
    CallChange, Change, Diff, EndPeak, FigureName, Sums, Timelines, difference, json,
};
use crate::units::Bytes;

use super::page::Page;
use super::{Count, Role, Size, Style, escaped};
use words::Signs;

/// Changes that are listed.
const LISTED: usize = 24;
/// Where the label of a row ends.
const LABEL: usize = 16;
/// Columns of one side of the table of sums.
const COLUMNS: usize = 11 + 11 + 12 + 10;

/// Writes what changed.
pub fn write_diff(out: &mut dyn Write, diff: &Diff, style: &Style) -> io::Result<()> {
    let mut page = Page::new(out, style);
    let signs = Signs {
        unicode: style.unicode,
    };
    title(&mut page, diff, signs)?;
    if diff.same {
        unchanged(&mut page, diff)?;
    } else {
        totals(&mut page, diff, signs)?;
        changes(&mut page, diff, signs)?;
        calls(&mut page, diff, signs)?;
    }
    noise(&mut page, diff, signs)?;
    doubts(&mut page, &diff.doubts)
}

fn title(page: &mut Page<'_>, diff: &Diff, signs: Signs) -> io::Result<()> {
    let name = |side, later| words::program(side, &diff.spaces, later, signs.unicode);
    let (before, after) = (name(&diff.before, false), name(&diff.after, true));
    let verdict = if diff.same { "no change" } else { "changed" };
    page.text(Role::Strong, format_args!("  {verdict}"));
    page.text(
        Role::Plain,
        format_args!("  {before} {} {after}", signs.arrow()),
    );
    page.end()?;
    if let Some(runs) = words::runs(&diff.before, &diff.after) {
        page.text(Role::Dim, format_args!("  {runs}"));
        page.end()?;
    }
    Ok(())
}

fn unchanged(page: &mut Page<'_>, diff: &Diff) -> io::Result<()> {
    let sums = &diff.after.sums;
    let size = |figure: EndPeak| Size(Bytes(figure.end));
    let words = [
        format!("mapped {}", size(sums.mapped)),
        format!("reserved {}", size(sums.reserved)),
        format!("committed {}", size(sums.committed)),
        together(&diff.timelines),
    ];
    page.line.push("  ");
    page.wrap(4, Role::Plain, ", ", &words)
}

/// `51 calls in the same order, 6 only before, 9 only after`
fn together(timelines: &Timelines) -> String {
    let Timelines {
        same,
        only_before,
        only_after,
        ..
    } = timelines;
    let mut words = format!("{} calls in the same order", Count(*same));
    if 0 < *only_before {
        words.push_str(&format!(", {} only before", Count(*only_before)));
    }
    if 0 < *only_after {
        words.push_str(&format!(", {} only after", Count(*only_after)));
    }
    words
}

/// A row of the table: what, how it looks, and its values on both sides.
struct Row {
    label: &'static str,
    role: Role,
    end: [u64; 2],
    peak: Option<[u64; 2]>,
    is_count: bool,
}

fn rows(before: &Sums, after: &Sums) -> Vec<Row> {
    let row = |label, role, of: fn(&Sums) -> EndPeak, is_count| Row {
        label,
        role,
        end: [of(before).end, of(after).end],
        peak: Some([of(before).peak, of(after).peak]),
        is_count,
    };
    let mut rows = vec![
        row("mapped (VSZ)", Role::Plain, |sums| sums.mapped, false),
        row("  reserved", Role::Reserved, |sums| sums.reserved, false),
        row("  committed", Role::Committed, |sums| sums.committed, false),
    ];
    const PARTS: [&str; 4] = ["    anonymous", "    files", "    shared", "    special"];
    for (label, ((_, old), (_, new))) in PARTS
        .into_iter()
        .zip(before.parts().into_iter().zip(after.parts()))
    {
        if (old, new) != (Bytes(0), Bytes(0)) {
            rows.push(Row {
                label,
                role: Role::Dim,
                end: [old.0, new.0],
                peak: None,
                is_count: false,
            });
        }
    }
    rows.extend([
        row("charged", Role::Plain, |sums| sums.charged, false),
        row("resident", Role::Strong, |sums| sums.resident, false),
        row("mappings", Role::Plain, |sums| sums.mappings, true),
    ]);
    rows
}

fn totals(page: &mut Page<'_>, diff: &Diff, signs: Signs) -> io::Result<()> {
    let rows = rows(&diff.before.sums, &diff.after.sums);
    let beside = LABEL + 2 * COLUMNS + 2 <= page.width();
    let heads = |page: &mut Page<'_>, moments: &[&str]| -> io::Result<()> {
        page.line.role(Role::Dim);
        for (side, moment) in moments.iter().enumerate() {
            let at = LABEL + side * (COLUMNS + 2);
            page.line.push_right(at + 11, moment);
            page.line
                .push_right(at + 22, "after")
                .push_right(at + 34, "change");
        }
        page.end()
    };
    if beside {
        heads(page, &["end: before", "peak: before"])?;
    } else {
        heads(page, &["end: before"])?;
    }
    for row in &rows {
        label(page, row);
        cells(page, LABEL, row.end, row, signs);
        if beside && let Some(peak) = row.peak {
            cells(page, LABEL + COLUMNS + 2, peak, row, signs);
        }
        page.end()?;
    }
    if !beside {
        heads(page, &["peak: before"])?;
        for row in &rows {
            if let Some(peak) = row.peak {
                label(page, row);
                cells(page, LABEL, peak, row, signs);
                page.end()?;
            }
        }
    }
    Ok(())
}

fn label(page: &mut Page<'_>, row: &Row) {
    page.line.role(Role::Strong).push("  ").push(row.label);
}

fn cells(page: &mut Page<'_>, at: usize, [before, after]: [u64; 2], row: &Row, signs: Signs) {
    let delta = difference(before, after);
    page.line.role(row.role);
    match row.is_count {
        true => page
            .line
            .push_right(at + 11, Count(before))
            .push_right(at + 22, Count(after)),
        false => page
            .line
            .push_right(at + 11, Size(Bytes(before)))
            .push_right(at + 22, Size(Bytes(after))),
    };
    if delta == 0 {
        page.line.role(Role::Dim).push_right(at + 34, "-");
        return;
    }
    let change = match row.is_count {
        true => signs.signed_count(delta),
        false => signs.signed(delta),
    };
    page.line.role(look(delta)).push_right(at + 34, change);
    page.line
        .role(Role::Dim)
        .push_right(at + 44, signs.percent(before, after));
}

fn look(delta: i64) -> Role {
    if 0 < delta {
        Role::Committed
    } else {
        Role::Released
    }
}

fn changes(page: &mut Page<'_>, diff: &Diff, signs: Signs) -> io::Result<()> {
    let several = 1 < diff.spaces.len();
    let moments = [
        (diff.at_end(), "at the end"),
        (diff.only_at_peak(), "only at the peak"),
    ];
    for (changes, when) in moments {
        if !changes.is_empty() {
            page.blank()?;
            list(page, &changes, when, several, signs)?;
        }
    }
    Ok(())
}

fn list(
    page: &mut Page<'_>,
    changes: &[&Change],
    when: &str,
    several: bool,
    signs: Signs,
) -> io::Result<()> {
    page.text(
        Role::Dim,
        format_args!("      change  {when}, the largest first"),
    );
    page.end()?;
    for change in changes.iter().take(LISTED) {
        let figure = match change.figure {
            FigureName::Reserved => Role::Reserved,
            FigureName::Committed => Role::Committed,
        };
        let delta = change.delta();
        page.line
            .role(look(delta))
            .push_right(12, signs.signed(delta));
        page.text(
            figure,
            format_args!("  {:<9}", json::figure_name(change.figure)),
        );
        page.text(
            Role::Strong,
            format_args!("  {:<6}", json::kind_name(change.kind)),
        );
        let mut pieces = vec![signs.subject(change)];
        let whole = matches!(change.subject, crate::diff::Subject::Processes);
        if several && !whole {
            pieces.push(format!(
                "in {}",
                escaped(change.space.as_bytes(), signs.unicode)
            ));
        }
        let first = words::first_of(change);
        if !first.is_empty() {
            pieces.push(match first.as_str() {
                "from the start" => first,
                first => format!("first at {first}"),
            });
        }
        let owner = words::owner_of(change, signs);
        if !owner.is_empty() {
            pieces.push(owner);
        }
        page.line.push("  ");
        let indent = page.line.width();
        page.wrap(indent, Role::Plain, ", ", &pieces)?;
    }
    let rest = changes.get(LISTED..).unwrap_or_default();
    if !rest.is_empty() {
        let count = Count(rest.len() as u64);
        let sums = sums_of(rest, signs);
        page.text(
            Role::Dim,
            format_args!("              and {count} more: {sums}"),
        );
        page.end()?;
    }
    Ok(())
}

/// `+12.0 MiB reserved, −4 KiB committed`
fn sums_of(changes: &[&Change], signs: Signs) -> String {
    let figures = [FigureName::Reserved, FigureName::Committed].map(|figure| {
        let of_figure = changes.iter().filter(|change| change.figure == figure);
        let sum = of_figure.fold(0i64, |sum, change| sum.saturating_add(change.delta()));
        format!("{} {}", signs.signed(sum), json::figure_name(figure))
    });
    figures.join(", ")
}

fn calls(page: &mut Page<'_>, diff: &Diff, signs: Signs) -> io::Result<()> {
    page.blank()?;
    let words = |call: &CallChange| {
        let mut words = format!(
            "{} {} {} {}",
            call.name,
            Count(call.counts[0]),
            signs.arrow(),
            Count(call.counts[1])
        );
        if call.failed[0] != call.failed[1] {
            let (old, new) = (Count(call.failed[0]), Count(call.failed[1]));
            words.push_str(&format!(" (failed {old} {} {new})", signs.arrow()));
        }
        words
    };
    if !diff.calls.is_empty() {
        let calls: Vec<String> = diff.calls.iter().map(words).collect();
        page.text(Role::Strong, format_args!("  calls  "));
        page.wrap(9, Role::Plain, ", ", &calls)?;
    }
    page.text(Role::Strong, format_args!("  order  "));
    page.wrap(9, Role::Plain, ", ", &[together(&diff.timelines)])?;
    let Some(parting) = &diff.timelines.parting else {
        return Ok(());
    };
    let name = escaped(parting.space.as_bytes(), signs.unicode);
    let after = Count(parting.after_calls);
    page.text(
        Role::Plain,
        format_args!("         the first thread of {name} goes another way after {after} calls:"),
    );
    page.end()?;
    for (side, first) in [("before", &parting.before), ("after", &parting.after)] {
        let call = first
            .as_ref()
            .map_or("no more".to_owned(), words::call_words);
        page.text(Role::Dim, format_args!("           {side:<6}"));
        page.text(Role::Plain, format_args!("  {call}"));
        page.end()?;
    }
    Ok(())
}

fn noise(page: &mut Page<'_>, diff: &Diff, signs: Signs) -> io::Result<()> {
    let noise: Vec<&Change> = diff
        .changes
        .iter()
        .filter(|change| !change.counts())
        .collect();
    if noise.is_empty() {
        return Ok(());
    }
    let count = Count(noise.len() as u64);
    let plural = if noise.len() == 1 { "" } else { "s" };
    let sums = sums_of(&noise, signs);
    let text = format!(
        "  noise  {count} difference{plural} that do not count: {sums} (--json lists them)"
    );
    let text = match noise.len() {
        1 => text.replace(" do not ", " does not "),
        _ => text,
    };
    if !diff.same {
        page.blank()?;
    }
    page.text(Role::Dim, format_args!("{text}"));
    page.end()
}

fn doubts(page: &mut Page<'_>, doubts: &[String]) -> io::Result<()> {
    for doubt in doubts {
        let text = escaped(doubt.as_bytes(), page.style.unicode);
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        page.text(Role::Plain, format_args!("  note: "));
        page.wrap(4, Role::Plain, " ", &words)?;
    }
    Ok(())
}
