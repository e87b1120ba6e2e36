//! Numbers as bytes: variable-length integers, and values written as a distance from a guess.

use super::format::Malformed;

/// Appends `value` in groups of seven bits, lowest first; the top bit says that more follow.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number so that small ones of either sign take one byte.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

const MORE: u8 = 0x80;
const PAGES: u8 = 0x40;
const SECOND: u8 = 0x20;
const FIRST_BITS: u32 = 5;
const PAGE_BITS: u32 = 12;

/// Appends `value` as its distance from the nearer of two guesses. The first byte holds: more
/// bytes follow, the distance is in pages, it counts from the second guess, and its five low bits.
pub(super) fn put_near(out: &mut Vec<u8>, value: u64, guesses: [u64; 2]) {
    let distance = |guess| {
        let distance = value.wrapping_sub(guess).cast_signed();
        match distance & ((1 << PAGE_BITS) - 1) {
            0 => (PAGES, zigzag(distance >> PAGE_BITS)),
            _ => (0, zigzag(distance)),
        }
    };
    let (first, second) = (distance(guesses[0]), distance(guesses[1]));
    let (mark, distance) = match second.1 < first.1 {
        true => (second.0 | SECOND, second.1),
        false => first,
    };
    let low = (distance & ((1 << FIRST_BITS) - 1)) as u8;
    match distance >> FIRST_BITS {
        0 => out.push(mark | low),
        rest => {
            out.push(MORE | mark | low);
            put_varint(out, rest);
        }
    }
}

/// Bytes still to be read.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.bytes.split_first().ok_or(Malformed("it ends early"))?;
        self.bytes = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let taken = usize::try_from(len).ok();
        let (taken, rest) = taken
            .and_then(|len| self.bytes.split_at_checked(len))
            .ok_or(Malformed("a length goes past its end"))?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Malformed> {
        self.varint().map(unzigzag)
    }

    pub(super) fn near(&mut self, guesses: [u64; 2]) -> Result<u64, Malformed> {
        let first = self.byte()?;
        let mut distance = u64::from(first & ((1 << FIRST_BITS) - 1));
        if first & MORE != 0 {
            distance |= self.varint()? << FIRST_BITS;
        }
        let distance = match first & PAGES {
            0 => unzigzag(distance),
            _ => unzigzag(distance) << PAGE_BITS,
        };
        let guess = guesses[usize::from(first & SECOND != 0)];
        Ok(guess.wrapping_add(distance.cast_unsigned()))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("a number is too large"))
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        i32::try_from(self.signed()?).map_err(|_| Malformed("a number is too large"))
    }

    pub(super) fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.byte()? != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_comes_back(value: u64, a: u64, b: u64, small in 0u64..100_000) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_signed(&mut out, value.cast_signed());
            for value in [value, small, a.wrapping_add(small), b.wrapping_sub(small << 12), a, b] {
                put_near(&mut out, value, [a, b]);
            }
            let mut input = Input::new(&out);
            prop_assert_eq!(input.varint()?, value);
            prop_assert_eq!(input.signed()?, value.cast_signed());
            for value in [value, small, a.wrapping_add(small), b.wrapping_sub(small << 12), a, b] {
                prop_assert_eq!(input.near([a, b])?, value);
            }
            prop_assert_eq!(input.left(), 0);
        }
    }

    #[test]
    fn a_whole_number_of_pages_beside_a_guess_takes_few_bytes() {
        let size = |value, guesses| {
            let mut out = Vec::new();
            put_near(&mut out, value, guesses);
            out.len()
        };
        assert_eq!(size(0x7fff_0000_1000, [0, 0x7fff_0000_0000]), 1);
        assert_eq!(size(0x7fff_0400_0000, [0, 0x7fff_0000_0000]), 3);
    }
}
