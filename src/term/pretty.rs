//! The live timeline for people: one line an event, in columns, with the running totals.

mod change;
mod columns;
mod row;
mod words;

#[cfg(test)]
mod story;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};

use crate::abi::{CallSet, call_info};
use crate::decode::shows;
use crate::mm::Totals;
use crate::timeline::{
    Began, CheckCause, Checked, Event, EventKind, Resident, SignalSeen, Sink, TaskEnd, TaskOrigin,
    Timeline,
};
use crate::units::{Bytes, SpaceId, StackId, Tid};

use super::failure::failure_words;
use super::{
    Elapsed, Line, Role, SIZE_WIDTH, SignalName, Size, StackView, Style, escaped, width_of,
};
pub(super) use change::push_change;
use columns::{Columns, GAP};
pub(super) use words::push_how;

/// Differences shown of one comparison; a report holds them all.
const DIFFERENCES: usize = 4;
/// Stacks are set off from what else stands below a line.
const STACK_INDENT: usize = 2;

/// A [`Sink`] that writes the timeline.
pub struct Pretty<W: Write> {
    out: BufWriter<W>,
    style: Style,
    shown: CallSet,
    line: Line,
    columns: Columns,
    /// Widest `comm/tid` and tid so far.
    widest: (usize, usize),
    began: bool,
    stacks: Option<StackView>,
}

impl<W: Write> Pretty<W> {
    /// A timeline on `out`, of the calls in `shown`.
    pub fn new(out: W, style: Style, shown: CallSet) -> Pretty<W> {
        Pretty {
            out: BufWriter::with_capacity(1 << 16, out),
            columns: Columns::fit(style.width, 0, 0),
            style,
            shown,
            line: Line::default(),
            widest: (0, 0),
            began: false,
            stacks: None,
        }
    }

    /// Shows stacks below calls that have one.
    pub fn with_stacks(self, stacks: StackView) -> Pretty<W> {
        let stacks = Some(stacks);
        Pretty { stacks, ..self }
    }

    /// The terminal has another width from now on.
    pub fn set_width(&mut self, width: Option<usize>) {
        self.style.width = width;
        self.columns = Columns::fit(width, self.widest.0, self.widest.1);
    }

    /// Starts a line: the time and who.
    fn begin(&mut self, event: &Event, timeline: &Timeline) {
        let comm = comm(event.tid, event.space, timeline);
        let tid = digits(event.tid);
        let who = match comm {
            Some(comm) if comm.is_ascii() => comm.len() + 1 + tid,
            Some(comm) => width_of(&escaped(comm.as_bytes(), self.style.unicode)) + 1 + tid,
            None => tid,
        };
        if who > self.widest.0 || tid > self.widest.1 {
            self.widest = (self.widest.0.max(who), self.widest.1.max(tid));
            self.columns = Columns::fit(self.style.width, self.widest.0, self.widest.1);
        }
        self.line.clear();
        if self.columns.time > 0 {
            self.line
                .role(Role::Dim)
                .push_right(self.columns.time, Elapsed(event.time.0))
                .role(Role::Plain)
                .gap(GAP);
        }
        if self.columns.who == 0 {
            return;
        }
        let start = self.line.width();
        if let (true, Some(comm)) = (self.columns.comm, comm) {
            let room = self.columns.who - tid - 1;
            self.line
                .push_escaped_within(comm.as_bytes(), room, &self.style);
            self.line.push("/");
        }
        let _ = write!(self.line, "{}", event.tid);
        self.line.pad_to(start + self.columns.who).gap(GAP);
    }

    fn end(&mut self) -> io::Result<()> {
        if !self.began {
            self.began = true;
            let header = row::header(&self.columns, &self.style);
            header.write_to(&mut self.out, &self.style)?;
        }
        self.line.write_to(&mut self.out, &self.style)
    }

    /// A line of words in one look.
    fn remark(
        &mut self,
        event: &Event,
        timeline: &Timeline,
        role: Role,
        text: std::fmt::Arguments<'_>,
    ) -> io::Result<()> {
        self.begin(event, timeline);
        self.line.role(role);
        let _ = self.line.write_fmt(text);
        self.end()
    }

    /// What is resident, as the kernel counts it.
    fn resident(
        &mut self,
        event: &Event,
        timeline: &Timeline,
        resident: &Resident,
    ) -> io::Result<()> {
        let kinds = [
            (resident.anon, "anonymous"),
            (resident.file, "files"),
            (resident.shmem, "shared memory"),
            (resident.swap, "more in swap"),
        ];
        let kinds = kinds
            .into_iter()
            .filter_map(|(bytes, word)| Some((bytes.filter(|bytes| *bytes > Bytes(0))?, word)));
        let kinds: Vec<String> = kinds
            .map(|(bytes, word)| format!("{} {word}", Size(bytes)))
            .collect();
        let (now, kinds) = (Size(resident.now), kinds.join(", "));
        self.remark(
            event,
            timeline,
            Role::Dim,
            format_args!("resident {now}: {kinds}"),
        )
    }

