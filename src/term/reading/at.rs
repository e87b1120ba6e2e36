//! The mappings at a moment: where, how large, which rights, who made them, what they are.

use std::io::{self, Write};

use crate::abi::Prot;
use crate::mm::Backing;
use crate::report::reading::{How, Made, Mapping, Origin, SpaceThen, Then};
use crate::report::recognize::{Basis, Kind, Recognized};
use crate::report::{Made as What, Maker, Place};
use crate::term::page::Page;
use crate::term::{Count, Elapsed, Role, SIZE_WIDTH, Size, Style, escaped, width_of};
use crate::timeline::Began;
use crate::units::{Bytes, Timestamp};

use super::{mapping_name, name_of, plural, push_name, rights};

/// From this width on the end of a mapping is shown too.
const WITH_END: usize = 64;
/// From this width on who made it.
const WITH_MAKER: usize = 76;
/// From this width on who gave it its rights.
const WITH_RIGHTS: usize = 120;

/// Writes the spaces of `then`, each with its mappings.
pub fn write_at(out: &mut dyn Write, then: &Then, style: &Style) -> io::Result<()> {
    let mut page = Page::new(out, style);
    let time = Elapsed(then.time.0);
    let count = then.spaces.len() as u64;
    let end = if then.last {
        ", the end of the last address space"
    } else {
        ""
    };
    page.text(Role::Strong, format_args!("  at {time}{end}"));
    match count {
        0 => page.line.push(": no address space to show"),
        1 => &mut page.line,
        _ => page
            .line
            .push(&format!(": {} address spaces", Count(count))),
    };
    page.end()?;
    for space in &then.spaces {
        page.blank()?;
        write_space(&mut page, space)?;
    }
    Ok(())
}

fn write_space(page: &mut Page<'_>, space: &SpaceThen) -> io::Result<()> {
    let name = name_of(&space.comm, &space.exe, page.style);
    page.text(Role::Strong, format_args!("  {name}"));
    let all = space.mappings.len() as u64 + space.hidden;
    let mut head = vec![
        format!("pid {}", space.pid),
        format!("{} mapping{}", Count(all), plural(all)),
    ];
    if space.hidden > 0 {
        head.push(format!("{} shown", Count(space.mappings.len() as u64)));
    }
    if space.threads > 1 {
        head.push(format!("{} threads", Count(space.threads)));
    }
    page.line.push("  ");
    page.wrap(4, Role::Plain, ", ", &head)?;
    let totals = &space.totals;
    let mut sums = vec![
        format!("mapped {}", Size(totals.mapped)),
        format!("= reserved {}", Size(totals.reserved)),
        format!("+ committed {}", Size(totals.committed)),
    ];
    if let Some((resident, when)) = space.resident {
        let measured = format!(
            "({} resident, measured at {})",
            Size(resident),
            Elapsed(when.0)
        );
        sums.extend(
            measured
                .split_inclusive(' ')
                .map(|word| word.trim_end().to_owned()),
        );
    }
    page.line.push("  ");
    page.wrap(4, Role::Plain, " ", &sums)?;
    if space.mappings.is_empty() {
        return Ok(());
    }
    let rows: Vec<Texts> = space
        .mappings
        .iter()
        .map(|mapping| Texts::of(mapping, page.width() >= WITH_END, page.style))
        .collect();
    let columns = Columns::fit(&rows, page.width());
    columns.head(page)?;
    for (mapping, texts) in space.mappings.iter().zip(&rows) {
        columns.row(page, mapping, texts)?;
    }
    Ok(())
}

/// The columns of a mapping whose width depends on it.
struct Texts {
    address: String,
    maker: String,
    change: String,
}

impl Texts {
    fn of(mapping: &Mapping, with_end: bool, style: &Style) -> Texts {
        let range = mapping.range;
        Texts {
            address: match with_end {
                true => range.to_string(),
                false => format!("{:x}", range.start().0),
            },
            maker: makers(&mapping.made, style),
            change: changes(&mapping.made),
        }
    }
}

/// Who made a mapping: the first, and how many others there are.
fn makers(made: &[Made], style: &Style) -> String {
    let Some(first) = made.first() else {
        return String::new();
    };
    let mut origins: Vec<u64> = made.iter().map(|made| made.origin.id).collect();
    origins.sort_unstable();
    origins.dedup();
    let earliest = made
        .iter()
        .min_by_key(|made| made.origin.id)
        .unwrap_or(first);
    let mut text = maker(&earliest.origin);
    if let Some(owner) = &earliest.owner {
        text.push(' ');
        text.push_str(&escaped(owner.as_bytes(), style.unicode));
    }
    match origins.len() {
        0 | 1 => text,
        many => format!("{text} +{}", many - 1),
    }
}

fn maker(origin: &Origin) -> String {
    let first = origin.first();
    let text = match first.how {
        How::Began(Began::Exec) => format!("{} exec", Elapsed(first.time.0)),
        How::Began(Began::Fork { .. }) => format!("{} fork", Elapsed(first.time.0)),
        How::Began(Began::Attach) => "there at attach".to_owned(),
        How::Call | How::Grown | How::Found => by_whom(first.time, &first.by),
    };
    match origin.copied {
        Some(_) => format!("{text}, forked"),
        None => text,
    }
}

/// `0.019 s mmap 3745`
fn by_whom(time: Timestamp, by: &Maker) -> String {
    let time = Elapsed(time.0);
    match (&by.what, by.call()) {
        (What::Call(..), Some(call)) => format!("{time} {call} {}", by.tid),
        _ => format!("{time} page faults"),
    }
}

