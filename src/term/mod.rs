//! How people see a trace: the live timeline and the summary, as text.
//!
//! A renderer gets exact numbers and a [`Style`], writes to any `Write`, and knows nothing of
//! terminals. Whatever came from a tracee goes through [`escape`] on its way out.

mod bytes;
mod check;
mod diff;
mod escape;
mod explain;
mod failure;
mod line;
mod names;
mod page;
mod pretty;
mod reading;
mod stack;
pub mod strace;
mod style;
mod summary;

pub use bytes::{Count, Duration, Elapsed, Percent, SIZE_WIDTH, Size};
pub use check::why_broken;
pub use diff::{words, write_diff};
pub use escape::{escape, escaped};
pub use explain::{next_words, reason_words, write_explanation};
pub use line::{Line, shorten, width_of};
pub use names::{ErrorName, SignalName};
pub use pretty::Pretty;
pub use reading::{
    write_around, write_at, write_chart, write_lives, write_owners, write_several, write_stacks,
    write_table, write_tree,
};
pub use stack::StackView;
pub use style::{ColorChoice, Painted, Role, Style};
pub use summary::write_summary;
