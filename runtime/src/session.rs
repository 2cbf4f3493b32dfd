//! A sequence that grows token by token: keys and values of what was read are kept, so that each token is computed once.

use sixpack_formats::ModelConfig;

use crate::ops::{Batch, Remember};
use crate::scored::Scored;
use crate::{Error, Pass, Result, Sampler, Weights, forward, model};

/// Tokens of a prompt that are read in one pass.
pub(crate) const CHUNK: usize = 256;

/// One sequence of a model on a machine, which it has for itself until it is dropped.
///
/// What [`Session::prefill`] and [`Session::step`] give is what the full forward pass over the whole sequence would,
/// with a rotary base for the session's context length.
pub struct Session<'a, O: Remember>
where
    Error: From<O::Error>,
{
    config: &'a ModelConfig,
    weights: &'a Weights<O::Weight>,
    ops: &'a mut O,
    context: usize,
    past: usize,
    /// Logits after the last token, `[1, 1, V]`; none before the first.
    logits: Option<O::Act>,
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
    /// Of the negative log-likelihoods of tokens.
    pub(crate) fn of(nll: impl IntoIterator<Item = f32>) -> Self {
        let add = |sum: Self, x| Self { nats: sum.nats + f64::from(x), tokens: sum.tokens + 1 };
        nll.into_iter().fold(Self::default(), add)
    }

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
        Self { config, weights, ops, context, past: 0, logits: None }
    }

    /// Reads `ids`, a chunk at a time, and says how well they were expected. Nothing is read if they do not all fit.
    ///
    /// # Errors
    /// A full context, a token outside the vocabulary, and those of the machine.
    pub async fn prefill(&mut self, ids: &[u32]) -> Result<Reading> {
        Ok(Reading::of(self.read(ids).await?))
    }

    /// Reads `ids` for what comes after them: none of them is scored, and what only scores need is not computed.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn feed(&mut self, ids: &[u32]) -> Result<()> {
        self.check(ids)?;
        let chunks = ids.chunks(CHUNK).len();
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            let h = self.pass(chunk, Pass { last: Some(1), ..Pass::FULL })?;
            if i + 1 == chunks {
                self.after(&h)?;
            }
        }
        Ok(())
    }

    /// As [`Session::prefill`]: the negative log-likelihood in nats of each token that was expected, all but the first
    /// of a session.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub async fn read(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.check(ids)?;
        let mut scores = Vec::with_capacity(ids.len());
        if let (Some(&first), Some(logits)) = (ids.first(), &self.logits) {
            scores.push(-Scored::of(&self.ops.read(logits).await?, first, 0).logprob);
        }
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            let h = self.pass(chunk, Pass::FULL)?;
            let next = followers(ids, i);
            // The very last token is followed by none: what is computed for it is dropped.
            let mut targets = next.to_vec();
            targets.resize(chunk.len(), 0);
            let nll = model::nll(self.config, self.weights, self.ops, &h, &targets)?;
            let nll = self.ops.read(&nll).await?;
            scores.extend_from_slice(&nll[..next.len()]);
            if (i + 1) * CHUNK >= ids.len() {
                let last = self.ops.tail(&h, 1)?;
                self.after(&last)?;
            }
        }
        Ok(scores)
    }

    /// As [`Session::read`], and with each token the `top` likeliest in its place. All logits are read from the
    /// machine.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub async fn score(&mut self, ids: &[u32], top: usize) -> Result<Vec<Scored>> {
        self.check(ids)?;
        let mut scores = Vec::with_capacity(ids.len());
        if let (Some(&first), Some(logits)) = (ids.first(), &self.logits) {
            scores.push(Scored::of(&self.ops.read(logits).await?, first, top));
        }
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            let h = self.pass(chunk, Pass::FULL)?;
            let logits = model::logits(self.config, self.weights, self.ops, &h)?;
            let logits = self.ops.read(&logits).await?;
            let rows = followers(ids, i).iter().zip(logits.chunks(self.config.vocab_size));
            scores.extend(rows.map(|(&id, logits)| Scored::of(logits, id, top)));
            if (i + 1) * CHUNK >= ids.len() {
                let last = self.ops.tail(&h, 1)?;
                self.after(&last)?;
            }
        }
        Ok(scores)
    }

    /// Reads one token.
    ///
    /// # Errors
    /// A full context, a token outside the vocabulary, and those of the machine.
    pub fn step(&mut self, id: u32) -> Result<()> {
        self.check(&[id])?;
        let h = self.pass(&[id], Pass::FULL)?;
        self.after(&h)
    }

    /// A token to follow the last one.
    ///
    /// # Errors
    /// An empty session, logits nothing can be sampled from, and those of the machine.
    pub async fn sample(&mut self, sampler: &mut Sampler) -> Result<u32> {
        let logits = self.logits.as_ref().ok_or_else(nothing_read)?;
        self.ops.sample(logits, sampler).await
    }

    /// Logits `[V]` after the last token.
    ///
    /// # Errors
    /// An empty session, and those of the machine.
    pub async fn logits(&mut self) -> Result<Vec<f32>> {
        let logits = self.logits.as_ref().ok_or_else(nothing_read)?;
        Ok(self.ops.read(logits).await?)
    }

    /// Forgets everything that was read.
    pub fn restart(&mut self) {
        self.ops.begin();
        self.past = 0;
        self.logits = None;
    }

    /// The machine it runs on.
    pub fn machine(&self) -> &O {
        self.ops
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

    fn pass(&mut self, ids: &[u32], pass: Pass) -> Result<O::Act> {
        let batch = Batch { ids, sequences: 1, context: self.context };
        let h = forward(self.config, self.weights, self.ops, &batch, pass)?;
        self.ops.advance(ids.len());
        self.past += ids.len();
        Ok(h)
    }

    /// Logits of what follows the one position `h`.
    fn after(&mut self, h: &O::Act) -> Result<()> {
        self.logits = Some(model::logits(self.config, self.weights, self.ops, h)?);
        Ok(())
    }
}

fn nothing_read() -> Error {
    Error::Option { field: "session", expected: "at least one token read".into(), found: "none".into() }
}

impl<O: Remember> Drop for Session<'_, O>
where
    Error: From<O::Error>,
{
    fn drop(&mut self) {
        self.ops.end();
    }
}

/// What follows the tokens of chunk `i` of `ids`: one less at the end, where nothing does.
fn followers(ids: &[u32], i: usize) -> &[u32] {
    &ids[i * CHUNK + 1..((i + 1) * CHUNK + 1).min(ids.len())]
}
