//! The next token from its logits.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::{Error, Result};

/// How to choose. The filters apply in the order of the fields, each to what the one before has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; at 0 the likeliest token is taken, always.
    pub temperature: f32,
    /// Keep the so many likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the likeliest tokens until their probabilities sum to this much; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Start of the random numbers: the same seed gives the same text.
    pub seed: u64,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

/// Chooses tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha12Rng,
}

impl Sampler {
    /// A sampler at the start of its random numbers.
    ///
    /// # Errors
    /// An option outside its range.
    pub fn new(sampling: Sampling) -> Result<Self> {
        let check = |field, value: f32, range: std::ops::RangeInclusive<f32>| {
            if range.contains(&value) {
                return Ok(());
            }
            let expected = format!("{} to {}", range.start(), range.end());
            Err(Error::Option { field, expected, found: value.to_string() })
        };
        check("temperature", sampling.temperature, 0.0..=1000.0)?;
        check("top_p", sampling.top_p, 0.0..=1.0)?;
        check("min_p", sampling.min_p, 0.0..=1.0)?;
        Ok(Self { sampling, rng: ChaCha12Rng::seed_from_u64(sampling.seed) })
    }

    /// A token for `logits [V]`.
    ///
    /// # Errors
    /// No logits, or one that is not a number.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let mut likely = self.likely(logits)?;
        let mut rest = self.rng.random::<f64>() * likely.total();
        let (mut rank, mut last) = (0, 0);
        // Rounding may leave a little beyond the last.
        while let Some((id, p)) = likely.get(rank).filter(|_| rest >= 0.0) {
            rest -= p;
            (rank, last) = (rank + 1, id);
        }
        Ok(last)
    }

    /// For a machine that chooses by itself: how, and the random number of the next token, from 0 to 1.
    pub(crate) fn draw(&mut self) -> (Sampling, f64) {
        (self.sampling, self.rng.random())
    }

    /// The tokens that can be chosen and their probabilities relative to the likeliest.
    fn likely(&self, logits: &[f32]) -> Result<Ranked> {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        if let Some(index) = logits.iter().position(|x| x.is_nan()) {
            return Err(Error::Logits { found: format!("NaN for token {index}") });
        }
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !max.is_finite() {
            return Err(Error::Logits { found: format!("{} logits, the largest {max}", logits.len()) });
        }
        if temperature == 0.0 {
            let first = logits.iter().position(|&x| x == max).unwrap_or_default();
            return Ok(Ranked::new(vec![(first as u32, 1.0)]));
        }
        let relative = |x: f32| (f64::from(x - max) / f64::from(temperature)).exp();
        let mut likely = Ranked::new((0..).zip(logits.iter().map(|&x| relative(x))).collect());
        if top_k > 0 {
            likely.truncate(top_k);
        }
        if top_p < 1.0 {
            likely.truncate_to_mass(f64::from(top_p));
        }
        likely.keep_from(f64::from(min_p));
        Ok(likely)
    }
}

/// Tokens and probabilities, from the likeliest on; of equals the first. Sorted as far as somebody looked: a choice is
/// mostly among the first few, and sorting a vocabulary takes a twentieth of a step of a small model.
struct Ranked {
    tokens: Vec<(u32, f64)>,
    sorted: usize,
}

impl Ranked {
    fn new(tokens: Vec<(u32, f64)>) -> Self {
        Self { tokens, sorted: 0 }
    }

    fn total(&self) -> f64 {
        self.tokens.iter().map(|(_, p)| p).sum()
    }

    /// The token of a rank, counted from 0.
    fn get(&mut self, rank: usize) -> Option<(u32, f64)> {
        while rank >= self.sorted && self.sorted < self.tokens.len() {
            self.sort_more();
        }
        self.tokens.get(rank).copied()
    }

    /// As many again as are sorted.
    fn sort_more(&mut self) {
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let rest = &mut self.tokens[self.sorted..];
        let more = self.sorted.max(32).min(rest.len());
        if more < rest.len() {
            rest.select_nth_unstable_by(more, order);
        }
        rest[..more].sort_unstable_by(order);
        self.sorted += more;
    }

    /// Keeps the first `n`.
    fn truncate(&mut self, n: usize) {
        self.get(n);
        self.tokens.truncate(n);
        self.sorted = self.sorted.min(n);
    }

    /// Keeps the first until their probabilities sum to `share` of all, and one at least.
    fn truncate_to_mass(&mut self, share: f64) {
        let enough = share * self.total();
        let (mut sum, mut n) = (0.0, 0);
        while let Some((_, p)) = self.get(n).filter(|_| n == 0 || sum < enough) {
            sum += p;
            n += 1;
        }
        self.truncate(n);
    }

