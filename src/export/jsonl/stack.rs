//! Who called, in lines of JSON: each stack once, with all that its frames are called, and the owner of
//! each call by name.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::report::reading::{Labels, Source, owner};
use crate::report::{Code, Step, Steps, json as report_json};
use crate::timeline::{Event, EventKind, Namer, Observation, Observed, StackEnd, Stacks, Timeline};
use crate::units::StackId;

/// Names the stacks of a trace.
pub struct StackLines {
    names: Box<dyn Namer + Send>,
    /// What was observed of stacks so far.
    pub(super) told: Timeline,
    /// Stacks that have had their line, where nothing is told of observations.
    shown: HashSet<StackId>,
}

impl StackLines {
    /// Stacks named by `names`.
    pub fn new(names: Box<dyn Namer + Send>) -> StackLines {
        StackLines {
            names,
            told: Timeline::default(),
            shown: HashSet::new(),
        }
    }

    /// Takes what an observation tells of stacks; what its line says beside its raw part.
    pub(super) fn observed(&mut self, observation: &Observation) -> Option<Map<String, Value>> {
        let of_stacks = matches!(
            observation.what,
            Observed::Module(_) | Observed::Stack(_) | Observed::Names(_)
        );
        if !of_stacks {
            return None;
        }
        self.told.observe(observation.clone(), &mut Vec::new());
        match &observation.what {
            Observed::Stack(stack) => {
                Some(stack_fields(stack.id, &self.told.stacks, &mut *self.names))
            }
            _ => None,
        }
    }

    /// Who is behind a call: the innermost function of its stack that is no bare wrapper of it.
    pub fn owner(&mut self, event: &Event, stacks: &Stacks) -> Option<Value> {
        let EventKind::Call(call) = &event.kind else {
            return None;
        };
        self.owner_of(call.stack?, stacks)
    }

    pub(super) fn owner_of(&mut self, stack: StackId, stacks: &Stacks) -> Option<Value> {
        let mut labels = Labels::new(stacks, &mut *self.names);
        let labels = labels.source(&Source::Stack(stack));
        owner(&labels).map(|owner| owner.text.as_ref().into())
    }

    /// A line about the stack of a call, before the first call that has it.
    pub fn first(&mut self, event: &Event, stacks: &Stacks) -> Option<Value> {
        let EventKind::Call(call) = &event.kind else {
            return None;
        };
        let stack = call.stack?;
        self.shown.insert(stack).then(|| {
            let mut line = Map::new();
            line.insert("type".to_owned(), "stack".into());
            line.extend(stack_fields(stack, stacks, &mut *self.names));
            Value::Object(line)
        })
    }
}

fn stack_fields(id: StackId, stacks: &Stacks, names: &mut dyn Namer) -> Map<String, Value> {
    let Steps { steps, end } = Steps::of(id, stacks, names);
    let end = end.map(|end| match end {
        StackEnd::Root => "root",
        StackEnd::Cut => "cut",
        StackEnd::Lost => "lost",
        StackEnd::Deep => "deep",
    });
    let mut fields = Map::new();
    fields.insert("stack".to_owned(), id.0.into());
    fields.insert("end".to_owned(), json!(end));
    fields.insert("frames".to_owned(), steps.iter().map(step_object).collect());
    fields
}

/// `function` is null where no name is known; `module_offset` is an offset in the file.
fn step_object(step: &Step) -> Value {
    let Step {
        function,
        offset,
        file,
        line,
        inlined,
        code,
    } = step;
    let mut object = json!({"function": function.as_deref()});
    if function.is_some() {
        object["offset"] = (*offset).into();
    }
    match code {
        Code::Module { path, offset } => {
            object["module"] = path.as_ref().into();
            object["module_offset"] = format!("{offset:#x}").into();
        }
        Code::Bare(pc) => object["address"] = report_json::hex(*pc),
    }
    if let Some(file) = file {
        object["file"] = file.as_ref().into();
    }
    if *line != 0 {
        object["line"] = (*line).into();
    }
    if *inlined {
        object["inlined"] = true.into();
    }
    object
}
