//! `--format jsonl`: one JSON object a line, `memtrace.events/1`.
//!
//! First a `header`, then events, then an `end`, last a `summary` with the report. A reader skips
//! types that it does not know. Every line is written whole, so whatever stops memtrace, lines stay
//! readable. What the events were made of is there too, as `raw`, also of calls that `-e` does not show, so that memtrace can read the lines as it reads a trace file
//! ([`crate::trace_file::jsonl`]).
//!
//! | type | what |
//! |---|---|
//! | `header` | what is true of the whole trace |
//! | `space`, `space_end` | an address space came into sight, or is gone |
//! | `launch`, `attach`, `thread`, `fork` | a task came into sight |
//! | `call` | a call finished, or (`cut`) did not; `time` is its end, `time − duration` its begin |
//! | `unshown` | a call that was not asked for, and of which nothing is told but its `raw` |
//! | `enter` | a call reached the kernel; only where unfinished calls are shown |
//! | `exec`, `exit`, `signal` | what happened to a task |
//! | `sample` | physical memory was measured |
//! | `touch` | a page fault (`--touch`), or one that stands for as many as `stands_for` says; it repeats the number of the event before |
//! | `check`, `resync` | the model was compared with the kernel's map; `resync` if they differed |
//! | `note`, `lost` | a remark; observations that were lost |
//! | `file` | what a mapped file of code says of itself; it repeats the number of the event before |
//! | `observed` | something was seen that makes no event of its own: a call cut short; a stack (`what` is `stack`), before the first call that has it, with its `frames`, innermost first |
//! | `end` | nothing is missing before it; what the trace lacked that the lines were made from |
//! | `summary` | the report, as `memtrace report --json` prints it |
//!
//! With `-k` a call has `stack`, the number of its stack, and `owner`, the innermost function of it
//! that is no bare wrapper of the call. What the stack is, is said once, before: `frames` are objects with
//! `function` (null if no name is known), `offset` in it, `module`, `module_offset` (in its file),
//! `address` of code in no file, `file`, `line`, and `inlined` for a function that has no frame of its
//! own; `end` is `root`, or why there are no more frames: `cut`, `lost`, `deep`. So
//!
//! ```text
//! jq -c 'select(.type == "call" and .owner == "sysmalloc")'
//! jq -n 'reduce inputs as $line ({}; if $line.frames then .[$line.stack | tostring] = $line.frames else . end)'
//! ```
//!
//! finds the calls of one function, and makes a table of all stacks. A call that was refused has
//! `failure`: its `causes`, whether they are `proven`, and the `figures` they follow from.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::abi::CallSet;
use crate::decode::{RawCall, shows};
use crate::report::{Report, Summary, json as report_json};
use crate::timeline::{Event, EventKind, Observation, Observed, Sink, Timeline, TraceInfo};
use crate::trace_file::jsonl::{self, WireDamage};
use crate::units::Timestamp;

mod line;
mod stack;
#[cfg(test)]
mod tests;

pub use line::line;
pub use stack::StackLines;

/// Bytes that are kept back while events come fast.
const BUFFER: usize = 32 << 10;

/// A sink that writes lines of JSON, and the report as the last of them.
pub struct JsonLines<W: Write> {
    out: W,
    buffer: String,
    /// Makes the report, if nobody else does.
    summary: Option<Summary>,
    observations: u64,
    /// Number of the last event.
    seq: u64,
    /// What was observed last, as long as no line has it.
    pending: Option<Pending>,
    /// The calls that are told of; `None` for all.
    shown: Option<CallSet>,
    stacks: Option<StackLines>,
}

/// An observation that no line has yet.
struct Pending {
    what: &'static str,
    time: Timestamp,
    raw: String,
    /// What its own line says besides.
    more: Option<Map<String, Value>>,
    /// Calls cut short may be told before the event of this observation itself.
    after_calls: bool,
}

impl<W: Write> JsonLines<W> {
    /// Writes to `out`, which needs no buffer of its own, beginning with the header.
    pub fn new(out: W, info: &TraceInfo) -> JsonLines<W> {
        JsonLines {
            summary: Some(Summary::new(info.clone())),
            ..JsonLines::without_report(out, info)
        }
    }

    /// The same for a trace that is read again: `finish` adds nothing, because what reading it has
    /// shown comes after; [`JsonLines::end`] does.
    pub fn without_report(out: W, info: &TraceInfo) -> JsonLines<W> {
        let mut lines = JsonLines {
            out,
            buffer: String::new(),
            summary: None,
            observations: 0,
            seq: 0,
            pending: None,
            shown: None,
            stacks: None,
        };
        lines.line(&header(info));
        lines
    }

    /// Tells of these calls only. The lines are still a whole trace.
    pub fn showing(self, shown: CallSet) -> JsonLines<W> {
        JsonLines {
            shown: Some(shown),
            ..self
        }
    }

    /// Names the frames of stacks.
    pub fn with_stacks(self, stacks: StackLines) -> JsonLines<W> {
        JsonLines {
            stacks: Some(stacks),
            ..self
        }
    }

