//! `memtrace -p`: to whatever stands where it stands, and away again without a trace of it.

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "one test traces its own child first"
)]

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use support::*;

/// Attaches, lets it work, stops memtrace by `signal`, and wants everything as before.
#[track_caller]
fn comes_and_goes(threads: usize, mode: &str, signal: i32) {
    let target = Target::start(threads, mode);
    let attached = Attached::to(&[target.pid()], &["--verify=every"]);
    target.advances();
    let Traced { ended, report } = attached.stop(signal);
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
    let space = &report.spaces()[0];
    assert_eq!(
        (&space["began"], &space["ended"]),
        (&"attach".into(), &"detach".into())
    );
    assert_eq!(space["pid"], target.pid());
    target.is_untouched();
    target.ends_well();
}

#[test]
fn a_running_process_runs_on_after_ctrl_c() {
    comes_and_goes(1, "work", libc::SIGINT);
}

#[test]
fn a_running_process_runs_on_after_sigterm() {
    comes_and_goes(1, "work", libc::SIGTERM);
}

#[test]
fn all_threads_are_attached_to_and_let_go() {
    comes_and_goes(6, "work", libc::SIGINT);
}

#[test]
fn threads_being_created_meanwhile_are_not_missed() {
    for _ in 0..3 {
        comes_and_goes(3, "churn", libc::SIGINT);
    }
}

/// nanosleep and epoll_wait with nothing to wait for: only their time-outs may end them. Those of the attaching
/// itself, a stop in epoll_wait, are the exception that the kernel does not let anybody hide without effort.
#[test]
fn a_sleeping_process_sleeps_on() {
    let target = Target::start(1, "sleep");
    let attached = Attached::to(&[target.pid()], &["--verify=every"]);
    let before = target.steps();
    until("the target sleeps on", || target.steps() > before + 10);
    let wrong = target.wrong();
    until("the target sleeps on", || target.steps() > before + 20);
    assert_eq!(
        target.wrong(),
        wrong,
        "a call was cut short while nothing happened"
    );
    let Traced { ended, report } = attached.stop(libc::SIGINT);
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
    assert_eq!(tracer_of(target.pid()), Some(0));
    let before = target.steps();
    until("the target sleeps on", || target.steps() > before + 5);
}

#[test]
fn a_process_that_is_left_sleeps_on() {
    let target = Target::start(1, "sleep");
    for _ in 0..5 {
        let attached = Attached::to(&[target.pid()], &[]);
        let before = target.steps();
        until("the target sleeps on", || target.steps() > before + 3);
        assert_eq!(attached.stop(libc::SIGINT).ended.status(), 0);
    }
    target.is_untouched();
    target.ends_well();
}

#[test]
fn a_hundred_visits_leave_no_mark() {
    let target = Target::start(3, "work");
    for round in 0..25 {
        let attached = Attached::to(&[target.pid()], &[]);
        let Traced { ended, report } = attached.stop(if round % 2 == 0 {
            libc::SIGINT
        } else {
            libc::SIGTERM
        });
        assert_eq!(ended.status(), 0, "{ended:?}");
        report.assert_exact();
    }
    target.is_untouched();
    target.ends_well();
}

#[test]
fn two_processes_are_attached_to_at_once() {
    let (one, two) = (Target::start(2, "work"), Target::start(1, "work"));
    let attached = Attached::to(&[one.pid(), two.pid()], &["--verify=every"]);
    one.advances();
    two.advances();
    let Traced { ended, report } = attached.stop(libc::SIGINT);
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
    for target in [one, two] {
        assert!(
            report
                .spaces()
                .iter()
                .any(|space| space["pid"] == target.pid())
        );
        target.is_untouched();
        target.ends_well();
    }
}

