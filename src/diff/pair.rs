//! Which spaces and which mappings of two traces belong together.

use std::collections::{BTreeMap, HashMap};

use crate::timeline::Began;
use crate::units::SpaceId;

use super::cells::First;
use super::collect::{Line, Recorded};
use super::owner::Owner;
use super::role::{Role, Shape, file_name, without_versions};

/// The role of a space: the way down the process tree to it.
pub(super) type Class = u32;

/// Numbers for the roles of spaces, shared by all traces of a comparison.
#[derive(Debug, Default)]
pub(super) struct Classes {
    ids: HashMap<(Option<Class>, &'static str, String), Class>,
    /// What people call a space of each.
    pub names: Vec<String>,
}

/// The spaces of a trace by role, in order of appearance.
pub(super) type Members = BTreeMap<Class, Vec<SpaceId>>;

impl Classes {
    /// The roles of the spaces of `trace`. A role that nobody had before may be one that went by
    /// another name: if a parent has one child of an unknown name here, and of a name that is not
    /// here in `like`, both are one.
    pub fn of(&mut self, trace: &Recorded, like: Option<&Recorded>) -> HashMap<SpaceId, Class> {
        let mut classes = HashMap::new();
        let theirs = like.map(|like| (self.of(like, None), like));
        for depth in levels(trace) {
            let mut renamed = HashMap::new();
            if let Some((their_classes, like)) = &theirs {
                renamed = self.renamed(trace, &depth, &classes, (their_classes, like));
            }
            for id in depth {
                let Some(line) = trace.lines.get(&id) else {
                    continue;
                };
                let key = key(trace, id, line, &classes);
                let class = renamed.get(&key).copied();
                let shown = file_name(&line.exe).to_owned();
                let class = class.unwrap_or_else(|| self.number(key.clone(), shown));
                self.ids.entry(key).or_insert(class);
                classes.insert(id, class);
            }
        }
        classes
    }

