//! Gives back the observations of a file of JSON lines, up to where it is sound.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::timeline::{Observation, TraceInfo};
use crate::trace_file::format::MAX_HEADER;
use crate::trace_file::header::parse_info;
use crate::trace_file::{Damage, DamageReason, OpenError, Source};
use crate::units::Timestamp;

use super::{MAX_LINE, RAW, SCHEMA, VERSION, WireDamage, kind, wire};

/// The first line.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    schema: Cow<'a, str>,
    raw: Option<u16>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
}

/// Any other line; of a type that is not known, the rest may mean anything.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    what: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow)]
    raw: Option<&'a RawValue>,
}

/// The `end` line.
#[derive(Deserialize)]
struct End {
    observations: u64,
    #[serde(default)]
    notes: Vec<String>,
    damage: Option<WireDamage>,
}

/// What a line is to a reader.
enum Content {
    Observed(Observation),
    /// Concluded from others, or of a type that is not known.
    Nothing,
    End,
}

/// Reads lines of JSON, one observation at a time, in memory that depends on the longest line.
pub struct JsonlReader<R: Read> {
    input: BufReader<R>,
    size: Option<u64>,
    info: TraceInfo,
    line: Vec<u8>,
    /// Where the next line begins.
    offset: u64,
    observations: u64,
    seq: u64,
    last: Timestamp,
    skipped: u64,
    /// Nothing more is to be read.
    over: bool,
    /// Longest line that is read.
    longest: u64,
    damage: Option<Damage>,
    notes: Vec<String>,
}

impl JsonlReader<File> {
    /// Reads the header of a file from its begin.
    pub fn of_file(file: File) -> Result<JsonlReader<File>, OpenError> {
        let size = file.metadata()?.len();
        let mut reader = JsonlReader::new(file)?;
        reader.size = Some(size);
        Ok(reader)
    }
}

impl<R: Read> JsonlReader<R> {
    /// Reads the header from `input`, which needs no buffer of its own.
    pub fn new(input: R) -> Result<JsonlReader<R>, OpenError> {
        let mut input = BufReader::with_capacity(64 << 10, input);
        let mut line = Vec::new();
        let limit = u64::from(MAX_HEADER);
        let read = input.by_ref().take(limit).read_until(b'\n', &mut line)?;
        let info = header(&line)?;
        Ok(JsonlReader {
            input,
            size: None,
            info,
            line,
            offset: read as u64,
            observations: 0,
            seq: 0,
            last: Timestamp(0),
            skipped: 0,
            over: false,
            longest: MAX_LINE,
            damage: None,
            notes: Vec::new(),
        })
    }

    /// Lowers the length that a line may have.
    #[cfg(test)]
    pub(crate) fn with_longest(self, longest: u64) -> JsonlReader<R> {
        JsonlReader { longest, ..self }
    }

    /// Reads the next line whole, without its end. False at the end of the file.
    fn fill(&mut self) -> io::Result<Result<bool, DamageReason>> {
        self.line.clear();
        let mut limited = self.input.by_ref().take(self.longest);
        let read = limited.read_until(b'\n', &mut self.line)? as u64;
        match self.line.pop_if(|last| *last == b'\n') {
            Some(_) => Ok(Ok(true)),
            None if read == 0 => Ok(Ok(false)),
            None if read == self.longest => Ok(Err(DamageReason::LongLine)),
            None => Ok(Err(DamageReason::TornLine)),
        }
    }

