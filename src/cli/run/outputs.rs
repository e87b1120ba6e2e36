//! Where a trace goes: its file, and the live timeline.

use std::fs::File;
use std::io::{self, Write};

use anyhow::Context as _;

use crate::abi::CallSet;
use crate::export::jsonl::{JsonLines, StackLines};
use crate::symbol::names::LiveNames;
use crate::term::strace::{self, StraceFormat};
use crate::term::{Pretty, StackView, Style};
use crate::timeline::{Namer, Sink, TraceInfo};
use crate::trace_file::TraceWriter;

use crate::cli::args::{Format, Quiet, Trace};
use crate::cli::{Failure, style_for};

/// Where a trace goes.
pub(super) struct Outputs {
    pub live: Option<Box<dyn Sink + Send>>,
    pub live_on_stderr: bool,
    pub file: Option<(TraceWriter<File>, std::path::PathBuf)>,
    pub style: Style,
}

impl Outputs {
    pub(super) fn open(
        trace: &Trace,
        shown: CallSet,
        info: &TraceInfo,
        names: Option<&LiveNames>,
    ) -> Result<Outputs, Failure> {
        let stacks = || {
            names.map(|names| Stacks {
                names: Box::new(names.clone()),
                depth: trace.stack_depth,
            })
        };
        let cannot = |what: &std::path::Path| format!("cannot write to {}", what.display());
        let file = match &trace.output {
            None => None,
            Some(path) => {
                let writer = TraceWriter::create(path, info)
                    .with_context(|| cannot(path))
                    .map_err(|error| Failure::new(125, error))?;
                Some((writer, path.clone()))
            }
        };
        let style = style_for(trace.color, io::stderr());
        let live = match (&trace.log, trace.quiet) {
            (None, Quiet::Summary | Quiet::All) => None,
            (Some(path), _) => {
                let log = File::create(path)
                    .with_context(|| cannot(path))
                    .map_err(|error| Failure::new(125, error))?;
                let plain = Style::choose(trace.color, None, |name| std::env::var_os(name));
                Some(live(trace.format, log, plain, shown, true, info, stacks()))
            }
            (None, Quiet::No) => Some(live(
                trace.format,
                io::stderr(),
                style.clone(),
                shown,
                false,
                info,
                stacks(),
            )),
        };
        let live_on_stderr = trace.log.is_none();
        Ok(Outputs {
            live,
            live_on_stderr,
            file,
            style,
        })
    }
}

/// Frames shown of a stack in a live timeline for people.
const STACK_DEPTH: usize = 16;

/// How stacks are shown.
pub(in crate::cli) struct Stacks {
    /// What frames are called.
    pub names: Box<dyn Namer + Send>,
    /// Most frames of a stack, if the user says so.
    pub depth: Option<usize>,
}

/// The renderer of a live timeline, or of one that is told again.
pub(in crate::cli) fn live(
    format: Format,
    out: impl Write + Send + 'static,
    style: Style,
    shown: CallSet,
    to_file: bool,
    info: &TraceInfo,
    stacks: Option<Stacks>,
) -> Box<dyn Sink + Send> {
    let view = |stacks: Stacks, depth| StackView::new(stacks.names, stacks.depth.unwrap_or(depth));
    match format {
        Format::Pretty => {
            let pretty = Pretty::new(out, style, shown);
            match stacks {
                Some(stacks) => Box::new(pretty.with_stacks(view(stacks, STACK_DEPTH))),
                None => Box::new(pretty),
            }
        }
        Format::Strace => {
            let options = strace::Options {
                calls: shown,
                signals: true,
                to_file,
            };
            let strace = StraceFormat::new(out, options);
            match stacks {
                // strace itself shows them whole.
                Some(stacks) => Box::new(strace.with_stacks(view(stacks, usize::MAX))),
                None => Box::new(strace),
            }
        }
        Format::Jsonl => {
            let mut lines = JsonLines::new(out, info);
            if let Some(stacks) = stacks {
                lines = lines.with_stacks(StackLines::new(stacks.names));
            }
            // Unless somebody asks for less, all is told.
            match shown == CallSet::default() {
                true => Box::new(lines),
                false => Box::new(lines.showing(shown)),
            }
        }
    }
}
