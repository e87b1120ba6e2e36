//! Opening a trace, whatever its format.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use super::format::MAGIC;
use super::jsonl::{JsonlReader, SCHEMA};
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

/// Whether a file that begins with these bytes (some hundred are enough) is meant to be a trace;
/// whether it can be read is for [`open`] to say.
pub fn is_trace(begin: &[u8]) -> bool {
    let first = begin.split(|&byte| byte == b'\n').next();
    let schema = |line: &[u8]| {
        line.windows(SCHEMA.len())
            .any(|part| part == SCHEMA.as_bytes())
    };
    begin.starts_with(&MAGIC) || first.is_some_and(|line| line.starts_with(b"{") && schema(line))
}
