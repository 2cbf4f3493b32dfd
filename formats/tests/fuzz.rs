//! Every parser of files against random mutations of good files: an error or a value, never a panic, and never memory
//! that the input does not warrant. 100,000 cases for each, from a fixed seed.

use std::collections::BTreeMap;

use half::f16;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sixpack_formats::artifact::{self, Contents, Provenance};
use sixpack_formats::codec::matrix;
use sixpack_formats::dataset::{HashesEntry, Manifest, ShardEntry};
use sixpack_formats::state_dict::{self, Array, Metadata, StateDict};
use sixpack_formats::{
    Artifact, Codec, Digest, Model, ModelConfig, QuantClass, QuantizedMatrix, Score, Sensitivity, TensorData,
    sensitivity, shard,
};

const CASES: u32 = 100_000;
/// All inputs are below 20 KB; decoders of several tests at once may hold a window of 16 MiB each.
const MEMORY: u64 = 256 << 20;

/// One change of a file.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    Copy(Index, Index, u8),
    Number(Index, u64),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    use Mutation::{Copy, Cut, Flip, Insert, Number, Remove, Set};
    let at = any::<Index>;
    let telling = prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), Just(1 << 31), (0u32..64).prop_map(|k| 1 << k)];
    prop_oneof![
        (at(), 0u8..8).prop_map(|(at, bit)| Flip(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Set(at, byte)),
        at().prop_map(Cut),
        (at(), any::<u8>()).prop_map(|(at, n)| Remove(at, n)),
        (at(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Insert(at, bytes)),
        (at(), at(), any::<u8>()).prop_map(|(from, to, n)| Copy(from, to, n)),
        (at(), telling).prop_map(|(at, number)| Number(at, number)),
    ]
}

fn apply(file: &mut Vec<u8>, mutation: &Mutation) {
    if file.is_empty() {
        return;
    }
    let len = file.len();
    match mutation {
        Mutation::Flip(at, bit) => file[at.index(len)] ^= 1 << bit,
        Mutation::Set(at, byte) => file[at.index(len)] = *byte,
        Mutation::Cut(at) => file.truncate(at.index(len)),
        Mutation::Remove(at, n) => drop(file.drain(at.index(len)..(at.index(len) + usize::from(*n)).min(len))),
        Mutation::Insert(at, bytes) => drop(file.splice(at.index(len)..at.index(len), bytes.iter().copied())),
        Mutation::Copy(from, to, n) => {
            let (from, to) = (from.index(len), to.index(len));
            let n = usize::from(*n).min(len - from).min(len - to);
            file.copy_within(from..from + n, to);
        }
        Mutation::Number(at, number) => {
            let at = at.index(len);
            let n = 8.min(len - at);
            file[at..at + n].copy_from_slice(&number.to_le_bytes()[..n]);
        }
    }
}

/// Parses mutations of the good files. `parse` says whether it took the file. It must take the good files themselves and
/// refuse a good part of the mutated ones, or they would show nothing.
fn fuzz(files: &[Vec<u8>], mut parse: impl FnMut(Vec<u8>) -> bool) {
    for file in files {
        assert!(parse(file.clone()), "the unchanged file is refused");
    }
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (refused, parse) = (std::cell::Cell::new(0), std::cell::RefCell::new(parse));
    let cases = (any::<Index>(), vec(mutation(), 1..4));
    let result = runner.run(&cases, |(which, mutations)| {
        let mut file = files[which.index(files.len())].clone();
        mutations.iter().for_each(|mutation| apply(&mut file, mutation));
        if !parse.borrow_mut()(file) {
            refused.set(refused.get() + 1);
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(refused.get() > CASES / 4, "only {} of {CASES} refused", refused.get());
    if let Some(peak) = peak_memory() {
        assert!(peak < MEMORY, "{peak} bytes of memory at the peak");
    }
}

/// The most memory this process has held, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 8,
        num_layers: 1,
        model_dim: 8,
        num_heads: 2,
        num_kv_heads: 1,
        mlp_mult: 1.0,
        rope_dims: 4,
        xsa_last_n: 1,
        ve_layers: vec![0],
        ve_dim: 2,
        recur_layers: vec![],
        ..ModelConfig::record()
    }
}

fn model() -> Model {
    let config = config();
    let rows = config.tensors().into_iter().map(|spec| {
        let data = match spec.shape[..] {
            [rows, cols] if rows * cols > 30 => {
                let codes = (0..rows * cols).map(|i| (i * i % 13) as i8 - 6).collect();
                let scales = (0..rows).map(|i| f16::from_f32(0.03 + i as f32 / 100.0)).collect();
                let q_max = if spec.class == QuantClass::Embedding { 127 } else { 31 };
                TensorData::Quantized(QuantizedMatrix::new(&spec.name(), [rows, cols], q_max, codes, scales).unwrap())
            }
            _ => TensorData::F16((0..spec.elements()).map(|i| f16::from_f32(i as f32 / 7.0)).collect()),
        };
        (spec.id, data)
    });
    Model::new(config.clone(), rows.collect(), Some(b"no tokenizer, but bytes".to_vec()), 0).unwrap()
}

fn artifacts() -> Vec<Vec<u8>> {
    let provenance = Provenance { tool: "fuzz".into(), seed: Some(3), ..Provenance::default() };
    let model = model();
    let file = |codec| artifact::encode(&Contents { model: &model, provenance: &provenance }, codec).unwrap().0;
    [Codec::Stored, Codec::Brotli, Codec::Zstd, Codec::Context].map(file).into()
}

/// Puts right the size and all checksums of an artifact, so that mutations get past them.
fn reseal(file: &mut [u8]) {
    if file.len() < 28 {
        return;
    }
    let size = (file.len() as u64).to_le_bytes();
    file[12..20].copy_from_slice(&size);
    let n = usize::from(u16::from_le_bytes([file[10], file[11]]));
    let mut start = 28 + 28 * n;
    if start > file.len() {
        return;
    }
    for row in (0..n).map(|i| 28 + 28 * i) {
        let size = u64::from_le_bytes(file[row + 12..row + 20].try_into().unwrap());
        let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
        let Some(coded) = end.and_then(|end| file.get(start..end)) else { break };
        let checksum = Digest::of(coded).short().to_le_bytes();
        start += coded.len();
        file[row + 20..row + 28].copy_from_slice(&checksum);
    }
    let head = [&file[..20], &file[28..28 + 28 * n]].concat();
    file[20..28].copy_from_slice(&Digest::of(&head).short().to_le_bytes());
}

#[test]
fn shards() {
    let folder = tempfile::tempdir().unwrap();
    let file = |tokens: &[u16]| {
        shard::write(folder.path().join("a.bin"), tokens).unwrap();
        std::fs::read(folder.path().join("a.bin")).unwrap()
    };
    let files = [file(&[1, 2, 3]), file(&[]), file(&[7; 600])];
    fuzz(&files, |bytes| shard::parse(&bytes).is_ok());
    // Only 12 of the header's 1,024 bytes matter: once more without the others, which are put in after the mutation.
    let short = files.map(|file| [&file[..12], &file[1024..]].concat());
    fuzz(&short, |bytes| {
        let (head, tokens) = bytes.split_at(bytes.len().min(12));
        shard::parse(&[head, &[0; 1012], tokens].concat()).is_ok()
    });
}

#[test]
fn manifests() {
    let entry = |name: &str| ShardEntry {
        name: name.into(),
        tokens: 10,
        documents: 2,
        text_bytes: 33,
        digest: Digest::of(name.as_bytes()),
    };
    let manifest = Manifest {
        version: 1,
        vocab_size: 1024,
        tokenizer: Digest::of(b"tokenizer"),
        bos_id: 1,
        duplicates_dropped: 3,
        train: vec![entry("train_000000.bin"), entry("train_000001.bin")],
        val: vec![entry("val_000000.bin")],
        val_hashes: HashesEntry { name: "val.hashes".into(), digest: Digest::of(b"") },
    };
    fuzz(&[manifest.to_json().into_bytes()], |bytes| Manifest::from_json(&bytes).is_ok());
}

#[test]
fn configurations() {
    let files = [config(), ModelConfig::record(), ModelConfig::small()].map(|c| c.to_json().into_bytes());
    fuzz(&files, |bytes| match ModelConfig::from_json(&bytes) {
        Ok(config) => {
            // What passes must be safe to use.
            config.tensors();
            config.virtual_layers(true);
            true
        }
        Err(_) => false,
    });
}

#[test]
fn state_dicts() {
    let dict = |n: usize| -> StateDict {
        (0..n).map(|i| (format!("block.{i}"), Array::new([i, 2], vec![1.5; 2 * i]))).collect()
    };
    let metadata = Metadata::from([("step".to_owned(), "{\"a\": 3}".to_owned())]);
    let model = model().to_state_dict();
    let files = [
        state_dict::encode(&dict(3), &metadata).unwrap(),
        state_dict::encode(&dict(0), &Metadata::new()).unwrap(),
        state_dict::encode(&model, &metadata).unwrap(),
    ];
    fuzz(&files, |bytes| {
        let _ = state_dict::metadata(&bytes);
        match state_dict::read(&bytes) {
            Ok(dict) => {
                let _ = Model::from_state_dict(config(), dict, None, 0);
                true
            }
            Err(_) => false,
        }
    });
}

#[test]
fn sensitivities() {
    let folder = tempfile::tempdir().unwrap();
    let path = sensitivity::path(folder.path());
    sensitivity::write(&path, &Sensitivity::zeros(&config(), 64, Digest::of(b"weights"))).unwrap();
    fuzz(&[std::fs::read(path).unwrap()], |bytes| sensitivity::parse(&bytes, &config()).is_ok());
}

#[test]
fn coded_streams() {
    let raw: Vec<u8> = (0..300u32).map(|i| (i * i % 11) as u8).collect();
    let coded: BTreeMap<u8, Vec<u8>> = Codec::ALL.into_iter().map(|codec| (codec.id(), codec.encode(&raw))).collect();
    // The first byte of a case says which codec reads the rest.
    let files: Vec<Vec<u8>> = coded.iter().map(|(&id, coded)| [&[id], &coded[..]].concat()).collect();
    fuzz(&files, |bytes| {
        let Some((&id, coded)) = bytes.split_first() else { return false };
        let codec = Codec::from_id(id % Codec::ALL.len() as u8).unwrap();
        match codec.decode(coded, raw.len(), "fuzz") {
            Ok(decoded) => {
                assert_eq!(decoded.len(), raw.len());
                true
            }
            Err(_) => false,
        }
    });
}

#[test]
fn coded_matrices() {
    let codes = |cols: usize| (0..9 * cols).map(|i| (i * i % 11) as i8 - 5).collect();
    let steps = |n: usize| (0..n).map(|i| f16::from_f32(0.03 + i as f32 / 100.0)).collect::<Vec<_>>();
    let plain = QuantizedMatrix::new("plain", [9, 12], 31, codes(12), steps(9)).unwrap();
    let scaled = plain.clone().with_columns("scaled", steps(12)).unwrap();
    let zeros = QuantizedMatrix { codes: vec![0; 108], trellis: true, ..scaled.clone() };
    let wide = QuantizedMatrix { codes: codes(12).iter().map(|c: &i8| c * 25).collect(), q_max: 127, ..plain.clone() };
    let matrices = [plain, scaled, zeros, wide];
    // The first byte of a case says whose frame reads the rest.
    let coded = |(i, m): (usize, _)| [&[i as u8], &matrix::encode(m, "fuzz").unwrap()[..]].concat();
    let files: Vec<Vec<u8>> = matrices.iter().enumerate().map(coded).collect();
    fuzz(&files, |bytes| {
        let Some((&which, coded)) = bytes.split_first() else { return false };
        let frame = QuantizedMatrix { codes: Vec::new(), ..matrices[usize::from(which) % matrices.len()].clone() };
        match matrix::decode(coded, frame, "fuzz") {
            Ok(matrix) => {
                assert!(matrix.codes.len() == 108 && matrix.codes.iter().all(|c| c.unsigned_abs() <= matrix.q_max));
                true
            }
            Err(_) => false,
        }
    });
}

#[test]
fn artifacts_as_they_are() {
    fuzz(&artifacts(), |bytes| Artifact::read(&bytes).is_ok());
}

#[test]
fn artifacts_with_checksums_put_right() {
    fuzz(&artifacts(), |mut bytes| {
        reseal(&mut bytes);
        match Artifact::read(&bytes) {
            Ok(artifact) => {
                assert_eq!(artifact.ledger.total(), bytes.len() as u64);
                true
            }
            Err(_) => false,
        }
    });
}

#[test]
fn scores_of_mutated_artifacts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.6pk");
    let good = artifacts().remove(0);
    let score = Score { bytes: good.len() as u64, nats_per_token: 1.0, bits_per_byte: Some(0.5) };
    for cut in 0..good.len() {
        std::fs::write(&path, &good[..cut]).unwrap();
        assert!(artifact::set_score(&path, &Score { bytes: cut as u64, ..score }).is_err());
    }
    std::fs::write(&path, &good).unwrap();
    artifact::set_score(&path, &score).unwrap();
}
