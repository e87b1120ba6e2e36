//! The arguments of each call, and which of them strace prints only when it has returned.

use std::fmt::Write as _;

use crate::abi::{Abi, CallKind, Number, call_info, errno_name, name_of, names};
use crate::decode::{
    Args, Fetched, FetchedData, RESULT, RawCall, SHOWN, ShmCommand, fetched_for, int_at,
    mask_words, memory_for, old_mmap, path_for, shm_command, stored_address, word_at,
};
use crate::units::PAGE;

use super::text::{Hex, Owner, Pointer, descriptor, escape};
use super::values::*;

/// A call and all that is known of its arguments.
pub struct Arguments<'a> {
    args: Args,
    name: &'static str,
    fetched: &'a [Fetched],
}

/// How a return value is shown.
pub enum Returned<'a> {
    /// In decimal.
    Number,
    /// As an address.
    Address(u64),
    /// In hexadecimal, with what it means.
    Described(String),
    /// As a descriptor.
    Descriptor(Option<&'a [u8]>),
}

impl<'a> Arguments<'a> {
    /// The arguments of `raw`.
    pub fn new(raw: &RawCall, fetched: &'a [Fetched]) -> Arguments<'a> {
        let info = call_info(raw.abi, raw.nr);
        let kind = info.map_or(CallKind::Ipc, |info| info.kind);
        let args = Args::of(raw, kind);
        let name = match args.kind {
            CallKind::Shmat => "shmat",
            CallKind::Shmdt => "shmdt",
            CallKind::Shmget => "shmget",
            CallKind::Shmctl => "shmctl",
            _ => info.map_or("syscall", |info| info.name),
        };
        Arguments {
            args,
            name,
            fetched,
        }
    }

    /// The call's name; an operation of ipc(2) goes by its own.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The table its number counts in.
    pub fn abi(&self) -> Abi {
        self.args.abi
    }

    /// How to show a result that is no error.
    pub fn returned(&self, result: i64) -> Returned<'a> {
        match self.args.kind {
            CallKind::Mmap
            | CallKind::Mmap2
            | CallKind::OldMmap
            | CallKind::Mremap
            | CallKind::Brk
            | CallKind::MapShadowStack => Returned::Address(result as u64),
            CallKind::Shmat => match stored_address(&self.args, self.fetched) {
                Some(addr) => Returned::Address(addr.0),
                None => Returned::Address(result as u64),
            },
            CallKind::MemfdCreate | CallKind::MemfdSecret | CallKind::Userfaultfd => {
                Returned::Descriptor(path_for(self.fetched, RESULT, true))
            }
            CallKind::Personality => Returned::Described(personality(result as u32)),
            _ => Returned::Number,
        }
    }

