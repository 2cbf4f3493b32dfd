//! Generated text is what the full forward pass would choose, also past the end of the context.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use sixpack_runtime::cpu::Fast;
use sixpack_runtime::generate::{Limits, Listener, Wants, generate};
use sixpack_runtime::{Batch, Error, Pass, ReadBack, Sampler, Sampling, Scored, forward, model, now};

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

/// Takes everything there is to take.
#[derive(Default)]
struct Curious {
    prompt: Vec<Scored>,
    text: Vec<Scored>,
    reads: usize,
    reads_at_most: usize,
}

impl Listener for Curious {
    fn wants(&self) -> Wants {
        Wants { cost: false, prompt: Some(2), text: Some(3) }
    }

    fn on_read(&mut self, scores: Vec<Scored>) -> bool {
        self.prompt.extend(scores);
        self.reads += 1;
        self.reads < self.reads_at_most
    }

    fn on_token(&mut self, token: u32, score: Option<Scored>) -> bool {
        let score = score.expect("scores were wanted");
        assert_eq!(score.id, token);
        self.text.push(score);
        true
    }
}

#[test]
fn a_listener_hears_how_likely_each_token_was() {
    let m = golden::model("tiny");
    let prompt: Vec<u32> = golden::arrays("tiny/forward.safetensors")["tokens"].ids()[..21].to_vec();
    let mut ops = Fast::new(1).unwrap();
    let weights = ops.load(&m);
    let limits = Limits { max_tokens: 12, context: 16, stop: &[] };
    let mut run = |listener: &mut dyn Listener| {
        now(generate(&m.config, &weights, &mut ops, &prompt, &limits, &mut greedy(), listener)).unwrap()
    };
    let mut plain = Vec::new();
    let expected = run(&mut |token| {
        plain.push(token);
        true
    });
    let mut heard = Curious { reads_at_most: 100, ..Curious::default() };
    let reading = run(&mut heard);
    assert_eq!(heard.text.iter().map(|s| s.id).collect::<Vec<_>>(), plain, "listening changes nothing");
    assert_eq!(heard.prompt.iter().map(|s| s.id).collect::<Vec<_>>(), prompt[1..]);
    assert!((reading.nats - expected.nats).abs() < 1e-3 && reading.tokens == expected.tokens);
    let sum: f64 = heard.prompt.iter().map(|s| f64::from(-s.logprob)).sum();
    assert!((sum - expected.nats).abs() < 1e-3, "{sum} for {}", expected.nats);
    for score in &heard.text {
        assert_eq!((score.top.len(), score.top[0]), (3, (score.id, score.logprob)), "greedy takes the likeliest");
    }
    assert!(heard.prompt.iter().all(|s| s.top.len() == 2 && s.top[0].1 >= s.logprob));

    let mut bored = Curious { reads_at_most: 1, ..Curious::default() };
    assert_eq!(run(&mut bored).tokens, 15);
    assert_eq!((bored.prompt.len(), bored.text.len()), (15, 0), "it ends within the prompt");
}
