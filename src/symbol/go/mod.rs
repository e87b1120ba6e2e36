//! What the Go runtime knows of its own functions: `.gopclntab`.
//!
//! Every Go program holds that table, stripped or not, because the runtime itself unwinds by it. It
//! tells, for each address of Go code, assembly included, how far the return address is from the
//! stack pointer, which function, file and line it is, and what was inlined there.
//!
//! [`locate`] finds the table in a file; [`PclnTab`] reads it. Formats: Go 1.2, 1.16, 1.18 and 1.20
//! (the runtime's symtab.go; cmd/link's pcln.go). All bytes are believed to be hostile: what does
//! not fit is not told.

mod function;
mod locate;
mod pclntab;
mod read;

pub use function::{Function, GoFrame};
pub use locate::{Location, locate};
pub use pclntab::PclnTab;
