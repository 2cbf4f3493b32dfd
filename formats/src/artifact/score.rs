//! The slot of the measured score: written empty, filled once the file was re-read and evaluated.

use std::path::Path;

use super::container::{self, HEADER, Kind, ROW};
use crate::{Codec, Digest, Error, Result, Score, atomic};

/// Bytes of the slot.
pub(super) const SLOT: usize = 25;

const MEASURED: u8 = 1;
const HAS_BITS_PER_BYTE: u8 = 2;

/// The slot's content.
pub(super) fn slot(score: Option<&Score>) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    if let Some(score) = score {
        slot[0] = MEASURED | if score.bits_per_byte.is_some() { HAS_BITS_PER_BYTE } else { 0 };
        slot[1..9].copy_from_slice(&score.bytes.to_le_bytes());
        slot[9..17].copy_from_slice(&score.nats_per_token.to_le_bytes());
        slot[17..25].copy_from_slice(&score.bits_per_byte.unwrap_or(0.0).to_le_bytes());
    }
    slot
}

/// The score in a slot of a file of `size` bytes.
pub(super) fn parse(slot: &[u8], size: u64) -> Result<Option<Score>> {
    let fail = |expected: String, found: String| Err(Error::Stream { stream: "score".into(), expected, found });
    let Ok(slot) = <&[u8; SLOT]>::try_from(slot) else {
        return fail(format!("{SLOT} bytes"), format!("{} bytes", slot.len()));
    };
    let eight = |at: usize| std::array::from_fn(|i| slot[at + i]);
    let bits_per_byte = match slot[0] {
        0 if slot[1..].iter().all(|&byte| byte == 0) => return Ok(None),
        0 => return fail("zeros in a slot without a score".into(), "other bytes".into()),
        MEASURED => None,
        3 => Some(f64::from_le_bytes(eight(17))),
        flags => return fail("flags 0, 1 or 3".into(), flags.to_string()),
    };
    let score =
        Score { bytes: u64::from_le_bytes(eight(1)), nats_per_token: f64::from_le_bytes(eight(9)), bits_per_byte };
    check(&score, size)?;
    if self::slot(Some(&score)) != *slot {
        return fail("zeros in place of the bits per byte it does not have".into(), "other bytes".into());
    }
    Ok(Some(score))
}

/// Records the score measured on the artifact `path` in it, atomically: the file keeps its size, and nothing but the
/// slot and the checksums over it changes.
///
/// # Errors
/// A file that is no artifact or has no slot; a score of a file of another size; a figure that is not finite.
pub fn set_score(path: impl AsRef<Path>, score: &Score) -> Result<()> {
    let path = path.as_ref();
    let mut file = std::fs::read(path).map_err(Error::io(path, "read"))?;
    replace(&mut file, score).map_err(Error::in_file(path))?;
    atomic::write(path, &file)
}

fn replace(file: &mut [u8], score: &Score) -> Result<()> {
    check(score, file.len() as u64)?;
    let sections = container::parse(file)?;
    let n = sections.len();
    let row = sections.iter().position(|s| s.kind == Some(Kind::Score));
    let found = row.map(|row| (row, &sections[row]));
    let Some((row, section)) = found.filter(|(_, s)| s.codec == Codec::Stored.id() && s.coded.len() == SLOT) else {
        let found = "none".to_owned();
        return Err(Error::Stream {
            stream: "score".into(),
            expected: format!("a stored slot of {SLOT} bytes"),
            found,
        });
    };
    let (slot, at) = (slot(Some(score)), section.offset);
    file[at..at + SLOT].copy_from_slice(&slot);
    let checksum = HEADER + ROW * row + 20;
    file[checksum..checksum + 8].copy_from_slice(&Digest::of(&slot).short().to_le_bytes());
    container::seal(file, n);
    Ok(())
}

fn check(score: &Score, size: u64) -> Result<()> {
    let fail = |expected: String, found: String| Err(Error::Stream { stream: "score".into(), expected, found });
    if score.bytes != size {
        return fail(format!("the score of this file of {size} bytes"), format!("one of {} bytes", score.bytes));
    }
    match [Some(score.nats_per_token), score.bits_per_byte].into_iter().flatten().find(|x| !x.is_finite()) {
        Some(x) => fail("finite figures".into(), x.to_string()),
        None => Ok(()),
    }
}
