//! The messages of a SentencePiece `.model` file that matter here.
//!
//! Field numbers, as in the library's `sentencepiece_model.proto`:
//!
//! 1. `ModelProto`: pieces 1 (repeated), trainer_spec 2, normalizer_spec 3, self_test_data 4, denormalizer_spec 5
//! 2. `SentencePiece`: piece 1, score 2 (f32), type 3 (1 when absent)
//! 3. `TrainerSpec`: model_type 3, vocab_size 4, character_coverage 10, treat_whitespace_as_suffix 24, split_digits 25,
//!    hard_vocab_limit 33, byte_fallback 35, unk_id 40, bos_id 41, eos_id 42, pad_id 43, unk_surface 44, bos_piece 46,
//!    eos_piece 47
//! 4. `NormalizerSpec`: name 1, precompiled_charsmap 2, add_dummy_prefix 3, remove_extra_whitespaces 4,
//!    escape_whitespaces 5
//!
//! All other fields are passed over: the tokenizer keeps the bytes of the file, so nothing in it is lost.

use super::proto::{Field, Fields, wrong};
use crate::{Error, Result};

/// A larger vocabulary is refused before anything is allocated for it.
pub(super) const MAX_PIECES: usize = 1 << 20;

/// The longest piece in bytes. The official trainer stops at 16 characters unless told otherwise.
pub(super) const MAX_PIECE_BYTES: usize = 1024;

/// `TrainerSpec.model_type` of a BPE model.
pub(super) const BPE: i32 = 2;

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// One entry of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) score: f32,
    pub(super) kind: PieceType,
}

/// What the encoder must know of how the model was trained.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrainerSpec<'a> {
    pub(super) model_type: i32,
    pub(super) byte_fallback: bool,
    pub(super) whitespace_as_suffix: bool,
    pub(super) unknown_surface: &'a str,
    pub(super) bos_piece: &'a str,
    pub(super) eos_piece: &'a str,
}

/// How text is normalised.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormalizerSpec<'a> {
    pub(super) charsmap: &'a [u8],
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

/// A parsed file.
pub(super) struct ModelFile<'a> {
    pub(super) pieces: Vec<Piece<'a>>,
    pub(super) trainer: TrainerSpec<'a>,
    pub(super) normalizer: NormalizerSpec<'a>,
}

impl<'a> ModelFile<'a> {
    /// Reads the messages and checks the types and sizes; what they mean together is the vocabulary's matter.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut trainer = TrainerSpec::default();
        let mut normalizer = NormalizerSpec {
            charsmap: &[],
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        let mut fields = Fields::of_file(bytes);
        while let Some(field) = fields.next()? {
            match field.number {
                1 if pieces.len() == MAX_PIECES => {
                    return Err(wrong(field.offset, &format!("at most {MAX_PIECES} pieces"), "more".into()));
                }
                1 => pieces.push(piece(&field)?),
                2 => trainer.read(&field)?,
                3 => normalizer.read(&field)?,
                5 => no_denormalizer(&field)?,
                _ => {}
            }
        }
        if trainer.model_type != BPE {
            return Err(Error::Tokenizer {
                field: "trainer_spec.model_type".into(),
                expected: "BPE (2)".into(),
                found: match trainer.model_type {
                    1 => "unigram (1)".into(),
                    3 => "word (3)".into(),
                    4 => "char (4)".into(),
                    other => other.to_string(),
                },
            });
        }
        Ok(Self { pieces, trainer, normalizer })
    }
}

fn piece<'a>(field: &Field<'a>) -> Result<Piece<'a>> {
    let mut piece = Piece { text: "", score: 0.0, kind: PieceType::Normal };
    let mut fields = field.message()?;
    while let Some(inner) = fields.next()? {
        match inner.number {
            1 => piece.text = inner.text()?,
            2 => piece.score = inner.float()?,
            3 => piece.kind = piece_type(&inner)?,
            _ => {}
        }
    }
    if piece.text.is_empty() || piece.text.len() > MAX_PIECE_BYTES || piece.text.contains('\0') {
        let expected = format!("a piece of 1 to {MAX_PIECE_BYTES} bytes without a null character");
        let found = format!("{} bytes", piece.text.len());
        return Err(wrong(field.offset, &expected, found));
    }
    if piece.score.is_nan() {
        return Err(wrong(field.offset, "a score that can be ordered", "not a number".into()));
    }
    Ok(piece)
}

fn piece_type(field: &Field<'_>) -> Result<PieceType> {
    use PieceType::{Byte, Control, Normal, Unknown, Unused, UserDefined};
    let found = field.int()?;
    let known = [Normal, Unknown, Control, UserDefined, Unused, Byte].into_iter().find(|&t| t as i32 == found);
    known.ok_or_else(|| wrong(field.offset, "a piece type from 1 to 6", found.to_string()))
}

impl Default for TrainerSpec<'_> {
    /// What absent fields mean.
    fn default() -> Self {
        Self {
            model_type: 1,
            byte_fallback: false,
            whitespace_as_suffix: false,
            unknown_surface: " \u{2047} ",
            bos_piece: "<s>",
            eos_piece: "</s>",
        }
    }
}

impl<'a> TrainerSpec<'a> {
    fn read(&mut self, field: &Field<'a>) -> Result<()> {
        let mut fields = field.message()?;
        while let Some(inner) = fields.next()? {
            match inner.number {
                3 => self.model_type = inner.int()?,
                24 => self.whitespace_as_suffix = inner.bool()?,
                35 => self.byte_fallback = inner.bool()?,
                44 => self.unknown_surface = inner.text()?,
                46 => self.bos_piece = inner.text()?,
                47 => self.eos_piece = inner.text()?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> NormalizerSpec<'a> {
    fn read(&mut self, field: &Field<'a>) -> Result<()> {
        let mut fields = field.message()?;
        while let Some(inner) = fields.next()? {
            match inner.number {
                2 => self.charsmap = inner.bytes()?,
                3 => self.add_dummy_prefix = inner.bool()?,
                4 => self.remove_extra_whitespaces = inner.bool()?,
                5 => self.escape_whitespaces = inner.bool()?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// A denormaliser would change decoded text; no model of this kind has one, so it is refused rather than ignored.
fn no_denormalizer(field: &Field<'_>) -> Result<()> {
    let mut fields = field.message()?;
    while let Some(inner) = fields.next()? {
        if inner.number == 2 && !inner.bytes()?.is_empty() {
            return Err(wrong(inner.offset, "no denormalizer", "a denormalizer_spec with a charsmap".into()));
        }
    }
    Ok(())
}
