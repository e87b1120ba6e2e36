use super::*;
use crate::report::reading::{By, Direction, Filter, Moment, Peak, Weight};
use crate::units::{Tid, Timestamp};

fn parsed(line: &str) -> Result<Command, UsageError> {
    parse(
        std::iter::once("memtrace")
            .chain(line.split_whitespace())
            .map(OsString::from),
    )
}

#[track_caller]
fn tracing(line: &str) -> Trace {
    match parsed(line) {
        Ok(Command::Trace(trace)) => trace,
        other => panic!("memtrace {line}: {other:?}"),
    }
}

#[track_caller]
fn launches(line: &str, program: &str) -> Trace {
    let trace = tracing(line);
    let words = program.split_whitespace().map(OsString::from).collect();
    assert_eq!(trace.target, Target::Launch(words), "memtrace {line}");
    trace
}

#[track_caller]
fn attaches(line: &str, pids: &[i32]) -> Trace {
    let trace = tracing(line);
    assert_eq!(
        trace.target,
        Target::Attach(pids.to_vec()),
        "memtrace {line}"
    );
    trace
}

#[track_caller]
fn refused(line: &str, status: u8, message: &str) {
    let error = parsed(line).unwrap_err();
    assert_eq!(error.status, status, "memtrace {line}: {error}");
    assert_eq!(error.message, message, "memtrace {line}");
}

#[test]
fn the_default_command_launches() {
    launches("ls", "ls");
    launches("-- ls", "ls");
    launches("run ls", "ls");
    launches("run -- ls", "ls");
    launches("run run ls", "run ls");
}

#[test]
fn the_programs_own_options_are_never_eaten() {
    assert_eq!(launches("ls -l", "ls -l").quiet, Quiet::No);
    assert_eq!(
        launches("-q ls -q --help -V -o x", "ls -q --help -V -o x").quiet,
        Quiet::Summary
    );
    launches("make -- -j8", "make -- -j8");
    launches("-- make -- -j8", "make -- -j8");
    launches("run make -q -- -p 1", "make -q -- -p 1");
    launches("sh -c -- --", "sh -c -- --");
    launches("-- -odd", "-odd");
    launches("run -- -odd -q", "-odd -q");
}

#[test]
fn a_program_named_like_a_command_is_reached_behind_two_dashes() {
    launches("-- report", "report");
    launches("-q -- attach 12", "attach 12");
    launches("run report x", "report x");
    launches("run -- report x", "report x");
    launches("./report", "./report");
    launches("ls report", "ls report");
    launches("-o report -- export", "export");
}

#[test]
fn attaching_takes_pids_in_every_form() {
    attaches("-p 12", &[12]);
    attaches("-p12,13 -q -p 14", &[12, 13, 14]);
    attaches("attach 12 13,14", &[12, 13, 14]);
    assert_eq!(
        attaches("-q attach 12 --duration 2s", &[12]).quiet,
        Quiet::Summary
    );
}

#[test]
fn options_stand_before_and_after_a_command() {
    let trace = launches(
        "-o a.mtr run --format strace --log live -v -e mmap -e munmap --no-follow --duration 1.5s \
         --verify=100 --color never sh -c true",
        "sh -c true",
    );
    assert_eq!(
        Trace {
            target: Target::Attach(vec![]),
            ..trace
        },
        Trace {
            target: Target::Attach(vec![]),
            output: Some("a.mtr".into()),
            runs: 1,
            this_run: None,
            format: Format::Strace,
            log: Some("live".into()),
            quiet: Quiet::No,
            verbose: true,
            shown: CallSet::parse("mmap,munmap").unwrap(),
            backend: Backend::Auto,
            follow: false,
            duration: Some(Duration::from_millis(1500)),
            touch: false,
            resident: false,
            stacks: false,
            stack_depth: None,
            embed_symbols: false,
            verify: Verify::Every(100),
            color: ColorChoice::Never,
        }
    );
    assert_eq!(launches("--verify ls", "ls").verify, Verify::AtEnd);
    assert_eq!(launches("--verify=every ls", "ls").verify, Verify::Every(1));
    assert_eq!(launches("-q run -q ls", "ls").quiet, Quiet::All);
    assert_eq!(launches("-qqq ls", "ls").quiet, Quiet::All);
}

#[track_caller]
fn reads(line: &str) -> Report {
    match parsed(line) {
        Ok(Command::Report(report)) => report,
        other => panic!("memtrace {line}: {other:?}"),
    }
}

#[test]
fn reports_read_a_trace() {
    let expected = |json, color| Report {
        traces: vec!["a.mtr".into()],
        question: Question::Summary,
        filter: Filter::default(),
        json,
        stack_depth: None,
        top: Some(40),
        color,
    };
    assert_eq!(reads("report a.mtr"), expected(false, ColorChoice::Auto));
    assert_eq!(
        reads("report --json a.mtr"),
        expected(true, ColorChoice::Auto)
    );
    assert_eq!(
        reads("--json --color never report a.mtr"),
        expected(true, ColorChoice::Never)
    );
    assert_eq!(reads("report a b").traces, ["a", "b"].map(PathBuf::from));
}

