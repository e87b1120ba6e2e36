//! What is fetched for a call, and what is made of it.

use super::*;
use crate::decode::{Call, IoVec, Placement, decode};

fn call(abi: Abi, name: &str, args: &[u64]) -> RawCall {
    let info = crate::abi::call_by_name(name)
        .find(|info| match abi {
            Abi::X86_64 => info.x86_64.is_some(),
            Abi::I386 => info.i386.is_some(),
        })
        .expect("the call is in the table");
    let nr = match abi {
        Abi::X86_64 => info.x86_64,
        Abi::I386 => info.i386,
    };
    let mut all = [0xbad; 6];
    all[..args.len()].copy_from_slice(args);
    RawCall {
        abi,
        nr: nr.expect("chosen for it"),
        args: all,
    }
}

fn wanted(call: &RawCall, phase: Phase) -> Vec<Want> {
    let mut out = Vec::new();
    wants(call, phase, &mut out);
    out
}

fn at_entry(arg: u8, bytes: Vec<u8>) -> Fetched {
    Fetched {
        arg,
        at_exit: false,
        data: FetchedData::Memory(bytes),
    }
}

fn at_exit(arg: u8, bytes: Vec<u8>) -> Fetched {
    Fetched {
        arg,
        at_exit: true,
        data: FetchedData::Memory(bytes),
    }
}

const DONE: Phase = Phase::Exit { result: 0 };

#[test]
fn hot_calls_want_nothing() {
    let anonymous = [0, 0x1000, 3, 0x22, u64::MAX, 0];
    for (name, args) in [
        ("mmap", &anonymous[..]),
        ("munmap", &[0x1000, 0x1000]),
        ("mprotect", &[0x1000, 0x1000, 1]),
        ("madvise", &[0x1000, 0x1000, 4]),
        ("brk", &[0]),
        ("mremap", &[0x1000, 0x1000, 0x2000, 1]),
    ] {
        let call = call(Abi::X86_64, name, args);
        assert_eq!(wanted(&call, Phase::Entry), []);
        assert_eq!(wanted(&call, DONE), []);
    }
}

#[test]
fn a_file_mapping_wants_its_path() {
    let call = call(Abi::X86_64, "mmap", &[0, 0x1000, 1, 2, 3, 0x2000]);
    assert_eq!(wanted(&call, Phase::Entry), [Want::FdPath { arg: 4 }]);
    assert_eq!(wanted(&call, DONE), []);
    let fetched = [Fetched {
        arg: 4,
        at_exit: false,
        data: FetchedData::Path(b"/lib/x".to_vec()),
    }];
    let Call::Mmap(mmap) = decode(&call, &fetched) else {
        panic!("not an mmap");
    };
    let fd = mmap.fd.expect("not anonymous");
    assert_eq!((fd.number, fd.path), (3, Some(b"/lib/x".to_vec())));
    assert_eq!(mmap.offset, 0x2000);
}

#[test]
fn an_anonymous_mapping_has_no_descriptor_whatever_was_passed() {
    let call = call(Abi::X86_64, "mmap", &[0, 0x1000, 3, 0x22, 3, 0]);
    let Call::Mmap(mmap) = decode(&call, &[]) else {
        panic!("not an mmap");
    };
    assert_eq!((mmap.fd.clone(), mmap.raw_fd), (None, 3));
    assert_eq!(mmap.placement(), Placement::Anywhere);
}

#[test]
fn registers_of_i386_are_cut_and_mmap2_counts_pages() {
    let dirty = 0xabcd_0000_0000;
    let call = call(
        Abi::I386,
        "mmap2",
        &[dirty, dirty | 0x1000, 1, 2, u64::MAX, dirty | 0xf_ffff],
    );
    let Call::Mmap(mmap) = decode(&call, &[]) else {
        panic!("not an mmap");
    };
    assert_eq!((mmap.addr, mmap.len), (Addr(0), 0x1000));
    assert_eq!((mmap.raw_fd, mmap.offset), (-1, 0xffff_f000));
}

#[test]
fn old_mmap_takes_its_arguments_from_memory() {
    let call = RawCall {
        abi: Abi::I386,
        nr: 90,
        args: [0x804_f000, 0, 0, 0, 0, 0],
    };
    let memory = Want::Memory {
        arg: 0,
        addr: Addr(0x804_f000),
        len: 24,
    };
    let path = Want::FdPathIn {
        arg: 4,
        addr: Addr(0x804_f010),
    };
    assert_eq!(wanted(&call, Phase::Entry), [memory, path]);
    let words: [u32; 6] = [0, 0x3000, 3, 0x22, u32::MAX, 0x2000];
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let Call::Mmap(mmap) = decode(&call, &[at_entry(0, bytes)]) else {
        panic!("not an mmap");
    };
    assert_eq!((mmap.len, mmap.raw_fd, mmap.offset), (0x3000, -1, 0x2000));
    assert_eq!(decode(&call, &[]), Call::Other, "nothing is guessed");
}

