//! The lives of reservations: a line of sums for each, and below it who reserved it, who committed
//! how much of it, and what became of it.

use std::io::{self, Write};

use crate::report::reading::{
    Commits, How, Kind, Label, LifeSums, Lives, ReservationLife, TouchedBy, is_wrapper,
};
use crate::term::page::Page;
use crate::term::summary::amount;
use crate::term::{Count, Elapsed, Role, SIZE_WIDTH, Size, Style, escaped};
use crate::timeline::Began;
use crate::units::Bytes;

use super::chain::write_stack;
use super::who::shown;
use super::{mapping_name, plural, push_name};

/// From this width on there is room for what is left.
const WITH_LEFT: usize = 68;
/// Steps of a stack that are shown, from its owner on.
const STEPS: usize = 8;
/// Committers that are told one by one.
const COMMITTERS: usize = 4;

/// Writes the reservations, the first `top` and the others as one.
pub fn write_lives(
    out: &mut dyn Write,
    lives: &Lives,
    top: Option<usize>,
    style: &Style,
) -> io::Result<()> {
    let mut page = Page::new(out, style);
    head(&mut page, lives.with_touches)?;
    let shown = shown(lives.list.len(), top);
    for life in &lives.list[..shown] {
        write_life(&mut page, life, lives.with_touches, top.is_none())?;
    }
    let mut rest = lives.smaller;
    for life in lives.list.get(shown..).unwrap_or_default() {
        rest += life.sums;
    }
    if rest.count > 0 {
        figures(&mut page, &rest, lives.with_touches);
        let count = Count(rest.count);
        let hint = if lives.smaller.count > 0 {
            "smaller ones"
        } else {
            "more (-n 0 shows all)"
        };
        page.text(Role::Dim, format_args!("  {count} {hint}"));
        page.end()?;
    }
    if lives.copies.count > 0 {
        figures(&mut page, &lives.copies, lives.with_touches);
        let count = Count(lives.copies.count);
        page.text(
            Role::Dim,
            format_args!("  {count} copied by fork, never touched"),
        );
        page.end()?;
    }
    figures(&mut page, &lives.total, lives.with_touches);
    page.text(Role::Strong, format_args!("  total"));
    page.end()?;
    if !lives.with_stacks {
        page.text(
            Role::Dim,
            format_args!("  no stacks in this trace: memtrace -k records them"),
        );
        page.end()?;
    }
    Ok(())
}

/// The columns: a word above each group, and one above each column.
fn head(page: &mut Page<'_>, with_touches: bool) -> io::Result<()> {
    let size = SIZE_WIDTH + 2;
    let ever: &[&str] = match with_touches {
        true => &["reserved", "committed", "touched"],
        false => &["reserved", "committed"],
    };
    let mut groups = vec![("ever", ever)];
    if WITH_LEFT <= page.width() {
        groups.push(("left at end", &["reserved", "committed"]));
    }
    page.line.role(Role::Dim);
    let mut at = 0;
    for (name, columns) in &groups {
        at += columns.len() * size;
        page.line.push_right(at, name);
    }
    page.end()?;
    page.line.role(Role::Dim);
    for (index, column) in groups.iter().flat_map(|(_, columns)| *columns).enumerate() {
        page.line.push_right((index + 1) * size, column);
    }
    page.line.push("  reservation");
    page.end()
}

fn figures(page: &mut Page<'_>, sums: &LifeSums, with_touches: bool) {
    let mut columns = vec![
        (Role::Reserved, sums.reserved),
        (Role::Committed, sums.ever_committed),
    ];
    if with_touches {
        columns.push((Role::Plain, sums.touched.bytes));
    }
    if WITH_LEFT <= page.width() {
        columns.extend([
            (Role::Reserved, sums.reserved_now),
            (Role::Committed, sums.committed_now),
        ]);
    }
    let mut at = 0;
    for (role, bytes) in columns {
        at += SIZE_WIDTH + 2;
        page.line.role(role).push_right(at, amount(bytes));
    }
    page.line.role(Role::Plain);
}

fn write_life(
    page: &mut Page<'_>,
    life: &ReservationLife,
    with_touches: bool,
    whole: bool,
) -> io::Result<()> {
    let style = page.style;
    figures(page, &life.sums, with_touches);
    let place = mapping_name(&life.place, life.name.as_ref(), style);
    let name = format!("{:x} {place}", life.origin.start.0);
    page.line.push("  ");
    let columns = page.width();
    push_name(&mut page.line, &name, columns, style);
    page.end()?;
    let words = reserved_words(life, style);
    write_step(page, &words, &life.reserver, whole)?;
    let told = match whole {
        true => usize::MAX,
        false => COMMITTERS,
    };
    for (who, commits) in life.committers.iter().take(told) {
        write_step(page, &committed_words(who, commits), who, whole)?;
    }
    let rest = life.committers.get(told..).unwrap_or_default();
    if !rest.is_empty() {
        let bytes: Bytes = rest.iter().map(|(_, commits)| commits.bytes).sum();
        let count = Count(rest.len() as u64);
        page.text(
            Role::Dim,
            format_args!("    {} committed by {count} more", Size(bytes)),
        );
        page.end()?;
    }
    for (who, by) in life.touchers.iter().take(told) {
        write_step(page, &touched_words(who, by), who, whole)?;
    }
    let rest = life.touchers.get(told..).unwrap_or_default();
    if !rest.is_empty() {
        let bytes: Bytes = rest.iter().map(|(_, by)| by.touches.bytes).sum();
        let count = Count(rest.len() as u64);
        page.text(
            Role::Dim,
            format_args!("    {} touched by {count} more", Size(bytes)),
        );
        page.end()?;
    }
    let ends = ends(life);
    if !ends.is_empty() {
        page.wrap(4, Role::Dim, ", ", &ends)?;
    }
    Ok(())
}

