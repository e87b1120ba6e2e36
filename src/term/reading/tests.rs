//! How answers look, at every width.

use crate::report::reading::tests::run::{Run, mmap, mprotect, munmap};
use crate::report::reading::{
    Around, At, By, Direction, Filter, Lives, LivesSink, OverTime, Profile, ProfileSink, Steps,
    Table, Weight,
};
use crate::term::{Style, width_of};
use crate::timeline::{HeldNames, Sink};
use crate::units::{Addr, AddrRange};

use super::*;

const A: u64 = 0x7f00_0000_0000;

/// Four reserved GiB of which some are committed and given back, over 40 ms.
fn run() -> Run {
    let mut run = Run::new();
    run.call(10, mmap(A, 4 << 30, 0));
    for step in 0..16 {
        run.call(
            10 + step % 3,
            mprotect(A + ((step as u64) << 20), 1 << 20, 3),
        );
        run.resident(u64::from(step.unsigned_abs()) << 18);
    }
    run.call(11, munmap(A + (1 << 30), 3 << 30));
    run.exit(1, 10);
    run
}

fn told<S: Sink>(mut sink: S) -> S {
    run().tell(&mut sink);
    sink
}

fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).expect("UTF-8")
}

fn steps() -> Steps {
    told(OverTime::new(Filter::default())).into_steps()
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let then = told(At::new(Filter::default())).into_then();
    let range = AddrRange::covering(Addr(A), 4 << 20).expect("a range");
    let around = told(Around::new(range, Filter::default()));
    let tables = [
        By::Call,
        By::Mapping,
        By::File,
        By::Thread,
        By::Space,
        By::Kind,
    ]
    .map(|by| told(Table::of(by, Filter::default())).into_table());
    let profile = profile();
    let (owners, stacks) = (
        profile.by_owner(&mut HeldNames),
        profile.by_stack(&mut HeldNames),
    );
    let trees = [Direction::Down, Direction::Up]
        .map(|direction| profile.tree(&mut HeldNames, direction, None));
    let lives = lives();
    let steps = steps();
    for width in 40..=200 {
        for unicode in [true, false] {
            let style = Style::plain(Some(width), unicode);
            let all = text(|out| {
                write_at(out, &then, &style).expect("memory is no file");
                write_around(out, &around, &style).expect("memory is no file");
                write_chart(out, &steps, &style).expect("memory is no file");
                for table in &tables {
                    write_table(out, table, Some(3), &style).expect("memory is no file");
                }
                write_owners(out, &owners, Some(2), &style).expect("memory is no file");
                write_stacks(out, &stacks, Some(2), &style).expect("memory is no file");
                write_lives(out, &lives, Some(2), &style).expect("memory is no file");
                for tree in &trees {
                    write_tree(out, tree, Some(3), &style).expect("memory is no file");
                }
            });
            for line in all.lines() {
                assert!(width_of(line) <= width, "{width}: {line}");
                assert!(unicode || line.is_ascii(), "{line}");
            }
            assert_eq!(all.matches(" total\n").count(), 6 + 5, "{all}");
            assert!(
                all.contains("total") && all.contains("mapped") && all.contains("7f0000000000")
            );
        }
    }
}

/// A run with stacks: one function reserves, two commit.
fn with_stacks() -> Run {
    let mut run = Run::new();
    let reserve = run.stack(&[
        "mmap",
        "runtime.sysReserve",
        "runtime.(*mheap).sysAlloc",
        "runtime.mallocinit",
        "runtime.schedinit",
        "main",
    ]);
    let grow = run.stack(&[
        "mmap",
        "runtime.sysMap",
        "runtime.(*mheap).grow",
        "runtime.mallocgc",
        "main.work",
        "main",
    ]);
    let own = run.stack(&["mprotect", "main.work", "main"]);
    run.call_from(10, mmap(A, 64 << 20, 0), reserve);
    for step in 0..4 {
        run.call_from(10, mmap(A + (step << 22), 4 << 20, 3), grow);
    }
    run.call_from(10, mmap(A + (1 << 32), 1 << 20, 0), own);
    run.call_from(10, mprotect(A + (1 << 32), 256 << 10, 3), own);
    run.call_from(11, munmap(A + (63 << 20), 1 << 20), own);
    run
}

