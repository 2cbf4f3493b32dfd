//! Models of made-up numbers: what is asked of a device before a real one is.

use sixpack_formats::ModelConfig;

use crate::Weights;
use crate::cpu::{self, Dense, Int8};

/// A small model with every feature, of odd sizes where they can be.
pub(super) fn tiny() -> ModelConfig {
    ModelConfig {
        vocab_size: 67,
        num_layers: 4,
        model_dim: 36,
        num_heads: 6,
        num_kv_heads: 3,
        mlp_mult: 2.5,
        rope_dims: 4,
        train_seq_len: 32,
        eval_seq_len: 32,
        xsa_last_n: 3,
        ve_layers: vec![2, 3],
        ve_dim: 20,
        recur_layers: vec![1, 2],
        ..ModelConfig::record()
    }
}

/// Weights for `config`: matrices of int8 codes, the rest near one.
pub(super) fn weights(config: &ModelConfig) -> Weights<cpu::Weight> {
    let mut random = Random(1);
    let weights = Weights::build(config, |spec| {
        let cols = spec.shape.last().copied().unwrap_or(1);
        let rows = spec.shape.iter().rev().skip(1).product();
        Ok::<_, std::convert::Infallible>(if rows > 16 {
            matrix(&mut random, rows, cols)
        } else {
            near_one(&mut random, rows, cols)
        })
    });
    let Ok(weights) = weights;
    weights
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    /// One of -127 to 127.
    fn code(&mut self) -> i8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % 255) as u8 as i8
    }
}

fn matrix(random: &mut Random, rows: usize, cols: usize) -> cpu::Weight {
    let codes: Vec<i8> = (0..rows * cols).map(|_| random.code().max(-127)).collect();
    let step = |_| (1.0 + f32::from(random.code()) / 256.0) / (80.0 * (cols as f32).sqrt());
    cpu::Weight::Int8(Int8::new([rows, cols], &codes, (0..rows).map(step).collect(), Vec::new()))
}

fn near_one(random: &mut Random, rows: usize, cols: usize) -> cpu::Weight {
    let values = (0..rows * cols).map(|_| 1.0 + f32::from(random.code()) / 512.0).collect();
    cpu::Weight::Dense(Dense::new(rows, cols, values))
}
