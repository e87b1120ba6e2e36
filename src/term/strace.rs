//! `--format strace`: a memory call as `strace -f -y` prints it, version 6.1.
//!
//! What was learnt after 6.1 (mseal, cachestat, MAP_DROPPABLE, …) is printed as newer ones print it.
//! strace writes the arguments when a call enters the kernel and the rest when it returns; when
//! something else is written in between, the line ends in `<unfinished ...>` and a second one
//! begins with `<... mmap resumed>`. [`StraceFormat`] does the same from
//! [`EventKind::CallEntered`], and prints whole lines where that event is missing.

mod args;
mod siginfo;
mod text;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::abi::{Abi, CallSet, errno_name, errno_restarts, errno_text, signal_name};
use crate::decode::{Fetched, RawCall, is_memory_call, shows};
use crate::timeline::{CallEvent, Ended, Event, EventKind, Sink, TaskEnd, TaskOrigin, Timeline};
use crate::units::Tid;

use super::StackView;
use super::stack::strace_lines;
use args::{Arguments, Returned};

/// Where strace begins the ` = ` of a result.
const RESULT_COLUMN: usize = 40;

/// What is shown, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The calls that are shown.
    pub calls: CallSet,
    /// Whether signals are shown.
    pub signals: bool,
    /// As strace writes to a file (`-o`): every line begins with the pid, and nothing is said
    /// about processes that come and go. To a terminal the pid is shown while there are several.
    pub to_file: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            calls: CallSet::default(),
            signals: true,
            to_file: false,
        }
    }
}

/// Writes a timeline as strace would have.
pub struct StraceFormat<W> {
    out: W,
    options: Options,
    /// The call that entered last, if nothing was printed since.
    open: Option<OpenLine>,
    /// Calls whose first line ended in `<unfinished ...>`.
    unfinished: BTreeSet<Tid>,
    /// Tasks whose next call is printed in two lines: see [`StraceFormat::executed`].
    split: BTreeSet<Tid>,
    tasks: BTreeSet<Tid>,
    /// The table a task's last call counted in, where it is not the usual one.
    modes: BTreeMap<Tid, Abi>,
    /// Who called is shown, too: as `-k` does.
    stacks: Option<StackView>,
}

/// Text of a tracee's as strace escapes it.
pub(super) fn harmless(text: &[u8]) -> String {
    text::escape(text, b"")
}

/// A line whose end is not known yet.
struct OpenLine {
    tid: Tid,
    /// The prefix and the arguments known at the entry.
    text: String,
    /// All arguments are in `text`.
    complete: bool,
    /// `text` has been written, because nothing else happened for a moment.
    written: bool,
}

impl<W: Write> StraceFormat<W> {
    /// Prints to `out`.
    pub fn new(out: W, options: Options) -> StraceFormat<W> {
        StraceFormat {
            out,
            options,
            open: None,
            unfinished: BTreeSet::new(),
            split: BTreeSet::new(),
            tasks: BTreeSet::new(),
            modes: BTreeMap::new(),
            stacks: None,
        }
    }

    /// Shows stacks below calls that have one, as `strace -k` does.
    pub fn with_stacks(self, stacks: StackView) -> StraceFormat<W> {
        let stacks = Some(stacks);
        StraceFormat { stacks, ..self }
    }

    /// Gives the writer back.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// What stands before a line of `tid`.
    fn prefix(&self, tid: Tid) -> String {
        if self.options.to_file {
            format!("{:<5} ", tid.0)
        } else if 1 < self.tasks.len() {
            format!("[pid {:>5}] ", tid.0)
        } else {
            String::new()
        }
    }

    /// Ends the open line, if there is one, because another will be printed.
    fn interrupt(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        self.unfinished.insert(open.tid);
        if !open.written {
            self.out.write_all(open.text.as_bytes())?;
        }
        self.out.write_all(b" <unfinished ...>\n")
    }

    fn line(&mut self, tid: Tid, text: &str) -> io::Result<()> {
        self.interrupt()?;
        let prefix = self.prefix(tid);
        writeln!(self.out, "{prefix}{text}")
    }

