//! Each operation of a backend against its plain twin, on odd sizes and on sizes that are split over threads.

use sixpack_runtime::cpu::{Dense, Int8, Mat, Reference, Weight};
use sixpack_runtime::{Batch, Error, Heads, ReadBack, Remember, Role, Rope, Site};

/// Largest difference of an operation in f32, relative to one plus the size of the value: a few roundings, and sums of
/// 1280 of them.
pub(crate) fn f32_tolerance(_: &str) -> f32 {
    2e-5
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn mat(&mut self, sequences: usize, len: usize, cols: usize, start: usize) -> Mat {
        let values = (0..sequences * len * cols).map(|_| (self.next() % 4001) as f32 / 1000.0 - 2.0);
        Mat { sequences, len, cols, start, data: values.collect() }
    }

    /// Multiples of 1/64 below 1 in size, which are int8 codes as well.
    fn weight(&mut self, rows: usize, cols: usize) -> Dense {
        Dense::new(rows, cols, (0..rows * cols).map(|_| (self.next() % 127) as f32 / 64.0 - 63.0 / 64.0).collect())
    }

    fn ids(&mut self, n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|_| (self.next() as usize % vocab) as u32).collect()
    }
}

/// The sizes of a case: sequences, positions, heads.
const CASES: [(usize, usize, Heads); 6] = [
    (1, 1, Heads { query: 4, kv: 2, dim: 8 }),
    (3, 1, Heads { query: 2, kv: 1, dim: 6 }),
    (1, 3, Heads { query: 5, kv: 5, dim: 64 }),
    (3, 5, Heads { query: 6, kv: 3, dim: 10 }),
    (2, 131, Heads { query: 3, kv: 1, dim: 33 }),
    (2, 300, Heads { query: 5, kv: 5, dim: 64 }),
];

/// Brings what the host has to a backend.
pub(crate) type Bring<From, To> = Box<dyn Fn(&From) -> To>;

/// What a backend under test is made of: itself, and how weights and activations get to it.
pub(crate) struct Backend<O: ReadBack> {
    pub(crate) ops: O,
    pub(crate) weight: Bring<Dense, O::Weight>,
    /// The same for what products and lookups take.
    pub(crate) matrix: Bring<Dense, O::Weight>,
    pub(crate) act: Bring<Mat, O::Act>,
    /// What is left of an activation as this backend keeps it.
    pub(crate) kept: fn(&Mat) -> Mat,
    /// Largest difference of an operation, relative to one plus the size of the value.
    pub(crate) tolerance: fn(&str) -> f32,
}

impl<O: ReadBack<Error = Error>> Backend<O> {
    fn check(&mut self, what: &str, found: Result<O::Act, Error>, expected: Result<Mat, Error>) {
        let (found, expected) = (found.unwrap(), expected.unwrap());
        let found = sixpack_runtime::now(self.ops.read(&found)).unwrap();
        assert_eq!(found.len(), expected.data.len(), "{what} of {:?}", expected.shape());
        for (i, (f, e)) in found.iter().zip(&expected.data).enumerate() {
            let within = (f - e).abs() <= (self.tolerance)(what) * (1.0 + e.abs());
            assert!(within, "{what} of {:?}: element {i}: found {f}, expected {e}", expected.shape());
        }
    }
}

/// Calls an operation of the backend and of the reference with the same arguments and compares. Arguments are written
/// `a(mat)` for activations, `m(dense)` for matrices and
/// tables and `w(dense)` for other weights.
macro_rules! twin {
    ($backend:ident, $op:ident ( $($kind:ident ( $value:expr )),* $(,)? )) => {{
        let expected = sixpack_runtime::Ops::$op(&mut Reference::new(), $(twin!(@plain $backend $kind $value)),*);
        let found = sixpack_runtime::Ops::$op(&mut $backend.ops, $(twin!(@under $backend $kind $value)),*);
        (stringify!($op), found, expected)
    }};
    (@plain $backend:ident a $value:expr) => { &($backend.kept)($value) };
    (@plain $backend:ident w $value:expr) => { $value };
    (@plain $backend:ident m $value:expr) => { $value };
    (@plain $backend:ident pair $value:expr) => { ($value.0, $value.1) };
    (@plain $backend:ident maybe $value:expr) => { $value };
    (@plain $backend:ident v $value:expr) => { $value };
    (@under $backend:ident a $value:expr) => { &($backend.act)($value) };
    (@under $backend:ident w $value:expr) => { &($backend.weight)($value) };
    (@under $backend:ident m $value:expr) => { &($backend.matrix)($value) };
    (@under $backend:ident pair $value:expr) => { (&($backend.weight)($value.0), $value.1) };
    (@under $backend:ident maybe $value:expr) => { $value.map(&*$backend.weight).as_ref() };
    (@under $backend:ident v $value:expr) => { $value };
}

