//! `memtrace -- PROGRAM`: the program runs as it would without us, and its status is ours.

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "some tests prepare the process that memtrace inherits"
)]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use support::*;

const SH: &str = "/bin/sh";

/// `sh -c SCRIPT` untraced and traced: status and output must be the same.
#[track_caller]
fn same_in_the_shell(script: &str, prepare: impl Fn(&mut Command)) -> Traced {
    let mut untraced = Command::new(SH);
    untraced.args(["-c", script]);
    prepare(&mut untraced);
    let untraced = run(&mut untraced);
    let traced = traced_with(&["--verify=every"], &[SH, "-c", script], prepare);
    assert_eq!(
        traced.ended.stdout, untraced.stdout,
        "stdout differs; memtrace said {}",
        traced.ended.stderr
    );
    assert_eq!(
        traced.ended.status(),
        untraced.status(),
        "{:?}",
        traced.ended
    );
    traced.report.assert_exact();
    traced
}

// ── status ──────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_exit_status_is_the_programs() {
    let exits = tracee("exits");
    for code in [
        "0", "1", "2", "7", "77", "124", "125", "126", "127", "128", "200", "255",
    ] {
        let ended = run(&mut memtrace(
            &["-qq"],
            &[exits.as_os_str(), OsStr::new("code"), OsStr::new(code)],
        ));
        assert_eq!(ended.status().to_string(), code, "{ended:?}");
    }
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    let exits = tracee("exits");
    for signal in [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 13, 14, 15, 24, 31, 34, 64] {
        let number = signal.to_string();
        let ended = run(&mut memtrace(
            &["-qq"],
            &[exits.as_os_str(), OsStr::new("signal"), OsStr::new(&number)],
        ));
        assert_eq!(ended.status(), 128 + signal, "{ended:?}");
    }
}

#[test]
fn a_program_that_is_not_there_is_127() {
    for name in [
        "/nonexistent/program",
        "no-such-program-anywhere",
        "./no-such-file",
        "",
    ] {
        let ended = run(&mut memtrace(&["-q"], &[name]));
        assert_eq!(ended.status(), 127, "{name:?}: {ended:?}");
        assert!(ended.one_line().contains(name), "{ended:?}");
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_126() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (plain, garbage) = (folder.path().join("plain"), folder.path().join("garbage"));
    fs::write(&plain, "#!/bin/sh\n").expect("a file");
    fs::write(&garbage, "\x7fELFgarbage").expect("a file");
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o755)).expect("its mode");
    for path in [&plain, &garbage, folder.path()] {
        let ended = run(&mut memtrace(&["-q"], &[path]));
        assert_eq!(ended.status(), 126, "{}: {ended:?}", path.display());
        assert!(
            ended.one_line().contains(path.to_str().expect("UTF-8")),
            "{ended:?}"
        );
    }
}

#[test]
fn a_program_is_found_in_path() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("only-here");
    fs::write(&script, "#!/bin/sh\necho found; exit 6\n").expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    let path = format!("/nonexistent:{}", folder.path().display());
    let Traced { ended, report } = traced_with(&[], &["only-here"], |memtrace| {
        memtrace.env("PATH", &path);
    });
    assert_eq!(
        (ended.status(), ended.stdout.as_str()),
        (6, "found\n"),
        "{ended:?}"
    );
    report.assert_exact();
}

#[test]
fn run_is_the_same_as_nothing() {
    let ended = run(Command::new(MEMTRACE).args(["run", "-qq", "--", SH, "-c", "exit 3"]));
    assert_eq!(ended.status(), 3, "{ended:?}");
    let ended = run(Command::new(MEMTRACE).args(["-qq", SH, "-c", "exit 4"]));
    assert_eq!(ended.status(), 4, "{ended:?}");
}

#[test]
fn options_after_the_program_are_the_programs() {
    let ended = run(Command::new(MEMTRACE).args([
        "-qq",
        "/bin/echo",
        "-q",
        "--verify=every",
        "--help",
        "-p",
        "1",
    ]));
    assert_eq!(
        (ended.status(), ended.stdout.as_str()),
        (0, "-q --verify=every --help -p 1\n"),
        "{ended:?}"
    );
}

