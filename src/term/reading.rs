//! What is asked of a recorded trace beyond the summary, as text.

mod around;
mod at;
mod chain;
mod chart;
mod lives;
mod several;
mod table;
mod tree;
mod who;

#[cfg(test)]
mod tests;

pub use around::write_around;
pub use at::write_at;
pub use chart::write_chart;
pub use lives::write_lives;
pub use several::write_several;
pub use table::write_table;
pub use tree::write_tree;
pub use who::{write_owners, write_stacks};

use std::sync::Arc;

use crate::abi::Prot;
use crate::report::Place;

use super::summary::place_name;
use super::{Line, Style, escaped, shorten, width_of};

/// Columns that a name takes at least.
const LEAST_NAME: usize = 12;

/// What people call a space: the command name, else the file name of the program.
fn name_of(comm: &str, exe: &str, style: &Style) -> String {
    let file = exe.rsplit('/').next().unwrap_or_default();
    let name = match (comm, file) {
        ("", "") => "?",
        ("", file) => file,
        (comm, _) => comm,
    };
    escaped(name.as_bytes(), style.unicode)
}

/// Rights as maps prints them: `rw-p`.
fn rights(prot: Prot, shared: bool) -> String {
    let letter = |flag, letter| if prot.contains(flag) { letter } else { '-' };
    [
        letter(Prot::READ, 'r'),
        letter(Prot::WRITE, 'w'),
        letter(Prot::EXEC, 'x'),
        if shared { 's' } else { 'p' },
    ]
    .iter()
    .collect()
}

/// What one mapping is, with the name that the program gave it.
fn mapping_name(place: &Place, name: Option<&Arc<str>>, style: &Style) -> String {
    let mut text = match place {
        Place::ThreadStack => "thread stack".to_owned(),
        place => place_name(place, style.unicode),
    };
    if let Some(name) = name {
        let name = escaped(name.as_bytes(), style.unicode);
        text.push_str(&format!(" \"{name}\""));
    }
    text
}

/// Appends a name as the last of a line: of a path the middle is left out where there is no room, of
/// other words the end.
fn push_name(line: &mut Line, name: &str, columns: usize, style: &Style) {
    let room = columns.saturating_sub(line.width()).max(LEAST_NAME);
    match style.width {
        Some(_) if name.starts_with('/') && width_of(name) > room => {
            line.push(&shorten(name, room, style));
        }
        _ => {
            line.push(name);
        }
    }
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
