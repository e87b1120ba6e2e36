//! Bytes to maps: entries, snapshots, evidence.

use crate::abi::Prot;
use crate::mm::{Evidence, FileId, MapsEntry, SmapsInfo, Snapshot};
use crate::trace_file::format::{MAX_TABLE, Malformed};
use crate::trace_file::tables::Shape;
use crate::trace_file::wire::Input;
use crate::units::{Addr, AddrRange, Bytes};

use super::{Decoder, Read};

impl Decoder {
    pub(super) fn evidence(&mut self, input: &mut Input<'_>, near: u64) -> Read<Vec<Evidence>> {
        let count = input.varint()?;
        let mut evidence = Vec::new();
        for _ in 0..count {
            let start = input.near([near, 0])?;
            let range = range(start, input.near([0, 0])?)?;
            let count = input.varint()?;
            let mut entries = Vec::new();
            let mut end = start;
            for _ in 0..count {
                entries.push(self.entry(input, &mut end)?);
            }
            evidence.push(Evidence { range, entries });
        }
        Ok(evidence)
    }

    fn entry(&mut self, input: &mut Input<'_>, end: &mut u64) -> Read<MapsEntry> {
        let Shape {
            len,
            prot,
            shared,
            offset,
            file,
            name,
        } = self.shape(input)?;
        let range = range(input.near([*end, 0])?, len)?;
        *end = range.end().0;
        Ok(MapsEntry {
            range,
            prot,
            shared,
            offset,
            file,
            name,
        })
    }

    fn shape(&mut self, input: &mut Input<'_>) -> Read<Shape> {
        if let Some(index) = input.varint()?.checked_sub(1) {
            let shape = self.shapes.get(index as usize);
            return shape
                .cloned()
                .ok_or(Malformed("an unknown shape of a mapping"));
        }
        let len = input.near([0, 0])?;
        let flags = input.byte()?;
        let prot = Prot::from_bits_retain(input.u32()?);
        let file = match flags & 2 {
            0 => FileId::default(),
            _ => FileId {
                major: input.u32()?,
                minor: input.u32()?,
                inode: input.varint()?,
            },
        };
        let shape = Shape {
            len,
            prot,
            shared: flags & 1 != 0,
            offset: if flags & 4 != 0 {
                input.near([0, 0])?
            } else {
                0
            },
            file,
            name: if flags & 8 != 0 {
                self.name(input)?
            } else {
                self.names.shared("")
            },
        };
        if self.shapes.len() < MAX_TABLE {
            self.shapes.push(shape.clone());
        }
        Ok(shape)
    }

    pub(super) fn snapshot(&mut self, input: &mut Input<'_>) -> Read<Snapshot> {
        let count = input.varint()?;
        let base = input.varint()?;
        let entries = match base.checked_sub(1) {
            Some(back) => self.entries_from(input, count, back as usize)?,
            None => {
                let mut entries = Vec::new();
                let mut end = 0;
                for _ in 0..count {
                    entries.push(self.entry(input, &mut end)?);
                }
                entries
            }
        };
        self.bases.keep(&entries);
        let count = input.varint()?;
        let smaps = (0..count).map(|_| smaps(input)).collect::<Read<_>>()?;
        Ok(Snapshot { entries, smaps })
    }

    /// Entries by steps from a kept snapshot. The steps go through it once, so that few bytes
    /// cannot ask for much memory.
    fn entries_from(
        &mut self,
        input: &mut Input<'_>,
        count: u64,
        back: usize,
    ) -> Read<Vec<MapsEntry>> {
        let base = self
            .bases
            .get(back)
            .ok_or(Malformed("an unknown snapshot"))?
            .to_vec();
        let mut base = base.into_iter();
        let mut entries = Vec::new();
        let mut end = 0;
        while (entries.len() as u64) < count {
            let step = input.varint()?;
            let (what, n) = (step & 3, step >> 2);
            if n == 0 || what != 2 && (base.len() as u64) < n {
                return Err(Malformed("a step goes past its snapshot"));
            }
            for _ in 0..n {
                match what {
                    0 => entries.extend(base.next()),
                    1 => drop(base.next()),
                    2 => entries.push(self.entry(input, &mut end)?),
                    _ => return Err(Malformed("an unknown step from a snapshot")),
                }
                end = entries.last().map_or(end, |last| last.range.end().0);
            }
        }
        Ok(entries)
    }
}

fn range(start: u64, len: u64) -> Read<AddrRange> {
    let end = start.checked_add(len).map(Addr);
    end.and_then(|end| AddrRange::new(Addr(start), end))
        .ok_or(Malformed("a range is impossible"))
}

fn smaps(input: &mut Input<'_>) -> Read<SmapsInfo> {
    let flags = input.varint()?;
    let mut amount = |bit: u64| match flags & bit {
        0 => Ok(Bytes(0)),
        _ => input.near([0, 0]).map(Bytes),
    };
    Ok(SmapsInfo {
        resident: amount(64)?,
        anonymous: amount(128)?,
        swap: amount(256)?,
        lazy_free: amount(512)?,
        locked: amount(1024)?,
        charged: flags & 1 != 0,
        noreserve: flags & 2 != 0,
        growsdown: flags & 4 != 0,
        dontfork: flags & 8 != 0,
        sealed: flags & 16 != 0,
        hugetlb: flags & 32 != 0,
    })
}
