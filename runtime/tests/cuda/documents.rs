//! Attention within documents and without, forward and backward, against plain loops in f64; on sizes for which tensor
//! cores take several blocks, and on those that they do not take.

use sixpack_runtime::Heads;
use sixpack_runtime::cuda::{Buffer, Cuda, Gpu, Kind, Lengths};

/// Largest difference in f32, relative to one plus the size of the value.
const F32: f64 = 1e-4;
/// The size of a rounding to bf16. What gradients are sums of is rounded as well: probabilities, and the scores' gradients.
const ROUNDING: f64 = 1.0 / 256.0;

/// Sequences, queries, keys, heads. Of some the last query of a warp is the first that sees a tile of keys.
const CASES: [(usize, usize, usize, Heads); 7] = [
    (2, 1, 3, Heads { query: 2, kv: 1, dim: 8 }),
    (1, 150, 150, Heads { query: 2, kv: 1, dim: 64 }),
    (2, 37, 198, Heads { query: 1, kv: 1, dim: 40 }),
    (2, 37, 86, Heads { query: 2, kv: 1, dim: 72 }),
    (1, 130, 130, Heads { query: 2, kv: 2, dim: 128 }),
    (2, 40, 61, Heads { query: 4, kv: 2, dim: 10 }),
    (1, 30, 30, Heads { query: 1, kv: 1, dim: 130 }),
];

/// Where documents begin. Some end within the rows of a warp, and began before the tile of keys that it is at.
const DOCUMENTS: [usize; 6] = [0, 7, 60, 129, 139, 180];

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize
    }

    /// Values between -2 and 2, as they are kept.
    fn values(&mut self, gpu: &Gpu, kind: Kind, len: usize) -> (Vec<f64>, Buffer) {
        let values: Vec<f32> = (0..len).map(|_| (self.next() % 4001) as f32 / 1000.0 - 2.0).collect();
        let kept = gpu.floats(kind, &values).unwrap();
        (gpu.read(&kept).unwrap().into_iter().map(f64::from).collect(), kept)
    }
}

/// The first position of each query's document: of those of another sequence a little later.
fn starts(at: Lengths) -> Vec<usize> {
    let start = |row: usize| {
        let (late, position) = (row / at.queries * 5, at.keys - at.queries + row % at.queries);
        DOCUMENTS.into_iter().map(|start| start + late).filter(|&s| s <= position).max().unwrap_or(0)
    };
    (0..at.sequences * at.queries).map(start).collect()
}

/// The output, and gradients of queries, keys and values.
fn plain(heads: Heads, [q, k, v, dy]: [&[f64]; 4], starts: &[usize], at: Lengths) -> [Vec<f64>; 4] {
    let dim = heads.dim;
    let [mut y, mut dq, mut dk, mut dv] = [q, q, k, v].map(|x| vec![0.0; x.len()]);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for (row, h) in (0..starts.len()).flat_map(|row| (0..heads.query).map(move |h| (row, h))) {
        let (sequence, position) = (row / at.queries, at.keys - at.queries + row % at.queries);
        let own = (row * heads.query + h) * dim..(row * heads.query + h + 1) * dim;
        let key = |j: usize| {
            let at = ((sequence * at.keys + j) * heads.kv + h / (heads.query / heads.kv)) * dim;
            at..at + dim
        };
        let seen = starts[row]..=position;
        let scores: Vec<f64> = seen.clone().map(|j| dot(&q[own.clone()], &k[key(j)]) / (dim as f64).sqrt()).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - highest).exp()).sum();
        let weights: Vec<f64> = scores.iter().map(|s| (s - highest).exp() / sum).collect();
        for (j, w) in seen.clone().zip(&weights) {
            (0..dim).for_each(|c| y[own.start + c] += w * v[key(j).start + c]);
        }
        let shift = dot(&y[own.clone()], &dy[own.clone()]);
        for (j, w) in seen.zip(&weights) {
            let ds = w * (dot(&dy[own.clone()], &v[key(j)]) - shift) / (dim as f64).sqrt();
            for c in 0..dim {
                dq[own.start + c] += ds * k[key(j).start + c];
                dk[key(j).start + c] += ds * q[own.start + c];
                dv[key(j).start + c] += w * dy[own.start + c];
            }
        }
    }
    [y, dq, dk, dv]
}

