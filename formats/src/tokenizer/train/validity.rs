//! Which strings may be pieces.

use unicode_script::{Script, UnicodeScript};

use crate::tokenizer::normalize::SPACE;

/// Whether `piece` keeps the rules of the official trainer: at most `max_chars` characters, a space at the start only,
/// digits alone, and letters of one script (punctuation is a script of its own; Han, Hiragana and Katakana are one).
pub(super) fn is_valid(piece: &str, max_chars: usize) -> bool {
    let length = piece.chars().count();
    let mut previous = None;
    for (at, c) in piece.chars().enumerate() {
        if c == SPACE {
            if at > 0 {
                return false;
            }
            continue;
        }
        if c == '\0' || is_digit(c) && length > 1 {
            return false;
        }
        let script = script(c).or(previous);
        if previous.is_some() && script != previous {
            return false;
        }
        previous = script;
    }
    (1..=max_chars).contains(&length)
}

/// The decimal digits that the official trainer splits: ASCII and full-width ones.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || ('０'..='９').contains(&c)
}

/// The script of a character; `None` where it takes that of the character before, as accents do.
fn script(c: char) -> Option<Script> {
    match c.script() {
        Script::Inherited => None,
        // U+30FC, the long vowel of Katakana, has no script of its own.
        Script::Hiragana | Script::Katakana => Some(Script::Han),
        _ if c == 'ー' => Some(Script::Han),
        Script::Unknown => Some(Script::Common),
        script => Some(script),
    }
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn pieces_keep_to_one_script_and_digits_stand_alone() {
        for good in ["▁the", "▁", "7", "ー", "漢かカー", "e\u{301}a", "▁“", "...", "\u{301}a"] {
            assert!(is_valid(good, 16), "{good}");
        }
        for bad in ["", "a▁", "▁▁", "▁7", "77", "aя", "a.", "a漢", "０１", "a\0", "seventeen letters"] {
            assert!(!is_valid(bad, 16), "{bad}");
        }
    }
}
