//! Text to tokens and back: SentencePiece models of the BPE kind.
//!
//! A [`Tokenizer`] reads the `.model` file that the official library writes and gives the same ids for any text: the
//! goldens of this crate hold ids made by that library. Reading a text goes in two steps, [`Tokenizer::normalize`] and
//! the merges of byte-pair encoding.

mod builtin;
mod bytes;
mod charsmap;
mod decode;
mod encode;
mod model;
mod normalize;
mod pack;
mod prefix;
mod proto;
pub mod train;
mod vocabulary;

pub use bytes::ByteTables;
pub use encode::Encoder;
pub use pack::{pack, unpack};

use crate::{Error, Result};

/// A larger `.model` file is refused.
const MAX_MODEL_BYTES: usize = 1 << 24;

/// A SentencePiece BPE model, ready to encode and decode.
pub struct Tokenizer {
    model: Box<[u8]>,
    vocabulary: vocabulary::Vocabulary,
    normalizer: normalize::Normalizer,
    surfaces: decode::Surfaces,
    drops_first_space: bool,
    drops_all_first_spaces: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads the bytes of a `.model` file.
    ///
    /// # Errors
    /// [`Error::Layout`] where the bytes are not such a file, and [`Error::Tokenizer`] where it is of another kind than
    /// BPE or its pieces do not make a vocabulary.
    pub fn from_model(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_MODEL_BYTES {
            let expected = format!("at most {MAX_MODEL_BYTES} bytes");
            return Err(proto::wrong(0, &expected, bytes.len().to_string()));
        }
        let file = model::ModelFile::parse(bytes)?;
        let vocabulary = vocabulary::Vocabulary::new(&file)?;
        let user_defined = vocabulary.user_defined.clone();
        let normalizer = normalize::Normalizer::new(&file.normalizer, &file.trainer, user_defined)?;
        let spec = &file.normalizer;
        Ok(Self {
            surfaces: decode::Surfaces::new(&vocabulary, file.trainer.unknown_surface),
            drops_first_space: spec.add_dummy_prefix || spec.remove_extra_whitespaces,
            drops_all_first_spaces: spec.remove_extra_whitespaces,
            vocabulary,
            normalizer,
            model: bytes.into(),
        })
    }

    /// The bytes of the `.model` file this tokenizer was read from.
    pub fn model_bytes(&self) -> &[u8] {
        &self.model
    }

    /// The number of pieces: ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The piece that starts a document, if the model has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.vocabulary.bos
    }

    /// The piece that ends a document, if the model has one.
    pub fn eos_id(&self) -> Option<u32> {
        self.vocabulary.eos
    }

    /// The ids of `text`. No BOS is added. For many texts, [`Tokenizer::encoder`] is faster.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        self.encoder().encode_into(text, &mut ids);
        ids
    }

    /// The ids of `text`, which must be UTF-8.
    ///
    /// # Errors
    /// [`Error::Layout`] with the offset of the first byte that is not valid.
    pub fn encode_bytes(&self, text: &[u8]) -> Result<Vec<u32>> {
        let text = std::str::from_utf8(text).map_err(|e| Error::Layout {
            what: "text",
            offset: e.valid_up_to() as u64,
            expected: "valid UTF-8".into(),
            found: match text.get(e.valid_up_to()) {
                Some(byte) if e.error_len().is_some() => format!("byte 0x{byte:02X}"),
                _ => "the end of the text inside a character".into(),
            },
        })?;
        Ok(self.encode(text))
    }

    /// An encoder that remembers words from one text to the next.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder::new(self)
    }

    /// The text as the vocabulary sees it, with `▁` (U+2581) for a space.
    pub fn normalize(&self, text: &str) -> String {
        self.normalizer.normalize(text)
    }

    /// The bytes that piece `id` adds to a text, a space for each `▁`: one byte of a character, perhaps, for a byte
    /// piece, and nothing for control pieces and ids outside the vocabulary.
    pub fn piece_bytes(&self, id: u32) -> &[u8] {
        self.surfaces.of(id)
    }

    /// The piece as the model spells it, such as `▁the` or `<0x0A>`.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.vocabulary.text(id)
    }

    /// How many bytes of text each piece stands for.
    pub fn byte_tables(&self) -> ByteTables {
        self.vocabulary.byte_tables()
    }
}
