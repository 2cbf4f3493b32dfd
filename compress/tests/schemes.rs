//! Schemes with one knob for the whole model: `sdclip` and `rd`.

use std::sync::OnceLock;

use half::f16;
use sixpack_compress::scheme::{Rd, SdClip};
use sixpack_compress::{Calibration, Compressed, Error, Hessians, Options, Scheme, compress, compress_with};
use sixpack_formats::artifact::{Artifact, Provenance};
use sixpack_formats::{Codec, Digest, Model, ModelConfig, Part, QuantClass, Sensitivity, TensorData, TensorId};

/// Two layers, the second run twice; 12 matrices large enough for the reference, and a small one.
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
    let mut weight = || 0.07 * (number() + number() + number());
    let tensors = config.tensors().into_iter().map(|s| {
        let plain = s.class == QuantClass::Half && s.shape.len() != 2;
        (
            s.id,
            TensorData::F32((0..s.elements()).map(|i| if plain { 1.0 / (i + 1) as f32 } else { weight() }).collect()),
        )
    });
    Model::new(config.clone(), tensors.collect(), None, 0).unwrap()
}

fn tokens(n: usize) -> Vec<u16> {
    (0..n).map(|i| ((i * i + i / 7) % 299) as u16).collect()
}

fn hessians() -> &'static Hessians {
    static HESSIANS: OnceLock<Hessians> = OnceLock::new();
    HESSIANS.get_or_init(|| {
        let tokens = tokens(64 * 32);
        let calibration = Calibration { tokens: &tokens, seq_len: 32, batches: 8, sequences: 8 };
        Hessians::measure(&model(), &calibration, 2, &|_, _| {}).unwrap()
    })
}

/// The same cost of an error at all outputs; where it is an element's or a row's own, costs that differ.
fn sensitivity(config: &ModelConfig) -> Sensitivity {
    let mut sensitivity = Sensitivity::zeros(config, 1, Digest::of(b""));
    sensitivity.outputs.values_mut().flatten().for_each(|g| *g = 1e-4);
    sensitivity.elements.values_mut().flatten().for_each(|g| *g = 1e-4);
    for lookup in sensitivity.lookups.values_mut() {
        lookup.rows.iter_mut().enumerate().for_each(|(i, f)| *f = 1e-4 / (i + 1) as f32);
        lookup.columns.fill(1e-4);
    }
    sensitivity
}

fn run(model: &Model, scheme: Scheme, target: Option<u64>, threads: usize) -> Result<Compressed, Error> {
    let sensitivity = sensitivity(&model.config);
    let options = Options {
        scheme,
        sensitivity: Some(&sensitivity),
        int6_layers: None,
        target_bytes: target,
        codec: Codec::Context,
        provenance: &Provenance::default(),
        threads,
    };
    compress_with(model, Some(hessians()), &options, &|_| {})
}

fn rd() -> Scheme {
    Scheme::Rd(Rd::default())
}

fn weights(model: &Model) -> u64 {
    let matrices = model.config.tensors().into_iter().filter(|s| s.shape.len() == 2 && s.elements() > 4000);
    matrices.map(|s| s.elements() as u64).sum()
}

#[test]
fn every_scheme_makes_a_file_that_reads_back() {
    let model = model();
    for scheme in [Scheme::SdClip(SdClip::default()), rd(), Scheme::Rd(Rd { trellis: false, ..Rd::default() })] {
        let packed = run(&model, scheme, Some(weights(&model) * 3 / 8), 2).unwrap();
        let artifact = Artifact::read(&packed.file).unwrap();
        for row in &packed.report.tensors {
            let (before, after) = (model.tensors[&row.id].to_f32(), artifact.model.tensors[&row.id].to_f32());
            let squares: f64 = before.iter().zip(&*after).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let mean = squares / before.len() as f64;
            assert!(
                (mean - row.mean_squared_error).abs() <= 1e-6 * mean + 1e-12,
                "{scheme} {}: {mean} {row:?}",
                row.id
            );
            let energy: f64 = before.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / before.len() as f64;
            assert!(mean < 0.9 * energy, "{scheme} {}: {mean} of {energy}", row.id);
        }
        let (ours, nearest) = packed.report.hessian_errors().unwrap();
        assert!(ours < nearest, "{scheme}: {ours} against {nearest}");
    }
}

