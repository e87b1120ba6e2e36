//! Held against what compilers say of their own code, at every call in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use iced_x86::FlowControl;

use super::super::cfi::{RBP, RBX, REGISTERS};
use super::super::code::Code;
use super::flow::decode;
use super::symbols::{Functions, ordered};
use super::*;

/// How often what was inferred was what unwind information says.
#[derive(Debug, Default)]
struct Tally {
    calls: usize,
    same: usize,
    silent: usize,
    /// Said only if the caller confirms it.
    asks: usize,
    wrong: Vec<String>,
}

/// What of rules is compared: all that the return address and the caller's registers follow from.
fn essence(rules: &Rules) -> (Cfa, Option<Saved>, BTreeMap<usize, Saved>) {
    let kept =
        |number: usize| number == RBX || number == RBP || (12..REGISTERS - 1).contains(&number);
    let saved = rules.saved.iter().filter(|(number, _)| kept(*number));
    (
        rules.cfa.clone(),
        rules.return_address.clone(),
        saved.cloned().collect(),
    )
}

/// Every call of a function that unwind information tells of.
fn tally(path: &Path, stripped: bool) -> Tally {
    let open = || File::open(path).expect("it is there");
    let mut code = Code::of_file(open()).expect("a file of code");
    let mut text = Text::of_file(open()).expect("a file of code");
    let Functions { whole, .. } = Functions::of(&open(), &(0..u64::MAX));
    let functions = ordered(whole);
    let mut tally = Tally::default();
    for function in functions {
        let mut address = function.start;
        if !stripped {
            text.learn(address, None);
        }
        while address < function.end {
            let Some(instruction) = decode(&mut text, address) else {
                break;
            };
            let (at, next) = (address, instruction.next_ip());
            address = next;
            let calls = matches!(
                instruction.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall
            ) || instruction.code() == iced_x86::Code::Syscall;
            if !calls {
                continue;
            }
            let Some(truth) = code.rules(next - 1) else {
                continue;
            };
            tally.calls += 1;
            match text.inferred(next - 1, next) {
                None => tally.silent += 1,
                Some(Inferred::IfCalled(_)) => tally.asks += 1,
                Some(Inferred::Rules(rules)) => {
                    // Both may say it of another register.
                    match agree(&mut text, function.start, at, &rules, &truth) {
                        true => tally.same += 1,
                        false => tally.wrong.push(format!(
                            "{at:#x} in {:#x}: {:?} is {:?}",
                            function.start,
                            essence(&rules),
                            essence(&truth)
                        )),
                    }
                }
            }
        }
    }
    tally
}

/// Whether two rules are the same, perhaps in other words: one by the stack pointer, one by rbp.
fn agree(text: &mut Text, start: u64, at: u64, ours: &Rules, truth: &Rules) -> bool {
    let (ours, truth) = (essence(ours), essence(truth));
    if ours == truth || (&ours.1, &truth.1) == (&None, &None) {
        return true;
    }
    let Some(flow) = Flow::follow(text, start, Calls::Return) else {
        return false;
    };
    let Some(state) = flow.at(at) else {
        return false;
    };
    let place = |cfa: &Cfa| match cfa {
        Cfa::Register(number, offset) => {
            let is = |&it: &Number| dwarf(it) == *number;
            match state.register((0..16).find(is)?) {
                Value::Is(RSP_NUMBER, base) => Some(base + offset),
                _ => None,
            }
        }
        Cfa::Expression(_) => None,
    };
    let same_cfa =
        ours.0 == truth.0 || place(&ours.0).is_some() && place(&ours.0) == place(&truth.0);
    // What is still in its register need not be read from the stack.
    let same = |(number, saved): (&usize, &Saved)| match (ours.2.get(number), saved) {
        (Some(ours), truth) => *ours == Saved::Nowhere || ours == truth,
        (None, Saved::At(place)) => {
            let is = |&it: &Number| dwarf(it) == *number;
            let number = (0..16).find(is);
            number.and_then(|number| state.saved(number)) == Some(place + 8)
        }
        (None, _) => false,
    };
    same_cfa
        && ours.1 == truth.1
        && truth.2.iter().all(same)
        && (ours.2.iter()).all(|(number, it)| *it == Saved::Nowhere || truth.2.contains_key(number))
}

/// Every call of ours, by every compiler's habits. `MEMTRACE_CODE` names more files, with colons between.
#[test]
fn what_instructions_tell_is_what_unwind_information_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/programs/shapes.c");
    let mut files = Vec::new();
    for level in ["-O0", "-O1", "-O2", "-O3", "-Os"] {
        for more in ["-fomit-frame-pointer", "-fstack-clash-protection"] {
            let program = folder.path().join(format!("shapes{level}{more}"));
            let mut compiler = Command::new("gcc");
            compiler.args([level, more, "-o"]).args([&program, &source]);
            match compiler.status() {
                Ok(status) if status.success() => files.push(program),
                _ => println!("skipped: no gcc"),
            }
        }
    }
    let more = std::env::var("MEMTRACE_CODE").unwrap_or_default();
    let more = more.split(':').filter(|it| !it.is_empty());
    files.extend(more.map(PathBuf::from));
    for file in files {
        for stripped in [false, true] {
            let tally = tally(&file, stripped);
            println!("{}, stripped: {stripped}: {tally:#?}", file.display());
            assert!(tally.wrong.is_empty(), "{}: {tally:#?}", file.display());
            if file.starts_with(folder.path()) {
                assert!(10 < tally.calls, "{}: {tally:#?}", file.display());
                // Calls that never return, behind a table of jumps.
                assert!(
                    stripped || tally.silent <= 2,
                    "{}: {tally:#?}",
                    file.display()
                );
            }
        }
    }
}
