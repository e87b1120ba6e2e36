//! A comparison as Markdown, for a merge request: the verdict, the sums, the changes.

use std::io::{self, Write};

use crate::diff::{CallChange, Change, Diff, EndPeak, Subject, difference, json};
use crate::term::words::{self, Signs};
use crate::term::{Count, Size, escaped};
use crate::units::Bytes;

/// Changes that are listed; the others are put together by figure.
const LISTED: usize = 24;
const SIGNS: Signs = Signs { unicode: true };

/// Writes the comparison.
pub fn write_diff(out: &mut dyn Write, diff: &Diff) -> io::Result<()> {
    let name = |side, later| cell(&words::program(side, &diff.spaces, later, true));
    let (before, after) = (name(&diff.before, false), name(&diff.after, true));
    let verdict = match diff.same {
        true => "no change",
        false => "changed",
    };
    writeln!(out, "### Memory: {verdict} ({before} → {after})\n")?;
    if let Some(runs) = words::runs(&diff.before, &diff.after) {
        writeln!(out, "{runs}\n")?;
    }
    totals(out, diff)?;
    changes(out, diff)?;
    calls(out, &diff.calls)?;
    let noise = diff
        .changes
        .iter()
        .filter(|change| change.noise.is_some())
        .count();
    if 0 < noise {
        writeln!(
            out,
            "\n{noise} more differences are noise and do not count."
        )?;
    }
    for doubt in &diff.doubts {
        writeln!(out, "\nNote: {}", cell(&escaped(doubt.as_bytes(), true)))?;
    }
    Ok(())
}

fn totals(out: &mut dyn Write, diff: &Diff) -> io::Result<()> {
    let Diff { before, after, .. } = diff;
    writeln!(
        out,
        "| | before | after | change | | peak before | peak after | change | |"
    )?;
    writeln!(out, "|---|--:|--:|--:|--:|--:|--:|--:|--:|")?;
    let figures = before.sums.figures().into_iter().zip(after.sums.figures());
    for ((name, old), (_, new)) in figures {
        let EndPeak { end, peak } = old;
        let text = |value: u64| match name {
            "mappings" => Count(value).to_string(),
            _ => Size(Bytes(value)).to_string(),
        };
        let change = |old: u64, new: u64| match (name, difference(old, new)) {
            (_, 0) => "–".to_owned(),
            ("mappings", delta) => SIGNS.signed_count(delta),
            (_, delta) => SIGNS.signed(delta),
        };
        let cells = [
            name.to_owned(),
            text(end),
            text(new.end),
            change(end, new.end),
            SIGNS.percent(end, new.end),
            text(peak),
            text(new.peak),
            change(peak, new.peak),
            SIGNS.percent(peak, new.peak),
        ];
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    Ok(())
}

fn changes(out: &mut dyn Write, diff: &Diff) -> io::Result<()> {
    let several = 1 < diff.spaces.len();
    list(out, &diff.at_end(), "at the end", several)?;
    list(out, &diff.only_at_peak(), "only at the peak", several)
}

fn list(out: &mut dyn Write, changes: &[&Change], when: &str, several: bool) -> io::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n| change {when} | figure | | what | first |")?;
    writeln!(out, "|--:|---|---|---|---|")?;
    for change in changes.iter().take(LISTED) {
        let mut what = cell(&SIGNS.subject(change));
        if several && !matches!(change.subject, Subject::Processes) {
            let space = escaped(change.space.as_bytes(), true);
            what.push_str(&format!(" in {}", cell(&space)));
        }
        let delta = SIGNS.signed(change.delta());
        let figure = json::figure_name(change.figure);
        let kind = json::kind_name(change.kind);
        let first = words::first_of(change);
        let owner = words::owner_of(change, SIGNS);
        if !owner.is_empty() {
            what.push_str(&format!(", {}", cell(&owner)));
        }
        writeln!(out, "| {delta} | {figure} | {kind} | {what} | {first} |")?;
    }
    let rest = changes.get(LISTED..).unwrap_or_default();
    for figure in ["reserved", "committed"] {
        let of_figure = rest
            .iter()
            .filter(|change| json::figure_name(change.figure) == figure);
        let deltas: Vec<i64> = of_figure.map(|change| change.delta()).collect();
        if !deltas.is_empty() {
            let sum = deltas
                .iter()
                .fold(0i64, |sum, delta| sum.saturating_add(*delta));
            let (sum, count) = (SIGNS.signed(sum), deltas.len());
            writeln!(out, "| {sum} | {figure} | | {count} more | |")?;
        }
    }
    Ok(())
}

fn calls(out: &mut dyn Write, calls: &[CallChange]) -> io::Result<()> {
    let calls: Vec<&CallChange> = calls.iter().filter(|call| call.noise.is_none()).collect();
    if calls.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n| call | before | after | failed before | failed after |"
    )?;
    writeln!(out, "|---|--:|--:|--:|--:|")?;
    for call in calls {
        let [old, new] = call.counts.map(Count);
        let [old_failed, new_failed] = call.failed.map(Count);
        let name = cell(&call.name);
        writeln!(
            out,
            "| {name} | {old} | {new} | {old_failed} | {new_failed} |"
        )?;
    }
    Ok(())
}

/// Text that is nothing but text in a cell of a table.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => cell.push_str("&amp;"),
            '<' => cell.push_str("&lt;"),
            '>' => cell.push_str("&gt;"),
            '@' => cell.push_str("&#64;"),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '~' | '#' | '!' => {
                cell.push('\\');
                cell.push(char);
            }
            _ => cell.push(char),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_out_of_its_cell() {
        assert_eq!(cell("a|b`c"), "a\\|b\\`c");
        assert_eq!(cell("<img src=x>@all"), "&lt;img src=x&gt;&#64;all");
        assert_eq!(cell("[x](y)"), "\\[x\\](y)");
    }
}
