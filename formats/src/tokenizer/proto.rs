//! The protocol-buffer wire format, as far as SentencePiece models use it: a bounded reader and a writer.

use crate::{Error, Result};

/// What errors call the input.
pub(super) const WHAT: &str = "tokenizer model";

/// One field of a message.
pub(super) struct Field<'a> {
    /// The number of the field in its message.
    pub(super) number: u32,
    /// Where the field starts in the whole file.
    pub(super) offset: usize,
    value: Value<'a>,
}

enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes { at: usize, bytes: &'a [u8] },
    Fixed32(u32),
}

/// Reads the fields of a message one after another. Fields of unknown numbers are given like any other, for the caller
/// to pass over; groups, which SentencePiece never had, are an error.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    position: usize,
    start: usize,
}

impl<'a> Fields<'a> {
    /// The fields of a whole file.
    pub(super) fn of_file(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, start: 0 }
    }

    /// The next field, or `None` at the end of the message.
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>> {
        if self.position == self.bytes.len() {
            return Ok(None);
        }
        let offset = self.start + self.position;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(u32::MAX);
        if number == 0 || number >= 1 << 29 {
            return Err(wrong(offset, "a field number from 1 to 536870911", format!("{}", tag >> 3)));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                let at = self.start + self.position;
                Value::Bytes { at, bytes: self.take(length)? }
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            other => return Err(wrong(offset, "wire type 0, 1, 2 or 5", format!("{other}"))),
        };
        Ok(Some(Field { number, offset, value }))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        let taken = usize::try_from(length).ok().and_then(|n| rest.get(..n)).ok_or_else(|| {
            wrong(self.start + self.position, &format!("{length} bytes"), format!("{} left", rest.len()))
        })?;
        self.position += taken.len();
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64> {
        let offset = self.start + self.position;
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            // The tenth byte holds one bit; protocol buffers drop the rest of it.
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(wrong(offset, "a varint of at most 10 bytes", "a longer one".into()))
    }
}

impl<'a> Field<'a> {
    /// A signed or enumerated number; protocol buffers keep its low 32 bits.
    pub(super) fn int(&self) -> Result<i32> {
        match self.value {
            Value::Varint(value) => Ok(value as i32),
            _ => Err(self.mistyped("a varint")),
        }
    }

    /// A truth value.
    pub(super) fn bool(&self) -> Result<bool> {
        match self.value {
            Value::Varint(value) => Ok(value != 0),
            _ => Err(self.mistyped("a varint")),
        }
    }

    /// A 32-bit float.
    pub(super) fn float(&self) -> Result<f32> {
        match self.value {
            Value::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(self.mistyped("a 32-bit number")),
        }
    }

    /// Raw bytes.
    pub(super) fn bytes(&self) -> Result<&'a [u8]> {
        match self.value {
            Value::Bytes { bytes, .. } => Ok(bytes),
            _ => Err(self.mistyped("a length-delimited value")),
        }
    }

    /// A string.
    pub(super) fn text(&self) -> Result<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|e| wrong(self.offset, "UTF-8 text", e.to_string()))
    }

    /// The fields of a message inside this one.
    pub(super) fn message(&self) -> Result<Fields<'a>> {
        match self.value {
            Value::Bytes { at, bytes } => Ok(Fields { bytes, position: 0, start: at }),
            _ => Err(self.mistyped("a message")),
        }
    }

    fn mistyped(&self, expected: &str) -> Error {
        let found = match self.value {
            Value::Varint(_) => "a varint",
            Value::Fixed64 => "a 64-bit number",
            Value::Bytes { .. } => "a length-delimited value",
            Value::Fixed32(_) => "a 32-bit number",
        };
        wrong(self.offset, &format!("{expected} in field {}", self.number), found.into())
    }
}

/// An error of the layout, at a byte of the file.
pub(super) fn wrong(offset: usize, expected: &str, found: String) -> Error {
    Error::Layout { what: WHAT, offset: offset as u64, expected: expected.into(), found }
}