    /// Further lines about the event above: memtrace's own words, wrapped.
    fn below(&mut self, role: Role, words: &str) -> io::Result<()> {
        let indent = match self.columns.time {
            0 => GAP,
            time => time + GAP,
        };
        let width = self.style.width.unwrap_or(usize::MAX);
        self.line.clear();
        self.line.gap(indent).role(role);
        for word in words.split(' ') {
            if width < self.line.width() + 1 + width_of(word) && indent < self.line.width() {
                self.end()?;
                self.line.clear();
                self.line.gap(indent).role(role);
            }
            if indent < self.line.width() {
                self.line.push(" ");
            }
            self.line.push(word);
        }
        self.end()
    }

    fn stack(&mut self, stack: StackId, timeline: &Timeline) -> io::Result<()> {
        let Some(view) = &mut self.stacks else {
            return Ok(());
        };
        let indent = self.columns.time + GAP + STACK_INDENT;
        for line in view.lines(stack, timeline, &self.style) {
            self.line.below(indent, &line);
            self.end()?;
        }
        Ok(())
    }

    fn totals(&mut self, now: &Totals) {
        row::push_totals(&mut self.line, now, &self.columns);
    }

    fn space_began(
        &mut self,
        event: &Event,
        timeline: &Timeline,
        began: Began,
        exe: &str,
        now: &Totals,
    ) -> io::Result<()> {
        let word = match began {
            Began::Exec => "exec",
            Began::Attach => "attached",
            // The line about the new process says it.
            Began::Fork { .. } => return Ok(()),
        };
        self.begin(event, timeline);
        let start = self.line.width();
        self.line.role(Role::Strong).push(word);
        self.line.pad_to(start + self.columns.call).gap(GAP);
        let end = row::text_end(&self.columns, &self.style);
        self.line.push_path_until(exe.as_bytes(), end, &self.style);
        if timeline
            .spaces
            .get(&event.space)
            .is_some_and(|space| !space.known)
        {
            self.line.push(" (its map cannot be read)");
        }
        self.totals(now);
        self.end()
    }

    fn task_began(
        &mut self,
        event: &Event,
        timeline: &Timeline,
        parent: Option<Tid>,
        origin: TaskOrigin,
    ) -> io::Result<()> {
        let what = match origin {
            TaskOrigin::Thread => "new thread",
            TaskOrigin::Fork => "new process by fork",
            TaskOrigin::Vfork => "new process by vfork, in its parent's space",
            TaskOrigin::SharedSpace => "new process that shares its parent's space",
            // The line about the space says it; the threads found there are no news.
            TaskOrigin::Launch | TaskOrigin::Attach => return Ok(()),
        };
        match parent {
            Some(parent) => self.remark(
                event,
                timeline,
                Role::Dim,
                format_args!("{what} of {parent}"),
            ),
            None => self.remark(event, timeline, Role::Dim, format_args!("{what}")),
        }
    }

    fn task_ended(&mut self, event: &Event, timeline: &Timeline, end: TaskEnd) -> io::Result<()> {
        if event.tid != event.pid {
            return Ok(());
        }
        match end {
            TaskEnd::Exited(status) => {
                let role = if status == 0 { Role::Dim } else { Role::Plain };
                self.remark(event, timeline, role, format_args!("exited with {status}"))
            }
            TaskEnd::Killed { signal, core } => {
                let core = if core { ", core dumped" } else { "" };
                let name = SignalName(signal);
                self.remark(
                    event,
                    timeline,
                    Role::Error,
                    format_args!("killed by {name}{core}"),
                )
            }
            TaskEnd::Gone => Ok(()),
        }
    }

    /// Faults name an address, which is about memory; other signals show by how a process ends.
    fn signal(&mut self, event: &Event, timeline: &Timeline, seen: &SignalSeen) -> io::Result<()> {
        const SIGBUS: i32 = 7;
        const SIGSEGV: i32 = 11;
        let name = SignalName(seen.signal);
        if seen.stopped {
            return self.remark(
                event,
                timeline,
                Role::Dim,
                format_args!("stopped by {name}"),
            );
        }
        if !matches!(seen.signal, SIGBUS | SIGSEGV) || seen.code <= 0 {
            return Ok(());
        }
        let why = match (seen.signal, seen.code) {
            (SIGSEGV, 1) => ", nothing is mapped there",
            (SIGSEGV, 2) => ", no access",
            (SIGSEGV, 3 | 4) => ", a protection key forbids it",
            (SIGBUS, 2) => ", past the end of the file",
            (SIGBUS, 4 | 5) => ", broken memory",
            _ => "",
        };
        let addr = seen.fields[0];
        self.remark(
            event,
            timeline,
            Role::Plain,
            format_args!("{name} at {addr:#x}{why}"),
        )
    }

