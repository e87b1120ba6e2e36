//! The arguments of a call, named and typed, as JSON.
//!
//! Addresses are hex strings, sizes and counts integers, flags their names joined by `|`. Nothing
//! is lost: bits without a name stay as a number, and bytes that are not UTF-8 are escaped.

use serde_json::{Map, Value, json};

use crate::abi::{Bits, CallKind, Names, name_of, names};
use crate::decode::{
    Args, Fetched, FetchedData, RawCall, effective_kind, fetched_for, old_mmap, path_for,
};

/// What an argument means.
#[derive(Clone, Copy)]
enum Param {
    /// An address in the tracee.
    Addr,
    /// Bytes, a count, an offset: an unsigned integer.
    Size,
    /// A C int.
    Int,
    /// A C unsigned int.
    Uint,
    /// Bits by name, a long wide.
    Bits(&'static Names),
    /// Bits by name, an int wide.
    Bits32(&'static Names),
    /// One number by name.
    Number(&'static Names),
    /// A descriptor, with where it is open on as a field beside it.
    Fd,
    /// A string in the tracee.
    Text,
    /// mmap's flags: a type, bits, and the size of a huge page.
    MapFlags,
    /// Bits with the size of a huge page in the highest ones.
    Huge(&'static Names),
    /// A NUMA policy and its flags.
    Policy,
    /// A personality: a number and bits.
    Personality,
    /// Bits nobody has named.
    Hex,
}

type Params = &'static [(&'static str, Param)];

const RANGE: [(&str, Param); 2] = [("addr", Param::Addr), ("length", Param::Size)];
const PROT: (&str, Param) = ("prot", Param::Bits(names::PROT));
const MMAP: Params = &[
    RANGE[0],
    RANGE[1],
    PROT,
    ("flags", Param::MapFlags),
    ("fd", Param::Fd),
    ("offset", Param::Size),
];

/// The arguments of each call, in order.
fn params(kind: CallKind) -> Params {
    use Param::*;
    match kind {
        CallKind::Mmap | CallKind::OldMmap => MMAP,
        // In pages of 4096.
        CallKind::Mmap2 => &[
            RANGE[0],
            RANGE[1],
            PROT,
            ("flags", MapFlags),
            ("fd", Fd),
            ("pgoffset", Size),
        ],
        CallKind::Munmap | CallKind::Mlock | CallKind::Munlock => &RANGE,
        CallKind::Mremap => &[
            ("old_address", Addr),
            ("old_size", Size),
            ("new_size", Size),
            ("flags", Bits(names::MREMAP)),
            ("new_address", Addr),
        ],
        CallKind::Mprotect => &[RANGE[0], RANGE[1], PROT],
        CallKind::PkeyMprotect => &[RANGE[0], RANGE[1], PROT, ("pkey", Int)],
        CallKind::PkeyAlloc => &[("flags", Hex), ("access_rights", Bits(names::PKEY))],
        CallKind::PkeyFree => &[("pkey", Int)],
        CallKind::Madvise => &[RANGE[0], RANGE[1], ("advice", Number(names::MADV))],
        CallKind::ProcessMadvise => &[
            ("pidfd", Fd),
            ("iovec", Addr),
            ("vlen", Size),
            ("advice", Number(names::MADV)),
            ("flags", Hex),
        ],
        CallKind::Brk | CallKind::Shmdt => &[("addr", Addr)],
        CallKind::Mlock2 => &[RANGE[0], RANGE[1], ("flags", Bits32(names::MLOCK))],
        CallKind::Mlockall => &[("flags", Bits32(names::MCL))],
        CallKind::Munlockall => &[],
        CallKind::Msync => &[RANGE[0], RANGE[1], ("flags", Bits32(names::MS))],
        CallKind::Mincore => &[RANGE[0], RANGE[1], ("vec", Addr)],
        CallKind::Mbind => &[
            RANGE[0],
            RANGE[1],
            ("mode", Policy),
            ("nodemask", Addr),
            ("maxnode", Size),
            ("flags", Bits32(names::MBIND)),
        ],
        CallKind::SetMempolicy => &[("mode", Policy), ("nodemask", Addr), ("maxnode", Size)],
        CallKind::GetMempolicy => &[
            ("mode", Addr),
            ("nodemask", Addr),
            ("maxnode", Size),
            ("addr", Addr),
            ("flags", Bits(names::GET_MEMPOLICY)),
        ],
        CallKind::SetMempolicyHomeNode => {
            &[RANGE[0], RANGE[1], ("home_node", Size), ("flags", Hex)]
        }
        CallKind::MigratePages => &[
            ("pid", Int),
            ("maxnode", Size),
            ("old_nodes", Addr),
            ("new_nodes", Addr),
        ],
        CallKind::MovePages => &[
            ("pid", Int),
            ("count", Size),
            ("pages", Addr),
            ("nodes", Addr),
            ("status", Addr),
            ("flags", Bits32(names::MOVE_PAGES)),
        ],
        CallKind::RemapFilePages => &[
            RANGE[0],
            RANGE[1],
            PROT,
            ("pgoff", Size),
            ("flags", MapFlags),
        ],
        CallKind::Shmget => &[
            ("key", Hex),
            ("size", Size),
            ("shmflg", Huge(names::SHMGET)),
        ],
        CallKind::Shmat => &[
            ("shmid", Int),
            ("shmaddr", Addr),
            ("shmflg", Bits32(names::SHMAT)),
        ],
        CallKind::Shmctl => &[("shmid", Int), ("op", Number(names::SHMCTL)), ("buf", Addr)],
        CallKind::MemfdCreate => &[("name", Text), ("flags", Huge(names::MFD))],
        CallKind::MemfdSecret => &[("flags", Bits32(names::SECRETMEM))],
        CallKind::Userfaultfd => &[("flags", Bits32(names::UFFD))],
        CallKind::Mseal => &[RANGE[0], RANGE[1], ("flags", Hex)],
        CallKind::MapShadowStack => &[RANGE[0], RANGE[1], ("flags", Bits32(names::SHADOW_STACK))],
        CallKind::ProcessMrelease => &[("pidfd", Fd), ("flags", Hex)],
        CallKind::Cachestat => &[
            ("fd", Fd),
            ("range", Addr),
            ("cachestat", Addr),
            ("flags", Hex),
        ],
        CallKind::IoSetup => &[("nr_events", Uint), ("ctx_idp", Addr)],
        CallKind::IoDestroy => &[("ctx_id", Addr)],
        CallKind::Prctl => &[
            ("option", Number(names::PRCTL)),
            ("arg2", Hex),
            ("arg3", Hex),
            ("arg4", Hex),
            ("arg5", Hex),
        ],
        CallKind::ArchPrctl => &[("option", Number(names::ARCH_PRCTL)), ("addr", Hex)],
        CallKind::Personality => &[("persona", Personality)],
        CallKind::Ipc => UNKNOWN,
    }
}

const UNKNOWN: Params = &[
    ("arg1", Param::Hex),
    ("arg2", Param::Hex),
    ("arg3", Param::Hex),
    ("arg4", Param::Hex),
    ("arg5", Param::Hex),
    ("arg6", Param::Hex),
];

/// The arguments of a call as an object: one field each, and beside a descriptor its path.
pub fn args(raw: &RawCall, fetched: &[Fetched]) -> Value {
    let mut object = Map::new();
    let Some(kind) = effective_kind(raw) else {
        for ((name, _), value) in UNKNOWN.iter().zip(raw.args) {
            object.insert((*name).to_owned(), hex(value));
        }
        return Value::Object(object);
    };
    let mut values = Args::of(raw, kind).args;
    let mut params = params(kind);
    if kind == CallKind::OldMmap {
        match old_mmap(fetched) {
            Some(args) => values = args,
            None => params = &[("args", Param::Addr)],
        }
    }
    for (i, ((name, param), value)) in params.iter().zip(values).enumerate() {
        object.insert(
            (*name).to_owned(),
            argument(*param, value, i as u8, fetched),
        );
        if matches!(param, Param::Fd)
            && let Some(path) = path_for(fetched, i as u8, false)
        {
            object.insert(format!("{name}_path"), lossless(path).into());
        }
    }
    if kind == CallKind::Prctl
        && let Some(FetchedData::String { bytes, .. }) = fetched_for(fetched, 4, false)
    {
        object.insert("name".to_owned(), lossless(bytes).into());
    }
    Value::Object(object)
}

fn argument(param: Param, value: u64, index: u8, fetched: &[Fetched]) -> Value {
    let low = u64::from(value as u32);
    match param {
        Param::Addr | Param::Hex => hex(value),
        Param::Size => value.into(),
        Param::Int | Param::Fd => (value as i32).into(),
        Param::Uint => low.into(),
        Param::Bits(names) => bits(names, value).into(),
        Param::Bits32(names) => bits(names, low).into(),
        Param::Number(names) => number(names, low).into(),
        Param::Text => match fetched_for(fetched, index, false) {
            Some(FetchedData::String {
                bytes,
                truncated: false,
            }) => lossless(bytes).into(),
            Some(FetchedData::String {
                bytes,
                truncated: true,
            }) => {
                json!({"begin": lossless(bytes), "truncated": true})
            }
            _ => hex(value),
        },
        Param::MapFlags => {
            let kind = number(names::MAP_TYPE, low & 0xf);
            match low & !0xf {
                0 => kind.into(),
                rest => format!("{kind}|{}", huge(names::MAP, rest, "MAP_HUGE_SHIFT")).into(),
            }
        }
        Param::Huge(names) => huge(names, low, "HUGE_SHIFT").into(),
        Param::Policy => {
            let known = names::MPOL_MODE_FLAGS
                .iter()
                .fold(0, |all, (bit, _)| all | bit);
            with_flags(
                number(names::MPOL, low & !known),
                names::MPOL_MODE_FLAGS,
                low & known,
            )
            .into()
        }
        Param::Personality => {
            let domain = number(names::PERSONALITY, low & 0xff);
            with_flags(domain, names::PERSONALITY_FLAGS, low & !0xff).into()
        }
    }
}

fn hex(value: u64) -> Value {
    format!("{value:#x}").into()
}

fn bits(names: &'static Names, value: u64) -> String {
    Bits {
        names,
        value,
        unknown: "",
    }
    .to_string()
}

fn number(names: &'static Names, value: u64) -> String {
    name_of(names, value).map_or_else(|| format!("{value:#x}"), str::to_owned)
}

fn with_flags(base: String, names: &'static Names, flags: u64) -> String {
    match flags {
        0 => base,
        flags => format!("{base}|{}", bits(names, flags)),
    }
}

/// Bits, and the size of a huge page in those above [`names::HUGE_SHIFT`].
fn huge(names: &'static Names, value: u64, shift: &str) -> String {
    let size = value >> names::HUGE_SHIFT;
    let rest = value & !(!0 << names::HUGE_SHIFT);
    match (rest, size) {
        (_, 0) => bits(names, rest),
        (0, _) => format!("{size}<<{shift}"),
        _ => format!("{}|{size}<<{shift}", bits(names, rest)),
    }
}

/// Bytes as text from which they can be got back: what is UTF-8 stays, a backslash becomes `\\`,
/// any other byte `\xNN`.
pub fn lossless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Abi, CALLS, call_by_name};

