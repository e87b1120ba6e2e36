//! How amounts, times and shares are written for people: short, aligned, never rounded to nothing.

use std::fmt;

use crate::units::Bytes;

/// Columns that every [`Size`] fits in: `1023.9 MiB`.
pub const SIZE_WIDTH: usize = 10;

/// A small text built without the heap, so that `{:>10}` costs nothing on every traced call.
struct Short {
    text: [u8; 32],
    len: usize,
}

impl Short {
    fn of(args: fmt::Arguments<'_>) -> Short {
        let mut short = Short {
            text: [0; 32],
            len: 0,
        };
        // Too long a text would only be cut; none of those below is.
        let _ = fmt::Write::write_fmt(&mut short, args);
        short
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.len]).unwrap_or_default()
    }
}

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.text.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// An amount with its unit: `132 KiB`, `64.0 MiB`, `1.49 GiB`. Whole KiB are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub Bytes);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 5] = [
            ("MiB", 20),
            ("GiB", 30),
            ("TiB", 40),
            ("PiB", 50),
            ("EiB", 60),
        ];
        let bytes = self.0.0;
        if bytes < 1 << 10 {
            return f.pad(Short::of(format_args!("{bytes} B")).as_str());
        }
        if bytes < 1 << 20 && bytes.is_multiple_of(1 << 10) {
            return f.pad(Short::of(format_args!("{} KiB", bytes >> 10)).as_str());
        }
        let kib = tenths(bytes, 10);
        if kib < 10_240 {
            return f.pad(Short::of(format_args!("{}.{} KiB", kib / 10, kib % 10)).as_str());
        }
        for (unit, shift) in UNITS {
            // What rounds up to 1024 of a unit is one of the next.
            let value = tenths(bytes, shift);
            if value >= 10_240 {
                continue;
            }
            if shift >= 30 && value < 1_000 {
                let value = scaled(bytes, shift, 100);
                let (whole, rest) = (value / 100, value % 100);
                return f.pad(Short::of(format_args!("{whole}.{rest:02} {unit}")).as_str());
            }
            let (whole, rest) = (value / 10, value % 10);
            return f.pad(Short::of(format_args!("{whole}.{rest} {unit}")).as_str());
        }
        f.pad(Short::of(format_args!("{bytes} B")).as_str())
    }
}

fn scaled(bytes: u64, shift: u32, by: u128) -> u64 {
    let unit = 1u128 << shift;
    ((u128::from(bytes) * by + unit / 2) >> shift) as u64
}

fn tenths(bytes: u64, shift: u32) -> u64 {
    scaled(bytes, shift, 10)
}

/// A time on the timeline, to the millisecond: `0.011 s`, `123.456 s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(pub u64);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0 / 1_000_000;
        f.pad(Short::of(format_args!("{}.{:03} s", ms / 1000, ms % 1000)).as_str())
    }
}

/// A span of time as one says it: `80 µs`, `0.011 s`, `12.3 s`, `2m 03 s`, `3h 07m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub u64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0;
        let tenth = ns.saturating_add(50_000_000) / 100_000_000;
        let seconds = ns.saturating_add(500_000_000) / 1_000_000_000;
        let short = match ns {
            0..1_000_000_000 => Short::of(format_args!("0.{:03} s", ns / 1_000_000)),
            _ if tenth < 600 => Short::of(format_args!("{}.{} s", tenth / 10, tenth % 10)),
            _ if seconds < 3600 => {
                Short::of(format_args!("{}m {:02} s", seconds / 60, seconds % 60))
            }
            _ => Short::of(format_args!(
                "{}h {:02}m",
                seconds / 3600,
                seconds % 3600 / 60
            )),
        };
        f.pad(short.as_str())
    }
}

