//! A profile as `pprof` reads it (github.com/google/pprof, proto/profile.proto), gzipped.
//!
//! Sample types are reserved, committed and mapped, in bytes that are left at the end, and calls. A
//! sample is a stack in the processes of one command name, which is its label `process`. Addresses
//! are offsets in the files of code, so that profiles of two runs compare; all names are given here,
//! so that pprof looks for none itself.

mod message;

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use crate::report::reading::{Label, Labels, Profile, Source, Sums};
use crate::timeline::{Frame, ModuleId, Namer, TraceInfo};

use message as proto;

/// What a profile says beside its samples.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// What is true of the whole trace.
    pub info: TraceInfo,
    /// The program; pprof shows the name of the first mapping.
    pub program: Arc<str>,
    /// Build ids of files of code, by path.
    pub build_ids: HashMap<Arc<str>, Arc<[u8]>>,
}

/// Writes `profile`.
pub fn write(
    out: &mut dyn Write,
    profile: &Profile,
    namer: &mut dyn Namer,
    about: &About,
) -> io::Result<()> {
    let bytes = encode(profile, namer, about).encode_to_vec();
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&bytes)?;
    gzip.finish()?;
    Ok(())
}

/// Tables of a profile: everything is told once and referred to by its number.
struct Tables<'a> {
    profile: proto::Profile,
    strings: HashMap<Arc<str>, i64>,
    functions: HashMap<(i64, i64), u64>,
    /// Places by frame, and by text where there is no frame.
    places: HashMap<Frame, u64>,
    remarks: HashMap<Arc<str>, u64>,
    mappings: HashMap<ModuleId, u64>,
    profile_of: &'a Profile,
    about: &'a About,
}

fn encode(profile: &Profile, namer: &mut dyn Namer, about: &About) -> proto::Profile {
    let info = &about.info;
    let mut tables = Tables {
        profile: proto::Profile::default(),
        strings: HashMap::new(),
        functions: HashMap::new(),
        places: HashMap::new(),
        remarks: HashMap::new(),
        mappings: HashMap::new(),
        profile_of: profile,
        about,
    };
    // String 0 is the empty one.
    tables.string("");
    for (kind, unit) in TYPES {
        let (kind, unit) = (tables.string(kind), tables.string(unit));
        tables
            .profile
            .sample_type
            .push(proto::ValueType { kind, unit });
    }
    tables.profile.default_sample_type = tables.string(TYPES[0].0);
    let started: Option<jiff::Timestamp> = info.started.parse().ok();
    let nanos = started.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    tables.profile.time_nanos = nanos.unwrap_or(0);
    tables.profile.duration_nanos = i64::try_from(profile.until.0).unwrap_or(i64::MAX);
    if !info.command.is_empty() {
        let command = tables.string(&info.command.join(" "));
        tables.profile.comment.push(command);
    }
    tables.program();
    let process = tables.string("process");
    let mut labels = Labels::new(&profile.stacks, namer);
    for entry in &profile.entries {
        let value = values(&entry.sums);
        if value.iter().all(|value| *value == 0) {
            continue;
        }
        let location_id = tables.way(&entry.source, &mut labels);
        let label = proto::Label {
            key: process,
            text: tables.string(&entry.process),
        };
        tables.profile.sample.push(proto::Sample {
            location_id,
            value,
            label: vec![label],
        });
    }
    tables.profile
}

/// Sample types with their units, in the order of [`values`].
const TYPES: [(&str, &str); 4] = [
    ("reserved", "bytes"),
    ("committed", "bytes"),
    ("mapped", "bytes"),
    ("calls", "count"),
];

fn values(sums: &Sums) -> Vec<i64> {
    let values = [sums.reserved.0, sums.committed.0, sums.mapped.0, sums.calls];
    let values = values.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    values.to_vec()
}

