//! Named arrays of f32 and the safetensors files they are kept in.
//!
//! What PyTorch calls a state dict: parameters by name. Files are read through the `safetensors` crate, which checks
//! that the tensors cover the data exactly; they are written here, because the order of the crate's header is that of a
//! hash map, and the same tensors must always give the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata as Header};
use serde::Serialize;

use crate::{Error, Model, ModelConfig, Result, TensorData, atomic};

/// A tensor of 32-bit floats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// Length of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, row-major; as many as the product of `shape`.
    pub data: Vec<f32>,
}

impl Array {
    /// An array of this shape.
    ///
    /// # Panics
    /// If `data` does not have as many elements as `shape` says.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of shape {shape:?}");
        Self { shape, data }
    }
}

/// Arrays by name.
pub type StateDict = BTreeMap<String, Array>;

/// Texts by name, which a safetensors file carries beside its tensors.
pub type Metadata = BTreeMap<String, String>;

/// The tensors of a safetensors file. F16, BF16 and F64 become f32; an F64 is rounded.
///
/// # Errors
/// A malformed file; a tensor of another dtype, by its name.
pub fn read(bytes: &[u8]) -> Result<StateDict> {
    let (header, data) = parse(bytes)?;
    let widened = header.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let array = Array { shape: info.shape.clone(), data: widen(&name, info.dtype, &data[start..end])? };
        Ok((name, array))
    });
    widened.collect()
}

