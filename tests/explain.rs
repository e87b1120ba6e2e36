//! `memtrace explain` says what is so, and no more: each case is a real process in a real cgroup where the
//! test may make one (version 1 or 2), else a recorded tree of the kernel's files.

mod support;
mod support_real;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Running, bytes, memtrace, run, skipped, tracee, until};
use support_real::need;
use support_real::programs::{go_server, java_classes};

const MIB: u64 = 1 << 20;

// ── a memory cgroup of our own ──────────────────────────────────────────────────────────────────────────

/// A cgroup with a memory limit, made beside this process's own; it is gone when this is.
struct Cage {
    folder: PathBuf,
}

impl Cage {
    fn new(name: &str, limit: u64) -> Result<Cage, String> {
        let (parent, file) = memory_controller().ok_or("no memory controller is mounted")?;
        let folder = parent.join(format!("memtrace-test-{name}-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("cannot make a cgroup: {error}"))?;
        let cage = Cage { folder };
        fs::write(cage.folder.join(file), limit.to_string())
            .map_err(|error| format!("cannot limit a cgroup: {error}"))?;
        Ok(cage)
    }

    /// `words`, started inside.
    fn start<S: AsRef<OsStr>>(&self, words: &[S]) -> Running {
        Running::start(&mut self.command(words))
    }

    fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("echo $$ > \"$0\" && exec \"$@\"")
            .arg(self.folder.join("cgroup.procs"))
            .args(words);
        command
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // A process that was killed leaves its cgroup a moment later.
        for _ in 0..500 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("cannot remove {}", self.folder.display());
    }
}

/// The folder of a memory cgroup below which others can be made, and the name of the file of its limit.
fn memory_controller() -> Option<(PathBuf, &'static str)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let at = PathBuf::from(left.split(' ').nth(4)?);
        let mut right = right.split(' ');
        match (right.next()?, right.nth(1)?) {
            ("cgroup", options) if options.split(',').any(|option| option == "memory") => {
                Some((at, "memory.limit_in_bytes"))
            }
            ("cgroup2", _) => {
                let controllers = fs::read_to_string(at.join("cgroup.subtree_control")).ok()?;
                controllers.contains("memory").then_some((at, "memory.max"))
            }
            _ => None,
        }
    })
}

// ── explaining ──────────────────────────────────────────────────────────────────────────────────────────

#[track_caller]
fn explained(pid: i32) -> Value {
    let ended = run(&mut memtrace::<&str>(
        &["explain", "--json", "-p", &pid.to_string()],
        &[],
    ));
    assert_eq!((ended.status(), &*ended.stderr), (0, ""));
    let value = serde_json::from_str(&ended.stdout).expect("JSON");
    consistent(&value);
    on_one_screen(&["-p", &pid.to_string()]);
    value
}

#[track_caller]
fn on_one_screen(what: &[&str]) {
    let mut words = vec!["explain"];
    words.extend(what);
    let text = run(&mut memtrace::<&str>(&words, &[])).stdout;
    let lines = text.lines().map(|line| line.chars().count().div_ceil(100));
    assert!(lines.sum::<usize>() <= 45, "more than a screen:\n{text}");
}

/// What must hold of every explanation.
#[track_caller]
fn consistent(value: &Value) {
    assert_eq!(value["schema"], "memtrace.explain/1");
    let facts = &value["facts"];
    if facts["reserved"]["end"].is_u64() {
        let sum = bytes(&facts["reserved"]["end"]) + bytes(&facts["committed"]["end"]);
        assert_eq!(bytes(&facts["mapped"]["end"]), sum);
        let parts = &facts["committed"]["parts"];
        let sum: u64 = ["anon", "file", "shmem", "special"]
            .iter()
            .map(|part| bytes(&parts[part]))
            .sum();
        assert_eq!(bytes(&facts["committed"]["end"]), sum);
    }
    let because = value["verdict"]["because"].as_array().expect("a list");
    assert!(!because.is_empty(), "{value}");
}

#[track_caller]
fn verdict(value: &Value, cause: &str, vsz_matters: bool) {
    let verdict = &value["verdict"];
    assert_eq!(verdict["cause"], cause, "{value:#}");
    assert_eq!(verdict["vsz_matters"], vsz_matters, "{value:#}");
}

