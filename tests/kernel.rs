//! The model against the kernel: tracees make every kind of call, memtrace compares its model with
//! `/proc/PID/maps` after every event, and whatever the tracees print must be what they print untraced.

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "one test pins the processes it starts"
)]

mod support;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use support::*;

const EVERY: &[&str] = &["--verify=every"];
const EXIT: &[&str] = &["--verify=exit"];

#[test]
fn every_memory_call_leaves_the_model_equal_to_the_maps() {
    each_case_same_as_untraced(EVERY, "vma", &["huge", "maxmap"]);
}

#[test]
fn forked_children_are_as_exact_as_their_parent() {
    same_as_untraced(EVERY, "vma", &["all"]);
}

#[test]
fn huge_pages_are_mapped_in_their_own_size() {
    same_as_untraced(EVERY, "vma", &["huge"]);
}

#[test]
fn a_process_with_as_many_mappings_as_the_kernel_allows_is_exact() {
    same_as_untraced(EXIT, "vma", &["maxmap"]);
}

#[test]
fn calls_checked_only_at_the_end_are_exact_too() {
    each_case_same_as_untraced(EXIT, "vma", &["huge", "maxmap"]);
    each_case_same_as_untraced(&["--verify=7"], "vma", &["huge", "maxmap"]);
}

