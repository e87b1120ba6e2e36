//! Calls that the kernel refuses: what memtrace says refused them must be what did.
//!
//! The tracee sets its own limits and then breaks one of them, so the cause is known.

mod support;

use serde_json::Value;
use support::*;

/// The last refused call of a case that ran; `None` if it cannot run here.
fn refusal(case: &str) -> Option<Value> {
    let program = [tracee("limits").into_os_string(), case.into()];
    let Traced { ended, report } = traced(&[], &program);
    if ended.status() == 77 {
        skipped(format!("limits {case}: {}", ended.stdout));
        return None;
    }
    assert_eq!(ended.status(), 0, "{case}: {ended:?}");
    assert!(ended.stdout.contains("errno "), "{case}: {}", ended.stdout);
    let refused = report.0["refused"].as_array().expect("an array");
    let last = refused.last().cloned();
    Some(last.unwrap_or_else(|| panic!("{case}: nothing was refused: {ended:?}")))
}

/// The only cause of a case, proven: `cause` of `call`, `over` by so much if it is a matter of amounts.
#[track_caller]
fn proven(case: &str, call: &str, cause: &str, over: std::ops::Range<u64>) {
    let Some(refusal) = refusal(case) else { return };
    assert_eq!(refusal["call"], call, "{case}: {refusal:#}");
    assert_eq!(refusal["proven"], true, "{case}: {refusal:#}");
    let causes = refusal["causes"].as_array().expect("an array");
    assert_eq!(causes.len(), 1, "{case}: {refusal:#}");
    assert_eq!(causes[0]["cause"], cause, "{case}: {refusal:#}");
    if !over.is_empty() {
        let amount = causes[0]["over"].as_u64().expect("an amount");
        assert!(over.contains(&amount), "{case}: {refusal:#}");
        let part = |key: &str| causes[0][key].as_u64().expect("an amount");
        assert_eq!(part("used") + part("asked") - part("limit"), amount);
    }
}

const MIB: u64 = 1 << 20;
const NO_AMOUNT: std::ops::Range<u64> = 0..0;

#[test]
fn the_address_space_limit_that_a_program_set_itself_is_named_with_the_excess() {
    // The limit is VmSize and 8 MiB; whatever the program maps in between makes the excess larger.
    proven("as", "mmap", "rlimit_as", 92 * MIB..93 * MIB);
    proven("as-mremap", "mremap", "rlimit_as", 24 * MIB..25 * MIB);
    proven("shmat", "shmat", "rlimit_as", 56 * MIB..57 * MIB);
}

#[test]
fn the_data_limit_is_told_from_the_address_space_limit() {
    proven("data-mmap", "mmap", "rlimit_data", 42 * MIB..43 * MIB);
    proven(
        "data-mprotect",
        "mprotect",
        "rlimit_data",
        42 * MIB..43 * MIB,
    );
    proven("data-brk", "brk", "rlimit_data", 46 * MIB..60 * MIB);
}

#[test]
fn locked_memory_is_counted_as_the_kernel_counts_it() {
    proven(
        "memlock",
        "mlock",
        "rlimit_memlock",
        (32 << 10)..(32 << 10) + 1,
    );
    proven(
        "memlock-piecewise",
        "mlock",
        "rlimit_memlock",
        (16 << 10)..(16 << 10) + 1,
    );
    proven("memlock-none", "mlock", "rlimit_memlock", NO_AMOUNT);
    proven("mlockall", "mlockall", "rlimit_memlock", 1..u64::MAX);
}

#[test]
fn a_lock_that_failed_after_it_was_counted_is_not_blamed_on_the_limit() {
    proven("mlock-hole", "mlock", "not_mapped", NO_AMOUNT);
    let Some(refusal) = refusal("mlock-no-access") else {
        return;
    };
    assert_eq!(refusal["proven"], false, "{refusal:#}");
    let causes = refusal["causes"].to_string();
    assert!(
        causes.contains("\"pages\"") && !causes.contains("rlimit"),
        "{refusal:#}"
    );
}

#[test]
fn the_number_of_mappings_is_the_kernels_own_count() {
    proven("maps", "mmap", "max_map_count", 1..2);
    proven("maps-split", "munmap", "max_map_count", 1..3);
}

#[test]
fn no_room_is_told_by_the_largest_gap() {
    proven("room", "mmap", "no_room", 1 << 49..1 << 50);
    proven("room-32bit", "mmap", "no_room", 1 << 30..3 << 30);
    proven("in-place", "mremap", "in_the_way", NO_AMOUNT);
    proven("brk-in-the-way", "brk", "in_the_way", NO_AMOUNT);
}

#[test]
fn a_hole_in_the_range_is_named_by_its_address() {
    for (case, call, hole) in [
        ("hole", "mprotect", "0x200000002000"),
        ("hole-madvise", "madvise", "0x200000001000"),
    ] {
        proven(case, call, "not_mapped", NO_AMOUNT);
        let refusal = refusal(case).expect("it ran just now");
        assert_eq!(refusal["causes"][0]["address"], hole, "{refusal:#}");
    }
}

