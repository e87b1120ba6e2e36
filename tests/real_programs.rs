//! Real programs behave under memtrace as they do alone, and the report of each is exact.
//!
//! What is compared comes from elsewhere: the program's own output and status, the kernel's VmPeak, VmSize and
//! VmHWM, and what a runtime says about itself. Missing programs skip their tests, loudly; in CI that fails.

mod support;
mod support_real;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libc::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};
use support::{Attached, Running, Traced, bytes, until};
use support_real::programs::{Found, compiled, find, fixture, go_server, java_classes, python};
use support_real::*;
use tempfile::{TempDir, tempdir};

// ── Go ──────────────────────────────────────────────────────────────────────────────────────────────────

/// A running server of `fixtures/programs/goserver`.
struct GoServer {
    pid: i32,
    address: String,
}

impl GoServer {
    fn started_by(running: &mut Running) -> GoServer {
        line_of(running, |line| {
            let (_, rest) = line.split_once(" pid ")?;
            let (pid, address) = rest.split_once(" serves ")?;
            Some(GoServer {
                pid: pid.parse().ok()?,
                address: address.to_owned(),
            })
        })
    }

    #[track_caller]
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("the server listens");
        ask(&mut stream, path)
    }

    fn load(&self) {
        for mib in [1, 5, 20] {
            assert!(
                self.get(&format!("/allocate?mib={mib}"))
                    .ends_with(&format!("{}\n", mib << 20))
            );
        }
        assert!(self.get("/allocate?mib=70&keep").contains("73400320"));
        let busy = (0..4).map(|_| {
            let address = self.address.clone();
            std::thread::spawn(move || {
                for _ in 0..100 {
                    let mut stream = TcpStream::connect(&address).expect("the server listens");
                    assert!(ask(&mut stream, "/hello").ends_with("hello\n"));
                }
            })
        });
        busy.collect::<Vec<_>>()
            .into_iter()
            .for_each(|thread| thread.join().expect("a client"));
    }
}

/// One request over HTTP/1.0, which ends with the connection.
#[track_caller]
fn ask(stream: &mut (impl Read + Write), path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.") && answer.contains(" 200 "),
        "{path}: {answer}"
    );
    answer
}

fn a_go_server_is_split_exactly(version: &str) {
    let binary = need!(go_server(version));
    let mut traced = Program::new([binary]).start_traced();
    let server = GoServer::started_by(&mut traced.running);
    server.load();
    let stats = server.get("/stats");
    let sys = number_after(&stats, "\"sys\"").expect("MemStats.Sys");
    assert!(stats.contains(&format!("go{version}")), "{stats}");

    let kernel = Kernel::of(server.pid);
    send(server.pid, SIGTERM);
    let (ended, report) = traced.end();
    assert_eq!(ended.status(), 128 + 15, "{ended:?}");
    exact(&report);

    let space = space_of(&report, server.pid);
    kernel.size_is_end_of(space);
    kernel.peak_is_that_of(space);
    kernel.hwm_is_that_of(space);
    // The runtime reserves far more than it uses, and what it says to have obtained is accessible memory.
    let (reserved, anon) = (
        bytes(&space["reserved"]["end"]),
        bytes(&space["committed"]["parts"]["anon"]),
    );
    assert!(
        kernel.size() / 2 < reserved,
        "of {} mapped bytes only {reserved} are reserved",
        kernel.size()
    );
    assert!(
        sys <= anon,
        "the runtime obtained {sys}, but only {anon} bytes are committed anonymous memory"
    );
}

#[test]
fn a_server_built_by_go_1_21_is_split_exactly() {
    a_go_server_is_split_exactly("1.21.13");
}

#[test]
fn a_server_built_by_go_1_25_is_split_exactly() {
    a_go_server_is_split_exactly("1.25.5");
}

