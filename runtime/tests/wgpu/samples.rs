//! Tokens chosen on the GPU.

use sixpack_runtime::cpu::Mat;
use sixpack_runtime::wgpu::Wgpu;
use sixpack_runtime::{Remember, Sampler, Sampling, now};

pub(crate) fn as_the_host_does(mut gpu: Wgpu) {
    // Few values, so that there are many equal logits; a vocabulary that is no multiple of anything.
    let logits: Vec<f32> = (0..1003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as f32 / 16.0 - 9.0).collect();
    let act = |gpu: &Wgpu, data: &[f32]| gpu.upload(&Mat { data: data.to_vec(), ..Mat::zeros(1, 1, data.len()) });
    let on_gpu = act(&gpu, &logits);
    let all = Sampling::default();
    let ways = [
        all,
        Sampling { temperature: 0.0, ..all },
        Sampling { temperature: 0.3, seed: 5, ..all },
        Sampling { top_k: 1, ..all },
        Sampling { top_k: 7, ..all },
        Sampling { top_p: 0.6, seed: 2, ..all },
        Sampling { top_p: 0.0, ..all },
        Sampling { min_p: 0.2, seed: 3, ..all },
        Sampling { temperature: 2.0, top_k: 300, top_p: 0.9, min_p: 0.05, seed: 9 },
    ];
    for way in ways {
        let (mut ours, mut hosts) = (Sampler::new(way).unwrap(), Sampler::new(way).unwrap());
        for draw in 0..8 {
            let expected = hosts.sample(&logits).unwrap();
            assert_eq!(now(gpu.sample(&on_gpu, &mut ours)).unwrap(), expected, "{way:?}, draw {draw}");
        }
    }
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let logits = vec![wrong; 3];
        let on_gpu = act(&gpu, &logits);
        let found = now(gpu.sample(&on_gpu, &mut Sampler::new(all).unwrap())).unwrap_err().to_string();
        assert_eq!(found, Sampler::new(all).unwrap().sample(&logits).unwrap_err().to_string());
    }
}
