//! The typed system calls that make, change, name, advise or inspect memory.

use crate::abi::{MapFlags, MremapFlags, Prot};
use crate::units::Addr;

/// A descriptor argument and what it was open on at the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fd {
    /// The number the program passed.
    pub number: i32,
    /// The target of `/proc/PID/fd/N`, unescaped bytes; `None` if it was not open or not asked for.
    pub path: Option<Vec<u8>>,
}

/// Where an mmap(2) call asked to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Anywhere the kernel likes.
    Anywhere,
    /// At this hint if it is free.
    Near(Addr),
    /// Exactly here, unmapping what is there: MAP_FIXED.
    Replacing(Addr),
    /// Exactly here, or EEXIST: MAP_FIXED_NOREPLACE.
    IfFree(Addr),
}

/// mmap(2), also as i386 `mmap2` and `old_mmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mmap {
    /// The address argument as passed.
    pub addr: Addr,
    /// The length as passed, in bytes.
    pub len: u64,
    /// Access rights.
    pub prot: Prot,
    /// Flags, the sharing type included.
    pub flags: MapFlags,
    /// The descriptor; `None` for MAP_ANONYMOUS (whatever number was passed is in `raw_fd`).
    pub fd: Option<Fd>,
    /// The descriptor argument as passed.
    pub raw_fd: i32,
    /// File offset in bytes (already multiplied for `mmap2`).
    pub offset: u64,
}

impl Mmap {
    /// Where the call asked to be put.
    pub fn placement(&self) -> Placement {
        // Tested first: the kernel itself adds MAP_FIXED to MAP_FIXED_NOREPLACE.
        if self.flags.contains(MapFlags::FIXED_NOREPLACE) {
            return Placement::IfFree(self.addr);
        }
        match self.addr {
            _ if self.flags.contains(MapFlags::FIXED) => Placement::Replacing(self.addr),
            Addr(0) => Placement::Anywhere,
            near => Placement::Near(near),
        }
    }
}

/// mremap(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mremap {
    /// Old address.
    pub old_addr: Addr,
    /// Old length in bytes, as passed.
    pub old_len: u64,
    /// New length in bytes, as passed.
    pub new_len: u64,
    /// MREMAP_* flags.
    pub flags: MremapFlags,
    /// New address; meaningful with MREMAP_FIXED (and as a hint with MREMAP_DONTUNMAP).
    pub new_addr: Addr,
}

/// One span of a process_madvise(2) vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoVec {
    /// Start.
    pub addr: Addr,
    /// Bytes.
    pub len: u64,
}

/// A memory-management call, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// mmap, mmap2, old_mmap
    Mmap(Mmap),
    /// munmap(2)
    Munmap {
        /// Start as passed.
        addr: Addr,
        /// Bytes as passed.
        len: u64,
    },
    /// mprotect(2) and pkey_mprotect(2)
    Mprotect {
        /// Start as passed.
        addr: Addr,
        /// Bytes as passed.
        len: u64,
        /// New rights, PROT_GROWSDOWN and PROT_GROWSUP included.
        prot: Prot,
        /// The key of pkey_mprotect; `None` for mprotect.
        pkey: Option<i32>,
    },
    /// mremap(2)
    Mremap(Mremap),
    /// brk(2)
    Brk {
        /// The break asked for; 0 asks where it is.
        addr: Addr,
    },
    /// madvise(2)
    Madvise {
        /// Start as passed.
        addr: Addr,
        /// Bytes as passed.
        len: u64,
        /// MADV_* number, see [`crate::abi::advice_name`].
        advice: i32,
    },
    /// process_madvise(2)
    ProcessMadvise {
        /// The pidfd.
        pidfd: Fd,
        /// The spans; empty when the vector could not be read.
        ranges: Vec<IoVec>,
        /// The vector's address, when it could not be read.
        vector: Addr,
        /// Number of spans as passed.
        count: u64,
        /// MADV_* number.
        advice: i32,
        /// Reserved, 0.
        flags: u32,
    },
    /// shmat(2), also through i386 ipc(2)
    Shmat {
        /// Segment.
        shmid: i32,
        /// Address asked for, 0 for any.
        addr: Addr,
        /// SHM_* flags.
        flags: i32,
        /// i386 ipc(SHMAT): where the kernel stored the address. `None` elsewhere: it is the result.
        stored: Option<Addr>,
    },
    /// shmdt(2), also through i386 ipc(2)
    Shmdt {
        /// Address as passed.
        addr: Addr,
    },
    /// remap_file_pages(2)
    RemapFilePages {
        /// Start.
        addr: Addr,
        /// Bytes.
        len: u64,
        /// Must be 0.
        prot: Prot,
        /// New offset in pages.
        pgoff: u64,
        /// Flags.
        flags: MapFlags,
    },
    /// io_setup(2): the kernel maps an AIO ring
    IoSetup {
        /// Events asked for.
        events: u32,
        /// Where the context is stored.
        pointer: Addr,
        /// The context, which is the ring's address; read at the exit.
        context: Option<Addr>,
    },
    /// io_destroy(2): the ring is unmapped
    IoDestroy {
        /// The context, which is the ring's address.
        context: Addr,
    },
    /// mseal(2)
    Mseal {
        /// Start.
        addr: Addr,
        /// Bytes.
        len: u64,
        /// Reserved, 0.
        flags: u64,
    },
    /// map_shadow_stack(2)
    MapShadowStack {
        /// Address asked for.
        addr: Addr,
        /// Bytes.
        len: u64,
        /// SHADOW_STACK_* flags.
        flags: u32,
    },
    /// Any other call: no bytes of any mapping change. Rendered from the raw call.
    Other,
}