    fn entered(&mut self, tid: Tid, raw: &RawCall, fetched: &[Fetched]) -> io::Result<()> {
        self.interrupt()?;
        self.note_mode(tid, raw.abi)?;
        let mut text = self.prefix(tid);
        let complete = Arguments::new(raw, fetched).write_entry(&mut text);
        self.open = Some(OpenLine {
            tid,
            text,
            complete,
            written: false,
        });
        Ok(())
    }

    fn returned(&mut self, tid: Tid, call: &CallEvent) -> io::Result<()> {
        let arguments = Arguments::new(&call.raw, &call.fetched);
        if self.split.remove(&tid) && self.open.as_ref().is_some_and(|open| open.tid == tid) {
            self.interrupt()?;
        }
        let open = self.open.take_if(|open| open.tid == tid);
        let mut line = String::new();
        let (complete, mut skip) = match open {
            Some(open) => {
                line = open.text;
                let skip = if open.written { line.len() } else { 0 };
                (open.complete, skip)
            }
            None if self.unfinished.remove(&tid) => {
                self.interrupt()?;
                line = self.prefix(tid);
                let _ = write!(line, "<... {} resumed>", arguments.name());
                (arguments.write_entry(&mut String::new()), 0)
            }
            None => {
                self.interrupt()?;
                self.note_mode(tid, call.raw.abi)?;
                line.push_str(&self.prefix(tid));
                (arguments.write_entry(&mut line), 0)
            }
        };
        match (complete, call.result) {
            (true, _) => {}
            (false, Some(result)) => arguments.write_exit(&mut line, result),
            (false, None) => line.push_str(" <unfinished ...>"),
        }
        line.push_str(") ");
        let gap = RESULT_COLUMN.saturating_sub(line.len());
        line.extend(std::iter::repeat_n(' ', gap));
        line.push_str("= ");
        match call.result {
            None => line.push('?'),
            Some(result) => write_result(&mut line, &arguments, result),
        }
        line.push('\n');
        skip = skip.min(line.len());
        self.out.write_all(&line.as_bytes()[skip..])
    }

    /// strace says so when a process begins to use the other table of calls.
    fn note_mode(&mut self, tid: Tid, abi: Abi) -> io::Result<()> {
        let before = self.modes.get(&tid).copied().unwrap_or(Abi::X86_64);
        if before == abi {
            return Ok(());
        }
        self.modes.insert(tid, abi);
        if self.options.to_file {
            return Ok(());
        }
        let bits = 8 * abi.word();
        writeln!(
            self.out,
            "[ Process PID={} runs in {bits} bit mode. ]",
            tid.0
        )
    }

    fn began(&mut self, tid: Tid, parent: Option<Tid>, origin: TaskOrigin) -> io::Result<()> {
        self.tasks.insert(tid);
        if let Some(abi) = parent.and_then(|parent| self.modes.get(&parent).copied()) {
            self.modes.insert(tid, abi);
        }
        if origin == TaskOrigin::Launch || self.options.to_file {
            return Ok(());
        }
        writeln!(self.out, "memtrace: Process {} attached", tid.0)
    }

    /// A thread's execve ended the others, and it goes on under its leader's number. strace takes
    /// the execve for unfinished from then on, even if it does not show it: the next call that it
    /// shows of the task is printed in two lines.
    fn executed(&mut self, tid: Tid, former: Tid) -> io::Result<()> {
        if former == tid {
            return Ok(());
        }
        self.interrupt()?;
        // There were two tasks at least, whatever has been said of their end since.
        self.tasks.extend([tid, former]);
        let text = format!("+++ superseded by execve in pid {} +++", former.0);
        self.line(tid, &text)?;
        self.forget(former);
        self.unfinished.remove(&tid);
        self.split.insert(tid);
        Ok(())
    }

    fn ended(&mut self, tid: Tid, end: TaskEnd) -> io::Result<()> {
        match end {
            TaskEnd::Exited(status) => {
                self.line(tid, &format!("+++ exited with {status} +++"))?;
            }
            TaskEnd::Killed { signal, core } => {
                let core = if core { " (core dumped)" } else { "" };
                let name = signal_name(signal);
                self.line(tid, &format!("+++ killed by {name}{core} +++"))?;
            }
            TaskEnd::Gone => {
                if self.open.as_ref().is_some_and(|open| open.tid == tid) {
                    self.interrupt()?;
                }
            }
        }
        self.forget(tid);
        Ok(())
    }