/// Which event gave it its rights, if that was another than what made it; of several the last.
fn changes(made: &[Made]) -> String {
    let changes = made.iter().filter_map(|made| made.change.as_ref());
    let mut changes: Vec<_> = changes.collect();
    changes.sort_by_key(|change| change.by.seq);
    changes.dedup_by_key(|change| change.by.seq);
    match changes.as_slice() {
        [] => String::new(),
        [only] => by_whom(only.time, &only.by),
        [rest @ .., last] => format!("{} +{}", by_whom(last.time, &last.by), rest.len()),
    }
}

/// Where columns begin; those without room have no width.
struct Columns {
    address: usize,
    maker: usize,
    change: usize,
}

impl Columns {
    fn fit(rows: &[Texts], width: usize) -> Columns {
        let widest = |text: fn(&Texts) -> &String, least: usize| {
            let widths = rows.iter().map(|row| width_of(text(row)));
            widths.fold(least, usize::max)
        };
        Columns {
            address: widest(|row| &row.address, 7),
            maker: match width >= WITH_MAKER {
                // Owners have long names: more of them where there is room.
                true => widest(|row| &row.maker, 7).min(32.max(width / 3)),
                false => 0,
            },
            change: match width >= WITH_RIGHTS && rows.iter().any(|row| !row.change.is_empty()) {
                true => widest(|row| &row.change, 9).min(28),
                false => 0,
            },
        }
    }

    fn head(&self, page: &mut Page<'_>) -> io::Result<()> {
        page.line.role(Role::Dim).push("  ").push("address");
        page.line.pad_to(2 + self.address);
        page.line
            .push_right(2 + self.address + 2 + SIZE_WIDTH, "size");
        page.line.push("  rwx ");
        if self.maker > 0 {
            let start = page.line.width() + 2;
            page.line.push("  made by").pad_to(start + self.maker);
        }
        if self.change > 0 {
            let start = page.line.width() + 2;
            page.line.push("  rights by").pad_to(start + self.change);
        }
        page.line.push("  mapping");
        page.end()
    }

    fn row(&self, page: &mut Page<'_>, mapping: &Mapping, texts: &Texts) -> io::Result<()> {
        let role = match mapping.prot.is_empty() {
            true => Role::Reserved,
            false => Role::Committed,
        };
        page.line
            .push("  ")
            .push(&texts.address)
            .pad_to(2 + self.address);
        page.line.role(role);
        let size = Size(Bytes(mapping.range.len()));
        page.line
            .push_right(2 + self.address + 2 + SIZE_WIDTH, size);
        page.line
            .push("  ")
            .push(&rights(mapping.prot, mapping.shared));
        page.line.role(Role::Dim);
        for (width, text) in [(self.maker, &texts.maker), (self.change, &texts.change)] {
            if width > 0 {
                let start = page.line.width() + 2;
                page.line.push("  ").push(text);
                page.line
                    .cut(start + width, page.style)
                    .pad_to(start + width);
            }
        }
        page.line.role(Role::Plain).push("  ");
        let name = name(mapping, page.style);
        let columns = page.width();
        push_name(&mut page.line, &name, columns, page.style);
        page.end()
    }
}

/// What a mapping is, and what else is to be said of it.
fn name(mapping: &Mapping, style: &Style) -> String {
    let mut name = mapping_name(&mapping.place, mapping.name.as_ref(), style);
    if let Backing::File {
        offset: offset @ 1..,
        ..
    } = mapping.backing
    {
        name.push_str(&format!(" @{offset:#x}"));
    }
    let flags = [
        (mapping.flags.noreserve, " noreserve"),
        (mapping.flags.sealed, " sealed"),
        (mapping.flags.hugetlb, " hugetlb"),
    ];
    let set = flags.iter().filter(|(set, _)| *set);
    set.for_each(|(_, word)| name.push_str(word));
    name.push_str(&kinds(mapping));
    name
}

/// What it is beyond what its place says: `, Go heap arenas`.
fn kinds(mapping: &Mapping) -> String {
    if let Backing::File { .. } = mapping.backing {
        // The rights of a segment of data that were taken back once its relocations were done.
        let made_readonly = mapping.prot == Prot::READ
            && mapping.made.iter().all(|made| match &made.change {
                Some(change) => change.by.call().as_deref() == Some("mprotect"),
                None => false,
            });
        let is_library =
            |known: &Recognized| known.kind.owner == "ld.so" || known.kind.owner == "program";
        if made_readonly && mapping.recognized().is_some_and(is_library) {
            return ", relro".to_owned();
        }
    }
    let Some(largest) = mapping.recognized() else {
        return String::new();
    };
    let said_by_its_place = matches!(largest.kind.owner, "process" | "program")
        || matches!(mapping.place, Place::File(_) if largest.kind.owner == "ld.so")
        || matches!(mapping.place, Place::Special(_));
    if said_by_its_place && largest.basis == Basis::File && largest.kind.what != "bss" {
        return String::new();
    }
    let mut others: Vec<&Kind> = mapping
        .made
        .iter()
        .filter_map(|made| Some(&made.recognized.as_ref()?.kind))
        .filter(|kind| **kind != largest.kind)
        .collect();
    others.sort();
    others.dedup();
    let guard = match mapping.prot.is_empty() && largest.kind.what == "thread stacks" {
        true => " (guard)",
        false => "",
    };
    let others: String = others.iter().map(|kind| format!(" + {}", kind)).collect();
    format!(", {}{guard}{others}", largest.kind)
}
