//! Text from a model.

use js_sys::Function;
use serde::{Deserialize, Serialize};
use sixpack_runtime::generate::Limits;
use sixpack_runtime::{Sampler, Sampling, TextStream};

use crate::failure::Failure;
use crate::turns::in_turns;
use crate::{Model, json, tell};

/// What to write.
#[derive(Debug, Deserialize)]
pub(crate) struct Order {
    prompt: String,
    max_tokens: usize,
    temperature: f32,
    seed: u64,
}

/// What was written.
#[derive(Debug, Serialize)]
pub(crate) struct Written {
    /// The tokens, in order.
    ids: Vec<u32>,
    prompt_tokens: usize,
    /// How well the prompt was expected.
    prompt_bits_per_token: Option<f64>,
}

impl Model {
    pub(crate) async fn continue_prompt(&mut self, order: &str, on_text: &Function) -> Result<String, Failure> {
        let order: Order = serde_json::from_str(order).expect("the worker sends an order");
        let ids = self.ids(&order.prompt);
        if ids.is_empty() {
            return Err(Failure::NothingToContinue);
        }
        let Self { engine, tokenizer, turn, .. } = self;
        let stop: Vec<u32> = [tokenizer.bos_id(), tokenizer.eos_id()].into_iter().flatten().collect();
        let context = engine.config().train_seq_len.max(2);
        let limits = Limits { max_tokens: order.max_tokens, context, stop: &stop };
        let sampling = Sampling { temperature: order.temperature, seed: order.seed, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling)?;
        let (mut stream, mut written, mut thrown) = (TextStream::new(), Vec::new(), None);
        let mut on_token = |id| {
            written.push(id);
            tell(on_text, &stream.push(tokenizer.piece_bytes(id))).unwrap_or_else(|error| {
                thrown = Some(error);
                false
            })
        };
        let reading = in_turns(turn, engine.generate(&ids, &limits, &mut sampler, &mut on_token)).await??;
        if let Some(error) = thrown {
            return Err(error.into());
        }
        tell(on_text, &stream.finish())?;
        Ok(json(&Written { ids: written, prompt_tokens: ids.len(), prompt_bits_per_token: reading.bits_per_token() }))
    }
}
