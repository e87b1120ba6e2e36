//! Signals and their codes by name: `include/uapi/asm-generic/signal.h` and `siginfo.h`.

use std::borrow::Cow;

use super::{Names, name_of};

/// The name of a signal, real-time ones included (`SIGRT_2` is the second after SIGRTMIN); a number
/// beyond them stays a number.
pub fn signal_name(signal: i32) -> Cow<'static, str> {
    match signal {
        1..=31 => Cow::Borrowed(SIGNALS[signal as usize - 1]),
        32 => Cow::Borrowed("SIGRTMIN"),
        33..=64 => Cow::Owned(format!("SIGRT_{}", signal - 32)),
        _ => Cow::Owned(signal.to_string()),
    }
}

/// The name of a signal's `si_code`; what the positive ones mean depends on the signal.
pub fn si_code_name(signal: i32, code: i32) -> Option<&'static str> {
    if let Some(name) = name_of(ANY, u64::from(code as u32)) {
        return Some(name);
    }
    let names = match signal {
        4 => ILL,
        5 => TRAP,
        7 => BUS,
        8 => FPE,
        11 => SEGV,
        17 => CLD,
        29 => POLL,
        31 => SYS,
        _ => return None,
    };
    name_of(names, u64::from(code as u32))
}

const SIGNALS: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

const fn negative(code: i32) -> u64 {
    (code as u32) as u64
}

const ANY: &Names = &[
    (0, "SI_USER"),
    (0x80, "SI_KERNEL"),
    (negative(-1), "SI_QUEUE"),
    (negative(-2), "SI_TIMER"),
    (negative(-3), "SI_MESGQ"),
    (negative(-4), "SI_ASYNCIO"),
    (negative(-5), "SI_SIGIO"),
    (negative(-6), "SI_TKILL"),
    (negative(-7), "SI_DETHREAD"),
    (negative(-60), "SI_ASYNCNL"),
];

const ILL: &Names = &[
    (1, "ILL_ILLOPC"),
    (2, "ILL_ILLOPN"),
    (3, "ILL_ILLADR"),
    (4, "ILL_ILLTRP"),
    (5, "ILL_PRVOPC"),
    (6, "ILL_PRVREG"),
    (7, "ILL_COPROC"),
    (8, "ILL_BADSTK"),
    (9, "ILL_BADIADDR"),
];

const FPE: &Names = &[
    (1, "FPE_INTDIV"),
    (2, "FPE_INTOVF"),
    (3, "FPE_FLTDIV"),
    (4, "FPE_FLTOVF"),
    (5, "FPE_FLTUND"),
    (6, "FPE_FLTRES"),
    (7, "FPE_FLTINV"),
    (8, "FPE_FLTSUB"),
    (14, "FPE_FLTUNK"),
    (15, "FPE_CONDTRAP"),
];

const SEGV: &Names = &[
    (1, "SEGV_MAPERR"),
    (2, "SEGV_ACCERR"),
    (3, "SEGV_BNDERR"),
    (4, "SEGV_PKUERR"),
    (5, "SEGV_ACCADI"),
    (6, "SEGV_ADIDERR"),
    (7, "SEGV_ADIPERR"),
    (8, "SEGV_MTEAERR"),
    (9, "SEGV_MTESERR"),
    (10, "SEGV_CPERR"),
];

const BUS: &Names = &[
    (1, "BUS_ADRALN"),
    (2, "BUS_ADRERR"),
    (3, "BUS_OBJERR"),
    (4, "BUS_MCEERR_AR"),
    (5, "BUS_MCEERR_AO"),
];

const TRAP: &Names = &[
    (1, "TRAP_BRKPT"),
    (2, "TRAP_TRACE"),
    (3, "TRAP_BRANCH"),
    (4, "TRAP_HWBKPT"),
    (5, "TRAP_UNK"),
    (6, "TRAP_PERF"),
];

const CLD: &Names = &[
    (1, "CLD_EXITED"),
    (2, "CLD_KILLED"),
    (3, "CLD_DUMPED"),
    (4, "CLD_TRAPPED"),
    (5, "CLD_STOPPED"),
    (6, "CLD_CONTINUED"),
];

const POLL: &Names = &[
    (1, "POLL_IN"),
    (2, "POLL_OUT"),
    (3, "POLL_MSG"),
    (4, "POLL_ERR"),
    (5, "POLL_PRI"),
    (6, "POLL_HUP"),
];

const SYS: &Names = &[(1, "SYS_SECCOMP"), (2, "SYS_USER_DISPATCH")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_and_codes_have_their_names() {
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(32), "SIGRTMIN");
        assert_eq!(signal_name(35), "SIGRT_3");
        assert_eq!(signal_name(65), "65");
        assert_eq!(si_code_name(11, 1), Some("SEGV_MAPERR"));
        assert_eq!(si_code_name(10, -6), Some("SI_TKILL"));
        assert_eq!(si_code_name(10, 1), None);
    }
}
