//! Who called, as bytes. What came with a minor version: no table knows of it.

use crate::mm::FileId;
use crate::timeline::{Frame, FrameName, Module, NamesSeen, StackEnd, StackSeen};
use crate::trace_file::wire::put_varint;

use super::put_bytes;

pub(super) fn put_module(out: &mut Vec<u8>, module: &Module) {
    let Module {
        path,
        file: FileId {
            major,
            minor,
            inode,
        },
    } = module;
    put_varint(out, (*major).into());
    put_varint(out, (*minor).into());
    put_varint(out, *inode);
    put_bytes(out, path.as_bytes());
}

pub(super) fn put_stack(out: &mut Vec<u8>, stack: &StackSeen) {
    let StackSeen { id, frames, end } = stack;
    put_varint(out, id.0.into());
    out.push(match end {
        StackEnd::Root => 0,
        StackEnd::Cut => 1,
        StackEnd::Lost => 2,
        StackEnd::Deep => 3,
    });
    put_varint(out, frames.len() as u64);
    frames.iter().for_each(|frame| put_frame(out, *frame));
}

pub(super) fn put_names(out: &mut Vec<u8>, seen: &NamesSeen) {
    let NamesSeen { names } = seen;
    put_varint(out, names.len() as u64);
    for (frame, names) in names {
        put_frame(out, *frame);
        put_varint(out, names.len() as u64);
        for FrameName {
            function,
            offset,
            file,
            line,
        } in names.iter()
        {
            put_bytes(out, function.as_bytes());
            put_varint(out, *offset);
            put_bytes(out, file.as_deref().unwrap_or_default().as_bytes());
            put_varint(out, (*line).into());
        }
    }
}

fn put_frame(out: &mut Vec<u8>, frame: Frame) {
    match frame {
        Frame::Module { module, offset } => {
            put_varint(out, u64::from(module.0) + 1);
            put_varint(out, offset);
        }
        Frame::Bare { space, pc } => {
            put_varint(out, 0);
            put_varint(out, space.0.into());
            put_varint(out, pc.0);
        }
    }
}