#[test]
fn ipc_is_told_apart_and_shmat_stores_its_address() {
    let ipc = |args: [u64; 6]| RawCall {
        abi: Abi::I386,
        nr: 117,
        args,
    };
    let shmat = ipc([0x1_0015, 7, 0o10000, 0x9000, 0x4000_0000, 0]);
    assert!(is_memory_call(&shmat));
    assert_eq!(effective_kind(&shmat), Some(CallKind::Shmat));
    let pointer = Want::Memory {
        arg: 3,
        addr: Addr(0x9000),
        len: 4,
    };
    assert_eq!(wanted(&shmat, DONE), [pointer]);
    let fetched = [at_exit(3, 0xf7f0_0000u32.to_le_bytes().to_vec())];
    assert_eq!(
        decode(&shmat, &fetched),
        Call::Shmat {
            shmid: 7,
            addr: Addr(0x4000_0000),
            flags: 0o10000,
            stored: Some(Addr(0xf7f0_0000)),
        }
    );
    let shmdt = ipc([22, 0, 0, 0, 0xf7f0_0000, 0]);
    let addr = Addr(0xf7f0_0000);
    assert_eq!(decode(&shmdt, &[]), Call::Shmdt { addr });
    assert!(!is_memory_call(&ipc([1, 0, 0, 0, 0, 0])), "semop");
}

#[test]
fn only_some_operations_of_prctl_are_memory_calls() {
    for (option, expected) in [
        (0x5356_4d41, true),
        (41, true),
        (35, true),
        (67, true),
        (15, false),
        (0xffff_ffff, false),
    ] {
        let call = call(Abi::X86_64, "prctl", &[option]);
        assert_eq!(is_memory_call(&call), expected, "{option}");
    }
    for (option, expected) in [(0x2001, true), (0x5005, true), (0x1002, false)] {
        let call = call(Abi::X86_64, "arch_prctl", &[option]);
        assert_eq!(is_memory_call(&call), expected, "{option}");
    }
}

#[test]
fn a_vector_is_fetched_whole_but_bounded() {
    let vector = |abi, count| {
        wanted(
            &call(abi, "process_madvise", &[9, 0x9000, count, 4, 0]),
            Phase::Entry,
        )
    };
    let memory = |len| Want::Memory {
        arg: 1,
        addr: Addr(0x9000),
        len,
    };
    let pidfd = Want::FdPath { arg: 0 };
    assert_eq!(vector(Abi::X86_64, 40), [pidfd, memory(640)]);
    assert_eq!(vector(Abi::X86_64, u64::MAX), [pidfd, memory(16384)]);
    assert_eq!(vector(Abi::I386, 3), [pidfd, memory(24)]);
    assert_eq!(vector(Abi::X86_64, 0), [pidfd]);
}

#[test]
fn a_vector_that_ends_early_gives_its_whole_spans() {
    let call = call(Abi::X86_64, "process_madvise", &[9, 0x9000, 2, 4, 0]);
    let mut bytes = Vec::new();
    for word in [0x1000u64, 0x2000, 0x5000] {
        bytes.extend(word.to_le_bytes());
    }
    let Call::ProcessMadvise { ranges, count, .. } = decode(&call, &[at_entry(1, bytes)]) else {
        panic!("not a process_madvise");
    };
    let span = IoVec {
        addr: Addr(0x1000),
        len: 0x2000,
    };
    assert_eq!((ranges, count), (vec![span], 2));
}

#[test]
fn the_context_of_io_setup_is_read_at_the_exit() {
    let call = call(Abi::X86_64, "io_setup", &[128, 0x9000]);
    let context = Want::Memory {
        arg: 1,
        addr: Addr(0x9000),
        len: 8,
    };
    assert_eq!(wanted(&call, DONE), [context]);
    assert_eq!(wanted(&call, Phase::Exit { result: -22 }), []);
    let before = at_entry(1, vec![0; 8]);
    let after = at_exit(1, 0x7f00_0000_1000u64.to_le_bytes().to_vec());
    assert_eq!(
        decode(&call, &[before, after]),
        Call::IoSetup {
            events: 128,
            pointer: Addr(0x9000),
            context: Some(Addr(0x7f00_0000_1000)),
        }
    );
}

#[test]
fn a_node_mask_has_as_many_words_as_the_kernel_reads() {
    let words = |nodes| mask_words(Abi::X86_64, nodes);
    assert_eq!([0, 1, 2, 64, 65, 66, 128].map(words), [0, 0, 1, 1, 1, 2, 2]);
    assert_eq!(words(u64::MAX), 0, "the count wraps");
    assert_eq!(mask_words(Abi::I386, 64), 2);
}

/// Whatever the registers hold, what is fetched stays small and decoding does not fail.
#[test]
fn any_arguments_are_bounded() {
    let values = [0, 1, 0x1000, 0x7fff_ffff, u32::MAX.into(), u64::MAX];
    for abi in [Abi::X86_64, Abi::I386] {
        for nr in (0..512).step_by(if cfg!(miri) { 41 } else { 1 }) {
            for first in values {
                for other in values {
                    let args = [first, other, other, other, other, other];
                    let call = RawCall { abi, nr, args };
                    for phase in [Phase::Entry, DONE] {
                        for want in wanted(&call, phase) {
                            if let Want::Memory { len, .. } = want {
                                assert!(len <= 16384);
                            }
                        }
                    }
                    decode(&call, &[]);
                    is_memory_call(&call);
                }
            }
        }
    }
}