fn profile() -> Profile {
    let mut sink = ProfileSink::new(Filter::default());
    with_stacks().tell(&mut sink);
    sink.into_profile()
}

fn lives() -> Lives {
    let mut sink = LivesSink::new(Filter::default());
    with_stacks().tell(&mut sink);
    sink.into_lives(&mut HeldNames)
}

#[test]
fn owners_and_stacks_read_like_tables() {
    let style = Style::plain(Some(80), true);
    let owners = profile().by_owner(&mut HeldNames);
    let shown = text(|out| write_owners(out, &owners, None, &style).expect("memory is no file"));
    assert_eq!(
        shown,
        "                  in all             left at end
    reserved   committed    reserved   committed  owner
    64.0 MiB           -    47.0 MiB           -  runtime.(*mheap).sysAlloc
           -    16.0 MiB           -    16.0 MiB  runtime.(*mheap).grow  server
     1.0 MiB     256 KiB     768 KiB     256 KiB  main.work  server
           -           -           -      12 KiB  (began: exec)
    65.0 MiB    16.3 MiB    47.8 MiB    16.3 MiB  total
"
    );
    let stacks = profile().by_stack(&mut HeldNames);
    let shown = text(|out| write_stacks(out, &stacks, None, &style).expect("memory is no file"));
    assert_eq!(
        shown,
        "                                    left at end
      calls     reserve    reserved   committed  owner, stack
          1    64.0 MiB    47.0 MiB           -  runtime.(*mheap).sysAlloc
    mmap ← runtime.sysReserve ← runtime.(*mheap).sysAlloc ← runtime.mallocinit ←
    runtime.schedinit ← main
          4           -           -    16.0 MiB  runtime.(*mheap).grow
    mmap ← runtime.sysMap ← runtime.(*mheap).grow ← runtime.mallocgc ←
    main.work ← main
          3     1.0 MiB     768 KiB     256 KiB  main.work
    mprotect ← main.work ← main
          -           -           -      12 KiB  (began: exec)
          8    65.0 MiB    47.8 MiB    16.3 MiB  total
"
    );
}

#[test]
fn a_tree_has_a_line_for_each_fork_of_the_way() {
    let style = Style::plain(Some(80), true);
    let down = profile().tree(&mut HeldNames, Direction::Down, None);
    let shown = text(|out| write_tree(out, &down, None, &style).expect("memory is no file"));
    assert_eq!(
        shown,
        "    reserved   committed     share  left at end, by who called whom
    47.8 MiB    16.3 MiB  > 99.9 %  main
    47.0 MiB           -    73.4 %    runtime.schedinit → runtime.mallocinit →
                                      runtime.(*mheap).sysAlloc →
                                      runtime.sysReserve → mmap
     768 KiB    16.3 MiB    26.6 %    main.work
           -    16.0 MiB    25.0 %      runtime.mallocgc →
                                        runtime.(*mheap).grow → runtime.sysMap →
                                        mmap
     768 KiB     256 KiB     1.6 %      mprotect
           -      12 KiB   < 0.1 %  (began: exec)
    47.8 MiB    16.3 MiB     100 %  total
"
    );
    let up = profile().tree(&mut HeldNames, Direction::Up, Some(Weight::Mapped));
    let shown = text(|out| write_tree(out, &up, Some(2), &style).expect("memory is no file"));
    assert_eq!(
        shown,
        "      mapped     share  left at end, by who was called by whom
    63.0 MiB    98.4 %  mmap ← runtime.sysReserve ← runtime.(*mheap).sysAlloc ←
                        runtime.mallocinit ← runtime.schedinit ← main
     1.0 MiB     1.6 %  mprotect ← main.work ← main
      12 KiB   < 0.1 %  1 more (-n 0 shows all)
    64.0 MiB     100 %  total
"
    );
}

