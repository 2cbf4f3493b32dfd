//! GPUs as programs use them.

use sixpack_formats::ModelConfig;
use sixpack_runtime::device::{Demands, Why};
use sixpack_runtime::generate::Limits;
use sixpack_runtime::metric::{Options, Text};
use sixpack_runtime::wgpu::{Settings, Wgpu, adapters};
use sixpack_runtime::{Device, Engine, Error, Sampler, Sampling, device, now};

use crate::{golden, open, session};

/// A software adapter, which all adapters of CI are, is for those who ask.
pub(crate) fn never_unasked(_: Wgpu) {
    let config = ModelConfig { vocab_size: 512, num_layers: 2, recur_layers: vec![], ..ModelConfig::record() };
    let survey = now(device::survey(&config, 1)).unwrap();
    assert!(survey.cpu > 0.0 && !survey.adapters.is_empty());
    for adapter in &survey.adapters {
        assert!(*adapter.check.as_ref().unwrap() < 1e-4, "{adapter:?}");
        assert!(*adapter.speed.as_ref().unwrap().as_ref().unwrap() > 0.0, "{adapter:?}");
        assert!(!adapter.facts.software || adapter.device != survey.choice.device, "{survey:?}");
    }
}

/// A GPU that differs from the CPU by more than is demanded is no candidate, and who asked for it hears why.
pub(crate) fn fails_its_self_check(_: Wgpu) {
    let model = golden::model("tiny");
    let demands = Demands { multiplications: 0, hardware: false, ..Demands::default() };
    let strict = Demands { tolerance: 0.0, ..demands };
    let engine = now(Engine::open_with(&model, Device::Auto, 1, &strict)).unwrap();
    assert_eq!(engine.device(), Device::Cpu);
    let choice = engine.choice().unwrap();
    let names: Vec<_> = now(adapters()).iter().map(|a| a.name()).collect();
    assert_eq!((choice.device, &choice.why), (Device::Cpu, &Why::NonePassed));
    // And those that CUDA has, after them.
    let passed: Vec<_> = choice.passed_over.iter().map(|p| p.name.clone()).collect();
    assert!(passed.starts_with(&names), "{passed:?}, expected {names:?}");
    let reason = "the self-check failed: it gives logits that differ by ";
    let line = choice.to_string();
    assert!(line.contains(&format!("; the GPU `{}` was passed over: {reason}", names[0])) && !line.contains('\n'));
    let error = now(Engine::open_with(&model, Device::Wgpu(Some(0)), 1, &strict)).unwrap_err();
    assert!(error.to_string().starts_with(reason), "{error}");
    // The same one, held to what rounding explains.
    let engine = now(Engine::open_with(&model, Device::Auto, 1, &demands)).unwrap();
    let choice = engine.choice().unwrap();
    let expected = if let Why::Faster { .. } = choice.why { choice.device } else { Device::Cpu };
    let passed = |name: &String| choice.passed_over.iter().any(|p| p.name == *name);
    assert!(!names.iter().any(passed) && matches!(choice.why, Why::Faster { .. } | Why::Slower { .. }));
    assert_eq!((engine.device(), choice.device), (expected, expected));
    assert_eq!(engine.fork(1).unwrap().choice(), Some(choice));
}

/// Everything a program asks of an engine, on `tiny`.
fn ask(engine: &mut Engine) -> Result<(Vec<f32>, Vec<u32>, f64), Error> {
    let ids: Vec<u32> = session::sequence("tiny").into_iter().cycle().take(60).collect();
    let scores = now(engine.score(&ids, 24))?;
    let tokens: Vec<u16> = ids.iter().map(|&id| id as u16).collect();
    let options = Options { seq_len: 16, stride: Some(4), batch: 4, max_tokens: None };
    let text = Text { tokens: &tokens, bytes: None, bos: None };
    let nats = now(engine.evaluate(&text, &options, &mut |_| {}))?.nats;
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() })?;
    let limits = Limits { max_tokens: 12, context: 48, stop: &[] };
    let mut said = Vec::new();
    let mut on_token = |token| {
        said.push(token);
        true
    };
    now(engine.generate(&ids[..9], &limits, &mut sampler, &mut on_token))?;
    Ok((scores, said, nats))
}

