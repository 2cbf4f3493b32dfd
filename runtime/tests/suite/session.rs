//! What every backend must keep to in sessions: reading in parts gives what the full forward pass gives.

use sixpack_formats::{Model, ModelConfig, QuantizedMatrix, TensorData};
use sixpack_runtime::session::Session;
use sixpack_runtime::{Batch, Error, Pass, ReadBack, Remember, Weights, forward, model, now};

use super::golden;

/// One golden sequence of a case.
pub(crate) fn sequence(case: &str) -> Vec<u32> {
    let tokens = &golden::arrays(&format!("{case}/forward.safetensors"))["tokens"];
    tokens.ids()[..tokens.shape[2] - 1].to_vec()
}

/// Logits of every position and nats of each token but the first, by the full pass.
pub(crate) fn full<O: ReadBack<Error = Error>>(
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

/// Reads `ids` in parts of the given sizes, single tokens by `step`, on a machine that remembers in f32.
pub(crate) fn parts_equal_the_whole<O: Remember<Error = Error>>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    ids: &[u32],
    parts: impl IntoIterator<Item = usize>,
) {
    parts_come_near_the_whole(config, weights, ops, ids, parts, [1e-4, 1e-3]);
}

/// As [`parts_equal_the_whole`], with every second part not scored, to so much of a logit, and in nats of a part.
pub(crate) fn parts_come_near_the_whole<O: Remember<Error = Error>>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    ids: &[u32],
    parts: impl IntoIterator<Item = usize>,
    [logit, nats]: [f64; 2],
) {
    let (logits, nll) = full(config, weights, ops, ids);
    let mut session = Session::new(config, weights, ops, ids.len());
    for (i, part) in parts.into_iter().enumerate() {
        let past = session.past();
        let part = &ids[past..ids.len().min(past + part)];
        if let [id] = part {
            session.step(*id).unwrap();
        } else if i % 2 == 1 {
            session.feed(part).unwrap();
        } else {
            let reading = now(session.prefill(part)).unwrap();
            let expected = &nll[past.max(1) - 1..(past + part.len()).max(1) - 1];
            assert_eq!(reading.tokens, expected.len());
            let expected: f64 = expected.iter().map(|&x| f64::from(x)).sum();
            assert!((reading.nats - expected).abs() < nats, "nats {} for {expected}", reading.nats);
        }
        if let Some(last) = session.past().checked_sub(1) {
            let expected = &logits[last * config.vocab_size..][..config.vocab_size];
            let worst =
                now(session.logits()).unwrap().iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
            assert!(f64::from(worst) < logit, "position {last}: logits differ by {worst}");
        }
        if session.room() == 0 {
            return;
        }
    }
    panic!("the parts do not make the whole");
}

/// Rounds every matrix to int8.
pub(crate) fn quantise(model: &mut Model) {
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
