//! A `.model` file in few bytes, for the artifact.
//!
//! Nearly all of a small model is the character map, which this crate has built in, and most of the rest says what could
//! be guessed: that the next byte piece comes next, and that the next merge scores one less. What is left is texts.
//! Any bytes can be packed and come back exactly; only models of the usual kind get small. (Release 0.2.3 of the
//! official library lays the same map out in other bytes; a model trained by it keeps 96 KB of those.)
//!
//! Layout of a packed file, integers little endian:
//!
//! 1. u32: bytes of the `.model` file
//! 2. one brotli stream to the end, of:
//!    1. u32: where the built-in character map stands in the file, or 2³² − 1 where it does not. What follows is the file
//!       without it
//!    2. u32: the number `n` of pieces that are written as lines
//!    3. `n` lines, each ended by byte 10, for the pieces that the file starts with:
//!       - byte 6: the next byte piece, from `<0x00>` on, of type 6 with score 0
//!       - byte 2, a type below 128, a text: a piece of that type with score 0
//!       - byte 1, a text: a piece without a type, scored −k where k such pieces came before
//!       - else: the same, and the text starts with a `▁` that is left out here
//!    4. the rest of the file as it is
//!
//! A piece is written as a line only where the line gives its bytes back exactly, and the first that cannot be so written
//! ends the lines.

use std::io::{Read, Write};

use super::builtin;
use crate::{Error, Result};

const ABSENT: u32 = u32::MAX;
const LINE_END: u8 = b'\n';
const BARE: u8 = 1;
const TYPED: u8 = 2;
const NEXT_BYTE: u8 = 6;
const SPACE: &[u8] = "▁".as_bytes();

/// Packs the bytes of a `.model` file: small, deterministic, and exactly undone by [`unpack`].
///
/// # Panics
/// If `model` has 4 GiB or more.
pub fn pack(model: &[u8]) -> Vec<u8> {
    let size = u32::try_from(model.len()).expect("a model file below 4 GiB");
    let charsmap = builtin::charsmap();
    let at = find(model, charsmap);
    let rest = match at {
        Some(at) => [&model[..at], &model[at + charsmap.len()..]].concat(),
        None => model.to_vec(),
    };
    let mut body = at.map_or(ABSENT, |at| at as u32).to_le_bytes().to_vec();
    lines(&rest, &mut body);
    let mut packed = size.to_le_bytes().to_vec();
    let mut writer = brotli::CompressorWriter::new(&mut packed, 1 << 16, 11, 22);
    writer.write_all(&body).expect("writing to memory does not fail");
    drop(writer);
    packed
}

/// The `.model` file that was packed.
///
/// # Errors
/// [`Error::Layout`] where `packed` does not follow the layout, or the file has more than `cap` bytes.
pub fn unpack(packed: &[u8], cap: usize) -> Result<Vec<u8>> {
    let Some((size, stream)) = packed.split_first_chunk() else {
        return Err(damaged(0, "4 bytes of size", packed.len().to_string()));
    };
    let size = u32::from_le_bytes(*size) as usize;
    if size > cap {
        return Err(damaged(0, &format!("a model of at most {cap} bytes"), size.to_string()));
    }
    let body = decompress(stream, size)?;
    let mut reader = Reader { body: &body, position: 0 };
    let at = reader.u32("the place of the character map")?;
    let charsmap = if at == ABSENT { &[][..] } else { builtin::charsmap() };
    let room = size.checked_sub(charsmap.len());
    let room = room.ok_or_else(|| damaged(0, "a size that has room for the character map", size.to_string()))?;
    let rest = reader.model(room)?;
    let at = if at == ABSENT { 0 } else { at as usize };
    if rest.len() != room || at > rest.len() {
        let expected = format!("{room} bytes, the character map at one of them");
        return Err(damaged(4, &expected, format!("{} bytes, the map at {at}", rest.len())));
    }
    Ok([&rest[..at], charsmap, &rest[at..]].concat())
}

/// The first place of `needle` in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    // The map starts with its size; few places have those four bytes.
    bytes.windows(needle.len()).position(|window| window[..4] == needle[..4] && window == needle)
}

/// One piece as the wire has it, if it is of the usual form: text, score, and a type or none.
struct Record<'a> {
    text: &'a [u8],
    score: f32,
    kind: Option<u8>,
    len: usize,
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let [0x0A, inner, 0x0A, n, rest @ ..] = bytes else { return None };
        let text = rest.get(..usize::from(*n))?;
        let [0x15, a, b, c, d, after @ ..] = &rest[text.len()..] else { return None };
        let kind = if usize::from(*inner) == text.len() + 9 {
            let [0x18, kind, ..] = after else { return None };
            Some(*kind)
        } else {
            None
        };
        let record = Self { text, score: f32::from_le_bytes([*a, *b, *c, *d]), kind, len: 2 + usize::from(*inner) };
        // The one-byte lengths and types are those that `write` gives.
        let mut again = Vec::with_capacity(record.len);
        write_record(record.text, record.score, record.kind, &mut again)?;
        bytes.starts_with(&again).then_some(record)
    }
}

