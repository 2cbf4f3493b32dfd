//! A sequence that grows token by token: keys and values of what was read are kept, so that each token is computed once.

use sixpack_formats::ModelConfig;

use crate::ops::{Batch, Remember};
use crate::{Error, Pass, Result, Weights, forward, model};

/// Tokens of a prompt that are read in one pass.
const CHUNK: usize = 256;

/// One sequence of a model on a machine, which it has for itself until it is dropped.
///
/// What [`Session::prefill`] and [`Session::step`] give is what the full forward pass over the whole sequence would,
/// with a rotary base for the session's context length.
#[derive(Debug)]
pub struct Session<'a, O: Remember> {
    config: &'a ModelConfig,
    weights: &'a Weights<O::Weight>,
    ops: &'a mut O,
    context: usize,
    past: usize,
    /// Logits after the last token, `[V]`; empty before the first.
    logits: Vec<f32>,
}

/// How well a model expected what it read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Sum of the negative log-likelihoods.
    pub nats: f64,
    /// Tokens it had something to expect from: all but the first of a session.
    pub tokens: usize,
}

impl Reading {
    /// Mean over the tokens in bits, if there are any.
    pub fn bits_per_token(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nats / std::f64::consts::LN_2 / self.tokens as f64)
    }
}

impl<'a, O: Remember> Session<'a, O>
where
    Error: From<O::Error>,
{
    /// An empty sequence of at most `context` tokens.
    pub fn new(config: &'a ModelConfig, weights: &'a Weights<O::Weight>, ops: &'a mut O, context: usize) -> Self {
        ops.begin();
        Self { config, weights, ops, context, past: 0, logits: Vec::new() }
    }

    /// Reads `ids`, a chunk at a time, and says how well they were expected. Nothing is read if they do not all fit.
    ///
    /// # Errors
    /// A full context, a token outside the vocabulary, and those of the machine.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<Reading> {
        self.check(ids)?;
        let mut reading = Reading::default();
        if let (Some(&first), false) = (ids.first(), self.logits.is_empty()) {
            reading.nats += nll(&self.logits, first);
            reading.tokens += 1;
        }
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            let h = self.pass(chunk)?;
            // Each token is followed by the next of the prompt; the very last by none, whose score is dropped.
            let next = &ids[i * CHUNK + 1..(i * CHUNK + chunk.len() + 1).min(ids.len())];
            let mut targets = next.to_vec();
            targets.resize(chunk.len(), 0);
            let nll = model::nll(self.config, self.weights, self.ops, &h, &targets)?;
            let nll = self.ops.read(&nll)?;
            reading.nats += nll[..next.len()].iter().map(|&x| f64::from(x)).sum::<f64>();
            reading.tokens += next.len();
            if (i + 1) * CHUNK >= ids.len() {
                let last = self.ops.tail(&h, 1)?;
                self.read_logits(&last)?;
            }
        }
        Ok(reading)
    }

    /// Reads one token and gives the logits `[V]` of the one after it.
    ///
    /// # Errors
    /// A full context, a token outside the vocabulary, and those of the machine.
    pub fn step(&mut self, id: u32) -> Result<&[f32]> {
        self.check(&[id])?;
        let h = self.pass(&[id])?;
        self.read_logits(&h)?;
        Ok(&self.logits)
    }

    /// Logits `[V]` after the last token; empty before the first.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Forgets everything that was read.
    pub fn restart(&mut self) {
        self.ops.begin();
        self.past = 0;
        self.logits.clear();
    }

    /// Tokens read.
    pub fn past(&self) -> usize {
        self.past
    }

    /// Tokens that still fit.
    pub fn room(&self) -> usize {
        self.context - self.past
    }

    fn check(&self, ids: &[u32]) -> Result<()> {
        if ids.len() > self.room() {
            return Err(Error::ContextFull { limit: self.context, past: self.past, more: ids.len() });
        }
        let vocab = self.config.vocab_size;
        match ids.iter().position(|&id| id as usize >= vocab) {
            Some(index) => Err(Error::Token { index, id: ids[index], vocab }),
            None => Ok(()),
        }
    }

    fn pass(&mut self, ids: &[u32]) -> Result<O::Act> {
        let batch = Batch { ids, sequences: 1, context: self.context };
        let h = forward(self.config, self.weights, self.ops, &batch, Pass::FULL)?;
        self.ops.advance(ids.len());
        self.past += ids.len();
        Ok(h)
    }

    fn read_logits(&mut self, h: &O::Act) -> Result<()> {
        let logits = model::logits(self.config, self.weights, self.ops, h)?;
        self.logits = self.ops.read(&logits)?;
        Ok(())
    }
}

impl<O: Remember> Drop for Session<'_, O> {
    fn drop(&mut self) {
        self.ops.end();
    }
}

/// Negative log-likelihood of `target` under `logits`.
fn nll(logits: &[f32], target: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    sum.ln() + f64::from(max - logits[target as usize])
}
