//! Kernels of backward against the gradients that candle gives for the same operation, composed in f64.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use sixpack_runtime::Heads;

use super::buffer::{Buffer, Kind};
use super::library::Arg;
use super::ops::OnHost;

/// Largest difference, relative to one plus the size of the value: of f32, and of bf16 in roundings of it.
const F32: f32 = 1e-4;
const ROUNDING: f32 = 1.0 / 256.0;

/// Sequences, queries, keys and heads of a case: of each bound on the width one, most of them odd.
const CASES: [Sizes; 5] = [
    (1, 1, 1, Heads { query: 2, kv: 1, dim: 6 }),
    (2, 37, 37, Heads { query: 6, kv: 2, dim: 10 }),
    (1, 19, 70, Heads { query: 4, kv: 2, dim: 64 }),
    (2, 33, 33, Heads { query: 1, kv: 1, dim: 101 }),
    (1, 35, 35, Heads { query: 3, kv: 1, dim: 130 }),
];

/// Sequences, queries, keys and heads.
pub(crate) type Sizes = (usize, usize, usize, Heads);

/// What is asked of the kernels of an operation.
pub(crate) struct Check<'a> {
    pub(crate) host: &'a OnHost,
    random: u64,
}

impl Check<'_> {
    /// Values as they are kept, and their memory.
    pub(crate) fn random(&mut self, len: usize) -> (Vec<f32>, Buffer) {
        let mut next = || {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.random >> 33) % 4001) as f32 / 1000.0 - 2.0
        };
        let values: Vec<f32> = (0..len).map(|_| next()).collect();
        let buffer = self.host.stored(&values);
        (buffer.values(), buffer)
    }

    /// The same in f32.
    pub(crate) fn control(&mut self, len: usize) -> (Vec<f32>, Buffer) {
        let (values, _) = self.random(len);
        let buffer = Buffer::floats(Kind::F32, &values);
        (values, buffer)
    }

    pub(crate) fn near(&self, what: &str, found: &[f32], expected: &[f64], roundings: f32) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let tolerance = if self.host.storage() == Kind::Bf16 { roundings * ROUNDING } else { F32 };
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            let within = (f64::from(*f) - e).abs() <= f64::from(tolerance) * (1.0 + e.abs());
            assert!(within, "{what}[{i}]: found {f}, expected {e}");
        }
    }
}

/// Gradients of `Σ f(inputs) ⊙ dy`; of inputs that it does not read nothing.
pub(crate) fn gradients(
    inputs: &[(&[f32], &[usize])],
    dy: &[f32],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Vec<f64>>> {
    let var = |&(values, shape): &(&[f32], &[usize])| Var::from_tensor(&tensor(values, shape)?);
    let vars: Vec<Var> = inputs.iter().map(var).collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors)?;
    let grads = (&y * tensor(dy, y.dims())?)?.sum_all()?.backward()?;
    let grad = |v: &Var| grads.get(v).map_or(Ok(Vec::new()), |g| g.flatten_all()?.to_vec1());
    vars.iter().map(grad).collect()
}

fn tensor(values: &[f32], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(DType::F64)
}

/// `x / sqrt(mean(x²) + eps)` over the last dimension.
fn normed(x: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(f32::EPSILON))?.sqrt()?)
}

/// `1 / (1 + exp(−x))`.
pub(crate) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

/// All of them.
pub(crate) fn all(host: &OnHost) {
    for (case, sizes) in CASES.into_iter().enumerate() {
        let mut check = Check { host, random: case as u64 };
        check.weights(sizes).unwrap();
        check.rows(sizes).unwrap();
        check.heads(sizes).unwrap();
        check.exclude_self(sizes).unwrap();
        check.attention(sizes).unwrap();
        check.loss(sizes).unwrap();
    }
}

