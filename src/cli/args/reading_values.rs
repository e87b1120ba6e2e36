//! Times, addresses, sizes and rights, from text.

use crate::abi::Prot;
use crate::report::reading::{By, Direction, Moment, Peak, Rights, Weight};
use crate::units::{Addr, AddrRange, PAGE, Timestamp};

use super::report::Rows;

/// A time since the begin of a trace: `10ms`, `1.5s`, `0`, also `0.011 s` as a timeline prints it.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    const HINT: &str = "say a time since the begin with its unit: 250us, 10ms, 1.5s, 2m";
    if text == "0" {
        return Ok(Timestamp(0));
    }
    let (number, unit) = split(text);
    let unit: u64 = match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(HINT.to_owned()),
    };
    scaled(number, unit)
        .map(Timestamp)
        .ok_or_else(|| HINT.to_owned())
}

/// A moment: a time, a share of the length, or a word.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    if let Some(share) = text.strip_suffix('%') {
        let share = scaled(share.trim_end(), 100).filter(|share| *share <= 10_000);
        let share = share.and_then(|share| u32::try_from(share).ok());
        return share
            .map(Moment::Share)
            .ok_or_else(|| "say a share from 0% to 100%".to_owned());
    }
    match text {
        "end" => Ok(Moment::End),
        "begin" | "start" => Ok(Moment::Begin),
        "peak" | "peak:mapped" => Ok(Moment::Peak(Peak::Mapped)),
        "peak:reserved" => Ok(Moment::Peak(Peak::Reserved)),
        "peak:committed" => Ok(Moment::Peak(Peak::Committed)),
        "peak:resident" => Ok(Moment::Peak(Peak::Resident)),
        _ if text.starts_with("peak") => {
            Err("say peak, or peak:mapped, peak:reserved, peak:committed, peak:resident".to_owned())
        }
        _ => time(text).map(Moment::At).map_err(|_| {
            "say a time since the begin (10ms, 1.5s), a share (50%), begin, peak or end".to_owned()
        }),
    }
}

/// An amount: `4096`, `64KiB`, `1MiB`, `1.5G`; K, M and G alone are KiB, MiB and GiB.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let unit: u64 = match unit {
        "" | "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err("say a size: 4096, 64KiB, 1MiB, 1.5GiB".to_owned()),
    };
    scaled(number, unit).ok_or_else(|| "say a size: 4096, 64KiB, 1MiB, 1.5GiB".to_owned())
}

/// An address (its page), `START-END` as maps prints it, or `START+SIZE`; hex, with or without `0x`.
pub(super) fn addresses(text: &str) -> Result<AddrRange, String> {
    let hint =
        || "say an address, START-END or START+SIZE: 7f3107000000, 0xc000000000+4MiB".to_owned();
    let address = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        plain
            .then(|| u64::from_str_radix(digits, 16).ok().map(Addr))
            .flatten()
            .ok_or_else(hint)
    };
    let (start, end) = if let Some((start, end)) = text.split_once('-') {
        (address(start)?, address(end)?)
    } else if let Some((start, len)) = text.split_once('+') {
        let (start, len) = (address(start)?, size(len)?);
        (start, Addr(start.0.checked_add(len).ok_or_else(hint)?))
    } else {
        let start = address(text)?;
        (start, Addr(start.0.checked_add(1).ok_or_else(hint)?))
    };
    if end <= start {
        return Err("the range is empty: its end is not behind its start".to_owned());
    }
    let end = end.page_ceil().ok_or_else(hint)?;
    debug_assert!(end.0 - start.page_floor().0 >= PAGE);
    AddrRange::new(start.page_floor(), end).ok_or_else(hint)
}

/// Rights: three of `r`, `w`, `x`, each its letter, `-` or `?` for either; `none` is `---`.
pub(super) fn rights(text: &str) -> Result<Rights, String> {
    let text = if text == "none" { "---" } else { text };
    let hint = || "say three letters: ---, r--, rw-, r-x, rwx; ? for either".to_owned();
    let (mut mask, mut value) = (Prot::NONE, Prot::NONE);
    let flags = [(Prot::READ, 'r'), (Prot::WRITE, 'w'), (Prot::EXEC, 'x')];
    if text.chars().count() != flags.len() {
        return Err(hint());
    }
    for (given, (flag, letter)) in text.chars().zip(flags) {
        match given {
            '?' => {}
            '-' => mask |= flag,
            _ if given == letter => {
                mask |= flag;
                value |= flag;
            }
            _ => return Err(hint()),
        }
    }
    Ok(Rights { mask, value })
}

