//! An engine gives its scores as they come, and stops when it is told to.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use sixpack_runtime::{Engine, now};

const CONTEXT: usize = 16;

#[test]
fn scores_come_context_by_context() {
    let ids: Vec<u32> = golden::arrays("tiny/forward.safetensors")["tokens"].ids()[..40].to_vec();
    let mut engine = Engine::cpu(&golden::model("tiny"), 1).unwrap();
    let all = now(engine.score(&ids, CONTEXT)).unwrap();
    assert_eq!(all.len(), ids.len() - 1);
    let mut parts: Vec<Vec<f32>> = Vec::new();
    let mut keep = |nll: &[f32]| {
        parts.push(nll.to_vec());
        true
    };
    now(engine.score_with(&ids, CONTEXT, &mut keep)).unwrap();
    assert_eq!(parts.concat(), all);
    // A whole context has one score less than tokens; each later one has those of its second half.
    let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
    assert_eq!(sizes, [CONTEXT - 1, CONTEXT / 2, CONTEXT / 2, CONTEXT / 2]);
    let mut parts = 0;
    let mut stop = |_: &[f32]| {
        parts += 1;
        parts < 2
    };
    now(engine.score_with(&ids, CONTEXT, &mut stop)).unwrap();
    assert_eq!(parts, 2);
}