    fn shows(&self, call: &RawCall) -> bool {
        self.shown.is_none_or(|shown| shows(shown, call))
    }

    /// Writes the last lines about a trace that was read again: `notes` are those of its source.
    pub fn end(&mut self, report: &Report, notes: &[String]) -> io::Result<()> {
        self.line_of_pending();
        let mut end = self.end_line();
        if let Value::Object(end) = &mut end {
            if !notes.is_empty() {
                end.insert("notes".to_owned(), notes.into());
            }
            if let Some(damage) = &report.damage {
                end.insert("damage".to_owned(), json!(WireDamage::from(damage)));
            }
        }
        self.line(&end);
        self.line(&summary_line(report));
        self.idle()
    }

    fn end_line(&self) -> Value {
        json!({"type": "end", "observations": self.observations})
    }

    fn line(&mut self, value: &Value) {
        self.buffer.push_str(&report_json::text(value));
        self.buffer.push('\n');
    }

    /// A line with an observation besides.
    fn line_with(&mut self, value: &Value, raw: &str) {
        self.line(value);
        // Both are objects, and `line` ends in `}` and a line feed.
        self.buffer.truncate(self.buffer.len().saturating_sub(2));
        self.buffer.push_str(",\"raw\":");
        self.buffer.push_str(raw);
        self.buffer.push_str("}\n");
    }

    /// A line of its own for an observation that has made no event.
    fn line_of_pending(&mut self) {
        if let Some(Pending {
            what,
            time,
            raw,
            more,
            ..
        }) = self.pending.take()
        {
            let mut line =
                json!({"type": "observed", "what": what, "seq": self.seq, "time": time.0});
            if let (Value::Object(line), Some(more)) = (&mut line, more) {
                line.extend(more);
            }
            self.line_with(&line, &raw);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let written = self.out.write_all(self.buffer.as_bytes());
        // Kept after an error it would grow, or come twice.
        self.buffer.clear();
        written
    }
}

impl<W: Write> Sink for JsonLines<W> {
    fn observation(&mut self, observation: &Observation) -> io::Result<()> {
        self.line_of_pending();
        self.observations += 1;
        let more = match &mut self.stacks {
            Some(stacks) => stacks.observed(observation),
            None => None,
        };
        self.pending = Some(Pending {
            what: jsonl::what(observation),
            time: observation.time,
            raw: report_json::safe(jsonl::raw(observation)?),
            more,
            after_calls: matches!(
                observation.what,
                Observed::Checkpoint { .. } | Observed::SpaceEnded { .. }
            ),
        });
        Ok(())
    }

    fn event(&mut self, event: &Event, timeline: &Timeline) -> io::Result<()> {
        if let Some(summary) = &mut self.summary {
            summary.event(event, timeline)?;
        }
        let line = match &event.kind {
            // What was observed gets a line of its own.
            EventKind::CallEntered { raw, .. } if !self.shows(raw) => return Ok(()),
            EventKind::Call(call) if !self.shows(&call.raw) => unshown(event),
            _ => {
                let mut line = line(event, timeline);
                put_owner(&mut line, event, timeline, self.stacks.as_mut());
                line
            }
        };
        self.seq = event.seq;
        let is_call = matches!(event.kind, EventKind::Call(_));
        match self
            .pending
            .take_if(|pending| !(is_call && pending.after_calls))
        {
            Some(pending) => self.line_with(&line, &pending.raw),
            None => self.line(&line),
        }
        match BUFFER <= self.buffer.len() {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn idle(&mut self) -> io::Result<()> {
        self.line_of_pending();
        self.write()?;
        self.out.flush()
    }

    fn finish(&mut self, _: &Timeline) -> io::Result<()> {
        if let Some(summary) = self.summary.take() {
            self.line_of_pending();
            self.line(&self.end_line());
            self.line(&summary_line(&summary.into_report()));
        }
        self.idle()
    }
}

/// Says who is behind a call, where stacks are named.
pub fn put_owner(
    line: &mut Value,
    event: &Event,
    timeline: &Timeline,
    stacks: Option<&mut StackLines>,
) {
    let owner = stacks.and_then(|stacks| stacks.owner(event, &timeline.stacks));
    if let (Value::Object(line), Some(owner)) = (line, owner) {
        line.insert("owner".to_owned(), owner);
    }
}

/// A call that is not told of, so that its number is not missed.
fn unshown(event: &Event) -> Value {
    json!({"type": jsonl::UNSHOWN, "seq": event.seq, "time": event.time.0})
}

fn header(info: &TraceInfo) -> Value {
    json!({
        "type": "header",
        "schema": format!("{}{}", jsonl::SCHEMA, jsonl::VERSION),
        "version": info.version,
        "command": info.command,
        "attached": info.attached,
        "backend": info.backend,
        "stops": info.stops,
        "started": info.started,
        "host": report_json::host(info),
        "environment": report_json::environment(info),
        "raw": jsonl::RAW,
        "info": jsonl::info(info),
    })
}

/// The last line.
pub fn summary_line(report: &Report) -> Value {
    json!({"type": "summary", "report": report_json::report(report)})
}
