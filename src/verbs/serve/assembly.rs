//! Tokens on their way to the client: text in whole characters, held back while it may be the start of a stop string.

use std::collections::VecDeque;

use sixpack_formats::tokenizer::Tokenizer;
use sixpack_runtime::{Scored, TextStream};

/// The text of one completion as it grows.
pub(super) struct Assembly<'a> {
    tokenizer: &'a Tokenizer,
    stops: &'a [String],
    stream: TextStream,
    text: String,
    /// Characters of `text`.
    chars: usize,
    /// Where the continuation begins: stop strings are searched for from here on.
    start: usize,
    /// Bytes of `text` that were given out.
    given: usize,
    /// Tokens that were not given out, with the byte where their text begins.
    waiting: VecDeque<(usize, Told)>,
    stopped: bool,
}

/// A token as the client sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    /// Its text; `bytes:\x…` where it is a part of a character.
    pub(super) token: String,
    /// Where it begins in the text, in characters.
    pub(super) offset: usize,
    /// Natural logarithm of its probability; none for the first of all.
    pub(super) logprob: Option<f32>,
    /// The likeliest tokens in its place.
    pub(super) top: Vec<(String, f32)>,
}

/// Text and tokens that can be given out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) tokens: Vec<Told>,
}

impl<'a> Assembly<'a> {
    /// An empty text that ends before any of `stops`.
    pub(super) fn new(tokenizer: &'a Tokenizer, stops: &'a [String]) -> Self {
        Self {
            tokenizer,
            stops,
            stream: TextStream::new(),
            text: String::new(),
            chars: 0,
            start: 0,
            given: 0,
            waiting: VecDeque::new(),
            stopped: false,
        }
    }

    /// Begins with the prompt, as the model reads it; `scores` are of its last tokens.
    pub(super) fn echo(&mut self, ids: &[u32], scores: &[Scored]) {
        let decoded = self.tokenizer.decode(ids);
        // A text begins without the space that its first piece has.
        let mut drop_space = !decoded.starts_with(' ');
        let unscored = ids.len() - scores.len().min(ids.len());
        for (i, &id) in ids.iter().enumerate() {
            let mut bytes = self.tokenizer.piece_bytes(id);
            if drop_space && !bytes.is_empty() {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
                drop_space = false;
            }
            let scored = i.checked_sub(unscored).map(|i| &scores[i]);
            self.take_in(id, bytes, scored);
        }
        self.start = self.text.len();
    }

    /// Adds a token of the continuation. `false` if a stop string is complete: then the text ends before it.
    pub(super) fn push(&mut self, id: u32, scored: Option<&Scored>) -> bool {
        let old = self.text.len();
        self.take_in(id, self.tokenizer.piece_bytes(id), scored);
        self.search(old);
        !self.stopped
    }

    /// Ends the text: what was held back is free.
    pub(super) fn finish(&mut self) -> Piece {
        if !self.stopped {
            let (old, rest) = (self.text.len(), self.stream.finish());
            self.text.push_str(&rest);
            self.search(old);
        }
        let end = self.text.len();
        self.give(end, end + 1)
    }

    /// What can be given out now.
    pub(super) fn ready(&mut self) -> Piece {
        let free = self.text.len() - self.held();
        self.give(free, free)
    }

    /// Whether a stop string was found.
    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }

    fn take_in(&mut self, id: u32, bytes: &[u8], scored: Option<&Scored>) {
        let told = Told {
            token: spelled(self.tokenizer, id, bytes),
            offset: self.chars,
            logprob: scored.map(|s| s.logprob),
            top: scored.map_or_else(Vec::new, |s| {
                let spelled = |id| spelled(self.tokenizer, id, self.tokenizer.piece_bytes(id));
                s.top.iter().map(|&(id, logprob)| (spelled(id), logprob)).collect()
            }),
        };
        self.waiting.push_back((self.text.len(), told));
        let text = self.stream.push(bytes);
        self.chars += text.chars().count();
        self.text.push_str(&text);
    }

    /// Looks for a stop string that ends after byte `old`, and cuts the text there.
    fn search(&mut self, old: usize) {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let mut from = old.saturating_sub(longest).max(self.start);
        while !self.text.is_char_boundary(from) {
            from -= 1;
        }
        let first = self.stops.iter().filter_map(|stop| self.text[from..].find(stop.as_str())).min();
        if let Some(at) = first {
            self.text.truncate(from + at);
            self.stopped = true;
        }
    }

    /// Bytes at the end that may be the start of a stop string.
    fn held(&self) -> usize {
        if self.stopped {
            return 0;
        }
        let text = &self.text[self.start..];
        let starts = self.stops.iter().flat_map(|stop| stop.char_indices().skip(1).map(|(i, _)| &stop[..i]));
        starts.filter(|start| text.ends_with(start)).map(str::len).max().unwrap_or(0)
    }

    /// Text up to byte `end` and the tokens that begin before byte `tokens_before`.
    fn give(&mut self, end: usize, tokens_before: usize) -> Piece {
        let text = self.text[self.given..end].to_owned();
        self.given = end;
        // A token of a stop string that was found begins at or after the end of the text.
        let before = if self.stopped { end } else { tokens_before };
        let count = self.waiting.iter().take_while(|(at, _)| *at < before).count();
        let tokens = self.waiting.drain(..count).map(|(_, told)| told).collect();
        Piece { text, tokens }
    }
}

/// A token as text, as OpenAI spells it.
fn spelled(tokenizer: &Tokenizer, id: u32, bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok("") => tokenizer.piece(id).unwrap_or_default().to_owned(),
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |text, byte| format!("{text}\\x{byte:02x}")),
    }
}

#[cfg(test)]
pub(super) mod tests;
