//! The character map of a normaliser: which sequences of characters become which text.
//!
//! Layout of a `precompiled_charsmap`:
//!
//! 1. u32, little endian: bytes `n` of the trie
//! 2. `n` bytes: the trie, a double array of `n / 4` little-endian u32 units. A unit holds: bits 0–7 the label of the edge
//!    to it; bit 8 whether a key ends here, in which case the unit at its offset holds the value; bit 9 whether the
//!    offset is scaled by 256; bits 10–30 the offset; bit 31 set where the unit is a value (its low 31 bits)
//! 3. the rest: the replacement texts, each ended by a zero byte; a value is a position in here
//!
//! Source: the format of Susumu Yata's darts-clone, which the official library uses.

use crate::{Error, Result};

/// Longest replacement in bytes: a map from elsewhere cannot blow a text up without bound. Unicode's longest is 33.
const MAX_REPLACEMENT: usize = 256;

/// A trie of sequences and the texts that replace them.
pub(super) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

/// Where a walk through the trie stands.
#[derive(Clone, Copy)]
pub(super) struct Node(u32);

impl Charsmap {
    /// Reads the layout above. Empty bytes are the map that changes nothing.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |expected: &str, found: String| Error::Tokenizer {
            field: "normalizer_spec.precompiled_charsmap".into(),
            expected: expected.into(),
            found,
        };
        if bytes.is_empty() {
            return Ok(Self { units: Vec::new(), replacements: String::new() });
        }
        let (size, rest) =
            bytes.split_first_chunk().ok_or_else(|| wrong("4 bytes of size", bytes.len().to_string()))?;
        let size = u32::from_le_bytes(*size) as usize;
        if !size.is_multiple_of(4) || size >= rest.len() {
            let expected = format!("a trie of 4·n bytes in the {} that follow", rest.len());
            return Err(wrong(&expected, format!("{size}")));
        }
        let (trie, texts) = rest.split_at(size);
        let units = trie.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        let replacements = std::str::from_utf8(texts).map_err(|e| wrong("replacements in UTF-8", e.to_string()))?;
        if !replacements.ends_with('\0') {
            return Err(wrong("replacements ended by a zero byte", "another byte at the end".into()));
        }
        let longest = replacements.split('\0').map(str::len).max().unwrap_or(0);
        if longest > MAX_REPLACEMENT {
            return Err(wrong(&format!("replacements of at most {MAX_REPLACEMENT} bytes"), longest.to_string()));
        }
        Ok(Self { units, replacements: replacements.into() })
    }

    /// The start of a walk, unless the map is empty.
    pub(super) fn root(&self) -> Option<Node> {
        self.units.first().map(|&unit| Node(offset(unit)))
    }

    /// Follows the edge `byte`; with it the replacement, where a sequence ends there.
    pub(super) fn step(&self, node: Node, byte: u8) -> Option<(Node, Option<&str>)> {
        let position = node.0 ^ u32::from(byte);
        let unit = *self.units.get(position as usize)?;
        // The label of a value unit has bit 31 and so equals no byte.
        if unit & 0x8000_00FF != u32::from(byte) {
            return None;
        }
        let next = Node(position ^ offset(unit));
        let value = (unit >> 8 & 1 == 1).then(|| self.replacement(next)).flatten();
        Some((next, value))
    }

    /// The longest sequence at the start of `text`: its bytes and what replaces them. A damaged map may name sequences
    /// that end inside a character, or texts that do not exist: those are passed over.
    pub(super) fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut node = self.root()?;
        let mut longest = None;
        for (i, byte) in text.bytes().enumerate() {
            let Some((next, value)) = self.step(node, byte) else { break };
            if let Some(value) = value.filter(|_| text.is_char_boundary(i + 1)) {
                longest = Some((i + 1, value));
            }
            node = next;
        }
        longest
    }

    fn replacement(&self, node: Node) -> Option<&str> {
        let value = self.units.get(node.0 as usize)? & 0x7FFF_FFFF;
        let text = self.replacements.get(value as usize..)?;
        text.split_once('\0').map(|(text, _)| text)
    }
}

fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}
