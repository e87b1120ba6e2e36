//! A call tree. Steps that do the same as the one that they lead to are one line with it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::io::{self, Write};

use crate::report::reading::{Direction, Label, Sums, Tree, Weight};
use crate::term::page::Page;
use crate::term::summary::amount;
use crate::term::{Count, Percent, Role, SIZE_WIDTH, Style};
use crate::units::Bytes;

use super::chain::{STEPS, called_by, calls, steps};

/// Columns of a share.
const PERCENT: usize = 8;
/// From this width on there is room for shares.
const WITH_SHARES: usize = 60;
/// Columns that names take at least, however deep they are.
const LEAST_NAME: usize = 28;

/// A node with those above it that only lead to it.
struct Row {
    /// The nodes, the topmost first.
    chain: Vec<usize>,
    depth: usize,
}

impl Row {
    /// The node that the row ends with.
    fn last(&self) -> usize {
        self.chain.last().copied().unwrap_or(0)
    }
}

struct Shown<'a> {
    tree: &'a Tree,
    weights: Vec<Weight>,
    most: Option<usize>,
    shares: bool,
}

/// Writes the tree, its largest `top` rows.
pub fn write_tree(
    out: &mut dyn Write,
    tree: &Tree,
    top: Option<usize>,
    style: &Style,
) -> io::Result<()> {
    let mut page = Page::new(out, style);
    let weights = match tree.weight {
        Some(weight) => vec![weight],
        None => vec![Weight::Reserved, Weight::Committed],
    };
    let shown = Shown {
        tree,
        weights,
        most: top.map(|_| STEPS),
        shares: WITH_SHARES <= page.width(),
    };
    shown.head(&mut page)?;
    let chosen = shown.choose(top);
    // Rows that are still to be written, the next one last; a remark stands for what is no node.
    let mut todo: Vec<Todo> = shown.below(0, 0, &chosen);
    while let Some(next) = todo.pop() {
        match next {
            Todo::Row(row) => {
                shown.row(&mut page, &row)?;
                todo.extend(shown.below(row.last(), row.depth + 1, &chosen));
            }
            Todo::Rest(depth, sums, text) => shown.remark(&mut page, depth, &sums, &text)?,
        }
    }
    shown.figures(&mut page, &tree.nodes[0].sums);
    page.text(Role::Strong, format_args!("  total"));
    page.end()
}

enum Todo {
    Row(Row),
    Rest(usize, Sums, String),
}

impl Shown<'_> {
    fn weight(&self, node: usize) -> Bytes {
        self.tree.weight(&self.tree.nodes[node].sums)
    }

    /// Whether two sums look the same in this tree.
    fn same(&self, one: &Sums, other: &Sums) -> bool {
        let same = |weight: &Weight| weight.of(one) == weight.of(other);
        self.weights.iter().all(same)
    }

    /// The children of a node that have any weight.
    fn children(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let children = self.tree.nodes[node].children.iter().copied();
        children.filter(|child| self.weight(*child) > Bytes(0))
    }

    /// The chain that begins with a node.
    fn chain(&self, first: usize) -> Vec<usize> {
        let mut chain = vec![first];
        let mut at = first;
        while let Some(child) = self.children(at).next()
            && self.same(&self.tree.nodes[at].sums, &self.tree.nodes[child].sums)
        {
            chain.push(child);
            at = child;
        }
        chain
    }

    /// The first nodes of the largest `top` rows: a row is never shown without that above it.
    fn choose(&self, top: Option<usize>) -> HashSet<usize> {
        let mut chosen = HashSet::new();
        let mut candidates: BinaryHeap<(Bytes, Reverse<usize>)> = BinaryHeap::new();
        let candidate = |node| (self.weight(node), Reverse(node));
        candidates.extend(self.children(0).map(candidate));
        while top.is_none_or(|top| chosen.len() < top)
            && let Some((_, Reverse(node))) = candidates.pop()
        {
            chosen.insert(node);
            let last = self.chain(node).last().copied().unwrap_or(node);
            candidates.extend(self.children(last).map(candidate));
        }
        chosen
    }

    /// What is to be written below a node, the last first.
    fn below(&self, node: usize, depth: usize, chosen: &HashSet<usize>) -> Vec<Todo> {
        let mut todo = Vec::new();
        let (mut rest, mut count) = (Sums::default(), 0);
        for child in self.children(node) {
            if chosen.contains(&child) {
                let chain = self.chain(child);
                todo.push(Todo::Row(Row { chain, depth }));
            } else {
                rest += self.tree.nodes[child].sums;
                count += 1;
            }
        }
        let own = self.tree.nodes[node].own;
        if self.tree.weight(&own) > Bytes(0) && !(todo.is_empty() && count == 0) {
            todo.push(Todo::Rest(depth, own, "(itself)".to_owned()));
        }
        if count > 0 {
            let text = format!("{} more (-n 0 shows all)", Count(count));
            todo.push(Todo::Rest(depth, rest, text));
        }
        todo.reverse();
        todo
    }

    fn head(&self, page: &mut Page<'_>) -> io::Result<()> {
        let mut at = 0;
        page.line.role(Role::Dim);
        for weight in &self.weights {
            at += SIZE_WIDTH + 2;
            page.line.push_right(at, weight.name());
        }
        if self.shares {
            page.line.push_right(at + PERCENT + 2, "share");
        }
        if self.tree.weight != Some(Weight::Touched) {
            page.line.push("  left at end,");
        }
        page.line.gap(1);
        page.line.push(match self.tree.direction {
            Direction::Down => "by who called whom",
            Direction::Up => "by who was called by whom",
        });
        page.end()
    }

    fn figures(&self, page: &mut Page<'_>, sums: &Sums) {
        let mut at = 0;
        for weight in &self.weights {
            at += SIZE_WIDTH + 2;
            page.line
                .role(match weight {
                    Weight::Reserved => Role::Reserved,
                    Weight::Committed => Role::Committed,
                    Weight::Mapped | Weight::Touched => Role::Plain,
                })
                .push_right(at, amount(weight.of(sums)));
        }
        page.line.role(Role::Plain);
        if !self.shares {
            return;
        }
        let share = Percent {
            part: self.tree.weight(sums),
            whole: self.weight(0),
        };
        page.line.push_right(at + PERCENT + 2, share);
    }

    /// The column that names of this depth begin in.
    fn indent(&self, depth: usize, page: &Page<'_>) -> usize {
        let shares = if self.shares { PERCENT + 2 } else { 0 };
        let names = self.weights.len() * (SIZE_WIDTH + 2) + shares + 2;
        let room = page.width().saturating_sub(names + LEAST_NAME);
        names + (2 * depth).min(room)
    }

    fn row(&self, page: &mut Page<'_>, row: &Row) -> io::Result<()> {
        self.figures(page, &self.tree.nodes[row.last()].sums);
        let indent = self.indent(row.depth, page);
        page.line.pad_to(indent);
        let labels: Vec<&Label> = row
            .chain
            .iter()
            .map(|node| &self.tree.nodes[*node].label)
            .collect();
        let style = page.style;
        let pieces = steps(labels.into_iter(), self.most, style);
        let between = match self.tree.direction {
            Direction::Down => calls(style),
            Direction::Up => called_by(style),
        };
        page.wrap(indent, Role::Plain, between, &pieces)
    }

    fn remark(&self, page: &mut Page<'_>, depth: usize, sums: &Sums, text: &str) -> io::Result<()> {
        self.figures(page, sums);
        let indent = self.indent(depth, page);
        page.line.pad_to(indent);
        page.text(Role::Dim, format_args!("{text}"));
        page.end()
    }
}
