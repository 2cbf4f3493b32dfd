//! Words and characters of a text, counted.

use std::collections::HashMap;

use crate::tokenizer::builtin;
use crate::tokenizer::model::{NormalizerSpec, TrainerSpec};
use crate::tokenizer::normalize::{Normalizer, SPACE};
use crate::tokenizer::prefix::PrefixMatcher;
use crate::tokenizer::vocabulary::piece_byte;

use super::SPECIAL;

/// Longer words are cut: text without spaces would be one word otherwise.
const MAX_WORD_BYTES: usize = 4096;

/// Bytes of distinct words that are kept; after that, only the words already known are counted.
const MAX_TOTAL_BYTES: usize = 1 << 27;

/// Stands for text that nothing may be learned from. Normalised text has no tabs of its own.
const WALL: char = '\t';

/// Bytes of the longest fixed piece, such as `<0x0A>`.
const LONGEST_FIXED: usize = 6;

/// A word and how often it occurs.
pub(super) type Word = (Box<str>, u64);

/// Counts the words of normalised text, each with the space before it.
pub struct WordCounts {
    normalizer: Normalizer,
    counts: HashMap<Box<str>, u64>,
    bytes: usize,
}

impl Default for WordCounts {
    fn default() -> Self {
        Self::new()
    }
}

impl WordCounts {
    /// An empty count.
    pub fn new() -> Self {
        let spec = NormalizerSpec {
            charsmap: builtin::charsmap(),
            add_dummy_prefix: false,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        let normalizer = Normalizer::new(&spec, &TrainerSpec::default(), PrefixMatcher::default());
        let normalizer = normalizer.expect("the character map of this crate, which its tests read");
        Self { normalizer, counts: HashMap::new(), bytes: 0 }
    }

    /// Adds a document. Documents are encoded one at a time and so counted one at a time: the first word of each has no
    /// space before it.
    pub fn add(&mut self, text: &str) {
        let normal = wall_off_fixed_pieces(self.normalizer.normalize(text));
        let mut rest = normal.as_str();
        while let Some(first) = rest.chars().next() {
            let first = first.len_utf8();
            let longest = rest.floor_char_boundary(MAX_WORD_BYTES);
            let end = rest[first..longest].find(SPACE).map_or(longest, |at| first + at);
            let (word, after) = rest.split_at(end);
            self.count(word);
            rest = after;
        }
    }

    fn count(&mut self, word: &str) {
        if let Some(count) = self.counts.get_mut(word) {
            *count += 1;
        } else if self.bytes + word.len() <= MAX_TOTAL_BYTES {
            self.bytes += word.len();
            self.counts.insert(word.into(), 1);
        }
    }

    /// The words, the most frequent first, equally frequent ones by their bytes.
    pub(super) fn sorted(self) -> Vec<Word> {
        let mut words: Vec<Word> = self.counts.into_iter().collect();
        words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        words
    }
}

/// Puts a [`WALL`] for each text like `<s>` or `<0x0A>`, so that nothing is learned from those.
fn wall_off_fixed_pieces(text: String) -> String {
    if !text.contains('<') {
        return text;
    }
    let mut walled = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('<') {
        walled.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(LONGEST_FIXED).position(|byte| byte == b'>').map_or(1, |end| end + 1);
        let tag = &rest[..end];
        if SPECIAL.contains(&tag) || piece_byte(tag).is_some() {
            walled.push(WALL);
            rest = &rest[end..];
        } else {
            walled.push('<');
            rest = &rest[1..];
        }
    }
    walled + rest
}

/// The most frequent characters, as many as it takes to cover the share `coverage` of the text, most frequent first.
pub(super) fn alphabet(words: &[Word], coverage: f32) -> Vec<(char, u64)> {
    let mut counts: HashMap<char, u64> = HashMap::new();
    for (word, count) in words {
        for c in word.chars().filter(|&c| c != '\0') {
            *counts.entry(c).or_default() += count;
        }
    }
    let mut characters: Vec<(char, u64)> = counts.into_iter().collect();
    characters.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let total: u64 = characters.iter().map(|(_, count)| count).sum();
    let mut covered = 0;
    let enough = |covered: u64| (covered as f64 / total as f64) as f32 >= coverage;
    let wanted = characters.iter().take_while(|(_, count)| {
        let take = !enough(covered);
        covered += count;
        take
    });
    let wanted = wanted.count();
    characters.truncate(wanted);
    characters.retain(|&(c, _)| c != WALL);
    characters
}
