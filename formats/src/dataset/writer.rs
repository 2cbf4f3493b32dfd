//! Documents into shards and a manifest.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::hashes;
use super::manifest::{HashesEntry, MANIFEST, Manifest, ShardEntry};
use super::{Dataset, Split};
use crate::shard::ShardWriter;
use crate::{Digest, Error, Result, atomic, shard};

/// Name of the file of validation hashes.
const HASHES: &str = "val.hashes";
/// Ending of shards until the dataset is complete.
const PARTIAL: &str = "partial";

/// Settings of a dataset to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetOptions {
    /// Pieces of the vocabulary, at most 65,536.
    pub vocab_size: usize,
    /// Hash of the tokenizer's `.model` file.
    pub tokenizer: Digest,
    /// The token put before each document.
    pub bos_id: u32,
    /// A shard is closed where the next document would take it past so many tokens. Documents are never cut, so one
    /// that is longer makes a longer shard.
    pub max_tokens: usize,
}

impl DatasetOptions {
    /// Tokens of a shard where nothing else is asked for.
    pub const MAX_TOKENS: usize = 100_000_000;

    /// Settings with the usual size of shards.
    pub fn new(vocab_size: usize, tokenizer: Digest, bos_id: u32) -> Self {
        Self { vocab_size, tokenizer, bos_id, max_tokens: Self::MAX_TOKENS }
    }
}

/// A dataset being written, document by document. The folder is a dataset once [`DatasetWriter::finish`] returns;
/// before, its shards end in `.partial` and are taken away when the writer is dropped.
///
/// No document is ever both trained and validated on: a training document that equals a validation document, by its
/// content hash, is dropped. Where the training document came first, the validation document is dropped instead, so
/// push validation documents first to keep them all. The hashes are kept in memory, about 16 bytes a document.
#[derive(Debug)]
pub struct DatasetWriter {
    folder: PathBuf,
    options: DatasetOptions,
    train: Shards,
    val: Shards,
    excluded: HashSet<u64>,
    dropped: u64,
}

/// The shards of one split.
#[derive(Debug)]
struct Shards {
    split: Split,
    open: Option<(ShardWriter, ShardEntry)>,
    closed: Vec<ShardEntry>,
    contents: HashSet<u64>,
}