#[test]
fn a_report_answers_one_question_about_chosen_events() {
    let question = |line: &str| reads(&format!("report {line} a")).question;
    assert_eq!(
        question("--at peak"),
        Question::At(Moment::Peak(Peak::Mapped))
    );
    assert_eq!(question("--by calls"), Question::By(By::Call));
    assert_eq!(question("--by reservations -n 3"), Question::Reservations);
    assert_eq!(question("--by owner"), Question::Owners);
    assert_eq!(question("--by stack --json"), Question::Stacks);
    assert_eq!(question("--tree"), Question::Tree(Direction::Down, None));
    assert_eq!(
        question("--tree=up --weight mapped -n 0"),
        Question::Tree(Direction::Up, Some(Weight::Mapped))
    );
    assert_eq!(question("--timeline --since 1s"), Question::Timeline);
    assert_eq!(question("--format jsonl"), Question::Events(Format::Jsonl));
    assert_eq!(question("-e mmap"), Question::Events(Format::Pretty));
    assert_eq!(question("--prot ---"), Question::Events(Format::Pretty));
    let filter = reads("report --tid 1,2 --tid 3 --min-size 1MiB --until 1.5s a").filter;
    assert_eq!(filter.tids, [1, 2, 3].map(Tid));
    assert_eq!(filter.min_size, Some(1 << 20));
    assert_eq!(filter.until, Some(Timestamp(1_500_000_000)));
    for (line, message) in [
        (
            "--at end --by call a",
            "--at and --by are two questions: ask one at a time",
        ),
        (
            "--timeline -e mmap a",
            "--timeline draws whole address spaces: of -e, --min-size, --prot and --tid it knows nothing",
        ),
        (
            "--json -e mmap a",
            "the summary is of a whole trace: of chosen events show --by TABLE, or --format jsonl",
        ),
        (
            "--json --format pretty a",
            "--format and --json: say --format jsonl for events as JSON",
        ),
        (
            "--format strace a b",
            "events are shown of one trace at a time",
        ),
        (
            "--since 2s --until 1s a",
            "--since is later than --until: nothing is between",
        ),
        (
            "--top 3 a",
            "--top is about the rows of a --by table or a --tree",
        ),
        ("--weight mapped a", "--weight is the figure of a --tree"),
        ("--tree up a", "up is no trace: say --tree=up"),
        (
            "--tree --by stack a",
            "--by and --tree are two questions: ask one at a time",
        ),
        (
            "--space x a",
            "--space: the number of an address space, from 1 on",
        ),
    ] {
        refused(&format!("report {line}"), 2, message);
    }
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line_with_the_right_status() {
    let nothing =
        "nothing to trace: name a PROGRAM, or a process with -p PID (see memtrace --help)";
    refused("", 125, nothing);
    refused("run -q", 125, nothing);
    refused("--", 125, nothing);
    let both = "either launch a PROGRAM or attach with -p PID, not both";
    refused("-p 12 ls", 125, both);
    refused("run -p 12", 125, both);
    refused(
        "attach",
        125,
        "attach to what? memtrace attach PID... (or -p PID)",
    );
    refused("-p init", 125, "'init' is not a process id");
    refused("attach 0", 125, "'0' is not a process id");
    refused(
        "--stack-depth 3 ls",
        125,
        "--stack-depth is about the stacks of -k",
    );
    refused(
        "-k --embed-symbols ls",
        125,
        "--embed-symbols keeps names in a trace: it needs -o FILE",
    );
    refused(
        "-q --format strace ls",
        125,
        "-q switches the live timeline off, so it has no --format",
    );
    refused(
        "-qq -v ls",
        125,
        "-qq prints nothing and -v prints more: choose one",
    );
    refused(
        "-o x --log x ls",
        125,
        "--log and --output would write to the same file",
    );
    refused(
        "--json ls",
        125,
        "--json belongs to memtrace report; live output is --format jsonl",
    );
    refused(
        "--duration 0s ls",
        125,
        "invalid value '0s' for '--duration <TIME>': no time at all would pass",
    );
    refused(
        "--verify=0 ls",
        125,
        "invalid value '0' for '--verify[=<exit|every|N>]': say exit, every, or a number of events from 1",
    );
    refused(
        "--formta strace ls",
        125,
        "unexpected argument '--formta' found; a similar argument exists: '--format'",
    );
    refused(
        "--format x ls",
        125,
        "invalid value 'x' for '--format <pretty|strace|jsonl>': say pretty, strace or jsonl",
    );
    refused(
        "-o",
        125,
        "a value is required for '--output <FILE>' but none was supplied",
    );
    refused(
        "-o a -o b ls",
        125,
        "the argument '--output <FILE>' cannot be used multiple times",
    );
    refused("-\u{1b}[2J ls", 125, "unexpected argument '-\\x1b' found");
    refused("report", 2, "which trace? memtrace report TRACE");
    refused("report -q a", 2, "unexpected argument '-q' found");
    refused(
        "explain",
        2,
        "explain what? memtrace explain -p PID, memtrace explain TRACE, or memtrace explain -- PROGRAM",
    );
}

#[test]
fn help_begins_with_examples_and_names_every_call_once() {
    let Ok(Command::Help(text)) = parsed("--help") else {
        panic!("no help");
    };
    assert!(text.starts_with("memtrace: who reserved"));
    assert!(text.find("memtrace -q make") < text.find("Usage:"));
    let calls: Vec<_> = text.split_whitespace().collect();
    for call in crate::abi::CALLS {
        assert!(calls.contains(&call.name), "{}", call.name);
    }
    let wide = text.lines().find(|line| line.len() > 100);
    assert_eq!(wide, None);
    assert!(!text.contains("perfetto"));
    assert!(matches!(parsed("-h"), Ok(Command::Help(_))));
    assert_eq!(parsed("run --help"), Ok(Command::Help(text)));
    assert!(matches!(parsed("report --help"), Ok(Command::Help(text)) if text.contains("--json")));
    assert_eq!(parsed("-V"), Ok(Command::Version));
    assert_eq!(parsed("--version report"), Ok(Command::Version));
}

#[test]
fn two_traces_or_two_sets_of_them_are_compared() {
    let compared = |line: &str| match parsed(line) {
        Ok(Command::Diff(diff)) => diff,
        other => panic!("memtrace {line}: {other:?}"),
    };
    let paths = |words: &str| -> Vec<PathBuf> { words.split(' ').map(PathBuf::from).collect() };
    let diff = compared("diff a b");
    assert_eq!((diff.before, diff.after), (paths("a"), paths("b")));
    assert_eq!(diff.format, DiffFormat::Text);
    let diff = compared("diff --before a b --after c d e --json");
    assert_eq!((diff.before, diff.after), (paths("a b"), paths("c d e")));
    assert_eq!(diff.format, DiffFormat::Json);
    refused(
        "diff a",
        2,
        "which two? memtrace diff BEFORE AFTER (several a side: --before TRACE... --after TRACE...)",
    );
    refused("diff --before a", 2, "no --after: compare it with what?");
}

#[test]
fn each_of_several_runs_has_a_file_of_its_own() {
    let run = |line: &str| tracing(line).output;
    assert_eq!(run("run --runs 3 -o a%n.mtr ls"), Some("a%n.mtr".into()));
    assert_eq!(
        run("--this-run=2 run --runs 3 -o a%n-%n%.mtr ls"),
        Some("a2-2%.mtr".into())
    );
    assert_eq!(run("run --runs 1 -o a%n.mtr ls"), Some("a1.mtr".into()));
    assert_eq!(run("run -o a%n.mtr ls"), Some("a%n.mtr".into()));
    let message = "each run needs a file of its own: put %n into the name, as in -o 'run%n.mtr'";
    refused("run --runs 2 -o a.mtr ls", 125, message);
}

#[test]
fn what_is_explained_is_a_process_a_trace_or_a_program() {
    let what = |line: &str| match parsed(line) {
        Ok(Command::Explain(explain)) => explain.what,
        other => panic!("memtrace {line}: {other:?}"),
    };
    let words = |words: &str| -> Vec<OsString> { words.split(' ').map(OsString::from).collect() };
    let program = |text: &str| Explained::Program {
        words: words(text),
        output: None,
    };
    assert_eq!(what("explain -p 7"), Explained::Process(7));
    assert_eq!(what("explain --json -p 7"), Explained::Process(7));
    // Only a look at the file tells; behind dashes there is no doubt.
    let either = |text: &str| Explained::TraceOrProgram(words(text));
    assert_eq!(what("explain run.mtr"), either("run.mtr"));
    assert_eq!(what("explain run.mtr --json"), either("run.mtr --json"));
    assert_eq!(what("explain --json ls -l"), either("ls -l"));
    assert_eq!(what("explain -- run.mtr"), program("run.mtr"));
    assert_eq!(what("explain -- ls -p 7"), program("ls -p 7"));
    assert_eq!(
        what("explain -o a.mtr ls"),
        Explained::Program {
            words: words("ls"),
            output: Some("a.mtr".into()),
        }
    );
    let Ok(Command::Explain(explain)) = parsed("explain run.mtr") else {
        panic!("it is understood");
    };
    let after = after_trace(&explain, &words("--json --color=never")).expect("options");
    assert!(after.json && after.color == ColorChoice::Never);
    let refusal = after_trace(&explain, &words("other.mtr")).expect_err("one trace at a time");
    assert_eq!(refusal.status, 2);
    refused(
        "explain -p 1,2",
        2,
        "one process at a time: memtrace explain -p PID",
    );
    refused(
        "explain -p 1 ls",
        2,
        "either -p PID, or a TRACE, or a PROGRAM: one at a time",
    );
    refused("explain -p 0", 2, "'0' is not a process id");
}
