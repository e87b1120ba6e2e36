//! Why a call was refused, in words: no more than is proven, candidates as candidates.

use crate::timeline::{Amounts, Cause, Failure, Limiter};
use crate::units::Bytes;

use super::{Count, Size};

/// Candidates that are named in a line; JSON holds them all.
const CANDIDATES: usize = 4;

/// `RLIMIT_AS 64.0 MiB: 10.0 MiB mapped + 100.0 MiB asked, 46.0 MiB over`; candidates begin with
/// `perhaps`.
pub(super) fn failure_words(failure: &Failure) -> String {
    if let (true, [only]) = (failure.proven, failure.causes.as_slice()) {
        return cause_words(only);
    }
    let words: Vec<String> = failure.causes.iter().map(cause_words).collect();
    let shown = words.get(..CANDIDATES).unwrap_or(&words);
    let more = match words.len() - shown.len() {
        0 => String::new(),
        more => format!(", or {more} more"),
    };
    format!("perhaps {}{more}", shown.join(", or "))
}

fn cause_words(cause: &Cause) -> String {
    let Cause { what, amounts } = cause;
    let size = |bytes: u64| Size(Bytes(bytes));
    match amounts {
        None => bare(*what),
        Some(amounts) => {
            let Amounts { limit, used, asked } = *amounts;
            let over = amounts.over();
            let against = |name: &str, use_of: &str| {
                let (limit, used, over) = (size(limit), size(used), size(over));
                match asked {
                    0 => format!("{name} {limit}: {used} {use_of}, {over} over"),
                    asked => format!(
                        "{name} {limit}: {used} {use_of} + {} asked, {over} over",
                        size(asked)
                    ),
                }
            };
            match what {
                Limiter::AddressSpace => against("RLIMIT_AS", "mapped"),
                Limiter::Data => against("RLIMIT_DATA", "data"),
                Limiter::Locked if limit == 0 => "RLIMIT_MEMLOCK 0, and no CAP_IPC_LOCK".to_owned(),
                Limiter::Locked => against("RLIMIT_MEMLOCK", "locked"),
                Limiter::CommitLimit => against("commit limit", "committed"),
                Limiter::Overcommit => format!(
                    "overcommit: {} asked at once, memory and swap are {}, {} over",
                    size(asked),
                    size(limit),
                    size(over)
                ),
                Limiter::MapCount => {
                    let limit = Count(limit);
                    format!("vm.max_map_count {limit}: {} mappings", Count(used))
                }
                Limiter::NoRoom => format!(
                    "no room: {} asked, the largest gap is {}",
                    size(asked),
                    size(limit)
                ),
                Limiter::HugePages => {
                    format!("huge pages: {} asked, {} free", size(asked), size(limit))
                }
                other => bare(*other),
            }
        }
    }
}

fn bare(what: Limiter) -> String {
    match what {
        Limiter::AddressSpace => "RLIMIT_AS".to_owned(),
        Limiter::Data => "RLIMIT_DATA".to_owned(),
        Limiter::Locked => "RLIMIT_MEMLOCK".to_owned(),
        Limiter::Overcommit => "overcommit".to_owned(),
        Limiter::CommitLimit => "the commit limit".to_owned(),
        Limiter::MapCount => "vm.max_map_count".to_owned(),
        Limiter::Sealed(at) => format!("sealed by mseal at {at}"),
        Limiter::NotMapped(at) => format!("nothing is mapped at {at}"),
        Limiter::NoRoom => "no room in the address space".to_owned(),
        Limiter::InTheWay(at) => format!("no room: the mapping at {at} is in the way"),
        Limiter::BeyondTheEnd => "beyond the end of the address space".to_owned(),
        Limiter::MinAddr => "below vm.mmap_min_addr".to_owned(),
        Limiter::HugePages => "too few free huge pages".to_owned(),
        Limiter::Pages => "pages that cannot be brought in".to_owned(),
        Limiter::NoExec => "a file system mounted noexec".to_owned(),
        Limiter::FileSeal => "a file sealed against writing".to_owned(),
        Limiter::Privilege => "no CAP_SYS_ADMIN".to_owned(),
        Limiter::SecurityModule => "a security module".to_owned(),
        Limiter::Driver => "the file's driver".to_owned(),
        Limiter::KernelMemory => "no memory for the kernel's own records".to_owned(),
    }
}
