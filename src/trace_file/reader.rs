//! Gives back the observations of a trace, up to where the file is sound.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::timeline::{Observation, TraceInfo};
use crate::units::Timestamp;

use super::decode::Decoder;
use super::format::{
    BlockHead, KIND_END, KIND_OBSERVATIONS, MAGIC, MAJOR, MAX_HEADER, MINOR, Malformed,
    preamble_crc,
};
use super::header::parse_info;
use super::window::Window;
use super::wire::Input;

/// Why a file cannot be read as a trace at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not begin as a trace does.
    #[error("not a memtrace trace")]
    NotATrace,
    /// A newer memtrace made it.
    #[error(
        "the trace has format version {found}, and this memtrace reads up to {MAJOR}.x: a newer one is needed"
    )]
    NewerMajor {
        /// The file's major version.
        found: u16,
    },
    /// The header is damaged or incomplete.
    #[error("the header of the trace is damaged or incomplete")]
    Header,
    /// Lines of JSON that hold events only.
    #[error(
        "these lines tell events but not what was observed (an older memtrace wrote them, or they were changed), so they cannot be read again"
    )]
    NoObservations,
}

/// What is wrong with a trace at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageReason {
    /// The file ends where a block should begin, without an end of the trace: its writer was
    /// killed or could not write on.
    NoEnd,
    /// The file ends inside a block.
    Torn,
    /// What should be a block's head is none.
    Head,
    /// A block's checksum is wrong.
    Checksum,
    /// A block's checksum is right, its content impossible.
    Malformed(Malformed),
    /// The blocks are sound, but some are not there.
    Gap,
    /// Bytes follow the end of the trace.
    Trailing,
    /// A file of JSON lines ends inside one.
    TornLine,
    /// A line of JSON is longer than any that memtrace writes.
    LongLine,
    /// A line of JSON is none that memtrace writes.
    Line(&'static str),
    /// Lines of JSON are missing: the numbers of events or observations do not follow.
    GapInLines,
    /// The trace that lines of JSON were made from was damaged, in a way that has no name here.
    Before,
}

impl fmt::Display for DamageReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DamageReason::NoEnd => f.write_str("it stops without an end"),
            DamageReason::Torn => f.write_str("it stops inside a block"),
            DamageReason::Head => f.write_str("the head of a block is damaged"),
            DamageReason::Checksum => f.write_str("the checksum of a block is wrong"),
            DamageReason::Malformed(what) => write!(f, "a block makes no sense: {what}"),
            DamageReason::Gap => f.write_str("blocks are missing"),
            DamageReason::Trailing => f.write_str("bytes follow its end"),
            DamageReason::TornLine => f.write_str("it stops inside a line"),
            DamageReason::LongLine => f.write_str("a line is too long"),
            DamageReason::Line(what) => write!(f, "a line makes no sense: {what}"),
            DamageReason::GapInLines => f.write_str("lines are missing"),
            DamageReason::Before => f.write_str("what it was made from was damaged"),
        }
    }
}

/// Where a trace stops being readable, and what is missing there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where in the file.
    pub offset: u64,
    /// What was found.
    pub reason: DamageReason,
    /// Bytes from there to the next whole block, or to the end of the file.
    pub missing: u64,
    /// Bytes from there to the end of the file, if its size is known.
    pub unread: Option<u64>,
    /// Time of the last observation before.
    pub after: Timestamp,
    /// Time of the first observation of the next whole block, if there is one.
    pub until: Option<Timestamp>,
    /// Observations between, if there is a next whole block.
    pub lost: Option<u64>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Timestamp| time.0 as f64 / 1e9;
        write!(
            f,
            "the trace is incomplete: {} at byte {}",
            self.reason, self.offset
        )?;
        write!(f, ", read up to {:.3} s", seconds(self.after))?;
        match (self.unread, self.missing) {
            (Some(0), _) | (None, 0) => {}
            (Some(bytes), _) | (None, bytes) => write!(f, ", {bytes} bytes not read")?,
        }
        if let (Some(until), Some(lost)) = (self.until, self.lost) {
            write!(
                f,
                "; readable again from {:.3} s, {lost} observations later",
                seconds(until)
            )?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// At a damage; `found` if a whole block begins at the window's start.
    Damaged {
        found: bool,
    },
    Ended,
}