fn because(value: &Value) -> String {
    let because = value["verdict"]["because"].as_array().expect("a list");
    let lines: Vec<&str> = because.iter().filter_map(Value::as_str).collect();
    lines.join("\n")
}

#[track_caller]
fn limit<'a>(value: &'a Value, name: &str) -> &'a Value {
    let limits = value["facts"]["limits"].as_array().expect("a list");
    limits
        .iter()
        .find(|limit| limit["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {value:#}"))
}

fn hog(what: &str, amount: u64, file: &Path) -> Vec<String> {
    let words = [
        tracee("hog").display().to_string(),
        what.to_owned(),
        amount.to_string(),
        file.display().to_string(),
    ];
    words.to_vec()
}

#[track_caller]
fn ready(running: &mut Running) {
    until("it is ready", || {
        let ended = running.has_ended();
        assert!(!ended, "{}{}", running.stdout(), running.stderr());
        running.stdout().contains("ready")
    });
}

// ── real processes ──────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_go_server_with_a_large_vsz_in_a_small_cgroup_is_fine() {
    let server = need!(go_server("1.25.5"));
    let cage = need!(Cage::new("go", 64 * MIB));
    let mut running = cage.start(&[server]);
    until("it serves", || {
        assert!(!running.has_ended(), "{}", running.stderr());
        running.stdout().contains("serves")
    });
    let value = explained(running.pid());
    verdict(&value, "none", false);
    let mapped = bytes(&value["facts"]["mapped"]["end"]);
    assert!(1 << 30 < mapped, "{mapped}");
    assert!(bytes(&value["facts"]["reserved"]["end"]) > mapped / 2);
    assert_eq!(value["facts"]["cgroup"]["processes"]["count"], 1);
    drop(running);
}

#[test]
fn a_leak_up_to_the_limit_of_its_cgroup_is_named() {
    let cage = need!(Cage::new("leak", 100 * MIB));
    let mut running = cage.start(&hog("anon", 94 * MIB, Path::new("")));
    ready(&mut running);
    let value = explained(running.pid());
    verdict(&value, "cgroup_anon", false);
    assert!(because(&value).contains("of this process's"), "{value:#}");
}

#[test]
fn page_cache_up_to_the_limit_is_no_reason_to_be_killed() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let cage = need!(Cage::new("cache", 64 * MIB));
    let mut running = cage.start(&hog("cache", 160 * MIB, &folder.path().join("file")));
    ready(&mut running);
    let value = explained(running.pid());
    verdict(&value, "cgroup_cache", false);
    assert!(because(&value).contains("no reason for an out-of-memory kill"));
}

#[test]
fn a_full_dev_shm_is_told_from_the_heap() {
    let folder = need!(tempfile::tempdir_in("/dev/shm").map_err(|error| error.to_string()));
    let cage = need!(Cage::new("shm", 64 * MIB));
    let mut running = cage.start(&hog("shm", 60 * MIB, &folder.path().join("file")));
    ready(&mut running);
    let value = explained(running.pid());
    verdict(&value, "cgroup_shmem", false);
    // The file is mapped by nobody: only the cgroup knows of it.
    assert!(bytes(&value["facts"]["resident"]["shmem"]) < MIB);
}

#[test]
fn an_innocent_process_is_told_from_its_leaking_neighbour() {
    let cage = need!(Cage::new("neighbour", 100 * MIB));
    let mut leak = cage.start(&hog("anon", 93 * MIB, Path::new("")));
    ready(&mut leak);
    let mut innocent = cage.start(&hog("anon", MIB, Path::new("")));
    ready(&mut innocent);
    let value = explained(innocent.pid());
    verdict(&value, "cgroup_other_process", false);
    let because = because(&value);
    assert!(
        because.contains(&format!("process {} (hog)", leak.pid())),
        "{because}"
    );
    let value = explained(leak.pid());
    verdict(&value, "cgroup_anon", false);
}