#[test]
fn wrong_usage_is_125_and_nothing_runs() {
    let mark = tempfile::tempdir().expect("a temporary folder");
    let touched = mark.path().join("touched");
    let touch = ["/bin/touch", touched.to_str().expect("UTF-8")];
    for options in [
        &["--no-such-option"][..],
        &["--verify=sometimes"],
        &["--verify=0"],
        &["--duration", "soon"],
        &["--duration", "-1s"],
        &["--format", "xml"],
        &["--color", "blue"],
        &["-e", "nosuchcall"],
        &["-p", "1"],
    ] {
        let ended = run(&mut memtrace(options, &touch));
        assert_eq!(ended.status(), 125, "{options:?}: {ended:?}");
        assert!(
            !ended.stderr.is_empty() && !ended.stderr.contains("panicked"),
            "{options:?}: {ended:?}"
        );
        assert!(!touched.exists(), "{options:?}: the program ran");
    }
    let ended = run(&mut memtrace::<&str>(&[], &[]));
    assert_eq!(ended.status(), 125, "nothing to do: {ended:?}");
}

#[test]
fn wrong_usage_of_what_reads_traces_is_2() {
    for arguments in [
        &["report"][..],
        &["report", "/nonexistent/trace"],
        &["report", "/dev/null"],
        &["report", "/"],
        &["diff", "/nonexistent/a", "/nonexistent/b"],
    ] {
        let ended = run(Command::new(MEMTRACE).args(arguments));
        assert_eq!(ended.status(), 2, "{arguments:?}: {ended:?}");
        assert!(
            !ended.stderr.is_empty() && !ended.stderr.contains("panicked"),
            "{arguments:?}: {ended:?}"
        );
    }
}

// ── what the program inherits ───────────────────────────────────────────────────────────────────────────

#[test]
fn environment_arguments_and_folder_are_untouched() {
    same_in_the_shell(
        "env | sort; pwd; echo \"$0 $*\"; umask; ulimit -a",
        |command| {
            command
                .env("MEMTRACE_TEST", "a\nb = c")
                .env_remove("LANG")
                .current_dir("/usr");
        },
    );
}

#[test]
fn the_programs_files_are_those_memtrace_was_given() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let extra = File::create(folder.path().join("extra")).expect("a file");
    // 0, 1, 2 and the extra one; what ls opens for itself is the lowest free one in both runs.
    let script = "cd /proc/self/fd && for fd in *; do case $(readlink $fd) in */extra) echo $fd extra;; *) echo $fd;; esac; done; echo via fd >&9";
    same_in_the_shell(script, |command| give(command, &extra, 9));
    assert_eq!(
        fs::read_to_string(folder.path().join("extra")).expect("the file"),
        "via fd\nvia fd\n"
    );
}

/// The run time of our own language puts /dev/null in the place of a standard file that is closed: that much may
/// differ, nothing else.
#[test]
fn closed_standard_files_harm_nobody() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for closed in [0, 1, 2] {
        let found = folder.path().join(format!("found{closed}"));
        let script = format!(
            "(readlink /proc/$$/fd/{closed}) > {} 2>/dev/null </dev/null; exit 5",
            found.display()
        );
        let mut memtrace = memtrace(&["-q"], &[SH, "-c", &script]);
        unsafe {
            memtrace.pre_exec(move || {
                libc::close(closed);
                Ok(())
            });
        }
        let ended = run(&mut memtrace);
        assert_eq!(ended.status(), 5, "fd {closed}: {ended:?}");
        let found = fs::read_to_string(&found).expect("the script's file");
        assert!(
            ["", "/dev/null\n"].contains(&found.as_str()),
            "fd {closed} is {found}"
        );
    }
}

