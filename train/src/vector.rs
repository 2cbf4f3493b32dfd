//! Sums and exponentials over rows, written so that the compiler keeps them in vector registers.
//!
//! Sums run in a fixed number of lanes: the order of additions, and so the result, is the same on every machine.

const LANES: usize = 16;

/// `Σ a·b`.
#[inline]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// `Σ a`.
#[inline]
pub(crate) fn sum(a: &[f32]) -> f32 {
    let (a, rest) = a.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for a in a {
        for (sum, a) in sums.iter_mut().zip(a) {
            *sum += a;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// `Σ a²` in f64.
pub(crate) fn sum_of_squares(a: &[f32]) -> f64 {
    let (a, rest) = a.as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for a in a {
        for (sum, &a) in sums.iter_mut().zip(a) {
            *sum += f64::from(a) * f64::from(a);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&a| f64::from(a) * f64::from(a)).sum::<f64>()
}

/// The largest element; −∞ of nothing.
#[inline]
pub(crate) fn max(a: &[f32]) -> f32 {
    let (a, rest) = a.as_chunks::<LANES>();
    let mut tops = [f32::NEG_INFINITY; LANES];
    for a in a {
        for (top, &a) in tops.iter_mut().zip(a) {
            *top = if a > *top { a } else { *top };
        }
    }
    tops.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `y ← y + x`.
#[inline]
pub(crate) fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// `e^x` to two units in the last place; 0 below the smallest normal number, and at most e^88.
///
/// Branch-free arithmetic, which vectorises where a call to the system's `expf` does not.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to an integer and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > 88.0 { 88.0 } else { x };
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // x − n ln 2 with ln 2 in two parts, so that nothing is lost to rounding.
    let r = (clamped - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let tail = ((((1.987_569_2e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 1.666_666_5e-1)
        * r
        + 0.5;
    let power = f32::from_bits(shifted.to_bits().wrapping_shl(23).wrapping_add(1.0f32.to_bits()));
    let result = (tail * r * r + r + 1.0) * power;
    if x < -87.0 { 0.0 } else { result }
}

/// `tanh x` to 1e-7 absolute.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let x = if x > 20.0 { 20.0 } else { x };
    let x = if x < -20.0 { -20.0 } else { x };
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_odd_lengths() {
        for n in [0usize, 1, 15, 16, 17, 50] {
            let a: Vec<f32> = (0..n).map(|i| i as f32 - 3.0).collect();
            let b: Vec<f32> = (0..n).map(|i| 2.0 - i as f32).collect();
            assert_eq!(dot(&a, &b), a.iter().zip(&b).map(|(a, b)| a * b).sum::<f32>());
            assert_eq!(sum(&a), a.iter().sum::<f32>());
            assert_eq!(sum_of_squares(&a), a.iter().map(|a| f64::from(a * a)).sum::<f64>());
            assert_eq!(max(&b), if n == 0 { f32::NEG_INFINITY } else { 2.0 });
        }
    }

    #[test]
    fn exp_and_tanh_against_f64() {
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.5e-7, "exp {x}");
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 2e-7, "tanh {x}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan(), "a NaN must stay visible");
    }
}
