//! Quintics fitted for a number of Newton–Schulz iterations.
//!
//! Polar Express (arXiv 2505.16932) shows that the composition of odd quintics that is closest to 1 on `[l, 1]`, in the
//! largest error, is the greedy one: each is the minimax quintic of the interval the one before it maps to. It leaves
//! `l` open. [`LOWER`] = 1e-3, for which the five-entry table is made, suits five iterations and more: three cannot lift
//! 1e-3 to 1, and in trying spread all other values over [0.13, 1.87]. So `l` is `LOWER` where that keeps the error to
//! [`ERROR`], as the constant triple roughly has it after five iterations, and else the smallest value that does: fewer
//! iterations promise the same band to fewer of the small values. Three then bring a Gaussian 512×512 matrix to a cosine
//! of 0.95 with its polar factor, where the first three entries of the table reach 0.85.

/// Lower end of the fit wherever the iterations are enough for it.
pub const LOWER: f64 = 1e-3;

/// Largest distance from 1 that is accepted of a value in `[lower, 1]`.
pub const ERROR: f64 = 0.3;

/// The most iterations there is a fit for: with these, only rounding is left of the error.
pub const MOST: usize = 7;

/// All quintics but the last are evaluated at `x / SAFETY`, so that rounding pushes no value out of their intervals.
const SAFETY: f64 = 1.02;

/// A composition of quintics and where it is close to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// (a, b, c) of each iteration.
    pub triples: Vec<[f64; 3]>,
    /// Smallest value that ends within `error` of 1; the largest is 1.
    pub lower: f64,
    /// Largest distance from 1 over `[lower, 1]`.
    pub error: f64,
}

/// The fit for so many iterations: `lower` as close to [`LOWER`] as [`ERROR`] allows.
///
/// # Panics
/// If it is not 1 to [`MOST`].
pub fn minimax(steps: usize) -> Fit {
    assert!((1..=MOST).contains(&steps), "1 to {MOST} iterations");
    let usual = greedy(steps, LOWER);
    if usual.error <= ERROR {
        return usual;
    }
    // Bisection on a logarithmic scale, between an end that is too low and one that keeps the error.
    let (mut low, mut fits) = (LOWER, greedy(steps, 0.9));
    while low < 0.999_999 * fits.lower {
        let middle = greedy(steps, (low * fits.lower).sqrt());
        if middle.error > ERROR {
            low = middle.lower;
        } else {
            fits = middle;
        }
    }
    fits
}

/// The greedy composition on `[lower, 1]`.
fn greedy(steps: usize, lower: f64) -> Fit {
    let (mut l, mut u, mut triples) = (lower, 1.0, Vec::new());
    for step in 1..=steps {
        let ([a, b, c], error) = quintic(l, u);
        let safety = if step < steps { SAFETY } else { 1.0 };
        let triple = [a / safety, b / safety.powi(3), c / safety.powi(5)];
        // The least value of a minimax quintic is at the lower end, where the safety factor moves it further down.
        (l, u) = (value(triple, l), 1.0 + error);
        triples.push(triple);
    }
    Fit { triples, lower, error: (1.0 - l).max(u - 1.0) }
}

fn value([a, b, c]: [f64; 3], x: f64) -> f64 {
    let square = x * x;
    x * (a + square * (b + square * c))
}

/// The odd quintic closest to 1 on `[l, u]`, and its distance, by Remez exchange: the error is `-e` at `l`, `+e` at the
/// inner maximum, `-e` at the inner minimum and `+e` at `u`.
fn quintic(l: f64, u: f64) -> ([f64; 3], f64) {
    if u - l < 1e-3 * u {
        // Points too close to tell apart in the equations: the limit, which reaches 1 with two derivatives 0.
        // Its error, 2.5 times the cube of the width, is below that of f32.
        return ([1.875 / u, -1.25 / u.powi(3), 0.375 / u.powi(5)], 0.0);
    }
    let (mut q, mut r) = ((3.0 * l + u) / 4.0, (l + 3.0 * u) / 4.0);
    let (mut best, mut error) = ([0.0; 3], f64::INFINITY);
    // Converges in about five rounds; the bound is for rounding that never settles.
    for _ in 0..50 {
        let row = |x: f64, sign: f64| [x, x.powi(3), x.powi(5), sign, 1.0];
        let [a, b, c, e] = solve([row(l, 1.0), row(q, -1.0), row(r, 1.0), row(u, -1.0)]);
        let settled = (e - error).abs() <= 1e-14;
        (best, error) = ([a, b, c], e);
        if settled {
            break;
        }
        // Where the derivative a + 3b x² + 5c x⁴ is zero.
        let root = (9.0 * b * b - 20.0 * a * c).sqrt();
        (q, r) = (((-3.0 * b - root) / (10.0 * c)).sqrt(), ((-3.0 * b + root) / (10.0 * c)).sqrt());
    }
    (best, error)
}