/// What `/proc/self/status` shows of signals, processors, identity; grep is what memtrace launches.
fn inherited_status(prepare: impl Fn(&mut Command)) {
    let keys = "^(Sig(Pnd|Blk|Ign|Cgt)|ShdPnd|Cpus_allowed_list|Mems_allowed_list|Umask|Uid|Gid|Groups|Cap|Seccomp_not|CoreDumping|THP)";
    let nnp = if is_root() { "|^NoNewPrivs" } else { "" };
    let program = [
        "/bin/grep",
        "-E",
        &format!("{keys}{nnp}"),
        "/proc/self/status",
    ];
    let mut untraced = Command::new(program[0]);
    untraced.args(&program[1..]);
    prepare(&mut untraced);
    let untraced = run(&mut untraced);
    assert_eq!(untraced.status(), 0, "{untraced:?}");
    let Traced { ended, .. } = traced_with(&[], &program, prepare);
    assert_eq!(ended.stdout, untraced.stdout, "{ended:?}");
}

#[test]
fn signal_masks_and_dispositions_are_inherited() {
    inherited_status(|_| ());
    inherited_status(|command| unsafe {
        command.pre_exec(|| {
            for signal in [
                libc::SIGHUP,
                libc::SIGINT,
                libc::SIGQUIT,
                libc::SIGPIPE,
                libc::SIGTERM,
                libc::SIGCHLD,
                libc::SIGUSR1,
                libc::SIGTSTP,
                libc::SIGTTOU,
            ] {
                libc::signal(signal, libc::SIG_IGN);
            }
            Ok(())
        });
    });
    inherited_status(|command| unsafe {
        command.pre_exec(|| {
            let mut set: libc::sigset_t = std::mem::zeroed();
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGUSR2, libc::SIGWINCH] {
                libc::sigaddset(&mut set, signal);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
            Ok(())
        });
    });
}

#[test]
fn processors_and_priority_are_inherited() {
    // Field 18, 19: priority, nice; 40, 41: real-time priority, policy.
    let script = "cut -d' ' -f18,19,40,41 /proc/self/stat; grep Cpus_allowed_list /proc/self/status; cat /proc/self/timerslack_ns /proc/self/oom_score_adj";
    same_in_the_shell(script, |_| ());
    same_in_the_shell(script, |command| unsafe {
        command.pre_exec(|| {
            libc::setpriority(libc::PRIO_PROCESS, 0, 7);
            libc::prctl(libc::PR_SET_TIMERSLACK, 123456);
            let batch: libc::sched_param = std::mem::zeroed();
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &batch);
            let mut cpus: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(0, &mut cpus);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &cpus);
            Ok(())
        });
    });
}

#[test]
fn group_session_and_parent_are_as_expected() {
    // The group and the session are memtrace's own, as the shell that started it wants them.
    same_in_the_shell(
        "p=$(cut -d' ' -f5 /proc/$$/stat); s=$(cut -d' ' -f6 /proc/$$/stat); [ $p = $PPID ] || [ $p = $$ ]; echo group $?; [ $s != $$ ]; echo session $?",
        |_| (),
    );
}

#[test]
fn limits_are_inherited_and_held() {
    let limited = |command: &mut Command| unsafe {
        command.pre_exec(|| {
            for (resource, limit) in [
                (libc::RLIMIT_STACK, 4 << 20),
                (libc::RLIMIT_CORE, 0),
                (libc::RLIMIT_NOFILE, 64),
                (libc::RLIMIT_FSIZE, 1 << 30),
            ] {
                let limit = libc::rlimit {
                    rlim_cur: limit,
                    rlim_max: limit,
                };
                libc::setrlimit(resource, &limit);
            }
            Ok(())
        });
    };
    same_in_the_shell("ulimit -a; ulimit -Ha", limited);
}

#[test]
fn stdin_reaches_the_program() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let input = folder.path().join("input");
    fs::write(&input, "one\ntwo\n").expect("a file");
    let ended = {
        let mut memtrace = memtrace(&["-qq"], &["/bin/cat"]);
        memtrace.stdin(File::open(&input).expect("the file"));
        Running::start(&mut memtrace).end()
    };
    assert_eq!(
        (ended.status(), ended.stdout.as_str(), ended.stderr.as_str()),
        (0, "one\ntwo\n", "")
    );
}

