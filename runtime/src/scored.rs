//! How likely a model found a token, and what it found likely instead.

/// A token under the model's own distribution, whatever the sampler made of that.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens and the logarithms of their probabilities, from the likeliest on; of equals the lowest id.
    pub top: Vec<(u32, f32)>,
}

impl Scored {
    /// Token `id` under `logits [V]` beside the `top` likeliest.
    ///
    /// # Panics
    /// If `id` is none of the logits'.
    pub fn of(logits: &[f32], id: u32, top: usize) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = logits.iter().map(|&x| f64::from(x - max).exp()).sum::<f64>().ln();
        let logprob = |x: f32| (f64::from(x - max) - log_sum) as f32;
        let top = likeliest(logits, top).into_iter().map(|id| (id, logprob(logits[id as usize]))).collect();
        Self { id, logprob: logprob(logits[id as usize]), top }
    }
}

/// Ids of the `n` largest logits in order.
fn likeliest(logits: &[f32], n: usize) -> Vec<u32> {
    let before = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if (1..ids.len()).contains(&n) {
        ids.select_nth_unstable_by(n - 1, before);
    }
    ids.truncate(n);
    ids.sort_unstable_by(before);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_and_order() {
        let logits = [2.0, 1.0, 3.0, 3.0, f32::NEG_INFINITY];
        let all = Scored::of(&logits, 1, 9);
        assert_eq!(all.top.iter().map(|t| t.0).collect::<Vec<_>>(), [2, 3, 0, 1, 4]);
        let sum: f64 = all.top.iter().map(|t| f64::from(t.1).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(all.logprob, all.top[3].1);
        for n in 0..5 {
            assert_eq!(Scored::of(&logits, 0, n).top, all.top[..n]);
        }
        // Adding to all logits changes nothing, however much it is.
        let far = logits.map(|x| x + 10_000.0);
        assert!((Scored::of(&far, 1, 0).logprob - all.logprob).abs() < 1e-3);
    }
}
