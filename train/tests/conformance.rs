//! The CPU engine against the golden vectors of the reference implementation.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use golden::{Array, CASES};
use sixpack_formats::TensorSpec;
use sixpack_runtime::{Batch, Pass, ReadBack, Weights};
use sixpack_train::optim::{self, AdamW, Coefficients, Groups, Matrix, Muon, NewtonSchulz, Now};
use sixpack_train::{CandleOps, CpuEngine, Optimizer, Params, Sequences, params};

const TOLERANCE: f64 = 1e-4;

/// The batches of `forward.safetensors`: `tokens [4, B, T + 1]`.
fn batches(case: &str) -> Vec<Sequences> {
    let forward = golden::arrays(&format!("{case}/forward.safetensors"));
    let tokens = &forward["tokens"];
    let ids = tokens.ids();
    let len = tokens.shape[2] - 1;
    ids.chunks_exact(ids.len() / tokens.shape[0]).map(|windows| Sequences::from_windows(windows, len)).collect()
}

/// Asserts that each tensor agrees with its golden sample, relative to the tensor's norm.
fn assert_close(what: &str, found: &Params, golden: &BTreeMap<String, Array>, kind: &str) {
    for (id, tensor) in found {
        let Some(expected) = golden.get(&format!("{kind}/{id}")) else {
            assert!(tensor.iter().all(|&x| x == 0.0), "{what}: the reference has no {kind} of {id}");
            continue;
        };
        let found: Vec<f32> = golden::sampled(tensor.len()).map(|i| tensor[i]).collect();
        assert_eq!(found.len(), expected.data.len(), "{what}: sample of {id}");
        let square = |x: f32| f64::from(x) * f64::from(x);
        let difference: f64 = found.iter().zip(&expected.data).map(|(a, b)| square(a - b)).sum();
        let norm: f64 = expected.data.iter().map(|&b| square(b)).sum();
        let relative = (difference / norm.max(1e-30)).sqrt();
        assert!(relative < TOLERANCE, "{what}: {kind} of {id} differs by {relative:.2e} of its norm");
    }
}

#[test]
fn losses_and_gradients() {
    for case in CASES {
        let (model, meta) = (golden::model(case), golden::meta(case));
        let sampled = golden::arrays(&format!("{case}/sampled.safetensors"));
        let weights = params::of_model(&model);
        let batch = &batches(case)[0];
        for (kind, recurrence) in [("plain", false), ("recur", true)] {
            if recurrence && model.config.recur_layers.is_empty() {
                continue;
            }
            let loss = meta[format!("{kind}.loss")].as_f64().expect("a golden loss");
            for micro_batch in [1, 2] {
                let engine = CpuEngine::new(&model.config, micro_batch, 1).unwrap();
                let gradients = engine.gradients(&weights, batch, recurrence).unwrap();
                let what = format!("{case} {kind} micro-batch {micro_batch}");
                assert!((gradients.loss - loss).abs() < TOLERANCE, "{what}: loss {} instead of {loss}", gradients.loss);
                assert!((engine.loss(&weights, batch, recurrence).unwrap() - gradients.loss).abs() < 1e-6);
                assert_close(&what, &gradients.of, &sampled, &format!("grads_{kind}"));
            }
        }
    }
}

#[test]
fn hidden_states_and_logits() {
    for case in CASES {
        let model = golden::model(case);
        let forward = golden::arrays(&format!("{case}/forward.safetensors"));
        let batch = &batches(case)[0];
        let tensor = |spec: &TensorSpec| {
            Tensor::from_slice(&model.tensors[&spec.id].to_f32(), spec.shape.as_slice(), &Device::Cpu)
        };
        let weights = Weights::build(&model.config, tensor).unwrap();
        for (kind, recurrence) in [("plain", false), ("recur", true)] {
            if recurrence && model.config.recur_layers.is_empty() {
                continue;
            }
            let hidden = &forward[&format!("{kind}.hidden")];
            for last in [None, Some(3)] {
                let mut ops = CandleOps::default();
                let pass = Pass { recurrence, last };
                let input = Batch::new(&batch.inputs, batch.count());
                let h = sixpack_runtime::forward(&model.config, &weights, &mut ops, &input, pass).unwrap();
                let logits = sixpack_runtime::model::logits(&model.config, &weights, &mut ops, &h).unwrap();
                for (name, found, golden) in
                    [("hidden", h, hidden), ("logits", logits, &forward[&format!("{kind}.logits")])]
                {
                    let (found, expected) =
                        (sixpack_runtime::now(ops.read(&found)).unwrap(), tail(golden, last.unwrap_or(batch.len)));
                    assert_eq!(found.len(), expected.len());
                    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(f64::from(worst) < TOLERANCE, "{case} {kind} {name} last {last:?}: off by {worst:.2e}");
                }
            }
        }
    }
}

