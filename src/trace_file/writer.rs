//! Appends observations to a trace, block by block.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::timeline::{Observation, TraceInfo};

use super::encode::Encoder;
use super::format::{
    BLOCK_FULL, BlockHead, KIND_END, KIND_OBSERVATIONS, MAGIC, MAJOR, MAX_BLOCK, MAX_HEADER, MINOR,
    preamble_crc,
};
use super::header::info_text;

/// Writes a trace. Keeps at most about a block in memory, however long the trace becomes.
///
/// After an error, which is returned once, nothing more is written and every call is `Ok`: the
/// tracee runs on, and what was written stays readable.
pub struct TraceWriter<W: Write> {
    out: W,
    encoder: Encoder,
    /// The block in the making: room for its head, then its payload.
    block: Vec<u8>,
    head: BlockHead,
    failed: bool,
}

impl TraceWriter<File> {
    /// Makes the file, or empties the one that is there, for its owner's eyes only, and writes
    /// the header.
    pub fn create(path: &Path, info: &TraceInfo) -> io::Result<TraceWriter<File>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        #[cfg(unix)]
        if file.metadata()?.is_file() {
            // It may have been there before, open to everybody.
            use std::os::unix::fs::PermissionsExt;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
        TraceWriter::new(file, info)
    }
}

impl<W: Write> TraceWriter<W> {
    /// Writes the header to `out`, and the trace after it. `out` needs no buffer of its own.
    pub fn new(mut out: W, info: &TraceInfo) -> io::Result<TraceWriter<W>> {
        let text = info_text(info)?;
        let len = u32::try_from(text.len())
            .ok()
            .filter(|len| *len <= MAX_HEADER);
        let len =
            len.ok_or_else(|| io::Error::other("the command line is too long for a trace"))?;
        let mut head = Vec::with_capacity(text.len() + 20);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&MAJOR.to_le_bytes());
        head.extend_from_slice(&MINOR.to_le_bytes());
        head.extend_from_slice(&len.to_le_bytes());
        let crc = preamble_crc(&head[MAGIC.len()..], &text);
        head.extend_from_slice(&crc.to_le_bytes());
        head.extend_from_slice(&text);
        out.write_all(&head)?;
        Ok(TraceWriter {
            out,
            encoder: Encoder::default(),
            block: vec![0; BlockHead::SIZE],
            head: BlockHead::default(),
            failed: false,
        })
    }

    /// Appends one observation. It reaches the file with its block: when that is full, or at
    /// [`TraceWriter::flush`].
    pub fn observation(&mut self, observation: &Observation) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        if self.encoder.is_full() {
            self.end_block()?;
        }
        let time = observation.time.0;
        if self.head.count == 0 {
            self.head.first = time;
        }
        self.head.last = time;
        self.head.count += 1;
        self.encoder.observation(&mut self.block, observation);
        match BLOCK_FULL <= self.block.len() - BlockHead::SIZE {
            true => self.end_block(),
            false => Ok(()),
        }
    }

    /// Makes everything so far readable. Each call costs a block's head, so about once a second
    /// is right.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        self.end_block()?;
        let flushed = self.out.flush();
        self.failed = flushed.is_err();
        flushed
    }

    /// Writes the end of the trace, and gives back where it was written.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        if !self.failed {
            let BlockHead { before, last, .. } = self.head;
            let payload_crc = crc32fast::hash(&[]);
            let end = BlockHead {
                kind: KIND_END,
                before,
                first: last,
                last,
                payload_crc,
                ..BlockHead::default()
            };
            self.out.write_all(&end.to_bytes())?;
            self.out.flush()?;
        }
        Ok(self.out)
    }

    /// Whether writing has failed, so that the trace ends before the program did.
    pub fn failed(&self) -> bool {
        self.failed
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.head.count == 0 {
            return Ok(());
        }
        let written = self.write_block();
        self.failed = written.is_err();
        self.encoder.clear();
        self.block.truncate(BlockHead::SIZE);
        self.block.shrink_to(4 * BLOCK_FULL);
        self.head = BlockHead {
            before: self.head.before + u64::from(self.head.count),
            last: self.head.last,
            ..BlockHead::default()
        };
        written
    }

    fn write_block(&mut self) -> io::Result<()> {
        let payload = &self.block[BlockHead::SIZE..];
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length <= MAX_BLOCK);
        let head = BlockHead {
            kind: KIND_OBSERVATIONS,
            length: length
                .ok_or_else(|| io::Error::other("one observation is too large for a trace"))?,
            payload_crc: crc32fast::hash(payload),
            ..self.head
        };
        self.block[..BlockHead::SIZE].copy_from_slice(&head.to_bytes());
        self.out.write_all(&self.block)
    }
}
