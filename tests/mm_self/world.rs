//! What the random calls work on, and the calls themselves.

use memtrace::abi::{MapFlags, MremapFlags, Prot};
use memtrace::decode::{Call, Fd, IoVec, Mmap, Mremap};
use memtrace::units::Addr;

pub const PAGE: u64 = 4096;
/// Far from everything the kernel chooses by itself.
pub const WINDOW: u64 = 0x2000_0000_0000;
/// Pages of a window that calls aim at.
pub const PAGES: u64 = 64;

/// xorshift64*: repeatable, and no dependency.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A system call as the supervisor sees it: errors as negative results.
pub fn raw(number: i64, args: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the ranges that the calls touch lie in windows that only this test uses, or are
    // mappings that it made; a bad argument gives an errno.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    match result {
        // No call of ours succeeds with the last address there is.
        -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(1)),
        result => result,
    }
}

pub struct World {
    pub random: Random,
    pub window: u64,
    /// What to map: a file, a memfd, /dev/zero.
    pub files: Vec<i32>,
    pub zero: i32,
    pub read_only: i32,
    pub segments: Vec<i32>,
    pub rings: Vec<u64>,
    /// Where the heap began.
    pub heap: u64,
    /// A page that calls read their vectors from and may write results to.
    pub scratch: Box<[u64; 512]>,
    pub pidfd: i32,
    /// Whether to make mappings that grow by page faults.
    pub stacks: bool,
}

impl World {
    fn page(&mut self) -> u64 {
        self.window + self.random.below(PAGES) * PAGE
    }

    pub fn len(&mut self) -> u64 {
        let pages = match self.random.below(8) {
            0 => self.random.below(40),
            _ => 1 + self.random.below(8),
        };
        let odd = match self.random.below(6) {
            0 => self.random.below(PAGE),
            _ => 0,
        };
        (pages * PAGE).saturating_sub(odd)
    }

    pub fn addr(&mut self) -> u64 {
        let page = self.page();
        if self.random.one_in(40) {
            page + 7
        } else {
            page
        }
    }

    fn prot(&mut self) -> u32 {
        self.random.pick(&[0, 0, 1, 3, 3, 3, 5, 7, 2])
    }

    pub fn mmap(&mut self) -> (Call, i64) {
        let random = &mut self.random;
        let mut flags = random.pick(&[0x10, 0x10, 0x10, 0x10_0000, 0]);
        flags |= random.pick(&[
            0x22, 0x22, 0x22, 0x22, 0x21, 0x02, 0x02, 0x01, 0x28, 0x03, 0x20,
        ]);
        flags |= random.pick(&[0, 0, 0, 0x4000, 0x4000, 0x2_0000, 0x8000]);
        if random.one_in(10) {
            flags |= random.pick(&[0x100, 0x100, 0x4_0000, 0x400_0000, 0x800, 0x2000]);
        }
        if !self.stacks {
            flags &= !0x100;
        }
        let anonymous = flags & 0x20 != 0;
        let (mut fd, mut offset) = (-1, 0);
        if !anonymous {
            fd = random.pick(&self.files);
            offset = random.below(6) * PAGE;
            if random.one_in(12) {
                fd = random.pick(&[self.read_only, 999, self.pidfd]);
            }
            if random.one_in(30) {
                offset += 5;
            }
        }
        // Without an address the kernel chooses a place outside of the window.
        let free_choice = flags & 0x10_0010 == 0 && random.one_in(3);
        let addr = if free_choice { 0 } else { self.addr() };
        let (len, prot) = (self.len(), self.prot());
        let result = raw(
            libc::SYS_mmap,
            [addr, len, prot.into(), u64::from(flags), fd as u64, offset],
        );
        let call = Call::Mmap(Mmap {
            addr: Addr(addr),
            len,
            prot: Prot::from_bits_retain(prot),
            flags: MapFlags::from_bits_retain(flags),
            fd: (!anonymous).then_some(Fd {
                number: fd,
                path: None,
            }),
            raw_fd: fd,
            offset,
        });
        (call, result)
    }

    pub fn mremap(&mut self) -> (Call, i64) {
        let (old_addr, new_addr) = (self.addr(), self.addr());
        let (mut old_len, mut new_len) = (self.len(), self.len());
        if self.random.one_in(12) {
            old_len = 0;
        }
        if self.random.one_in(2) {
            new_len = old_len;
        }
        let flags = self.random.pick(&[0, 1, 1, 3, 3, 3, 5, 7, 2]);
        let args = [old_addr, old_len, new_len, flags.into(), new_addr, 0];
        let call = Call::Mremap(Mremap {
            old_addr: Addr(old_addr),
            old_len,
            new_len,
            flags: MremapFlags::from_bits_retain(flags),
            new_addr: Addr(new_addr),
        });
        (call, raw(libc::SYS_mremap, args))
    }

