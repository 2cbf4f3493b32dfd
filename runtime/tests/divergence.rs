//! The comparison of two models against a naive one.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use sixpack_formats::{Model, TensorData, TensorId};
use sixpack_runtime::cpu::{Fast, Reference};
use sixpack_runtime::divergence::{Divergence, Loaded, divergence};
use sixpack_runtime::metric::Options;
use sixpack_runtime::{Batch, Error, Pass, forward, model, now};

const OPTIONS: Options = Options { seq_len: 16, stride: None, batch: 3, max_tokens: None };

/// The model with another table of embeddings.
fn changed(model: &Model) -> Model {
    let mut changed = model.clone();
    let Some(TensorData::F32(table)) = changed.tensors.get_mut(&TensorId::TokenEmbedding) else { panic!("f32") };
    table.iter_mut().enumerate().for_each(|(i, x)| *x += 0.2 * ((i * 37 % 11) as f32 - 5.0));
    changed
}

fn compare(p: &Model, q: &Model, tokens: &[u16], options: &Options) -> Result<Divergence, Error> {
    let mut ops = Fast::new(2).unwrap();
    let weights = [ops.load(p), ops.load(q)];
    let p = Loaded { config: &p.config, weights: &weights[0] };
    let q = Loaded { config: &q.config, weights: &weights[1] };
    now(divergence(&p, &q, &mut ops, tokens, options, &mut |_, _| {}))
}

/// One window at a time on the plain interpreter, probabilities first.
fn naive(p: &Model, q: &Model, tokens: &[u16], seq_len: usize) -> (f64, f64) {
    let probabilities = |model: &Model, ids: &[u32]| -> Vec<Vec<f64>> {
        let mut ops = Reference::new();
        let weights = ops.load(model);
        let h = forward(&model.config, &weights, &mut ops, &Batch::new(ids, 1), Pass::FULL).unwrap();
        let logits = model::logits(&model.config, &weights, &mut ops, &h).unwrap();
        let softmax = |row: &[f32]| {
            let exp: Vec<f64> = row.iter().map(|&x| f64::from(x).exp()).collect();
            let sum: f64 = exp.iter().sum();
            exp.into_iter().map(|e| e / sum).collect()
        };
        logits.data.chunks_exact(model.config.vocab_size).map(softmax).collect()
    };
    let argmax = |p: &[f64]| (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b]));
    let (mut kl, mut agree, mut n) = (0.0, 0.0, 0.0);
    for window in tokens[..tokens.len() - 1].chunks_exact(seq_len) {
        let ids: Vec<u32> = window.iter().map(|&id| id.into()).collect();
        for (p, q) in probabilities(p, &ids).iter().zip(probabilities(q, &ids)) {
            kl += p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
            agree += f64::from(u8::from(argmax(p) == argmax(&q)));
            n += 1.0;
        }
    }
    (kl / n, agree / n)
}

#[test]
fn agrees_with_the_definition() {
    let model = golden::model("tiny");
    let other = changed(&model);
    let tokens: Vec<u16> = (0..147u16).map(|i| i * 31 % 160).collect();
    let (kl, top1) = naive(&model, &other, &tokens, OPTIONS.seq_len);
    for batch in [1, 3, 64] {
        let found = compare(&model, &other, &tokens, &Options { batch, ..OPTIONS }).unwrap();
        assert_eq!(found.positions, 144, "whole windows of the 146 positions with a next token");
        assert!((found.kl_nats - kl).abs() < 1e-5 * kl.max(1.0) && kl > 1e-3, "{found:?}, expected {kl}");
        assert!((found.top1 - top1).abs() < 0.01 && top1 < 1.0, "{found:?}, expected {top1}");
        assert!(found.kl_max > found.kl_nats);
    }
    let few = compare(&model, &other, &tokens, &Options { max_tokens: Some(40), ..OPTIONS }).unwrap();
    assert_eq!(few.positions, 32);
}

#[test]
fn a_model_is_no_distance_from_itself() {
    let model = golden::model("tiny");
    let tokens: Vec<u16> = (0..60).collect();
    let found = compare(&model, &model, &tokens, &OPTIONS).unwrap();
    assert_eq!((found.kl_nats, found.kl_max, found.top1), (0.0, 0.0, 1.0));
    assert!(matches!(compare(&model, &model, &tokens[..9], &OPTIONS), Err(Error::TooFewTokens { .. })));
    assert!(matches!(compare(&model, &model, &[999; 20], &OPTIONS), Err(Error::Token { id: 999, .. })));
    let none = Options { seq_len: 0, ..OPTIONS };
    assert!(matches!(compare(&model, &model, &tokens, &none), Err(Error::Option { field: "seq_len", .. })));
}
