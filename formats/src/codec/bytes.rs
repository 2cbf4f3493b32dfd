//! Bytes of any kind by the binary coder: their number as a u32, little-endian, then each of them in the context of the
//! one before, bits from the top down.

use super::binary::{Bit, Decoder, Encoder};

/// Contexts of a byte: the byte before it, and the bits above with a leading 1.
fn contexts() -> Vec<Bit> {
    vec![Bit::NEW; 256 << 8]
}

pub(super) fn encode(raw: &[u8]) -> Vec<u8> {
    let (mut encoder, mut contexts, mut before) = (Encoder::new(), contexts(), 0);
    for &byte in raw {
        let mut node = 1;
        for at in (0..8).rev() {
            let bit = byte >> at & 1 == 1;
            encoder.bit(&mut contexts[usize::from(before) << 8 | node], bit);
            node = node << 1 | usize::from(bit);
        }
        before = byte;
    }
    let length = u32::try_from(raw.len()).expect("streams are below 4 GiB");
    [&length.to_le_bytes()[..], &encoder.finish()].concat()
}

/// The `len` bytes that `coded` holds, or what was found instead.
pub(super) fn decode(coded: &[u8], len: usize) -> Result<Vec<u8>, String> {
    let Some((found, coded)) = coded.split_first_chunk() else { return Err(format!("{} bytes", coded.len())) };
    let found = u32::from_le_bytes(*found);
    if usize::try_from(found) != Ok(len) {
        return Err(format!("{found} bytes"));
    }
    if len > super::most_values(coded.len()) {
        return Err(format!("{} coded bytes, too few", coded.len()));
    }
    let (mut decoder, mut contexts, mut before) = (Decoder::new(coded), contexts(), 0);
    let mut raw = Vec::with_capacity(len);
    for _ in 0..len {
        let mut node = 1;
        while node < 256 {
            node = node << 1 | usize::from(decoder.bit(&mut contexts[usize::from(before) << 8 | node]));
        }
        before = node as u8;
        raw.push(before);
    }
    decoder.check()?;
    Ok(raw)
}