#[test]
fn rate_distortion_quantises_all_that_is_multiplied_or_looked_up() {
    let model = model();
    let packed = run(&model, rd(), Some(weights(&model) * 3 / 8), 2).unwrap();
    let quantised = |id| packed.report.tensors.iter().find(|t| t.id == id).unwrap().step.is_some();
    for id in [TensorId::TokenEmbedding, TensorId::ValueEmbedding, TensorId::ValueProj, TensorId::block(0, Part::Query)]
    {
        assert!(quantised(id), "{id}");
    }
    assert!(!quantised(TensorId::block(0, Part::AttnScale)));
    assert!(packed.report.expected_loss().unwrap() > 0.0);
    assert!(packed.report.solved.unwrap().nats_per_byte.unwrap() > 0.0);
}

#[test]
fn sdclip_takes_its_steps_from_the_deviation_of_a_row() {
    let model = model();
    let k = SdClip { attention: 13.0, mlp: 11.5, embedding: 20.0 };
    let packed = run(&model, Scheme::SdClip(k), None, 2).unwrap();
    let artifact = Artifact::read(&packed.file).unwrap();
    for (id, clip, q_max) in [
        (TensorId::block(0, Part::Query), 13.0, 31.0),
        (TensorId::block(1, Part::MlpDown), 11.5, 31.0),
        (TensorId::TokenEmbedding, 20.0, 127.0),
    ] {
        let TensorData::Quantized(q) = &artifact.model.tensors[&id] else { panic!("{id}") };
        assert!(q.columns.is_empty() && f32::from(q.q_max) <= q_max);
        let values = model.tensors[&id].to_f32();
        for (row, scale) in values.chunks_exact(q.cols).zip(&q.scales) {
            let n = row.len() as f64;
            let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
            let squares: f64 = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
            let step = clip * (squares / (n - 1.0)).sqrt() / f64::from(q_max);
            assert!((scale.to_f64() / step - 1.0).abs() < 1e-3, "{id}: {scale} for {step}");
        }
    }
    let TensorData::F16(small) = &artifact.model.tensors[&TensorId::ValueProj] else { panic!("stays f16") };
    assert_eq!(small[0], f16::from_f32(model.tensors[&TensorId::ValueProj].to_f32()[0]));
}

#[test]
fn rate_distortion_has_less_error_than_the_reference_at_its_size() {
    let model = model();
    let reference = run(&model, Scheme::Reference, None, 2).unwrap();
    let ours = run(&model, rd(), Some(reference.file.len() as u64), 2).unwrap();
    let error = |packed: &Compressed| -> f64 {
        let rows = packed.report.tensors.iter().filter(|t| matches!(t.class, QuantClass::Attention | QuantClass::Mlp));
        rows.map(|t| t.matrix.unwrap().error.unwrap()).sum()
    };
    let (before, after) = (error(&reference), error(&ours));
    assert!(after < 0.8 * before, "{after} against {before} of the reference");
}

#[test]
fn targets_from_two_to_six_bits_are_met_from_below_and_always_alike() {
    let model = model();
    for scheme in [rd(), Scheme::SdClip(SdClip::default())] {
        for eighths in [16, 27, 38, 48] {
            let target = weights(&model) * eighths / 64;
            let packed = run(&model, scheme, Some(target), 2).unwrap();
            let bytes = packed.file.len() as u64;
            let passes = packed.report.solved.unwrap().passes;
            // sdclip keeps small matrices in f16 and never has more than six bits.
            let reachable = scheme == rd() || eighths < 48;
            assert!(bytes <= target, "{scheme}: {bytes} for {target}");
            assert!(!reachable || bytes * 1000 >= target * 998, "{scheme}: {bytes} for {target}, {passes} passes");
        }
        let target = weights(&model) * 3 / 8;
        let [one, again, three] = [1, 1, 3].map(|threads| run(&model, scheme, Some(target), threads).unwrap().file);
        assert!(one == again, "{scheme}: a second run differs");
        assert!(one == three, "{scheme}: three threads differ from one");
    }
}

