//! The explanation on one screen: address space, physical memory, limits, cgroup, verdict.

mod words;

use std::io::{self, Write};

use crate::report::explain::{
    Cgroups, Facts, Level, Limited, Memory, Owner, Peaked, Room, Row, Source, Space, Split, State,
    Verdict, rows,
};
use crate::timeline::TaskEnd;
use crate::units::Bytes;

use super::page::Page;
use super::{Count, Role, SignalName, Size, Style, shorten, width_of};

use words::{amount, limit_name, plural, safe, share};
pub use words::{next as next_words, reason as reason_words};

/// Column where the text of a section begins.
const INDENT: usize = 12;
/// Owners that are listed.
const OWNERS: usize = 4;
/// Smaller owners are not worth a line.
const WORTH_A_LINE: Bytes = Bytes(1 << 20);
/// Limits of cgroups that are listed one by one.
const LEVELS: usize = 4;
/// Processes of the cgroup that are listed.
const MEMBERS: usize = 3;

/// Writes what `facts` say and what follows from them.
pub fn write_explanation(
    out: &mut dyn Write,
    facts: &Facts,
    verdict: &Verdict,
    style: &Style,
) -> io::Result<()> {
    let mut page = Page::new(out, style);
    subject(&mut page, facts)?;
    if let Some(space) = &facts.space {
        address_space(&mut page, space)?;
    }
    physical(&mut page, facts)?;
    limits(&mut page, facts)?;
    if let Some(cgroups) = &facts.cgroup {
        cgroup(&mut page, facts, cgroups)?;
    }
    for missing in &facts.missing {
        let mut text = format!("not known: {} ({})", missing.what, safe(&missing.why));
        if let Some(remedy) = missing.remedy {
            text.push_str(&format!("; {remedy}"));
        }
        section(&mut page, "missing", &text)?;
    }
    write_verdict(&mut page, facts, verdict)
}

/// A title in the margin, and text that is wrapped beside it.
fn section(page: &mut Page<'_>, title: &str, text: &str) -> io::Result<()> {
    page.text(Role::Dim, format_args!("{title:<INDENT$}"));
    paragraph(page, INDENT, text)
}

fn paragraph(page: &mut Page<'_>, indent: usize, text: &str) -> io::Result<()> {
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    page.wrap(indent, Role::Plain, " ", &words)
}

fn subject(page: &mut Page<'_>, facts: &Facts) -> io::Result<()> {
    let subject = &facts.subject;
    let name = safe(&subject.name);
    page.text(Role::Strong, format_args!("{name}"));
    let how = match subject.source {
        Source::Process => "looked at from outside, not stopped",
        Source::Trace => "as the trace tells",
        Source::Program => "traced from its start",
    };
    let state = match subject.state {
        State::Alive => String::new(),
        State::KernelThread => ", a thread of the kernel's".to_owned(),
        State::Zombie => ", has ended (a zombie)".to_owned(),
        State::Ended(TaskEnd::Exited(status)) => format!(", exited with {status}"),
        State::Ended(TaskEnd::Killed { signal, .. }) => {
            format!(", ended by {}", SignalName(signal))
        }
        State::Ended(TaskEnd::Gone) => ", gone".to_owned(),
    };
    page.text(
        Role::Plain,
        format_args!(", process {}{state}, {how}", subject.pid),
    );
    if 0 < subject.other_spaces {
        let others = Count(subject.other_spaces as u64);
        page.text(Role::Plain, format_args!("; {others} more address spaces"));
    }
    page.end()
}

