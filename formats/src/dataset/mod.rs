//! A dataset: a folder of token shards for training and validation, and a manifest that says what they are.
//!
//! A validation document must never be trained on. [`DatasetWriter`] drops training documents that equal one,
//! [`Dataset::train_shards`] refuses a training shard that equals a validation shard, and [`refuse_validation`] keeps
//! calibration off them. Folders and files of the reference (`fineweb_train_*.bin`, `fineweb_val_*.bin`) have no manifest;
//! they are told apart by name and content.

mod hashes;
mod manifest;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::shard::Shard;
use crate::{Digest, Error, Result};

pub use hashes::content_hash;
pub use manifest::{HashesEntry, MANIFEST, Manifest, ShardEntry};
pub use writer::{DatasetOptions, DatasetWriter};

/// Larger manifests are refused unread.
const MAX_MANIFEST: u64 = 1 << 26;

/// What documents are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// To train and to calibrate.
    Train,
    /// To measure, and for nothing else.
    Val,
}

impl Split {
    /// Its name in file names: `train` or `val`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
        }
    }

    /// The split that the name of a shard states: `train_000000.bin`, `fineweb_val_000000.bin`.
    fn of_name(path: &Path) -> Option<Self> {
        let stem = path.file_stem()?.to_str()?;
        let states = |split: &Self| stem.split('_').any(|word| word == split.name());
        // A name that states both is taken for the one that is kept away from training.
        [Self::Val, Self::Train].into_iter().find(states)
    }
}

/// The shards of a folder or of one file, opened.
#[derive(Debug)]
pub struct Dataset {
    path: PathBuf,
    manifest: Option<Manifest>,
    train: Vec<Shard>,
    val: Vec<Shard>,
}