    /// Writes the name and what strace prints when the call enters; true if that is all of it.
    pub fn write_entry(&self, out: &mut String) -> bool {
        let _ = write!(out, "{}(", self.name);
        let [a, b, c, d, e, f] = self.args.args;
        // Writing to a String cannot fail.
        let _ = match self.args.kind {
            CallKind::Mmap => self.mmap(out, self.args.args, f),
            CallKind::Mmap2 => self.mmap(out, self.args.args, f * PAGE),
            CallKind::OldMmap => match old_mmap(self.fetched) {
                Some(args) => self.mmap(out, args, args[5]),
                None => write!(out, "{}", Pointer(a)),
            },
            CallKind::Munmap | CallKind::Mlock | CallKind::Munlock => {
                write!(out, "{}, {b}", Pointer(a))
            }
            CallKind::Mprotect => write!(out, "{}, {b}, {}", Pointer(a), prot(c)),
            CallKind::PkeyMprotect => {
                write!(out, "{}, {b}, {}, {}", Pointer(a), prot(c), d as i32)
            }
            CallKind::PkeyAlloc => {
                let rights = bits(names::PKEY, b, "PKEY_???");
                write!(out, "{}, {rights}", Hex(a))
            }
            CallKind::PkeyFree => write!(out, "{}", a as i32),
            CallKind::Mremap => {
                let flags = bits(names::MREMAP, d, "MREMAP_???");
                let _ = write!(out, "{}, {b}, {c}, {flags}", Pointer(a));
                match d & 3 {
                    3 => write!(out, ", {}", Pointer(e)),
                    _ => Ok(()),
                }
            }
            CallKind::Brk | CallKind::Shmdt | CallKind::IoDestroy => write!(out, "{}", Pointer(a)),
            CallKind::Madvise => write!(out, "{}, {b}, {}", Pointer(a), advice(c)),
            CallKind::ProcessMadvise => {
                self.descriptor(out, 0);
                out.push_str(", ");
                self.array(
                    out,
                    1,
                    b,
                    c,
                    2 * self.args.word(),
                    false,
                    |out, bytes, i| {
                        let base = Pointer(word_at(self.abi(), bytes, 2 * i)?);
                        let len = word_at(self.abi(), bytes, 2 * i + 1)?;
                        write!(out, "{{iov_base={base}, iov_len={len}}}").ok()
                    },
                );
                write!(out, ", {c}, {}, {}", advice(d), Hex(u64::from(e as u32)))
            }
            CallKind::Mlock2 => {
                let flags = bits(names::MLOCK, u64::from(c as u32), "MLOCK_???");
                write!(out, "{}, {b}, {flags}", Pointer(a))
            }
            CallKind::Mlockall => {
                let flags = bits(names::MCL, u64::from(a as u32), "MCL_???");
                write!(out, "{flags}")
            }
            CallKind::Munlockall => Ok(()),
            CallKind::Msync => {
                let flags = bits(names::MS, u64::from(c as u32), "MS_???");
                write!(out, "{}, {b}, {flags}", Pointer(a))
            }
            CallKind::Mincore => {
                let _ = write!(out, "{}, {b}, ", Pointer(a));
                return false;
            }
            CallKind::Mbind => {
                let _ = write!(out, "{}, {b}, {}, ", Pointer(a), policy(c));
                self.mask(out, 3, e, false);
                let flags = bits(names::MBIND, u64::from(f as u32), "MPOL_???");
                write!(out, ", {e}, {flags}")
            }
            CallKind::SetMempolicy => {
                let _ = write!(out, "{}, ", policy(u64::from(a as u32)));
                self.mask(out, 1, c, false);
                write!(out, ", {c}")
            }
            CallKind::GetMempolicy => return false,
            CallKind::SetMempolicyHomeNode => {
                write!(out, "{}, {b}, {c}, {}", Pointer(a), Hex(d))
            }
            CallKind::MigratePages => {
                let _ = write!(out, "{}, {b}, ", a as i32);
                self.mask(out, 2, b, false);
                out.push_str(", ");
                self.mask(out, 3, b, false);
                Ok(())
            }
            CallKind::MovePages => {
                let _ = write!(out, "{}, {b}, ", a as i32);
                self.array(out, 2, c, b, self.args.word(), false, |out, bytes, i| {
                    let page = Pointer(word_at(self.abi(), bytes, i)?);
                    write!(out, "{page}").ok()
                });
                out.push_str(", ");
                self.array(out, 3, d, b, 4, false, |out, bytes, i| {
                    write!(out, "{}", int_at(bytes, i)? as i32).ok()
                });
                out.push_str(", ");
                return false;
            }
            CallKind::RemapFilePages => {
                let _ = write!(out, "{}, {b}, {}, {d}, ", Pointer(a), prot(c));
                map_flags(out, e as u32);
                Ok(())
            }
            CallKind::Shmget => {
                match a as u32 {
                    0 => out.push_str("IPC_PRIVATE"),
                    key => out.push_str(&Hex(u64::from(key)).to_string()),
                }
                let _ = write!(out, ", {b}, ");
                shmget_flags(out, c as u32);
                Ok(())
            }
            CallKind::Shmat => {
                let flags = bits(names::SHMAT, u64::from(c as u32), "SHM_???");
                write!(out, "{}, {}, {flags}", a as i32, Pointer(b))
            }
            CallKind::Shmctl => {
                let _ = write!(out, "{}, ", a as i32);
                let command = u64::from(b as u32);
                if command & IPC_64 != 0 {
                    out.push_str("IPC_64|");
                }
                let command = Number {
                    names: names::SHMCTL,
                    value: command & !IPC_64,
                    unknown: "SHM_???",
                };
                let _ = write!(out, "{command}, ");
                match shm_command(b) {
                    ShmCommand::Set => self.shm_set(out, c),
                    ShmCommand::Other => write!(out, "{}", Pointer(c)),
                    ShmCommand::Stat | ShmCommand::Limits | ShmCommand::Usage => return false,
                }
            }
            CallKind::MemfdCreate => {
                self.string(out, 0, a);
                out.push_str(", ");
                huge_flags(out, names::MFD, b as u32, "MFD_???", "MFD_HUGE_SHIFT");
                Ok(())
            }
            CallKind::MemfdSecret => {
                let flags = bits(names::SECRETMEM, u64::from(a as u32), "");
                write!(out, "{flags}")
            }
            CallKind::Userfaultfd => {
                let flags = bits(names::UFFD, u64::from(a as u32), "UFFD_???");
                write!(out, "{flags}")
            }
            CallKind::Mseal => write!(out, "{}, {b}, {}", Pointer(a), Hex(c)),
            CallKind::MapShadowStack => {
                let flags = bits(names::SHADOW_STACK, c, "SHADOW_STACK_???");
                write!(out, "{}, {b}, {flags}", Pointer(a))
            }
            CallKind::ProcessMrelease => {
                self.descriptor(out, 0);
                write!(out, ", {}", Hex(u64::from(b as u32)))
            }
            CallKind::Cachestat => {
                self.descriptor(out, 0);
                out.push_str(", ");
                self.cachestat_range(out, b);
                out.push_str(", ");
                return false;
            }
            CallKind::IoSetup => {
                let _ = write!(out, "{}, ", a as u32);
                return false;
            }
            CallKind::Prctl => self.prctl(out),
            CallKind::ArchPrctl => {
                let option = Number {
                    names: names::ARCH_PRCTL,
                    value: u64::from(a as u32),
                    unknown: "ARCH_???",
                };
                write!(out, "{option}, {}", Hex(b))
            }
            CallKind::Personality => match a as u32 {
                // The value that only asks.
                u32::MAX => write!(out, "{:#x}", u32::MAX),
                value => write!(out, "{}", personality(value)),
            },
            CallKind::Ipc => {
                let args = self.args.args.map(|arg| Hex(arg).to_string());
                write!(out, "{}", args.join(", "))
            }
        };
        true
    }

