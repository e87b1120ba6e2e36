//! `memtrace explain` on recorded trees of the kernel's files: cgroups of version 2, and machines whose
//! settings a test must not change.

use std::fs;

use memtrace::report::explain::{Cause, Facts, Reason, Verdict, verdict};
use memtrace::tracee::Outside;
use memtrace::units::{Bytes, Tid};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A machine with one process of interest, 4711, and its cgroup of version 2, `/pod/app`.
struct Tree {
    folder: TempDir,
}

const STATUS: &str = "Name:\tserver\nState:\tS (sleeping)\nTgid:\t4711\nPid:\t4711\nVmPeak:\t 2000000 kB\n\
                      VmSize:\t 2000000 kB\nVmLck:\t 0 kB\nVmHWM:\t 30000 kB\nVmRSS:\t 30000 kB\n\
                      RssAnon:\t 20000 kB\nRssFile:\t 10000 kB\nRssShmem:\t 0 kB\nVmData:\t 60000 kB\n\
                      VmPTE:\t 200 kB\nVmSwap:\t 0 kB\nHugetlbPages:\t 0 kB\n";

/// 1.9 GiB reserved, 60 MiB committed: what a Go program shows.
const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 08:01 42                                 /srv/server\n\
Rss:                1024 kB\nAnonymous:             0 kB\nVmFlags: rd ex mr mw me \n\
c000000000-c003c00000 rw-p 00000000 00:00 0 \n\
Size:              61440 kB\nRss:               20000 kB\nAnonymous:         20000 kB\n\
LazyFree:              0 kB\nAnonHugePages:      4096 kB\nVmFlags: rd wr mr mw me ac \n\
c003c00000-c07a000000 ---p 00000000 00:00 0 \n\
Size:            1937408 kB\nRss:                   0 kB\nVmFlags: mr mw me nr \n\
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]\n\
Rss:                  16 kB\nAnonymous:            16 kB\nVmFlags: rd wr mr mw me gd ac \n";

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     \n\
Max data size             unlimited            unlimited            bytes     \n\
Max stack size            8388608              unlimited            bytes     \n\
Max locked memory         65536                65536                bytes     \n\
Max address space         unlimited            unlimited            bytes     \n";

const MEMINFO: &str = "MemTotal:       16000000 kB\nMemAvailable:   12000000 kB\nSwapTotal:             0 kB\n\
                       SwapFree:              0 kB\nCommitLimit:     8000000 kB\nCommitted_AS:    7800000 kB\n";

const MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";

impl Tree {
    fn new() -> Tree {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = Tree { folder };
        tree.write("proc/4711/status", STATUS);
        tree.write("proc/4711/smaps", SMAPS);
        tree.write("proc/4711/limits", LIMITS);
        tree.write("proc/4711/cgroup", "0::/pod/app\n");
        tree.write("proc/self/mountinfo", MOUNTS);
        tree.write("proc/meminfo", MEMINFO);
        tree.write("proc/vmstat", "pgfault 1\noom_kill 0\n");
        tree.write("proc/sys/vm/overcommit_memory", "0\n");
        tree.write("proc/sys/vm/max_map_count", "65530\n");
        tree.group("pod", "max", 1 << 30, "anon 20480000\nfile 0\nshmem 0\n");
        tree.group("pod/app", &(64 * MIB).to_string(), 30 * MIB, HEALTHY);
        tree.write("sys/fs/cgroup/pod/app/cgroup.procs", "4711\n");
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }

    fn group(&self, path: &str, max: &str, current: u64, stat: &str) {
        let write = |file: &str, text: &str| {
            self.write(&format!("sys/fs/cgroup/{path}/{file}"), text);
        };
        write("memory.max", &format!("{max}\n"));
        write("memory.high", "max\n");
        write("memory.swap.max", "max\n");
        write("memory.swap.current", "0\n");
        write("memory.current", &format!("{current}\n"));
        write("memory.stat", stat);
        write("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n");
        write("cgroup.events", "populated 1\nfrozen 0\n");
        write("cgroup.procs", "");
    }

    /// The process's own cgroup: 64 MiB at most.
    fn app(&self, current: u64, stat: &str) {
        self.group("pod/app", &(64 * MIB).to_string(), current, stat);
        self.write("sys/fs/cgroup/pod/app/cgroup.procs", "4711\n");
    }

    fn facts(&self) -> Facts {
        let outside = Outside::below(self.folder.path());
        outside.facts(Tid(4711)).expect("it is there")
    }

