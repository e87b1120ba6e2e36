//! `memtrace check`: whether traces keep to their budgets.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::export::check::{Case, Checked, github, junit, markdown, text};
use crate::report::check::{
    Budgets, Measured, Outcome, PartsPeaks, Verdict, check as verdicts, untrusted,
};
use crate::report::replay_into;
use crate::term::{escaped, why_broken};

use super::Failure;
use super::args::{Check, CheckFormat};
use super::budget::{self, BudgetFile};
use super::open::open;

/// Checks each trace; 0 if all keep to all budgets, 1 if not.
pub fn check(args: &Check) -> Result<i32, Failure> {
    let trouble = |error: anyhow::Error| Failure::new(2, error);
    let BudgetFile { baseline, budgets } = budgets(args).map_err(trouble)?;
    let baseline = match &baseline {
        None => None,
        Some(path) => {
            let measured = measure(path)?;
            if let Some(damage) = untrusted(&measured, &budgets) {
                let error = anyhow!("{}: as a baseline, {damage}", path.display());
                return Err(trouble(error));
            }
            Some(measured)
        }
    };
    let mut all = Vec::new();
    let mut missing: Vec<Verdict> = Vec::new();
    let mut programs = BTreeSet::new();
    for (index, path) in args.traces.iter().enumerate() {
        let measured = measure(path)?;
        let mut verdicts = verdicts(&measured, &budgets, baseline.as_ref())
            .map_err(|error| trouble(error.into()))?;
        let absent = |verdict: &Verdict| verdict.outcome == Outcome::NoProgram;
        // A program that is in none of the traces is misspelled; in some it may be missing.
        match index {
            0 => missing = verdicts.iter().filter(|one| absent(one)).cloned().collect(),
            _ => missing.retain(|old| verdicts.iter().any(|new| new == old)),
        }
        programs.extend(measured.programs().into_iter().map(str::to_owned));
        verdicts.retain(|verdict| !absent(verdict));
        all.push(told(path, &measured, &budgets, &verdicts));
    }
    if let Some(missing) = missing.first().and_then(why_broken) {
        let programs: Vec<String> = programs.into_iter().collect();
        let there_are = programs.join(", ");
        return Err(trouble(anyhow!(
            "{missing} in any trace, only of {there_are}"
        )));
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = match args.format {
        CheckFormat::Text => text(&mut out, &all),
        CheckFormat::Junit => junit(&mut out, &all),
        CheckFormat::Github => github(&mut out, &all),
        CheckFormat::Markdown => markdown(&mut out, &all),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let error = anyhow::Error::new(error).context("cannot write the result");
            Err(trouble(error))
        }
        _ => Ok(i32::from(all.iter().any(|checked| checked.failed() != 0))),
    }
}

/// The budgets of the file and of the command line, which has the last word.
fn budgets(args: &Check) -> anyhow::Result<BudgetFile> {
    let mut file = match &args.budget {
        None => BudgetFile::default(),
        Some(path) => {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            budget::parse(&text, path)
                .map_err(|problem| anyhow!("{}: {problem}", path.display()))?
        }
    };
    for text in &args.max {
        let budget = budget::max_of_line(text).map_err(|problem| anyhow!("--max {problem}"))?;
        file.budgets.add(budget);
    }
    for text in &args.max_growth {
        let budget =
            budget::growth_of_line(text).map_err(|problem| anyhow!("--max-growth {problem}"))?;
        file.budgets.add(budget);
    }
    if file.budgets.list.is_empty() {
        return Err(anyhow!("there is no budget to check: say what is limited"));
    }
    file.baseline = args.baseline.clone().or(file.baseline);
    file.budgets.allow_incomplete |= args.allow_incomplete;
    file.budgets = file.budgets.with_defaults();
    Ok(file)
}

fn measure(path: &Path) -> Result<Measured, Failure> {
    let mut source = open(path)?;
    let mut parts = PartsPeaks::default();
    let report = replay_into(&mut *source, &mut [&mut parts])
        .with_context(|| format!("cannot read {}", path.display()))
        .map_err(|error| Failure::new(2, error))?;
    Ok(Measured { report, parts })
}

/// Verdicts in words.
fn told(path: &Path, measured: &Measured, budgets: &Budgets, verdicts: &[Verdict]) -> Checked {
    let damage = untrusted(measured, budgets).map(|damage| Case {
        name: "complete".to_owned(),
        failure: Some(damage.to_string()),
    });
    let cases = verdicts.iter().map(|verdict| Case {
        name: escaped(verdict.budget.to_string().as_bytes(), true),
        failure: why_broken(verdict),
    });
    Checked {
        trace: escaped(path.display().to_string().as_bytes(), true),
        cases: damage.into_iter().chain(cases).collect(),
    }
}
