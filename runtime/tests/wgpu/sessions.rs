//! Sessions: prompts are composed of the plain kernels, single tokens run in the fused ones.

use sixpack_runtime::cpu::Fast;
use sixpack_runtime::wgpu::{Settings, Wgpu};
use sixpack_runtime::{Sampler, Sampling, Session, now};

use crate::{GUARDED, golden, open, session};

/// How near parts come to the whole: of a logit, and in nats of a part.
const EXACT: [f64; 2] = [1e-4, 1e-3];

/// The same where keys and values have eleven bits.
pub(crate) const ROUNDED: [f64; 2] = [5e-3, 5e-3];

pub(crate) fn in_parts(gpu: Wgpu) {
    in_parts_within(gpu, EXACT);
}

pub(crate) fn in_parts_within(mut gpu: Wgpu, within: [f64; 2]) {
    for case in golden::CASES {
        let (model, ids) = (golden::model(case), session::sequence(case));
        let weights = gpu.load(&model).unwrap();
        for parts in [vec![ids.len()], vec![7, 1, 1, 2]] {
            let parts = parts.into_iter().cycle();
            session::parts_come_near_the_whole(&model.config, &weights, &mut gpu, &ids, parts, within);
        }
    }
}

pub(crate) fn long_prompts(gpu: Wgpu) {
    long_prompts_within(gpu, EXACT);
}

pub(crate) fn long_prompts_within(mut gpu: Wgpu, within: [f64; 2]) {
    let mut model = golden::model("tiny");
    session::quantise(&mut model);
    let ids: Vec<u32> = (0..330).map(|i| (i * 37 + i / 5) % 160).collect();
    let weights = gpu.load(&model).unwrap();
    session::parts_come_near_the_whole(&model.config, &weights, &mut gpu, &ids, [1, 300, 3, 1, 25], within);
    let found = session::full(&model.config, &weights, &mut gpu, &ids[..40]);
    let mut cpu = Fast::new(1).unwrap();
    let weights = cpu.load(&model);
    let expected = session::full(&model.config, &weights, &mut cpu, &ids[..40]);
    let worst = found.0.iter().zip(&expected.0).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}

pub(crate) fn five_kernels(mut gpu: Wgpu) {
    assert!(gpu.pipelines() <= 16);
    for case in golden::CASES {
        let model = golden::model(case);
        let config = &model.config;
        let weights = gpu.load(&model).unwrap();
        let mut sampler = Sampler::new(Sampling { seed: 1, ..Sampling::default() }).unwrap();
        let counts = |gpu: &Wgpu| gpu.counts();
        let mut session = Session::new(config, &weights, &mut gpu, 32);
        now(session.prefill(&[1, 2, 3])).unwrap();
        now(session.sample(&mut sampler)).unwrap();
        let before = counts(session.machine());
        session.step(5).unwrap();
        now(session.sample(&mut sampler)).unwrap();
        let after = counts(session.machine());
        // The embedding and its norm; the value embedding, its projection and scale; the last norm, the head, the choice.
        let value_embedding = match config.ve_layers.is_empty() {
            true => 0,
            false => 2 + u64::from(config.ve_dim != config.kv_dim()),
        };
        let around = 2 + value_embedding + 3 + u64::from(config.parallel_residual);
        let layers = config.virtual_layers(true).len() as u64;
        assert_eq!(after.dispatches - before.dispatches, 5 * layers + around, "{case}");
        assert_eq!(after.submissions - before.submissions, 1, "{case}");
        assert_eq!(after.read - before.read, 4, "{case}: more than the token came back");
    }
}

/// Weights in many chunks: no kernel sees a whole block, so that it is composed.
pub(crate) fn in_small_bindings(_: Wgpu) {
    let mut gpu = open(Settings { binding: Some(48 << 10), guarded: false, ..GUARDED }).unwrap();
    for case in ["tiny", "parallel"] {
        let (model, ids) = (golden::model(case), session::sequence(case));
        let weights = gpu.load(&model).unwrap();
        let parts = [ids.len() - 5, 1, 1, 1, 1, 1];
        session::parts_equal_the_whole(&model.config, &weights, &mut gpu, &ids, parts);
    }
}
