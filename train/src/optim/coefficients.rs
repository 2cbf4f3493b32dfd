//! The odd quintics of Newton–Schulz iterations: `X ← aX + (bA + cA²)X`, `A = XXᵀ`, is `σ ← aσ + bσ³ + cσ⁵` on every
//! singular value. Three choices of (a, b, c), which differ in how close to 1 the values come, and from how far below.

use serde::{Deserialize, Serialize};

use super::fit;
use crate::{Error, Result};

/// Muon's own: every value into about [0.7, 1.2] in five iterations, for speed rather than convergence to 1.
const CONSTANT: [f64; 3] = [3.4445, -4.775, 2.0315];

/// Polar Express (arXiv 2505.16932) for five iterations, with the safety factor of 1.02 and the cushion of 0.02 of
/// karpathy/nanochat, whose table this is.
const POLAR_EXPRESS: [[f64; 3]; 5] = [
    [8.156554524902461, -22.48329292557795, 15.878769915207462],
    [4.042929935166739, -2.808917465908714, 0.5000178451051316],
    [3.8916678022926607, -2.772484153217685, 0.5060648178503393],
    [3.285753657755655, -2.3681294933425376, 0.46449024233003106],
    [2.3465413258596377, -1.7097828382687081, 0.42323551169305323],
];

/// Which quintics the iterations use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coefficients {
    /// The same triple in every iteration, as many as one likes.
    Constant,
    /// The k-th iteration has the k-th of five triples, made for five; fewer are the first of them.
    PolarExpress,
    /// Triples fitted for this very number of iterations, up to [`fit::MOST`]: see [`fit::minimax`].
    Fitted,
}

impl Coefficients {
    /// (a, b, c) of each of so many iterations.
    ///
    /// # Errors
    /// If there are none for so many: a table never stands for more iterations than it has entries.
    pub fn triples(self, steps: usize) -> Result<Vec<[f64; 3]>> {
        let (most, instead) = match self {
            Self::Constant => (100, String::new()),
            Self::PolarExpress => (
                POLAR_EXPRESS.len(),
                format!(
                    ", the length of the table of coefficients \"polar-express\"; \"fitted\" has up to {}, \
                     \"constant\" any number",
                    fit::MOST
                ),
            ),
            Self::Fitted => {
                (fit::MOST, ", as many as coefficients \"fitted\" are made for; \"constant\" has any number".to_owned())
            }
        };
        if !(1..=most).contains(&steps) {
            let key = "optimizer.matrix.newton_schulz_steps";
            return Err(Error::recipe(key, format!("1 to {most}{instead}"), steps.to_string()));
        }
        Ok(match self {
            Self::Constant => vec![CONSTANT; steps],
            Self::PolarExpress => POLAR_EXPRESS[..steps].to_vec(),
            Self::Fitted => fit::minimax(steps).triples,
        })
    }

    /// How a matrix `U` is scaled before the first iteration: by `1 / (factor · ‖U‖_F + epsilon)`. Quintics made for
    /// values up to 1 grow fast above it, so theirs leaves room for rounding.
    pub(super) fn scale(self) -> (f64, f64) {
        match self {
            Self::Constant => (1.0, 1e-7),
            Self::PolarExpress | Self::Fitted => (1.02, 1e-6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_is_stretched_or_capped() {
        for (coefficients, most) in
            [(Coefficients::PolarExpress, 5), (Coefficients::Fitted, fit::MOST), (Coefficients::Constant, 100)]
        {
            for steps in 1..=most {
                assert_eq!(coefficients.triples(steps).unwrap().len(), steps);
            }
            assert!(coefficients.triples(0).is_err() && coefficients.triples(most + 1).is_err());
        }
        assert_eq!(
            Coefficients::PolarExpress.triples(7).unwrap_err().to_string(),
            "recipe key `optimizer.matrix.newton_schulz_steps`: expected 1 to 5, the length of the table of \
             coefficients \"polar-express\"; \"fitted\" has up to 7, \"constant\" any number, found 7"
        );
    }
}
