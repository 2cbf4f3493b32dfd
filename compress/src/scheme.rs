//! How the steps of a matrix are chosen.

use std::fmt;
use std::str::FromStr;

use half::f16;

use crate::{Error, Matrix, Result};

/// A rule for the steps of quantised matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Scheme {
    /// That of openai/parameter-golf pull request 1285: five clip quantiles per row, and a fixed floor of the clip at
    /// 1.0, so that no step is below `1/q_max`. Trained rows stay below 1.0, so the floor decides nearly all of them.
    /// Each quantile is a candidate: GPTQ runs for every one of them and the least mean squared error wins.
    #[default]
    Reference,
    /// That of pull request 1394: steps in proportion to the standard deviation of each row.
    SdClip(SdClip),
    /// Steps by what an error costs, with one rate–distortion slope for the whole model.
    Rd(Rd),
}

/// The clip of SDClip in standard deviations of a row, `k`: a step is `k · std(row) / q_max`. With a target it is the
/// ratio of these that stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SdClip {
    /// Of attention matrices, in int6.
    pub attention: f64,
    /// Of MLP matrices, in int6.
    pub mlp: f64,
    /// Of the embedding tables, in int8.
    pub embedding: f64,
}

impl Default for SdClip {
    /// The values of pull request 1394.
    fn default() -> Self {
        Self { attention: 12.85, mlp: 12.85, embedding: 20.0 }
    }
}

/// Rate–distortion quantisation: an error `e` in weight `i, j` costs `½ g_i e² / d_j²` nats a token, with `g_i` the
/// mean square of the loss gradient at output `i` and `d_j` as [`crate::gptq::Prepared::noise`] has it. A step `s` makes
/// errors of `s² / 12` and every halving of it costs a bit, so that bits are spent best where `s ∝ d_j / √g_i`, with one
/// constant for the whole model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rd {
    /// Rise of the loss to be expected, in nats a token, where there is no target.
    pub loss: f64,
    /// Whether codes are paths of the trellis.
    pub trellis: bool,
    /// Weight of a code's bits when it is chosen; see [`crate::gptq::Grid::rate`].
    pub rate: f32,
}

impl Default for Rd {
    fn default() -> Self {
        Self { loss: 0.01, trellis: true, rate: 0.0 }
    }
}

impl Scheme {
    /// The name in `--scheme` and in an artifact's provenance.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::SdClip(_) => "sdclip",
            Self::Rd(_) => "rd",
        }
    }

    /// Every scheme with its defaults, in the order they were added.
    pub fn all() -> [Self; 3] {
        [Self::Reference, Self::SdClip(SdClip::default()), Self::Rd(Rd::default())]
    }

    /// The candidates for the steps `[rows]` of `w`, without repetition.
    ///
    /// # Errors
    /// [`Error::StepTooLarge`] if a step does not fit f16; [`Error::WholeModel`] for a scheme that needs to know more
    /// than a matrix.
    pub fn matrix_steps(self, w: &Matrix<'_>, q_max: u8) -> Result<Vec<Vec<f16>>> {
        if self != Self::Reference {
            return Err(Error::WholeModel { scheme: self.name() });
        }
        let mut candidates: Vec<Vec<f16>> = Vec::new();
        for quantile in [0.999, 0.9995, 0.9999, 0.99999, 1.0] {
            let steps = clipped_steps(w, q_max, quantile)?;
            let steps = steps.into_iter().map(|(_, step)| f16::from_f32(step)).collect();
            // Where the floor decides every row, all quantiles agree and one pass is enough.
            if !candidates.contains(&steps) {
                candidates.push(steps);
            }
        }
        Ok(candidates)
    }

    /// Clip and step of each row of an embedding table.
    ///
    /// # Errors
    /// As [`Scheme::matrix_steps`].
    pub(crate) fn table_steps(self, w: &Matrix<'_>, q_max: u8) -> Result<Vec<(f32, f32)>> {
        match self {
            Self::Reference => clipped_steps(w, q_max, 0.999_998_4),
            _ => Err(Error::WholeModel { scheme: self.name() }),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scheme {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::all().into_iter().find(|s| s.name() == name).ok_or_else(|| Error::UnknownScheme {
            expected: format!("one of {:?}", Self::all().map(Self::name)),
            found: name.to_owned(),
        })
    }
}

/// For each row: its clip, the quantile of its magnitudes, and the step `max(clip/q_max, 1/q_max)` before f16.
fn clipped_steps(w: &Matrix<'_>, q_max: u8, quantile: f32) -> Result<Vec<(f32, f32)>> {
    let q_max = f32::from(q_max);
    let mut magnitudes = Vec::with_capacity(w.cols());
    let rows = w.iter_rows().enumerate().map(|(row, values)| {
        magnitudes.clear();
        magnitudes.extend(values.iter().map(|x| x.abs()));
        let clip = linear_quantile(&mut magnitudes, quantile);
        let step = (clip / q_max).max(1.0 / q_max);
        if f16::from_f32(step).is_finite() {
            Ok((clip, step))
        } else {
            Err(Error::StepTooLarge { tensor: w.name().to_owned(), row, clip, step })
        }
    });
    rows.collect()
}

/// The `q` quantile of `values` (finite, at least one; they are reordered) with linear interpolation between
/// neighbours. As `torch.quantile` has it: `q` itself is f32, its rank is exact, and the interpolation is f32 again;
/// with the rank in f32 or `q` in f64 some steps differ from the reference's in their last bit.
fn linear_quantile(values: &mut [f32], q: f32) -> f32 {
    let rank = f64::from(q) * (values.len() - 1) as f64;
    let below = rank as usize;
    let weight = (rank - below as f64) as f32;
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f32::total_cmp);
    let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    // The form that is exact at the nearer end.
    if weight < 0.5 { low + weight * (high - low) } else { high - (high - low) * (1.0 - weight) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        let quantile = |values: &[f32], q| linear_quantile(&mut values.to_vec(), q);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 1.0), 3.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.0), 1.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.75), 2.5);
        assert_eq!(quantile(&[7.0], 0.999), 7.0);
        assert_eq!(quantile(&[0.0, 0.0, 0.0, 0.0, 8.0], 0.9375), 6.0);
    }

    #[test]
    fn the_floor_makes_all_candidates_one() {
        let small = vec![0.9f32; 64];
        let w = Matrix::new("small", [2, 32], &small).unwrap();
        let steps = Scheme::Reference.matrix_steps(&w, 31).unwrap();
        assert_eq!(steps, [vec![f16::from_f32(1.0 / 31.0); 2]]);
        let large: Vec<f32> = (0..64).map(|i| i as f32).collect();
        let w = Matrix::new("large", [2, 32], &large).unwrap();
        let steps = Scheme::Reference.matrix_steps(&w, 31).unwrap();
        assert!(steps.len() > 1, "clips above the floor differ");
        assert_eq!(steps.last().unwrap()[0], f16::ONE);
    }

    #[test]
    fn a_step_beyond_f16_names_its_row() {
        let values = [1.0, 1.0, 1.0, 3e7];
        let w = Matrix::new("w", [2, 2], &values).unwrap();
        let message = Scheme::Reference.matrix_steps(&w, 31).unwrap_err().to_string();
        assert!(message.contains("`w`: row 1"), "{message}");
    }

    #[test]
    fn names_round_trip() {
        for scheme in Scheme::all() {
            assert_eq!(scheme.name().parse::<Scheme>().unwrap(), scheme);
        }
        assert!("sharp".parse::<Scheme>().unwrap_err().to_string().contains("reference"));
    }
}
