//! What a machine must do with a trained model: say and score what the CPU does. It is the one that the web page offers.

use sixpack_formats::Artifact;
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_runtime::generate::Limits;
use sixpack_runtime::metric::{Options, Text};
use sixpack_runtime::{Engine, Sampler, Sampling, now};

/// How a machine may differ in bits per byte.
pub(crate) const BITS: f64 = 1e-4;

const PROMPTS: [&str; 2] = ["The old man opened the door and", "It is a truth that"];

/// Not of the books it was trained on.
const TEXT: &str = "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing \
to do: once or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it";

/// What a machine made of a trained model.
#[derive(Debug)]
pub(crate) struct Made {
    /// The likeliest texts after the prompts.
    pub(crate) texts: Vec<String>,
    /// Of a text, with a sliding window.
    pub(crate) bits_per_byte: f64,
    /// Of the same text, read in contexts that remember keys and values.
    pub(crate) bits_per_byte_of_session: f64,
}

/// The model and its tokenizer.
pub(crate) fn model() -> (Artifact, Tokenizer) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/web/page/books.6pk");
    let artifact = Artifact::open(path).unwrap();
    let tokenizer = Tokenizer::from_model(artifact.model.tokenizer.as_deref().unwrap()).unwrap();
    (artifact, tokenizer)
}

/// Puts an engine with the model to work: 64 tokens from each prompt, and the score of a text.
pub(crate) fn make(engine: &mut Engine, tokenizer: &Tokenizer) -> Made {
    let ids = |text: &str| -> Vec<u32> { tokenizer.bos_id().into_iter().chain(tokenizer.encode(text)).collect() };
    let mut continued = |prompt: &&str| {
        let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }).unwrap();
        let limits = Limits { max_tokens: 64, context: 128, stop: &[] };
        let mut said = Vec::new();
        let mut on_token = |token| {
            said.extend_from_slice(tokenizer.piece_bytes(token));
            true
        };
        now(engine.generate(&ids(prompt), &limits, &mut sampler, &mut on_token)).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    };
    let texts = PROMPTS.iter().map(&mut continued).collect();
    let ids = ids(TEXT);
    let nats: f64 = now(engine.score(&ids, 64)).unwrap().into_iter().map(f64::from).sum();
    let bits_per_byte_of_session = nats / std::f64::consts::LN_2 / TEXT.len() as f64;
    let tokens: Vec<u16> = ids.iter().map(|&id| id as u16).collect();
    let bytes = tokenizer.byte_tables();
    let text = Text { tokens: &tokens, bytes: Some(&bytes), bos: tokenizer.bos_id() };
    let options = Options { seq_len: 64, stride: Some(32), batch: 2, max_tokens: None };
    let found = now(engine.evaluate(&text, &options, &mut |_| {})).unwrap();
    Made { texts, bits_per_byte: found.bits_per_byte.unwrap(), bits_per_byte_of_session }
}