    /// Keeps probabilities of at least `p`.
    fn keep_from(&mut self, p: f64) {
        self.sorted = self.tokens[..self.sorted].partition_point(|token| token.1 >= p);
        self.tokens.retain(|token| token.1 >= p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, f32::NEG_INFINITY];

    fn ids(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
        let mut likely = Sampler::new(sampling).unwrap().likely(logits).unwrap();
        (0..).map_while(|rank| likely.get(rank)).map(|(id, _)| id).collect()
    }

    #[test]
    fn frequencies_are_the_softmax() {
        for temperature in [0.5, 1.0, 2.0] {
            let mut sampler = Sampler::new(Sampling { temperature, seed: 7, ..Sampling::default() }).unwrap();
            let draws = 200_000;
            let mut counts = [0u32; 4];
            (0..draws).for_each(|_| counts[sampler.sample(&LOGITS).unwrap() as usize] += 1);
            let weights = LOGITS.map(|x| f64::from(x / temperature).exp());
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                let (p, found) = (weight / total, f64::from(*count) / f64::from(draws));
                let five_sigma = 5.0 * (p * (1.0 - p) / f64::from(draws)).sqrt();
                assert!((found - p).abs() <= five_sigma, "temperature {temperature}: {found} for {p}");
            }
        }
    }

    #[test]
    fn filters_keep_the_likeliest() {
        let all = Sampling::default();
        assert_eq!(ids(all, &LOGITS), [1, 2, 0, 3]);
        assert_eq!(ids(Sampling { top_k: 2, ..all }, &LOGITS), [1, 2]);
        assert_eq!(ids(Sampling { top_k: 9, ..all }, &LOGITS).len(), 4);
        // Probabilities 0.665, 0.245, 0.090.
        assert_eq!(ids(Sampling { top_p: 0.66, ..all }, &LOGITS), [1]);
        assert_eq!(ids(Sampling { top_p: 0.67, ..all }, &LOGITS), [1, 2]);
        assert_eq!(ids(Sampling { top_p: 0.0, ..all }, &LOGITS), [1]);
        // Relative to the likeliest 1, 0.368, 0.135.
        assert_eq!(ids(Sampling { min_p: 0.3, ..all }, &LOGITS), [1, 2]);
        assert_eq!(ids(Sampling { min_p: 1.0, ..all }, &LOGITS), [1]);
        // Of the two likeliest alone, the first has 0.731.
        assert_eq!(ids(Sampling { top_k: 2, top_p: 0.7, ..all }, &LOGITS), [1]);
        assert_eq!(ids(Sampling { temperature: 2.0, min_p: 0.3, ..all }, &LOGITS), [1, 2, 0]);
    }

    #[test]
    fn sorted_as_far_as_needed_is_sorted() {
        // Every probability several times.
        let logits: Vec<f32> = (0..1061).map(|i| (i * 37 % 211) as f32 / 50.0).collect();
        let mut sorted: Vec<u32> = (0..1061).collect();
        sorted.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        let all = Sampling::default();
        assert_eq!(ids(Sampling { temperature: 1.0, ..all }, &logits), sorted);
        for top_k in [1, 31, 32, 33, 64, 65, 1000, 1061, 2000] {
            assert_eq!(ids(Sampling { top_k, ..all }, &logits), sorted[..top_k.min(1061)], "{top_k}");
        }
        for min_p in [0.01f32, 0.5, 0.99] {
            let likely = |&id: &u32| (f64::from(logits[id as usize] - 4.2)).exp() >= f64::from(min_p);
            let expected: Vec<u32> = sorted.iter().copied().filter(likely).collect();
            assert_eq!(ids(Sampling { min_p, temperature: 1.0, ..all }, &logits), expected, "{min_p}");
            assert_eq!(
                ids(Sampling { min_p, temperature: 1.0, top_k: 40, ..all }, &logits),
                expected[..expected.len().min(40)]
            );
        }
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }).unwrap();
        assert_eq!(sampler.sample(&[0.0, 5.0, 5.0]).unwrap(), 1);
        assert_eq!(sampler.sample(&[-1.0]).unwrap(), 0);
    }

    #[test]
    fn the_seed_decides() {
        let text = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..Sampling::default() }).unwrap();
            (0..64).map(|_| sampler.sample(&[0.0; 50]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn nonsense_is_refused() {
        let wrong = |sampling| Sampler::new(sampling).unwrap_err().to_string();
        let sane = Sampling::default();
        assert_eq!(wrong(Sampling { top_p: 1.5, ..sane }), "option `top_p`: expected 0 to 1, found 1.5");
        assert!(wrong(Sampling { temperature: -1.0, ..sane }).contains("temperature"));
        assert!(wrong(Sampling { temperature: f32::NAN, ..sane }).contains("temperature"));
        assert!(wrong(Sampling { min_p: -0.1, ..sane }).contains("min_p"));
        let mut sampler = Sampler::new(sane).unwrap();
        for logits in [&[][..], &[f32::NAN, 1.0], &[f32::NEG_INFINITY], &[f32::INFINITY, 1.0]] {
            assert!(sampler.sample(logits).is_err(), "{logits:?}");
        }
    }
}
