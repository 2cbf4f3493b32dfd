//! Kernels of optimizers, for the crate that trains. All tensors of a group lie one after the other; `clip` holds the
//! factor on gradients and their norm before it, `now` what changes from step to step.

use std::ops::Range;

use super::{Arg, Buffer, Gpu, Kind, THREADS};
use crate::Result;

/// Where each matrix of a stack begins in memory that has them in another order.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Elements before each.
    at: Buffer,
    /// Elements of each.
    each: usize,
    /// Where the last of them ends.
    end: usize,
    /// Whether 16 bytes of any kind are of one of them.
    in_packs: bool,
}

impl Elsewhere {
    /// Matrices of `each` elements that begin at `starts`.
    ///
    /// # Errors
    /// [`Error::GpuFull`](crate::Error::GpuFull) where there is no room.
    ///
    /// # Panics
    /// If a start is not of 31 bits.
    pub fn new(gpu: &Gpu, starts: &[usize], each: usize) -> Result<Self> {
        let short = |&at: &usize| i32::try_from(at).expect("matrices begin within 2^31 elements") as u32;
        let at = gpu.ints(&starts.iter().map(short).collect::<Vec<_>>())?;
        let in_packs = starts.iter().chain([&each]).all(|n| n.is_multiple_of(8));
        Ok(Self { at, each, end: starts.iter().max().map_or(0, |last| last + each), in_packs })
    }

    /// Some of the matrices.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn part(&self, which: Range<usize>) -> Self {
        Self { at: self.at.part(which), ..*self }
    }
}

/// A group of tensors, one after the other, with their gradients.
#[derive(Clone, Debug)]
pub struct Group {
    /// Weights in f32.
    pub weights: Buffer,
    /// Their gradients.
    pub gradients: Buffer,
    /// Weights as kernels read them, where that is not these.
    pub shadow: Option<Buffer>,
    /// Where the tensors begin among gradients and shadows, if not where they do among weights.
    pub elsewhere: Option<Elsewhere>,
    /// The factor on gradients, and their norm.
    pub clip: Buffer,
}

impl Group {
    /// The kind of the instance, and its argument.
    fn shadow(&self) -> (Kind, Arg<'_>) {
        let shadow = self.shadow.as_ref();
        (shadow.map_or(Kind::F32, Buffer::kind), shadow.map_or(Arg::Null, |shadow| Arg::Out(shadow, self.reach())))
    }

    /// Elements of gradients and shadows that are gone through.
    fn reach(&self) -> usize {
        self.elsewhere.as_ref().map_or(self.weights.len(), |places| places.end)
    }

    /// Where tensors begin, which are so many elements in all.
    fn places(&self, elements: usize) -> Arg<'_> {
        places(self.elsewhere.as_ref(), elements)
    }

    /// What packs are to divide, of rows of so many columns.
    fn divided(&self, cols: usize) -> usize {
        divided(self.elsewhere.as_ref(), cols)
    }
}

/// What packs are to divide, of rows of so many columns: where matrices begin at any place, nothing does.
fn divided(elsewhere: Option<&Elsewhere>, cols: usize) -> usize {
    if elsewhere.is_none_or(|places| places.in_packs) { cols } else { 1 }
}

/// Where tensors begin, which are so many elements in all.
fn places(elsewhere: Option<&Elsewhere>, elements: usize) -> Arg<'_> {
    let Some(Elsewhere { at, each, .. }) = elsewhere else { return Arg::Null };
    assert_eq!(at.len() * each, elements, "tensors of {each} elements");
    Arg::In(at, at.len())
}

/// A stack of matrices of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// How many.
    pub count: usize,
    /// Rows of each.
    pub rows: usize,
    /// Columns of each.
    pub cols: usize,
}

impl Stack {
    /// Elements of all.
    pub fn elements(&self) -> usize {
        self.count * self.rows * self.cols
    }
}

/// How Muon keeps its momentum, and what it does to rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// As an average, as NorMuon has it.
    pub averaged: bool,
    /// Whether rows have norm 1 then.
    pub equal: bool,
}

/// The constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// What the averages of gradients and of their squares keep.
    pub keep: [f32; 2],
    /// Added to the root.
    pub eps: f32,
}

