use half::f16;

use super::container::{HEADER, ROW};
use super::*;
use crate::{Codec, Error, ModelConfig, Part, QuantClass, QuantizedMatrix, Result, TensorData, TensorId, TensorSpec};

/// Numbers that look like trained weights: sums of a few uniform ones.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> i32 {
        let mut die = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 61) as i32
        };
        die() + die() + die() - 10
    }
}

/// A model of this configuration; tensors of these classes as codes within ±31 (tables ±127), the others in f16.
pub(super) fn model(config: ModelConfig, quantised: impl Fn(&TensorSpec) -> bool) -> Model {
    let mut noise = Noise(7);
    let rows = config.tensors().into_iter().map(|spec| {
        let data = match spec.shape[..] {
            [rows, cols] if quantised(&spec) => {
                let q_max = if spec.class == QuantClass::Embedding { 127 } else { 31 };
                let codes = (0..rows * cols).map(|_| noise.next() as i8).collect();
                let scales = (0..rows).map(|_| f16::from_f32(0.03 + 0.001 * noise.next() as f32)).collect();
                let matrix = QuantizedMatrix::new(&spec.name(), [rows, cols], q_max, codes, scales).unwrap();
                let mut factor = |_| f16::from_f32(1.0 + 0.01 * noise.next() as f32);
                let columns = match spec.id {
                    TensorId::Block(_, Part::MlpUp | Part::MlpDown) => (0..cols).map(&mut factor).collect(),
                    _ => vec![],
                };
                TensorData::Quantized(matrix.with_columns(&spec.name(), columns).unwrap())
            }
            _ => TensorData::F16((0..spec.elements()).map(|_| f16::from_f32(0.1 * noise.next() as f32)).collect()),
        };
        (spec.id, data)
    });
    let tensors = rows.collect();
    Model::new(config, tensors, Some(b"a tokenizer ".repeat(5)), 0).unwrap()
}

/// A model of a few kilobytes with every stream in use.
pub(super) fn small() -> Model {
    let config = ModelConfig {
        vocab_size: 24,
        num_layers: 2,
        model_dim: 16,
        num_heads: 2,
        num_kv_heads: 1,
        mlp_mult: 2.0,
        rope_dims: 4,
        xsa_last_n: 1,
        ve_layers: vec![1],
        ve_dim: 4,
        recur_layers: vec![],
        ..ModelConfig::record()
    };
    model(config, |spec| spec.shape.len() == 2 && spec.elements() > 100)
}

pub(super) fn provenance() -> Provenance {
    Provenance {
        tool: "sixpack 0.1.0".into(),
        recipe: "steps = 100\n# a comment with \"quotes\"\n".into(),
        seed: Some(u64::MAX),
        checkpoint: Some(Digest::of(b"checkpoint")),
        data: [("calibration".to_owned(), Digest::of(b"calibration"))].into(),
        notes: [("scheme".to_owned(), "reference".to_owned())].into(),
    }
}

fn file(model: &Model, codec: Codec) -> Vec<u8> {
    encode(&Contents { model, provenance: &provenance() }, codec).unwrap().0
}

fn message<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn everything_comes_back() {
    let model = small();
    for codec in Codec::ALL {
        let (bytes, ledger) = encode(&Contents { model: &model, provenance: &provenance() }, codec).unwrap();
        let back = Artifact::read(&bytes).unwrap();
        assert_eq!(back.model.config, model.config);
        assert_eq!(back.model.tensors, model.tensors);
        assert_eq!(back.model.tokenizer, model.tokenizer);
        assert_eq!(back.model.bytes, bytes.len() as u64);
        assert_eq!((back.provenance, back.score), (provenance(), None));
        assert_eq!(back.ledger, ledger);
        assert!(Artifact::is_artifact(&bytes[..8]));
    }
    let bare = Model { tokenizer: None, ..model };
    assert_eq!(Artifact::read(&file(&bare, Codec::Brotli)).unwrap().model.tokenizer, None);
}

/// Runs jobs at once, the last ones first.
fn at_once(jobs: Vec<Job<'_>>) {
    std::thread::scope(|scope| jobs.into_iter().rev().for_each(|job| drop(scope.spawn(job))));
}

