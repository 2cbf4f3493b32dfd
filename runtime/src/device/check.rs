//! Whether a device computes what the plain interpreter does.

use sixpack_formats::ModelConfig;

use super::made_up;
use crate::ops::{Batch, Remember};
use crate::session::Session;
use crate::{Error, Pass, Result, Sampler, Sampling, Weights, cpu, forward, model};

/// Largest difference of a logit that rounding explains.
pub(super) const TOLERANCE: f32 = 1e-3;

/// Tokens of the check; more than once over the vocabulary's size apart.
const TOKENS: [u32; 21] = [3, 1, 41, 5, 9, 26, 53, 58, 9, 7, 9, 32, 38, 46, 2, 64, 33, 8, 0, 66, 27];

/// Runs a small model on `ops`, as a whole and token by token; the largest difference of its logits from those of the
/// plain interpreter. `bring` takes parameters to the machine.
///
/// # Errors
/// Those of the machine, and [`Error::SelfCheck`] where it differs by more than `tolerance`.
pub(super) async fn check<O>(
    ops: &mut O,
    tolerance: f32,
    bring: impl Fn(&mut O, &ModelConfig, &Weights<cpu::Weight>) -> Result<Weights<O::Weight>>,
) -> Result<f32>
where
    O: Remember,
    Error: From<O::Error>,
{
    let config = made_up::tiny();
    let plain = made_up::weights(&config);
    let expected = expected(&plain)?;
    let weights = bring(ops, &config, &plain)?;
    let batch = Batch { ids: &TOKENS, sequences: 1, context: TOKENS.len() };
    let h = forward(&config, &weights, ops, &batch, Pass::FULL)?;
    let logits = model::logits(&config, &weights, ops, &h)?;
    let mut worst = difference(&ops.read(&logits).await?, &expected);
    let mut session = Session::new(&config, &weights, ops, TOKENS.len());
    let mut greedy = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() })?;
    let (prompt, steps) = TOKENS.split_at(13);
    session.prefill(prompt).await?;
    for (i, &id) in (prompt.len()..).zip(steps) {
        session.step(id)?;
        let row = &expected[i * config.vocab_size..(i + 1) * config.vocab_size];
        let logits = session.logits().await?;
        worst = worst.max(difference(&logits, row));
        let (found, own) = (session.sample(&mut greedy).await?, greedy.sample(&logits)?);
        if found != own {
            return Err(Error::SelfCheck { found: format!("token {found} where its own logits say {own}") });
        }
    }
    // Not a number is not within either.
    if worst <= tolerance {
        return Ok(worst);
    }
    Err(Error::SelfCheck { found: format!("logits that differ by {worst}") })
}

/// Logits of every token by the plain interpreter.
fn expected(weights: &Weights<cpu::Weight>) -> Result<Vec<f32>> {
    let config = made_up::tiny();
    let weights = weights.map(cpu::Weight::to_dense);
    let mut ops = cpu::Reference::new();
    let h = forward(&config, &weights, &mut ops, &Batch::new(&TOKENS, 1), Pass::FULL)?;
    let logits = model::logits(&config, &weights, &mut ops, &h)?;
    Ok(logits.data)
}

/// The largest difference; NaN where there is one.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let worse = |worst: f32, (f, e): (&f32, &f32)| if (f - e).abs() <= worst { worst } else { (f - e).abs() };
    found.iter().zip(expected).fold(0.0, worse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Fast, Int8, Weight};
    use crate::now;

    #[test]
    fn the_fast_interpreter_passes() {
        let worst = now(check(&mut Fast::new(1).unwrap(), TOLERANCE, |_, _, w| Ok(w.clone()))).unwrap();
        assert!(worst > 0.0 && worst < 1e-4, "{worst}");
        let error = now(check(&mut Fast::new(1).unwrap(), worst / 2.0, |_, _, w| Ok(w.clone()))).unwrap_err();
        assert!(matches!(error, Error::SelfCheck { .. }), "{error}");
    }

    #[test]
    fn wrong_numbers_fail() {
        let spoilt = |w: &Weight| match w {
            Weight::Int8(w) => {
                let mut codes = w.codes();
                *codes.last_mut().unwrap() ^= 64;
                let shape = [w.scales().len(), codes.len() / w.scales().len()];
                Weight::Int8(Int8::new(shape, &codes, w.scales().to_vec(), w.columns().to_vec()))
            }
            dense => dense.clone(),
        };
        let error = now(check(&mut Fast::new(1).unwrap(), TOLERANCE, |_, _, w| Ok(w.map(spoilt)))).unwrap_err();
        assert!(matches!(error, Error::SelfCheck { .. }), "{error}");
        let not_numbers = |w: &Weight| match w {
            Weight::Int8(w) => {
                let (codes, rows) = (w.codes(), w.scales().len());
                Weight::Int8(Int8::new([rows, codes.len() / rows], &codes, vec![f32::NAN; rows], Vec::new()))
            }
            dense => dense.clone(),
        };
        assert!(now(check(&mut Fast::new(1).unwrap(), TOLERANCE, |_, _, w| Ok(w.map(not_numbers)))).is_err());
    }
}
