//! Backward of what takes more than one kernel.

use sixpack_runtime::Heads;

use super::buffer::{Buffer, Kind};
use super::library::Arg;
use super::ops::{OnHost, THREADS, width};

impl OnHost {
    /// Gradients of queries, keys and values, after forward: `[q, k, v, dy]`, and sequences, queries and keys.
    pub(crate) fn attention_backward(
        &self,
        heads: Heads,
        [q, k, v, dy]: [&Buffer; 4],
        [sequences, q_len, k_len]: [usize; 3],
    ) -> [Buffer; 3] {
        let (width, threads) = (width(heads), 128);
        let sizes = [heads.query, heads.kv, heads.dim].map(Arg::Int);
        let lens = [q_len, k_len].map(Arg::Int);
        let rows = || Arg::Out(Buffer::empty(Kind::F32, sequences * heads.query * q_len));
        let q_out = || self.out(sequences * q_len * heads.query * heads.dim);
        let kv_out = || self.out(sequences * k_len * heads.kv * heads.dim);
        let run = |name: &str, blocks: [usize; 3], args: &[Arg<'_>]| {
            let args = [&sizes[..], args, &lens].concat();
            self.run(&format!("{name}<{}, {width}>", self.storage()), blocks, threads, &args)
        };
        let ins = [q, k, v].map(Arg::In);
        let each = if width > 128 { 8 } else { 16 };
        let blocks = [q_len.div_ceil(each), heads.query, sequences];
        let forward = run("attention", blocks, &[&ins[..], &[q_out(), rows()]].concat());
        let [y, lse] = &forward[..] else { unreachable!("two outputs") };
        let each = if width > 128 { 4 } else { 16 };
        let blocks = [q_len.div_ceil(each), heads.query, sequences];
        let args = [&ins[..], &[Arg::In(y), Arg::In(lse), Arg::In(dy), q_out(), rows()]].concat();
        let mut queries = run("attention_backward_queries", blocks, &args);
        let shift = queries.remove(1);
        let blocks = [k_len.div_ceil(each), heads.kv, sequences];
        let args = [&ins[..], &[Arg::In(lse), Arg::In(dy), Arg::In(&shift), kv_out(), kv_out()]].concat();
        let mut keys = run("attention_backward_keys", blocks, &args);
        let values = keys.remove(1);
        [queries.remove(0), keys.remove(0), values]
    }

    /// Gradients of the products of tiles `first .. end` of the vocabulary, after forward of all of them.
    pub(crate) fn loss_backward(
        &self,
        tiles: &[(usize, usize, Buffer)],
        cap: f32,
        targets: &Buffer,
        dnll: &Buffer,
    ) -> Vec<Buffer> {
        let rows = dnll.values().len();
        let mut state = Buffer::empty(Kind::F32, 3 * rows);
        for (first, end, products) in tiles {
            let sizes = [rows, end - first, *first].map(Arg::Int);
            let args = [Arg::In(products), Arg::Float(cap), Arg::In(targets), Arg::Out(state)];
            state = self.over("cross_entropy_tile", rows, &[&args[..], &sizes].concat()).remove(0);
        }
        let backward = |(first, end, products): &(usize, usize, Buffer)| {
            let ins = [Arg::In(products), Arg::Float(cap), Arg::In(targets), Arg::In(&state), Arg::In(dnll)];
            let rest = [self.out(rows * (end - first)), Arg::Int(rows), Arg::Int(end - first), Arg::Int(*first)];
            let kernel = format!("cross_entropy_tile_backward<{}>", self.storage());
            self.run(&kernel, [2, 1, 1], THREADS, &[&ins[..], &rest].concat()).remove(0)
        };
        tiles.iter().map(backward).collect()
    }
}
