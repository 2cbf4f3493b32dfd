//! The tokenizer against ids made by the official library; `tests/golden/tokenizer/make.py` makes them.

use std::io::Read;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use sixpack_formats::tokenizer::{Tokenizer, pack, train, unpack};

/// Text, its ids, and the text that the official library decodes from these.
type Row = (String, Vec<u32>, String);

fn golden(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tokenizer");
    std::fs::read(folder.join(name)).expect(name)
}

fn rows<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let mut text = String::new();
    brotli::Decompressor::new(&golden(name)[..], 4096).read_to_string(&mut text).expect(name);
    text.lines().map(|line| serde_json::from_str(line).expect(name)).collect()
}

fn model(name: &str) -> Vec<u8> {
    unpack(&golden(name), 1 << 20).expect(name)
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_model(&model(name)).expect(name)
}

fn check(name: &str, tokenizer: &Tokenizer, rows: &[Row]) {
    // One encoder for all, so that its cache is in play; and a fresh one for each.
    let mut encoder = tokenizer.encoder();
    let mut cached = Vec::new();
    for (text, ids, decoded) in rows {
        assert_eq!(&tokenizer.encode(text), ids, "{name}: ids of {text:?}");
        cached.clear();
        encoder.encode_into(text, &mut cached);
        assert_eq!(&cached, ids, "{name}: ids of {text:?} with words remembered");
        assert_eq!(&tokenizer.decode(ids), decoded, "{name}: text of {ids:?}");
    }
}

#[test]
fn ids_are_those_of_the_official_library() {
    let rows = rows("strings.jsonl.br");
    assert!(rows.len() > 3000);
    check("alice 1024", &tokenizer("alice_1024.model.packed"), &rows);
}

#[test]
fn broken_and_special_ids_decode_as_in_the_official_library() {
    let tokenizer = tokenizer("alice_1024.model.packed");
    for (ids, decoded) in rows::<(Vec<u32>, String)>("ids.jsonl.br") {
        assert_eq!(tokenizer.decode(&ids), decoded, "{ids:?}");
    }
}

#[test]
fn models_with_other_options_are_read_as_in_the_official_library() {
    let variants = rows::<(String, String, Vec<Row>)>("variants.jsonl.br");
    assert_eq!(variants.len(), 9);
    for (name, model, rows) in variants {
        check(&name, &Tokenizer::from_model(&base64(&model)).expect(&name), &rows);
    }
}

#[test]
fn a_trained_model_is_that_of_the_official_trainer() {
    let corpus = String::from_utf8(golden("corpus.txt")).expect("text");
    let trained = train::train(corpus.lines(), &train::TrainOptions::new(600)).expect("a model");
    assert!(trained == model("trained.model.packed"), "other bytes than the official trainer's");
    check("trained", &Tokenizer::from_model(&trained).expect("a tokenizer"), &rows("trained.jsonl.br"));
}

#[test]
fn packed_models_have_the_bytes_that_are_in_the_golden_folder() {
    for name in ["alice_1024.model.packed", "trained.model.packed"] {
        let model = model(name);
        let packed = pack(&model);
        assert!(packed.len() < 1800, "{name}: {} bytes", packed.len());
        assert!(unpack(&packed, model.len()).expect(name) == model, "{name} does not come back");
    }
}

#[test]
fn ids_of_the_special_pieces() {
    let tokenizer = tokenizer("alice_1024.model.packed");
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.vocab_size()), (Some(1), Some(2), 1024));
    assert_eq!((tokenizer.piece(4), tokenizer.piece(266), tokenizer.piece(1024)), (Some("<0x00>"), Some("▁the"), None));
    assert_eq!((tokenizer.piece_bytes(266), tokenizer.piece_bytes(4 + 0xE2)), (&b" the"[..], &[0xE2][..]));
    assert!(tokenizer.piece_bytes(1).is_empty() && tokenizer.piece_bytes(u32::MAX).is_empty());
    assert_eq!(tokenizer.model_bytes(), model("alice_1024.model.packed"));
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits =
        text.bytes().filter(|&c| c != b'=').map(|c| DIGITS.iter().position(|&d| d == c).expect("a digit") as u32);
    let digits: Vec<u32> = digits.collect();
    let group = |four: &[u32]| {
        let bits = four.iter().enumerate().fold(0, |bits, (i, digit)| bits | digit << (18 - 6 * i));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}
