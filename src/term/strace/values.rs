//! How strace writes flags and structures.

use std::fmt::Write as _;

use crate::abi::{Abi, Bits, Names, Number, name_of, names};
use crate::decode::{int_at, word_at};

use super::text::Owner;

/// IPC_64: the command is about the wider structures. i386 only; elsewhere it is an error.
pub(super) const IPC_64: u64 = 0x100;

pub(super) fn bits(names: &'static Names, value: u64, unknown: &'static str) -> Bits {
    Bits {
        names,
        value,
        unknown,
    }
}

pub(super) fn prot(value: u64) -> Bits {
    bits(names::PROT, value, "PROT_???")
}

pub(super) fn advice(value: u64) -> Number {
    Number {
        names: names::MADV,
        value: u64::from(value as u32),
        unknown: "MADV_???",
    }
}

/// A NUMA policy and its flags.
pub(super) fn policy(mode: u64) -> String {
    let known = names::MPOL_MODE_FLAGS
        .iter()
        .fold(0, |all, entry| all | entry.0);
    let (flags, base) = (mode & known, mode & !known);
    let number = Number {
        names: names::MPOL,
        value: base,
        unknown: "MPOL_???",
    };
    if flags == 0 {
        return number.to_string();
    }
    match name_of(names::MPOL, base) {
        Some(name) => {
            let flags = bits(names::MPOL_MODE_FLAGS, flags, "MPOL_???");
            format!("{name}|{flags}")
        }
        None => bits(names::MPOL_MODE_FLAGS, mode, "MPOL_???").to_string(),
    }
}

pub(super) const HUGE_BITS: u32 = 0x3f << names::HUGE_SHIFT;

pub(super) fn map_flags(out: &mut String, flags: u32) {
    let kind = Number {
        names: names::MAP_TYPE,
        value: u64::from(flags & 0xf),
        unknown: "MAP_???",
    };
    let _ = write!(out, "{kind}");
    let rest = flags & !0xf & !HUGE_BITS;
    if rest != 0 {
        let _ = write!(out, "|{}", bits(names::MAP, u64::from(rest), ""));
    }
    let huge = (flags & HUGE_BITS) >> names::HUGE_SHIFT;
    if huge != 0 {
        let _ = write!(out, "|{huge}<<MAP_HUGE_SHIFT");
    }
}

/// Flags with the size of a huge page in their highest bits.
pub(super) fn huge_flags(
    out: &mut String,
    names: &'static Names,
    flags: u32,
    unknown: &'static str,
    shift: &str,
) {
    let rest = flags & !HUGE_BITS;
    let huge = (flags & HUGE_BITS) >> names::HUGE_SHIFT;
    if rest != 0 || huge == 0 {
        let _ = write!(out, "{}", bits(names, u64::from(rest), unknown));
    }
    if huge != 0 {
        let separator = if rest == 0 { "" } else { "|" };
        let _ = write!(out, "{separator}{huge}<<{shift}");
    }
}

pub(super) fn shmget_flags(out: &mut String, flags: u32) {
    let mode = Mode(flags & 0o777);
    if flags & !0o777 != 0 {
        let flags = flags & !0o777;
        huge_flags(out, names::SHMGET, flags, "", "SHM_HUGE_SHIFT");
        out.push('|');
    }
    let _ = write!(out, "{mode}");
}

/// A file mode in at least three octal digits.
pub(super) struct Mode(pub(super) u32);

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0..=0o77 => write!(f, "{:03o}", self.0),
            mode => write!(f, "0{mode:o}"),
        }
    }
}

pub(super) fn personality(value: u32) -> String {
    let domain = Number {
        names: names::PERSONALITY,
        value: u64::from(value & 0xff),
        unknown: "PER_???",
    };
    let flags = u64::from(value & !0xff);
    match flags {
        0 => domain.to_string(),
        _ => format!("{domain}|{}", bits(names::PERSONALITY_FLAGS, flags, "")),
    }
}

/// `struct ipc64_perm`, of which i386 and x86-64 lay out all but the mode alike.
pub(super) struct Permissions {
    key: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    cuid: u32,
    cgid: u32,
    pub(super) mode: u32,
}

impl Permissions {
    pub(super) fn read(abi: Abi, bytes: &[u8]) -> Option<Permissions> {
        let mode = int_at(bytes, 5)?;
        Some(Permissions {
            key: int_at(bytes, 0)?,
            uid: int_at(bytes, 1)?,
            gid: int_at(bytes, 2)?,
            cuid: int_at(bytes, 3)?,
            cgid: int_at(bytes, 4)?,
            mode: match abi {
                Abi::X86_64 => mode,
                Abi::I386 => mode & 0xffff,
            },
        })
    }
}

/// `struct shmid64_ds`, whose fields each table lays out in its own way: `asm-generic/shmbuf.h` and
/// x86's `shmbuf.h`. ipc(2) without IPC_64 fills the older, narrower structure; strace reads that as
/// this one all the same.
pub(super) fn shmid(abi: Abi, bytes: &[u8]) -> Option<String> {
    let perm = Permissions::read(abi, bytes)?;
    let word = |index| word_at(abi, bytes, index);
    let [size, atime, dtime, ctime] = match abi {
        Abi::X86_64 => [word(6)?, word(7)?, word(8)?, word(9)?],
        Abi::I386 => {
            let time = |low, high| Some(word(low)? | word(high)? << 32);
            [word(9)?, time(10, 11)?, time(12, 13)?, time(14, 15)?]
        }
    };
    let (cpid, lpid, attached) = match abi {
        Abi::X86_64 => (int_at(bytes, 20)?, int_at(bytes, 21)?, word(11)?),
        Abi::I386 => (int_at(bytes, 16)?, int_at(bytes, 17)?, word(18)?),
    };
    let Permissions {
        key,
        uid,
        gid,
        cuid,
        cgid,
        mode,
    } = perm;
    Some(format!(
        "{{shm_perm={{uid={}, gid={}, mode={}, key={}, cuid={}, cgid={}}}, shm_segsz={size}, \
         shm_cpid={}, shm_lpid={}, shm_nattch={attached}, shm_atime={}, shm_dtime={}, shm_ctime={}}}",
        Owner(uid),
        Owner(gid),
        Mode(mode),
        key as i32,
        Owner(cuid),
        Owner(cgid),
        cpid as i32,
        lpid as i32,
        atime as i64,
        dtime as i64,
        ctime as i64,
    ))
}

pub(super) const SHMINFO: [&str; 5] = ["shmmax", "shmmin", "shmmni", "shmseg", "shmall"];

pub(super) const SHM_INFO: [&str; 6] = [
    "used_ids",
    "shm_tot",
    "shm_rss",
    "shm_swp",
    "swap_attempts",
    "swap_successes",
];

pub(super) const CACHESTAT: [&str; 5] = [
    "nr_cache",
    "nr_dirty",
    "nr_writeback",
    "nr_evicted",
    "nr_recently_evicted",
];

pub(super) fn fields(names: &[&str], value: impl Fn(usize) -> Option<u64>) -> Option<String> {
    let mut out = String::from("{");
    for (i, name) in names.iter().enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        let _ = write!(out, "{separator}{name}={}", value(i)?);
    }
    out.push('}');
    Some(out)
}
