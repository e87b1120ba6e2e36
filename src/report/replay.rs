//! A recorded trace, told again.

use std::io;

use crate::timeline::{Event, Sink, Timeline};
use crate::trace_file::Source;
use crate::units::SpaceId;

use super::facts::Report;
use super::summary::Summary;

/// The report of a recorded trace.
pub fn replay(source: &mut dyn Source) -> io::Result<Report> {
    replay_into(source, &mut [])
}

/// The same, with every event given to `sinks` on the way: live and recorded events go through the
/// same code.
///
/// Reading stops at the first damage, because no model can be kept beyond it; the report says so,
/// and holds everything before.
pub fn replay_into(source: &mut dyn Source, sinks: &mut [&mut dyn Sink]) -> io::Result<Report> {
    let mut summary = Summary::new(source.info().clone());
    let mut timeline = Timeline::new(source.info().clone());
    let mut events: Vec<Event> = Vec::new();
    let mut last = Default::default();
    while let Some(observation) = source.next()? {
        last = observation.time;
        sinks
            .iter_mut()
            .try_for_each(|sink| sink.observation(&observation))?;
        timeline.observe(observation, &mut events);
        for event in events.drain(..) {
            summary.event(&event, &timeline)?;
            sinks
                .iter_mut()
                .try_for_each(|sink| sink.event(&event, &timeline))?;
        }
    }
    sinks
        .iter_mut()
        .try_for_each(|sink| sink.finish(&timeline))?;
    for text in source.notes() {
        summary.note(last, SpaceId(0), text);
    }
    let damage = source.damage().copied();
    if let Some(damage) = &damage {
        summary.note(last, SpaceId(0), damage.to_string());
    }
    Ok(Report {
        damage,
        ..summary.into_report()
    })
}
