//! DATA on the command line: token shards, or text that is tokenised on the fly.

use std::path::Path;

use anyhow::{Context, Result, bail};
use sixpack_formats::corpus::Documents;
use sixpack_formats::dataset::{Dataset, MANIFEST};
use sixpack_formats::shard::Shard;
use sixpack_formats::{Digest, checkpoint};

use crate::loaded::Loaded;

/// Tokens, and what identifies where they come from.
pub(crate) struct Tokens {
    /// All of them, in order.
    pub(crate) tokens: Vec<u16>,
    /// Hash of the shard, or of the shards' hashes where they are several; of the tokens where they come from text.
    pub(crate) digest: Digest,
    /// Hash of each shard.
    shards: Vec<Digest>,
}

impl Tokens {
    /// Refuses to calibrate on these if they share a shard with what is scored.
    pub(crate) fn refuse_if_scored(&self, scored: &Self) -> Result<()> {
        match self.shards.iter().find(|shard| scored.shards.contains(shard)) {
            Some(shard) => bail!("the shard {shard} is to be calibrated on and scored on: calibrate on training data"),
            None => Ok(()),
        }
    }
}

/// Reads what a model is to be scored on: a shard, a folder's validation shards, or text.
pub(crate) fn for_scoring(path: &Path, loaded: &Loaded) -> Result<Tokens> {
    if !holds_shards(path)? {
        return of_text(path, loaded);
    }
    let dataset = open(path, loaded)?;
    Ok(joined(dataset.eval_shards()?, usize::MAX))
}

/// Reads at most `want` training tokens for calibration. Validation tokens are refused by name and by hash.
pub(crate) fn for_calibration(path: &Path, loaded: &Loaded, want: usize) -> Result<Tokens> {
    if !holds_shards(path)? {
        bail!("{}: expected token shards (see `sixpack tokenize`), found text", path.display());
    }
    let dataset = open(path, loaded)?;
    let shards = dataset.train_shards()?;
    Ok(joined(shards, want.div_ceil(shards.len())))
}

/// The validation shards beside `path`, if there are any.
pub(crate) fn validation_beside(path: &Path, loaded: &Loaded) -> Result<Option<Tokens>> {
    let dataset = open(path, loaded)?;
    let shards = dataset.val_shards();
    Ok((!shards.is_empty()).then(|| joined(shards, usize::MAX)))
}

/// Opens shards and refuses those of another vocabulary than the model's.
fn open(path: &Path, loaded: &Loaded) -> Result<Dataset> {
    let tokenizer = loaded.tokenizer.as_ref().map(|t| Digest::of(t.model_bytes()));
    open_verified(path, loaded.model.config.vocab_size, tokenizer)
}

/// Opens shards, checks their vocabulary and compares them with their manifest; that of the folder where `path` is one
/// shard of it.
pub(crate) fn open_verified(path: &Path, vocab_size: usize, tokenizer: Option<Digest>) -> Result<Dataset> {
    let dataset = Dataset::open(path)?;
    if let Some(folder) = folder_of_shard(path) {
        Dataset::open(folder)?.check_vocabulary(vocab_size, tokenizer)?;
    }
    dataset.check_vocabulary(vocab_size, tokenizer)?;
    dataset.verify_hashes()?;
    Ok(dataset)
}

/// The folder of a single shard, if it has a manifest.
fn folder_of_shard(path: &Path) -> Option<&Path> {
    path.parent().filter(|folder| path.is_file() && folder.join(MANIFEST).is_file())
}

/// Whether `path` is a shard or a folder with shards.
fn holds_shards(path: &Path) -> Result<bool> {
    let is_shard = |p: &Path| p.extension().is_some_and(|e| e == "bin");
    if !path.is_dir() {
        return Ok(is_shard(path));
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(entries.filter_map(|e| Some(e.ok()?.path())).any(|p| is_shard(&p)))
}

/// The first `of_each` tokens of each shard.
fn joined(shards: &[Shard], of_each: usize) -> Tokens {
    let tokens = shards.iter().flat_map(|s| &s.tokens()[..s.len().min(of_each)]).copied().collect();
    let shards: Vec<Digest> = shards.iter().map(Shard::digest).collect();
    Tokens { tokens, digest: digest_of_all(&shards), shards }
}

/// The hash of several shards: that of the only one, else of all hashes.
fn digest_of_all(shards: &[Digest]) -> Digest {
    match shards {
        [one] => *one,
        many => Digest::of(&many.iter().flat_map(|d| *d.as_bytes()).collect::<Vec<_>>()),
    }
}

/// Tokenises the documents of a text, each after a BOS.
fn of_text(path: &Path, loaded: &Loaded) -> Result<Tokens> {
    let Some(tokenizer) = &loaded.tokenizer else {
        bail!("{}: expected token shards (.bin), because the model has no tokenizer to read text with", path.display());
    };
    let bos = tokenizer.bos_id().context("the tokenizer has no BOS piece to begin a document with")?;
    let mut encoder = tokenizer.encoder();
    let mut ids = Vec::new();
    for document in Documents::open(path)? {
        ids.push(bos);
        encoder.encode_into(&document?, &mut ids);
    }
    // A vocabulary has at most 65,536 pieces.
    let tokens: Vec<u16> = ids.into_iter().map(|id| id as u16).collect();
    let bytes: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
    Ok(Tokens { tokens, digest: Digest::of(&bytes), shards: Vec::new() })
}

/// The tokenizer to train with: the one given, else the one beside the shards.
pub(crate) fn tokenizer_for(data: &Path, given: Option<&Path>) -> Result<Option<Vec<u8>>> {
    match given {
        Some(path) => Ok(Some(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)),
        None => match folder_of_shard(data).or_else(|| data.is_dir().then_some(data)) {
            Some(folder) => Ok(checkpoint::read_tokenizer(folder)?),
            None => Ok(None),
        },
    }
}
