//! Attention: on tensor cores where they take what there is, with the plain kernels else.

use super::{Arg, Buffer, Gpu, Kind};
use crate::{Heads, Result};

/// Threads of a block.
const THREADS: u32 = 128;

/// Sequences, their queries and their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Sequences.
    pub sequences: usize,
    /// Queries of each: its last positions.
    pub queries: usize,
    /// Keys and values of each.
    pub keys: usize,
    /// Elements from one row of values to the next, where they do not follow each other; gradients do.
    pub apart: Option<usize>,
}

/// The least bound on the width of heads that kernels have; none where heads are wider.
pub(in super::super) fn width(heads: Heads) -> Option<usize> {
    [32, 64, 128, 256].into_iter().find(|&w| w >= heads.dim)
}

/// The least bound that kernels on tensor cores have; none where those do not take what there is. They copy 16 bytes at once.
fn tensor_width(heads: Heads, buffers: &[&Buffer]) -> Option<usize> {
    let taken = |buffer: &&Buffer| buffer.kind() == Kind::Bf16 && buffer.address().is_multiple_of(16);
    let taken = heads.dim.is_multiple_of(8) && buffers.iter().all(taken);
    [64, 128].into_iter().find(|&w| taken && w >= heads.dim)
}

/// Rows of a block on tensor cores.
fn tensor_rows(width: usize) -> usize {
    if width > 64 { 64 } else { 128 }
}

/// Elements of queries, of keys and of values, and from one row of those to the next.
fn extents(heads: Heads, at: Lengths) -> [usize; 4] {
    let (rows, cols) = (at.sequences * at.keys, heads.kv * heads.dim);
    let apart = at.apart.unwrap_or(cols);
    [at.sequences * at.queries * heads.query * heads.dim, rows * cols, super::spread(rows, cols, apart), apart]
}

impl Gpu {
    /// `lse [B, H, queries]` gets the logarithms of sums that backward starts from. `starts [B, queries]` holds the first
    /// position of each query's document, which does not fall along a sequence: keys before it are not seen.
    ///
    /// # Errors
    /// What NVRTC or the driver say.
    ///
    /// # Panics
    /// If heads are wider than 256 channels, or buffers too short.
    pub fn attention(
        &self,
        heads: Heads,
        [q, k, v]: [&Buffer; 3],
        starts: Option<&Buffer>,
        (y, lse): (&Buffer, Option<&Buffer>),
        at: Lengths,
    ) -> Result<()> {
        let [queries, keys, values, apart] = extents(heads, at);
        let ins = [Arg::In(q, queries), Arg::In(k, keys), Arg::In(v, values)];
        let lse = lse.map_or(Arg::Null, |lse| Arg::Out(lse, at.sequences * heads.query * at.queries));
        let args = [
            &[heads.query, heads.kv, heads.dim].map(Arg::Int)[..],
            &ins,
            &[super::maybe(starts, at.sequences * at.queries)],
            &[Arg::Out(y, queries), lse, Arg::Int(at.queries), Arg::Int(at.keys), Arg::Int(apart)],
        ];
        let (kernel, rows) = match tensor_width(heads, &[q, k, v, y]) {
            Some(width) => (format!("attention_mma<{width}>"), tensor_rows(width)),
            None => {
                let width = width(heads).expect("the interpreter has refused wider heads");
                (format!("attention<{}, {width}>", q.kind()), if width > 128 { 8 } else { 16 })
            }
        };
        let blocks = [at.queries.div_ceil(rows), heads.query, at.sequences];
        self.start(&kernel, blocks, THREADS, &args.concat())
    }

    /// Gradients of queries, keys and values from the output `y` and that one's gradient.
    ///
    /// # Errors
    /// What NVRTC or the driver say.
    ///
    /// # Panics
    /// As [`Gpu::attention`].
    pub fn attention_backward(
        &self,
        heads: Heads,
        [q, k, v, y, lse, dy]: [&Buffer; 6],
        starts: Option<&Buffer>,
        [dq, dk, dv]: [&Buffer; 3],
        at: Lengths,
    ) -> Result<()> {
        let [queries, keys, values, apart] = extents(heads, at);
        let rows = at.sequences * heads.query * at.queries;
        let shift = self.empty(Kind::F32, rows)?;
        let (name, kind, each) = match tensor_width(heads, &[q, k, v, y, dy, dq, dk, dv]) {
            Some(width) => ("attention_mma_backward", width.to_string(), tensor_rows(width)),
            None => {
                let width = width(heads).expect("the interpreter has refused wider heads");
                ("attention_backward", format!("{}, {width}", q.kind()), if width > 128 { 4 } else { 16 })
            }
        };
        let first = [
            &[heads.query, heads.kv, heads.dim].map(Arg::Int)[..],
            &[Arg::In(q, queries), Arg::In(k, keys), Arg::In(v, values)],
            &[super::maybe(starts, at.sequences * at.queries)],
        ]
        .concat();
        let last = [at.queries, at.keys, apart].map(Arg::Int);
        let own = [
            Arg::In(y, queries),
            Arg::In(lse, rows),
            Arg::In(dy, queries),
            Arg::Out(dq, queries),
            Arg::Out(&shift, rows),
        ];
        let blocks = [at.queries.div_ceil(each), heads.query, at.sequences];
        self.start(&format!("{name}_queries<{kind}>"), blocks, THREADS, &[&first[..], &own, &last].concat())?;
        let own =
            [Arg::In(lse, rows), Arg::In(dy, queries), Arg::In(&shift, rows), Arg::Out(dk, keys), Arg::Out(dv, keys)];
        let blocks = [at.keys.div_ceil(each), heads.kv, at.sequences];
        self.start(&format!("{name}_keys<{kind}>"), blocks, THREADS, &[&first[..], &own, &last].concat())
    }
}