    #[track_caller]
    fn is(&self, cause: Cause, vsz_matters: bool) -> Verdict {
        let facts = self.facts();
        let verdict = verdict(&facts);
        assert_eq!(verdict.cause, cause, "{verdict:#?}\n{facts:#?}");
        assert_eq!(verdict.vsz_matters, vsz_matters, "{verdict:#?}");
        verdict
    }
}

/// 20 MiB anonymous, 10 MiB of cache.
const HEALTHY: &str = "anon 20480000\nfile 10240000\nkernel 524288\nshmem 0\nsock 0\nactive_file 5120000\n\
                       inactive_file 5120000\nslab_reclaimable 100000\npagetables 204800\n";

#[test]
fn a_large_vsz_in_a_small_cgroup_is_nothing_to_worry_about() {
    let tree = Tree::new();
    let facts = tree.facts();
    let space = facts.space.as_ref().expect("a space");
    let split = space.split.as_ref().expect("smaps was read");
    assert_eq!(split.reserved.now, Bytes(0x7640_0000));
    assert_eq!(split.reserved_resident, Some(Bytes(0)));
    assert_eq!(space.mapped.now, split.reserved.now + split.committed.now);
    assert_eq!(facts.memory.huge, Some(Bytes(4 * MIB)));
    tree.is(Cause::None, false);
}

#[test]
fn anonymous_memory_near_memory_max_is_the_cause() {
    let tree = Tree::new();
    tree.write(
        "proc/4711/status",
        &STATUS.replace("RssAnon:\t 20000 kB", "RssAnon:\t 61000 kB"),
    );
    tree.app(63 * MIB, "anon 62464000\nfile 1000000\nkernel 524288\nshmem 0\nactive_file 500000\ninactive_file 500000\n");
    tree.is(Cause::CgroupAnon, false);
}

#[test]
fn free_swap_puts_the_limit_off() {
    let tree = Tree::new();
    tree.app(63 * MIB, "anon 62464000\nfile 1000000\nkernel 524288\nshmem 0\nactive_file 500000\ninactive_file 500000\n");
    tree.write(
        "proc/meminfo",
        &MEMINFO.replace("SwapFree:              0", "SwapFree:        2000000"),
    );
    tree.is(Cause::None, false);
    // Unless the cgroup may not have any.
    tree.write("sys/fs/cgroup/pod/memory.swap.max", "0\n");
    assert_ne!(verdict(&tree.facts()).cause, Cause::None);
}

#[test]
fn page_cache_is_a_cause_only_where_the_limit_was_met() {
    let stat = "anon 10240000\nfile 54000000\nkernel 524288\nshmem 0\nactive_file 27000000\ninactive_file 27000000\n";
    let tree = Tree::new();
    tree.app(64 * MIB, stat);
    tree.is(Cause::None, false);
    tree.write(
        "sys/fs/cgroup/pod/app/memory.events",
        "low 0\nhigh 0\nmax 120\noom 0\noom_kill 0\n",
    );
    let verdict = tree.is(Cause::CgroupCache, false);
    assert!(matches!(
        verdict.reasons[0],
        Reason::CacheFull { met: 120, .. }
    ));
}

#[test]
fn kernel_memory_and_shared_memory_are_told_apart() {
    let tree = Tree::new();
    tree.app(62 * MIB, "anon 10000000\nfile 1000000\nkernel 52000000\nshmem 0\nactive_file 500000\ninactive_file 500000\nslab_reclaimable 1000000\npagetables 40000000\n");
    tree.is(Cause::CgroupKernel, false);
    // The same, could it be taken back.
    tree.app(62 * MIB, "anon 10000000\nfile 1000000\nkernel 52000000\nshmem 0\nactive_file 500000\ninactive_file 500000\nslab_reclaimable 50000000\n");
    tree.is(Cause::None, false);
    tree.app(62 * MIB, "anon 10000000\nfile 52000000\nkernel 1000000\nshmem 51000000\nactive_file 500000\ninactive_file 500000\n");
    tree.is(Cause::CgroupShmem, false);
}

#[test]
fn network_buffers_are_memory_of_the_kernel() {
    let tree = Tree::new();
    tree.app(62 * MIB, "anon 10000000\nfile 1000000\nkernel 2000000\nsock 50000000\nshmem 0\nactive_file 500000\ninactive_file 500000\n");
    tree.is(Cause::CgroupKernel, false);
}

