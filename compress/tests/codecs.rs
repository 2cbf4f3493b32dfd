//! Every codec on every distribution: what comes back is what went in, and damaged streams are errors.

use half::f16;
use sixpack_compress::Error;
use sixpack_compress::codecs::{self, Layout, MatrixCodec, Streams, measure, outline};
use sixpack_formats::trellis::State;
use sixpack_formats::{Model, ModelConfig, QuantizedMatrix, TensorData};

/// Uniform numbers from a linear congruential generator.
struct Numbers(u64);

impl Numbers {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// About Gaussian with deviation 1.
    fn gaussian(&mut self) -> f64 {
        (0..12).map(|_| f64::from(self.bits()) / f64::from(u32::MAX)).sum::<f64>() - 6.0
    }
}

fn matrix(rows: usize, cols: usize, q_max: u8, mut code: impl FnMut(usize) -> i32) -> QuantizedMatrix {
    let top = i32::from(q_max);
    let codes = (0..rows * cols).map(|i| code(i).clamp(-top, top) as i8).collect();
    QuantizedMatrix::new("m", [rows, cols], q_max, codes, vec![f16::ONE; rows]).unwrap()
}

/// Codes that are a path of the trellis, with factors of the columns.
fn path(rows: usize, cols: usize, numbers: &mut Numbers) -> QuantizedMatrix {
    let mut m = matrix(rows, cols, 31, |_| 0);
    m.columns = (0..cols).map(|col| f16::from_f32(1.0 / (1 + col) as f32)).collect();
    m.trellis = true;
    for row in m.codes.chunks_exact_mut(cols) {
        let mut state = State::default();
        for code in row {
            let index = ((1.5 * numbers.gaussian()).round() as i32).clamp(-15, 15);
            *code = state.code(index) as i8;
            state = state.next(index);
        }
    }
    m
}

/// Streams of matrices of all sizes, ranges and shares.
fn streams() -> Vec<(&'static str, Vec<QuantizedMatrix>)> {
    let mut numbers = Numbers(1);
    let mut gaussian = |rows, cols, q_max, deviation: f64| {
        matrix(rows, cols, q_max, |_| (deviation * numbers.gaussian()).round() as i32)
    };
    let mut of = vec![
        ("no matrix", vec![]),
        ("no rows", vec![matrix(0, 7, 31, |_| 0)]),
        ("no columns", vec![matrix(5, 0, 31, |_| 0)]),
        ("one weight", vec![matrix(1, 1, 31, |_| -31)]),
        ("one of int8", vec![matrix(1, 1, 127, |_| 127)]),
        ("odd", vec![gaussian(7, 13, 31, 2.0)]),
        ("one row", vec![gaussian(1, 1000, 31, 3.0)]),
        ("one column", vec![gaussian(1001, 1, 15, 3.0)]),
        ("constant", vec![matrix(33, 65, 31, |_| -4)]),
        ("zeros but one", vec![matrix(40, 50, 31, |i| i32::from(i == 1234))]),
        ("extremes", vec![matrix(30, 41, 127, |i| if i % 3 == 0 { 127 } else { -127 })]),
        ("ternary", vec![gaussian(100, 200, 1, 0.6)]),
        ("int6", vec![gaussian(160, 200, 31, 2.1)]),
        ("int8", vec![gaussian(64, 100, 127, 25.0)]),
        ("several", vec![gaussian(20, 30, 31, 2.0), matrix(3, 3, 1, |_| 0), gaussian(31, 17, 127, 9.0)]),
    ];
    of.push(("uniform", vec![matrix(50, 60, 127, |_| (numbers.bits() % 255) as i32 - 127)]));
    of.push(("path", vec![path(40, 60, &mut numbers), path(1, 3, &mut numbers)]));
    of.push(("sizes", vec![matrix(64, 64, 31, |i| ((i % 64) as f64 / 4.0 * numbers.gaussian()).round() as i32)]));
    of
}

#[test]
fn every_codec_gives_back_every_distribution() {
    for (what, matrices) in streams() {
        let refs: Vec<&QuantizedMatrix> = matrices.iter().collect();
        for codec in codecs::all() {
            let codec = codec.as_ref();
            let measured = measure(codec, std::slice::from_ref(&refs), 0.0)
                .unwrap_or_else(|e| panic!("{} of {what}: {e}", codec.full_name()));
            assert_eq!(measured.weights, matrices.iter().map(|m| m.codes.len() as u64).sum::<u64>());
            assert_eq!(codec.encode(&refs).unwrap(), codec.encode(&refs).unwrap(), "{}", codec.full_name());
        }
    }
}

