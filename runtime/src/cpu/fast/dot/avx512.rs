//! AVX-512 with VNNI: Intel servers since 2019, AMD since Zen 4. `vpdpbusd` multiplies 64 codes with a byte of each input
//! and adds them to 16 sums, so codes are not even widened; three bytes of an input are still a third cheaper than f32.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code, reason = "instructions that not every machine has, and vector loads")]

use std::arch::x86_64::*;

use super::super::fixed::{Block, DIGITS};
use super::super::tiles::{INPUTS, OFFSET, OUTPUTS, Tile};
use super::Isa;

/// A machine with AVX-512 VNNI.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Avx512(());

impl Isa for Avx512 {
    type Digit = i8;
    /// With three sums each, 24 of the 32 registers.
    const ROWS: usize = super::ROWS;

    fn new() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
        found.then_some(Self(()))
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

/// `R` inputs, `U` tiles at a time, each with sums of its own.
#[target_feature(enable = "avx512f,avx512vnni")]
fn block<const R: usize, const U: usize>(tiles: &[Tile], x: &Block<'_, i8>, found: &mut [[f32; OUTPUTS]]) {
    let step = R * DIGITS;
    assert_eq!(x.digits.len(), tiles.len() * step, "digits of {R} inputs");
    let mut sums = [[[_mm512_setzero_si512(); DIGITS]; R]; U];
    for (sums, x) in sums[0].iter_mut().zip(x.sums) {
        *sums = x.map(|sum| _mm512_set1_epi32(-OFFSET * sum));
    }
    let whole = tiles.len() / U * U;
    for i in (0..whole).step_by(U) {
        for (u, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `i + u` is below `tiles.len()`, and there are as many times `step` digits.
            unsafe { add::<R>(tiles.as_ptr().add(i + u), x.digits.as_ptr().add((i + u) * step), sums) };
        }
    }
    for i in whole..tiles.len() {
        // SAFETY: as above.
        unsafe { add::<R>(tiles.as_ptr().add(i), x.digits.as_ptr().add(i * step), &mut sums[0]) };
    }
    let mut total = sums[0];
    for more in &sums[1..] {
        for (total, more) in total.as_flattened_mut().iter_mut().zip(more.as_flattened()) {
            *total = _mm512_add_epi32(*total, *more);
        }
    }
    found.iter_mut().zip(total).for_each(|(found, total)| *found = join(total));
}

/// Adds the products of one tile.
///
/// # Safety
/// `digits` are `R · DIGITS`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn add<const R: usize>(tile: *const Tile, digits: *const [i8; INPUTS], sums: &mut [[__m512i; DIGITS]; R]) {
    // SAFETY: a tile is 64 bytes, aligned.
    let codes = unsafe { _mm512_load_si512(tile.cast()) };
    for (i, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
        // SAFETY: as the caller says.
        let digit = unsafe { digits.add(i).cast::<i32>().read_unaligned() };
        *sum = _mm512_dpbusd_epi32(*sum, codes, _mm512_set1_epi32(digit));
    }
}

/// Sums of all digits: exact in f64, then rounded.
#[inline]
#[target_feature(enable = "avx512f")]
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
