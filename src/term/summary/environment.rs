//! What bounded the program, and which runtime it was: a line each, only where there is something
//! to say.

use std::io;

use crate::report::Report;
use crate::term::page::Page;
use crate::term::{Role, Size, escaped};
use crate::timeline::{Bound, Cgroup, Environment, Limit};

/// Versions that are named.
const VERSIONS: usize = 4;

/// Writes the lines, with an empty one before them.
pub(super) fn write(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    let unicode = page.style.unicode;
    let lines = [
        ("versions", versions(report, unicode)),
        ("limits", limits(report, unicode)),
    ];
    let mut before = false;
    for (title, pieces) in lines.iter().filter(|(_, pieces)| !pieces.is_empty()) {
        if !std::mem::replace(&mut before, true) {
            page.blank()?;
        }
        page.text(Role::Dim, format_args!("  {title:<10}"));
        page.wrap(12, Role::Plain, ", ", pieces)?;
    }
    Ok(())
}

/// `go1.25.5 (server)`, of the files that state a version.
fn versions(report: &Report, unicode: bool) -> Vec<String> {
    let stated = report.files.iter().filter_map(|file| {
        let version = file.seen.version.as_deref()?;
        let name = file.seen.path.rsplit('/').next().unwrap_or_default();
        let escaped = |text: &str| escaped(text.as_bytes(), unicode);
        Some(format!("{} ({})", escaped(version), escaped(name)))
    });
    let mut pieces: Vec<String> = stated.clone().take(VERSIONS).collect();
    let more = stated.count().saturating_sub(VERSIONS);
    if 0 < more {
        pieces.push(format!("{more} more"));
    }
    pieces
}

/// What is less than without limits.
fn limits(report: &Report, unicode: bool) -> Vec<String> {
    let Environment { limits, cgroup, .. } = &report.info.environment;
    let mut pieces = Vec::new();
    let mut say = |name: &str, bound: Option<Bound>| {
        if let Some(bytes) = bound.and_then(Bound::bytes) {
            pieces.push(format!("{name} {}", Size(bytes)));
        }
    };
    let soft = |limit: Option<Limit>| limit.map(|limit| limit.soft);
    say("RLIMIT_AS", soft(limits.address_space));
    say("RLIMIT_DATA", soft(limits.data));
    if let Some(cgroup) = cgroup {
        let Cgroup {
            version,
            path,
            high,
            swap_max,
            lowest_max,
            ..
        } = cgroup;
        let max = match version {
            1 => "memory.limit_in_bytes",
            _ => "memory.max",
        };
        let path = escaped(path.as_bytes(), unicode);
        say(&format!("{max} of cgroup {path}"), *lowest_max);
        say("memory.high", *high);
        say("memory.swap.max", *swap_max);
    }
    if report.info.overcommit == 2 {
        pieces.push("strict overcommit".to_owned());
    }
    pieces
}
