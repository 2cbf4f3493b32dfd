//! Signal from noise: the difference of two recipes over runs that are paired by their seed.
//!
//! The same seed gives the same start values and the same order of data in both recipes, so their difference is free of
//! what the seed does to both. Of the differences `d` of `n` pairs:
//!
//! - the interval is Student's, `mean ± t(97.5%, n − 1) · s / √n`: over many experiments 95% of such intervals hold the
//!   true difference, if differences are about normal;
//! - the smallest effect is the true difference that such an experiment finds (its interval excludes 0) four times in
//!   five, given the deviation `s` that was measured: `δ · s / √n`, with δ of the non-central distribution;
//! - the seeds that would settle the sign are those at which the smallest effect is the mean that was found.
//!
//! With several arms some intervals exclude 0 by chance: [`holm`] adjusts p-values for their number.

use super::student::{shift_for_80_percent, student_below, student_quantile};

/// More seeds than this are "more than this".
pub const MOST_SEEDS: u64 = 1000;

/// A difference of means, arm minus baseline: below 0 the arm is better where less is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// Pairs.
    pub pairs: u64,
    /// Mean difference.
    pub mean: f64,
    /// What only several pairs tell.
    pub spread: Option<Spread>,
}

/// How sure a difference is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Standard deviation of the differences.
    pub deviation: f64,
    /// The 95% interval of the mean.
    pub interval: [f64; 2],
    /// Two-sided p-value of no difference.
    pub p: f64,
}

impl Effect {
    /// The smallest true difference that as many pairs with the same deviation find four times in five; `None` for one
    /// pair.
    pub fn smallest(&self) -> Option<f64> {
        let error = self.spread?.deviation / (self.pairs as f64).sqrt();
        Some(shift_for_80_percent(self.pairs - 1) * error)
    }

    /// Further seeds at which the mean difference is found four times in five; 0 if the interval excludes 0, `None` if
    /// they would be more than [`MOST_SEEDS`], or there is one pair.
    pub fn more_seeds(&self) -> Option<u64> {
        let spread = self.spread?;
        if spread.excludes_zero() {
            return Some(0);
        }
        Some(seeds_for(self.mean, spread.deviation)?.saturating_sub(self.pairs).max(1))
    }

    /// The effect of these differences; `None` if there are none.
    pub fn of(differences: &[f64]) -> Option<Self> {
        let (mean, deviation) = mean_and_deviation(differences)?;
        let pairs = differences.len() as u64;
        let spread = deviation.map(|deviation| Spread::new(pairs, mean, deviation));
        Some(Self { pairs, mean, spread })
    }
}

impl Spread {
    fn new(pairs: u64, mean: f64, deviation: f64) -> Self {
        let (root, freedom) = ((pairs as f64).sqrt(), pairs - 1);
        let error = deviation / root;
        let half = student_quantile(0.975, freedom) * error;
        let p = match (error > 0.0, mean == 0.0) {
            (true, _) => 2.0 * student_below(-(mean / error).abs(), freedom),
            (false, true) => 1.0,
            (false, false) => 0.0,
        };
        Self { deviation, interval: [mean - half, mean + half], p }
    }

    /// Whether the interval excludes that there is no difference.
    pub fn excludes_zero(&self) -> bool {
        self.interval[0] > 0.0 || self.interval[1] < 0.0
    }

    /// Half the width of the interval.
    pub fn half_width(&self) -> f64 {
        (self.interval[1] - self.interval[0]) / 2.0
    }
}

/// Pairs at which a difference of `mean` is found four times in five; `None` for more than [`MOST_SEEDS`].
pub fn seeds_for(mean: f64, deviation: f64) -> Option<u64> {
    if mean == 0.0 {
        return None;
    }
    let enough = |n: u64| shift_for_80_percent(n - 1) * deviation / (n as f64).sqrt() <= mean.abs();
    if !enough(MOST_SEEDS) {
        return None;
    }
    let (mut low, mut high) = (1, MOST_SEEDS);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// The mean, and the standard deviation where there are several values; `None` without values.
pub fn mean_and_deviation(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let n = values.len() as f64;
    let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / n)?;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    Some((mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt())))
}

/// Holm's adjustment of p-values: rejecting those below 5% errs in one experiment of twenty, however many arms it has.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut least: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        least = least.max(p[i] * (p.len() - rank) as f64).min(1.0);
        adjusted[i] = least;
    }
    adjusted
}
