//! The vocabulary as the encoder wants it: symbols by number, and which two make a third.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use super::bytes::ByteTables;
use super::model::{ModelFile, Piece, PieceType};
use super::normalize::SPACE;
use super::prefix::PrefixMatcher;
use crate::{Error, Result};

/// Stands for a character that is in no piece.
pub(super) const NO_SYMBOL: u32 = u32::MAX;

/// Two neighbours become symbol `id`; the lowest rank goes first.
#[derive(Clone, Copy)]
pub(super) struct Merge {
    pub(super) rank: u32,
    pub(super) id: u32,
}

/// The pieces of a model. Symbols up to `len()` are pieces; those above are characters that occur in pieces without
/// being pieces themselves.
pub(super) struct Vocabulary {
    texts: Vec<Box<str>>,
    kinds: Vec<PieceType>,
    characters: HashMap<char, u32>,
    ascii: [u32; 128],
    merges: HashMap<u64, Merge, BuildHasherDefault<PairHasher>>,
    pub(super) user_defined: PrefixMatcher,
    pub(super) unknown: Option<u32>,
    pub(super) byte_ids: Option<Box<[u32; 256]>>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    /// Whether a text can be encoded word by word: no merge then reaches over a space.
    pub(super) by_words: bool,
}

impl Vocabulary {
    /// Checks that the pieces make a vocabulary and builds the tables.
    pub(super) fn new(file: &ModelFile<'_>) -> Result<Self> {
        let ids = unique(&file.pieces)?;
        let control = |text: &str| ids.get(text).copied().filter(|&id| kind(file, id) == PieceType::Control);
        let symbols = Symbols::of(&file.pieces);
        let byte_ids = byte_ids(file)?;
        let unknown = unknown(&file.pieces)?;
        if unknown.is_none() && byte_ids.is_none() {
            return Err(wrong("pieces", "an unknown piece or byte pieces", "neither"));
        }
        let of_kind = |wanted| file.pieces.iter().zip(0..).filter(move |(p, _)| p.kind == wanted);
        let unused = of_kind(PieceType::Unused).next().is_some();
        let inner_space = mergeable(&file.pieces).any(|(p, _)| p.text.chars().skip(1).any(|c| c == SPACE));
        let characters = symbols.characters();
        let ascii = |c: usize| characters.get(&char::from(c as u8)).copied().unwrap_or(NO_SYMBOL);
        Ok(Self {
            texts: file.pieces.iter().map(|p| p.text.into()).collect(),
            kinds: file.pieces.iter().map(|p| p.kind).collect(),
            merges: merges(&file.pieces, &symbols),
            ascii: std::array::from_fn(ascii),
            characters,
            user_defined: PrefixMatcher::new(of_kind(PieceType::UserDefined).map(|(p, id)| (p.text, id))),
            unknown,
            byte_ids,
            bos: control(file.trainer.bos_piece),
            eos: control(file.trainer.eos_piece),
            by_words: !unused && !inner_space,
        })
    }

    /// The number of pieces.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text of a piece, `None` where the id is none.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize).map(|text| &**text)
    }

    /// What a piece is for, `None` where the id is none.
    pub(super) fn kind(&self, id: u32) -> Option<PieceType> {
        self.kinds.get(id as usize).copied()
    }

    /// The symbol of a character, [`NO_SYMBOL`] where no piece has it.
    pub(super) fn character(&self, c: char) -> u32 {
        match self.ascii.get(c as usize) {
            Some(&symbol) => symbol,
            None => self.characters.get(&c).copied().unwrap_or(NO_SYMBOL),
        }
    }

    /// What two neighbouring symbols become.
    pub(super) fn merge(&self, left: u32, right: u32) -> Option<Merge> {
        self.merges.get(&pair(left, right)).copied()
    }

    /// The byte tables of the metric; see [`ByteTables`].
    pub(super) fn byte_tables(&self) -> ByteTables {
        let mut tables = ByteTables::default();
        for (text, kind) in self.texts.iter().zip(&self.kinds) {
            let boundary = matches!(kind, PieceType::Control | PieceType::Unknown | PieceType::Unused);
            let byte = *kind == PieceType::Byte;
            let leading = !boundary && !byte && text.starts_with(SPACE);
            // An inner `▁` is one byte of text, as the leading one is.
            let spaces = text.matches(SPACE).count();
            let length = text.len() - spaces * (SPACE.len_utf8() - 1) - usize::from(leading);
            let length = if boundary {
                0
            } else if byte {
                1
            } else {
                length
            };
            tables.base_bytes.push(u16::try_from(length).unwrap_or(u16::MAX));
            tables.leading_space.push(leading);
            tables.boundary.push(boundary);
        }
        tables
    }
}

/// Every string that a symbol can be: the mergeable pieces, and the characters in them.
struct Symbols<'a>(HashMap<&'a str, u32>);

