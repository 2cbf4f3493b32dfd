//! `tokenize`: text to token shards with a manifest.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sixpack_formats::corpus::Documents;
use sixpack_formats::dataset::{DatasetOptions, DatasetWriter, Manifest, Split, content_hash};
use sixpack_formats::tokenizer::{Encoder, Tokenizer};
use sixpack_formats::{Digest, atomic, checkpoint};

use crate::args;
use crate::misuse::misuse;
use crate::say::say;
use crate::table::thousands;

pub(crate) fn run(args: &args::Tokenize) -> Result<()> {
    if args.val_every < 2 {
        return Err(misuse(format!("--val-every: expected at least 2, found {}", args.val_every)));
    }
    let at = &args.tokenizer;
    let model = std::fs::read(at).with_context(|| format!("cannot read {}", at.display()))?;
    let tokenizer = Tokenizer::from_model(&model).with_context(|| at.display().to_string())?;
    let mut shards = Shards::create(&args.out, &tokenizer)?;
    for document in documents(&args.val) {
        shards.push(Split::Val, &document?)?;
    }
    // One document is kept back: of a short text the last is the one that is held out.
    let (mut pending, mut held_out) = (None, !args.val.is_empty());
    for (i, document) in (0u64..).zip(documents(&args.text)) {
        let document = document?;
        if args.val.is_empty() && i % args.val_every == args.val_every - 1 {
            held_out = true;
            shards.push(Split::Val, &document)?;
        } else if let Some(previous) = pending.replace(document) {
            shards.push(Split::Train, &previous)?;
        }
    }
    if let Some(last) = pending {
        shards.push(if held_out { Split::Train } else { Split::Val }, &last)?;
    }
    say!("{}", summary(&args.out, &shards.finish()?));
    Ok(())
}

fn documents(paths: &[PathBuf]) -> impl Iterator<Item = Result<String>> {
    paths.iter().flat_map(|path| -> Box<dyn Iterator<Item = Result<String>>> {
        match Documents::open(path) {
            Ok(documents) => Box::new(documents.map(|d| Ok(d?))),
            Err(error) => Box::new(std::iter::once(Err(error.into()))),
        }
    })
}

/// A dataset being written, with its tokenizer beside the shards.
pub(crate) struct Shards<'a> {
    writer: DatasetWriter,
    tokenizer: &'a Tokenizer,
    encoder: Encoder<'a>,
    ids: Vec<u32>,
    folder: PathBuf,
    pushed: Vec<Split>,
}

impl<'a> Shards<'a> {
    /// Begins a dataset in `folder`.
    pub(crate) fn create(folder: &Path, tokenizer: &'a Tokenizer) -> Result<Self> {
        let bos = tokenizer.bos_id().context("the tokenizer has no BOS piece to begin a document with")?;
        let options = DatasetOptions::new(tokenizer.vocab_size(), Digest::of(tokenizer.model_bytes()), bos);
        let writer = DatasetWriter::create(folder, options)?;
        Ok(Self {
            writer,
            tokenizer,
            encoder: tokenizer.encoder(),
            ids: Vec::new(),
            folder: folder.into(),
            pushed: Vec::new(),
        })
    }

    /// Adds a document; one of the training text that is a validation document word for word is dropped.
    pub(crate) fn push(&mut self, split: Split, document: &str) -> Result<()> {
        self.ids.clear();
        self.encoder.encode_into(document, &mut self.ids);
        let kept = self.writer.push(split, document.len() as u64, content_hash(document), &self.ids)?;
        if kept && !self.ids.is_empty() && !self.pushed.contains(&split) {
            self.pushed.push(split);
        }
        Ok(())
    }

    /// Writes the manifest, and the tokenizer beside it. Both splits must have documents.
    pub(crate) fn finish(self) -> Result<Manifest> {
        if let Some(empty) = [Split::Train, Split::Val].into_iter().find(|s| !self.pushed.contains(s)) {
            bail!(
                "{}: expected documents for training and for validation, found none for `{}`",
                self.folder.display(),
                empty.name()
            );
        }
        let manifest = self.writer.finish()?;
        atomic::write(self.folder.join(checkpoint::TOKENIZER), self.tokenizer.model_bytes())?;
        Ok(manifest)
    }
}

/// What was written, in a line for each split.
pub(crate) fn summary(folder: &Path, manifest: &Manifest) -> String {
    let line = |split: Split| {
        format!(
            "\n{:>5}: {} tokens, {} documents, {} bytes of text",
            split.name(),
            thousands(manifest.tokens(split)),
            thousands(manifest.documents(split)),
            thousands(manifest.text_bytes(split))
        )
    };
    let dropped = match manifest.duplicates_dropped {
        0 => String::new(),
        n => format!("\n{n} documents were dropped: they stood in both splits word for word"),
    };
    format!("{}{}{}{dropped}", folder.display(), line(Split::Train), line(Split::Val))
}
