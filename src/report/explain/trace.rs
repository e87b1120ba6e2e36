//! The facts that a trace holds. What it cannot know (what its cgroup counted at the end, who else
//! was in it) stays `None`.

use crate::report::{Report, SpaceReport};
use crate::timeline::Ended;
use crate::units::Bytes;

use super::cgroup::Level;
use super::facts::*;
use super::owners::owners_of_places;
use super::refusals::{Refusals, Refuser};

/// The facts of the address space of a trace that matters most: the first in which a limit refused a
/// call, else the one with most physical memory, else the largest. `None` if the trace has none.
pub fn facts_of_trace(report: &Report, refusals: &Refusals) -> Option<Facts> {
    let refused = refusals
        .found()
        .iter()
        .find(|refusal| refusal.refuser != Refuser::Unknown);
    let by_refusal =
        refused.and_then(|refusal| report.spaces.iter().find(|space| space.id == refusal.space));
    let size = |space: &&SpaceReport| {
        let resident = space.resident.map(|resident| resident.peak);
        (resident, space.mapped.peak)
    };
    let chosen = by_refusal.or_else(|| report.spaces.iter().max_by_key(size))?;
    let environment = &report.info.environment;
    let state = match (chosen.ended, chosen.status) {
        (Ended::Exit, Some(end)) => State::Ended(end),
        _ => State::Alive,
    };
    let name = match &*chosen.comm {
        "" => chosen.exe.rsplit('/').next().unwrap_or_default(),
        comm => comm,
    };
    Some(Facts {
        subject: Subject {
            source: Source::Trace,
            pid: chosen.pid,
            name: name.to_owned(),
            state,
            space: Some(chosen.id),
            other_spaces: report.spaces.len().saturating_sub(1),
        },
        space: Some(space_of(chosen, refusals)),
        memory: memory_of(chosen, refusals),
        limits: refusals.limits_of(chosen.pid, environment.limits),
        cgroup: environment.cgroup.as_ref().map(|cgroup| Cgroups {
            version: cgroup.version,
            path: cgroup.path.clone(),
            levels: vec![Level {
                path: cgroup.path.clone(),
                max: cgroup.lowest_max,
                high: cgroup.high,
                swap_max: cgroup.swap_max,
                counted: cgroup.current,
                ..Level::default()
            }],
            hidden: false,
            before: Vec::new(),
            members: None,
            only_at_begin: true,
        }),
        machine: Machine {
            memory: environment.memory,
            swap: environment.swap,
            overcommit: Some(report.info.overcommit),
            max_map_count: environment.max_map_count,
            ..Machine::default()
        },
        tree_resident: Some(Bytes(report.tree.resident.peak)),
        oom_kills_before: None,
        refusals: refusals.found().to_vec(),
        missing: vec![Missing {
            what: "what the cgroup counted while the program ran, who else was in it, and who sent a signal",
            why: "a trace holds the limits of its begin only".to_owned(),
            remedy: Some("memtrace explain -p PID on the living process, or explain -- PROGRAM"),
        }],
    })
}

fn space_of(report: &SpaceReport, refusals: &Refusals) -> Space {
    let figure = |figure: crate::report::Figure<Bytes>| Peaked {
        now: figure.end,
        peak: Some(figure.peak),
        peak_time: Some(figure.peak_time),
    };
    let look = refusals.last_look(report.id).map(|look| &look.split);
    let detail = report.detail.as_ref();
    Space {
        mapped: figure(report.mapped),
        split: Some(Split {
            reserved: figure(report.reserved),
            reserved_resident: look.and_then(|look| look.reserved_resident),
            committed: figure(report.committed),
            parts: report.parts,
            noreserve: report.noreserve,
            data: look.map(|look| look.data).unwrap_or_default(),
            charged: Peaked {
                now: report.charged.end,
                peak: Some(report.charged.peak.peak),
                peak_time: Some(report.charged.peak.peak_time),
            },
            charged_exact: report.charged.exact,
            mappings: mappings_of(report, look),
            mappings_exact: look.is_some(),
            largest_hole: look.and_then(|look| look.largest_hole),
            narrow: look.is_some_and(|look| look.narrow),
            guarded: None,
            stack: look.and_then(|look| look.stack),
            thread_stacks: look
                .map(|look| look.thread_stacks.clone())
                .unwrap_or_default(),
            owners: match look {
                Some(look) => look.owners.clone(),
                None => detail
                    .map(|detail| owners_of_places(&detail.end))
                    .unwrap_or_default(),
            },
        }),
        page_tables: None,
        // Only a look at the mappings tells private writable memory from other.
        data: look.map(|look| Peaked::now(look.data)),
    }
}

/// The kernel's lines at the last look, and the most runs that the calls made: never more than lines.
fn mappings_of(report: &SpaceReport, look: Option<&Split>) -> Peaked<u64> {
    let runs = report.mappings;
    let now = look.map_or(runs.end, |look| look.mappings.now);
    Peaked {
        now,
        peak: Some(runs.peak.max(now)),
        peak_time: (now <= runs.peak).then_some(runs.peak_time),
    }
}

fn memory_of(report: &SpaceReport, refusals: &Refusals) -> Memory {
    let look = refusals.last_look(report.id);
    let Some(resident) = report.resident else {
        return Memory::default();
    };
    let parts = resident.parts;
    Memory {
        resident: resident.last(),
        peak: Some(resident.peak),
        measured: resident.last().map(|_| resident.measured),
        peak_time: Some(resident.peak_time),
        anon: parts.map(|parts| parts.anon),
        file: parts.map(|parts| parts.file),
        shmem: parts.map(|parts| parts.shmem),
        lazy_free: look.map(|look| look.lazy_free),
        swap: look.map(|look| look.swap),
        ..Memory::default()
    }
}