#[test]
fn a_stopped_process_stays_stopped() {
    let target = Target::start(3, "work");
    target.running.signal(libc::SIGSTOP);
    until("it is stopped", || state_of(target.pid()) == Some('T'));
    let attached = Attached::to(&[target.pid()], &[]);
    let before = target.steps();
    let Traced { ended, report } = attached.stop(libc::SIGINT);
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
    assert_eq!(tracer_of(target.pid()), Some(0));
    until("it is stopped still", || {
        state_of(target.pid()) == Some('T')
    });
    assert_eq!(target.steps(), before, "it ran while stopped");
    target.running.signal(libc::SIGCONT);
    target.is_untouched();
    target.ends_well();
}

#[test]
fn a_stopped_process_may_be_continued_while_attached() {
    let target = Target::start(2, "work");
    target.running.signal(libc::SIGSTOP);
    until("it is stopped", || state_of(target.pid()) == Some('T'));
    let attached = Attached::to(&[target.pid()], &["--verify=every"]);
    target.running.signal(libc::SIGCONT);
    target.advances();
    target.running.signal(libc::SIGSTOP);
    let mut before = target.steps();
    until("it stands", || {
        let now = target.steps();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let stands = now == target.steps() && now == before;
        before = now;
        stands
    });
    let Traced { ended, report } = attached.stop(libc::SIGINT);
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
    until("it is stopped", || state_of(target.pid()) == Some('T'));
    target.running.signal(libc::SIGCONT);
    target.is_untouched();
    target.ends_well();
}

#[test]
fn no_signal_is_lost_around_attaching_and_letting_go() {
    let target = Target::start(2, "work");
    let mut sent = 0;
    // One at a time: a second one would merge with a first that is pending.
    let mut send = || {
        target.running.signal(libc::SIGUSR1);
        sent += 1;
        until("the signal is handled", || target.signals() == sent);
    };
    for _ in 0..10 {
        let mut attached = Attached::begin(&[target.pid()], &[]);
        while tracer_of(target.pid()) == Some(0) && !attached.running.has_ended() {
            send();
        }
        (0..5).for_each(|_| send());
        attached.running.signal(libc::SIGINT);
        while !attached.running.has_ended() {
            send();
        }
        let ended = attached.end().ended;
        assert_eq!(ended.status(), 0, "{ended:?}");
    }
    target.is_untouched();
    target.ends_well();
}

#[test]
fn the_target_survives_the_death_of_memtrace() {
    let target = Target::start(4, "work");
    for _ in 0..10 {
        let attached = Attached::to(&[target.pid()], &[]);
        let before = target.steps();
        until("some steps were traced", || target.steps() > before);
        attached.running.signal(libc::SIGKILL);
        let ended = attached.running.end();
        assert_eq!(ended.status(), 128 + libc::SIGKILL);
        until("nobody traces it", || tracer_of(target.pid()) == Some(0));
    }
    target.is_untouched();
    target.ends_well();
}

#[test]
fn a_trace_cut_by_sigkill_is_readable() {
    let target = Target::start(1, "work");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("trace");
    let pid = target.pid().to_string();
    let memtrace = Running::start(
        memtrace::<&str>(&["-q", "-o", file.to_str().unwrap(), "-p", &pid], &[])
            .args(["--backend", "ptrace"])
            .stdin(Stdio::null()),
    );
    until("memtrace is attached", || {
        tracer_of(target.pid()) == Some(memtrace.pid())
    });
    target.advances();
    until("something is on disk", || {
        fs::metadata(&file).is_ok_and(|data| data.len() > 0)
    });
    memtrace.signal(libc::SIGKILL);
    let ended = memtrace.end();
    let report = Report::read(&file, &ended);
    assert_eq!(report.0["schema"], "memtrace.report/1");
    until("nobody traces it", || tracer_of(target.pid()) == Some(0));
    target.ends_well();
}

