//! A model into an artifact.

use std::path::Path;

use super::container::{self, Coded, Kind};
use super::ledger::Ledger;
use super::{Provenance, score, streams};
use crate::{Codec, Model, Result, atomic, tokenizer};

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
/// Every section is coded by `codec`, or stored where that is no larger; codes by [`Codec::for_codes`] of it.
///
/// # Errors
/// A tensor that is missing, in f32, or not of the shape of the configuration; a configuration that is not valid.
pub fn encode(contents: &Contents<'_>, codec: Codec) -> Result<(Vec<u8>, Ledger)> {
    let Contents { model, provenance } = *contents;
    model.config.validate()?;
    let forms = streams::forms(model)?;
    let placements = streams::place(&model.config, &forms)?;
    let streams = streams::split(model);
    let config = serde_json::to_vec(&model.config).expect("a plain struct of numbers serialises");
    let provenance = serde_json::to_vec(provenance).expect("a plain struct of texts serialises");
    let mut sections = vec![
        section(Kind::Config, &config, codec),
        section(Kind::Forms, &forms, codec),
        section(Kind::Provenance, &provenance, codec),
        section(Kind::Score, &score::slot(None), Codec::Stored),
    ];
    if let Some(tokenizer) = &model.tokenizer {
        sections.insert(2, section(Kind::Tokenizer, &tokenizer::pack(tokenizer), codec));
    }
    for (&kind, stream) in &streams {
        sections.push(match streams::in_planes(kind) {
            true => section(kind, &streams::to_planes(stream), codec),
            false => section(kind, stream, codec.for_codes(stream)),
        });
    }
    let file = container::assemble(&sections);
    let ledger = Ledger::new(&container::parse(&file)?, &placements, &streams);
    Ok((file, ledger))
}

/// Codes a section by `codec`, or stores it where that is no larger.
fn section(kind: Kind, raw: &[u8], codec: Codec) -> Coded {
    let coded = codec.encode(raw);
    let (codec, coded) = if coded.len() < raw.len() { (codec, coded) } else { (Codec::Stored, raw.to_vec()) };
    Coded { kind, codec, raw: raw.len() as u64, coded }
}
