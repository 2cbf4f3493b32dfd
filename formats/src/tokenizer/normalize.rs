//! Text as the vocabulary sees it: mapped characters, single spaces, `▁` for a space.

use super::charsmap::Charsmap;
use super::model::{NormalizerSpec, TrainerSpec};
use super::prefix::PrefixMatcher;
use crate::Result;

/// What stands for a space in pieces (U+2581).
pub(super) const SPACE: char = '▁';

/// Normalises text exactly as the official library does.
///
/// The text is read left to right. At each position a user-defined symbol is kept as it is; else the longest sequence of
/// the character map is replaced; else one character is copied. Spaces at the start and the end and all but one of a
/// run of spaces are dropped, if the model says so, after the mapping, which also makes spaces of tabs and line ends.
pub(super) struct Normalizer {
    charsmap: Charsmap,
    user_defined: PrefixMatcher,
    plain: [bool; 128],
    space: &'static str,
    prefix: bool,
    suffix: bool,
    squeeze: bool,
}

impl Normalizer {
    /// Reads the character map of `spec`.
    pub(super) fn new(
        spec: &NormalizerSpec<'_>,
        trainer: &TrainerSpec<'_>,
        user_defined: PrefixMatcher,
    ) -> Result<Self> {
        let charsmap = Charsmap::parse(spec.charsmap)?;
        let plain = std::array::from_fn(|byte| is_plain(byte as u8, &charsmap, &user_defined));
        Ok(Self {
            charsmap,
            user_defined,
            plain,
            space: if spec.escape_whitespaces { "▁" } else { " " },
            prefix: spec.add_dummy_prefix && !trainer.whitespace_as_suffix,
            suffix: spec.add_dummy_prefix && trainer.whitespace_as_suffix,
            squeeze: spec.remove_extra_whitespaces,
        })
    }

    /// The normal form of `text`.
    pub(super) fn normalize(&self, text: &str) -> String {
        let mut rest = text;
        while self.squeeze && !rest.is_empty() {
            let (mapped, consumed) = self.step(rest);
            if mapped != " " {
                break;
            }
            rest = &rest[consumed..];
        }
        let mut normal = String::new();
        if rest.is_empty() {
            return normal;
        }
        normal.reserve(rest.len() + rest.len() / 2);
        if self.prefix {
            normal.push_str(self.space);
        }
        self.map(rest, &mut normal);
        while self.squeeze && normal.ends_with(self.space) {
            normal.truncate(normal.len() - self.space.len());
        }
        if self.suffix {
            normal.push_str(self.space);
        }
        normal
    }

    fn map(&self, mut rest: &str, normal: &mut String) {
        let mut after_space = self.squeeze;
        while !rest.is_empty() {
            let plain = self.plain_run(rest);
            if plain > 0 {
                normal.push_str(&rest[..plain]);
                rest = &rest[plain..];
                after_space = false;
                continue;
            }
            let (mut mapped, consumed) = self.step(rest);
            if after_space {
                mapped = mapped.trim_start_matches(' ');
            }
            for (i, part) in mapped.split(' ').enumerate() {
                if i > 0 {
                    normal.push_str(self.space);
                }
                normal.push_str(part);
            }
            if !mapped.is_empty() {
                after_space = self.squeeze && mapped.ends_with(' ');
            }
            rest = &rest[consumed..];
        }
    }

    /// What the start of a non-empty text becomes, and how many bytes of the text that takes.
    fn step<'t>(&'t self, text: &'t str) -> (&'t str, usize) {
        if let Some((length, _)) = self.user_defined.longest(text) {
            return (&text[..length], length);
        }
        if let Some((length, replacement)) = self.charsmap.longest(text) {
            return (replacement, length);
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (&text[..length], length)
    }

    /// Bytes at the start of `text` that are copied unchanged. The last character before one that is not ASCII is not
    /// among them: an accent may follow, and the two be mapped together.
    fn plain_run(&self, text: &str) -> usize {
        let is_plain = |&byte: &u8| self.plain.get(usize::from(byte)).copied().unwrap_or(false);
        let run = text.bytes().take_while(|byte| is_plain(byte)).count();
        if text.as_bytes().get(run).is_some_and(|byte| !byte.is_ascii()) { run.saturating_sub(1) } else { run }
    }
}

/// Whether an ASCII character other than a space is always copied when another one or nothing follows it.
fn is_plain(byte: u8, charsmap: &Charsmap, user_defined: &PrefixMatcher) -> bool {
    if byte == b' ' || user_defined.starts_with(char::from(byte)) {
        return false;
    }
    match charsmap.root().and_then(|root| charsmap.step(root, byte)) {
        None => true,
        Some((_, Some(_))) => false,
        Some((node, None)) => (0..128).all(|next| charsmap.step(node, next).is_none()),
    }
}
