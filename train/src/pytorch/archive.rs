//! The zip archive of a `.pt` file: stored entries by name, read from the central directory.
//!
//! End record (22 bytes, then a comment): 0 `PK\5\6`; 10 u16 number of entries; 12 u32 size and 16 u32 offset of the
//! directory; 20 u16 length of the comment. Directory entry (46 bytes, then name, extra field, comment): 0 `PK\1\2`;
//! 10 u16 method (0: stored); 20 u32 and 24 u32 size packed and unpacked; 28, 30, 32 u16 lengths; 42 u32 offset of the
//! local header. Local header (30 bytes, then name, extra field, data): 0 `PK\3\4`; 26, 28 u16 lengths.

use std::collections::BTreeMap;

use sixpack_formats::Result;

use super::wrong;

/// The entries of an archive by their name without the leading folder.
pub(super) struct Archive<'a> {
    entries: BTreeMap<&'a str, &'a [u8]>,
}

const END: usize = 22;
const MAX_COMMENT: usize = 65_535;

impl<'a> Archive<'a> {
    pub(super) fn parse(file: &'a [u8]) -> Result<Self> {
        let end = find_end(file)?;
        let count = short(file, end + 10)?;
        let mut at = long(file, end + 16)?;
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            expect(file, at, b"PK\x01\x02", "directory entry")?;
            let (method, packed, size) = (short(file, at + 10)?, long(file, at + 20)?, long(file, at + 24)?);
            let (name_len, extra, comment) = (short(file, at + 28)?, short(file, at + 30)?, short(file, at + 32)?);
            let name = std::str::from_utf8(slice(file, at + 46, name_len)?)
                .map_err(|_| wrong("zip entry's name", at + 46, "UTF-8", "other bytes"))?;
            if method != 0 || packed != size {
                let found = format!("`{name}` with compression method {method}");
                return Err(wrong("zip entry", at + 10, "an uncompressed entry, as torch.save writes", found));
            }
            let local = long(file, at + 42)?;
            expect(file, local, b"PK\x03\x04", "local header")?;
            let start = local + 30 + short(file, local + 26)? + short(file, local + 28)?;
            let data = slice(file, start, size)?;
            let inner = name.split_once('/').map_or(name, |(_, inner)| inner);
            if entries.insert(inner, data).is_some() {
                return Err(wrong("zip directory", at, "one entry of each name", format!("a second `{name}`")));
            }
            at += 46 + name_len + extra + comment;
        }
        Ok(Self { entries })
    }

    pub(super) fn get(&self, name: &str) -> Result<&'a [u8]> {
        match self.entries.get(name) {
            Some(data) => Ok(data),
            None => {
                let found = format!("{} other entries", self.entries.len());
                Err(wrong("zip directory", 0, format!("an entry `{name}`"), found))
            }
        }
    }
}

/// Where the end record is: the last place that looks like one and whose comment ends with the file.
fn find_end(file: &[u8]) -> Result<usize> {
    let last = file.len().checked_sub(END);
    let first = file.len().saturating_sub(END + MAX_COMMENT);
    let found = last.into_iter().flat_map(|last| (first..=last).rev()).find(|&at| {
        file[at..].starts_with(b"PK\x05\x06") && short(file, at + 20).is_ok_and(|len| at + END + len == file.len())
    });
    let legacy = "no zip end record (is it a .pt file of PyTorch 1.5 or older?)";
    found.ok_or_else(|| wrong("PyTorch file", file.len(), "a zip archive", legacy))
}

fn expect(file: &[u8], at: usize, signature: &[u8; 4], what: &'static str) -> Result<()> {
    let found = slice(file, at, 4)?;
    if found == signature { Ok(()) } else { Err(wrong(what, at, format!("{signature:02x?}"), format!("{found:02x?}"))) }
}

fn slice(file: &[u8], at: usize, len: usize) -> Result<&[u8]> {
    let bytes = at.checked_add(len).and_then(|end| file.get(at..end));
    bytes.ok_or_else(|| wrong("zip archive", at, format!("{len} bytes"), format!("a file of {} bytes", file.len())))
}

fn short(file: &[u8], at: usize) -> Result<usize> {
    let raw = slice(file, at, 2)?;
    Ok(usize::from(u16::from_le_bytes([raw[0], raw[1]])))
}

fn long(file: &[u8], at: usize) -> Result<usize> {
    let raw = slice(file, at, 4)?;
    let value = u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
    if value == u32::MAX {
        return Err(wrong("zip archive", at, "sizes below 4 GB", "a zip64 archive"));
    }
    Ok(value as usize)
}