/// Each row of the commit accounting ends with its mappings in place; the tracee sums up its own smaps last of all.
#[test]
fn totals_at_the_end_are_those_the_program_read_from_its_own_smaps() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut failures = Vec::new();
    for row in cases("commit") {
        let totals = folder.path().join(&row);
        let program = [tracee("commit").into_os_string(), row.clone().into()];
        let Traced { ended, report } = traced_with(EVERY, &program, |memtrace| {
            memtrace.env("TRACEE_TOTALS", &totals);
        });
        if ended.status() == 77 {
            skipped(format!("commit {row}: {}", ended.stdout));
            continue;
        }
        if ended.status() != 0 {
            failures.push(format!("{row}: {ended:?}"));
            continue;
        }
        failures.extend(
            report
                .problems()
                .into_iter()
                .map(|problem| format!("{row}: {problem}")),
        );
        let kernel: HashMap<String, u64> = fs::read_to_string(&totals)
            .expect("the tracee tells its totals")
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(what, bytes)| (what.to_owned(), bytes.parse().expect("a number")))
            .collect();
        let Some(space) = report.programs("commit").next() else {
            failures.push(format!("{row}: no space of the program"));
            continue;
        };
        let parts = &space["committed"]["parts"];
        let figures = [
            ("mapped", &space["mapped"]["end"]),
            ("reserved", &space["reserved"]["end"]),
            ("special", &parts["special"]),
            // MAP_DROPPABLE shows as `nr` without having been asked for so.
            (
                "noreserve",
                if row == "droppable" {
                    &serde_json::Value::Null
                } else {
                    &space["committed"]["noreserve"]
                },
            ),
            ("charged", &space["charged"]["end"]),
        ];
        for (what, reported) in figures
            .into_iter()
            .filter(|(_, reported)| !reported.is_null())
        {
            // Only the first thread's stack may have grown between the look and the end.
            let (reported, kernel) = (bytes(reported), kernel[what]);
            if reported != kernel {
                failures.push(format!(
                    "{row}: {what} {reported}, the kernel says {kernel}"
                ));
            }
        }
        if space["charged"]["exact"] != true {
            failures.push(format!("{row}: charged was not read from smaps"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn threads_that_change_one_space_at_once_leave_no_drift() {
    for threads in ["2", "4", "8"] {
        same_as_untraced(EVERY, "threads", &[threads, "150"]);
    }
}

#[test]
fn many_threads_mapping_and_unmapping_need_no_resync() {
    for mode in ["storm", "lockstep", "arenas", "forks"] {
        same_as_untraced(EXIT, "threads", &["8", "2000", mode]);
    }
}

#[test]
fn threads_on_one_cpu_leave_no_drift() {
    let path = tracee("threads");
    let program = [path.as_os_str(), OsStr::new("4"), OsStr::new("400")];
    let Traced { ended, report } = traced_with(EVERY, &program, |memtrace| {
        let pin = || {
            let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            let all = size_of::<libc::cpu_set_t>();
            unsafe {
                libc::sched_getaffinity(0, all, &mut cpus);
                let first = (0..1024)
                    .find(|cpu| libc::CPU_ISSET(*cpu, &cpus))
                    .unwrap_or(0);
                libc::CPU_ZERO(&mut cpus);
                libc::CPU_SET(first, &mut cpus);
                libc::sched_setaffinity(0, all, &cpus);
            }
            Ok(())
        };
        unsafe { memtrace.pre_exec(pin) };
    });
    assert_eq!(ended.status(), 0, "{ended:?}");
    report.assert_exact();
}

/// The seed is in the failure, and `random SEED OPS THREADS` runs it again.
#[test]
fn random_calls_right_and_wrong_leave_no_drift() {
    for seed in 1..=6 {
        same_as_untraced(EVERY, "random", &[&seed.to_string(), "800", "1"]);
    }
    for (seed, threads) in [(11, "2"), (12, "3"), (13, "4")] {
        same_as_untraced(EVERY, "random", &[&seed.to_string(), "300", threads]);
    }
}

#[test]
fn random_calls_of_a_new_seed_leave_no_drift() {
    let seed = || {
        (fs::read("/proc/sys/kernel/random/uuid")
            .expect("a random number")
            .iter()
            .fold(0u64, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(*byte as u64)
            })
            % 1_000_000_007
            + 100)
            .to_string()
    };
    for threads in ["1", "2", "4"] {
        same_as_untraced(EXIT, "random", &[&seed(), "5000", threads]);
        same_as_untraced(EVERY, "random", &[&seed(), "500", threads]);
    }
}

#[test]
fn every_way_to_make_a_task_is_followed() {
    each_case_same_as_untraced(EVERY, "clones", &[]);
}

#[test]
fn every_way_to_exec_begins_a_new_space() {
    each_case_same_as_untraced(EVERY, "execs", &["life", "run", "against_exit"]);
}

#[test]
fn exec_and_exit_at_once_harm_nobody() {
    same_as_untraced(EXIT, "execs", &["against_exit"]);
}

#[test]
fn thirty_execs_of_one_process_are_thirty_one_spaces() {
    let Some(traced) = same_as_untraced(EVERY, "execs", &["life", "30"]) else {
        return;
    };
    assert_eq!(traced.report.programs("execs").count(), 31);
    let ends: Vec<_> = traced
        .report
        .spaces()
        .iter()
        .map(|space| space["ended"].as_str().unwrap_or("?"))
        .collect();
    assert_eq!(
        ends.iter().filter(|end| **end == "exec").count(),
        30,
        "{ends:?}"
    );
}

#[test]
fn every_way_to_end_is_seen_to_its_end() {
    each_case_same_as_untraced(EVERY, "exits", &[]);
}

#[test]
fn a_zombie_leader_hides_nothing() {
    same_as_untraced(EVERY, "exits", &["leader"]);
}

#[test]
fn filters_of_the_program_itself_answer_as_untraced() {
    each_case_same_as_untraced(EVERY, "filters", &["strict", "notify_memory"]);
}

/// A supervisor that lets a call run hides it from every tracer: the program must not notice anything, and the
/// difference must be found, not denied.
#[test]
fn calls_that_another_supervisor_lets_run_harm_nobody() {
    let path = tracee("filters");
    let untraced = run(Command::new(&path).arg("notify_memory"));
    if untraced.status() != 0 {
        return skipped(format!("filters notify_memory: {}", untraced.stdout));
    }
    let traced = traced(EVERY, &[path.as_os_str(), OsStr::new("notify_memory")]);
    assert_eq!(
        (traced.ended.status(), &traced.ended.stdout),
        (0, &untraced.stdout)
    );
    for space in traced.report.spaces() {
        assert_eq!(
            bytes(&space["mapped"]["end"]),
            bytes(&space["reserved"]["end"]) + bytes(&space["committed"]["end"])
        );
    }
}

#[test]
fn calls_made_by_int_0x80_are_followed() {
    each_case_same_as_untraced(EVERY, "int80", &[]);
}

/// Compiles a tracee of `fixtures/tracees/c` for 32 bits.
fn compiled_for_32_bits(name: &str, folder: &std::path::Path) -> Option<std::path::PathBuf> {
    let gcc = installed("gcc")?;
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/tracees/c")
        .join(name);
    let program = folder.join("program32");
    let options = "-m32 -O1 -nostdlib -static -ffreestanding -fno-stack-protector -fno-pie -no-pie -fcf-protection=none -o";
    let compiled = run(Command::new(gcc)
        .args(options.split(' '))
        .arg(&program)
        .arg(source));
    if compiled.status() != 0 {
        skipped(format!(
            "gcc does not compile for 32 bits: {}",
            compiled.stderr.lines().next().unwrap_or("")
        ));
        return None;
    }
    if run(&mut Command::new(&program)).status() != 7 {
        skipped("this kernel does not run 32-bit programs");
        return None;
    }
    Some(program)
}

#[test]
fn a_32_bit_program_is_as_exact_as_any() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(program) = compiled_for_32_bits("i386.c", folder.path()) else {
        return;
    };
    let Traced { ended, report } = traced(EVERY, &[&program]);
    assert_eq!(
        (ended.status(), ended.stdout.as_str()),
        (7, "32 bits\n"),
        "{ended:?}"
    );
    report.assert_exact();
    // Two calls of different shape: the kernel names the older one mmap.
    let calls = &report.spaces()[0]["calls"];
    let made = ["mmap", "mmap2"].map(|name| calls[name]["count"].as_u64().unwrap_or(0));
    assert!(made[0] == 2 && made[1] >= 3, "{calls}");
}

#[test]
fn a_64_bit_program_may_become_a_32_bit_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(program) = compiled_for_32_bits("i386.c", folder.path()) else {
        return;
    };
    let path = tracee("execs");
    let Traced { ended, report } = traced(
        EVERY,
        &[path.as_os_str(), OsStr::new("run"), program.as_os_str()],
    );
    assert_eq!(ended.status(), 7, "{ended:?}");
    report.assert_exact();
}

