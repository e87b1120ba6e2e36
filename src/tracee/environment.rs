//! What bounds the memory of a process: its limits, its cgroup, the machine.
//!
//! What cannot be read stays `None`: nothing here is guessed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::timeline::{Bound, Cgroup, Environment, Limit, Limits};
use crate::units::{Bytes, PAGE, Tid};

/// What bounds process `pid`, or memtrace itself and what it launches.
pub fn environment(pid: Option<Tid>) -> Environment {
    let of_process = |file: &str| match pid {
        Some(pid) => fs::read_to_string(format!("/proc/{pid}/{file}")),
        None => fs::read_to_string(format!("/proc/self/{file}")),
    };
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let in_meminfo = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024).map(Bytes)
    };
    let thp = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    Environment {
        memory: in_meminfo("MemTotal:"),
        swap: in_meminfo("SwapTotal:"),
        overcommit_ratio: number("/proc/sys/vm/overcommit_ratio"),
        overcommit_kbytes: number("/proc/sys/vm/overcommit_kbytes"),
        max_map_count: number("/proc/sys/vm/max_map_count"),
        thp: thp.ok().and_then(|text| chosen(&text)),
        limits: limits(&of_process("limits").unwrap_or_default()),
        cgroup: cgroup(
            &of_process("cgroup").unwrap_or_default(),
            &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        ),
    }
}

