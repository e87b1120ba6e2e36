use super::story::{LIBC, shown, story, timeline};
use super::*;
use crate::abi::CallKind;
use proptest::prelude::*;

#[track_caller]
fn check(width: usize, expected: &str) {
    let text = shown(Style::plain(Some(width), true), "server", LIBC);
    assert_eq!(text.trim_end(), expected.trim_matches('\n'), "\n{text}");
    assert!(text.lines().all(|line| width_of(line) <= width));
}

#[test]
fn a_wide_terminal_shows_everything() {
    check(
        160,
        r"
     time  who           call            size  rwx  how                                    address         what it did                      reserved   committed
  0.001 s  server/16731  exec      /usr/lib/x86_64-linux-gnu/libc.so.6                                                                           0 B     2.0 MiB
  0.011 s  server/16731  mmap        64.0 MiB  ---  private anon                         → 0x1002a0000000  +64.0 MiB reserved               64.0 MiB     2.0 MiB
  0.012 s  server/16731  mmap         4.0 MiB  rw-  private anon fixed                   → 0x1002a3400000  4.0 MiB reserved → committed     60.0 MiB     6.0 MiB
  0.012 s  server/16731  mmap         2.0 MiB  r--  private /usr/…/libc.so.6 @0x26000    → 0x7ffff7c00000  +2.0 MiB committed               60.0 MiB     6.0 MiB
  0.012 s  server/16731  mmap         2.0 MiB  rw-  private anon fixed                   → 0x7ffff7c00000  2.0 MiB replaced                 60.0 MiB     6.0 MiB
  0.013 s  server/16731  mprotect      12 KiB  r--                                         0x1002a3400000                                   60.0 MiB     6.0 MiB
  0.013 s  server/16731  madvise       12 KiB       dontneed                               0x1002a3400000  12 KiB discarded                 60.0 MiB     6.0 MiB
  0.013 s  server/16731  madvise      4.0 MiB       hugepage                               0x1002a3400000                                   60.0 MiB     6.0 MiB
  0.013 s  server/16731  brk                        where is it?                         → 0x5555555000                                     60.0 MiB     6.0 MiB
  0.014 s  server/16731  mmap       64.00 TiB  rw-  private anon noreserve               → ENOMEM cannot allocate memory
  0.014 s  server/16731  munmap      35.0 MiB                                              0x1002a3400000  −35.0 MiB released               60.0 MiB     6.0 MiB
  0.015 s  server/16731  mremap       8.0 MiB       from 4.0 MiB at 0x1002a3400000 may…  → 0x7f0000000000  +4.0 MiB committed, 4.0 MiB …    60.0 MiB     6.0 MiB
  0.016 s  server/16733  new thread of 16731
  0.017 s  server/16731  SIGSEGV at 0x1002a0000000, no access
  0.018 s  server/16731  note: the log is \x1b[31mfull
  0.019 s  server/16731  DRIFT: 8 KiB differ from the kernel's map
           1002a3400000-1002a3800000  here rw-p, kernel ---p
  2.034 s  server/16731  killed by SIGTERM",
    );
}

#[test]
fn eighty_columns_show_what_was_done_and_the_sums() {
    check(
        80,
        r"
     time  who    call      rwx  what it did             reserved   committed
  0.001 s  16731  exec      /usr/lib…ux-gnu/libc.so.6         0 B     2.0 MiB
  0.011 s  16731  mmap      ---  +64.0 MiB reserved      64.0 MiB     2.0 MiB
  0.012 s  16731  mmap      rw-  4.0 MiB → committed     60.0 MiB     6.0 MiB
  0.012 s  16731  mmap      r--  +2.0 MiB committed      60.0 MiB     6.0 MiB
  0.012 s  16731  mmap      rw-  2.0 MiB replaced        60.0 MiB     6.0 MiB
  0.013 s  16731  mprotect  r--  12 KiB                  60.0 MiB     6.0 MiB
  0.013 s  16731  madvise        12 KiB discarded        60.0 MiB     6.0 MiB
  0.013 s  16731  madvise        4.0 MiB hugepage        60.0 MiB     6.0 MiB
  0.013 s  16731  brk            where is it?            60.0 MiB     6.0 MiB
  0.014 s  16731  mmap      rw-  64.00 TiB ENOMEM cannot allocate memory
  0.014 s  16731  munmap         −35.0 MiB released      60.0 MiB     6.0 MiB
  0.015 s  16731  mremap         +4.0 MiB committed,…    60.0 MiB     6.0 MiB
  0.016 s  16733  new thread of 16731
  0.017 s  16731  SIGSEGV at 0x1002a0000000, no access
  0.018 s  16731  note: the log is \x1b[31mfull
  0.019 s  16731  DRIFT: 8 KiB differ from the kernel's map
           1002a3400000-1002a3800000  here rw-p, kernel ---p
  2.034 s  16731  killed by SIGTERM",
    );
}

#[test]
fn forty_columns_show_what_was_done() {
    check(
        40,
        r"
     time  call      what it did
  0.001 s  exec      /usr/…/libc.so.6
  0.011 s  mmap      +64.0 MiB reserved
  0.012 s  mmap      4.0 MiB → committed
  0.012 s  mmap      +2.0 MiB committed
  0.012 s  mmap      2.0 MiB replaced
  0.013 s  mprotect  12 KiB
  0.013 s  madvise   12 KiB discarded
  0.013 s  madvise   4.0 MiB hugepage
  0.013 s  brk       where is it?
  0.014 s  mmap      64.00 TiB ENOMEM c…
  0.014 s  munmap    −35.0 MiB released
  0.015 s  mremap    +4.0 MiB committed…
  0.016 s  new thread of 16731
  0.017 s  SIGSEGV at 0x1002a0000000, n…
  0.018 s  note: the log is \x1b[31mfull
  0.019 s  DRIFT: 8 KiB differ from the…
           1002a3400000-1002a3800000  h…
  2.034 s  killed by SIGTERM",
    );
}

#[test]
fn twenty_columns_break_nothing() {
    let text = shown(Style::plain(Some(20), true), "server", LIBC);
    assert!(text.lines().all(|line| width_of(line) <= 20), "{text}");
    assert!(text.contains("mmap      +64.0 MiB…\n"), "{text}");
    for width in 0..20 {
        shown(Style::plain(Some(width), false), "server", LIBC);
    }
}

#[test]
fn a_file_gets_whole_lines() {
    let long = [LIBC, &[b'x'; 300]].concat();
    let text = shown(Style::plain(None, true), "server", &long);
    let end = format!(
        "6.0 MiB  {} @0x26000 denywrite\n",
        String::from_utf8_lossy(&long)
    );
    assert!(text.contains(&end), "{text}");
    assert!(!text.contains('…'));
}

#[test]
fn without_unicode_every_byte_is_ascii() {
    let text = shown(
        Style::plain(Some(120), false),
        "sérver",
        "/é/日本".as_bytes(),
    );
    assert!(text.is_ascii(), "{text}");
}

#[test]
fn only_the_calls_asked_for_are_shown() {
    let timeline = timeline("server");
    let mut out = Vec::new();
    let mut pretty = Pretty::new(
        &mut out,
        Style::plain(None, true),
        CallSet::NONE.with(CallKind::Munmap),
    );
    for event in story(LIBC) {
        pretty.event(&event, &timeline).unwrap();
    }
    pretty.idle().unwrap();
    drop(pretty);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("munmap") && !text.contains("mmap  ") && text.contains("DRIFT"));
}

proptest! {
    #[test]
    fn no_tracee_can_speak_to_the_terminal(
        comm: String,
        path: Vec<u8>,
        width in proptest::option::of(0usize..200),
        unicode: bool,
    ) {
        let style = Style::colored(width, unicode);
        let mut text = shown(style.clone(), &comm, &path);
        for role in [Role::Dim, Role::Strong, Role::Reserved, Role::Committed, Role::Released,
            Role::Error, Role::Alarm] {
            text = text.replace(style.begin(role), "").replace(style.end(role), "");
        }
        prop_assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
        prop_assert!(unicode || text.is_ascii());
        for line in text.lines() {
            prop_assert!(width.is_none_or(|width| width_of(line) <= width), "{line}");
        }
    }
}
