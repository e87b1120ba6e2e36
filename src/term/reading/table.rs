//! Tables of sums: as many columns as fit, the names last.

use std::io::{self, Write};

use super::{mapping_name, push_name};
use crate::report::reading::{By, How, Key, Row, Sums, Table};
use crate::term::page::Page;
use crate::term::summary::{amount, place_name};
use crate::term::{Count, Elapsed, Role, SIZE_WIDTH, Style, escaped};

/// Columns that a name takes at least, and one that says when and by whom.
const LEAST_NAME: usize = 18;
const LEAST_STORY: usize = 44;

/// A column of sums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Calls,
    Failed,
    Bytes,
    Began,
    Reserve,
    Map,
    Commit,
    Decommit,
    Release,
    Discard,
    Touched,
    EndReserved,
    EndCommitted,
}

impl Column {
    /// In the order of the table; what is less important than others goes first where the output
    /// is narrow, see [`Column::DROPPED`].
    const ALL: [Column; 13] = [
        Column::Calls,
        Column::Failed,
        Column::Bytes,
        Column::Began,
        Column::Reserve,
        Column::Map,
        Column::Commit,
        Column::Decommit,
        Column::Release,
        Column::Discard,
        Column::Touched,
        Column::EndReserved,
        Column::EndCommitted,
    ];
    /// The least important first.
    const DROPPED: [Column; 11] = [
        Column::Failed,
        Column::Decommit,
        Column::Discard,
        Column::Bytes,
        Column::Began,
        Column::Release,
        Column::Commit,
        Column::Map,
        Column::Reserve,
        Column::Calls,
        Column::EndReserved,
    ];

    fn name(self) -> &'static str {
        match self {
            Column::Calls => "calls",
            Column::Failed => "failed",
            Column::Bytes => "changed",
            Column::Began => "began with",
            Column::Reserve => "reserve",
            Column::Map => "map",
            Column::Commit => "commit",
            Column::Decommit => "decommit",
            Column::Release => "release",
            Column::Discard => "discard",
            Column::Touched => "touched",
            Column::EndReserved => "reserved",
            Column::EndCommitted => "committed",
        }
    }

    fn role(self) -> Role {
        match self {
            Column::Reserve | Column::EndReserved | Column::Decommit => Role::Reserved,
            Column::Map | Column::Commit | Column::EndCommitted => Role::Committed,
            Column::Release | Column::Discard => Role::Released,
            _ => Role::Plain,
        }
    }

    fn width(self) -> usize {
        match self {
            Column::Calls => 9,
            Column::Failed => 6,
            _ => SIZE_WIDTH,
        }
    }

    fn text(self, sums: &Sums) -> String {
        let count = |count: u64| match count {
            0 => "-".to_owned(),
            count => Count(count).to_string(),
        };
        match self {
            Column::Calls => count(sums.calls),
            Column::Failed => count(sums.failed),
            Column::Bytes => amount(sums.bytes),
            Column::Began => amount(sums.began),
            Column::Reserve => amount(sums.flow.reserve),
            Column::Map => amount(sums.flow.map),
            Column::Commit => amount(sums.flow.commit),
            Column::Decommit => amount(sums.flow.decommit),
            Column::Release => amount(sums.flow.release),
            Column::Discard => amount(sums.flow.discard),
            Column::Touched => amount(sums.touched.bytes),
            Column::EndReserved => amount(sums.reserved),
            Column::EndCommitted => amount(sums.committed),
        }
    }
}

/// The columns that hold anything and fit.
pub(super) struct Columns(Vec<Column>);

impl Columns {
    /// Those of which `total` holds anything and that leave `least` columns of `width` for names.
    pub(super) fn that_fit(total: &Sums, least: usize, width: usize) -> Columns {
        let mut columns: Vec<Column> = Column::ALL
            .into_iter()
            .filter(|column| column.text(total) != "-")
            .collect();
        for dropped in Column::DROPPED {
            let wide: usize = columns.iter().map(|column| column.width() + 2).sum();
            if wide + 2 + least <= width {
                break;
            }
            columns.retain(|column| *column != dropped);
        }
        Columns(columns)
    }

    /// Their names, and what the rows are.
    pub(super) fn head(&self, page: &mut Page<'_>, names: &str) -> io::Result<()> {
        let Columns(columns) = self;
        // A line above says what the columns of the same meaning have in common.
        let is_end = |column: &Column| matches!(column, Column::EndReserved | Column::EndCommitted);
        let before: usize = columns
            .iter()
            .filter(|column| !is_end(column))
            .map(|column| column.width() + 2)
            .sum();
        if columns.iter().any(is_end) {
            page.line.role(Role::Dim).pad_to(before);
            let ends: usize = columns
                .iter()
                .filter(|column| is_end(column))
                .map(|column| column.width() + 2)
                .sum();
            page.line.push_right(before + ends, "left at end");
            page.end()?;
        }
        let mut at = 0;
        for column in columns {
            at += column.width() + 2;
            page.line.role(Role::Dim).push_right(at, column.name());
        }
        page.line.push("  ").push(names);
        page.end()
    }
}

