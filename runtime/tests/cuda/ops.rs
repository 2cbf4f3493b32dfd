//! The interpreter of the tests: each operation by its kernel, on the host, in several orders of threads.

use std::sync::Arc;

use sixpack_runtime::cpu::{Dense, Mat};
use sixpack_runtime::{Batch, Error, Heads, Ops, ReadBack, Rope, Site};

use super::buffer::{Buffer, Kind};
use super::library::{Arg, Kernels};

/// Tokens of a tile of the vocabulary.
const TILE: usize = 300;

/// Threads of a block, but for attention.
pub(crate) const THREADS: u32 = 256;

/// Threads of a block of attention, and its queries.
const ATTENTION: (u32, usize, usize) = (128, 16, 8);

/// The kernels as an interpreter, with activations and matrices in f32 or in bf16.
#[derive(Clone)]
pub(crate) struct OnHost {
    kernels: Arc<Kernels>,
    storage: Kind,
    /// Orders of threads that each kernel runs in; all must give the same bits.
    seeds: &'static [u64],
}

impl OnHost {
    pub(crate) fn new(kernels: Arc<Kernels>, storage: Kind, seeds: &'static [u64]) -> Self {
        Self { kernels, storage, seeds }
    }

    /// What activations and matrices are kept in.
    pub(crate) fn storage(&self) -> Kind {
        self.storage
    }

    pub(crate) fn stored(&self, values: &[f32]) -> Buffer {
        Buffer::floats(self.storage, values)
    }

    fn control(w: &Dense) -> Buffer {
        Buffer::floats(Kind::F32, &w.data)
    }

