//! What all spaces of a trace share: the shapes of mappings, and their bytes.

use std::collections::HashMap;

use crate::units::SpaceId;

use super::cells::Cells;
use super::role::Shape;

/// The shapes of a trace, each with a number and with a name as it was seen.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    pub list: Vec<Shape>,
    /// The name of the file, as the kernel shows it; empty where there is none.
    pub names: Vec<String>,
    index: HashMap<Shape, u32>,
}

impl Shapes {
    /// The number of a shape; `name` is kept if it is new.
    pub fn number(&mut self, shape: Shape, name: &str) -> u32 {
        if let Some(number) = self.index.get(&shape) {
            return *number;
        }
        let number = self.list.len() as u32;
        self.list.push(shape.clone());
        self.names.push(name.to_owned());
        self.index.insert(shape, number);
        number
    }

    /// The shape of a number.
    pub fn get(&self, number: u32) -> Option<&Shape> {
        self.list.get(number as usize)
    }
}

/// What all spaces of a trace share.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub shapes: Shapes,
    pub cells: Cells,
}

impl Known {
    /// A space is gone.
    pub fn end_space(&mut self, space: SpaceId) {
        let cells = self.cells.of(space);
        self.cells.end(cells.into_iter());
    }
}