    fn text(name: &str, given: &[u64], fetched: &[Fetched]) -> String {
        let nr = call_by_name(name)
            .find_map(|call| call.x86_64)
            .expect("a call");
        let mut all = [0; 6];
        all[..given.len()].copy_from_slice(given);
        args(
            &RawCall {
                abi: Abi::X86_64,
                nr,
                args: all,
            },
            fetched,
        )
        .to_string()
    }

    #[test]
    fn arguments_are_named_and_typed() {
        assert_eq!(
            text("mmap", &[0, 4096, 3, 0x22, u64::MAX, 0], &[]),
            r#"{"addr":"0x0","length":4096,"prot":"PROT_READ|PROT_WRITE","flags":"MAP_PRIVATE|MAP_ANONYMOUS","fd":-1,"offset":0}"#
        );
        assert_eq!(
            text("madvise", &[0x7f00_0000_0000, 8192, 4], &[]),
            r#"{"addr":"0x7f0000000000","length":8192,"advice":"MADV_DONTNEED"}"#
        );
    }

    #[test]
    fn unknown_bits_and_numbers_stay() {
        let text = text(
            "mmap",
            &[0, 1, 0x47, 0x5400_0000 | 0x4_0000 | 0x40_0000 | 0x32, 0, 0],
            &[],
        );
        assert!(
            text.contains(r#""prot":"PROT_READ|PROT_WRITE|PROT_EXEC|0x40""#),
            "{text}"
        );
        assert!(text.contains(r#""flags":"MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS|MAP_HUGETLB|0x400000|21<<MAP_HUGE_SHIFT""#), "{text}");
        let text = self::text("madvise", &[0, 1, 0x77], &[]);
        assert!(text.contains(r#""advice":"0x77""#), "{text}");
    }

    #[test]
    fn a_descriptor_comes_with_its_path_whatever_bytes_are_in_it() {
        let path = Fetched {
            arg: 4,
            at_exit: false,
            data: FetchedData::Path(b"/tmp/\xff\\\x1b[2J\xc3\xa4".to_vec()),
        };
        let text = text("mmap", &[0, 4096, 1, 2, 3, 0], &[path]);
        assert!(
            text.contains(r#""fd":3,"fd_path":"/tmp/\\xff\\\\\u001b[2Jä""#),
            "{text}"
        );
    }

    #[test]
    fn every_call_has_an_object() {
        for call in CALLS {
            for (abi, nr) in [(Abi::X86_64, call.x86_64), (Abi::I386, call.i386)] {
                let Some(nr) = nr else { continue };
                let raw = RawCall {
                    abi,
                    nr,
                    args: [u64::from(u32::MAX); 6],
                };
                assert!(args(&raw, &[]).is_object(), "{}", call.name);
            }
        }
    }
}