impl Dataset {
    /// Opens a folder with a manifest, a folder of shards, or one shard.
    ///
    /// With a manifest, exactly the shards it lists are opened. Without one, the `.bin` files whose names state a split
    /// are, in the order of their names. One file belongs to the split that the manifest beside it or else its name
    /// states, and to training where neither does.
    ///
    /// # Errors
    /// A shard that is missing, malformed, or not of the size the manifest states; a folder without shards.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_file() {
            let shard = Shard::open(path)?;
            let split = stated_split(path)?.unwrap_or(Split::Train);
            let (train, val) = if split == Split::Train { (vec![shard], vec![]) } else { (vec![], vec![shard]) };
            return Ok(Self { path: path.into(), manifest: None, train, val });
        }
        let Some(manifest) = read_manifest(path)? else { return Self::open_by_names(path) };
        let open = |entry: &ShardEntry| {
            let shard = Shard::open(path.join(&entry.name))?;
            if shard.len() as u64 == entry.tokens {
                return Ok(shard);
            }
            let expected = format!("{} tokens in {}", entry.tokens, entry.name);
            Err(Error::in_file(path.join(MANIFEST))(manifest::wrong("tokens", expected, shard.len())))
        };
        let train = manifest.train.iter().map(open).collect::<Result<_>>()?;
        let val = manifest.val.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { path: path.into(), manifest: Some(manifest), train, val })
    }

    fn open_by_names(folder: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "list"))? {
            let path = entry.map_err(Error::io(folder, "list"))?.path();
            if path.extension().is_some_and(|e| e == "bin") {
                paths.push(path);
            }
        }
        paths.sort();
        let open = |split: Split| {
            let of_split = paths.iter().filter(|path| Split::of_name(path) == Some(split));
            of_split.map(Shard::open).collect::<Result<Vec<_>>>()
        };
        let (train, val) = (open(Split::Train)?, open(Split::Val)?);
        if train.is_empty() && val.is_empty() {
            let expected = format!("{MANIFEST}, or shards named *train_*.bin or *val_*.bin");
            let found = format!("{} .bin files of other names", paths.len());
            return Err(Error::in_file(folder)(manifest::wrong("folder", expected, found)));
        }
        Ok(Self { path: folder.into(), manifest: None, train, val })
    }

    /// The manifest, where there is one.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The shards to train on, after a check that none is a validation shard. Where a single file was opened, the manifest
    /// and the shards beside it are looked at too.
    ///
    /// # Errors
    /// A training shard with the content of a validation shard; no training shards at all.
    pub fn train_shards(&self) -> Result<&[Shard]> {
        if self.path.is_file() {
            refuse_validation(&self.path)?;
        }
        for train in &self.train {
            self.refuse(train)?;
        }
        if self.train.is_empty() {
            return Err(leak(&self.path, "it holds validation shards only".into()));
        }
        Ok(&self.train)
    }

    /// The shards to validate on; empty where there are none.
    pub fn val_shards(&self) -> &[Shard] {
        &self.val
    }

    /// The shards to measure a model on: the validation shards of a folder, or the one file that was opened.
    ///
    /// # Errors
    /// A folder without validation shards.
    pub fn eval_shards(&self) -> Result<&[Shard]> {
        if self.val.is_empty() && self.path.is_dir() {
            let expected = "shards named *val_*.bin".to_owned();
            return Err(Error::in_file(&self.path)(manifest::wrong("val", expected, "training shards only")));
        }
        Ok(if self.val.is_empty() { &self.train } else { &self.val })
    }

    /// Refuses a dataset that was tokenised with another vocabulary than a model's.
    ///
    /// With a manifest the size is compared and, where given, the hash of the tokenizer; without one every token is.
    pub fn check_vocabulary(&self, vocab_size: usize, tokenizer: Option<Digest>) -> Result<()> {
        let Some(manifest) = &self.manifest else {
            return self.train.iter().chain(&self.val).try_for_each(|shard| shard.check_vocabulary(vocab_size));
        };
        let fail = |field, expected: String, found: String| {
            Err(Error::in_file(self.path.join(MANIFEST))(manifest::wrong(field, expected, found)))
        };
        if manifest.vocab_size != vocab_size {
            return fail("vocab_size", format!("the model's {vocab_size}"), manifest.vocab_size.to_string());
        }
        match tokenizer {
            Some(digest) if digest != manifest.tokenizer => {
                fail("tokenizer", format!("the model's {digest}"), manifest.tokenizer.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Reads every shard and compares its hash with the manifest's; without a manifest there is nothing to compare.
    pub fn verify_hashes(&self) -> Result<()> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let entries = manifest.train.iter().chain(&manifest.val);
        for (entry, shard) in entries.zip(self.train.iter().chain(&self.val)) {
            expect_digest(shard.path(), entry.digest, shard.digest())?;
        }
        self.validation_hashes().map(drop)
    }

    /// Refuses a shard that must not be trained or calibrated on: one with the content of a validation shard.
    pub fn refuse_validation(&self, path: impl AsRef<Path>) -> Result<()> {
        self.refuse(&Shard::open(path.as_ref())?)
    }

    /// The content hashes of the validation documents; none without a manifest.
    pub fn validation_hashes(&self) -> Result<HashSet<u64>> {
        let Some(manifest) = &self.manifest else { return Ok(HashSet::new()) };
        let path = self.path.join(&manifest.val_hashes.name);
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        expect_digest(&path, manifest.val_hashes.digest, Digest::of(&bytes))?;
        hashes::parse(&bytes).map_err(Error::in_file(path))
    }

    /// Compares the tokens themselves: they differ early where they differ, and no manifest can hide that they are equal.
    fn refuse(&self, shard: &Shard) -> Result<()> {
        match self.val.iter().find(|val| val.len() == shard.len() && val.tokens() == shard.tokens()) {
            Some(val) => Err(leak(shard.path(), format!("it is the validation shard {}", val.path().display()))),
            None => Ok(()),
        }
    }
}

/// Refuses a shard that the manifest beside it, its content or its name shows to be for validation.
pub fn refuse_validation(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if stated_split(path)? == Some(Split::Val) {
        return Err(leak(path, "its name or manifest says that it is a validation shard".into()));
    }
    match path.parent().map(read_manifest).transpose()?.flatten() {
        Some(_) => Dataset::open(path.parent().unwrap_or(Path::new(".")))?.refuse_validation(path),
        None => Ok(()),
    }
}

/// The split of one file, by the manifest beside it or else by its name.
fn stated_split(path: &Path) -> Result<Option<Split>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default();
    let listed = |manifest: &Manifest, split: Split| manifest.shards(split).iter().any(|s| name == &*s.name);
    let manifest = read_manifest(folder)?;
    let by_manifest = manifest.and_then(|m| [Split::Train, Split::Val].into_iter().find(|&split| listed(&m, split)));
    Ok(by_manifest.or_else(|| Split::of_name(path)))
}

/// The manifest of a folder, if it has one.
fn read_manifest(folder: &Path) -> Result<Option<Manifest>> {
    let path = folder.join(MANIFEST);
    let size = match std::fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, "open")(error)),
    };
    if size > MAX_MANIFEST {
        let error = manifest::wrong("size", format!("at most {MAX_MANIFEST} bytes"), size);
        return Err(Error::in_file(path)(error));
    }
    let json = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    Manifest::from_json(&json).map(Some).map_err(Error::in_file(path))
}

fn expect_digest(path: &Path, expected: Digest, found: Digest) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::in_file(path)(manifest::wrong("digest", expected.to_string(), found)))
}

fn leak(path: &Path, reason: String) -> Error {
    Error::Leak { path: path.into(), reason }
}
