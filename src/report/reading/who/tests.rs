//! Who is behind which bytes, told of short runs.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::report::reading::tests::run::{BEGAN, Run, mmap, mprotect, munmap};
use crate::report::reading::{Filter, Sums, json};
use crate::timeline::{HeldNames, Stack};
use crate::units::Bytes;

const A: u64 = 0x7f00_0000_0000;
const K: u64 = 0x1000;

/// A heap as Go's: reserved by one function, committed in part by another.
fn heap() -> Run {
    let mut run = Run::new();
    let reserve = run.stack(&["mmap", "runtime.sysReserve", "heap.reserve", "init", "main"]);
    let commit = run.stack(&["mprotect", "heap.grow", "alloc", "main"]);
    let other = run.stack(&["+code", "alloc", "main"]);
    run.call_from(10, mmap(A, 16 * K, 0), reserve);
    run.call_from(10, mprotect(A, 4 * K, 3), commit);
    run.call_from(11, mprotect(A + 4 * K, K, 3), commit);
    run.call_from(10, mmap(A + 64 * K, 2 * K, 3), other);
    run.call(10, mmap(A + 80 * K, K, 3));
    run.call_from(10, munmap(A + 15 * K, K), other);
    run
}

fn profile(run: &Run) -> Profile {
    let mut sink = ProfileSink::new(Filter::default());
    run.tell(&mut sink);
    sink.into_profile()
}

/// Reserved, committed and mapped at the end, in pages.
fn pages(sums: &Sums) -> [u64; 3] {
    [sums.reserved, sums.committed, sums.mapped].map(|Bytes(bytes)| bytes / K)
}

#[test]
fn what_is_left_belongs_to_who_took_the_addresses_and_to_who_committed_it() {
    let owners = profile(&heap()).by_owner(&mut HeldNames);
    let rows: BTreeMap<&str, [u64; 3]> = owners
        .rows
        .iter()
        .map(|row| (&*row.owner.text, pages(&row.sums)))
        .collect();
    let expected = [
        ("heap.reserve", [10, 0, 15]),
        ("heap.grow", [0, 5, 0]),
        ("server+0x3000", [0, 2, 2]),
        ("(no stack) mmap", [0, 1, 1]),
        ("(began: exec)", [0, BEGAN / K, BEGAN / K]),
    ];
    assert_eq!(rows, BTreeMap::from(expected));
    let by = |name: &str| {
        let row = owners.rows.iter().find(|row| &*row.owner.text == name);
        row.map(|row| (row.stacks, row.sums.calls, row.sums.flow))
    };
    let (stacks, calls, flow) = by("heap.grow").expect("a row");
    assert_eq!((stacks, calls, flow.commit), (1, 2, Bytes(5 * K)));
    let (_, _, flow) = by("server+0x3000").expect("a row");
    assert_eq!((flow.map, flow.release), (Bytes(2 * K), Bytes(K)));
}

#[test]
fn an_owner_is_the_first_function_that_does_more_than_to_call_the_kernel() {
    let mut run = Run::new();
    let stacks = [
        (
            vec!["__mmap64@@GLIBC_2.2.5", "sysmalloc", "main"],
            "sysmalloc",
        ),
        (
            vec![
                "internal/runtime/syscall.Syscall6.abi0",
                "runtime.sysMmap",
                "runtime.mmap",
                "runtime.sysReserveOS",
                "runtime.sysReserve",
                "runtime.(*mheap).sysAlloc",
            ],
            "runtime.(*mheap).sysAlloc",
        ),
        (vec!["mmap64", "+nameless", "main"], "server+0x3001"),
        (
            vec![
                "anon_mmap(char*, unsigned long)",
                "os::reserve_memory(unsigned long, bool)",
                "ReservedSpace::initialize(unsigned long)",
            ],
            "ReservedSpace::initialize(unsigned long)",
        ),
        (vec!["syscall", "mmap"], "mmap"),
    ];
    for (index, (functions, _)) in stacks.iter().enumerate() {
        let stack = run.stack(functions);
        run.call_from(10, mmap(A + index as u64 * 4 * K, K, 0), stack);
    }
    let table = profile(&run).by_stack(&mut HeldNames);
    for (functions, expected) in &stacks {
        let row = table.rows.iter().find(|row| {
            row.labels.len() == functions.len() && *row.labels[0].text == *functions[0]
        });
        let owner = row.and_then(StackRow::owner).expect("an owner");
        assert_eq!(&*owner.text, *expected);
    }
}