/// The last `n` positions of each sequence of `[B, T, C]`.
fn tail(array: &Array, n: usize) -> Vec<f32> {
    let [_, t, c] = array.shape[..] else { panic!("expected three dimensions") };
    array.data.chunks_exact(t * c).flat_map(|sequence| &sequence[(t - n) * c..]).copied().collect()
}

#[test]
fn newton_schulz() {
    let golden = golden::arrays("muon/newton_schulz.safetensors");
    for case in ["square", "tall", "wide"] {
        let gradient = &golden[&format!("{case}.grad")];
        for iterations in [3, 5, 7] {
            let expected = &golden[&format!("{case}.ns{iterations}")].data;
            let mut found = gradient.data.clone();
            let by = NewtonSchulz::new(Coefficients::Constant, iterations).unwrap();
            by.orthogonalize(&mut found, [gradient.shape[0], gradient.shape[1]]);
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(f64::from(worst) < TOLERANCE, "{case}, {iterations} iterations: off by {worst:.2e}");
        }
    }
}

#[test]
fn three_steps_of_training() {
    for case in CASES {
        let (model, meta) = (golden::model(case), golden::meta(case));
        let sampled = golden::arrays(&format!("{case}/sampled.safetensors"));
        let train = &meta["train"];
        let number = |key: &str| train[key].as_f64().unwrap_or_else(|| panic!("{case} has no {key}"));
        let list = |key: &str, i: usize| train[key][i].as_f64().unwrap_or_else(|| panic!("{case} has no {key}[{i}]"));
        let adamw = |lr: &str, decay: &str| AdamW {
            lr: number(lr),
            betas: [list("betas", 0), list("betas", 1)],
            eps: number("adam_eps"),
            weight_decay: number(decay),
        };
        let matrix = Muon {
            lr: number("matrix_lr"),
            weight_decay: number("muon_wd"),
            newton_schulz_steps: number("ns_steps") as usize,
            ..Muon::default()
        };
        let groups = Groups {
            matrix: Matrix::Muon(matrix),
            token: adamw("token_lr", "embed_wd"),
            scalar: adamw("scalar_lr", "scalar_wd"),
        };
        let engine = CpuEngine::new(&model.config, 1, 2).unwrap();
        let mut optimizer = Optimizer::new(&model.config, groups).unwrap();
        let mut weights = params::of_model(&model);
        let mut ema = weights.clone();
        for (i, batch) in batches(case)[..3].iter().enumerate() {
            let recurrence = train["recurrence"].as_bool().unwrap();
            let mut gradients = engine.gradients(&weights, batch, recurrence).unwrap();
            let (loss, expected) = (gradients.loss, list("losses", i));
            assert!((loss - expected).abs() < TOLERANCE, "{case}: loss {loss} of step {i} instead of {expected}");
            let (norm, expected) =
                (optim::clip(&mut gradients.of, number("grad_clip")), list("grad_norms_before_clip", i));
            assert!((norm / expected - 1.0).abs() < TOLERANCE, "{case}: norm {norm} at step {i} instead of {expected}");
            let now =
                Now { lr_scale: list("lr_scale", i) as f32, momentum: list("momentum", i) as f32, decay_scale: 1.0 };
            optimizer.step(&mut weights, &gradients.of, now);
            optim::average(&mut ema, &weights, number("ema_decay"));
        }
        assert_close(case, &weights, &sampled, "after_train");
        assert_close(case, &ema, &sampled, "ema");
    }
}
