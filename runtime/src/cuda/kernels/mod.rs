//! How each kernel is started: one function for each, in files named after the sources. They take what the kernels take,
//! check that memory has as many elements as the kernel goes through, and choose the grid.

mod attention;
mod backward;
mod heads;
mod linear;
mod loss;
mod optim;
mod project_heads;
mod rows;

use super::gpu::{Arg, Gpu};
use super::memory::{Buffer, Kind};
use crate::Result;

pub use self::attention::Lengths;
pub(super) use self::attention::width;
pub(super) use self::heads::Turn;
pub(super) use self::loss::Tile;
pub use self::optim::{Direction, Elsewhere, Group, Moments, Product, Stack};
pub(super) use self::project_heads::{Projected, Projections};

/// Threads of most blocks.
const THREADS: u32 = 256;

/// Rows of blocks that share the rows of an activation, where each channel has a sum over them.
const PARTS: usize = 96;

/// Rows and channels.
pub(super) type Extent = [usize; 2];

impl Gpu {
    /// Blocks for so many pieces of work, of which each takes some at once: enough to fill the GPU, and not more.
    fn blocks(&self, work: usize, at_once: usize) -> [usize; 3] {
        [work.div_ceil(at_once).min(16 * self.facts().multiprocessors), 1, 1]
    }

    /// A kernel with a warp for each row.
    fn by_rows(&self, name: &str, kind: Kind, rows: usize, args: &[Arg<'_>]) -> Result<()> {
        self.start(&format!("{name}<{kind}>"), self.blocks(rows, 8), THREADS, args)
    }

    /// A kernel with a warp for each row, which takes channels in packs.
    fn packed_rows(&self, name: &str, kind: Kind, [rows, cols]: Extent, args: &[Arg<'_>]) -> Result<()> {
        let n = pack(kind, cols, args);
        self.start(&format!("{name}<{kind}, {n}>"), self.blocks(rows, 8), THREADS, args)
    }

    /// A kernel with a lane for each pack of channels, and a warp for each of the rows that a block takes.
    fn packed_channels(&self, name: &str, kind: Kind, [rows, cols]: Extent, args: &[Arg<'_>]) -> Result<()> {
        let n = pack(kind, cols, args);
        let across = cols.div_ceil(32 * n);
        let down = (16 * self.facts().multiprocessors).div_ceil(across.max(1)).min(rows.div_ceil(8));
        self.start(&format!("{name}<{kind}, {n}>"), [across, down, 1], THREADS, args)
    }

    /// A kernel with a thread for each element.
    fn by_elements(&self, name: &str, kind: Kind, elements: usize, args: &[Arg<'_>]) -> Result<()> {
        self.start(&format!("{name}<{kind}>"), self.blocks(elements, 256), THREADS, args)
    }

    /// Rows of blocks for sums over so many rows.
    fn parts(&self, rows: usize) -> usize {
        rows.min(PARTS).min(4 * self.facts().multiprocessors).max(1)
    }

    /// `y += Σ parts` for `parts [count, C]`.
    pub(super) fn add_parts(&self, parts: &Buffer, y: &Buffer, [count, cols]: Extent) -> Result<()> {
        if count > PARTS {
            return self.add_columns(parts, y, [count, cols]);
        }
        let args = [Arg::In(parts, count * cols), Arg::Out(y, cols), Arg::Int(count), Arg::Int(cols)];
        self.start("add_parts", self.blocks(cols, 256), THREADS, &args)
    }

    /// The same for many parts of few columns.
    fn add_columns(&self, parts: &Buffer, y: &Buffer, [count, cols]: Extent) -> Result<()> {
        let args = [Arg::In(parts, count * cols), Arg::Out(y, cols), Arg::Int(count), Arg::Int(cols)];
        self.start("add_columns", [cols, 1, 1], THREADS, &args)
    }

    /// `y += x`.
    pub(super) fn add_to(&self, x: &Buffer, y: &Buffer) -> Result<()> {
        let n = y.len();
        self.by_elements("add_to", y.kind(), n, &[Arg::In(x, n), Arg::Out(y, n), Arg::Int(n)])
    }
}

/// Numbers that a kernel takes at once: as many as 16 bytes have, where rows are multiples of them and memory begins at
/// multiples of 16 bytes; otherwise one. What has fewer numbers is read one by one.
fn pack(kind: Kind, cols: usize, args: &[Arg<'_>]) -> usize {
    let most = 16 / kind.bytes();
    let fits = |arg: &Arg<'_>| match arg {
        Arg::In(buffer, len) | Arg::Out(buffer, len) => *len < most || buffer.address().is_multiple_of(16),
        Arg::Null | Arg::Int(_) | Arg::Float(_) => true,
    };
    if cols.is_multiple_of(most) && args.iter().all(fits) { most } else { 1 }
}

/// Memory or none.
fn maybe(buffer: Option<&Buffer>, len: usize) -> Arg<'_> {
    buffer.map_or(Arg::Null, |buffer| Arg::In(buffer, len))
}