    /// Writes the arguments that strace prints when the call has returned.
    pub fn write_exit(&self, out: &mut String, result: i64) {
        let failed = match self.abi() {
            Abi::X86_64 => (-4095..0).contains(&result),
            Abi::I386 => (-4095..0).contains(&(result as i32)),
        };
        let [a, b, c, d, e, f] = self.args.args;
        let _ = match self.args.kind {
            CallKind::Mincore => {
                if failed {
                    let _ = write!(out, "{}", Pointer(c));
                    return;
                }
                let pages = b.div_ceil(PAGE);
                self.array(out, 2, c, pages, 1, true, |out, bytes, i| {
                    write!(out, "{}", bytes.get(i)? & 1).ok()
                });
                Ok(())
            }
            CallKind::GetMempolicy => {
                match memory_for(self.fetched, 0, true).and_then(|bytes| int_at(bytes, 0)) {
                    Some(mode) if !failed => {
                        let mode = Number {
                            names: names::MPOL,
                            value: u64::from(mode),
                            unknown: "MPOL_???",
                        };
                        let _ = write!(out, "[{mode}], ");
                    }
                    _ => {
                        let _ = write!(out, "{}, ", Pointer(a));
                    }
                }
                self.mask(out, 1, c, true);
                let flags = bits(names::GET_MEMPOLICY, e, "MPOL_???");
                write!(out, ", {c}, {}, {flags}", Pointer(d))
            }
            CallKind::MovePages => {
                self.array(out, 4, e, b, 4, true, |out, bytes, i| {
                    let status = int_at(bytes, i)? as i32;
                    match status.checked_neg().and_then(errno_name) {
                        Some(name) => write!(out, "-{name}").ok(),
                        None => write!(out, "{status}").ok(),
                    }
                });
                let flags = bits(names::MOVE_PAGES, u64::from(f as u32), "MPOL_???");
                write!(out, ", {flags}")
            }
            CallKind::Shmctl => {
                let arg = self.args.raw_index(2);
                let bytes = memory_for(self.fetched, arg, true).filter(|_| !failed);
                let text = bytes.and_then(|bytes| match shm_command(b) {
                    ShmCommand::Stat => shmid(self.abi(), bytes),
                    ShmCommand::Limits => fields(&SHMINFO, |i| word_at(self.abi(), bytes, i)),
                    // An int comes first, which a long's alignment follows.
                    ShmCommand::Usage => fields(&SHM_INFO, |i| match i {
                        0 => int_at(bytes, 0).map(u64::from),
                        _ => word_at(self.abi(), bytes, i),
                    }),
                    ShmCommand::Set | ShmCommand::Other => None,
                });
                match text {
                    Some(text) => write!(out, "{text}"),
                    None => write!(out, "{}", Pointer(c)),
                }
            }
            CallKind::Cachestat => {
                let bytes = memory_for(self.fetched, 2, true).filter(|_| !failed);
                let text =
                    bytes.and_then(|bytes| fields(&CACHESTAT, |i| word_at(Abi::X86_64, bytes, i)));
                let _ = match text {
                    Some(text) => write!(out, "{text}"),
                    None => write!(out, "{}", Pointer(c)),
                };
                write!(out, ", {}", Hex(u64::from(d as u32)))
            }
            CallKind::IoSetup => {
                let bytes = memory_for(self.fetched, 1, true).filter(|_| !failed);
                match bytes.and_then(|bytes| word_at(self.abi(), bytes, 0)) {
                    Some(context) => write!(out, "[{}]", Hex(context)),
                    None => write!(out, "{}", Pointer(b)),
                }
            }
            // All of it was known at the entry.
            _ => Ok(()),
        };
    }

