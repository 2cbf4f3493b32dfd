//! Every operation of the CPU engine against a twin composed of plain candle operations, values and gradients, at odd
//! sizes.

use candle_core::{D, Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sixpack_runtime::{Batch, Heads, Ops, Rope, Site};
use sixpack_train::CandleOps;

/// The same operations, composed: slow, and plain enough to be believed.
#[derive(Default)]
struct Composed {
    len: usize,
}

fn squares_mean(x: &Tensor) -> Result<Tensor> {
    x.sqr()?.mean_keepdim(D::Minus1)
}

fn normed(x: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&(squares_mean(x)? + f64::from(f32::EPSILON))?.sqrt()?)
}

/// `[B, T, K·D]` as `[B, H, T, D]`, each key/value head repeated for its query heads.
fn split_heads(x: &Tensor, count: usize, repeat: usize) -> Result<Tensor> {
    let (b, t, c) = x.dims3()?;
    let x = x.reshape((b, t, count, c / count))?.transpose(1, 2)?.contiguous()?;
    let x = x.unsqueeze(2)?.broadcast_as((b, count, repeat, t, c / count))?;
    x.reshape((b, count * repeat, t, c / count))
}

fn join_heads(x: &Tensor) -> Result<Tensor> {
    let (b, h, t, d) = x.dims4()?;
    x.transpose(1, 2)?.reshape((b, t, h * d))
}

impl Ops for Composed {
    type Act = Tensor;
    type Weight = Tensor;
    type Error = candle_core::Error;

    fn embed(&mut self, table: &Tensor, batch: &Batch<'_>) -> Result<Tensor> {
        self.len = batch.len();
        let ids = Tensor::from_slice(batch.ids, batch.ids.len(), &Device::Cpu)?;
        table.index_select(&ids, 0)?.reshape((batch.sequences, batch.len(), table.dim(1)?))
    }

    fn rms_norm(&mut self, x: &Tensor, scale: f32) -> Result<Tensor> {
        normed(x)? * f64::from(scale)
    }

    fn mix(&mut self, weights: &Tensor, x: &Tensor, x0: &Tensor) -> Result<Tensor> {
        x.broadcast_mul(&weights.get(0)?)? + x0.broadcast_mul(&weights.get(1)?)?
    }

    fn linear(&mut self, _: Site, w: &Tensor, x: &Tensor) -> Result<Tensor> {
        x.broadcast_matmul(&w.t()?)
    }

    fn head_norm_rope(&mut self, x: &Tensor, heads: usize, rope: Rope, gain: Option<&Tensor>) -> Result<Tensor> {
        let x = normed(&split_heads(x, heads, 1)?)?;
        let (t, d, half) = (x.dim(2)?, x.dim(3)?, rope.dims / 2);
        let angle = |i: usize| {
            let (t, i) = (self.len - t + i / half, i % half);
            t as f64 * rope.base.powf(-2.0 * i as f64 / rope.dims as f64)
        };
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..t * half).map(|i| f(angle(i)) as f32).collect();
            Tensor::from_vec(values, (t, half), &Device::Cpu)
        };
        let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
        let (x1, x2) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
        let y1 = (x1.broadcast_mul(&cos)? + x2.broadcast_mul(&sin)?)?;
        let y2 = (x2.broadcast_mul(&cos)? - x1.broadcast_mul(&sin)?)?;
        let mut parts = vec![y1, y2];
        if d > rope.dims {
            parts.push(x.narrow(3, rope.dims, d - rope.dims)?);
        }
        let y = Tensor::cat(&parts, 3)?;
        match gain {
            Some(gain) => join_heads(&y.broadcast_mul(&gain.reshape((1, heads, 1, 1))?)?),
            None => join_heads(&y),
        }
    }

    fn attention(&mut self, _: usize, heads: Heads, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let repeat = heads.query / heads.kv;
        let q = split_heads(q, heads.query, 1)?;
        let (k, v) = (split_heads(k, heads.kv, repeat)?, split_heads(v, heads.kv, repeat)?);
        let (tq, t) = (q.dim(2)?, k.dim(2)?);
        let hidden: Vec<f32> = (0..tq * t).map(|i| if i % t > t - tq + i / t { -1e9 } else { 0.0 }).collect();
        let scores = (q.matmul(&k.t()?)? * (1.0 / (heads.dim as f64).sqrt()))?;
        let scores = scores.broadcast_add(&Tensor::from_vec(hidden, (tq, t), &Device::Cpu)?)?;
        let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        join_heads(&e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?.matmul(&v)?)
    }

    fn exclude_self(&mut self, heads: Heads, y: &Tensor, v: &Tensor) -> Result<Tensor> {
        let y = split_heads(y, heads.query, 1)?;
        let v = split_heads(v, heads.kv, heads.query / heads.kv)?;
        let unit = v.broadcast_div(&v.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?;
        let along = (&y * &unit)?.sum_keepdim(D::Minus1)?;
        join_heads(&(y - unit.broadcast_mul(&along)?)?)
    }

    fn leaky_relu_squared(&mut self, x: &Tensor) -> Result<Tensor> {
        ((x.relu()? * 0.5)? + (x * 0.5)?)?.sqr()
    }

    fn add_scaled(&mut self, x: &Tensor, scale: &Tensor, y: &Tensor) -> Result<Tensor> {
        x + self.scale(scale, y)?
    }

    fn scale(&mut self, scale: &Tensor, x: &Tensor) -> Result<Tensor> {
        x.broadcast_mul(scale)
    }

    fn gated_skip(
        &mut self,
        weights: &Tensor,
        gates: Option<&Tensor>,
        row: usize,
        x: &Tensor,
        skip: &Tensor,
    ) -> Result<Tensor> {
        let s = skip.broadcast_mul(&weights.get(row)?)?;
        let Some(gates) = gates else { return x + s };
        let gate = (((gates.get(row)? * -1.0)?.exp()? + 1.0)?.recip())?;
        let moved = (x - &s)?.broadcast_mul(&gate)?;
        s + moved
    }

    fn update_lane(
        &mut self,
        keep: (&Tensor, usize),
        post: (&Tensor, usize),
        lane: &Tensor,
        y: &Tensor,
    ) -> Result<Tensor> {
        let element = |(w, i): (&Tensor, usize)| w.flatten_all()?.get(i);
        lane.broadcast_mul(&element(keep)?)? + y.broadcast_mul(&element(post)?)?
    }

    fn average(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        (a + b)? / 2.0
    }

    fn tail(&mut self, x: &Tensor, n: usize) -> Result<Tensor> {
        x.narrow(1, x.dim(1)? - n, n)
    }

    fn softcap(&mut self, x: &Tensor, cap: f32) -> Result<Tensor> {
        (x / f64::from(cap))?.tanh()? * f64::from(cap)
    }

    fn cross_entropy(&mut self, logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
        let (b, t, _) = logits.dims3()?;
        let targets = Tensor::from_slice(targets, (b, t, 1), &Device::Cpu)?;
        logits.exp()?.sum_keepdim(D::Minus1)?.log()? - logits.gather(&targets, 2)?
    }
}