#[test]
fn a_sealed_mapping_is_named_by_its_address() {
    for (case, call, seal) in [
        ("sealed", "munmap", "0x200000001000"),
        ("sealed-fixed", "mmap", "0x200000002000"),
    ] {
        let Some(refusal) = refusal(case) else { return };
        assert_eq!(refusal["call"], call);
        assert_eq!(refusal["proven"], true, "{refusal:#}");
        assert_eq!(refusal["causes"][0]["cause"], "sealed");
        assert_eq!(refusal["causes"][0]["address"], seal, "{refusal:#}");
    }
}

#[test]
fn more_than_all_memory_in_one_call_is_overcommit() {
    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").expect("a mode");
    match mode.trim() {
        "0" => proven("overcommit", "mmap", "overcommit", 1..1 << 46),
        "2" => proven("overcommit", "mmap", "commit_limit", 1..u64::MAX),
        _ => skipped("the kernel promises all that is asked for"),
    }
}

#[test]
fn what_may_not_be_mapped_at_all_is_no_matter_of_amounts() {
    proven("low", "mmap", "mmap_min_addr", NO_AMOUNT);
    let Some(refusal) = refusal("noexec") else {
        return;
    };
    assert_eq!(refusal["error"], "EPERM", "{refusal:#}");
    assert_eq!(refusal["proven"], false, "{refusal:#}");
    assert!(
        refusal["causes"].to_string().contains("noexec"),
        "{refusal:#}"
    );
}

#[test]
fn the_timeline_says_it_below_the_call_and_the_summary_in_a_section() {
    let program = [tracee("limits").into_os_string(), "as".into()];
    let ended = run(memtrace(&[], &program).env("LANG", "C.UTF-8"));
    let text = &ended.stderr;
    let mut lines = text.lines();
    let call = lines.find(|line| line.contains("ENOMEM"));
    assert!(call.is_some_and(|line| line.contains("mmap")), "{text}");
    let below = lines.next().unwrap_or_default().trim_start();
    assert!(
        below.starts_with("RLIMIT_AS ") && below.ends_with(" over"),
        "{text}"
    );
    assert!(
        below.contains("mapped + 100.0 MiB asked, 92.0 MiB over"),
        "{text}"
    );
    assert!(text.contains("failed calls"), "{text}");
    assert!(text.contains("mmap ENOMEM, first at 0."), "{text}");

    let ended = run(&mut memtrace(&["--format", "jsonl"], &program));
    let failures: Vec<Value> = ended
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| !line["failure"].is_null())
        .collect();
    let last = failures.last().expect("a line about the refused call");
    assert_eq!(last["error"], "ENOMEM");
    assert_eq!(last["failure"]["causes"][0]["cause"], "rlimit_as");
    assert!(last["failure"]["figures"]["mapped"].is_u64(), "{last:#}");
}

/// The causes of the last refused call, each with its limit and what was asked for.
fn causes(options: &[&str], case: &str) -> Option<(bool, Value)> {
    let program = [
        tracee("limits").into_os_string(),
        case.into(),
        "stay".into(),
    ];
    let Traced { ended, report } = traced(options, &program);
    if ended.status() == 77 {
        skipped(format!("limits {case}: {}", ended.stdout));
        return None;
    }
    assert_eq!(ended.status(), 0, "{case}: {ended:?}");
    let refused = report.0["refused"].as_array().expect("an array");
    let last = refused.last();
    let last = last.unwrap_or_else(|| panic!("{case} {options:?}: nothing was refused"));
    let causes = last["causes"].as_array().expect("an array").iter();
    let part = |cause: &Value| {
        let keys = ["cause", "limit", "asked", "address"];
        Value::from(keys.map(|key| cause[key].clone()).to_vec())
    };
    let causes: Vec<Value> = causes.map(part).collect();
    Some((last["proven"] == true, causes.into()))
}

#[test]
fn the_kernel_backend_names_the_same_causes_as_candidates() {
    let tried = run(&mut memtrace(
        &["-qq", "--backend", "kernel"],
        &["/bin/true"],
    ));
    if tried.status() != 0 {
        return skipped(tried.stderr.trim());
    }
    // Those whose figures do not depend on where the kernel puts things.
    let cases = [
        "data-brk",
        "memlock-piecewise",
        "memlock-none",
        "mlock-hole",
        "hole",
        "hole-madvise",
        "sealed",
        "in-place",
        "low",
    ];
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || {
                let Some((proven, by_ptrace)) = causes(&["--backend", "ptrace"], case) else {
                    return;
                };
                let by_kernel = causes(&["--backend", "kernel"], case);
                assert!(proven, "{case}");
                // Its limits may have been others when it was refused.
                assert_eq!(by_kernel, Some((false, by_ptrace)), "{case}");
            });
        }
    });
    for case in ["as", "data-mmap"] {
        let by_kernel = causes(&["--backend", "kernel"], case);
        let (proven, causes) = by_kernel.expect("it runs everywhere");
        let only = format!("rlimit_{}", case.trim_end_matches("-mmap"));
        assert_eq!(causes[0][0], only.as_str(), "{case}: {causes}");
        assert_eq!((proven, causes.as_array().map(Vec::len)), (false, Some(1)));
    }
}