/// A product of a [`Stack`] of matrices: `y = factor · A B + keep · C`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// `A` and `B`, `[count, ·, ·]`.
    pub of: [&'a Buffer; 2],
    /// Which of them lies transposed, if one does.
    pub turned: Option<usize>,
    /// The factor.
    pub factor: f32,
    /// What is added, times a factor of its own.
    pub plus: Option<(&'a Buffer, f32)>,
    /// The number of products, and `m`, `n`, `k`: `A` is `[m, k]`, `B [k, n]`.
    pub sizes: [usize; 4],
}

impl Gpu {
    /// A product of a stack of matrices.
    ///
    /// # Errors
    /// What the driver says.
    pub fn stacked(&self, product: Product<'_>, y: &Buffer) -> Result<()> {
        self.products(product, y)
    }

    /// `clip ← [factor, norm]` of all gradients: the factor brings a norm above `limit` down to it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn clip(&self, gradients: &Buffer, limit: f32, clip: &Buffer) -> Result<()> {
        let parts = self.squares(gradients, 1)?;
        let args = [Arg::In(&parts, parts.len()), Arg::Int(parts.len()), Arg::Float(limit), Arg::Out(clip, 2)];
        self.start("clip_factor", [1, 1, 1], THREADS, &args)
    }

    /// Parts of the sum of squares of each of a stack of `count`.
    fn squares(&self, x: &Buffer, count: usize) -> Result<Buffer> {
        let elements = x.len() / count;
        let n = stacked(x, count);
        let blocks = self.of_each(elements, n, count);
        let parts = self.empty(Kind::F32, count * blocks)?;
        let args = [Arg::In(x, x.len()), Arg::Out(&parts, parts.len()), Arg::Int(elements)];
        self.start(&format!("sum_of_squares<{}, {n}>", x.kind()), [blocks, 1, count], THREADS, &args)?;
        Ok(parts)
    }

    /// Blocks for each of a stack of `count`, which go through its elements by packs of `n`.
    fn of_each(&self, elements: usize, n: usize, count: usize) -> usize {
        let all = 8 * self.facts().multiprocessors;
        elements.div_ceil(THREADS as usize * n).min(all.div_ceil(count))
    }

    /// One step of AdamW; `now` is the rate over the mean's correction, one over the root of the square's, and what
    /// decay keeps.
    ///
    /// # Errors
    /// What the driver says.
    pub fn adamw(&self, group: &Group, [mean, square]: [&Buffer; 2], now: &Buffer, by: Moments) -> Result<()> {
        let n = group.weights.len();
        let (kind, shadow) = group.shadow();
        let args = [
            Arg::Out(&group.weights, n),
            Arg::In(&group.gradients, group.reach()),
            group.places(n),
            Arg::Int(group.elsewhere.as_ref().map_or(n, |places| places.each)),
            Arg::Out(mean, n),
            Arg::Out(square, n),
            shadow,
            Arg::In(now, 3),
            Arg::In(&group.clip, 2),
            Arg::Float(by.keep[0]),
            Arg::Float(by.keep[1]),
            Arg::Float(by.eps),
            Arg::Int(n),
        ];
        self.packed_elements("adamw", kind, [n, group.divided(0)], &args)
    }

    /// What Muon orthogonalises; `now` is the momentum, the rate, and what decay keeps.
    ///
    /// # Errors
    /// What the driver says.
    pub fn muon_direction(
        &self,
        group: &Group,
        momentum: &Buffer,
        now: &Buffer,
        by: Direction,
        update: &Buffer,
        stack: Stack,
    ) -> Result<()> {
        let (n, rows) = (stack.elements(), stack.count * stack.rows);
        let args = [
            Arg::In(&group.gradients, group.reach()),
            group.places(n),
            Arg::Out(momentum, n),
            Arg::In(now, 3),
            Arg::In(&group.clip, 2),
            Arg::Int(by.averaged.into()),
            Arg::Int(by.equal.into()),
            Arg::Out(update, n),
            Arg::Int(stack.count),
            Arg::Int(stack.rows),
            Arg::Int(stack.cols),
        ];
        self.packed_rows("muon_direction", update.kind(), [rows, group.divided(stack.cols)], &args)
    }

    /// Divides each of a stack by `scale` times its norm, plus `epsilon`.
    ///
    /// # Errors
    /// What the driver says.
    pub fn muon_normalize(&self, x: &Buffer, [scale, epsilon]: [f32; 2], stack: Stack) -> Result<()> {
        let elements = stack.rows * stack.cols;
        let parts = self.squares(x, stack.count)?;
        let args = [
            Arg::Out(x, stack.elements()),
            Arg::In(&parts, parts.len()),
            Arg::Int(parts.len() / stack.count),
            Arg::Float(scale),
            Arg::Float(epsilon),
            Arg::Int(elements),
        ];
        let n = stacked(x, stack.count);
        let blocks = [self.of_each(elements, n, stack.count), 1, stack.count];
        self.start(&format!("muon_normalize<{}, {n}>", x.kind()), blocks, THREADS, &args)
    }

    /// NorMuon's factors on rows of an orthogonalised update, or on columns where it is wide; its moments go on.
    ///
    /// # Errors
    /// What the driver says.
    pub fn normuon_factors(&self, update: &Buffer, moments: &Buffer, beta: f32, stack: Stack) -> Result<Buffer> {
        let Stack { count, rows, cols } = stack;
        let (kind, n) = (update.kind(), stack.elements());
        let (side, across) = (rows.max(cols), rows.min(cols));
        let sums = self.empty(Kind::F32, count * side)?;
        let io = [Arg::In(update, n), Arg::Out(&sums, count * side)];
        if rows >= cols {
            let args = [io, [Arg::Int(count * rows), Arg::Int(cols)]].concat();
            self.packed_rows("normuon_rows", kind, [count * rows, cols], &args)?;
        } else {
            let args = [io, [Arg::Int(rows), Arg::Int(cols)]].concat();
            let n = super::pack(kind, cols, &args);
            let blocks = [cols.div_ceil(32 * n), 1, count];
            self.start(&format!("normuon_columns<{kind}, {n}>"), blocks, THREADS, &args)?;
        }
        let args = [
            Arg::Out(&sums, count * side),
            Arg::Out(moments, count * side),
            Arg::Float(beta),
            Arg::Float(across as f32),
            Arg::Int(side),
        ];
        self.start("normuon_factors", [count, 1, 1], THREADS, &args)?;
        Ok(sums)
    }

    /// Moves weights against an orthogonalised update, times `factors` if there are some; `height` is the factor of the
    /// matrices' shape.
    ///
    /// # Errors
    /// What the driver says.
    pub fn muon_apply(
        &self,
        group: &Group,
        (update, factors): (&Buffer, Option<&Buffer>),
        now: &Buffer,
        (height, cautious): (f32, bool),
        stack: Stack,
    ) -> Result<()> {
        let Stack { count, rows, cols } = stack;
        let n = stack.elements();
        let (kind, shadow) = group.shadow();
        assert_eq!(kind, update.kind(), "an update is kept as the weights' shadow is");
        let args = [
            Arg::Out(&group.weights, n),
            Arg::In(update, n),
            super::maybe(factors, count * rows.max(cols)),
            Arg::Int((rows >= cols).into()),
            shadow,
            group.places(n),
            Arg::In(now, 3),
            Arg::Float(height),
            Arg::Int(cautious.into()),
            Arg::Int(count),
            Arg::Int(rows),
            Arg::Int(cols),
        ];
        self.packed_rows("muon_apply", kind, [count * rows, group.divided(cols)], &args)
    }

    /// `average ← keep · average + (1 − keep) · w`.
    ///
    /// # Errors
    /// What the driver says.
    pub fn ema(&self, average: &Buffer, w: &Buffer, keep: f32) -> Result<()> {
        let n = w.len();
        let args = [Arg::Out(average, n), Arg::In(w, n), Arg::Float(keep), Arg::Int(n)];
        let pack = super::pack(Kind::F32, 0, &args);
        self.start(&format!("ema<{pack}>"), self.blocks(n, 256 * pack), THREADS, &args)
    }

    /// Weights as kernels read them, where those have them.
    ///
    /// # Errors
    /// What the driver says.
    pub fn convert(&self, w: &Buffer, elsewhere: Option<&Elsewhere>, shadow: &Buffer) -> Result<()> {
        let n = w.len();
        let (each, end) = elsewhere.map_or((n, n), |places| (places.each, places.end));
        let args = [Arg::In(w, n), places(elsewhere, n), Arg::Int(each), Arg::Out(shadow, end), Arg::Int(n)];
        self.packed_elements("convert", shadow.kind(), [n, divided(elsewhere, 0)], &args)
    }

    /// Adds the sum of all elements to a single one.
    ///
    /// # Errors
    /// What the driver says.
    pub fn add_up(&self, x: &Buffer, y: &Buffer) -> Result<()> {
        self.add_columns(x, y, [x.len(), 1])
    }
}

/// The pack of a kernel over elements of each of a stack, which all begin as the first does or it takes one by one.
fn stacked(x: &Buffer, count: usize) -> usize {
    let elements = if count > 1 { x.len() / count } else { 0 };
    super::pack(x.kind(), elements, &[Arg::In(x, x.len())])
}
