//! Call trees: what every function did, with all that it called or all that called it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::report::reading::by::Sums;
use crate::timeline::Namer;
use crate::units::{Bytes, Timestamp};

use super::{Kind, Label, Labels, Profile};

/// Which end of the stacks is the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the outermost function down to those that called the kernel.
    #[default]
    Down,
    /// From those that called the kernel up to the outermost.
    Up,
}

/// A figure that stacks are weighed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weight {
    /// Of what they reserved, the bytes that are still reserved.
    #[default]
    Reserved,
    /// Of what they committed, the bytes that are still committed.
    Committed,
    /// Of what they mapped, the bytes that are still mapped.
    Mapped,
    /// The pages that they themselves touched first, whoever had mapped them: [`ProfileSink::touchers`].
    ///
    /// [`ProfileSink::touchers`]: super::ProfileSink::touchers
    Touched,
}

impl Weight {
    /// All of them.
    pub const ALL: [Weight; 4] = [
        Weight::Reserved,
        Weight::Committed,
        Weight::Mapped,
        Weight::Touched,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Weight::Reserved => "reserved",
            Weight::Committed => "committed",
            Weight::Mapped => "mapped",
            Weight::Touched => "touched",
        }
    }

    /// Its amount.
    pub fn of(self, sums: &Sums) -> Bytes {
        match self {
            Weight::Reserved => sums.reserved,
            Weight::Committed => sums.committed,
            Weight::Mapped => sums.mapped,
            Weight::Touched => sums.touched.bytes,
        }
    }
}

/// A call tree. Its nodes are numbered by their place in the list; a node comes before its children,
/// of which the largest is the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// Which end of the stacks is the root.
    pub direction: Direction,
    /// What nodes are ordered by; `None` for reserved and committed together, which are each byte
    /// once.
    pub weight: Option<Weight>,
    /// The nodes. The first is the root of all, with the sums of the trace; its children are
    /// processes where there are several.
    pub nodes: Vec<Node>,
    /// Time of the last event.
    pub until: Timestamp,
}

/// A function of a call tree, reached on one way.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Which function; the root of all has no text.
    pub label: Label,
    /// It and all below it.
    pub sums: Sums,
    /// What stacks that end here did: all but what is below it.
    pub own: Sums,
    /// What it is below.
    pub parent: usize,
    /// What is below it, the largest first.
    pub children: Vec<usize>,
}

impl Node {
    fn new(label: Label, parent: usize) -> Node {
        Node {
            label,
            sums: Sums::default(),
            own: Sums::default(),
            parent,
            children: Vec::new(),
        }
    }
}

impl Tree {
    /// The bytes that a node is ordered by.
    pub fn weight(&self, sums: &Sums) -> Bytes {
        match self.weight {
            Some(weight) => weight.of(sums),
            None => sums.reserved + sums.committed,
        }
    }

    /// Puts every node before its children, the largest of them first.
    fn sort(&mut self) {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut todo = vec![0];
        while let Some(at) = todo.pop() {
            order.push(at);
            let mut children = self.nodes[at].children.clone();
            children.sort_by(|a, b| {
                let key = |node: &Node| Reverse((self.weight(&node.sums), node.sums.calls));
                let (a, b) = (&self.nodes[*a], &self.nodes[*b]);
                key(a).cmp(&key(b)).then_with(|| a.label.cmp(&b.label))
            });
            todo.extend(children.into_iter().rev());
        }
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = new;
        }
        let nodes = order.iter().map(|old| {
            let mut node = self.nodes[*old].clone();
            node.parent = place[node.parent];
            node.children
                .iter_mut()
                .for_each(|child| *child = place[*child]);
            node.children.sort_unstable();
            node
        });
        self.nodes = nodes.collect();
    }
}

impl Profile {
    /// The call tree. A function that was inlined is a node as if it had been called.
    pub fn tree(
        &self,
        namer: &mut dyn Namer,
        direction: Direction,
        weight: Option<Weight>,
    ) -> Tree {
        let processes: BTreeSet<&str> = self.entries.iter().map(|entry| &*entry.process).collect();
        let several = processes.len() > 1;
        let mut labels = Labels::new(&self.stacks, namer);
        let mut nodes = vec![Node::new(named("", Kind::Remark), 0)];
        let mut index: BTreeMap<(usize, Label), usize> = BTreeMap::new();
        for entry in &self.entries {
            let mut way: Vec<Label> = labels.source(&entry.source);
            if direction == Direction::Down {
                way.reverse();
            }
            let process = several.then(|| named(&entry.process, Kind::Process));
            let way = process.into_iter().chain(way);
            let mut at = 0;
            nodes[at].sums += entry.sums;
            for label in way {
                let label = label.without_line();
                let next = nodes.len();
                let node = *index.entry((at, label.clone())).or_insert(next);
                if node == next {
                    nodes[at].children.push(next);
                    nodes.push(Node::new(label, at));
                }
                at = node;
                nodes[at].sums += entry.sums;
            }
            nodes[at].own += entry.sums;
        }
        let mut tree = Tree {
            direction,
            weight,
            nodes,
            until: self.until,
        };
        tree.sort();
        tree
    }
}

fn named(text: &str, kind: Kind) -> Label {
    Label {
        text: Arc::from(text),
        kind,
        module: None,
        file: None,
        line: 0,
    }
}
