//! A process seen from outside: what `/proc` and the cgroup files say of it, without tracing it and
//! without stopping it. What the texts mean is for [`crate::report::explain`]; this only fetches.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::report::explain::{
    Cgroups, Facts, Level, Limited, Machine, Member, Members, Meminfo, Memory, Missing, Peaked,
    Source, Space, State, Subject, key_value, memory_of_status, number_of, rows, space_of_maps,
};
use crate::report::recognize::Surroundings;
use crate::timeline::Limits;
use crate::units::Tid;

use super::{environment, files, procfs};

/// Processes of a cgroup that are looked at.
const MEMBERS: usize = 20_000;

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// There is no such process.
    #[error("there is no process {0} (ps -e lists those that there are)")]
    NoProcess(Tid),
    /// It is there, and not even its status can be read.
    #[error("cannot read the status of process {pid}")]
    Unreadable {
        /// Which.
        pid: Tid,
        /// Why.
        source: io::Error,
    },
}

/// The files of the kernel, below a root: `/`, or a folder with a recorded tree of them.
#[derive(Clone, Debug)]
pub struct Outside {
    root: PathBuf,
}

impl Outside {
    /// This machine.
    pub fn here() -> Outside {
        Outside::below("/")
    }

    /// A recorded tree of files.
    pub fn below(root: impl Into<PathBuf>) -> Outside {
        Outside { root: root.into() }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.at(Path::new(path)))
    }

    fn text(&self, path: &str) -> String {
        let bytes = self.read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All that can be seen of process `pid`.
    pub fn facts(&self, pid: Tid) -> Result<Facts, LookError> {
        let status = self
            .read(&format!("/proc/{pid}/status"))
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => LookError::NoProcess(pid),
                _ if source.raw_os_error() == Some(libc::ESRCH) => LookError::NoProcess(pid),
                _ => LookError::Unreadable { pid, source },
            })?;
        let status = procfs::text(&status);
        // A thread shows the memory of its process, and only the leader's number names it.
        let pid = number_of(&status, "Tgid:")
            .and_then(|tgid| tgid.try_into().ok())
            .map_or(pid, Tid);
        let mut missing = Vec::new();
        let (mut memory, space) = memory_of_status(&status);
        let state = match key_value(&status, "State:") {
            Some(state) if state.starts_with(['Z', 'X']) => State::Zombie,
            _ if space.is_none() && self.is_kernel_thread(pid, &status) => State::KernelThread,
            _ => State::Alive,
        };
        let space = space.map(|space| self.mappings(pid, space, &mut memory, &mut missing));
        let mut facts = Facts {
            subject: Subject {
                source: Source::Process,
                pid,
                name: key_value(&status, "Name:").unwrap_or_default().to_owned(),
                state,
                space: None,
                other_spaces: 0,
            },
            space,
            memory,
            limits: self.limits(pid).unwrap_or_else(|error| {
                missing.push(Missing {
                    what: "the resource limits",
                    why: in_words(&error),
                    remedy: None,
                });
                Limits::default()
            }),
            cgroup: self.cgroups(Some(pid)),
            machine: self.machine(),
            tree_resident: None,
            oom_kills_before: None,
            refusals: Vec::new(),
            missing,
        };
        self.members(&mut facts);
        Ok(facts)
    }

    fn is_kernel_thread(&self, pid: Tid, status: &str) -> bool {
        const PF_KTHREAD: u64 = 0x0020_0000;
        if let Some(kernel) = number_of(status, "Kthread:") {
            return kernel == 1;
        }
        // Field 9 of stat, on kernels before 6.8.
        let stat = self.text(&format!("/proc/{pid}/stat"));
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let flags = fields.split_ascii_whitespace().nth(9 - 3);
        flags
            .and_then(|flags| flags.parse::<u64>().ok())
            .is_some_and(|flags| flags & PF_KTHREAD != 0)
    }

    /// The runtimes that the program's file shows.
    fn surroundings(&self, pid: Tid) -> Surroundings {
        let exe = self.at(Path::new(&format!("/proc/{pid}/exe")));
        let name = fs::read_link(&exe).map(|path| procfs::text(path.as_os_str().as_bytes()));
        let mut around = Surroundings::of_program(&name.unwrap_or_default().into());
        if let Some(version) = files::version_of(&exe) {
            around.version(&version.into());
        }
        let limit = self.limits(pid).ok().and_then(|limits| limits.stack);
        if let Some(limit) = limit.and_then(|limit| limit.soft.bytes()) {
            around.stack_limit(limit);
        }
        around
    }

    /// What smaps adds to the space, or maps, or neither.
    fn mappings(
        &self,
        pid: Tid,
        mut space: Space,
        memory: &mut Memory,
        missing: &mut Vec<Missing>,
    ) -> Space {
        let around = self.surroundings(pid);
        let mut why = None;
        for (file, smaps) in [("smaps", true), ("maps", false)] {
            let read = self.read(&format!("/proc/{pid}/{file}"));
            let split = read.map_err(|error| in_words(&error)).and_then(|text| {
                space_of_maps(&text, smaps, &around, memory).map_err(|error| error.to_string())
            });
            match split {
                Ok(Some(split)) => {
                    // Read after status: the sums are of this moment.
                    let now = split.reserved.now + split.committed.now;
                    let peak = space.mapped.peak.map(|peak| peak.max(now));
                    space.mapped = Peaked {
                        peak,
                        ..Peaked::now(now)
                    };
                    space.split = Some(split);
                    break;
                }
                Ok(None) => {}
                Err(error) => why = why.or(Some(error)),
            }
        }
        if space.split.is_none() || why.is_some() {
            missing.push(Missing {
                what: match space.split {
                    Some(_) => "what is charged, and what MADV_FREE left (smaps)",
                    None => "what is reserved and what is committed, by whom, and the number of mappings (smaps)",
                },
                why: why.unwrap_or_else(|| "they show no mappings".to_owned()),
                remedy: Some("as the process's own user or as root"),
            });
        }
        space
    }

    /// The resource limits of a process.
    pub fn limits(&self, pid: Tid) -> io::Result<Limits> {
        let text = self.read(&format!("/proc/{pid}/limits"))?;
        Ok(environment::limits(&String::from_utf8_lossy(&text)))
    }

    /// `/proc/PID/status`, if there is such a process.
    pub fn status(&self, pid: Tid) -> Option<String> {
        let bytes = self.read(&format!("/proc/{pid}/status")).ok()?;
        Some(procfs::text(&bytes))
    }

    /// The machine.
    pub fn machine(&self) -> Machine {
        let [meminfo, vmstat, overcommit, max_map_count] = [
            "/proc/meminfo",
            "/proc/vmstat",
            "/proc/sys/vm/overcommit_memory",
            "/proc/sys/vm/max_map_count",
        ]
        .map(|path| self.text(path));
        Meminfo {
            meminfo: &meminfo,
            vmstat: &vmstat,
            overcommit: &overcommit,
            max_map_count: &max_map_count,
        }
        .machine()
    }

    /// The memory cgroup of `pid`, or of memtrace itself, with those above it.
    pub fn cgroups(&self, pid: Option<Tid>) -> Option<Cgroups> {
        let of = pid.map_or("self".to_owned(), |pid| pid.to_string());
        let (version, path) =
            environment::memory_cgroup(&self.text(&format!("/proc/{of}/cgroup")))?;
        let folders = self.folders(version, &path);
        let paths = Path::new(&path).ancestors();
        let levels = folders.iter().zip(paths).map(|(folder, path)| {
            let path = path.to_string_lossy().into_owned();
            Level::of(version, path, &|file| {
                fs::read_to_string(folder.join(file)).ok()
            })
        });
        let levels = levels.collect();
        // Files that only the root of a hierarchy has, or only it has not.
        let hidden = folders.last().is_some_and(|last| match version {
            1 => !last.join("release_agent").exists(),
            _ => last.join("cgroup.events").exists(),
        });
        Some(Cgroups {
            version,
            path,
            levels,
            hidden,
            ..Cgroups::default()
        })
    }

    fn folders(&self, version: u8, path: &str) -> Vec<PathBuf> {
        let mounts = self.text("/proc/self/mountinfo");
        let folders = environment::memory_folders(version, path, &mounts);
        folders.iter().map(|folder| self.at(folder)).collect()
    }

    /// Who is in the cgroup that is the tightest, and below it. Without any limit that is its own.
    fn members(&self, facts: &mut Facts) {
        let tightest = rows(facts)
            .into_iter()
            .filter(|row| row.limited == Limited::CgroupMax || row.limited == Limited::CgroupHigh)
            .max_by_key(|row| row.thousandths())
            .filter(|row| row.thousandths().is_some())
            .and_then(|row| row.level);
        let Some(cgroups) = &mut facts.cgroup else {
            return;
        };
        let level = tightest.unwrap_or(0);
        let folders = self.folders(cgroups.version, &cgroups.path);
        // All processes of a machine are nobody's neighbours.
        if tightest.is_none() && folders.len() < 2 {
            return;
        }
        let Some(folder) = folders.get(level) else {
            return;
        };
        let mut members = Members {
            level,
            ..Members::default()
        };
        for pid in pids_below(folder) {
            let status = match pid {
                Tid(0) => None,
                pid => self.read(&format!("/proc/{pid}/status")).ok(),
            };
            let Some(status) = status else {
                members.unseen += 1;
                continue;
            };
            let status = procfs::text(&status);
            let (memory, _) = memory_of_status(&status);
            members.list.push(Member {
                pid,
                name: key_value(&status, "Name:").unwrap_or_default().to_owned(),
                anon: memory.anon.unwrap_or_default() + memory.swap.unwrap_or_default(),
                shmem: memory.shmem.unwrap_or_default(),
                file: memory.file.unwrap_or_default(),
            });
        }
        members
            .list
            .sort_by(|a, b| b.anon.cmp(&a.anon).then(a.pid.cmp(&b.pid)));
        cgroups.members = Some(members);
    }
}

/// An error without its number.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    words.to_lowercase()
}

/// The processes of a cgroup and of those below it.
fn pids_below(folder: &Path) -> Vec<Tid> {
    let mut pids = Vec::new();
    let mut folders = VecDeque::from([folder.to_owned()]);
    while let Some(folder) = folders.pop_front()
        && pids.len() < MEMBERS
    {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse().ok()).map(Tid));
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        let below = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(below.map(|entry| entry.path()));
    }
    pids
}