    fn checked(&mut self, event: &Event, timeline: &Timeline, seen: &Checked) -> io::Result<()> {
        if seen.drift.0 > 0 {
            let drift = Size(seen.drift);
            self.remark(
                event,
                timeline,
                Role::Alarm,
                format_args!("DRIFT: {drift} differ from the kernel's map"),
            )?;
        } else if seen.resynced.0 > 0 && seen.cause == Some(CheckCause::Doubt) {
            let resynced = Size(seen.resynced);
            self.remark(
                event,
                timeline,
                Role::Error,
                format_args!("{resynced} taken over from the kernel's map"),
            )?;
        } else {
            return Ok(());
        }
        for difference in seen.differences.iter().take(DIFFERENCES) {
            self.line.clear();
            self.line.gap(self.columns.time + GAP);
            let _ = write!(self.line, "{}  here ", difference.range);
            self.line
                .push_escaped(difference.model.as_bytes(), &self.style);
            self.line.push(", kernel ");
            self.line
                .push_escaped(difference.kernel.as_bytes(), &self.style);
            self.end()?;
        }
        if let more @ 1.. = seen.differences.len().saturating_sub(DIFFERENCES) {
            self.line.clear();
            self.line.gap(self.columns.time + GAP);
            let _ = write!(self.line, "and {more} more spans");
            self.end()?;
        }
        Ok(())
    }
}

/// Whether the kernel's own counts were read, as with `--resident`, rather than a file in /proc.
fn is_counted(resident: &Resident) -> bool {
    resident.shmem.is_some() && resident.high_water.is_none()
}

impl<W: Write> Sink for Pretty<W> {
    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        match &event.kind {
            EventKind::Call(call) => {
                if !shows(self.shown, &call.raw) {
                    return Ok(());
                }
                let info = call_info(call.raw.abi, call.raw.nr);
                self.begin(event, timeline);
                row::push_call(&mut self.line, call, info, &self.columns, &self.style);
                self.end()?;
                if let Some(failure) = &call.failure {
                    self.below(Role::Error, &failure_words(failure))?;
                }
                match call.stack {
                    Some(stack) => self.stack(stack, timeline),
                    None => Ok(()),
                }
            }
            EventKind::SpaceBegan { began, exe, now } => {
                self.space_began(event, timeline, *began, exe, now)
            }
            EventKind::TaskBegan { parent, origin } => {
                self.task_began(event, timeline, *parent, *origin)
            }
            EventKind::Exec { former } if *former != event.tid => self.remark(
                event,
                timeline,
                Role::Dim,
                format_args!("thread {former} called execve and is the process now"),
            ),
            EventKind::TaskEnded(end) => self.task_ended(event, timeline, *end),
            EventKind::Signal(seen) => self.signal(event, timeline, seen),
            EventKind::Checked(seen) => self.checked(event, timeline, seen),
            EventKind::Note(text) => {
                self.begin(event, timeline);
                self.line
                    .push("note: ")
                    .push_escaped(text.as_bytes(), &self.style);
                self.end()
            }
            // Of those that are measured now and then, the summary tells.
            EventKind::Sample(resident) if is_counted(resident) => {
                self.resident(event, timeline, resident)
            }
            EventKind::Lost(count) => self.remark(
                event,
                timeline,
                Role::Alarm,
                format_args!("{count} events were LOST"),
            ),
            EventKind::Exec { .. }
            | EventKind::CallEntered { .. }
            | EventKind::SpaceEnded { .. }
            | EventKind::Sample(_)
            | EventKind::Touched(_)
            | EventKind::HighWater(_)
            | EventKind::File(_) => Ok(()),
        }
    }

    fn idle(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self, _: &Timeline) -> io::Result<()> {
        self.out.flush()
    }
}

/// The command name to show for a task; that of its space once it is gone or before it came.
fn comm(tid: Tid, space: SpaceId, timeline: &Timeline) -> Option<&str> {
    let space = || timeline.spaces.get(&space);
    let task = timeline.tasks.get(&tid).map(|task| task.comm.as_ref());
    let comm = task.or_else(|| space().map(|space| space.comm.as_ref()));
    comm.filter(|comm| !comm.is_empty()).or_else(|| {
        // A space begins before its first task has a name; it will be the program's.
        let name = space()?.exe.rsplit('/').next()?;
        name.char_indices()
            .nth(15)
            .map_or(Some(name), |(end, _)| name.get(..end))
    })
}

fn digits(tid: Tid) -> usize {
    tid.0.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1
}

const _: () = assert!(
    SIZE_WIDTH >= 10,
    "the columns are laid out for sizes of ten columns"
);