fn random(seed: u64, shape: &[usize]) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.5f32..1.5)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Runs one expression on both machines with the same inputs and compares the value and the gradient of every input
/// of a random linear functional of it.
macro_rules! twin {
    ($name:ident, [$($shape:expr),*], |$ops:ident, $args:ident| $body:expr) => {
        #[test]
        fn $name() {
            let shapes: Vec<Vec<usize>> = vec![$($shape.to_vec()),*];
            let inputs = || -> Vec<Var> {
                let tensors = shapes.iter().enumerate().map(|(i, shape)| random(i as u64 + 1, shape));
                tensors.map(|t| Var::from_tensor(&t).unwrap()).collect()
            };
            let fast = {
                let mut machine = CandleOps::recording();
                let ($ops, vars) = (&mut machine, inputs());
                let $args: Vec<&Tensor> = vars.iter().map(Var::as_tensor).collect();
                let y: Tensor = $body.unwrap();
                let mut gradients = machine.backward(&y, random(99, y.dims())).unwrap();
                let gradient = |v: &Var| gradients.remove(&v.id()).unwrap_or_else(|| v.zeros_like().unwrap());
                let gradients: Vec<_> = vars.iter().map(gradient).collect();
                std::iter::once(y).chain(gradients).collect::<Vec<_>>()
            };
            let plain = {
                let ($ops, vars) = (&mut Composed::default(), inputs());
                let $args: Vec<&Tensor> = vars.iter().map(Var::as_tensor).collect();
                let y: Tensor = $body.unwrap();
                value_and_gradients(&y, &vars)
            };
            assert_eq!(fast.len(), plain.len());
            for (i, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
                assert_same(fast, plain, if i == 0 { "value".into() } else { format!("gradient of input {}", i - 1) });
            }
        }
    };
}

fn value_and_gradients(y: &Tensor, vars: &[Var]) -> Vec<Tensor> {
    let probe = random(99, y.dims());
    let store = (y * probe).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = |v: &Var| store.get(v).cloned().unwrap_or_else(|| v.zeros_like().unwrap());
    std::iter::once(y.clone()).chain(vars.iter().map(gradient)).collect()
}

fn assert_same(fast: &Tensor, plain: &Tensor, what: String) {
    assert_eq!(fast.dims(), plain.dims(), "{what}");
    let read = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (fast, plain) = (read(fast), read(plain));
    let size = plain.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in fast.iter().zip(&plain).enumerate() {
        assert!((a - b).abs() < 1e-5 * size, "{what}, element {i}: {a} instead of {b}");
    }
}

const HEADS: Heads = Heads { query: 6, kv: 3, dim: 10 };
const ROPE: Rope = Rope { dims: 6, base: 100.0 };
const IDS: [u32; 10] = [3, 0, 6, 6, 1, 2, 3, 3, 5, 0];
const SITE: Site = Site::VALUE_PROJ;