fn address_space(page: &mut Page<'_>, space: &Space) -> io::Result<()> {
    let peak = |peaked: Peaked<Bytes>| match peaked.peak {
        Some(peak) if peaked.now < peak => format!(" (peak {})", Size(peak)),
        _ => String::new(),
    };
    let mapped = format!("{} mapped{}", Size(space.mapped.now), peak(space.mapped));
    let Some(split) = &space.split else {
        return section(page, "VSZ", &mapped);
    };
    let behind = match split.reserved_resident {
        _ if split.reserved.now == Bytes(0) => String::new(),
        Some(Bytes(0)) => ", no memory behind them".to_owned(),
        Some(bytes) => format!(", {} of memory touched before is behind them", Size(bytes)),
        None => String::new(),
    };
    let text = format!(
        "{mapped}: {} reserved (addresses without any access right{behind}) and {} committed",
        Size(split.reserved.now),
        Size(split.committed.now),
    );
    section(page, "VSZ", &text)?;
    page.line.pad_to(INDENT);
    paragraph(page, INDENT, &committed(split))?;
    owners(page, split)
}

/// What is committed, and what of it counts where.
fn committed(split: &Split) -> String {
    let parts = split.parts;
    let kinds = [
        ("anonymous", parts.anon),
        ("file", parts.file),
        ("shared", parts.shmem),
        ("special", parts.special),
    ];
    let kinds: Vec<String> = kinds
        .iter()
        .filter(|(_, bytes)| bytes.0 != 0)
        .map(|(name, bytes)| format!("{name} {}", Size(*bytes)))
        .collect();
    let most = if split.charged_exact { "" } else { "at most " };
    let mut text = format!("committed: {}", kinds.join(", "));
    if split.noreserve.0 != 0 {
        text.push_str(&format!(
            " ({} of it promised by nobody: MAP_NORESERVE)",
            Size(split.noreserve)
        ));
    }
    text.push_str(&format!("; charged {most}{}", Size(split.charged.now)));
    let mappings = Count(split.mappings.now);
    let least = if split.mappings_exact {
        ""
    } else {
        "at least "
    };
    text.push_str(&format!("; {least}{mappings} mappings"));
    if let Some((count @ 1.., bytes)) = split.guarded {
        text.push_str(&format!(
            "; {} {} of {} may hold guard pages (MADV_GUARD_INSTALL), which maps shows as accessible",
            Count(count),
            plural(count, "mapping", "mappings"),
            Size(bytes)
        ));
    }
    text
}

