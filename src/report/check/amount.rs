//! Amounts and growths, from text.

/// A number of bytes or a count: `500`, `64KiB`, `200M`, `1.5GiB`, `2GB`. As everywhere on Linux
/// `K`, `M`, `G` and `T` are powers of 1024, with or without `iB`; `kB`, `MB`, `GB` and `TB` are
/// powers of 1000.
pub fn amount(text: &str) -> Result<u64, String> {
    let refused = || format!("'{text}' is no amount: say 500, 64KiB, 200MiB, 1.5GiB");
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u128 = match unit.trim() {
        "" | "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(refused()),
    };
    let (value, scale) = decimal(number).ok_or_else(refused)?;
    let amount = value.checked_mul(unit).map(|amount| amount / scale);
    let amount = amount.and_then(|amount| u64::try_from(amount).ok());
    amount.ok_or_else(refused)
}

/// `1.25` as 125 and 100.
fn decimal(text: &str) -> Option<(u128, u128)> {
    const MOST_DIGITS: usize = 20;
    let text = text.replace('_', "");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if whole.is_empty() || MOST_DIGITS < whole.len() || 9 < fraction.len() {
        return None;
    }
    if text.contains('.') && fraction.is_empty() {
        return None;
    }
    let scale = 10_u128.pow(fraction.len() as u32);
    let digits = format!("{whole}{fraction}");
    Some((digits.parse().ok()?, scale))
}

/// How much more than in the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// A share of it, in millionths.
    Share(u64),
    /// An amount.
    Amount(u64),
}

impl Growth {
    /// `10%`, `0.5%`, or an amount.
    pub fn parse(text: &str) -> Result<Growth, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return amount(text)
                .map(Growth::Amount)
                .map_err(|_| format!("'{text}' is no growth: say 10% or 20MiB"));
        };
        let share = decimal(percent.trim()).and_then(|(value, scale)| {
            let millionths = value.checked_mul(10_000)? / scale;
            u64::try_from(millionths).ok()
        });
        share
            .map(Growth::Share)
            .ok_or_else(|| format!("'{text}' is no growth: say 10% or 20MiB"))
    }

    /// The highest value that has not grown by more than this over `base`.
    pub fn limit(self, base: u64) -> u64 {
        match self {
            Growth::Amount(amount) => base.saturating_add(amount),
            Growth::Share(millionths) => {
                let more = u128::from(base) * u128::from(millionths) / 1_000_000;
                base.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
            }
        }
    }
}
