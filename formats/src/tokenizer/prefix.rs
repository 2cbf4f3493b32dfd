//! User-defined symbols: strings that are kept whole, found at the start of a text.

use std::collections::HashMap;

/// The user-defined symbols of a vocabulary with their ids, by first character and longest first.
#[derive(Clone, Default)]
pub(super) struct PrefixMatcher {
    by_first: HashMap<char, Vec<(Box<str>, u32)>>,
}

impl PrefixMatcher {
    /// Collects the symbols.
    pub(super) fn new<'a>(symbols: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut by_first: HashMap<char, Vec<(Box<str>, u32)>> = HashMap::new();
        for (text, id) in symbols {
            if let Some(first) = text.chars().next() {
                by_first.entry(first).or_default().push((text.into(), id));
            }
        }
        for symbols in by_first.values_mut() {
            symbols.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        }
        Self { by_first }
    }

    /// The longest symbol that `text` starts with: its length in bytes and its id.
    pub(super) fn longest(&self, text: &str) -> Option<(usize, u32)> {
        if self.by_first.is_empty() {
            return None;
        }
        let symbols = self.by_first.get(&text.chars().next()?)?;
        symbols.iter().find(|(symbol, _)| text.starts_with(&**symbol)).map(|(symbol, id)| (symbol.len(), *id))
    }

    /// Whether some symbol starts with `first`.
    pub(super) fn starts_with(&self, first: char) -> bool {
        self.by_first.contains_key(&first)
    }
}
