//! Amounts, names, and the peaks of parts against a recount.

use std::path::Path;

use proptest::prelude::*;

use crate::mm::Parts;
use crate::timeline::{Event, Sink, Timeline};
use crate::trace_file::TraceReader;

use super::*;

#[test]
fn amounts_are_numbers_with_the_units_of_linux() {
    for (text, bytes) in [
        ("0", 0),
        ("500", 500),
        ("500B", 500),
        ("1k", 1024),
        ("64KiB", 64 << 10),
        ("64 KiB", 64 << 10),
        ("200M", 200 << 20),
        ("200MiB", 200 << 20),
        ("1.5GiB", 3 << 29),
        ("0.5K", 512),
        ("2GB", 2_000_000_000),
        ("1_000", 1000),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(amount(text), Ok(bytes), "{text}");
    }
    for wrong in [
        "",
        "M",
        "-1",
        "1e6",
        "1..5M",
        ".5M",
        "5.M",
        "5 X",
        "5MiBs",
        "18446744073709551616",
        "16777216T",
        "999999999999999999999999999999999999999",
        "0.0000000001G",
    ] {
        assert!(amount(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_growth_is_a_share_or_an_amount() {
    let limit = |text, base| Growth::parse(text).map(|growth| growth.limit(base));
    assert_eq!(limit("10%", 1000), Ok(1100));
    assert_eq!(limit("0%", 1000), Ok(1000));
    assert_eq!(limit("0.5 %", 1000), Ok(1005));
    assert_eq!(limit("250%", 4), Ok(14));
    assert_eq!(
        limit("10%", 9),
        Ok(9),
        "part of a byte is no growth allowed"
    );
    assert_eq!(limit("1KiB", 1000), Ok(2024));
    assert_eq!(limit("100%", u64::MAX), Ok(u64::MAX));
    for wrong in ["", "%", "-5%", "ten%", "10%%", "99999999999999999999%"] {
        assert!(limit(wrong, 1).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_amount_makes_a_panic(text in "[0-9._]{0,30}[kKMGTiB% ]{0,5}", base: u64) {
        let _ = amount(&text);
        let _ = Growth::parse(&text).map(|growth| growth.limit(base));
    }
}

#[test]
fn a_figure_is_named_as_it_prints() {
    for (_, name) in Measure::ALL {
        let figure: Figure = name.parse().expect("it is known");
        assert_eq!(figure.to_string(), name);
    }
    let end: Figure = "anon.end".parse().expect("it is known");
    assert_eq!((end.measure, end.when), (Measure::Anon, When::End));
    assert_eq!(end.to_string(), "anon.end");
    assert_eq!("anon.peak".parse::<Figure>(), "anon".parse());
    for wrong in ["", "vsz", "anon.", "anon.begin", "calls.end", "end"] {
        assert!(wrong.parse::<Figure>().is_err(), "{wrong}");
    }
}

#[test]
fn a_program_is_its_executable_without_folder() {
    assert_eq!(program_name("/usr/bin/node"), "node");
    assert_eq!(program_name("/srv/server (deleted)"), "server");
    assert_eq!(program_name(""), "");
}

/// Sums of parts over the models of all spaces, taken anew after every event.
#[derive(Default)]
struct Recount(Parts);

impl Sink for Recount {
    fn event(&mut self, _: &Event, timeline: &Timeline) -> std::io::Result<()> {
        let totals = || timeline.spaces.values().map(|space| space.model.totals());
        let Parts {
            anon,
            file,
            shmem,
            special,
        } = &mut self.0;
        *anon = (*anon).max(totals().map(|totals| totals.parts.anon).sum());
        *file = (*file).max(totals().map(|totals| totals.parts.file).sum());
        *shmem = (*shmem).max(totals().map(|totals| totals.parts.shmem).sum());
        *special = (*special).max(totals().map(|totals| totals.parts.special).sum());
        Ok(())
    }
}

#[test]
fn the_peaks_of_parts_are_those_of_a_recount() {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    for name in ["format-1.1.mtr", "go-1.25.5.mtr", "python3.mtr"] {
        let mut reader = TraceReader::open(&traces.join(name)).expect("it is a trace");
        let (mut parts, mut recount) = (PartsPeaks::default(), Recount::default());
        let sinks: &mut [&mut dyn Sink] = &mut [&mut parts, &mut recount];
        let report = crate::report::replay_into(&mut reader, sinks).expect("it can be read");
        assert_eq!(parts.tree(), recount.0, "{name}");
        for space in &report.spaces {
            let peak = parts.of(space.id);
            let at_peak = space.at_peak.parts;
            assert!(at_peak.anon <= peak.anon && at_peak.file <= peak.file);
            assert!(space.parts.shmem <= peak.shmem && space.parts.anon <= peak.anon);
        }
    }
}

#[test]
fn later_budgets_replace_earlier_ones_and_drift_and_lost_are_zero_unless_said() {
    let budget = |text: &str, limit| Budget {
        program: None,
        figure: text.parse().expect("a figure"),
        limit: Limit::Max(limit),
    };
    let mut budgets = Budgets::default();
    for (figure, limit) in [("anon", 1), ("lost", 7), ("anon.end", 2), ("anon.peak", 3)] {
        budgets.add(budget(figure, limit));
    }
    let all = budgets.with_defaults().list;
    let expected = [("anon", 3), ("lost", 7), ("anon.end", 2), ("drift", 0)];
    assert_eq!(all, expected.map(|(figure, limit)| budget(figure, limit)));
}
