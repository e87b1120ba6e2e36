//! Compares two sides.

use std::collections::{BTreeMap, HashMap};

use crate::timeline::Began;
use crate::units::SpaceId;

use super::calls::calls;
use super::doubts::doubts;
use super::facts::*;
use super::noise;
use super::pair::{Amount, Class, Classes, Key, Members, groups, members, tally};
use super::role::Role;
use super::{Recorded, align, sums};

/// Compares runs of one program (or state of it) with runs of another. The figures are those of the
/// run in the middle of each side; `None` if a side has no run.
pub fn compare(before: &[Recorded], after: &[Recorded]) -> Option<Diff> {
    let (old_index, new_index) = (middle(before)?, middle(after)?);
    let (old, new) = (before.get(old_index)?, after.get(new_index)?);
    let mut classes = Classes::default();
    let old_classes = classes.of(old, None);
    let new_classes = classes.of(new, Some(old));
    let old_members = members(old, &old_classes);
    let new_members = members(new, &new_classes);
    let paired = paired(&old_members, &new_members);
    let several = 1 < before.len() || 1 < after.len();
    let mut runs = |side: &[Recorded]| -> Vec<BTreeMap<Key, Amount>> {
        let amounts = side.iter().map(|run| {
            let classes = classes.of(run, None);
            tally(run, &members(run, &classes), &paired)
        });
        amounts.collect()
    };
    let all = if several {
        [runs(before), runs(after)]
    } else {
        [Vec::new(), Vec::new()]
    };
    let sides = [
        tally(old, &old_members, &paired),
        tally(new, &new_members, &paired),
    ];
    let comparison = Comparison {
        threads: [threads(old, &old_classes), threads(new, &new_classes)],
        names: classes.names,
        paired,
        together: [old, new].iter().any(|run| 1 < run.report.tree.most_spaces),
        sides,
        all,
        several,
    };
    let totals = [sums::of_report(&old.report), sums::of_report(&new.report)];
    let groups = groups(&comparison.sides[0], &comparison.sides[1]);
    let changes = comparison.changes(&groups, Moment::End, &totals);
    let peak_changes = comparison.changes(&groups, Moment::Peak, &totals);
    let calls = calls(before, after, [old, new]);
    let mut timelines = Timelines::default();
    let mut spaces = Vec::new();
    for (class, [old_ids, new_ids]) in by_class(&old_members, &new_members) {
        let name = comparison.name(class);
        for index in 0..old_ids.len().max(new_ids.len()) {
            let pair = [old_ids.get(index).copied(), new_ids.get(index).copied()];
            if let [Some(old_id), Some(new_id)] = pair {
                align::add(&mut timelines, &name, (old, old_id), (new, new_id));
            }
            spaces.push(SpacePair {
                name: name.clone(),
                before: pair[0].and_then(|id| space_side(old, id)),
                after: pair[1].and_then(|id| space_side(new, id)),
            });
        }
    }
    let counts = |change: &Change| change.noise.is_none();
    let same = !changes.iter().any(counts)
        && !peak_changes.iter().any(counts)
        && calls.iter().all(|call| call.noise.is_some())
        && spaces_agree(&spaces);
    Some(Diff {
        same,
        before: side(before, old_index, old, totals[0]),
        after: side(after, new_index, new, totals[1]),
        spaces,
        changes,
        peak_changes,
        calls,
        timelines,
        doubts: doubts(before, after),
    })
}

/// The run in the middle by what it maps at the end.
fn middle(runs: &[Recorded]) -> Option<usize> {
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|index| {
        runs.get(*index).map(|run| {
            let tree = &run.report.tree;
            (tree.mapped.end, tree.committed.end, tree.mapped.peak)
        })
    });
    order.get(runs.len().checked_sub(1)? / 2).copied()
}

fn side(runs: &[Recorded], shown: usize, run: &Recorded, sums: Sums) -> Side {
    Side {
        command: run.report.info.command.clone(),
        started: run.report.info.started.clone(),
        runs: runs.len(),
        shown,
        sums,
    }
}

