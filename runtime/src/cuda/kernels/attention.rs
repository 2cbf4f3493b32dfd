//! Attention.

use super::{Arg, Buffer, Gpu};
use crate::{Heads, Result};

/// Threads of a block.
const THREADS: u32 = 128;

/// Sequences, their queries and their keys.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Lengths {
    pub(in super::super) sequences: usize,
    pub(in super::super) queries: usize,
    pub(in super::super) keys: usize,
}

/// The least bound on the width of heads that kernels have; none where heads are wider.
pub(in super::super) fn width(heads: Heads) -> Option<usize> {
    [32, 64, 128, 256].into_iter().find(|&w| w >= heads.dim)
}

/// Elements of queries and of keys.
fn extents(heads: Heads, at: Lengths) -> [usize; 2] {
    [at.sequences * at.queries * heads.query * heads.dim, at.sequences * at.keys * heads.kv * heads.dim]
}

impl Gpu {
    /// `lse [B, H, queries]` gets the logarithms of sums that backward starts from.
    pub(in super::super) fn attention(
        &self,
        heads: Heads,
        [q, k, v]: [&Buffer; 3],
        (y, lse): (&Buffer, Option<&Buffer>),
        at: Lengths,
    ) -> Result<()> {
        let width = width(heads).expect("the interpreter has refused wider heads");
        let [queries, keys] = extents(heads, at);
        let ins = [Arg::In(q, queries), Arg::In(k, keys), Arg::In(v, keys)];
        let lse = lse.map_or(Arg::Null, |lse| Arg::Out(lse, at.sequences * heads.query * at.queries));
        let args = [
            &[heads.query, heads.kv, heads.dim].map(Arg::Int)[..],
            &ins,
            &[Arg::Out(y, queries), lse, Arg::Int(at.queries), Arg::Int(at.keys)],
        ];
        let each = if width > 128 { 8 } else { 16 };
        let blocks = [at.queries.div_ceil(each), heads.query, at.sequences];
        self.start(&format!("attention<{}, {width}>", q.kind()), blocks, THREADS, &args.concat())
    }

    /// Gradients of queries, keys and values from the output `y` and that one's gradient.
    pub(in super::super) fn attention_backward(
        &self,
        heads: Heads,
        [q, k, v, y, lse, dy]: [&Buffer; 6],
        [dq, dk, dv]: [&Buffer; 3],
        at: Lengths,
    ) -> Result<()> {
        let width = width(heads).expect("the interpreter has refused wider heads");
        let [queries, keys] = extents(heads, at);
        let rows = at.sequences * heads.query * at.queries;
        let shift = self.empty(super::Kind::F32, rows)?;
        let sizes = [heads.query, heads.kv, heads.dim].map(Arg::Int);
        let lens = [Arg::Int(at.queries), Arg::Int(at.keys)];
        let ins = [Arg::In(q, queries), Arg::In(k, keys), Arg::In(v, keys)];
        let each = if width > 128 { 4 } else { 16 };
        let own = [
            Arg::In(y, queries),
            Arg::In(lse, rows),
            Arg::In(dy, queries),
            Arg::Out(dq, queries),
            Arg::Out(&shift, rows),
        ];
        let blocks = [at.queries.div_ceil(each), heads.query, at.sequences];
        let kernel = format!("attention_backward_queries<{}, {width}>", q.kind());
        self.start(&kernel, blocks, THREADS, &[&sizes[..], &ins, &own, &lens].concat())?;
        let own =
            [Arg::In(lse, rows), Arg::In(dy, queries), Arg::In(&shift, rows), Arg::Out(dk, keys), Arg::Out(dv, keys)];
        let blocks = [at.keys.div_ceil(each), heads.kv, at.sequences];
        let kernel = format!("attention_backward_keys<{}, {width}>", q.kind());
        self.start(&kernel, blocks, THREADS, &[&sizes[..], &ins, &own, &lens].concat())
    }
}
