//! The budget file: TOML.
//!
//! ```toml
//! baseline = "base.mtr"            # beside this file
//! allow_incomplete = false
//!
//! [max]                            # of all processes together
//! reserved = "2GiB"                # at its peak
//! committed = { peak = "300MiB", end = "200MiB" }
//! mappings = 500
//!
//! [max_growth]                     # over the baseline
//! committed = "10%"
//!
//! [program.server.max]             # of each process of that executable
//! anon = "100MiB"
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, MapAccess};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::report::check::{Budget, Budgets, Figure, Growth, Limit, amount};

/// What a budget file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BudgetFile {
    /// The trace that growth counts from, relative to the file's folder.
    pub(super) baseline: Option<PathBuf>,
    /// The budgets.
    pub(super) budgets: Budgets,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    baseline: Option<PathBuf>,
    #[serde(default)]
    allow_incomplete: bool,
    #[serde(default)]
    max: Limits,
    #[serde(default)]
    max_growth: Limits,
    #[serde(default)]
    program: BTreeMap<String, Program>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    #[serde(default)]
    max: Limits,
    #[serde(default)]
    max_growth: Limits,
}

type Limits = BTreeMap<String, Spanned<Setting>>;

/// A number, a text, or both for `peak` and `end`.
enum Setting {
    One(String),
    Split(Vec<(String, String)>),
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Setting, D::Error> {
        struct Any;
        impl<'de> de::Visitor<'de> for Any {
            type Value = Setting;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount such as 500 or \"200MiB\", or { peak = …, end = … }")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Setting, E> {
                Ok(Setting::One(number.to_string()))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Setting, E> {
                Ok(Setting::One(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Setting, A::Error> {
                let mut split = Vec::new();
                while let Some((when, setting)) = map.next_entry::<String, Setting>()? {
                    let Setting::One(value) = setting else {
                        return Err(de::Error::custom(format!("{when} is no amount")));
                    };
                    split.push((when, value));
                }
                Ok(Setting::Split(split))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Reads a budget file; one line that names the line of the file otherwise.
pub(super) fn parse(text: &str, path: &Path) -> Result<BudgetFile, String> {
    let whole: Whole = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| line_of(text, span.start));
        let line = line.map_or_else(String::new, |line| format!("line {line}: "));
        format!("{line}{}", error.message().replace('\n', " "))
    })?;
    let mut budgets = Budgets {
        allow_incomplete: whole.allow_incomplete,
        ..Budgets::default()
    };
    let mut add = |program: Option<&str>, table: &str, limits: &Limits, limit: Parse| {
        for (name, setting) in limits {
            let line = line_of(text, setting.span().start);
            let scope = program.map_or_else(String::new, |name| format!("program.{name}."));
            let wrong = |problem| format!("line {line}: {scope}{table}.{name}: {problem}");
            for (name, value) in named(name, setting.get_ref()) {
                budgets.add(Budget {
                    program: program.map(str::to_owned),
                    figure: name.parse().map_err(wrong)?,
                    limit: limit(&value).map_err(wrong)?,
                });
            }
        }
        Ok::<(), String>(())
    };
    add(None, "max", &whole.max, max)?;
    add(None, "max_growth", &whole.max_growth, growth)?;
    for (name, program) in &whole.program {
        add(Some(name), "max", &program.max, max)?;
        add(Some(name), "max_growth", &program.max_growth, growth)?;
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(BudgetFile {
        baseline: whole.baseline.map(|baseline| folder.join(baseline)),
        budgets,
    })
}

type Parse = fn(&str) -> Result<Limit, String>;

fn max(text: &str) -> Result<Limit, String> {
    amount(text).map(Limit::Max)
}

fn growth(text: &str) -> Result<Limit, String> {
    Growth::parse(text).map(Limit::Growth)
}

fn named(name: &str, setting: &Setting) -> Vec<(String, String)> {
    match setting {
        Setting::One(value) => vec![(name.to_owned(), value.clone())],
        Setting::Split(split) => {
            let whole =
                |(when, value): &(String, String)| (format!("{name}.{when}"), value.clone());
            split.iter().map(whole).collect()
        }
    }
}

/// `FIGURE=AMOUNT` of `--max`.
pub(super) fn max_of_line(text: &str) -> Result<Budget, String> {
    of_line(text, max)
}

/// `FIGURE=GROWTH` of `--max-growth`.
pub(super) fn growth_of_line(text: &str) -> Result<Budget, String> {
    of_line(text, growth)
}

fn of_line(text: &str, limit: Parse) -> Result<Budget, String> {
    let hint = || format!("'{text}' is no budget: say for instance committed=200MiB");
    let (name, value) = text.split_once('=').ok_or_else(hint)?;
    Ok(Budget {
        program: None,
        figure: name.trim().parse::<Figure>()?,
        limit: limit(value)?,
    })
}

/// The number of the line that holds byte `at`, from 1.
fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    1 + before.filter(|byte| **byte == b'\n').count()
}
