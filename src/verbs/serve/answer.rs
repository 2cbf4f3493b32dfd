//! What is answered: completions as OpenAI spells them, whole or in chunks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::app::{App, unix_time};
use super::assembly::{Piece, Told};

/// Why a completion ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Finish {
    /// A stop string, or the end of the document.
    Stop,
    /// The limit of tokens.
    Length,
}

/// Tokens read and generated; those that begin a document are counted.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    pub(super) total_tokens: usize,
}

/// What all parts of an answer have in common.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Head {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
}

/// An answer, or a chunk of one.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<Choice>,
    /// Missing where it was not asked for; `null` in a stream's chunks but the last where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

/// A completion, or a part of one.
#[derive(Debug, Default, Serialize)]
pub(super) struct Choice {
    text: String,
    index: usize,
    logprobs: Option<Logprobs>,
    finish_reason: Option<Finish>,
}

#[derive(Debug, Default, Serialize)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    text_offset: Vec<usize>,
}

impl Head {
    /// Of a new answer.
    pub(super) fn new(app: &App) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("cmpl-{:x}-{count}", app.model.created),
            object: "text_completion",
            created: unix_time(),
            model: app.model.name.clone(),
            system_fingerprint: format!("sixpack-{}", super::VERSION),
        }
    }

    /// The whole answer.
    pub(super) fn whole(&self, choices: Vec<Choice>, usage: Usage) -> Answer<'_> {
        Answer { head: self, choices, usage: Some(Some(usage)) }
    }

    /// A part of the answer; `usage` says whether the stream will end with it.
    pub(super) fn chunk(&self, choice: Choice, usage: bool) -> Answer<'_> {
        Answer { head: self, choices: vec![choice], usage: usage.then_some(None) }
    }

    /// The end of a stream that ends with its usage.
    pub(super) fn usage(&self, usage: Usage) -> Answer<'_> {
        Answer { head: self, choices: Vec::new(), usage: Some(Some(usage)) }
    }
}

impl Choice {
    /// Completion `index`, of which nothing is known.
    pub(super) fn new(index: usize) -> Self {
        Self { index, ..Self::default() }
    }

    /// Adds to it; tokens only where `logprobs` are wanted.
    pub(super) fn add(&mut self, piece: Piece, finish: Option<Finish>, logprobs: bool) {
        self.text.push_str(&piece.text);
        self.finish_reason = finish;
        if logprobs {
            self.logprobs.get_or_insert_default().extend(piece.tokens);
        }
    }
}

impl Logprobs {
    fn extend(&mut self, tokens: Vec<Told>) {
        for told in tokens {
            self.top_logprobs.push(told.logprob.map(|logprob| {
                // The token itself is always there, so there may be one more than was asked for. Of two tokens with
                // the same text (a byte, a letter) the likelier counts.
                let mut top = BTreeMap::from([(told.token.clone(), logprob)]);
                for (token, logprob) in told.top {
                    top.entry(token).and_modify(|x: &mut f32| *x = x.max(logprob)).or_insert(logprob);
                }
                top
            }));
            self.tokens.push(told.token);
            self.token_logprobs.push(told.logprob);
            self.text_offset.push(told.offset);
        }
    }
}
