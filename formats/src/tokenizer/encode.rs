//! Byte-pair encoding: text to ids.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::Tokenizer;
use super::model::PieceType;
use super::normalize::SPACE;
use super::vocabulary::{NO_SYMBOL, Vocabulary};

/// Words kept in the cache, and the longest of them in bytes. Text repeats its words: the cache takes most of the work.
const CACHED_WORDS: usize = 1 << 16;
const CACHED_BYTES: usize = 32;

/// The official library stops splitting an unused piece at this depth.
const MAX_DEPTH: usize = 100;

/// Encodes many texts with one tokenizer, remembering words and buffers between them.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    words: HashMap<Box<str>, (u32, u32)>,
    cached: Vec<u32>,
    merger: Merger,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, words: HashMap::new(), cached: Vec::new(), merger: Merger::default() }
    }

    /// Appends the ids of `text` to `ids`. No BOS is added.
    pub fn encode_into(&mut self, text: &str, ids: &mut Vec<u32>) {
        let vocabulary = &self.tokenizer.vocabulary;
        let normal = self.tokenizer.normalizer.normalize(text);
        let mut output = Output { vocabulary, start: ids.len(), ids };
        if !vocabulary.by_words {
            return self.merger.encode(vocabulary, &normal, &mut output);
        }
        let mut rest = normal.as_str();
        while !rest.is_empty() {
            let first = rest.chars().next().map_or(0, char::len_utf8);
            let end = rest[first..].find(SPACE).map_or(rest.len(), |at| first + at);
            let (word, after) = rest.split_at(end);
            self.word(word, &mut output);
            rest = after;
        }
    }

    fn word(&mut self, word: &str, output: &mut Output<'_>) {
        if let Some(&(start, length)) = self.words.get(word) {
            output.ids_again(&self.cached[start as usize..][..length as usize]);
            return;
        }
        let vocabulary = output.vocabulary;
        if word.len() > CACHED_BYTES || self.words.len() == CACHED_WORDS {
            return self.merger.encode(vocabulary, word, output);
        }
        let start = self.cached.len();
        let mut alone = Output { vocabulary, start, ids: &mut self.cached };
        self.merger.encode(vocabulary, word, &mut alone);
        let place = (start as u32, (self.cached.len() - start) as u32);
        self.words.insert(word.into(), place);
        output.ids_again(&self.cached[start..]);
    }
}

/// The ids found so far, from `start` on those of the present text.
struct Output<'a> {
    vocabulary: &'a Vocabulary,
    start: usize,
    ids: &'a mut Vec<u32>,
}

impl Output<'_> {
    /// A character without a piece: its bytes, or one unknown id for a run of them.
    fn unknown(&mut self, text: &str) {
        if let Some(bytes) = &self.vocabulary.byte_ids {
            self.ids.extend(text.bytes().map(|byte| bytes[usize::from(byte)]));
        } else if let Some(unknown) = self.vocabulary.unknown
            && !self.ends_unknown()
        {
            self.ids.push(unknown);
        }
    }

    /// Appends the ids of a word from the cache; a run of unknown characters may go on from the word before.
    fn ids_again(&mut self, word: &[u32]) {
        let goes_on = !word.is_empty() && Some(word[0]) == self.vocabulary.unknown && self.ends_unknown();
        self.ids.extend(&word[usize::from(goes_on)..]);
    }

    fn ends_unknown(&self) -> bool {
        self.ids.len() > self.start && self.ids.last().copied() == self.vocabulary.unknown
    }
}

/// A part of the text that is one symbol now. An empty one has been merged into its left neighbour.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    frozen: bool,
    start: usize,
    len: usize,
    previous: usize,
    next: usize,
}

const NONE: usize = usize::MAX;

/// Two neighbours that could be merged: the lowest rank first, then the leftmost. `len` tells whether they are still as
/// they were.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: usize,
    right: usize,
    len: usize,
    id: u32,
}

/// The merge loop over one stretch of text, with its buffers: n log n in the length of the stretch.
#[derive(Default)]
struct Merger {
    symbols: Vec<Symbol>,
    candidates: BinaryHeap<Reverse<Candidate>>,
    /// For unused pieces, the two symbols that would last have made each: they are split up again at the end.
    halves: HashMap<u32, [Symbol; 2]>,
}

impl Merger {
    fn encode(&mut self, vocabulary: &Vocabulary, text: &str, output: &mut Output<'_>) {
        self.split(vocabulary, text);
        for right in 1..self.symbols.len() {
            self.consider(vocabulary, right - 1, right);
        }
        while let Some(Reverse(candidate)) = self.candidates.pop() {
            self.merge(vocabulary, candidate);
        }
        let mut at = 0;
        while let Some(&symbol) = self.symbols.get(at) {
            self.emit(text, symbol, 0, output);
            at = symbol.next;
        }
    }

    fn split(&mut self, vocabulary: &Vocabulary, text: &str) {
        self.symbols.clear();
        self.candidates.clear();
        self.halves.clear();
        let mut start = 0;
        while let Some(c) = text[start..].chars().next() {
            let index = self.symbols.len();
            let kept = vocabulary.user_defined.longest(&text[start..]);
            let (len, id) = kept.unwrap_or_else(|| (c.len_utf8(), vocabulary.character(c)));
            let previous = index.wrapping_sub(1);
            self.symbols.push(Symbol { id, frozen: kept.is_some(), start, len, previous, next: index + 1 });
            start += len;
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = NONE;
        }
    }

    /// Puts the pair up for merging, if the vocabulary has what it would become.
    fn consider(&mut self, vocabulary: &Vocabulary, left: usize, right: usize) {
        let (Some(&a), Some(&b)) = (self.symbols.get(left), self.symbols.get(right)) else { return };
        if a.frozen || b.frozen || a.id == NO_SYMBOL || b.id == NO_SYMBOL {
            return;
        }
        let Some(merge) = vocabulary.merge(a.id, b.id) else { return };
        self.candidates.push(Reverse(Candidate { rank: merge.rank, left, right, len: a.len + b.len, id: merge.id }));
        if vocabulary.kind(merge.id) == Some(PieceType::Unused) {
            self.halves.insert(merge.id, [a, b]);
        }
    }

    fn merge(&mut self, vocabulary: &Vocabulary, candidate: Candidate) {
        let Candidate { left, right, len, id, .. } = candidate;
        let (a, b) = (self.symbols[left], self.symbols[right]);
        if a.len == 0 || b.len == 0 || a.len + b.len != len {
            return;
        }
        self.symbols[left] = Symbol { id, len, next: b.next, ..a };
        self.symbols[right].len = 0;
        if let Some(next) = self.symbols.get_mut(b.next) {
            next.previous = left;
        }
        self.consider(vocabulary, a.previous, left);
        self.consider(vocabulary, left, b.next);
    }

    fn emit(&self, text: &str, symbol: Symbol, depth: usize, output: &mut Output<'_>) {
        let whole = depth > MAX_DEPTH;
        match output.vocabulary.kind(symbol.id) {
            Some(PieceType::Unused) if !whole => match self.halves.get(&symbol.id) {
                Some(&[left, right]) => {
                    self.emit(text, left, depth + 1, output);
                    self.emit(text, right, depth + 1, output);
                }
                None => output.unknown(&text[symbol.start..][..symbol.len]),
            },
            Some(_) => output.ids.push(symbol.id),
            None => output.unknown(&text[symbol.start..][..symbol.len]),
        }
    }
}