#[test]
fn stacks_that_grow_by_themselves_are_no_drift() {
    each_case_same_as_untraced(EVERY, "growstack", &[]);
}

#[test]
fn growth_of_a_stack_is_counted() {
    let Some(traced) = same_as_untraced(EVERY, "growstack", &["recursion"]) else {
        return;
    };
    let grown = traced.report.sum("verify/grown");
    assert!(grown >= 2 << 20, "{grown} bytes grown");
}

#[test]
fn mappings_that_other_calls_make_are_followed() {
    each_case_same_as_untraced(EVERY, "rings", &[]);
}

#[test]
fn a_call_that_waits_for_another_call_does_not_wait_for_ever() {
    each_case_same_as_untraced(EVERY, "uffd", &["hold"]);
}

#[test]
fn ten_thousand_threads_are_followed() {
    same_as_untraced(EXIT, "manythreads", &["10000"]);
    same_as_untraced(EVERY, "manythreads", &["100"]);
}

#[test]
fn a_storm_of_forks_is_followed() {
    same_as_untraced(EVERY, "forkstorm", &["100"]);
    for mode in ["exec", "vfork", "nested"] {
        same_as_untraced(EXIT, "forkstorm", &["100", mode]);
    }
}

#[test]
fn a_space_per_fork_and_per_exec() {
    let Some(traced) = same_as_untraced(EXIT, "forkstorm", &["20"]) else {
        return;
    };
    assert_eq!(traced.report.spaces().len(), 21);
    let Some(traced) = same_as_untraced(EXIT, "forkstorm", &["20", "vfork"]) else {
        return;
    };
    assert_eq!(
        traced.report.spaces().len(),
        21,
        "a vfork child shares its parent's space until it execs"
    );
    assert_eq!(traced.report.programs("true").count(), 20);
}

/// A hundred pairs more are a hundred calls of each kind and their bytes more, no more and no less.
#[test]
fn calls_and_bytes_are_counted_one_by_one() {
    let run = |pairs: &str| {
        let path = tracee("pairs");
        let Traced { ended, report } = traced(EXIT, &[path.as_os_str(), OsStr::new(pairs)]);
        assert_eq!(ended.status(), 0, "{ended:?}");
        report.assert_exact();
        report
    };
    let (few, more) = (run("100"), run("200"));
    let grew = |path: &str| more.sum(path) - few.sum(path);
    assert_eq!(grew("calls/mmap/count"), 100);
    assert_eq!(grew("calls/munmap/count"), 100);
    assert_eq!(grew("calls/mmap/bytes"), 100 * 4 * 4096);
    assert_eq!(grew("flow/map"), 100 * 4 * 4096);
    assert_eq!(grew("flow/release"), 100 * 4 * 4096);
    assert_eq!(grew("flow/reserve"), 0);
}