#[test]
fn jobs_that_run_at_once_give_the_same() {
    let model = small();
    let contents = Contents { model: &model, provenance: &provenance() };
    let (file, ledger) = encode(&contents, Codec::Context).unwrap();
    assert_eq!(encode_with(&contents, Codec::Context, &at_once).unwrap(), (file.clone(), ledger));
    assert_eq!(Artifact::read_with(&file, &at_once).unwrap().model.tensors, model.tensors);
}

#[test]
fn matrices_in_context_have_bytes_of_their_own() {
    let model = model(ModelConfig { model_dim: 64, vocab_size: 99, ..small().config }, |spec| spec.shape.len() == 2);
    let (file, ledger) = encode(&Contents { model: &model, provenance: &provenance() }, Codec::Context).unwrap();
    let sections = container::parse(&file).unwrap();
    let section = sections.iter().find(|s| s.kind == Some(Kind::MlpUp)).unwrap();
    assert_eq!(section.codec, Codec::Context.id());
    let coded = |id| match &model.tensors[&id] {
        TensorData::Quantized(q) => crate::codec::matrix::encode(q, "").unwrap().len() as u64,
        other => panic!("{other:?}"),
    };
    for t in ledger.tensors.iter().filter(|t| matches!(t.id, TensorId::Block(_, Part::MlpUp))) {
        assert_eq!(t.values, 4 + coded(t.id));
    }
    let (_, brotli) = encode(&Contents { model: &model, provenance: &provenance() }, Codec::Brotli).unwrap();
    assert!(ledger.total() < brotli.total(), "{} of {}", ledger.total(), brotli.total());
}

#[test]
fn every_way_coded_matrices_can_lie() {
    let model = model(ModelConfig { model_dim: 64, ..small().config }, |spec| spec.shape.len() == 2);
    let lie = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = file(&model, Codec::Context);
        let sections = container::parse(&file).unwrap();
        let mut sections: Vec<_> = sections
            .iter()
            .map(|s| container::Coded {
                kind: s.kind.unwrap(),
                codec: Codec::from_id(s.codec).unwrap(),
                raw: s.raw,
                coded: s.coded.to_vec(),
            })
            .collect();
        change(&mut sections.iter_mut().find(|s| s.kind == Kind::MlpUp).unwrap().coded);
        file = container::assemble(&sections);
        message(Artifact::read(&file))
    };
    assert_eq!(lie(&|s| s.truncate(7)), "stream `MLP up codes`: expected the lengths of 2 matrices, found 7 bytes");
    assert!(lie(&|s| s[3] = 1).starts_with("stream `MLP up codes`: expected a matrix of 16"));
    assert!(lie(&|s| s.push(0)).ends_with("expected the end after the last matrix, found 1 bytes"));
    let error = lie(&|s| s[8] = 4);
    let expected = "stream `blocks.0.mlp.fc.weight`: expected coded codes of shape [128, 64] within ±31, found flags 4";
    assert_eq!(error, expected);
}

#[test]
fn a_model_all_in_f16_needs_no_streams_of_codes() {
    let model = Model { tokenizer: None, ..model(small().config, |_| false) };
    let back = Artifact::read(&file(&model, Codec::Zstd)).unwrap();
    assert_eq!(back.model.tensors, model.tensors);
    assert_eq!(back.ledger.sections.iter().filter(|s| Kind::STREAMS.contains(&s.kind.unwrap())).count(), 1);
}

#[test]
fn same_contents_same_bytes_and_the_file_is_what_encode_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.6pk");
    let (model, provenance) = (small(), provenance());
    let contents = Contents { model: &model, provenance: &provenance };
    let written = write(&path, &contents, Codec::Brotli).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), file(&model, Codec::Brotli));
    assert_eq!(written.bytes, std::fs::metadata(&path).unwrap().len());
    assert_eq!(Artifact::open(&path).unwrap().ledger, written.ledger);
}

#[test]
fn the_ledger_sums_to_the_file() {
    let (bytes, ledger) = encode(&Contents { model: &small(), provenance: &provenance() }, Codec::Brotli).unwrap();
    assert_eq!(ledger.total(), bytes.len() as u64);
    let streams: u64 = Kind::STREAMS.iter().map(|&kind| ledger.section(kind)).sum();
    assert_eq!(ledger.tensors.iter().map(TensorBytes::bytes).sum::<u64>(), streams);
    assert_eq!(ledger.overhead() + streams + ledger.section(Kind::Tokenizer), ledger.total());
    assert_eq!(ledger.tensors.len(), small().config.tensors().len());
    assert!(ledger.tensors.iter().all(|t| t.q_max.is_none() == (t.scales == 0)));
}

