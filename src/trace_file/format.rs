//! The format of a trace file, version 1.4.
//!
//! ```text
//! file   = preamble, block, block, …, end block
//! ```
//!
//! Numbers of fixed width are little-endian. A `varint` is groups of seven bits, lowest first, the
//! top bit of a byte saying that more follow; `signed` is a varint of `(v << 1) ^ (v >> 63)`.
//!
//! # Preamble
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `89 4d 54 52 0d 0a 1a 0a` (`\x89MTR\r\n\x1a\n`: text transfers break it visibly) |
//! | 2 + 2 | version: major, minor |
//! | 4 | length of the header text |
//! | 4 | CRC-32 of the eight bytes before it and of the header text |
//! | … | header text: a JSON object with the fields of [`TraceInfo`](crate::timeline::TraceInfo), see `header.rs`; unknown ones are skipped, missing ones are empty |
//!
//! # Block
//!
//! A block is written by one write(2). Nothing in it but the numbers of stacks refers to another
//! block, so that a reader can begin at any, and the chain of block heads is the index by time: from head to head, 48 bytes
//! in about every 64 KiB, without reading what is between. There is no other, because a writer may
//! be killed at any moment, and because a model needs everything before an instant anyway.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `f7 4d 54 42` |
//! | 4 | kind: 1 observations, 2 end of the trace (no payload); other kinds are skipped |
//! | 4 | length of the payload, at most [`MAX_BLOCK`] |
//! | 4 | observations in it |
//! | 8 | observations before it in the trace |
//! | 8 + 8 | time of its first and of its last observation, ns |
//! | 4 | CRC-32 of the payload |
//! | 4 | CRC-32 of the head's 44 bytes before it |
//!
//! # Versions
//!
//! | version | what it added |
//! |---|---|
//! | 1.0 | |
//! | 1.1 | `environment` in the header, record 14 file |
//! | 1.2 | records 15 stack, 16 names and 18 module, the stack of record 4 call and why it was refused |
//! | 1.3 | record 19 touch, swap in record 7 resident |
//! | 1.4 | records 20 high water and 21 grown |
//!
//! A file of a newer minor version is read, and what this reader does not know is skipped and
//! counted, which reports say in a note. A newer major version is refused. A golden trace of every
//! version is in `fixtures/traces/` and reads for ever.
//!
//! # Records
//!
//! A payload is `count` records. All guesses and tables are empty at its start.
//!
//! A first byte of 0x80 or more is a finished call with nothing fetched, no evidence and no
//! overlap: its low seven bits are the mask of *call*. Any other is the kind of a record that is
//! followed by its length (varint) and that many bytes. A reader skips kinds it does not know
//! and bytes that are left over in a record: so a minor version may add kinds, and fields at the
//! end of a record. Who skips must lose nothing else: what a minor version adds neither reads nor
//! changes guesses and tables, and its time is no other record's previous one. Everything else
//! needs a new major version.
//!
//! | kind | fields |
//! |---|---|
//! | (0x80 + mask) | *caller*, signed entered − time of the previous record, varint time − entered, *args*, *result* |
//! | 1 space began | *time*, space, signed pid, began (0 exec, 1 fork, 2 attach, 3 fork + space of the parent), *string* exe, flags (1 known, 2 read implies exec, 4 brk_start follows), [near 0 brk_start], *snapshot* |
//! | 2 task began | *time*, signed tid, signed pid, space, origin (0 launch, 1 attach, 2 thread, 3 fork, 4 vfork, 5 shared space), has parent, [signed parent], *string* comm |
//! | 3 call entered | *time*, mask, *caller*, *args*, *fetched* |
//! | 4 call | mask, *caller*, entered and time as above, *args*, *result*, overlapped, *fetched*, *evidence*, [number of its stack, 0 if it has none; *figures* if it was refused] (both since 1.2) |
//! | 5 call cut | *time*, signed time − entered, mask, *caller*, *args*, *fetched* |
//! | 6 checkpoint | *time*, space, cause (0 exit, 1 exec, 2 detach, 3 asked, 4 doubt), *snapshot* |
//! | 7 resident | *time*, space, now, flags (1 anon, 2 file, 4 shmem, 8 high water, 16 mapped, 32 swap (since 1.3)), those set (all near 0) |
//! | 8 exec | *time*, signed tid, signed former, *string* comm |
//! | 9 task ended | *time*, signed tid, how (0 exited + signed status, 1 killed + signed signal, 2 the same with a core, 3 gone) |
//! | 10 space ended | *time*, space, how (0 exit, 1 exec, 2 detach, 3 cut) |
//! | 11 signal | *time*, signed tid, signed signal, stopped, signed code, signed errno, 4 × varint |
//! | 12 note | *time*, has space, space, length, UTF-8 text |
//! | 13 lost | *time*, varint |
//! | 14 file (since 1.1) | *time*, space, major, minor, inode, and with their lengths before them: path, build-id, version; path and version are UTF-8, an empty version is none |
//! | 15 stack (since 1.2) | *time*, number (from 1, one more than the one before), end (0 root, 1 cut, 2 lost, 3 deep), count (at most [`MAX_FRAMES`]), that many *frame*, innermost first |
//! | 16 names (since 1.2) | *time*, count, each: *frame*, count, each: with its length before it: function; varint offset; with its length before it: source file, empty if unknown; line |
//! | 18 module (since 1.2) | *time*, major, minor, inode, and with its length before it: path; modules are numbered from 0 in the order of their records |
//! | 19 touch (since 1.3) | *time*, signed tid, space, address, write, page faults it stands for (at least 1), number of its stack, 0 if it has none; varints |
//! | 20 high water (since 1.4) | *time*, space, mapped, resident: bytes at most, by the kernel's books; varints |
//! | 21 grown (since 1.4) | *time*, space, start of the stack, its length; varints |
//!
//! - *time*: signed, minus the time of the previous record (0 at first). A record's time is the
//!   observation's.
//! - *caller*: index into the table of (tid, space, ABI, number). An index just past its end
//!   defines the next: signed tid, space, ABI (0 x86-64, 1 i386), number. At most [`MAX_TABLE`].
//! - *near a b*: a distance from one of two guesses. First byte: 0x80 more follow, 0x40 the
//!   distance is in pages of 4096, 0x20 it counts from `b`, five low bits; then a varint of the
//!   bits above; the whole is a `signed`.
//! - *args*: for each of the bits 0 to 5 set in mask, that argument, near (the same of this
//!   caller's previous call) and (argument 0: the task's address; 1: the task's length; else 0).
//!   Clear bits: as in this caller's previous call.
//! - *result*: if bit 6 of mask is set: near (this caller's previous result) (the task's address).
//! - The task's address is the result of its previous call if that is 4096 or more and no error,
//!   else argument 0 of that call; the task's length is argument 1 of it. Of a call without
//!   result only the arguments count.
//! - *string*: 0, length, bytes; or 1 + index into the table of strings, which every string of
//!   at most 4096 bytes joins when it is first written, up to [`MAX_TABLE`].
//! - *fetched*: count (at most [`MAX_FETCHED`]), each: argument + 8 × at exit, kind (0 path, 1
//!   memory, 2 string, 3 truncated string, 4 unreadable), *string* for path and strings, length
//!   and bytes for memory.
//! - *evidence*: count, each: near (argument 0) 0 of its start, near 0 of its length, count of
//!   *entry*, those, the first one's gap counting from the start.
//! - *entry*: *shape*, then near (end of the previous entry) 0 of its start.
//! - *shape*: 1 + index into the table of shapes, or 0 and a definition that joins it (up to
//!   [`MAX_TABLE`]): near 0 length, flags (1 shared, 2 file, 4 offset, 8 name), rights, [major,
//!   minor, inode], [near 0 offset], [*string* name].
//! - *figures*: a varint with a bit for each that is known, in the order of
//!   [`Figures::numbers`](crate::timeline::Figures::numbers), then those, varints.
//! - *frame*: 1 + number of the module and offset in its file; or 0, space and address.
//! - *snapshot*: count of entries, base (0 none, else the n-th last kept snapshot), entries. Without
//!   base: *entry* each. With base: steps of varint `n << 2 | what`, where what is 0 copy the next n
//!   entries of the base, 1 skip them, 2 n *entry*. Then the count of smaps, each: varint flags (1
//!   charged, 2 noreserve, 4 growsdown, 8 dontfork, 16 sealed, 32 hugetlb, 64 resident, 128
//!   anonymous, 256 swap, 512 lazy free, 1024 locked), those amounts (near 0). A snapshot of 1 to
//!   [`MAX_TABLE`] entries is kept; the last four are.