/// Both directions, within documents and without, with what is kept in `kind`.
pub(crate) fn all(ops: &Cuda, kind: Kind) {
    for (case, (sequences, queries, keys, heads)) in CASES.into_iter().enumerate() {
        let (gpu, at) = (ops.gpu(), Lengths { sequences, queries, keys, apart: None });
        let mut random = Random(case as u64);
        let [many, few] = [sequences * queries * heads.query, sequences * keys * heads.kv].map(|n| n * heads.dim);
        let [(q, q_at), (k, k_at), (v, v_at), (dy, dy_at)] =
            [many, few, few, many].map(|len| random.values(gpu, kind, len));
        for documents in [false, true] {
            let starts = if documents { starts(at) } else { vec![0; sequences * queries] };
            let counts: Vec<u32> = starts.iter().map(|&s| s as u32).collect();
            let starts_at = documents.then(|| gpu.ints(&counts).unwrap());
            let [y, dq, dk, dv] = [many, many, few, few].map(|len| gpu.empty(kind, len).unwrap());
            let lse = gpu.empty(Kind::F32, sequences * heads.query * queries).unwrap();
            gpu.attention(heads, [&q_at, &k_at, &v_at], starts_at.as_ref(), (&y, Some(&lse)), at).unwrap();
            let ins = [&q_at, &k_at, &v_at, &y, &lse, &dy_at];
            gpu.attention_backward(heads, ins, starts_at.as_ref(), [&dq, &dk, &dv], at).unwrap();
            let expected = plain(heads, [&q, &k, &v, &dy], &starts, at);
            let found = [("output", &y, 1.0), ("queries", &dq, 4.0), ("keys", &dk, 4.0), ("values", &dv, 4.0)];
            for ((what, found, roundings), expected) in found.into_iter().zip(&expected) {
                let tolerance = if kind == Kind::Bf16 { roundings * ROUNDING } else { F32 };
                for (i, (&f, e)) in gpu.read(found).unwrap().iter().zip(expected).enumerate() {
                    let within = (f64::from(f) - e).abs() <= tolerance * (1.0 + e.abs());
                    assert!(within, "{what} of {at:?} {heads:?} {documents}: [{i}]: found {f}, expected {e}");
                }
            }
        }
    }
    large_scores(ops, kind);
}

/// Scores of many thousands: the largest is all, and nothing overflows; this way and that.
fn large_scores(ops: &Cuda, kind: Kind) {
    let (gpu, heads) = (ops.gpu(), Heads { query: 1, kv: 1, dim: 64 });
    let at = Lengths { sequences: 1, queries: 67, keys: 67, apart: None };
    // Of all keys the one of position 5 is the longest, and a query before it sees its own.
    let rows = |f: &dyn Fn(usize) -> f32| -> Buffer {
        let values: Vec<f32> = (0..67 * 64).map(|i| f(i / 64)).collect();
        gpu.floats(kind, &values).unwrap()
    };
    let (q, k) = (rows(&|_| 64.0), rows(&|i| if i <= 5 { 32.0 * i as f32 } else { 100.0 }));
    let (v, y) = (rows(&|i| i as f32), gpu.empty(kind, 67 * 64).unwrap());
    let expected: Vec<f32> = (0..67 * 64).map(|i| (i / 64).min(5) as f32).collect();
    gpu.attention(heads, [&q, &k, &v], None, (&y, None), at).unwrap();
    assert_eq!(gpu.read(&y).unwrap(), expected);
    // Also where memory begins between two pieces that tensor cores take.
    let between = gpu.empty(kind, 4 + 67 * 64).unwrap().part(4..4 + 67 * 64);
    gpu.copy(&q, &between).unwrap();
    gpu.attention(heads, [&between, &k, &v], None, (&y, None), at).unwrap();
    assert_eq!(gpu.read(&y).unwrap(), expected);
}