impl Check<'_> {
    fn rows(&mut self, (sequences, len, _, heads): Sizes) -> Result<()> {
        let (rows, cols) = (sequences * len, heads.query * heads.dim);
        let ((x, x_at), (dy, dy_at)) = (self.random(rows * cols), self.random(rows * cols));
        let out = || self.host.out(rows * cols);
        let sizes = [rows, cols].map(Arg::Int);
        let args = [&[Arg::In(&x_at), Arg::Float(0.7), Arg::In(&dy_at), out()][..], &sizes].concat();
        let found = self.host.over("rms_norm_backward", rows, &args)[0].values();
        let expected = gradients(&[(&x, &[rows, cols])], &dy, |t| normed(&t[0])? * f64::from(0.7_f32))?;
        self.near("rms_norm", &found, &expected[0], 1.0);
        let args = [Arg::In(&x_at), Arg::In(&dy_at), out(), Arg::Int(rows * cols)];
        let found = self.host.over("leaky_relu_squared_backward", rows * cols / 8, &args)[0].values();
        let leaky = |t: &[Tensor]| (t[0].relu()? - (t[0].neg()?.relu()? * 0.5)?)?.sqr();
        self.near("leaky_relu_squared", &found, &gradients(&[(&x, &[rows, cols])], &dy, leaky)?[0], 1.0);
        Ok(())
    }

    fn heads(&mut self, (sequences, len, _, heads): Sizes) -> Result<()> {
        let (rows, h, dim, start) = (sequences * len, heads.query, heads.dim, 3);
        let half = dim / 3;
        let ((x, x_at), (dy, dy_at)) = (self.random(rows * h * dim), self.random(rows * h * dim));
        let (gain, gain_at) = self.control(h);
        let angle = |t: usize, i: usize| t as f64 * 100_f64.powf(-(i as f64) / half as f64);
        let angles: Vec<f64> = (0..start + len).flat_map(|t| (0..half).map(move |i| angle(t, i))).collect();
        let table: Vec<f32> = angles.iter().flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect();
        let table_at = Buffer::floats(Kind::F32, &table);
        let args = [
            Arg::In(&x_at),
            Arg::Int(h),
            Arg::In(&table_at),
            Arg::Int(half),
            Arg::In(&gain_at),
            Arg::In(&dy_at),
            self.host.out(rows * h * dim),
            Arg::Out(Buffer::empty(Kind::F32, rows * h)),
            Arg::Int(rows),
            Arg::Int(dim),
            Arg::Int(len),
            Arg::Int(start),
        ];
        let found = self.host.over("head_norm_rope_backward", rows * h, &args);
        let at = |of: usize| -> Result<Tensor> {
            let one: Vec<f32> = table.iter().skip(2 * start * half + of).step_by(2).copied().collect();
            tensor(&one, &[1, len, 1, half])?.broadcast_as((sequences, len, 1, half))?.reshape((rows, 1, half))
        };
        let (cos, sin) = (at(0)?, at(1)?);
        let turned = |t: &[Tensor]| {
            let x = normed(&t[0])?.broadcast_mul(&t[1])?;
            let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
            let first = (a.broadcast_mul(&cos)? + b.broadcast_mul(&sin)?)?;
            let second = (b.broadcast_mul(&cos)? - a.broadcast_mul(&sin)?)?;
            Tensor::cat(&[first, second, x.narrow(2, 2 * half, dim - 2 * half)?], 2)
        };
        let expected = gradients(&[(&x, &[rows, h, dim]), (&gain, &[1, h, 1])], &dy, turned)?;
        self.near("head_norm_rope", &found[0].values(), &expected[0], 1.0);
        let mut gains = vec![0.0; h];
        found[1].values().iter().enumerate().for_each(|(i, x)| gains[i % h] += x);
        self.near("head_norm_rope's gains", &gains, &expected[1], 1.0);
        Ok(())
    }

    fn exclude_self(&mut self, (sequences, len, _, heads): Sizes) -> Result<()> {
        let (rows, kv, group, dim) = (sequences * len, heads.kv, heads.query / heads.kv, heads.dim);
        let ((y, y_at), (v, v_at)) = (self.random(rows * heads.query * dim), self.random(rows * kv * dim));
        let (dout, dout_at) = self.random(y.len());
        let sizes = [heads.query, kv, dim].map(Arg::Int);
        let ins = [&y_at, &v_at, &dout_at].map(Arg::In);
        let outs = [self.host.out(y.len()), self.host.out(v.len()), Arg::Int(rows)];
        let found = self.host.over("exclude_self_backward", rows * kv, &[&sizes[..], &ins, &outs].concat());
        let expected = gradients(&[(&y, &[rows, kv, group, dim]), (&v, &[rows, kv, 1, dim])], &dout, |t| {
            let along = t[0].broadcast_mul(&t[1])?.sum_keepdim(D::Minus1)?;
            let along = along.broadcast_div(&t[1].sqr()?.sum_keepdim(D::Minus1)?)?;
            &t[0] - along.broadcast_mul(&t[1])?
        })?;
        self.near("exclude_self", &found[0].values(), &expected[0], 1.0);
        self.near("exclude_self's values", &found[1].values(), &expected[1], 1.0);
        Ok(())
    }

    fn attention(&mut self, (sequences, q_len, k_len, heads): Sizes) -> Result<()> {
        let Heads { query, kv, dim } = heads;
        let (q_shape, kv_shape) = ([sequences, q_len, query, dim], [sequences, k_len, kv, 1, dim]);
        let (q, q_at) = self.random(q_shape.iter().product());
        let [(k, k_at), (v, v_at)] = [(); 2].map(|()| self.random(kv_shape.iter().product()));
        let (dy, dy_at) = self.random(q.len());
        let found = self.host.attention_backward(heads, [&q_at, &k_at, &v_at, &dy_at], [sequences, q_len, k_len]);
        let seen = |i: usize, j: usize| if j <= k_len - q_len + i { 0.0 } else { -1e30 };
        let mask: Vec<f32> = (0..q_len).flat_map(|i| (0..k_len).map(move |j| seen(i, j))).collect();
        let mask = tensor(&mask, &[1, 1, q_len, k_len])?;
        let inputs: [(&[f32], &[usize]); 3] = [(&q, &q_shape), (&k, &kv_shape), (&v, &kv_shape)];
        let expected = gradients(&inputs, &dy, |t| {
            let spread = |x: &Tensor| {
                let all = x.broadcast_as((sequences, k_len, kv, query / kv, dim))?;
                all.reshape((sequences, k_len, query, dim))?.transpose(1, 2)?.contiguous()
            };
            let (q, k, v) = (t[0].transpose(1, 2)?.contiguous()?, spread(&t[1])?, spread(&t[2])?);
            let scores = (q.matmul(&k.t()?)? / (dim as f64).sqrt())?.broadcast_add(&mask)?;
            softmax(&scores)?.matmul(&v)?.transpose(1, 2)
        })?;
        for ((what, found), expected) in ["queries", "keys", "values"].into_iter().zip(&found).zip(&expected) {
            self.near(&format!("attention's {what} of {q_shape:?}"), &found.values(), expected, 4.0);
        }
        Ok(())
    }

    fn loss(&mut self, (sequences, len, _, heads): Sizes) -> Result<()> {
        let (rows, vocab, first) = (sequences * len, 3 * heads.dim + 20, 7);
        let (x, _) = self.random(rows * vocab);
        let (dnll, dnll_at) = self.control(rows);
        let ids: Vec<u32> = (0..rows).map(|i| (i * 5 % vocab) as u32).collect();
        let hot: Vec<f32> = (0..rows * vocab).map(|i| f32::from(ids[i / vocab] as usize == i % vocab)).collect();
        let hot = tensor(&hot, &[rows, vocab])?;
        for cap in [0.0_f32, 1.5] {
            let expected = gradients(&[(&x, &[rows, vocab])], &dnll, |t| {
                let cap = f64::from(cap);
                let logits = if cap > 0.0 { ((&t[0] / cap)?.tanh()? * cap)? } else { t[0].clone() };
                softmax(&logits)?.log()?.neg()?.mul(&hot)?.sum(D::Minus1)
            })?;
            // Two tiles: the tokens before `first`, and the rest.
            let tile = |from: usize, to: usize, all: &[f32]| -> Vec<f32> {
                all.chunks_exact(vocab).flat_map(|row| row[from..to].to_vec()).collect()
            };
            let tiles =
                [(0, first), (first, vocab)].map(|(from, to)| (from, to, self.host.stored(&tile(from, to, &x))));
            let found = self.host.loss_backward(&tiles, cap, &Buffer::ids(&ids), &dnll_at);
            let wide: Vec<f32> = expected[0].iter().map(|&e| e as f32).collect();
            for ((from, to, _), found) in tiles.iter().zip(found) {
                let expected: Vec<f64> = tile(*from, *to, &wide).into_iter().map(f64::from).collect();
                self.near(&format!("cross_entropy from {from}"), &found.values(), &expected, 1.0);
            }
        }
        Ok(())
    }
}
