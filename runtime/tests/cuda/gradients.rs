//! Backward of each operation, through the tape, against the gradients that candle gives for the same operation composed
//! in f64.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use sixpack_runtime::cpu::Mat;
use sixpack_runtime::cuda::{Act, Buffer, Cuda, Kind, Weight};
use sixpack_runtime::{Batch, Heads, Ops, Role, Rope, Site};

/// Largest difference, relative to one plus the size of the value: of f32, and of bf16 in roundings of it.
const F32: f32 = 1e-4;
const ROUNDING: f32 = 1.0 / 256.0;

/// Sequences, positions and heads of a case: of each bound on the width one, most of them odd.
const CASES: [(usize, usize, Heads); 5] = [
    (1, 1, Heads { query: 2, kv: 1, dim: 6 }),
    (2, 37, Heads { query: 6, kv: 2, dim: 10 }),
    (1, 70, Heads { query: 4, kv: 2, dim: 64 }),
    (2, 33, Heads { query: 1, kv: 1, dim: 101 }),
    (1, 35, Heads { query: 3, kv: 1, dim: 130 }),
];

/// Any product of the model's.
const SITE: Site = Site { layer: 0, role: Role::MlpUp };

/// An interpreter under test, and numbers for it.
struct Check {
    ops: Cuda,
    /// Gradients of weights.
    weights: Vec<Buffer>,
    storage: Kind,
    random: u64,
    sequences: usize,
    len: usize,
    heads: Heads,
}

/// All of them, with what is kept in `storage`.
pub(crate) fn all(open: impl Fn() -> Cuda, storage: Kind) {
    for (case, (sequences, len, heads)) in CASES.into_iter().enumerate() {
        let mut check = Check { ops: open(), weights: Vec::new(), storage, random: case as u64, sequences, len, heads };
        check.rows().unwrap();
        check.residual().unwrap();
        check.products().unwrap();
        check.turned().unwrap();
        check.exclude_self().unwrap();
        check.attention().unwrap();
        check.losses().unwrap();
        check.table();
        if case == 0 {
            // Heads that lanes have in packs, of every number of lanes.
            for dim in [32, 128] {
                check.heads = Heads { query: 4, kv: 2, dim };
                check.exclude_self().unwrap();
            }
        }
    }
}

