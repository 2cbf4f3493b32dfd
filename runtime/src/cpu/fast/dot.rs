//! Products of 16 outputs with fixed-point inputs, straight from their codes: one thin file for each instruction set.
//!
//! Each has a constructor that checks for its instructions, which is the only way to its unsafe code. All give the same
//! bits: sums of integers are exact, and the one rounding is that of the result to f32.

mod avx2;
mod avx512;
mod neon;
mod portable;
mod simd128;

use super::fixed::{Block, Digit, Fixed};
use super::pool::Pool;
use super::tiles::{INPUTS, OFFSET, OUTPUTS, Tile};
use crate::cpu::Mat;

/// Inputs a product may have: with more, sums of bytes would leave 32 bits.
pub(super) const MAX_INPUTS: usize = 1 << 15;

/// Tiles whose products with digits of 12 bits fit 32: 4 · 1024 · 255 · 2048 < 2³¹.
pub(super) const BLOCK: usize = 1024;

/// Inputs that any instruction set multiplies at once, at most.
pub(super) const ROWS: usize = 8;

/// Inputs for which any instruction set is faster on codes than an f32 product with unpacked weights.
const FEW: usize = 4;

/// An instruction set.
pub(super) trait Isa: Copy + std::fmt::Debug + Send + Sync {
    /// What it wants inputs cut into.
    type Digit: Digit;

    /// Inputs it multiplies at once, at most; a power of two. If these are more than one, many rows are faster this way
    /// too, and not as an f32 product with unpacked weights.
    const ROWS: usize;

    /// The instruction set, if this machine has it.
    fn new() -> Option<Self>;

    /// The rows of `x` as it wants them, each value times its factor of `columns` if there are any.
    fn inputs(self, pool: &Pool, x: &Mat, columns: &[f32]) -> Fixed<Self::Digit> {
        Fixed::new(pool, Self::ROWS, x, columns)
    }

    /// `Σ code · input` in units of the input's step, for each input of `x` and the 16 outputs of `tiles`.
    fn dots(self, tiles: &[Tile], x: &Block<'_, Self::Digit>, sums: &mut [[f32; OUTPUTS]]);
}

/// The best instruction set of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128(simd128::Simd128),
    Portable(portable::Portable),
}

/// Runs an expression that is generic over [`Isa`] with a kernel's own.
macro_rules! with_isa {
    ($kernel:expr, |$isa:ident| $run:expr) => {
        match $kernel {
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::fast::dot::Kernel::Avx512($isa) => $run,
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::fast::dot::Kernel::Avx2($isa) => $run,
            #[cfg(target_arch = "aarch64")]
            $crate::cpu::fast::dot::Kernel::Neon($isa) => $run,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            $crate::cpu::fast::dot::Kernel::Simd128($isa) => $run,
            $crate::cpu::fast::dot::Kernel::Portable($isa) => $run,
        }
    };
}
pub(super) use with_isa;

