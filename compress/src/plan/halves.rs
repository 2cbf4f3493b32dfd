//! Tensors that stay in f16, with as many bits of their mantissas as their errors are worth.

use std::borrow::Cow;

use half::f16;
use sixpack_formats::TensorSpec;

use crate::{Error, Result};

/// Finest rounding: all ten bits of an f16's mantissa.
const MANTISSA: i32 = 10;
/// Bits of a mantissa that are always kept.
const LEAST: i32 = 2;

/// A tensor of halves.
pub(crate) struct Halves<'a> {
    values: Cow<'a, [f32]>,
    /// `f`: an error `e` in an element costs `½ f e²`. `None` keeps all bits.
    costs: Option<Vec<f64>>,
}

impl<'a> Halves<'a> {
    /// # Errors
    /// [`Error::NotHalf`] for a value that f16 cannot hold.
    pub(crate) fn new(spec: &TensorSpec, values: Cow<'a, [f32]>, costs: Option<Vec<f64>>) -> Result<Self> {
        match values.iter().position(|&x| !f16::from_f32(x).is_finite()) {
            Some(index) => Err(Error::NotHalf { tensor: spec.name(), index, found: values[index] }),
            None => Ok(Self { values, costs }),
        }
    }

    /// The values as kept. At a knob `c` an element's step is the power of two below `c / √f`, within what f16 has.
    pub(crate) fn round(&self, knob: f64) -> Vec<f16> {
        let Some(costs) = &self.costs else { return self.values.iter().map(|&x| f16::from_f32(x)).collect() };
        let round = |(&x, &f): (&f32, &f64)| {
            let own = f64::from(x).abs().log2().floor();
            if !own.is_finite() {
                return f16::ZERO;
            }
            let wanted = if f > 0.0 { (knob / f.sqrt()).log2().floor() } else { f64::INFINITY };
            let log2 = wanted.clamp(own - f64::from(MANTISSA), own - f64::from(LEAST)).max(-24.0);
            let step = log2.exp2();
            f16::from_f64((f64::from(x) / step).round_ties_even() * step)
        };
        self.values.iter().zip(costs).map(round).collect()
    }

    /// What `rounded` costs: `½ Σ f e²`.
    pub(crate) fn cost(&self, rounded: &[f16]) -> Option<f64> {
        let errors = self.values.iter().zip(rounded).map(|(&x, r)| f64::from(x - r.to_f32()).powi(2));
        Some(0.5 * self.costs.as_ref()?.iter().zip(errors).map(|(f, e)| f * e).sum::<f64>())
    }

    /// Mean of `(w − ŵ)²`.
    pub(crate) fn mean_squared_error(&self, rounded: &[f16]) -> f64 {
        let errors = self.values.iter().zip(rounded).map(|(&x, r)| f64::from(x - r.to_f32()).powi(2));
        errors.sum::<f64>() / self.values.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use sixpack_formats::ModelConfig;

    use super::*;

    fn halves(values: &[f32], costs: Option<Vec<f64>>) -> Result<Halves<'_>> {
        Halves::new(&ModelConfig::record().tensors()[5], Cow::Borrowed(values), costs)
    }

    #[test]
    fn mantissas_are_as_long_as_they_are_worth() {
        let values = [1.0 / 3.0, -1.0 / 3.0, 0.0, 1000.0];
        let exact = halves(&values, None).unwrap().round(1.0);
        assert!(exact.iter().zip(values).all(|(h, x)| *h == f16::from_f32(x)));
        let plan = halves(&values, Some(vec![1.0, 100.0, 1.0, 0.0])).unwrap();
        let rounded: Vec<f32> = plan.round(0.1).iter().map(|h| h.to_f32()).collect();
        // Steps 1/16, 1/128, none, and two bits after the leading one.
        assert_eq!(rounded, [0.3125, -0.3359375, 0.0, 1024.0]);
        assert!(plan.cost(&plan.round(0.1)).unwrap() > plan.cost(&plan.round(0.01)).unwrap());
        assert!(matches!(halves(&[0.0, 1e6], None), Err(Error::NotHalf { index: 1, .. })));
    }
}
