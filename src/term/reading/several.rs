//! Several traces side by side.

use std::io::{self, Write};

use crate::report::Report;
use crate::term::page::Page;
use crate::term::summary::amount;
use crate::term::{Count, Duration, Role, SIZE_WIDTH, Style, escaped};
use crate::units::Bytes;

use super::push_name;

/// Columns of the counts.
const COUNT: usize = 8;

/// Writes a line for each of the named reports, the one that committed the most first, and their
/// sum.
pub fn write_several(
    out: &mut dyn Write,
    reports: &[(String, Report)],
    style: &Style,
) -> io::Result<()> {
    let mut page = Page::new(out, style);
    let mut order: Vec<&(String, Report)> = reports.iter().collect();
    order.sort_by_key(|(_, report)| {
        std::cmp::Reverse((report.tree.committed.peak, report.tree.mapped.peak))
    });
    let counts = page.width() >= 100;
    let sizes = if page.width() >= 64 { 4 } else { 2 };
    page.text(
        Role::Strong,
        format_args!("  {} traces", Count(reports.len() as u64)),
    );
    page.text(
        Role::Dim,
        format_args!(", the peaks of all address spaces together"),
    );
    page.end()?;
    let mut columns = Columns::new();
    if counts {
        page.line
            .role(Role::Dim)
            .push_right(columns.next(COUNT), "spaces");
        page.line.push_right(columns.next(COUNT), "calls");
        page.line.push_right(columns.next(COUNT), "time");
    }
    for name in ["mapped", "reserved", "committed", "resident"]
        .iter()
        .take(sizes)
    {
        page.line
            .role(Role::Dim)
            .push_right(columns.next(SIZE_WIDTH), name);
    }
    page.line.push("  trace");
    page.end()?;
    let mut sum = Line::default();
    for (name, report) in order {
        let line = Line::of(report);
        sum.add(&line);
        line.write(&mut page, name, counts, sizes, Role::Plain)?;
    }
    sum.write(&mut page, "total", counts, sizes, Role::Strong)
}

/// Where the next column ends.
struct Columns(usize);

impl Columns {
    fn new() -> Columns {
        Columns(0)
    }

    fn next(&mut self, width: usize) -> usize {
        self.0 += 2 + width;
        self.0
    }
}

#[derive(Default)]
struct Line {
    spaces: u64,
    calls: u64,
    time: u64,
    sizes: [u64; 4],
}

impl Line {
    fn of(report: &Report) -> Line {
        let calls = report.spaces.iter().flat_map(|space| space.calls.values());
        let tree = &report.tree;
        Line {
            spaces: report.spaces.len() as u64,
            calls: calls.map(|calls| calls.count).sum(),
            time: report.until.0,
            sizes: [
                tree.mapped.peak,
                tree.reserved.peak,
                tree.committed.peak,
                tree.resident.peak,
            ],
        }
    }

    fn add(&mut self, other: &Line) {
        self.spaces += other.spaces;
        self.calls += other.calls;
        self.time = self.time.saturating_add(other.time);
        for (sum, size) in self.sizes.iter_mut().zip(other.sizes) {
            *sum = sum.saturating_add(size);
        }
    }

    fn write(
        &self,
        page: &mut Page<'_>,
        name: &str,
        counts: bool,
        sizes: usize,
        role: Role,
    ) -> io::Result<()> {
        let mut columns = Columns::new();
        if counts {
            page.line
                .push_right(columns.next(COUNT), Count(self.spaces));
            page.line.push_right(columns.next(COUNT), Count(self.calls));
            page.line
                .push_right(columns.next(COUNT), Duration(self.time));
        }
        let roles = [Role::Plain, Role::Reserved, Role::Committed, Role::Strong];
        for (size, role) in self.sizes.iter().zip(roles).take(sizes) {
            let end = columns.next(SIZE_WIDTH);
            page.line.role(role).push_right(end, amount(Bytes(*size)));
        }
        page.line.role(role).push("  ");
        let name = escaped(name.as_bytes(), page.style.unicode);
        let columns = page.width();
        push_name(&mut page.line, &name, columns, page.style);
        page.end()
    }
}
