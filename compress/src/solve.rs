//! The knob at which a file just fits.

use crate::Result;

/// Share of the target that may stay unused.
const SLACK: f64 = 0.002;
/// Share of the target that is aimed to stay unused: sizes are not smooth in the knob.
const AIM: f64 = 0.0004;
/// Tries at most. Four are the rule; a small file has few sizes to choose from.
const PASSES: usize = 12;
/// Base-2 logarithm of the coarsest knob.
const COARSEST: f64 = 40.0;

/// What was tried last, and what fits best.
pub(crate) struct Solved<T> {
    /// The largest that fits, or the smallest there is.
    pub(crate) packed: T,
    /// Its knob.
    pub(crate) knob: f64,
    /// How many were packed.
    pub(crate) passes: usize,
}

/// Finds the knob whose file is the largest of at most `target` bytes, or within [`SLACK`] of it.
///
/// `predict` gives the expected size at a knob from `finest` on, falling with it and cheap; `pack` the file and its
/// size. If nothing fits, what is returned is over the target.
///
/// # Errors
/// Those of `pack`.
pub(crate) fn solve<T>(
    target: u64,
    finest: f64,
    predict: &dyn Fn(f64) -> f64,
    pack: &mut dyn FnMut(f64) -> Result<(T, u64)>,
) -> Result<Solved<T>> {
    let aim = target as f64 * (1.0 - AIM);
    let (finest, coarsest) = (finest.log2(), COARSEST);
    // Nearest known to be too large and to fit: logarithm of the knob and size.
    let mut over: Option<(f64, f64)> = None;
    let mut fits: Option<(f64, f64)> = None;
    let (mut best, mut largest): (Option<Solved<T>>, Option<f64>) = (None, None);
    let mut smallest: Option<Solved<T>> = None;
    let mut log = invert(&|log| predict(log.exp2()), aim, finest, coarsest);
    let mut tried = 0;
    for passes in 1..=PASSES {
        tried = passes;
        let (packed, bytes) = pack(log.exp2())?;
        let (size, solved) = (bytes as f64, Solved { packed, knob: log.exp2(), passes });
        if bytes <= target {
            // Sizes are not quite monotonic: the nearest to what is too large need not be the largest.
            if largest.is_none_or(|known| size > known) {
                (largest, best) = (Some(size), Some(solved));
            }
            fits = Some((log, size));
            if size >= target as f64 * (1.0 - SLACK) || log <= finest {
                break;
            }
        } else {
            over = Some((log, size));
            smallest = Some(solved);
            if log >= coarsest {
                break;
            }
        }
        let next = match (over, fits) {
            (Some(a), Some(b)) => between(a, b, aim, passes),
            (Some(known), None) | (None, Some(known)) => shifted(predict, known, aim, finest, coarsest),
            (None, None) => break,
        };
        if (next - log).abs() < 1e-5 {
            break;
        }
        log = next;
    }
    let mut solved = best.or(smallest).expect("at least one was packed");
    solved.passes = tried;
    Ok(solved)
}

/// The logarithm between two known sizes that should give `aim`; the middle where that has not been enough.
fn between(over: (f64, f64), fits: (f64, f64), aim: f64, passes: usize) -> f64 {
    let share = (over.1 - aim) / (over.1 - fits.1).max(1.0);
    let share = if passes > PASSES / 2 { 0.5 } else { share.clamp(0.02, 0.98) };
    over.0 + share * (fits.0 - over.0)
}

/// The logarithm that gives `aim` by the prediction, corrected by what it was wrong by at a known size.
fn shifted(predict: &dyn Fn(f64) -> f64, known: (f64, f64), aim: f64, finest: f64, coarsest: f64) -> f64 {
    let correction = known.1 - predict(known.0.exp2());
    let next = invert(&|log| predict(log.exp2()) + correction, aim, finest, coarsest);
    // Past what is known, on the side where the target is.
    if known.1 > aim { next.max(known.0 + 1e-3) } else { next.min(known.0 - 1e-3) }.clamp(finest, coarsest)
}

/// Where a falling function takes a value.
pub(crate) fn invert(f: &dyn Fn(f64) -> f64, value: f64, mut low: f64, mut high: f64) -> f64 {
    if f(high) > value {
        return high;
    }
    if f(low) < value {
        return low;
    }
    while high - low > 1e-5 {
        let middle = 0.5 * (low + high);
        if f(middle) > value { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a model of `weights` whose codes have the entropy of fine steps, with noise of one in ten thousand.
    fn size(weights: f64, knob: f64, noise: f64) -> u64 {
        let bits = (1.0 + 1.0 / knob).log2();
        (weights * bits / 8.0 * (1.0 + 1e-4 * (noise * (1e5 * knob.ln()).sin())) + 3000.0) as u64
    }

    #[test]
    fn targets_are_met_from_below_in_few_passes() {
        for weights in [3e5, 5e6, 3.4e7] {
            for tenths in 20..=60 {
                let target = (weights * f64::from(tenths) / 80.0) as u64;
                for wrong in [0.8, 1.0, 1.3] {
                    let predict = |knob| wrong * size(weights, knob, 0.0) as f64;
                    let mut pack = |knob| Ok(((), size(weights, knob, 1.0)));
                    let solved = solve(target, 1e-9, &predict, &mut pack).unwrap();
                    let bytes = size(weights, solved.knob, 1.0);
                    assert!(bytes <= target && bytes as f64 >= 0.998 * target as f64, "{bytes} for {target}");
                    assert!(solved.passes <= 5, "{} passes for {target}", solved.passes);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_met_is_the_nearest_there_is() {
        // Two sizes only: the smaller one fits, or neither does.
        let predict = |knob: f64| if knob < 1.0 { 900.0 } else { 500.0 };
        let mut pack = |knob: f64| Ok(((), predict(knob) as u64));
        let solved = solve(700, 1e-9, &predict, &mut pack).unwrap();
        assert_eq!(predict(solved.knob), 500.0);
        let solved = solve(400, 1e-9, &predict, &mut pack).unwrap();
        assert_eq!(predict(solved.knob), 500.0);
        let solved = solve(10_000, 1e-9, &predict, &mut pack).unwrap();
        assert_eq!(predict(solved.knob), 900.0);
        assert!(solved.passes <= PASSES);
    }
}
