//! A trace told to one question, up to a moment.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::timeline::{FileSeen, Frame, FrameName, Observed, Sink, Timeline};
use crate::trace_file::{Damage, Source};
use crate::units::Timestamp;

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// To the end.
    End,
    /// Up to and with what happened at this time.
    After(Timestamp),
    /// Up to and with the event of this number.
    AfterEvent(u64),
}

/// What reading showed beside the events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Followed {
    /// Time of the last event that was read.
    pub until: Timestamp,
    /// Nothing follows in the trace.
    pub to_the_end: bool,
    /// Where the file stopped being readable.
    pub damage: Option<Damage>,
    /// What was left out or guessed while reading.
    pub notes: Vec<String>,
}

/// What a trace holds that is told later than it is wanted: files are looked at while the program
/// runs on, and functions get their names when it is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ahead {
    /// What files say of themselves.
    pub files: Vec<FileSeen>,
    /// What frames are called.
    pub names: HashMap<Frame, Arc<[FrameName]>>,
}

impl Ahead {
    /// Reads `source` to its end for it.
    pub fn read(source: &mut dyn Source) -> io::Result<Ahead> {
        let mut ahead = Ahead::default();
        while let Some(observation) = source.next()? {
            match observation.what {
                Observed::File(file) => ahead.files.push(file),
                Observed::Names(seen) => ahead.names.extend(seen.names),
                _ => {}
            }
        }
        Ok(ahead)
    }
}

/// Tells `source` to `sink` up to `stop`, then lets it finish.
pub fn follow(source: &mut dyn Source, stop: Stop, sink: &mut dyn Sink) -> io::Result<Followed> {
    let mut timeline = Timeline::new(source.info().clone());
    let mut followed = Followed::default();
    let mut events = Vec::new();
    let mut last = 0;
    loop {
        if let Stop::AfterEvent(seq) = stop
            && seq <= last
        {
            break;
        }
        let Some(observation) = source.next()? else {
            followed.to_the_end = true;
            break;
        };
        if let Stop::After(time) = stop
            && time < observation.time
        {
            break;
        }
        sink.observation(&observation)?;
        timeline.observe(observation, &mut events);
        for event in events.drain(..) {
            last = event.seq;
            followed.until = followed.until.max(event.time);
            sink.event(&event, &timeline)?;
        }
    }
    sink.finish(&timeline)?;
    followed.damage = source.damage().copied();
    followed.notes = source.notes();
    Ok(followed)
}
