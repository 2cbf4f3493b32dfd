//! A model into an artifact.

use std::path::Path;

use super::container::{self, Coded, Kind};
use super::jobs::{self, Run};
use super::ledger::Ledger;
use super::streams::Placement;
use super::tensors::{self, Stream, Streams};
use super::{Provenance, context, score, streams};
use crate::{Codec, Model, Result, TensorData, atomic, tokenizer};

/// What goes into an artifact.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The model: tensors in f16 or as codes, and the tokenizer if there is one.
    pub model: &'a Model,
    /// Where it comes from.
    pub provenance: &'a Provenance,
}

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The file's size.
    pub bytes: u64,
    /// What its bytes are for.
    pub ledger: Ledger,
}

/// Writes an artifact, atomically. Its score is not measured yet; see [`set_score`](super::set_score).
///
/// # Errors
/// As [`encode`], and the system's.
pub fn write(path: impl AsRef<Path>, contents: &Contents<'_>, codec: Codec) -> Result<Written> {
    let (file, ledger) = encode(contents, codec)?;
    atomic::write(path, &file)?;
    Ok(Written { bytes: file.len() as u64, ledger })
}

/// The bytes of an artifact and what they are for. The same contents and codec always give the same bytes.
///
/// Every section is coded by `codec`, or stored where that is no larger; codes by [`Codec::for_codes`] of it, text by
/// [`Codec::for_text`]. With [`Codec::Context`], tables are coded by brotli where that is smaller.
///
/// # Errors
/// A tensor that is missing, in f32, or not of the shape of the configuration; codes that are no path of the trellis
/// though they should be; a configuration that is not valid.
pub fn encode(contents: &Contents<'_>, codec: Codec) -> Result<(Vec<u8>, Ledger)> {
    encode_with(contents, codec, &jobs::one_by_one)
}

/// [`encode`] with the matrices of [`Codec::Context`] coded by `run`, to which each is a job.
///
/// # Panics
/// If `run` leaves a job out.
pub fn encode_with(contents: &Contents<'_>, codec: Codec, run: &Run<'_>) -> Result<(Vec<u8>, Ledger)> {
    let Contents { model, provenance } = *contents;
    model.config.validate()?;
    let forms = streams::forms(model)?;
    let placements = streams::place(&model.config, &forms)?;
    let config = serde_json::to_vec(&model.config).expect("a plain struct of numbers serialises");
    let provenance = serde_json::to_vec(provenance).expect("a plain struct of texts serialises");
    let text = codec.for_text();
    let mut sections = vec![
        section(Kind::Config, &config, text),
        section(Kind::Forms, &forms, text),
        section(Kind::Provenance, &provenance, text),
        section(Kind::Score, &score::slot(None), Codec::Stored),
    ];
    if let Some(tokenizer) = &model.tokenizer {
        sections.insert(2, section(Kind::Tokenizer, &tokenizer::pack(tokenizer), text));
    }
    let in_context = matrices(model, &placements, codec, run)?;
    let streams = tensors::split(model, |kind| !in_context.iter().any(|section| section.kind == kind));
    sections.extend(streams.iter().map(|(&kind, stream)| match (codec, tensors::in_planes(kind)) {
        (Codec::Context, true) => {
            smaller(kind, codec, context::encode_halves(kind, stream, &placements), || tensors::to_planes(stream))
        }
        (_, true) => section(kind, &tensors::to_planes(stream), codec),
        (Codec::Context, false) => section(kind, stream, text.for_codes(stream)),
        (_, false) => section(kind, stream, codec.for_codes(stream)),
    }));
    sections.extend(in_context);
    sections.sort_by_key(|section| section.kind);
    let file = container::assemble(&sections);
    let parsed = container::parse(&file)?;
    let mut streams: Streams<'_> = streams.into_iter().map(|(kind, bytes)| (kind, Stream::Bytes(bytes))).collect();
    for section in &parsed {
        if let Some(kind) = section.kind.filter(|kind| Kind::STREAMS.contains(kind) && !streams.contains_key(kind)) {
            let n = placements.iter().filter(|p| p.values.0 == kind).count();
            streams.insert(kind, Stream::Matrices(context::split_codes(kind, section.coded, n)?));
        }
    }
    let ledger = Ledger::new(&parsed, &placements, &streams);
    Ok((file, ledger))
}

/// The sections of codes that are smaller with each matrix coded for itself; none but for [`Codec::Context`].
///
/// Rows of tables repeat where tokens were never seen, which a byte codec finds; paths of the trellis it cannot follow.
fn matrices(model: &Model, placements: &[Placement], codec: Codec, run: &Run<'_>) -> Result<Vec<Coded>> {
    let mut sections = Vec::new();
    if codec == Codec::Context {
        for (kind, size) in streams::sizes(placements).into_iter().filter(|&(kind, _)| !tensors::in_planes(kind)) {
            let (raw, coded) = (size as u64, context::encode_codes(kind, model, run)?);
            let tables = || tensors::split(model, |other| other == kind).remove(&kind).unwrap_or_default();
            let paths = model.tensors.values().any(|data| matches!(data, TensorData::Quantized(q) if q.trellis));
            let other = match kind {
                Kind::Tables if !paths => {
                    let codes = tables();
                    codec.for_text().for_codes(&codes).encode(&codes).len()
                }
                _ => size,
            };
            if coded.len() < size.min(other) {
                sections.push(Coded { kind, codec, raw, coded });
            }
        }
    }
    Ok(sections)
}

/// Codes a section by `codec`, or stores it where that is no larger.
fn section(kind: Kind, raw: &[u8], codec: Codec) -> Coded {
    smaller(kind, codec, codec.encode(raw), || raw.to_vec())
}

/// A section as it was coded, or stored where that is no larger.
fn smaller(kind: Kind, codec: Codec, coded: Vec<u8>, raw: impl FnOnce() -> Vec<u8>) -> Coded {
    let raw = raw();
    let size = raw.len() as u64;
    let (codec, coded) = if coded.len() < raw.len() { (codec, coded) } else { (Codec::Stored, raw) };
    Coded { kind, codec, raw: size, coded }
}
