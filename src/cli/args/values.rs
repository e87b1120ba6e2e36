//! Single values of the command line, from text.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::abi::{CALLS, CallSet};

/// When the model is compared with `/proc/PID/maps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// When an address space ends.
    #[default]
    AtEnd,
    /// After every so many events too; 1 is `--verify=every`.
    Every(u64),
}

/// `exit`, `every` or a number of events.
pub(super) fn verify(text: &str) -> Result<Verify, String> {
    match text {
        "exit" => Ok(Verify::AtEnd),
        "every" => Ok(Verify::Every(1)),
        _ => match text.parse() {
            Ok(events) if events > 0 => Ok(Verify::Every(events)),
            _ => Err("say exit, every, or a number of events from 1".to_owned()),
        },
    }
}

/// A number with its unit: `10s`, `500ms`, `1.5s`, `2m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "say a number with its unit: 500ms, 10s, 1.5s, 2m, 1h";
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(HINT.to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| HINT.to_owned())?;
    let time = Duration::try_from_secs_f64(number * seconds).map_err(|_| HINT.to_owned())?;
    match time.is_zero() {
        true => Err("no time at all would pass".to_owned()),
        false => Ok(time),
    }
}

/// Whether the name of a file tells runs apart.
pub(super) fn has_number(path: &Path) -> bool {
    path.as_os_str()
        .as_bytes()
        .windows(2)
        .any(|two| two == b"%n")
}

/// The name of the file of one run: `%n` is its number.
pub(super) fn numbered(path: &Path, run: u32) -> PathBuf {
    let mut name = Vec::new();
    let mut rest = path.as_os_str().as_bytes();
    while let Some((byte, others)) = rest.split_first() {
        match others.strip_prefix(b"n") {
            Some(after) if *byte == b'%' => {
                name.extend(run.to_string().bytes());
                rest = after;
            }
            _ => {
                name.push(*byte);
                rest = others;
            }
        }
    }
    OsString::from_vec(name).into()
}

/// Process ids, separated by commas; each once.
pub(super) fn pids(texts: &[String]) -> Result<Vec<i32>, String> {
    let mut pids = Vec::new();
    for text in texts.iter().flat_map(|text| text.split(',')) {
        let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| format!("'{text}' is not a process id"))?;
        if !pids.contains(&pid) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The calls of every `-e`; the default set if there is none.
pub(super) fn calls(sets: &[String]) -> Result<CallSet, String> {
    if sets.is_empty() {
        return Ok(CallSet::default());
    }
    let mut all = CallSet::NONE;
    for text in sets {
        let set = CallSet::parse(text).map_err(|problem| format!("-e {text}: {problem}"))?;
        let kinds = CALLS.iter().map(|call| call.kind);
        all = kinds
            .filter(|kind| set.contains(*kind))
            .fold(all, CallSet::with);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_its_unit() {
        let ms = |text| duration(text).map(|time| time.as_millis());
        assert_eq!(ms("10s"), Ok(10_000));
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("1.5s"), Ok(1_500));
        assert_eq!(ms("2m"), Ok(120_000));
        assert_eq!(ms("1h"), Ok(3_600_000));
        for wrong in [
            "",
            "s",
            "10",
            "-1s",
            "1,5s",
            "0s",
            "0.0ms",
            "1e9s",
            "1d",
            "1.2.3s",
            "99999999999999999999h",
        ] {
            assert!(ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn checks_are_asked_for_by_word_or_number() {
        assert_eq!(verify("exit"), Ok(Verify::AtEnd));
        assert_eq!(verify("every"), Ok(Verify::Every(1)));
        assert_eq!(verify("100"), Ok(Verify::Every(100)));
        assert!(verify("0").is_err() && verify("often").is_err() && verify("").is_err());
    }

    #[test]
    fn several_sets_of_calls_add_up() {
        let set = |texts: &[&str]| calls(&texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>());
        assert_eq!(set(&[]), Ok(CallSet::default()));
        assert_eq!(set(&["mmap", "brk"]), CallSet::parse("mmap,brk"));
        assert!(set(&["mmap", "open"]).is_err_and(|text| text.starts_with("-e open: ")));
    }

    #[test]
    fn pids_come_in_lists_and_count_once() {
        let list = |texts: &[&str]| pids(&texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>());
        assert_eq!(list(&["12,13", "12"]), Ok(vec![12, 13]));
        for wrong in ["", "0", "-3", "12,", "init", "99999999999"] {
            assert!(list(&[wrong]).is_err(), "{wrong}");
        }
    }
}
