//! What the benches of models share: the model's shape, the answer that is checked, and the peak of the machine.

#[allow(dead_code, reason = "training checks itself in its tests")]
pub(crate) mod answer;

use std::time::Instant;

use sixpack_formats::ModelConfig;

/// The shape of the reference model this project compares itself with: 5.3 M parameters, 4 layers of width 320, layers 1
/// and 2 twice, 1024 pieces, sequences of 256.
pub(crate) fn shape() -> ModelConfig {
    ModelConfig {
        vocab_size: 1024,
        num_layers: 4,
        model_dim: 320,
        num_heads: 5,
        num_kv_heads: 5,
        train_seq_len: 256,
        eval_seq_len: 256,
        xsa_last_n: 4,
        ve_layers: vec![2, 3],
        ve_dim: 64,
        recur_layers: vec![1, 2],
        ..ModelConfig::record()
    }
}

/// GFLOP/s of the best product of two matrices of 1024² in f32 on one thread within `seconds`: a size that a good library
/// is measured with.
pub(crate) fn gemm_peak(seconds: f64) -> f64 {
    let n = 1024;
    let (a, b, mut c) = (vec![0.5f32; n * n], vec![0.25f32; n * n], vec![0.0f32; n * n]);
    let (start, mut best) = (Instant::now(), f64::MAX);
    while start.elapsed().as_secs_f64() < seconds {
        let begun = Instant::now();
        // SAFETY: three matrices of n·n elements, row strides n, column strides 1; `c` is borrowed mutably.
        unsafe {
            gemm::gemm(
                n,
                n,
                n,
                c.as_mut_ptr(),
                1,
                n as isize,
                false,
                a.as_ptr(),
                1,
                n as isize,
                b.as_ptr(),
                1,
                n as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
        best = best.min(begun.elapsed().as_secs_f64());
    }
    assert_eq!(c[n + 1], n as f32 / 8.0);
    2.0 * (n as f64).powi(3) / best / 1e9
}

/// GB/s of `threads` threads that sum a quarter of a gigabyte between them, the best within `seconds`.
#[allow(dead_code, reason = "not every bench waits for memory")]
pub(crate) fn read_peak(seconds: f64, threads: usize) -> f64 {
    let data = vec![1u64; 1 << 25];
    let (start, mut best) = (Instant::now(), f64::MAX);
    while start.elapsed().as_secs_f64() < seconds {
        let begun = Instant::now();
        let sum: u64 = std::thread::scope(|scope| {
            let parts = data.chunks(data.len().div_ceil(threads));
            let sums: Vec<_> = parts.map(|part| scope.spawn(|| part.iter().sum::<u64>())).collect();
            sums.into_iter().map(|sum| sum.join().expect("a sum")).sum()
        });
        best = best.min(begun.elapsed().as_secs_f64());
        assert_eq!(sum, data.len() as u64);
    }
    (data.len() * 8) as f64 / best / 1e9
}