#[test]
fn memory_given_to_madv_free_counts_as_what_the_kernel_may_take() {
    let cage = need!(Cage::new("lazy", 100 * MIB));
    let mut running = cage.start(&hog("lazy", 94 * MIB, Path::new("")));
    ready(&mut running);
    let value = explained(running.pid());
    let lazy = bytes(&value["facts"]["resident"]["lazy_free"]);
    assert!(90 * MIB < lazy && lazy <= 94 * MIB, "{lazy}");
    verdict(&value, "none", false);
}

/// A shell that sets a limit and becomes `words`.
fn limited<S: AsRef<OsStr>>(ulimit: &str, words: &[S]) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit {ulimit} && exec \"$@\""))
        .arg("sh")
        .args(words);
    command
}

#[test]
fn a_nearly_reached_limit_on_address_space_makes_vsz_matter() {
    let kib = 128 << 10;
    let mut running = Running::start(&mut limited(
        &format!("-v {kib}"),
        &hog("reserve", 120 * MIB, Path::new("")),
    ));
    ready(&mut running);
    let value = explained(running.pid());
    verdict(&value, "vsz_limit", true);
    assert_eq!(bytes(&limit(&value, "RLIMIT_AS")["value"]), kib << 10);
    assert_eq!(
        limit(&value, "RLIMIT_AS")["now"],
        value["facts"]["mapped"]["end"]
    );
}

#[test]
fn a_program_that_cannot_reserve_what_it_wants_is_explained_by_its_failed_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("run.mtr");
    let path = trace.display().to_string();
    let shell = format!(
        "ulimit -v 131072 && exec {} reserve {}",
        tracee("hog").display(),
        256 * MIB
    );
    let ended = run(&mut memtrace(
        &["explain", "--json", "-o", &path],
        &["sh", "-c", &shell],
    ));
    assert_eq!(ended.status(), 1, "{}", ended.stderr);
    let (refused, json) = ended.stdout.split_once('\n').expect("the program's line");
    assert_eq!(refused, "refused: ENOMEM");
    let value: Value = serde_json::from_str(json).expect("JSON");
    consistent(&value);
    verdict(&value, "vsz_limit", true);
    let because = because(&value);
    assert!(because.contains("asked for 256.0 MiB"), "{because}");
    assert!(because.contains("RLIMIT_AS is 128.0 MiB"), "{because}");
    // The trace keeps the limits of the moment, not only those that memtrace itself had.
    let ended = run(&mut memtrace::<&str>(&["explain", &path, "--json"], &[]));
    let value: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    verdict(&value, "vsz_limit", true);
    on_one_screen(&[&path]);
}

#[test]
fn a_go_program_below_a_small_ulimit_fails_for_its_vsz() {
    let server = need!(go_server("1.25.5"));
    let shell = format!("ulimit -v 300000 && exec {} -once", server.display());
    let ended = run(&mut memtrace(&["explain", "--json"], &["sh", "-c", &shell]));
    assert_ne!(ended.status(), 0, "{}", ended.stdout);
    let value: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    verdict(&value, "vsz_limit", true);
}

#[test]
fn as_many_mappings_as_there_may_be_are_counted() {
    let max: u64 = fs::read_to_string("/proc/sys/vm/max_map_count")
        .expect("it is there")
        .trim()
        .parse()
        .expect("a number");
    if 100_000 < max {
        return skipped(format!(
            "max_map_count is {max}: that many are not made for a test"
        ));
    }
    let mut running =
        Running::start(Command::new(tracee("hog")).args(["maps", &(max - 500).to_string()]));
    ready(&mut running);
    let value = explained(running.pid());
    verdict(&value, "map_count", false);
    let lines = fs::read_to_string(format!("/proc/{}/maps", running.pid())).expect("maps");
    let lines = lines.lines().filter(|line| !line.ends_with("[vsyscall]"));
    assert_eq!(
        bytes(&value["facts"]["mappings"]["end"]),
        lines.count() as u64
    );
}