/// Four linear equations `[coefficients, right side]` by elimination with row pivots.
fn solve(mut rows: [[f64; 5]; 4]) -> [f64; 4] {
    for i in 0..4 {
        let pivot = (i..4).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs())).unwrap_or(i);
        rows.swap(i, pivot);
        let by = rows[i];
        for row in &mut rows[i + 1..] {
            let factor = row[i] / by[i];
            row.iter_mut().zip(by).for_each(|(x, b)| *x -= factor * b);
        }
    }
    let mut x = [0.0; 4];
    for i in (0..4).rev() {
        let known: f64 = (i + 1..4).map(|j| rows[i][j] * x[j]).sum();
        x[i] = (rows[i][4] - known) / rows[i][i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Coefficients;

    /// Values of a composition over `[lower, 1]`, evenly in the logarithm.
    fn values(triples: &[[f64; 3]], lower: f64) -> impl Iterator<Item = f64> {
        let points = 20_000;
        (0..=points)
            .map(move |i| triples.iter().fold(lower.powf(f64::from(i) / f64::from(points)), |x, &t| value(t, x)))
    }

    fn worst(triples: &[[f64; 3]], lower: f64) -> f64 {
        values(triples, lower).map(|y| (y - 1.0).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn every_fit_is_as_close_to_one_as_it_says_and_no_lower_end_is_wasted() {
        for steps in 1..=MOST {
            let fit = minimax(steps);
            let found = worst(&fit.triples, fit.lower);
            assert!((found - fit.error).abs() < 1e-4 * fit.error + 1e-12, "{steps}: {found} and {}", fit.error);
            assert!(fit.error <= ERROR && fit.lower >= LOWER);
            assert!(fit.lower == LOWER || greedy(steps, 0.99 * fit.lower).error > ERROR, "{steps}: {}", fit.lower);
        }
        let lower = [1, 2, 3, 4, 5].map(|steps| minimax(steps).lower);
        assert!(lower.is_sorted_by(|a, b| a > &(2.0 * b)), "each iteration reaches further down: {lower:?}");
        assert!(minimax(5).error < 0.2 && minimax(6).error < 0.02 && minimax(7).error < 1e-4, "or closer");
    }

    #[test]
    fn a_minimax_quintic_swings_four_times() {
        let (t, e) = quintic(0.05, 1.2);
        let ends = [(0.05, -e), (1.2, e)];
        ends.iter().for_each(|&(x, off)| assert!((value(t, x) - 1.0 - off).abs() < 1e-12));
        let inner: Vec<f64> = (0..=10_000).map(|i| value(t, 0.05 + 1.15 * f64::from(i) / 1e4) - 1.0).collect();
        assert!(inner.iter().all(|y| y.abs() < e + 1e-12));
        let turns = inner.windows(3).filter(|w| (w[1] - w[0]) * (w[2] - w[1]) < 0.0).count();
        assert_eq!(turns, 2);
    }

    #[test]
    fn three_fitted_iterations_beat_the_first_three_of_a_table_for_five() {
        let (fit, table) = (minimax(3), Coefficients::PolarExpress.triples(3).unwrap());
        assert!(worst(&table, fit.lower) > 2.5 * ERROR, "{}", worst(&table, fit.lower));
        let mean = |triples: &[[f64; 3]]| values(triples, 1e-3).map(|y| (y - 1.0).powi(2)).sum::<f64>();
        assert!(mean(&fit.triples) < mean(&table), "also in the mean, and far below its lower end");
    }
}
