//! The second way to observe: the kernel's tracepoints, read from rings through
//! perf_event_open(2). Nothing stops but for a moment when watching begins and when it ends.
//!
//! ```text
//!  one ring per CPU ──► rings.rs: in order of time ──► observer.rs ──► Observations, as the
//!                          record.rs: bytes to values     │ tasks.rs  births, execs, ends
//!  /proc/PID/maps ───────────────────────────────────────►│ calls.rs  calls, order.rs
//!                                                         │ looks.rs  whole maps, picture.rs
//!                                                         │ loss.rs   what was lost, census.rs
//!                                                         │ reasons.rs  what refused a call
//!                                                         │ resident.rs  --resident
//!  taskstats ────────────────────────────────────────────►│ books.rs  the kernel's own peaks
//!                                                         │ begin.rs, end.rs, with stop.rs
//! ```
//!
//! What a stop would show and a record does not: memory behind pointers, which is left unread, since
//! it may have changed when a record arrives. What a file mapping shows, the kernel's own record of
//! the mapping tells (PERF_RECORD_MMAP2): that of the very call, not of a descriptor that may be
//! closed by now.
//!
//! Records that come faster than they can be told are kept up to a limit; beyond it calls are counted
//! rather than told (as lost, and the maps put it right). So they are when watching ends, after a time:
//! nobody waits for memtrace to catch up.
//!
//! A whole map is read while the program runs, and counts only if no layout-changing call of its
//! space was in flight between the begin and the end of reading, which the records show soon after.

mod begin;
mod books;
mod calls;
mod census;
mod end;
mod looks;
mod loss;
mod observer;
mod order;
mod picture;
mod rate;
mod reasons;
mod record;
mod resident;
mod rings;
mod state;
mod stop;
mod stream;
mod table;
mod tasks;
mod tracefs;

pub use observer::KernelObserver;
pub use rings::Rings;
pub(super) use rings::available;
pub use tracefs::Wanted;