#[test]
fn private_writable_memory_counts_against_rlimit_data() {
    let kib = 128 << 10;
    let mut running = Running::start(&mut limited(
        &format!("-d {kib}"),
        &hog("data", 124 * MIB, Path::new("")),
    ));
    ready(&mut running);
    let value = explained(running.pid());
    verdict(&value, "rlimit_data", false);
    let shell = format!(
        "ulimit -d {kib} && exec {} data {}",
        tracee("hog").display(),
        256 * MIB
    );
    let ended = run(&mut memtrace(&["explain", "--json"], &["sh", "-c", &shell]));
    let (_, json) = ended.stdout.split_once('\n').expect("the program's line");
    let value: Value = serde_json::from_str(json).expect("JSON");
    verdict(&value, "rlimit_data", false);
}

/// How the text of a limit goes on, where it is told.
fn limit_line(pid: i32, limit: &str) -> Option<String> {
    let ended = run(&mut memtrace(
        &["explain", "-p", &pid.to_string()],
        &[] as &[&str],
    ));
    assert_eq!(ended.status(), 0, "{ended:?}");
    let (_, from) = ended.stdout.split_once(&format!(" {limit} "))?;
    let words: Vec<&str> = from.split_whitespace().take(24).collect();
    Some(words.join(" "))
}

#[test]
fn a_main_stack_near_its_limit_can_be_the_reason_and_another_is_not_told() {
    for (bytes, cause) in [(1850 << 10, "rlimit_stack"), (100 << 10, "none")] {
        let mut running =
            Running::start(&mut limited("-s 2048", &hog("stack", bytes, Path::new(""))));
        ready(&mut running);
        let value = explained(running.pid());
        verdict(&value, cause, false);
        let limit = limit(&value, "RLIMIT_STACK");
        assert_eq!(limit["value"], 2 * MIB);
        assert!(bytes <= limit["now"].as_u64().expect("its size"), "{limit}");
        let told = limit_line(running.pid(), "RLIMIT_STACK");
        let near = |told: &String| {
            told.starts_with("2.0 MiB, the main thread's is 1.") && told.contains("NEAR")
        };
        match cause {
            "none" => assert_eq!(told, None),
            _ => assert!(told.as_ref().is_some_and(near), "{told:?}"),
        }
    }
}

#[test]
fn a_stack_that_overflowed_is_the_reason() {
    let words = [
        vec![
            env!("CARGO_BIN_EXE_memtrace").to_owned(),
            "explain".to_owned(),
            "--json".to_owned(),
        ],
        vec!["--".to_owned()],
        hog("stack", 4 * MIB, Path::new("")),
    ];
    let ended = run(&mut limited("-s 2048", &words.concat()));
    let value: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    verdict(&value, "rlimit_stack", false);
    let because = because(&value);
    assert!(because.contains("RLIMIT_STACK is 2.0 MiB"), "{because}");
}

#[test]
fn stacks_of_threads_that_the_limit_made_so_large_are_told() {
    let python = need!(support_real::programs::python());
    let script = "import threading, time\n\
        for _ in range(3): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n\
        print('ready', flush=True)\n\
        time.sleep(600)";
    let argv = [python.as_os_str(), "-c".as_ref(), script.as_ref()].map(OsStr::to_owned);
    let mut running = Running::start(&mut limited("-s 24576", &argv));
    ready(&mut running);
    let value = explained(running.pid());
    verdict(&value, "none", false);
    let stacks = value["facts"]["thread_stacks"].as_array().expect("stacks");
    let so_large = |stack: &&Value| stack["size"] == 24 * MIB;
    let stack = stacks.iter().find(so_large).expect("stacks of 24 MiB");
    assert_eq!(stack["count"], 3, "{stacks:?}");
    let owners = value["facts"]["owners"].to_string();
    assert!(owners.contains("glibc thread stacks"), "{owners}");
    let told = limit_line(running.pid(), "RLIMIT_STACK").expect("it is told");
    assert!(
        told.contains("3 other stacks are as large, glibc's default for threads: 72.0 MiB"),
        "{told}"
    );
}