#[test]
fn without_sensitivity_and_without_calibration_it_still_works() {
    let (model, provenance) = (model(), Provenance::default());
    let options = |target| Options {
        scheme: rd(),
        sensitivity: None,
        int6_layers: None,
        target_bytes: target,
        codec: Codec::Context,
        provenance: &provenance,
        threads: 2,
    };
    let target = weights(&model) * 3 / 8;
    let packed = compress_with(&model, Some(hessians()), &options(Some(target)), &|_| {}).unwrap();
    assert!(packed.file.len() as u64 <= target && packed.report.expected_loss().is_none());
    let (ours, nearest) = packed.report.hessian_errors().unwrap();
    assert!(ours < nearest, "{ours} against {nearest}");
    let rounded = compress(&model, None, &options(Some(target)), &|_| {}).unwrap();
    assert!(rounded.file.len() as u64 <= target && rounded.report.hessian_errors().is_none());
    let no_target = compress_with(&model, Some(hessians()), &options(None), &|_| {}).unwrap();
    assert!((1.0..8.0).contains(&no_target.report.bits_per_weight()), "{}", no_target.report.bits_per_weight());
}

#[test]
fn without_a_target_the_loss_is_the_one_asked_for() {
    let model = model();
    let packed = |loss| run(&model, Scheme::Rd(Rd { loss, ..Rd::default() }), None, 2).unwrap();
    let (fine, coarse) = (packed(0.01), packed(0.04));
    assert!(fine.file.len() > coarse.file.len());
    for (packed, loss) in [(fine, 0.01), (coarse, 0.04)] {
        let expected = packed.report.expected_loss().unwrap();
        assert!((0.3 * loss..1.5 * loss).contains(&expected), "{expected} for {loss}");
    }
}

#[test]
fn what_a_scheme_cannot_do_is_refused() {
    let model = model();
    let sensitivity = sensitivity(&model.config);
    let provenance = Provenance::default();
    let options = Options {
        scheme: rd(),
        sensitivity: Some(&sensitivity),
        int6_layers: Some(3),
        target_bytes: None,
        codec: Codec::Context,
        provenance: &provenance,
        threads: 1,
    };
    let refused = |options: &Options<'_>| compress_with(&model, Some(hessians()), options, &|_| {}).unwrap_err();
    assert!(matches!(refused(&options), Error::NoInt6 { scheme: "rd" }));
    let error = refused(&Options { int6_layers: None, target_bytes: Some(900), ..options });
    assert!(matches!(error, Error::TooSmall { target: 900, .. }), "{error}");
    assert!(error.to_string().contains("over the target of 900"), "{error}");
    let mut foreign = sensitivity.clone();
    foreign.outputs.get_mut(&TensorId::block(1, Part::Key)).unwrap().pop();
    let error = refused(&Options { int6_layers: None, sensitivity: Some(&foreign), ..options });
    assert!(error.to_string().contains("blocks.1.attn.c_k.weight"), "{error}");
    let mut infinite = self::model();
    let Some(TensorData::F32(values)) = infinite.tensors.get_mut(&TensorId::ValueProj) else { panic!("f32") };
    values[3] = f32::NAN;
    let options = Options { int6_layers: None, ..options };
    let error = compress_with(&infinite, Some(hessians()), &options, &|_| {}).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { tensor, .. } if tensor == "ve_shared.proj.weight"), "{error}");
}