#[test]
fn a_loaded_go_server_is_attached_to_and_let_go() {
    let binary = need!(go_server("1.25.5"));
    let mut running = Program::new([binary]).start();
    let server = GoServer::started_by(&mut running);
    let mut attached = Attached::to(&[server.pid], &[]);
    until_attached(&mut attached.running, server.pid);
    server.load();
    let Traced { ended, report } = attached.stop(SIGINT);
    assert_eq!(ended.status(), 0, "{ended:?}");
    exact(&report);
    assert_eq!(space_of(&report, server.pid)["began"], "attach");
    assert_eq!(space_of(&report, server.pid)["ended"], "detach");
    runs_free(server.pid);
    assert!(server.get("/hello").ends_with("hello\n"));
}

// ── java, node, python ──────────────────────────────────────────────────────────────────────────────────

#[test]
fn java_with_threads_and_a_working_collector() {
    let java = need!(find("java"));
    let classes = need!(java_classes("Hello.java"));
    let program = Program::new([
        java.as_path(),
        "-Xmx96m".as_ref(),
        "-cp".as_ref(),
        &classes,
        "Hello".as_ref(),
    ]);
    let (ended, report) = program.stderr_varies().succeeds_when_traced();
    let space = space_of_program(&report);
    // The heap is reserved at once; threads that end take the peak along, so it is only near the end.
    Kernel::told_by(&ended).peak_is_within(space);
    assert!(bytes(&space["committed"]["end"]) < bytes(&space["reserved"]["end"]));
}

#[test]
fn a_busy_java_is_attached_to_and_let_go() {
    let java = need!(find("java"));
    let classes = need!(java_classes("Hello.java"));
    let argv = [
        java.as_path(),
        "-Xmx96m".as_ref(),
        "-cp".as_ref(),
        &classes,
        "Hello".as_ref(),
        "forever".as_ref(),
    ];
    let mut running = Program::new(argv).start();
    line_of(&mut running, |line| (line == "ready").then_some(()));
    let pid = running.pid();
    let Traced { ended, report } = Attached::begin(&[pid], &["--duration", "1s"]).end();
    assert_eq!(ended.status(), 0, "{ended:?}");
    exact(&report);
    assert_eq!(space_of(&report, pid)["ended"], "detach");
    runs_free(pid);
    running.signal(SIGTERM);
    assert_eq!(running.end().status(), 128 + 15);
}

#[test]
fn node_with_a_worker_and_web_assembly() {
    let node = need!(find("node"));
    let script = r#"
        const { Worker } = require('worker_threads');
        const memory = new WebAssembly.Memory({ initial: 16, maximum: 1024 });
        memory.grow(100);
        const kept = []; for (let n = 0; n < 200; n++) kept.push(new Array(10000).fill(n));
        const worker = new Worker('require("worker_threads").parentPort.postMessage("from the worker")', { eval: true });
        worker.on('message', (text) => { console.log(text, memory.buffer.byteLength, kept.length); });
        worker.on('exit', () => { console.error(require('fs').readFileSync('/proc/self/status', 'utf8')); });
    "#;
    let (ended, report) = Program::new([node.as_os_str(), "-e".as_ref(), script.as_ref()])
        .stderr_varies()
        .succeeds_when_traced();
    let space = space_of_program(&report);
    Kernel::told_by(&ended).peak_is_within(space);
    // A WebAssembly memory takes gigabytes of address space, so that no access needs a check.
    assert!(4 << 30 < bytes(&space["reserved"]["peak"]));
}

#[test]
fn python_knows_its_own_peak() {
    let python = need!(python());
    let script = r#"
import mmap, sys
kept = [bytes(1000 + n) for n in range(20000)]
m = mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.write(b"x" * (100 << 20))
m.close()
print(len(kept))
print(open("/proc/self/status").read(), file=sys.stderr)
"#;
    let (ended, report) = Program::new([python.as_os_str(), "-c".as_ref(), script.as_ref()])
        .stderr_varies()
        .succeeds_when_traced();
    let space = space_of_program(&report);
    Kernel::told_by(&ended).peak_is_that_of(space);
    Kernel::told_by(&ended).hwm_is_that_of(space);
}