/// One step of a life: what was done, and who did it.
fn write_step(page: &mut Page<'_>, words: &str, who: &[Label], whole: bool) -> io::Result<()> {
    page.text(Role::Plain, format_args!("    {words}"));
    // What stands for a stack is part of the words.
    if who.iter().all(|label| label.kind == Kind::Remark) {
        return page.end();
    }
    page.line.push(":");
    page.line.gap(1);
    let is_plumbing = |label: &Label| label.kind == Kind::Function && is_wrapper(&label.text);
    let from = who.iter().position(|label| !is_plumbing(label));
    let steps = match whole {
        true => who,
        false => &who[from.unwrap_or(who.len() - 1)..],
    };
    write_stack(page, 6, steps, (!whole).then_some(STEPS))
}

fn reserved_words(life: &ReservationLife, style: &Style) -> String {
    let origin = &life.origin;
    let first = origin.first();
    let comm = escaped(life.comm.as_bytes(), style.unicode);
    let (pid, tid, time) = (life.pid, first.by.tid, Elapsed(first.time.0));
    let who = match tid == pid || origin.copied.is_some() {
        true => format!("{comm} {pid}"),
        false => format!("{comm} {tid} of {pid}"),
    };
    let by = match (first.how, first.by.call()) {
        (How::Began(Began::Exec), _) => format!("there from {time} on, {who}"),
        (How::Began(Began::Fork { .. }), _) => format!("copied by fork, {who}"),
        (How::Began(Began::Attach), _) => format!("there at attach, {who}"),
        (How::Call, Some(call)) => format!("reserved by {call} at {time}, {who}"),
        _ => format!("found in the kernel's map at {time}, {who}"),
    };
    match origin.copied {
        Some(_) => format!("{by}, copied by fork at {}", Elapsed(origin.time.0)),
        None => by,
    }
}

fn committed_words(who: &[Label], commits: &Commits) -> String {
    let Commits {
        calls,
        bytes,
        left,
        first,
        last,
        ..
    } = commits;
    let how = match who {
        [only] if only.kind == Kind::Remark && *calls > 0 => {
            let text = only.text.strip_prefix("(no stack) ").unwrap_or(&only.text);
            format!(" by {text}")
        }
        _ => String::new(),
    };
    let when = match (calls, first == last) {
        (0, _) => "before fork copied it".to_owned(),
        (_, true) => format!("at {}", Elapsed(first.0)),
        _ => format!("from {} to {}", Elapsed(first.0), Elapsed(last.0)),
    };
    let calls = match calls {
        0 | 1 => String::new(),
        many => format!(" in {} call{}", Count(*many), plural(*many)),
    };
    let left = match left {
        left if left == bytes => String::new(),
        Bytes(0) => ", none of it left".to_owned(),
        left => format!(", {} of it left", Size(*left)),
    };
    format!("committed {}{how}{calls} {when}{left}", Size(*bytes))
}

fn touched_words(who: &[Label], by: &TouchedBy) -> String {
    let TouchedBy {
        touches,
        stacks,
        first,
        last,
    } = by;
    let how = match who {
        [only] if only.kind == Kind::Remark => {
            let text = only.text.strip_prefix("(no stack) ").unwrap_or(&only.text);
            format!(" by {text}")
        }
        _ => String::new(),
    };
    let when = match first == last {
        true => format!("at {}", Elapsed(first.0)),
        false => format!("from {} to {}", Elapsed(first.0), Elapsed(last.0)),
    };
    let (bytes, faults) = (Size(touches.bytes), Count(touches.faults));
    let sampled = (1..touches.recorded).contains(stacks);
    // Of thinned out page faults, only the recorded ones tell which pages.
    let (how_many, about) = match (touches.recorded < touches.faults, sampled) {
        (true, true) => ("at least about ", "about "),
        (true, false) => ("at least ", ""),
        (false, true) => ("about ", "about "),
        (false, false) => ("", ""),
    };
    let taken = match sampled {
        true => format!(" ({} stack{} taken)", Count(*stacks), plural(*stacks)),
        false => String::new(),
    };
    let faults = format!("{about}{faults} page fault{}", plural(touches.faults));
    format!("touched {how_many}{bytes}{how} in {faults}{taken} {when}")
}

/// What became of its bytes.
fn ends(life: &ReservationLife) -> Vec<String> {
    let flow = &life.sums.flow;
    let amounts = [
        (flow.decommit, "decommitted"),
        (flow.discard, "discarded"),
        (flow.release, "released"),
    ];
    let amounts = amounts.iter().filter(|(bytes, _)| *bytes > Bytes(0));
    let mut ends: Vec<String> = amounts
        .map(|(bytes, what)| format!("{} {what}", Size(*bytes)))
        .collect();
    ends.extend(
        life.released
            .map(|time| format!("gone at {}", Elapsed(time.0))),
    );
    ends
}
