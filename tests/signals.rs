//! Signals, job control and terminals: the program gets what it would get, when it would get it.

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "signals need libc"
)]

mod support;

use std::ffi::{OsStr, OsString};
use std::process::{Command, Stdio};
use support::*;

fn signals(case: &str) -> [OsString; 2] {
    [tracee("signals").into_os_string(), case.into()]
}

/// Cases of their own tests.
const NOT_HERE: &[&str] = &["catch", "ignore", "tick"];

#[test]
fn every_signal_is_delivered_as_untraced() {
    each_case_same_as_untraced(&["--verify=every"], "signals", NOT_HERE);
}

#[test]
fn signals_are_delivered_as_untraced_without_checks_too() {
    each_case_same_as_untraced(&[], "signals", NOT_HERE);
}

#[test]
fn signals_from_outside_reach_the_program_itself() {
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGQUIT,
    ] {
        let mut memtrace =
            Running::start(memtrace(&["-qq"], &signals("catch")).stdin(Stdio::null()));
        until("it is ready", || {
            memtrace.has_ended() || memtrace.stdout().contains("ready")
        });
        let program = child_of(memtrace.pid());
        unsafe { libc::kill(program, signal) };
        let ended = memtrace.end();
        assert_eq!(
            (ended.status(), ended.stdout.lines().last()),
            (7, Some(format!("caught {signal}").as_str())),
            "{ended:?}"
        );
    }
}

/// The only child of `pid`.
#[track_caller]
fn child_of(pid: i32) -> i32 {
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let found: Vec<i32> = children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect();
    if let [child] = found[..] {
        return child;
    }
    // Forked by another thread of memtrace, or the kernel does not tell: look for the parent instead.
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent = pid.to_string();
    numbers
        .find(|number| status_line(*number, "PPid").as_deref() == Some(&parent))
        .expect("memtrace has a child")
}

/// The terminal sends it to the whole group; the program catches it, memtrace waits.
#[test]
fn ctrl_c_to_the_group_is_the_programs_to_answer() {
    let mut memtrace = Running::start(memtrace(&["-qq"], &signals("catch")).stdin(Stdio::null()));
    until("it is ready", || {
        memtrace.has_ended() || memtrace.stdout().contains("ready")
    });
    memtrace.signal_group(libc::SIGINT);
    let ended = memtrace.end();
    assert_eq!(
        (ended.status(), ended.stdout.as_str()),
        (7, "catch\nready\ncaught 2\n"),
        "{ended:?}"
    );
}

#[test]
fn ctrl_c_that_the_program_ignores_is_ignored() {
    let mut memtrace = Running::start(memtrace(&["-qq"], &signals("ignore")).stdin(Stdio::null()));
    until("it is ready", || {
        memtrace.has_ended() || memtrace.stdout().contains("ready")
    });
    memtrace.signal_group(libc::SIGINT);
    assert_eq!(memtrace.end().status(), 0);
}

#[test]
fn ctrl_c_at_a_terminal_ends_as_untraced() {
    for (case, status) in [("catch", 7), ("tick", 128 + libc::SIGINT)] {
        let terminal = Terminal::start(&mut memtrace(&["-qq"], &signals(case)));
        terminal.expect(if case == "catch" { "ready" } else { "tick 3" });
        terminal.send(b"\x03");
        let (ended, rest) = terminal.end();
        assert_eq!(ended, status, "{case}: {rest}");
        assert_eq!(rest.contains("caught 2"), case == "catch", "{case}: {rest}");
    }
}

#[test]
fn a_summary_follows_ctrl_c() {
    let terminal = Terminal::start(&mut memtrace(&["-q"], &signals("catch")));
    terminal.expect("ready");
    terminal.send(b"\x03");
    terminal.expect("caught 2");
    terminal.expect("mapped");
    terminal.expect("reserved");
    terminal.expect("committed");
    assert_eq!(terminal.end().0, 7);
}

#[test]
fn ctrl_backslash_is_the_programs_too() {
    let terminal = Terminal::start(&mut memtrace(&["-qq"], &signals("catch")));
    terminal.expect("ready");
    terminal.send(b"\x1c");
    terminal.expect("caught 3");
    assert_eq!(terminal.end().0, 7);
}

