//! Signals as strace shows them: which fields of siginfo_t mean something for which code.
//!
//! Layout: `include/uapi/asm-generic/siginfo.h` on a 64-bit kernel, which is what a 64-bit tracer is
//! given for 32-bit tasks too.

use std::fmt::Write as _;

use crate::abi::{Abi, errno_name, name_of, names::AUDIT_ARCH, si_code_name, signal_name};
use crate::timeline::SignalSeen;

use super::text::{Hex, Owner, Pointer};

const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;
const SIGCHLD: i32 = 17;
const SIGIO: i32 = 29;
const SIGSYS: i32 = 31;

const SI_USER: i32 = 0;
const SI_TIMER: i32 = -2;
const SI_SIGIO: i32 = -5;
const SI_TKILL: i32 = -6;
const CLD_EXITED: i32 = 1;
const SEGV_BNDERR: i32 = 3;
const SEGV_PKUERR: i32 = 4;
const BUS_MCEERR: [i32; 2] = [4, 5];

/// `--- SIGSEGV {…} ---`, or that it stopped the process.
pub fn describe(signal: &SignalSeen) -> String {
    let name = signal_name(signal.signal);
    if signal.stopped {
        return format!("--- stopped by {name} ---");
    }
    let mut line = format!("--- {name} {{si_signo={name}, si_code=");
    let _ = match si_code_name(signal.signal, signal.code) {
        Some(code) => write!(line, "{code}"),
        None => write!(line, "{:#x}", signal.code),
    };
    if signal.errno != 0 {
        let _ = match errno_name(signal.errno) {
            Some(name) => write!(line, ", si_errno={name}"),
            None => write!(line, ", si_errno={}", signal.errno),
        };
    }
    write_fields(&mut line, signal);
    line.push_str("} ---");
    line
}

fn write_fields(line: &mut String, signal: &SignalSeen) {
    let [first, second, third, fourth] = signal.fields;
    match (signal.code, signal.signal) {
        (SI_USER | SI_TKILL, _) => write_sender(line, first),
        (SI_TIMER, _) => {
            let overrun = (first >> 32) as i32;
            let _ = write!(
                line,
                ", si_timerid={}, si_overrun={overrun}",
                Hex(u64::from(first as u32))
            );
            let _ = write!(
                line,
                ", si_int={}, si_ptr={}",
                second as i32,
                Pointer(second)
            );
        }
        (SI_SIGIO, _) | (1..=6, SIGIO) => {
            let _ = write!(line, ", si_band={}, si_fd={}", first as i64, second as i32);
        }
        (..=0, _) => {
            write_sender(line, first);
            write_value(line, second);
        }
        (_, SIGCHLD) => {
            write_sender(line, first);
            let status = second as i32;
            let _ = match signal.code {
                CLD_EXITED => write!(line, ", si_status={status}"),
                _ => write!(line, ", si_status={}", signal_name(status)),
            };
            let _ = write!(line, ", si_utime={third}, si_stime={fourth}");
        }
        (code, SIGILL | SIGFPE | SIGSEGV | SIGBUS | SIGTRAP) => {
            let _ = write!(line, ", si_addr={}", Pointer(first));
            let _ = match (signal.signal, code) {
                (SIGSEGV, SEGV_BNDERR) => write!(
                    line,
                    ", si_lower={}, si_upper={}",
                    Pointer(third),
                    Pointer(fourth)
                ),
                (SIGSEGV, SEGV_PKUERR) => write!(line, ", si_pkey={}", third as u32),
                (SIGBUS, code) if BUS_MCEERR.contains(&code) => {
                    write!(line, ", si_addr_lsb={:#x}", second as u16)
                }
                _ => Ok(()),
            };
        }
        (_, SIGIO) => {}
        (_, SIGSYS) => {
            let _ = write!(line, ", si_call_addr={}", Pointer(first));
            write_syscall(line, second as u32, (second >> 32) as u32);
        }
        _ => {
            if first != 0 {
                write_sender(line, first);
            }
            write_value(line, second);
        }
    }
}

fn write_sender(line: &mut String, word: u64) {
    let uid = Owner((word >> 32) as u32);
    let _ = write!(line, ", si_pid={}, si_uid={uid}", word as i32);
}

/// `union sigval`, of which nobody knows whether it holds a number or a pointer.
fn write_value(line: &mut String, word: u64) {
    if word != 0 {
        let _ = write!(line, ", si_int={}, si_ptr={word:#x}", word as i32);
    }
}

