//! A checkpoint: a folder with a model in full precision, and what training needs to go on from it.
//!
//! - `config.json`: [`ModelConfig`].
//! - `model.safetensors`: the tensors under the reference's names, f32 when written here.
//! - `tokenizer.model`: the SentencePiece model, byte for byte; optional.
//! - `resume.safetensors`: the state of training ([`Resume`]); optional.
//! - `sensitivity.safetensors`: what compression wants to know of the loss ([`crate::sensitivity`]); optional.
//!
//! Each file is replaced atomically, `resume.safetensors` last. Resuming reads only that file and `config.json`, so it
//! must hold everything training needs, the averaged weights of `model.safetensors` too. A crash between two renames
//! then costs nothing: the model is one save newer than the state training goes on from.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::Digest;
use crate::mapped::Mapped;
use crate::state_dict::{self, Metadata, StateDict};
use crate::{Error, Model, ModelConfig, Result, atomic, sensitivity};

/// The configuration's file name.
pub const CONFIG: &str = "config.json";
/// The weights' file name.
pub const WEIGHTS: &str = "model.safetensors";
/// The tokenizer's file name.
pub const TOKENIZER: &str = "tokenizer.model";
/// The training state's file name.
pub const RESUME: &str = "resume.safetensors";

/// Key of the training state's JSON among the metadata of `resume.safetensors`.
const STATE: &str = "state";
/// Larger configuration files are refused unread.
const MAX_CONFIG: u64 = 1 << 20;

/// Reads the model of a checkpoint folder.
///
/// Without a `model.safetensors` the only other safetensors file of the folder is taken, whatever its name.
/// [`Model::bytes`] is the size of the weights' file alone, as the reference counts its float models.
pub fn read(dir: impl AsRef<Path>) -> Result<Model> {
    let dir = dir.as_ref();
    let config = read_config(dir)?;
    let weights = weights_file(dir)?;
    let file = Mapped::open(&weights)?;
    let dict = state_dict::read(&file).map_err(Error::in_file(&weights))?;
    let tokenizer = read_tokenizer(dir)?;
    Model::from_state_dict(config, dict, tokenizer, file.len() as u64).map_err(Error::in_file(&weights))
}

/// Reads the configuration of a checkpoint folder.
pub fn read_config(dir: impl AsRef<Path>) -> Result<ModelConfig> {
    let path = dir.as_ref().join(CONFIG);
    let size = std::fs::metadata(&path).map_err(Error::io(&path, "open"))?.len();
    if size > MAX_CONFIG {
        let expected = format!("at most {MAX_CONFIG} bytes");
        let error = Error::Layout { what: "model configuration", offset: 0, expected, found: format!("{size} bytes") };
        return Err(Error::in_file(path)(error));
    }
    let json = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    ModelConfig::from_json(&json).map_err(Error::in_file(path))
}

/// The tokenizer of a checkpoint folder, if it has one.
pub fn read_tokenizer(dir: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
    let path = dir.as_ref().join(TOKENIZER);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "read")(error)),
    }
}

/// Writes a model as a checkpoint folder, which is made if it is not there. Quantised tensors are written dequantised.
///
/// The weights are written last, so that a folder with weights is complete. `metadata` is kept in their file. Other files
/// of the folder are left as they are.
pub fn write(dir: impl AsRef<Path>, model: &Model, metadata: &Metadata) -> Result<()> {
    let dir = dir.as_ref();
    std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
    atomic::write(dir.join(CONFIG), model.config.to_json().as_bytes())?;
    if let Some(tokenizer) = &model.tokenizer {
        atomic::write(dir.join(TOKENIZER), tokenizer)?;
    } else if let Err(error) = std::fs::remove_file(dir.join(TOKENIZER))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        // One of another model would be taken for this one's.
        return Err(Error::io(dir.join(TOKENIZER), "remove")(error));
    }
    state_dict::write(dir.join(WEIGHTS), &model.to_state_dict(), metadata)
}

/// Hash of the weights' file: what an artifact says about the checkpoint it was made from.
pub fn hash(dir: impl AsRef<Path>) -> Result<Digest> {
    Digest::of_file(weights_file(dir.as_ref())?)
}

