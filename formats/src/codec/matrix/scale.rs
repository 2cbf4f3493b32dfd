//! The scale of every code, learned from the codes before it: one factor for each line and one for each place in it.

use half::f16;

use super::shape::{LOG_BITS, SCORE_BITS};

/// log2(e) in units of 2^-16.
const LOG2_E: i32 = 94_548;
/// The most that is ever known of a factor, so that it can still follow a slow change.
const MOST: i32 = 4096 << SCORE_BITS;

/// What is known of one factor: its base-2 logarithm, and how surely (Fisher information of ln σ, so that the error has
/// the variance 1/information).
#[derive(Clone, Copy, Debug)]
pub(super) struct Factor {
    pub(super) log: i32,
    information: i32,
}

impl Factor {
    /// A factor of which the logarithm is known to about 2^(-doubt/2) nats.
    pub(super) fn new(log: i32, doubt: u8) -> Self {
        Self { log, information: 1 << (SCORE_BITS + u32::from(doubt)) }
    }

    /// Learns from a code with this score: one step of a Kalman filter.
    #[inline(always)]
    pub(super) fn learn(&mut self, score: i32, information: i32) {
        // A score is within ±2^11 and an information below 2^12, so nothing overflows.
        self.information = self.information.wrapping_add(information).min(MOST);
        self.log = self.log.wrapping_add(score.wrapping_mul(LOG2_E) / self.information);
    }
}

/// Base-2 logarithm of the magnitude of a step, in units of 2^-16; -24 for 0.
pub(super) fn log2(step: f16) -> i32 {
    let bits = step.to_bits() & 0x7fff;
    // A subnormal step has the value of its mantissa at the lowest exponent.
    let (exponent, mantissa) = match (bits >> 10, u32::from(bits & 0x3ff)) {
        (0, 0) => return -24 << LOG_BITS,
        (0, mantissa) => (mantissa.ilog2() as i32 - 24, mantissa << (10 - mantissa.ilog2())),
        (exponent, mantissa) => (i32::from(exponent) - 15, 1024 + mantissa),
    };
    (exponent << LOG_BITS) + log2_of_mantissa(mantissa << 21)
}

/// Base-2 logarithm of a number in 1..2, given in units of 2^-31, in units of 2^-16: bit by bit, by squaring.
fn log2_of_mantissa(mantissa: u32) -> i32 {
    let mut x = u64::from(mantissa);
    let mut log = 0;
    for bit in (0..LOG_BITS).rev() {
        x = (x * x) >> 31;
        if x >> 32 != 0 {
            log |= 1 << bit;
            x >>= 1;
        }
    }
    log
}

/// Base-2 logarithm of a positive number, in units of 2^-16: the same everywhere, which `f64::log2` is not.
pub(super) fn log2_f64(x: f64) -> i32 {
    let bits = x.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1023;
    (exponent << LOG_BITS) + log2_of_mantissa((1 << 31) | (bits >> 21) as u32 & 0x7fff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right() {
        for bits in (1..0x7c00).step_by(7) {
            let step = f16::from_bits(bits);
            for (log, exact) in [(log2(step), step.to_f64().log2()), (log2_f64(step.to_f64()), step.to_f64().log2())] {
                assert!((f64::from(log) / 65536.0 - exact).abs() < 2e-5, "{step}: {log}");
            }
            assert_eq!(log2(step), log2(-step));
        }
        assert_eq!((log2(f16::ONE), log2(f16::ZERO)), (0, -24 << 16));
    }

    #[test]
    fn a_factor_learns_less_the_more_it_knows() {
        let mut factor = Factor::new(0, 2);
        factor.learn(512, 512);
        let first = factor.log;
        factor.learn(512, 512);
        assert!(first > 0 && factor.log - first < first);
        (0..100_000).for_each(|_| factor.learn(0, 512));
        assert_eq!(factor.information, MOST);
    }
}
