//! The distributions that intervals and power need: the normal, and Student's for whole degrees of freedom.

use std::f64::consts::{PI, TAU};

/// The share of a standard normal below `x`: the series of Abramowitz and Stegun 26.2.11, to about 1e-15 absolute.
pub fn normal_below(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    (0.5 + sum * (-x * x / 2.0).exp() / TAU.sqrt()).clamp(0.0, 1.0)
}

/// The share of Student's distribution with `freedom` degrees of freedom below `t`: the finite sums of Abramowitz and
/// Stegun 26.7.3 and 26.7.4.
///
/// # Panics
/// If `freedom` is 0.
pub fn student_below(t: f64, freedom: u64) -> f64 {
    assert!(freedom > 0, "a deviation needs two values");
    let root = (freedom as f64).sqrt();
    let angle = (t / root).atan();
    let (sin, cos) = angle.sin_cos();
    let even = freedom.is_multiple_of(2);
    // cos⁰ + 1/2 cos² + 1·3/(2·4) cos⁴ + …, or cos + 2/3 cos³ + 2·4/(3·5) cos⁵ + …
    let (mut term, mut sum, start) = if even { (1.0, 1.0, 2) } else { (cos, cos, 3) };
    for k in (start..freedom).step_by(2) {
        term *= cos * cos * (k - 1) as f64 / k as f64;
        sum += term;
    }
    let within = match (even, freedom) {
        (true, _) => sin * sum,
        (false, 1) => angle * 2.0 / PI,
        (false, _) => (angle + sin * sum) * 2.0 / PI,
    };
    0.5 + within / 2.0
}

/// The value that a share `below` of Student's distribution is below.
pub fn student_quantile(below: f64, freedom: u64) -> f64 {
    bisect(|t| student_below(t, freedom) - below)
}

/// The power of a two-sided test at 5% whose statistic is off by `shift` standard errors: the share of Student's
/// non-central distribution outside the critical values.
///
/// An integral over the estimated deviation, by the midpoint rule; its density is χ's with `freedom` degrees of freedom.
pub fn power(shift: f64, freedom: u64) -> f64 {
    shifted(shift, student_quantile(0.975, freedom), freedom as f64)
}

/// The share outside `critical` of Student's distribution with `n` degrees of freedom, off by `shift`.
fn shifted(shift: f64, critical: f64, n: f64) -> f64 {
    // The deviation relative to the true one: beyond these bounds there is less than 1e-12 of it.
    let spread = 8.0 / (2.0 * n).sqrt();
    let (low, high) = ((1.0 - spread).max(0.0), 1.0 + spread + 4.0 / n);
    // With few degrees of freedom the critical value is large, and the integrand steep.
    let cells = if n < 5.0 { 3000 } else { 300 };
    let (mut all, mut outside) = (0.0, 0.0);
    for i in 0..cells {
        let s = low + (high - low) * (f64::from(i) + 0.5) / f64::from(cells);
        let weight = ((n - 1.0) * s.ln() + n * (1.0 - s * s) / 2.0).exp();
        all += weight;
        outside += weight * (normal_below(shift - critical * s) + normal_below(-shift - critical * s));
    }
    outside / all
}

/// The shift in standard errors that a two-sided test at 5% finds four times in five.
pub fn shift_for_80_percent(freedom: u64) -> f64 {
    let critical = student_quantile(0.975, freedom);
    bisect(|shift| shifted(shift.abs(), critical, freedom as f64) - 0.8)
}

/// The zero of an increasing function; of one that is not, one of its zeros above 0.
fn bisect(f: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = if f(0.0) < 0.0 { (0.0, 1.0) } else { (-1.0, 0.0) };
    while high > 0.0 && f(high) < 0.0 && high < 1e9 {
        high *= 2.0;
    }
    while low < 0.0 && f(low) > 0.0 && low > -1e9 {
        low *= 2.0;
    }
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if f(middle) < 0.0 {
            low = middle
        } else {
            high = middle
        }
        if (high - low).abs() <= 1e-11 * high.abs().max(low.abs()) {
            break;
        }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_printed_tables() {
        for (freedom, below, t) in [
            (1, 0.975, 12.706_204_736),
            (2, 0.975, 4.302_652_730),
            (3, 0.95, 2.353_363_435),
            (5, 0.975, 2.570_581_836),
            (10, 0.995, 3.169_272_673),
            (29, 0.975, 2.045_229_642),
            (120, 0.975, 1.979_930_405),
        ] {
            assert!((student_quantile(below, freedom) - t).abs() < 1e-8, "t of {freedom} at {below}");
            assert!((student_quantile(1.0 - below, freedom) + t).abs() < 1e-8, "it is symmetric");
        }
        for (x, below) in [(0.0, 0.5), (1.0, 0.841_344_746_068_543), (-1.959_963_984_540_054, 0.025), (9.0, 1.0)] {
            assert!((normal_below(x) - below).abs() < 1e-12, "normal below {x}");
        }
    }

    #[test]
    fn power_of_no_effect_is_the_level_and_of_many_runs_the_normals() {
        for freedom in [1, 2, 5, 30] {
            assert!((power(0.0, freedom) - 0.05).abs() < 1e-5, "{freedom}: {}", power(0.0, freedom));
        }
        // z of 97.5% and of 80%.
        assert!((shift_for_80_percent(5000) - (1.959_964 + 0.841_621)).abs() < 2e-3);
        // A table of the paired t test: six pairs find 1.435 standard deviations of the differences.
        assert!((shift_for_80_percent(5) / 6f64.sqrt() - 1.435).abs() < 5e-3);
    }
}
