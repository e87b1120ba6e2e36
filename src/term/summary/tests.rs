use super::*;
use crate::abi::Abi;
use crate::decode::RawCall;
use crate::mm::{Difference, Flow, Parts, Totals};
use crate::report::*;
use crate::term::{Role, width_of};
use crate::timeline::{Began, Ended, TaskEnd};
use crate::units::{Addr, AddrRange, SpaceId, Timestamp};
use proptest::prelude::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn at(ms: u64) -> Timestamp {
    Timestamp(ms * 1_000_000)
}

fn by_mmap(tid: i32) -> Maker {
    let raw = RawCall {
        abi: Abi::X86_64,
        nr: 9,
        args: [0; 6],
    };
    Maker {
        seq: 7,
        tid: Tid(tid),
        what: Made::Call(raw, Some(0x1000)),
    }
}

fn figure(end: u64, peak: u64, ms: u64) -> Figure<Bytes> {
    Figure {
        begin: Bytes(0),
        end: Bytes(end),
        peak: Bytes(peak),
        peak_time: at(ms),
        peak_by: by_mmap(16731),
    }
}

fn place(place: Place, reserved: u64, committed: u64) -> PlaceBytes {
    PlaceBytes {
        place,
        reserved: Bytes(reserved),
        committed: Bytes(committed),
    }
}

/// A Go server: of 1.49 GiB, 1.38 GiB are reserved.
fn server() -> SpaceReport {
    let (reserved, committed) = (1413 * MIB, 112 * MIB + 300 * KIB);
    let count = |count, failed, bytes| CallCount {
        count,
        failed,
        bytes: Bytes(bytes),
        cut: 0,
    };
    let reservation = |addr, bytes, used| Reservation {
        range: AddrRange::covering(Addr(addr), bytes).unwrap(),
        time: at(11),
        by: by_mmap(16731),
        bytes: Bytes(bytes),
        ever_committed: Bytes(used),
        committed: Bytes(used),
        mapped: Bytes(bytes),
        released: None,
    };
    SpaceReport {
        id: SpaceId(1),
        pid: Tid(16731),
        exe: "/srv/server".into(),
        comm: "server".into(),
        began: Began::Exec,
        ended: Ended::Exit,
        status: Some(TaskEnd::Killed {
            signal: 15,
            core: false,
        }),
        since: at(1),
        until: at(2034),
        known: true,
        mapped: figure(reserved + committed, reserved + committed + 60 * MIB, 412),
        reserved: figure(reserved, reserved, 15),
        committed: figure(committed, committed, 1900),
        parts: Parts {
            anon: Bytes(104 * MIB + 550 * KIB),
            file: Bytes(7 * MIB + 718 * KIB),
            shmem: Bytes(0),
            special: Bytes(32 * KIB),
        },
        noreserve: Bytes(0),
        at_peak: Totals::default(),
        charged: Charged {
            end: Bytes(104 * MIB + 420 * KIB),
            exact: true,
            at_least: Bytes(104 * MIB + 420 * KIB),
            peak: figure(104 * MIB + 420 * KIB, 104 * MIB + 420 * KIB, 1900),
        },
        touched: None,
        resident: Some(ResidentReport {
            end: Bytes(6 * MIB + 100 * KIB),
            measured: at(2033),
            peak: Bytes(6 * MIB + 100 * KIB),
            peak_time: at(2033),
            peak_exact: true,
            parts: Some(ResidentParts {
                anon: Bytes(3 * MIB),
                file: Bytes(3 * MIB + 100 * KIB),
                shmem: Bytes(0),
                measured: at(2033),
            }),
            swap: None,
            samples: 20,
        }),
        mappings: Figure::new(40, at(1), Maker::default()),
        calls: [
            ("mmap".into(), count(41, 1, 1500 * MIB)),
            ("munmap".into(), count(10, 0, 60 * MIB)),
            ("madvise".into(), count(26, 0, 0)),
        ]
        .into(),
        flow: Flow::default(),
        verify: Verify {
            checks: 1,
            ..Verify::default()
        },
        tasks: TaskCount { total: 6, peak: 6 },
        detail: Some(Detail {
            end: vec![
                place(Place::Anon, reserved, 104 * MIB),
                place(Place::File("/srv/server".into()), 0, 7 * MIB),
                place(Place::Heap, 0, 132 * KIB),
                place(Place::Stack, 0, 132 * KIB),
                place(Place::Special("[vdso]".into()), 0, 8 * KIB),
            ],
            reservations: Reservations {
                count: 12,
                bytes: Bytes(1500 * MIB),
                ever_committed: Bytes(66 * MIB),
                largest: vec![
                    reservation(0x7f00_0000_0000, 1024 * MIB, 0),
                    reservation(0x1002_a000_0000, 64 * MIB, 4 * MIB),
                    reservation(0x7e00_0000_0000, 64 * KIB, 0),
                ],
            },
            ..Detail::default()
        }),
    }
}

fn report(spaces: Vec<SpaceReport>) -> Report {
    Report {
        until: at(2034),
        spaces,
        ..Report::default()
    }
}

