//! Text as it is made: whole characters only.

/// Puts characters together from the bytes of pieces, which may end within one.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    /// The start of a character, at most three bytes.
    pending: Vec<u8>,
}

impl TextStream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes of a piece and gives the characters that are whole now. Bytes that belong to none become
    /// U+FFFD, as [`String::from_utf8_lossy`] has it.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut whole = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            whole += chunk.valid().len();
            let rest = &self.pending[whole..];
            if rest.len() == chunk.invalid().len() && is_start(rest) {
                break;
            }
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
            whole += chunk.invalid().len();
        }
        self.pending.drain(..whole);
        text
    }

    /// Ends the text: a character that was not finished becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Whether more bytes can make a character of `bytes`.
fn is_start(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.valid_up_to() == 0 && error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_appears_when_it_is_whole() {
        let mut stream = TextStream::new();
        let bytes = "é🦀".as_bytes();
        let steps: Vec<String> = bytes.chunks(1).map(|b| stream.push(b)).collect();
        assert_eq!(steps, ["", "é", "", "", "", "🦀"]);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn wrong_bytes_are_marked_at_once_and_an_unfinished_character_at_the_end() {
        let mut stream = TextStream::new();
        assert_eq!(stream.push(b"a\xFFb\x80"), "a\u{FFFD}b\u{FFFD}");
        assert_eq!(stream.push(b"\xE2\x82"), "");
        assert_eq!(stream.push(b"x"), "\u{FFFD}x");
        assert_eq!(stream.push(b"\xF0\x9F"), "");
        assert_eq!(stream.finish(), "\u{FFFD}");
        assert_eq!(stream.finish(), "");
    }

    proptest! {
        #[test]
        fn any_split_of_any_bytes_is_the_lossy_text(
            text in ".{0,12}",
            noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cuts in proptest::collection::vec(1usize..4, 1..40),
        ) {
            let mut bytes = text.into_bytes();
            for (at, byte) in noise {
                let at = at.index(bytes.len() + 1);
                bytes.insert(at, byte);
            }
            let (mut stream, mut found, mut rest) = (TextStream::new(), String::new(), &bytes[..]);
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                found.push_str(&stream.push(piece));
                rest = after;
            }
            found.push_str(&stream.finish());
            prop_assert_eq!(found, String::from_utf8_lossy(&bytes));
        }
    }
}
