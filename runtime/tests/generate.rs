//! Generated text is what the full forward pass would choose, also past the end of the context.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use sixpack_runtime::cpu::Fast;
use sixpack_runtime::generate::{Limits, generate};
use sixpack_runtime::{Batch, Error, Pass, ReadBack, Sampler, Sampling, forward, model, now};

fn greedy() -> Sampler {
    Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }).unwrap()
}

/// The likeliest token after `ids`, by a full pass over the last of them that the context holds.
fn likeliest(m: &sixpack_formats::Model, ids: &[u32], context: usize) -> u32 {
    let mut ops = Fast::new(1).unwrap();
    let weights = ops.load(m);
    let batch = Batch { ids, sequences: 1, context };
    let h = forward(&m.config, &weights, &mut ops, &batch, Pass { last: Some(1), ..Pass::FULL }).unwrap();
    let logits = model::logits(&m.config, &weights, &mut ops, &h).unwrap();
    let logits = now(ops.read(&logits)).unwrap();
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

#[test]
fn greedy_text_is_the_argmax_of_the_full_pass_and_rolls_over() {
    let m = golden::model("tiny");
    let prompt: Vec<u32> = golden::arrays("tiny/forward.safetensors")["tokens"].ids()[..21].to_vec();
    let context = 16;
    let mut ops = Fast::new(1).unwrap();
    let weights = ops.load(&m);
    let mut text = Vec::new();
    let limits = Limits { max_tokens: 20, context, stop: &[] };
    let mut on_token = |t| {
        text.push(t);
        true
    };
    let reading = now(generate(&m.config, &weights, &mut ops, &prompt, &limits, &mut greedy(), &mut on_token)).unwrap();
    assert_eq!((text.len(), reading.tokens), (20, prompt.len() - 1));
    // What the model sees: a full context, then its last half and what follows.
    let mut window = prompt[..context].to_vec();
    for (i, &token) in prompt[context..].iter().chain(&text).enumerate() {
        if i >= prompt.len() - context {
            assert_eq!(token, likeliest(&m, &window, context), "token {i}");
        }
        if window.len() == context {
            window.drain(..context / 2);
        }
        window.push(token);
    }
}

#[test]
fn it_ends_where_it_is_told_to() {
    let m = golden::model("tiny");
    let mut ops = Fast::new(1).unwrap();
    let weights = ops.load(&m);
    let mut all = Vec::new();
    let mut run = |stop: &[u32], max_tokens, keep: usize| {
        all.clear();
        let limits = Limits { max_tokens, context: 48, stop };
        let mut on_token = |t| {
            all.push(t);
            all.len() < keep
        };
        now(generate(&m.config, &weights, &mut ops, &[3, 1, 4], &limits, &mut greedy(), &mut on_token)).unwrap();
        all.clone()
    };
    let text = run(&[], 8, 100);
    assert_eq!(text.len(), 8);
    assert_eq!(run(&[], 8, 3), text[..3]);
    let first = text.iter().position(|t| *t == text[5]).unwrap();
    assert_eq!(run(&[text[5]], 8, 100), text[..first]);
    let limits = Limits { max_tokens: 1, context: 48, stop: &[] };
    let error = now(generate(&m.config, &weights, &mut ops, &[], &limits, &mut greedy(), &mut |_| true)).unwrap_err();
    assert!(matches!(error, Error::Option { field: "prompt", .. }), "{error}");
}
