//! Names for the frames of a recorded trace, read when the first is asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::symbol::names::Symbols;
use crate::timeline::{Frame, FrameName, HeldNames, Namer, Stacks};

use super::open::open_silently;

/// Names frames of a trace: a trace without stacks is not read a second time for them. Clones share
/// what they know.
#[derive(Clone)]
pub(super) struct TraceNames(Arc<Mutex<Names>>);

struct Names {
    trace: PathBuf,
    /// `None` inside: the trace cannot be read again.
    symbols: Option<Option<Symbols>>,
}

impl TraceNames {
    /// Names for the frames of `trace`.
    pub fn of(trace: &Path) -> TraceNames {
        TraceNames(Arc::new(Mutex::new(Names {
            trace: trace.to_owned(),
            symbols: None,
        })))
    }

    /// What the user should know of names that are missing.
    pub fn take_notes(&self) -> Vec<String> {
        match &mut self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .symbols
        {
            Some(Some(symbols)) => symbols.take_notes(),
            _ => Vec::new(),
        }
    }
}

impl Namer for TraceNames {
    fn name(&mut self, frame: Frame, stacks: &Stacks) -> Arc<[FrameName]> {
        let Names { trace, symbols } = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let symbols = symbols.get_or_insert_with(|| {
            let mut source = open_silently(trace).ok()?;
            Symbols::of(&mut *source).ok()
        });
        match symbols {
            Some(symbols) => symbols.name(frame, stacks),
            None => HeldNames.name(frame, stacks),
        }
    }
}
