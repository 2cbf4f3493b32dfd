//! `val.hashes`: the content hashes of the validation documents, so that text tokenised later can be checked too.
//!
//! Byte layout, little-endian:
//!
//! 1. bytes 0–7: magic `6pkhash\n`;
//! 2. bytes 8–15: number of hashes `n`, a u64;
//! 3. bytes 16 to 16 + 8n: the hashes, a u64 each, increasing; nothing after them.

use std::collections::HashSet;

use crate::{Digest, Error, Result};

const MAGIC: [u8; 8] = *b"6pkhash\n";
const HEADER: usize = 16;

/// The hash by which documents are told apart: 64 bits of the BLAKE3 hash of their text, before any normalisation.
pub fn content_hash(text: &str) -> u64 {
    Digest::of(text.as_bytes()).short()
}

/// The content of the file.
pub(super) fn encode(hashes: &HashSet<u64>) -> Vec<u8> {
    let mut sorted: Vec<u64> = hashes.iter().copied().collect();
    sorted.sort_unstable();
    let mut bytes = MAGIC.to_vec();
    bytes.extend((sorted.len() as u64).to_le_bytes());
    bytes.extend(sorted.iter().flat_map(|hash| hash.to_le_bytes()));
    bytes
}

/// The hashes in a file.
pub(super) fn parse(bytes: &[u8]) -> Result<HashSet<u64>> {
    let fail = |offset: usize, expected: String, found: String| {
        Err(Error::Layout { what: "validation hashes", offset: offset as u64, expected, found })
    };
    let Some(header) = bytes.first_chunk::<HEADER>().filter(|header| header.starts_with(&MAGIC)) else {
        return fail(
            0,
            format!("magic {MAGIC:02x?} and a number"),
            format!("{:02x?}", &bytes[..bytes.len().min(HEADER)]),
        );
    };
    let n = u64::from_le_bytes(std::array::from_fn(|i| header[8 + i]));
    let (hashes, rest) = bytes[HEADER..].as_chunks();
    if hashes.len() as u64 != n || !rest.is_empty() {
        return fail(8, format!("{n} hashes of 8 bytes"), format!("{} bytes", bytes.len() - HEADER));
    }
    let hashes: Vec<u64> = hashes.iter().map(|&hash| u64::from_le_bytes(hash)).collect();
    if let Some(at) = hashes.windows(2).position(|pair| pair[0] >= pair[1]) {
        let expected = format!("a hash above {:016x}", hashes[at]);
        return fail(HEADER + 8 * (at + 1), expected, format!("{:016x}", hashes[at + 1]));
    }
    Ok(hashes.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for hashes in [HashSet::new(), HashSet::from([5]), HashSet::from([u64::MAX, 0, 77])] {
            assert_eq!(parse(&encode(&hashes)).unwrap(), hashes);
        }
        assert_ne!(content_hash("a"), content_hash("a "));
    }

    #[test]
    fn every_way_the_file_can_lie() {
        let good = encode(&HashSet::from([1, 2]));
        let message = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        assert!(message(b"6pkhash").contains("validation hashes at byte 0: expected magic"));
        assert!(message(&[0; 40]).contains("at byte 0"));
        assert!(message(&good[..31]).contains("at byte 8: expected 2 hashes of 8 bytes, found 15 bytes"));
        assert!(message(&[&good[..], &[0; 8]].concat()).contains("found 24 bytes"));
        let mut bad = good.clone();
        bad[16] = 2;
        assert!(message(&bad).contains("at byte 24: expected a hash above 0000000000000002, found 0000000000000002"));
    }

    #[test]
    fn any_bytes_are_taken_or_refused() {
        use proptest::prelude::*;
        let good = encode(&(0..20).collect());
        let config = ProptestConfig { cases: 100_000, failure_persistence: None, ..ProptestConfig::default() };
        let change = (0..good.len(), any::<u8>(), 0..=good.len());
        proptest!(config, |((at, byte, len) in change)| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes.truncate(len);
            if let Ok(hashes) = parse(&bytes) {
                prop_assert_eq!(16 + 8 * hashes.len(), len);
            }
        });
    }
}