#[test]
fn python_with_threads_verified_after_every_event() {
    let python = need!(python());
    let script = r#"
import mmap, threading
def work():
    for n in range(100):
        m = mmap.mmap(-1, (n % 7 + 1) * 4096)
        m[0] = 1
        m.close()
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print("done")
"#;
    let program = Program::new([python.as_os_str(), "-c".as_ref(), script.as_ref()])
        .traced_with("--verify=every");
    let (_, report) = program.succeeds_when_traced();
    let space = space_of_program(&report);
    assert!(800 <= calls(space, &["mmap", "munmap"]));
    assert!(800 <= bytes(&space["verify"]["checks"]));
}

#[test]
fn python_starts_processes_in_every_way() {
    let python = need!(python());
    let script = r#"
import multiprocessing, os, subprocess, sys
def square(n): return n * n
if __name__ == "__main__":
    print(subprocess.run(["echo", "vfork"], capture_output=True, text=True).stdout)
    print(subprocess.run(["sh", "-c", "exit 5"], close_fds=False).returncode)
    print(subprocess.run("echo pipe | tr a-z A-Z; kill -9 $$", shell=True, capture_output=True))
    print(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1])
    print(os.waitstatus_to_exitcode(os.system("exit 3")))
    child = os.fork()
    if child == 0: os._exit(4)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    with multiprocessing.get_context("fork").Pool(2) as pool: print(sum(pool.map(square, range(100))))
    try: subprocess.run(["./there-is-no-such-program"])
    except FileNotFoundError as error: print(error)
    sys.stdout.flush()
    os.execv("/bin/sh", ["sh", "-c", "echo exec; exit 9"])
"#;
    let (ended, report) =
        Program::new([python.as_os_str(), "-c".as_ref(), script.as_ref()]).same_when_traced();
    assert_eq!(ended.status(), 9, "{ended:?}");
    assert!(8 <= began(&report, "exec") && 3 <= began(&report, "fork"));
}

// ── redis ───────────────────────────────────────────────────────────────────────────────────────────────

/// What runs against a redis-server on a socket in a folder of the test.
struct Redis {
    folder: TempDir,
}

impl Redis {
    fn new() -> Found<Redis> {
        for program in ["redis-server", "redis-cli", "redis-benchmark"] {
            find(program)?;
        }
        Ok(Redis {
            folder: tempdir().expect("a temporary folder"),
        })
    }

    fn server(&self) -> Program {
        let argv = [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            "socket",
            "--save",
            "",
            "--daemonize",
            "no",
        ];
        Program::new(argv).folder(self.folder.path())
    }