/// Reads a trace, one observation at a time, in memory that depends on the blocks' size alone.
pub struct TraceReader<R: Read> {
    window: Window<R>,
    size: Option<u64>,
    info: TraceInfo,
    minor: u16,
    decoder: Decoder,
    /// The payload of the block at hand, and how far it is read.
    payload: Vec<u8>,
    at: usize,
    payload_offset: u64,
    records_left: u32,
    /// Observations before the next record, counted from the trace's begin.
    number: u64,
    last: Timestamp,
    skipped: u64,
    state: State,
    damage: Option<Damage>,
}

impl TraceReader<File> {
    /// Opens a trace and reads its header.
    pub fn open(path: &Path) -> Result<TraceReader<File>, OpenError> {
        let file = File::open(path)?;
        let size = file
            .metadata()
            .ok()
            .filter(std::fs::Metadata::is_file)
            .map(|meta| meta.len());
        let mut reader = TraceReader::new(file)?;
        reader.size = size;
        Ok(reader)
    }
}

impl<R: Read> TraceReader<R> {
    /// Reads the header from `input`, which needs no buffer of its own.
    pub fn new(input: R) -> Result<TraceReader<R>, OpenError> {
        let mut window = Window::new(input);
        let (info, minor) = read_preamble(&mut window)?;
        Ok(TraceReader {
            window,
            size: None,
            info,
            minor,
            decoder: Decoder::default(),
            payload: Vec::new(),
            at: 0,
            payload_offset: 0,
            records_left: 0,
            number: 0,
            last: Timestamp(0),
            skipped: 0,
            state: State::Reading,
            damage: None,
        })
    }

    /// What the header says.
    pub fn info(&self) -> &TraceInfo {
        &self.info
    }

    /// The minor version, if it is newer than this reader: some things may be left out.
    pub fn newer_minor(&self) -> Option<u16> {
        (MINOR < self.minor).then_some(self.minor)
    }

    /// Records and blocks of kinds that this reader does not know.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes of the file read so far, and in all if that is known: for showing progress.
    pub fn progress(&self) -> (u64, Option<u64>) {
        (self.window.offset, self.size)
    }

