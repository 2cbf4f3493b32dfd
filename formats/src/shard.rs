//! Token shards, byte-compatible with the `.bin` files of the reference (openai/parameter-golf).
//!
//! Byte layout, little-endian:
//!
//! 1. bytes 0–3: magic, the i32 20240520;
//! 2. bytes 4–7: version, the i32 1;
//! 3. bytes 8–11: number of tokens `n`, an i32 not below 0;
//! 4. bytes 12–1023: 253 more i32; written as 0, ignored when read;
//! 5. bytes 1024 to 1024 + 2n: the tokens, u16 each, and nothing after them.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::atomic::AtomicFile;
use crate::digest::Digest;
use crate::mapped::Mapped;
use crate::{Error, Result};

#[cfg(target_endian = "big")]
compile_error!("token shards are mapped as little-endian u16");

/// Bytes before the first token.
pub const HEADER: usize = 1024;
/// The largest number of tokens the header can state.
pub const MAX_TOKENS: usize = i32::MAX as usize;

const MAGIC: i32 = 20_240_520;
const VERSION: i32 = 1;

/// A token shard, memory-mapped.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: Mapped,
}

impl Shard {
    /// Maps a shard and checks its header against its size.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let map = Mapped::open(&path)?;
        parse(&map).map_err(Error::in_file(&path))?;
        Ok(Self { path, map })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens.
    pub fn tokens(&self) -> &[u16] {
        bytemuck::cast_slice(&self.map[HEADER..])
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        (self.map.len() - HEADER) / 2
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hash of the whole file.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.map)
    }

    /// Refuses a token that a vocabulary of `vocab_size` pieces does not have, naming where it stands.
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<()> {
        match self.tokens().iter().position(|&token| usize::from(token) >= vocab_size) {
            None => Ok(()),
            Some(at) => Err(Error::in_file(&self.path)(wrong(
                HEADER + 2 * at,
                format!("tokens below the vocabulary size {vocab_size}"),
                format!("token {}", self.tokens()[at]),
            ))),
        }
    }
}

/// The tokens of a shard in memory, without a copy.
///
/// # Errors
/// A header or size that does not follow the layout; `bytes` that do not start at an even address.
pub fn parse(bytes: &[u8]) -> Result<&[u16]> {
    if bytes.len() < HEADER {
        return Err(wrong(0, format!("a header of {HEADER} bytes"), format!("{} bytes", bytes.len())));
    }
    let field = |at: usize| i32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    if field(0) != MAGIC {
        return Err(wrong(0, format!("magic {MAGIC}"), field(0)));
    }
    if field(4) != VERSION {
        return Err(wrong(4, format!("version {VERSION}"), field(4)));
    }
    let Ok(tokens) = u64::try_from(field(8)) else {
        return Err(wrong(8, "a number of tokens from 0 on", field(8)));
    };
    let size = HEADER as u64 + 2 * tokens;
    if bytes.len() as u64 != size {
        let expected = format!("{size} bytes in all for {tokens} tokens");
        return Err(wrong(8, expected, format!("{} bytes", bytes.len())));
    }
    bytemuck::try_cast_slice(&bytes[HEADER..])
        .map_err(|_| wrong(HEADER, "tokens at an even address", "tokens at an odd address"))
}

/// Writes a shard, atomically.
pub fn write(path: impl AsRef<Path>, tokens: &[u16]) -> Result<()> {
    let mut writer = ShardWriter::create(path.as_ref())?;
    writer.push(tokens)?;
    writer.finish()?;
    Ok(())
}

/// A shard being written; it appears under its name when it is finished.
#[derive(Debug)]
pub struct ShardWriter {
    file: AtomicFile,
    tokens: usize,
}

impl ShardWriter {
    /// Starts a shard.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let mut file = AtomicFile::create(path)?;
        file.write_all(&[0; HEADER]).map_err(Error::io(file.target(), "write"))?;
        Ok(Self { file, tokens: 0 })
    }

    /// Number of tokens so far.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether there are no tokens yet.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Appends tokens.
    pub fn push(&mut self, tokens: &[u16]) -> Result<()> {
        if tokens.len() > MAX_TOKENS - self.tokens {
            let found = format!("{} more after {}", tokens.len(), self.tokens);
            let error = wrong(8, format!("at most {MAX_TOKENS} tokens in a shard"), found);
            return Err(Error::in_file(self.file.target())(error));
        }
        self.file.write_all(bytemuck::cast_slice(tokens)).map_err(Error::io(self.file.target(), "write"))?;
        self.tokens += tokens.len();
        Ok(())
    }

    /// Writes the header and gives the file its name. Returns the number of tokens.
    pub fn finish(mut self) -> Result<usize> {
        let mut header = [0; HEADER];
        for (at, value) in [(0, MAGIC), (4, VERSION), (8, self.tokens as i32)] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let target = self.file.target().to_owned();
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io(&target, "write"))?;
        self.file.write_all(&header).map_err(Error::io(&target, "write"))?;
        self.file.commit()?;
        Ok(self.tokens)
    }
}