fn owners(page: &mut Page<'_>, split: &Split) -> io::Result<()> {
    let size = |bytes: Bytes| match bytes {
        Bytes(0) => "-".to_owned(),
        bytes => Size(bytes).to_string(),
    };
    let listed: Vec<_> = split
        .owners
        .iter()
        .filter(|owner| WORTH_A_LINE <= owner.mapped())
        .take(OWNERS)
        .collect();
    if listed.is_empty() {
        return Ok(());
    }
    let measured = listed.iter().any(|owner| owner.resident.is_some());
    let resident = |owner: Option<Bytes>| match measured {
        true => format!(" {:>10}", owner.map_or("?".to_owned(), size)),
        false => String::new(),
    };
    let head = if measured { "   resident" } else { "" };
    page.line.pad_to(INDENT);
    page.text(
        Role::Dim,
        format_args!("{:>10} {:>10}{head}  by", "reserved", "committed"),
    );
    page.end()?;
    for owner in &listed {
        page.line.pad_to(INDENT);
        page.text(
            Role::Reserved,
            format_args!("{:>10} ", size(owner.reserved)),
        );
        page.text(
            Role::Committed,
            format_args!("{:>10}", size(owner.committed)),
        );
        page.text(Role::Plain, format_args!("{}  ", resident(owner.resident)));
        let at = page.line.width();
        let room = page.width().saturating_sub(page.line.width()).max(16);
        let name = shorten(&safe(&owner.name), room, page.style);
        page.text(Role::Plain, format_args!("{name}"));
        page.end()?;
        if !owner.reserved_by.is_empty() {
            let room = page.width().saturating_sub(at + 2).max(16);
            let callers = owner.reserved_by.iter().map(|caller| safe(caller));
            let text = callers_within(&callers.collect::<Vec<_>>(), room, page.style);
            page.line.pad_to(at + 2);
            page.text(Role::Dim, format_args!("{text}"));
            page.end()?;
        }
    }
    let rest = split.owners.get(listed.len()..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    let sum = |part: fn(&Owner) -> Bytes| -> Bytes { rest.iter().map(part).sum() };
    let behind: Option<Bytes> = rest.iter().map(|owner| owner.resident).sum_all();
    page.line.pad_to(INDENT);
    let text = format!(
        "{:>10} {:>10}{}  {} smaller",
        size(sum(|owner| owner.reserved)),
        size(sum(|owner| owner.committed)),
        resident(behind),
        Count(rest.len() as u64)
    );
    page.text(Role::Plain, format_args!("{text}"));
    page.end()
}

/// `inner ← … ← outer`: as many callers as fit, the outer ones left out first.
fn callers_within(callers: &[String], room: usize, style: &Style) -> String {
    let called_by = if style.unicode { " ← " } else { " <- " };
    let mut text = String::from("reserved by ");
    for (number, caller) in callers.iter().enumerate() {
        let joined = if number == 0 { "" } else { called_by };
        // Room for the dots, unless this is the last.
        let dots = if number + 1 < callers.len() { 7 } else { 0 };
        if 0 < number && room < width_of(&text) + called_by.len() + width_of(caller) + dots {
            text.push_str(called_by);
            text.push_str(style.ellipsis());
            break;
        }
        text.push_str(joined);
        text.push_str(caller);
    }
    text
}

/// The sum, if every one is known.
trait SumAll {
    fn sum_all(self) -> Option<Bytes>;
}

impl<I: Iterator<Item = Option<Bytes>>> SumAll for I {
    fn sum_all(mut self) -> Option<Bytes> {
        self.try_fold(Bytes(0), |sum, bytes| Some(sum + bytes?))
    }
}

fn physical(page: &mut Page<'_>, facts: &Facts) -> io::Result<()> {
    let Memory {
        resident,
        peak,
        anon,
        file,
        shmem,
        swap,
        lazy_free,
        huge,
        hugetlb,
        locked,
        measured: _,
        peak_time: _,
    } = facts.memory;
    let Some(resident) = resident else {
        return Ok(());
    };
    let mut text = format!("{} resident", Size(resident));
    if let Some(peak) = peak.filter(|peak| resident < *peak) {
        text.push_str(&format!(" (peak {})", Size(peak)));
    }
    if let (Some(anon), Some(file), Some(shmem)) = (anon, file, shmem) {
        text.push_str(&format!(
            ": anonymous {}, file {}, shared {}",
            Size(anon),
            Size(file),
            Size(shmem)
        ));
    }
    let mut more = Vec::new();
    let mut say = |bytes: Option<Bytes>, what: &str| {
        if let Some(bytes) = bytes.filter(|bytes| bytes.0 != 0) {
            more.push(format!("{} {what}", Size(bytes)));
        }
    };
    say(
        lazy_free,
        "of it MADV_FREE'd, which the kernel may take back at any time",
    );
    say(
        huge,
        "of it in transparent huge pages, whole ones, touched or not",
    );
    say(locked, "locked");
    say(swap, "swapped out");
    say(
        hugetlb,
        "of hugetlb pages beside it, from a pool of their own",
    );
    let tables = facts.space.as_ref().and_then(|space| space.page_tables);
    say(tables, "of page tables beside it");
    if !more.is_empty() {
        text.push_str(&format!("; {}", more.join("; ")));
    }
    section(page, "memory", &text)
}

fn limits(page: &mut Page<'_>, facts: &Facts) -> io::Result<()> {
    let rows = rows(facts);
    let limited = rows
        .iter()
        .filter(|row| row.value.is_some() || row.level.is_none())
        .filter(|row| row.is_told() || stacks_by(row, facts).is_some());
    let (cgroups, others): (Vec<&Row>, Vec<&Row>) = limited.partition(|row| row.level.is_some());
    let mut title = "limits";
    for row in cgroups.iter().take(LEVELS).chain(&others) {
        let text = limit(row, facts);
        section(page, std::mem::take(&mut title), &text)?;
    }
    let more = cgroups.len().saturating_sub(LEVELS);
    if 0 < more {
        section(
            page,
            title,
            &format!("and {more} more limits of cgroups above"),
        )?;
    }
    if let Some(all) = &facts.cgroup
        && cgroups.is_empty()
        && !all.levels.is_empty()
    {
        let of = match all.levels.len() {
            1 => String::new(),
            more => format!(", and none of the {} above it", more - 1),
        };
        let text = format!("no memory limit: cgroup {} has none{of}", safe(&all.path));
        section(page, title, &text)?;
    }
    Ok(())
}

/// One limit: its value, what it counts, how near.
fn limit(row: &Row, facts: &Facts) -> String {
    let name = limit_name(row, facts);
    let Some(value) = row.value else {
        return format!("{name} unlimited");
    };
    let value = amount(value, row.unit);
    let Some(counted) = row.counted.map(|counted| amount(counted, row.unit)) else {
        return format!("{name} {value}, what it counts is not known");
    };
    match (row.room, row.level, row.decisive) {
        _ if row.limited == Limited::Addresses => {
            let hole = facts.space.as_ref().and_then(|space| space.split.as_ref());
            let hole = hole.and_then(|split| split.largest_hole);
            let hole = hole.map_or("?".to_owned(), |hole| Size(hole).to_string());
            format!("{name} {value}, the largest hole is {hole}{}", near(row))
        }
        _ if row.limited == Limited::Machine => {
            format!(
                "{name} {value}, {counted} taken: {}{}",
                share(row),
                near(row)
            )
        }
        _ if row.limited == Limited::Stack => {
            let threads = stacks_by(row, facts).unwrap_or_default();
            let share = share(row);
            let near = near(row);
            format!("{name} {value}, the main thread's is {counted}: {share}{near}{threads}")
        }
        (Room::NotEnforced, ..) => format!(
            "{name} {value}, {counted} charged on the whole machine: not enforced (overcommit mode {})",
            facts.machine.overcommit.unwrap_or_default()
        ),
        (Room::Unknown, Some(_), _) if facts.subject.source == Source::Trace => {
            format!("{name} {value}, {counted} when the trace began")
        }
        (Room::Unknown, ..) | (_, Some(_), None) => {
            format!("{name} {value}, {counted} counted; what could be taken back is not known")
        }
        (_, Some(_), Some(decisive)) => {
            let decisive = amount(decisive, row.unit);
            let swap = match row.slack {
                0 => String::new(),
                slack => format!(" of it and {} swap", Size(Bytes(slack))),
            };
            let near = near(row);
            format!(
                "{name} {value}, {counted} counted, {decisive} cannot be taken back: {}{swap}{near}",
                share(row)
            )
        }
        _ => format!("{name} {value}, {counted}: {}{}", share(row), near(row)),
    }
}

/// What of the stacks of threads is due to this limit.
fn stacks_by(row: &Row, facts: &Facts) -> Option<String> {
    let limit = Bytes(row.value.filter(|_| row.limited == Limited::Stack)?);
    let split = facts.space.as_ref()?.split.as_ref()?;
    let count = split.stacks_by_limit(limit)?;
    let all = Bytes(limit.0.saturating_mul(count));
    let stacks = match count {
        1 => "other stack is",
        _ => "other stacks are",
    };
    Some(format!(
        "; {} {stacks} as large, glibc's default for threads: {}",
        Count(count),
        Size(all)
    ))
}

fn near(row: &Row) -> &'static str {
    if row.is_near() { ", NEAR" } else { "" }
}