/// One output.
macro_rules! same {
    ($backend:ident, $op:ident ( $($args:tt)* )) => {{
        let (what, found, expected) = twin!($backend, $op ( $($args)* ));
        $backend.check(what, found, expected);
    }};
}

/// Two outputs.
macro_rules! same_pair {
    ($backend:ident, $op:ident ( $($args:tt)* )) => {{
        let (what, found, expected) = twin!($backend, $op ( $($args)* ));
        let (found, expected) = (found.unwrap(), expected.unwrap());
        $backend.check(what, Ok(found.0), Ok(expected.0));
        $backend.check(what, Ok(found.1), Ok(expected.1));
    }};
}

/// The residual stream.
pub(crate) fn residual<O: ReadBack<Error = Error>>(mut b: Backend<O>) {
    for (case, (sequences, len, heads)) in CASES.into_iter().enumerate() {
        let mut random = Random(case as u64);
        let cols = heads.query * heads.dim;
        let [x, y] = [(); 2].map(|()| random.mat(sequences, len, cols, 0));
        let [two, three, gates] = [2, 3, 3].map(|rows| random.weight(rows, cols));
        let [channels, single, keep] = [(1, cols), (1, 1), (4, 2)].map(|(r, c)| random.weight(r, c));
        same!(b, rms_norm(a(&x), v(0.7)));
        same!(b, mix(w(&two), a(&x), a(&y)));
        same_pair!(b, mix_norm(w(&two), a(&x), a(&y), v(0.7)));
        for scale in [&channels, &single] {
            same!(b, scale(w(scale), a(&x)));
            same!(b, add_scaled(a(&x), w(scale), a(&y)));
            same_pair!(b, add_scaled_norm(a(&x), w(scale), a(&y), v(0.7)));
        }
        same!(b, gated_skip(w(&three), maybe(Some(&gates)), v(2), a(&x), a(&y)));
        same!(b, gated_skip(w(&three), maybe(None::<&Dense>), v(1), a(&x), a(&y)));
        same!(b, update_lane(pair((&keep, 5)), pair((&keep, 2)), a(&x), a(&y)));
        same!(b, average(a(&x), a(&y)));
        same!(b, leaky_relu_squared(a(&x)));
        for n in [1, len] {
            same!(b, tail(a(&x), v(n)));
        }
    }
}

/// Attention and what belongs to it.
pub(crate) fn attention<O: ReadBack<Error = Error>>(mut b: Backend<O>) {
    for (case, (sequences, len, heads)) in CASES.into_iter().enumerate() {
        let mut random = Random(case as u64);
        let mut q = random.mat(sequences, len, heads.query * heads.dim, 0);
        let [k, v_] = [(); 2].map(|()| random.mat(sequences, len, heads.kv * heads.dim, 0));
        let gain = random.weight(1, heads.query);
        for (dims, base, start) in [(heads.dim & !1, 10_000.0, 0), (4, 500.0, 11)] {
            q.start = start;
            let rope = Rope { dims, base };
            same!(b, head_norm_rope(a(&q), v(heads.query), v(rope), maybe(Some(&gain))));
            same!(b, head_norm_rope(a(&q), v(heads.query), v(rope), maybe(None::<&Dense>)));
        }
        same!(b, exclude_self(v(heads), a(&q), a(&v_)));
        for wanted in [len, 1, len.div_ceil(2)] {
            let q = q.tail(wanted);
            same!(b, attention(v(0), v(heads), a(&q), a(&k), a(&v_)));
        }
    }
    // A value of zero excludes nothing; a large score does not overflow.
    let heads = Heads { query: 1, kv: 1, dim: 4 };
    let mut x = Random(9).mat(1, 5, 4, 0);
    same!(b, exclude_self(v(heads), a(&x), a(&Mat::zeros(1, 5, 4))));
    x.data.iter_mut().for_each(|x| *x *= 1e4);
    same!(b, attention(v(0), v(heads), a(&x), a(&x), a(&x)));
}