#[test]
fn overhead_of_the_record_is_small() {
    let model = model(ModelConfig::record(), |spec| spec.class != QuantClass::Half);
    // Stored: only the overhead is looked at, and it is largest then.
    let (bytes, ledger) = encode(&Contents { model: &model, provenance: &provenance() }, Codec::Stored).unwrap();
    assert!(ledger.overhead() < 8_000, "{} bytes", ledger.overhead());
    assert_eq!(ledger.total(), bytes.len() as u64);
    assert_eq!(Artifact::read(&bytes).unwrap().model.tensors, model.tensors);
}

#[test]
fn the_score_is_set_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.6pk");
    let (model, provenance) = (small(), provenance());
    let written = write(&path, &Contents { model: &model, provenance: &provenance }, Codec::Brotli).unwrap();
    let before = std::fs::read(&path).unwrap();
    for bits_per_byte in [Some(1.25), None] {
        let score = Score { bytes: written.bytes, nats_per_token: 2.5, bits_per_byte };
        set_score(&path, &score).unwrap();
        let back = Artifact::open(&path).unwrap();
        assert_eq!(back.score, Some(score));
        assert_eq!(back.model.tensors, model.tensors);
        let after = std::fs::read(&path).unwrap();
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert_eq!(after.len(), before.len());
        assert!(changed <= 25 + 8 + 8, "slot, its checksum, the header's: {changed}");
    }
    let now = std::fs::read(&path).unwrap();
    let wrong = |score: Score| message(set_score(&path, &score));
    let good = Score { bytes: written.bytes, nats_per_token: 2.5, bits_per_byte: None };
    assert!(wrong(Score { bytes: 3, ..good }).ends_with("found one of 3 bytes"));
    assert!(wrong(Score { nats_per_token: f64::NAN, ..good }).ends_with("expected finite figures, found NaN"));
    assert_eq!(std::fs::read(&path).unwrap(), now, "a refused score leaves the file as it was");
    std::fs::write(&path, b"junk").unwrap();
    assert!(wrong(Score { bytes: 4, ..good }).contains("a.6pk: artifact at byte 0"));
}

#[test]
fn tensors_an_artifact_cannot_hold_are_named() {
    let refuse = |change: &dyn Fn(&mut Model)| {
        let mut model = small();
        change(&mut model);
        message(encode(&Contents { model: &model, provenance: &provenance() }, Codec::Stored))
    };
    let put = |model: &mut Model, data| drop(model.tensors.insert(TensorId::SkipWeights, data));
    let error = refuse(&|model| put(model, TensorData::F32(vec![0.0; 16])));
    assert_eq!(error, "tensor `skip_weights`: expected f16 values or codes, found f32 values");
    let error = refuse(&|model| put(model, TensorData::F16(vec![])));
    assert_eq!(error, "tensor `skip_weights`: expected shape [1, 16], found 0 elements");
    let error = refuse(&|model| drop(model.tensors.remove(&TensorId::SkipWeights)));
    assert_eq!(error, "tensor `skip_weights`: expected shape [1, 16], found no such tensor");
    let matrix = |change: &dyn Fn(&mut QuantizedMatrix)| {
        refuse(&|model| match model.tensors.get_mut(&TensorId::TokenEmbedding) {
            Some(TensorData::Quantized(q)) => change(q),
            other => panic!("{other:?}"),
        })
    };
    let error = matrix(&|q| q.scales.truncate(23));
    assert!(
        error.contains("`tok_emb.weight`: expected codes and row scales of shape [24, 16], found 384 codes and 23")
    );
    assert!(matrix(&|q| q.q_max = 3).contains("expected codes within ±q_max of at most 127, found q_max 3"));
    assert!(matrix(&|q| q.q_max = 200).contains("found q_max 200"));
    assert!(refuse(&|model| model.config.num_heads = 3).contains("config field `model_dim`"));
}