/// First bytes of a trace file.
pub const MAGIC: [u8; 8] = *b"\x89MTR\r\n\x1a\n";
/// First bytes of a block.
pub const BLOCK_MAGIC: [u8; 4] = *b"\xf7MTB";
/// Files of another major version cannot be read.
pub const MAJOR: u16 = 1;
/// Files of a newer minor version hold more than this reader knows.
pub const MINOR: u16 = 4;
/// Longest header text.
pub const MAX_HEADER: u32 = 16 << 20;
/// Longest payload of a block.
pub const MAX_BLOCK: u32 = 256 << 20;
/// Most entries of a table inside a block.
pub const MAX_TABLE: usize = 4096;
/// Longest string that joins the table of strings.
pub const MAX_INTERNED: usize = 4096;
/// Most things fetched for one call.
pub const MAX_FETCHED: usize = 64;
/// Most frames of a stack.
pub const MAX_FRAMES: usize = 1024;
/// Snapshots kept as a base for later ones.
pub(super) const KEPT_SNAPSHOTS: usize = 4;
/// A block is written when its payload has reached this.
pub(super) const BLOCK_FULL: usize = 64 << 10;

pub(super) const KIND_OBSERVATIONS: u32 = 1;
pub(super) const KIND_END: u32 = 2;

