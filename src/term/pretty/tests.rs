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

/// Three reservations in a row, two of one stack.
fn with_stacks(style: Style, depth: usize) -> String {
    let mut timeline = timeline("server");
    crate::timeline::stacks_for_tests::tell(&mut timeline);
    let names = Box::new(crate::timeline::HeldNames);
    let mut out = Vec::new();
    let pretty = Pretty::new(&mut out, style, CallSet::ALL);
    let mut pretty = pretty.with_stacks(StackView::new(names, depth));
    let reserve = story(LIBC).swap_remove(1);
    for stack in [1, 1, 2] {
        let mut event = reserve.clone();
        if let EventKind::Call(call) = &mut event.kind {
            call.stack = Some(StackId(stack));
        }
        pretty.event(&event, &timeline).unwrap();
    }
    drop(pretty);
    String::from_utf8(out).unwrap()
}

#[test]
fn who_called_stands_below_the_call_once_for_equal_ones() {
    let text = with_stacks(Style::plain(Some(80), true), 16);
    let expected = r"
     time  who    call      rwx  what it did             reserved   committed
  0.011 s  16731  mmap      ---  +64.0 MiB reserved      64.0 MiB     2.0 MiB
             mmap64+0x13 (libc.so.6)
             reserve+0x4 (ser\x1bver) heap.rs:70 inlined
             init\x1b[2J+0x44 (ser\x1bver) main.rs:12
             ser\x1bver+0x99
             0x7f123456
  0.011 s  16731  mmap      ---  +64.0 MiB reserved      64.0 MiB     2.0 MiB
             same stack
  0.011 s  16731  mmap      ---  +64.0 MiB reserved      64.0 MiB     2.0 MiB
             libc.so.6+0x77
             (nothing tells who called this)
";
    assert_eq!(text.trim_end(), expected.trim_matches('\n'), "\n{text}");
}

#[test]
fn a_deep_stack_says_how_much_of_it_is_left_out_and_a_narrow_terminal_cuts_it() {
    let text = with_stacks(Style::plain(Some(24), true), 2);
    assert!(text.lines().all(|line| width_of(line) <= 24), "{text}");
    let text = with_stacks(Style::plain(None, false), 2);
    assert!(text.contains("\n             ... 3 more\n"), "{text}");
    let colored = with_stacks(Style::colored(None, true), 2);
    assert!(
        colored.contains("\u{1b}[2mmmap64+0x13 (libc.so.6)\u{1b}[0m"),
        "{colored:?}"
    );
}

#[test]
fn what_refused_a_call_stands_below_it_wrapped() {
    use crate::timeline::{Amounts, Cause, Failure, Figures, Limiter};
    let failed = |causes, proven, width| {
        let mut event = story(LIBC).swap_remove(9);
        if let EventKind::Call(call) = &mut event.kind {
            call.failure = Some(Box::new(Failure {
                causes,
                proven,
                figures: Figures::default(),
            }));
        }
        let mut out = Vec::new();
        let style = Style::plain(width, true);
        let mut pretty = Pretty::new(&mut out, style, CallSet::ALL);
        pretty.event(&event, &timeline("server")).unwrap();
        drop(pretty);
        let text = String::from_utf8(out).unwrap();
        let below = text.lines().skip(2).map(str::to_owned);
        below.collect::<Vec<_>>()
    };
    let limit = Cause {
        what: Limiter::AddressSpace,
        amounts: Some(Amounts {
            limit: 64 << 20,
            used: 10 << 20,
            asked: 100 << 20,
        }),
    };
    let proven = failed(vec![limit], true, None);
    let words = "           RLIMIT_AS 64.0 MiB: 10.0 MiB mapped + 100.0 MiB asked, 46.0 MiB over";
    assert_eq!(proven, [words]);
    let narrow = failed(vec![limit], true, Some(50));
    let lines = [
        "           RLIMIT_AS 64.0 MiB: 10.0 MiB mapped +",
        "           100.0 MiB asked, 46.0 MiB over",
    ];
    assert_eq!(narrow, lines);
    let bare = |what| Cause {
        what,
        amounts: None,
    };
    let candidates = [Limiter::Pages, Limiter::KernelMemory].map(bare).to_vec();
    let words = "           perhaps pages that cannot be brought in, or no memory for the kernel's own records";
    assert_eq!(failed(candidates, false, None), [words]);
}
