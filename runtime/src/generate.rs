//! Text from a model: read a prompt, then choose token after token, for as long as is wanted.

use sixpack_formats::ModelConfig;

use crate::ops::Remember;
use crate::sampler::Sampler;
use crate::scored::Scored;
use crate::session::{CHUNK, Reading, Session};
use crate::wait::turn;
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

/// Which tokens are scored, and how many of the likeliest are told with each. Where nothing is scored, logits stay on
/// the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Whether it is to be said what the prompt costs. Without, its tokens are read faster.
    pub cost: bool,
    /// For the tokens of the prompt.
    pub prompt: Option<usize>,
    /// For the tokens that are generated.
    pub text: Option<usize>,
}

impl Default for Wants {
    /// What the prompt costs, and no token by itself.
    fn default() -> Self {
        Self { cost: true, prompt: None, text: None }
    }
}

/// Who a text is made for. A function of a token is one: what it returns is whether to go on.
pub trait Listener {
    /// What is told beside the tokens. It is asked once.
    fn wants(&self) -> Wants {
        Wants::default()
    }

    /// A chunk was read: of the prompt, with scores of its tokens where they are wanted (the very first has none), or
    /// of the text once more after the context was used up. `false` ends everything.
    fn on_read(&mut self, scores: Vec<Scored>) -> bool {
        drop(scores);
        true
    }

    /// A token was chosen; its score, if wanted. `false` ends the text.
    fn on_token(&mut self, token: u32, score: Option<Scored>) -> bool;
}

impl<F: FnMut(u32) -> bool> Listener for F {
    fn on_token(&mut self, token: u32, _: Option<Scored>) -> bool {
        self(token)
    }
}

/// Continues `prompt`, giving each token to `listener` until that says `false`, a stop token comes or the limit is
/// reached. Returns how well the prompt was expected, if the listener wants to know.
///
/// A prompt that leaves no room is read whole, a context at a time, and the text goes on from its end. Between chunks
/// and tokens others on this thread have their [`turn`].
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
    listener: &mut dyn Listener,
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
    let wants = listener.wants();
    let keep = limits.context / 2;
    let mut session = Session::new(config, weights, ops, limits.context);
    let (mut reading, mut read) = (Reading::default(), 0);
    while read < prompt.len() {
        if session.room() == 0 && !roll(&mut session, &prompt[read - keep..read], listener).await? {
            return Ok(reading);
        }
        let next = &prompt[read..prompt.len().min(read + session.room().min(CHUNK))];
        read += next.len();
        let (more, scores) = match wants.prompt {
            Some(top) => {
                let scores = session.score(next, top).await?;
                (Reading::of(scores.iter().map(|s| -s.logprob)), scores)
            }
            None if wants.cost => (session.prefill(next).await?, Vec::new()),
            None => {
                session.feed(next)?;
                (Reading::default(), Vec::new())
            }
        };
        reading = Reading { nats: reading.nats + more.nats, tokens: reading.tokens + more.tokens };
        if !listener.on_read(scores) {
            return Ok(reading);
        }
        turn().await;
    }
    let mut seen = prompt.to_vec();
    for left in (0..limits.max_tokens).rev() {
        let token = session.sample(sampler).await?;
        if limits.stop.contains(&token) {
            break;
        }
        let score = match wants.text {
            Some(top) => Some(Scored::of(&session.logits().await?, token, top)),
            None => None,
        };
        if !listener.on_token(token, score) || left == 0 {
            break;
        }
        if session.room() == 0 && !roll(&mut session, &seen[seen.len() - keep..], listener).await? {
            break;
        }
        session.step(token)?;
        seen.push(token);
        turn().await;
    }
    Ok(reading)
}

/// Forgets everything but `tail`; `false` if the listener wants no more.
async fn roll<O: Remember>(session: &mut Session<'_, O>, tail: &[u32], listener: &mut dyn Listener) -> Result<bool>
where
    Error: From<O::Error>,
{
    session.restart();
    for chunk in tail.chunks(CHUNK) {
        session.feed(chunk)?;
        if !listener.on_read(Vec::new()) {
            return Ok(false);
        }
    }
    Ok(true)
}
