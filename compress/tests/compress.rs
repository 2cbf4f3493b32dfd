//! A whole model through calibration, quantisation, packing and back.

use std::sync::Mutex;

use sixpack_compress::error::Remedy;
use sixpack_compress::gptq::Method;
use sixpack_compress::{Calibration, Compressed, Error, Hessians, Options, Progress, Scheme, compress, pack, predict};
use sixpack_formats::artifact::{Artifact, Provenance};
use sixpack_formats::estimate::Sizes;
use sixpack_formats::{Codec, Model, ModelConfig, Part, QuantClass, TensorData, TensorId};
use sixpack_runtime::cpu::Fast;
use sixpack_runtime::metric::{self, Text};

/// Two layers, the second run twice; 12 matrices large enough to be quantised.
fn model() -> Model {
    let config = ModelConfig {
        vocab_size: 300,
        num_layers: 2,
        model_dim: 264,
        num_heads: 4,
        num_kv_heads: 4,
        mlp_mult: 1.0,
        xsa_last_n: 2,
        train_seq_len: 32,
        eval_seq_len: 32,
        ve_layers: vec![1],
        ve_dim: 16,
        recur_layers: vec![1],
        ..ModelConfig::record()
    };
    let mut state = 1u64;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let tensors = config.tensors().into_iter().map(|s| {
        let scale = if s.class == QuantClass::Half { 1.0 } else { 0.15 };
        (s.id, TensorData::F32((0..s.elements()).map(|_| scale * number()).collect()))
    });
    Model::new(config.clone(), tensors.collect(), None, 0).unwrap()
}

fn tokens(n: usize) -> Vec<u16> {
    (0..n).map(|i| ((i * i + i / 7) % 299) as u16).collect()
}

/// Compresses with [`Codec::Zstd`], which is quick.
fn run(model: &Model, int6: Option<usize>, target: Option<u64>, threads: usize) -> Result<Compressed, Error> {
    let tokens = tokens(16 * 32);
    let calibration = Calibration { tokens: &tokens, seq_len: 32, batches: 4, sequences: 4 };
    let options = Options {
        scheme: Scheme::Reference,
        sensitivity: None,
        int6_layers: int6,
        target_bytes: target,
        codec: Codec::Zstd,
        provenance: &Provenance::default(),
        threads,
    };
    compress(model, Some(&calibration), &options, &|_| {})
}

fn loss(model: &Model) -> f64 {
    let mut ops = Fast::new(1).unwrap();
    let weights = ops.load(model);
    let tokens = tokens(1 + 8 * 32);
    let options = metric::Options { seq_len: 32, stride: None, batch: 4, max_tokens: None };
    let text = Text { tokens: &tokens, bytes: None, bos: None };
    sixpack_runtime::now(metric::evaluate(&model.config, &weights, &mut ops, &text, &options, &mut |_| {}))
        .unwrap()
        .loss_nats
}