#[test]
fn a_reservation_tells_both_of_its_steps() {
    let style = Style::plain(Some(80), true);
    let shown =
        text(|out| write_lives(out, &lives(), Some(40), &style).expect("memory is no file"));
    assert_eq!(
        shown,
        "                    ever             left at end
    reserved   committed    reserved   committed  reservation
    64.0 MiB    16.0 MiB    47.0 MiB    16.0 MiB  7f0000000000 anonymous
    reserved by mmap at 0.010 s, server 10: runtime.(*mheap).sysAlloc ←
      runtime.mallocinit ← runtime.schedinit ← main
    committed 16.0 MiB in 4 calls from 0.011 s to 0.014 s:
      runtime.(*mheap).grow ← runtime.mallocgc ← main.work ← main
    1.0 MiB released
     1.0 MiB     256 KiB     768 KiB     256 KiB  7f0100000000 anonymous
    reserved by mmap at 0.015 s, server 10: main.work ← main
    committed 256 KiB at 0.016 s: main.work ← main
    65.0 MiB    16.3 MiB    47.8 MiB    16.3 MiB  total
"
    );
}

#[test]
fn a_chart_has_scales_an_axis_of_time_and_a_mark_over_the_peak() {
    let steps = steps();
    for width in [40, 80, 120, 200] {
        let style = Style::plain(Some(width), true);
        let chart = text(|out| write_chart(out, &steps, &style).expect("memory is no file"));
        let lines: Vec<&str> = chart.lines().collect();
        assert_eq!(lines.len(), 4 * 5 + 2, "{chart}");
        for (figure, name) in ["mapped", "reserved", "committed", "resident"]
            .iter()
            .enumerate()
        {
            let [title, top, .., bottom] = &lines[figure * 5..figure * 5 + 5] else {
                panic!("five lines");
            };
            assert!(title.trim_start().starts_with(name), "{title}");
            assert!(
                top.contains("iB │"),
                "the highest value and its unit: {top}"
            );
            assert!(bottom.contains("0 B │"), "{bottom}");
            let column = |line: &str, wanted: char| line.chars().position(|c| c == wanted);
            let peak = column(title, '▼').unwrap_or_else(|| panic!("a mark in {title}"));
            assert_eq!(top.chars().nth(peak), Some('█'), "{title}\n{top}");
            assert_eq!(
                column(top, '█'),
                Some(peak),
                "the first of the highest\n{title}\n{top}"
            );
        }
        assert!(
            lines[21].contains("0 ms") && lines[21].trim_end().ends_with("ms"),
            "{chart}"
        );
    }
}

#[test]
fn where_nobody_looks_a_chart_is_eighty_columns_wide() {
    let chart = text(|out| {
        let style = Style::plain(None, true);
        write_chart(out, &steps(), &style).expect("memory is no file");
    });
    let widest = chart.lines().map(width_of).max();
    assert!(matches!(widest, Some(79 | 80)), "{widest:?}");
}

#[test]
fn the_mappings_at_a_moment_read_like_a_map_with_makers() {
    let then = told(At::new(Filter::default())).into_then();
    let style = Style::plain(Some(130), true);
    let shown = text(|out| write_at(out, &then, &style).expect("memory is no file"));
    assert_eq!(
        shown,
        "  at 0.037 s, the end of the last address space

  server  pid 10, 4 mappings
    mapped 1.00 GiB = reserved 1008.0 MiB + committed 16.0 MiB (3.8 MiB resident, measured at 0.035 s)
  address                          size  rwx   made by          rights by                mapping
  400000-402000                   8 KiB  r-xp  0.001 s exec                              /srv/server
  7f0000000000-7f0001000000    16.0 MiB  rw-p  0.003 s mmap 10  0.034 s mprotect 10 +15  anonymous
  7f0001000000-7f0040000000  1008.0 MiB  ---p  0.003 s mmap 10                           anonymous
  7ffffffde000-7ffffffdf000       4 KiB  rw-p  0.001 s exec                              stack
"
    );
}
