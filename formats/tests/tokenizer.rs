//! The tokenizer as a user meets it: bytes counted, text streamed, models trained, errors that say what is wrong.

use std::path::PathBuf;

use sixpack_formats::tokenizer::train::{TrainOptions, train};
use sixpack_formats::tokenizer::{Tokenizer, unpack};

fn golden(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tokenizer");
    std::fs::read(folder.join(name)).expect(name)
}

fn corpus() -> String {
    String::from_utf8(golden("corpus.txt")).expect("text")
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_model(&unpack(&golden(name), 1 << 20).expect(name)).expect(name)
}

fn both() -> [Tokenizer; 2] {
    ["alice_1024.model.packed", "trained.model.packed"].map(tokenizer)
}

#[test]
fn bytes_of_a_documents_tokens_sum_to_its_normalised_length() {
    let corpus = corpus();
    let documents = corpus.lines().chain([&corpus[..], "  two  spaces\t", "漢 字", ""]);
    for tokenizer in both() {
        let tables = tokenizer.byte_tables();
        let bos = tokenizer.bos_id().expect("BOS");
        for document in documents.clone() {
            let normal = tokenizer.normalize(document).replace('▁', " ");
            let mut previous = bos;
            let mut sum = 0;
            for id in tokenizer.encode(document) {
                sum += tables.bytes(previous, id);
                previous = id;
            }
            assert_eq!(sum, normal.len() as u64, "{document:?}");
        }
    }
}

#[test]
fn text_comes_back_and_streams_as_bytes() {
    let corpus = corpus();
    for tokenizer in both() {
        for line in corpus.lines() {
            let ids = tokenizer.encode(line);
            let normal = tokenizer.normalize(line).replace('▁', " ");
            assert_eq!(tokenizer.decode(&ids), normal);
            let streamed: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.piece_bytes(id)).copied().collect();
            assert_eq!(String::from_utf8(streamed).expect("whole characters in the end"), normal);
        }
    }
}

#[test]
fn a_long_word_takes_no_square_of_its_length() {
    // A quadratic merge loop would need hours for this; a missing one would give a token a byte.
    let word = "theandofinghertion".repeat(1 << 16);
    let ids = tokenizer("alice_1024.model.packed").encode(&word);
    assert_eq!(ids.len(), 8 << 16);
}

#[test]
fn bytes_that_are_no_text_are_refused_with_the_place() {
    let tokenizer = tokenizer("trained.model.packed");
    let message = |bytes: &[u8]| tokenizer.encode_bytes(bytes).expect_err("an error").to_string();
    assert_eq!(message(b"ab\xFFc"), "text at byte 2: expected valid UTF-8, found byte 0xFF");
    let cut = "text at byte 1: expected valid UTF-8, found the end of the text inside a character";
    assert_eq!(message(b"a\xE6\xBC"), cut);
    assert_eq!(message(b"\xED\xA0\x80"), "text at byte 0: expected valid UTF-8, found byte 0xED");
    assert_eq!(tokenizer.encode_bytes("é".as_bytes()).expect("text"), tokenizer.encode("é"));
}

#[test]
fn a_file_that_is_no_model_is_named_with_the_place() {
    let message = |bytes: &[u8]| Tokenizer::from_model(bytes).expect_err("an error").to_string();
    assert_eq!(message(b"\x0a\x05ab"), "tokenizer model at byte 2: expected 5 bytes, found 2 left");
    let unigram = "tokenizer, trainer_spec.model_type: expected BPE (2), found unigram (1)";
    assert_eq!(message(b"\x12\x02\x18\x01"), unigram);
    assert_eq!(message(b""), unigram, "what an absent type means");
    let empty = "tokenizer, pieces: expected an unknown piece or byte pieces, found neither";
    assert_eq!(message(b"\x12\x02\x18\x02"), empty);
    let twice = b"\x0a\x03\x0a\x01a\x0a\x03\x0a\x01a\x12\x02\x18\x02";
    let piece = "tokenizer, piece 1: expected a piece of its own, found \"a\", which is piece 0 already";
    assert_eq!(message(twice), piece);
}

#[test]
fn training_says_what_is_possible() {
    let message = |text: &str, size| train([text], &TrainOptions::new(size)).expect_err("an error").to_string();
    let range = "expected from 261 (260 special and byte pieces and one more) to 65536";
    assert_eq!(message("text", 260), format!("tokenizer, vocab_size: {range}, found 260"));
    assert_eq!(message("text", 1 << 17), format!("tokenizer, vocab_size: {range}, found 131072"));
    assert_eq!(message(" \n", 300), "tokenizer, text: expected words to learn from, found none");
    let alphabet = "tokenizer, vocab_size: expected at least 263 (260 fixed pieces, 3 characters), found 262";
    assert_eq!(message("text", 262), alphabet);
    // "te", "xt", "text" and the letters t, e, x.
    let little = "tokenizer, vocab_size: expected at most 266, which is all this text gives, found 300";
    assert_eq!(message("text", 300), little);
    let model = train(["text"], &TrainOptions::new(266)).expect("a model of that size");
    assert_eq!(Tokenizer::from_model(&model).expect("a tokenizer").encode("text").len(), 1);
    let options = TrainOptions { character_coverage: 0.5, ..TrainOptions::new(300) };
    let coverage = "tokenizer, character_coverage: expected from 0.98 to 1, found 0.5";
    assert_eq!(train(["text"], &options).expect_err("an error").to_string(), coverage);
}

#[test]
fn training_does_not_learn_from_special_pieces() {
    let text = "<s></s><unk><pad><0x41><0x0A> <s>".repeat(100) + "<x>";
    let model = train([&text], &TrainOptions::new(264)).expect("a model");
    let tokenizer = Tokenizer::from_model(&model).expect("a tokenizer");
    let mut learned: Vec<&str> = (260..264).filter_map(|id| tokenizer.piece(id)).collect();
    learned.sort_unstable();
    assert_eq!(learned, ["<", ">", "x", "▁"]);
}

#[test]
fn equal_texts_give_equal_models() {
    let corpus = corpus();
    let [one, two] = [(); 2].map(|()| train([&corpus], &TrainOptions::new(500)).expect("a model"));
    assert!(one == two);
}
