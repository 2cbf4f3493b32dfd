//! `run`: generate text.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_runtime::generate::Limits;
use sixpack_runtime::{Sampler, Sampling, TextStream, now};

use crate::args::{self, On};
use crate::loaded::{self, Loaded};
use crate::misuse::misuse;
use crate::say::say;

pub(crate) fn run(args: &args::Run) -> Result<()> {
    let sampling = sampling(args)?;
    let loaded = loaded::open(&args.model)?;
    let mut out = std::io::stdout();
    let spoken = speak(&loaded, &args.prompt, args.max_tokens, sampling, args.place.on(), &mut |text| {
        if args.json {
            return Ok(());
        }
        out.write_all(text.as_bytes())?;
        out.flush()
    })?;
    if args.json {
        say!("{}", serde_json::to_string(&spoken)?);
    } else {
        say!("");
        eprintln!("{}", spoken.summary());
    }
    Ok(())
}

fn sampling(args: &args::Run) -> Result<Sampling> {
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k.unwrap_or(0),
        top_p: args.top_p.unwrap_or(1.0),
        min_p: args.min_p.unwrap_or(0.0),
        seed: args.seed,
    };
    Sampler::new(sampling).map_err(misuse)?;
    Ok(sampling)
}

/// What was said, and how fast.
#[derive(Debug, Serialize)]
pub(crate) struct Spoken {
    /// Prompt and continuation.
    pub(crate) text: String,
    prompt_tokens: usize,
    generated_tokens: usize,
    tokens_per_second: f64,
    prompt_bits_per_token: Option<f64>,
    model_bytes: u64,
    device: String,
}

impl Spoken {
    fn summary(&self) -> String {
        let bits = self.prompt_bits_per_token.map_or("–".into(), |b| format!("{b:.2}"));
        format!(
            "{} tokens at {:.0} tokens/s on the {}; the prompt cost {bits} bits per token ({} tokens)",
            self.generated_tokens, self.tokens_per_second, self.device, self.prompt_tokens
        )
    }
}

/// Reads the prompt and streams prompt and continuation to `show` in whole characters.
pub(crate) fn speak(
    loaded: &Loaded,
    prompt: &str,
    max_tokens: usize,
    sampling: Sampling,
    on: On,
    show: &mut dyn FnMut(&str) -> std::io::Result<()>,
) -> Result<Spoken> {
    let tokenizer =
        loaded.tokenizer.as_ref().context("this model has no tokenizer, so it cannot read or write text")?;
    let config = &loaded.model.config;
    let mut engine = loaded::engine(&loaded.model, on)?;
    let mut ids: Vec<u32> = tokenizer.bos_id().into_iter().collect();
    ids.extend(tokenizer.encode(prompt));
    let stop: Vec<u32> = [tokenizer.bos_id(), tokenizer.eos_id()].into_iter().flatten().collect();
    let limits = Limits { max_tokens, context: config.train_seq_len.max(2), stop: &stop };
    let mut sampler = Sampler::new(sampling)?;
    let mut text = Text { tokenizer, stream: TextStream::new(), text: String::new(), show, failed: None };
    // The model reads no space at the end of a prompt; one that is shown would be doubled.
    text.say(prompt.trim_end());
    let (mut generated, mut first) = (0, None);
    let mut on_token = |id| {
        first.get_or_insert_with(Instant::now);
        generated += 1;
        text.push(id)
    };
    let reading = now(engine.generate(&ids, &limits, &mut sampler, &mut on_token))?;
    text.finish()?;
    let seconds = first.map_or(0.0, |at| at.elapsed().as_secs_f64());
    Ok(Spoken {
        text: text.text,
        prompt_tokens: ids.len(),
        generated_tokens: generated,
        tokens_per_second: if seconds > 0.0 { generated as f64 / seconds } else { 0.0 },
        prompt_bits_per_token: reading.bits_per_token(),
        model_bytes: loaded.model.bytes,
        device: engine.device().to_string(),
    })
}

/// Tokens on their way to being text.
struct Text<'a> {
    tokenizer: &'a Tokenizer,
    stream: TextStream,
    text: String,
    show: &'a mut dyn FnMut(&str) -> std::io::Result<()>,
    failed: Option<std::io::Error>,
}

impl Text<'_> {
    /// Adds a token; `false` where nobody reads any more.
    fn push(&mut self, id: u32) -> bool {
        let piece = self.stream.push(self.tokenizer.piece_bytes(id));
        self.say(&piece);
        self.failed.is_none()
    }

    fn say(&mut self, text: &str) {
        self.text.push_str(text);
        if let Err(error) = (self.show)(text) {
            self.failed = Some(error);
        }
    }

    fn finish(&mut self) -> Result<()> {
        let rest = self.stream.finish();
        self.say(&rest);
        match self.failed.take() {
            // A reader that has had enough (`| head`) is no failure.
            Some(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}