    fn forget(&mut self, tid: Tid) {
        self.tasks.remove(&tid);
        self.unfinished.remove(&tid);
        self.split.remove(&tid);
        self.modes.remove(&tid);
    }

    fn shows(&self, raw: &RawCall) -> bool {
        shows(self.options.calls, raw) && is_memory_call(raw)
    }
}

impl<W: Write> Sink for StraceFormat<W> {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        let tid = event.tid;
        match &event.kind {
            EventKind::TaskBegan { parent, origin } => self.began(tid, *parent, *origin),
            EventKind::CallEntered { raw, fetched } if self.shows(raw) => {
                self.entered(tid, raw, fetched)
            }
            EventKind::Call(call) if self.shows(&call.raw) => {
                self.returned(tid, call)?;
                let (Some(view), Some(stack)) = (&mut self.stacks, call.stack) else {
                    return Ok(());
                };
                let lines = strace_lines(&view.steps(stack, timeline), view.depth());
                self.out.write_all(lines.as_bytes())
            }
            EventKind::Exec { former } => self.executed(tid, *former),
            EventKind::TaskEnded(end) => self.ended(tid, *end),
            EventKind::Signal(signal) if self.options.signals => {
                self.line(signal.tid, &siginfo::describe(signal))
            }
            EventKind::SpaceEnded {
                ended: Ended::Detach,
                ..
            } if !self.options.to_file => {
                self.interrupt()?;
                writeln!(self.out, "memtrace: Process {} detached", event.pid.0)
            }
            EventKind::Note(text) if !self.options.to_file => {
                self.interrupt()?;
                let text = text::escape(text.as_bytes(), b"");
                writeln!(self.out, "memtrace: {text}")
            }
            EventKind::Lost(count) if !self.options.to_file => {
                self.interrupt()?;
                writeln!(self.out, "memtrace: {count} observations were lost")
            }
            EventKind::CallEntered { .. }
            | EventKind::Call(_)
            | EventKind::Signal(_)
            | EventKind::SpaceBegan { .. }
            | EventKind::SpaceEnded { .. }
            | EventKind::Sample(_)
            | EventKind::Touched(_)
            | EventKind::HighWater(_)
            | EventKind::Checked(_)
            | EventKind::Note(_)
            | EventKind::Lost(_)
            | EventKind::File(_) => Ok(()),
        }
    }

    /// Shows the beginning of a call that takes its time, as strace does.
    fn idle(&mut self) -> io::Result<()> {
        if let Some(open) = self.open.as_mut().filter(|open| !open.written) {
            self.out.write_all(open.text.as_bytes())?;
            open.written = true;
        }
        self.out.flush()
    }

    fn finish(&mut self, _: &Timeline) -> io::Result<()> {
        self.interrupt()?;
        self.out.flush()
    }
}

/// What stands after the ` = `.
fn write_result(line: &mut String, arguments: &Arguments, result: i64) {
    let result = match arguments.abi() {
        // A 32-bit register need not have been extended.
        Abi::I386 if (-4095..0).contains(&(result as i32)) => i64::from(result as i32),
        _ => result,
    };
    if (-4095..0).contains(&result) {
        let errno = -result as i32;
        let _ = match (errno_name(errno), errno_text(errno)) {
            (Some(name), Some(text)) if errno_restarts(errno) => write!(line, "? {name} ({text})"),
            (Some(name), Some(text)) => write!(line, "-1 {name} ({text})"),
            _ => write!(line, "-1 (errno {errno})"),
        };
        return;
    }
    let value = result as u64;
    let _ = match arguments.returned(result) {
        Returned::Number => write!(line, "{result}"),
        Returned::Address(addr) => write!(line, "{}", text::Hex(addr)),
        Returned::Described(what) => write!(line, "{} ({what})", text::Hex(value)),
        Returned::Descriptor(path) => {
            line.push_str(&text::descriptor(result as i32, path));
            Ok(())
        }
    };
}

#[cfg(test)]
mod tests;
