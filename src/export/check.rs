//! What came of a check, for the systems that run it: JUnit XML, GitHub annotations, Markdown.

use std::io::{self, Write};

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

/// One trace that was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The trace, as the user named it.
    pub trace: String,
    /// What was checked, in order.
    pub cases: Vec<Case>,
}

/// One thing that was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// Its name: `reserved`, `server: committed.end`.
    pub name: String,
    /// Why it failed; `None` if it passed.
    pub failure: Option<String>,
}

impl Checked {
    /// How many cases failed.
    pub fn failed(&self) -> usize {
        let failed = self.cases.iter().filter(|case| case.failure.is_some());
        failed.count()
    }
}

/// One line for each failure; one for each trace without.
pub fn text(out: &mut dyn Write, all: &[Checked]) -> io::Result<()> {
    for checked in all {
        let trace = &checked.trace;
        for failure in checked
            .cases
            .iter()
            .filter_map(|case| case.failure.as_ref())
        {
            writeln!(out, "{trace}: {failure}")?;
        }
        if checked.failed() == 0 {
            writeln!(out, "{}", passed(checked))?;
        }
    }
    Ok(())
}

fn passed(checked: &Checked) -> String {
    let names: Vec<&str> = checked.cases.iter().map(|case| &*case.name).collect();
    format!("{}: within budget ({})", checked.trace, names.join(", "))
}

/// Workflow commands, which GitHub shows as annotations.
pub fn github(out: &mut dyn Write, all: &[Checked]) -> io::Result<()> {
    for checked in all {
        for case in &checked.cases {
            if let Some(failure) = &case.failure {
                let title = property(&format!("memtrace: {}", case.name));
                let message = data(&format!("{}: {failure}", checked.trace));
                writeln!(out, "::error title={title}::{message}")?;
            }
        }
        if checked.failed() == 0 {
            // A line that begins with `::` would be a command.
            writeln!(out, "memtrace: {}", data(&passed(checked)))?;
        }
    }
    Ok(())
}

/// The message of a workflow command, as actions/toolkit escapes it
/// (packages/core/src/command.ts).
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// A property of a workflow command; see [`data`].
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A table, and a word about each trace.
pub fn markdown(out: &mut dyn Write, all: &[Checked]) -> io::Result<()> {
    writeln!(out, "| trace | budget | result |")?;
    writeln!(out, "|---|---|---|")?;
    for checked in all {
        for case in &checked.cases {
            let result = match &case.failure {
                None => "within".to_owned(),
                Some(failure) => format!("**over**: {}", cell(failure)),
            };
            let (trace, name) = (cell(&checked.trace), cell(&case.name));
            writeln!(out, "| {trace} | {name} | {result} |")?;
        }
    }
    Ok(())
}

/// Text in a cell of a table: no character of it means anything to Markdown.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => cell.push(' '),
            '<' => cell.push_str("&lt;"),
            '>' => cell.push_str("&gt;"),
            '&' => cell.push_str("&amp;"),
            '@' => cell.push_str("&#64;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '#' | '!' => {
                cell.push('\\');
                cell.push(c);
            }
            c => cell.push(c),
        }
    }
    cell
}

/// JUnit XML: a suite for each trace, a case for each budget.
pub fn junit(out: &mut dyn Write, all: &[Checked]) -> io::Result<()> {
    let mut xml = Writer::new_with_indent(&mut *out, b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let cases: usize = all.iter().map(|checked| checked.cases.len()).sum();
    let failed: usize = all.iter().map(Checked::failed).sum();
    let suites = xml
        .create_element("testsuites")
        .with_attribute(("name", "memtrace check"))
        .with_attribute(("tests", cases.to_string().as_str()))
        .with_attribute(("failures", failed.to_string().as_str()));
    suites.write_inner_content(|xml| all.iter().try_for_each(|checked| suite(xml, checked)))?;
    writeln!(out)
}

fn suite<W: Write>(xml: &mut Writer<W>, checked: &Checked) -> io::Result<()> {
    let trace = allowed(&checked.trace);
    let suite = xml
        .create_element("testsuite")
        .with_attribute(("name", &*trace))
        .with_attribute(("tests", checked.cases.len().to_string().as_str()))
        .with_attribute(("failures", checked.failed().to_string().as_str()));
    suite.write_inner_content(|xml| {
        for Case { name, failure } in &checked.cases {
            let case = xml
                .create_element("testcase")
                .with_attribute(("classname", &*trace))
                .with_attribute(("name", &*allowed(name)));
            match failure {
                None => case.write_empty()?,
                Some(failure) => case.write_inner_content(|xml| {
                    let failure = allowed(failure);
                    xml.create_element("failure")
                        .with_attribute(("type", "budget"))
                        .with_attribute(("message", &*failure))
                        .write_text_content(BytesText::new(&failure))?;
                    Ok(())
                })?,
            };
        }
        Ok(())
    })?;
    Ok(())
}

/// The text without what XML 1.0 cannot hold, not even escaped (section 2.2).
fn allowed(text: &str) -> String {
    let allowed = |c: char| match c {
        '\t' | '\n' | '\r' => c,
        c if c < ' ' || ('\u{fffe}'..='\u{ffff}').contains(&c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(allowed).collect()
}

#[cfg(test)]
mod tests;