    fn cli(&self, words: &str) -> String {
        let mut command = Command::new("redis-cli");
        command
            .args(["-s", "socket"])
            .args(words.split_whitespace())
            .current_dir(self.folder.path());
        let output = command.stdin(Stdio::null()).output().expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Waits until it serves, and says its process id.
    fn pid(&self) -> i32 {
        until("redis answers", || self.cli("ping") == "PONG");
        let info = self.cli("info server");
        i32::try_from(number_after(&info, "process_id").expect("process_id")).expect("a process id")
    }

    fn benchmark(&self, requests: &str) -> Program {
        let argv = [
            "redis-benchmark",
            "-s",
            "socket",
            "-q",
            "-n",
            requests,
            "-c",
            "20",
            "-r",
            "1000",
            "-d",
            "512",
            "-t",
            "set,get,lpush",
        ];
        Program::new(argv).folder(self.folder.path())
    }
}

#[test]
fn redis_launched_and_loaded() {
    let redis = need!(Redis::new());
    let mut traced = redis.server().start_traced();
    let pid = redis.pid();
    assert_eq!(redis.benchmark("20000").start().end().status(), 0);
    // A fork that writes the data out, and one that fails to be a surprise.
    assert_eq!(redis.cli("bgsave"), "Background saving started");
    until("the data is saved", || {
        redis
            .cli("info persistence")
            .contains("rdb_bgsave_in_progress:0")
    });
    assert!(
        redis
            .cli("info persistence")
            .contains("rdb_last_bgsave_status:ok")
    );

    // Nobody asks any more, so nothing changes between the look and the end.
    let kernel = Kernel::of(pid);
    assert!(!traced.running.has_ended());
    send(pid, SIGKILL);
    let (ended, report) = traced.end();
    assert_eq!(ended.status(), 128 + 9, "{ended:?}");
    exact(&report);
    kernel.size_is_end_of(space_of(&report, pid));
    assert_eq!(began(&report, "fork"), 1);
}

#[test]
fn redis_launched_and_shut_down() {
    let redis = need!(Redis::new());
    let traced = redis.server().start_traced();
    redis.pid();
    redis.cli("shutdown nosave");
    let (ended, report) = traced.end();
    assert_eq!(ended.status(), 0, "{ended:?}");
    assert!(ended.stdout.contains("bye bye"), "{ended:?}");
    exact(&report);
}

#[test]
fn a_loaded_redis_is_attached_to_and_let_go() {
    let redis = need!(Redis::new());
    let mut server = redis.server().start();
    let pid = redis.pid();
    let load = redis.benchmark("100000").start();
    let mut attached = Attached::to(&[pid], &[]);
    until_attached(&mut attached.running, pid);
    for n in 0..50 {
        assert_eq!(redis.cli(&format!("set key{n} {n}")), "OK");
    }
    let Traced { ended, report } = attached.stop(SIGTERM);
    assert_eq!(ended.status(), 0, "{ended:?}");
    exact(&report);
    assert_eq!(space_of(&report, pid)["began"], "attach");
    assert_eq!(space_of(&report, pid)["ended"], "detach");

    runs_free(pid);
    assert_eq!(load.end().status(), 0);
    assert_eq!(redis.cli("get key49"), "49");
    assert!(!server.has_ended());
    redis.cli("shutdown nosave");
    assert_eq!(server.end().status(), 0);
}

#[test]
fn an_idle_redis_ends_at_the_size_the_kernel_says() {
    let redis = need!(Redis::new());
    let server = redis.server().start();
    let pid = redis.pid();
    let mut attached = Attached::to(&[pid], &[]);
    until_attached(&mut attached.running, pid);
    assert_eq!(redis.benchmark("2000").start().end().status(), 0);
    let kernel = Kernel::of(pid);
    let Traced { ended, report } = attached.stop(SIGINT);
    assert_eq!(ended.status(), 0, "{ended:?}");
    exact(&report);
    kernel.size_is_end_of(space_of(&report, pid));
    server.signal(SIGTERM);
    assert_eq!(server.end().status(), 0);
}

#[test]
fn a_loaded_redis_outlives_the_kill_of_memtrace() {
    let redis = need!(Redis::new());
    let server = redis.server().start();
    let pid = redis.pid();
    let load = redis.benchmark("100000").start();
    let mut attached = Attached::to(&[pid], &[]);
    until_attached(&mut attached.running, pid);
    attached.running.signal(SIGKILL);
    until("memtrace is gone", || attached.running.has_ended());
    runs_free(pid);
    assert_eq!(load.end().status(), 0);
    assert_eq!(redis.cli("ping"), "PONG");
    redis.cli("shutdown nosave");
    assert_eq!(server.end().status(), 0);
}

// ── nginx ───────────────────────────────────────────────────────────────────────────────────────────────

/// The configuration of an nginx that keeps to one folder.
fn nginx_in(folder: &Path) -> PathBuf {
    let configuration = folder.join("nginx.conf");
    let text = "daemon off; master_process on; worker_processes 2; pid nginx.pid; error_log stderr;\n\
        events { worker_connections 64; }\n\
        http { access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
        uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
        server { listen unix:socket; location / { return 200 'hello\\n'; } } }\n";
    // A relative socket is taken from the working directory by the server and by us: absolute it is.
    let text = text.replace(
        "unix:socket",
        &format!("unix:{}", folder.join("socket").display()),
    );
    fs::write(&configuration, text).expect("nginx.conf");
    configuration
}

