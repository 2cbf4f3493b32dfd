//! The loss, over tiles of the vocabulary.

use super::{Arg, Buffer, Gpu, THREADS};
use crate::Result;

/// Products of a tile, what they are bounded by (0 for nothing), and what is wanted.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Tile<'a> {
    /// `[rows, cols]`.
    pub(in super::super) products: &'a Buffer,
    pub(in super::super) cap: f32,
    /// `[rows]`.
    pub(in super::super) targets: &'a Buffer,
    pub(in super::super) rows: usize,
    pub(in super::super) cols: usize,
    /// The first token of the tile.
    pub(in super::super) first: usize,
}

impl Tile<'_> {
    fn sizes(&self) -> [Arg<'static>; 3] {
        [self.rows, self.cols, self.first].map(Arg::Int)
    }

    fn ins(&self) -> [Arg<'_>; 3] {
        let products = Arg::In(self.products, self.rows * self.cols);
        [products, Arg::Float(self.cap), Arg::In(self.targets, self.rows)]
    }
}

impl Gpu {
    /// Goes on with `state [rows, 3]`.
    pub(in super::super) fn cross_entropy_tile(&self, tile: Tile<'_>, state: &Buffer) -> Result<()> {
        let args = [&tile.ins()[..], &[Arg::Out(state, 3 * tile.rows)], &tile.sizes()].concat();
        self.packed_rows("cross_entropy_tile", tile.products.kind(), [tile.rows, tile.cols], &args)
    }

    /// Nats of each row after all tiles.
    pub(in super::super) fn cross_entropy_end(&self, state: &Buffer, nll: &Buffer, rows: usize) -> Result<()> {
        let args = [Arg::In(state, 3 * rows), Arg::Out(nll, rows), Arg::Int(rows)];
        self.start("cross_entropy_end", self.blocks(rows, 256), THREADS, &args)
    }

    /// The gradient of a tile's products.
    pub(in super::super) fn cross_entropy_tile_backward(
        &self,
        tile: Tile<'_>,
        state: &Buffer,
        dnll: &Buffer,
        dproducts: &Buffer,
    ) -> Result<()> {
        let own = [Arg::In(state, 3 * tile.rows), Arg::In(dnll, tile.rows), Arg::Out(dproducts, tile.rows * tile.cols)];
        let args = [&tile.ins()[..], &own, &tile.sizes()].concat();
        self.packed_rows("cross_entropy_tile_backward", tile.products.kind(), [tile.rows, tile.cols], &args)
    }
}
