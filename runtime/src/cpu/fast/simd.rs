//! Loops compiled for the widest vectors of this machine, and what they need: sums, exp, tanh.
//!
//! The functions are plain arithmetic without branches, so that the compiler makes vector code of a loop over them.
//! They must be inlined into the closure given to [`wide`], which is compiled once for each instruction set.

/// Runs `f` compiled for the widest instruction set this machine has.
#[inline(always)]
pub(super) fn wide<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Partial sums of a reduction: a vector of the widest set.
pub(super) const LANES: usize = 16;

/// `a · b + c`, in one rounding where the machine does that in one instruction.
#[inline(always)]
pub(super) fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ a b`.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let [sum] = dots(a, [b]);
    sum
}

/// `Σ x w` for each of `N` rows `w`, of f32 or of integer codes: several at once, since each sum alone waits for its
/// own last addition.
#[inline(always)]
pub(super) fn dots<T: Copy, const N: usize>(x: &[f32], rows: [&[T]; N]) -> [f32; N]
where
    f32: From<T>,
{
    let mut lanes = [[0.0; LANES]; N];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..x.len()]);
    for (c, x) in x.iter().enumerate() {
        for n in 0..N {
            let w = &chunks[n][c];
            for i in 0..LANES {
                lanes[n][i] = fma(x[i], f32::from(w[i]), lanes[n][i]);
            }
        }
    }
    let mut sums = lanes.map(total);
    for (sum, row) in sums.iter_mut().zip(rows) {
        *sum += x_rest.iter().zip(&row[x.len() * LANES..]).map(|(&x, &w)| x * f32::from(w)).sum::<f32>();
    }
    sums
}

/// The largest value.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `x = exp(scale · (x − shift))` in place; gives the sum.
#[inline(always)]
pub(super) fn exp_sum(x: &mut [f32], shift: f32, scale: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            x[i] = exp((x[i] - shift) * scale);
            lanes[i] += x[i];
        }
    }
    let mut sum = total(lanes);
    for x in rest {
        *x = exp((*x - shift) * scale);
        sum += *x;
    }
    sum
}

/// `1 / sqrt(mean(x²) + eps)`, eps the machine epsilon of f32.
#[inline(always)]
pub(super) fn inverse_rms(x: &[f32]) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + f32::EPSILON).sqrt()
}

/// Adding it rounds to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`: `(2ⁿ, eʳ − 1)`.
#[inline(always)]
fn split(x: f32) -> (f32, f32) {
    let rounded = fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x));
    // Taylor's series; its first term left out is below 6e-9.
    let mut p = 1.0 / 5040.0;
    p = fma(p, r, 1.0 / 720.0);
    p = fma(p, r, 1.0 / 120.0);
    p = fma(p, r, 1.0 / 24.0);
    p = fma(p, r, 1.0 / 6.0);
    p = fma(p, r, 0.5);
    p = fma(p * r, r, r);
    let power = f32::from_bits(rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    (power, p)
}

/// `eˣ`, relative error below 2e-7; below -87 it is e⁻⁸⁷, above 88 e⁸⁸.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let (power, p) = split(clamp(x, -87.0, 88.0));
    fma(power, p, power)
}

/// `tanh x`, relative error below 3e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    // With m = e^{2|x|} − 1, which is exact near zero: m / (m + 2). Past 10 it is 1.
    let (power, p) = split(clamp(2.0 * x.abs(), 0.0, 20.0));
    let m = fma(power, p, power - 1.0);
    (m / (m + 2.0)).copysign(x)
}

/// A NaN goes through.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(range: std::ops::Range<f32>, f: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        let steps = 2_000_000;
        let at = |i| range.start + (range.end - range.start) * (i as f32 / steps as f32);
        let error = |x: f32| {
            let exact = exact(f64::from(x));
            if exact == 0.0 { 0.0 } else { ((f64::from(f(x)) - exact) / exact).abs() }
        };
        (0..steps).map(|i| error(at(i))).fold(0.0, f64::max)
    }

    #[test]
    fn exp_and_tanh_are_near_the_exact_functions() {
        let error = worst(-87.0..88.0, exp, f64::exp);
        assert!(error < 2e-7, "exp: {error}");
        for range in [-1e-3..1e-3, -1.0..1.0, -12.0..12.0] {
            let error = worst(range.clone(), tanh, f64::tanh);
            assert!(error < 3e-7, "tanh in {range:?}: {error}");
        }
        assert_eq!([exp(0.0), tanh(0.0), tanh(f32::INFINITY), tanh(-50.0)], [1.0, 0.0, 1.0, -1.0]);
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn reductions_of_odd_lengths() {
        for len in [1, 31, 32, 33, 95, 320] {
            let a: Vec<f32> = (0..len).map(|i| i as f32 - 7.0).collect();
            let codes: Vec<i8> = (0..len).map(|i| (i % 63) as i8 - 31).collect();
            let b: Vec<f32> = codes.iter().map(|&c| f32::from(c)).collect();
            let exact: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            assert_eq!(dots(&a, [&b, &b, &b]), [exact; 3], "{len}");
            assert_eq!(dots(&a, [&codes, &codes]), [exact; 2], "{len}");
            assert_eq!(max(&a), len as f32 - 8.0, "{len}");
            let mut e = a.clone();
            let sum = wide(|| exp_sum(&mut e, a[len - 1], 0.5));
            let exact: f64 = a.iter().map(|&x| (0.5 * f64::from(x - a[len - 1])).exp()).sum();
            assert!((f64::from(sum) - exact).abs() < 1e-6 * exact, "{len}");
        }
    }
}
