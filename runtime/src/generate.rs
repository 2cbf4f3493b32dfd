//! Text from a model: read a prompt, then choose token after token, for as long as is wanted.

use sixpack_formats::ModelConfig;

use crate::ops::Remember;
use crate::sampler::Sampler;
use crate::session::{Reading, Session};
use crate::{Error, Result, Weights};

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits<'a> {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Tokens the model sees at once; when they are used up it goes on from the last half of them.
    pub context: usize,
    /// Tokens that end the text and are not part of it: those that begin or end a document.
    pub stop: &'a [u32],
}

/// Continues `prompt`, giving each token to `on_token` until that says `false`, a stop token comes or the limit is
/// reached. Returns how well the prompt was expected.
///
/// A prompt that leaves no room is read whole, a context at a time, and the text goes on from its end.
///
/// # Errors
/// An empty prompt, a context below 2, a token outside the vocabulary, and those of the machine.
pub async fn generate<O: Remember>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    prompt: &[u32],
    limits: &Limits<'_>,
    sampler: &mut Sampler,
    on_token: &mut dyn FnMut(u32) -> bool,
) -> Result<Reading>
where
    Error: From<O::Error>,
{
    let wrong = |field, expected: &str, found: usize| Error::Option {
        field,
        expected: expected.into(),
        found: found.to_string(),
    };
    if prompt.is_empty() {
        return Err(wrong("prompt", "at least one token", 0));
    }
    if limits.context < 2 {
        return Err(wrong("context", "at least 2 tokens", limits.context));
    }
    let keep = limits.context / 2;
    let mut session = Session::new(config, weights, ops, limits.context);
    let mut reading = session.prefill(&prompt[..prompt.len().min(limits.context)]).await?;
    let mut seen = prompt[..session.past()].to_vec();
    while seen.len() < prompt.len() {
        roll(&mut session, &seen[seen.len() - keep..]).await?;
        let next = &prompt[seen.len()..prompt.len().min(seen.len() + session.room())];
        let more = session.prefill(next).await?;
        reading = Reading { nats: reading.nats + more.nats, tokens: reading.tokens + more.tokens };
        seen.extend_from_slice(next);
    }
    for left in (0..limits.max_tokens).rev() {
        let token = session.sample(sampler).await?;
        if limits.stop.contains(&token) || !on_token(token) || left == 0 {
            break;
        }
        if session.room() == 0 {
            roll(&mut session, &seen[seen.len() - keep..]).await?;
        }
        session.step(token)?;
        seen.push(token);
    }
    Ok(reading)
}

/// Forgets everything but `tail`.
async fn roll<O: Remember>(session: &mut Session<'_, O>, tail: &[u32]) -> Result<()>
where
    Error: From<O::Error>,
{
    session.restart();
    session.prefill(tail).await.map(drop)
}
