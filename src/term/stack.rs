//! Who called, below a call: one step a line.

use std::fmt::Write as _;

use crate::report::{Code, Steps};
use crate::timeline::{FrameText, Namer, StackEnd, Timeline};
use crate::units::StackId;

use super::{Line, Style, escaped};

/// How stacks are shown.
pub struct StackView {
    names: Box<dyn Namer + Send>,
    depth: usize,
    /// Those that were shown last.
    last: Vec<String>,
}

impl StackView {
    /// At most `depth` steps of a stack, named by `names`.
    pub fn new(names: Box<dyn Namer + Send>, depth: usize) -> StackView {
        StackView {
            names,
            depth,
            last: Vec::new(),
        }
    }

    /// Most steps that are shown.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// The steps of a stack, by their names now.
    pub(super) fn steps(&mut self, id: StackId, timeline: &Timeline) -> Steps {
        Steps::of(id, &timeline.stacks, &mut *self.names)
    }

    /// The lines about a stack: its steps, innermost first, and what is missing.
    pub(super) fn lines(&mut self, id: StackId, timeline: &Timeline, style: &Style) -> Vec<String> {
        let stacks = &timeline.stacks;
        let stack = stacks.get(id);
        let mut lines = Vec::new();
        for frame in stacks.frames(id) {
            let names = self.names.name(*frame, stacks);
            let texts = FrameText::of(*frame, &names, stacks);
            lines.extend(texts.iter().map(|text| line(text, style)));
        }
        match lines.len().saturating_sub(self.depth) {
            0 => lines.extend(missing(stack.map(|stack| stack.end)).map(str::to_owned)),
            more => {
                lines.truncate(self.depth);
                lines.push(format!("{} {more} more", style.ellipsis()));
            }
        }
        if 1 < lines.len() && lines == self.last {
            return vec!["same stack".to_owned()];
        }
        self.last.clone_from(&lines);
        lines
    }
}

/// Why the outermost function is not the last that is shown.
fn missing(end: Option<StackEnd>) -> Option<&'static str> {
    match end? {
        StackEnd::Root => None,
        StackEnd::Cut => Some("(its callers lie beyond what was copied of the stack)"),
        StackEnd::Lost => Some("(nothing tells who called this)"),
        StackEnd::Deep => Some("(its callers are beyond what is kept)"),
    }
}

/// `sysmalloc+0x1b2 (libc.so.6) malloc.c:2701`; `libc.so.6+0xff943` where there is no name.
fn line(text: &FrameText, style: &Style) -> String {
    let shown = escaped(text.to_string().as_bytes(), style.unicode);
    match text.inlined {
        true => format!("{shown} inlined"),
        false => shown,
    }
}

/// The lines that `strace -k` prints below a call. It knows nothing of inlined functions, and ends
/// where it meets code that belongs to no file.
pub(super) fn strace_lines(steps: &Steps, depth: usize) -> String {
    let mut text = String::new();
    let frames = steps.steps.iter().filter(|step| !step.inlined);
    for step in frames.take(depth) {
        let harmless = |text: &str| super::strace::harmless(text.as_bytes());
        let _ = match (&step.code, &step.function) {
            (Code::Module { path, offset }, Some(function)) => writeln!(
                text,
                " > {}({}+{:#x}) [{offset:#x}]",
                harmless(path),
                harmless(function),
                step.offset
            ),
            (Code::Module { path, offset }, None) => {
                writeln!(text, " > {}() [{offset:#x}]", harmless(path))
            }
            (Code::Bare(pc), _) => {
                let _ = writeln!(text, " > unexpected_backtracing_error [{:#x}]", pc.0);
                break;
            }
        };
    }
    text
}

impl Line {
    /// Replaces the line by one of a tracee's text that is harmless already.
    pub(super) fn below(&mut self, indent: usize, text: &str) -> &mut Line {
        self.clear();
        self.gap(indent).role(super::Role::Dim).push(text)
    }
}