fn wrong(offset: usize, expected: impl Into<String>, found: impl ToString) -> Error {
    let what = "token shard";
    Error::Layout { what, offset: offset as u64, expected: expected.into(), found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard of these tokens as bytes, written out by hand from the layout.
    fn bytes(tokens: &[u16]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(&[0x88, 0xd8, 0x34, 0x01]);
        bytes[4] = 1;
        bytes[8] = tokens.len() as u8;
        bytes.extend(tokens.iter().flat_map(|t| t.to_le_bytes()));
        bytes
    }

    fn message(bytes: &[u8]) -> String {
        parse(bytes).unwrap_err().to_string()
    }

    #[test]
    fn writes_the_layout_and_reads_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let tokens = [1, 0, 65_535, 4096, 7];
        write(&path, &tokens).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes(&tokens));
        let shard = Shard::open(&path).unwrap();
        assert_eq!(shard.tokens(), tokens);
        assert_eq!((shard.len(), shard.is_empty(), shard.path()), (5, false, path.as_path()));
        assert_eq!(shard.digest(), Digest::of(&bytes(&tokens)));
        assert_eq!(parse(&bytes(&tokens)).unwrap(), tokens);
    }

    #[test]
    fn a_writer_streams_and_an_unfinished_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let mut writer = ShardWriter::create(&path).unwrap();
        writer.push(&[1, 2]).unwrap();
        writer.push(&[3]).unwrap();
        assert_eq!(writer.finish().unwrap(), 3);
        assert_eq!(Shard::open(&path).unwrap().tokens(), [1, 2, 3]);
        let mut writer = ShardWriter::create(folder.path().join("b.bin")).unwrap();
        writer.push(&[1, 2]).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_empty_shard_is_a_shard() {
        assert_eq!(parse(&bytes(&[])).unwrap(), [0u16; 0]);
    }

    #[test]
    fn every_way_a_shard_can_lie() {
        let good = bytes(&[1, 2, 3]);
        assert_eq!(message(&good[..1000]), "token shard at byte 0: expected a header of 1024 bytes, found 1000 bytes");
        let mut bad = good.clone();
        bad[0] = 0;
        assert!(message(&bad).contains("at byte 0: expected magic 20240520, found 20240384"));
        let mut bad = good.clone();
        bad[4] = 2;
        assert!(message(&bad).contains("at byte 4: expected version 1, found 2"));
        let mut bad = good.clone();
        bad[11] = 0x80;
        assert!(message(&bad).contains("at byte 8: expected a number of tokens from 0 on, found -2147483645"));
        for cut in [good.len() - 1, good.len() - 2, HEADER] {
            let expected = format!("expected 1030 bytes in all for 3 tokens, found {cut} bytes");
            assert!(message(&good[..cut]).ends_with(&expected));
        }
        let mut long = good.clone();
        long.extend([0, 0]);
        assert!(message(&long).ends_with("expected 1030 bytes in all for 3 tokens, found 1032 bytes"));
        let shifted: Vec<u8> = [0].into_iter().chain(good).collect();
        assert!(message(&shifted[1..]).contains("tokens at an odd address"));
    }

    #[test]
    fn errors_of_a_file_name_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        std::fs::write(&path, b"hello").unwrap();
        let error = Shard::open(&path).unwrap_err().to_string();
        assert!(error.contains("a.bin: token shard at byte 0"), "{error}");
        let error = Shard::open(folder.path().join("b.bin")).unwrap_err().to_string();
        assert!(error.contains("b.bin: cannot open"), "{error}");
    }

    #[test]
    fn a_token_outside_the_vocabulary_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write(&path, &[1, 2, 9, 3]).unwrap();
        let shard = Shard::open(&path).unwrap();
        shard.check_vocabulary(10).unwrap();
        let error = shard.check_vocabulary(9).unwrap_err().to_string();
        assert!(error.contains("at byte 1028: expected tokens below the vocabulary size 9, found token 9"), "{error}");
    }
}
