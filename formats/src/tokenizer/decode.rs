//! Ids back to text.

use super::Tokenizer;
use super::model::PieceType;
use super::normalize::SPACE;
use super::vocabulary::piece_byte;

/// What each piece adds to a text.
pub(super) struct Surfaces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Surfaces {
    /// Spells out every piece of `tokenizer`'s vocabulary.
    pub(super) fn new(vocabulary: &super::vocabulary::Vocabulary, unknown: &str) -> Self {
        let mut surfaces = Self { bytes: Vec::new(), ends: Vec::with_capacity(vocabulary.len()) };
        for id in 0..vocabulary.len() as u32 {
            let text = vocabulary.text(id).unwrap_or_default();
            match vocabulary.kind(id) {
                None | Some(PieceType::Control) => {}
                Some(PieceType::Unknown) => surfaces.bytes.extend(unknown.as_bytes()),
                Some(PieceType::Byte) => surfaces.bytes.extend(piece_byte(text)),
                Some(_) => surfaces.bytes.extend(text.replace(SPACE, " ").as_bytes()),
            }
            surfaces.ends.push(surfaces.bytes.len());
        }
        surfaces
    }

    /// The bytes of piece `id`: none where the id is none.
    pub(super) fn of(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends.get(id - 1).copied().unwrap_or(0) };
        self.ends.get(id).map_or(&[], |&end| &self.bytes[start..end])
    }
}

impl Tokenizer {
    /// The text of `ids`, as the official library gives it.
    ///
    /// Control pieces are invisible, the unknown piece gives the model's surface for it (` ⁇ ` unless it says otherwise),
    /// and each byte that is not part of valid UTF-8 gives U+FFFD, as does an id outside the vocabulary. Spaces at the
    /// start are dropped where the normaliser would have added or removed them.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        let mut at_start = true;
        let mut dropped_space = false;
        for &id in ids {
            let kind = self.vocabulary.kind(id);
            if kind == Some(PieceType::Byte) {
                bytes.extend(self.piece_bytes(id));
                continue;
            }
            flush(&mut bytes, &mut text);
            at_start &= !dropped_space && text.is_empty();
            let surface = str::from_utf8(self.piece_bytes(id)).unwrap_or_default();
            let special = matches!(kind, None | Some(PieceType::Control | PieceType::Unknown));
            let spaced = !special && self.piece(id).is_some_and(|piece| piece.starts_with(SPACE));
            let strip = spaced && at_start && self.drops_first_space;
            let stripped = surface.strip_prefix(' ').filter(|_| strip);
            // One dummy space is dropped; a normaliser that squeezes spaces leaves none at the start at all.
            dropped_space = stripped.is_some() && !self.drops_all_first_spaces;
            text.push_str(if kind.is_none() { "\u{FFFD}" } else { stripped.unwrap_or(surface) });
        }
        flush(&mut bytes, &mut text);
        text
    }
}

/// Appends byte pieces as text: what is valid, and U+FFFD for each byte that is not.
fn flush(bytes: &mut Vec<u8>, text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{FFFD}'));
    }
    bytes.clear();
}
