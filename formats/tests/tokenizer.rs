//! The tokenizer as a user meets it.

use sixpack_formats::tokenizer::Tokenizer;

#[test]
fn a_file_that_is_no_model_is_named_with_the_place() {
    let error = Tokenizer::from_model(b"\x0a\x05ab").err().expect("an error").to_string();
    assert_eq!(error, "tokenizer model at byte 2: expected 5 bytes, found 2 left");
}

#[test]
fn a_model_of_another_kind_is_named() {
    let error = Tokenizer::from_model(b"\x12\x02\x18\x01").err().expect("an error").to_string();
    assert_eq!(error, "tokenizer, trainer_spec.model_type: expected BPE (2), found unigram (1)");
}
