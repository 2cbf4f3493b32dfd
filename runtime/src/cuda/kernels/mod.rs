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
pub(super) use self::project_heads::{Projected, Projection, Projections};

/// Threads of most blocks.
const THREADS: u32 = 256;

/// Blocks for each multiprocessor, which runs 3 to 8 of them at once: a multiple of most of these, so that none is left over.
const FILLED: usize = 24;

/// Blocks for each multiprocessor where each has sums of its own, which are added afterwards: as many as run at once.
const ADDING: usize = 3;

/// Rows and channels.
pub(super) type Extent = [usize; 2];

impl Gpu {
    /// Blocks for so many pieces of work, of which each takes some at once: enough to fill the GPU, and not more.
    fn blocks(&self, work: usize, at_once: usize) -> [usize; 3] {
        [work.div_ceil(at_once).min(FILLED * self.facts().multiprocessors), 1, 1]
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
        self.start(&format!("{name}<{kind}, {n}>"), self.by_channels([rows, cols], n, FILLED), THREADS, args)
    }

    /// The grid of such a kernel, with packs of `n`, and not many more than so many blocks for each multiprocessor.
    fn by_channels(&self, [rows, cols]: Extent, n: usize, blocks: usize) -> [usize; 3] {
        let across = cols.div_ceil(32 * n);
        let down = (blocks * self.facts().multiprocessors).div_ceil(across.max(1));
        [across, down.min(rows.div_ceil(8)), 1]
    }

    /// A kernel with a thread for each pack of elements. Packs are to divide `divided`, 0 where they need not.
    fn packed_elements(&self, name: &str, kind: Kind, [elements, divided]: [usize; 2], args: &[Arg<'_>]) -> Result<()> {
        let n = pack(kind, divided, args);
        self.start(&format!("{name}<{kind}, {n}>"), self.blocks(elements, 256 * n), THREADS, args)
    }

    /// `y += Σ parts` for `parts [count, C]`.
    pub(super) fn add_parts(&self, parts: &Buffer, y: &Buffer, [count, cols]: Extent) -> Result<()> {
        if cols < 32 {
            return self.add_columns(parts, y, [count, cols]);
        }
        let args = [Arg::In(parts, count * cols), Arg::Out(y, cols), Arg::Int(count), Arg::Int(cols)];
        self.start("add_parts", [cols.div_ceil(32), 1, 1], THREADS, &args)
    }

    /// The same for many parts of few columns.
    fn add_columns(&self, parts: &Buffer, y: &Buffer, [count, cols]: Extent) -> Result<()> {
        let args = [Arg::In(parts, count * cols), Arg::Out(y, cols), Arg::Int(count), Arg::Int(cols)];
        self.start("add_columns", [cols, 1, 1], THREADS, &args)
    }

    /// `y += x`.
    pub(super) fn add_to(&self, x: &Buffer, y: &Buffer) -> Result<()> {
        let n = y.len();
        self.packed_elements("add_to", y.kind(), [n, 0], &[Arg::In(x, n), Arg::Out(y, n), Arg::Int(n)])
    }
}

/// Numbers that a kernel takes at once: as many as 16 bytes have, where rows are multiples of them (0 where the kernel has
/// none) and memory begins at multiples of 16 bytes; otherwise one. What has fewer numbers, and counts, are read one by one.
fn pack(kind: Kind, cols: usize, args: &[Arg<'_>]) -> usize {
    let floats = args.iter().filter_map(|arg| match arg {
        Arg::In(buffer, len) | Arg::Out(buffer, len) if buffer.kind() != Kind::Int => Some((*len, buffer.address())),
        _ => None,
    });
    pack_of(kind, cols, floats)
}

/// The same of memory by its elements and address.
fn pack_of(kind: Kind, cols: usize, mut floats: impl Iterator<Item = (usize, u64)>) -> usize {
    let most = 16 / kind.bytes();
    let fits = cols.is_multiple_of(most) && floats.all(|(len, at)| len < most || at.is_multiple_of(16));
    if fits { most } else { 1 }
}

/// Elements from the beginning of the first of some rows to the end of the last.
fn spread(rows: usize, cols: usize, apart: usize) -> usize {
    rows.saturating_sub(1) * apart + cols.min(rows * cols)
}

/// Memory or none.
fn maybe(buffer: Option<&Buffer>, len: usize) -> Arg<'_> {
    buffer.map_or(Arg::Null, |buffer| Arg::In(buffer, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_taken_where_sizes_and_addresses_allow_it() {
        let of = |kind, cols, floats: &[(usize, u64)]| pack_of(kind, cols, floats.iter().copied());
        assert_eq!(of(Kind::Bf16, 512, &[(1024, 0x200), (512, 0x7f10)]), 8);
        assert_eq!(of(Kind::F32, 12, &[(24, 0x200)]), 4);
        assert_eq!(of(Kind::Bf16, 12, &[(24, 0x200)]), 1);
        // Elements without rows, and single values between others.
        assert_eq!(of(Kind::Bf16, 0, &[(1003, 0x200), (1, 0x204)]), 8);
        for at in [0x202, 0x208, 0x7f0c] {
            assert_eq!(of(Kind::Bf16, 512, &[(1024, 0x200), (512, at)]), 1);
        }
    }
}
