//! The calls that a limit refused, and which limit it was.

use std::io;

use crate::abi::errno_name;
use crate::report::{Refusals, RefusedCalls, Report};
use crate::term::failure::failure_words;
use crate::term::page::Page;
use crate::term::{Count, Elapsed, Role};

/// Kinds that are listed.
const KINDS: usize = 8;

/// Writes the section, with an empty line before it.
pub(super) fn write(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    let Refusals { kinds, more } = &report.refusals;
    if kinds.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.text(Role::Dim, format_args!("  {:>10}  failed calls", "count"));
    page.end()?;
    for kind in kinds.iter().take(KINDS) {
        let RefusedCalls {
            space,
            call,
            error,
            count,
            first,
            by: _,
            failure,
        } = kind;
        page.line
            .role(Role::Error)
            .push_right(12, Count(*count))
            .push("  ");
        let error = match error {
            Some(errno) => errno_name(*errno).unwrap_or("failed"),
            None => "did not move",
        };
        let whose = match report.spaces.as_slice() {
            [_] => String::new(),
            spaces => {
                let owner = spaces.iter().find(|known| known.id == *space);
                owner.map_or_else(String::new, |owner| format!(" of {}", owner.pid))
            }
        };
        let words = format!(
            "{call} {error}{whose}, first at {}: {}",
            Elapsed(first.0),
            failure_words(failure)
        );
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        page.wrap(14, Role::Plain, " ", &words)?;
    }
    let rest = kinds.iter().skip(KINDS).map(|kind| kind.count);
    let more = rest.fold(*more, u64::saturating_add);
    if 0 < more {
        page.text(Role::Dim, format_args!("  {:>10}  more", Count(more)));
        page.end()?;
    }
    Ok(())
}
