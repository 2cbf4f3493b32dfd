//! An artifact into a model.

use std::path::Path;

use super::container::{self, Kind, Section};
use super::jobs::{self, Run};
use super::ledger::Ledger;
use super::streams::{self, Placement};
use super::tensors::{self, Stream, Streams};
use super::{Artifact, Provenance, context, score};
use crate::mapped::Mapped;
use crate::{Codec, Error, Model, ModelConfig, Result, json, tokenizer};

/// Most bytes of a configuration, tensor forms and a provenance, decoded.
const MAX_TEXT: u64 = 1 << 24;
/// Most bytes of a tokenizer, packed and unpacked.
const MAX_TOKENIZER: u64 = 1 << 26;
/// Most bytes of all streams of tensors together, decoded: far above any model of this kind, and what a machine has.
const MAX_STREAMS: u64 = 1 << 31;

impl Artifact {
    /// Reads the artifact `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &jobs::one_by_one)
    }

    /// [`Artifact::open`] with matrices decoded by `run`.
    pub fn open_with(path: impl AsRef<Path>, run: &Run<'_>) -> Result<Self> {
        let path = path.as_ref();
        let file = Mapped::open(path)?;
        Self::read_with(&file, run).map_err(Error::in_file(path))
    }

    /// Whether a file with this start is meant to be an artifact.
    pub fn is_artifact(start: &[u8]) -> bool {
        start.starts_with(&container::MAGIC)
    }

    /// Reads an artifact from memory.
    ///
    /// # Errors
    /// Any departure from the layout at the head of this module, with the offset or the section's name.
    pub fn read(file: &[u8]) -> Result<Self> {
        Self::read_with(file, &jobs::one_by_one)
    }

    /// [`Artifact::read`] with the tensors decoded by `run`, to which each is a job: this crate starts no threads.
    ///
    /// # Panics
    /// If `run` leaves a job out.
    pub fn read_with(file: &[u8], run: &Run<'_>) -> Result<Self> {
        let sections = container::parse(file)?;
        let size = file.len() as u64;
        let config = ModelConfig::from_json(&required(&sections, Kind::Config)?.decode(MAX_TEXT)?)?;
        let forms = required(&sections, Kind::Forms)?.decode(MAX_TEXT)?;
        let placements = streams::place(&config, &forms)?;
        let streams = read_streams(&sections, &placements)?;
        let tensors = tensors::join(&placements, &streams, run)?;
        let unpack = |s: &Section<'_>| tokenizer::unpack(&s.decode(MAX_TOKENIZER)?, MAX_TOKENIZER as usize);
        let tokenizer = find(&sections, Kind::Tokenizer).map(unpack).transpose()?;
        let provenance = match find(&sections, Kind::Provenance) {
            Some(section) => json::object(Kind::Provenance.name(), &section.decode(MAX_TEXT)?)?,
            None => Provenance::default(),
        };
        let score = match find(&sections, Kind::Score) {
            Some(section) => score::parse(&section.decode(score::SLOT as u64)?, size)?,
            None => None,
        };
        let ledger = Ledger::new(&sections, &placements, &streams);
        Ok(Self { model: Model::new(config, tensors, tokenizer, size)?, provenance, score, ledger })
    }
}

/// Decodes the streams, each of which must have the size that its tensors take.
fn read_streams<'a>(sections: &[Section<'a>], placements: &[Placement]) -> Result<Streams<'a>> {
    let sizes = streams::sizes(placements);
    let total = sizes.values().fold(0u64, |sum, &size| sum.saturating_add(size as u64));
    if total > MAX_STREAMS {
        let expected = format!("at most {MAX_STREAMS} bytes of tensors");
        return Err(Error::Stream { stream: "all streams".into(), expected, found: format!("{total} bytes") });
    }
    let mut streams = Streams::new();
    for kind in Kind::STREAMS {
        let expected = sizes.get(&kind).map_or(0, |&size| size as u64);
        let section = find(sections, kind);
        let found = section.map_or(0, |s| s.raw);
        if expected != found || (expected == 0 && section.is_some()) {
            let expected = format!("{expected} bytes, as its tensors take");
            return Err(Error::Stream { stream: kind.name().into(), expected, found: format!("{found} bytes") });
        }
        if let Some(section) = section {
            streams.insert(kind, read_stream(kind, section, placements)?);
        }
    }
    Ok(streams)
}

/// A stream; matrices that are coded each for itself stay so.
fn read_stream<'a>(kind: Kind, section: &Section<'a>, placements: &[Placement]) -> Result<Stream<'a>> {
    let context = section.codec == Codec::Context.id();
    if !context {
        let raw = section.decode(MAX_STREAMS)?;
        return Ok(Stream::Bytes(if tensors::in_planes(kind) { tensors::from_planes(&raw) } else { raw }));
    }
    match kind {
        Kind::Scales | Kind::Halves => context::decode_halves(kind, section.coded, placements).map(Stream::Bytes),
        _ => {
            let n = placements.iter().filter(|p| p.values.0 == kind).count();
            context::split_codes(kind, section.coded, n).map(Stream::Matrices)
        }
    }
}

fn find<'a, 'b>(sections: &'a [Section<'b>], kind: Kind) -> Option<&'a Section<'b>> {
    sections.iter().find(|s| s.kind == Some(kind))
}

fn required<'a, 'b>(sections: &'a [Section<'b>], kind: Kind) -> Result<&'a Section<'b>> {
    let fail = || Error::Stream { stream: kind.name().into(), expected: "this section".into(), found: "none".into() };
    find(sections, kind).ok_or_else(fail)
}