/// The weights' file of a checkpoint folder: `model.safetensors`, else the only other one that is neither training state
/// nor sensitivity.
pub fn weights_file(dir: impl AsRef<Path>) -> Result<PathBuf> {
    let dir = dir.as_ref();
    let usual = dir.join(WEIGHTS);
    if usual.is_file() {
        return Ok(usual);
    }
    let mut others = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir, "list"))? {
        let path = entry.map_err(Error::io(dir, "list"))?.path();
        let known = path.ends_with(RESUME) || path.ends_with(sensitivity::FILE);
        let weights = path.extension().is_some_and(|e| e == "safetensors") && !known;
        if weights && path.is_file() {
            others.push(path);
        }
    }
    others.sort();
    if others.len() == 1 {
        return Ok(others.remove(0));
    }
    let names: Vec<_> = others.iter().filter_map(|path| path.file_name()).collect();
    Err(Error::in_file(dir)(Error::Layout {
        what: "checkpoint folder",
        offset: 0,
        expected: format!("{WEIGHTS} or one other safetensors file"),
        found: format!("{names:?}"),
    }))
}

/// What training goes on from: any number of named arrays and a value of the trainer's own type.
#[derive(Clone, Debug, PartialEq)]
pub struct Resume<T> {
    /// Raw weights, averages and optimizer state, bit for bit.
    pub arrays: StateDict,
    /// Step, clocks, cursors, generators: kept as JSON, which keeps integers of 64 bits and floats exactly.
    pub state: T,
}

/// Writes the training state beside the model. Returns when it is on the disk.
pub fn write_resume<T: Serialize>(dir: impl AsRef<Path>, resume: &Resume<T>) -> Result<()> {
    let path = dir.as_ref().join(RESUME);
    let what = || "training state".to_owned();
    let json = serde_json::to_string(&resume.state).map_err(|source| Error::Json { what: what(), source })?;
    state_dict::write(path, &resume.arrays, &Metadata::from([(STATE.to_owned(), json)]))
}

/// Reads the training state; `None` where the folder has none.
pub fn read_resume<T: DeserializeOwned>(dir: impl AsRef<Path>) -> Result<Option<Resume<T>>> {
    let path = dir.as_ref().join(RESUME);
    if !path.try_exists().map_err(Error::io(&path, "open"))? {
        return Ok(None);
    }
    let file = Mapped::open(&path)?;
    parse_resume(&file).map(Some).map_err(Error::in_file(path))
}

