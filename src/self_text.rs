//! Text that a model writes itself, to calibrate on: no training data is needed then.
//!
//! Each sequence begins a document and is as long as one of training; tokens are drawn at temperature 1, so that they
//! are distributed as the model believes text to be. A token costs a whole step of a session, which reads every weight:
//! on two cores about a minute for 65,536 tokens of a model of 5 M parameters, and some ten times that for 34 M.

use anyhow::{Context, Result};
use sixpack_runtime::cpu::Fast;
use sixpack_runtime::{Sampler, Sampling, Session, now};

use crate::loaded::Loaded;
use crate::progress::Progress;

/// Whole sequences of at least `tokens` tokens in sum. The same seed gives the same text.
pub(crate) fn write(loaded: &Loaded, tokens: usize, seed: u64, threads: usize) -> Result<Vec<u16>> {
    let config = &loaded.model.config;
    let bos = loaded.tokenizer.as_ref().and_then(|t| t.bos_id());
    let bos = bos.context("a model without a tokenizer that has a BOS piece cannot begin a text of its own")?;
    let mut ops = Fast::new(threads)?;
    let weights = ops.load(&loaded.model);
    let mut sampler = Sampler::new(Sampling { seed, ..Sampling::default() })?;
    let len = config.train_seq_len;
    let count = tokens.div_ceil(len);
    let mut bar = Progress::new("writing", "sequences", count as u64);
    let mut text: Vec<u16> = Vec::with_capacity(count * len);
    for done in 1..=count {
        let mut session = Session::new(config, &weights, &mut ops, len);
        session.feed(&[bos])?;
        // A vocabulary has at most 65,536 pieces.
        text.push(bos as u16);
        for position in 1..len {
            let token = now(session.sample(&mut sampler))?;
            text.push(token as u16);
            if position + 1 < len {
                session.step(token)?;
            }
        }
        bar.set(done as u64);
    }
    Ok(text)
}