#[test]
fn the_programs_stderr_is_mixed_with_nothing_when_quiet() {
    let ended = run(&mut memtrace(
        &["-qq"],
        &[SH, "-c", "echo out; echo err >&2"],
    ));
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("out\n", "err\n")
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let program = [SH, "-c", "echo out; echo err >&2"];
    let ended = run(&mut memtrace(
        &["--log", log.to_str().expect("UTF-8")],
        &program,
    ));
    assert_eq!(ended.stdout, "out\n");
    assert!(ended.stderr.starts_with("err\n"), "{ended:?}");
    let log = fs::read_to_string(&log).expect("the log");
    assert!(log.contains("mmap") && !log.contains("err\n"), "{log}");
}

#[test]
fn memtraces_own_text_never_goes_to_stdout() {
    for options in [
        &[][..],
        &["-q"],
        &["--format", "strace"],
        &["--format", "jsonl"],
        &["-v"],
    ] {
        let ended = run(&mut memtrace(options, &["/bin/echo", "only this"]));
        assert_eq!(
            (ended.status(), ended.stdout.as_str()),
            (0, "only this\n"),
            "{options:?}: {ended:?}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_harms_nobody() {
    // The timeline goes to a pipe that nobody reads any more; the program must not notice.
    let pairs = tracee("pairs");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out");
    let script = format!(
        "{{ {MEMTRACE} -- {} 3000 >{} ; echo status $? >&3; }} 2>&1 | head -n 1 >/dev/null",
        pairs.display(),
        out.display()
    );
    let status = folder.path().join("status");
    let file = File::create(&status).expect("a file");
    let mut shell = Command::new(SH);
    shell.args(["-c", &script]);
    give(&mut shell, &file, 3);
    let ended = run(&mut shell);
    assert_eq!(
        fs::read_to_string(&status).expect("a status"),
        "status 0\n",
        "{ended:?}"
    );
    assert!(
        fs::read_to_string(&out)
            .expect("the output")
            .contains("us per pair")
    );
}

// ── the trace file ──────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_output_that_cannot_be_written_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let touched = folder.path().join("touched");
    for output in ["/nonexistent/folder/trace", "/", ""] {
        let ended = run(&mut memtrace(
            &["-q", "-o", output],
            &["/bin/touch", touched.to_str().expect("UTF-8")],
        ));
        assert_eq!(ended.status(), 125, "{output:?}: {ended:?}");
        assert!(ended.one_line().contains(output), "{ended:?}");
        assert!(!touched.exists(), "{output:?}: the program ran");
    }
}

#[test]
fn a_device_that_is_always_full_is_said_at_once_or_harms_nobody() {
    if !Path::new("/dev/full").exists() {
        return skipped("no /dev/full");
    }
    let ended = run(&mut memtrace(
        &["-q", "-o", "/dev/full"],
        &["/bin/echo", "ran"],
    ));
    let refused = ended.status() == 125 && ended.stdout.is_empty();
    assert!(refused || ended.stdout == "ran\n", "{ended:?}");
    assert!(ended.stderr.contains("/dev/full"), "{ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

/// A file system of 64 KiB, in a mount namespace of its own.
#[test]
fn a_disk_that_fills_up_is_said_and_harms_nobody() {
    let Some(unshare) = installed("unshare") else {
        return;
    };
    let threads = tracee("threads");
    let untraced = run(Command::new(&threads).args(["4", "3000", "storm"]));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = format!(
        "mount -t tmpfs -o size=64k none {0} || exit 77\n\
         {MEMTRACE} -q -o {0}/trace -- {1} 4 3000 storm\n\
         echo status $?\n\
         {MEMTRACE} report --json {0}/trace > /dev/null\n\
         echo report $?",
        folder.path().display(),
        threads.display(),
    );
    let ended = run(Command::new(unshare).args(["-m", SH, "-c", &script]));
    if !ended.stdout.contains("status") {
        return skipped(format!(
            "no file system can be mounted here: {}",
            ended.stderr
        ));
    }
    assert!(ended.stdout.starts_with(&untraced.stdout), "{ended:?}");
    assert!(
        ended.stdout.ends_with("report 0\n"),
        "what was written is not readable: {ended:?}"
    );
    assert!(
        ended.stderr.contains("trace"),
        "the failure is not said: {ended:?}"
    );
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

#[test]
fn a_file_cut_anywhere_is_read_up_to_there_or_refused_in_words() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("trace");
    let threads = tracee("threads");
    let ended = run(&mut memtrace(
        &["-q", "-o", file.to_str().expect("UTF-8")],
        &[threads.as_os_str(), OsStr::new("2"), OsStr::new("500")],
    ));
    assert_eq!(ended.status(), 0, "{ended:?}");
    let whole = fs::read(&file).expect("the trace");
    let cut = folder.path().join("cut");
    for part in [0, 1, 7, 40] {
        let len = if part < 10 {
            part
        } else {
            whole.len() * part / 100
        };
        fs::write(&cut, &whole[..len]).expect("a part of it");
        let ended = run(Command::new(MEMTRACE).args(["report", "--json"]).arg(&cut));
        assert!([0, 2].contains(&ended.status()), "{len} bytes: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{len} bytes: {ended:?}");
    }
    for (name, at) in [
        ("start", 20),
        ("middle", whole.len() / 2),
        ("end", whole.len() - 5),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&cut, &bytes).expect("a spoiled copy");
        let ended = run(Command::new(MEMTRACE).args(["report", "--json"]).arg(&cut));
        assert!([0, 2].contains(&ended.status()), "{name}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{name}: {ended:?}");
    }
}

#[test]
fn json_lines_begin_with_a_header_and_end_with_the_report() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let vma = tracee("vma");
    let ended = run(&mut memtrace(
        &["--format", "jsonl", "--log", log.to_str().expect("UTF-8")],
        &[vma.as_os_str(), OsStr::new("holes")],
    ));
    assert_eq!(ended.status(), 0, "{ended:?}");
    let text = fs::read_to_string(&log).expect("the log");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(
        lines.first().map(|line| (&line["type"], &line["schema"])),
        Some((&"header".into(), &"memtrace.events/1".into()))
    );
    let last = lines.last().expect("a summary");
    assert_eq!(last["type"], "summary");
    assert_eq!(last["report"]["schema"], "memtrace.report/1");
    for line in lines.iter().filter(|line| line["type"] == "call") {
        let now = |what| {
            line["now"][what]
                .as_u64()
                .unwrap_or_else(|| panic!("{line}"))
        };
        assert_eq!(now("mapped"), now("reserved") + now("committed"), "{line}");
        let delta = |what| {
            line["delta"][what]
                .as_i64()
                .unwrap_or_else(|| panic!("{line}"))
        };
        assert_eq!(
            delta("mapped"),
            delta("reserved") + delta("committed"),
            "{line}"
        );
    }
    assert!(
        lines
            .iter()
            .any(|line| line["name"] == "munmap" && line["delta"]["mapped"] == -2 * 4096),
        "{text}"
    );
}

// ── who lives and who dies ──────────────────────────────────────────────────────────────────────────────

/// memtrace around a target: started, and its program working.
fn launched(options: &[&str], threads: usize) -> Target {
    let mut command = memtrace(options, &[tracee("target")]);
    let mut target = Target::start_by(
        std::mem::replace(&mut command, Command::new(MEMTRACE)),
        threads,
        "work",
    );
    target.wait_ready();
    target
}

#[test]
fn sigterm_to_memtrace_is_the_programs() {
    let target = launched(&["-qq"], 3);
    assert_ne!(target.pid(), target.running.pid());
    target.advances();
    // The target takes it, tidies up, and ends with 0: so does memtrace.
    target.ends_well();
}

#[test]
fn sigterm_kills_a_program_that_does_not_expect_it() {
    let mut memtrace = Running::start(
        memtrace(
            &["-qq"],
            &[tracee("signals").as_os_str(), OsStr::new("tick")],
        )
        .stdin(Stdio::null()),
    );
    until("it ticks", || {
        memtrace.has_ended() || memtrace.stdout().contains("tick 3")
    });
    memtrace.signal(libc::SIGTERM);
    assert_eq!(memtrace.end().status(), 128 + libc::SIGTERM);
}

#[test]
fn a_launched_program_dies_with_memtrace() {
    for threads in [1, 4] {
        let target = launched(&["-qq"], threads);
        target.advances();
        let pid = target.pid();
        target.running.signal(libc::SIGKILL);
        until("the program is dead", || !is_alive(pid));
    }
}

#[test]
fn a_whole_tree_dies_with_memtrace() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pids = folder.path().join("pids");
    let script = format!(
        "sleep 100 & echo $! >>{0}; (sleep 100 & echo $! >>{0}; wait) & echo $! >>{0}; echo $$ >>{0}; wait",
        pids.display()
    );
    let memtrace = Running::start(memtrace(&["-qq"], &[SH, "-c", &script]).stdin(Stdio::null()));
    let list = || {
        fs::read_to_string(&pids)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect::<Vec<i32>>()
    };
    until("four processes run", || list().len() == 4);
    memtrace.signal(libc::SIGKILL);
    until("they are dead", || {
        list().into_iter().all(|pid| !is_alive(pid))
    });
}