    /// The damage at which reading stopped, or the last one that was passed.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// The next observation; `None` at the end of the trace and at a damage.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is one, see below; this has the plainer type"
    )]
    pub fn next(&mut self) -> io::Result<Option<Observation>> {
        while self.state == State::Reading {
            if self.records_left == 0 {
                self.next_block()?;
                continue;
            }
            let mut input = Input::new(&self.payload[self.at..]);
            let before = input.left();
            match self.decoder.observation(&mut input) {
                Ok(observation) => {
                    self.at += before - input.left();
                    self.records_left -= 1;
                    // It may have come from the head of a forged block.
                    self.number = self.number.saturating_add(1);
                    match observation {
                        Some(observation) => {
                            self.last = observation.time;
                            return Ok(Some(observation));
                        }
                        None => self.skipped += 1,
                    }
                }
                Err(malformed) => {
                    let offset = self.payload_offset + self.at as u64;
                    self.stop_at(offset, DamageReason::Malformed(malformed))?;
                }
            }
        }
        Ok(None)
    }

    /// Goes on behind a damage, at the next whole block. False if there is none. What is read
    /// from there on lacks what led to it: no model can be built from it, but the calls stand.
    pub fn resume(&mut self) -> bool {
        if self.state != (State::Damaged { found: true }) {
            return false;
        }
        self.state = State::Reading;
        if let Some(head) = BlockHead::parse(self.window.bytes()) {
            self.number = head.before;
        }
        true
    }

    fn next_block(&mut self) -> io::Result<()> {
        let offset = self.window.offset;
        if self.at < self.payload.len() {
            let left = Malformed("bytes are left over");
            let offset = self.payload_offset + self.at as u64;
            self.at = self.payload.len();
            return self.stop_at(offset, DamageReason::Malformed(left));
        }
        let (head, payload_crc) = match self.window.block()? {
            Ok(block) => block,
            Err(reason) => return self.stop_at(offset, reason),
        };
        if head.payload_crc != payload_crc {
            return self.stop_at(offset, DamageReason::Checksum);
        }
        if head.before != self.number {
            return self.stop_at(offset, DamageReason::Gap);
        }
        match head.kind {
            KIND_OBSERVATIONS => {
                self.payload.clear();
                self.payload.extend_from_slice(
                    &self.window.bytes()[BlockHead::SIZE..][..head.length as usize],
                );
                self.payload_offset = offset + BlockHead::SIZE as u64;
                self.at = 0;
                self.records_left = head.count;
                self.decoder.clear();
            }
            KIND_END => {
                self.window.skip(BlockHead::SIZE + head.length as usize);
                if self.window.fill(1)? != 0 {
                    return self.stop_at(self.window.offset, DamageReason::Trailing);
                }
                self.state = State::Ended;
                return Ok(());
            }
            _ => self.skipped += 1,
        }
        self.window.skip(BlockHead::SIZE + head.length as usize);
        Ok(())
    }

    /// Ends reading, and finds out how much is missing.
    fn stop_at(&mut self, offset: u64, reason: DamageReason) -> io::Result<()> {
        self.records_left = 0;
        self.at = self.payload.len();
        self.state = State::Ended; // should the search fail
        let here = matches!(reason, DamageReason::Gap | DamageReason::Malformed(_));
        let next = self.window.find_block(!here)?;
        self.damage = Some(Damage {
            offset,
            reason,
            missing: self.window.offset.saturating_sub(offset),
            unread: self.size.map(|size| size.saturating_sub(offset)),
            after: self.last,
            until: next.map(|head| Timestamp(head.first)),
            lost: next.map(|head| head.before.saturating_sub(self.number)),
        });
        self.state = State::Damaged {
            found: next.is_some(),
        };
        Ok(())
    }
}

impl<R: Read> Iterator for TraceReader<R> {
    type Item = io::Result<Observation>;

    fn next(&mut self) -> Option<io::Result<Observation>> {
        TraceReader::next(self).transpose()
    }
}

fn read_preamble<R: Read>(window: &mut Window<R>) -> Result<(TraceInfo, u16), OpenError> {
    const FIXED: usize = MAGIC.len() + 12;
    let have = window.fill(FIXED)?;
    if !window.bytes().starts_with(&MAGIC) {
        return Err(OpenError::NotATrace);
    }
    if have < FIXED {
        return Err(OpenError::Header);
    }
    let head = &window.bytes()[MAGIC.len()..FIXED];
    let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (major, minor, len, crc) = (short(0), short(2), word(4), word(8));
    if MAJOR < major {
        return Err(OpenError::NewerMajor { found: major });
    }
    if major != MAJOR || MAX_HEADER < len {
        return Err(OpenError::Header);
    }
    let whole = FIXED + len as usize;
    if window.fill(whole)? < whole {
        return Err(OpenError::Header);
    }
    let bytes = window.bytes();
    let text = &bytes[FIXED..whole];
    if preamble_crc(&bytes[MAGIC.len()..MAGIC.len() + 8], text) != crc {
        return Err(OpenError::Header);
    }
    let info = parse_info(text).map_err(|_| OpenError::Header)?;
    window.skip(whole);
    Ok((info, minor))
}
