//! NEON: every 64-bit Arm. Codes are widened to words, and `smlal` adds the products of four of them to four sums.
#![cfg(target_arch = "aarch64")]
#![allow(unsafe_code, reason = "vector loads")]

use std::arch::aarch64::*;

use super::super::fixed::Block;
use super::super::tiles::{INPUTS, OUTPUTS, Tile};
use super::{Isa, words};

/// A machine with NEON.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Neon(());

impl Isa for Neon {
    type Digit = i16;
    const ROWS: usize = 1;

    fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    fn dots(self, tiles: &[Tile], x: &Block<'_, i16>, sums: &mut [[f32; OUTPUTS]]) {
        // SAFETY: `new` found the instructions.
        words(tiles, x, sums, |tiles, x| unsafe { block(tiles, x) });
    }
}

#[target_feature(enable = "neon")]
fn block(tiles: &[Tile], x: &[[[i16; INPUTS]; 2]]) -> [[i32; OUTPUTS]; 2] {
    let mut found = [[0; OUTPUTS]; 2];
    // An output has a vector of sums for each digit, so half of the outputs have half of the registers: the second half
    // reads its tiles from the nearest cache.
    for half in 0..2 {
        let mut sums = [[vdupq_n_s32(0); OUTPUTS / 2]; 2];
        for (tile, [low, high]) in tiles.iter().zip(x) {
            // SAFETY: four words each.
            let digits = [low, high].map(|x| unsafe { vld1_s16(x.as_ptr()) });
            for q in 0..2 {
                // SAFETY: the tile has four parts of 16 bytes.
                let codes = unsafe { vld1q_u8(std::ptr::from_ref(tile).cast::<u8>().add(32 * half + 16 * q)) };
                let near = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(codes)));
                let far = vreinterpretq_s16_u16(vmovl_high_u8(codes));
                for (sums, digit) in sums.iter_mut().zip(digits) {
                    sums[4 * q] = vmlal_s16(sums[4 * q], vget_low_s16(near), digit);
                    sums[4 * q + 1] = vmlal_s16(sums[4 * q + 1], vget_high_s16(near), digit);
                    sums[4 * q + 2] = vmlal_s16(sums[4 * q + 2], vget_low_s16(far), digit);
                    sums[4 * q + 3] = vmlal_s16(sums[4 * q + 3], vget_high_s16(far), digit);
                }
            }
        }
        for (found, sums) in found.iter_mut().zip(sums) {
            let found = &mut found[half * OUTPUTS / 2..][..OUTPUTS / 2];
            found.iter_mut().zip(sums).for_each(|(found, sum)| *found = vaddvq_s32(sum));
        }
    }
    found
}
