//! memtrace as its own tracee.

mod support;

use std::path::Path;

use support::{MEMTRACE, run};

#[test]
fn memtrace_under_memtrace_says_why_not_or_works() {
    let memtrace = Path::new(MEMTRACE);
    let ended = run(&mut support::memtrace(
        &["-qq"],
        &[
            memtrace.as_os_str(),
            "-qq".as_ref(),
            "--".as_ref(),
            "/bin/sh".as_ref(),
            "-c".as_ref(),
            "exit 5".as_ref(),
        ],
    ));
    assert!([5, 125].contains(&ended.status()), "{ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}
