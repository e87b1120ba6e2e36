//! How answers look, at every width.

use crate::report::reading::tests::run::{Run, mmap, mprotect, munmap};
use crate::report::reading::{Around, At, By, Filter, OverTime, Steps, Table};
use crate::term::{Style, width_of};
use crate::timeline::Sink;
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
            });
            for line in all.lines() {
                assert!(width_of(line) <= width, "{width}: {line}");
                assert!(unicode || line.is_ascii(), "{line}");
            }
            assert!(
                all.contains("total") && all.contains("mapped") && all.contains("7f0000000000")
            );
        }
    }
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