#[test]
fn what_fork_copied_stands_below_the_fork_with_who_made_it() {
    let mut run = Run::new();
    let map = run.stack(&["mmap", "load", "main"]);
    run.call_from(10, mmap(A, 4 * K, 3), map);
    run.fork(2, 20);
    let own = run.stack(&["munmap", "child"]);
    run.call_in(2, 20, munmap(A, K), Stack::Known(own));
    let profile = profile(&run);
    let mut lines: Vec<(String, [u64; 3])> = profile
        .entries
        .iter()
        .map(|entry| {
            let mut labels = Labels::new(&profile.stacks, &mut HeldNames)
                .source(&entry.source)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>();
            labels.reverse();
            (labels.join(";"), pages(&entry.sums))
        })
        .collect();
    lines.sort();
    let expected = [
        ("(began: exec)", [0, 3, 3]),
        ("(began: fork);(began: exec)", [0, 3, 3]),
        ("(began: fork);main;load;mmap", [0, 3, 3]),
        ("child;munmap", [0, 0, 0]),
        ("main;load;mmap", [0, 4, 4]),
    ];
    let expected = expected.map(|(line, pages)| (line.to_owned(), pages));
    assert_eq!(lines, expected);
    let owners = profile.by_owner(&mut HeldNames);
    let forked = owners
        .rows
        .iter()
        .find(|row| &*row.owner.text == "(began: fork)");
    assert_eq!(forked.map(|row| pages(&row.sums)), Some([0, 6, 6]));
}

#[test]
fn growth_of_a_stack_is_told_from_what_the_map_showed() {
    let mut run = Run::new();
    run.checkpoint(
        "400000-402000 r-xp 00000000 08:01 77 /srv/server\n\
         7f0000000000-7f0000002000 ---p 00000000 00:00 0 \n\
         7ffffffdc000-7ffffffdf000 rw-p 00000000 00:00 0 [stack]\n",
    );
    let table = profile(&run).by_stack(&mut HeldNames);
    let rows: BTreeMap<&str, [u64; 3]> = table
        .rows
        .iter()
        .map(|row| (&*row.labels[0].text, pages(&row.sums)))
        .collect();
    let expected = [
        ("(began: exec)", [0, 3, 3]),
        ("(found in the kernel's map)", [2, 0, 2]),
        ("(grown by page faults)", [0, 2, 2]),
    ];
    assert_eq!(rows, BTreeMap::from(expected));
}

/// The tree as lines: depth, name, and reserved and committed pages.
fn lines(tree: &Tree) -> Vec<(usize, &str, u64, u64)> {
    let mut depth = vec![0; tree.nodes.len()];
    let mut lines = Vec::new();
    for (index, node) in tree.nodes.iter().enumerate() {
        if index > 0 {
            depth[index] = depth[node.parent] + 1;
        }
        let [reserved, committed, _] = pages(&node.sums);
        lines.push((depth[index], &*node.label.text, reserved, committed));
    }
    lines
}

