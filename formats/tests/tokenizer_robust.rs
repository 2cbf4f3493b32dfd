//! Damaged files give errors, never panics; whatever still loads encodes and decodes any text.

use std::cell::Cell;
use std::io::{Read, Write};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sixpack_formats::tokenizer::{Tokenizer, pack, unpack};

/// Cases of each test.
const CASES: u32 = 100_000;

/// Puts `insert` in the place of `remove` bytes at `at`, a fraction of the file in units of 2⁻¹⁶.
#[derive(Clone, Debug)]
struct Damage {
    at: u16,
    remove: usize,
    insert: Vec<u8>,
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let start = (usize::from(self.at) * (bytes.len() + 1)) >> 16;
        let end = (start + self.remove).min(bytes.len());
        bytes.splice(start..end, self.insert.iter().copied());
    }
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"\x00\x01\x02\x06\x0a\x12\x1a\x7f\x80\xff"[..])];
    let remove = prop_oneof![9 => 0..5usize, 1 => Just(usize::MAX >> 1)];
    let one = (any::<u16>(), remove, prop::collection::vec(byte, 0..5));
    let one = one.prop_map(|(at, remove, insert)| Damage { at, remove, insert });
    prop::collection::vec(one, 1..4)
}

/// Runs `check` on damaged copies of `bytes`; it returns whether the copy could still be read.
fn run(bytes: &[u8], check: impl Fn(&[u8]) -> bool) {
    let readable = Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let result = runner.run(&damages(), |damages| {
        let mut copy = bytes.to_vec();
        damages.iter().for_each(|damage| damage.apply(&mut copy));
        readable.set(readable.get() + u32::from(check(&copy)));
        Ok(())
    });
    result.expect("no case to panic");
    let share = f64::from(readable.get()) / f64::from(CASES);
    assert!(share > 0.01 && share < 0.99, "{share} of the copies could be read: the damage is none, or too much");
}

/// A length-delimited field of the wire format.
fn message(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let (low, high) = (bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8);
    [&[tag, low, high], bytes].concat()
}

fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    message(0x0A, &[&message(0x0A, text.as_bytes())[..], &[0x15], &score.to_le_bytes(), &[0x18, kind]].concat())
}

/// A small model with every kind of piece but bytes, and a character map that takes "A" to "ab".
fn small_model() -> Vec<u8> {
    let (normal, unknown, control, user_defined, unused) = (1, 2, 3, 4, 5);
    let mut model =
        [piece("<unk>", 0.0, unknown), piece("<s>", 0.0, control), piece("<x>", 0.0, user_defined)].concat();
    for (rank, text) in ["▁a", "ab", "▁ab", "é", "a", "b", "▁"].iter().enumerate() {
        model.extend(piece(text, -(rank as f32), if *text == "ab" { unused } else { normal }));
    }
    model.extend(message(0x12, &[0x18, 2]));
    let mut units = [0u32; 0x51];
    units[0x41] = 0x41 | 1 << 8 | (0x41 ^ 0x50) << 10;
    units[0x50] = 1 << 31;
    let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let charsmap = [&(trie.len() as u32).to_le_bytes(), &trie[..], b"ab\0"].concat();
    model.extend(message(0x1A, &message(0x12, &charsmap)));
    model
}

#[test]
fn damaged_models() {
    let model = small_model();
    let whole = Tokenizer::from_model(&model).expect("the undamaged model");
    assert_eq!(whole.decode(&whole.encode("A <x>")), "ab <x>");
    run(&model, |bytes| {
        let Ok(tokenizer) = Tokenizer::from_model(bytes) else { return false };
        let ids = tokenizer.encode("A b  abab é<x>\t漢A");
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        tokenizer.decode(&ids);
        tokenizer.decode(&[0, 1, 2, 3, 1000, u32::MAX]);
        assert_eq!(tokenizer.byte_tables().len(), tokenizer.vocab_size());
        true
    });
}

#[test]
fn damaged_packed_models() {
    let packed = pack(&small_model());
    // The stream has no checksum of its own: a damaged one may well give bytes, if other ones.
    run(&packed, |bytes| unpack(bytes, 1 << 16).is_ok_and(|model| model.len() <= 1 << 16));
}

#[test]
fn damaged_bodies_of_packed_models() {
    let packed = pack(&small_model());
    let mut body = Vec::new();
    brotli::Decompressor::new(&packed[4..], 4096).read_to_end(&mut body).expect("a stream");
    run(&body, |bytes| {
        let mut again = packed[..4].to_vec();
        let mut writer = brotli::CompressorWriter::new(&mut again, 4096, 0, 16);
        writer.write_all(bytes).expect("memory");
        drop(writer);
        unpack(&again, 1 << 16).is_ok_and(|model| model.len() <= 1 << 16)
    });
}

#[test]
fn what_is_wrong_with_a_packed_model_is_said() {
    let message = |bytes: &[u8], cap| unpack(bytes, cap).expect_err("an error").to_string();
    let packed = pack(&small_model());
    let size = small_model().len();
    assert_eq!(message(&[1], 9), "packed tokenizer at byte 0: expected 4 bytes of size, found 1");
    let expected = format!("packed tokenizer at byte 0: expected a model of at most 9 bytes, found {size}");
    assert_eq!(message(&packed, 9), expected);
    assert!(message(&packed[..20], size).contains("a brotli stream"), "{}", message(&packed[..20], size));
}

#[test]
fn any_bytes_can_be_packed() {
    let strategy =
        prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\x0a\x0c\x05\x15\x18"[..])], 0..80);
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&strategy, |bytes| {
        assert_eq!(unpack(&pack(&bytes), bytes.len()).expect("packed bytes"), bytes);
        Ok(())
    });
    result.expect("every case to come back");
}