/// A build: many short compilers.
fn build(count: u64) -> Report {
    let spaces: Vec<_> = (0..count)
        .map(|i| {
            let size = 20 * MIB + i * 37 * KIB;
            let mut space = server();
            space.id = SpaceId(i as u32 + 1);
            space.pid = Tid(20_000 + i as i32);
            space.comm = format!("cc{}", i % 7).into();
            space.status = Some(TaskEnd::Exited(0));
            space.mapped = figure(2 * size, 2 * size, i);
            space.reserved = figure(size, size, i);
            space.committed = figure(size, size, i);
            space
        })
        .collect();
    let mut report = report(spaces);
    report.tree.most_spaces = 9;
    report.tree.mapped.end = 300 * 70 * MIB;
    report.tree.mapped.peak = 9 * 70 * MIB;
    report.tree.committed.end = 300 * 30 * MIB;
    report.tree.committed.peak = 9 * 30 * MIB;
    report.tree.reserved.end = 300 * 40 * MIB;
    report.tree.reserved.peak = 9 * 40 * MIB;
    report.tree.resident.end = 300 * 6 * MIB;
    report.tree.resident.peak = 9 * 6 * MIB;
    report
}

fn shown(report: &Report, style: &Style) -> String {
    let mut out = Vec::new();
    write_summary(&mut out, report, style).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_server_is_understood_at_once() {
    let text = shown(&report(vec![server()]), &Style::plain(Some(80), true));
    let expected = r"
  server  pid 16731, /srv/server, ended by SIGTERM after 2.0 s, 77 memory calls,
    up to 6 threads, map verified: no drift
  █▒▒░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  █ resident  ▒ committed  ░ reserved
                     at end        peak
  mapped (VSZ)     1.49 GiB    1.55 GiB  peak at 0.412 s by mmap
    reserved       1.38 GiB    1.38 GiB  no access rights: address space only,
                                         peak at 0.015 s by mmap
    committed     112.3 MiB   112.3 MiB  104.5 MiB anonymous, 7.7 MiB files,
                                         32 KiB special, peak at 1.900 s by mmap
  charged         104.4 MiB   104.4 MiB  counts against the commit limit,
                                         peak at 1.900 s by mmap
  resident          6.1 MiB     6.1 MiB  0.4 % of mapped, 3.0 MiB anonymous,
                                         3.1 MiB files, measured at 2.033 s,
                                         peak as the kernel saw it

    reserved   committed  at the end of server
    1.38 GiB   104.0 MiB  anonymous
           -     7.0 MiB  /srv/server
           -     132 KiB  heap (brk)
           -     132 KiB  stack
           -       8 KiB  vdso, vvar and their like

    reserved   ever used  12 reservations, 1.46 GiB, 4.4 % ever committed
    1.00 GiB         0 %  0x7f0000000000, at 0.011 s by mmap
    64.0 MiB       6.3 %  0x1002a0000000, at 0.011 s by mmap,
                          4.0 MiB committed at end

         calls    failed       bytes
            41         1    1.46 GiB  mmap
            10         -    60.0 MiB  munmap
            26         -           -  madvise";
    assert_eq!(text.trim_end(), expected.trim_matches('\n'), "\n{text}");
}

#[test]
fn a_wide_terminal_has_a_line_for_each_figure() {
    let text = shown(&report(vec![server()]), &Style::plain(Some(160), true));
    let figures: Vec<&str> = text.lines().skip(2).take(6).collect();
    let expected = r"
                     at end        peak  peak at
  mapped (VSZ)     1.49 GiB    1.55 GiB  0.412 s by mmap
    reserved       1.38 GiB    1.38 GiB  0.015 s by mmap               no access rights: address space only
    committed     112.3 MiB   112.3 MiB  1.900 s by mmap               104.5 MiB anonymous, 7.7 MiB files, 32 KiB special
  charged         104.4 MiB   104.4 MiB  1.900 s by mmap               counts against the commit limit
  resident          6.1 MiB     6.1 MiB  as the kernel saw it          0.4 % of mapped, 3.0 MiB anonymous, 3.1 MiB files, measured at 2.033 s";
    assert_eq!(figures.join("\n"), expected.trim_matches('\n'));
}

#[test]
fn a_peak_that_is_not_the_kernels_is_said_aloud() {
    let with = |kernel: u64, checks: u64| {
        let mut space = server();
        space.verify.checks = checks;
        space.verify.kernel_peak = Some(Bytes(kernel));
        space
    };
    let style = Style::plain(Some(120), true);
    let peak = server().mapped.peak.0;
    let text = shown(&report(vec![with(peak, 0)]), &style);
    assert!(text.contains("peak verified (its map was gone)"), "{text}");
    let text = shown(&report(vec![with(peak + 8 * KIB, 1)]), &style);
    let line = "  INEXACT: the peak of mapped differs from the kernel's by 8 KiB\n";
    assert!(text.contains(line), "{text}");
    let text = shown(
        &report(vec![with(peak, 1), with(peak, 0), with(peak, 0)]),
        &style,
    );
    assert!(
        text.contains("1 maps verified: no drift, 2 verified by their peaks alone"),
        "{text}"
    );
    let text = shown(&report(vec![with(peak, 1), with(peak - KIB, 0)]), &style);
    assert!(
        text.contains("INEXACT: 1 peaks differ from the kernel's, by up to 1 KiB"),
        "{text}"
    );
}

#[test]
fn three_hundred_processes_fit_on_a_screen() {
    let text = shown(&build(300), &Style::plain(Some(80), true));
    assert!(text.lines().count() <= 48, "{text}");
    assert!(
        text.contains("  all 300 address spaces, at most 9 at once"),
        "{text}"
    );
    assert!(
        text.contains("  and 290 more, each with 30.4 MiB committed or less\n"),
        "{text}"
    );
}

#[test]
fn a_few_processes_are_shown_one_by_one_and_together() {
    let text = shown(&build(2), &Style::plain(Some(80), true));
    assert!(
        text.contains("  cc0  pid 20000, ") && text.contains("  cc1  pid 20001, "),
        "{text}"
    );
    assert!(text.contains("  all 2 address spaces, "), "{text}");
}

#[test]
fn what_cannot_be_trusted_is_loud() {
    let mut space = server();
    space.verify.drift = Bytes(8192);
    space.verify.differences = vec![
        Difference {
            range: AddrRange::covering(Addr(0x7000), 4096).unwrap(),
            model: "rw-p".into(),
            kernel: "unmapped".into(),
        };
        9
    ];
    let mut report = report(vec![space]);
    report.lost = 3;
    let text = shown(&report, &Style::plain(Some(80), true));
    assert!(
        text.contains("DRIFT: 8 KiB differ from the kernel's map"),
        "{text}"
    );
    assert!(
        text.contains("7000-8000  here rw-p, kernel unmapped"),
        "{text}"
    );
    assert!(text.contains("and 3 more spans"), "{text}");
    assert!(!text.contains("no drift"), "{text}");
    assert!(text.contains("3 observations were LOST"), "{text}");
    let style = Style::colored(Some(80), true);
    assert!(shown(&report, &style).contains(style.begin(Role::Alarm)));
}

#[test]
fn nothing_seen_is_said() {
    let text = shown(&report(vec![]), &Style::plain(Some(80), true));
    assert_eq!(text, "  no address space was seen\n");
}

proptest! {
    #[test]
    fn no_tracee_can_speak_to_the_terminal(
        name: String,
        width in proptest::option::of(0usize..200),
        unicode: bool,
        count in 1u64..6,
    ) {
        let mut report = build(count);
        for space in &mut report.spaces {
            space.comm = name.as_str().into();
            space.exe = name.as_str().into();
            if let Some(detail) = &mut space.detail {
                detail.end[1].place = Place::File(name.as_str().into());
            }
        }
        let note = Note { time: at(1), space: SpaceId(0), text: name };
        report.notes.push(note);
        let style = Style::colored(width, unicode);
        let mut text = shown(&report, &style);
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

    #[test]
    fn any_amounts_make_a_bar_that_fits(mapped: u64, committed: u64, resident: u64, width in 0usize..200) {
        let style = Style::plain(Some(width), true);
        let mut out = Vec::new();
        let mut page = Page::new(&mut out, &style);
        figures::bar(&mut page, Bytes(mapped), Bytes(committed), Bytes(resident)).unwrap();
        let text = String::from_utf8(out).unwrap();
        prop_assert!(!text.contains('…') && width_of(text.trim_end()) <= width);
    }
}

#[test]
fn limits_and_versions_are_told_where_there_are_any() {
    use crate::mm::FileId;
    use crate::timeline::{Bound, Cgroup, FileSeen};
    let shown = |report: &Report| {
        let mut out = Vec::new();
        write_summary(&mut out, report, &Style::plain(Some(100), true)).expect("a Vec takes all");
        String::from_utf8(out).expect("it is text")
    };
    let mut report = Report {
        spaces: vec![server()],
        ..Report::default()
    };
    let bare = shown(&report);
    assert!(!bare.contains("limits") && !bare.contains("versions"));
    report.info.environment.cgroup = Some(Cgroup {
        version: 2,
        path: "/kube\u{1b}pods".into(),
        max: Some(Bound::Unlimited),
        lowest_max: Some(Bound::Bytes(Bytes(512 * MIB))),
        ..Cgroup::default()
    });
    report.files.push(FileReport {
        time: at(1),
        seen: FileSeen {
            space: SpaceId(1),
            path: "/srv/server".into(),
            file: FileId::default(),
            build_id: [].into(),
            version: Some("go1.25.5".into()),
        },
    });
    let text = shown(&report);
    assert!(text.starts_with(&bare), "{text}");
    assert_eq!(
        text.strip_prefix(&bare),
        Some(
            "\n  versions  go1.25.5 (server)\n  limits    memory.max of cgroup /kube\\x1bpods 512.0 MiB\n"
        )
    );
}
