//! Writing a trained vocabulary as a SentencePiece `.model`, field by field as the official trainer does.

use std::rc::Rc;

use super::{SPECIAL, TrainOptions};
use crate::tokenizer::builtin;
use crate::tokenizer::model::{BPE, PieceType};

/// The bytes of the file: special pieces, byte pieces, then `learned`, each scored one below the one before.
pub(super) fn model(learned: impl Iterator<Item = Rc<str>>, options: &TrainOptions) -> Vec<u8> {
    let mut file = Writer::default();
    for text in SPECIAL {
        let kind = if text == "<unk>" { PieceType::Unknown } else { PieceType::Control };
        file.bytes(1, &piece(text, 0.0, kind));
    }
    for byte in 0..=u8::MAX {
        file.bytes(1, &piece(&format!("<0x{byte:02X}>"), 0.0, PieceType::Byte));
    }
    for (rank, text) in learned.enumerate() {
        file.bytes(1, &piece(&text, -(rank as f32), PieceType::Normal));
    }
    file.bytes(2, &trainer_spec(options));
    file.bytes(3, &normalizer_spec());
    file.bytes
}

fn piece(text: &str, score: f32, kind: PieceType) -> Vec<u8> {
    let mut piece = Writer::default();
    piece.bytes(1, text.as_bytes());
    piece.float(2, score);
    if kind != PieceType::Normal {
        piece.int(3, kind as u32);
    }
    piece.bytes
}

fn trainer_spec(options: &TrainOptions) -> Vec<u8> {
    let mut spec = Writer::default();
    spec.int(3, BPE as u32);
    spec.int(4, options.vocab_size as u32);
    spec.float(10, options.character_coverage);
    spec.int(20, options.max_piece_chars as u32);
    let (split_digits, hard_vocab_limit, byte_fallback) = (25, 33, 35);
    spec.int(split_digits, 1);
    spec.int(hard_vocab_limit, 0);
    spec.int(byte_fallback, 1);
    let (unk_id, bos_id, eos_id, pad_id) = (40, 41, 42, 43);
    spec.int(unk_id, 3);
    spec.int(bos_id, 1);
    spec.int(eos_id, 2);
    spec.int(pad_id, 0);
    spec.bytes
}

fn normalizer_spec() -> Vec<u8> {
    let mut spec = Writer::default();
    spec.bytes(1, builtin::NAME.as_bytes());
    spec.bytes(2, builtin::charsmap());
    let add_dummy_prefix = 3;
    spec.int(add_dummy_prefix, 0);
    spec.bytes
}

/// Builds a message of the protocol-buffer wire format field by field.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A number, a truth value or an enumerated value.
    fn int(&mut self, field: u32, value: u32) {
        self.tag(field, 0);
        self.varint(u64::from(value));
    }

    fn float(&mut self, field: u32, value: f32) {
        self.tag(field, 5);
        self.bytes.extend(value.to_bits().to_le_bytes());
    }

    /// Bytes, a string or a finished message.
    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.bytes.extend(value);
    }

    fn tag(&mut self, field: u32, wire_type: u64) {
        self.varint(u64::from(field) << 3 | wire_type);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}
