//! `manifest.json`: what the shards of a dataset are.

use std::collections::HashSet;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::Split;
use crate::{Digest, Error, Result, json};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The version this program writes and reads.
const VERSION: u32 = 1;

/// The content of `manifest.json`. All sums are computed, none is listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the manifest: 1.
    pub version: u32,
    /// Pieces of the vocabulary; every token is below it.
    pub vocab_size: usize,
    /// Hash of the tokenizer's `.model` file.
    pub tokenizer: Digest,
    /// The token before each document.
    pub bos_id: u32,
    /// Training documents left out because they are validation documents word for word, and validation documents left
    /// out because they had gone to the training shards already.
    pub duplicates_dropped: u64,
    /// Shards to train on.
    pub train: Vec<ShardEntry>,
    /// Shards to validate on.
    pub val: Vec<ShardEntry>,
    /// The file with the content hashes of the validation documents.
    pub val_hashes: HashesEntry,
}

/// A shard of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name, within the folder of the manifest.
    pub name: String,
    /// Number of tokens, those before each document included.
    pub tokens: u64,
    /// Number of documents, all of them whole.
    pub documents: u64,
    /// UTF-8 bytes of the documents' text.
    pub text_bytes: u64,
    /// Hash of the file.
    pub digest: Digest,
}

/// The file of content hashes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashesEntry {
    /// File name, within the folder of the manifest.
    pub name: String,
    /// Hash of the file.
    pub digest: Digest,
}

impl Manifest {
    /// The manifest of a dataset without shards.
    pub(super) fn empty(vocab_size: usize, tokenizer: Digest, bos_id: u32, val_hashes: HashesEntry) -> Self {
        let (train, val) = (Vec::new(), Vec::new());
        Self { version: VERSION, vocab_size, tokenizer, bos_id, duplicates_dropped: 0, train, val, val_hashes }
    }

    /// Reads and checks the content of a manifest, without looking at the files it lists.
    ///
    /// # Errors
    /// Malformed JSON or unknown keys; a wrong version; names that are no plain file names or not unique; a shard listed
    /// for training and for validation, by name or by content.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        let manifest: Self = json::object("dataset manifest", text)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The content of `manifest.json`.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a plain struct of numbers and texts serialises");
        text.push('\n');
        text
    }

    /// The shards of a split.
    pub fn shards(&self, split: Split) -> &[ShardEntry] {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
        }
    }

    /// Tokens of a split.
    pub fn tokens(&self, split: Split) -> u64 {
        self.shards(split).iter().map(|s| s.tokens).fold(0, u64::saturating_add)
    }

    /// Documents of a split.
    pub fn documents(&self, split: Split) -> u64 {
        self.shards(split).iter().map(|s| s.documents).fold(0, u64::saturating_add)
    }

    /// UTF-8 bytes of text of a split.
    pub fn text_bytes(&self, split: Split) -> u64 {
        self.shards(split).iter().map(|s| s.text_bytes).fold(0, u64::saturating_add)
    }

    fn check(&self) -> Result<()> {
        if self.version != VERSION {
            return Err(wrong("version", VERSION.to_string(), self.version));
        }
        if !(1..=65_536).contains(&self.vocab_size) {
            return Err(wrong("vocab_size", "1 to 65536".into(), self.vocab_size));
        }
        if self.bos_id as usize >= self.vocab_size {
            return Err(wrong("bos_id", format!("below vocab_size {}", self.vocab_size), self.bos_id));
        }
        let mut names = HashSet::new();
        let shards = self.train.iter().chain(&self.val).map(|s| &s.name);
        for name in shards.chain([&self.val_hashes.name]) {
            let mut parts = Path::new(name).components();
            let plain =
                matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == &**name);
            if !plain || name.contains(['/', '\\', '\0']) {
                return Err(wrong("name", "a plain file name".into(), format!("{name:?}")));
            }
            if !names.insert(name) {
                return Err(wrong("name", "a name listed once".into(), format!("{name:?} again")));
            }
        }
        for train in &self.train {
            if let Some(val) = self.val.iter().find(|val| val.digest == train.digest) {
                let expected = "a training shard that is no validation shard".to_owned();
                return Err(wrong("train", expected, format!("{} with the hash of {}", train.name, val.name)));
            }
        }
        Ok(())
    }
}

pub(super) fn wrong(field: &'static str, expected: String, found: impl ToString) -> Error {
    Error::Manifest { field, expected, found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let entry = |name: &str| ShardEntry {
            name: name.into(),
            tokens: 10,
            documents: 2,
            text_bytes: 33,
            digest: Digest::of(name.as_bytes()),
        };
        let hashes = HashesEntry { name: "val.hashes".into(), digest: Digest::of(b"") };
        let mut manifest = Manifest::empty(4096, Digest::of(b"tokenizer"), 1, hashes);
        manifest.train = vec![entry("train_000000.bin"), entry("train_000001.bin")];
        manifest.val = vec![entry("val_000000.bin")];
        manifest
    }

    #[test]
    fn round_trip_and_sums() {
        let manifest = sample();
        assert_eq!(Manifest::from_json(manifest.to_json().as_bytes()).unwrap(), manifest);
        assert_eq!((manifest.tokens(Split::Train), manifest.tokens(Split::Val)), (20, 10));
        assert_eq!((manifest.documents(Split::Train), manifest.text_bytes(Split::Val)), (4, 33));
    }

    #[test]
    fn every_way_a_manifest_can_lie() {
        let message = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = sample();
            change(&mut manifest);
            Manifest::from_json(manifest.to_json().as_bytes()).unwrap_err().to_string()
        };
        assert_eq!(message(&|m| m.version = 2), "manifest `version`: expected 1, found 2");
        assert_eq!(message(&|m| m.vocab_size = 0), "manifest `vocab_size`: expected 1 to 65536, found 0");
        assert_eq!(message(&|m| m.bos_id = 4096), "manifest `bos_id`: expected below vocab_size 4096, found 4096");
        for name in ["../a.bin", "/a.bin", "", ".", "..", "a/b", "a\\b", "a/"] {
            let error = message(&|m| m.train[1].name = name.into());
            assert_eq!(error, format!("manifest `name`: expected a plain file name, found {name:?}"));
        }
        let twice = message(&|m| m.val[0].name = "train_000000.bin".into());
        assert_eq!(twice, r#"manifest `name`: expected a name listed once, found "train_000000.bin" again"#);
        let leak = message(&|m| m.val[0].digest = m.train[1].digest);
        assert!(leak.ends_with("found train_000001.bin with the hash of val_000000.bin"), "{leak}");
        let text = |text: &str| Manifest::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(text("{}").contains("dataset manifest: missing field `version`"));
        assert!(text("[]").contains("expected an object"));
        assert!(text(&sample().to_json().replace("bos_id", "bos")).contains("unknown field `bos`"));
        assert!(text(&sample().to_json().replace("\"digest\": \"", "\"digest\": \"x")).contains("hexadecimal"));
    }
}