fn cgroup(page: &mut Page<'_>, facts: &Facts, cgroups: &Cgroups) -> io::Result<()> {
    let shown = cgroups.members.as_ref().map_or(0, |members| members.level);
    if let Some(level) = cgroups.levels.get(shown)
        && !cgroups.only_at_begin
        && let Some(text) = counts(level)
    {
        section(page, "cgroup", &format!("{} {text}", safe(&level.path)))?;
    }
    if let Some(members) = &cgroups.members {
        let sum: Bytes = members.list.iter().map(|member| member.anon).sum();
        let count = members.list.len() as u64;
        let mut text = format!(
            "{} {} in it with {} of anonymous memory: ",
            Count(count),
            plural(count, "process", "processes"),
            Size(sum)
        );
        let listed = members.list.iter().take(MEMBERS).map(|member| {
            let this = match member.pid == facts.subject.pid {
                true => " (this one)",
                false => "",
            };
            let (name, pid, anon) = (safe(&member.name), member.pid, Size(member.anon));
            format!("{name} {pid}{this} {anon}")
        });
        let listed: Vec<String> = listed.collect();
        text.push_str(&listed.join(", "));
        if 0 < members.unseen {
            text.push_str(&format!("; {} more cannot be seen", Count(members.unseen)));
        }
        section(page, "", &text)?;
    }
    if !cgroups.only_at_begin {
        section(page, "kills", &kills(facts, cgroups))?;
    }
    Ok(())
}

