//! Opening a trace, whatever its format.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use super::jsonl::JsonlReader;
use super::{OpenError, Source, TraceReader};

/// Opens a recorded run: a trace file, or lines of JSON, which begin with `{`.
pub fn open(path: &Path) -> Result<Box<dyn Source>, OpenError> {
    let mut file = File::open(path)?;
    let mut first = [0];
    let read = file.read(&mut first)?;
    let is_json = first == *b"{";
    if file.metadata()?.is_file() {
        if !is_json {
            return Ok(Box::new(TraceReader::open(path)?));
        }
        file.seek(SeekFrom::Start(0))?;
        return Ok(Box::new(JsonlReader::of_file(file)?));
    }
    // What is read of a pipe is gone.
    let whole = Cursor::new(first).take(read as u64).chain(file);
    match is_json {
        true => Ok(Box::new(JsonlReader::new(whole)?)),
        false => Ok(Box::new(TraceReader::new(whole)?)),
    }
}