#[test]
fn duration_lets_a_launched_program_run_on() {
    let target = launched(&["-qq", "--duration", "400ms"], 3);
    let pid = target.pid();
    let Target { mut running, .. } = leaves(target, pid);
    assert!(running.has_ended());
}

/// Waits for memtrace to leave by itself, then wants the program alone and well, then ends it.
#[track_caller]
fn leaves(mut target: Target, pid: i32) -> Target {
    until("memtrace leaves", || target.running.has_ended());
    until("nobody traces it", || tracer_of(pid) == Some(0));
    target.advances();
    unsafe { libc::kill(pid, libc::SIGTERM) };
    until("it ends when told to", || !is_alive(pid));
    assert_eq!(target.wrong(), 0);
    target
}

#[test]
fn duration_ends_with_0_whatever_the_program_does_later() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let done = folder.path().join("done");
    let script = format!("sleep 1; echo later > {}; exit 9", done.display());
    let Traced { ended, report } = traced(&["--duration", "200ms"], &[SH, "-c", &script]);
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
    // Its memory calls, its exec and its fork are all still to come: none of them may fail.
    until("the program did its work", || {
        fs::read_to_string(&done).is_ok_and(|text| text == "later\n")
    });
}

#[test]
fn duration_longer_than_the_program_ends_with_its_status() {
    let ended = run(&mut memtrace(
        &["-qq", "--duration", "100s"],
        &[SH, "-c", "exit 9"],
    ));
    assert_eq!(ended.status(), 9, "{ended:?}");
}

