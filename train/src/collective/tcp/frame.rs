//! What goes over a connection: frames of a kind, a number and a body.
//!
//! ```text
//! offset  size
//! 0       1     kind
//! 1       8     number: of the operation, or a rank; little-endian
//! 9       8     length of the body in bytes, little-endian
//! 17      n     body
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

const HEADER: usize = 17;

/// Longer bodies are refused unread.
const MAX_BODY: u64 = 1 << 34;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A rank's first word: its number, and what it takes the run for.
    Hello = 1,
    /// The answer, once all ranks are there.
    Welcome = 2,
    /// Nothing but a sign of life.
    Beat = 3,
    /// A rank's part of a sum: f32, little-endian.
    Sum = 4,
    /// A rank's part of what is to be given to all.
    Gather = 5,
    /// The result of an operation.
    Result = 6,
    /// This rank ends, and why.
    Leave = 7,
    /// The rank of this number was lost, and why.
    Lost = 8,
}

const KINDS: [Kind; 8] =
    [Kind::Hello, Kind::Welcome, Kind::Beat, Kind::Sum, Kind::Gather, Kind::Result, Kind::Leave, Kind::Lost];

/// One message.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) number: u64,
    /// Shared, as a result goes to every rank.
    pub(super) body: Arc<Vec<u8>>,
}

impl Frame {
    pub(super) fn new(kind: Kind, number: u64, body: Vec<u8>) -> Self {
        Self { kind, number, body: Arc::new(body) }
    }

    /// A frame whose body is text.
    pub(super) fn text(kind: Kind, number: u64, text: &str) -> Self {
        Self::new(kind, number, text.as_bytes().to_vec())
    }

    /// The body as text.
    pub(super) fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut header = [0; HEADER];
        header[0] = self.kind as u8;
        header[1..9].copy_from_slice(&self.number.to_le_bytes());
        header[9..].copy_from_slice(&(self.body.len() as u64).to_le_bytes());
        to.write_all(&header)?;
        to.write_all(&self.body)
    }

    /// Reads a frame with a body of at most `most` bytes.
    pub(super) fn read_up_to(from: &mut impl Read, most: u64) -> io::Result<Self> {
        let mut header = [0; HEADER];
        from.read_exact(&mut header)?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let invalid = |what| Err(io::Error::new(ErrorKind::InvalidData, what));
        let Some(&kind) = KINDS.iter().find(|&&kind| kind as u8 == header[0]) else {
            return invalid("it sent a frame of no known kind");
        };
        let length = number(9);
        if length > most {
            return invalid("it sent a frame that is too long");
        }
        // Grows as bytes come, whatever the header promises.
        let mut body = Vec::new();
        from.take(length).read_to_end(&mut body)?;
        if (body.len() as u64) < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(Self::new(kind, number(1), body))
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        Self::read_up_to(from, MAX_BODY)
    }
}

/// Numbers as they travel.
pub(super) fn to_bytes(numbers: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; 4 * numbers.len()];
    for (bytes, x) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *bytes = x.to_le_bytes();
    }
    bytes
}

/// The numbers that travelled as these bytes, if they are whole.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<Vec<f32>> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| numbers.iter().map(|&x| f32::from_le_bytes(x)).collect())
}

/// Several bodies as one.
pub(super) fn join<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut joined = Vec::new();
    for part in parts {
        joined.extend((part.len() as u64).to_le_bytes());
        joined.extend(part);
    }
    joined
}

/// The bodies that were joined; `None` if these bytes are not some.
pub(super) fn split(mut joined: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    while !joined.is_empty() {
        let (length, rest) = joined.split_first_chunk::<8>()?;
        let (part, rest) = rest.split_at_checked(u64::from_le_bytes(*length).try_into().ok()?)?;
        parts.push(part);
        joined = rest;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_parts_go_round() {
        for length in [0usize, 1, 7, 100_000] {
            let mut wire = Vec::new();
            Frame::new(Kind::Sum, 3, vec![7; length]).write(&mut wire).unwrap();
            let frame = Frame::read(&mut wire.as_slice()).unwrap();
            assert_eq!((frame.kind, frame.number, frame.body.len()), (Kind::Sum, 3, length));
        }
        let parts: [&[u8]; 3] = [b"", b"abc", b""];
        assert_eq!(split(&join(parts.into_iter())).unwrap(), parts);
        let numbers = [1.5, f32::NEG_INFINITY, -0.0];
        assert_eq!(from_bytes(&to_bytes(&numbers)).unwrap(), numbers);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut wire = Vec::new();
        Frame::new(Kind::Sum, 3, vec![7; 9]).write(&mut wire).unwrap();
        let read = |wire: &[u8]| Frame::read_up_to(&mut &*wire, 100).unwrap_err();
        assert_eq!(read(&wire[..20]).kind(), ErrorKind::UnexpectedEof);
        let change = |at: usize| {
            let mut wire = wire.clone();
            wire[at] = 99;
            wire
        };
        assert!(read(&change(0)).to_string().contains("no known kind"));
        assert!(read(&change(16)).to_string().contains("too long"));
        assert!(split(&[1, 0, 0]).is_none() && split(&[9, 0, 0, 0, 0, 0, 0, 0, 1]).is_none());
        assert!(from_bytes(&[0; 7]).is_none());
    }
}