/// Puts right all checksums of a file whose table was changed.
pub(super) fn reseal(file: &mut [u8]) {
    let Some(header) = file.first_chunk::<HEADER>() else { return };
    let n = usize::from(u16::from_le_bytes([header[10], header[11]]));
    let mut start = HEADER + ROW * n;
    if start > file.len() {
        return;
    }
    for row in (0..n).map(|i| HEADER + ROW * i) {
        let size = u64::from_le_bytes(file[row + 12..row + 20].try_into().unwrap());
        let Some(end) = usize::try_from(size).ok().and_then(|size| start.checked_add(size)) else { break };
        let Some(coded) = file.get(start..end) else { break };
        let checksum = Digest::of(coded).short().to_le_bytes();
        file[row + 20..row + 28].copy_from_slice(&checksum);
        start = end;
    }
    container::seal(file, n);
}

/// What reading says of a small file after `change` and with all checksums put right.
fn changed(change: impl Fn(&mut Vec<u8>)) -> String {
    let mut file = file(&small(), Codec::Stored);
    change(&mut file);
    reseal(&mut file);
    message(Artifact::read(&file))
}

/// A file of the sections of a small one after `change`.
fn rebuilt(change: impl Fn(&mut Vec<container::Coded>)) -> String {
    let file = file(&small(), Codec::Stored);
    let coded = |s: &container::Section<'_>| container::Coded {
        kind: s.kind.unwrap(),
        codec: Codec::Stored,
        raw: s.raw,
        coded: s.coded.to_vec(),
    };
    let mut sections: Vec<_> = container::parse(&file).unwrap().iter().map(coded).collect();
    change(&mut sections);
    message(Artifact::read(&container::assemble(&sections)))
}

fn replace(sections: &mut [container::Coded], kind: Kind, content: &[u8]) {
    let section = sections.iter_mut().find(|s| s.kind == kind).unwrap();
    (section.raw, section.coded) = (content.len() as u64, content.to_vec());
}

#[test]
fn every_way_the_container_can_lie() {
    let good = file(&small(), Codec::Brotli);
    let cut = |n: usize| message(Artifact::read(&good[..n]));
    assert!(cut(0).contains("artifact at byte 0: expected the magic of an artifact"));
    assert!(cut(5).contains("found [89, 36, 70, 6b, 0d]"), "{}", cut(5));
    assert!(cut(27).contains("expected a header of 28 bytes, found 27 bytes"));
    assert!(cut(good.len() - 1).contains(&format!("at byte 12: expected a file of {} bytes", good.len())));
    assert!(message(Artifact::read(b"%PDF-1.7 and so on, of some length")).contains("magic"));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(message(Artifact::read(&flipped)).contains("expected section `halves` with checksum"));
    flipped = good.clone();
    flipped[HEADER + 5] ^= 1;
    assert!(message(Artifact::read(&flipped)).contains("artifact at byte 20: expected header checksum"));

    assert!(changed(|f| f[8] = 1).contains("at byte 8: expected version 2, found 1"));
    assert!(changed(|f| f[10] = 0).contains("at byte 10: expected 1 to 64 sections, found 0"));
    assert!(changed(|f| f[10] = 65).contains("found 65"));
    assert!(changed(|f| f.push(0)).contains("at byte 12: expected a file of"));
    let long = changed(|f| {
        f.push(0);
        let size = (f.len() as u64).to_le_bytes();
        f[12..20].copy_from_slice(&size);
    });
    assert!(long.contains("expected the end of the file after its last section, found 1 bytes"), "{long}");
    let huge = changed(|f| f[HEADER + 12..HEADER + 20].fill(0xff));
    assert!(huge.contains("at byte 40: expected at most the") && huge.contains("bytes left for section 1"), "{huge}");
    assert!(changed(|f| f[HEADER + 2] = 3).contains("at byte 30: expected flags 0 or 1, found 3"));
    assert!(changed(|f| f[HEADER + ROW] = 1).contains("at byte 56: expected a section kind above 1, found 1"));
    assert!(changed(|f| f[HEADER] = 0).contains("found required section 0"));
    let last = HEADER + ROW * 10;
    assert!(
        changed(|f| f[last] = 99).contains("sections this version knows, or optional ones, found required section")
    );
    assert!(changed(|f| f[HEADER + 3] = 9).contains("`configuration`: expected one of the 5 codecs of this version"));
    let mut short = good[..40].to_vec();
    short[12..20].copy_from_slice(&40u64.to_le_bytes());
    assert!(message(Artifact::read(&short)).contains("expected a table of 11 sections, found 12 bytes"));
}

