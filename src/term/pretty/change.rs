//! What a call did, in words: `+64.0 MiB reserved`, `4.0 MiB reserved → committed`.

use std::fmt::Write;

use crate::decode::Call;
use crate::mm::Verb;
use crate::term::{Line, Role, Size, Style};
use crate::timeline::CallEvent;
use crate::units::Bytes;

/// Appends what `event` did; nothing if it changed nothing. `long` says both ends of a change of
/// state, not only where it led.
pub(in crate::term) fn push_change(line: &mut Line, event: &CallEvent, long: bool, style: &Style) {
    let mut flow = event.flow;
    let mut parts = Parts {
        line,
        style,
        first: true,
    };
    if matches!(event.call, Call::Mmap(_)) && flow.release > Bytes(0) {
        // The same state as before, new contents: both halves would cancel out in the reader's head.
        let replaced = flow.release.min(flow.map + flow.reserve);
        let mapped = replaced.min(flow.map);
        flow.release -= replaced;
        flow.map -= mapped;
        flow.reserve -= replaced - mapped;
        parts.say("", replaced, " replaced", Role::Plain);
    }
    parts.say("+", flow.reserve, " reserved", Role::Reserved);
    parts.say("+", flow.map, " committed", Role::Committed);
    let from = |state| if long { state } else { "" };
    parts.becomes(
        flow.commit,
        from(" reserved"),
        " committed",
        Role::Committed,
    );
    parts.becomes(
        flow.decommit,
        from(" committed"),
        " reserved",
        Role::Reserved,
    );
    parts.say(style.minus(), flow.release, " released", Role::Released);
    parts.say("", flow.discard, " discarded", Role::Released);
    let moved = event.spans.iter().filter(|span| span.verb == Verb::MovedTo);
    let moved = moved.map(|span| Bytes(span.range.len())).sum();
    parts.say("", moved, " moved", Role::Plain);
}

struct Parts<'a> {
    line: &'a mut Line,
    style: &'a Style,
    first: bool,
}

impl Parts<'_> {
    fn begin(&mut self, role: Role) {
        if !self.first {
            self.line.role(Role::Plain).push(", ");
        }
        self.first = false;
        self.line.role(role);
    }

    fn say(&mut self, sign: &str, bytes: Bytes, what: &str, role: Role) {
        if bytes > Bytes(0) {
            self.begin(role);
            self.line.push(sign);
            let _ = write!(self.line, "{}", Size(bytes));
            self.line.push(what);
        }
    }

    fn becomes(&mut self, bytes: Bytes, from: &str, to: &str, role: Role) {
        if bytes > Bytes(0) {
            self.begin(role);
            let _ = write!(self.line, "{}", Size(bytes));
            self.line
                .push(from)
                .push(" ")
                .push(self.style.arrow())
                .push(to);
        }
    }
}
