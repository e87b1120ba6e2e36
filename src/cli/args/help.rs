//! What `--help` says beyond the options.

use std::fmt::Write;

use crate::abi::{CALLS, CallInfo};

pub(super) const USAGE: &str = "\
memtrace [OPTIONS] [--] PROGRAM [ARGS]...   launch (also: memtrace run)
       memtrace [OPTIONS] -p PID[,PID...]          attach (also: memtrace attach PID)
       memtrace report [OPTIONS] TRACE...          what recorded traces tell
       memtrace diff BEFORE AFTER                  what changed between two traces
       memtrace explain -p PID | TRACE | -- PROGRAM  whether the size of a process matters
       memtrace check --max FIGURE=AMOUNT TRACE    whether a trace keeps to its budgets
       memtrace export --to FORMAT TRACE           a recorded trace in another format";

pub(super) const TEMPLATE: &str = "{before-help}Usage: {usage}\n\nOptions:\n{options}{after-help}";

pub(super) const EXAMPLES: &str = "\
memtrace: who reserved address space, who committed it, what is resident

  memtrace ./server --port 8080       trace a program from its start to its end
  memtrace -q make -j8                no live timeline, only the sums at the end
  memtrace -p 4711 --duration 10s     watch a running process for ten seconds
  memtrace -o run.mtr ./server        record, and later: memtrace report run.mtr
  memtrace -e mmap,munmap ./server    show only these calls (the sums see them all)
  memtrace --format strace ls -l      lines as `strace -f -y` prints them
";

pub(super) const REPORT_EXAMPLES: &str = "\
memtrace report: what a trace tells that memtrace -o recorded

  memtrace report run.mtr                    the summary, as when the trace ended
  memtrace report a.mtr b.mtr                of several traces: a table, then each
  memtrace report --at peak run.mtr          the mappings at the peak of mapped, with
                                             who made each and when
  memtrace report --at 1.5s --prot --- --min-size 1MiB run.mtr
                                             the large reservations 1.5 s after the begin
  memtrace report --at end --since 10s run.mtr
                                             what was mapped after 10 s and is still there
  memtrace report --around 7f3107000000 run.mtr
                                             everything that touched this page
  memtrace report --by thread run.mtr        who mapped how much, and what is left of it
  memtrace report --by reservation run.mtr   what was reserved, by whom, and who committed
                                             how much of it
  memtrace report --timeline run.mtr         the figures over time
  memtrace report --format strace run.mtr    the events as `strace -f -y` prints them
  memtrace report -e mmap --min-size 64MiB run.mtr
                                             only these events (the sums see them all)

of a trace with stacks (memtrace -k -o run.mtr ./server):

  memtrace report --by owner run.mtr         which function reserved and committed what
  memtrace report --by stack run.mtr         the same for each stack
  memtrace report --tree run.mtr             the call tree with what is left at the end
  memtrace report --tree=up --weight reserved run.mtr
                                             who is behind what is reserved, from the
                                             innermost function outwards
";

pub(super) const REPORT_NOTES: &str = "
Without a question (--at, --around, --by, --tree, --timeline, --format) it is the
summary; if only events are chosen (--since ... --space), it is --format pretty.

--json prints one object; of several traces {\"schema\":\"memtrace.reports/1\",
\"reports\":[...]} with such an object for each, its file as \"trace\" in it.
The rows of a table add up to the sums of the summary. `--format strace` prints
to a terminal as strace does, and to a file or pipe with the pid in every line,
as with `--log`.
An owner is the first function of a stack, from the innermost outwards, that is not
a bare wrapper of the system call (mmap, sbrk, runtime.sysReserve). What is left at
the end belongs to the call that took the addresses, what is committed of it to the
call that committed it; (began: exec), (began: fork) and (grown by page faults) stand
for what no call did. Of --by reservation the filters choose the reservations, whose
lives are told whole.
Lines of `--format jsonl` are a trace that can be read again, unless more than -e
chooses them.

Exit status: 0; 2 bad usage, unreadable trace, or no stacks where they are needed
";

const WORDS: &str = "\
Words:
  mapped      all of an address space; what ps and top call VSZ or VIRT
  reserved    the part nothing may touch: addresses only, no memory behind them
  committed   the part that may be touched: mapped - reserved
  charged     what the kernel counts against its commit limit
  resident    physical memory behind it, measured (RSS)
";

const STATUS: &str = "
Exit status: the program's own, 128+N if signal N ended it; 0 once attached;
  125 memtrace failed, 126 not executable, 127 not found; 2 unreadable trace
";

/// What follows the options: the words, the calls, the exit status.
pub(super) fn after_options() -> String {
    let mut text = WORDS.to_owned();
    text.push_str("\nCalls seen by default:\n");
    wrap(&names(|call| call.default), &mut text);
    text.push_str(
        "Calls that stop the program only where -e names them (the layout stays the same):\n",
    );
    wrap(&names(|call| !call.default), &mut text);
    text.push_str(STATUS);
    text
}

/// The names of the calls that `wanted` holds for, each once, in alphabetical order.
fn names(wanted: impl Fn(&CallInfo) -> bool) -> Vec<&'static str> {
    let mut names: Vec<_> = CALLS
        .iter()
        .filter(|call| wanted(call))
        .map(|call| call.name)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn wrap(words: &[&str], text: &mut String) {
    let mut width = 0;
    for word in words {
        if width == 0 || width + 1 + word.len() > 78 {
            let line = if width == 0 { "  " } else { "\n  " };
            text.push_str(line);
            width = 2;
        } else {
            text.push(' ');
            width += 1;
        }
        let _ = write!(text, "{word}");
        width += word.len();
    }
    text.push('\n');
}
