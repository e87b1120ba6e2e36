//! Figures over time as charts: a panel for each figure with a scale of its own, one axis of time.
//!
//! Mapped and resident may differ by a factor of a thousand: on one scale the smaller would be a
//! line on the floor.

use std::io::{self, Write};

use crate::report::reading::{Curve, Steps};
use crate::term::page::Page;
use crate::term::{Duration, Elapsed, Role, SIZE_WIDTH, Size, Style, width_of};
use crate::units::{Bytes, Timestamp};

/// Lines of a panel.
const LINES: usize = 4;
/// Columns of the output where it is no terminal.
const FILE: usize = 80;
/// Columns before the charts: a label, a blank, the axis.
const LABEL: usize = 1 + SIZE_WIDTH + 2;
/// The fewest columns of a chart.
const LEAST: usize = 8;

/// Writes the charts, as wide as the terminal.
pub fn write_chart(out: &mut dyn Write, steps: &Steps, style: &Style) -> io::Result<()> {
    let mut page = Page::new(out, style);
    let width = style.width.unwrap_or(FILE);
    let cells = width.saturating_sub(LABEL + 1).max(LEAST);
    let columns = steps.columns(cells);
    if columns.is_empty() {
        page.text(
            Role::Plain,
            format_args!("  nothing was mapped in this time"),
        );
        return page.end();
    }
    let figures = [
        ("mapped", Role::Plain),
        ("reserved", Role::Reserved),
        ("committed", Role::Committed),
        ("resident", Role::Strong),
    ];
    for (figure, ((name, role), curve)) in figures.into_iter().zip(&steps.curves).enumerate() {
        let values: Vec<u64> = columns
            .iter()
            .map(|values| values.get(figure).copied().unwrap_or_default())
            .collect();
        let peak = peak_column(&values);
        title(&mut page, name, curve, peak, cells)?;
        panel(&mut page, &values, curve.peak, role)?;
    }
    axis(&mut page, steps, cells)
}

/// The first column with the highest value.
fn peak_column(values: &[u64]) -> usize {
    let highest = values.iter().max().copied().unwrap_or_default();
    values
        .iter()
        .position(|value| *value == highest)
        .unwrap_or(0)
}

/// The name, and over the highest column a mark and its value, at whichever side there is room.
fn title(
    page: &mut Page<'_>,
    name: &str,
    curve: &Curve,
    column: usize,
    cells: usize,
) -> io::Result<()> {
    page.line.role(Role::Strong);
    page.line.push_right(1 + SIZE_WIDTH, name);
    page.line.role(Role::Plain);
    if curve.peak == Bytes(0) {
        page.text(Role::Dim, format_args!("  none"));
        return page.end();
    }
    let mark = if page.style.unicode { "▼" } else { "v" };
    let by = match curve.peak_by.call() {
        Some(call) => format!(" by {call}"),
        None => String::new(),
    };
    let (size, time) = (Size(curve.peak), Elapsed(curve.peak_time.0));
    let texts = [
        format!("peak {size} at {time}{by}"),
        format!("peak {size} at {time}"),
        format!("peak {size}"),
        size.to_string(),
    ];
    for text in &texts {
        let wide = width_of(text);
        if column + 2 + wide <= cells {
            page.line
                .pad_to(LABEL + column)
                .push(mark)
                .push(" ")
                .push(text);
            return page.end();
        }
        if wide < column {
            let start = LABEL + column - 1 - wide;
            page.line.pad_to(start).push(text).push(" ").push(mark);
            return page.end();
        }
    }
    page.line.pad_to(LABEL + column).push(mark);
    page.end()
}

/// The bars, and the scale at their left.
fn panel(page: &mut Page<'_>, values: &[u64], peak: Bytes, role: Role) -> io::Result<()> {
    let blocks: &[&str] = match page.style.unicode {
        true => &[" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
        false => &[" ", ".", ":", "#"],
    };
    let bar = if page.style.unicode { "│" } else { "|" };
    let levels = blocks.len() - 1;
    let heights: Vec<usize> = values
        .iter()
        .map(|value| height(*value, peak.0, LINES * levels))
        .collect();
    for line in (0..LINES).rev() {
        page.line.role(Role::Dim);
        if line + 1 == LINES {
            page.line.push_right(1 + SIZE_WIDTH, Size(peak));
        } else if line == 0 {
            page.line.push_right(1 + SIZE_WIDTH, Size(Bytes(0)));
        }
        page.line.pad_to(LABEL - 1).push(bar).role(role);
        for height in &heights {
            let level = height.saturating_sub(line * levels).min(levels);
            page.line.push(blocks.get(level).copied().unwrap_or(" "));
        }
        page.end()?;
    }
    Ok(())
}

/// How many of `most` levels `value` reaches; what is not nothing reaches one.
fn height(value: u64, peak: u64, most: usize) -> usize {
    if peak == 0 || value == 0 {
        return 0;
    }
    let height = (u128::from(value) * most as u128).div_ceil(u128::from(peak));
    (height as usize).clamp(1, most)
}

/// The axis of time, with as many times below it as have room.
fn axis(page: &mut Page<'_>, steps: &Steps, cells: usize) -> io::Result<()> {
    let (corner, dash, tick) = match page.style.unicode {
        true => ("└", "─", "┬"),
        false => ("+", "-", "+"),
    };
    let label = |column: usize| {
        let part = u128::from(steps.duration()) * column as u128 / cells.max(1) as u128;
        let time = Timestamp(steps.start.0.saturating_add(part as u64));
        time_text(time, steps.duration())
    };
    let wide = width_of(&label(cells)) + 4;
    let parts = (cells / wide).clamp(1, 8);
    let ticks: Vec<usize> = (0..=parts).map(|part| cells * part / parts).collect();
    page.line.role(Role::Dim).pad_to(LABEL - 1).push(corner);
    for column in 0..cells {
        let at_tick = ticks.contains(&column) || column + 1 == cells;
        page.line.push(if at_tick { tick } else { dash });
    }
    page.end()?;
    page.line.role(Role::Dim).push_right(1 + SIZE_WIDTH, "time");
    for (index, column) in ticks.iter().enumerate() {
        let text = label(*column);
        let half = width_of(&text) / 2;
        let start = match index {
            0 => LABEL,
            _ if index == parts => (LABEL + cells).saturating_sub(width_of(&text)),
            _ => LABEL + column - half.min(*column),
        };
        if index > 0 && start <= page.line.width() {
            continue;
        }
        page.line.pad_to(start).push(&text);
    }
    page.end()
}

/// A time with as many digits as tell the parts of `duration` apart.
fn time_text(time: Timestamp, duration: u64) -> String {
    match duration {
        0..10_000_000 => format!("{}.{:02} ms", time.0 / 1_000_000, time.0 / 10_000 % 100),
        10_000_000..1_000_000_000 => format!("{} ms", time.0 / 1_000_000),
        1_000_000_000..60_000_000_000 => {
            let hundredths = time.0 / 10_000_000;
            format!("{}.{:02} s", hundredths / 100, hundredths % 100)
        }
        _ if time.0 == 0 => "0 s".to_owned(),
        _ => Duration(time.0).to_string(),
    }
}
