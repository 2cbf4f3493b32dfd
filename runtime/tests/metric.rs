//! The metric against the reference's, and its shortcuts against the plain way.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use sixpack_formats::tokenizer::ByteTables;
use sixpack_runtime::cpu::{Fast, Reference};
use sixpack_runtime::metric::{Options, Text, evaluate};
use sixpack_runtime::{Batch, Error, Pass, forward, model, now};

struct Case {
    model: sixpack_formats::Model,
    tokens: Vec<u16>,
    tables: ByteTables,
    options: Options,
    eval: serde_json::Value,
}

fn case(name: &str) -> Case {
    let arrays = golden::arrays(&format!("{name}/eval.safetensors"));
    let narrow = |key: &str| arrays[key].ids().into_iter().map(|x| x as u16).collect::<Vec<_>>();
    let flags = |key: &str| narrow(key).into_iter().map(|x| x != 0).collect();
    let tables = ByteTables {
        base_bytes: narrow("base_bytes"),
        leading_space: flags("leading_space"),
        boundary: flags("boundary"),
    };
    let eval = golden::meta(name)["eval"].clone();
    let number = |key: &str| eval[key].as_u64().unwrap() as usize;
    let options = Options { seq_len: number("seq_len"), stride: Some(number("stride")), batch: 3, max_tokens: None };
    Case { model: golden::model(name), tokens: narrow("tokens"), tables, options, eval }
}

fn close(what: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{what}: found {found}, expected {expected}");
}

macro_rules! reproduces_the_reference {
    ($name:ident, $new:expr) => {
        #[test]
        fn $name() {
            for name in golden::CASES {
                let Case { model, tokens, tables, options, eval } = case(name);
                let mut ops = $new;
                let weights = ops.load(&model);
                let text = Text { tokens: &tokens, bytes: Some(&tables), bos: Some(1) };
                for (mode, stride) in [("plain", None), ("sliding", options.stride)] {
                    let options = Options { stride, ..options };
                    let mut last = None;
                    let found =
                        now(evaluate(&model.config, &weights, &mut ops, &text, &options, &mut |p| last = Some(p)))
                            .unwrap();
                    let expected = |key: &str| eval[format!("{mode}_{key}")].as_f64().unwrap();
                    close(&format!("{name} {mode} loss"), found.loss_nats, expected("loss"));
                    close(&format!("{name} {mode} bpb"), found.bits_per_byte.unwrap(), expected("bpb"));
                    let last = last.expect("progress was told");
                    assert_eq!((last.scored, last.total, last.nats), (found.tokens, found.tokens, found.nats));
                    assert!(found.stderr.unwrap() > 0.0);
                }
            }
        }
    };
}

reproduces_the_reference!(reference_reproduces_the_reference, Reference::new());
reproduces_the_reference!(fast_reproduces_the_reference, Fast::new(1).unwrap());

/// Every window whole, alone, with all its logits.
#[test]
fn shortcuts_change_nothing() {
    for name in golden::CASES {
        let Case { model, tokens, options, .. } = case(name);
        let (seq_len, stride) = (options.seq_len, options.stride.unwrap());
        let mut ops = Fast::new(1).unwrap();
        let weights = ops.load(&model);
        let n = tokens.len() - 1;
        let (mut nats, mut scored) = (0.0, 0);
        for start in (0..n).step_by(stride).take_while(|start| start + seq_len - stride < n) {
            let end = (start + seq_len).min(n);
            let ids: Vec<u32> = tokens[start..end].iter().map(|&id| id.into()).collect();
            let targets: Vec<u32> = tokens[start + 1..=end].iter().map(|&id| id.into()).collect();
            let batch = Batch { ids: &ids, sequences: 1, context: seq_len };
            let h = forward(&model.config, &weights, &mut ops, &batch, Pass::FULL).unwrap();
            let nll = model::nll(&model.config, &weights, &mut ops, &h, &targets).unwrap();
            let first = if start == 0 { 0 } else { seq_len - stride };
            nats += nll.data[first..].iter().map(|&x| f64::from(x)).sum::<f64>();
            scored += end - start - first;
        }
        assert_eq!(scored, n);
        for batch in [1, 2, 64] {
            let text = Text { tokens: &tokens, bytes: None, bos: None };
            let options = Options { batch, ..options };
            let found = now(evaluate(&model.config, &weights, &mut ops, &text, &options, &mut |_| {})).unwrap();
            close(name, found.loss_nats, nats / n as f64);
            assert_eq!((found.tokens, found.bits_per_byte, found.bytes, found.stderr), (n as u64, None, None, None));
        }
    }
}

#[test]
fn short_and_foreign_texts() {
    let Case { model, tokens, tables, options, .. } = case("tiny");
    let mut ops = Fast::new(1).unwrap();
    let weights = ops.load(&model);
    let mut run = |tokens: &[u16], options: Options, tables: Option<&ByteTables>| {
        let text = Text { tokens, bytes: tables, bos: None };
        now(evaluate(&model.config, &weights, &mut ops, &text, &options, &mut |_| {}))
    };
    // Fewer tokens than a window: sliding scores them all, plain has no window.
    assert_eq!(run(&tokens[..10], options, None).unwrap().tokens, 9);
    let plain = Options { stride: None, ..options };
    assert!(matches!(run(&tokens[..10], plain, None), Err(Error::TooFewTokens { expected: 49, found: 10 })));
    assert!(matches!(run(&tokens[..1], options, None), Err(Error::TooFewTokens { .. })));
    assert!(matches!(run(&[], options, None), Err(Error::TooFewTokens { .. })));
    // A stride of the whole window is the plain evaluation, and its tail.
    let whole = run(&tokens[..=96], Options { stride: Some(48), ..options }, None).unwrap();
    close("stride of a window", whole.nats, run(&tokens[..=96], plain, None).unwrap().nats);
    assert_eq!(run(&tokens, Options { max_tokens: Some(50), ..options }, None).unwrap().tokens, 50);
    let foreign = run(&[1, 2, 160, 3], options, None).unwrap_err().to_string();
    assert_eq!(foreign, "token 2: expected an id below the vocabulary's size 160, found 160");
    let short = ByteTables { base_bytes: tables.base_bytes[..5].to_vec(), ..tables.clone() };
    assert!(matches!(run(&[1, 2, 7, 3], options, Some(&short)), Err(Error::Token { index: 2, id: 7, vocab: 5 })));
}