    fn mmap(&self, out: &mut String, args: [u64; 6], offset: u64) -> std::fmt::Result {
        let [addr, len, protection, flags, number, _] = args;
        write!(out, "{}, {len}, {}, ", Pointer(addr), prot(protection))?;
        map_flags(out, flags as u32);
        let path = path_for(self.fetched, 4, false);
        write!(
            out,
            ", {}, {}",
            descriptor(number as i32, path),
            Hex(offset)
        )
    }

    fn descriptor(&self, out: &mut String, arg: u8) {
        let number = self.args.at(arg as usize) as i32;
        out.push_str(&descriptor(number, path_for(self.fetched, arg, false)));
    }

    /// An array of `count` elements of `size` bytes at `addr`, as far as it is shown and could be
    /// read. `write` is given all that was read and the number of one element.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call a line, read side by side"
    )]
    fn array(
        &self,
        out: &mut String,
        arg: u8,
        addr: u64,
        count: u64,
        size: u64,
        at_exit: bool,
        write: impl Fn(&mut String, &[u8], usize) -> Option<()>,
    ) {
        let end = count
            .checked_mul(size)
            .and_then(|len| addr.checked_add(len));
        let bytes = memory_for(self.fetched, arg, at_exit).unwrap_or_default();
        let whole = bytes.len() as u64 / size;
        if addr == 0 || end.is_none() || (0 < count && whole == 0) {
            let _ = write!(out, "{}", Pointer(addr));
            return;
        }
        let shown = count.min(SHOWN as u64);
        out.push('[');
        for i in 0..shown {
            if 0 < i {
                out.push_str(", ");
            }
            if whole <= i || write(out, bytes, i as usize).is_none() {
                let _ = write!(out, "... /* {:#x} */]", addr + i * size);
                return;
            }
        }
        if shown < count {
            out.push_str(", ...");
        }
        out.push(']');
    }

    /// A node mask of `maxnode` bits.
    fn mask(&self, out: &mut String, arg: u8, maxnode: u64, at_exit: bool) {
        let addr = self.args.at(arg as usize);
        let words = mask_words(self.abi(), maxnode);
        if words == 0 && maxnode != 0 {
            let _ = write!(out, "{}", Pointer(addr));
            return;
        }
        let word = self.args.word();
        self.array(out, arg, addr, words, word, at_exit, |out, bytes, i| {
            let width = 2 * word as usize;
            match word_at(self.abi(), bytes, i)? {
                // As `%#016lx` does: no 0x before a zero.
                0 => write!(out, "{:0width$}", 0).ok(),
                bits => write!(out, "{bits:#0width$x}").ok(),
            }
        });
    }

    fn string(&self, out: &mut String, arg: u8, addr: u64) {
        let shown = match fetched_for(self.fetched, arg, false) {
            // Cut off by memory that cannot be read: strace shows no part of it.
            Some(FetchedData::String { bytes, truncated }) if !truncated || SHOWN < bytes.len() => {
                bytes
            }
            _ => {
                let _ = write!(out, "{}", Pointer(addr));
                return;
            }
        };
        let (part, more) = match shown.get(..SHOWN) {
            Some(part) if SHOWN < shown.len() => (part, "..."),
            _ => (&shown[..], ""),
        };
        let _ = write!(out, "\"{}\"{more}", escape(part, b""));
    }

    fn shm_set(&self, out: &mut String, addr: u64) -> std::fmt::Result {
        let bytes = memory_for(self.fetched, self.args.raw_index(2), false);
        match bytes.and_then(|bytes| Permissions::read(self.abi(), bytes)) {
            Some(Permissions { uid, gid, mode, .. }) => {
                let (uid, gid) = (Owner(uid), Owner(gid));
                write!(
                    out,
                    "{{shm_perm={{uid={uid}, gid={gid}, mode={}}}}}",
                    Mode(mode)
                )
            }
            None => write!(out, "{}", Pointer(addr)),
        }
    }

    fn cachestat_range(&self, out: &mut String, addr: u64) {
        let bytes = memory_for(self.fetched, 1, false).unwrap_or_default();
        let _ = match (
            word_at(Abi::X86_64, bytes, 0),
            word_at(Abi::X86_64, bytes, 1),
        ) {
            (Some(off), Some(len)) => write!(out, "{{off={}, len={len}}}", Hex(off)),
            _ => write!(out, "{}", Pointer(addr)),
        };
    }

    fn prctl(&self, out: &mut String) -> std::fmt::Result {
        let [option, b, c, d, e, _] = self.args.args;
        let name = Number {
            names: names::PRCTL,
            value: u64::from(option as u32),
            unknown: "PR_???",
        };
        write!(out, "{name}, ")?;
        match name_of(names::PRCTL, name.value) {
            Some("PR_SET_VMA") if b == 0 => {
                write!(out, "PR_SET_VMA_ANON_NAME, {}, {d}, ", Pointer(c))?;
                self.string(out, 4, e);
                return Ok(());
            }
            Some("PR_SET_VMA") => {
                let attribute = Number {
                    names: names::PR_SET_VMA,
                    value: b,
                    unknown: "PR_SET_VMA_???",
                };
                write!(out, "{attribute}")?;
            }
            Some("PR_SET_MM") => {
                let field = Number {
                    names: names::PR_SET_MM,
                    value: b,
                    unknown: "PR_SET_MM_???",
                };
                write!(out, "{field}")?;
            }
            Some("PR_SET_THP_DISABLE") => write!(out, "{b}")?,
            _ => write!(out, "{}", Hex(b))?,
        }
        write!(out, ", {}, {}, {}", Hex(c), Hex(d), Hex(e))
    }
}
