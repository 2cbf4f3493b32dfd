//! Whole models: the golden vectors, and what the CPU says.

use sixpack_runtime::cpu::Fast;
use sixpack_runtime::generate::{Limits, generate};
use sixpack_runtime::metric::{Options, Text, evaluate};
use sixpack_runtime::wgpu::Wgpu;
use sixpack_runtime::{Engine, Remember, Sampler, Sampling, now};

use crate::{conformance, golden, session, trained};

pub(crate) fn goldens(mut gpu: Wgpu) {
    for case in golden::CASES {
        let model = golden::model(case);
        let weights = gpu.load(&model).unwrap();
        conformance::goldens(case, &model.config, &weights, &mut gpu);
        conformance::narrowed(case, &model.config, &weights, &mut gpu);
    }
}

pub(crate) fn refuses_foreign_tokens(mut gpu: Wgpu) {
    let model = golden::model("tiny");
    let weights = gpu.load(&model).unwrap();
    conformance::refuses_foreign_tokens(&model.config, &weights, &mut gpu);
}

pub(crate) fn reproduces_the_reference(mut gpu: Wgpu) {
    for case in golden::CASES {
        let arrays = golden::arrays(&format!("{case}/eval.safetensors"));
        let narrow = |key: &str| arrays[key].ids().into_iter().map(|x| x as u16).collect::<Vec<_>>();
        let flags = |key: &str| narrow(key).into_iter().map(|x| x != 0).collect();
        let tables = sixpack_formats::tokenizer::ByteTables {
            base_bytes: narrow("base_bytes"),
            leading_space: flags("leading_space"),
            boundary: flags("boundary"),
        };
        let eval = golden::meta(case)["eval"].clone();
        let number = |key: &str| eval[key].as_u64().unwrap() as usize;
        let model = golden::model(case);
        let weights = gpu.load(&model).unwrap();
        let tokens = narrow("tokens");
        let text = Text { tokens: &tokens, bytes: Some(&tables), bos: Some(1) };
        for (mode, stride) in [("plain", None), ("sliding", Some(number("stride")))] {
            let options = Options { seq_len: number("seq_len"), stride, batch: 3, max_tokens: None };
            let found = now(evaluate(&model.config, &weights, &mut gpu, &text, &options, &mut |_| {})).unwrap();
            let expected = eval[format!("{mode}_bpb")].as_f64().unwrap();
            let found = found.bits_per_byte.unwrap();
            assert!((found - expected).abs() < 1e-5, "{case} {mode}: found {found}, expected {expected}");
        }
    }
}

/// Also past the end of the context, and with weights that are codes.
pub(crate) fn greedy_text(mut gpu: Wgpu) {
    for case in golden::CASES {
        for quantised in [false, true] {
            let mut model = golden::model(case);
            if quantised {
                session::quantise(&mut model);
            }
            let mut cpu = Fast::new(1).unwrap();
            let weights = cpu.load(&model);
            let expected = text(&model, &weights, &mut cpu);
            let weights = gpu.load(&model).unwrap();
            assert_eq!(text(&model, &weights, &mut gpu), expected, "{case}, codes: {quantised}");
        }
    }
}

fn text<O: Remember<Error = sixpack_runtime::Error>>(
    model: &sixpack_formats::Model,
    weights: &sixpack_runtime::Weights<O::Weight>,
    ops: &mut O,
) -> Vec<u32> {
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }).unwrap();
    let limits = Limits { max_tokens: 24, context: 20, stop: &[] };
    let mut text = Vec::new();
    let mut on_token = |token| {
        text.push(token);
        true
    };
    now(generate(&model.config, weights, ops, &[3, 1, 4, 1, 5], &limits, &mut sampler, &mut on_token)).unwrap();
    text
}

pub(crate) fn trained_model(gpu: Wgpu) {
    let (artifact, tokenizer) = trained::model();
    let expected = trained::make(&mut Engine::cpu(&artifact.model, 1).unwrap(), &tokenizer);
    let found = trained::make(&mut Engine::gpu(&artifact.model, gpu, 0, None).unwrap(), &tokenizer);
    assert_eq!(found.texts, expected.texts);
    assert!((found.bits_per_byte - expected.bits_per_byte).abs() < trained::BITS, "{found:?} for {expected:?}");
    let difference = (found.bits_per_byte_of_session - expected.bits_per_byte_of_session).abs();
    assert!(difference < trained::BITS, "{found:?} for {expected:?}");
}