fn write_syscall(line: &mut String, nr: u32, arch: u32) {
    let abi = match name_of(AUDIT_ARCH, u64::from(arch)) {
        Some("AUDIT_ARCH_X86_64") => Some(Abi::X86_64),
        Some(_) => Some(Abi::I386),
        None => None,
    };
    let name = match abi {
        Some(Abi::X86_64) => syscalls::x86_64::Sysno::new(nr as usize).map(|call| call.name()),
        Some(Abi::I386) => syscalls::x86::Sysno::new(nr as usize).map(|call| call.name()),
        None => None,
    };
    let _ = match name {
        Some(name) => write!(line, ", si_syscall=__NR_{name}"),
        None => write!(line, ", si_syscall={nr}"),
    };
    let _ = match name_of(AUDIT_ARCH, u64::from(arch)) {
        Some(name) => write!(line, ", si_arch={name}"),
        None => write!(line, ", si_arch={arch:#x} /* AUDIT_ARCH_??? */"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Tid;

    #[track_caller]
    fn check(signal: i32, code: i32, errno: i32, fields: [u64; 4], expected: &str) {
        let seen = SignalSeen {
            tid: Tid(1),
            signal,
            stopped: false,
            code,
            errno,
            fields,
        };
        assert_eq!(describe(&seen), expected);
    }

    const SENDER: u64 = 0xffff_ffff_0000_0001;
    const VALUE: u64 = 0x1234_5678_0000_0009;

    /// The expected lines are strace's own, for siginfo made by rt_tgsigqueueinfo(2).
    #[test]
    fn the_fields_shown_depend_on_code_and_signal() {
        check(
            10,
            0,
            0,
            [SENDER, 0, 0, 0],
            "--- SIGUSR1 {si_signo=SIGUSR1, si_code=SI_USER, si_pid=1, si_uid=-1} ---",
        );
        check(
            10,
            -1,
            2,
            [SENDER, 0xffff_ffff_1234_5678, 0, 0],
            "--- SIGUSR1 {si_signo=SIGUSR1, si_code=SI_QUEUE, si_errno=ENOENT, si_pid=1, si_uid=-1, \
             si_int=305419896, si_ptr=0xffffffff12345678} ---",
        );
        check(
            10,
            -4,
            999,
            [SENDER, 1, 0, 0],
            "--- SIGUSR1 {si_signo=SIGUSR1, si_code=SI_ASYNCIO, si_errno=999, si_pid=1, si_uid=-1, \
             si_int=1, si_ptr=0x1} ---",
        );
        check(
            10,
            -5,
            0,
            [SENDER, 0, 0, 0],
            "--- SIGUSR1 {si_signo=SIGUSR1, si_code=SI_SIGIO, si_band=-4294967295, si_fd=0} ---",
        );
        check(
            10,
            -99,
            0,
            [SENDER, 0, 0, 0],
            "--- SIGUSR1 {si_signo=SIGUSR1, si_code=0xffffff9d, si_pid=1, si_uid=-1} ---",
        );
        check(
            10,
            -2,
            0,
            [SENDER, 7, 0, 0],
            "--- SIGUSR1 {si_signo=SIGUSR1, si_code=SI_TIMER, si_timerid=0x1, si_overrun=-1, \
             si_int=7, si_ptr=0x7} ---",
        );
        check(
            10,
            -2,
            0,
            [0; 4],
            "--- SIGUSR1 {si_signo=SIGUSR1, si_code=SI_TIMER, si_timerid=0, si_overrun=0, \
             si_int=0, si_ptr=NULL} ---",
        );
        check(
            11,
            1,
            0,
            [SENDER, VALUE, 0, 0],
            "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0xffffffff00000001} ---",
        );
        check(
            11,
            3,
            0,
            [SENDER, VALUE, 0, 0],
            "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_BNDERR, si_addr=0xffffffff00000001, \
             si_lower=NULL, si_upper=NULL} ---",
        );
        check(
            11,
            4,
            0,
            [SENDER, VALUE, 0, 0],
            "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_PKUERR, si_addr=0xffffffff00000001, \
             si_pkey=0} ---",
        );
        check(
            11,
            0x80,
            0,
            [0; 4],
            "--- SIGSEGV {si_signo=SIGSEGV, si_code=SI_KERNEL, si_addr=NULL} ---",
        );
        check(
            7,
            5,
            0,
            [SENDER, VALUE, 0, 0],
            "--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AO, si_addr=0xffffffff00000001, \
             si_addr_lsb=0x9} ---",
        );
        check(
            17,
            1,
            0,
            [SENDER, VALUE, 0, 0],
            "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=1, si_uid=-1, si_status=9, \
             si_utime=0, si_stime=0} ---",
        );
        check(
            17,
            7,
            0,
            [SENDER, VALUE, 0, 0],
            "--- SIGCHLD {si_signo=SIGCHLD, si_code=0x7, si_pid=1, si_uid=-1, si_status=SIGKILL, \
             si_utime=0, si_stime=0} ---",
        );
        check(
            29,
            1,
            0,
            [SENDER, VALUE, 0, 0],
            "--- SIGIO {si_signo=SIGIO, si_code=POLL_IN, si_band=-4294967295, si_fd=9} ---",
        );
        check(
            29,
            7,
            0,
            [SENDER, VALUE, 0, 0],
            "--- SIGIO {si_signo=SIGIO, si_code=0x7} ---",
        );
        check(
            31,
            1,
            0,
            [SENDER, VALUE, 0, 0],
            "--- SIGSYS {si_signo=SIGSYS, si_code=SYS_SECCOMP, si_call_addr=0xffffffff00000001, \
             si_syscall=9, si_arch=0x12345678 /* AUDIT_ARCH_??? */} ---",
        );
        check(
            31,
            1,
            3,
            [0x7fb0_07b3_d829, 0xc000_003e_0000_006e, 0, 0],
            "--- SIGSYS {si_signo=SIGSYS, si_code=SYS_SECCOMP, si_errno=ESRCH, \
             si_call_addr=0x7fb007b3d829, si_syscall=__NR_getppid, si_arch=AUDIT_ARCH_X86_64} ---",
        );
        check(
            10,
            1,
            0,
            [SENDER, VALUE, 0, 0],
            "--- SIGUSR1 {si_signo=SIGUSR1, si_code=0x1, si_pid=1, si_uid=-1, si_int=9, \
             si_ptr=0x1234567800000009} ---",
        );
        check(
            14,
            0x80,
            0,
            [0; 4],
            "--- SIGALRM {si_signo=SIGALRM, si_code=SI_KERNEL} ---",
        );
    }

    #[test]
    fn a_group_stop_names_its_signal() {
        let seen = SignalSeen {
            tid: Tid(1),
            signal: 19,
            stopped: true,
            code: 0,
            errno: 0,
            fields: [0; 4],
        };
        assert_eq!(describe(&seen), "--- stopped by SIGSTOP ---");
    }
}