#[test]
fn the_end_of_the_target_is_the_end_of_the_trace() {
    let target = Target::start(3, "work");
    let attached = Attached::to(&[target.pid()], &["--verify=every"]);
    target.advances();
    target.ends_well();
    let Traced { ended, report } = attached.end();
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
    assert_eq!(report.spaces()[0]["ended"], "exit");
}

#[test]
fn duration_lets_the_target_go() {
    let target = Target::start(3, "work");
    let attached = Attached::begin(&[target.pid()], &["--duration", "300ms"]);
    let Traced { ended, report } = attached.end();
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
    target.is_untouched();
    target.ends_well();
}

/// The call was begun before memtrace came: its end is reported to nobody.
#[test]
fn a_process_inside_a_memory_call_is_attached_to() {
    let Some(mut holder) = held_in_a_call() else {
        return;
    };
    let attached = Attached::to(&[holder.pid()], &["--verify=every"]);
    holder.signal(libc::SIGUSR1);
    until("the call came to its end", || holder.has_ended());
    let ended = holder.end();
    assert_eq!(ended.status(), 0, "{ended:?}");
    let Traced { ended, report } = attached.end();
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
}

/// The kernel does not stop a thread that waits in there, whoever asks: letting it go must not wait for that.
#[test]
fn a_process_inside_a_memory_call_is_let_go() {
    let Some(holder) = held_in_a_call() else {
        return;
    };
    let attached = Attached::to(&[holder.pid()], &[]);
    let ended = attached.stop(libc::SIGINT).ended;
    assert_eq!(ended.status(), 0, "{ended:?}");
    assert_eq!(tracer_of(holder.pid()), Some(0));
    holder.signal(libc::SIGUSR1);
    let ended = holder.end();
    assert_eq!(ended.status(), 0, "{ended:?}");
}

fn held_in_a_call() -> Option<Running> {
    let mut holder = Running::start(
        Command::new(tracee("uffd"))
            .arg("hold")
            .stdin(Stdio::null()),
    );
    until("it holds", || {
        holder.has_ended() || holder.stdout().contains("holding")
    });
    if holder.has_ended() {
        skipped(holder.end().stdout.trim());
        return None;
    }
    Some(holder)
}

#[test]
fn memtrace_attach_pid_is_the_same_as_p() {
    let target = Target::start(1, "work");
    let pid = target.pid().to_string();
    let memtrace = Running::start(
        Command::new(MEMTRACE)
            .args(["attach", "-q", "--backend", "ptrace", &pid])
            .stdin(Stdio::null()),
    );
    until("memtrace is attached", || {
        tracer_of(target.pid()) == Some(memtrace.pid())
    });
    memtrace.signal(libc::SIGINT);
    let ended = memtrace.end();
    assert_eq!(ended.status(), 0, "{ended:?}");
    target.is_untouched();
}

// ── refusals ────────────────────────────────────────────────────────────────────────────────────────────

#[track_caller]
fn refused(pid: &str) -> String {
    let options = ["-q", "--backend", "ptrace", "-p", pid];
    let ended = run(&mut memtrace::<&str>(&options, &[]));
    assert_eq!(ended.status(), 125, "{ended:?}");
    ended.one_line().to_owned()
}

#[test]
fn a_number_that_no_process_has_is_refused() {
    let mut gone = Command::new("/bin/true").spawn().expect("true");
    let pid = gone.id().to_string();
    gone.wait().expect("true ends");
    let line = refused(&pid);
    assert!(line.contains(&pid), "{line}");
}