/// Appends a piece as the wire has it, unless one of its lengths does not fit a byte.
fn write_record(text: &[u8], score: f32, kind: Option<u8>, out: &mut Vec<u8>) -> Option<()> {
    let inner = u8::try_from(text.len() + if kind.is_some() { 9 } else { 7 }).ok().filter(|&n| n < 128)?;
    out.extend([0x0A, inner, 0x0A, text.len() as u8]);
    out.extend(text);
    out.push(0x15);
    out.extend(score.to_bits().to_le_bytes());
    out.extend(kind.filter(|&kind| kind < 128).into_iter().flat_map(|kind| [0x18, kind]));
    kind.is_none_or(|kind| kind < 128).then_some(())
}

/// What the next piece would be: the state that both sides keep.
#[derive(Default)]
struct Guess {
    bytes: u32,
    merges: u32,
}

impl Guess {
    fn byte_piece(&self) -> Vec<u8> {
        format!("<0x{:02X}>", self.bytes).into_bytes()
    }

    fn score(&self) -> f32 {
        -(self.merges as f32)
    }

    /// The piece of a line: text, score and type.
    fn piece(&mut self, line: &[u8]) -> Option<(Vec<u8>, f32, Option<u8>)> {
        Some(match line {
            [NEXT_BYTE] => {
                let text = self.byte_piece();
                self.bytes += 1;
                (text, 0.0, Some(6))
            }
            [TYPED, kind, text @ ..] => (text.to_vec(), 0.0, Some(*kind)),
            [TYPED | NEXT_BYTE, ..] => return None,
            _ => {
                let text = match line {
                    [BARE, text @ ..] => text.to_vec(),
                    text => [SPACE, text].concat(),
                };
                let score = self.score();
                self.merges += 1;
                (text, score, None)
            }
        })
    }

    /// The line of a piece, if there is one that gives it back.
    fn line(&mut self, record: &Record<'_>) -> Option<Vec<u8>> {
        let line = match (record.kind, record.text) {
            (Some(6), text) if text == self.byte_piece() => vec![NEXT_BYTE],
            (Some(kind), text) => [&[TYPED, kind], text].concat(),
            (None, text) => match text.strip_prefix(SPACE) {
                Some(word) => word.to_vec(),
                None => [&[BARE], text].concat(),
            },
        };
        let (text, score, kind) = self.piece(&line)?;
        let exact = text == record.text && score.to_bits() == record.score.to_bits() && kind == record.kind;
        (exact && !line.contains(&LINE_END)).then_some(line)
    }
}

/// Appends the number of lines, the lines and the rest.
fn lines(model: &[u8], body: &mut Vec<u8>) {
    let (mut guess, mut count, mut position, mut text) = (Guess::default(), 0u32, 0, Vec::new());
    while let Some(record) = Record::read(&model[position..]) {
        let Some(line) = guess.line(&record) else { break };
        text.extend(line);
        text.push(LINE_END);
        position += record.len;
        count += 1;
    }
    body.extend(count.to_le_bytes());
    body.extend(text);
    body.extend(&model[position..]);
}

/// Reads the body of the layout.
struct Reader<'a> {
    body: &'a [u8],
    position: usize,
}

impl Reader<'_> {
    fn damaged(&self, expected: &str, found: String) -> Error {
        let what = "packed tokenizer, decompressed,";
        Error::Layout { what, offset: self.position as u64, expected: expected.into(), found }
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        let rest = &self.body[self.position..];
        let bytes = rest.first_chunk().ok_or_else(|| self.damaged(what, format!("{} bytes", rest.len())))?;
        self.position += 4;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// The file without its character map, of at most `room` bytes.
    fn model(&mut self, room: usize) -> Result<Vec<u8>> {
        let count = self.u32("the number of lines")?;
        let mut model = Vec::new();
        let mut guess = Guess::default();
        for _ in 0..count {
            let rest = &self.body[self.position..];
            let line = rest.iter().position(|&byte| byte == LINE_END).map(|end| &rest[..end]);
            let line = line.ok_or_else(|| self.damaged("a line of a piece", "the end".into()))?;
            let piece = guess.piece(line);
            let written = piece.and_then(|(text, score, kind)| write_record(&text, score, kind, &mut model));
            written.ok_or_else(|| self.damaged("a piece", format!("{} bytes of another kind", line.len())))?;
            if model.len() > room {
                break;
            }
            self.position += line.len() + 1;
        }
        model.extend(&self.body[self.position..]);
        Ok(model)
    }
}

/// The body, which is at most 8 bytes longer than the file: every line is shorter than its piece.
fn decompress(stream: &[u8], size: usize) -> Result<Vec<u8>> {
    let limit = size as u64 + 8;
    let mut body = Vec::new();
    let reader = brotli::Decompressor::new(stream, 1 << 12);
    let read = reader.take(limit + 1).read_to_end(&mut body);
    match read {
        Ok(_) if body.len() as u64 <= limit => Ok(body),
        Ok(_) => Err(damaged(4, &format!("a body of at most {limit} bytes"), "more".into())),
        Err(e) => Err(damaged(4, "a brotli stream", e.to_string())),
    }
}

fn damaged(offset: u64, expected: &str, found: String) -> Error {
    Error::Layout { what: "packed tokenizer", offset, expected: expected.into(), found }
}
