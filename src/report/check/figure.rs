//! The names of what can be limited.

use std::fmt;
use std::str::FromStr;

/// What can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// All mappings, bytes.
    Mapped,
    /// Those without any access right, bytes.
    Reserved,
    /// The others, bytes.
    Committed,
    /// Committed private anonymous memory, bytes.
    Anon,
    /// Committed files, bytes.
    File,
    /// Committed shared memory, bytes.
    Shmem,
    /// Counted against the commit limit, bytes; at its peak the highest that the calls allow.
    Charged,
    /// Physical memory, bytes.
    Resident,
    /// Mappings, a count.
    Mappings,
    /// Memory calls, a count.
    Calls,
    /// Where model and kernel differed, bytes.
    Drift,
    /// Observations that were lost, a count.
    Lost,
}

impl Measure {
    pub(super) const ALL: [(Measure, &str); 12] = [
        (Measure::Mapped, "mapped"),
        (Measure::Reserved, "reserved"),
        (Measure::Committed, "committed"),
        (Measure::Anon, "anon"),
        (Measure::File, "file"),
        (Measure::Shmem, "shmem"),
        (Measure::Charged, "charged"),
        (Measure::Resident, "resident"),
        (Measure::Mappings, "mappings"),
        (Measure::Calls, "calls"),
        (Measure::Drift, "drift"),
        (Measure::Lost, "lost"),
    ];

    /// Its name in budgets.
    pub fn name(self) -> &'static str {
        let named = Measure::ALL.iter().find(|(measure, _)| *measure == self);
        named.map_or("", |(_, name)| name)
    }

    /// Whether it counts bytes.
    pub fn is_bytes(self) -> bool {
        use Measure::*;
        !matches!(self, Mappings | Calls | Lost)
    }

    /// Whether it is summed over the whole trace, so that it has no peak.
    pub(super) fn is_sum(self) -> bool {
        matches!(self, Measure::Calls | Measure::Drift | Measure::Lost)
    }
}

/// When a figure is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Its highest value.
    #[default]
    Peak,
    /// Its last value.
    End,
}

/// A figure: what and when. As text `reserved` or `reserved.end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure {
    /// What.
    pub measure: Measure,
    /// When; of no meaning for `calls`, `drift` and `lost`.
    pub when: When,
}

impl FromStr for Figure {
    type Err = String;

    fn from_str(text: &str) -> Result<Figure, String> {
        let (name, when) = match text.split_once('.') {
            None => (text, None),
            Some((name, "peak")) => (name, Some(When::Peak)),
            Some((name, "end")) => (name, Some(When::End)),
            Some((_, other)) => {
                return Err(format!("'{text}' ends in .peak or .end, not .{other}"));
            }
        };
        let Some((measure, _)) = Measure::ALL.iter().find(|(_, known)| *known == name) else {
            let known: Vec<&str> = Measure::ALL.iter().map(|(_, name)| *name).collect();
            return Err(format!("'{name}' is none of {}", known.join(", ")));
        };
        if measure.is_sum() && when.is_some() {
            return Err(format!("{name} is a sum: it has no .peak and no .end"));
        }
        Ok(Figure {
            measure: *measure,
            when: when.unwrap_or_default(),
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.measure.name())?;
        match self.when {
            When::End => f.write_str(".end"),
            When::Peak => Ok(()),
        }
    }
}