#[test]
fn nginx_serves_reloads_and_quits() {
    let nginx = need!(find("nginx"));
    let folder = tempdir().expect("a temporary folder");
    let configuration = nginx_in(folder.path());
    let argv = [
        nginx.as_os_str(),
        "-p".as_ref(),
        folder.path().as_ref(),
        "-c".as_ref(),
        configuration.as_ref(),
    ];
    let mut traced = Program::new(argv).folder(folder.path()).start_traced();
    let socket = folder.path().join("socket");
    until("nginx listens", || {
        UnixStream::connect(&socket).is_ok() || traced.running.has_ended()
    });
    let get = || {
        ask(
            &mut UnixStream::connect(&socket).expect("nginx listens"),
            "/",
        )
    };
    (0..100).for_each(|_| assert!(get().ends_with("hello\n")));

    let pid_file = folder.path().join("nginx.pid");
    until("nginx has written its pid", || {
        fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'))
    });
    let master: i32 = fs::read_to_string(&pid_file)
        .expect("nginx.pid")
        .trim()
        .parse()
        .expect("a process id");
    let workers = children(master);
    assert_eq!(workers.len(), 2);
    send(master, SIGHUP);
    until("new workers serve", || {
        children(master).len() == 2 && children(master).iter().all(|pid| !workers.contains(pid))
    });
    assert!(get().ends_with("hello\n"));
    send(master, SIGQUIT);
    let (ended, report) = traced.end();
    assert_eq!(ended.status(), 0, "{ended:?}");
    exact(&report);
    assert_eq!(began(&report, "fork"), 4);
}

// ── compilers and shells ────────────────────────────────────────────────────────────────────────────────

#[test]
fn gcc_compiles_to_the_same_bytes() {
    need!(find("gcc"));
    let folder = tempdir().expect("a temporary folder");
    let source = fixture("workload.c");
    let script = format!(
        "gcc -O2 -pipe -c {} -o object.o && cksum < object.o && gcc object.o -pthread -o program && ./program",
        source.display()
    );
    let (_, report) = sh(&script)
        .folder(folder.path())
        .stderr_varies()
        .succeeds_when_traced();
    assert!(report.programs("/cc1").next().is_some());
}

#[test]
fn bash_pipelines() {
    need!(find("bash"));
    let script = r#"set -o pipefail
        seq 1 20000 | sort -R --random-source=/dev/zero | sort -n | tail -1
        for n in 1 2 3; do (echo "subshell $n"; exit $n); echo $?; done
        yes | head -1000 | wc -l; echo "status ${PIPESTATUS[*]}"
        diff <(seq 5) <(seq 6); sleep 0.05 & wait $!; exec sh -c 'exit 42'"#;
    let (ended, report) = Program::new(["bash", "-c", script]).same_when_traced();
    assert_eq!(ended.status(), 42, "{ended:?}");
    assert!(15 <= report.spaces().len());
}

#[test]
fn busybox_shell_and_pipelines() {
    let busybox = need!(find("busybox"));
    let script = "busybox seq 1 5000 | busybox sort -n | busybox awk '{ s += $1 } END { print s }'; \
        i=0; while [ $i -lt 20 ]; do busybox true; i=$((i + 1)); done; (exit 3)";
    let (ended, _) = Program::new([
        busybox.as_os_str(),
        "sh".as_ref(),
        "-c".as_ref(),
        script.as_ref(),
    ])
    .same_when_traced();
    assert_eq!(ended.status(), 3, "{ended:?}");
}

#[test]
fn a_script_is_executed_by_its_interpreter() {
    let folder = tempdir().expect("a temporary folder");
    let script = folder.path().join("script");
    fs::write(
        &script,
        "#!/bin/sh\necho \"$0 $1\" | wc -w; kill -TERM $$\n",
    )
    .expect("a script");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("chmod");
    let (ended, _) = Program::new([script.as_os_str(), "argument".as_ref()]).same_when_traced();
    assert_eq!(ended.status(), 128 + 15, "{ended:?}");
}

// ── compiled programs ───────────────────────────────────────────────────────────────────────────────────

/// `fixtures/programs/workload.c` knows its own peak.
#[track_caller]
fn the_workload_is_exact(program: Found<PathBuf>) {
    let program = need!(program);
    let (ended, report) = Program::new([program])
        .stderr_varies()
        .succeeds_when_traced();
    let space = space_of_program(&report);
    Kernel::told_by(&ended).peak_is_that_of(space);
    Kernel::told_by(&ended).hwm_is_that_of(space);
    assert_eq!(began(&report, "fork"), 1);
}