#[test]
fn children_left_behind_are_followed_to_their_end() {
    let traced = same_in_the_shell("(sleep 0.3; /bin/true) & exit 3", |_| ());
    assert_eq!(
        traced.report.programs("true").count(),
        1,
        "the child's program was not seen"
    );
}

#[test]
fn without_following_children_run_by_themselves() {
    let forkstorm = tracee("forkstorm");
    for mode in ["", "exec", "vfork", "nested"] {
        let Traced { ended, report } = traced(
            &["--no-follow", "--verify=exit"],
            &[forkstorm.as_os_str(), OsStr::new("20"), OsStr::new(mode)],
        );
        assert_eq!(
            (ended.status(), ended.stdout.as_str()),
            (0, "20 children\n"),
            "{mode}: {ended:?}"
        );
        report.assert_exact();
        assert_eq!(
            report.spaces().len(),
            1,
            "{mode}: more than the program itself"
        );
    }
}

#[test]
fn without_following_threads_are_still_the_programs() {
    let threads = tracee("threads");
    let Traced { ended, report } = traced(
        &["--no-follow", "--verify=every"],
        &[
            threads.as_os_str(),
            OsStr::new("3"),
            OsStr::new("100"),
            OsStr::new("storm"),
        ],
    );
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
    assert!(report.sum("calls/mmap/count") >= 300);
}

