//! What `--backend kernel` needs, and what is said where that is not given. The tests are root, and give
//! up what they are about: capabilities, mounts, namespaces. Nothing of it is seen outside: mounts are made
//! in mount namespaces of their own.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::*;

/// A user who may do nothing in particular.
const NOBODY: u32 = 65534;

/// Whether root can become somebody else here; says so if not.
fn is_possible() -> bool {
    let lacks = ["setpriv", "unshare"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_err());
    if let Some(name) = lacks {
        skipped(format!("no {name}"));
        return false;
    }
    let tried = run(Command::new("unshare").args([
        "-m",
        MEMTRACE,
        "-qq",
        "--backend",
        "kernel",
        "/bin/true",
    ]));
    if tried.status() != 0 {
        skipped(tried.stderr.trim());
        return false;
    }
    true
}

/// Mounts tracefs where it belongs.
const MOUNTED: &str =
    "mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing";
/// The part of it that is needed, for everybody to read: its own files belong to root in every mount of it.
const READABLE: &str = "
real=$(mktemp -d)
mount -t tracefs none $real
mount -t tmpfs -o mode=755 none /sys/kernel/tracing
umask 022
for event in $real/events/syscalls/sys_* $real/events/task/task_newtask $real/events/signal/signal_deliver; do
    copy=/sys/kernel/tracing/${event#$real/}
    mkdir -p $copy
    read -r id <$event/id && echo $id >$copy/id
    case $event in *mmap|*newtask|*deliver) cat $event/format >$copy/format;; esac
done
umount $real
rmdir $real";
/// None, and no place where it belongs.
const UNMOUNTED: &str = "umount -a -t tracefs; umount -a -t debugfs; true";

struct As {
    memtrace: PathBuf,
    _folder: tempfile::TempDir,
}

impl As {
    fn new() -> As {
        let folder = tempfile::tempdir().expect("a folder");
        As {
            memtrace: for_everybody(folder.path()),
            _folder: folder,
        }
    }

    /// What memtrace says when it watches `pid` for a moment as nobody with `capabilities` (`+perfmon,…`), the
    /// mounts being prepared by `script`.
    fn nobody(&self, script: &str, capabilities: &str, options: &[&str], pid: i32) -> Ended {
        let mut command = Command::new("unshare");
        let script = format!("{script}\nexec \"$@\"");
        command.args(["-m", "/bin/sh", "-ec", &script, "sh", "setpriv"]);
        let user = NOBODY.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        if !capabilities.is_empty() {
            command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
        }
        self.watches(command, options, pid)
    }

    /// What memtrace says of a program that it launches, as somebody who has `capabilities`.
    fn launches(&self, capabilities: &str) -> Ended {
        let mut command = Command::new("unshare");
        let script = format!("{MOUNTED}\nexec \"$@\"");
        command.args(["-m", "/bin/sh", "-ec", &script, "sh", "setpriv"]);
        let user = NOBODY.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
        command.arg(&self.memtrace);
        command.args(["--backend", "kernel", "-q", "--", "/bin/true"]);
        run(command.current_dir("/"))
    }

    fn watches(&self, mut command: Command, options: &[&str], pid: i32) -> Ended {
        let pid = pid.to_string();
        command.arg(&self.memtrace).args(options);
        command.args(["--log", "/dev/null", "--duration", "300ms", "-p", &pid]);
        run(command.current_dir("/"))
    }
}

fn sleep_of(user: Option<u32>) -> Running {
    let mut sleep = Command::new("/bin/sleep");
    sleep.arg("100").current_dir("/");
    if let Some(user) = user {
        use std::os::unix::process::CommandExt;
        sleep.uid(user).gid(user);
    }
    Running::start(&mut sleep)
}

/// The one line about what was chosen.
#[track_caller]
fn choice(ended: &Ended) -> &str {
    assert_eq!(ended.status(), 0, "{ended:?}");
    let lines = ended.stderr.lines();
    let mut lines = lines.filter(|line| line.starts_with("memtrace:"));
    let line = lines.next().unwrap_or_default();
    assert_eq!(lines.next(), None, "{}", ended.stderr);
    line
}

const KERNEL: &str = "memtrace: backend kernel: nothing is stopped";
const PTRACE: &str =
    "memtrace: backend ptrace: every call is stopped, as the kernel cannot observe here: ";
/// What is missing where tracefs cannot be read, and what helps.
const UNREADABLE: &str = "its tracepoints cannot be read";
const HELPS: &str =
    "CAP_PERFMON and CAP_DAC_READ_SEARCH after `mount -t tracefs none /sys/kernel/tracing`";

#[track_caller]
fn is_ptrace_for_want_of_tracefs(ended: &Ended) {
    let line = choice(ended);
    let said = [PTRACE, UNREADABLE, HELPS]
        .iter()
        .all(|part| line.contains(part));
    assert!(said, "{line}");
}

#[test]
fn cap_perfmon_without_tracefs_is_not_enough() {
    if !is_possible() {
        return;
    }
    let (memtrace, target) = (As::new(), sleep_of(Some(NOBODY)));
    for mounts in [UNMOUNTED, MOUNTED] {
        for capabilities in ["+perfmon", "+perfmon,+sys_ptrace"] {
            let watch =
                |options: &[&str]| memtrace.nobody(mounts, capabilities, options, target.pid());
            is_ptrace_for_want_of_tracefs(&watch(&[]));
            let ended = watch(&["-q", "--backend", "kernel"]);
            assert_eq!(ended.status(), 125, "{ended:?}");
            let line = ended.one_line();
            assert!(
                line.contains("cannot observe here") && line.contains(HELPS),
                "{line}"
            );
        }
    }
}

