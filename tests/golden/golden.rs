//! Reads the golden vectors of this folder. Shared by the crates' tests with `#[path]`.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "included as a module of test crates")]
#![allow(missing_docs, reason = "test support")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use sixpack_formats::{Model, ModelConfig, TensorData};

pub const CASES: [&str; 4] = ["tiny", "eleven", "bare", "parallel"];

pub fn folder() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    // Of a program that was built elsewhere: below the folder it runs in.
    [here.join("tests/golden"), here.join("../tests/golden"), "tests/golden".into()]
        .into_iter()
        .find(|p| p.is_dir())
        .expect("golden folder")
}

/// A tensor with every dtype of the golden files widened to f32 (integers in them are below 2²⁴).
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

impl Array {
    pub fn ids(&self) -> Vec<u32> {
        self.data.iter().map(|&x| x as u32).collect()
    }
}

/// All tensors of `FOLDER/file`, e.g. `tiny/forward.safetensors`.
pub fn arrays(file: &str) -> BTreeMap<String, Array> {
    use safetensors::Dtype;
    let bytes = std::fs::read(folder().join(file)).expect(file);
    let parsed = safetensors::SafeTensors::deserialize(&bytes).expect(file);
    let widen = |view: &safetensors::tensor::TensorView<'_>| -> Vec<f32> {
        let raw = view.data();
        let four = |c: &[u8]| <[u8; 4]>::try_from(c).expect("four bytes");
        match view.dtype() {
            Dtype::F32 => raw.chunks_exact(4).map(|c| f32::from_le_bytes(four(c))).collect(),
            Dtype::I32 => raw.chunks_exact(4).map(|c| i32::from_le_bytes(four(c)) as f32).collect(),
            Dtype::F16 => raw.chunks_exact(2).map(|c| half::f16::from_le_bytes([c[0], c[1]]).to_f32()).collect(),
            Dtype::I8 => raw.iter().map(|&c| f32::from(c as i8)).collect(),
            Dtype::U8 | Dtype::BOOL => raw.iter().map(|&c| f32::from(c)).collect(),
            other => panic!("{file}: dtype {other:?}"),
        }
    };
    let arrays =
        parsed.iter().map(|(name, view)| (name.to_owned(), Array { shape: view.shape().to_vec(), data: widen(&view) }));
    arrays.collect()
}

pub fn meta(case: &str) -> serde_json::Value {
    let text = std::fs::read(folder().join(case).join("meta.json")).expect(case);
    serde_json::from_slice(&text).expect(case)
}

pub fn config(case: &str) -> ModelConfig {
    ModelConfig::from_json(meta(case)["config"].to_string().as_bytes()).expect(case)
}

/// The golden model of a case, in f32, without a tokenizer.
pub fn model(case: &str) -> Model {
    let config = config(case);
    let mut arrays = arrays(&format!("{case}/weights.safetensors"));
    let tensors = config.tensors().into_iter().map(|spec| {
        let array = arrays.remove(&spec.name()).unwrap_or_else(|| panic!("{case} lacks {}", spec.name()));
        assert_eq!(array.shape, spec.shape, "{}", spec.name());
        (spec.id, TensorData::F32(array.data))
    });
    let tensors = tensors.collect();
    assert!(arrays.is_empty(), "{case}: tensors outside the table: {:?}", arrays.keys());
    Model::new(config, tensors, None, 0).expect(case)
}

/// The positions of a flattened tensor of `len` elements that `sampled.safetensors` holds.
pub fn sampled(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(if len <= 256 { 1 } else { 13 })
}
