//! `tokenizer train`: learn a BPE vocabulary.

use std::path::PathBuf;

use anyhow::Result;
use sixpack_formats::atomic;
use sixpack_formats::corpus::Documents;
use sixpack_formats::tokenizer::train::{TrainOptions, WordCounts, train_on};

use crate::args;
use crate::say::say;
use crate::table::thousands;

pub(crate) fn run(args: &args::Tokenizer) -> Result<()> {
    let args::Tokenizer::Train { text, vocab_size, out, max_bytes } = args;
    let model = train(text, *vocab_size as usize, *max_bytes)?;
    atomic::write(out, &model)?;
    say!("{}: {vocab_size} pieces, {} bytes", out.display(), thousands(model.len() as u64));
    Ok(())
}

/// Learns from the first `max_bytes` of the documents of `paths`.
fn train(paths: &[PathBuf], vocab_size: usize, max_bytes: u64) -> Result<Vec<u8>> {
    let (mut words, mut read) = (WordCounts::new(), 0);
    for path in paths {
        for document in Documents::open(path)? {
            if read >= max_bytes {
                break;
            }
            let document = document?;
            read += document.len() as u64;
            words.add(&document);
        }
    }
    eprintln!("learning {vocab_size} pieces from {} bytes of text", thousands(read));
    Ok(train_on(words, &TrainOptions::new(vocab_size))?)
}