/// What `--by` takes; the plural too.
pub(super) fn by(text: &str) -> Result<Rows, String> {
    match text.strip_suffix('s').unwrap_or(text) {
        "call" => Ok(Rows::By(By::Call)),
        "mapping" => Ok(Rows::By(By::Mapping)),
        "file" => Ok(Rows::By(By::File)),
        "thread" => Ok(Rows::By(By::Thread)),
        "space" => Ok(Rows::By(By::Space)),
        "kind" => Ok(Rows::By(By::Kind)),
        "reservation" => Ok(Rows::Reservations),
        "owner" => Ok(Rows::Owners),
        "stack" => Ok(Rows::Stacks),
        _ => Err(
            "say call, mapping, file, thread, space, kind, reservation, owner or stack".to_owned(),
        ),
    }
}

/// Which way a call tree grows.
pub(super) fn direction(text: &str) -> Result<Direction, String> {
    match text {
        "down" => Ok(Direction::Down),
        "up" => Ok(Direction::Up),
        _ => Err("say down or up".to_owned()),
    }
}

/// What stacks are weighed by.
pub(super) fn weight(text: &str) -> Result<Weight, String> {
    let known = Weight::ALL.into_iter().find(|weight| weight.name() == text);
    known.ok_or_else(|| "say reserved, committed, mapped or touched".to_owned())
}

/// The number at the front, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    (number, unit.trim_start())
}

/// A decimal number times `unit`, exactly; what is finer than 1 is cut off.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 18 {
        return None;
    }
    let unit = u128::from(unit);
    let whole = whole.parse::<u128>().ok()?.checked_mul(unit)?;
    let part = fraction.parse::<u128>().ok()?.checked_mul(unit)?;
    let part = part / 10u128.pow(fraction.len() as u32);
    u64::try_from(whole.checked_add(part)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_exact_and_has_a_unit() {
        let ns = |text| time(text).map(|time| time.0).ok();
        assert_eq!(ns("10ms"), Some(10_000_000));
        assert_eq!(ns("1.5s"), Some(1_500_000_000));
        assert_eq!(ns("0.019 s"), Some(19_000_000));
        assert_eq!(ns("123456789ns"), Some(123_456_789));
        assert_eq!(ns("9007199.254740993s"), Some(9_007_199_254_740_993));
        assert_eq!(ns("0"), Some(0));
        for wrong in [
            "",
            "s",
            "10",
            "-1s",
            "1,5s",
            "1d",
            ".s",
            "1.s",
            "99999999999999999999h",
        ] {
            assert_eq!(ns(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_a_time_a_share_or_a_word() {
        assert_eq!(moment("10ms"), Ok(Moment::At(Timestamp(10_000_000))));
        assert_eq!(moment("12.5%"), Ok(Moment::Share(1250)));
        assert_eq!(moment("peak"), Ok(Moment::Peak(Peak::Mapped)));
        assert_eq!(moment("peak:committed"), Ok(Moment::Peak(Peak::Committed)));
        assert_eq!(moment("end"), Ok(Moment::End));
        for wrong in ["", "101%", "-1%", "peak:", "peak:vsz", "later", "5"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_means_its_page_and_a_range_its_pages() {
        let shown = |text| addresses(text).map(|range| range.to_string()).ok();
        assert_eq!(shown("0x1234").as_deref(), Some("1000-2000"));
        assert_eq!(
            shown("7f3107000000").as_deref(),
            Some("7f3107000000-7f3107001000")
        );
        assert_eq!(shown("400000-6a2000").as_deref(), Some("400000-6a2000"));
        assert_eq!(
            shown("0xc000000000+4MiB").as_deref(),
            Some("c000000000-c000400000")
        );
        assert_eq!(shown("1fff+2").as_deref(), Some("1000-3000"));
        for wrong in [
            "",
            "0x",
            "xyz",
            "2000-1000",
            "1000-1000",
            "1000+0",
            "+1",
            "1000+x",
            "ffffffffffffffff",
            "1ffffffffffffffff",
        ] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_and_rights_are_read_as_they_are_printed() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(size("64K"), Ok(64 << 10));
        assert!(size("1Q").is_err() && size("").is_err() && size("-1").is_err());
        let matches = |text, prot| rights(text).map(|rights| rights.matches(prot));
        assert_eq!(matches("---", Prot::NONE), Ok(true));
        assert_eq!(matches("---", Prot::READ), Ok(false));
        assert_eq!(matches("none", Prot::NONE), Ok(true));
        assert_eq!(matches("rw-", Prot::READ | Prot::WRITE), Ok(true));
        assert_eq!(matches("?w?", Prot::READ | Prot::WRITE), Ok(true));
        assert_eq!(matches("??x", Prot::READ | Prot::WRITE), Ok(false));
        assert!(rights("rwxp").is_err() && rights("wr-").is_err() && rights("").is_err());
    }
}