/// Products with weights, and the loss.
pub(crate) fn products<O: ReadBack<Error = Error>>(mut b: Backend<O>) {
    for (case, (sequences, len, heads)) in CASES.into_iter().enumerate() {
        let mut random = Random(case as u64);
        let (cols, hidden, vocab) = (heads.query * heads.dim, 2 * heads.dim + 3, 1061);
        let mut x = random.mat(sequences, len, cols, 0);
        x.data.iter_mut().for_each(|x| *x /= (cols as f32).sqrt());
        let [up, down, table] = [(hidden, cols), (cols, hidden), (vocab, cols)].map(|(r, c)| random.weight(r, c));
        let site = Site { layer: 0, role: Role::MlpUp };
        same!(b, linear(v(site), m(&up), a(&x)));
        same!(b, mlp(v(0), m(&up), m(&down), a(&x)));
        let ids = random.ids(sequences * len, vocab);
        same!(b, embed(m(&table), v(&Batch::new(&ids, sequences))));
        for cap in [0.5, 30.0] {
            same!(b, logits(m(&table), a(&x), v(cap)));
            same!(b, nll(m(&table), a(&x), v(cap), v(&ids)));
        }
        let logits = random.mat(sequences, len, vocab, 0);
        same!(b, softcap(a(&logits), v(1.5)));
        same!(b, cross_entropy(a(&logits), v(&ids)));
    }
}

/// Few rows and a weight large enough to be split over threads.
pub(crate) fn steps<O: ReadBack<Error = Error>>(mut b: Backend<O>) {
    let mut random = Random(5);
    let site = Site { layer: 0, role: Role::MlpUp };
    let w_ = random.weight(3001, 333);
    for rows in 1..=6 {
        let mut x = random.mat(1, rows, 333, 0);
        x.data.iter_mut().for_each(|x| *x /= 18.0);
        same!(b, linear(v(site), m(&w_), a(&x)));
    }
}

/// With a cache: whole passes, single tokens, and the last positions only; long enough for threads to share the heads.
pub(crate) fn remembered<O: Remember<Error = Error>>(mut b: Backend<O>) {
    let mut random = Random(3);
    for (query, kv, dim, lens) in [
        (4, 2, 8, [5, 1, 1, 40, 1]),
        (3, 1, 83, [4, 1, 3, 1, 1]),
        (8, 4, 64, [1, 7, 600, 1, 1]),
        (1, 1, 128, [2, 1, 1, 1, 1]),
    ] {
        let heads = Heads { query, kv, dim };
        let mut plain = Reference::new();
        plain.begin();
        b.ops.begin();
        for len in lens {
            for pass in [0, 1] {
                let q = random.mat(1, len, query * dim, 0).tail(len.div_ceil(2));
                let [k, v] = [(); 2].map(|()| random.mat(1, len, kv * dim, 0));
                let expected = sixpack_runtime::Ops::attention(&mut plain, pass, heads, &q, &k, &v);
                let found = b.ops.attention(pass, heads, &(b.act)(&q), &(b.act)(&k), &(b.act)(&v));
                b.check("attention in a session", found, expected);
            }
            plain.advance(len);
            b.ops.advance(len);
        }
        b.ops.end();
    }
}

/// The values as int8 codes, of 1/64 in even rows and -1/64 in odd ones, and half of that in every third column.
pub(crate) fn codes(w: &Dense) -> Weight {
    let row = |row: usize| if row.is_multiple_of(2) { 64.0 } else { -64.0 };
    let column = |column: usize| if column.is_multiple_of(3) { 2.0 } else { 1.0 };
    let code = |(i, x): (usize, &f32)| (x * row(i / w.cols) * column(i % w.cols)) as i8;
    let codes: Vec<i8> = w.data.iter().enumerate().map(code).collect();
    let scales = (0..w.rows).map(|i| 1.0 / row(i)).collect();
    let columns = (0..w.cols).map(|j| 1.0 / column(j)).collect();
    Weight::Int8(Int8::new([w.rows, w.cols], &codes, scales, columns))
}

/// The values as they are.
pub(crate) fn dense(w: &Dense) -> Weight {
    Weight::Dense(w.clone())
}
