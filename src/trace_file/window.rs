//! A file seen through a window that moves forward, and the blocks in it.

use std::io::{self, Read};

use super::format::{BLOCK_MAGIC, BlockHead};
use super::reader::DamageReason;

/// The part of the file at hand. Grows only by bytes that are really there.
pub(super) struct Window<R> {
    input: R,
    bytes: Vec<u8>,
    start: usize,
    /// Where `bytes[start]` is in the file.
    pub(super) offset: u64,
}

/// Bytes read at once, at least.
const READ: usize = 128 << 10;
/// Block heads with a wrong payload that are tried before the search for a whole block ends: each
/// costs a checksum over its payload.
const TRIES: usize = 64;

impl<R: Read> Window<R> {
    pub(super) fn new(input: R) -> Window<R> {
        Window {
            input,
            bytes: Vec::new(),
            start: 0,
            offset: 0,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn skip(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }

    /// Makes `len` bytes available, fewer only at the end of the file; gives how many there are.
    pub(super) fn fill(&mut self, len: usize) -> io::Result<usize> {
        let have = self.bytes.len() - self.start;
        if len <= have {
            return Ok(have);
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.shrink_to(4 * READ);
        let wanted = READ.max(len - have) as u64;
        (&mut self.input)
            .take(wanted)
            .read_to_end(&mut self.bytes)?;
        Ok(self.bytes.len())
    }

    /// The block that should begin here, with its payload's true checksum.
    pub(super) fn block(&mut self) -> io::Result<Result<(BlockHead, u32), DamageReason>> {
        let have = self.fill(BlockHead::SIZE)?;
        if have < BlockHead::SIZE {
            let begins = self
                .bytes()
                .starts_with(&BLOCK_MAGIC[..have.min(BLOCK_MAGIC.len())]);
            return Ok(Err(match have {
                0 => DamageReason::NoEnd,
                _ if begins => DamageReason::Torn,
                _ => DamageReason::Head,
            }));
        }
        let Some(head) = BlockHead::parse(self.bytes()) else {
            return Ok(Err(DamageReason::Head));
        };
        let whole = BlockHead::SIZE + head.length as usize;
        if self.fill(whole)? < whole {
            return Ok(Err(DamageReason::Torn));
        }
        Ok(Ok((
            head,
            crc32fast::hash(&self.bytes()[BlockHead::SIZE..whole]),
        )))
    }

    /// Goes to the next whole block, beginning the search here or `behind` the first byte; to the
    /// end of the file if there is none.
    pub(super) fn find_block(&mut self, behind: bool) -> io::Result<Option<BlockHead>> {
        let mut tries = TRIES;
        if behind && 0 < self.fill(1)? {
            self.skip(1);
        }
        loop {
            let have = self.fill(BlockHead::SIZE)?;
            let magic = self
                .bytes()
                .windows(BLOCK_MAGIC.len())
                .position(|four| four == BLOCK_MAGIC);
            match magic {
                None if have < BlockHead::SIZE => {
                    self.skip(have);
                    return Ok(None);
                }
                None => self.skip(have - (BLOCK_MAGIC.len() - 1)),
                Some(at) => {
                    self.skip(at);
                    if 0 < tries
                        && let Ok((head, payload_crc)) = self.block()?
                    {
                        if head.payload_crc == payload_crc {
                            return Ok(Some(head));
                        }
                        tries -= 1;
                    }
                    self.skip(1);
                }
            }
        }
    }
}
