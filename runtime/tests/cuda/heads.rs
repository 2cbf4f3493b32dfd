//! Queries, keys and values by one product give what one operation after the other gives, forward and back. Those have twins,
//! and candle's gradients.

use sixpack_runtime::cpu::Mat;
use sixpack_runtime::cuda::{Act, Buffer, Cuda, Kind, Weight};
use sixpack_runtime::{Heads, Ops, Projection, Rope};

/// Sequences, positions, heads, channels that turn, and the lanes that have a head in f32 and in bf16 (0 where a warp has it).
const CASES: [(usize, usize, Heads, usize, [usize; 2]); 7] = [
    (1, 1, Heads { query: 2, kv: 1, dim: 6 }, 2, [0, 0]),
    (2, 17, Heads { query: 6, kv: 2, dim: 10 }, 6, [0, 0]),
    (2, 19, Heads { query: 8, kv: 4, dim: 64 }, 16, [16, 8]),
    (1, 33, Heads { query: 3, kv: 1, dim: 64 }, 64, [16, 8]),
    (1, 21, Heads { query: 2, kv: 2, dim: 128 }, 48, [0, 16]),
    (1, 9, Heads { query: 5, kv: 1, dim: 64 }, 18, [0, 0]),
    (1, 12, Heads { query: 3, kv: 1, dim: 32 }, 8, [8, 0]),
];

/// Channels of the input.
const INPUTS: usize = 20;

/// Of a case what it is computed from.
struct Case {
    ops: Cuda,
    random: u64,
    heads: Heads,
    rope: Rope,
    x: Act,
    embedding: Act,
    dy: Vec<f32>,
}

/// What came out: queries, keys, values and what attention makes of them, gradients of inputs, then of parameters.
type Found = Vec<(&'static str, Vec<f32>)>;

pub(crate) fn all(open: impl Fn() -> Cuda, storage: Kind) {
    for (i, (sequences, len, heads, dims, lanes)) in CASES.into_iter().enumerate() {
        let mut ops = open();
        let mut random = i as u64;
        let mut act = |cols: usize| {
            let data = values(&mut random, sequences * len * cols);
            ops.bring(&Mat { sequences, len, cols, start: if i == 3 { 11 } else { 0 }, data }).unwrap()
        };
        let (x, embedding) = (act(INPUTS), act(heads.kv * heads.dim));
        let dy = values(&mut random, sequences * len * heads.query * heads.dim);
        let mut case = Case { ops, random, heads, rope: Rope { dims, base: 100.0 }, x, embedding, dy };
        for embeds in [true, false] {
            let kernels = ["project_heads", "project_heads_backward"]
                .map(|name| format!("{name}<{storage}, {}>", lanes[usize::from(storage == Kind::Bf16)]));
            let starts = |ops: &Cuda| kernels.each_ref().map(|kernel| ops.gpu().starts(kernel));
            let plain = case.run(embeds, false);
            let before = starts(&case.ops);
            let joined = case.run(embeds, true);
            assert_eq!(starts(&case.ops), before.map(|n| n + 1), "case {i}: {kernels:?}");
            for ((what, expected), (_, found)) in plain.iter().zip(&joined) {
                // A single sum is much smaller than its parts, whose sizes the value embedding's gradients have.
                let size = if expected.len() == 1 { &plain[5].1 } else { expected };
                let apart = difference(found, expected) / norm(size).max(1e-9);
                // Of what is in bf16 the sums differ by a rounding or two.
                let tolerance = if storage == Kind::Bf16 { 1e-2 } else { 1e-5 };
                assert!(apart < tolerance, "{what} of case {i} differ by {apart:.2e} of their norm");
            }
        }
    }
}

fn values(random: &mut u64, len: usize) -> Vec<f32> {
    let mut next = || {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*random >> 33) % 4001) as f32 / 2000.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn norm(of: &[f32]) -> f64 {
    of.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// The norm of the difference.
fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    norm(&found.iter().zip(expected).map(|(f, e)| f - e).collect::<Vec<_>>())
}

impl Case {
    fn run(&mut self, embeds: bool, joined: bool) -> Found {
        let Heads { query, kv, dim } = self.heads;
        let (mut random, kind) = (self.random, self.ops.storage());
        let gpu = self.ops.gpu().clone();
        let weight = |kind: Kind, values: &[f32], shape: [usize; 2]| {
            let gradient = gpu.zeros(Kind::F32, values.len()).unwrap();
            Weight::new(gpu.floats(kind, values).unwrap(), Some(gradient.clone()), shape)
        };
        let all = [query, kv, kv].map(|heads| heads * dim);
        let w = values(&mut random, all.iter().sum::<usize>() * INPUTS);
        let (value, gradient) = (gpu.floats(kind, &w).unwrap(), gpu.zeros(Kind::F32, w.len()).unwrap());
        let mut start = 0;
        let mut gradients: Vec<Buffer> = Vec::new();
        let parts = all.map(|rows| {
            let range = start * INPUTS..(start + rows) * INPUTS;
            start += rows;
            let gradient = match joined {
                true => gradient.part(range.clone()),
                false => gpu.zeros(Kind::F32, range.len()).unwrap(),
            };
            gradients.push(gradient.clone());
            Weight::new(value.part(range), Some(gradient), [rows, INPUTS])
        });
        let gain = weight(Kind::F32, &values(&mut random, query), [1, query]);
        let factor = weight(Kind::F32, &[0.7], [1, 1]);
        let projection = Projection {
            layer: 0,
            heads: self.heads,
            rope: self.rope,
            weights: [&parts[0], &parts[1], &parts[2]],
            gain: &gain,
            value_embedding: embeds.then_some((&factor, &self.embedding)),
            last: None,
        };
        let starts = || ["project_heads", "head_norm_rope"].map(|name| gpu.starts(name));
        let before = starts();
        self.ops.start_tape().unwrap();
        let [q, k, v] = self.ops.project_heads(&self.x, &projection).unwrap();
        let done = starts();
        assert_eq!([done[0] - before[0], done[1] - before[1]], if joined { [1, 0] } else { [0, 2] });
        // Values are read by both.
        let y = self.ops.attention(0, self.heads, &q, &k, &v).unwrap();
        let y = self.ops.exclude_self(self.heads, &y, &v).unwrap();
        let dy = gpu.floats(kind, &self.dy).unwrap();
        let found = self.ops.backward(&y, dy, &[&self.x, &self.embedding]).unwrap();
        // Values are part of the product, if there is one.
        let values = gpu.read(v.buffer()).unwrap();
        let values =
            values.chunks(if joined { all.iter().sum() } else { all[2] }).flat_map(|row| row[..all[2]].to_vec());
        let values = [("values", values.collect())];
        let acts = [("queries", &q), ("keys", &k), ("outputs", &y)];
        let acts = acts.into_iter().map(|(what, act)| (what, Some(act.buffer().clone())));
        let inputs = ["gradients of the input", "gradients of the value embedding"].into_iter().zip(found);
        let names = ["gradients of queries' matrix", "gradients of keys' matrix", "gradients of values' matrix"];
        let matrices = names.into_iter().zip(gradients.into_iter().map(Some));
        let rest = [("gradients of gains", gain), ("gradients of the factor", factor)];
        let rest = rest.into_iter().map(|(what, w)| (what, w.gradient().cloned()));
        let read = |buffer: Option<Buffer>| buffer.map_or_else(Vec::new, |b| gpu.read(&b).unwrap());
        let rest = acts.chain(inputs).chain(matrices).chain(rest).map(|(what, buffer)| (what, read(buffer)));
        values.into_iter().chain(rest).collect()
    }
}
