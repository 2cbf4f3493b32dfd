//! What is asked of `/v1/completions`: every field is read and checked here, once, before anything is done.

use std::hash::{BuildHasher, Hasher, RandomState};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sixpack_runtime::{Error, Sampler, Sampling};

use super::error::ApiError;
use crate::args::Limits;

/// Stop strings of a request at most, and bytes of each.
const MAX_STOPS: (usize, usize) = (16, 256);

/// Most of the likeliest tokens that are told with each, as OpenAI has it.
const MAX_LOGPROBS: usize = 5;

/// A request that makes sense.
#[derive(Debug)]
pub(super) struct Completion {
    /// Which model is meant.
    pub(super) model: String,
    /// What to continue.
    pub(super) prompts: Vec<Prompt>,
    /// Continuations of each prompt.
    pub(super) n: usize,
    /// Tokens of each continuation at most.
    pub(super) max_tokens: usize,
    /// How tokens are chosen; the `i`th continuation of a prompt has a seed that is `i` higher.
    pub(super) sampling: Sampling,
    /// Texts that end a continuation and are no part of it.
    pub(super) stop: Vec<String>,
    /// How many of the likeliest tokens are told with each, if log-probabilities are.
    pub(super) logprobs: Option<usize>,
    /// Whether the prompt is part of the answer, and scored with it.
    pub(super) echo: bool,
    /// Whether the answer is sent as it is made.
    pub(super) stream: bool,
    /// Whether a stream ends with its usage.
    pub(super) include_usage: bool,
}

/// Text or tokens to continue.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Prompt {
    /// Text, which begins a document.
    Text(String),
    /// Tokens, as they are.
    Ids(Vec<u32>),
}

impl Completion {
    /// Reads a request.
    pub(super) fn parse(body: &[u8], limits: &Limits) -> Result<Self, ApiError> {
        let body = serde_json::from_slice(body)
            .map_err(|e| ApiError::body(format!("expected a JSON object as the body: {e}")))?;
        let mut fields = Fields(body);
        let model = fields.take("model", "a string")?;
        let request = Self {
            model: model.ok_or_else(|| ApiError::field("model", "a request names its model"))?,
            prompts: prompts(fields.0.remove("prompt").unwrap_or_default())?,
            n: fields.take("n", "a whole number of at least 1")?.unwrap_or(1),
            max_tokens: fields.take("max_tokens", "a whole number of at least 0")?.unwrap_or(16),
            sampling: sampling(&mut fields)?,
            stop: stop(fields.0.remove("stop").unwrap_or_default())?,
            logprobs: fields.take("logprobs", "a whole number of at least 0")?,
            echo: fields.take("echo", "true or false")?.unwrap_or(false),
            stream: fields.take("stream", "true or false")?.unwrap_or(false),
            include_usage: stream_options(&mut fields)?,
        };
        if request.include_usage && !request.stream {
            return Err(ApiError::field("stream_options", "expected only where `stream` is true"));
        }
        fields.nothing_else(request.n)?;
        request.check(limits)?;
        Ok(request)
    }

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        let most = |param, what, limit: usize, found: usize| {
            if found <= limit { Ok(()) } else { Err(ApiError::too_much(param, what, limit, found)) }
        };
        if self.n == 0 {
            return Err(ApiError::field("n", "expected at least 1, found 0"));
        }
        let choices = usize::from(limits.max_choices);
        most("prompt", "prompts", choices, self.prompts.len())?;
        most("n", "completions in all", choices, self.n.saturating_mul(self.prompts.len()))?;
        most("max_tokens", "tokens", limits.max_tokens, self.max_tokens)?;
        most("logprobs", "tokens", MAX_LOGPROBS, self.logprobs.unwrap_or(0))?;
        most("stop", "strings", MAX_STOPS.0, self.stop.len())?;
        match self.stop.iter().find(|s| s.is_empty() || s.len() > MAX_STOPS.1) {
            Some(s) => Err(ApiError::field(
                "stop",
                format_args!("expected strings of 1 to {} bytes, found one of {}", MAX_STOPS.1, s.len()),
            )),
            None => Ok(()),
        }
    }
}