pub(super) fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The word in brackets: `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// What `/proc/PID/limits` says.
pub(super) fn limits(text: &str) -> Limits {
    let limit = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut words = line.split_ascii_whitespace();
        let mut bound = || match words.next()? {
            "unlimited" => Some(Bound::Unlimited),
            number => number
                .parse()
                .ok()
                .map(|number| Bound::Bytes(Bytes(number))),
        };
        Some(Limit {
            soft: bound()?,
            hard: bound()?,
        })
    };
    Limits {
        address_space: limit("Max address space "),
        data: limit("Max data size "),
        stack: limit("Max stack size "),
        locked: limit("Max locked memory "),
    }
}

/// The memory cgroup, from the texts of `/proc/PID/cgroup` and `/proc/self/mountinfo`.
fn cgroup(cgroups: &str, mounts: &str) -> Option<Cgroup> {
    match memory_cgroup(cgroups)? {
        (1, path) => Some(version_1(path, mounts)),
        (_, path) => Some(version_2(path, mounts)),
    }
}

/// The version of the memory cgroup and its path, from the text of `/proc/PID/cgroup`.
pub(super) fn memory_cgroup(cgroups: &str) -> Option<(u8, String)> {
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        cgroups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            wanted(controllers).then(|| path.to_owned())
        })
    };
    // A controller is on one hierarchy only: memory is on that of version 2 unless a line of its
    // own says where it is.
    let memory = |controllers: &str| controllers.split(',').any(|name| name == "memory");
    match (path_of(&memory), path_of(&str::is_empty)) {
        (Some(path), _) => Some((1, path)),
        (None, Some(path)) => Some((2, path)),
        (None, None) => None,
    }
}

fn version_2(path: String, mounts: &str) -> Cgroup {
    let folders = memory_folders(2, &path, mounts);
    let bound = |file: &str| {
        let folder = folders.first()?;
        bound(&folder.join(file), u64::MAX)
    };
    Cgroup {
        version: 2,
        max: bound("memory.max"),
        high: bound("memory.high"),
        swap_max: bound("memory.swap.max"),
        lowest_max: lowest(&folders, "memory.max", u64::MAX),
        current: current(&folders, "memory.current"),
        path,
    }
}

fn version_1(path: String, mounts: &str) -> Cgroup {
    // No limit is the highest number of whole pages that a long holds (PAGE_COUNTER_MAX).
    const NONE: u64 = i64::MAX as u64 / PAGE * PAGE;
    const MAX: &str = "memory.limit_in_bytes";
    let folders = memory_folders(1, &path, mounts);
    let own = folders.first();
    Cgroup {
        version: 1,
        max: own.and_then(|own| bound(&own.join(MAX), NONE)),
        high: None,
        swap_max: None,
        lowest_max: lowest(&folders, MAX, NONE),
        current: current(&folders, "memory.usage_in_bytes"),
        path,
    }
}

/// A file that holds a number of bytes or `max`; `none` and more is no limit either.
fn bound(path: &Path, none: u64) -> Option<Bound> {
    let text = fs::read_to_string(path).ok()?;
    match text.trim() {
        "max" => Some(Bound::Unlimited),
        number => match number.parse().ok()? {
            number if none <= number => Some(Bound::Unlimited),
            number => Some(Bound::Bytes(Bytes(number))),
        },
    }
}

fn lowest(folders: &[PathBuf], file: &str, none: u64) -> Option<Bound> {
    let bounds = folders
        .iter()
        .filter_map(|folder| bound(&folder.join(file), none));
    bounds.min_by_key(|bound| bound.bytes().map_or(u64::MAX, |bytes| bytes.0))
}

fn current(folders: &[PathBuf], file: &str) -> Option<Bytes> {
    let text = fs::read_to_string(folders.first()?.join(file)).ok()?;
    text.trim().parse().ok().map(Bytes)
}

/// The folder of a memory cgroup of that version and of those above it.
pub(super) fn memory_folders(version: u8, path: &str, mounts: &str) -> Vec<PathBuf> {
    folders(path, mounts, |kind, options| match version {
        1 => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        _ => kind == "cgroup2",
    })
}

/// The folder of a cgroup and of those above it, up to the root of the mount through which it can
/// be seen. `wanted` is asked for the type of a mount and its options.
fn folders(path: &str, mounts: &str, wanted: impl Fn(&str, &str) -> bool) -> Vec<PathBuf> {
    let mounted = mounts.lines().find_map(|line| {
        // 31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw: proc_pid_mountinfo(5).
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let mut left = left.split(' ').skip(3);
        let (root, at) = (left.next()?, left.next()?);
        // A path that leads out of what is mounted begins with `/..`.
        let inside = Path::new(path).strip_prefix(root).ok()?;
        let safe = !inside.components().any(|part| part.as_os_str() == "..");
        (safe && wanted(kind, options)).then(|| (PathBuf::from(at), inside.to_owned()))
    });
    let Some((top, inside)) = mounted else {
        return Vec::new();
    };
    let levels = inside.ancestors().map(|level| top.join(level));
    levels.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_their_words() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max data size             unlimited            unlimited            bytes     \n\
                    Max stack size            8388608              unlimited            bytes     \n\
                    Max locked memory         65536                65536                bytes     \n";
        let bytes = |bytes| Bound::Bytes(Bytes(bytes));
        let limit = |soft, hard| Some(Limit { soft, hard });
        let limits = limits(text);
        assert_eq!(limits.address_space, None);
        assert_eq!(limits.data, limit(Bound::Unlimited, Bound::Unlimited));
        assert_eq!(limits.stack, limit(bytes(8 << 20), Bound::Unlimited));
        assert_eq!(limits.locked, limit(bytes(65536), bytes(65536)));
    }

    /// A tree of cgroups in a folder of its own, and the line of mountinfo that shows it.
    fn tree(files: &[(&str, &str)], root: &str, kind: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        }
        let at = folder.path().display();
        let mount = format!("31 23 0:28 {root} {at} rw,relatime - {kind}\n");
        (folder, mount)
    }

    #[test]
    fn the_lowest_limit_above_a_cgroup_binds() {
        let files = [
            ("a/memory.max", "536870912\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.high", "1073741824\n"),
            ("a/b/memory.current", "4096\n"),
        ];
        let (_folder, mount) = tree(&files, "/", "cgroup2 cgroup2 rw");
        let found = cgroup("0::/a/b\n", &mount).expect("it is there");
        let expected = Cgroup {
            version: 2,
            path: "/a/b".into(),
            max: Some(Bound::Unlimited),
            high: Some(Bound::Bytes(Bytes(1 << 30))),
            swap_max: None,
            lowest_max: Some(Bound::Bytes(Bytes(512 << 20))),
            current: Some(Bytes(4096)),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_memory_controller_of_version_1_goes_before_the_unified_hierarchy() {
        let files = [
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("x/memory.limit_in_bytes", "1048576\n"),
            ("x/memory.usage_in_bytes", "8192\n"),
        ];
        let (_folder, mount) = tree(&files, "/pod", "cgroup cgroup rw,memory");
        let text = "9:name=systemd:/\n4:memory:/pod/x\n0::/\n";
        let found = cgroup(text, &mount).expect("it is there");
        assert_eq!((found.version, &*found.path), (1, "/pod/x"));
        assert_eq!(found.max, Some(Bound::Bytes(Bytes(1 << 20))));
        assert_eq!(found.lowest_max, found.max);
        assert_eq!(found.current, Some(Bytes(8192)));
        let above = cgroup("4:memory:/pod\n", &mount).expect("it is there");
        assert_eq!(above.max, Some(Bound::Unlimited));
    }

    #[test]
    fn a_cgroup_that_cannot_be_seen_is_named_and_nothing_is_said_of_it() {
        let (_folder, mount) = tree(&[("memory.max", "1\n")], "/", "cgroup2 cgroup2 rw");
        let found = cgroup("0::/../other\n", &mount).expect("it is there");
        let expected = Cgroup {
            version: 2,
            path: "/../other".into(),
            ..Cgroup::default()
        };
        assert_eq!(found, expected);
        assert_eq!(cgroup("", &mount), None);
    }

    #[test]
    fn this_very_process_has_limits_and_lives_on_a_machine_with_memory() {
        let environment = environment(None);
        assert!(environment.limits.stack.is_some());
        assert!(environment.memory.is_some_and(|bytes| 1 << 20 < bytes.0));
        assert!(environment.max_map_count.is_some());
    }
}
