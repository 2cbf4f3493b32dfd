//! Sessions: reading in parts gives what the full forward pass gives.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use proptest::prelude::*;
use sixpack_formats::{Model, ModelConfig, QuantizedMatrix, TensorData};
use sixpack_runtime::cpu::{Fast, Reference};
use sixpack_runtime::session::Session;
use sixpack_runtime::{Batch, Error, Pass, ReadBack, Remember, Weights, forward, model, now};

/// One golden sequence of a case.
fn sequence(case: &str) -> Vec<u32> {
    let tokens = &golden::arrays(&format!("{case}/forward.safetensors"))["tokens"];
    tokens.ids()[..tokens.shape[2] - 1].to_vec()
}

/// Logits of every position and nats of each token but the first, by the full pass.
fn full<O: ReadBack<Error = Error>>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    ids: &[u32],
) -> (Vec<f32>, Vec<f32>) {
    let h = forward(config, weights, ops, &Batch::new(ids, 1), Pass::FULL).unwrap();
    let logits = model::logits(config, weights, ops, &h).unwrap();
    let nll = ops.cross_entropy(&logits, &[&ids[1..], &[0]].concat()).unwrap();
    (now(ops.read(&logits)).unwrap(), now(ops.read(&nll)).unwrap()[..ids.len() - 1].to_vec())
}

/// Reads `ids` in parts of the given sizes, single tokens by `step`.
fn parts_equal_the_whole<O: Remember<Error = Error>>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    ids: &[u32],
    parts: impl IntoIterator<Item = usize>,
) {
    let (logits, nll) = full(config, weights, ops, ids);
    let mut session = Session::new(config, weights, ops, ids.len());
    for part in parts {
        let past = session.past();
        let part = &ids[past..ids.len().min(past + part)];
        if let [id] = part {
            session.step(*id).unwrap();
        } else {
            let reading = now(session.prefill(part)).unwrap();
            let expected = &nll[past.max(1) - 1..(past + part.len()).max(1) - 1];
            assert_eq!(reading.tokens, expected.len());
            let expected: f64 = expected.iter().map(|&x| f64::from(x)).sum();
            assert!((reading.nats - expected).abs() < 1e-3, "nats {} for {expected}", reading.nats);
        }
        if let Some(last) = session.past().checked_sub(1) {
            let expected = &logits[last * config.vocab_size..][..config.vocab_size];
            let worst =
                now(session.logits()).unwrap().iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "position {last}: logits differ by {worst}");
        }
        if session.room() == 0 {
            return;
        }
    }
    panic!("the parts do not make the whole");
}

macro_rules! sessions {
    ($name:ident, $new:expr) => {
        #[test]
        fn $name() {
            for case in golden::CASES {
                let (model, ids) = (golden::model(case), sequence(case));
                let mut ops = $new;
                let weights = ops.load(&model);
                for parts in [vec![1], vec![ids.len()], vec![7, 1, 1], vec![0, 2, 13]] {
                    let parts = parts.into_iter().cycle();
                    parts_equal_the_whole(&model.config, &weights, &mut ops, &ids, parts);
                }
            }
        }
    };
}

sessions!(reference_in_parts, Reference::new());
sessions!(fast_in_parts, Fast::new(1).unwrap());
sessions!(fast_in_parts_on_two_threads, Fast::new(2).unwrap());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn split_anywhere(case in 0usize..4, parts in proptest::collection::vec(1usize..9, 48)) {
        let case = golden::CASES[case];
        let (model, ids) = (golden::model(case), sequence(case));
        let mut ops = Fast::new(1).unwrap();
        let weights = ops.load(&model);
        parts_equal_the_whole(&model.config, &weights, &mut ops, &ids, parts);
    }
}

/// More than one chunk of a prompt, and a model whose matrices are codes: those of the full pass are multiplied
/// another way than those of a step.
#[test]
fn long_prompts_of_a_quantised_model() {
    let mut model = golden::model("tiny");
    quantise(&mut model);
    let ids: Vec<u32> = (0..700).map(|i| (i * 37 + i / 5) % 160).collect();
    let mut fast = Fast::new(1).unwrap();
    let weights = fast.load(&model);
    parts_equal_the_whole(&model.config, &weights, &mut fast, &ids, [1, 600, 3, 1, 95]);
    // And codes are the numbers they stand for.
    let found = full(&model.config, &weights, &mut fast, &ids[..40]);
    let mut plain = Reference::new();
    let weights = plain.load(&model);
    let expected = full(&model.config, &weights, &mut plain, &ids[..40]);
    let worst = found.0.iter().zip(&expected.0).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}

/// Rounds every matrix to int8.
fn quantise(model: &mut Model) {
    for spec in model.config.tensors().into_iter().filter(|s| s.shape.len() == 2 && s.shape[0] > 8) {
        let [rows, cols] = spec.shape[..] else { unreachable!() };
        let values = model.tensors[&spec.id].to_f32().into_owned();
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for row in values.chunks_exact(cols) {
            let scale = half::f16::from_f32(row.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 120.0);
            codes.extend(row.iter().map(|x| (x / scale.to_f32()).round() as i8));
            scales.push(scale);
        }
        let matrix = QuantizedMatrix::new(&spec.name(), [rows, cols], 127, codes, scales).unwrap();
        model.tensors.insert(spec.id, TensorData::Quantized(matrix));
    }
}

#[test]
fn the_context_has_an_end() {
    let model = golden::model("tiny");
    let mut ops = Fast::new(1).unwrap();
    let weights = ops.load(&model);
    let mut session = Session::new(&model.config, &weights, &mut ops, 8);
    assert!(matches!(now(session.logits()), Err(Error::Option { field: "session", .. })));
    now(session.prefill(&[1, 2, 3, 4, 5])).unwrap();
    let before = now(session.logits()).unwrap();
    let message = now(session.prefill(&[1, 2, 3, 4])).unwrap_err().to_string();
    assert_eq!(message, "the context is full: it holds 8 tokens, 5 are in it and 4 more were given");
    assert!(matches!(session.step(160), Err(Error::Token { id: 160, .. })));
    assert_eq!((session.past(), session.room(), now(session.logits()).unwrap()), (5, 3, before));
    now(session.prefill(&[1, 2])).unwrap();
    session.step(9).unwrap();
    assert!(matches!(session.step(9), Err(Error::ContextFull { limit: 8, past: 8, more: 1 })));
    // The machine forgets when the session ends.
    drop(session);
    let h = forward(&model.config, &weights, &mut ops, &Batch::new(&[1, 2, 3, 4], 2), Pass::FULL).unwrap();
    assert_eq!((h.sequences, h.start), (2, 0));
}