impl DatasetWriter {
    /// Starts a dataset in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// A folder that already holds a dataset or shards; settings no manifest may have.
    pub fn create(folder: impl Into<PathBuf>, options: DatasetOptions) -> Result<Self> {
        let folder = folder.into();
        let hashes = HashesEntry { name: HASHES.into(), digest: Digest::of(b"") };
        let manifest = Manifest::empty(options.vocab_size, options.tokenizer, options.bos_id, hashes);
        Manifest::from_json(manifest.to_json().as_bytes())?;
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder, "create"))?;
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder, "list"))? {
            let path = entry.map_err(Error::io(&folder, "list"))?.path();
            if path.ends_with(MANIFEST) || path.extension().is_some_and(|e| e == "bin") {
                let expected = "a folder without a dataset".to_owned();
                let found = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(Error::in_file(folder)(Error::Manifest { field: "folder", expected, found }));
            }
        }
        let shards = |split| Shards { split, open: None, closed: Vec::new(), contents: HashSet::new() };
        let (train, val) = (shards(Split::Train), shards(Split::Val));
        Ok(Self { folder, options, train, val, excluded: HashSet::new(), dropped: 0 })
    }

    /// Treats the validation documents of another dataset as validation documents of this one: they will not be trained
    /// on here either.
    ///
    /// # Errors
    /// A dataset without a manifest, which does not say what its validation documents are; hashes that cannot be read.
    pub fn exclude(&mut self, other: &Dataset) -> Result<()> {
        if other.manifest().is_none() {
            let expected = "a dataset with a manifest".to_owned();
            return Err(Error::Manifest { field: "val_hashes", expected, found: "none".into() });
        }
        self.excluded.extend(other.validation_hashes()?);
        Ok(())
    }

    /// Appends a document: its tokens without the one before it, the UTF-8 length of its text and its
    /// [`content_hash`](super::content_hash). Returns whether it was kept.
    ///
    /// # Errors
    /// A token outside the vocabulary, by its place in the document; the system's.
    pub fn push(&mut self, split: Split, text_bytes: u64, content: u64, tokens: &[u32]) -> Result<bool> {
        let leaks = match split {
            Split::Train => self.val.contents.contains(&content) || self.excluded.contains(&content),
            Split::Val => self.train.contents.contains(&content),
        };
        if leaks {
            self.dropped += 1;
            return Ok(false);
        }
        let narrow = |(at, &token): (usize, &u32)| match u16::try_from(token) {
            Ok(narrow) if (token as usize) < self.options.vocab_size => Ok(narrow),
            _ => {
                let expected = format!("tokens below vocab_size {}", self.options.vocab_size);
                Err(Error::Manifest { field: "document", expected, found: format!("{token} at token {at}") })
            }
        };
        let body = tokens.iter().enumerate().map(narrow);
        let document: Vec<u16> = std::iter::once(Ok(self.options.bos_id as u16)).chain(body).collect::<Result<_>>()?;
        let max_tokens = self.options.max_tokens.min(shard::MAX_TOKENS);
        let shards = match split {
            Split::Train => &mut self.train,
            Split::Val => &mut self.val,
        };
        shards.push(&self.folder, max_tokens, &document, text_bytes)?;
        shards.contents.insert(content);
        Ok(true)
    }

    /// Closes the shards and writes the manifest, which it returns. The manifest comes first and the shards get their
    /// names after it, so that a folder in between is refused instead of being read without its manifest.
    pub fn finish(mut self) -> Result<Manifest> {
        self.train.close(&self.folder)?;
        self.val.close(&self.folder)?;
        let hashes = hashes::encode(&self.val.contents);
        let entry = HashesEntry { name: HASHES.into(), digest: Digest::of(&hashes) };
        let DatasetOptions { vocab_size, tokenizer, bos_id, .. } = self.options;
        let mut manifest = Manifest::empty(vocab_size, tokenizer, bos_id, entry);
        manifest.duplicates_dropped = self.dropped;
        manifest.train = self.train.closed.clone();
        manifest.val = self.val.closed.clone();
        // Refused here and not only when read: shards that differ by their documents' hashes but not by their tokens.
        Manifest::from_json(manifest.to_json().as_bytes())?;
        atomic::write(self.folder.join(HASHES), &hashes)?;
        atomic::write(self.folder.join(MANIFEST), manifest.to_json().as_bytes())?;
        for shard in manifest.train.iter().chain(&manifest.val) {
            let path = self.folder.join(&shard.name);
            std::fs::rename(partial(&path), &path).map_err(Error::io(&path, "rename"))?;
        }
        Ok(manifest)
    }
}

impl Drop for DatasetWriter {
    fn drop(&mut self) {
        for shard in self.train.closed.iter().chain(&self.val.closed) {
            // Best effort: what is left over is never read as a shard.
            let _ = std::fs::remove_file(partial(&self.folder.join(&shard.name)));
        }
    }
}

impl Shards {
    fn push(&mut self, folder: &Path, max_tokens: usize, document: &[u16], text_bytes: u64) -> Result<()> {
        if self.open.as_ref().is_some_and(|(writer, _)| writer.len() + document.len() > max_tokens) {
            self.close(folder)?;
        }
        let (writer, entry) = match &mut self.open {
            Some(open) => open,
            None => {
                let name = format!("{}_{:06}.bin", self.split.name(), self.closed.len());
                let writer = ShardWriter::create(partial(&folder.join(&name)))?;
                let entry = ShardEntry { name, tokens: 0, documents: 0, text_bytes: 0, digest: Digest::of(b"") };
                self.open.insert((writer, entry))
            }
        };
        writer.push(document)?;
        entry.tokens += document.len() as u64;
        entry.documents += 1;
        entry.text_bytes = entry.text_bytes.saturating_add(text_bytes);
        Ok(())
    }

    fn close(&mut self, folder: &Path) -> Result<()> {
        if let Some((writer, mut entry)) = self.open.take() {
            writer.finish()?;
            entry.digest = Digest::of_file(partial(&folder.join(&entry.name)))?;
            self.closed.push(entry);
        }
        Ok(())
    }
}

/// The name of a shard until its dataset is complete.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(PARTIAL);
    name.into()
}
