//! Read-only memory maps: the only unsafe code of this crate.
#![allow(unsafe_code, reason = "mapping a file is unsafe by nature; the note at the call says what is relied on")]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

/// The bytes of a file, mapped read-only and aligned to a page.
///
/// The file must not be changed or cut while it is mapped: on most systems touching a page past a new end stops the
/// program. The writers of this crate keep to that, because they replace files and never change one in place.
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps the whole file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        // SAFETY: the map is private to this value, is only ever read, and is given out as plain bytes for which every
        // bit pattern is valid. That no one cuts or changes the file meanwhile is the documented duty of the caller.
        let map = unsafe { Mmap::map(&file) };
        map.map(Self).map_err(Error::io(path, "map"))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
