//! What makes a comparison less than certain.

use std::collections::BTreeSet;

use crate::report::SpaceReport;

use super::Recorded;

/// What makes the figures less than certain, in sentences.
pub(super) fn doubts(before: &[Recorded], after: &[Recorded]) -> Vec<String> {
    let mut doubts = Vec::new();
    for (word, runs) in [("before", before), ("after", after)] {
        for (index, run) in runs.iter().enumerate() {
            let which = match runs.len() {
                1 => word.to_owned(),
                _ => format!("{word}, run {}", index + 1),
            };
            let report = &run.report;
            if let Some(damage) = &report.damage {
                doubts.push(format!("{which}: {damage}"));
            }
            if 0 < report.lost {
                doubts.push(format!("{which}: {} observations were lost", report.lost));
            }
            if report.spaces.iter().any(|space| 0 < space.verify.drift.0) {
                doubts.push(format!("{which}: the model drifted from the kernel's map"));
            }
            let inexact = |space: &&SpaceReport| space.peak_agrees() == Some(false);
            let inexact = report.spaces.iter().filter(inexact);
            if let Some(most) = inexact.map(SpaceReport::peak_differs_by).max() {
                doubts.push(format!(
                    "{which}: the peak of mapped differs from the kernel's by up to {} bytes",
                    most.0
                ));
            }
            if 0 < run.steps.left_out {
                let left_out = run.steps.left_out;
                doubts.push(format!(
                    "{which}: the last {left_out} calls were not aligned"
                ));
            }
        }
    }
    let kernels: BTreeSet<&str> = before
        .iter()
        .chain(after)
        .map(|run| run.report.info.kernel.as_str())
        .collect();
    if 1 < kernels.len() {
        let kernels: Vec<&str> = kernels.into_iter().collect();
        doubts.push(format!(
            "recorded under different kernels: {}",
            kernels.join(", ")
        ));
    }
    doubts
}