fn space_side(run: &Recorded, id: SpaceId) -> Option<SpaceSide> {
    let spaces = &run.report.spaces;
    let index = spaces.binary_search_by_key(&id, |space| space.id).ok()?;
    let space = spaces.get(index)?;
    Some(SpaceSide {
        id,
        pid: space.pid,
        exe: space.exe.to_string(),
        sums: sums::of_space(space),
    })
}

/// Whether both sides have the same processes.
fn spaces_agree(spaces: &[SpacePair]) -> bool {
    spaces
        .iter()
        .all(|pair| pair.before.is_some() == pair.after.is_some())
}

fn by_class(old: &Members, new: &Members) -> BTreeMap<Class, [Vec<SpaceId>; 2]> {
    let mut all: BTreeMap<Class, [Vec<SpaceId>; 2]> = BTreeMap::new();
    for (index, members) in [old, new].into_iter().enumerate() {
        for (class, spaces) in members {
            all.entry(*class).or_default()[index].clone_from(spaces);
        }
    }
    all
}

fn paired(old: &Members, new: &Members) -> HashMap<Class, usize> {
    let both = old.iter().filter_map(|(class, spaces)| {
        let theirs = new.get(class)?;
        Some((*class, spaces.len().min(theirs.len())))
    });
    both.collect()
}

/// The most threads that all spaces of each role had, of roles in which a space had several threads
/// at once or is a copy of one that had.
fn threads(run: &Recorded, classes: &HashMap<SpaceId, Class>) -> BTreeMap<Class, u64> {
    let mut tasks: BTreeMap<SpaceId, u64> = BTreeMap::new();
    let mut threads: BTreeMap<Class, u64> = BTreeMap::new();
    for space in &run.report.spaces {
        let copied = match space.began {
            Began::Fork { parent } => parent.and_then(|parent| tasks.get(&parent)).copied(),
            Began::Exec | Began::Attach => None,
        };
        let most = space.tasks.peak.max(copied.unwrap_or(0));
        if 1 < most {
            tasks.insert(space.id, most);
            if let Some(class) = classes.get(&space.id) {
                let sum = threads.entry(*class).or_default();
                *sum = sum.saturating_add(most);
            }
        }
    }
    threads
}

/// When amounts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    End,
    Peak,
}

struct Comparison {
    /// Threads by role, of programs with several.
    threads: [BTreeMap<Class, u64>; 2],
    names: Vec<String>,
    /// Spaces of each role that both sides have.
    paired: HashMap<Class, usize>,
    /// Several processes lived at once, on either side.
    together: bool,
    /// The runs in the middle.
    sides: [BTreeMap<Key, Amount>; 2],
    /// All runs, if there are several.
    all: [Vec<BTreeMap<Key, Amount>>; 2],
    several: bool,
}

impl Comparison {
    fn name(&self, class: Class) -> String {
        self.names.get(class as usize).cloned().unwrap_or_default()
    }

    /// What differs at a moment, the largest first; what counts before what does not.
    fn changes(
        &self,
        groups: &[[Option<Key>; 2]],
        moment: Moment,
        totals: &[Sums; 2],
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for (state, figure) in [FigureName::Reserved, FigureName::Committed]
            .into_iter()
            .enumerate()
        {
            let total = |sums: &Sums| {
                let [reserved, committed] = [sums.reserved, sums.committed];
                let figure = [reserved, committed][state];
                match moment {
                    Moment::End => figure.end,
                    Moment::Peak => figure.peak,
                }
            };
            let [before, after] = [total(&totals[0]), total(&totals[1])];
            let mut of_figure: Vec<Change> = groups
                .iter()
                .filter_map(|group| self.change(group, state, figure, moment))
                .collect();
            if !self.several {
                let processes = self.paired.values().sum::<usize>().max(1) as u64;
                settle_small(&mut of_figure, before, processes);
                let small = self.together || noise::small_peak(before, after, before);
                if moment == Moment::Peak && small {
                    for change in &mut of_figure {
                        change.noise = change.noise.or(Some(Noise::Small));
                    }
                }
            }
            changes.extend(of_figure);
        }
        changes.sort_by_key(|change| {
            let size = std::cmp::Reverse(change.delta().unsigned_abs());
            (change.noise.is_some(), size)
        });
        changes
    }

