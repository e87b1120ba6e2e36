//! Tables that are asked at every record.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use crate::units::Tid;

use super::tracefs::{Point, Tracepoint};

/// Tasks by number.
pub(super) type ByTid<T> = HashMap<Tid, T, BuildHasherDefault<TidHasher>>;
pub(super) type Tids = HashSet<Tid, BuildHasherDefault<TidHasher>>;

/// Spreads the numbers of tasks. The kernel gives them out one after the other: nobody can choose
/// them so that they collide, against which the standard hasher guards at several times the price.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TidHasher(u64);

impl Hasher for TidHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_i32(&mut self, number: i32) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0 ^ number).wrapping_mul(GOLDEN_RATIO);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What the samples of each tracepoint tell, by its number.
#[derive(Debug)]
pub(super) struct Points {
    points: Vec<Option<Point>>,
    /// One of them tells of page faults.
    pub(super) any_fault: bool,
}

impl Points {
    pub(super) fn new(tracepoints: &[Tracepoint]) -> Points {
        let most = tracepoints.iter().map(|point| point.id).max().unwrap_or(0);
        let mut points = vec![None; usize::from(most) + 1];
        for tracepoint in tracepoints {
            if let Some(point) = points.get_mut(usize::from(tracepoint.id)) {
                *point = Some(tracepoint.point);
            }
        }
        let any_fault = points.contains(&Some(Point::Fault));
        Points { points, any_fault }
    }

    pub(super) fn get(&self, id: u16) -> Option<Point> {
        self.points.get(usize::from(id)).copied().flatten()
    }
}
