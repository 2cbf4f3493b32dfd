//! The vectors of WebAssembly, which a module either is compiled with or not: `i32x4.dot_i16x8` on widened codes.
#![cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#![allow(unsafe_code, reason = "vector loads")]

use std::arch::wasm32::*;

use super::super::fixed::Block;
use super::super::tiles::{INPUTS, OUTPUTS, Tile};
use super::{Isa, words};

/// A module compiled with `simd128`.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Simd128(());

impl Isa for Simd128 {
    type Digit = i16;
    const ROWS: usize = 1;

    fn new() -> Option<Self> {
        Some(Self(()))
    }

    fn dots(self, tiles: &[Tile], x: &Block<'_, i16>, sums: &mut [[f32; OUTPUTS]]) {
        words(tiles, x, sums, block);
    }
}

fn block(tiles: &[Tile], x: &[[[i16; INPUTS]; 2]]) -> [[i32; OUTPUTS]; 2] {
    // Two lanes for each output, two outputs in a vector.
    let mut sums = [[i32x4_splat(0); OUTPUTS / 2]; 2];
    for (tile, [low, high]) in tiles.iter().zip(x) {
        // SAFETY: four words each.
        let digits = [low, high].map(|x| unsafe { v128_load64_splat(x.as_ptr().cast()) });
        for q in 0..4 {
            // SAFETY: the tile has four parts of 16 bytes.
            let codes = unsafe { v128_load(std::ptr::from_ref(tile).cast::<v128>().add(q)) };
            let words = [u16x8_extend_low_u8x16(codes), u16x8_extend_high_u8x16(codes)];
            for (sums, digit) in sums.iter_mut().zip(digits) {
                for (sum, words) in sums[2 * q..].iter_mut().zip(words) {
                    *sum = i32x4_add(*sum, i32x4_dot_i16x8(words, digit));
                }
            }
        }
    }
    sums.map(|sums| {
        let mut found = [0; OUTPUTS];
        for (found, sum) in found.as_chunks_mut::<2>().0.iter_mut().zip(sums) {
            *found = [
                i32x4_extract_lane::<0>(sum) + i32x4_extract_lane::<1>(sum),
                i32x4_extract_lane::<2>(sum) + i32x4_extract_lane::<3>(sum),
            ];
        }
        found
    })
}
