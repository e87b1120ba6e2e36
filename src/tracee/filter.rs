//! The seccomp filter under which a launched program runs: memory calls stop, nothing else does.
//!
//! The kernel answers calls whose verdict depends on number and ABI alone from a bitmap
//! (`kernel/seccomp.c`, `seccomp_cache_check_allow`), so arguments are only looked at behind the
//! compare with the number they belong to: all other calls stay in the bitmap.

use libc::sock_filter;

use crate::abi::{Abi, CALLS, CallInfo, CallKind};

/// SECCOMP_RET_DATA of our filter. Another value at a seccomp stop means that the program's own
/// filter asked for a tracer that, untraced, would not be there.
pub(super) const OUR_DATA: u16 = 0x4d54;

/// CLONE_UNTRACED of clone(2).
pub(super) const CLONE_UNTRACED: u64 = 0x0080_0000;

const LD_W_ABS: u16 = 0x20;
const JEQ_K: u16 = 0x15;
const JSET_K: u16 = 0x45;
const RET_K: u16 = 0x06;
const AND_K: u16 = 0x54;
const JA: u16 = 0x05;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_TRACE: u32 = 0x7ff0_0000 | OUR_DATA as u32;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARG0: u32 = 16;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;

/// A test of the low half of the first argument.
enum First {
    Any,
    /// Equal to one of these, after masking.
    OneOf(u32, &'static [u32]),
    /// Has one of these bits.
    Bits(u32),
}

fn op(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The filter that stops the calls which `wanted` picks, and those the tracer needs to follow
/// every child (clone3, clone with CLONE_UNTRACED) and to see a space whole before it is replaced
/// (execve, execveat).
pub(super) fn build(wanted: impl Fn(&CallInfo) -> bool) -> Vec<sock_filter> {
    let section = |abi: Abi| {
        let mut code = vec![op(LD_W_ABS, OFFSET_NR)];
        for call in CALLS.iter().filter(|call| wanted(call)) {
            let number = match abi {
                Abi::X86_64 => call.x86_64,
                Abi::I386 => call.i386,
            };
            if let Some(number) = number {
                test(&mut code, number, first_argument(call.kind));
            }
        }
        let (clone, clone3, execve, execveat) = match abi {
            Abi::X86_64 => (56, 435, 59, 322),
            Abi::I386 => (120, 435, 11, 358),
        };
        test(&mut code, clone, First::Bits(CLONE_UNTRACED as u32));
        for number in [clone3, execve, execveat] {
            test(&mut code, number, First::Any);
        }
        code.push(op(RET_K, RET_ALLOW));
        code
    };
    let x86_64 = section(Abi::X86_64);
    let i386 = section(Abi::I386);
    // BPF_JA reaches further than the eight bits of a conditional jump.
    let mut code = vec![
        op(LD_W_ABS, OFFSET_ARCH),
        jump(JEQ_K, AUDIT_ARCH_X86_64, 3, 0),
        jump(JEQ_K, AUDIT_ARCH_I386, 1, 0),
        op(RET_K, RET_ALLOW),
        op(JA, x86_64.len() as u32),
    ];
    code.extend(x86_64);
    code.extend(i386);
    code
}

fn first_argument(kind: CallKind) -> First {
    match kind {
        CallKind::Prctl => First::OneOf(!0, &[0x5356_4d41, 35, 41, 67]),
        CallKind::ArchPrctl => First::OneOf(
            !0,
            &[
                0x2001, 0x2002, 0x2003, 0x5001, 0x5002, 0x5003, 0x5004, 0x5005,
            ],
        ),
        CallKind::Ipc => First::OneOf(0xffff, &[21, 22, 23, 24]),
        _ => First::Any,
    }
}

fn test(code: &mut Vec<sock_filter>, number: u32, first: First) {
    match first {
        First::Any => {
            code.push(jump(JEQ_K, number, 0, 1));
            code.push(op(RET_K, RET_TRACE));
        }
        First::Bits(bits) => {
            code.push(jump(JEQ_K, number, 0, 4));
            code.push(op(LD_W_ABS, OFFSET_ARG0));
            code.push(jump(JSET_K, bits, 0, 1));
            code.push(op(RET_K, RET_TRACE));
            code.push(op(RET_K, RET_ALLOW));
        }
        First::OneOf(mask, values) => {
            let tests = values.len() as u8;
            code.push(jump(JEQ_K, number, 0, tests + 4));
            code.push(op(LD_W_ABS, OFFSET_ARG0));
            code.push(op(AND_K, mask));
            for (index, &value) in values.iter().enumerate() {
                // On a match: over the remaining tests and the ALLOW.
                code.push(jump(JEQ_K, value, tests - index as u8, 0));
            }
            code.push(op(RET_K, RET_ALLOW));
            code.push(op(RET_K, RET_TRACE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn verdict(code: &[sock_filter], arch: u32, nr: u32, arg0: u64) -> u32 {
        let (mut pc, mut a) = (0usize, 0u32);
        loop {
            let insn = code[pc];
            pc += 1;
            match insn.code {
                LD_W_ABS => {
                    a = match insn.k {
                        OFFSET_NR => nr,
                        OFFSET_ARCH => arch,
                        OFFSET_ARG0 => arg0 as u32,
                        other => panic!("loads offset {other}"),
                    }
                }
                JEQ_K => pc += usize::from(if a == insn.k { insn.jt } else { insn.jf }),
                JSET_K => pc += usize::from(if a & insn.k != 0 { insn.jt } else { insn.jf }),
                AND_K => a &= insn.k,
                JA => pc += insn.k as usize,
                RET_K => return insn.k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_filter_stops_every_wanted_number_of_both_abis_and_no_other() {
        let code = build(|call| call.default);
        for (arch, abi) in [
            (AUDIT_ARCH_X86_64, Abi::X86_64),
            (AUDIT_ARCH_I386, Abi::I386),
        ] {
            let extra: &[u32] = match abi {
                Abi::X86_64 => &[435, 59, 322],
                Abi::I386 => &[435, 11, 358],
            };
            for nr in 0..600 {
                let traced = crate::abi::call_info(abi, nr).is_some_and(|call| {
                    call.default
                        && !matches!(
                            call.kind,
                            CallKind::Prctl | CallKind::ArchPrctl | CallKind::Ipc
                        )
                }) || extra.contains(&nr);
                let expected = if traced { RET_TRACE } else { RET_ALLOW };
                assert_eq!(verdict(&code, arch, nr, 0), expected, "{abi:?} {nr}");
            }
        }
        assert_eq!(
            verdict(&code, 0xc000_00b7, 9, 0),
            RET_ALLOW,
            "another architecture"
        );
    }

    #[test]
    fn arguments_decide_only_where_they_must() {
        let code = build(|call| call.default);
        let x86 = |nr, arg0| verdict(&code, AUDIT_ARCH_X86_64, nr, arg0);
        assert_eq!(x86(157, 0x5356_4d41), RET_TRACE);
        assert_eq!(x86(157, 67), RET_TRACE);
        assert_eq!(x86(157, 15), RET_ALLOW);
        assert_eq!(x86(158, 0x2003), RET_TRACE);
        assert_eq!(x86(158, 0x1002), RET_ALLOW);
        assert_eq!(x86(56, CLONE_UNTRACED | 17), RET_TRACE);
        assert_eq!(x86(56, 17), RET_ALLOW);
        let i386 = |nr, arg0| verdict(&code, AUDIT_ARCH_I386, nr, arg0);
        assert_eq!(i386(117, 21), RET_TRACE);
        assert_eq!(i386(117, 0x1_0016), RET_TRACE);
        assert_eq!(i386(117, 1), RET_ALLOW);
    }
}
