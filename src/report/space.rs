//! One address space while it lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::mm::{Flow, Span, Totals, Verb};
use crate::timeline::{
    Began, CallEvent, CheckCause, Checked, Ended, HighWater, Resident, SpaceState, TaskEnd,
    TouchEvent,
};
use crate::units::{Bytes, SpaceId, Tid, Timestamp};

use super::facts::{
    Charged, Detail, Figure, Made, Maker, ResidentParts, SpaceReport, TaskCount, Verify, call_name,
    is_error,
};
use super::ledger::{Cause, Ledger};
use super::places::PlaceBytes;
use super::touched::TouchedPages;

/// The places at the peak of one figure: read when the figure leaves it, not on the way up.
#[derive(Debug, Default)]
struct PeakPlaces {
    of: Option<Bytes>,
    places: Vec<PlaceBytes>,
}

impl PeakPlaces {
    /// To be called before a figure changes from `figure.end`.
    fn keep(&mut self, figure: &Figure<Bytes>, ledger: &Ledger) {
        if figure.end == figure.peak && self.of != Some(figure.peak) {
            self.of = Some(figure.peak);
            self.places = ledger.places();
        }
    }
}

/// What is collected about a living space.
#[derive(Debug)]
pub(super) struct Living {
    pub report: SpaceReport,
    pub last: Totals,
    /// The last measurement of physical memory.
    pub resident: Bytes,
    tasks_now: u64,
    /// Charge read from smaps, as long as nothing has changed since.
    charged: Option<Bytes>,
    ledger: Ledger,
    touched: TouchedPages,
    mapped_peak: PeakPlaces,
    committed_peak: PeakPlaces,
}

/// Who a space is.
pub(super) struct Identity {
    pub id: SpaceId,
    pub pid: Tid,
    pub exe: Arc<str>,
    pub began: Began,
    pub by: Maker,
    pub time: Timestamp,
}

impl Living {
    pub(super) fn new(identity: Identity, now: Totals, state: Option<&SpaceState>) -> Living {
        let Identity {
            id,
            pid,
            exe,
            began,
            by,
            time,
        } = identity;
        check_sums(&now);
        let mut ledger = Ledger::default();
        ledger.check(&now, time, state);
        let report = SpaceReport {
            id,
            pid,
            exe,
            comm: state.map_or_else(|| "".into(), |state| state.comm.clone()),
            began,
            ended: Ended::Cut,
            status: None,
            since: time,
            until: time,
            known: state.is_none_or(|state| state.known),
            mapped: Figure::new(now.mapped, time, by),
            reserved: Figure::new(now.reserved, time, by),
            committed: Figure::new(now.committed, time, by),
            parts: now.parts,
            noreserve: now.noreserve,
            at_peak: now,
            charged: Charged {
                end: now.charged_high,
                exact: false,
                at_least: now.charged_low,
                peak: Figure::new(now.charged_high, time, by),
            },
            resident: None,
            touched: None,
            mappings: Figure::new(now.mappings, time, by),
            calls: BTreeMap::new(),
            flow: Flow::default(),
            verify: Verify::default(),
            tasks: TaskCount::default(),
            detail: None,
        };
        Living {
            report,
            last: now,
            resident: Bytes(0),
            tasks_now: 0,
            charged: None,
            ledger,
            touched: TouchedPages::default(),
            mapped_peak: PeakPlaces::default(),
            committed_peak: PeakPlaces::default(),
        }
    }

    pub(super) fn call(
        &mut self,
        call: &CallEvent,
        time: Timestamp,
        by: Maker,
        state: Option<&SpaceState>,
    ) {
        let name = call_name(&call.raw);
        let count = match self.report.calls.get_mut(&*name) {
            Some(count) => count,
            None => self.report.calls.entry(name).or_default(),
        };
        match call.result {
            None if call.spans.is_empty() => count.cut += 1,
            result => {
                count.count += 1;
                let failed = result.is_some_and(|result| is_error(&call.raw, result));
                count.failed += u64::from(failed);
            }
        }
        if call.spans.is_empty() && call.now == self.last {
            return;
        }
        count.bytes += touched(&call.spans);
        self.report.flow += call.flow;
        if call.spans.iter().any(|span| span.verb != Verb::Discard) || call.now != self.last {
            self.charged = None;
            self.keep_peaks(&call.now);
            let cause = Cause {
                time,
                by,
                call: &call.call,
                state,
            };
            self.ledger.call(&call.spans, &call.now, cause);
            self.touched.follow(&call.spans);
            self.set(&call.now, time, by);
        }
    }

    pub(super) fn checked(
        &mut self,
        checked: &Checked,
        time: Timestamp,
        by: Maker,
        state: Option<&SpaceState>,
    ) {
        let Checked {
            cause,
            drift,
            resynced,
            grown,
            differences,
            charged,
            before: _,
            now,
        } = checked;
        let verify = &mut self.report.verify;
        match cause {
            None => {}
            Some(CheckCause::Doubt) => verify.doubts += 1,
            Some(CheckCause::Exit | CheckCause::Exec | CheckCause::Detach | CheckCause::Asked) => {
                verify.checks += 1
            }
        }
        verify.drift += *drift;
        verify.resynced += *resynced;
        verify.grown += *grown;
        let room = Verify::MAX_DIFFERENCES.saturating_sub(verify.differences.len());
        verify
            .differences
            .extend(differences.iter().take(room).cloned());
        verify.more_differences += differences.len().saturating_sub(room) as u64;
        if *now != self.last {
            self.charged = None;
            self.keep_peaks(now);
            self.ledger.check(now, time, state);
            self.set(now, time, by);
        }
        if charged.is_some() {
            self.charged = *charged;
        }
    }