    /// What the line at hand says.
    fn content(&mut self) -> Result<Content, DamageReason> {
        if self.line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Content::Nothing);
        }
        let Some(line) = parse::<Line>(&self.line) else {
            return Err(DamageReason::Line("it is no object with a type"));
        };
        if line.kind == "end" {
            return self.end();
        }
        if let Some(seq) = line.seq.and_then(number) {
            // These have no number of their own, but that of the event before.
            let is_event = ![
                kind::ENTER,
                kind::FILE,
                kind::TOUCH,
                kind::HIGH_WATER,
                "observed",
            ]
            .contains(&&*line.kind);
            if seq != self.seq.wrapping_add(u64::from(is_event)) {
                return Err(DamageReason::GapInLines);
            }
            self.seq = seq;
        }
        let Some(raw) = line.raw else {
            let known = wire::is_known(&line.kind) || line.kind == "summary";
            self.skipped += u64::from(!known);
            return Ok(Content::Nothing);
        };
        let kind = match &*line.kind {
            "observed" => line.what.as_deref().unwrap_or_default(),
            super::UNSHOWN => kind::CALL,
            kind => kind,
        };
        let Some(observed) = wire::observed(kind, raw.get()) else {
            self.observations += 1;
            self.skipped += 1;
            return Ok(Content::Nothing);
        };
        let time = line.time.and_then(number).map(Timestamp);
        let time = time.ok_or(DamageReason::Line("it has no time"))?;
        let what = observed.map_err(|impossible| DamageReason::Line(impossible.0))?;
        self.observations += 1;
        self.last = time;
        Ok(Content::Observed(Observation { time, what }))
    }

    fn end(&mut self) -> Result<Content, DamageReason> {
        let Some(end) = parse::<End>(&self.line) else {
            return Err(DamageReason::Line("it is no end of a trace"));
        };
        if end.observations != self.observations {
            return Err(DamageReason::GapInLines);
        }
        self.notes = end.notes;
        self.damage = end.damage.map(Damage::from);
        Ok(Content::End)
    }

    /// Ends reading, and finds out how much is missing: up to the next line that could be read.
    fn stop_at(&mut self, offset: u64, end: u64, reason: DamageReason) -> io::Result<()> {
        self.over = true;
        let mut damage = Damage {
            offset,
            reason,
            missing: 0,
            unread: self.size.map(|size| size.saturating_sub(offset)),
            after: self.last,
            until: None,
            lost: None,
        };
        // A line that is sound itself is where lines before it are missing.
        let mut found = match reason {
            DamageReason::GapInLines => seq_and_time(&self.line),
            _ => None,
        };
        let mut at = match found {
            Some(_) => offset,
            None => end,
        };
        if reason == DamageReason::LongLine {
            at += self.input.skip_until(b'\n')? as u64;
        }
        while found.is_none() {
            match self.fill()? {
                Ok(true) => found = seq_and_time(&self.line),
                Ok(false) => break,
                Err(DamageReason::LongLine) => {
                    at += self.input.skip_until(b'\n')? as u64;
                }
                Err(_) => {}
            }
            if found.is_none() {
                at += self.line.len() as u64 + 1;
            }
        }
        if let Some(size) = self.size {
            at = at.min(size);
        }
        damage.missing = at.saturating_sub(offset);
        if let Some((seq, time)) = found {
            damage.until = Some(Timestamp(time));
            damage.lost = Some(seq.saturating_sub(self.seq).saturating_sub(1));
        }
        self.offset = at;
        self.damage = Some(damage);
        Ok(())
    }

    /// After the end: nothing but the summary, however long that is.
    fn after_the_end(&mut self) -> io::Result<()> {
        self.over = true;
        loop {
            let offset = self.offset;
            if self.input.fill_buf()?.starts_with(b"{\"type\":\"summary\"") {
                self.offset += self.input.skip_until(b'\n')? as u64;
                continue;
            }
            let filled = self.fill()?;
            if filled == Ok(false) {
                return Ok(());
            }
            self.offset += self.line.len() as u64 + u64::from(filled == Ok(true));
            let is_summary = parse::<Line>(&self.line).is_some_and(|line| line.kind == "summary");
            if !is_summary && !self.line.iter().all(u8::is_ascii_whitespace) {
                return match self.damage {
                    Some(_) => Ok(()),
                    None => self.stop_at(offset, self.offset, DamageReason::Trailing),
                };
            }
        }
    }
}

impl<R: Read> Source for JsonlReader<R> {
    fn info(&self) -> &TraceInfo {
        &self.info
    }

    fn next(&mut self) -> io::Result<Option<Observation>> {
        while !self.over {
            let offset = self.offset;
            let filled = self.fill()?;
            let whole = self.line.len() as u64 + u64::from(filled == Ok(true));
            let content = match filled {
                Ok(true) => self.content(),
                Ok(false) => Err(DamageReason::NoEnd),
                Err(reason) => Err(reason),
            };
            self.offset += whole;
            match content {
                Ok(Content::Observed(observation)) => return Ok(Some(observation)),
                Ok(Content::Nothing) => {}
                Ok(Content::End) => self.after_the_end()?,
                Err(reason) => self.stop_at(offset, offset + whole, reason)?,
            }
        }
        Ok(None)
    }

    fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    fn notes(&self) -> Vec<String> {
        let skipped = self.skipped;
        let left_out =
            (skipped != 0).then(|| format!("lines of unknown types were left out: {skipped}"));
        self.notes.iter().cloned().chain(left_out).collect()
    }

    fn progress(&self) -> (u64, Option<u64>) {
        (self.offset, self.size)
    }
}

fn header(line: &[u8]) -> Result<TraceInfo, OpenError> {
    let header: Header = parse(line).ok_or(OpenError::NotATrace)?;
    let version = header.schema.strip_prefix(SCHEMA);
    let version = version.filter(|_| header.kind == "header");
    let found = version
        .and_then(|version| version.parse().ok())
        .ok_or(OpenError::NotATrace)?;
    if VERSION < found {
        return Err(OpenError::NewerMajor { found });
    }
    match (header.raw, header.info) {
        (Some(found), _) if RAW < found => Err(OpenError::NewerMajor { found }),
        (Some(_), Some(info)) => parse_info(info.get().as_bytes()).map_err(|_| OpenError::Header),
        _ => Err(OpenError::NoObservations),
    }
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

fn number(value: &RawValue) -> Option<u64> {
    value.get().parse().ok()
}

fn seq_and_time(line: &[u8]) -> Option<(u64, u64)> {
    let line: Line = parse(line)?;
    Some((number(line.seq?)?, number(line.time?)?))
}