#[test]
fn a_java_heap_that_is_committed_and_not_touched_is_no_memory() {
    let java = need!(support_real::programs::find("java"));
    let classes = need!(java_classes("Hello.java"));
    let cage = need!(Cage::new("java", 256 * MIB));
    let mut running = cage.start(&[
        java.as_os_str(),
        OsStr::new("-Xms512m"),
        OsStr::new("-Xmx512m"),
        OsStr::new("-cp"),
        classes.as_os_str(),
        OsStr::new("Hello"),
        OsStr::new("forever"),
    ]);
    until("it runs", || {
        assert!(!running.has_ended(), "{}", running.stderr());
        running.stdout().contains("sum")
    });
    let value = explained(running.pid());
    verdict(&value, "none", false);
    let committed = bytes(&value["facts"]["committed"]["end"]);
    let resident = bytes(&value["facts"]["resident"]["end"]);
    assert!(512 * MIB < committed, "{committed}");
    assert!(resident < 256 * MIB, "{resident}");
    assert!(
        because(&value).contains("no memory is behind it"),
        "{value:#}"
    );
}

#[test]
fn a_program_that_its_cgroup_kills_is_told_why() {
    let cage = need!(Cage::new("kill", 48 * MIB));
    let program = hog("anon", 96 * MIB, Path::new(""));
    let mut words = vec![support::MEMTRACE.to_owned()];
    words.extend(["explain", "--json", "--"].map(str::to_owned));
    words.extend(program);
    let ended = run(&mut cage.command(&words));
    if ended.status() == 137 && ended.stdout.is_empty() {
        // The kernel chose memtrace, which shares the cgroup here: nobody is left to explain.
        return skipped("the kernel killed memtrace");
    }
    assert_eq!(ended.status(), 128 + 9, "{}", ended.stderr);
    let value: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    consistent(&value);
    assert!(because(&value).contains("out-of-memory kill"), "{value:#}");
    // In a full cgroup memtrace stands still with the others, and may not have looked before the kill: then
    // nothing proves what filled it.
    let seen = value["verdict"]["cause"] == "cgroup_anon";
    verdict(&value, if seen { "cgroup_anon" } else { "unknown" }, false);
}

#[test]
fn what_cannot_be_explained_is_refused_in_one_line() {
    let refused = |words: &[&str], status, line: &str| {
        let ended = run(&mut memtrace::<&str>(words, &[]));
        assert_eq!(ended.status(), status, "{words:?}");
        assert_eq!(ended.one_line(), line);
    };
    refused(
        &["explain", "-p", "2147483647"],
        2,
        "memtrace: there is no process 2147483647 (ps -e lists those that there are)",
    );
    refused(
        &["explain"],
        2,
        "memtrace: explain what? memtrace explain -p PID, memtrace explain TRACE, or memtrace explain -- PROGRAM",
    );
    let ended = run(&mut memtrace::<&str>(&["explain", "no-such-file.mtr"], &[]));
    assert_eq!(ended.status(), 127);
    assert!(ended.one_line().ends_with("nor is it a recorded trace"));
}

#[test]
fn a_zombie_and_a_kernel_thread_have_no_address_space() {
    let mut command = Command::new("true");
    let mut child = command.spawn().expect("it starts");
    let pid = child.id() as i32;
    until("it has ended", || support::state_of(pid) == Some('Z'));
    let value = explained(pid);
    assert_eq!(value["facts"]["state"], "zombie");
    verdict(&value, "unknown", false);
    assert!(value["facts"]["mapped"]["end"].is_null());
    child.wait().expect("our child");
    if support::status_line(2, "Name").as_deref() == Some("kthreadd") {
        let value = explained(2);
        assert_eq!(value["facts"]["state"], "kernel_thread");
        verdict(&value, "none", false);
    }
}

#[test]
fn without_the_right_to_read_smaps_it_says_what_is_missing() {
    if !support::is_root() {
        return skipped("only root can become somebody else");
    }
    let setpriv = match support::installed("setpriv") {
        Some(setpriv) => setpriv,
        None => return,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("memtrace");
    fs::copy(support::MEMTRACE, &copy).expect("a copy");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), everybody).expect("it is ours");
    let ended = run(Command::new(setpriv)
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["explain", "--json", "-p", &std::process::id().to_string()]));
    assert_eq!(ended.status(), 0, "{}", ended.stderr);
    let value: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert!(value["facts"]["reserved"]["end"].is_null());
    assert!(value["facts"]["resident"]["end"].is_u64());
    let missing = value["facts"]["missing"].to_string();
    assert!(
        missing.contains("as the process's own user or as root"),
        "{missing}"
    );
}