#[test]
fn a_limit_above_the_own_cgroup_counts_its_siblings() {
    let tree = Tree::new();
    let stat = "anon 980000000\nfile 0\nkernel 1000000\nshmem 0\nactive_file 0\ninactive_file 0\n";
    tree.group("pod", &(1000 * MIB).to_string(), 950 * MIB, stat);
    tree.group("pod/other", "max", 920 * MIB, stat);
    tree.write("sys/fs/cgroup/pod/other/cgroup.procs", "4800\n0\n");
    tree.write(
        "proc/4800/status",
        &STATUS
            .replace("server", "leak\x1b[31m")
            .replace("4711", "4800")
            .replace("RssAnon:\t 20000 kB", "RssAnon:\t 950000 kB"),
    );
    let verdict = tree.is(Cause::CgroupOtherProcess, false);
    let neighbour = verdict.reasons.iter().find_map(|reason| match reason {
        Reason::Neighbour { pid, anon, .. } => Some((*pid, *anon)),
        _ => None,
    });
    assert_eq!(neighbour, Some((Tid(4800), Bytes(950_000 << 10))));
    let facts = tree.facts();
    let members = facts
        .cgroup
        .and_then(|cgroups| cgroups.members)
        .expect("they are seen");
    assert_eq!((members.list.len(), members.unseen), (2, 1));
}

#[test]
fn memory_high_slows_down_before_memory_max_kills() {
    let tree = Tree::new();
    tree.write("sys/fs/cgroup/pod/app/memory.high", "20000000\n");
    let verdict = tree.is(Cause::CgroupAnon, false);
    assert!(matches!(verdict.reasons[0], Reason::Near(_)));
}

#[test]
fn the_commit_limit_counts_in_mode_2_only() {
    let tree = Tree::new();
    tree.is(Cause::None, false);
    tree.write("proc/sys/vm/overcommit_memory", "2\n");
    tree.is(Cause::CommitLimit, true);
    tree.write(
        "proc/meminfo",
        &MEMINFO.replace("Committed_AS:    7800000", "Committed_AS:    4000000"),
    );
    tree.is(Cause::None, false);
}

#[test]
fn kills_on_record_forbid_to_say_that_nothing_is_wrong() {
    let tree = Tree::new();
    tree.write(
        "sys/fs/cgroup/pod/app/memory.events",
        "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n",
    );
    let verdict = tree.is(Cause::Unknown, false);
    assert!(matches!(verdict.reasons[0], Reason::Kills { kills: 1, .. }));
}

#[test]
fn what_cannot_be_read_is_not_taken_for_harmless() {
    let tree = Tree::new();
    tree.write("proc/self/mountinfo", "");
    let verdict = tree.is(Cause::Unknown, false);
    assert!(
        verdict
            .reasons
            .contains(&Reason::NotKnown("the memory cgroup"))
    );
}

#[test]
fn resource_limits_near_their_value_are_named() {
    let tree = Tree::new();
    let limits = |name: &str, bytes: u64| {
        let line = format!("Max {name} size             unlimited ");
        let with = format!("Max {name} size             {bytes} ");
        LIMITS.replace(&line, &with)
    };
    tree.write("proc/4711/limits", &limits("data", 61 << 20));
    tree.is(Cause::RlimitData, false);
    tree.write(
        "proc/4711/limits",
        &LIMITS.replace("space         unlimited ", "space         2100000000 "),
    );
    tree.is(Cause::VszLimit, true);
}

#[test]
fn a_32_bit_program_runs_out_of_addresses() {
    let tree = Tree::new();
    let smaps = "00010000-f8000000 ---p 00000000 00:00 0 \nRss: 0 kB\nVmFlags: mr mw me nr \n\
                 ffe00000-ffff0000 rw-p 00000000 00:00 0                          [stack]\nRss: 16 kB\nVmFlags: rd wr gd ac \n";
    tree.write("proc/4711/smaps", smaps);
    tree.is(Cause::None, false);
    let smaps = smaps.replace("f8000000", "fd000000");
    tree.write("proc/4711/smaps", &smaps);
    tree.is(Cause::VszLimit, true);
}

#[test]
fn broken_files_neither_panic_nor_prove_anything() {
    let tree = Tree::new();
    tree.write("proc/4711/smaps", "\u{1}garbage\n");
    tree.write("proc/4711/limits", "Max address space x y\n");
    tree.write(
        "proc/meminfo",
        "MemTotal: 99999999999999999999999 kB\nCommitLimit: -1 kB\n",
    );
    tree.write(
        "sys/fs/cgroup/pod/app/memory.stat",
        "anon -1\nfile 18446744073709551615\nshmem 1\n",
    );
    tree.write(
        "sys/fs/cgroup/pod/app/memory.current",
        "18446744073709551615\n",
    );
    let facts = tree.facts();
    assert!(!facts.missing.is_empty());
    assert_eq!(verdict(&facts).cause, Cause::Unknown);
}