// ── privileges ──────────────────────────────────────────────────────────────────────────────────────────

/// A folder with memtrace and a tracee in it that everybody may use.
fn for_everybody(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("an open folder");
    for (source, name) in [(Path::new(MEMTRACE), "memtrace"), (&tracee(name), name)] {
        fs::copy(source, folder.path().join(name)).expect("a copy");
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o755))
            .expect("an open file");
    }
    folder
}

#[test]
fn an_ordinary_user_traces_as_exactly_as_root() {
    if !is_root() {
        return skipped("only root can become somebody else: every other test shows it already");
    }
    let folder = for_everybody("threads");
    let ended = run(Command::new(folder.path().join("memtrace"))
        .args([
            "-q",
            "-o",
            "trace",
            "--verify=every",
            "--",
            "./threads",
            "4",
            "200",
        ])
        .current_dir(folder.path())
        .uid(65534)
        .gid(65534));
    assert_eq!(ended.status(), 0, "{ended:?}");
    assert!(ended.stdout.contains("4 of 4 threads"), "{ended:?}");
    Report::read(&folder.path().join("trace"), &ended).assert_exact();
}

#[test]
fn root_keeps_the_rights_of_its_programs() {
    if !is_root() {
        return skipped("this is about root");
    }
    same_in_the_shell("grep -E '^(NoNewPrivs|Cap)' /proc/self/status", |_| ());
}

#[test]
fn a_program_that_others_may_only_execute_is_still_run() {
    if !is_root() {
        return skipped("only root can become somebody else");
    }
    let folder = for_everybody("vma");
    fs::set_permissions(folder.path().join("vma"), fs::Permissions::from_mode(0o711))
        .expect("its mode");
    let ended = run(Command::new(folder.path().join("memtrace"))
        .args(["-qq", "--", "./vma", "holes"])
        .current_dir(folder.path())
        .uid(65534)
        .gid(65534));
    assert_eq!(ended.status(), 0, "{ended:?}");
    assert!(ended.stdout.contains("munmap"), "{ended:?}");
}

// ── hostile names ───────────────────────────────────────────────────────────────────────────────────────

#[test]
fn no_name_sends_control_characters_to_the_terminal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let name = folder.path().join("evil\x1b]0;title\x07\x1b[31m\nname");
    fs::copy(tracee("vma"), &name).expect("a copy");
    for options in [
        &[][..],
        &["--format", "strace"],
        &["--format", "jsonl"],
        &["-q"],
    ] {
        let ended = run(&mut memtrace(
            options,
            &[name.as_os_str(), OsStr::new("files")],
        ));
        assert_eq!(ended.status(), 0, "{options:?}: {ended:?}");
        let strange = ended
            .stderr
            .chars()
            .find(|c| c.is_control() && *c != '\n' && *c != '\t');
        assert_eq!(
            strange,
            None,
            "{options:?}: {}",
            ended.stderr.escape_debug()
        );
    }
}

#[test]
fn arguments_that_are_not_utf_8_arrive() {
    use std::os::unix::ffi::OsStrExt;
    let odd = OsStr::from_bytes(b"\xff\xfe odd");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"x").expect("a byte");
    let untraced = Command::new("/bin/echo").arg(odd).output().expect("echo");
    let traced = memtrace(&["-qq"], &[OsStr::new("/bin/echo"), odd])
        .output()
        .expect("memtrace");
    assert_eq!(traced.stdout, untraced.stdout);
    assert_eq!(traced.status.code(), Some(0));
}