#[test]
fn a_dynamic_program() {
    the_workload_is_exact(compiled(
        "gcc",
        "workload.c",
        "dynamic",
        &["-O2", "-pthread"],
    ));
}

#[test]
fn a_static_glibc_program() {
    the_workload_is_exact(compiled(
        "gcc",
        "workload.c",
        "static",
        &["-O2", "-pthread", "-static"],
    ));
}

#[test]
fn a_static_musl_program() {
    the_workload_is_exact(compiled(
        "musl-gcc",
        "workload.c",
        "musl",
        &["-O2", "-static"],
    ));
}

#[test]
fn a_dynamic_32_bit_program() {
    the_workload_is_exact(compiled(
        "gcc",
        "workload.c",
        "m32",
        &["-O2", "-pthread", "-m32"],
    ));
}

#[test]
fn a_static_32_bit_program() {
    the_workload_is_exact(compiled(
        "gcc",
        "workload.c",
        "m32-static",
        &["-O2", "-pthread", "-m32", "-static"],
    ));
}

#[test]
fn a_32_bit_program_started_by_a_64_bit_one_that_goes_on() {
    let small = need!(compiled(
        "gcc",
        "workload.c",
        "m32-child",
        &["-O2", "-pthread", "-m32"]
    ));
    let large = need!(compiled(
        "gcc",
        "workload.c",
        "m64-parent",
        &["-O2", "-pthread"]
    ));
    let (small, large) = (small.display(), large.display());
    sh(&format!("{large} && {small} && {large} && exec {small}"))
        .stderr_varies()
        .succeeds_when_traced();
}

// ── sanitizers ──────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_asan_program_without_the_leak_check() {
    let program = need!(compiled(
        "gcc",
        "workload.c",
        "asan",
        &["-O1", "-pthread", "-fsanitize=address"]
    ));
    let argv = [program.as_os_str(), "leak".as_ref()];
    let program = Program::new(argv)
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .stderr_varies();
    let (ended, report) = program.succeeds_when_traced();
    let space = space_of_program(&report);
    Kernel::told_by(&ended).peak_is_that_of(space);
    // The shadow is accessible and promised by nobody.
    assert!(10 << 40 < bytes(&space["committed"]["noreserve"]));
}

/// The leak checker is a tracer itself, and a process has but one: it gives up, whoever traces.
#[test]
fn the_leak_check_of_a_program_without_leaks_gives_up_under_a_tracer() {
    let program = need!(compiled(
        "gcc",
        "workload.c",
        "lsan",
        &["-O1", "-pthread", "-fsanitize=address"]
    ));
    let program = Program::new([program]).env("ASAN_OPTIONS", "detect_leaks=1");
    let alone = program.start().end();
    assert_eq!(alone.status(), 0, "{alone:?}");
    let (traced, report) = program.start_traced().end();
    assert_eq!(traced.status(), 1, "{traced:?}");
    assert_eq!(traced.stdout, alone.stdout);
    assert!(
        traced
            .stderr
            .contains("LeakSanitizer has encountered a fatal error"),
        "{traced:?}"
    );
    exact(&report);
}

#[test]
fn a_tsan_program() {
    let program = need!(compiled(
        "gcc",
        "workload.c",
        "tsan",
        &["-O1", "-pthread", "-fsanitize=thread"]
    ));
    let program = Program::new([program]).stderr_varies();
    // Where the kernel spreads addresses more than the runtime expects, it does not even start.
    let alone = program.start().end();
    if alone.stderr.contains("unexpected memory mapping") {
        return skip("ThreadSanitizer does not run on this kernel");
    }
    program.succeeds_when_traced();
}

// ── stress-ng ───────────────────────────────────────────────────────────────────────────────────────────

