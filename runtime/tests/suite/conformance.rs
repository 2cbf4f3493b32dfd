//! What every backend must conform to: the golden vectors of the reference implementation.

use sixpack_formats::ModelConfig;
use sixpack_runtime::{Batch, Pass, ReadBack, Weights, forward, model, now};

use super::golden;

/// Largest difference from the goldens allowed in f32.
const GOLDEN: f32 = 1e-4;

/// The largest difference, with its place in the message.
fn assert_near(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance, "{what}[{i}]: found {f}, expected {e}");
    }
}

/// Inputs and targets of `tokens[0]` of a case's forward vectors.
fn sequences(tokens: &golden::Array) -> (usize, Vec<u32>, Vec<u32>) {
    let [_, sequences, len] = tokens.shape[..] else { panic!("tokens {:?}", tokens.shape) };
    let first = &tokens.ids()[..sequences * len];
    let inputs = first.chunks_exact(len).flat_map(|s| s[..len - 1].to_vec()).collect();
    let targets = first.chunks_exact(len).flat_map(|s| s[1..].to_vec()).collect();
    (sequences, inputs, targets)
}

/// Hidden states, logits and losses of a case are the golden ones.
pub(crate) fn goldens<O: ReadBack<Error = sixpack_runtime::Error>>(
    case: &str,
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
) {
    let arrays = golden::arrays(&format!("{case}/forward.safetensors"));
    let meta = golden::meta(case);
    let (sequences, inputs, targets) = sequences(&arrays["tokens"]);
    let modes = [("plain", false), ("recur", true)];
    let recurs = !golden::config(case).recur_layers.is_empty();
    for (mode, recurrence) in modes.into_iter().filter(|(_, recurrence)| recurs || !recurrence) {
        let check = |what: &str, found: Vec<f32>| {
            assert_near(&format!("{case} {mode}.{what}"), &found, &arrays[&format!("{mode}.{what}")].data, GOLDEN);
        };
        let order: Vec<usize> = serde_json::from_value(meta[format!("{mode}.virtual_layers")].clone()).unwrap();
        assert_eq!(config.virtual_layers(recurrence), order);
        let pass = Pass { recurrence, last: None };
        let h = forward(config, weights, ops, &Batch::new(&inputs, sequences), pass).unwrap();
        check("hidden", now(ops.read(&h)).unwrap());
        let logits = model::logits(config, weights, ops, &h).unwrap();
        check("logits", now(ops.read(&logits)).unwrap());
        let nll = model::nll(config, weights, ops, &h, &targets).unwrap();
        let nll = now(ops.read(&nll)).unwrap();
        let loss = nll.iter().map(|&x| f64::from(x)).sum::<f64>() / nll.len() as f64;
        let expected = meta[format!("{mode}.loss")].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-5, "{case} {mode}.loss: found {loss}, expected {expected}");
        check("nll", nll);
    }
}

/// The last positions alone are the last positions of all.
pub(crate) fn narrowed<O: ReadBack<Error = sixpack_runtime::Error>>(
    case: &str,
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
) {
    let arrays = golden::arrays(&format!("{case}/forward.safetensors"));
    let (sequences, inputs, _) = sequences(&arrays["tokens"]);
    let batch = Batch::new(&inputs, sequences);
    let all = forward(config, weights, ops, &batch, Pass::FULL).unwrap();
    for last in [1, 7, batch.len()] {
        let h = forward(config, weights, ops, &batch, Pass { last: Some(last), ..Pass::FULL }).unwrap();
        let expected = ops.tail(&all, last).unwrap();
        assert_near(
            &format!("{case} last {last}"),
            &now(ops.read(&h)).unwrap(),
            &now(ops.read(&expected)).unwrap(),
            1e-5,
        );
    }
}

/// A token outside the vocabulary is named, as input and as target.
pub(crate) fn refuses_foreign_tokens<O: ReadBack<Error = sixpack_runtime::Error>>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
) {
    let vocab = config.vocab_size as u32;
    let Err(error) = forward(config, weights, ops, &Batch::new(&[0, 1, vocab], 1), Pass::FULL) else {
        panic!("token {vocab} was embedded")
    };
    let expected = format!("token 2: expected an id below the vocabulary's size {vocab}, found {vocab}");
    assert_eq!(error.to_string(), expected);
    let h = forward(config, weights, ops, &Batch::new(&[0, 1], 1), Pass::FULL).unwrap();
    let Err(error) = model::nll(config, weights, ops, &h, &[1, u32::MAX]) else {
        panic!("a foreign target was scored")
    };
    assert!(error.to_string().starts_with("token 1: "), "{error}");
}
