//! What is behind bytes or calls: a stack, or what stands for one.

use std::borrow::Cow;

use crate::report::reading::provenance::{How, Origin, Piece, RightsChange};
use crate::report::{Made, Maker, call_name};
use crate::timeline::{Began, CallEvent};
use crate::units::{StackId, Tid};

/// What bytes or calls are put down to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A call that came from this stack.
    Stack(StackId),
    /// A call of this name whose stack was not recorded.
    Call(Cow<'static, str>),
    /// A space began with it: execve(2) put it there.
    Exec,
    /// A space began with it, as a copy of what this made; `None` if that is not known.
    Fork(Option<Box<Source>>),
    /// It was there when tracing began.
    Attach,
    /// A stack grew by page faults.
    Grown,
    /// The kernel's map showed it.
    Found,
    /// A page fault of this task, whose stack was not recorded.
    Task(Tid),
    /// More than are told one by one.
    Others,
}

impl Source {
    /// Who called.
    pub(in crate::report::reading) fn of_call(call: &CallEvent) -> Source {
        match call.stack {
            Some(stack) => Source::Stack(stack),
            None => Source::Call(call_name(&call.raw)),
        }
    }

    /// Who mapped some bytes.
    pub(in crate::report::reading) fn of_origin(origin: &Origin) -> Source {
        let first = || origin.copied.as_deref().map(Source::of_origin);
        match origin.how {
            How::Began(Began::Exec) => Source::Exec,
            How::Began(Began::Fork { .. }) => Source::Fork(first().map(Box::new)),
            How::Began(Began::Attach) => Source::Attach,
            How::Call => Source::of_maker(&origin.by, origin.stack),
            How::Grown => Source::Grown,
            How::Found => Source::Found,
        }
    }

    /// Who changed the rights of some bytes.
    pub(in crate::report::reading) fn of_change(change: &RightsChange) -> Source {
        Source::of_maker(&change.by, change.stack)
    }

    /// Who committed the bytes of a piece, and whether the question is about that.
    pub(in crate::report::reading) fn of_commit(piece: &Piece) -> (Source, bool) {
        let origin = &piece.origin;
        match piece.commit.as_deref() {
            // What happened before fork(2) copied the bytes was done to those of the parent.
            Some(commit) if commit.by.seq < origin.by.seq => {
                let copied = Source::Fork(Some(Box::new(Source::of_change(commit))));
                (copied, origin.counts)
            }
            Some(commit) => (Source::of_change(commit), commit.counts),
            None => (Source::of_origin(origin), origin.counts),
        }
    }

    fn of_maker(by: &Maker, stack: Option<StackId>) -> Source {
        match (&by.what, stack) {
            (Made::Call(..), Some(stack)) => Source::Stack(stack),
            (Made::Call(raw, _), None) => Source::Call(call_name(raw)),
            _ => Source::Found,
        }
    }
}
