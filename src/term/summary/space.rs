//! One address space: who, how it ended, its figures, what the checks found.

use std::io;

use crate::report::{SpaceReport, Verify};
use crate::term::page::Page;
use crate::term::{Count, Duration, Elapsed, Percent, Role, SignalName, Size, escaped};
use crate::timeline::{Ended, TaskEnd};
use crate::units::Bytes;

use super::figures::{self, RESERVED, Row};
use super::{name_of, peak_by};

/// Differences that are shown.
const DIFFERENCES: usize = 6;

/// Writes the head and the figures of `space`.
pub(super) fn write(page: &mut Page<'_>, space: &SpaceReport) -> io::Result<()> {
    let name = name_of(space, page.style.unicode);
    page.text(Role::Strong, format_args!("  {name}"));
    let mut head = vec![format!("pid {}", space.pid)];
    let exe = escaped(space.exe.as_bytes(), page.style.unicode);
    if !exe.is_empty() && exe != name {
        head.push(exe);
    }
    head.push(ending(space));
    let calls: u64 = space.calls.values().map(|calls| calls.count).sum();
    head.push(format!("{} memory call{}", Count(calls), plural(calls)));
    if space.tasks.peak > 1 {
        head.push(format!("up to {} threads", Count(space.tasks.peak)));
    }
    let (verdict, alarming) = verdict(space);
    if !alarming {
        head.push(verdict.clone());
    }
    page.line.push("  ");
    page.wrap(4, Role::Plain, ", ", &head)?;
    if alarming {
        page.text(Role::Alarm, format_args!("  {verdict}"));
        page.end()?;
        differences(page, &space.verify)?;
    }
    let resident = space.resident.map_or(Bytes(0), |resident| resident.end);
    figures::bar(page, space.mapped.end, space.committed.end, resident)?;
    figures::write(page, ["at end", "peak"], &rows(space))
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `ended by SIGTERM after 2.0 s`
fn ending(space: &SpaceReport) -> String {
    let time = Duration(space.until.since(space.since));
    match (space.ended, space.status) {
        (Ended::Exit, Some(TaskEnd::Exited(status))) => {
            format!("exited with {status} after {time}")
        }
        (Ended::Exit, Some(TaskEnd::Killed { signal, core })) => {
            let core = if core { " (core dumped)" } else { "" };
            format!("ended by {}{core} after {time}", SignalName(signal))
        }
        (Ended::Exit, _) => format!("ended after {time}"),
        (Ended::Exec, _) => format!("replaced by exec after {time}"),
        (Ended::Detach, _) => format!("let go after {time}"),
        (Ended::Cut, _) => format!("still there when the trace stopped after {time}"),
    }
}

/// What the checks found, and whether it must be shown loudly.
fn verdict(space: &SpaceReport) -> (String, bool) {
    let Verify {
        checks,
        drift,
        resynced,
        ..
    } = space.verify;
    if drift > Bytes(0) {
        let drift = Size(drift);
        return (
            format!("DRIFT: {drift} differ from the kernel's map; do not trust these sums"),
            true,
        );
    }
    let agrees = space.peak_agrees();
    if agrees == Some(false) {
        let off = Size(space.peak_differs_by());
        let text = format!("INEXACT: the peak of mapped differs from the kernel's by {off}");
        return (text, true);
    }
    let mut text = match checks {
        _ if !space.known => "map could not be read at the start: not verified".to_owned(),
        0 if agrees == Some(true) => "peak verified (its map was gone)".to_owned(),
        0 => "map not verified".to_owned(),
        1 => "map verified: no drift".to_owned(),
        checks => format!("map verified {} times: no drift", Count(checks)),
    };
    if resynced > Bytes(0) {
        text.push_str(&format!(" ({} corrected)", Size(resynced)));
    }
    (text, false)
}

fn differences(page: &mut Page<'_>, verify: &Verify) -> io::Result<()> {
    let unicode = page.style.unicode;
    for difference in verify.differences.iter().take(DIFFERENCES) {
        let model = escaped(difference.model.as_bytes(), unicode);
        let kernel = escaped(difference.kernel.as_bytes(), unicode);
        page.text(
            Role::Plain,
            format_args!("    {}  here {model}, kernel {kernel}", difference.range),
        );
        page.end()?;
    }
    let more =
        verify.differences.len().saturating_sub(DIFFERENCES) as u64 + verify.more_differences;
    if more > 0 {
        page.text(
            Role::Dim,
            format_args!("    and {} more spans", Count(more)),
        );
        page.end()?;
    }
    Ok(())
}

fn rows(space: &SpaceReport) -> Vec<Row> {
    let pid = Some(space.pid);
    let row = |label, role, figure: &crate::report::Figure<Bytes>, notes| Row {
        label,
        role,
        values: [Some(figure.end), Some(figure.peak)],
        when: peak_by(figure.peak_time, &figure.peak_by, pid),
        notes,
    };
    let mut committed = figures::parts(&space.parts);
    if space.noreserve > Bytes(0) {
        committed.push(format!("{} of it noreserve", Size(space.noreserve)));
    }
    if space.verify.grown > Bytes(0) {
        committed.push(format!("stacks grew by {}", Size(space.verify.grown)));
    }
    let charged = match space.charged.exact {
        true => vec!["counts against the commit limit".to_owned()],
        false => vec![
            format!("an upper bound: at least {}", Size(space.charged.at_least)),
            "counts against the commit limit".to_owned(),
        ],
    };
    let mut rows = vec![
        row("mapped (VSZ)", Role::Plain, &space.mapped, Vec::new()),
        row(
            "  reserved",
            Role::Reserved,
            &space.reserved,
            vec![RESERVED.to_owned()],
        ),
        row("  committed", Role::Committed, &space.committed, committed),
        Row {
            values: [Some(space.charged.end), Some(space.charged.peak.peak)],
            ..row("charged", Role::Plain, &space.charged.peak, charged)
        },
    ];
    if let Some(resident) = space.resident {
        let mut notes = Vec::new();
        if let Some(part) = resident.last() {
            let whole = space.mapped.end;
            notes.push(format!("{} of mapped", Percent { part, whole }));
        }
        if let Some(parts) = resident.parts {
            let parts = [
                (parts.anon, "anonymous"),
                (parts.file, "files"),
                (parts.shmem, "shared memory"),
            ];
            let parts = parts.into_iter().filter(|(bytes, _)| *bytes > Bytes(0));
            notes.extend(parts.map(|(bytes, word)| format!("{} {word}", Size(bytes))));
        }
        if let Some(swap) = resident.swap.filter(|swap| *swap > Bytes(0)) {
            notes.push(format!("{} more in swap", Size(swap)));
        }
        notes.push(match resident.last() {
            Some(_) => format!("measured at {}", Elapsed(resident.measured.0)),
            None => "never measured".to_owned(),
        });
        let when = match resident.peak_exact {
            true => "as the kernel saw it".to_owned(),
            false => format!("{}, measured", Elapsed(resident.peak_time.0)),
        };
        rows.push(Row {
            label: "resident",
            role: Role::Strong,
            values: [resident.last(), Some(resident.peak)],
            when,
            notes,
        });
    }
    if let Some(touched) = space.touched {
        let faults = Count(touched.faults);
        let mut notes = vec![format!("{faults} page fault{}", plural(touched.faults))];
        if touched.recorded < touched.faults {
            notes.push(format!("{} of them recorded", Count(touched.recorded)));
        }
        rows.push(Row {
            label: "touched",
            role: Role::Plain,
            values: [Some(touched.bytes); 2],
            when: "in all".to_owned(),
            notes,
        });
    }
    rows
}
