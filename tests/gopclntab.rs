//! Go's own tables against Go itself: what the runtime says of addresses of its code must be what is read
//! from the file, stripped or not, wherever it is loaded.

mod support;
mod support_real;

use std::fs;
use std::path::Path;
use std::process::Command;

use memtrace::symbol::go::{GoFrame, PclnTab, locate};
use support_real::need;
use support_real::programs::go_program;

/// Runs `use_it` with the table of a file.
#[track_caller]
fn with_table<T>(program: &Path, use_it: impl FnOnce(PclnTab<'_>) -> T) -> T {
    let bytes = fs::read(program).expect("the program can be read");
    let found = locate(&bytes[..]).expect("it has a table");
    let part = |range: &std::ops::Range<u64>| &bytes[range.start as usize..range.end as usize];
    let funcdata = found.funcdata.as_ref().map_or(&[][..], part);
    let table = PclnTab::new(part(&found.table), found.text, funcdata);
    use_it(table.expect("which can be read"))
}

/// Names of type parameters are not printed by the runtime.
fn printed(function: &str) -> String {
    match (function.find('['), function.rfind(']')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}[...]{}", &function[..open], &function[close + 1..])
        }
        _ => function.to_owned(),
    }
}

fn as_told(frame: &GoFrame<'_>) -> String {
    let file = frame.file.unwrap_or("?");
    format!("{}\t{file}\t{}", printed(frame.function), frame.line)
}

#[track_caller]
fn agrees_with_the_runtime(program: &Path) {
    let told = Command::new(program).output().expect("it runs").stdout;
    let told = String::from_utf8(told).expect("text");
    with_table(program, |table| {
        let main = table.functions().find(|it| it.name() == "main.main");
        let main = main.expect("there is a main").entry();
        let (mut compared, mut inlined) = (0, 0);
        for line in told.lines().filter(|line| line.starts_with("at\t")) {
            let (distance, truth) = line[3..].split_once('\t').expect("two fields");
            let pc = main.wrapping_add_signed(distance.parse().expect("a number"));
            let function = table.function(pc).expect("a function");
            // CallersFrames takes a return address that begins a function for one in that function.
            if function.end() == pc + 1 {
                continue;
            }
            let frames = function.frames(pc);
            // The runtime prints nothing for the name that happens to come first in its table.
            let ours = as_told(&frames[0]);
            match truth.starts_with('\t') {
                true => assert!(ours.ends_with(truth), "{line}: {ours}"),
                false => assert_eq!(ours, truth, "{line}"),
            }
            compared += 1;
            inlined += usize::from(frames.len() > 1);
        }
        assert!(5000 < compared && 1000 < inlined, "{compared}, {inlined}");

        // One physical frame, told as three.
        let calls: Vec<&str> = told
            .lines()
            .filter_map(|line| line.strip_prefix("call\t"))
            .collect();
        let (distance, _) = calls[0].split_once('\t').expect("two fields");
        let pc = main.wrapping_add_signed(distance.parse().expect("a number")) - 1;
        let frames = table.function(pc).expect("a function").frames(pc);
        let ours: Vec<String> = frames.iter().skip(1).map(as_told).collect();
        let theirs: Vec<&str> = calls[..3]
            .iter()
            .filter_map(|call| Some(call.split_once('\t')?.1))
            .collect();
        assert_eq!(ours, theirs);
    });
}

macro_rules! agrees {
    ($($name:ident: $version:literal $kind:literal $flags:expr;)*) => {$(
        #[test]
        fn $name() {
            agrees_with_the_runtime(&need!(go_program(
                $version,
                "gotables",
                $kind,
                $flags,
                &[]
            )));
        }
    )*};
}

agrees! {
    tables_of_go_1_21: "1.21.13" "" &[];
    tables_of_stripped_go_1_21: "1.21.13" "-stripped" &["-ldflags=-s -w"];
    tables_of_go_1_21_that_can_be_anywhere: "1.21.13" "-pie" &["-buildmode=pie"];
    tables_of_go_1_25: "1.25.5" "" &[];
    tables_of_stripped_go_1_25: "1.25.5" "-stripped" &["-ldflags=-s -w"];
    tables_of_go_1_25_that_can_be_anywhere: "1.25.5" "-pie" &["-buildmode=pie"];
}

#[test]
fn the_table_is_found_where_its_section_has_another_name() {
    let program = need!(go_program("1.25.5", "gotables", "", &[], &[]));
    let mut bytes = fs::read(program).expect("the program can be read");
    let named = locate(&bytes[..]).expect("a table");
    let name = b".gopclntab\0";
    let at = bytes
        .windows(name.len())
        .rposition(|part| part == name)
        .expect("its name");
    bytes[at + 1] = b'x';
    let found = locate(&bytes[..]).expect("a table, by what it begins with");
    assert_eq!(found.table.start, named.table.start);
    assert_eq!((found.text, found.funcdata), (named.text, named.funcdata));
}

#[test]
fn damaged_tables_tell_less_and_never_panic() {
    let program = need!(go_program(
        "1.21.13",
        "gotables",
        "-stripped",
        &["-ldflags=-s -w"],
        &[]
    ));
    let whole = fs::read(program).expect("the program can be read");
    let found = locate(&whole[..]).expect("a table");
    let range = found.table.start as usize..found.table.end as usize;
    let mut bytes = whole[range].to_vec();
    // Numbers without pattern, the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..400 {
        let at = match round % 3 {
            0 => random(80),
            _ => random(bytes.len()),
        };
        let kept = std::mem::replace(&mut bytes[at], random(256) as u8);
        let length = bytes.len() - [0, random(bytes.len())][usize::from(round % 5 == 0)];
        if let Some(table) = PclnTab::new(&bytes[..length], found.text, &whole) {
            for _ in 0..50 {
                let pc = found.text + random(1 << 20) as u64;
                if let Some(function) = table.function(pc) {
                    let _ = (function.sp_delta(pc), function.frames(pc));
                }
            }
        }
        bytes[at] = kept;
    }
}