/// Writes `table`, of its rows the first `top` and the others as one.
pub fn write_table(
    out: &mut dyn Write,
    table: &Table,
    top: Option<usize>,
    style: &Style,
) -> io::Result<()> {
    let mut page = Page::new(out, style);
    let least = match table.by {
        By::Mapping | By::Kind => LEAST_STORY,
        _ => LEAST_NAME,
    };
    let columns = Columns::that_fit(&table.total, least, page.width());
    let names = match table.by {
        By::Call => "call",
        By::Mapping => "mapping",
        By::File => "file or place",
        By::Thread => "thread",
        By::Space => "address space",
        By::Kind => "kind, evidence",
    };
    columns.head(&mut page, names)?;
    let mut shown = top.unwrap_or(usize::MAX).min(table.rows.len());
    if shown + 1 == table.rows.len() {
        shown += 1;
    }
    for row in table.rows.iter().take(shown) {
        let name = row_name(row, style);
        line(&mut page, &columns, &row.sums, &name, Role::Plain)?;
    }
    let rest = table.rows.get(shown..).unwrap_or_default();
    if !rest.is_empty() {
        let mut sums = Sums::default();
        rest.iter().for_each(|row| sums += row.sums);
        let rows: u64 = rest.iter().map(|row| row.rows).sum();
        let name = format!("{} more (-n 0 shows all)", Count(rows));
        line(&mut page, &columns, &sums, &name, Role::Dim)?;
    }
    line(&mut page, &columns, &table.total, "total", Role::Strong)
}

pub(super) fn line(
    page: &mut Page<'_>,
    columns: &Columns,
    sums: &Sums,
    name: &str,
    role: Role,
) -> io::Result<()> {
    let mut at = 0;
    for column in &columns.0 {
        at += column.width() + 2;
        page.line
            .role(column.role())
            .push_right(at, column.text(sums));
    }
    page.line.role(role).push("  ");
    let columns = page.width();
    push_name(&mut page.line, name, columns, page.style);
    page.end()
}

fn row_name(row: &Row, style: &Style) -> String {
    let comm = escaped(row.comm.as_bytes(), style.unicode);
    match &row.key {
        Key::Call(name) => name.to_string(),
        Key::Thread(tid) => match (&*comm, row.pid) {
            ("", _) => tid.to_string(),
            (comm, Some(pid)) if pid != *tid => format!("{comm} {tid} of {pid}"),
            (comm, _) => format!("{comm} {tid}"),
        },
        Key::Space(id) => {
            let pid = row
                .pid
                .map_or_else(String::new, |pid| format!(" pid {pid}"));
            format!("{comm}{pid}, space {}", id.0)
        }
        Key::Place(place) => place_name(place, style.unicode),
        Key::Kind(_) => kind_words(row, style),
        Key::Mapping(_) => mapping_words(row, style),
        Key::Began => "what address spaces began with".to_owned(),
        Key::Found => "grown by page faults, or found in the kernel's map".to_owned(),
        Key::Nothing => "calls that changed no byte".to_owned(),
        Key::Others => format!("{} smaller ones that are gone", Count(row.rows)),
    }
}

/// `Go heap arenas (3), called by runtime.(*mheap).sysAlloc`
fn kind_words(row: &Row, style: &Style) -> String {
    let count = match row.rows {
        0 | 1 => String::new(),
        rows => format!(" ({})", Count(rows)),
    };
    match &row.recognized {
        None => format!("unknown{count}"),
        Some(known) => {
            let evidence = escaped(known.evidence.as_bytes(), style.unicode);
            format!("{}{count}, {evidence}", known.kind)
        }
    }
}

fn mapping_words(row: &Row, style: &Style) -> String {
    let Some(mapping) = &row.mapping else {
        return String::new();
    };
    let origin = &mapping.origin;
    let mut name = format!("{:x} ", origin.start.0);
    name.push_str(&mapping_name(&mapping.place, mapping.name.as_ref(), style));
    let time = Elapsed(origin.time.0);
    match (origin.how, origin.by.call()) {
        (How::Call, Some(call)) => {
            name.push_str(&format!(", {call} at {time} by {}", origin.by.tid));
        }
        (How::Began(_), _) => name.push_str(&format!(", there from {time} on")),
        _ => name.push_str(&format!(", page faults before {time}")),
    }
    if let Some(released) = mapping.released {
        name.push_str(&format!(", gone at {}", Elapsed(released.0)));
    }
    name
}
