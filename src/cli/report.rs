//! `memtrace report`: what recorded traces tell.

mod events;

use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use crate::report::reading::{
    self, Ahead, Around, At, By, Followed, LivesSink, Moment, OverTime, ProfileSink, Stop, Table,
    Weight, follow,
};
use crate::report::{Report as Facts, json, replay};
use crate::term::{
    Style, write_around, write_at, write_chart, write_lives, write_owners, write_several,
    write_stacks, write_summary, write_table, write_tree,
};
use crate::timeline::Sink;

use super::args::{Question, Report};
use super::names::TraceNames;
use super::open::open;
use super::{Failure, one_line, style_for};

/// Reads traces to their end, or up to their damage, and prints on stdout what is asked.
pub fn report(args: &Report) -> Result<i32, Failure> {
    if let (Question::Events(format), [trace]) = (args.question, args.traces.as_slice()) {
        return events::events(args, format, trace);
    }
    let answers = args.traces.iter().map(|trace| {
        let answer = answer(args, trace)?;
        Ok((trace.display().to_string(), answer))
    });
    let answers = answers.collect::<Result<Vec<_>, Failure>>()?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = match args.json {
        true => write_json(&mut out, answers),
        false => write_text(&mut out, answers, args),
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(0),
        Err(error) => written_in_part(error),
    }
}

/// `memtrace report … | head` is no failure, a full disk is one.
fn written_in_part(error: io::Error) -> Result<i32, Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(0);
    }
    let error = anyhow::Error::new(error).context("cannot write the report");
    Err(Failure::new(2, error))
}

fn unreadable(trace: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| {
        let error = anyhow::Error::new(error).context(format!("cannot read {}", trace.display()));
        Failure::new(2, error)
    }
}

/// What one trace tells.
enum Answer {
    Summary(Box<Facts>),
    At(Box<reading::Then>),
    Around(Box<Around>),
    Table(Box<Table>),
    Lives(Box<reading::Lives>),
    Owners(Box<reading::Owners>),
    Stacks(Box<reading::StackTable>),
    Tree(Box<reading::Tree>),
    Timeline(Box<reading::Steps>),
}

fn answer(args: &Report, trace: &Path) -> Result<Answer, Failure> {
    let filter = || args.filter.clone();
    let stop = args.filter.until.map_or(Stop::End, Stop::After);
    let mut names = TraceNames::of(trace);
    let answer = match args.question {
        Question::Summary | Question::Events(_) => {
            let facts = replay(&mut *open(trace)?).map_err(unreadable(trace))?;
            Ok(Answer::Summary(Box::new(facts)))
        }
        Question::At(moment) => {
            let mut at = At::new(filter())
                .knowing(ahead(trace)?)
                .named_by(Box::new(names.clone()));
            let stop = stop_at(moment, trace)?;
            say_if_over(trace, stop, &tell(trace, stop, &mut at)?);
            Ok(Answer::At(Box::new(at.into_named(&mut names))))
        }
        Question::Around(range) => {
            let mut around = Around::new(range, filter());
            tell(trace, stop, &mut around)?;
            around.name_owners(&mut names);
            Ok(Answer::Around(Box::new(around)))
        }
        Question::By(by) => {
            let mut table = Table::of(by, filter());
            if by == By::Kind {
                table = table
                    .knowing(ahead(trace)?)
                    .named_by(Box::new(names.clone()));
            }
            tell(trace, stop, &mut table)?;
            Ok(Answer::Table(Box::new(table.into_table())))
        }
        Question::Reservations => {
            let mut lives = LivesSink::new(filter());
            tell(trace, stop, &mut lives)?;
            let lives = lives.into_lives(&mut names);
            Ok(Answer::Lives(Box::new(lives)))
        }
        Question::Owners | Question::Stacks | Question::Tree(..) => {
            by_stack(args, trace, &mut names)
        }
        Question::Timeline => {
            let mut over_time = OverTime::new(filter());
            tell(trace, stop, &mut over_time)?;
            Ok(Answer::Timeline(Box::new(over_time.into_steps())))
        }
    };
    names.take_notes().iter().for_each(|note| say(note));
    answer
}

/// Answers that are made of stacks; without any there is none.
fn by_stack(args: &Report, trace: &Path, names: &mut TraceNames) -> Result<Answer, Failure> {
    let stop = args.filter.until.map_or(Stop::End, Stop::After);
    let touchers = matches!(args.question, Question::Tree(_, Some(Weight::Touched)));
    let mut profile = match touchers {
        true => ProfileSink::touchers(args.filter.clone()),
        false => ProfileSink::new(args.filter.clone()),
    };
    tell(trace, stop, &mut profile)?;
    let profile = profile.into_profile();
    if touchers && profile.entries.is_empty() {
        let trace = trace.display();
        let error = anyhow::anyhow!(
            "{trace} holds no page faults: record them with --touch (memtrace --touch -k -o {trace} PROGRAM)"
        );
        return Err(Failure::new(2, error));
    }
    if profile.stacks.is_empty() {
        let trace = trace.display();
        let error = anyhow::anyhow!(
            "{trace} holds no stacks: record them with -k (memtrace -k -o {trace} PROGRAM)"
        );
        return Err(Failure::new(2, error));
    }
    Ok(match args.question {
        Question::Owners => Answer::Owners(Box::new(profile.by_owner(names))),
        Question::Tree(direction, weight) => {
            Answer::Tree(Box::new(profile.tree(names, direction, weight)))
        }
        _ => Answer::Stacks(Box::new(profile.by_stack(names))),
    })
}

