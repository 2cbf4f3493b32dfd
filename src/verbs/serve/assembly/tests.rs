use super::*;

/// A tokenizer that knows the letters of its text, bytes for all else.
pub(crate) fn tokenizer() -> Tokenizer {
    let text = "the end of the rope: the end, the end and the beginning of the end. ".repeat(20);
    let dir = tempfile::tempdir().expect("folder");
    let corpus = dir.path().join("corpus.txt");
    std::fs::write(&corpus, text).expect("text");
    let out = dir.path().join("tokenizer.model");
    let made = crate::verbs::tokenizer::run(&crate::args::Tokenizer::Train {
        text: vec![corpus],
        vocab_size: 290,
        out: out.clone(),
        max_bytes: 1 << 20,
    });
    made.expect("a tokenizer");
    Tokenizer::from_model(&std::fs::read(out).expect("file")).expect("a model")
}

/// Feeds `text`'s tokens; what is given out after each, and at the end.
fn pieces(tokenizer: &Tokenizer, text: &str, stops: &[&str]) -> Vec<Piece> {
    let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
    let mut assembly = Assembly::new(tokenizer, &stops);
    let mut pieces = Vec::new();
    for id in tokenizer.encode(text) {
        let go_on = assembly.push(id, None);
        pieces.push(assembly.ready());
        if !go_on {
            break;
        }
    }
    pieces.push(assembly.finish());
    pieces
}

fn text(pieces: &[Piece]) -> String {
    pieces.iter().map(|p| p.text.as_str()).collect()
}

#[test]
fn text_ends_before_the_first_stop_string_wherever_tokens_end() {
    let tokenizer = tokenizer();
    let whole = "the end of the rope: é🦀 and the beginning.";
    assert_eq!(text(&pieces(&tokenizer, whole, &[])), whole);
    let every = whole.char_indices().map(|(i, _)| i).chain([whole.len()]).collect::<Vec<_>>();
    for (i, &from) in every.iter().enumerate() {
        for &to in &every[i + 1..] {
            let stop = &whole[from..to];
            let expected = &whole[..whole.find(stop).expect("a part")];
            let found = pieces(&tokenizer, whole, &[stop, "never"]);
            assert_eq!(text(&found), expected, "stop {stop:?}");
            let tokens: String = found.iter().flat_map(|p| &p.tokens).map(|t| t.token.as_str()).collect();
            assert!(found.iter().flat_map(|p| &p.tokens).all(|t| t.offset < expected.chars().count()), "{tokens}");
        }
    }
    assert_eq!(text(&pieces(&tokenizer, "the end of", &["of", "nd", "d"])), "the e", "the first of all");
}

#[test]
fn only_what_may_be_a_stop_string_is_held_back() {
    let tokenizer = tokenizer();
    let found = pieces(&tokenizer, "the end of the rope", &["rope!"]);
    assert_eq!(found.last().expect("the end").text, "rope");
    let free = pieces(&tokenizer, "the end of the rope", &["zebra"]);
    assert_eq!(free.last(), Some(&Piece::default()));
    for (held, free) in found.iter().zip(&free).take(3) {
        assert_eq!(held.text, free.text);
    }
}

#[test]
fn tokens_say_where_they_begin() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("the é end");
    let mut assembly = Assembly::new(&tokenizer, &[]);
    assembly.echo(&ids, &[]);
    let echoed = assembly.finish();
    assert_eq!(echoed.text, "the é end");
    assert_eq!(echoed.tokens.len(), ids.len());
    let parts: Vec<&str> = echoed.tokens.iter().map(|t| t.token.as_str()).collect();
    assert!(parts.contains(&"bytes:\\xc3") && parts.contains(&"bytes:\\xa9"), "{parts:?}");
    for told in &echoed.tokens {
        let rest: String = echoed.text.chars().skip(told.offset).collect();
        assert!(told.token.starts_with("bytes:") || rest.starts_with(&told.token), "{told:?}");
    }
}

#[test]
fn a_stop_string_in_the_prompt_ends_nothing() {
    let tokenizer = tokenizer();
    let stops = ["end".to_owned()];
    let mut assembly = Assembly::new(&tokenizer, &stops);
    assembly.echo(&tokenizer.encode("the end"), &[]);
    assert_eq!(assembly.ready().text, "the end");
    assert!(!assembly.stopped());
    let stopped = tokenizer.encode("of the end").into_iter().any(|id| !assembly.push(id, None));
    assert!(stopped && assembly.stopped());
    assert_eq!(assembly.finish().text, "of the ");
}