/// The fields that have not been read yet.
struct Fields(Map<String, Value>);

impl Fields {
    /// A field that may be missing or `null`.
    fn take<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Result<Option<T>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::deserialize(&value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(ApiError::field(name, format_args!("expected {expected}, found {}", shown(&value)))),
            },
        }
    }

    /// Refuses what would be ignored; what OpenAI has and this server has not may be there if it asks for nothing.
    fn nothing_else(mut self, n: usize) -> Result<(), ApiError> {
        self.0.remove("user");
        for (name, value) in self.0 {
            let asks_nothing = match (name.as_str(), &value) {
                (_, Value::Null) => true,
                ("suffix", Value::String(text)) => text.is_empty(),
                ("logit_bias", Value::Object(biases)) => biases.is_empty(),
                ("presence_penalty" | "frequency_penalty", Value::Number(x)) => x.as_f64() == Some(0.0),
                ("best_of", Value::Number(x)) => x.as_u64() == Some(n as u64),
                _ => false,
            };
            if !asks_nothing {
                return Err(ApiError::field(&name, "this server has no such option"));
            }
        }
        Ok(())
    }
}

fn sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    let plain = Sampling::default();
    // A negative seed is one of 2⁶⁴ as well.
    let seed = fields.take::<i128>("seed", "a whole number")?.map(|seed| seed as u64);
    let sampling = Sampling {
        temperature: fields.take("temperature", "a number")?.unwrap_or(plain.temperature),
        top_k: fields.take("top_k", "a whole number of at least 0")?.unwrap_or(plain.top_k),
        top_p: fields.take("top_p", "a number")?.unwrap_or(plain.top_p),
        min_p: fields.take("min_p", "a number")?.unwrap_or(plain.min_p),
        // The standard library's hash maps are keyed by the system's random numbers.
        seed: seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()),
    };
    match Sampler::new(sampling) {
        Ok(_) => Ok(sampling),
        Err(Error::Option { field, expected, found }) => {
            Err(ApiError::field(field, format_args!("expected {expected}, found {found}")))
        }
        Err(error) => Err(ApiError::body(error.to_string())),
    }
}

fn stream_options(fields: &mut Fields) -> Result<bool, ApiError> {
    let mut options = Fields(fields.take("stream_options", "an object")?.unwrap_or_default());
    let include_usage = options.take("include_usage", "true or false")?.unwrap_or(false);
    // OpenAI pads its stream against eavesdroppers unless told not to; here there is nothing to switch off.
    options.0.remove("include_obfuscation");
    match options.0.keys().next() {
        Some(name) => Err(ApiError::field("stream_options", format_args!("this server has no option `{name}`"))),
        None => Ok(include_usage),
    }
}

/// A string, some strings, token ids, or some lists of token ids.
fn prompts(value: Value) -> Result<Vec<Prompt>, ApiError> {
    let wrong = |found: &Value| {
        let expected = "a string, a list of strings, a list of token ids or a list of such lists, not empty";
        ApiError::field("prompt", format_args!("expected {expected}, found {}", shown(found)))
    };
    let ids = |value: &Value| Vec::<u32>::deserialize(value).map(Prompt::Ids);
    match &value {
        // As with OpenAI, no prompt is an empty document.
        Value::Null => Ok(vec![Prompt::Text(String::new())]),
        Value::String(text) => Ok(vec![Prompt::Text(text.clone())]),
        Value::Array(items) => match items.first() {
            Some(Value::Number(_)) => Ok(vec![ids(&value).map_err(|_| wrong(&value))?]),
            Some(_) => {
                let prompt = |item: &Value| match item {
                    Value::String(text) => Ok(Prompt::Text(text.clone())),
                    item => ids(item).map_err(|_| wrong(&value)),
                };
                items.iter().map(prompt).collect()
            }
            None => Err(wrong(&value)),
        },
        _ => Err(wrong(&value)),
    }
}

fn stop(value: Value) -> Result<Vec<String>, ApiError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text]),
        list => Vec::deserialize(&list).map_err(|_| {
            ApiError::field("stop", format_args!("expected a string or a list of strings, found {}", shown(&list)))
        }),
    }
}

/// A value in an error message.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