/// What a cgroup counts, by kind.
fn counts(level: &Level) -> Option<String> {
    let mut text = format!("counts {}", Size(level.counted?));
    if let Some(peak) = level.peak {
        text.push_str(&format!(" (peak {})", Size(peak)));
    }
    let kinds = [
        ("anonymous", level.anon),
        ("page cache", level.cache),
        ("shared and tmpfs", level.shmem),
        ("kernel", level.kernel),
        ("of that page tables", level.page_tables),
        ("of that sockets", level.sock),
        ("swapped", level.swap),
    ];
    let kinds: Vec<String> = kinds
        .iter()
        .filter_map(|(name, bytes)| {
            let bytes = (*bytes)?;
            (bytes.0 != 0).then(|| format!("{name} {}", Size(bytes)))
        })
        .collect();
    if !kinds.is_empty() {
        text.push_str(&format!(": {}", kinds.join(", ")));
    }
    Some(text)
}

/// The kills on record.
fn kills(facts: &Facts, cgroups: &Cgroups) -> String {
    let mut told = Vec::new();
    for level in &cgroups.levels {
        let path = safe(&level.path);
        if let Some(kills @ 1..) = level.oom_kills {
            told.push(format!("{} in {path}", Count(kills)));
        }
        if let Some(met @ 1..) = level.met {
            told.push(format!("limit of {path} met {} times", Count(met)));
        }
    }
    let known = cgroups.levels.iter().any(|level| level.oom_kills.is_some());
    let mut text = match (known, told.is_empty()) {
        (_, false) => format!("out-of-memory kills on record: {}", told.join(", ")),
        (true, true) => "no out-of-memory kill on record in these cgroups".to_owned(),
        (false, true) => "out-of-memory kills of these cgroups are not known".to_owned(),
    };
    if let Some(all) = facts.machine.oom_kills {
        text.push_str(&format!("; {} on the machine since it started", Count(all)));
    }
    text
}

fn write_verdict(page: &mut Page<'_>, facts: &Facts, verdict: &Verdict) -> io::Result<()> {
    page.blank()?;
    page.text(Role::Strong, format_args!("{:<INDENT$}", "verdict"));
    let words = words::headline(verdict).split(' ').map(str::to_owned);
    let mut words: Vec<String> = words.collect();
    words.push(format!("[{}]", verdict.cause.word()));
    page.wrap(INDENT, Role::Strong, " ", &words)?;
    for reason in &verdict.reasons {
        page.line.pad_to(INDENT - 2);
        page.line.push("- ");
        paragraph(page, INDENT, &words::reason(reason, facts))?;
    }
    let mut title = "next";
    for next in &verdict.next {
        section(page, std::mem::take(&mut title), &words::next(next, facts))?;
    }
    Ok(())
}