impl Tables<'_> {
    fn string(&mut self, text: &str) -> i64 {
        if let Some(known) = self.strings.get(text) {
            return *known;
        }
        let number = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.into(), number);
        number
    }

    /// The places of a source, innermost first.
    fn way(&mut self, source: &Source, labels: &mut Labels<'_>) -> Vec<u64> {
        // What fork(2) copied comes from a stack, too.
        let mut inner = source;
        while let Source::Fork(Some(copied)) = inner {
            inner = copied;
        }
        let frames = match inner {
            Source::Stack(id) => self.profile_of.stacks.frames(*id),
            _ => &[],
        };
        let mut way: Vec<u64> = Vec::with_capacity(frames.len());
        let mut told = 0;
        for frame in frames {
            let names = labels.frame(*frame);
            told += names.len();
            way.push(self.place(*frame, &names));
        }
        // What else there is to say has no frame.
        for remark in labels.source(source).iter().skip(told) {
            way.push(self.remark(remark));
        }
        way
    }

    fn place(&mut self, frame: Frame, names: &[Label]) -> u64 {
        if let Some(known) = self.places.get(&frame) {
            return *known;
        }
        let (mapping_id, address) = match frame {
            Frame::Module { module, offset } => (self.mapping(module, offset), offset),
            Frame::Bare { pc, .. } => (0, pc.0),
        };
        let id = self.add_place(mapping_id, address, names);
        self.places.insert(frame, id);
        id
    }

    fn remark(&mut self, label: &Label) -> u64 {
        if let Some(known) = self.remarks.get(&label.text) {
            return *known;
        }
        let id = self.add_place(0, 0, std::slice::from_ref(label));
        self.remarks.insert(Arc::clone(&label.text), id);
        id
    }

    fn add_place(&mut self, mapping_id: u64, address: u64, names: &[Label]) -> u64 {
        let line = names.iter().map(|label| proto::Line {
            function_id: self.function(label),
            line: label.line.into(),
        });
        let line = line.collect();
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(proto::Location {
            id,
            mapping_id,
            address,
            line,
        });
        id
    }

    fn function(&mut self, label: &Label) -> u64 {
        let name = self.string(&label.text);
        let filename = label.file.clone().map_or(0, |file| self.string(&file));
        let next = self.functions.len() as u64 + 1;
        let id = *self.functions.entry((name, filename)).or_insert(next);
        if id == next {
            // Without a system name: pprof would take it apart as one that is mangled.
            self.profile
                .function
                .push(proto::Function { id, name, filename });
        }
        id
    }

    /// The mapping of the program is the first, if any stack leads through it.
    fn program(&mut self) {
        let modules = (0..).map(ModuleId).map_while(|id| {
            let module = self.profile_of.stacks.module(id)?;
            Some((id, Arc::clone(&module.path)))
        });
        let mut modules = modules;
        let program = modules.find(|(_, path)| *path == self.about.program);
        if let Some((id, _)) = program {
            self.mapping(id, 0);
        }
    }

    /// A mapping holds offsets from 0 to beyond the last that any frame has.
    fn mapping(&mut self, module: ModuleId, offset: u64) -> u64 {
        let beyond = offset.saturating_add(1).checked_next_multiple_of(0x1000);
        let beyond = beyond.unwrap_or(u64::MAX);
        if let Some(id) = self.mappings.get(&module) {
            let known = self.profile.mapping.get_mut(*id as usize - 1);
            if let Some(known) = known {
                known.memory_limit = known.memory_limit.max(beyond);
            }
            return *id;
        }
        let path = self.profile_of.stacks.module(module);
        let path: Arc<str> = path.map_or_else(|| "?".into(), |module| Arc::clone(&module.path));
        let build_id = self.about.build_ids.get(&path).cloned();
        let build_id: Option<String> =
            build_id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect());
        let filename = self.string(&path);
        let build_id = build_id.map_or(0, |id| self.string(&id));
        let id = self.profile.mapping.len() as u64 + 1;
        self.profile.mapping.push(proto::Mapping {
            id,
            memory_start: 0,
            memory_limit: beyond,
            file_offset: 0,
            filename,
            build_id,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        });
        self.mappings.insert(module, id);
        id
    }
}

#[cfg(test)]
mod tests;
