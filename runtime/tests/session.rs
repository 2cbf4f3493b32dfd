//! Sessions: reading in parts gives what the full forward pass gives.

#[path = "../../tests/golden/golden.rs"]
mod golden;
#[path = "suite/session.rs"]
mod suite;

use proptest::prelude::*;
use sixpack_runtime::cpu::{Fast, Reference};
use sixpack_runtime::session::Session;
use sixpack_runtime::{Batch, Error, Pass, forward, now};
use suite::{full, parts_equal_the_whole, quantise, sequence};

macro_rules! sessions {
    ($name:ident, $new:expr) => {
        #[test]
        fn $name() {
            for case in golden::CASES {
                let (model, ids) = (golden::model(case), sequence(case));
                let mut ops = $new;
                let weights = ops.load(&model);
                for parts in [vec![1], vec![ids.len()], vec![7, 1, 1], vec![0, 2, 13]] {
                    let parts = parts.into_iter().cycle();
                    parts_equal_the_whole(&model.config, &weights, &mut ops, &ids, parts);
                }
            }
        }
    };
}

sessions!(reference_in_parts, Reference::new());
sessions!(fast_in_parts, Fast::new(1).unwrap());
sessions!(fast_in_parts_on_two_threads, Fast::new(2).unwrap());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn split_anywhere(case in 0usize..4, parts in proptest::collection::vec(1usize..9, 48)) {
        let case = golden::CASES[case];
        let (model, ids) = (golden::model(case), sequence(case));
        let mut ops = Fast::new(1).unwrap();
        let weights = ops.load(&model);
        parts_equal_the_whole(&model.config, &weights, &mut ops, &ids, parts);
    }
}

/// More than one chunk of a prompt, and a model whose matrices are codes: those of the full pass are multiplied
/// another way than those of a step.
#[test]
fn long_prompts_of_a_quantised_model() {
    let mut model = golden::model("tiny");
    quantise(&mut model);
    let ids: Vec<u32> = (0..700).map(|i| (i * 37 + i / 5) % 160).collect();
    let mut fast = Fast::new(1).unwrap();
    let weights = fast.load(&model);
    parts_equal_the_whole(&model.config, &weights, &mut fast, &ids, [1, 600, 3, 1, 95]);
    // And codes are the numbers they stand for.
    let found = full(&model.config, &weights, &mut fast, &ids[..40]);
    let mut plain = Reference::new();
    let weights = plain.load(&model);
    let expected = full(&model.config, &weights, &mut plain, &ids[..40]);
    let worst = found.0.iter().zip(&expected.0).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn the_context_has_an_end() {
    let model = golden::model("tiny");
    let mut ops = Fast::new(1).unwrap();
    let weights = ops.load(&model);
    let mut session = Session::new(&model.config, &weights, &mut ops, 8);
    assert!(matches!(now(session.logits()), Err(Error::Option { field: "session", .. })));
    now(session.prefill(&[1, 2, 3, 4, 5])).unwrap();
    let before = now(session.logits()).unwrap();
    let message = now(session.prefill(&[1, 2, 3, 4])).unwrap_err().to_string();
    assert_eq!(message, "the context is full: it holds 8 tokens, 5 are in it and 4 more were given");
    assert!(matches!(session.step(160), Err(Error::Token { id: 160, .. })));
    assert_eq!((session.past(), session.room(), now(session.logits()).unwrap()), (5, 3, before));
    now(session.prefill(&[1, 2])).unwrap();
    session.step(9).unwrap();
    assert!(matches!(session.step(9), Err(Error::ContextFull { limit: 8, past: 8, more: 1 })));
    // The machine forgets when the session ends.
    drop(session);
    let h = forward(&model.config, &weights, &mut ops, &Batch::new(&[1, 2, 3, 4], 2), Pass::FULL).unwrap();
    assert_eq!((h.sequences, h.start), (2, 0));
}
