//! The model against truths it did not compute: lines of strace in, lines of maps out; a page array
//! that does every change page by page; totals against a recount.

mod calls;
mod charges;
mod comparison;
mod pages;
mod strace;
mod text;
