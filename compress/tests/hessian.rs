//! Hessians against their definition, with the inputs that the plain interpreter sees.

use std::collections::BTreeMap;

use sixpack_compress::{Calibration, Error, Hessians};
use sixpack_formats::{Model, ModelConfig, Part, QuantClass, TensorData, TensorId};
use sixpack_runtime::cpu::{Mat, Reference};
use sixpack_runtime::{Batch, Calibrate, Pass, Site, forward};

/// A model of two layers, the first of them run twice; MLP matrices have 69,632 elements, the others are too small.
fn model() -> Model {
    let config = ModelConfig {
        vocab_size: 50,
        num_layers: 2,
        model_dim: 136,
        num_heads: 2,
        num_kv_heads: 1,
        mlp_mult: 4.0,
        xsa_last_n: 1,
        train_seq_len: 16,
        eval_seq_len: 16,
        ve_layers: vec![],
        recur_layers: vec![0],
        ..ModelConfig::record()
    };
    let mut state = 1u64;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let tensors = config.tensors().into_iter();
    let tensors = tensors.map(|s| (s.id, TensorData::F32((0..s.elements()).map(|_| 0.2 * number()).collect())));
    Model::new(config.clone(), tensors.collect(), None, 0).unwrap()
}

fn tokens(n: usize) -> Vec<u16> {
    (0..n).map(|i| (i * i % 47) as u16).collect()
}

/// `Σ xᵀx` in f64 by the definition, from the plain interpreter, by matrix product.
fn expected(model: &Model, sequences: &[&[u16]]) -> BTreeMap<Site, Vec<f64>> {
    let mut sums: BTreeMap<Site, Vec<f64>> = BTreeMap::new();
    let mut see = |site: Site, x: &Mat| {
        let sum = sums.entry(site).or_insert_with(|| vec![0.0; x.cols * x.cols]);
        for row in (0..x.rows()).map(|i| x.row(i)) {
            for (sums, a) in sum.chunks_exact_mut(x.cols).zip(row) {
                sums.iter_mut().zip(row).for_each(|(s, b)| *s += f64::from(*a) * f64::from(*b));
            }
        }
    };
    let mut ops = Reference::new();
    let weights = ops.load(model);
    for sequence in sequences {
        let ids: Vec<u32> = sequence.iter().map(|&t| u32::from(t)).collect();
        let mut watched = Calibrate::new(&mut ops, &mut see);
        let head = forward(&model.config, &weights, &mut watched, &Batch::new(&ids, 1), Pass::FULL).unwrap();
        see(Site::HEAD, &head);
    }
    sums
}

#[test]
fn hessians_sum_over_passes_and_divide_by_batches() {
    let model = model();
    let tokens = tokens(5 * 16 + 3);
    let calibration = Calibration { tokens: &tokens, seq_len: 16, batches: 3, sequences: 2 };
    let steps = std::sync::Mutex::new(Vec::new());
    let progress = |done, of| steps.lock().unwrap().push((done, of));
    let hessians = Hessians::measure(&model, &calibration, 2, &progress).unwrap();
    assert_eq!(*steps.lock().unwrap(), [(1, 3), (2, 3), (3, 3)]);
    let sequences: Vec<&[u16]> = tokens.chunks_exact(16).collect();
    let expected = expected(&model, &sequences);
    let mut compared = 0;
    for spec in model.config.tensors() {
        let Some(found) = hessians.get(spec.id) else {
            assert_eq!(spec.class, QuantClass::Half, "{} has none", spec.name());
            continue;
        };
        let expected = expected.iter().find(|(site, _)| site.tensor() == spec.id).unwrap().1;
        let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs())) / 3.0;
        assert_eq!(found.len(), expected.len());
        for (i, (&found, &sum)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(found) - sum / 3.0).abs() < 1e-5 * largest, "{} entry {i}", spec.name());
        }
        compared += 1;
    }
    assert_eq!(compared, 2 * 6 + 1, "six matrices of a layer, and the head");
    assert_eq!(hessians.tokens_per_batch(), 5.0 * 16.0 / 3.0);
}

#[test]
fn threads_do_not_change_hessians() {
    let model = model();
    let tokens = tokens(64);
    let calibration = Calibration { tokens: &tokens, seq_len: 16, batches: 2, sequences: 2 };
    let [one, three] = [1, 3].map(|threads| Hessians::measure(&model, &calibration, threads, &|_, _| {}).unwrap());
    let tensor = TensorId::block(1, Part::MlpDown);
    assert_eq!(one.get(tensor).unwrap(), three.get(tensor).unwrap());
    assert!(one.get(TensorId::block(1, Part::AttnScale)).is_none(), "nothing is multiplied with it");
}

#[test]
fn sequences_are_spread_over_the_text() {
    let model = model();
    // Eight sequences, of which two are wanted: the first and the fifth.
    let tokens = tokens(8 * 16);
    let calibration = Calibration { tokens: &tokens, seq_len: 16, batches: 1, sequences: 2 };
    let spread = Hessians::measure(&model, &calibration, 1, &|_, _| {}).unwrap();
    let chosen = [&tokens[..16], &tokens[64..80]].concat();
    let calibration = Calibration { tokens: &chosen, ..calibration };
    let expected = Hessians::measure(&model, &calibration, 1, &|_, _| {}).unwrap();
    let tensor = TensorId::block(0, Part::MlpUp);
    assert_eq!(spread.get(tensor).unwrap(), expected.get(tensor).unwrap());
}

#[test]
fn a_text_without_one_sequence_and_foreign_tokens_are_refused() {
    let model = model();
    let measure = |tokens: &[u16], seq_len, batches| {
        let calibration = Calibration { tokens, seq_len, batches, sequences: 2 };
        Hessians::measure(&model, &calibration, 1, &|_, _| {}).unwrap_err()
    };
    assert!(matches!(measure(&[1; 15], 16, 1), Error::Calibration { tokens: 15, .. }));
    assert!(matches!(measure(&[1; 32], 16, 0), Error::Calibration { .. }));
    assert!(matches!(measure(&[1; 32], 0, 1), Error::Calibration { .. }));
    assert!(measure(&[50; 16], 16, 1).to_string().contains("50"));
    let calibration = Calibration { tokens: &[1; 16], seq_len: 16, batches: 1, sequences: 1 };
    assert!(matches!(Hessians::measure(&model, &calibration, 0, &|_, _| {}), Err(Error::Threads { .. })));
}