/// Gradients of `Σ f(inputs) ⊙ dy`; of inputs that it does not read nothing.
fn gradients(
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

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

fn leaky_squared(x: &Tensor) -> Result<Tensor> {
    (x.relu()? - (x.neg()?.relu()? * 0.5)?)?.sqr()
}

impl Check {
    fn values(&mut self, kind: Kind, len: usize) -> Vec<f32> {
        let mut next = || {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.random >> 33) % 4001) as f32 / 1000.0 - 2.0
        };
        let values: Vec<f32> = (0..len).map(|_| next()).collect();
        // As they are kept.
        self.ops.gpu().read(&self.ops.gpu().floats(kind, &values).unwrap()).unwrap()
    }

    /// An activation of this case's rows.
    fn act(&mut self, cols: usize) -> (Vec<f32>, Act) {
        let (sequences, len) = (self.sequences, self.len);
        let data = self.values(self.storage, sequences * len * cols);
        let act = self.ops.bring(&Mat { sequences, len, cols, start: 0, data: data.clone() }).unwrap();
        (data, act)
    }

    /// A parameter whose gradient starts at zeros; `kind` is what it is kept in.
    fn weight(&mut self, kind: Kind, rows: usize, cols: usize) -> (Vec<f32>, Weight, Buffer) {
        let values = self.values(kind, rows * cols);
        let gpu = self.ops.gpu();
        let gradient = gpu.zeros(Kind::F32, rows * cols).unwrap();
        let weight = Weight::new(gpu.floats(kind, &values).unwrap(), Some(gradient.clone()), [rows, cols]);
        self.weights.push(gradient.clone());
        (values, weight, gradient)
    }

    fn control(&mut self, rows: usize, cols: usize) -> (Vec<f32>, Weight, Buffer) {
        self.weight(Kind::F32, rows, cols)
    }

    fn near(&self, what: &str, found: &[f32], expected: &[f64], roundings: f32) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let tolerance = if self.storage == Kind::Bf16 { roundings * ROUNDING } else { F32 };
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            let within = (f64::from(*f) - e).abs() <= f64::from(tolerance) * (1.0 + e.abs());
            assert!(within, "{what}[{i}]: found {f}, expected {e}");
        }
    }

    /// Runs `f` with a tape and back: the gradients of activations, and `dy`, which is of the result's kind.
    fn back(&mut self, ins: &[&Act], f: impl FnOnce(&mut Cuda) -> Act) -> (Vec<f32>, Vec<Vec<f32>>) {
        self.ops.start_tape().unwrap();
        let y = f(&mut self.ops);
        let kind = y.buffer().kind();
        let dy = self.values(kind, y.buffer().len());
        let gradient = self.ops.gpu().floats(kind, &dy).unwrap();
        let gpu = self.ops.gpu().apart();
        let mut complete = vec![None; self.weights.len()];
        let mut told = |i: usize| {
            assert!(complete[i].replace(gpu.read(&self.weights[i])?).is_none(), "told twice");
            Ok(())
        };
        let found = self.ops.backward_told(&y, gradient, ins, &self.weights, &mut told).unwrap();
        for (gradient, complete) in self.weights.iter().zip(complete) {
            assert_eq!(Some(gpu.read(gradient).unwrap()), complete, "told too early, or not at all");
        }
        let read = |b: Option<Buffer>| b.map_or_else(Vec::new, |b| self.ops.gpu().read(&b).unwrap());
        (dy, found.into_iter().map(read).collect())
    }

    fn read(&self, buffer: &Buffer) -> Vec<f32> {
        self.ops.gpu().read(buffer).unwrap()
    }

    fn rows(&mut self) -> Result<()> {
        let (rows, cols) = (self.sequences * self.len, self.heads.query * self.heads.dim);
        let (a, a_at) = self.act(cols);
        let (b, b_at) = self.act(cols);
        let shape = [rows, cols];
        let (dy, found) = self.back(&[&a_at], |o| o.rms_norm(&a_at, 0.7).unwrap());
        let expected = gradients(&[(&a, &shape)], &dy, |t| normed(&t[0])? * f64::from(0.7_f32))?;
        self.near("rms_norm", &found[0], &expected[0], 1.0);
        let (dy, found) = self.back(&[&a_at], |o| o.leaky_relu_squared(&a_at).unwrap());
        let expected = gradients(&[(&a, &shape)], &dy, |t| leaky_squared(&t[0]))?;
        self.near("leaky_relu_squared", &found[0], &expected[0], 1.0);
        let (dy, found) = self.back(&[&a_at], |o| o.softcap(&a_at, 1.5).unwrap());
        let expected = gradients(&[(&a, &shape)], &dy, |t| (&t[0] / 1.5)?.tanh()? * 1.5)?;
        self.near("softcap", &found[0], &expected[0], 1.0);
        let (dy, found) = self.back(&[&a_at, &b_at], |o| o.average(&a_at, &b_at).unwrap());
        let expected = gradients(&[(&a, &shape), (&b, &shape)], &dy, |t| (&t[0] + &t[1])? * 0.5)?;
        self.near("average", &found[0], &expected[0], 1.0);
        self.near("average", &found[1], &expected[1], 1.0);
        // What is used twice gets both gradients.
        let (dy, found) = self.back(&[&a_at], |o| o.average(&a_at, &a_at).unwrap());
        let whole: Vec<f64> = dy.iter().map(|&x| f64::from(x)).collect();
        self.near("average of one", &found[0], &whole, 1.0);
        let n = self.len.div_ceil(3);
        let (dy, found) = self.back(&[&a_at], |o| o.tail(&a_at, n).unwrap());
        let shape = [self.sequences, self.len, cols];
        let expected = gradients(&[(&a, &shape)], &dy, |t| t[0].narrow(1, self.len - n, n))?;
        self.near("tail", &found[0], &expected[0], 1e-3);
        Ok(())
    }

    fn residual(&mut self) -> Result<()> {
        let (rows, cols) = (self.sequences * self.len, self.heads.query * self.heads.dim);
        let (shape, row, scale) = ([rows, cols], [1, cols], f64::from(0.7_f32));
        let (x, x_at) = self.act(cols);
        let (y, y_at) = self.act(cols);
        // Sums over all rows, and their parts, are in f32.
        let sums = |check: &Self, what: &str, at: &Buffer, expected: &[f64]| {
            check.near(what, &check.read(at), expected, 1.0);
        };
        let (w, w_at, dw) = self.control(2, cols);
        let mixed =
            |t: &[Tensor]| t[0].broadcast_mul(&t[2].narrow(0, 0, 1)?)? + t[1].broadcast_mul(&t[2].narrow(0, 1, 1)?)?;
        let ins: [(&[f32], &[usize]); 3] = [(&x, &shape), (&y, &shape), (&w, &[2, cols])];
        let (dy, found) = self.back(&[&x_at, &y_at], |o| o.mix(&w_at, &x_at, &y_at).unwrap());
        let expected = gradients(&ins, &dy, mixed)?;
        self.near("mix", &found[0], &expected[0], 1.0);
        self.near("mix's x0", &found[1], &expected[1], 1.0);
        sums(self, "mix's weights", &dw, &expected[2]);
        // Both results: the norm of the sum, beside the sum.
        self.ops.gpu().zero(&dw).unwrap();
        let (dy, found) = self.back(&[&x_at, &y_at], |o| {
            let (mixed, normed) = o.mix_norm(&w_at, &x_at, &y_at, 0.7).unwrap();
            o.average(&mixed, &normed).unwrap()
        });
        let expected = gradients(&ins, &dy, |t| {
            let sum = mixed(t)?;
            (&sum + (normed(&sum)? * scale)?)? * 0.5
        })?;
        self.near("mix_norm", &found[0], &expected[0], 4.0);
        // Of each row two roundings: of the sum, and of its gradient.
        let wide = (2.0 * rows as f32).sqrt().max(4.0);
        self.near("mix_norm's weights", &self.read(&dw), &expected[2], wide);
        for single in [false, true] {
            let width = if single { 1 } else { cols };
            let (s, s_at, ds) = self.control(1, width);
            let ins: [(&[f32], &[usize]); 3] = [(&x, &shape), (&y, &shape), (&s, &[1, width])];
            let (dy, found) = self.back(&[&x_at, &y_at], |o| o.add_scaled(&x_at, &s_at, &y_at).unwrap());
            let expected = gradients(&ins, &dy, |t| &t[0] + t[1].broadcast_mul(&t[2])?)?;
            self.near("add_scaled", &found[0], &expected[0], 1.0);
            self.near("add_scaled's y", &found[1], &expected[1], 1.0);
            sums(self, "add_scaled's weights", &ds, &expected[2]);
            // Gradients of weights are added to what is there.
            let (dy2, _) = self.back(&[&x_at], |o| o.scale(&s_at, &x_at).unwrap());
            let more = gradients(&ins, &dy2, |t| t[0].broadcast_mul(&t[2]))?;
            let both: Vec<f64> = expected[2].iter().zip(&more[2]).map(|(a, b)| a + b).collect();
            sums(self, "scale's weights", &ds, &both);
        }
        let (w, w_at, dw) = self.control(3, cols);
        let (g, g_at, dg) = self.control(3, cols);
        for gated in [true, false] {
            [&dw, &dg].into_iter().for_each(|d| self.ops.gpu().zero(d).unwrap());
            let gates = gated.then_some(&g_at);
            let (dy, found) = self.back(&[&x_at, &y_at], |o| o.gated_skip(&w_at, gates, 2, &x_at, &y_at).unwrap());
            let ins: [(&[f32], &[usize]); 4] =
                [(&x, &shape), (&y, &shape), (&w[2 * cols..], &row), (&g[2 * cols..], &row)];
            let expected = gradients(&ins, &dy, |t| {
                let s = t[1].broadcast_mul(&t[2])?;
                if gated { &s + (&t[0] - &s)?.broadcast_mul(&sigmoid(&t[3])?)? } else { &t[0] + s }
            })?;
            self.near("gated_skip", &found[0], &expected[0], 1.0);
            self.near("gated_skip's skip", &found[1], &expected[1], 1.0);
            let whole = |of: &[f64]| [vec![0.0; 2 * cols], of.to_vec()].concat();
            sums(self, "gated_skip's weights", &dw, &whole(&expected[2]));
            if gated {
                sums(self, "gated_skip's gates", &dg, &whole(&expected[3]));
            }
        }
        let (keep, keep_at, dkeep) = self.control(4, 2);
        let (post, post_at, dpost) = self.control(4, 4);
        let (dy, found) =
            self.back(&[&x_at, &y_at], |o| o.update_lane((&keep_at, 5), (&post_at, 2), &x_at, &y_at).unwrap());
        let ins: [(&[f32], &[usize]); 4] = [(&x, &shape), (&y, &shape), (&keep[5..6], &[1, 1]), (&post[2..3], &[1, 1])];
        let expected = gradients(&ins, &dy, |t| t[0].broadcast_mul(&t[2])? + t[1].broadcast_mul(&t[3])?)?;
        self.near("update_lane", &found[0], &expected[0], 1.0);
        self.near("update_lane's y", &found[1], &expected[1], 1.0);
        let (dkeep, dpost) = (self.read(&dkeep), self.read(&dpost));
        self.near("update_lane's keep", &dkeep[5..6], &expected[2], 1.0);
        self.near("update_lane's post", &dpost[2..3], &expected[3], 1.0);
        assert!(dkeep[..5].iter().chain(&dkeep[6..]).chain(&dpost[..2]).chain(&dpost[3..]).all(|&x| x == 0.0));
        Ok(())
    }

    fn products(&mut self) -> Result<()> {
        let (rows, cols, out) = (self.sequences * self.len, self.heads.query * self.heads.dim, 3 * self.heads.dim + 1);
        let (x, x_at) = self.act(cols);
        let (u, u_at, du) = self.weight(self.storage, out, cols);
        let ins: [(&[f32], &[usize]); 2] = [(&x, &[rows, cols]), (&u, &[out, cols])];
        let (dy, found) = self.back(&[&x_at], |o| o.linear(SITE, &u_at, &x_at).unwrap());
        let expected = gradients(&ins, &dy, |t| t[0].matmul(&t[1].t()?))?;
        self.near("linear", &found[0], &expected[0], 1.0);
        self.near("linear's weight", &self.read(&du), &expected[1], 1.0);
        // Twice the same: products add for themselves.
        self.ops.gpu().zero(&du).unwrap();
        let (dy, found) = self.back(&[&x_at], |o| {
            let [a, b] = [(); 2].map(|()| o.linear(SITE, &u_at, &x_at).unwrap());
            o.average(&a, &b).unwrap()
        });
        let expected = gradients(&ins, &dy, |t| t[0].matmul(&t[1].t()?))?;
        self.near("linear, twice", &found[0], &expected[0], 4.0);
        self.near("linear's weight, twice", &self.read(&du), &expected[1], 4.0);
        Ok(())
    }

    fn turned(&mut self) -> Result<()> {
        let (rows, h, dim) = (self.sequences * self.len, self.heads.query, self.heads.dim);
        let (sequences, len, half) = (self.sequences, self.len, dim / 3);
        let rope = Rope { dims: 2 * half, base: 100.0 };
        let (x, x_at) = self.act(h * dim);
        let (gain, gain_at, dgain) = self.control(1, h);
        let (dy, found) = self.back(&[&x_at], |o| o.head_norm_rope(&x_at, h, rope, Some(&gain_at)).unwrap());
        let angle = |t: usize, i: usize| t as f64 * 100_f64.powf(-(i as f64) / half as f64);
        let angles: Vec<f64> = (0..len).flat_map(|t| (0..half).map(move |i| angle(t, i))).collect();
        let at = |f: fn(f64) -> f64| -> Result<Tensor> {
            let values: Vec<f32> = angles.iter().map(|&a| f(a) as f32).collect();
            tensor(&values, &[1, len, 1, half])?.broadcast_as((sequences, len, 1, half))?.reshape((rows, 1, half))
        };
        let (cos, sin) = (at(f64::cos)?, at(f64::sin)?);
        let expected = gradients(&[(&x, &[rows, h, dim]), (&gain, &[1, h, 1])], &dy, |t| {
            let x = normed(&t[0])?.broadcast_mul(&t[1])?;
            let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
            let first = (a.broadcast_mul(&cos)? + b.broadcast_mul(&sin)?)?;
            let second = (b.broadcast_mul(&cos)? - a.broadcast_mul(&sin)?)?;
            Tensor::cat(&[first, second, x.narrow(2, 2 * half, dim - 2 * half)?], 2)
        })?;
        self.near("head_norm_rope", &found[0], &expected[0], 1.0);
        self.near("head_norm_rope's gains", &self.read(&dgain), &expected[1], 1.0);
        Ok(())
    }

    fn exclude_self(&mut self) -> Result<()> {
        let Heads { query, kv, dim } = self.heads;
        let (rows, group) = (self.sequences * self.len, query / kv);
        let (y, y_at) = self.act(query * dim);
        let (v, v_at) = self.act(kv * dim);
        let heads = self.heads;
        let (dy, found) = self.back(&[&y_at, &v_at], |o| o.exclude_self(heads, &y_at, &v_at).unwrap());
        let expected = gradients(&[(&y, &[rows, kv, group, dim]), (&v, &[rows, kv, 1, dim])], &dy, |t| {
            let along = t[0].broadcast_mul(&t[1])?.sum_keepdim(D::Minus1)?;
            let along = along.broadcast_div(&t[1].sqr()?.sum_keepdim(D::Minus1)?)?;
            &t[0] - along.broadcast_mul(&t[1])?
        })?;
        self.near("exclude_self", &found[0], &expected[0], 1.0);
        self.near("exclude_self's values", &found[1], &expected[1], 1.0);
        Ok(())
    }

    fn attention(&mut self) -> Result<()> {
        let Heads { query, kv, dim } = self.heads;
        let (sequences, keys) = (self.sequences, self.len);
        // All queries, and the last ones only.
        for queries in [keys, keys.div_ceil(3)] {
            let [(k, k_at), (v, v_at)] = [(); 2].map(|()| self.act(kv * dim));
            self.len = queries;
            let (q, q_at) = self.act(query * dim);
            self.len = keys;
            let heads = self.heads;
            let (dy, found) =
                self.back(&[&q_at, &k_at, &v_at], |o| o.attention(0, heads, &q_at, &k_at, &v_at).unwrap());
            let seen = |i: usize, j: usize| if j <= keys - queries + i { 0.0 } else { -1e30 };
            let mask: Vec<f32> = (0..queries).flat_map(|i| (0..keys).map(move |j| seen(i, j))).collect();
            let mask = tensor(&mask, &[1, 1, queries, keys])?;
            let (q_shape, kv_shape) = ([sequences, queries, query, dim], [sequences, keys, kv, 1, dim]);
            let inputs: [(&[f32], &[usize]); 3] = [(&q, &q_shape), (&k, &kv_shape), (&v, &kv_shape)];
            let expected = gradients(&inputs, &dy, |t| {
                let spread = |x: &Tensor| {
                    let all = x.broadcast_as((sequences, keys, kv, query / kv, dim))?;
                    all.reshape((sequences, keys, query, dim))?.transpose(1, 2)?.contiguous()
                };
                let (q, k, v) = (t[0].transpose(1, 2)?.contiguous()?, spread(&t[1])?, spread(&t[2])?);
                let scores = (q.matmul(&k.t()?)? / (dim as f64).sqrt())?.broadcast_add(&mask)?;
                softmax(&scores)?.matmul(&v)?.transpose(1, 2)
            })?;
            for ((what, found), expected) in ["queries", "keys", "values"].into_iter().zip(&found).zip(&expected) {
                self.near(&format!("attention's {what} of {q_shape:?}"), found, expected, 4.0);
            }
        }
        Ok(())
    }

    fn losses(&mut self) -> Result<()> {
        let (rows, cols, vocab) =
            (self.sequences * self.len, self.heads.query * self.heads.dim, 3 * self.heads.dim + 20);
        let (x, x_at) = self.act(vocab);
        let ids: Vec<u32> = (0..rows).map(|i| (i * 5 % vocab) as u32).collect();
        let hot: Vec<f32> = (0..rows * vocab).map(|i| f32::from(ids[i / vocab] as usize == i % vocab)).collect();
        let hot = tensor(&hot, &[rows, vocab])?;
        let loss = |logits: &Tensor| softmax(logits)?.log()?.neg()?.mul(&hot)?.sum(D::Minus1);
        let (dy, found) = self.back(&[&x_at], |o| o.cross_entropy(&x_at, &ids).unwrap());
        let expected = gradients(&[(&x, &[rows, vocab])], &dy, |t| loss(&t[0]))?;
        self.near("cross_entropy", &found[0], &expected[0], 1.0);
        // The head and the loss, in tiles of the vocabulary.
        let (h, h_at) = self.act(cols);
        let (u, u_at, du) = self.weight(self.storage, vocab, cols);
        let (dy, found) = self.back(&[&h_at], |o| o.nll(&u_at, &h_at, 1.5, &ids).unwrap());
        let ins: [(&[f32], &[usize]); 2] = [(&h, &[rows, cols]), (&u, &[vocab, cols])];
        let expected = gradients(&ins, &dy, |t| loss(&((t[0].matmul(&t[1].t()?)? / 1.5)?.tanh()? * 1.5)?))?;
        self.near("nll", &found[0], &expected[0], 4.0);
        self.near("nll's table", &self.read(&du), &expected[1], 4.0);
        Ok(())
    }

    /// Rows of one token are added.
    fn table(&mut self) {
        let (rows, cols, vocab) = (self.sequences * self.len, self.heads.dim, 11);
        let (_, u_at, du) = self.weight(self.storage, vocab, cols);
        let ids: Vec<u32> = (0..rows).map(|i| (i * i % 7) as u32).collect();
        let sequences = self.sequences;
        let (dy, _) = self.back(&[], |o| o.embed(&u_at, &Batch::new(&ids, sequences)).unwrap());
        let mut expected = vec![0.0; vocab * cols];
        for (i, &id) in ids.iter().enumerate() {
            (0..cols).for_each(|c| expected[id as usize * cols + c] += f64::from(dy[i * cols + c]));
        }
        self.near("embed's table", &self.read(&du), &expected, 0.1);
    }
}