fn assert_same(found: &(Vec<f32>, Vec<u32>, f64), expected: &(Vec<f32>, Vec<u32>, f64)) {
    assert_eq!(found.1, expected.1);
    assert!((found.2 - expected.2).abs() < 1e-2, "{} nats for {}", found.2, expected.2);
    let worst = found.0.iter().zip(&expected.0).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
    assert!(found.0.len() == expected.0.len() && worst < 1e-3, "{worst}");
}

pub(crate) fn does_what_the_cpu_does(gpu: Wgpu) {
    let model = golden::model("tiny");
    let expected = ask(&mut Engine::cpu(&model, 1).unwrap()).unwrap();
    let mut engine = Engine::gpu(&model, gpu, 3, None).unwrap();
    assert_eq!(engine.device(), Device::Wgpu(Some(3)));
    assert_same(&ask(&mut engine).unwrap(), &expected);
    // Others of the same model at the same time, each on a thread of its own.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut fork = engine.fork(1).unwrap();
            let expected = &expected;
            scope.spawn(move || assert_same(&ask(&mut fork).unwrap(), expected));
        }
    });
    // A small model is the CPU's, and what is not there is not found.
    assert_eq!(now(Engine::open(&model, Device::Auto, 1)).unwrap().device(), Device::Cpu);
    let error = now(Engine::open(&model, Device::Wgpu(Some(99)), 1)).unwrap_err();
    assert!(error.to_string().starts_with("no device `wgpu:99`: there are "), "{error}");
    let error = now(Engine::open(&model, Device::Cuda(None), 1)).unwrap_err();
    assert!(matches!(error, Error::NoDevice { .. }), "{error}");
}

pub(crate) fn lost(_: Wgpu) {
    let model = golden::model("tiny");
    let expected = ask(&mut Engine::cpu(&model, 1).unwrap()).unwrap();
    let sampling = |temperature| Sampler::new(Sampling { temperature, seed: 3, ..Sampling::default() }).unwrap();
    let limits = Limits { max_tokens: 8, context: 48, stop: &[] };
    let prompt = &session::sequence("tiny")[..9];
    let mut text = Vec::new();
    let mut add = |token| {
        text.push(token);
        true
    };
    let mut cpu = Engine::cpu(&model, 1).unwrap();
    now(cpu.generate(prompt, &limits, &mut sampling(0.8), &mut add)).unwrap();
    // Greedy, and with numbers that are drawn.
    for (spare, temperature, text) in
        [(None, 0.0, &expected.1[..8]), (Some(1), 0.0, &expected.1[..8]), (Some(1), 0.8, text.as_slice())]
    {
        let gpu = open(Settings::default()).unwrap();
        let same = gpu.fork();
        let mut engine = Engine::gpu(&model, gpu, 0, spare).unwrap();
        // In the middle of a text.
        let mut sampler = sampling(temperature);
        let mut said = Vec::new();
        let mut on_token = |token| {
            said.push(token);
            if said.len() == 4 {
                same.lose();
            }
            true
        };
        let reading = now(engine.generate(prompt, &limits, &mut sampler, &mut on_token));
        if spare.is_none() {
            assert!(matches!(reading, Err(Error::DeviceLost { .. })), "{reading:?}");
            assert!(matches!(ask(&mut engine), Err(Error::DeviceLost { .. })));
            continue;
        }
        assert_eq!((said.as_slice(), reading.unwrap().tokens), (text, 8), "at {temperature}");
        assert_eq!(engine.device(), Device::Cpu);
        assert_same(&ask(&mut engine).unwrap(), &expected);
    }
}