    /// Memory for an activation.
    pub(crate) fn out(&self, len: usize) -> Arg<'static> {
        Arg::Out(Buffer::empty(self.storage, len))
    }

    /// The values a kernel writes, which are the same in all orders.
    pub(crate) fn run(&self, kernel: &str, blocks: [usize; 3], threads: u32, args: &[Arg<'_>]) -> Vec<Buffer> {
        let mut first: Option<Vec<Buffer>> = None;
        for &seed in self.seeds {
            let found = self.kernels.launch(kernel, blocks, threads, seed, args);
            let found = found.unwrap_or_else(|e| panic!("{kernel} with seed {seed}: {e}"));
            let same = first.as_ref().is_none_or(|first| *first == found);
            assert!(same, "{kernel}: the order of seed {seed} changes what it gives");
            first = Some(found);
        }
        first.expect("an order")
    }

    /// The same for a kernel with an instance for each storage, over rows by warps or over elements by threads: fewer
    /// blocks than would do it at once, so that each goes through several.
    pub(crate) fn over(&self, kernel: &str, work: usize, args: &[Arg<'_>]) -> Vec<Buffer> {
        self.run(&format!("{kernel}<{}>", self.storage), [1 + work / 20, 1, 1], THREADS, args)
    }

    /// An operation over rows with one output as wide as `x`.
    fn rows(&self, kernel: &str, x: &Mat, args: &[Arg<'_>]) -> Mat {
        x.like(x.cols, self.over(kernel, x.rows(), args)[0].values())
    }

    /// An operation over elements.
    fn elements(&self, kernel: &str, x: &Mat, args: &[Arg<'_>]) -> Mat {
        x.like(x.cols, self.over(kernel, x.data.len() / 8, args)[0].values())
    }

    /// `x Wᵀ` for the rows of `w`, as stored.
    fn product(&self, w: &[f32], x: &Mat) -> Mat {
        let out = w.len() / x.cols;
        let args = [
            Arg::In(&self.stored(w)),
            Arg::In(&self.stored(&x.data)),
            self.out(x.rows() * out),
            Arg::Int(x.rows()),
            Arg::Int(x.cols),
            Arg::Int(out),
        ];
        let blocks = [out.div_ceil(64), x.rows().div_ceil(64), 1];
        x.like(out, self.run(&format!("linear<{}>", self.storage), blocks, THREADS, &args)[0].values())
    }

    /// Goes on with the loss by a tile of products.
    fn tile(&self, products: &Mat, cap: f32, targets: &Buffer, state: Buffer, first: usize) -> Buffer {
        let args = [
            Arg::In(&self.stored(&products.data)),
            Arg::Float(cap),
            Arg::In(targets),
            Arg::Out(state),
            Arg::Int(products.rows()),
            Arg::Int(products.cols),
            Arg::Int(first),
        ];
        self.over("cross_entropy_tile", products.rows(), &args).remove(0)
    }

    fn end(&self, x: &Mat, state: &Buffer) -> Mat {
        let args = [Arg::In(state), Arg::Out(Buffer::empty(Kind::F32, x.rows())), Arg::Int(x.rows())];
        x.like(1, self.run("cross_entropy_end", [1, 1, 1], THREADS, &args)[0].values())
    }

    fn state(x: &Mat) -> Buffer {
        Buffer::empty(Kind::F32, 3 * x.rows())
    }
}

/// The least bound on the width of heads that kernels have.
pub(crate) fn width(heads: Heads) -> usize {
    [32, 64, 128, 256].into_iter().find(|&w| w >= heads.dim).expect("heads of at most 256")
}

/// 0 where one weight holds for all channels.
fn step(w: &Dense) -> Arg<'static> {
    Arg::Int(usize::from(w.data.len() != 1))
}

/// The check that a host makes before it starts a kernel.
fn checked(ids: &[u32], vocab: usize) -> Result<(), Error> {
    let foreign = ids.iter().position(|&id| id as usize >= vocab);
    foreign.map_or(Ok(()), |index| Err(Error::Token { index, id: ids[index], vocab }))
}

impl Ops for OnHost {
    type Act = Mat;
    type Weight = Dense;
    type Error = Error;

    fn embed(&mut self, table: &Dense, batch: &Batch<'_>) -> Result<Mat, Error> {
        checked(batch.ids, table.rows)?;
        let y = Mat::zeros(batch.sequences, batch.len(), table.cols);
        let (table, ids) = (self.stored(&table.data), Buffer::ids(batch.ids));
        let args = [Arg::In(&table), Arg::In(&ids), self.out(y.data.len()), Arg::Int(y.rows()), Arg::Int(y.cols)];
        Ok(self.rows("embed", &y, &args))
    }

    fn rms_norm(&mut self, x: &Mat, scale: f32) -> Result<Mat, Error> {
        let from = self.stored(&x.data);
        let args = [Arg::In(&from), Arg::Float(scale), self.out(x.data.len()), Arg::Int(x.rows()), Arg::Int(x.cols)];
        Ok(self.rows("rms_norm", x, &args))
    }

    fn mix(&mut self, weights: &Dense, x: &Mat, x0: &Mat) -> Result<Mat, Error> {
        let (w, a, b) = (Self::control(weights), self.stored(&x.data), self.stored(&x0.data));
        let ins = [&w, &a, &b].map(Arg::In);
        let rest = [self.out(x.data.len()), Arg::Int(x.rows()), Arg::Int(x.cols)];
        Ok(self.rows("mix", x, &[&ins[..], &rest].concat()))
    }

    fn mix_norm(&mut self, weights: &Dense, x: &Mat, x0: &Mat, scale: f32) -> Result<(Mat, Mat), Error> {
        let (w, a, b) = (Self::control(weights), self.stored(&x.data), self.stored(&x0.data));
        let ins = [&w, &a, &b].map(Arg::In);
        let outs = [(); 2].map(|()| self.out(x.data.len()));
        let args = [&ins[..], &[Arg::Float(scale)], &outs, &[Arg::Int(x.rows()), Arg::Int(x.cols)]].concat();
        let found = self.over("mix_norm", x.rows(), &args);
        Ok((x.like(x.cols, found[0].values()), x.like(x.cols, found[1].values())))
    }

    fn linear(&mut self, _: Site, w: &Dense, x: &Mat) -> Result<Mat, Error> {
        Ok(self.product(&w.data, x))
    }

    fn head_norm_rope(&mut self, x: &Mat, heads: usize, rope: Rope, gain: Option<&Dense>) -> Result<Mat, Error> {
        let half = rope.dims / 2;
        let angle = |t: usize, i: usize| t as f64 * rope.base.powf(-2.0 * i as f64 / rope.dims as f64);
        let angles = (0..x.start + x.len).flat_map(|t| (0..half).map(move |i| angle(t, i)));
        let angles: Vec<f32> = angles.flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect();
        let (from, angles) = (self.stored(&x.data), Buffer::floats(Kind::F32, &angles));
        let gain = gain.map(Self::control);
        let args = [
            Arg::In(&from),
            Arg::Int(heads),
            Arg::In(&angles),
            Arg::Int(half),
            gain.as_ref().map_or(Arg::Null, Arg::In),
            self.out(x.data.len()),
            Arg::Int(x.rows()),
            Arg::Int(x.cols / heads),
            Arg::Int(x.len),
            Arg::Int(x.start),
        ];
        Ok(self.rows("head_norm_rope", x, &args))
    }

    fn attention(&mut self, _: usize, heads: Heads, q: &Mat, k: &Mat, v: &Mat) -> Result<Mat, Error> {
        let width = width(heads);
        let (threads, queries, wide) = ATTENTION;
        let queries = if width > 128 { wide } else { queries };
        let [a, b, c] = [q, k, v].map(|x| self.stored(&x.data));
        let args = [
            Arg::Int(heads.query),
            Arg::Int(heads.kv),
            Arg::Int(heads.dim),
            Arg::In(&a),
            Arg::In(&b),
            Arg::In(&c),
            self.out(q.data.len()),
            Arg::Null,
            Arg::Int(q.len),
            Arg::Int(k.len),
        ];
        let blocks = [q.len.div_ceil(queries), heads.query, q.sequences];
        let kernel = format!("attention<{}, {width}>", self.storage);
        Ok(q.like(q.cols, self.run(&kernel, blocks, threads, &args)[0].values()))
    }

    fn exclude_self(&mut self, heads: Heads, y: &Mat, v: &Mat) -> Result<Mat, Error> {
        let (a, b) = (self.stored(&y.data), self.stored(&v.data));
        let sizes = [heads.query, heads.kv, heads.dim].map(Arg::Int);
        let args = [&sizes[..], &[Arg::In(&a), Arg::In(&b), self.out(y.data.len()), Arg::Int(y.rows())]].concat();
        Ok(self.rows("exclude_self", y, &args))
    }

    fn leaky_relu_squared(&mut self, x: &Mat) -> Result<Mat, Error> {
        let from = self.stored(&x.data);
        let args = [Arg::In(&from), self.out(x.data.len()), Arg::Int(x.data.len())];
        Ok(self.elements("leaky_relu_squared", x, &args))
    }

    fn add_scaled(&mut self, x: &Mat, weights: &Dense, y: &Mat) -> Result<Mat, Error> {
        let (a, w, b) = (self.stored(&x.data), Self::control(weights), self.stored(&y.data));
        let ins = [Arg::In(&a), Arg::In(&w), step(weights), Arg::In(&b)];
        let rest = [self.out(x.data.len()), Arg::Int(x.rows()), Arg::Int(x.cols)];
        Ok(self.rows("add_scaled", x, &[&ins[..], &rest].concat()))
    }

    fn add_scaled_norm(&mut self, x: &Mat, weights: &Dense, y: &Mat, scale: f32) -> Result<(Mat, Mat), Error> {
        let (a, w, b) = (self.stored(&x.data), Self::control(weights), self.stored(&y.data));
        let ins = [Arg::In(&a), Arg::In(&w), step(weights), Arg::In(&b), Arg::Float(scale)];
        let outs = [(); 2].map(|()| self.out(x.data.len()));
        let args = [&ins[..], &outs, &[Arg::Int(x.rows()), Arg::Int(x.cols)]].concat();
        let found = self.over("add_scaled_norm", x.rows(), &args);
        Ok((x.like(x.cols, found[0].values()), x.like(x.cols, found[1].values())))
    }

    fn scale(&mut self, scale: &Dense, x: &Mat) -> Result<Mat, Error> {
        let (w, from) = (Self::control(scale), self.stored(&x.data));
        let args =
            [Arg::In(&w), step(scale), Arg::In(&from), self.out(x.data.len()), Arg::Int(x.rows()), Arg::Int(x.cols)];
        Ok(self.rows("scale", x, &args))
    }

    fn gated_skip(
        &mut self,
        weights: &Dense,
        gates: Option<&Dense>,
        row: usize,
        x: &Mat,
        skip: &Mat,
    ) -> Result<Mat, Error> {
        let of = |w: &Dense| Buffer::floats(Kind::F32, w.row(row));
        let (w, g, a, b) = (of(weights), gates.map(of), self.stored(&x.data), self.stored(&skip.data));
        let ins = [Arg::In(&w), g.as_ref().map_or(Arg::Null, Arg::In), Arg::In(&a), Arg::In(&b)];
        let rest = [self.out(x.data.len()), Arg::Int(x.rows()), Arg::Int(x.cols)];
        Ok(self.rows("gated_skip", x, &[&ins[..], &rest].concat()))
    }

    fn update_lane(&mut self, keep: (&Dense, usize), post: (&Dense, usize), lane: &Mat, y: &Mat) -> Result<Mat, Error> {
        let [keep, post] = [keep, post].map(|(w, i)| Buffer::floats(Kind::F32, &w.data[i..=i]));
        let (a, b) = (self.stored(&lane.data), self.stored(&y.data));
        let ins = [&keep, &post, &a, &b].map(Arg::In);
        let args = [&ins[..], &[self.out(y.data.len()), Arg::Int(y.data.len())]].concat();
        Ok(self.elements("update_lane", lane, &args))
    }

    fn average(&mut self, a: &Mat, b: &Mat) -> Result<Mat, Error> {
        let [x, y] = [a, b].map(|m| self.stored(&m.data));
        let args = [Arg::In(&x), Arg::In(&y), self.out(a.data.len()), Arg::Int(a.data.len())];
        Ok(self.elements("average", a, &args))
    }

    fn tail(&mut self, x: &Mat, n: usize) -> Result<Mat, Error> {
        let from = self.stored(&x.data);
        let to = Mat { start: x.start + x.len - n, ..Mat::zeros(x.sequences, n, x.cols) };
        let sizes = [x.sequences, x.len, x.cols].map(Arg::Int);
        let args = [&[Arg::In(&from), Arg::Int(n), self.out(to.data.len())][..], &sizes].concat();
        Ok(self.rows("tail", &to, &args))
    }

    fn softcap(&mut self, x: &Mat, cap: f32) -> Result<Mat, Error> {
        let from = self.stored(&x.data);
        let args = [Arg::In(&from), Arg::Float(cap), self.out(x.data.len()), Arg::Int(x.data.len())];
        Ok(self.elements("softcap", x, &args))
    }

    fn cross_entropy(&mut self, logits: &Mat, targets: &[u32]) -> Result<Mat, Error> {
        checked(targets, logits.cols)?;
        let state = self.tile(logits, 0.0, &Buffer::ids(targets), Self::state(logits), 0);
        Ok(self.end(logits, &state))
    }

    fn nll(&mut self, table: &Dense, h: &Mat, cap: f32, targets: &[u32]) -> Result<Mat, Error> {
        checked(targets, table.rows)?;
        let (ids, mut state) = (Buffer::ids(targets), Self::state(h));
        for (i, rows) in table.data.chunks(TILE * table.cols).enumerate() {
            state = self.tile(&self.product(rows, h), cap, &ids, state, i * TILE);
        }
        Ok(self.end(h, &state))
    }
}

impl ReadBack for OnHost {
    async fn read(&mut self, x: &Mat) -> Result<Vec<f32>, Error> {
        Ok(x.data.clone())
    }
}
