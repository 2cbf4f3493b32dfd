//! Text to tokens to bits per byte: the metric on a model that has learnt nothing yet.
//!
//! `cargo run --release --example 1_score_a_text`

use sixpack_formats::ModelConfig;
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_formats::tokenizer::train::{TrainOptions, train};
use sixpack_runtime::cpu::Fast;
use sixpack_runtime::metric::{Options, Text, evaluate};
use sixpack_runtime::now;
use sixpack_train::{init, params};

const TEXT: &str = include_str!("../README.md");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A vocabulary of 400 pieces, as the bytes of a SentencePiece model that the official library reads too.
    let tokenizer = Tokenizer::from_model(&train([TEXT], &TrainOptions::new(400))?)?;
    let ids: Vec<u32> = tokenizer.bos_id().into_iter().chain(tokenizer.encode(TEXT)).collect();
    println!("{} bytes of text are {} tokens", TEXT.len(), ids.len());

    // The small preset with that vocabulary and its start values. A model is plain data until a machine loads it.
    let config = ModelConfig { vocab_size: tokenizer.vocab_size(), ..ModelConfig::small() };
    let model = params::into_model(&config, init(&config, 42), None)?;
    let mut ops = Fast::new(1)?;
    let weights = ops.load(&model);

    // Sliding windows: every target is scored once, with at least 192 tokens of context after the first window.
    let tokens: Vec<u16> = ids.iter().map(|&id| id as u16).collect();
    let tables = tokenizer.byte_tables();
    let text = Text { tokens: &tokens, bytes: Some(&tables), bos: tokenizer.bos_id() };
    let options = Options { seq_len: 256, stride: Some(64), batch: 4, max_tokens: None };
    let result = now(evaluate(&config, &weights, &mut ops, &text, &options, &mut |_| {}))?;
    let uniform = (tokenizer.vocab_size() as f64).ln();
    println!("{:.4} nats per token (knowing nothing: {uniform:.4})", result.loss_nats);
    println!("{:.4} bits per byte", result.bits_per_byte.expect("there is a tokenizer"));
    Ok(())
}