#[test]
fn a_model_survives_the_way_to_a_file_and_back() {
    let model = model();
    let packed = run(&model, None, None, 2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.6pk");
    pack(&path, &packed).unwrap();
    let artifact = Artifact::open(&path).unwrap();
    assert_eq!(artifact.model.config, model.config);
    assert_eq!(artifact.model.bytes, packed.file.len() as u64);
    assert_eq!(artifact.ledger, packed.ledger);

    let (float, small) = (loss(&model), loss(&artifact.model));
    assert!((float - small).abs() < 0.02, "{float} nats before, {small} after");

    let report = &packed.report;
    assert_eq!((report.int6, report.matrices), (12, 12));
    let table = model.config.tensors();
    assert!(report.tensors.iter().map(|t| t.id).eq(table.iter().map(|s| s.id)));
    for row in &report.tensors {
        let bits = match row.class {
            QuantClass::Attention | QuantClass::Mlp => 6,
            QuantClass::Embedding => 8,
            QuantClass::Half => 16,
        };
        assert_eq!(row.bits, bits, "{}", row.id);
        assert!(row.mean_squared_error.is_finite(), "{row:?}");
        assert!(row.coded_bytes > 0 || row.shape.iter().product::<usize>() < 100, "{row:?}");
        assert_eq!(row.matrix.is_some(), bits == 6, "{}", row.id);
        if let Some(matrix) = row.matrix {
            assert_eq!(matrix.method, Method::Gptq);
            assert!(matrix.error.unwrap() < matrix.nearest_error.unwrap(), "{}: {matrix:?}", row.id);
        }
    }
    let (ours, nearest) = report.hessian_errors().unwrap();
    assert!(ours < 0.9 * nearest, "{ours} against {nearest}");
    let coded: u64 = report.tensors.iter().map(|t| t.coded_bytes).sum();
    assert_eq!(coded + artifact.ledger.overhead(), artifact.model.bytes);
}

#[test]
fn six_bits_go_to_the_largest_traces() {
    let model = model();
    let packed = run(&model, Some(5), None, 2).unwrap();
    let rows = packed.report.tensors.iter().filter_map(|t| t.matrix.map(|m| (t.bits, m.sensitivity)));
    let (six, five): (Vec<_>, Vec<_>) = rows.partition(|(bits, _)| *bits == 6);
    assert_eq!((six.len(), five.len()), (5, 7));
    assert!(five.iter().all(|(bits, _)| *bits == 5));
    let least = six.iter().map(|r| r.1).fold(f64::INFINITY, f64::min);
    assert!(five.iter().all(|(_, sensitivity)| *sensitivity <= least));
    assert!(packed.file.len() < run(&model, Some(6), None, 2).unwrap().file.len());
}

#[test]
fn threads_do_not_change_the_file() {
    let model = model();
    assert_eq!(run(&model, Some(7), None, 1).unwrap().file, run(&model, Some(7), None, 2).unwrap().file);
}

#[test]
fn a_target_takes_as_many_six_bit_matrices_as_fit() {
    let model = model();
    let sizes: Vec<u64> = [0, 4, 5, 12].map(|n| run(&model, Some(n), None, 2).unwrap().file.len() as u64).to_vec();
    let fitted = |target| run(&model, None, Some(target), 2);
    let packed = fitted(sizes[2] - 1).unwrap();
    assert_eq!((packed.report.int6, packed.file.len() as u64), (4, sizes[1]));
    assert_eq!(fitted(sizes[3]).unwrap().report.int6, 12);

    let error = fitted(sizes[0] - 10).unwrap_err();
    assert!(matches!(error, Error::OverBudget { remedy: Remedy::SmallerWeights, int6: 0, .. }), "{error}");
    assert!(error.to_string().contains("10 over the target"), "{error}");
    assert!(error.to_string().contains("weight decay"), "{error}");

    let error = run(&model, Some(12), Some(sizes[2]), 2).unwrap_err();
    let remedy = Remedy::FewerInt6 { int6: 5, bytes: sizes[2] };
    assert!(matches!(&error, Error::OverBudget { remedy: r, int6: 12, .. } if *r == remedy), "{error}");
    assert!(error.to_string().contains("it fits with 5 in int6"), "{error}");
}

#[test]
fn without_calibration_weights_are_rounded() {
    let model = model();
    let options = Options {
        scheme: Scheme::Reference,
        sensitivity: None,
        int6_layers: None,
        target_bytes: None,
        codec: Codec::Zstd,
        provenance: &Provenance::default(),
        threads: 1,
    };
    let packed = compress(&model, None, &options, &|_| {}).unwrap();
    let methods = packed.report.tensors.iter().filter_map(|t| t.matrix).map(|m| m.method);
    assert!(methods.eq([Method::Nearest; 12]));
    assert_eq!(packed.report.hessian_errors(), None);
}

#[test]
fn progress_counts_every_step() {
    let model = model();
    let tokens = tokens(64);
    let calibration = Calibration { tokens: &tokens, seq_len: 32, batches: 2, sequences: 1 };
    let options = Options {
        scheme: Scheme::Reference,
        sensitivity: None,
        int6_layers: None,
        target_bytes: None,
        codec: Codec::Stored,
        provenance: &Provenance::default(),
        threads: 2,
    };
    let seen = Mutex::new(Vec::new());
    compress(&model, Some(&calibration), &options, &|step| seen.lock().unwrap().push(step)).unwrap();
    let seen = seen.into_inner().unwrap();
    let tensors = model.config.tensors().len();
    assert_eq!(seen[..2], [1, 2].map(|done| Progress::Calibrating { done, of: 2 }));
    assert_eq!(seen[seen.len() - 1], Progress::Packing { int6: 12 });
    let mut quantized: Vec<usize> = seen[2..seen.len() - 1]
        .iter()
        .map(|step| match step {
            Progress::Quantizing { done, of } if *of == tensors => *done,
            other => panic!("{other:?}"),
        })
        .collect();
    quantized.sort_unstable();
    assert!(quantized.into_iter().eq(1..=tensors));
}

#[test]
fn what_cannot_be_quantised_is_named() {
    let with = |id: TensorId, value: f32| {
        let mut model = model();
        let Some(TensorData::F32(values)) = model.tensors.get_mut(&id) else { panic!("{id} is f32") };
        values[3] = value;
        let options = Options {
            scheme: Scheme::Reference,
            sensitivity: None,
            int6_layers: None,
            target_bytes: None,
            codec: Codec::Stored,
            provenance: &Provenance::default(),
            threads: 1,
        };
        let error = compress(&model, None, &options, &|_| {}).unwrap_err();
        assert!(error.to_string().contains(&id.to_string()), "{error}");
        error
    };
    assert!(matches!(with(TensorId::block(1, Part::MlpUp), f32::NAN), Error::NotFinite { .. }));
    assert!(matches!(with(TensorId::TokenEmbedding, f32::INFINITY), Error::NotFinite { .. }));
    assert!(matches!(with(TensorId::block(0, Part::Query), 1e30), Error::StepTooLarge { .. }));
    assert!(matches!(with(TensorId::SkipWeights, 1e6), Error::NotHalf { index: 3, .. }));
}

#[test]
fn a_model_without_large_matrices_needs_no_calibration() {
    let config = ModelConfig {
        vocab_size: 20,
        num_layers: 1,
        model_dim: 16,
        num_heads: 2,
        num_kv_heads: 1,
        rope_dims: 0,
        xsa_last_n: 0,
        ve_layers: vec![],
        recur_layers: vec![],
        ..ModelConfig::record()
    };
    let tensors = config.tensors().into_iter().map(|s| (s.id, TensorData::F32(vec![0.5; s.elements()])));
    let model = Model::new(config.clone(), tensors.collect(), None, 0).unwrap();
    let packed = run(&model, None, Some(10_000), 1).unwrap();
    assert_eq!((packed.report.int6, packed.report.matrices), (0, 0));
    assert!(matches!(run(&model, None, Some(10), 1), Err(Error::OverBudget { matrices: 0, .. })));
    let calibration = Calibration { tokens: &[1; 512], seq_len: 32, batches: 1, sequences: 1 };
    assert!(
        Hessians::measure(&model, &calibration, 1, &|_, _| {}).unwrap().get(TensorId::block(0, Part::Query)).is_some()
    );
}

/// A few tokens of calibration predict what many more give, by class: the spread that GPTQ adds to codes depends on the
/// inputs, but little on how many of them were seen.
#[test]
fn sizes_are_predicted_from_a_little_text() {
    let model = model();
    let tokens = tokens(4 * predict::TOKENS);
    let predicted = predict::sizes(&model, &tokens[..predict::TOKENS / 2], 2).unwrap();
    let calibration = Calibration { tokens: &tokens, seq_len: 32, batches: 1 << 10, sequences: 1 };
    let options = Options {
        scheme: Scheme::Reference,
        sensitivity: None,
        int6_layers: None,
        target_bytes: None,
        codec: Codec::Context,
        provenance: &Provenance::default(),
        threads: 2,
    };
    let full = compress(&model, Some(&calibration), &options, &|_| {}).unwrap();
    let mut coded = Sizes::default();
    for (spec, row) in model.config.tensors().iter().zip(&full.report.tensors) {
        *coded.of(spec) += row.coded_bytes as f64;
    }
    let classes = |s: &Sizes| [s.attention, s.mlp_up, s.mlp_down, s.tables, s.half];
    for (found, expected) in classes(&predicted).into_iter().zip(classes(&coded)) {
        assert!(expected > 1000.0 && (found / expected - 1.0).abs() < 0.01, "{predicted:?} for {coded:?}");
    }
    assert!(predicted.total().abs_diff(full.file.len() as u64) < full.file.len() as u64 / 100);
    assert!(predict::sizes(&model, &tokens[..31], 1).is_err(), "less than a sequence");
}
