//! Medians, ratios and how they look.

use std::fmt;

/// The results of one contender in one case, smaller is better.
pub struct Samples(pub Vec<f64>);

/// A middle value and between what it lies.
#[derive(Clone, Copy)]
pub struct Figure {
    pub middle: f64,
    pub least: f64,
    pub most: f64,
}

impl Samples {
    pub fn figure(&self) -> Option<Figure> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let middle = if sorted.len().is_multiple_of(2) {
            (sorted[half - 1] + sorted[half]) / 2.0
        } else {
            sorted[half]
        };
        Some(Figure {
            middle,
            least,
            most,
        })
    }

    /// The ratio of the medians, between those of the runs that followed each other.
    pub fn over(&self, other: &Samples) -> Option<Figure> {
        let pairs = self
            .0
            .iter()
            .zip(&other.0)
            .map(|(this, other)| this / other)
            .collect();
        let spread = Samples(pairs).figure()?;
        Some(Figure {
            middle: self.figure()?.middle / other.figure()?.middle,
            ..spread
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure {
            middle,
            least,
            most,
        } = *self;
        write!(
            f,
            "{:>7}  [{} – {}]",
            short(middle),
            short(least),
            short(most)
        )
    }
}

/// Three digits or so: no run is more exact.
pub fn short(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}
