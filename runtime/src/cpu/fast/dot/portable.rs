//! Machines with none of the other instruction sets: plain loops over lanes, which a compiler can make vectors of.

use super::super::fixed::Block;
use super::super::tiles::{INPUTS, OUTPUTS, Tile};
use super::{Isa, words};

/// Any machine.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Portable;

impl Isa for Portable {
    type Digit = i16;
    const ROWS: usize = 1;

    fn new() -> Option<Self> {
        Some(Self)
    }

    fn dots(self, tiles: &[Tile], x: &Block<'_, i16>, sums: &mut [[f32; OUTPUTS]]) {
        words(tiles, x, sums, block);
    }
}

/// A lane has the products of all four inputs of a tile here, hence at most `BLOCK` tiles.
#[inline(always)]
fn block(tiles: &[Tile], x: &[[[i16; INPUTS]; 2]]) -> [[i32; OUTPUTS]; 2] {
    let mut sums = [[0; OUTPUTS]; 2];
    for (tile, [low, high]) in tiles.iter().zip(x) {
        for (digit, sums) in [low, high].into_iter().zip(&mut sums) {
            for (sum, codes) in sums.iter_mut().zip(&tile.0) {
                for (&code, &x) in codes.iter().zip(digit) {
                    *sum += i32::from(code) * i32::from(x);
                }
            }
        }
    }
    sums
}
