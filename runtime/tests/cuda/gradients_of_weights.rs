//! Backward of what has weights: their gradients are sums over all rows.

use candle_core::{Result, Tensor};

use super::buffer::{Buffer, Kind};
use super::gradients::{Check, Sizes, gradients, sigmoid};
use super::library::Arg;
use super::ops::THREADS;

/// Rows of blocks that share the rows of an activation.
const PARTS: usize = 3;

impl Check<'_> {
    /// Blocks of a kernel that has a thread for each channel.
    fn by_channel(cols: usize) -> [usize; 3] {
        [cols.div_ceil(THREADS as usize), PARTS, 1]
    }

    fn kernel(&self, name: &str) -> String {
        format!("{name}<{}>", self.host.storage())
    }

    /// The sum of the parts that rows of blocks have.
    fn total(&self, parts: &[f32], cols: usize) -> Vec<f32> {
        let parts = Buffer::floats(Kind::F32, parts);
        let args = [Arg::In(&parts), Arg::Out(Buffer::empty(Kind::F32, cols)), Arg::Int(PARTS), Arg::Int(cols)];
        self.host.run("add_parts", [1, 1, 1], THREADS, &args)[0].values()
    }

    pub(crate) fn weights(&mut self, sizes: Sizes) -> Result<()> {
        self.scale(sizes)?;
        self.gated_skip(sizes)?;
        self.linear(sizes)?;
        self.embed(sizes);
        Ok(())
    }

    fn scale(&mut self, (sequences, len, _, heads): Sizes) -> Result<()> {
        let (rows, cols) = (sequences * len, heads.query * heads.dim);
        let ((x, x_at), (dy, dy_at)) = (self.random(rows * cols), self.random(rows * cols));
        let (w, _) = self.control(cols);
        let parts = Arg::Out(Buffer::empty(Kind::F32, PARTS * cols));
        let args = [Arg::In(&x_at), Arg::In(&dy_at), parts, Arg::Int(rows), Arg::Int(cols)];
        let parts = self.host.run(&self.kernel("scale_backward_weights"), Self::by_channel(cols), THREADS, &args);
        let scaled = |t: &[Tensor]| t[0].broadcast_mul(&t[1]);
        let expected = gradients(&[(&x, &[rows, cols]), (&w, &[1, cols])], &dy, scaled)?;
        self.near("scale's weights", &self.total(&parts[0].values(), cols), &expected[1], 0.1);
        Ok(())
    }

    fn gated_skip(&mut self, (sequences, len, _, heads): Sizes) -> Result<()> {
        let (rows, cols) = (sequences * len, heads.query * heads.dim);
        let [(x, x_at), (skip, skip_at), (dy, dy_at)] = [(); 3].map(|()| self.random(rows * cols));
        let [(w, w_at), (gates, gates_at)] = [(); 2].map(|()| self.control(cols));
        for gated in [true, false] {
            let args = [
                Arg::In(&w_at),
                if gated { Arg::In(&gates_at) } else { Arg::Null },
                Arg::In(&x_at),
                Arg::In(&skip_at),
                Arg::In(&dy_at),
                self.host.out(rows * cols),
                self.host.out(rows * cols),
                Arg::Out(Buffer::empty(Kind::F32, 2 * PARTS * cols)),
                Arg::Int(rows),
                Arg::Int(cols),
            ];
            let blocks = Self::by_channel(cols);
            let found = self.host.run(&self.kernel("gated_skip_backward"), blocks, THREADS, &args);
            let parts = found[2].values();
            let (all, one) = ([rows, cols], [1, cols]);
            let inputs: [(&[f32], &[usize]); 4] = [(&x, &all), (&skip, &all), (&w, &one), (&gates, &one)];
            let expected = gradients(&inputs, &dy, |t| {
                let s = t[1].broadcast_mul(&t[2])?;
                if !gated {
                    return &t[0] + &s;
                }
                &s + (&t[0] - &s)?.broadcast_mul(&sigmoid(&t[3])?)?
            })?;
            self.near("gated_skip", &found[0].values(), &expected[0], 1.0);
            self.near("gated_skip's skip", &found[1].values(), &expected[1], 1.0);
            self.near("gated_skip's weights", &self.total(&parts[..PARTS * cols], cols), &expected[2], 0.1);
            if gated {
                self.near("gated_skip's gates", &self.total(&parts[PARTS * cols..], cols), &expected[3], 0.1);
            }
        }
        Ok(())
    }

    fn linear(&mut self, (sequences, len, _, heads): Sizes) -> Result<()> {
        let (rows, cols, out) = (sequences * len, heads.query * heads.dim, heads.dim + 3);
        let ((x, x_at), (dy, dy_at)) = (self.random(rows * cols), self.random(rows * out));
        let (w, w_at) = self.random(out * cols);
        let expected = gradients(&[(&x, &[rows, cols]), (&w, &[out, cols])], &dy, |t| t[0].matmul(&t[1].t()?))?;
        let sizes = [rows, cols, out].map(Arg::Int);
        let args = [&[Arg::In(&w_at), Arg::In(&dy_at), self.host.out(rows * cols)][..], &sizes].concat();
        let blocks = [cols.div_ceil(64), rows.div_ceil(64), 1];
        let found = self.host.run(&self.kernel("linear_backward"), blocks, THREADS, &args);
        self.near("linear", &found[0].values(), &expected[0], 1.0);
        let dw = Arg::Out(Buffer::empty(Kind::F32, out * cols));
        let args = [&[Arg::In(&x_at), Arg::In(&dy_at), dw][..], &sizes].concat();
        let blocks = [cols.div_ceil(64), out.div_ceil(64), 1];
        let found = self.host.run(&self.kernel("linear_backward_weights"), blocks, THREADS, &args);
        self.near("linear's weights", &found[0].values(), &expected[1], 0.1);
        Ok(())
    }

    fn embed(&mut self, (sequences, len, _, heads): Sizes) {
        let (rows, cols, vocab) = (sequences * len, heads.dim, 11);
        let (dy, dy_at) = self.random(rows * cols);
        let token = |row: usize| row * 7 % (vocab - 2);
        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_by_key(|&row| token(row));
        let start = |t: usize| order.iter().filter(|&&row| token(row) < t).count() as u32;
        let starts = Buffer::ids(&(0..=vocab).map(start).collect::<Vec<_>>());
        let order_at = Buffer::ids(&order.iter().map(|&row| row as u32).collect::<Vec<_>>());
        let table = Arg::Out(Buffer::empty(Kind::F32, vocab * cols));
        let ins = [&dy_at, &starts, &order_at].map(Arg::In);
        let args = [&ins[..], &[table, Arg::Int(vocab), Arg::Int(cols)]].concat();
        let found = self.host.over("embed_backward", vocab, &args)[0].values();
        let mut expected = vec![0.0; vocab * cols];
        for (row, d) in dy.chunks_exact(cols).enumerate() {
            expected[token(row) * cols..].iter_mut().zip(d).for_each(|(e, d)| *e += f64::from(*d));
        }
        self.near("embed", &found, &expected, 0.1);
    }
}