/// A shell with job control on a terminal of its own.
fn shell() -> Option<Terminal> {
    let bash = installed("bash")?;
    let mut command = Command::new(bash);
    command
        .args(["--norc", "--noprofile", "--noediting", "-i"])
        .env("PS1", "PROMPT> ")
        .env("TERM", "dumb")
        .env_remove("PROMPT_COMMAND");
    let terminal = Terminal::start(&mut command);
    terminal.expect("PROMPT> ");
    Some(terminal)
}

fn line(words: &[&OsStr]) -> Vec<u8> {
    let mut line = words.join(OsStr::new(" ")).into_encoded_bytes();
    line.push(b'\n');
    line
}

#[test]
fn ctrl_z_gives_the_prompt_back_and_fg_goes_on() {
    let Some(shell) = shell() else { return };
    let program = tracee("signals");
    shell.send(&line(&[
        MEMTRACE.as_ref(),
        "-qq".as_ref(),
        "--".as_ref(),
        program.as_os_str(),
        "tick".as_ref(),
    ]));
    shell.expect("tick 3\r\n");
    for _ in 0..3 {
        shell.send(b"\x1a");
        shell.expect("Stopped");
        shell.expect("PROMPT> ");
        // Everybody of the job stands: no tick comes between the prompt and this answer.
        shell.send(b"sleep 0.3; echo nothing''happened\n");
        let between = shell.expect("nothinghappened");
        assert!(!between.contains("tick"), "it ran while stopped: {between}");
        shell.expect("PROMPT> ");
        shell.send(b"fg\n");
        shell.expect("tick");
        shell.expect("tick");
    }
    shell.send(b"\x03");
    shell.expect("PROMPT> ");
    shell.send(b"echo status $?\n");
    shell.expect("status 130");
    shell.send(b"exit\n");
    shell.end();
}

#[test]
fn a_job_in_the_background_reads_and_is_stopped_as_ever() {
    let Some(shell) = shell() else { return };
    shell.send(&line(&[
        MEMTRACE.as_ref(),
        "-qq".as_ref(),
        "--".as_ref(),
        "/bin/cat".as_ref(),
        "&".as_ref(),
    ]));
    shell.expect("PROMPT> ");
    // cat reads from the terminal: SIGTTIN stops the job; fg lets it read.
    shell.send(b"while ! jobs | grep -q Stopped; do sleep 0.1; done; echo it''stands\n");
    shell.expect("itstands");
    shell.expect("PROMPT> ");
    shell.send(b"fg\n");
    shell.expect("cat");
    shell.send(b"echoed''text\n");
    shell.expect("echoed''text\r\nechoed''text");
    shell.send(b"\x04");
    shell.expect("PROMPT> ");
    shell.send(b"echo status $?\n");
    shell.expect("status 0");
    shell.send(b"exit\n");
    shell.end();
}

#[test]
fn a_stopped_program_ends_by_sigkill() {
    let mut memtrace = Running::start(memtrace(&["-qq"], &signals("tick")).stdin(Stdio::null()));
    until("it ticks", || {
        memtrace.has_ended() || memtrace.stdout().contains("tick 3")
    });
    let program = child_of(memtrace.pid());
    unsafe { libc::kill(program, libc::SIGSTOP) };
    until("it stands", || matches!(state_of(program), Some('T' | 't')));
    unsafe { libc::kill(program, libc::SIGKILL) };
    assert_eq!(memtrace.end().status(), 128 + libc::SIGKILL);
}

#[test]
fn a_program_stopped_from_outside_stands_until_it_is_continued() {
    let mut memtrace = Running::start(memtrace(&["-qq"], &signals("tick")).stdin(Stdio::null()));
    until("it ticks", || {
        memtrace.has_ended() || memtrace.stdout().contains("tick 3")
    });
    let program = child_of(memtrace.pid());
    for _ in 0..5 {
        unsafe { libc::kill(program, libc::SIGSTOP) };
        until("it stands", || matches!(state_of(program), Some('T' | 't')));
        let before = memtrace.stdout().len();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(memtrace.stdout().len(), before, "it ran while stopped");
        unsafe { libc::kill(program, libc::SIGCONT) };
        until("it ticks on", || memtrace.stdout().len() > before + 20);
    }
    memtrace.signal(libc::SIGTERM);
    assert_eq!(memtrace.end().status(), 128 + libc::SIGTERM);
}
