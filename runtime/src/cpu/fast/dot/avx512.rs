//! AVX-512 with VNNI: Intel servers since 2019, AMD since Zen 4. `vpdpbusd` multiplies 64 codes with a byte of each input
//! and adds them to 16 sums, so codes are not even widened; three bytes of an input are still a third cheaper than f32.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code, reason = "instructions that not every machine has, and vector loads")]

use std::arch::x86_64::*;

use super::super::fixed::{Block, DIGITS};
use super::super::tiles::{OFFSET, OUTPUTS, Tile};
use super::Isa;

/// A machine with AVX-512 VNNI.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Avx512(());

impl Isa for Avx512 {
    type Digit = i8;
    /// With three sums each, 24 of the 32 registers.
    const ROWS: usize = super::ROWS;

    fn new() -> Option<Self> {
        // VL, or half vectors would keep the compiler to the first sixteen registers.
        let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        (vectors && is_x86_feature_detected!("avx512vnni")).then_some(Self(()))
    }

    fn dots(self, tiles: &[Tile], x: &Block<'_, i8>, sums: &mut [[f32; OUTPUTS]]) {
        // SAFETY: `new` found the instructions.
        unsafe {
            match x.sums.len() {
                // Each sum waits for its own last addition: few inputs have several of each.
                1 => block::<1, 4>(tiles, x, sums),
                2 => block::<2, 2>(tiles, x, sums),
                4 => block::<4, 1>(tiles, x, sums),
                8 => block::<8, 1>(tiles, x, sums),
                rows => panic!("{rows} rows at once"),
            }
        }
    }
}

/// Tiles from one that is multiplied to the one that is asked for: 4 KiB, so that the next page is not waited for.
const AHEAD: usize = 64;

/// `R` inputs, `U` tiles at a time, each with sums of its own.
///
/// Counted loops over arrays and nothing between them: this is what the compiler keeps in registers.
#[allow(clippy::needless_range_loop, reason = "iterators over these arrays are not unrolled into registers")]
#[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
fn block<const R: usize, const U: usize>(tiles: &[Tile], x: &Block<'_, i8>, found: &mut [[f32; OUTPUTS]]) {
    let step = R * DIGITS;
    assert!(x.digits.len() == tiles.len() * step && found.len() == R, "digits of {R} inputs");
    let mut sums = [[[_mm512_setzero_si512(); DIGITS]; R]; U];
    for r in 0..R {
        for d in 0..DIGITS {
            sums[0][r][d] = _mm512_set1_epi32(-OFFSET * x.sums[r][d]);
        }
    }
    let (mut tile, mut digits) = (tiles.as_ptr(), x.digits.as_ptr());
    for _ in 0..tiles.len() / U {
        for u in 0..U {
            // SAFETY: these are `U` of the tiles; one is 64 bytes, aligned.
            let codes = unsafe { _mm512_load_si512(tile.add(u).cast()) };
            if R < 8 {
                _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(u + AHEAD).cast());
            }
            for r in 0..R {
                for d in 0..DIGITS {
                    // SAFETY: there are `step` digits for each tile.
                    let digit = unsafe { digits.add((u * R + r) * DIGITS + d).cast::<i32>().read_unaligned() };
                    sums[u][r][d] = _mm512_dpbusd_epi32(sums[u][r][d], codes, _mm512_set1_epi32(digit));
                }
            }
        }
        // SAFETY: not beyond the end of either.
        (tile, digits) = unsafe { (tile.add(U), digits.add(U * step)) };
    }
    let mut total = sums[0];
    for sums in &sums[1..] {
        for r in 0..R {
            for d in 0..DIGITS {
                total[r][d] = _mm512_add_epi32(total[r][d], sums[r][d]);
            }
        }
    }
    let done = tiles.len() / U * U;
    for (tile, digits) in tiles[done..].iter().zip(x.digits[done * step..].chunks_exact(step)) {
        // SAFETY: a tile is 64 bytes, aligned.
        let codes = unsafe { _mm512_load_si512(std::ptr::from_ref(tile).cast()) };
        for r in 0..R {
            for d in 0..DIGITS {
                let digit = _mm512_set1_epi32(i32::from_ne_bytes(digits[r * DIGITS + d].map(|x| x as u8)));
                total[r][d] = _mm512_dpbusd_epi32(total[r][d], codes, digit);
            }
        }
    }
    found.iter_mut().zip(total).for_each(|(found, total)| *found = join(total));
}

/// Sums of all digits: exact in f64, then rounded.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn join([low, middle, high]: [__m512i; DIGITS]) -> [f32; OUTPUTS] {
    let base = _mm512_set1_pd(256.0);
    let join = |low, middle, high| {
        let high = _mm512_fmadd_pd(_mm512_cvtepi32_pd(high), base, _mm512_cvtepi32_pd(middle));
        _mm512_cvtpd_ps(_mm512_fmadd_pd(high, base, _mm512_cvtepi32_pd(low)))
    };
    let [near, far] = [
        [low, middle, high].map(|x| _mm512_castsi512_si256(x)),
        [low, middle, high].map(|x| _mm512_extracti64x4_epi64::<1>(x)),
    ]
    .map(|[low, middle, high]| join(low, middle, high));
    let mut found = [0.0; OUTPUTS];
    // SAFETY: `found` is sixteen values of 32 bits, each half eight of them.
    unsafe {
        _mm256_storeu_ps(found.as_mut_ptr(), near);
        _mm256_storeu_ps(found.as_mut_ptr().add(OUTPUTS / 2), far);
    }
    found
}