/// What the trace holds that is told later than it is wanted.
fn ahead(trace: &Path) -> Result<Ahead, Failure> {
    Ahead::read(&mut *open(trace)?).map_err(unreadable(trace))
}

/// How far to read for `moment`; some moments are known only once all was read.
fn stop_at(moment: Moment, trace: &Path) -> Result<Stop, Failure> {
    if !moment.needs_report() {
        return Ok(moment.stop(None));
    }
    let facts = replay(&mut *open(trace)?).map_err(unreadable(trace))?;
    Ok(moment.stop(Some(&facts)))
}

/// Tells a trace to `sink` up to `stop`, and the user what was wrong with it.
fn tell(trace: &Path, stop: Stop, sink: &mut dyn Sink) -> Result<Followed, Failure> {
    let mut source = open(trace)?;
    let followed = follow(&mut *source, stop, sink).map_err(unreadable(trace))?;
    followed.notes.iter().for_each(|note| say(note));
    if let Some(damage) = followed.damage {
        say(&damage.to_string());
    }
    Ok(followed)
}

/// What was asked for a moment after the end is the last that is known: say so.
fn say_if_over(trace: &Path, stop: Stop, followed: &Followed) {
    if let Stop::After(time) = stop
        && followed.to_the_end
        && followed.until < time
        && followed.damage.is_none()
    {
        let seconds = followed.until.0 as f64 / 1e9;
        let trace = trace.display();
        say(&format!("{trace} ends at {seconds:.3} s, before that time"));
    }
}

/// One line of memtrace's own, beside the result.
fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "memtrace: {}", one_line(text));
}

fn write_json(out: &mut dyn Write, answers: Vec<(String, Answer)>) -> io::Result<()> {
    let value = |answer: &Answer| match answer {
        Answer::Summary(facts) => json::report(facts),
        Answer::At(then) => reading::json::at(then),
        Answer::Around(around) => reading::json::around(around),
        Answer::Table(table) => reading::json::table(table),
        Answer::Lives(lives) => reading::json::lives(lives),
        Answer::Owners(owners) => reading::json::owners(owners),
        Answer::Stacks(stacks) => reading::json::stacks(stacks),
        Answer::Tree(tree) => reading::json::tree(tree),
        Answer::Timeline(steps) => reading::json::timeline(steps),
    };
    let value: Value = match answers.as_slice() {
        [(_, only)] => value(only),
        many => reading::json::several(
            many.iter()
                .map(|(trace, answer)| (trace.clone(), value(answer)))
                .collect(),
        ),
    };
    writeln!(out, "{}", json::pretty_text(&value))
}

fn write_text(
    out: &mut dyn Write,
    answers: Vec<(String, Answer)>,
    args: &Report,
) -> io::Result<()> {
    let style = style_for(args.color, io::stdout());
    if let [(_, only)] = answers.as_slice() {
        return write_answer(out, only, args, &style);
    }
    if args.question == Question::Summary {
        let reports = answers
            .into_iter()
            .filter_map(|(trace, answer)| match answer {
                Answer::Summary(facts) => Some((trace, *facts)),
                _ => None,
            });
        let reports: Vec<(String, Facts)> = reports.collect();
        write_several(out, &reports, &style)?;
        for (trace, facts) in &reports {
            writeln!(out)?;
            write_title(out, trace, &style)?;
            write_summary(out, facts, &style)?;
        }
        return Ok(());
    }
    for (index, (trace, answer)) in answers.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        write_title(out, trace, &style)?;
        write_answer(out, answer, args, &style)?;
    }
    Ok(())
}

fn write_title(out: &mut dyn Write, trace: &str, style: &Style) -> io::Result<()> {
    let trace = crate::term::escaped(trace.as_bytes(), style.unicode);
    writeln!(out, "==> {trace} <==")
}

fn write_answer(
    out: &mut dyn Write,
    answer: &Answer,
    args: &Report,
    style: &Style,
) -> io::Result<()> {
    match answer {
        Answer::Summary(facts) => write_summary(out, facts, style),
        Answer::At(then) => write_at(out, then, style),
        Answer::Around(around) => write_around(out, around, style),
        Answer::Table(table) => write_table(out, table, args.top, style),
        Answer::Lives(lives) => write_lives(out, lives, args.top, style),
        Answer::Owners(owners) => write_owners(out, owners, args.top, style),
        Answer::Stacks(stacks) => write_stacks(out, stacks, args.top, style),
        Answer::Tree(tree) => write_tree(out, tree, args.top, style),
        Answer::Timeline(steps) => write_chart(out, steps, style),
    }
}