#[test]
fn cap_perfmon_with_tracefs_is_enough_for_processes_of_the_same_user() {
    if !is_possible() {
        return;
    }
    let (memtrace, target) = (As::new(), sleep_of(Some(NOBODY)));
    let ways = [
        (MOUNTED, "+perfmon,+dac_read_search"),
        (READABLE, "+perfmon"),
    ];
    for (mounts, capabilities) in ways {
        let ended = memtrace.nobody(mounts, capabilities, &[], target.pid());
        assert!(
            choice(&ended).starts_with(KERNEL),
            "{capabilities}: {}",
            ended.stderr
        );
        let exact = ended.stderr.contains("map verified: no drift");
        assert!(exact, "{}", ended.stderr);
    }
}

#[test]
fn cap_sys_ptrace_beside_it_is_enough_for_all() {
    if !is_possible() {
        return;
    }
    let (memtrace, target) = (As::new(), sleep_of(None));
    let capabilities = "+perfmon,+sys_ptrace";
    let ended = memtrace.nobody(READABLE, capabilities, &[], target.pid());
    assert!(choice(&ended).starts_with(KERNEL), "{}", ended.stderr);
    // What it was is told, and not only that there is something.
    assert!(ended.stderr.contains("/sleep"), "{}", ended.stderr);
}

#[test]
fn cap_net_admin_beside_it_opens_the_kernels_books() {
    if !is_possible() {
        return;
    }
    let memtrace = As::new();
    let closed = memtrace.launches("+perfmon,+dac_read_search");
    assert_eq!(closed.status(), 0, "{closed:?}");
    assert!(
        !closed.stderr.contains("peak verified"),
        "{}",
        closed.stderr
    );
    let root = run(Command::new(MEMTRACE).args(["--backend", "kernel", "-q", "--", "/bin/true"]));
    let verified = |ended: &Ended| {
        ["peak", "map"]
            .iter()
            .any(|it| ended.stderr.contains(&format!("{it} verified")))
    };
    if !verified(&root) {
        return skipped("taskstats: not in the first namespaces");
    }
    let open = memtrace.launches("+perfmon,+dac_read_search,+net_admin");
    assert!(verified(&open), "{}", open.stderr);
}

#[test]
fn no_capability_at_all_is_said_with_the_level_that_forbids_it() {
    if !is_possible() {
        return;
    }
    let level = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    let level = level.expect("a kernel with perf events");
    if level.trim() == "-1" {
        return skipped("kernel.perf_event_paranoid is -1: everybody may");
    }
    let (memtrace, target) = (As::new(), sleep_of(Some(NOBODY)));
    let ended = memtrace.nobody(READABLE, "", &[], target.pid());
    let line = choice(&ended);
    let said = format!(
        "perf_event_open is not permitted (kernel.perf_event_paranoid = {})",
        level.trim()
    );
    assert!(line.starts_with(PTRACE) && line.contains(&said), "{line}");
}

#[test]
fn root_needs_no_mount() {
    if !is_possible() {
        return;
    }
    let (memtrace, target) = (As::new(), sleep_of(None));
    let mut command = Command::new("unshare");
    let script = format!("{UNMOUNTED}\nexec \"$@\"");
    command.args(["-m", "/bin/sh", "-ec", &script, "sh"]);
    let ended = memtrace.watches(command, &[], target.pid());
    assert!(choice(&ended).starts_with(KERNEL), "{}", ended.stderr);
}

/// memtrace and a process to watch in namespaces as a container has: its own processes and mounts, /sys for reading
/// only.
fn in_container(unshare: &[&str], prepare: &[&str], memtrace: &Path, options: &[&str]) -> Ended {
    let script = "
mount -o remount,bind,ro /sys || mount -t sysfs -o ro none /sys || true
cd /
exec \"$@\"";
    let watch = "sleep 100 & \"$@\" --duration 300ms --log /dev/null -p $!; status=$?; kill $!; exit $status";
    let mut command = Command::new("unshare");
    command
        .args(unshare)
        .args(["-pmf", "--mount-proc", "/bin/sh", "-c", script, "sh"]);
    command
        .args(prepare)
        .args(["/bin/sh", "-c", watch, "sh"])
        .arg(memtrace);
    run(command.args(options))
}

#[test]
fn in_a_container_it_is_a_tracer_and_says_why() {
    if !is_possible() {
        return;
    }
    let memtrace = As::new();
    // What Docker gives by default, and the same with a user namespace.
    let few = [
        "setpriv",
        "--bounding-set",
        "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid",
    ];
    let ways: [(&[&str], &[&str]); 2] = [(&[], &few), (&["-Ur"], &[])];
    for (unshare, prepare) in ways {
        let ended = in_container(unshare, prepare, &memtrace.memtrace, &[]);
        if ended.stderr.contains("unshare") {
            skipped(ended.stderr.trim());
            continue;
        }
        is_ptrace_for_want_of_tracefs(&ended);
        let ended = in_container(
            unshare,
            prepare,
            &memtrace.memtrace,
            &["-q", "--backend", "kernel"],
        );
        assert_eq!(ended.status(), 125, "{ended:?}");
        assert!(ended.one_line().contains(HELPS), "{ended:?}");
    }
}

#[test]
fn in_a_privileged_container_its_processes_are_known_by_their_numbers_there() {
    if !is_possible() {
        return;
    }
    let memtrace = As::new();
    let ended = in_container(&[], &[], &memtrace.memtrace, &[]);
    assert!(choice(&ended).starts_with(KERNEL), "{}", ended.stderr);
    let small = |pid: u32| ended.stderr.contains(&format!("sleep  pid {pid},"));
    assert!((2..10).any(small), "{}", ended.stderr);
}