fn batch() -> Batch<'static> {
    Batch::new(&IDS, 2)
}

twin!(embed, [[7, 9]], |ops, x| ops.embed(x[0], &batch()));
twin!(rms_norm, [[2, 5, 19]], |ops, x| ops.rms_norm(x[0], 0.6));
twin!(mix, [[2, 19], [2, 5, 19], [2, 5, 19]], |ops, x| ops.mix(x[0], x[1], x[2]));
twin!(linear, [[13, 19], [2, 5, 19]], |ops, x| ops.linear(SITE, x[0], x[1]));
twin!(leaky_relu_squared, [[2, 5, 19]], |ops, x| ops.leaky_relu_squared(x[0]));
twin!(mlp, [[33, 19], [19, 33], [2, 5, 19]], |ops, x| ops.mlp(0, x[0], x[1], x[2]));
twin!(add_scaled, [[2, 5, 19], [19], [2, 5, 19]], |ops, x| ops.add_scaled(x[0], x[1], x[2]));
twin!(add_scaled_by_one_value, [[2, 5, 19], [1], [2, 5, 19]], |ops, x| ops.add_scaled(x[0], x[1], x[2]));
twin!(scale, [[19], [2, 5, 19]], |ops, x| ops.scale(x[0], x[1]));
twin!(scale_by_a_scalar, [[0usize; 0], [2, 5, 19]], |ops, x| ops.scale(x[0], x[1]));
twin!(gated_skip, [[3, 19], [3, 19], [2, 5, 19], [2, 5, 19]], |ops, x| {
    ops.gated_skip(x[0], Some(x[1]), 1, x[2], x[3])
});
twin!(ungated_skip, [[3, 19], [2, 5, 19], [2, 5, 19]], |ops, x| ops.gated_skip(x[0], None, 2, x[1], x[2]));
twin!(update_lane, [[4, 2], [4, 2, 2], [2, 5, 19], [2, 5, 19]], |ops, x| {
    ops.update_lane((x[0], 5), (x[1], 11), x[2], x[3])
});
twin!(average, [[2, 5, 19], [2, 5, 19]], |ops, x| ops.average(x[0], x[1]));
twin!(tail, [[2, 5, 19]], |ops, x| ops.tail(x[0], 2));
twin!(softcap, [[2, 5, 19]], |ops, x| ops.softcap(x[0], 0.7));
twin!(cross_entropy, [[2, 5, 19]], |ops, x| ops.cross_entropy(x[0], &IDS));
twin!(nll, [[19, 11], [2, 5, 11]], |ops, x| ops.nll(x[0], x[1], 2.0, &IDS));
twin!(exclude_self, [[2, 5, 60], [2, 5, 30]], |ops, x| ops.exclude_self(HEADS, x[0], x[1]));
twin!(attention, [[2, 71, 60], [2, 71, 30], [2, 71, 30]], |ops, x| ops.attention(0, HEADS, x[0], x[1], x[2]));
twin!(attention_of_the_last_queries, [[2, 3, 60], [2, 71, 30], [2, 71, 30]], |ops, x| {
    ops.attention(0, HEADS, x[0], x[1], x[2])
});
twin!(keys, [[7, 60]], |ops, x| ops.embed(x[0], &batch()).and_then(|x| ops.head_norm_rope(&x, 6, ROPE, None)));
twin!(queries, [[7, 60], [6]], |ops, x| {
    ops.embed(x[0], &batch()).and_then(|h| ops.head_norm_rope(&h, 6, ROPE, Some(x[1])))
});
twin!(queries_of_the_tail, [[7, 60], [6]], |ops, x| {
    ops.embed(x[0], &batch()).and_then(|h| {
        let last = ops.tail(&h, 2)?;
        ops.head_norm_rope(&last, 6, Rope { dims: 10, ..ROPE }, Some(x[1]))
    })
});

// A tensor used twice gets both gradients.
twin!(reuse, [[2, 5, 19], [19]], |ops, x| {
    let y = ops.rms_norm(x[0], 1.0).and_then(|y| ops.add_scaled(x[0], x[1], &y));
    y.and_then(|y| ops.add_scaled(&y, x[1], &y))
});

#[test]
fn wrong_shapes_and_ids_are_errors() {
    let ops = &mut CandleOps::default();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert!(message(ops.embed(&random(1, &[6, 4]), &batch())).contains("expected token ids below 6, found 6"));
    let (x, w) = (random(1, &[2, 5, 19]), random(2, &[3, 18]));
    assert!(message(ops.linear(SITE, &w, &x)).contains("expected a weight of 19 columns"));
    assert!(message(ops.cross_entropy(&x, &IDS[..9])).contains("expected 10 targets"));
    assert!(message(ops.attention(0, HEADS, &x, &x, &x)).contains("attention: expected"));
    assert!(message(ops.add_scaled(&x, &random(3, &[7]), &x)).contains("scale of 1 or 19 values"));
}