#[test]
fn what_is_no_number_is_a_usage_error() {
    for pid in ["abc", "0", "-5", "1.5", "99999999999", "1,,2", ""] {
        let ended = run(&mut memtrace::<&str>(&["-p", pid], &[]));
        assert_eq!(ended.status(), 125, "-p {pid:?}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "-p {pid:?}: {ended:?}");
    }
}

#[test]
fn a_process_that_is_traced_already_is_refused_by_the_name_of_its_tracer() {
    let target = Target::start(1, "work");
    let first = Attached::to(&[target.pid()], &[]);
    let ended = run(&mut memtrace::<&str>(
        &["-q", "--backend", "ptrace", "-p", &target.pid().to_string()],
        &[],
    ));
    assert_eq!(ended.status(), 125, "{ended:?}");
    let line = ended.one_line();
    assert!(
        line.contains(&first.running.pid().to_string()),
        "who traces it is not named: {line}"
    );
    assert!(
        line.contains("memtrace"),
        "the tracer's name is not told: {line}"
    );
    assert_eq!(first.stop(libc::SIGINT).ended.status(), 0);
    target.is_untouched();
}

#[test]
fn memtrace_refuses_to_trace_itself() {
    let ended = run(Command::new("/bin/sh").args(["-c", "exec \"$0\" -p $$", MEMTRACE]));
    assert_eq!(ended.status(), 125, "{ended:?}");
    assert!(ended.one_line().contains("itself"), "{ended:?}");
}

#[test]
fn a_thread_of_the_kernel_is_refused() {
    if status_line(2, "Name").as_deref() != Some("kthreadd") {
        return skipped("no kernel thread is visible here");
    }
    if !is_root() {
        return skipped("only root gets as far as that");
    }
    let line = refused("2");
    assert!(line.contains("kernel"), "{line}");
}

#[test]
fn a_zombie_is_refused() {
    let mut zombie = Command::new("/bin/true").spawn().expect("true");
    let pid = zombie.id() as i32;
    until("it is a zombie", || state_of(pid) == Some('Z'));
    let line = refused(&pid.to_string());
    assert!(line.contains(&pid.to_string()), "{line}");
    zombie.wait().expect("true ended");
}

#[test]
fn one_refusal_among_several_harms_none_of_them() {
    let target = Target::start(1, "work");
    let mut gone = Command::new("/bin/true").spawn().expect("true");
    let list = format!("{},{}", target.pid(), gone.id());
    gone.wait().expect("true ends");
    let mut memtrace = Running::start(
        memtrace::<&str>(&["-qq", "--backend", "ptrace", "-p", &list], &[]).stdin(Stdio::null()),
    );
    until("it attached or refused", || {
        memtrace.has_ended() || tracer_of(target.pid()) == Some(memtrace.pid())
    });
    memtrace.signal(libc::SIGINT);
    let ended = memtrace.end();
    assert!([0, 125].contains(&ended.status()), "{ended:?}");
    target.is_untouched();
    target.ends_well();
}

#[test]
fn a_process_of_another_user_is_refused() {
    if !is_root() {
        return skipped("only root can be two users");
    }
    let target = Target::start(1, "work");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let memtrace = for_everybody(folder.path());
    let ended = run(Command::new(memtrace)
        .args(["-q", "-p", &target.pid().to_string()])
        .current_dir("/")
        .uid(65534)
        .gid(65534));
    assert_eq!(ended.status(), 125, "{ended:?}");
    let line = ended.one_line();
    assert!(
        line.contains("user") || line.contains("permitted") || line.contains("permission"),
        "{line}"
    );
    target.is_untouched();
}

#[test]
fn a_process_that_its_parent_traces_is_refused_without_harm() {
    // A child of this test, traced by this test's own thread.
    let mut child = Command::new("/bin/sleep")
        .arg("100")
        .spawn()
        .expect("sleep");
    let pid = child.id() as i32;
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
    if seized != 0 {
        child.kill().expect("our child");
        child.wait().expect("our child");
        return skipped("no process can be traced here");
    }
    let line = refused(&pid.to_string());
    // The kernel names the thread; its process is as good a name.
    let names = [unsafe { libc::gettid() }, std::process::id() as i32];
    assert!(
        names.iter().any(|name| line.contains(&name.to_string())),
        "who traces it is not named: {line}"
    );
    assert!(is_alive(pid));
    child.kill().expect("our child");
    child.wait().expect("our child");
}