    fn number(&mut self, key: (Option<Class>, &'static str, String), shown: String) -> Class {
        let next = self.names.len() as Class;
        let class = *self.ids.entry(key).or_insert(next);
        if class == next {
            self.names.push(shown);
        }
        class
    }

    /// The unknown roles at one depth that can be nothing but a known one under another name.
    fn renamed(
        &self,
        trace: &Recorded,
        depth: &[SpaceId],
        classes: &HashMap<SpaceId, Class>,
        (their_classes, like): (&HashMap<SpaceId, Class>, &Recorded),
    ) -> HashMap<(Option<Class>, &'static str, String), Class> {
        type Names = BTreeMap<(Option<Class>, &'static str), Vec<String>>;
        let (mut new, mut gone) = (Names::new(), Names::new());
        let note = |names: &mut Names, key: (Option<Class>, &'static str, String)| {
            let known = names.entry((key.0, key.1)).or_default();
            if !known.contains(&key.2) {
                known.push(key.2);
            }
        };
        let ours = depth
            .iter()
            .filter_map(|id| Some((id, trace.lines.get(id)?)));
        let ours: Vec<_> = ours
            .map(|(id, line)| key(trace, *id, line, classes))
            .collect();
        for key in ours.iter().filter(|key| !self.ids.contains_key(*key)) {
            note(&mut new, key.clone());
        }
        let lines = like.lines.iter().filter(|_| !new.is_empty());
        for (id, line) in lines {
            let key = key(like, *id, line, their_classes);
            if new.contains_key(&(key.0, key.1)) && !ours.contains(&key) {
                note(&mut gone, key);
            }
        }
        let mut renamed = HashMap::new();
        for ((parent, began), names) in new {
            if let ([new], Some([old])) = (
                names.as_slice(),
                gone.get(&(parent, began)).map(Vec::as_slice),
            ) && let Some(class) = self.ids.get(&(parent, began, old.clone()))
            {
                renamed.insert((parent, began, new.clone()), *class);
            }
        }
        renamed
    }
}

/// The spaces of a trace, parents before their children, one list for each depth.
fn levels(trace: &Recorded) -> Vec<Vec<SpaceId>> {
    let mut depths: HashMap<SpaceId, usize> = HashMap::new();
    let mut levels: Vec<Vec<SpaceId>> = Vec::new();
    for space in &trace.report.spaces {
        let parent = trace.lines.get(&space.id).and_then(|line| line.parent);
        let depth = parent.and_then(|parent| depths.get(&parent));
        let depth = depth.map_or(0, |depth| depth + 1);
        depths.insert(space.id, depth);
        if levels.len() <= depth {
            levels.resize(depth + 1, Vec::new());
        }
        if let Some(level) = levels.get_mut(depth) {
            level.push(space.id);
        }
    }
    levels
}

fn key(
    trace: &Recorded,
    id: SpaceId,
    line: &Line,
    classes: &HashMap<SpaceId, Class>,
) -> (Option<Class>, &'static str, String) {
    let parent = line.parent.and_then(|parent| classes.get(&parent)).copied();
    let began = match line.began {
        Began::Exec => "exec",
        Began::Fork { .. } => "fork",
        Began::Attach => "attach",
    };
    // What is compared belongs together, whatever it is called.
    let first = trace.report.spaces.first().map(|space| space.id);
    let name = match Some(id) == first {
        true => String::new(),
        false => without_versions(file_name(&line.exe)),
    };
    (parent, began, name)
}

/// The spaces of each role.
pub(super) fn members(trace: &Recorded, classes: &HashMap<SpaceId, Class>) -> Members {
    let mut members = Members::new();
    for space in &trace.report.spaces {
        if let Some(class) = classes.get(&space.id) {
            members.entry(*class).or_default().push(space.id);
        }
    }
    members
}

/// What is compared with what: the mappings of one shape in spaces of one role, or all mappings of
/// the spaces that the other side does not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub class: Class,
    /// `None` for whole spaces.
    pub shape: Option<Shape>,
}

/// The bytes of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Amount {
    /// Reserved and committed at the end.
    pub end: [u64; 2],
    /// Reserved (committed) when all reserved (committed) bytes were at their peak.
    pub peak: [u64; 2],
    /// Mappings at the end; spaces, for whole ones.
    pub count: u64,
    /// The most mappings at once.
    pub most: u64,
    /// The first.
    pub first: Option<First>,
    /// Who made that, if it is known.
    pub owner: Option<Owner>,
    /// The name of the file.
    pub name: String,
}

impl Amount {
    pub fn add(&mut self, other: &Amount) {
        for state in 0..2 {
            self.end[state] = self.end[state].saturating_add(other.end[state]);
            self.peak[state] = self.peak[state].saturating_add(other.peak[state]);
        }
        self.count = self.count.saturating_add(other.count);
        self.most = self.most.saturating_add(other.most);
        let earlier = match (self.first, other.first) {
            (Some(first), Some(other)) => other.time < first.time,
            (first, _) => first.is_none(),
        };
        if earlier {
            self.first = other.first;
            self.owner.clone_from(&other.owner);
        }
        if self.name.is_empty() {
            self.name.clone_from(&other.name);
        }
    }
}

/// The bytes of a trace by key. Of each role the first `paired` spaces are compared mapping by
/// mapping, those beyond as wholes.
pub(super) fn tally(
    trace: &Recorded,
    members: &Members,
    paired: &HashMap<Class, usize>,
) -> BTreeMap<Key, Amount> {
    let mut roles: HashMap<SpaceId, (Class, bool)> = HashMap::new();
    let mut amounts: BTreeMap<Key, Amount> = BTreeMap::new();
    for (class, spaces) in members {
        let paired = paired.get(class).copied().unwrap_or(0);
        for (index, space) in spaces.iter().enumerate() {
            roles.insert(*space, (*class, index < paired));
            if paired <= index {
                let shape = None;
                let key = Key {
                    class: *class,
                    shape,
                };
                amounts.entry(key).or_default().count += 1;
            }
        }
    }
    for cell in &trace.cells {
        let Some((class, paired)) = roles.get(&cell.space).copied() else {
            continue;
        };
        let shape = trace.shapes.get(cell.shape).filter(|_| paired).cloned();
        let whole = shape.is_none();
        let amount = Amount {
            end: cell.end,
            peak: cell.peak,
            count: if whole { 0 } else { cell.alive_at_end },
            most: if whole { 0 } else { cell.most_alive },
            first: Some(cell.first),
            owner: (cell.first.stack).and_then(|stack| trace.owners.get(&stack).cloned()),
            name: match trace.shapes.names.get(cell.shape as usize) {
                Some(name) if !whole => name.clone(),
                _ => String::new(),
            },
        };
        amounts
            .entry(Key { class, shape })
            .or_default()
            .add(&amount);
    }
    amounts
}

/// How often two groups are held against each other. Beyond it, groups of sizes that the other side
/// does not have are new and gone.
const MOST_LOOKS: usize = 50_000_000;

/// What one function made may be so many times as large in the other trace.
const AS_MUCH: u64 = 64;

/// Keys that belong together, with those that are the same on both sides.
pub(super) fn groups(
    before: &BTreeMap<Key, Amount>,
    after: &BTreeMap<Key, Amount>,
) -> Vec<[Option<Key>; 2]> {
    let mut groups: Vec<[Option<Key>; 2]> = Vec::new();
    let mut gone: Vec<(&Key, &Amount)> = Vec::new();
    for (key, amount) in before {
        match after.contains_key(key) {
            true => groups.push([Some(key.clone()), Some(key.clone())]),
            false => gone.push((key, amount)),
        }
    }
    let new = after.iter().filter(|(key, _)| !before.contains_key(key));
    let mut new: Vec<Option<(&Key, &Amount)>> = new.map(Some).collect();
    gone.sort_by_key(|(key, amount)| (std::cmp::Reverse(mapped(amount)), *key));
    let mut looks = MOST_LOOKS;
    for (key, amount) in gone {
        looks = looks.saturating_sub(new.len());
        let best = new
            .iter()
            .enumerate()
            .filter(|_| 0 < looks)
            .filter_map(|(index, entry)| Some((index, (*entry)?)))
            .filter_map(|(index, (other, theirs))| {
                Some((distance(key, amount, other, theirs)?, index))
            })
            .min();
        let partner = best.and_then(|(_, index)| new.get_mut(index)?.take());
        groups.push([Some(key.clone()), partner.map(|(key, _)| key.clone())]);
    }
    let new = new.into_iter().flatten();
    groups.extend(new.map(|(key, _)| [None, Some(key.clone())]));
    groups
}

fn mapped(amount: &Amount) -> u64 {
    amount.end[0].saturating_add(amount.end[1])
}

/// Whether two groups were made by one function: 0 if so, 1 if nobody knows, 2 if not.
fn strangers(amount: &Amount, theirs: &Amount) -> u64 {
    let owners = amount.owner.as_ref().zip(theirs.owner.as_ref());
    match owners.and_then(|(mine, theirs)| mine.is(theirs)) {
        Some(true) => 0,
        None => 1,
        Some(false) => 2,
    }
}

/// How far two groups of mappings are from being one, who made them first; `None` if they are not.
fn distance(key: &Key, amount: &Amount, other: &Key, theirs: &Amount) -> Option<(u64, u64, u64)> {
    let (Some(shape), Some(their_shape)) = (&key.shape, &other.shape) else {
        return None;
    };
    if key.class != other.class {
        return None;
    }
    match (&shape.role, &their_shape.role) {
        // Of one kind, and neither more than twice the other: one that grew. What one function made may
        // have grown more.
        (Role::Anon(mine), Role::Anon(their)) if mine == their => {
            let (small, large) = (
                shape.size.min(their_shape.size),
                shape.size.max(their_shape.size),
            );
            // An amount of zero at the end says nothing: it was unmapped.
            let both = (mapped(amount) == 0) == (mapped(theirs) == 0);
            let order = |first: Option<First>| first.map_or(0, |first| first.time.0);
            let apart = order(amount.first).abs_diff(order(theirs.first));
            let strangers = strangers(amount, theirs);
            let alike = large / 2 <= small || strangers == 0 && large / AS_MUCH <= small;
            (alike && both).then_some((strangers, large - small, apart))
        }
        // The same file elsewhere.
        (Role::File(name), Role::File(their)) | (Role::Shared(name), Role::Shared(their)) => {
            (file_name(name) == file_name(their)).then_some((0, 0, 0))
        }
        _ => None,
    }
}
