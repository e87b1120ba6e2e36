//! Tables by owner and by stack.

use std::io::{self, Write};

use crate::report::reading::{Kind, Label, Owners, StackTable, Sums};
use crate::term::page::Page;
use crate::term::summary::amount;
use crate::term::{Count, Role, SIZE_WIDTH, Style, escaped, width_of};

use super::chain::{STEPS, write_stack};
use super::table::{Columns, line};

/// From this width on there is room for what was done in all, and for calls.
const WITH_IN_ALL: usize = 68;
const WITH_CALLS: usize = 90;
/// Columns of a count.
const COUNT: usize = 9;
/// Columns that an owner of a stack takes at least.
const LEAST_OWNER: usize = 24;

/// Writes the owners, the first `top` and the others as one.
pub fn write_owners(
    out: &mut dyn Write,
    owners: &Owners,
    top: Option<usize>,
    style: &Style,
) -> io::Result<()> {
    let mut page = Page::new(out, style);
    let columns = OwnerColumns::that_fit(page.width());
    columns.head(&mut page)?;
    let shown = shown(owners.rows.len(), top);
    for row in &owners.rows[..shown] {
        columns.figures(&mut page, &row.sums);
        page.line.role(Role::Plain).push("  ");
        push_label(&mut page, &row.owner);
        page.end()?;
    }
    let rest = owners.rows.get(shown..).unwrap_or_default();
    if !rest.is_empty() {
        let mut sums = Sums::default();
        rest.iter().for_each(|row| sums += row.sums);
        columns.figures(&mut page, &sums);
        let count = Count(rest.len() as u64);
        page.text(Role::Dim, format_args!("  {count} more (-n 0 shows all)"));
        page.end()?;
    }
    columns.figures(&mut page, &owners.total);
    page.text(Role::Strong, format_args!("  total"));
    page.end()
}

/// Rows that are shown one by one: what is left makes a row, too.
pub(super) fn shown(rows: usize, top: Option<usize>) -> usize {
    match top {
        Some(top) if top + 1 < rows => top,
        _ => rows,
    }
}

/// Which columns a table of owners has beside what is left.
#[derive(Clone, Copy)]
struct OwnerColumns {
    calls: bool,
    in_all: bool,
}

impl OwnerColumns {
    fn that_fit(width: usize) -> OwnerColumns {
        OwnerColumns {
            calls: WITH_CALLS <= width,
            in_all: WITH_IN_ALL <= width,
        }
    }

    /// Columns before those of sizes.
    fn before(self) -> usize {
        if self.calls { COUNT + 2 } else { 0 }
    }

    fn head(self, page: &mut Page<'_>) -> io::Result<()> {
        let size = SIZE_WIDTH + 2;
        let groups: &[&str] = match self.in_all {
            true => &["in all", "left at end"],
            false => &["left at end"],
        };
        page.line.role(Role::Dim);
        for (index, group) in groups.iter().enumerate() {
            let end = self.before() + 2 * (index + 1) * size;
            page.line.push_right(end, group);
        }
        page.end()?;
        page.line.role(Role::Dim);
        if self.calls {
            page.line.push_right(self.before(), "calls");
        }
        for index in 0..groups.len() {
            let end = self.before() + 2 * index * size;
            page.line
                .push_right(end + size, "reserved")
                .push_right(end + 2 * size, "committed");
        }
        page.line.push("  owner");
        page.end()
    }

    /// What was reserved and committed in all, and what is left of both.
    fn figures(self, page: &mut Page<'_>, sums: &Sums) {
        let mut at = self.before();
        if self.calls {
            let calls = match sums.calls {
                0 => "-".to_owned(),
                calls => Count(calls).to_string(),
            };
            page.line.push_right(at, calls);
        }
        let given = sums.flow.map + sums.flow.commit;
        let in_all = [
            (Role::Reserved, sums.flow.reserve),
            (Role::Committed, given),
        ];
        let left = [
            (Role::Reserved, sums.reserved),
            (Role::Committed, sums.committed),
        ];
        let in_all = in_all.into_iter().filter(|_| self.in_all);
        for (role, bytes) in in_all.chain(left) {
            at += SIZE_WIDTH + 2;
            page.line.role(role).push_right(at, amount(bytes));
        }
        page.line.role(Role::Plain);
    }
}

/// A function, and in which module it is.
fn push_label(page: &mut Page<'_>, label: &Label) {
    let style = page.style;
    page.line.push_escaped(label.text.as_bytes(), style);
    // An address says it already.
    if let (Some(module), Kind::Function) = (label.module_name(), label.kind) {
        let module = escaped(module.as_bytes(), style.unicode);
        if page.line.width() + 2 + width_of(&module) <= page.width() {
            page.text(Role::Dim, format_args!("  {module}"));
        }
    }
}

/// Writes the stacks, the first `top` and the others as one: the sums and the owner, and below them
/// the steps.
pub fn write_stacks(
    out: &mut dyn Write,
    table: &StackTable,
    top: Option<usize>,
    style: &Style,
) -> io::Result<()> {
    let mut page = Page::new(out, style);
    let columns = Columns::that_fit(&table.total, LEAST_OWNER, page.width());
    columns.head(&mut page, "owner, stack")?;
    let shown = shown(table.rows.len(), top);
    let most = top.map(|_| STEPS);
    for row in &table.rows[..shown] {
        let owner = row.owner().map_or("?", |owner| &owner.text);
        let owner = escaped(owner.as_bytes(), style.unicode);
        line(&mut page, &columns, &row.sums, &owner, Role::Plain)?;
        if row.labels.len() > 1 {
            write_stack(&mut page, 4, &row.labels, most)?;
        }
    }
    let rest = table.rows.get(shown..).unwrap_or_default();
    if !rest.is_empty() {
        let mut sums = Sums::default();
        rest.iter().for_each(|row| sums += row.sums);
        let name = format!("{} more (-n 0 shows all)", Count(rest.len() as u64));
        line(&mut page, &columns, &sums, &name, Role::Dim)?;
    }
    line(&mut page, &columns, &table.total, "total", Role::Strong)
}
