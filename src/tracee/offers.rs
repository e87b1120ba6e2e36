//! What this kernel, and this place, offer to a tracer.

use std::fs::File;
use std::os::fd::AsFd;

use crate::timeline::TraceInfo;
use crate::units::{Addr, Tid};

use super::{kernel, sys};

/// One thing a kernel may offer, and whether it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub name: &'static str,
    /// Whether it is to be had here.
    pub available: bool,
    /// What follows for memtrace.
    pub meaning: &'static str,
}

/// What there is, in the order of how much depends on it.
pub fn offers() -> Vec<Offer> {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let seccomp = actions.is_ok_and(|actions| actions.split_whitespace().any(|a| a == "trace"));
    let mut name = [0u8; 256];
    let query = File::open("/proc/self/maps")
        .is_ok_and(|maps| sys::query_mapping(maps.as_fd(), Addr(0), &mut name).is_ok());
    let tracepoints = kernel::available().is_ok();
    let me = Tid(std::process::id() as i32);
    vec![
        Offer {
            name: "seccomp",
            available: seccomp,
            meaning: if seccomp {
                "only memory calls stop a launched program"
            } else {
                "every system call stops the program"
            },
        },
        Offer {
            name: "PROCMAP_QUERY",
            available: query,
            meaning: if query {
                "the kernel answers for a single mapping (Linux 6.11)"
            } else {
                "whole maps are read where one mapping would do"
            },
        },
        Offer {
            name: "kcmp",
            available: sys::same_space(me, me) == Some(true),
            meaning: "tells whether two processes share an address space",
        },
        Offer {
            name: "32-bit calls",
            available: std::fs::exists("/proc/sys/abi/vsyscall32").unwrap_or(false),
            meaning: "i386 programs and int 0x80 are decoded",
        },
        Offer {
            name: "tracepoints",
            available: tracepoints,
            meaning: if tracepoints {
                "--backend kernel observes without stopping anything"
            } else {
                "--backend kernel cannot observe here: it needs root, or CAP_PERFMON and a \
                 readable tracefs"
            },
        },
    ]
}

/// The facts of this host that a trace's header holds.
pub fn host() -> TraceInfo {
    let (kernel, arch) = match nix::sys::utsname::uname() {
        Ok(uts) => (
            uts.release().to_string_lossy().into_owned(),
            uts.machine().to_string_lossy().into_owned(),
        ),
        Err(_) => Default::default(),
    };
    let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let overcommit = std::fs::read_to_string("/proc/sys/vm/overcommit_memory");
    TraceInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: "ptrace".to_owned(),
        kernel,
        arch,
        page_size: page_size.ok().flatten().unwrap_or(4096) as u32,
        overcommit: overcommit
            .ok()
            .and_then(|mode| mode.trim().parse().ok())
            .unwrap_or(0),
        ..TraceInfo::default()
    }
}