#[test]
fn a_skewed_source_takes_about_its_entropy() {
    let mut numbers = Numbers(7);
    let m = matrix(200, 320, 31, |_| (2.0 * numbers.gaussian()).round() as i32);
    let entropy = codecs::floors::Floor::Matrix.bits_per_weight(&[&m]).unwrap();
    let bits = |name: &str| {
        let codec = codecs::find(&[name.to_owned()], &[]).unwrap().remove(0);
        measure(codec.as_ref(), &[vec![&m]], 0.0).unwrap().bits_per_weight()
    };
    let close = |name: &str, most: f64| {
        let bits = bits(name);
        assert!((entropy..entropy * most).contains(&bits), "{name}: {bits} for an entropy of {entropy}");
    };
    close("constriction-static", 1.003);
    close("constriction-adaptive", 1.02);
    close("brotli-11/plain", 1.03);
    close("zstd-22/plain", 1.04);
}

#[test]
fn damaged_streams_are_errors_or_other_codes() {
    let mut numbers = Numbers(3);
    let all = streams();
    for (what, matrices) in all.iter().filter(|(what, _)| ["odd", "several", "path", "int8"].contains(what)) {
        let refs: Vec<&QuantizedMatrix> = matrices.iter().collect();
        let outlines: Vec<QuantizedMatrix> = matrices.iter().map(outline).collect();
        for codec in codecs::all() {
            let codec = codec.as_ref();
            let coded = codec.encode(&refs).unwrap();
            let decode = |bytes: &[u8]| check(codec, bytes, &outlines);
            for cut in [0, 1, 2, coded.len() / 3, coded.len() - 1] {
                assert!(decode(&coded[..cut]).is_err(), "{} of {what}, cut at {cut}", codec.full_name());
            }
            assert!(decode(&[&coded[..], &[1, 2, 3, 4]].concat()).is_err(), "{} of {what}", codec.full_name());
            for _ in 0..60 {
                let mut flipped = coded.clone();
                let at = numbers.bits() as usize % coded.len();
                flipped[at] ^= 1 << (numbers.bits() % 8);
                let _ = decode(&flipped);
                let noise: Vec<u8> = (0..numbers.bits() % 80).map(|_| numbers.bits() as u8).collect();
                let _ = decode(&noise);
                let _ = decode(&[&coded[..at], &noise].concat());
            }
            let _ = codec.decode(&coded, &outlines[1..]);
            let _ = codec.decode(&coded, &[&outlines[..], &outlines[..]].concat());
        }
    }
}

/// What is decoded at least has the right sizes and codes that the outlines allow.
fn check(codec: &dyn MatrixCodec, coded: &[u8], outlines: &[QuantizedMatrix]) -> Result<(), Error> {
    let codes = codec.decode(coded, outlines)?;
    assert_eq!(codes.len(), outlines.len(), "{}", codec.full_name());
    for (codes, outline) in codes.iter().zip(outlines) {
        assert_eq!(codes.len(), outline.rows * outline.cols, "{}", codec.full_name());
        assert!(codes.iter().all(|c| c.unsigned_abs() <= outline.q_max), "{}", codec.full_name());
    }
    Ok(())
}

#[test]
fn a_path_that_is_none_is_refused() {
    let mut m = path(4, 8, &mut Numbers(5));
    m.codes[8] = 1;
    for codec in codecs::find(&["brotli-5".into(), "constriction".into()], &[Layout::Plain]).unwrap() {
        let message = codec.encode(&[&m]).unwrap_err().to_string();
        assert!(message.contains("[1, 0] is not on the path"), "{message}");
    }
    for codec in codecs::all() {
        assert!(codec.encode(&[&m]).is_err(), "{}", codec.full_name());
    }
}

#[test]
fn a_model_in_full_precision_is_rounded_and_grouped() {
    let config = ModelConfig { model_dim: 320, num_heads: 5, num_kv_heads: 5, num_layers: 2, ..ModelConfig::record() };
    let config = ModelConfig { vocab_size: 256, ve_layers: vec![], xsa_last_n: 2, recur_layers: vec![], ..config };
    let mut numbers = Numbers(9);
    let table = config.tensors().into_iter();
    let tensors = table.map(|s| (s.id, (0..s.elements()).map(|_| 0.1 * numbers.gaussian() as f32).collect()));
    let tensors = tensors.map(|(id, values)| (id, TensorData::F32(values))).collect();
    let matrices = codecs::of_model(&Model::new(config, tensors, None, 0).unwrap()).unwrap();
    let names: Vec<&str> = matrices.iter().map(|m| &m.name[..]).collect();
    assert_eq!(names[..2], ["tok_emb.weight", "blocks.0.attn.c_q.weight"]);
    assert_eq!(names.len(), 1 + 2 * 6);
    let q_max = |name: &str| matrices.iter().find(|m| m.name == name).unwrap().matrix.q_max;
    assert_eq!((q_max("tok_emb.weight"), q_max("blocks.1.mlp.fc.weight")), (127, 31));
    let sizes = |streams: Streams| streams.group(&matrices).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(Streams::One), [13]);
    assert_eq!(sizes(Streams::Class), [8, 2, 2, 1]);
    assert_eq!(sizes(Streams::Tensor), [1; 13]);
}
