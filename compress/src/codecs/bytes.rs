//! Codecs of bytes, and a matrix codec made of one and a layout.

use sixpack_formats::QuantizedMatrix;

use super::symbols::{self, wrong};
use super::{Layout, MatrixCodec};
use crate::Result;

/// A lossless codec of bytes.
pub trait ByteCodec: Send + Sync {
    /// Its name with its effort: "brotli-11".
    fn name(&self) -> String;

    /// Codes bytes. The same bytes always give the same result.
    fn encode(&self, raw: &[u8]) -> Vec<u8>;

    /// Undoes [`ByteCodec::encode`] for `len` bytes.
    ///
    /// # Errors
    /// A stream that does not give `len` bytes; it never allocates much more than `len`.
    fn decode(&self, coded: &[u8], len: usize) -> Result<Vec<u8>>;
}

/// A byte codec behind a layout. Its stream is the number of bytes laid out, as a [`varint`], and what the codec makes of
/// them.
pub struct Laid<C> {
    /// Codes the bytes.
    pub codec: C,
    /// Makes bytes of codes.
    pub layout: Layout,
}

impl<C: ByteCodec> MatrixCodec for Laid<C> {
    fn name(&self) -> String {
        self.codec.name()
    }

    fn layout(&self) -> Option<Layout> {
        Some(self.layout)
    }

    fn encode(&self, matrices: &[&QuantizedMatrix]) -> Result<Vec<u8>> {
        let symbols = matrices.iter().map(|&m| Ok((m, symbols::of(m)?))).collect::<Result<Vec<_>>>()?;
        let raw = self.layout.lay(&symbols);
        let mut stream = Vec::new();
        varint(raw.len(), &mut stream);
        stream.extend(self.codec.encode(&raw));
        Ok(stream)
    }

    fn decode(&self, coded: &[u8], outlines: &[QuantizedMatrix]) -> Result<Vec<Vec<i8>>> {
        let name = self.full_name();
        let mut rest = coded;
        let most = self.layout.most(outlines);
        let len = read_varint(&mut rest).filter(|&len| len <= most);
        let len = len.ok_or_else(|| wrong(&name, format!("a length of at most {most} bytes"), "another"))?;
        let raw = self.codec.decode(rest, len)?;
        let laid = self.layout.read(raw, outlines);
        let laid = laid.map_err(|found| wrong(&name, format!("the codes of {} matrices", outlines.len()), found))?;
        laid.into_iter().zip(outlines).map(|(s, outline)| symbols::into_codes(&name, outline, s)).collect()
    }
}

/// Appends a number, seven bits a byte from the lowest on, the high bit set on all but the last.
pub(super) fn varint(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes a number that [`varint`] wrote off the front; none if there is none of at most 32 bits.
pub(super) fn read_varint(rest: &mut &[u8]) -> Option<usize> {
    let mut n = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, others) = rest.split_first()?;
        *rest = others;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(n).ok().map(|n| n as usize);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for n in [0, 1, 127, 128, 300, 1 << 20, u32::MAX as usize] {
            let mut bytes = Vec::new();
            varint(n, &mut bytes);
            bytes.push(7);
            let mut rest = &bytes[..];
            assert_eq!(read_varint(&mut rest), Some(n));
            assert_eq!(rest, [7]);
        }
        for malformed in [&[][..], &[0x80], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0x80; 9]] {
            assert_eq!(read_varint(&mut &malformed[..]), None, "{malformed:?}");
        }
    }
}
