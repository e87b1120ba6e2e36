//! The life of an address: a line for each event that touched it.

use std::io::{self, Write};

use crate::report::is_error;
use crate::report::reading::{Around, Life, Part, Touch};
use crate::term::page::Page;
use crate::term::pretty::{push_change, push_how};
use crate::term::summary::place_name;
use crate::term::{Count, Elapsed, ErrorName, Line, Role, Size, Style, escaped};
use crate::timeline::{Began, Ended, EventKind};
use crate::units::{AddrRange, Bytes};

use super::{name_of, plural, rights};

/// Parts of a range that are told one by one.
const PARTS: usize = 2;
const CALL: usize = 12;
const WHAT: usize = 30;

/// Writes the life of a range, space by space.
pub fn write_around(out: &mut dyn Write, around: &Around, style: &Style) -> io::Result<()> {
    let mut page = Page::new(out, style);
    let range = around.range();
    let size = Size(Bytes(range.len()));
    page.text(Role::Strong, format_args!("  {range}"));
    page.text(Role::Plain, format_args!("  {size}"));
    let mut lives = around.lives().peekable();
    if lives.peek().is_none() {
        page.line.push(": nothing touched it");
    }
    page.end()?;
    for life in lives {
        page.blank()?;
        write_life(&mut page, life, range)?;
    }
    if around.more > 0 {
        let more = Count(around.more);
        page.text(
            Role::Alarm,
            format_args!(
                "  {more} later events touched it too: narrow the time with --since and --until"
            ),
        );
        page.end()?;
    }
    Ok(())
}

fn write_life(page: &mut Page<'_>, life: &Life, range: AddrRange) -> io::Result<()> {
    let name = name_of(&life.comm, &life.exe, page.style);
    page.text(Role::Strong, format_args!("  {name}"));
    let count = life.touches.len() as u64;
    let (pid, events) = (life.pid, Count(count));
    page.text(
        Role::Plain,
        format_args!("  pid {pid}, {events} event{}", plural(count)),
    );
    page.end()?;
    let tids = life
        .touches
        .iter()
        .map(|touch| touch.event.tid.to_string().len());
    let tid = tids.max().unwrap_or(0);
    for touch in &life.touches {
        write_touch(page, touch, tid, range)?;
    }
    Ok(())
}

fn write_touch(page: &mut Page<'_>, touch: &Touch, tid: usize, range: AddrRange) -> io::Result<()> {
    let style = page.style;
    let event = &touch.event;
    page.line
        .role(Role::Dim)
        .push_right(2 + 9, Elapsed(event.time.0))
        .push("  ");
    let start = page.line.width();
    page.line
        .push_right(start + tid, event.tid)
        .push("  ")
        .role(Role::Plain);
    let start = page.line.width();
    push_event(&mut page.line, touch, style);
    let end = start + CALL + 2 + WHAT;
    let wide = page.width() >= end + 30;
    if wide {
        page.line.cut(end, style).pad_to(end);
        page.line.role(Role::Plain).push("  ");
    } else {
        page.end()?;
        page.line.pad_to(start.min(15)).role(Role::Plain);
    }
    let (before, after) = (
        state(&touch.before, range, style),
        state(&touch.after, range, style),
    );
    let role = match (
        touch.after.is_empty(),
        touch.after.iter().all(|part| part.prot.is_empty()),
    ) {
        (true, _) => Role::Released,
        (false, true) => Role::Reserved,
        (false, false) => Role::Committed,
    };
    if touch.before == touch.after {
        page.text(Role::Dim, format_args!("stays {after}"));
    } else {
        page.text(Role::Plain, format_args!("{before} {} ", style.arrow()));
        page.text(role, format_args!("{after}"));
    }
    if let Some(owner) = &touch.owner {
        let owner = escaped(owner.as_bytes(), style.unicode);
        page.text(Role::Dim, format_args!(", {owner}"));
    }
    page.end()
}

/// Which call it was and what it did, to whatever bytes.
fn push_event(line: &mut Line, touch: &Touch, style: &Style) {
    let start = line.width();
    match &touch.event.kind {
        EventKind::Call(call) => {
            let name = touch.maker().call().unwrap_or_default();
            line.push(&name).push(" ").pad_to(start + CALL).push("  ");
            match call.result {
                Some(result) if is_error(&call.raw, result) => {
                    let errno = (result as i32).saturating_neg();
                    line.role(Role::Error).push(&ErrorName(errno).to_string());
                }
                _ if call.spans.is_empty() => push_how(line, call, style, usize::MAX),
                _ => push_change(line, call, true, style),
            }
        }
        EventKind::SpaceBegan { began, .. } => {
            let how = match began {
                Began::Exec => "exec",
                Began::Fork { .. } => "fork",
                Began::Attach => "attach",
            };
            line.push(how)
                .pad_to(start + CALL)
                .push("  the space began");
        }
        EventKind::SpaceEnded { ended, .. } => {
            let how = match ended {
                Ended::Exit => "exit",
                Ended::Exec => "exec",
                Ended::Detach => "detach",
                Ended::Cut => "cut",
            };
            line.push(how)
                .pad_to(start + CALL)
                .push("  the space ended");
        }
        _ => {
            line.push("page faults")
                .pad_to(start + CALL)
                .push("  seen in the kernel's map");
        }
    }
}

/// What is mapped in a range, in few words.
fn state(parts: &[Part], range: AddrRange, style: &Style) -> String {
    let one = |part: &Part| {
        format!(
            "{} {}",
            rights(part.prot, part.shared),
            place_name(&part.place, style.unicode)
        )
    };
    let len = |part: &Part| part.range.len();
    let mapped: u64 = parts.iter().map(len).sum();
    let unmapped = Bytes(range.len().saturating_sub(mapped));
    match parts {
        [] => "unmapped".to_owned(),
        [whole] if unmapped == Bytes(0) => one(whole),
        few if few.len() <= PARTS => {
            let few = few
                .iter()
                .map(|part| format!("{} {}", Size(Bytes(len(part))), one(part)));
            let mut words: Vec<String> = few.collect();
            if unmapped > Bytes(0) {
                words.push(format!("{} unmapped", Size(unmapped)));
            }
            words.join(" + ")
        }
        many => {
            let of = |reserved: bool| {
                let parts = many.iter().filter(|part| part.prot.is_empty() == reserved);
                Bytes(parts.map(len).sum())
            };
            let sums = [
                (of(true), "reserved"),
                (of(false), "committed"),
                (unmapped, "unmapped"),
            ];
            let sums = sums.iter().filter(|(bytes, _)| *bytes > Bytes(0));
            let words: Vec<String> = sums
                .map(|(bytes, word)| format!("{} {word}", Size(*bytes)))
                .collect();
            format!(
                "{} in {} mappings",
                words.join(" + "),
                Count(many.len() as u64)
            )
        }
    }
}