impl<'a> Symbols<'a> {
    fn of(pieces: &[Piece<'a>]) -> Self {
        let mut symbols: HashMap<&str, u32> = mergeable(pieces).map(|(piece, id)| (piece.text, id)).collect();
        let mut next = pieces.len() as u32;
        for (piece, _) in mergeable(pieces) {
            for (at, c) in piece.text.char_indices() {
                if let Entry::Vacant(free) = symbols.entry(&piece.text[at..at + c.len_utf8()]) {
                    free.insert(next);
                    next += 1;
                }
            }
        }
        Self(symbols)
    }

    fn characters(&self) -> HashMap<char, u32> {
        let single = |text: &str| text.chars().next().filter(|c| c.len_utf8() == text.len());
        self.0.iter().filter_map(|(text, &symbol)| Some((single(text)?, symbol))).collect()
    }
}

/// The pieces that text can turn into. Control, unknown and byte pieces never come out of a merge.
fn mergeable<'p, 'a>(pieces: &'p [Piece<'a>]) -> impl Iterator<Item = (&'p Piece<'a>, u32)> {
    let can = |kind| matches!(kind, PieceType::Normal | PieceType::UserDefined | PieceType::Unused);
    pieces.iter().zip(0..).filter(move |(piece, _)| can(piece.kind))
}

/// All pairs of symbols that make a piece, ranked by the score of that piece, highest first.
fn merges(pieces: &[Piece<'_>], symbols: &Symbols<'_>) -> HashMap<u64, Merge, BuildHasherDefault<PairHasher>> {
    // Adding zero turns the −0 that trainers write for the first merge into 0.
    let score = |piece: &Piece<'_>| piece.score + 0.0;
    let mut scores: Vec<f32> = mergeable(pieces).map(|(piece, _)| score(piece)).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    scores.dedup();
    let mut merges = HashMap::default();
    for (piece, id) in mergeable(pieces) {
        let rank = scores.partition_point(|&other| other > score(piece)) as u32;
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if let (Some(&left), Some(&right)) = (symbols.0.get(left), symbols.0.get(right)) {
                merges.insert(pair(left, right), Merge { rank, id });
            }
        }
    }
    merges
}

fn unique<'a>(pieces: &[Piece<'a>]) -> Result<HashMap<&'a str, u32>> {
    let mut ids = HashMap::with_capacity(pieces.len());
    for (piece, id) in pieces.iter().zip(0u32..) {
        if let Some(first) = ids.insert(piece.text, id) {
            let found = format!("{:?}, which is piece {first} already", piece.text);
            return Err(wrong(&format!("piece {id}"), "a piece of its own", &found));
        }
    }
    Ok(ids)
}

fn unknown(pieces: &[Piece<'_>]) -> Result<Option<u32>> {
    let mut unknown = pieces.iter().zip(0..).filter(|(p, _)| p.kind == PieceType::Unknown).map(|(_, id)| id);
    let first = unknown.next();
    match unknown.next() {
        Some(second) => Err(wrong(&format!("piece {second}"), "one unknown piece", "a second")),
        None => Ok(first),
    }
}

fn byte_ids(file: &ModelFile<'_>) -> Result<Option<Box<[u32; 256]>>> {
    let mut ids = [None; 256];
    for (piece, id) in file.pieces.iter().zip(0u32..).filter(|(p, _)| p.kind == PieceType::Byte) {
        let byte = piece_byte(piece.text).ok_or_else(|| {
            wrong(&format!("piece {id}"), "a byte piece from <0x00> to <0xFF>", &format!("{:?}", piece.text))
        })?;
        ids[usize::from(byte)] = Some(id);
    }
    let count = ids.iter().flatten().count();
    match (file.trainer.byte_fallback, count) {
        (false, 0) => Ok(None),
        (true, 256) => Ok(Some(Box::new(ids.map(|id| id.unwrap_or_default())))),
        (fallback, count) => {
            let expected = format!("{} byte pieces with byte_fallback {fallback}", if fallback { 256 } else { 0 });
            Err(wrong("pieces", &expected, &count.to_string()))
        }
    }
}

/// The byte a piece like `<0x0A>` stands for.
pub(super) fn piece_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let byte = u8::from_str_radix(digits, 16).ok()?;
    (format!("{byte:02X}") == digits).then_some(byte)
}

fn kind(file: &ModelFile<'_>, id: u32) -> PieceType {
    file.pieces[id as usize].kind
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn wrong(field: &str, expected: &str, found: &str) -> Error {
    Error::Tokenizer { field: field.into(), expected: expected.into(), found: found.into() }
}

/// A multiplicative hash: the keys are small numbers of our own, and looking them up is the encoder's inner loop.
#[derive(Default)]
pub(super) struct PairHasher(u64);

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        let mixed = (self.0 ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