impl Kernel {
    /// The first that this machine has, best first.
    pub(super) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(isa) = avx512::Avx512::new() {
                return Self::Avx512(isa);
            }
            if let Some(isa) = avx2::Avx2::new() {
                return Self::Avx2(isa);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(isa) = neon::Neon::new() {
            return Self::Neon(isa);
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        if let Some(isa) = simd128::Simd128::new() {
            return Self::Simd128(isa);
        }
        Self::Portable(portable::Portable)
    }

    /// Whether a product with codes is best done by it when there are `rows` inputs.
    pub(super) fn takes(self, rows: usize) -> bool {
        fn many<I: Isa>(_: I) -> bool {
            I::ROWS > 1
        }
        rows <= FEW || with_isa!(self, |isa| many(isa))
    }
}

/// [`Isa::dots`] of an instruction set that multiplies words, one input at a time: `block` sums the products of each of
/// the two digits over at most [`BLOCK`] tiles, the offset in them.
#[inline(always)]
fn words(
    tiles: &[Tile],
    x: &Block<'_, i16>,
    sums: &mut [[f32; OUTPUTS]],
    block: impl Fn(&[Tile], &[[[i16; INPUTS]; 2]]) -> [[i32; OUTPUTS]; 2],
) {
    let (&[[low, high, _]], [sums]) = (x.sums, sums) else { panic!("{} rows at once", x.sums.len()) };
    let whole = |low: i32, high: i32| i64::from(low) + (i64::from(high) << <i16 as Digit>::BITS);
    let mut totals = [-i64::from(OFFSET) * whole(low, high); OUTPUTS];
    for (tiles, x) in tiles.chunks(BLOCK).zip(x.digits.as_chunks::<2>().0.chunks(BLOCK)) {
        let [low, high] = block(tiles, x);
        totals.iter_mut().zip(low).zip(high).for_each(|((total, low), high)| *total += whole(low, high));
    }
    *sums = totals.map(|total| total as f32);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tiles::Tiles;
    use super::*;

    /// What the sums of row `r` are: digits put together again, codes as they came.
    fn naive<D: Digit + Into<i32>>(codes: &[i8], x: &Block<'_, D>, r: usize) -> f32 {
        let sum = |i: usize, &code: &i8| -> i64 {
            let digits = &x.digits[(i / INPUTS * x.steps.len() + r) * D::COUNT..][..D::COUNT];
            let parts = digits.iter().enumerate();
            let input = parts.map(|(d, digit)| i64::from(digit[i % INPUTS].into()) << (D::BITS * d as u32));
            i64::from(code) * input.sum::<i64>()
        };
        codes.iter().enumerate().map(|(i, code)| sum(i, code)).sum::<i64>() as f32
    }

    fn agrees<I: Isa<Digit: Into<i32>>>(isa: I, rows: usize, cols: usize, codes: &[i8], values: &[f32]) {
        let tiles = Tiles::new(OUTPUTS, cols, &codes[..OUTPUTS * cols]);
        let x = Mat { sequences: 1, len: rows, cols, start: 0, data: values[..rows * cols].to_vec() };
        let x = isa.inputs(&Pool::new(1).unwrap(), &x, &[]);
        for row in (0..rows).step_by(I::ROWS) {
            let x = x.block(row);
            let mut found = vec![[0.0; OUTPUTS]; x.steps.len()];
            isa.dots(tiles.group(0), &x, &mut found);
            for (r, found) in found.iter().enumerate() {
                let codes = codes.chunks_exact(cols).take(OUTPUTS);
                let expected: Vec<f32> = codes.map(|codes| naive(codes, &x, r)).collect();
                assert_eq!(found[..], expected, "{isa:?}, {rows} rows of {cols}");
            }
        }
    }

    /// Calls a function generic over [`Isa`] with each instruction set of this machine.
    macro_rules! each_isa {
        (|$isa:ident| $run:expr) => {{
            #[cfg(target_arch = "x86_64")]
            if let Some($isa) = avx512::Avx512::new() {
                $run;
            }
            #[cfg(target_arch = "x86_64")]
            if let Some($isa) = avx2::Avx2::new() {
                $run;
            }
            #[cfg(target_arch = "aarch64")]
            if let Some($isa) = neon::Neon::new() {
                $run;
            }
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            if let Some($isa) = simd128::Simd128::new() {
                $run;
            }
            let $isa = portable::Portable;
            $run;
        }};
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn instruction_sets_of_this_machine_are_exact_on_odd_sizes(
            cols in 1usize..150,
            codes in prop::collection::vec(any::<i8>(), OUTPUTS * 150),
            values in prop::collection::vec(-1e3f32..1e3, 8 * 150),
        ) {
            each_isa!(|isa| {
                [1, 2, 3, 8].into_iter().for_each(|rows| agrees(isa, rows, cols, &codes, &values));
            });
        }
    }

    #[test]
    fn instruction_sets_of_this_machine_are_exact_where_sums_are_largest() {
        for cols in [8191, 8192, MAX_INPUTS] {
            for (code, value) in [(127, 1.0), (127, -1.0), (-128, 1.0), (-128, -1.0)] {
                // Digits of -128 and of 2047 are the largest.
                for value in [value, value * 0.498_046_9] {
                    let mut values = vec![value; cols];
                    values[0] = 1.0;
                    let codes = vec![code; OUTPUTS * cols];
                    each_isa!(|isa| agrees(isa, 1, cols, &codes, &values));
                }
            }
        }
    }
}
