//! Sets of memory calls, as `-e` names them.

use super::{CALLS, CallKind, call_by_name};

/// A set of memory calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSet(u64);

impl CallSet {
    /// No call.
    pub const NONE: CallSet = CallSet(0);

    /// Every memory call.
    pub const ALL: CallSet = {
        let mut bits = 0;
        let mut i = 0;
        while i < CALLS.len() {
            bits |= 1 << CALLS[i].kind as u32;
            i += 1;
        }
        CallSet(bits)
    };

    /// Whether calls of this kind belong to it.
    pub fn contains(self, kind: CallKind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }

    /// With calls of this kind too.
    #[must_use]
    pub fn with(self, kind: CallKind) -> CallSet {
        CallSet(self.0 | 1 << kind as u32)
    }

    /// Reads a set as `-e` takes it, in strace's notation:
    ///
    /// | text | the set |
    /// |------|---------|
    /// | `mmap,munmap` | calls by name (`?name`: no error if there is no such call) |
    /// | `%memory`, `memory` | strace's memory class |
    /// | `all`, `none` | every memory call; none |
    /// | `!SET` | every memory call but these |
    /// | `trace=SET`, `t=SET` | the same as SET |
    ///
    /// # Errors
    ///
    /// One line for the user: what was not understood, and what may have been meant.
    pub fn parse(text: &str) -> Result<CallSet, String> {
        let text = text
            .strip_prefix("trace=")
            .or_else(|| text.strip_prefix("t="))
            .unwrap_or(text);
        if let Some((key, _)) = text.split_once('=') {
            return Err(format!(
                "'{key}=' is not supported: -e takes a set of memory calls (names, %memory, !SET)"
            ));
        }
        let (negated, names) = match text.strip_prefix('!') {
            Some(names) => (true, names),
            None => (false, text),
        };
        let mut bits = 0;
        for name in names.split(',') {
            bits |= one(name.trim())?;
        }
        Ok(CallSet(if negated {
            CallSet::ALL.0 & !bits
        } else {
            bits
        }))
    }
}

/// The calls shown when nothing is asked for: those that are stopped by default, without
/// personality(2), which is watched for READ_IMPLIES_EXEC only.
impl Default for CallSet {
    fn default() -> CallSet {
        CALLS
            .iter()
            .filter(|call| call.default && call.kind != CallKind::Personality)
            .fold(CallSet::NONE, |set, call| set.with(call.kind))
    }
}

fn one(name: &str) -> Result<u64, String> {
    let (name, optional) = match name.strip_prefix('?') {
        Some(name) => (name, true),
        None => (name, false),
    };
    match name {
        "" => return Err("an empty name in the set of calls".to_owned()),
        "all" => return Ok(CallSet::ALL.0),
        "none" => return Ok(0),
        "%memory" | "memory" => {
            let memory = CALLS
                .iter()
                .filter(|call| strace_memory_class(call.kind))
                .fold(CallSet::NONE, |set, call| set.with(call.kind));
            return Ok(memory.0);
        }
        _ => {}
    }
    if name.starts_with('/') {
        return Err(format!(
            "regular expressions are not supported ('{name}'): name the calls, or use %memory"
        ));
    }
    if name.starts_with('!') {
        return Err(format!(
            "'{name}': '!' goes before the whole set, as in '!madvise,brk'"
        ));
    }
    if let Some(class) = name.strip_prefix('%') {
        return Err(format!(
            "there is no class '%{class}' here: the only one is %memory"
        ));
    }
    let bits = call_by_name(name).fold(CallSet::NONE, |set, call| set.with(call.kind));
    if bits != CallSet::NONE || optional {
        return Ok(bits.0);
    }
    if name.parse::<syscalls::x86_64::Sysno>().is_ok()
        || name.parse::<syscalls::x86::Sysno>().is_ok()
    {
        return Err(format!(
            "'{name}' is not a memory call, and memtrace stops at no others"
        ));
    }
    let nearest = CALLS
        .iter()
        .map(|call| call.name)
        .min_by_key(|known| distance(name, known))
        .filter(|known| distance(name, known) <= 1 + name.len() / 4);
    Err(match nearest {
        Some(known) => format!("there is no call '{name}': did you mean '{known}'?"),
        None => format!("there is no call '{name}'"),
    })
}

/// Levenshtein distance: how many letters to insert, drop or replace.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Whether strace's `%memory` holds this call. Of i386 ipc(2) it holds shmat and shmdt, which are
/// kinds of their own once decoded: see [`crate::decode::effective_kind`].
pub fn strace_memory_class(kind: CallKind) -> bool {
    use CallKind::*;
    match kind {
        Mmap | Mmap2 | OldMmap | Munmap | Mremap | Mprotect | PkeyMprotect | Madvise | Brk
        | Mlock | Mlock2 | Munlock | Mlockall | Munlockall | Msync | Mincore | Mbind
        | SetMempolicy | GetMempolicy | SetMempolicyHomeNode | MigratePages | MovePages
        | RemapFilePages | Shmat | Shmdt | IoSetup | IoDestroy | Mseal | MapShadowStack => true,
        PkeyAlloc | PkeyFree | ProcessMadvise | Shmget | Shmctl | Ipc | MemfdCreate
        | MemfdSecret | Userfaultfd | ProcessMrelease | Cachestat | Prctl | ArchPrctl
        | Personality => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_read_as_strace_reads_it() {
        let set = CallSet::parse("mmap,munmap").unwrap();
        assert!(set.contains(CallKind::Mmap) && set.contains(CallKind::OldMmap));
        assert!(set.contains(CallKind::Munmap) && !set.contains(CallKind::Mmap2));
        assert_eq!(CallSet::parse("trace=all"), Ok(CallSet::ALL));
        assert_eq!(CallSet::parse("none"), Ok(CallSet::NONE));
        assert_eq!(CallSet::parse("?nosuch"), Ok(CallSet::NONE));
        let most = CallSet::parse("!madvise,brk").unwrap();
        assert!(!most.contains(CallKind::Madvise) && !most.contains(CallKind::Brk));
        assert!(most.contains(CallKind::Mincore));
        let memory = CallSet::parse("%memory").unwrap();
        assert!(memory.contains(CallKind::Mincore) && !memory.contains(CallKind::MemfdCreate));
        assert_eq!(CallSet::parse("!none"), Ok(CallSet::ALL));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let error = |text| CallSet::parse(text).unwrap_err();
        assert_eq!(
            error("mmmap"),
            "there is no call 'mmmap': did you mean 'mmap'?"
        );
        assert_eq!(
            error("mprotct"),
            "there is no call 'mprotct': did you mean 'mprotect'?"
        );
        assert_eq!(error("frobnicate"), "there is no call 'frobnicate'");
        assert!(error("openat").contains("not a memory call"));
        assert!(error("/mem.*").contains("regular expressions"));
        assert!(error("%desc").contains("%memory"));
        assert!(error("signal=none").contains("'signal='"));
        assert!(error("mmap,!brk").contains("whole set"));
        assert!(error("mmap,").contains("empty name"));
    }

    #[test]
    fn the_default_leaves_out_what_is_seldom_wanted() {
        let set = CallSet::default();
        assert!(set.contains(CallKind::Mmap) && set.contains(CallKind::Prctl));
        assert!(!set.contains(CallKind::Mincore) && !set.contains(CallKind::Personality));
    }

    #[test]
    fn every_kind_has_a_bit() {
        assert!(CALLS.iter().all(|call| (call.kind as u32) < 64));
    }
}