    pub fn mprotect(&mut self) -> (Call, i64) {
        let (addr, len) = (self.addr(), self.len());
        let mut prot = self.prot();
        if self.random.one_in(20) {
            prot |= self
                .random
                .pick(&[0x100_0000, 0x100_0000, 0x200_0000, 0x8, 0x1000]);
        }
        let result = raw(libc::SYS_mprotect, [addr, len, prot.into(), 0, 0, 0]);
        let call = Call::Mprotect {
            addr: Addr(addr),
            len,
            prot: Prot::from_bits_retain(prot),
            pkey: None,
        };
        (call, result)
    }

    pub fn madvise(&mut self) -> (Call, i64) {
        let (addr, len) = (self.addr(), self.len());
        let advice = self.random.pick(&[
            4, 8, 9, 10, 11, 10, 11, 12, 14, 15, 16, 18, 20, 21, 22, 24, 102, 103, 999,
        ]);
        if !self.random.one_in(4) {
            let result = raw(libc::SYS_madvise, [addr, len, advice as u64, 0, 0, 0]);
            let addr = Addr(addr);
            return (Call::Madvise { addr, len, advice }, result);
        }
        let first = IoVec {
            addr: Addr(addr),
            len,
        };
        let second = IoVec {
            addr: Addr(self.addr()),
            len: self.len(),
        };
        let words = [first.addr.0, first.len, second.addr.0, second.len];
        self.scratch[..4].copy_from_slice(&words);
        let vector = self.scratch.as_ptr() as u64;
        let args = [self.pidfd as u64, vector, 2, advice as u64, 0, 0];
        let call = Call::ProcessMadvise {
            pidfd: Fd {
                number: self.pidfd,
                path: None,
            },
            ranges: vec![first, second],
            vector: Addr(vector),
            count: 2,
            advice,
            flags: 0,
        };
        (call, raw(libc::SYS_process_madvise, args))
    }

    pub fn brk(&mut self) -> (Call, i64) {
        let addr = match self.random.below(6) {
            0 => 0,
            1 => self.heap + (1 << 46),
            2 => self.heap + self.random.below(3),
            _ => self.heap + self.random.below(40 * PAGE),
        };
        let result = raw(libc::SYS_brk, [addr, 0, 0, 0, 0, 0]);
        (Call::Brk { addr: Addr(addr) }, result)
    }

    pub fn shm(&mut self) -> (Call, i64) {
        let mut addr = self.addr();
        if self.random.one_in(2) {
            let result = raw(libc::SYS_shmdt, [addr, 0, 0, 0, 0, 0]);
            return (Call::Shmdt { addr: Addr(addr) }, result);
        }
        if self.random.one_in(8) {
            addr = 0;
        }
        let shmid = self.random.pick(&self.segments);
        let flags = self
            .random
            .pick(&[0, 0o10000, 0o20000, 0o40000, 0o40000, 0o100000, 0o60000]);
        let result = raw(libc::SYS_shmat, [shmid as u64, addr, flags as u64, 0, 0, 0]);
        let call = Call::Shmat {
            shmid,
            addr: Addr(addr),
            flags,
            stored: None,
        };
        (call, result)
    }

    pub fn ring(&mut self) -> (Call, i64) {
        if let Some(ring) = self.rings.pop() {
            let result = raw(libc::SYS_io_destroy, [ring, 0, 0, 0, 0, 0]);
            let context = Addr(ring);
            return (Call::IoDestroy { context }, result);
        }
        self.scratch[0] = 0;
        let pointer = self.scratch.as_ptr() as u64;
        let events = 1 + self.random.below(300) as u32;
        let result = raw(libc::SYS_io_setup, [events.into(), pointer, 0, 0, 0, 0]);
        // SAFETY: one word of our own, which the kernel may have written.
        let ring = unsafe { std::ptr::read_volatile(self.scratch.as_ptr()) };
        let context = (result == 0).then_some(Addr(ring));
        self.rings.extend(context.map(|context| context.0));
        let call = Call::IoSetup {
            events,
            pointer: Addr(pointer),
            context,
        };
        (call, result)
    }

    /// Lets the kernel write a byte: it faults pages in and grows stacks, and where it cannot it
    /// gives EFAULT instead of SIGSEGV.
    pub fn touch(&mut self) {
        let addr = self.page() + self.random.below(PAGE);
        raw(libc::SYS_read, [self.zero as u64, addr, 1, 0, 0, 0]);
    }

    pub fn clean_up(self) {
        raw(libc::SYS_brk, [self.heap, 0, 0, 0, 0, 0]);
        for shmid in self.segments {
            raw(libc::SYS_shmctl, [shmid as u64, 0, 0, 0, 0, 0]);
        }
    }
}