/// Kinds of records.
pub(super) mod record {
    pub(crate) const SPACE_BEGAN: u8 = 1;
    pub(crate) const TASK_BEGAN: u8 = 2;
    pub(crate) const CALL_ENTERED: u8 = 3;
    pub(crate) const CALL: u8 = 4;
    pub(crate) const CALL_CUT: u8 = 5;
    pub(crate) const CHECKPOINT: u8 = 6;
    pub(crate) const RESIDENT: u8 = 7;
    pub(crate) const EXEC: u8 = 8;
    pub(crate) const TASK_ENDED: u8 = 9;
    pub(crate) const SPACE_ENDED: u8 = 10;
    pub(crate) const SIGNAL: u8 = 11;
    pub(crate) const NOTE: u8 = 12;
    pub(crate) const LOST: u8 = 13;
    pub(crate) const FILE: u8 = 14;
    pub(crate) const STACK: u8 = 15;
    pub(crate) const NAMES: u8 = 16;
    pub(crate) const MODULE: u8 = 18;
    pub(crate) const TOUCH: u8 = 19;
    pub(crate) const HIGH_WATER: u8 = 20;
    pub(crate) const GROWN: u8 = 21;
    /// The last kind that is known.
    pub(crate) const LAST: u8 = GROWN;
    /// From here on: a finished call, the mask in the low bits.
    pub(crate) const PLAIN_CALL: u8 = 0x80;
}

/// A payload that no writer makes, though its checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(super) &'static str);

/// The head of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BlockHead {
    pub kind: u32,
    pub length: u32,
    pub count: u32,
    pub before: u64,
    pub first: u64,
    pub last: u64,
    pub payload_crc: u32,
}

impl BlockHead {
    pub(super) const SIZE: usize = 48;

    pub(super) fn to_bytes(self) -> [u8; BlockHead::SIZE] {
        let BlockHead {
            kind,
            length,
            count,
            before,
            first,
            last,
            payload_crc,
        } = self;
        let mut bytes = [0; BlockHead::SIZE];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&BLOCK_MAGIC);
        put(&kind.to_le_bytes());
        put(&length.to_le_bytes());
        put(&count.to_le_bytes());
        put(&before.to_le_bytes());
        put(&first.to_le_bytes());
        put(&last.to_le_bytes());
        put(&payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..BlockHead::SIZE - 4]);
        bytes[BlockHead::SIZE - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The head in `bytes`; `None` if they do not begin with a whole one.
    pub(super) fn parse(bytes: &[u8]) -> Option<BlockHead> {
        let bytes = bytes.get(..BlockHead::SIZE)?;
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let head = BlockHead {
            kind: word(4)?,
            length: word(8)?,
            count: word(12)?,
            before: long(16)?,
            first: long(24)?,
            last: long(32)?,
            payload_crc: word(40)?,
        };
        let sound = bytes.starts_with(&BLOCK_MAGIC)
            && word(44)? == crc32fast::hash(&bytes[..BlockHead::SIZE - 4])
            && head.length <= MAX_BLOCK;
        sound.then_some(head)
    }
}

/// The checksum of a preamble: over version and length, and the text.
pub(super) fn preamble_crc(head: &[u8], text: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(text);
    crc.finalize()
}
