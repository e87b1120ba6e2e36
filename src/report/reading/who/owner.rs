//! The one function of a stack that says most about whose memory it is.

use super::{Kind, Label};

/// Functions that do nothing but pass a system call on: whoever calls them is behind it. A name more
/// is all that it takes; of C++ functions it is that without arguments.
const WRAPPERS: &str = "
    # The kernel's way in for 32-bit programs, and the C libraries' functions named as the calls.
    __kernel_vsyscall _dl_sysinfo_int80 syscall mmap mmap64 munmap mprotect pkey_mprotect mremap
    madvise posix_madvise process_madvise brk sbrk shmat shmdt remap_file_pages mseal prctl
    mlock mlock2 munlock mlockall msync

    # glibc: calls that can be cancelled, and how malloc calls sbrk.
    __syscall_cancel __syscall_cancel_arch __internal_syscall_cancel
    __default_morecore __glibc_morecore __brk_call

    # musl
    __syscall __syscall_cp __syscall_cp_c __syscall_cp_asm

    # Go: its system calls, and mem.go and mem_linux.go, which hand them on one to one.
    runtime/internal/syscall.Syscall6 internal/runtime/syscall.Syscall6
    internal/runtime/syscall/linux.Syscall6
    syscall.Syscall syscall.Syscall6 syscall.RawSyscall syscall.RawSyscall6
    syscall.mmap syscall.munmap syscall.Mmap syscall.Munmap syscall.Mprotect syscall.Madvise
    syscall.(*mmapper).Mmap syscall.(*mmapper).Munmap
    runtime.mmap runtime.mmap.func1 runtime.sysMmap runtime.callCgoMmap x_cgo_mmap
    runtime.munmap runtime.munmap.func1 runtime.sysMunmap runtime.callCgoMunmap x_cgo_munmap
    runtime.madvise runtime.systemstack runtime.setVMAName runtime.prctl runtime.brk0
    runtime.sysAlloc runtime.sysAllocOS runtime.sysReserve runtime.sysReserveOS
    runtime.sysReserveAligned runtime.sysMap runtime.sysMapOS runtime.sysUsed runtime.sysUsedOS
    runtime.sysUnused runtime.sysUnusedOS runtime.sysFault runtime.sysFaultOS runtime.sysFree
    runtime.sysFreeOS runtime.sysHugePage runtime.sysHugePageOS runtime.sysNoHugePage
    runtime.sysNoHugePageOS runtime.sysHugePageCollapse runtime.sysHugePageCollapseOS

    # HotSpot: the layer below its virtual spaces.
    anon_mmap anon_munmap linux_mprotect os::reserve_memory os::pd_reserve_memory
    os::reserve_memory_aligned os::attempt_reserve_memory_at os::pd_attempt_reserve_memory_at
    os::commit_memory os::pd_commit_memory os::commit_memory_or_exit
    os::pd_commit_memory_or_exit os::Linux::commit_memory_impl os::uncommit_memory
    os::pd_uncommit_memory os::release_memory os::pd_release_memory os::protect_memory
    os::guard_memory os::unguard_memory

    # V8: the layer below its page allocators.
    v8::base::OS::Allocate v8::base::OS::Free v8::base::OS::Release
    v8::base::OS::SetPermissions v8::base::OS::DecommitPages v8::base::OS::RecommitPages
    v8::base::OS::DiscardSystemPages
";

/// Whether a function does nothing but pass a system call on.
pub fn is_wrapper(function: &str) -> bool {
    let plain = plain(function);
    // `__mmap`, `__libc_mmap` and `__GI___mmap64` are what `mmap` is called inside the C libraries.
    let inner = plain.strip_prefix("__GI_").unwrap_or(plain);
    let inner = inner.strip_prefix("__libc_").unwrap_or(inner);
    let inner = inner.strip_prefix("__").unwrap_or(inner);
    // Of a C++ function the list has the name without its arguments.
    let name = plain.split('(').next().unwrap_or(plain);
    let lines = WRAPPERS.lines().map(str::trim_start);
    let mut wrappers = lines
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace);
    wrappers.any(|wrapper| [plain, inner, name].contains(&wrapper))
}

/// A name without what linkers and compilers append: symbol versions, `.abi0`, `.cold`.
fn plain(function: &str) -> &str {
    let name = function.split('@').next().unwrap_or(function);
    let mut name = name;
    for suffix in [
        ".abi0",
        ".abiinternal",
        ".cold",
        ".part.0",
        ".isra.0",
        ".constprop.0",
    ] {
        name = name.strip_suffix(suffix).unwrap_or(name);
    }
    name
}

/// The owner of what a stack did: its first function, from the innermost outwards, that is not a bare
/// wrapper of the system call. Code without a name is nobody's wrapper. A stack of wrappers only
/// belongs to the outermost; what has no frames, or was copied by fork(2), to its remark.
pub fn owner(innermost_first: &[Label]) -> Option<&Label> {
    let last = innermost_first.last()?;
    if last.is_about_beginnings() {
        return Some(last);
    }
    let frames = || {
        innermost_first
            .iter()
            .filter(|label| label.kind != Kind::Remark)
    };
    frames()
        .find(|label| label.kind == Kind::Address || !is_wrapper(&label.text))
        .or_else(|| frames().next_back())
        .or(Some(last))
}