fn parse_resume<T: DeserializeOwned>(file: &[u8]) -> Result<Resume<T>> {
    let json = state_dict::metadata(file)?.remove(STATE).ok_or_else(|| Error::Layout {
        what: "training state",
        offset: 8,
        expected: format!("metadata `{STATE}`"),
        found: "none of that name".into(),
    })?;
    let state =
        serde_json::from_str(&json).map_err(|source| Error::Json { what: "training state".to_owned(), source })?;
    Ok(Resume { arrays: state_dict::read(file)?, state })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use half::f16;
    use serde::Deserialize;

    use super::*;
    use crate::state_dict::Array;
    use crate::{QuantizedMatrix, TensorData, TensorId};

    fn model() -> Model {
        let config = ModelConfig { vocab_size: 8, model_dim: 20, ve_dim: 4, rope_dims: 4, ..ModelConfig::small() };
        let rows = config.tensors().into_iter().enumerate().map(|(i, spec)| {
            let data = (0..spec.elements()).map(|j| (i * 1000 + j) as f32 / 7.0).collect();
            (spec.id, TensorData::F32(data))
        });
        let tensors: BTreeMap<_, _> = rows.collect();
        Model::new(config, tensors, Some(b"a tokenizer".to_vec()), 0).unwrap()
    }

    fn message(result: Result<impl std::fmt::Debug>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn round_trip_is_exact() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new/folder");
        let model = model();
        let metadata = Metadata::from([("step".to_owned(), "3".to_owned())]);
        write(&dir, &model, &metadata).unwrap();
        let back = read(&dir).unwrap();
        assert_eq!((&back.config, &back.tensors, &back.tokenizer), (&model.config, &model.tensors, &model.tokenizer));
        let file = std::fs::read(dir.join(WEIGHTS)).unwrap();
        assert_eq!(back.bytes, file.len() as u64);
        assert_eq!(state_dict::metadata(&file).unwrap(), metadata);
        assert_eq!(hash(&dir).unwrap(), Digest::of(&file));
    }

    #[test]
    fn quantised_tensors_are_written_dequantised() {
        let mut model = model();
        let codes = (0..160).map(|i| (i % 7) as i8).collect();
        let quantised = QuantizedMatrix::new("tok_emb.weight", [8, 20], 7, codes, vec![f16::from_f32(0.5); 8]).unwrap();
        let expected = quantised.dequantize();
        model.tensors.insert(TensorId::TokenEmbedding, TensorData::Quantized(quantised));
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &model, &Metadata::new()).unwrap();
        assert_eq!(read(folder.path()).unwrap().tensors[&TensorId::TokenEmbedding], TensorData::F32(expected));
    }

    #[test]
    fn one_file_of_another_name_is_taken_and_two_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        write(dir, &model(), &Metadata::new()).unwrap();
        std::fs::remove_file(dir.join(TOKENIZER)).unwrap();
        std::fs::rename(dir.join(WEIGHTS), dir.join("weights.safetensors")).unwrap();
        std::fs::write(dir.join(RESUME), b"not looked at").unwrap();
        std::fs::write(dir.join(sensitivity::FILE), b"not looked at").unwrap();
        assert_eq!(read(dir).unwrap().tokenizer, None);
        std::fs::write(dir.join("other.safetensors"), b"").unwrap();
        let error = message(read(dir));
        assert!(error.contains(r#"expected model.safetensors or one other safetensors file, found ["other.safetensors", "weights.safetensors"]"#), "{error}");
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert!(message(read(dir)).contains("config.json: cannot open"));
        std::fs::write(dir.join(CONFIG), "{").unwrap();
        assert!(message(read(dir)).contains("config.json: model configuration: EOF"));
        std::fs::write(dir.join(CONFIG), vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(message(read(dir)).contains("expected at most 1048576 bytes, found 1048577 bytes"));
        std::fs::write(dir.join(CONFIG), "{}").unwrap();
        assert!(message(read(dir)).contains("one other safetensors file, found []"));
        std::fs::write(dir.join(WEIGHTS), b"junk").unwrap();
        assert!(message(read(dir)).contains("model.safetensors: safetensors file at byte 0"));
        write(dir, &model(), &Metadata::new()).unwrap();
        std::fs::write(dir.join(CONFIG), "{}").unwrap();
        let error = message(read(dir));
        assert!(error.contains("tensor `tok_emb.weight`: expected shape [4096, 512], found shape [8, 20]"), "{error}");
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct State {
        step: u64,
        clock: f64,
        random: Vec<u8>,
    }

    #[test]
    fn the_training_state_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert_eq!(read_resume::<State>(dir).unwrap(), None);
        let state = State { step: u64::MAX - 1, clock: 0.1 + 0.2, random: (0..=255).collect() };
        let odd = vec![f32::NAN, f32::NEG_INFINITY, -0.0, f32::from_bits(1), 1.0 / 3.0];
        let arrays = StateDict::from([("muon.x".to_owned(), Array::new([5], odd.clone()))]);
        write_resume(dir, &Resume { arrays, state: state.clone() }).unwrap();
        let back = read_resume::<State>(dir).unwrap().unwrap();
        assert_eq!(back.state, state);
        let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back.arrays["muon.x"].data), bits(&odd));
    }

    #[test]
    fn a_wrong_training_state_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        state_dict::write(dir.join(RESUME), &StateDict::new(), &Metadata::new()).unwrap();
        assert!(message(read_resume::<State>(dir)).contains("resume.safetensors: training state at byte 8: expected"));
        write_resume(dir, &Resume { arrays: StateDict::new(), state: 3 }).unwrap();
        assert!(message(read_resume::<State>(dir)).contains("training state: invalid type: integer `3`"));
    }

    #[test]
    fn mutated_training_states_are_errors_or_states() {
        use proptest::prelude::*;
        let folder = tempfile::tempdir().unwrap();
        let arrays = StateDict::from([("weights.x".to_owned(), Array::new([3], vec![1.0, 2.0, 3.0]))]);
        write_resume(folder.path(), &Resume { arrays, state: vec![1u64, 2] }).unwrap();
        let whole = std::fs::read(folder.path().join(RESUME)).unwrap();
        assert!(parse_resume::<Vec<u64>>(&whole).is_ok());
        let config = ProptestConfig { cases: 100_000, failure_persistence: None, ..ProptestConfig::default() };
        let changes = proptest::collection::vec((0..whole.len(), any::<u8>()), 1..4);
        proptest!(config, |(changes in changes, len in whole.len() / 2..=whole.len())| {
            let mut bytes = whole.clone();
            changes.iter().for_each(|&(at, byte)| bytes[at] = byte);
            bytes.truncate(len);
            let parsed = parse_resume::<Vec<u64>>(&bytes);
            prop_assert!(parsed.is_err() || len == whole.len(), "a cut file was read");
        });
    }
}