    fn change(
        &self,
        group: &[Option<Key>; 2],
        state: usize,
        figure: FigureName,
        moment: Moment,
    ) -> Option<Change> {
        let none = Amount::default();
        let amounts = [0, 1].map(|side| {
            let key = group[side].as_ref();
            key.and_then(|key| self.sides[side].get(key))
                .unwrap_or(&none)
        });
        let bytes = |amount: &Amount| match moment {
            Moment::End => amount.end,
            Moment::Peak => amount.peak,
        };
        let [before, after] = amounts.map(|amount| bytes(amount)[state]);
        if before == after {
            return None;
        }
        let keys: Vec<&Key> = group.iter().flatten().collect();
        let key = *keys.last()?;
        let counts = amounts.map(|amount| match moment {
            Moment::End => amount.count,
            Moment::Peak => amount.most,
        });
        let role = key.shape.as_ref().map(|shape| &shape.role);
        let size = |side: usize| {
            let shape = group[side].as_ref().and_then(|key| key.shape.as_ref());
            shape.map_or(0, |shape| shape.size)
        };
        let sizes = [size(0), size(1)];
        let threads = self
            .threads
            .iter()
            .filter_map(|threads| threads.get(&key.class));
        let tasks = threads.copied().max().unwrap_or(0);
        let processes = self.paired.get(&key.class).copied().unwrap_or(0).max(1) as u64;
        let noise = match self.several {
            true => self.spread(&keys, role, |amount| bytes(amount)[state]),
            false => noise::of_one(&noise::Difference {
                role,
                before,
                after,
                counts,
                size: if sizes[0] == sizes[1] { sizes[0] } else { 0 },
                threads: 0 < tasks || self.together && 1 < processes,
                processes,
                tasks: tasks.max(processes),
            }),
        };
        let none_of = |amount: &Amount| bytes(amount) == [0; 2];
        Some(Change {
            kind: match (none_of(amounts[0]), none_of(amounts[1])) {
                (true, _) => Kind::New,
                (_, true) => Kind::Gone,
                _ if before < after => Kind::Grown,
                _ => Kind::Shrunk,
            },
            figure,
            subject: match role {
                Some(role) => Subject::Mappings {
                    role: role.clone(),
                    name: amounts
                        .iter()
                        .rev()
                        .map(|amount| amount.name.clone())
                        .find(|name| !name.is_empty())
                        .unwrap_or_default(),
                    sizes,
                },
                None => Subject::Processes,
            },
            space: self.name(key.class),
            before,
            after,
            numbers: counts,
            first: amounts.map(|amount| amount.first),
            owners: amounts.map(|amount| amount.owner.clone()),
            noise,
        })
    }

    /// Whether the sides differ beyond what the runs of one of them do.
    fn spread(
        &self,
        keys: &[&Key],
        role: Option<&Role>,
        bytes: impl Fn(&Amount) -> u64,
    ) -> Option<Noise> {
        let mut keys = keys.to_vec();
        keys.dedup();
        let values = |side: usize| -> Vec<u64> {
            let sum = |run: &BTreeMap<Key, Amount>| {
                let amounts = keys.iter().filter_map(|key| run.get(*key));
                amounts.map(&bytes).fold(0, u64::saturating_add)
            };
            self.all[side].iter().map(sum).collect()
        };
        noise::of_many(role, &values(0), &values(1))
    }
}

/// What is small by itself counts if it is not small in sum.
fn settle_small(changes: &mut [Change], before: u64, processes: u64) {
    let small = |change: &&mut Change| change.noise == Some(Noise::Small);
    let net = changes.iter_mut().filter(small);
    let net = net.fold(0, |net: i64, change| net.saturating_add(change.delta()));
    if !noise::small_together(net, before, processes) {
        for change in changes.iter_mut().filter(small) {
            change.noise = None;
        }
    }
}
