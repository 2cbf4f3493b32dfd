//! AVX2: every x86-64 of the last decade. Codes are widened to words, and `vpmaddwd` multiplies sixteen of them with the
//! two digits of inputs; a lane of f32 takes three instructions for half as many codes.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code, reason = "instructions that not every machine has, and vector loads")]

use std::arch::x86_64::*;

use super::super::fixed::Block;
use super::super::tiles::{INPUTS, OUTPUTS, Tile};
use super::{Isa, words};

/// A machine with AVX2.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Avx2(());

impl Isa for Avx2 {
    type Digit = i16;
    const ROWS: usize = 1;

    fn new() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    fn dots(self, tiles: &[Tile], x: &Block<'_, i16>, sums: &mut [[f32; OUTPUTS]]) {
        // SAFETY: `new` found the instructions.
        words(tiles, x, sums, |tiles, x| unsafe { block(tiles, x) });
    }
}

#[target_feature(enable = "avx2")]
fn block(tiles: &[Tile], x: &[[[i16; INPUTS]; 2]]) -> [[i32; OUTPUTS]; 2] {
    // Two lanes for each output, four outputs in a vector.
    let mut sums = [[_mm256_setzero_si256(); 4]; 2];
    for (tile, [low, high]) in tiles.iter().zip(x) {
        let digits = [low, high].map(|x| _mm256_set1_epi64x(i64::from_ne_bytes(bytes(*x))));
        for q in 0..4 {
            // SAFETY: a tile is 64 bytes, aligned.
            let codes = unsafe { _mm_load_si128(std::ptr::from_ref(tile).cast::<__m128i>().add(q)) };
            let codes = _mm256_cvtepu8_epi16(codes);
            for (sums, digit) in sums.iter_mut().zip(digits) {
                sums[q] = _mm256_add_epi32(sums[q], _mm256_madd_epi16(codes, digit));
            }
        }
    }
    sums.map(|sums| {
        let mut found = [0; OUTPUTS];
        for (found, half) in found.as_chunks_mut::<8>().0.iter_mut().zip(sums.as_chunks::<2>().0) {
            // Adds neighbours within halves of a vector, so the middle pairs of outputs must change places.
            let pairs = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(half[0], half[1]));
            // SAFETY: `found` is eight values of 32 bits.
            unsafe { _mm256_storeu_si256(found.as_mut_ptr().cast(), pairs) };
        }
        found
    })
}

fn bytes(x: [i16; INPUTS]) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.as_chunks_mut::<2>().0.iter_mut().zip(x).for_each(|(b, x)| *b = x.to_ne_bytes());
    bytes
}
