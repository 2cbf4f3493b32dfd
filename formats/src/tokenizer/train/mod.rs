//! Training of a byte-pair vocabulary from text.
//!
//! The steps are those of the official trainer, and on the same lines of text it finds the same pieces: text is
//! normalised and cut into words, each starting with its space; the most frequent characters become pieces; then the
//! most frequent pair of neighbouring symbols becomes a piece, again and again, until the vocabulary is full. The result
//! is a SentencePiece `.model` with the layout of the reference's models: pad 0, bos 1, eos 2, unk 3, the 256 byte pieces,
//! the merges, the characters; normalised by `nmt_nfkc` without a dummy prefix, digits split.

mod merges;
mod validity;
mod words;
mod write;

use crate::{Error, Result};

pub use words::WordCounts;

/// The pieces before the learned ones, in order, without the byte pieces.
const SPECIAL: [&str; 4] = ["<pad>", "<s>", "</s>", "<unk>"];

/// Special pieces and byte pieces.
const FIXED: usize = SPECIAL.len() + 256;

/// The largest vocabulary: ids must fit the 16 bits of a token shard.
const MAX_VOCABULARY: usize = 1 << 16;

/// What the vocabulary is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// Pieces in all, special and byte pieces included: above 260, at most 65,536.
    pub vocab_size: usize,
    /// The share of all characters of the text that get a piece; rarer ones are spelled in bytes. From 0.98 to 1.
    pub character_coverage: f32,
    /// The longest piece, in characters, the space included.
    pub max_piece_chars: usize,
}

impl TrainOptions {
    /// The reference's options for a vocabulary of `vocab_size` pieces.
    pub fn new(vocab_size: usize) -> Self {
        Self { vocab_size, character_coverage: 0.999, max_piece_chars: 16 }
    }

    fn validate(&self) -> Result<()> {
        if !(FIXED + 1..=MAX_VOCABULARY).contains(&self.vocab_size) {
            let expected =
                format!("from {} ({FIXED} special and byte pieces and one more) to {MAX_VOCABULARY}", FIXED + 1);
            return Err(wrong("vocab_size", expected, self.vocab_size));
        }
        if !(0.98..=1.0).contains(&self.character_coverage) {
            return Err(wrong("character_coverage", "from 0.98 to 1".into(), self.character_coverage));
        }
        if !(1..=256).contains(&self.max_piece_chars) {
            return Err(wrong("max_piece_chars", "from 1 to 256".into(), self.max_piece_chars));
        }
        Ok(())
    }
}

/// Trains on `texts` and gives the bytes of a `.model` file. Equal texts give equal bytes.
///
/// # Errors
/// [`Error::Tokenizer`] where the options are out of range, or the text has too many characters or too few different
/// words for the vocabulary asked for; the message says what is possible.
pub fn train<T: AsRef<str>>(texts: impl IntoIterator<Item = T>, options: &TrainOptions) -> Result<Vec<u8>> {
    options.validate()?;
    let mut counts = WordCounts::new();
    for text in texts {
        counts.add(text.as_ref());
    }
    train_on(counts, options)
}

/// Trains on words that were counted before.
///
/// # Errors
/// As [`train`].
pub fn train_on(counts: WordCounts, options: &TrainOptions) -> Result<Vec<u8>> {
    options.validate()?;
    let words = counts.sorted();
    if words.is_empty() {
        return Err(wrong("text", "words to learn from".into(), "none"));
    }
    let alphabet = words::alphabet(&words, options.character_coverage);
    let room = options.vocab_size.checked_sub(FIXED + alphabet.len()).ok_or_else(|| {
        let expected =
            format!("at least {} ({FIXED} fixed pieces, {} characters)", FIXED + alphabet.len(), alphabet.len());
        wrong("vocab_size", expected, options.vocab_size)
    })?;
    let merged = merges::learn(&words, &alphabet, room, options.max_piece_chars);
    if merged.len() < room {
        let possible = FIXED + alphabet.len() + merged.len();
        return Err(wrong(
            "vocab_size",
            format!("at most {possible}, which is all this text gives"),
            options.vocab_size,
        ));
    }
    let learned = merged.into_iter().chain(alphabet.iter().map(|&(c, _)| c.to_string().into()));
    Ok(write::model(learned, options))
}

fn wrong(field: &str, expected: String, found: impl std::fmt::Display) -> Error {
    Error::Tokenizer { field: field.into(), expected, found: found.to_string() }
}
