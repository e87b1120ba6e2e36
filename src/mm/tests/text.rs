//! The texts of maps and smaps: read, written, and never a panic.

use proptest::prelude::*;

use crate::mm::{AddressSpace, Category, parse_maps, parse_smaps};

const MAPS: &str = "\
55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000002000 r--p 00001000 fe:00 1234                       /lib/a b\\012c (deleted)
7f0000002000-7f0000003000 rw-p 00000000 00:00 0 
7f0000003000-7f0000004000 rwxs 00000000 00:01 5                          /dev/zero (deleted)
7ffff7fc1000-7ffff7fc5000 r--p 00000000 00:00 0                          [vvar]
";

#[test]
fn a_text_comes_back_to_the_letter() {
    let snapshot = parse_maps(MAPS.as_bytes()).expect("it parses");
    let text: String = snapshot
        .entries
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(text, MAPS);
    let space = AddressSpace::from_snapshot(&snapshot);
    let text: String = space
        .vmas()
        .map(|vma| format!("{}\n", vma.to_entry()))
        .collect();
    assert_eq!(text, MAPS.replace("                         [heap]", ""));
}

#[test]
fn the_names_tell_the_parts_of_committed() {
    let rows = [
        ("rw-p 0 00:00 0 [heap]", Category::Anon),
        ("rw-p 0 00:00 0 [anon:glibc: malloc]", Category::Anon),
        ("rw-s 0 00:01 5 /dev/zero (deleted)", Category::Shmem),
        ("rw-p 0 00:06 5 /dev/zero", Category::File),
        ("rw-s 0 00:01 5 /memfd:x (deleted)", Category::Shmem),
        ("rw-s 0 00:01 5 /SYSV00000000 (deleted)", Category::Shmem),
        ("rw-s 0 00:01 5 [anon_shmem:x]", Category::Shmem),
        ("rw-p 0 00:0f 5 /anon_hugepage (deleted)", Category::Anon),
        ("rw-s 0 00:0f 5 /anon_hugepage (deleted)", Category::Shmem),
        ("rw-s 0 00:13 5 /[aio] (deleted)", Category::Special),
        ("rw-s 0 00:0e 5 anon_inode:[io_uring]", Category::Special),
        ("r-xp 0 00:00 0 [vdso]", Category::Special),
        ("--xp 0 00:00 0 [uprobes]", Category::Special),
        ("r--p 0 08:01 5 /lib/x", Category::File),
    ];
    for (row, category) in rows {
        let snapshot = parse_maps(format!("1000-2000 {row}\n").as_bytes()).expect("it parses");
        let space = AddressSpace::from_snapshot(&snapshot);
        assert_eq!(
            space.vmas().next().map(|vma| vma.category()),
            Some(category),
            "{row}"
        );
    }
}

#[test]
fn smaps_gives_amounts_and_flags_to_their_lines() {
    let text = "1000-2000 rw-p 00000000 00:00 0                          [stack]\n\
                Size:                  4 kB\nRss:                   4 kB\n\
                Anonymous:             3 kB\nAnonHugePages:         0 kB\n\
                LazyFree:              2 kB\nSwap:                  1 kB\n\
                SwapPss:               0 kB\nLocked:                8 kB\n\
                THPeligible:           0\nVmFlags: rd wr mr gd ac \n\
                ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n\
                Rss:                   9 kB\nVmFlags: ex nr \n";
    let snapshot = parse_smaps(text.as_bytes()).expect("it parses");
    let [info] = snapshot.smaps[..] else {
        panic!("one line")
    };
    let amounts = [
        info.resident,
        info.anonymous,
        info.lazy_free,
        info.swap,
        info.locked,
    ];
    assert_eq!(amounts.map(|bytes| bytes.0 / 1024), [4, 3, 2, 1, 8]);
    assert!(info.charged && info.growsdown && !info.noreserve);
}

#[test]
fn a_text_that_is_no_map_names_its_line() {
    let error = parse_maps(b"1000-2000 r--p 0 0:0 0\nnonsense\n").expect_err("no map");
    assert_eq!((error.line, error.text.as_str()), (2, "nonsense"));
    for bad in [
        "2000-1000 r--p 0 0:0 0",
        "1000-2000 q--p 0 0:0 0",
        "1000-2000 r--p 0 0:0",
        "1-2 r--p 0 0:0 0",
    ] {
        parse_maps(bad.as_bytes()).expect_err(bad);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 512 }) })]

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_maps(&bytes);
        let _ = parse_smaps(&bytes);
    }

    #[test]
    fn no_damaged_text_makes_the_parsers_panic(at in 0..MAPS.len(), byte in any::<u8>(), cut in 0..MAPS.len()) {
        let mut text = MAPS.as_bytes().to_vec();
        text[at] = byte;
        text.truncate(cut);
        if let Ok(snapshot) = parse_maps(&text) {
            let space = AddressSpace::from_snapshot(&snapshot);
            prop_assert_eq!(space.totals(), space.recount());
        }
        let _ = parse_smaps(&text);
    }
}
