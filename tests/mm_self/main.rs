//! The model against the running kernel: this process does random memory calls to itself, feeds the
//! same calls to the model, and compares with `/proc/self/maps` after each one.
//!
//! One test only, so that nothing else maps memory meanwhile. `MM_SELF_SEED=N` repeats a run,
//! `MM_SELF_OPS=N` makes it longer.
#![cfg(all(
    feature = "linux",
    target_os = "linux",
    target_arch = "x86_64",
    not(miri)
))]
#![expect(
    unsafe_code,
    reason = "raw memory calls in an address window that nothing else uses"
)]

mod twin;
mod world;

use std::fs;
use std::os::fd::IntoRawFd;
use std::time::{SystemTime, UNIX_EPOCH};

use memtrace::abi::{MapFlags, Prot};
use memtrace::decode::{Call, Mmap, Mremap};
use memtrace::mm::{AddressSpace, Context};
use memtrace::units::{Addr, AddrRange};

use twin::{Twin, smaps};
use world::{PAGE, PAGES, Random, WINDOW, World, raw};

/// mseal(2), not in every libc crate.
const SYS_MSEAL: i64 = 462;

/// Descriptors and segments to work with.
fn world(seed: u64, stacks: bool) -> World {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(5 * PAGE).expect("room for 5 pages");
    let mut options = fs::File::options();
    let zero = options.read(true).write(true).open("/dev/zero");
    let zero = zero.expect("/dev/zero").into_raw_fd();
    let exe = fs::File::open("/proc/self/exe").expect("our own file");
    let name = c"memfd".as_ptr() as u64;
    let memfd = raw(libc::SYS_memfd_create, [name, 0, 0, 0, 0, 0]);
    raw(libc::SYS_ftruncate, [memfd as u64, 8 * PAGE, 0, 0, 0, 0]);
    let segment = |pages: u64| raw(libc::SYS_shmget, [0, pages * PAGE, 0o1600, 0, 0, 0]) as i32;
    let pid = u64::from(std::process::id());
    World {
        random: Random(seed | 1),
        window: WINDOW,
        files: vec![file.into_raw_fd(), memfd as i32, zero],
        zero,
        read_only: exe.into_raw_fd(),
        segments: vec![segment(1), segment(4)],
        rings: Vec::new(),
        heap: raw(libc::SYS_brk, [0; 6]) as u64,
        scratch: Box::new([0; 512]),
        pidfd: raw(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0]) as i32,
        stacks,
    }
}

/// One random call.
fn step(world: &mut World, seals: bool) -> (Call, i64) {
    match world.random.below(40) {
        0..12 => world.mmap(),
        12..16 => {
            let (addr, len) = (world.addr(), world.len());
            munmap(addr, len)
        }
        16..24 => world.mprotect(),
        24..31 => world.mremap(),
        31..34 => world.madvise(),
        34..36 => world.shm(),
        36 => world.ring(),
        37 => {
            let (addr, len) = (world.addr(), world.len());
            let pgoff = world.random.below(6);
            let args = [addr, len, 0, pgoff, 0, 0];
            let call = Call::RemapFilePages {
                addr: Addr(addr),
                len,
                prot: Prot::NONE,
                pgoff,
                flags: MapFlags::empty(),
            };
            (call, raw(libc::SYS_remap_file_pages, args))
        }
        38 if seals && world.random.one_in(6) => {
            let addr = world.addr();
            let call = Call::Mseal {
                addr: Addr(addr),
                len: PAGE,
                flags: 0,
            };
            (call, raw(SYS_MSEAL, [addr, PAGE, 0, 0, 0, 0]))
        }
        _ => world.brk(),
    }
}

fn munmap(addr: u64, len: u64) -> (Call, i64) {
    let result = raw(libc::SYS_munmap, [addr, len, 0, 0, 0, 0]);
    let addr = Addr(addr);
    (Call::Munmap { addr, len }, result)
}

/// Where a call put something outside of the window.
fn landed_elsewhere(call: &Call, result: i64) -> Option<AddrRange> {
    let (Call::Mmap(Mmap { len, .. }) | Call::Mremap(Mremap { new_len: len, .. })) = call else {
        return None;
    };
    let range = AddrRange::covering(Addr(u64::try_from(result).ok()?), *len)?;
    (!(WINDOW..WINDOW << 1).contains(&range.start().0)).then_some(range)
}

fn run(seed: u64, steps: u64, stacks: bool) {
    // The allocator must not map or unmap while we compare: let it keep what it has once had.
    // SAFETY: only sets parameters of malloc.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
    }
    drop(std::hint::black_box(vec![1u8; 24 << 20]));

    let mut world = world(seed, stacks);
    let mut twin = Twin::new(
        AddressSpace::from_snapshot(&smaps()),
        Context::default(),
        seed,
    );
    twin.check(&smaps());
    let seals = raw(SYS_MSEAL, [WINDOW - PAGE, 0, 0, 0, 0, 0]) == 0;
    let mut elsewhere: Vec<AddrRange> = Vec::new();
    let (mut done, mut failed) = (0u64, 0u64);
    for number in 0..steps {
        for _ in 0..world.random.below(3) {
            world.touch();
        }
        let (call, result) = step(&mut world, seals);
        if result < 0 {
            failed += 1;
        } else {
            done += 1;
        }
        twin.observe(&call, result);
        elsewhere.extend(landed_elsewhere(&call, result));
        if 12 < elsewhere.len() {
            let range = elsewhere.swap_remove(world.random.below(12) as usize);
            let (call, result) = munmap(range.start().0, range.len());
            twin.observe(&call, result);
        }
        if number % 16 == 0 {
            twin.check_flags(world.random.one_in(4));
        }
        if number % 400 == 399 {
            // What was sealed stays for good: go on in a fresh window.
            for page in 0..PAGES + 48 {
                let (call, result) = munmap(world.window + page * PAGE, PAGE);
                twin.observe(&call, result);
            }
            world.window += 0x1000_0000;
            twin.forget();
        }
    }
    let rechecks = twin.rechecks;
    assert!(stacks || rechecks == 0, "doubts without a reason");
    println!("seed {seed}: {done} calls done, {failed} refused, {rechecks} doubts, no drift");
    world.clean_up();
}

#[test]
fn random_calls_leave_model_and_kernel_equal() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock = clock.map_or(1, |time| time.as_nanos() as u64);
    let seed = number("MM_SELF_SEED").unwrap_or(clock);
    println!("MM_SELF_SEED={seed}");
    let steps = number("MM_SELF_OPS").unwrap_or(4000);
    run(seed, steps / 2, false);
    // Mappings that grow unseen are the one reason for doubt there is.
    run(seed, steps / 2, true);
}
