//! From frames to names.

use std::sync::Arc;

use crate::timeline::{Frame, FrameName, HeldNames, Namer, Stacks};

/// Names from the files of code themselves.
#[derive(Debug, Default)]
pub struct Symbols {
    held: HeldNames,
}

impl Namer for Symbols {
    fn name(&mut self, frame: Frame, stacks: &Stacks) -> Arc<[FrameName]> {
        self.held.name(frame, stacks)
    }
}