#[test]
fn a_tree_grows_from_the_callers_or_from_the_called() {
    let profile = profile(&heap());
    let down = profile.tree(&mut HeldNames, Direction::Down, None);
    assert_eq!(
        lines(&down),
        [
            (0, "", 10, 11),
            (1, "main", 10, 7),
            (2, "init", 10, 0),
            (3, "heap.reserve", 10, 0),
            (4, "runtime.sysReserve", 10, 0),
            (5, "mmap", 10, 0),
            (2, "alloc", 0, 7),
            (3, "heap.grow", 0, 5),
            (4, "mprotect", 0, 5),
            (3, "server+0x3000", 0, 2),
            (1, "(began: exec)", 0, 3),
            (1, "(no stack) mmap", 0, 1),
        ]
    );
    let up = profile.tree(&mut HeldNames, Direction::Up, Some(Weight::Committed));
    let roots: Vec<_> = lines(&up)
        .into_iter()
        .filter(|(depth, ..)| *depth < 2)
        .collect();
    assert_eq!(
        roots,
        [
            (0, "", 10, 11),
            (1, "mprotect", 0, 5),
            (1, "(began: exec)", 0, 3),
            (1, "server+0x3000", 0, 2),
            (1, "(no stack) mmap", 0, 1),
            (1, "mmap", 10, 0),
        ]
    );
}

#[test]
fn tables_and_trees_as_json_name_every_step() {
    let profile = profile(&heap());
    let owners = json::owners(&profile.by_owner(&mut HeldNames));
    assert_eq!(owners["schema"], "memtrace.table/1");
    assert_eq!(
        owners["rows"][0],
        serde_json::json!({
            "owner": "heap.reserve", "kind": "function", "module": "/srv/server", "stacks": 1,
            "calls": 1, "failed": 0, "bytes": 16 * K,
            "flow": {"reserve": 16 * K, "map": 0, "commit": 0, "decommit": 0, "release": 0, "discard": 0},
            "began": 0, "end": {"reserved": 10 * K, "committed": 0, "mapped": 15 * K},
            "weight": 16 * K,
        })
    );
    let stacks = json::stacks(&profile.by_stack(&mut HeldNames));
    assert_eq!(stacks["by"], "stack");
    assert_eq!(
        stacks["rows"][1]["stack"],
        serde_json::json!([
            {"name": "mprotect", "kind": "function", "module": "/srv/server"},
            {"name": "heap.grow", "kind": "function", "module": "/srv/server"},
            {"name": "alloc", "kind": "function", "module": "/srv/server"},
            {"name": "main", "kind": "function", "module": "/srv/server"},
        ])
    );
    assert_eq!(stacks["rows"][1]["owner"], "heap.grow");
    let tree = json::tree(&profile.tree(&mut HeldNames, Direction::Down, None));
    assert_eq!(
        tree["nodes"][1],
        serde_json::json!({
            "id": 1, "parent": 0, "calls": 5, "reserved": 10 * K, "committed": 7 * K, "mapped": 17 * K,
            "own": {"calls": 0, "reserved": 0, "committed": 0, "mapped": 0},
            "name": "main", "kind": "function", "module": "/srv/server",
        })
    );
}

#[test]
fn a_page_belongs_to_the_stack_that_touched_it_or_the_next_that_its_thread_had_taken() {
    let mut run = heap();
    let (writes, reads) = (run.stack(&["write", "main"]), run.stack(&["read", "main"]));
    // Taken, not taken, taken again; a page counts once.
    run.touch(10, A, Some(writes));
    run.touch(10, A + K, None);
    run.touch(10, A + 2 * K, Some(reads));
    run.touch(10, A, Some(reads));
    // Of another thread none was ever taken.
    run.touch(11, A + 3 * K, None);
    let mut sink = ProfileSink::touchers(Filter::default());
    run.tell(&mut sink);
    let profile = sink.into_profile();
    let tree = profile.tree(&mut HeldNames, Direction::Up, Some(Weight::Touched));
    let roots = tree.nodes[0].children.iter().map(|&root| {
        let node = &tree.nodes[root];
        (
            &*node.label.text,
            node.sums.touched.bytes.0 / K,
            node.sums.touched.faults,
        )
    });
    let expected = [
        ("read", 2, 3),
        ("write", 1, 1),
        ("(no stack) task 11", 1, 1),
    ];
    assert_eq!(roots.collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    assert_eq!(
        tree.nodes[0].sums.mapped,
        Bytes(0),
        "nothing else is counted"
    );
}
