//! Bytes to who called.

use std::sync::Arc;

use crate::mm::FileId;
use crate::timeline::{Frame, FrameName, Module, ModuleId, NamesSeen, StackEnd, StackSeen};
use crate::trace_file::format::{MAX_FRAMES, Malformed};
use crate::trace_file::wire::Input;
use crate::units::{Addr, StackId};

use super::{Read, counted, space, utf8};

pub(super) fn module(input: &mut Input<'_>) -> Read<Module> {
    let file = FileId {
        major: input.u32()?,
        minor: input.u32()?,
        inode: input.varint()?,
    };
    let path = utf8(counted(input)?)?.into();
    Ok(Module { path, file })
}

pub(super) fn stack(input: &mut Input<'_>) -> Read<StackSeen> {
    Ok(StackSeen {
        id: StackId(input.u32()?),
        end: match input.byte()? {
            0 => StackEnd::Root,
            1 => StackEnd::Cut,
            2 => StackEnd::Lost,
            3 => StackEnd::Deep,
            _ => return Err(Malformed("an unknown end of a stack")),
        },
        frames: many(input, MAX_FRAMES as u64, frame)?,
    })
}

pub(super) fn names(input: &mut Input<'_>) -> Read<NamesSeen> {
    let names = many(input, u64::MAX, |input| {
        let frame = frame(input)?;
        let names: Arc<[FrameName]> = many(input, MAX_FRAMES as u64, name)?;
        Ok((frame, names))
    })?;
    Ok(NamesSeen { names })
}

fn name(input: &mut Input<'_>) -> Read<FrameName> {
    let function = utf8(counted(input)?)?.into();
    let offset = input.varint()?;
    let file = utf8(counted(input)?)?;
    Ok(FrameName {
        function,
        offset,
        file: (!file.is_empty()).then(|| file.into()),
        line: input.u32()?,
    })
}

fn frame(input: &mut Input<'_>) -> Read<Frame> {
    Ok(match input.varint()? {
        0 => Frame::Bare {
            space: space(input)?,
            pc: Addr(input.varint()?),
        },
        number => Frame::Module {
            module: u32::try_from(number - 1)
                .map(ModuleId)
                .map_err(|_| Malformed("a number is too large"))?,
            offset: input.varint()?,
        },
    })
}

/// A count and so many of them; each takes at least two bytes, so the count cannot ask for more
/// memory than the record justifies.
fn many<T, C: FromIterator<T>>(
    input: &mut Input<'_>,
    most: u64,
    one: impl Fn(&mut Input<'_>) -> Read<T>,
) -> Read<C> {
    let count = input.varint()?;
    if most < count || (input.left() as u64) / 2 < count {
        return Err(Malformed("a count goes past its end"));
    }
    (0..count).map(|_| one(input)).collect()
}