#[track_caller]
fn stress(options: &str) {
    let stress_ng = need!(find("stress-ng"));
    let folder = tempdir().expect("a temporary folder");
    let mut argv: Vec<&str> = vec![stress_ng.to_str().expect("a path")];
    argv.extend([
        "--quiet",
        "--seed",
        "7",
        "--temp-path",
        folder.path().to_str().expect("a path"),
        "--timeout",
        "60",
    ]);
    argv.extend(options.split_whitespace());
    Program::new(argv)
        .folder(folder.path())
        .stderr_varies()
        .succeeds_when_traced();
}

macro_rules! stressors {
    ($($name:ident: $options:literal,)*) => {
        mod stressor {
            $(#[test] fn $name() { super::stress($options); })*
        }
    };
}

// Short runs; those without a number of operations end by their time.
stressors! {
    bigheap: "--bigheap 1 --bigheap-growth 1m --bigheap-ops 100",
    brk: "--brk 1 --brk-ops 1000",
    clone: "--clone 1 --clone-ops 30",
    daemon: "--daemon 1 --daemon-ops 10",
    dynlib: "--dynlib 1 --dynlib-ops 20",
    exit_group: "--exit-group 1 --exit-group-ops 10",
    fork: "--fork 1 --fork-ops 50",
    kill: "--kill 1 --kill-ops 100",
    madvise: "--madvise 1 --madvise-ops 1",
    malloc: "--malloc 1 --malloc-ops 3000 --malloc-pthreads 2",
    mcontend: "--mcontend 1 --timeout 2",
    memfd: "--memfd 1 --memfd-bytes 4m --memfd-ops 3",
    mincore: "--mincore 1 --mincore-ops 5",
    mlock: "--mlock 1 --mlock-ops 200",
    mmap: "--mmap 2 --mmap-bytes 2m --mmap-ops 1",
    mmap_file: "--mmap 1 --mmap-bytes 1m --mmap-ops 1 --mmap-file --mmap-mprotect",
    mmapaddr: "--mmapaddr 1 --mmapaddr-ops 300",
    mmapfixed: "--mmapfixed 1 --timeout 2",
    mmaphuge: "--mmaphuge 1 --mmaphuge-ops 2",
    mmapmany: "--mmapmany 1 --mmapmany-ops 1",
    mprotect: "--mprotect 1 --mprotect-ops 300",
    mremap: "--mremap 1 --mremap-bytes 4m --mremap-ops 10",
    msync: "--msync 1 --msync-bytes 1m --msync-ops 10",
    munmap: "--munmap 1 --munmap-ops 2",
    numa: "--numa 1 --numa-ops 1",
    pagemove: "--pagemove 1 --pagemove-bytes 1m --pagemove-ops 2",
    pageswap: "--pageswap 1 --pageswap-ops 10",
    pthread: "--pthread 1 --pthread-ops 30",
    remap: "--remap 1 --remap-ops 1",
    resources: "--resources 1 --resources-ops 2",
    rmap: "--rmap 1 --rmap-ops 5",
    secretmem: "--secretmem 1 --timeout 2",
    shm: "--shm 1 --shm-objs 8 --shm-bytes 1m --shm-ops 5",
    shm_sysv: "--shm-sysv 1 --shm-sysv-bytes 1m --shm-sysv-ops 10",
    sigsegv: "--sigsegv 1 --sigsegv-ops 100",
    stack: "--stack 1 --stack-ops 1",
    stackmmap: "--stackmmap 1 --stackmmap-ops 10",
    sysbadaddr: "--sysbadaddr 1 --sysbadaddr-ops 100",
    tlb_shootdown: "--tlb-shootdown 1 --tlb-shootdown-ops 10",
    userfaultfd: "--userfaultfd 1 --userfaultfd-bytes 1m --userfaultfd-ops 10",
    vfork: "--vfork 1 --vfork-ops 50",
    vforkmany: "--vforkmany 1 --timeout 2",
    vm: "--vm 2 --vm-bytes 8m --vm-ops 20",
    vm_addr: "--vm-addr 1 --vm-addr-ops 2",
    vm_rw: "--vm-rw 1 --vm-rw-bytes 2m --vm-rw-ops 5",
    zombie: "--zombie 1 --zombie-ops 30",
}
