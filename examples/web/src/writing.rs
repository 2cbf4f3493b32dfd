//! Text from a model.

use js_sys::Function;
use serde::{Deserialize, Serialize};
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_runtime::generate::{Limits, Listener};
use sixpack_runtime::{Sampler, Sampling, Scored, TextStream};
use wasm_bindgen::JsValue;

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
        let mut reader = Reader { tokenizer, on_text, stream: TextStream::new(), ids: Vec::new(), thrown: None };
        let reading = in_turns(turn, engine.generate(&ids, &limits, &mut sampler, &mut reader)).await??;
        let rest = reader.stream.finish();
        reader.tell(&rest);
        if let Some(error) = reader.thrown {
            return Err(error.into());
        }
        Ok(json(&Written {
            ids: reader.ids,
            prompt_tokens: ids.len(),
            prompt_bits_per_token: reading.bits_per_token(),
        }))
    }
}

/// Who reads: the page, which may have had enough.
struct Reader<'a> {
    tokenizer: &'a Tokenizer,
    on_text: &'a Function,
    stream: TextStream,
    ids: Vec<u32>,
    thrown: Option<JsValue>,
}

impl Reader<'_> {
    /// Gives it text; `false` ends everything.
    fn tell(&mut self, text: &str) -> bool {
        tell(self.on_text, text).unwrap_or_else(|error| {
            self.thrown = Some(error);
            false
        })
    }
}

impl Listener for Reader<'_> {
    fn on_read(&mut self, _: Vec<Scored>) -> bool {
        self.tell("")
    }

    fn on_token(&mut self, token: u32, _: Option<Scored>) -> bool {
        self.ids.push(token);
        let text = self.stream.push(self.tokenizer.piece_bytes(token));
        self.tell(&text)
    }
}
