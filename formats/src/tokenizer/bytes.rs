//! The byte tables of the metric: how many bytes of text a token stands for.

/// How many bytes each token of a vocabulary stands for, given the token before it.
///
/// Over a document that starts after BOS, the sum is the UTF-8 length of the normal form of the text, with a space for
/// each `▁` and without the space that a dummy prefix puts before the first word: a space at the start of a piece
/// counts once, and not after a boundary token, where there was none in the text. Two things would break the sum, and
/// the models this project trains have neither: a vocabulary without byte pieces, whose unknown piece stands for 0
/// bytes, and a normaliser that keeps spaces at the start of a text, of which the first is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByteTables {
    /// UTF-8 length without a leading `▁` (one inside counts 1): 0 for control, unknown and unused pieces, 1 for byte
    /// pieces.
    pub base_bytes: Vec<u16>,
    /// Whether the piece starts with `▁`.
    pub leading_space: Vec<bool>,
    /// Whether the piece is a boundary: control, unknown or unused.
    pub boundary: Vec<bool>,
}

impl ByteTables {
    /// Bytes of `token` after `previous`.
    ///
    /// # Panics
    /// If an id is outside the vocabulary.
    pub fn bytes(&self, previous: u32, token: u32) -> u64 {
        let (previous, token) = (previous as usize, token as usize);
        let space = self.leading_space[token] && !self.boundary[previous];
        u64::from(self.base_bytes[token]) + u64::from(space)
    }

    /// Size of the vocabulary.
    pub fn len(&self) -> usize {
        self.base_bytes.len()
    }

    /// Whether the vocabulary is empty.
    pub fn is_empty(&self) -> bool {
        self.base_bytes.is_empty()
    }
}