/// The metadata of a safetensors file; empty where it has none.
pub fn metadata(bytes: &[u8]) -> Result<Metadata> {
    let (header, _) = parse(bytes)?;
    Ok(header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// Writes f32 tensors and metadata as a safetensors file, atomically. The same input gives the same bytes.
///
/// # Errors
/// The system's; an array whose length is not that of its shape.
pub fn write(path: impl AsRef<Path>, tensors: &StateDict, metadata: &Metadata) -> Result<()> {
    let header = header(tensors, metadata)?;
    atomic::write_with(path, |file| put(file, &header, tensors))
}

/// The bytes [`write`] would write.
pub fn encode(tensors: &StateDict, metadata: &Metadata) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    put(&mut bytes, &header(tensors, metadata)?, tensors).expect("a vector takes all bytes");
    Ok(bytes)
}

impl Model {
    /// A model from named arrays, as a PyTorch `state_dict` has them.
    ///
    /// Names are the canonical ones; the wrappers `module.` (data parallel) in front and `_orig_mod.` (compiled) anywhere
    /// are taken off. A scalar may stand as `[1]` and the other way round. `bytes` is the size on disk, for the score.
    ///
    /// # Errors
    /// A tensor that is missing, unknown, given twice or of another shape, by its canonical name.
    pub fn from_state_dict(
        config: ModelConfig,
        dict: StateDict,
        tokenizer: Option<Vec<u8>>,
        bytes: u64,
    ) -> Result<Self> {
        config.validate()?;
        let mut arrays = StateDict::new();
        for (name, array) in dict {
            let canonical = canonical(&name);
            if arrays.insert(canonical.clone(), array).is_some() {
                return Err(wrong(&canonical, "one tensor of this name", format!("a second one, as `{name}`")));
            }
        }
        let mut tensors = BTreeMap::new();
        for spec in config.tensors() {
            let name = spec.name();
            let expected = || format!("shape {:?}", spec.shape);
            let array = arrays.remove(&name).ok_or_else(|| wrong(&name, expected(), "no such tensor"))?;
            let scalars = spec.elements() == 1 && array.data.len() == 1;
            if array.shape != spec.shape && !scalars {
                return Err(wrong(&name, expected(), format!("shape {:?}", array.shape)));
            }
            tensors.insert(spec.id, TensorData::F32(array.data));
        }
        if let Some((name, array)) = arrays.first_key_value() {
            let found = format!("a tensor of shape {:?}", array.shape);
            return Err(wrong(name, "no such tensor in this configuration", found));
        }
        Self::new(config, tensors, tokenizer, bytes)
    }

    /// The tensors in f32 under their canonical names and shapes; quantised ones dequantised.
    pub fn to_state_dict(&self) -> StateDict {
        let table = self.config.tensors().into_iter();
        let rows = table.filter_map(|spec| {
            let data = self.tensors.get(&spec.id)?.to_f32().into_owned();
            Some((spec.name(), Array { shape: spec.shape, data }))
        });
        rows.collect()
    }
}

fn canonical(name: &str) -> String {
    let mut name = name.replace("_orig_mod.", "");
    while let Some(rest) = name.strip_prefix("module.") {
        name = rest.to_owned();
    }
    name
}

/// Checks the header against the size of the file. Returns it and the data behind it.
///
/// The crate's own function for whole files adds up sizes unchecked; its parser of the header alone does not, and with
/// the check here every tensor lies within the data.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Header, &[u8])> {
    let fail = |offset: usize, expected: String, found: String| {
        Err(Error::Layout { what: "safetensors file", offset: offset as u64, expected, found })
    };
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return fail(0, "8 bytes with the header's length".into(), format!("{} bytes", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let Some((json, data)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) else {
        return fail(0, format!("a header of {length} bytes"), format!("{} bytes", rest.len()));
    };
    match serde_json::from_slice::<Header>(json) {
        Err(error) => fail(8, "a JSON table of tensors that follow each other".into(), error.to_string()),
        Ok(header) if header.data_len() != data.len() => {
            let expected = format!("{} bytes of data, as its tensors take", header.data_len());
            fail(8 + json.len(), expected, format!("{} bytes", data.len()))
        }
        Ok(header) => Ok((header, data)),
    }
}

fn widen(name: &str, dtype: Dtype, raw: &[u8]) -> Result<Vec<f32>> {
    Ok(match dtype {
        Dtype::F32 => numbers(raw, f32::from_le_bytes),
        Dtype::F16 => numbers(raw, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => numbers(raw, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => numbers(raw, |b| f64::from_le_bytes(b) as f32),
        other => return Err(wrong(name, "dtype F32, F16, BF16 or F64", format!("dtype {other}"))),
    })
}

fn numbers<const N: usize>(raw: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    raw.as_chunks().0.iter().map(|&chunk| number(chunk)).collect()
}

const METADATA: &str = "__metadata__";

/// One entry of the header.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Texts(&'a Metadata),
    Tensor { dtype: &'static str, shape: &'a [usize], data_offsets: [usize; 2] },
}

/// The JSON header, padded with spaces so that the data start at a multiple of 8.
fn header(tensors: &StateDict, metadata: &Metadata) -> Result<Vec<u8>> {
    let mut entries = BTreeMap::new();
    if tensors.contains_key(METADATA) {
        return Err(wrong(METADATA, "another name: this one is the file's own", "a tensor"));
    }
    if !metadata.is_empty() {
        entries.insert(METADATA, Entry::Texts(metadata));
    }
    let mut end = 0;
    for (name, array) in tensors {
        if array.shape.iter().product::<usize>() != array.data.len() {
            let expected = format!("as many elements as shape {:?} has", array.shape);
            return Err(wrong(name, expected, array.data.len().to_string()));
        }
        let start = end;
        end += 4 * array.data.len();
        entries.insert(name, Entry::Tensor { dtype: "F32", shape: &array.shape, data_offsets: [start, end] });
    }
    let mut json = serde_json::to_vec(&entries).expect("plain maps serialise");
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok(json)
}

fn put(out: &mut impl Write, header: &[u8], tensors: &StateDict) -> io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    for array in tensors.values() {
        out.write_all(bytemuck::cast_slice(&array.data))?;
    }
    Ok(())
}

fn wrong(name: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Tensor { name: name.to_owned(), expected: expected.into(), found: found.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (StateDict, Metadata) {
        let tensors = [
            ("b".to_owned(), Array::new([2, 3], vec![1.0, -2.5, f32::MIN_POSITIVE, 0.0, -0.0, 6e37])),
            ("a".to_owned(), Array::new([], vec![0.1])),
            ("c".to_owned(), Array::new([0, 4], vec![])),
        ];
        let metadata = ["z", "a", "k"].map(|key| (key.to_owned(), format!("value of {key} \"q\" \n ü")));
        (tensors.into(), metadata.into())
    }

    /// A safetensors file with this header text and data.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    fn message(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    #[test]
    fn round_trip_is_exact_and_deterministic() {
        let (tensors, texts) = sample();
        let bytes = encode(&tensors, &texts).unwrap();
        assert_eq!(read(&bytes).unwrap(), tensors);
        assert_eq!(metadata(&bytes).unwrap(), texts);
        assert_eq!(encode(&tensors, &texts).unwrap(), bytes);
        let data = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!(data % 8, 0, "data start aligned");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write(&path, &tensors, &texts).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(metadata(&encode(&tensors, &Metadata::new()).unwrap()).unwrap(), Metadata::new());
    }

    #[test]
    fn the_official_crate_reads_it() {
        let (tensors, texts) = sample();
        let bytes = encode(&tensors, &texts).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), 3);
        assert_eq!(file.tensor("b").unwrap().shape(), [2, 3]);
        assert_eq!(file.tensor("a").unwrap().data(), 0.1f32.to_le_bytes());
    }

    #[test]
    fn other_floats_are_widened_and_other_dtypes_refused() {
        let one = |dtype: &str, data: &[u8]| {
            let entry = format!(r#"{{"w":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,{}]}}}}"#, data.len());
            read(&file(&entry, data)).map(|dict| dict["w"].data[0])
        };
        assert_eq!(one("F16", &f16::from_f32(1.5).to_le_bytes()).unwrap(), 1.5);
        assert_eq!(one("BF16", &bf16::from_f32(-3.0).to_le_bytes()).unwrap(), -3.0);
        assert_eq!(one("F64", &0.1f64.to_le_bytes()).unwrap(), 0.1);
        let error = one("I32", &[0; 4]).unwrap_err().to_string();
        assert_eq!(error, "tensor `w`: expected dtype F32, F16, BF16 or F64, found dtype I32");
    }

    #[test]
    fn every_way_a_file_can_lie() {
        let (tensors, texts) = sample();
        let good = encode(&tensors, &texts).unwrap();
        assert!(message(b"abc").contains("8 bytes with the header's length, found 3 bytes"));
        assert!(message(&good[..20]).contains("at byte 0: expected a header of "));
        assert!(message(&[0xff; 40]).contains("expected a header of 18446744073709551615 bytes, found 32 bytes"));
        assert!(message(&good[..good.len() - 1]).contains("expected 28 bytes of data, as its tensors take, found 27"));
        assert!(message(&[&good[..], b"x"].concat()).contains("found 29 bytes"));
        assert!(message(&file("hello", b"")).contains("at byte 8: expected a JSON table"));
        let entry = |shape: &str, start: usize, end: usize| {
            format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}}}"#)
        };
        assert!(message(&file(&entry("[2]", 0, 4), &[0; 4])).contains("invalid shape"));
        assert!(message(&file(&entry("[1]", 4, 8), &[0; 8])).contains("invalid offset for tensor `w`"));
        let huge = entry("[4294967296, 4294967296, 4294967296]", 0, 4);
        assert!(message(&file(&huge, &[0; 4])).contains("overflow"));
        // Eight tensors that together would end past the largest address.
        let end = |i: usize| ((1 << 61) - 1) * i;
        let entries = (0..8).map(|i| {
            let (start, end) = (end(i), end(i + 1));
            format!(r#""{i}":{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#, end - start)
        });
        let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
        assert!(message(&file(&header, &[])).contains("of data, as its tensors take, found 0 bytes"));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let metadata = Metadata::new();
        let dict = |name: &str, array: Array| StateDict::from([(name.to_owned(), array)]);
        let wrong = encode(&dict("w", Array { shape: vec![3], data: vec![0.0] }), &metadata).unwrap_err().to_string();
        assert_eq!(wrong, "tensor `w`: expected as many elements as shape [3] has, found 1");
        let taken = encode(&dict("__metadata__", Array::new([1], vec![0.0])), &metadata).unwrap_err().to_string();
        assert!(taken.contains("`__metadata__`"));
    }

    fn small() -> (ModelConfig, StateDict) {
        let config = ModelConfig { vocab_size: 8, model_dim: 20, ve_dim: 4, rope_dims: 4, ..ModelConfig::small() };
        let rows = config.tensors().into_iter().map(|spec| {
            let data = vec![0.5; spec.elements()];
            (spec.name(), Array::new(spec.shape, data))
        });
        (config.clone(), rows.collect())
    }

    fn renamed(dict: &StateDict, rename: impl Fn(&str) -> String) -> StateDict {
        dict.iter().map(|(name, array)| (rename(name), array.clone())).collect()
    }

    #[test]
    fn a_model_from_named_arrays_and_back() {
        let (config, dict) = small();
        let model = Model::from_state_dict(config.clone(), dict.clone(), Some(vec![1]), 77).unwrap();
        assert_eq!((model.bytes, model.tokenizer.as_deref()), (77, Some(&[1][..])));
        assert_eq!(model.to_state_dict(), dict);
        for wrap in ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."] {
            let wrapped = renamed(&dict, |name| format!("{wrap}{name}"));
            assert_eq!(Model::from_state_dict(config.clone(), wrapped, None, 0).unwrap().to_state_dict(), dict);
        }
        let inner = renamed(&dict, |name| name.replace("attn.", "_orig_mod.attn."));
        assert_eq!(Model::from_state_dict(config.clone(), inner, None, 0).unwrap().to_state_dict(), dict);
        let mut squeezed = dict.clone();
        squeezed.insert("ve_shared.scale".into(), Array::new([1], vec![0.5]));
        squeezed.insert("ve_layer_scales.0".into(), Array::new([], vec![0.5]));
        assert_eq!(Model::from_state_dict(config, squeezed, None, 0).unwrap().to_state_dict(), dict);
    }

    #[test]
    fn wrong_tensors_are_named() {
        let (config, dict) = small();
        let message = |change: &dyn Fn(&mut StateDict)| {
            let mut dict = dict.clone();
            change(&mut dict);
            Model::from_state_dict(config.clone(), dict, None, 0).unwrap_err().to_string()
        };
        let gone = message(&|dict| drop(dict.remove("blocks.1.attn.c_k.weight")));
        assert_eq!(gone, "tensor `blocks.1.attn.c_k.weight`: expected shape [20, 20], found no such tensor");
        let unknown = message(&|dict| drop(dict.insert("lm_head.weight".into(), Array::new([2], vec![0.0; 2]))));
        assert!(unknown.contains("`lm_head.weight`: expected no such tensor in this configuration, found a tensor"));
        let shape = message(&|dict| drop(dict.insert("tok_emb.weight".into(), Array::new([20, 8], vec![0.0; 160]))));
        assert_eq!(shape, "tensor `tok_emb.weight`: expected shape [8, 20], found shape [20, 8]");
        let twice = message(&|dict| drop(dict.insert("module.skip_gates".into(), Array::new([1], vec![0.0]))));
        assert!(twice.contains("`skip_gates`: expected one tensor of this name, found a second one"), "{twice}");
    }
}
