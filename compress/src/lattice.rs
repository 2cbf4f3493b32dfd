//! The steps that row scales and column factors are rounded to: equal ones cost next to nothing to code.
//!
//! A step that is off by a factor `2^δ` costs, by the second order of `2^{2δ}`, `ln 2 · δ²` bits a weight: 0.0036 bits
//! on average for quarters of an octave in the rows and as much in the columns, 0.0144 for halves, 0.0009 for eighths.

/// Steps of an octave.
const PER_OCTAVE: f64 = 4.0;

/// The number of the step nearest to `2^log2`.
pub(crate) fn nearest(log2: f64) -> i32 {
    (log2 * PER_OCTAVE).round() as i32
}

/// The logarithm of step `number`.
pub(crate) fn log2(number: i32) -> f64 {
    f64::from(number) / PER_OCTAVE
}