/// The share of `part` in `whole`: `0.4 %`, `100 %`, `< 0.1 %` rather than 0 for what is not nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent {
    /// The part.
    pub part: Bytes,
    /// What it is a part of.
    pub whole: Bytes,
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, whole) = (u128::from(self.part.0), u128::from(self.whole.0));
        if whole == 0 {
            return f.pad("-");
        }
        let tenths = (part * 1000 + whole / 2) / whole;
        let short = match tenths {
            0 if part > 0 => Short::of(format_args!("< 0.1 %")),
            0 => Short::of(format_args!("0 %")),
            1000 if part < whole => Short::of(format_args!("> 99.9 %")),
            _ if tenths.is_multiple_of(1000) => Short::of(format_args!("{} %", tenths / 10)),
            _ => Short::of(format_args!("{}.{} %", tenths / 10, tenths % 10)),
        };
        f.pad(short.as_str())
    }
}

/// A count with thin groups: `1 204 331`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut short = Short::of(format_args!(""));
        let digits = Short::of(format_args!("{}", self.0));
        let digits = digits.as_str();
        for (i, digit) in digits.bytes().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                fmt::Write::write_char(&mut short, ' ')?;
            }
            fmt::Write::write_char(&mut short, char::from(digit))?;
        }
        f.pad(short.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn size(bytes: u64, text: &str) {
        assert_eq!(Size(Bytes(bytes)).to_string(), text);
    }

    #[test]
    fn sizes_read_well_and_round_into_the_next_unit() {
        size(0, "0 B");
        size(1023, "1023 B");
        size(4096, "4 KiB");
        size(4097, "4.0 KiB");
        size(132 << 10, "132 KiB");
        size(1023 << 10, "1023 KiB");
        size((1 << 20) - 1, "1.0 MiB");
        size(64 << 20, "64.0 MiB");
        size((1 << 30) - 4096, "1.00 GiB");
        size(1_600_000_000, "1.49 GiB");
        size(64 << 30, "64.00 GiB");
        size(100 << 30, "100.0 GiB");
        size(128 << 40, "128.0 TiB");
        size(u64::MAX, "16.00 EiB");
        assert_eq!(format!("{:>10}|", Size(Bytes(4096))), "     4 KiB|");
    }

    #[test]
    fn times_shares_and_counts_read_as_one_says_them() {
        let time = |ns| Duration(ns).to_string();
        assert_eq!(time(11_000_000), "0.011 s");
        assert_eq!(time(12_340_000_000), "12.3 s");
        assert_eq!(time(59_990_000_000), "1m 00 s");
        assert_eq!(time(123_000_000_000), "2m 03 s");
        assert_eq!(time(3_599_900_000_000), "1h 00m");
        assert_eq!(time(11_220_000_000_000), "3h 07m");
        assert_eq!(time(u64::MAX), "5124095h 34m");
        assert_eq!(Elapsed(1_011_999_999).to_string(), "1.011 s");
        let share = |part, whole| {
            let (part, whole) = (Bytes(part), Bytes(whole));
            Percent { part, whole }.to_string()
        };
        assert_eq!(share(4, 1000), "0.4 %");
        assert_eq!(share(1, 100_000), "< 0.1 %");
        assert_eq!(share(99_999, 100_000), "> 99.9 %");
        assert_eq!(share(5, 5), "100 %");
        assert_eq!(share(0, 0), "-");
        assert_eq!(Count(1_204_331).to_string(), "1 204 331");
        assert_eq!(Count(77).to_string(), "77");
    }

    proptest! {
        #[test]
        fn every_size_fits_its_column(bytes: u64, shift in 0u32..64) {
            let text = Size(Bytes(bytes >> shift)).to_string();
            prop_assert!(text.len() <= SIZE_WIDTH, "{text}");
        }

        #[test]
        fn nothing_is_ever_too_long_for_its_buffer(value: u64) {
            prop_assert!(Count(value).to_string().ends_with(|c: char| c.is_ascii_digit()));
            prop_assert!(Elapsed(value).to_string().ends_with(" s"));
        }
    }
}