#[test]
fn unknown_optional_sections_are_skipped() {
    let model = small();
    let mut file = file(&model, Codec::Stored);
    // The provenance becomes a section of a later version, kind 4 → 6 would break the order; the score's 5 → 9 does not.
    let row = HEADER + ROW * 4;
    assert_eq!(file[row], Kind::Score as u8);
    file[row] = 9;
    file[row + 3] = 77;
    reseal(&mut file);
    let back = Artifact::read(&file).unwrap();
    assert_eq!((back.model.tensors, back.score), (model.tensors, None));
    assert_eq!((back.ledger.sections[4].name(), back.ledger.sections[4].codec), ("unknown", None));
    assert_eq!(back.ledger.total(), file.len() as u64);
}

#[test]
fn every_way_a_section_can_lie() {
    let without = |kind: Kind| rebuilt(|s| s.retain(|s| s.kind != kind));
    assert_eq!(without(Kind::Config), "stream `configuration`: expected this section, found none");
    assert_eq!(without(Kind::Forms), "stream `tensor forms`: expected this section, found none");
    assert_eq!(without(Kind::Scales), "stream `scales`: expected 624 bytes, as its tensors take, found 0 bytes");
    assert!(rebuilt(|s| replace(s, Kind::Config, b"{")).starts_with("model configuration: EOF"));
    assert!(rebuilt(|s| replace(s, Kind::Config, b"{}")).contains("`tensor forms`: expected 118 tensors of 2 bytes"));
    assert!(rebuilt(|s| s[1].coded[6] = 128).contains("with flags 0 to 3, found form [128, 0]"));
    assert!(rebuilt(|s| s[1].coded[10] = 31).contains("blocks.0.attn.q_gain`: expected f16, as for all but matrices"));
    assert!(rebuilt(|s| s[1].coded[7] = 4).contains("with flags 0 to 3, found form [31, 4]"));
    assert!(rebuilt(|s| s[1].coded[2] = 0).contains("stream `attention codes`: expected"));
    assert!(rebuilt(|s| s[1].coded[0] = 2).contains("tensor `tok_emb.weight`: expected codes within ±2, found code"));
    let infinite = f16::INFINITY.to_le_bytes();
    let high = |s: &mut Vec<container::Coded>| {
        let scales = s.iter_mut().find(|s| s.kind == Kind::Scales).unwrap();
        let half = scales.coded.len() / 2;
        (scales.coded[0], scales.coded[half]) = (infinite[0], infinite[1]);
    };
    assert!(rebuilt(high).contains("tensor `tok_emb.weight`: expected finite scales, found scale inf"));
    assert!(rebuilt(|s| replace(s, Kind::Provenance, b"[]")).starts_with("provenance: "));
    let huge = rebuilt(|s| s[0].raw = 1 << 40);
    assert_eq!(huge, format!("stream `configuration`: expected at most 16777216 bytes, found {} bytes", 1u64 << 40));
    let score = |slot: &[u8]| rebuilt(|s| replace(s, Kind::Score, slot));
    assert_eq!(score(&[0; 24]), "stream `score`: expected 25 bytes, found 24 bytes");
    assert!(score(&[0; 26]).contains("expected at most 25 bytes, found 26 bytes"));
    let slot = |flags: u8, last: u8| {
        let mut slot = [0; 25];
        (slot[0], slot[24]) = (flags, last);
        slot
    };
    assert!(score(&slot(0, 1)).contains("zeros in a slot without a score"));
    assert!(score(&slot(2, 0)).contains("expected flags 0, 1 or 3, found 2"));
    assert!(score(&slot(1, 0)).contains("found one of 0 bytes"));
}

#[test]
fn a_configuration_of_an_enormous_model_is_refused_before_anything_is_allocated() {
    let config = ModelConfig { model_dim: 1 << 16, mlp_mult: 64.0, vocab_size: 65_536, ..small().config };
    let json = serde_json::to_vec(&config).unwrap();
    let error = rebuilt(|s| replace(s, Kind::Config, &json));
    assert!(error.contains("bytes of tensors"), "{error}");
}

#[test]
fn an_error_of_a_file_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.6pk");
    std::fs::write(&path, b"nothing").unwrap();
    let error = Artifact::open(&path).unwrap_err();
    assert!(matches!(&error, Error::File { .. }));
    assert!(error.to_string().contains("b.6pk: artifact at byte 0"));
}