    pub(super) fn sample(&mut self, resident: &Resident, time: Timestamp) {
        let Resident {
            now,
            anon,
            file,
            shmem,
            high_water,
            mapped: _,
            swap,
        } = *resident;
        self.resident = now;
        let report = self.report.resident.get_or_insert_default();
        (report.end, report.measured) = (now, time);
        report.samples += 1;
        let peak = high_water.unwrap_or_default().max(now);
        if report.peak < peak {
            (report.peak, report.peak_time) = (peak, time);
        }
        report.peak_exact = high_water.is_some();
        report.swap = swap.or(report.swap);
        if let (Some(anon), Some(file), Some(shmem)) = (anon, file, shmem) {
            report.parts = Some(ResidentParts {
                anon,
                file,
                shmem,
                measured: time,
            });
        }
    }

    pub(super) fn high_water(&mut self, high_water: &HighWater, time: Timestamp) {
        let HighWater { mapped, resident } = *high_water;
        self.report.verify.kernel_peak = Some(mapped);
        let report = self.report.resident.get_or_insert_default();
        if report.peak < resident {
            (report.peak, report.peak_time) = (resident, time);
        }
        report.peak_exact = true;
    }

    pub(super) fn touched(&mut self, touch: &TouchEvent) {
        let new = self.touched.touch(touch.addr);
        let touches = self.report.touched.get_or_insert_default();
        touches.add(touch, new);
    }

    pub(super) fn task_began(&mut self) {
        self.tasks_now += 1;
        self.report.tasks.total += 1;
        self.report.tasks.peak = self.report.tasks.peak.max(self.tasks_now);
    }

    pub(super) fn task_left(&mut self, status: Option<TaskEnd>) {
        self.tasks_now = self.tasks_now.saturating_sub(1);
        self.report.status = status.or(self.report.status);
    }

    /// Its sums at its last instant, if no event told them.
    pub(super) fn set_last(&mut self, last: &Totals, time: Timestamp, by: Maker) {
        if *last != self.last {
            self.set(last, time, by);
        }
    }

    /// The report of a space that is gone (or that the trace does not follow further).
    pub(super) fn end(self, ended: Ended, until: Timestamp, detail: bool) -> SpaceReport {
        let Living {
            last,
            mut report,
            ledger,
            mut mapped_peak,
            mut committed_peak,
            charged,
            ..
        } = self;
        report.ended = ended;
        report.until = until;
        report.charged.end = charged.unwrap_or(last.charged_high);
        report.charged.at_least = charged.unwrap_or(last.charged_low);
        report.charged.exact = charged.is_some();
        if report.charged.peak.peak < report.charged.end {
            let by = Maker {
                what: Made::Checked,
                ..Maker::default()
            };
            report.charged.peak.set(report.charged.end, until, by);
        }
        report.charged.peak.end = report.charged.end;
        if detail {
            mapped_peak.keep(&report.mapped, &ledger);
            committed_peak.keep(&report.committed, &ledger);
            report.detail = Some(Detail {
                end: ledger.places(),
                mapped_peak: mapped_peak.places,
                committed_peak: committed_peak.places,
                reservations: ledger.reservations(),
            });
        }
        report
    }

    /// Keeps the places of a peak that is about to be left, or rearranged.
    fn keep_peaks(&mut self, next: &Totals) {
        let Living {
            report,
            ledger,
            mapped_peak,
            committed_peak,
            ..
        } = self;
        if next.mapped <= report.mapped.end {
            mapped_peak.keep(&report.mapped, ledger);
        }
        if next.committed <= report.committed.end {
            committed_peak.keep(&report.committed, ledger);
        }
    }

    fn set(&mut self, now: &Totals, time: Timestamp, by: Maker) {
        check_sums(now);
        self.last = *now;
        let report = &mut self.report;
        if report.committed.peak < now.committed {
            report.at_peak = *now;
        }
        report.mapped.set(now.mapped, time, by);
        report.reserved.set(now.reserved, time, by);
        report.committed.set(now.committed, time, by);
        report.charged.peak.set(now.charged_high, time, by);
        report.mappings.set(now.mappings, time, by);
        report.parts = now.parts;
        report.noreserve = now.noreserve;
    }
}

/// What must hold at every instant.
fn check_sums(now: &Totals) {
    let parts = now.parts;
    let sum = parts.anon + parts.file + parts.shmem + parts.special;
    debug_assert_eq!(now.mapped, now.reserved + now.committed, "{now:?}");
    debug_assert_eq!(now.committed, sum, "{now:?}");
    debug_assert!(now.noreserve <= now.committed, "{now:?}");
    debug_assert!(now.charged_low <= now.charged_high, "{now:?}");
}

/// Bytes of `spans`, each byte once.
pub(super) fn touched(spans: &[Span]) -> Bytes {
    match spans {
        [] => Bytes(0),
        [one] => Bytes(one.range.len()),
        _ => {
            // Where a mapping came from is where it went.
            let counted = spans.iter().filter(|span| span.verb != Verb::MovedFrom);
            let mut ranges: Vec<_> = counted.map(|span| span.range).collect();
            ranges.sort();
            let mut sum = 0;
            let mut end = ranges
                .first()
                .map(|first| first.start())
                .unwrap_or_default();
            for range in ranges {
                let start = range.start().max(end);
                sum += range.end().0.saturating_sub(start.0);
                end = end.max(range.end());
            }
            Bytes(sum)
        }
    }
}
