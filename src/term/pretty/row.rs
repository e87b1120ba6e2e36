//! The line of one call.

use std::fmt::Write;

use crate::abi::{CallInfo, Prot};
use crate::decode::Call;
use crate::mm::Totals;
use crate::term::{ErrorName, Line, Role, SIZE_WIDTH, Size, Style};
use crate::timeline::CallEvent;
use crate::units::Bytes;

use super::change::push_change;
use super::columns::{Columns, GAP};
use super::words::{Asked, ResultKind, push_how, push_path};

/// The names of the columns.
pub(super) fn header(columns: &Columns, style: &Style) -> Line {
    let mut line = Line::default();
    line.role(Role::Dim);
    let mut column = |name: &str, width: usize, right: bool| {
        if width == 0 {
            return;
        }
        let end = line.width() + width;
        match right {
            true => line.push_right(end, name),
            false => line.push(name),
        };
        line.pad_to(end).gap(GAP);
    };
    column("time", columns.time, true);
    column("who", columns.who, false);
    column("call", columns.call, false);
    column("size", columns.size, true);
    column("rwx", columns.prot, false);
    column("how", columns.how, false);
    let result = if style.unicode {
        "  address"
    } else {
        "   address"
    };
    column(result, columns.result, false);
    column("what it did", columns.change, false);
    column("reserved", columns.totals, true);
    column("committed", columns.totals, true);
    line
}

/// Where text that may not cover the running totals has to end.
pub(super) fn text_end(columns: &Columns, style: &Style) -> usize {
    match (columns.totals, style.width) {
        (0, Some(width)) => width,
        _ => totals_start(columns) - GAP,
    }
}

/// Where the running totals begin, if they are shown.
fn totals_start(columns: &Columns) -> usize {
    let before = [
        columns.time,
        columns.who,
        columns.call,
        columns.size,
        columns.prot,
        columns.how,
        columns.result,
        columns.change,
    ];
    let before = before.into_iter().filter(|width| *width > 0);
    before.map(|width| width + GAP).sum::<usize>()
}

/// Appends the running totals.
pub(super) fn push_totals(line: &mut Line, now: &Totals, columns: &Columns) {
    if columns.totals == 0 {
        return;
    }
    let start = totals_start(columns);
    line.role(Role::Dim).gap(GAP).pad_to(start);
    line.push_right(start + SIZE_WIDTH, Size(now.reserved))
        .gap(GAP);
    line.push_right(start + SIZE_WIDTH + GAP + SIZE_WIDTH, Size(now.committed));
}

/// Appends everything of a call but when and who.
pub(super) fn push_call(
    line: &mut Line,
    event: &CallEvent,
    info: Option<&CallInfo>,
    columns: &Columns,
    style: &Style,
) {
    let asked = Asked::of(event);
    let mut at = line.width();
    let mut next = |width: usize| {
        at += if width > 0 { width + GAP } else { 0 };
        at
    };
    let failed = event.result.is_none_or(is_error);
    line.role(if failed { Role::Error } else { Role::Plain });
    line.push(info.map_or("?", |info| info.name));
    if !failed {
        line.role(Role::Plain);
    }
    line.gap(GAP).pad_to(next(columns.call));
    if columns.size > 0 {
        let end = next(columns.size);
        if let Some(size) = asked.size {
            line.push_right(end - GAP, Size(Bytes(size)));
        }
        line.pad_to(end);
    }
    if columns.prot > 0 {
        if let Some(prot) = asked.prot {
            line.push(rwx(prot));
        }
        line.pad_to(next(columns.prot));
    }
    if columns.how > 0 {
        let end = next(columns.how);
        push_how(line, event, style, end - GAP);
        line.cut(end - GAP, style).gap(GAP).pad_to(end);
    }
    let changed = event.flow != Default::default() || !event.spans.is_empty();
    if failed {
        push_failure(line, event, &asked, columns, style);
        if changed {
            line.push(", yet ");
            push_change(line, event, columns.long_change, style);
        }
        push_path(line, event, style);
        return;
    }
    if columns.result > 0 {
        push_result(line, event, &asked, style);
        line.gap(GAP).pad_to(next(columns.result));
    }
    if changed {
        push_change(line, event, columns.long_change, style);
    } else if columns.how == 0 {
        push_request(line, event, &asked, columns, style);
    }
    if columns.totals > 0 {
        line.cut(totals_start(columns) - GAP, style);
    }
    push_totals(line, &event.now, columns);
    push_path(line, event, style);
}

/// What was asked for, where neither size nor flags have a column of their own.
fn push_request(
    line: &mut Line,
    event: &CallEvent,
    asked: &Asked,
    columns: &Columns,
    style: &Style,
) {
    if let (Some(size), 0) = (asked.size, columns.size) {
        let _ = write!(line, "{} ", Size(Bytes(size)));
    }
    let end = line.width() + columns.change;
    push_how(line, event, style, end);
}

fn push_failure(
    line: &mut Line,
    event: &CallEvent,
    asked: &Asked,
    columns: &Columns,
    style: &Style,
) {
    if let (Some(size), 0) = (asked.size, columns.size) {
        let _ = write!(line, "{} ", Size(Bytes(size)));
    }
    line.role(Role::Error);
    if columns.result > 0 {
        line.push(style.arrow()).push(" ");
    }
    match event.result {
        Some(error) => {
            let _ = write!(line, "{}", ErrorName(-error as i32));
        }
        None => {
            line.push("cut short");
        }
    }
}

fn push_result(line: &mut Line, event: &CallEvent, asked: &Asked, style: &Style) {
    let Some(result) = event.result else { return };
    match (asked.result, &event.call) {
        (ResultKind::Address, Call::Brk { addr }) if addr.0 > result as u64 => {
            line.role(Role::Error);
            let _ = write!(line, "{} {result:#x} not moved", style.arrow());
            line.role(Role::Plain);
        }
        (ResultKind::Address, _) => {
            let _ = write!(line, "{} {result:#x}", style.arrow());
        }
        (ResultKind::Number(what), _) => {
            let _ = write!(line, "{} {what}{result}", style.arrow());
        }
        (ResultKind::Done, _) => {
            if let Some(addr) = asked.addr {
                // Below the addresses that results show.
                line.gap(if style.unicode { 2 } else { 3 });
                let _ = write!(line, "{addr}");
            }
        }
    }
}

/// Whether a result is a negated error number.
fn is_error(result: i64) -> bool {
    (-4095..0).contains(&result)
}

/// Rights as maps shows them.
fn rwx(prot: Prot) -> &'static str {
    const ALL: [&str; 8] = ["---", "r--", "-w-", "rw-", "--x", "r-x", "-wx", "rwx"];
    ALL[(prot.rwx().bits() & 7) as usize]
}
