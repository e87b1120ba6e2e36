//! A trace told to one question, up to a moment.

use std::io;

use crate::timeline::{Sink, Timeline};
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
